"""One control period of an arm: measurements in, safety filter and last gate, a command out."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.collision import CollisionChecker
from wm_nodes.robots.arm.command_gate import CommandGate
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.driver import Bus
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.safety_filter import POSITIONS, SafetyFilter, Setpoint
from wm_nodes.robots.arm.speed_scale import PAUSE, SpeedScale
from wm_nodes.robots.arm.supervisor import Guard
from wm_nodes.robots.arm.wrench import ForceWatch

HOMING_PER_S = 2.5
AT_HOME = 0.004  # rad (m)
FOLLOW = 0.1  # of the deviation, each period, where only velocities are commanded
STALE_S, SAMPLES = 3e-4, 4  # a command sampled longer ago is sampled again, so often at most
REPEATS = 5  # commands at rest before a stopped arm is no longer commanded


class ArmMotion:
    """Moves one arm over its bus. Call `sense`, then `command`, once each control period.

    dry_run: everything but commands.
    """

    def __init__(self, bus: Bus, config: ArmConfig, *, dry_run: bool = False) -> None:
        self.config, self.bus, self._dry = config, bus, dry_run
        limits, command = config.limits, config.command
        self.period_s = 1.0 / config.rate_hz
        self.kinematics = Kinematics(config.model, limits.joints, config.hand)
        obstacles = None
        if config.collision.enabled:
            boxes = config.collision.obstacles
            obstacles = CollisionChecker(config.model, limits.joints, obstacles=boxes)
        self.filter = SafetyFilter(
            limits,
            self.kinematics,
            self.period_s,
            command.interface,
            timeout_s=command.timeout_s,
            obstacles=obstacles,
        )
        self.speed = SpeedScale()
        section = config.force_torque
        self.guard = Guard(
            self.filter,
            config.watch,
            config.arm_joints,
            forces=ForceWatch(section) if section else None,
            grace_s=config.grace_s,
        )
        tracking_rad = 0.0 if dry_run else config.watch.tracking_rad
        self._gate = CommandGate(
            limits, self.period_s, command.interface, config.arm_joints, tracking_rad
        )
        self.guard.dry_run = dry_run
        self._numbers: dict[str, int] = {}  # of the newest measurements
        self._starts = -1
        self._resting = 0  # periods at rest while stopped

    # State --------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Is the arm commanded to stand?"""
        return self.filter.at_rest

    @property
    def at_home(self) -> bool:
        return self.at_rest and self._off_home() < 2.0

    def ready(self) -> bool:
        """Is the driver there: identified, fresh and able to take commands?"""
        return self.guard.ready(self.bus.now_s()) and (self.guard.began or self.bus.settled)

    # One period ---------------------------------------------------------------------------------

    def sense(self) -> None:
        """Take in what the topics brought since the last period."""
        guard = self.guard
        guard.saw_wires(self.bus.faults(), self.bus.must_yield)
        reading = self.bus.joints()
        if reading is not None and reading.number != self._numbers.get(""):
            self._numbers[""] = reading.number
            guard.saw_driver(reading.position, reading.came_s)
        if guard.forces is not None:
            guard.forces.newest = self.bus.wrench()
        for name, frame in self.bus.frames().items():
            if frame.number != self._numbers.get(name):
                self._numbers[name] = frame.number
                guard.saw_camera(name, frame.came_s, frame.taken_s, frame.changed)
        if self.config.command.interface not in POSITIONS and guard.measured is not None:
            self._follow_measured(guard.measured)

    def command(self, wanted: Floats | None, made_s: float = np.inf) -> Setpoint:
        """Command towards joint velocities (n,) [rad/s]; None: stop.

        made_s: steady time of the observation that the velocities answer.
        """
        now_s, guard = self.bus.now_s(), self.guard
        scale, guard.driver_speed = self.speed.now(now_s)
        self.filter.scale_speed(scale)
        driver = self.speed.driver(now_s)
        if driver is not None:
            guard.slowdown.saw(driver, now_s)
        setpoint = guard.step(wanted, made_s, now_s)
        if self._starts != guard.starts:
            self._starts = guard.starts
            self._resting = 0  # the driver must not keep an older command
            self._gate.begin_anew()
        if setpoint.moved and self._may_send(now_s):
            assert guard.measured is not None
            for _ in range(SAMPLES):
                now_s = self.bus.now_s()
                setpoint = self.filter.resample(setpoint, now_s)
                if not setpoint.moved:
                    return setpoint
                refused = self._gate.refuse(setpoint, guard.measured, now_s)
                if refused or self.bus.now_s() - now_s < STALE_S:
                    break  # else this thread was interrupted: the command is of an earlier moment
            if refused:
                guard.latch("gate", refused)
                self.bus.halt()
            else:
                guard.began = True
                guard.sent(setpoint.position, now_s)
                self._gate.sent(setpoint, now_s)
                if not self._dry:
                    self.bus.send(setpoint)
        return setpoint

    def towards_home(self) -> Floats | None:
        """Return the joint velocities (n,) towards home; None: there."""
        if self._off_home() < 1.0:
            return None
        limits = self.config.limits
        way = HOMING_PER_S * (self.config.home - self.filter.x)
        return np.asarray(np.clip(way, -0.5 * limits.velocity, 0.5 * limits.velocity))

    def _off_home(self) -> float:
        """Return how far from home the arm is, in units of what is near enough."""
        return float(np.abs(self.filter.x - self.config.home).max() / AT_HOME)

    def _follow_measured(self, place: Floats) -> None:
        """Velocities are commanded: bring the path slowly to where the arm is."""
        n, filter = self.config.arm_joints, self.filter
        most = 0.02 * filter.limits.velocity[:n] * self.period_s
        shift = np.zeros(len(filter.x))
        shift[:n] = np.clip(FOLLOW * (place - filter.x)[:n], -most, most)
        filter.correct(shift)

    def _may_send(self, now_s: float) -> bool:
        """Command nothing before the driver is ready, nor an arm that does not follow, or rests.

        A driver that comes back, or is released, must not find a position to jump to.
        """
        guard = self.guard
        if guard.released:
            return False
        if not guard.began:
            return self.bus.settled and not guard.latched and guard.ready(now_s)
        places = self.config.command.interface in POSITIONS
        guard.begins_paused = guard.begins_paused and guard.driver_speed == PAUSE
        paused = guard.begins_paused  # it must not find an old command when it goes on
        if places and "tracking" in guard.latched and not paused:
            return False
        stopped = self.at_rest and guard.stopping not in ((), ("plan",))
        self._resting = self._resting + 1 if stopped else 0
        return self._resting <= REPEATS
