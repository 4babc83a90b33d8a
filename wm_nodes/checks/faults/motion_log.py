"""Commands and measured motion of the last seconds with their stamps, to time a stop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rclpy.node import Node
from rclpy.subscription import MessageInfo
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from wm_nodes.checks.faults.witness import ALL, STANDS_RAD_S
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.safety.limits import Floats

SAME = 1e-9  # rad, rad/s
FASTER = 1e-6  # rad/s: a larger change of speed is no rounding
SPAN = 3  # measurements that the auditor computes a speed over
GAP_S = 0.2  # between measurements
KEPT = 4000  # messages of each kind


@dataclass(frozen=True)
class Stop:
    """Times from a call [s]; NaN: not within the log.

    braking: to the last command that was faster than the one before it; from then on the commanded
    speed only falls. commands: to the last moving command. standstill: to the last measured speed
    above STANDS_RAD_S.
    """

    braking_s: float
    commands_s: float
    standstill_s: float


class MotionLog:
    """Subscribes to an arm's commands and joint states on `node`.

    Commands have the publisher's source timestamp, measurements their header's [s].
    """

    def __init__(self, node: Node, config: ArmConfig) -> None:
        command = config.command
        self._period_s = 1.0 / config.rate_hz
        self._names = config.limits.joints[: config.arm_joints]
        self._velocity = command.interface == "velocity"
        self._before: Floats | None = None
        self._commands: deque[tuple[float, float]] = deque(maxlen=KEPT)  # stamp, speed [rad/s]
        self._measured: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._since_s = np.inf  # stamp of the first measurement after the last gap
        listen = node.create_subscription
        if command.interface == "trajectory":
            listen(JointTrajectory, command.topic, self._on_trajectory, ALL)
        else:
            listen(Float64MultiArray, command.topic, self._on_command, ALL)
        listen(JointState, config.joint_states, self._on_joints, ALL)

    def stop(self, called_s: float) -> Stop:
        """Return how long the motion continued after a call at `called_s` [s, clock of stamps]."""
        commands = [row for row in tuple(self._commands) if row[0] >= called_s - self._period_s]
        measured = [row for row in tuple(self._measured) if row[0] >= called_s]
        if not commands or not measured:
            return Stop(np.nan, np.nan, np.nan)
        faster = [now[0] for then, now in pairwise(commands) if now[1] > then[1] + FASTER]
        moving = [when_s for when_s, speed in commands if speed > SAME / self._period_s]
        fast = [when_s for when_s, speed in measured if speed > STANDS_RAD_S]
        braking, moves, stands = (max([*t, called_s]) - called_s for t in (faster, moving, fast))
        return Stop(braking, moves, stands)

    def measured_since(self, stamp_s: float) -> bool:
        """Return whether the arm has been measured after `stamp_s` [s, clock of stamps]."""
        return bool(self._measured) and self._measured[-1][0] > stamp_s

    def measured_for(self, seconds: float, now_s: float) -> bool:
        """Return whether the arm was measured for `seconds` until now without a gap."""
        return self.measured_since(now_s - GAP_S) and now_s - self._since_s >= seconds

    def closest_s(self, since_s: float) -> float:
        """Return the shortest time that SPAN + 1 measurements since then took, by their stamps [s].

        Where it is far below SPAN periods of the driver, the driver was delayed and then sent
        several states at once: speeds computed from their stamps are wrong.
        """
        stamps = np.array([when_s for when_s, _ in tuple(self._measured) if when_s >= since_s])
        return float(np.min(stamps[SPAN:] - stamps[:-SPAN], initial=np.inf))

    def _on_command(self, msg: Float64MultiArray, info: MessageInfo) -> None:
        values = np.array(msg.data, np.float64)
        if self._velocity:
            speed = float(np.abs(values).max())
        else:
            before = values if self._before is None else self._before
            speed = float(np.abs(values - before).max()) / self._period_s
            self._before = values
        self._commands.append((info["source_timestamp"] / 1e9, speed))

    def _on_trajectory(self, msg: JointTrajectory, info: MessageInfo) -> None:
        """The speed of a trajectory is that of its first point; it moves if any point does."""
        speeds = [float(np.abs(point.velocities).max()) for point in msg.points]
        first = msg.points[0].positions
        moves = (
            max(speeds) > SAME or np.abs(np.subtract(msg.points[-1].positions, first)).max() > SAME
        )
        speed = max(speeds[0], 2 * SAME / self._period_s) if moves else 0.0
        self._commands.append((info["source_timestamp"] / 1e9, speed))

    def _on_joints(self, msg: JointState) -> None:
        speeds = dict(zip(msg.name, msg.velocity))
        if not set(self._names) <= set(speeds):
            return
        stamp_s = msg.header.stamp.sec + msg.header.stamp.nanosec / 1e9
        if not self.measured_since(stamp_s - GAP_S):
            self._since_s = stamp_s
        self._measured.append((stamp_s, max(abs(speeds[name]) for name in self._names)))
