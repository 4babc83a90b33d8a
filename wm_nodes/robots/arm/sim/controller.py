"""The simulated arm's driver: what a controller box does with commands, and everything that fails.

Free of ROS: node `arm_sim` puts it on topics in real time, `WorldBus` runs it in simulated time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.sim.scene import STEP_S, ArmWorld, noisy
from wm_nodes.robots.robot import Image

SANE = 100.0  # rad, rad/s: beyond it no command was meant
JOINT_NOISE_RAD, IMAGE_NOISE = 0.0005, 1.5  # encoders and cameras are never perfectly still
TURN = 2.0 * np.pi


@dataclass
class Faults:
    """Everything that can be wrong, all switchable while it runs."""

    joint_noise_rad: float = JOINT_NOISE_RAD  # rad, or m
    image_noise: float = IMAGE_NOISE  # grey levels
    actuation_delay_s: float = 0.0
    camera_dropped: bool = False
    camera_frozen: bool = False
    joint_delay_s: float = 0.0
    driver_dead: bool = False  # no joint states, commands are ignored, the arm holds
    protective_stop: bool = False  # joint states go on, commands are ignored, the arm holds
    wrap_joints: bool = False  # angles are reported in (-pi, pi]
    nan_velocity: bool = False  # velocities (and efforts, on topics) are reported as NaN
    split_states: bool = False  # on topics: arm and gripper joints in messages of their own
    camera_delay_s: float = 0.0  # on topics: images are published so late, with their old stamps
    wrench_dropped: bool = False  # no readings of the force-torque sensor
    wrench_nan: bool = False  # its readings are NaN
    wrench_bias_n: float = 0.0  # added to its force along z
    controller_inactive: bool = False  # joint states go on, commands are dropped, the arm holds
    driver_speed_scale: float = 1.0  # no joint moves faster than this share of its limit; 0: paused
    velocity_timeout_s: float = 0.1  # velocities and twists end so long after one; 0: never


@dataclass
class _Pending:
    due_s: float
    kind: str
    value: Floats


@dataclass
class Driver:
    """Follows positions, velocities, trajectories or twists, one kind at a time."""

    world: ArmWorld
    faults: Faults = field(default_factory=Faults)
    seed: int = 0

    def __post_init__(self) -> None:
        import mujoco

        config = self.world.config
        self._n, self._arm = len(config.limits.joints), config.arm_joints
        kinds = [self.world.model.joint(name).type[0] for name in config.limits.joints]
        self._turns = np.array(kinds) == mujoco.mjtJoint.mjJNT_HINGE
        self._target = self.world.positions()
        self._paced = self._target.copy()  # follows the target at the driver's speed scale
        self._lags = False
        self._velocity = np.zeros(self._n)
        self._commanded_s = -np.inf
        self._queue: deque[_Pending] = deque()
        self._points: deque[tuple[float, Floats]] = deque()
        self._grip_points: deque[tuple[float, Floats]] = deque()
        self._random = np.random.default_rng(self.seed)
        self._kinematics = Kinematics(config.model, config.limits.joints, config.hand)
        self._history: deque[tuple[float, Floats, Floats]] = deque(maxlen=2000)
        self._frozen: dict[str, Image] = {}
        self.refused = 0

    # Commands -----------------------------------------------------------------------------------

    def command(self, kind: str, value: npt.ArrayLike) -> None:
        """Take a command: position, velocity (arm joints), gripper (1,), twist (6,).

        What is mis-shaped, not finite or huge is refused and counted, as good drivers do.
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
        joints = slice(self._arm, self._n) if gripper else slice(self._arm)
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
            self._history.append(
                (self.world.time_s, self.world.positions(), self.world.velocities())
            )

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

    # Sensors ------------------------------------------------------------------------------------

    def joint_states(self) -> tuple[Floats, Floats, float] | None:
        """Return (positions (n,), velocities (n,), age [s]) as the driver reports them now.

        None: it reports nothing.
        """
        if self.faults.driver_dead:
            return None
        now = self.world.time_s
        age, place, speed = 0.0, self.world.positions(), self.world.velocities()
        if self.faults.joint_delay_s > 0:
            for then, past, pace in self._history:
                if then >= now - self.faults.joint_delay_s:
                    age, place, speed = now - then, past, pace
                    break
        noise = self.faults.joint_noise_rad
        if noise > 0:
            place = place + self._random.normal(0.0, noise, self._n)
        if self.faults.wrap_joints:
            wrapped = place - TURN * np.ceil(place / TURN - 0.5)
            place = np.where(self._turns, wrapped, place)
        if self.faults.nan_velocity:
            speed = np.full(self._n, np.nan)
        return place, speed, age

    def wrench(self) -> Floats | None:
        """Return what the force-torque sensor sends now, (6,) [N, Nm]; None: nothing comes."""
        if self.faults.wrench_dropped:
            return None
        if self.faults.wrench_nan:
            return np.full(6, np.nan)
        values = self.world.wrench()
        values[2] += self.faults.wrench_bias_n
        return values

    def picture(self, camera: str, size: int) -> Image | None:
        """Return what a camera sends now; None: nothing comes."""
        return None if self.faults.camera_dropped else self.look(camera, size)

    def look(self, camera: str, size: int) -> Image:
        """Return (size, size, 3): the camera's picture, or the old one while it is frozen."""
        if self.faults.camera_frozen and camera in self._frozen:
            return self._frozen[camera]
        image = self.world.picture(camera, size)
        if self.faults.image_noise > 0:
            image = noisy(image, self.faults.image_noise, self._random)
        self._frozen[camera] = image
        return image


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
