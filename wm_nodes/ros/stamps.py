"""Stamps of images by this computer's clock: which cannot be times of capture."""

from __future__ import annotations

from collections import Counter
from typing import Any

from wm_nodes.ros.messages import SECOND_NS
from wm_nodes.ros.node import ManagedNode

FUTURE_S, OLDEST_S = 0.1, 10.0  # ages of stamps beyond these come from another clock
ZERO, OLD, FUTURE = "zero", "old", "future"


def wrong_stamp(stamp_ns: int, age_s: float) -> str:
    """Return why a stamp of this age is no time of capture: zero, old, future; "": it may be."""
    if stamp_ns == 0:
        return ZERO
    if age_s > OLDEST_S:
        return OLD
    return FUTURE if age_s < -FUTURE_S else ""


class StampWatch:
    """Counts stamps of one camera that are out of range, as facts `stamps/<camera>/<reason>`."""

    def __init__(self, node: ManagedNode[Any], camera: str, *, named: bool = False) -> None:
        """named: put the camera's name into that of the fault."""
        self._node, self._camera = node, camera
        self._fault = f"camera_clock/{camera}" if named else "camera_clock"
        self._counts: Counter[str] = Counter()
        self.age_s = 0.0  # of the newest stamp
        self.text = ""  # what is wrong with it

    def right(self, stamp_ns: int, remedy: str) -> bool:
        """Return whether an image that has come now may have been taken then."""
        now_ns = int(self._node.get_clock().now().nanoseconds)
        self.age_s = (now_ns - stamp_ns) / SECOND_NS
        reason = wrong_stamp(stamp_ns, self.age_s)
        if not reason:
            self.text = ""
            return True
        self._counts[reason] += 1
        self._node.diagnostics.facts[f"stamps/{self._camera}/{reason}"] = self._counts[reason]
        age = f"{self.age_s:.1f} s old" if self.age_s > 0 else f"{-self.age_s:.1f} s in the future"
        what = "0" if reason == ZERO else age
        self.text = (
            f"camera {self._camera}: got stamps {what} by this computer's clock, expected 0 to "
            f"{OLDEST_S:.0f} s old. {remedy}"
        )
        return False

    def report(self, stamp_ns: int) -> None:
        """Report a stamp out of range as fault `camera_clock`; the image is used all the same."""
        if self.right(stamp_ns, "Synchronise the clocks (chrony, PTP), or correct its driver."):
            self._node.clear_fault(self._fault, f"stamps of camera {self._camera} are right again")
        else:
            self._node.report_fault(self._fault, self.text)
