"""Check of an arm's motion: each joint moves a little and back, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from wm_nodes.checks.arm_bringup.report import Report
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Driver
from wm_nodes.robots.arm.motion import ArmMotion
from wm_nodes.robots.arm.safety.limits import Floats

TINY_RAD = 0.02
MOVE_S = 2.0
READY_S = 5.0
MEAN_S = 0.3  # time over which measured positions are averaged


class MotionCheck:
    """Moves joints through the safety filter, and reports which one moves, and in which direction.

    spin: lets callbacks of the check's node run. confirm: asks the operator before each joint.
    """

    def __init__(
        self,
        config: ArmConfig,
        driver: Driver,
        report: Report,
        *,
        spin: Callable[[], None],
        confirm: Callable[[str], bool],
    ) -> None:
        self._config, self._driver, self._report = config, driver, report
        self._spin, self._confirm = spin, confirm

    def run(self) -> None:
        """Move one joint after the other there and back."""
        motion = ArmMotion(self._driver, self._config)
        if not self._ready(motion):
            return
        for index, name in enumerate(self._config.limits.joints[: self._config.arm_joints]):
            if not self._confirm(f"move {name} by {TINY_RAD} rad and back?"):
                continue
            before = self._mean_position()
            self._go(motion, index, TINY_RAD)
            moved = self._mean_position() - before
            self._go(motion, index, -TINY_RAD)
            if latched := motion.supervisor.latched:
                why = "; ".join(f"{cause}: {text}" for cause, text in latched.items())
                self._report.check(
                    False, f"{name}: stopped ({why})", "correct the cause, then check again"
                )
                return
            self._report_joint(index, moved)

    def _report_joint(self, index: int, moved: Floats) -> None:
        """Report how the joints moved, (n,) [rad], when one was commanded to move by TINY_RAD."""
        arm, joints = self._config.arm_joints, self._config.limits.joints
        name, most = joints[index], int(np.abs(moved[:arm]).argmax())
        if most != index and abs(moved[most]) > TINY_RAD / 3:
            self._report.check(
                False, f"{name}: {joints[most]} moved instead", "correct the order of joints"
            )
        elif moved[index] < -TINY_RAD / 3:
            self._report.check(
                False, f"{name}: it moved in the wrong direction", "correct the driver's sign"
            )
        else:
            self._report.check(
                moved[index] > TINY_RAD / 3,
                f"{name}: moved by {moved[index]:.4f} of {TINY_RAD} rad",
                "activate the controller, enable the arm, release its brakes",
            )

    def _ready(self, motion: ArmMotion) -> bool:
        """Wait until the driver can be commanded; report the reason if not."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            self._spin()
            motion.sense()
            if motion.ready():
                return True
        faults = ", ".join(motion.supervisor.connection_faults)
        why = faults or "no joint states of an arm that stands still"
        self._report.check(
            False, f"the arm cannot be moved: {why}", "correct that, then check again"
        )
        return False

    def _go(self, motion: ArmMotion, index: int, by: float) -> None:
        """Move one joint by `by` [rad], through the safety filter."""
        target = np.zeros(len(self._config.limits.joints))
        start, end = motion.filter.x[index], time.monotonic() + MOVE_S
        due = time.monotonic()
        while time.monotonic() < end:
            motion.sense()
            target[index] = 2.0 * (start + by - motion.filter.x[index])
            now = time.monotonic()
            motion.command(target, now)
            due = max(due + motion.period_s, now + motion.period_s / 2)
            while time.monotonic() < due:
                self._spin()

    def _mean_position(self) -> Floats:
        """Return joint positions (n,) averaged over MEAN_S."""
        positions: list[Floats] = []
        end = time.monotonic() + MEAN_S
        while time.monotonic() < end:
            self._spin()
            reading = self._driver.joints()
            if reading is not None:
                positions.append(reading.position)
        return np.asarray(np.mean(positions, axis=0))
