"""The last gate before the driver: each command is compared with the last one and with the arm.

It does not depend on how a command was computed: no filter, no plan, no state. A command beyond one
period's reach is not sent.
"""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.safety.limits import ArmLimits, Floats
from wm_nodes.robots.arm.safety.safety_filter import LATE, POSITIONS, Setpoint

ROUNDING = 1e-6  # share of a limit
FAR = 2.0  # times tracking_rad: the watchdog that latches at tracking_rad takes a moment


class CommandGate:
    """Checks the commands of one interface before they are sent, each against the last one sent.

    Call `sent` for each command that is sent, `restart` when the path begins where the arm is.

    tracking_rad: lag of the arm at which the watchdog latches [rad]; commands twice as far from the
    measured position are refused. 0: not compared.
    """

    def __init__(
        self,
        limits: ArmLimits,
        period_s: float,
        interface: str,
        arm_joints: int,
        tracking_rad: float,
    ) -> None:
        self._limits, self._period_s, self._arm = limits, period_s, arm_joints
        self._interface, self._tracking_rad = interface, tracking_rad
        self.restart()

    def restart(self) -> None:
        """The next command is compared with the measured position alone."""
        self._last: Setpoint | None = None
        self._last_s = -np.inf

    def refuse(self, setpoint: Setpoint, measured: Floats, now_s: float) -> str:
        """Return why the command must not be sent, "" if it may be.

        measured: position (n,) [rad]; now_s: steady time [s].
        """
        gap_s = self._period_s if self._last is None else max(now_s - self._last_s, 0.0)
        if self._interface != "trajectory":  # such a driver moves on by itself
            gap_s = min(gap_s, LATE * self._period_s)
        return self._wrong(setpoint, measured, gap_s * (1.0 + ROUNDING))

    def sent(self, setpoint: Setpoint, now_s: float) -> None:
        """The command was sent at `now_s`: the next one is compared with it."""
        self._last, self._last_s = setpoint, now_s

    def _wrong(self, new: Setpoint, measured: Floats, gap_s: float) -> str:
        last, limits = self._last, self._limits
        if not np.isfinite(np.concatenate([new.position, new.velocity])).all():
            return "command: got a value that is not finite"
        reach = limits.velocity * gap_s
        if self._interface in POSITIONS:
            if self._tracking_rad or last is None:
                room = reach if last is None else reach + FAR * self._tracking_rad
                off = np.abs(new.position - measured)[: self._arm]
                if (off > room[: self._arm]).any():
                    return self._text("position", off, "from the measured arm")
            if last is not None and ((off := np.abs(new.position - last.position)) > reach).any():
                return self._text("position", off, "from the last command")
            return ""
        speed, before = new.velocity, np.zeros_like(reach) if last is None else last.velocity
        if (np.abs(speed) > limits.velocity * (1.0 + ROUNDING)).any():
            return self._text("velocity", np.abs(speed), "from rest")
        braking = (np.abs(speed) <= np.abs(before)) & (speed * before >= 0.0)
        if ((np.abs(speed - before) > limits.acceleration * gap_s) & ~braking).any():
            return self._text("velocity", np.abs(speed - before), "from the last command")
        return ""

    def _text(self, what: str, off: Floats, since: str) -> str:
        joint = self._limits.joints[int(off.argmax())]
        return f"command: {what} of {joint} is {off.max():.3f} {since}, beyond one period's reach"
