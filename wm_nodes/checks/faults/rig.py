"""The rig of an injection: the plant, its services as an operator calls them, and the witness."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from wm_nodes.checks.faults.motion_log import MotionLog
from wm_nodes.checks.faults.plant import NAMES, Plant, robot_file
from wm_nodes.checks.faults.witness import Witness
from wm_nodes.robots.arm.config.arm_config import ArmConfig, read_config
from wm_nodes.ros import messages, topics

START_S = 120.0  # processes start slowly on a busy machine
RECOVER_S = 60.0
ACTING_S = 20.0  # to go home and begin an episode
ANSWER_S = 5.0  # of a service
DISCOVERY_S = 5.0  # of a publisher
WATCHED_S = 0.4  # measurements without a gap before the operator acts
STOOD_S = 0.1  # an arm that stands for this time has stopped

SERVICES: dict[str, type] = {
    "estop": SetBool,
    "pause": SetBool,
    "resume": Trigger,
    "go_home": Trigger,
    "reset": Trigger,
    "recover": Trigger,
    "activate": Trigger,
    "deactivate": Trigger,
}


class Rig:
    """One plant with a witness. `random` draws the moments of the injections. `node` is in the
    robot node's namespace.

    `ready` raises RuntimeError if the arm does not move within START_S.
    """

    def __init__(self, plant: Plant, node: Node, config: ArmConfig, seed: int) -> None:
        self.plant, self.config, self._node = plant, config, node
        self.witness = Witness(node, config)
        self.auditor = self.witness.auditor
        self.log = MotionLog(node, config)
        self.random = np.random.default_rng(seed)
        self.stop_s = -1.0  # from the start of the injection to standing still
        self._start_s = self._stands_s = 0.0
        self._resting = False  # nothing may move
        self.failure: BaseException | None = None  # that ended the thread of the witness
        switches = f"{plant.driver_ns}/arm_sim/set_parameters"
        self._set: Any = node.create_client(SetParameters, switches)
        self._set_robot: Any = node.create_client(SetParameters, "robot/set_parameters")
        self._clients: dict[str, Any] = {
            name: node.create_client(kind, name) for name, kind in SERVICES.items()
        }

    def ready(self) -> None:
        """Wait until the arm moves for the first time."""
        if not until(self.witness.moving, START_S):
            raise RuntimeError(f"the arm does not move: {self.witness.state}")
        for client in (self._set, self._set_robot, *self._clients.values()):
            client.wait_for_service(START_S)

    # Time ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the time of an injection."""
        self.stop_s, self._start_s = -1.0, time.monotonic()
        self._stands_s = math.inf

    def wait(self, seconds: float) -> None:
        """Wait, and record when the arm stops."""
        end = time.monotonic() + seconds
        while (now_s := time.monotonic()) < end:
            time.sleep(0.01)
            if not (self.witness.stands() or not self.witness.moving()):
                self._stands_s = math.inf
            elif self._stands_s == math.inf:
                self._stands_s = now_s
            if self.stop_s < 0 and now_s - self._stands_s >= STOOD_S:
                self.stop_s = self._stands_s - self._start_s

    def some(self, low: float, high: float) -> float:
        """Return a random number."""
        return float(self.random.uniform(low, high))

    def expect_rest(self) -> None:
        """Forbid motion from now on, except for coming to rest."""
        self._resting = True
        self.auditor.expect_rest(time.time())

    def may_move(self) -> None:
        if self._resting:  # a later time would forbid the motion up to it
            self._resting = False
            self.auditor.may_move(time.time())

    # Services -----------------------------------------------------------------------------------

    def ask(self, name: str, on: bool | None = None) -> Any:
        """Call a service of the robot node and return the future; on: the value of a SetBool."""
        client = self._clients[name]
        request = Trigger.Request() if on is None else SetBool.Request(data=on)
        if (name == "estop" and on is False) or name == "activate":  # confirms the measured pose
            self.auditor.operator_confirmed(time.time())
        return client.call_async(request)

    def call(
        self, name: str, on: bool | None = None, answer_s: float = ANSWER_S
    ) -> tuple[bool, str]:
        """Call a service and return (success, message); (False, "no answer") after `answer_s`."""
        if self.failure is not None:
            raise RuntimeError("faults: the observer has failed") from self.failure
        client = self._clients[name]
        if not until(client.service_is_ready, answer_s):
            return False, "no service"
        future = self.ask(name, on)
        if not until(future.done, answer_s):
            client.remove_pending_request(future)
            return False, "no answer"
        answer = future.result()
        return bool(answer.success), str(answer.message)

    def clear(self) -> tuple[bool, str]:
        """Clear latches like an operator: not before the arm is measured."""
        until(lambda: self.log.measured_for(WATCHED_S, time.time()), ANSWER_S)
        done, text = self.call("estop", False)
        if not (done and text.startswith("cleared")):
            self.auditor.operator_confirmed(-math.inf)  # nothing was confirmed
        return done, text

    def recover(self, rest: bool, unaided_s: float) -> tuple[bool, bool]:
        """Bring the arm back to motion; return whether it moves and whether an operator acted.

        rest: the arm must not move before the operator acts; the operator acts at once. Else the
        operator acts after `unaided_s` without motion.
        """
        if not rest:
            end = time.monotonic() + unaided_s
            while time.monotonic() < end:
                self.plant.revive()
                if until(self.witness.moving, 0.2):
                    return True, False
        end = time.monotonic() + RECOVER_S
        while time.monotonic() < end:
            self.plant.revive()
            self.clear()
            self.may_move()
            self.call("resume")
            if until(self.witness.moving, 1.0):
                return True, True
        return False, True

    def until_acting(self) -> bool:
        """Wait until an episode is under way and the arm moves."""
        steps = self.witness.steps
        until(lambda: self.witness.steps > steps + 1, ACTING_S)  # none while it goes home
        return until(self.witness.moving, ACTING_S)

    def switch(self, name: str, value: Any) -> None:
        """Set a parameter of the simulated driver."""
        _set(self._set, name, value)

    def scale_speed(self, scale: float) -> str:
        """Set the robot node's speed scale; return "" or the reason of the refusal."""
        return _set(self._set_robot, "speed_scale", scale)

    # Publishers ---------------------------------------------------------------------------------

    @contextmanager
    def publishing(self, make: Callable[[], Any], period_s: float) -> Iterator[None]:
        """Publish the messages of `make` on the plans' topic in the context."""
        plans = topics.PLAN.always(self._node)  # only here: it is a second publisher
        try:
            with _repeated(lambda: plans.publish(make()), period_s):
                yield
        finally:
            self._destroy(plans)

    def _destroy(self, publisher: Any) -> None:
        """Destroy a publisher in the thread that waits for its events; elsewhere that fails."""
        executor = self._node.executor
        assert executor is not None
        task = executor.create_task(self._node.destroy_publisher, publisher)
        until(task.done, ANSWER_S)

    @contextmanager
    def second_driver(self, rate_hz: float) -> Iterator[None]:
        """Publish the arm's joints at a constant random pose, from a separate DDS participant.

        It starts when the present subscribers of joint states have discovered the publisher.
        """
        limits, home = self.config.limits, self.config.home
        pose = home + self.random.uniform(-0.4, 0.4, len(home))
        pose = np.clip(pose, limits.low, limits.high)
        joints = JointState(name=list(limits.joints), position=pose.tolist())
        context = rclpy.Context()
        rclpy.init(context=context)
        node = Node("second_driver", context=context)
        readers = self._node.count_subscribers(self.config.joint_states)
        publisher = node.create_publisher(JointState, self.config.joint_states, 10)
        until(lambda: publisher.get_subscription_count() >= readers, DISCOVERY_S)

        def publish() -> None:
            joints.header.stamp = messages.to_time(time.time_ns())
            publisher.publish(joints)

        try:
            with _repeated(publish, 1.0 / rate_hz):
                yield
        finally:
            node.destroy_node()
            rclpy.try_shutdown(context=context)


