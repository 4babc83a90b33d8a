"""A force-torque sensor: which readings are usable, and when they stop the arm.

Forces and torques are those that the sensor's driver gives, in the sensor's frame: its bias and the
weight of the tool are in them unless the driver removes them. A sensor may be faster than the
control loop: each reading carries the largest force and torque since the loop checked one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import numpy.typing as npt

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.config.sections import ForceTorqueSection
from wm_nodes.robots.arm.safety.limits import Floats

NAMES = ("force_x", "force_y", "force_z", "torque_x", "torque_y", "torque_z")
UNITS = ("N", "N", "N", "Nm", "Nm", "Nm")
LARGEST = 1e6  # N, Nm: no sensor measures that
FUTURE_S, OLDEST_S = 0.1, 10.0  # ages of stamps beyond these come from another clock
STOP = "force_torque"  # name of the stop while the sensor is silent
LATCH = "force"  # name of the latch beyond a limit
PAUSE_S = 1.0  # peaks of a longer time in which nothing was checked do not count: the loop was off


@dataclass(frozen=True)
class WrenchReading:
    """Force [N] and torque [Nm], (6,) as in NAMES. taken_s: when, by the steady clock [s].

    peak_force_n, peak_torque_nm: largest norms since a reading was checked. checked: set once this
    one was, so that the next one carries its own norms only.
    """

    values: Floats
    taken_s: float
    number: int
    peak_force_n: float
    peak_torque_nm: float
    checked: Event = field(default_factory=Event, compare=False)


class WrenchReadings:
    """Takes in messages. `newest`: the last one that can be used; `wrong`: why the last one of all
    cannot, or ""; `refused`: how many were not used, by reason.

    One thread calls `take`; any thread reads `newest`, which is replaced as a whole.
    """

    def __init__(self, section: ForceTorqueSection) -> None:
        self._section = section
        self.newest: WrenchReading | None = None
        self.wrong = ""
        self.refused: Counter[str] = Counter()

    def take(self, values: npt.ArrayLike, frame: str, came_s: float, age_s: float) -> None:
        """Take in one message: values (6,), its frame_id, its arrival and its age by stamp [s].

        Raises MessageError if it cannot be used: not finite, huge, of another frame, or with a
        stamp of another clock.
        """
        try:
            self.newest = self._checked(np.asarray(values, np.float64), frame, came_s, age_s)
            self.wrong = ""
        except MessageError as error:
            self.wrong = str(error)
            self.refused[error.reason] += 1
            raise

    def _checked(self, values: Floats, frame: str, came_s: float, age_s: float) -> WrenchReading:
        section, what = self._section, f"force-torque sensor on {self._section.topic}"
        if values.shape != (6,) or not (np.abs(values) < LARGEST).all():
            raise MessageError(
                "non-finite",
                f"{what}: got {values.tolist()}, expected 6 finite numbers below {LARGEST:.0e} N, "
                "Nm. Check the sensor's driver.",
            )
        if section.frame and frame != section.frame:
            raise MessageError(
                "frame_id",
                f"{what}: got the frame {frame!r}, expected {section.frame!r}. Correct `frame:` of "
                "`force_torque:` in the robot's YAML, or the sensor's driver.",
            )
        if section.stamps == "arrival":
            age_s = 0.0
        elif not -FUTURE_S <= age_s <= OLDEST_S:
            raise MessageError(
                "stamp",
                f"{what}: got a stamp {age_s:.1f} s old by this computer's clock, expected 0 to "
                f"{OLDEST_S:.0f} s. Synchronise the clocks (chrony, PTP), or set `stamps: arrival` "
                "of `force_torque:` in the robot's YAML.",
            )
        taken_s, number = came_s - max(age_s, 0.0), 0
        force, torque = _norms(values)
        last = self.newest
        if last is not None:
            taken_s, number = max(taken_s, last.taken_s), last.number + 1
            if not last.checked.is_set():
                force, torque = max(force, last.peak_force_n), max(torque, last.peak_torque_nm)
        return WrenchReading(values.copy(), taken_s, number, force, torque)


class ForceWatch:
    """Decides by the newest reading, and its peaks, whether the arm may move."""

    def __init__(self, section: ForceTorqueSection) -> None:
        self._section = section
        self.newest: WrenchReading | None = None
        self._last_checked: WrenchReading | None = None
        self._peaks = (0.0, 0.0)  # N, Nm: of that reading

    def silent(self, now_s: float) -> bool:
        """Is there no reading, or only one older than `timeout_s`?"""
        if self.newest is None:
            return True
        return not 0 <= now_s - self.newest.taken_s <= self._section.timeout_s

    def excess(self) -> str:
        """Return what is beyond its limit, or was since the reading checked before, or ""."""
        reading, last = self.newest, self._last_checked
        if reading is None:
            return ""
        if reading is not last:
            self._peaks = reading.peak_force_n, reading.peak_torque_nm
            if last is None or reading.taken_s - last.taken_s > PAUSE_S:
                self._peaks = _norms(reading.values)
            self._last_checked = reading
            reading.checked.set()
        force, torque = self._peaks
        most_n, most_nm = self._section.max_force_n, self._section.max_torque_nm
        if most_n and force > most_n:
            return f"the force is {force:.1f} N, beyond {most_n:g} N"
        if most_nm and torque > most_nm:
            return f"the torque is {torque:.2f} Nm, beyond {most_nm:g} Nm"
        return ""


def _norms(values: Floats) -> tuple[float, float]:
    """Return the lengths of the force [N] and the torque [Nm] of values (6,)."""
    force, torque = np.linalg.norm(values.reshape(2, 3), axis=1).tolist()
    return force, torque
