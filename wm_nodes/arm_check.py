"""Bring-up check of an arm: topics, rates, clocks, joint order and sign, cameras, kinematics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from wm_nodes.arm_bus import RosBus
from wm_nodes.nodes.shell import Shell
from wm_nodes.robots.arm.bus import Frame, Reading
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.guard import Guard
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.safety import SafetyFilter

TINY_RAD = 0.02
NOISE = 0.005  # rad (m) of a sensor
MOVE_S = 2.0
SLOWEST_HZ = 50.0  # joint states; below this 50 Hz control acts on old positions
CAMERA_HZ = 7.0  # the watchdog slows the arm when pictures are 150 ms apart
CLOCK_S = 0.5


class _Listener(Shell):
    NAME = "arm_check"


@dataclass
class _Heard:
    """Times and stamps of one source."""

    came: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    number: int = -1
    changed: int = 0

    @property
    def rate_hz(self) -> float:
        if len(self.came) < 2:
            return 0.0
        return (len(self.came) - 1) / (self.came[-1] - self.came[0])


class ArmCheck:
    """Prints one line for each thing checked: `ok`, or `WRONG` with how to mend it."""

    def __init__(self, config: ArmConfig, seconds: float, yes: bool) -> None:
        self._config, self._seconds, self._yes = config, seconds, yes
        self._wrong = 0

    def run(self, move: bool) -> int:
        """Check; return 1 if something is wrong."""
        context = rclpy.Context()
        rclpy.init(context=context)
        node = _Listener(context=context)
        node.active = True
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        self._spin = lambda: executor.spin_once(timeout_sec=0.002)
        try:
            self._bus = RosBus(node, self._config)
            self._kinematics = Kinematics(
                self._config.model, self._config.limits.joints, self._config.hand
            )
            heard = self._listen()
            self._joint_states(node, heard[""])
            self._cameras(heard)
            self._commands(node)
            reading = self._bus.joints()
            if reading is not None:
                self._place(reading)
                if move:
                    self._move()
            for reason, count in node.health.drops.items():
                self._say(False, f"{count} messages were refused: {reason}", "see docs/topics.md")
        finally:
            self._bus.close()
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
            rclpy.try_shutdown(context=context)
        print(f"{self._wrong} things to mend" if self._wrong else "all is well")
        return 1 if self._wrong else 0

    # What is heard ------------------------------------------------------------------------------

    def _listen(self) -> dict[str, _Heard]:
        heard = {name: _Heard() for name in ("", *self._config.cameras)}
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            self._spin()
            newest: dict[str, Reading | Frame | None] = {"": self._bus.joints()}
            newest |= self._bus.frames()
            for name, item in newest.items():
                about = heard[name]
                if item is None or item.number == about.number:
                    continue
                about.number = item.number
                about.came.append(item.came_s)
                if isinstance(item, Frame):
                    about.ages.append(item.came_s - item.taken_s)
                    about.changed += item.changed
        return heard

    def _joint_states(self, node: Shell, heard: _Heard) -> None:
        config, topic = self._config, self._config.joint_states
        if not heard.came:
            there = node.count_publishers(topic)
            names = ", ".join(config.limits.joints)
            mend = (
                f"somebody publishes there, but not all of: {names}. Put the driver's joint names "
                "into the YAML"
                if there
                else f"start the driver, or mend `joint_states:` ({self._near(node, 'JointState')})"
            )
            self._say(False, f"no joint states on {topic}", mend)
            return
        fine = heard.rate_hz >= min(SLOWEST_HZ, config.rate_hz)
        self._say(
            fine,
            f"joint states: {heard.rate_hz:.0f} Hz on {topic}",
            f"raise the rate of joint_state_broadcaster to {config.rate_hz:.0f} Hz or more",
        )
        gap = float(np.diff(heard.came).max(initial=0.0))
        self._say(
            gap < config.watch.driver_s,
            f"joint states: longest gap {gap * 1e3:.0f} ms",
            f"the watchdog stops the arm after {config.watch.driver_s * 1e3:.0f} ms of silence: a "
            "wired network, less load, or a larger watch.driver_s",
        )

    def _cameras(self, heard: dict[str, _Heard]) -> None:
        watch = self._config.watch
        for name, source in self._config.cameras.items():
            about, where = heard[name], source.topic or f"device {source.device}"
            if not about.came:
                self._say(
                    False, f"camera {name}: no picture from {where}",
                    "start the camera's driver, or mend `cameras:` (ros2 topic list)",
                )  # fmt: skip
                continue
            self._say(
                about.rate_hz >= CAMERA_HZ,
                f"camera {name}: {about.rate_hz:.0f} Hz from {where}",
                "a higher frame rate, a smaller picture, or a wired connection",
            )
            age = float(np.median(about.ages))
            self._say(
                0.0 <= age < watch.camera_slow_s,
                f"camera {name}: pictures are {age * 1e3:.0f} ms old when they come",
                "synchronise the clocks of both computers (chrony), or lower the resolution",
            )
            if watch.camera_frozen_s:
                self._say(
                    about.changed > 1,
                    f"camera {name}: {about.changed} of {len(about.came)} pictures differ",
                    "it is frozen, or without any noise: then set watch.camera_frozen_s to 0",
                )

    def _commands(self, node: Shell) -> None:
        command = self._config.command
        there = node.count_subscribers(command.topic)
        self._say(
            there > 0,
            f"{there} listen to commands on {command.topic} ({command.interface})",
            "load and activate that controller: ros2 control list_controllers",
        )
        others = node.count_publishers(command.topic) - 1
        self._say(
            others <= 0,
            "nobody else commands the arm",
            f"end the other {others} on {command.topic}",
        )

    def _place(self, reading: Reading) -> None:
        limits = self._config.limits
        for index, name in enumerate(limits.joints):
            value = float(reading.position[index])
            low, high = float(limits.low[index]), float(limits.high[index])
            if not low - NOISE <= value <= high + NOISE:
                self._say(
                    False, f"{name} is at {value:.3f}, its limits are {low:.3f} to {high:.3f}",
                    "degrees for radians? another order? Else move it inside by hand",
                )  # fmt: skip
        hand = self._kinematics.positions(reading.position[None])[0]
        inside = bool((hand >= limits.box_low).all() and (hand <= limits.box_high).all())
        self._say(
            inside,
            f"by the model the hand is at {np.round(hand, 3).tolist()} m",
            f"measure it: if it is there, move the arm into the workspace {limits.box_low.tolist()}"
            f" to {limits.box_high.tolist()}, or widen that; if not, the model or the joint order "
            "is wrong: do not go on",
        )

    # What moves ---------------------------------------------------------------------------------

    def _move(self) -> None:
        """Move one joint after the other there and back, and see which one moves, which way."""
        config, period = self._config, 1.0 / self._config.rate_hz
        guard = Guard(
            SafetyFilter(config.limits, self._kinematics, period), config.watch, config.arm_joints
        )
        for index, name in enumerate(config.limits.joints[: config.arm_joints]):
            if not self._allowed(f"move {name} by {TINY_RAD} rad and back?"):
                continue
            before = self._steady()
            self._go(guard, index, TINY_RAD, period)
            moved = self._steady() - before
            self._go(guard, index, -TINY_RAD, period)
            most = int(np.abs(moved[: config.arm_joints]).argmax())
            if most != index and abs(moved[most]) > TINY_RAD / 3:
                other = config.limits.joints[most]
                self._say(False, f"{name}: {other} moved instead", "mend the order of `joints:`")
            elif moved[index] < -TINY_RAD / 3:
                self._say(False, f"{name}: it moved the other way", "mend the driver's sign")
            else:
                self._say(
                    moved[index] > TINY_RAD / 3,
                    f"{name}: moved by {moved[index]:.4f} of {TINY_RAD} rad",
                    "is the controller active, the arm enabled, its brakes released?",
                )

    def _go(self, guard: Guard, index: int, by: float, period: float) -> None:
        """Move one joint by `by` [rad], through the safety filter."""
        wanted = np.zeros(len(self._config.limits.joints))
        self._take(guard)
        start = guard.filter.x[index]
        end = time.monotonic() + MOVE_S
        due = time.monotonic()
        while time.monotonic() < end:
            self._take(guard)
            wanted[index] = 2.0 * (start + by - guard.filter.x[index])
            now = time.monotonic()
            self._bus.send(guard.step(wanted, now, now))
            due = max(due + period, now + period / 2)
            while time.monotonic() < due:
                self._spin()

    def _take(self, guard: Guard) -> None:
        reading = self._bus.joints()
        if reading is not None:
            guard.saw_driver(reading.position, reading.velocity, reading.came_s)

    def _steady(self) -> np.ndarray:
        """Return mean joint positions of a moment."""
        seen: list[np.ndarray] = []
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            self._spin()
            reading = self._bus.joints()
            if reading is not None:
                seen.append(reading.position)
        return np.asarray(np.mean(seen, axis=0))

    def _allowed(self, question: str) -> bool:
        if self._yes:
            return True
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    # What is said -------------------------------------------------------------------------------

    _spin: Callable[[], None]

    def _say(self, fine: bool, what: str, mend: str) -> None:
        self._wrong += not fine
        print(f"ok     {what}" if fine else f"WRONG  {what}\n       mend: {mend}", flush=True)

    @staticmethod
    def _near(node: Shell, kind: str) -> str:
        """Return topics of that type that somebody publishes."""
        found = [
            name for name, types in node.get_topic_names_and_types()
            if any(word.endswith(f"/{kind}") for word in types) and node.count_publishers(name)
        ]  # fmt: skip
        return f"there are: {', '.join(found)}" if found else "there are none at all"
