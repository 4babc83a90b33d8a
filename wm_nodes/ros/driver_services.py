"""An arm's driver: recovery from a protective stop, switching of its controller, speed scaling.

The robot node's services `recover`, `activate` and `deactivate` call those of the driver that the
robot's YAML names. They have two private nodes with a thread each: a driver that does not answer
delays neither the control loop nor the emergency stop. One thread executes the services and waits,
the other receives the driver's answers. (rclpy's MultiThreadedExecutor polls without pause while a
service waits; with real-time priority that would block the whole computer.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from wm_nodes.errors import UserError
from wm_nodes.records import Answer, DriverStep, DriverTask
from wm_nodes.robots.arm.config.driver_section import DriverSection, ServiceCall
from wm_nodes.robots.arm.safety.speed_scale import SpeedScale
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.service_types import answered, filled, load_service

IN = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # matches every publisher
ABSENT_S = 1.0  # for a known service to be found again
DISCOVERY_S = 3.5  # after the start of this node: DDS announces services every 3 s
LOOP_S = 1.0  # for the control loop to answer
SPIN_S = 0.1
DRIVER_TASKS: tuple[DriverTask, ...] = ("recover", "activate", "deactivate")
PERCENT = 100.0
BUSY = "another call to the driver is being executed: call again afterwards"


@dataclass(frozen=True)
class _Call:
    """One prepared call of a driver's service."""

    spec: ServiceCall
    client: Any
    request: Any
    closing: threading.Event
    known_s: float  # steady time by which an existing service must be discovered [s]

    def make(self, meanwhile: Callable[[], None]) -> str:
        """Call and wait; returns "" or why it failed, in one line. meanwhile: called every SPIN_S
        at most."""
        name, timeout_s = self.spec.service, self.spec.timeout_s
        end = max(time.monotonic() + min(ABSENT_S, timeout_s), self.known_s)
        while not self.client.service_is_ready():
            if time.monotonic() > end or self.closing.is_set():
                return f"{name}: there is no such service ({self.spec.type}). Start the driver"
            meanwhile()
            time.sleep(0.02)
        answered_event = threading.Event()
        future = self.client.call_async(self.request)
        future.add_done_callback(lambda _: answered_event.set())
        end = time.monotonic() + timeout_s
        while (
            not answered_event.wait(SPIN_S) and time.monotonic() < end and not self.closing.is_set()
        ):
            meanwhile()
        if not answered_event.is_set():
            self.client.remove_pending_request(future)
            return f"{name}: no answer within {timeout_s:g} s"
        if future.exception() is not None:
            return f"{name}: {future.exception()}"
        done, text = answered(future.result())
        return "" if done else f"{name}: refused{f' ({text})' if text else ''}"


def loaded(section: DriverSection, task: DriverTask) -> list[tuple[ServiceCall, Any, Any]]:
    """Return each call of a task with its type and its request.

    UserError: a type is not installed, or a request does not fit it.
    """
    configured = getattr(section, task)
    calls = configured if isinstance(configured, tuple) else (configured,) if configured else ()
    out = []
    for index, call in enumerate(calls):
        kind = load_service(call.type)
        what = f"driver.{task}{f'[{index}]' if task == 'recover' else ''}.request"
        out.append((call, kind, filled(kind.Request(), call.request, what)))
    return out


class RequestQueue(Protocol):
    """What executes requests: the control loop."""

    def ask(self, name: str, value: object = None) -> Future[Answer]:
        """Add a request; the future gets its answer."""


