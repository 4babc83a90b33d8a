"""Bring-up check of an arm: topics, rates, clocks, joint order and sign, cameras, kinematics.

Images are handled by the check's own node; joint states arrive in the thread of the bus.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.driver import Frame, Reading
from wm_nodes.robots.arm.kinematics import Kinematics
from wm_nodes.robots.arm.limits import Floats
from wm_nodes.robots.arm.motion import ArmMotion
from wm_nodes.robots.arm.sim.tasks import TASKS
from wm_nodes.robots.arm.wrench import STOP
from wm_nodes.ros.arm_driver import RosBus
from wm_nodes.ros.driver_services import DRIVER_TASKS, loaded
from wm_nodes.ros.node import ManagedNode

TINY_RAD = 0.02
NOISE = 0.005  # rad (m) of a sensor
MOVE_S = 2.0
READY_S = 5.0
SLOWEST_HZ = 50.0  # joint states; below this 50 Hz control acts on old positions
LOCKED = 2**30  # bytes of memory that the robot node needs at most
CAMERA_HZ = 7.0  # the watchdog slows the arm when images are 150 ms apart
WRENCH = "force_torque"  # the force-torque sensor among the sources
PRIORITY = 20  # real-time priority of the control thread
FAULTS = {  # of the bus: what is right without them
    "joint_sources": "each joint has one publisher",
    "controller": "a controller subscribes to the commands",
    "controller_settings": "the controller goes on from its last command with each message",
    "commander": "no other node commands the arm",
    "camera_clock": "the stamps of images agree with this computer's clock",
    "wrench_sources": "",  # `_force_torque` says what is right
}


class _Listener(ManagedNode):
    NAME = "arm_check"


@dataclass
class _Received:
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
    """Prints one line for each thing checked: `ok`, `note`, or `WRONG` with the remedy.

    ns: namespace of the check's own node, as the robot node would have it.
    """

    def __init__(self, config: ArmConfig, ns: str, seconds: float, yes: bool) -> None:
        self._config, self._ns, self._seconds, self._yes = config, ns, seconds, yes
        self._wrong = 0

    def run(self, move: bool) -> int:
        """Check; return 1 if something is wrong."""
        context = rclpy.Context()
        rclpy.init(context=context)
        node = _Listener(context=context, namespace=self._ns)
        node.active = True
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        self._spin = lambda: executor.spin_once(timeout_sec=0.002)
        bus: RosBus | None = None
        try:
            bus = self._bus = RosBus(node, self._config)
            self._kinematics = Kinematics(
                self._config.model, self._config.limits.joints, self._config.hand
            )
            received = self._listen()
            self._joint_states(node, received[""])
            self._cameras(received)
            self._gripper()
            self._force_torque(received)
            self._driver_services(node)
            self._connections()
            self._permissions()
            reading = self._bus.joints()
            if reading is not None:
                self._place(reading)
                if move:
                    self._move()
            for reason, count in node.diagnostics.drops.items():
                self._say(False, f"{count} messages were refused: {reason}", "see docs/topics.md")
        finally:
            if bus is not None:
                bus.close()
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
            rclpy.try_shutdown(context=context)
        print(f"{self._wrong} problems found" if self._wrong else "no problem found")
        return 1 if self._wrong else 0

    # Topics -------------------------------------------------------------------------------------

    def _listen(self) -> dict[str, _Received]:
        received = {name: _Received() for name in ("", *self._config.cameras, WRENCH)}
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            self._spin()
            newest: dict[str, Reading | Frame | None] = {"": self._bus.joints()}
            newest |= self._bus.frames()
            self._note_wrench(received[WRENCH])
            for name, item in newest.items():
                about = received[name]
                if item is None or item.number == about.number:
                    continue
                about.number = item.number
                if about.came and item.came_s == about.came[-1]:
                    continue  # a message with some of the joints only
                about.came.append(item.came_s)
                if isinstance(item, Frame):
                    if np.isfinite(item.taken_s):
                        about.ages.append(item.came_s - item.taken_s)
                    about.changed += item.changed
        return received

    def _note_wrench(self, about: _Received) -> None:
        reading = self._bus.wrench()
        if reading is not None and reading.number != about.number:
            about.number = reading.number
            about.came.append(reading.taken_s)

    def _joint_states(self, node: ManagedNode, received: _Received) -> None:
        config, topic = self._config, self._config.joint_states
        if not received.came:
            missing = self._bus.missing_joints
            near = self._near(node, "JointState")
            there = node.count_publishers(node.resolve_topic_name(topic))
            fix = (
                f"there is a publisher, but it sends no {', '.join(missing)}: write the driver's "
                "joint names into the YAML"
                if there
                else f"start the driver, or correct `joint_states:` ({near})"
            )
            self._say(False, f"no complete joint states on {topic}", fix)
            return
        fine = received.rate_hz >= min(SLOWEST_HZ, config.rate_hz)
        self._say(
            fine,
            f"joint states: {received.rate_hz:.0f} Hz on {topic}",
            f"raise the rate of joint_state_broadcaster to {config.rate_hz:.0f} Hz or more",
        )
        gap = float(np.diff(received.came).max(initial=0.0))
        self._say(
            gap < config.watch.driver_s,
            f"joint states: longest gap {gap * 1e3:.0f} ms",
            f"the watchdog stops the arm after {config.watch.driver_s * 1e3:.0f} ms of silence: a "
            "wired network, less load, or a larger watch.driver_s",
        )

    def _cameras(self, received: dict[str, _Received]) -> None:
        watch = self._config.watch
        for name, source in self._config.cameras.items():
            about, where = received[name], source.topic or f"device {source.device}"
            if not about.came:
                kind = "CompressedImage" if source.compressed else "Image"
                self._say(
                    False, f"camera {name}: no {kind} from {where}",
                    "start the camera's driver, or correct `cameras:` (ros2 topic list -t; "
                    "`compressed: true` for CompressedImage)",
                )  # fmt: skip
                continue
            self._say(
                about.rate_hz >= CAMERA_HZ,
                f"camera {name}: {about.rate_hz:.0f} Hz from {where}",
                "a higher frame rate, smaller images, or a wired connection",
            )
            if about.ages:
                age = float(np.median(about.ages))
                self._say(
                    age < (watch.camera_slow_s or np.inf),
                    f"camera {name}: images are {age * 1e3:.0f} ms old when they arrive",
                    "synchronise the clocks of both computers (chrony), or lower the resolution",
                )
            if watch.camera_frozen_s:
                self._say(
                    about.changed > 1,
                    f"camera {name}: {about.changed} of {len(about.came)} images differ",
                    "restart it if it is frozen; if it has no noise, watch.camera_frozen_s: 0",
                )

    def _gripper(self) -> None:
        gripper = self._config.gripper
        if gripper is None:
            return
        if not gripper.topic:
            self._note(True, f"gripper: {gripper.joint} is measured only (no `topic:`)", "")
            return
        wrong = self._bus.reports().get("gripper", "")
        what = f"gripper: {gripper.interface} on {gripper.topic}, action {gripper.action}: "
        self._say(not wrong, what + "a controller takes its commands", "", wrong=what + wrong)
        for task in self._config.action.gripper_rests:
            known = f"{', '.join(TASKS)} are known here; another is one of your own"
            self._note(task in TASKS, f"gripper: it rests in the task {task}", known)

    def _force_torque(self, received: dict[str, _Received]) -> None:
        section, reading = self._config.force_torque, self._bus.wrench()
        if section is None:
            return
        wrong = self._bus.reports().get(STOP, "")
        if reading is None:
            self._say(
                False, f"force-torque sensor: no reading on {section.topic}",
                "start its driver, or correct `force_torque:`", wrong=wrong,
            )  # fmt: skip
            return
        values = reading.values
        self._say(
            not wrong,
            f"force-torque sensor: {received[WRENCH].rate_hz:.0f} Hz, "
            f"{np.linalg.norm(values[:3]):.1f} N, {np.linalg.norm(values[3:]):.2f} Nm now",
            "",
            wrong=wrong,
        )
        gap = float(np.diff(received[WRENCH].came).max(initial=0.0))
        self._say(
            gap < section.timeout_s,
            f"force-torque sensor: longest gap {gap * 1e3:.0f} ms",
            f"the arm stops after {section.timeout_s * 1e3:.0f} ms of silence: a higher rate, or a "
            "larger force_torque.timeout_s",
        )

    def _driver_services(self, node: ManagedNode) -> None:
        """Report each service that `driver:` calls: its type, its request, and whether it runs."""
        names = dict(node.get_service_names_and_types())
        for work in DRIVER_TASKS:
            try:
                calls = loaded(self._config.driver, work)
            except UserError as error:
                self._say(False, f"driver.{work}: {error}", "")
                continue
            for call, _, _ in calls:
                name = node.resolve_service_name(call.service)
                self._say(
                    call.type in names.get(name, ()),
                    f"driver.{work}: {name} ({call.type})",
                    "start the driver, or correct the name",
                    wrong=f"driver.{work}: no service {name} of type {call.type}"
                    + (f", it is {names[name][0]}" if name in names else ""),
                )

    def _connections(self) -> None:
        """Report every fault of the bus, and what is right without it."""
        faults = self._bus.faults()
        for name, right in FAULTS.items():
            if right or name in faults:
                self._say(name not in faults, right, "", wrong=faults.get(name, ""))
        for name in faults.keys() - FAULTS.keys():
            self._say(False, name, "", wrong=faults[name])

    def _permissions(self) -> None:
        """Report whether the control thread may have priority, and memory may be locked."""
        for what, limit, word, needed, line in (
            ("real-time priority", resource.RLIMIT_RTPRIO, "rtprio", PRIORITY, "98"),
            ("locked memory", resource.RLIMIT_MEMLOCK, "memlock", LOCKED, "unlimited"),
        ):
            given, _ = resource.getrlimit(limit)
            self._note(
                given == resource.RLIM_INFINITY or given >= needed,
                f"{what}: the limit is {'none' if given == resource.RLIM_INFINITY else given}",
                f"for an even control period add `@realtime - {word} {line}` to "
                "/etc/security/limits.conf, add your user to the group `realtime`, log in again",
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

    # Motion -------------------------------------------------------------------------------------

    def _move(self) -> None:
        """Move one joint after the other there and back, and see which one moves, which way."""
        motion = ArmMotion(self._bus, self._config)
        if not self._ready(motion):
            return
        for index, name in enumerate(self._config.limits.joints[: self._config.arm_joints]):
            if not self._allowed(f"move {name} by {TINY_RAD} rad and back?"):
                continue
            before = self._steady()
            self._go(motion, index, TINY_RAD)
            moved = self._steady() - before
            self._go(motion, index, -TINY_RAD)
            if motion.guard.latched:
                why = "; ".join(f"{cause}: {text}" for cause, text in motion.guard.latched.items())
                self._say(False, f"{name}: stopped ({why})", "correct the cause, then check again")
                return
            self._judge(index, moved)

    def _judge(self, index: int, moved: Floats) -> None:
        """Report how the joints moved, (n,) [rad], when one was to move by TINY_RAD."""
        arm, joints = self._config.arm_joints, self._config.limits.joints
        name, most = joints[index], int(np.abs(moved[:arm]).argmax())
        if most != index and abs(moved[most]) > TINY_RAD / 3:
            self._say(False, f"{name}: {joints[most]} moved instead", "correct the order of joints")
        elif moved[index] < -TINY_RAD / 3:
            self._say(False, f"{name}: it moved the other way", "correct the driver's sign")
        else:
            self._say(
                moved[index] > TINY_RAD / 3,
                f"{name}: moved by {moved[index]:.4f} of {TINY_RAD} rad",
                "activate the controller, enable the arm, release its brakes",
            )

    def _ready(self, motion: ArmMotion) -> bool:
        """Wait until the driver can be commanded; report why not."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            self._spin()
            motion.sense()
            if motion.ready():
                return True
        why = ", ".join(motion.guard.wires) or "no joint states of an arm that stands still"
        self._say(False, f"the arm cannot be moved: {why}", "correct that, then check again")
        return False

    def _go(self, motion: ArmMotion, index: int, by: float) -> None:
        """Move one joint by `by` [rad], through the safety filter."""
        wanted = np.zeros(len(self._config.limits.joints))
        start, end = motion.filter.x[index], time.monotonic() + MOVE_S
        due = time.monotonic()
        while time.monotonic() < end:
            motion.sense()
            wanted[index] = 2.0 * (start + by - motion.filter.x[index])
            now = time.monotonic()
            motion.command(wanted, now)
            due = max(due + motion.period_s, now + motion.period_s / 2)
            while time.monotonic() < due:
                self._spin()

    def _steady(self) -> Floats:
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

    # Output -------------------------------------------------------------------------------------

    _spin: Callable[[], None]

    def _say(self, fine: bool, what: str, fix: str, *, wrong: str = "") -> None:
        self._wrong += not fine
        self._print("ok" if fine else "WRONG", what if fine else wrong or what, "" if fine else fix)

    def _note(self, fine: bool, what: str, fix: str) -> None:
        """Report what does not stop an arm from working."""
        self._print("ok" if fine else "note", what, "" if fine else fix)

    @staticmethod
    def _print(word: str, what: str, fix: str) -> None:
        print(f"{word:5}  {what}" + (f"\n       fix: {fix}" if fix else ""), flush=True)

    @staticmethod
    def _near(node: ManagedNode, kind: str) -> str:
        """Return the topics of that type that have a publisher."""
        found = [
            name for name, types in node.get_topic_names_and_types()
            if any(word.endswith(f"/{kind}") for word in types) and node.count_publishers(name)
        ]  # fmt: skip
        return f"there are: {', '.join(found)}" if found else "there are none"
