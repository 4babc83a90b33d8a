"""The simulated arm's controller: what a controller box does with commands.

Free of ROS: node `arm_sim` puts it on topics in real time, `SimDriver` runs it in simulated time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sim.faults import Faults
from wm_nodes.robots.arm.sim.scene import STEP_S, ArmWorld
from wm_nodes.robots.arm.sim.sensors import Sensors

SANE = 100.0  # rad, rad/s: commands beyond it are refused


@dataclass
class _Pending:
    due_s: float
    kind: str
    value: Floats


@dataclass
class Controller:
    """Follows positions, velocities, trajectories or twists, one kind at a time.

    `sensors`: what the arm, its cameras and its force-torque sensor report.
    """

    world: ArmWorld
    faults: Faults = field(default_factory=Faults)
    seed: int = 0

    def __post_init__(self) -> None:
        config = self.world.config
        self.sensors = Sensors(self.world, self.faults, self.seed)
        self._arm = config.arm_joints
        self._target = self.world.positions()
        self._paced = self._target.copy()  # follows the target at the driver's speed scale
        self._lags = False
        self._velocity = np.zeros(len(self._target))
        self._commanded_s = -np.inf
        self._queue: deque[_Pending] = deque()
        self._points: deque[tuple[float, Floats]] = deque()
        self._grip_points: deque[tuple[float, Floats]] = deque()
        self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)
        self.refused = 0

    # Commands -----------------------------------------------------------------------------------

    def command(self, kind: str, value: npt.ArrayLike) -> None:
        """Take a command: position, velocity (arm joints), gripper (1,), twist (6,).

        A value that is mis-shaped, not finite or huge is refused and counted.
        """
        sizes = {"position": self._arm, "velocity": self._arm, "gripper": 1, "twist": 6}
        array = np.asarray(value, np.float64)
        if array.shape != (sizes[kind],) or not (np.abs(array) < SANE).all():
            self.refused += 1
            return
        due = self.world.time_s + self.faults.actuation_delay_s
        self._queue.append(_Pending(due, kind, array))

    def trajectory(
        self, points: list[tuple[float, npt.ArrayLike]], *, gripper: bool = False
    ) -> None:
        """Take a trajectory: (seconds from now, positions), replacing the last of the same joints.

        Positions are of the arm's joints, or (1,) of the gripper's.

        It is refused as a whole and counted if it is empty, if its times do not strictly increase,
        or if its positions are mis-shaped, not finite or huge.
        """
        start = self.world.time_s + self.faults.actuation_delay_s
        taken = [(start + due, np.asarray(place, np.float64)) for due, place in points]
        joints = slice(self._arm, None) if gripper else slice(self._arm)
        here = self._target[joints]
        wrong = any(p.shape != here.shape or not (np.abs(p) < SANE).all() for _, p in taken)
        if not taken or wrong or min(np.diff([due for due, _ in taken]), default=1.0) <= 0:
            self.refused += 1
            return
        now = self.world.time_s
        if not self._ignores:
            whole = deque([(now, here.copy()), *taken])
            if gripper:
                self._grip_points = whole
            else:
                self._points = whole

    def advance(self, seconds: float) -> None:
        """Let simulated time pass."""
        end = self.world.time_s + seconds - STEP_S / 2
        while self.world.time_s < end:
            self._take_commands()
            self._pace()
            self.world.advance(self._paced)
            self.sensors.record()

    @property
    def _ignores(self) -> bool:
        faults = self.faults
        return faults.driver_dead or faults.protective_stop or faults.controller_inactive

    def _pace(self) -> None:
        """Follow the target at the driver's speed scale; at once where it never was slowed."""
        scale, n = self.faults.driver_speed_scale, self._arm
        self._paced[n:] = self._target[n:]
        most = scale * self.world.config.limits.velocity[:n] * STEP_S
        way = (self._target - self._paced)[:n]
        self._lags = scale < 1.0 or (self._lags and bool((np.abs(way) > most).any()))
        self._paced[:n] += np.clip(way, -most, most) if self._lags else way

    def _take_commands(self) -> None:
        now, faults = self.world.time_s, self.faults
        ignores = self._ignores
        while self._queue and self._queue[0].due_s <= now + 1e-9:
            pending = self._queue.popleft()
            if not ignores:
                self._take(pending, now)
        if ignores:
            self._hold()
            return
        if faults.velocity_timeout_s and now - self._commanded_s > faults.velocity_timeout_s:
            self._velocity[:] = 0.0
        if faults.driver_speed_scale < 1.0:
            most = faults.driver_speed_scale * self.world.config.limits.velocity[: self._arm]
            self._velocity[: self._arm] = np.clip(self._velocity[: self._arm], -most, most)
        self._target[: self._arm] += self._velocity[: self._arm] * STEP_S
        if self._points:
            self._target[: self._arm] = _along(self._points, now)
        if self._grip_points:
            self._target[self._arm :] = _along(self._grip_points, now)

    def _take(self, pending: _Pending, now: float) -> None:
        n = self._arm
        if pending.kind == "gripper":
            self._grip_points.clear()
            self._target[n:] = pending.value
            return
        self._commanded_s = now
        self._points.clear()
        if pending.kind == "position":
            self._velocity[:] = 0.0
            self._target[:n] = pending.value
        elif pending.kind == "velocity":
            self._velocity[:n] = pending.value
        else:
            self._velocity[:n] = self._from_twist(pending.value)

    def _from_twist(self, twist: Floats) -> Floats:
        return self._kinematics.follow(self._target, twist, self._arm)

    def _hold(self) -> None:
        """Brakes on: the arm stays where it is, whatever was commanded."""
        if self._velocity.any() or self._points or not np.isclose(self._commanded_s, -np.inf):
            self._target[: self._arm] = self.world.positions()[: self._arm]
            self._paced[: self._arm] = self._target[: self._arm]
            self._velocity[:] = 0.0
            self._points.clear()
            self._commanded_s = -np.inf


def _along(points: deque[tuple[float, Floats]], now: float) -> Floats:
    """Return where a trajectory is now, on straight lines between its points."""
    while len(points) > 1 and points[1][0] <= now:
        points.popleft()
    start, here = points[0]
    if len(points) == 1:
        return here
    end, there = points[1]
    share = (now - start) / max(end - start, 1e-9)
    return here + min(max(share, 0.0), 1.0) * (there - here)