class DriverServices:
    """The services of a robot node that call its driver. Make it before the control loop starts.

    node: has the services. clients: calls the driver's services. Arguments: speed receives the
    driver's scale; loop allows each task and gets its outcome; alive: does the control loop run;
    dry_run: the driver is not called. Raises UserError if a service type of the YAML is not
    installed, or if a request does not fit it.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        section: DriverSection,
        speed: SpeedScale,
        loop: RequestQueue,
        alive: Callable[[], bool],
        *,
        dry_run: bool = False,
    ) -> None:
        self._node, self._speed, self._loop, self._alive = node, speed, loop, alive
        self._section, self._dry = section, dry_run
        self._closing = threading.Event()
        prepared = {task: loaded(section, task) for task in DRIVER_TASKS}
        self.node = self._private("robot_driver_services")
        self.clients = self._private("robot_driver_clients")
        try:
            self._make(prepared)
        except BaseException:
            self.node.destroy_node()
            self.clients.destroy_node()
            raise
        self._executors = {}
        for each in (self.node, self.clients):
            self._executors[each.get_name()] = SingleThreadedExecutor(context=node.context)
            self._executors[each.get_name()].add_node(each)
        self._threads = [
            threading.Thread(target=self._spin, args=(executor,), name=name, daemon=True)
            for name, executor in self._executors.items()
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        for executor in self._executors.values():
            executor.wake()
        for thread in self._threads:
            thread.join()
        for executor in self._executors.values():
            executor.shutdown()
        self.node.destroy_node()
        self.clients.destroy_node()

    # Preparing ----------------------------------------------------------------------------------

    def _private(self, name: str) -> Node:
        return Node(
            name,
            context=self._node.context,
            namespace=self._node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )

    def _make(self, prepared: dict[DriverTask, list[tuple[ServiceCall, Any, Any]]]) -> None:
        """Make the services on one private node, clients and the subscription on the other."""
        section = self._section
        self._calls = {task: self._clients(calls) for task, calls in prepared.items()}
        self._services: list[Any] = [
            self.node.create_service(Trigger, task, self._handler(task)) for task in DRIVER_TASKS
        ]
        if section.speed_scaling_topic:
            self._speed.watch(section.speed_scaling_timeout_s)
            topic = self._node.resolve_topic_name(section.speed_scaling_topic)
            self.clients.create_subscription(Float64, topic, self._on_speed, IN)

    def _clients(self, calls: list[tuple[ServiceCall, Any, Any]]) -> list[_Call]:
        out = []
        for call, kind, request in calls:
            name = self._node.resolve_service_name(call.service)
            try:
                client: Any = self.clients.create_client(kind, name)
            except Exception as error:  # RCLError: one service with two types
                raise UserError(f"driver service {name} of type {call.type}: {error}.") from None
            known_s = time.monotonic() + DISCOVERY_S
            out.append(_Call(call, client, request, self._closing, known_s))
        return out

    # The threads of the private nodes -----------------------------------------------------------

    def _spin(self, executor: SingleThreadedExecutor) -> None:
        try:
            while not self._closing.is_set() and self.node.context.ok():
                executor.spin_once(timeout_sec=SPIN_S)
        except ExternalShutdownException:
            return
        except Exception as error:
            if self._closing.is_set() or not self.node.context.ok():
                return
            self._node.get_logger().error(
                f"the thread of the driver's services has failed ({error}). Restart the robot node."
            )

    def _on_speed(self, msg: Float64) -> None:
        percent = self._section.speed_scaling_percent
        scale = msg.data / PERCENT if percent else msg.data
        if self._speed.take(scale, time.monotonic()):
            most = "100 (percent)" if percent else "1"
            self._node.warn(
                "drop/speed_scaling",
                f"speed scaling on {self._section.speed_scaling_topic}: got {msg.data:g}, expected "
                f"0 to {most}. Check `driver: speed_scaling_percent:` in the robot's YAML.",
            )

    def _handler(self, task: DriverTask) -> Callable[[Trigger.Request, Trigger.Response], Any]:
        def handle(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            answer = self._execute(task)
            response.success, response.message = answer.done, answer.text
            return response

        return handle

    def _execute(self, task: DriverTask) -> Answer:
        """Execute a task, if the control loop allows it, and report the outcome to the loop."""
        calls = self._calls[task]
        if not calls:
            return Answer(False, f"the robot's YAML has no `driver: {task}:`")
        if self._dry:
            return Answer(False, f"dry_run: the driver is not called ({task})")
        answer = self._request(DriverStep(task, "begin"))
        if not answer.done:
            return answer
        failed = "interrupted"
        try:
            outcomes = (call.make(self._refuse_others) for call in calls)
            failed = next((text for text in outcomes if text), "")
        finally:
            outcome = self._request(
                DriverStep(task, "failed" if failed else "done"), withdraw=False
            )
        return Answer(False, f"{task}: {failed}") if failed else outcome

    def _refuse_others(self) -> None:
        """Refuse calls received during another one: they must not be executed later.

        Only in the thread of the services.
        """
        for service in self._services:
            while True:
                with service.handle:
                    _, header = service.handle.service_take_request(Trigger.Request)
                if header is None:
                    break
                service.send_response(Trigger.Response(success=False, message=BUSY), header)

    def _request(self, step: DriverStep, *, withdraw: bool = True) -> Answer:
        """Send a request to the control loop. withdraw: cancel it if it is not answered in time."""
        alive = self._alive()
        if withdraw and not alive:
            return Answer(False, "the control loop does not run: nothing was done")
        future = self._loop.ask("driver", step)  # an outcome is processed when the loop runs again
        try:
            return future.result(LOOP_S if alive else 0.0)
        except NoAnswer:
            if withdraw and not future.cancel():
                return future.result()  # it is being executed now
            return Answer(False, f"the control loop did not answer within {LOOP_S:g} s")
