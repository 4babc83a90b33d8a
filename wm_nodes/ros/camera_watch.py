"""Watches the images of one camera in real time: silence, frozen images, wrong stamps."""

from __future__ import annotations

import time
from typing import Any

from rclpy.timer import Timer

from wm_nodes.records import Image
from wm_nodes.robots.cameras.preprocess import Liveness
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.stamps import StampWatch

CHECK_S = 0.1


class CameraWatch:
    """Reports faults `camera` and `camera_clock`; of several cameras in one node, `named`, each has
    faults `camera/NAME` and `camera_clock/NAME`.

    stale_s, frozen_s: a camera without a new image, or with the same image, for longer is faulty
    [s]; 0: never. Checks between `start` and `stop`.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        camera: str,
        stale_s: float,
        frozen_s: float,
        *,
        named: bool = False,
    ) -> None:
        self._node, self._fault, self._name = node, "camera", ""
        if named:
            self._fault, self._name = f"camera/{camera}", f"{camera}: "
        self._liveness = Liveness(stale_s, frozen_s)
        self._stamps = StampWatch(node, camera, named=named)
        self._timer: Timer | None = None

    def start(self) -> None:
        self._timer = self._node.create_timer(CHECK_S, self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def check_stamp(self, stamp_ns: int) -> None:
        """Report a stamp that is out of range; the image is used all the same."""
        self._stamps.report(stamp_ns)

    def record(self, image: Image) -> None:
        """An image (H, W, 3) has been received."""
        self._liveness.saw(image, time.perf_counter())

    def _check(self) -> None:
        fault = self._liveness.fault(time.perf_counter())
        if fault:
            self._node.report_fault(self._fault, self._name + fault, error=True)
        else:
            self._node.clear_fault(self._fault, f"{self._name}the camera sends new images again")
