"""One control period of an arm: measurements in, safety filter and last gate, a command out."""

from __future__ import annotations

import numpy as np

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Driver
from wm_nodes.robots.arm.geometry.collision import CollisionChecker
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.command_gate import CommandGate
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.safety.safety_filter import POSITIONS, SafetyFilter, Setpoint
from wm_nodes.robots.arm.safety.speed_scale import PAUSE, SpeedScale
from wm_nodes.robots.arm.safety.supervisor import Supervisor
from wm_nodes.robots.arm.sensors.wrench import ForceWatch

HOMING_PER_S = 2.5
AT_HOME = 0.004  # rad (m)
FOLLOW = 0.1  # of the deviation, each period, where only velocities are commanded
STALE_S, SAMPLES = 3e-4, 4  # a command sampled longer ago is sampled again, so often at most
REPEATS = 5  # commands at rest before a stopped arm is no longer commanded


class ArmMotion:
    """Moves one arm through its driver. Call `sense`, then `command`, once each control period.

    dry_run: everything but commands is done.
    """

    def __init__(self, driver: Driver, config: ArmConfig, *, dry_run: bool = False) -> None:
        self.config, self.driver, self._dry = config, driver, dry_run
        limits, command = config.limits, config.command
        self.period_s = 1.0 / config.rate_hz
        self.kinematics = Kinematics(config.model, limits.joints, config.hand)
        contacts = None
        if config.collision.enabled:
            boxes = config.collision.obstacles
            contacts = CollisionChecker(config.model, limits.joints, obstacles=boxes)
        self.filter = SafetyFilter(
            limits,
            self.kinematics,
            self.period_s,
            command.interface,
            timeout_s=command.timeout_s,
            contacts=contacts,
        )
        self.speed = SpeedScale()
        section = config.force_torque
        self.supervisor = Supervisor(
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
        self.supervisor.dry_run = dry_run
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
        return self.supervisor.ready(self.driver.now_s()) and (
            self.supervisor.began or self.driver.settled
        )

    # One period ---------------------------------------------------------------------------------

    def sense(self) -> None:
        """Take in what has arrived from the driver since the last period."""
        supervisor = self.supervisor
        supervisor.update_connections(self.driver.faults(), self.driver.must_yield)
        reading = self.driver.joints()
        if reading is not None and reading.number != self._numbers.get(""):
            self._numbers[""] = reading.number
            supervisor.update_joints(reading.position, reading.came_s)
        if supervisor.forces is not None:
            supervisor.forces.newest = self.driver.wrench()
        for name, frame in self.driver.frames().items():
            if frame.number != self._numbers.get(name):
                self._numbers[name] = frame.number
                supervisor.update_image(name, frame.came_s, frame.taken_s, frame.changed)
        if self.config.command.interface not in POSITIONS and supervisor.measured is not None:
            self._follow_measured(supervisor.measured)

    def command(self, target: Floats | None, observed_s: float = np.inf) -> Setpoint:
        """Command towards joint velocities (n,) [rad/s]; None: stop.

        observed_s: steady time of the observation that the velocities answer.
        """
        now_s, supervisor = self.driver.now_s(), self.supervisor
        scale, supervisor.driver_speed = self.speed.now(now_s)
        self.filter.scale_speed(scale)
        driver = self.speed.driver(now_s)
        if driver is not None:
            supervisor.tracking.slowdown.update(driver, now_s)
        setpoint = supervisor.step(target, observed_s, now_s)
        if self._starts != supervisor.path.starts:
            self._starts = supervisor.path.starts
            self._resting = 0  # the driver must not keep an older command
            self._gate.restart()
        if setpoint.moved and self._may_send(now_s):
            assert supervisor.measured is not None
            for _ in range(SAMPLES):
                now_s = self.driver.now_s()
                setpoint = self.filter.resample(setpoint, now_s)
                if not setpoint.moved:
                    return setpoint
                refused = self._gate.refuse(setpoint, supervisor.measured, now_s)
                if refused or self.driver.now_s() - now_s < STALE_S:
                    break  # else this thread was interrupted: the command is of an earlier moment
            if refused:
                supervisor.latch("gate", refused)
                self.driver.halt()
            else:
                supervisor.began = True
                supervisor.update_sent(setpoint.position, now_s)
                self._gate.sent(setpoint, now_s)
                if not self._dry:
                    self.driver.send(setpoint)
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

        A driver that comes back, or is released, must not get a position to jump to.
        """
        supervisor = self.supervisor
        if supervisor.released:
            return False
        if not supervisor.began:
            return self.driver.settled and not supervisor.latched and supervisor.ready(now_s)
        places = self.config.command.interface in POSITIONS
        supervisor.begins_paused = supervisor.begins_paused and supervisor.driver_speed == PAUSE
        paused = supervisor.begins_paused  # it must not execute an old command afterwards
        if places and "tracking" in supervisor.latched and not paused:
            return False
        stopped = self.at_rest and supervisor.stopping not in ((), ("plan",))
        self._resting = self._resting + 1 if stopped else 0
        return self._resting <= REPEATS