@contextmanager
def open_rig(folder: Path, interface: str, seed: int, ns: str) -> Iterator[Rig]:
    """Start a plant with a command interface in a folder and namespace; end it on exit."""
    robot = robot_file(folder, interface)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("witness", context=context, namespace=ns)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    plant = Plant(folder, robot, seed, ns)
    rig = Rig(plant, node, read_config(robot, plant.driver_ns), seed)

    def listen() -> None:
        try:
            executor.spin()
        except BaseException as error:
            rig.failure = error

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        for name in NAMES:
            plant.start(name)
        rig.ready()
        yield rig
    finally:
        plant.close()
        executor.shutdown(timeout_sec=1.0)
        thread.join(2.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _set(client: Any, name: str, value: Any) -> str:
    """Set a node's parameter; return "" or the reason of the refusal."""
    client.wait_for_service(START_S)
    parameter = Parameter(name, value=value).to_parameter_msg()
    future = client.call_async(SetParameters.Request(parameters=[parameter]))
    if not until(future.done, ANSWER_S):
        client.remove_pending_request(future)
        return f"{name}: no answer"
    (result,) = future.result().results
    return "" if result.successful else str(result.reason)


@contextmanager
def _repeated(act: Callable[[], None], period_s: float) -> Iterator[None]:
    """Call `act` every `period_s` in a thread in the context."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(period_s):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
