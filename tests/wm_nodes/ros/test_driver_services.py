"""Recovery and switching through the driver's services: real rclpy, a stub of the driver."""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64
from std_srvs.srv import SetBool, Trigger

from tests.wm_nodes.control.test_realtime import STILL_RAD, Bench
from wm_nodes.checks.arm_bringup.connections import check_driver_services
from wm_nodes.checks.arm_bringup.report import Report
from wm_nodes.control.states import State
from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.robots.arm.config.driver_section import DriverSection, ServiceCall
from wm_nodes.ros.driver_services import DriverServices
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.service_types import filled

TRIGGER, SET_BOOL = "std_srvs/srv/Trigger", "std_srvs/srv/SetBool"
SWING = 50  # control periods of motion in one direction
SHORT_S, LONG_S = 0.3, 10.0  # of calls: one that fails by its time-out, and all others


class RobotNode(ManagedNode):
    NAME = "robot"


class StubDriver:
    """A driver's services in a separate thread; `responses` has the response of each."""

    def __init__(self) -> None:
        self.context = rclpy.Context()  # another participant, as in another process
        rclpy.init(context=self.context)
        self.node = Node("driver", context=self.context)
        self.calls: list[tuple[str, bool | None]] = []
        self.responses = {"unlock": (True, ""), "clear": (True, ""), "switch": (True, "")}
        self.delay_s = 0.0
        for name in ("unlock", "clear"):
            self.node.create_service(Trigger, f"/driver/{name}", self._handler(name))
        self.node.create_service(SetBool, "/driver/switch", self._handler("switch"))
        self.speed = self.node.create_publisher(Float64, "/driver/speed_scaling", 10)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.ended = False
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def _spin(self) -> None:
        while not self.ended:
            self.executor.spin_once(timeout_sec=0.02)

    def _handler(self, name):
        def handle(request, response):
            self.calls.append((name, getattr(request, "data", None)))
            time.sleep(self.delay_s)
            response.success, response.message = self.responses[name]
            return response

        return handle

    def close(self) -> None:
        self.ended = True
        self.thread.join()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


class ArmWithServices:
    """The simulated arm, its control loop in a thread, the stub driver and the services."""

    def __init__(self, graph, section: DriverSection) -> None:
        self.graph, self.bench = graph, Bench().until(State.ACTING)
        self.driver = StubDriver()
        self.robot = graph.add(RobotNode)
        arm, loop = self.bench.arm, self.bench.loop
        self.supervisor, self.loop = arm.supervisor, loop
        self.speed = arm.motion.speed
        self.alive, self.ended = True, False
        try:
            self.services = DriverServices(
                self.robot, section, self.speed, loop, lambda: self.alive
            )
        except BaseException:
            self.driver.close()
            raise
        self.thread = threading.Thread(target=self._tick)
        self.lock = threading.Lock()
        self.thread.start()

    def _tick(self) -> None:
        """Tick all the time. Plans change direction regularly: no bound stops the arm for long."""
        for number in itertools.count(1):
            if self.ended:
                return
            with self.lock:
                if number % SWING == 0:
                    self.bench.speed = -self.bench.speed
                self.bench.tick()
            time.sleep(0.001)

    def discovered(self) -> None:
        """Wait until the services of the recovery are known."""
        calls = self.services._calls["recover"]
        self.graph.until(lambda: all(call.client.service_is_ready() for call in calls))

    def call(self, name: str):
        client = self.graph.probe.create_client(Trigger, name)
        self.graph.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.graph.until(future.done)
        return future.result()

    def displacement(self, seconds: float = 1.0) -> float:
        """Return how far a joint moves in simulated time [rad]."""
        with self.lock:
            return self.bench.run(seconds)

    def moves(self) -> bool:
        """Does a joint move within 5 s of simulated time, in either direction?"""
        for _ in range(5):
            with self.lock:
                self.bench.speed = -self.bench.speed
                if self.bench.run(1.0) > 0.02:
                    return True
        return False

    def ask(self, name: str):
        with self.lock:
            return self.bench.ask(name)

    def stop(self, how: str) -> None:
        with self.lock:
            self.bench.stop(how)

    def close(self) -> None:
        self.ended = True
        self.thread.join()
        self.services.close()
        self.driver.close()


def section(**changes) -> DriverSection:
    defaults = {
        "recover": (
            ServiceCall("/driver/unlock", TRIGGER, timeout_s=LONG_S),
            ServiceCall("/driver/clear", TRIGGER, timeout_s=LONG_S),
        ),
        "activate": ServiceCall("/driver/switch", SET_BOOL, {"data": True}, timeout_s=LONG_S),
        "deactivate": ServiceCall("/driver/switch", SET_BOOL, {"data": False}, timeout_s=LONG_S),
    }
    return DriverSection(**{**defaults, **changes})


@pytest.fixture
def start_arm(graph):
    arms = []

    def start(**changes) -> ArmWithServices:
        arms.append(ArmWithServices(graph, section(**changes)))
        return arms[-1]

    yield start
    for arm in arms:
        arm.close()


def test_recovery_calls_the_services_in_order_without_clearing_or_motion(start_arm):
    arm = start_arm()
    arm.stop("estop")
    response = arm.call("recover")
    assert response.success and "resume" in response.message
    assert arm.driver.calls == [("unlock", None), ("clear", None)]
    assert "estop" in arm.supervisor.latched
    assert arm.displacement(2.0) < STILL_RAD
    assert arm.ask("clear").done and arm.displacement() < STILL_RAD
    assert arm.ask("resume").done and arm.moves()


@pytest.mark.parametrize("service", ["recover", "activate", "deactivate"])
def test_no_service_is_called_while_the_arm_moves(start_arm, service):
    arm = start_arm()
    response = arm.call(service)
    assert not response.success and "moves" in response.message and not arm.driver.calls
    assert arm.moves()


@pytest.mark.parametrize(
    ("failure", "expected_message"),
    [("refuses", "refused (brakes are on)"), ("late", "no answer"), ("absent", "no such service"),
     ("type", "no such service")],
)  # fmt: skip
def test_a_failure_is_reported_in_one_line_and_changes_nothing(
    start_arm, failure, expected_message
):
    first = ServiceCall(
        "/driver/unlock", TRIGGER, timeout_s=SHORT_S if failure == "late" else LONG_S
    )
    if failure == "absent":
        first = ServiceCall("/driver/nowhere", TRIGGER, timeout_s=SHORT_S)
    if failure == "type":
        first = ServiceCall("/driver/unlock", SET_BOOL, {"data": True}, timeout_s=SHORT_S)
    arm = start_arm(recover=(first, ServiceCall("/driver/clear", TRIGGER)))
    if failure == "refuses":
        arm.driver.responses["unlock"] = False, "brakes\nare on"
    arm.driver.delay_s = 5 * SHORT_S if failure == "late" else 0.0
    if failure in ("refuses", "late"):
        arm.discovered()
    arm.stop("protective stop")
    latched = dict(arm.supervisor.latched)
    response = arm.call("recover")
    assert (
        not response.success
        and expected_message in response.message
        and "\n" not in response.message
    )
    assert ("clear", None) not in arm.driver.calls
    assert arm.supervisor.latched == latched and not arm.loop.waiting_for().startswith(
        "the driver is"
    )
    assert arm.ask("clear").done and arm.ask("resume").done and arm.moves()


def test_there_is_nothing_to_recover_of_an_arm_that_may_move(start_arm):
    arm = start_arm()
    with arm.lock:
        arm.bench.loop.end()
        arm.bench.run(1.5)
    response = arm.call("recover")
    assert not response.success and "nothing" in response.message and not arm.driver.calls


def test_during_recovery_no_call_allows_motion(start_arm):
    arm = start_arm()
    arm.stop("pause")
    arm.driver.delay_s = 0.2
    started = threading.Event()
    outcomes = []

    def recover() -> None:
        started.set()
        outcomes.append(arm.services._execute("recover"))

    thread = threading.Thread(target=recover)
    thread.start()
    arm.graph.until(lambda: arm.driver.calls)
    refused = arm.ask("resume")
    assert not refused.done and "being recovered" in refused.text
    assert arm.displacement(0.5) < STILL_RAD
    thread.join()
    assert outcomes[0].done
    assert arm.ask("resume").done and arm.moves()


def test_after_activation_the_path_begins_at_the_measured_position_and_resume_allows_motion(
    start_arm,
):
    arm = start_arm()
    arm.stop("pause")
    assert arm.call("deactivate").success and arm.driver.calls == [("switch", False)]
    assert "deactivated" in arm.supervisor.stopping
    with arm.lock:  # moved by hand, while another controller is active
        driver = arm.bench.driver
        target = driver.world.positions()
        target[0] += 0.4
        driver.controller.command("position", target[:6])
        arm.bench.run(2.0)
        position = driver.world.positions()
    assert not arm.supervisor.latched
    assert np.abs(arm.supervisor.filter.x - position)[0] > 0.3  # the filter does not follow it
    assert arm.call("activate").success and arm.driver.calls[-1] == ("switch", True)
    assert arm.displacement(2.0) < STILL_RAD and not arm.supervisor.latched
    assert np.abs(arm.supervisor.filter.x - position)[0] < 0.05
    assert "resume" in arm.loop.waiting_for()
    arm.bench.plans = False
    assert arm.ask("resume").done and arm.displacement() < STILL_RAD
    arm.bench.plans = True
    assert arm.moves()


def test_a_failed_activation_leaves_the_arm_as_it_was(start_arm):
    arm = start_arm()
    arm.stop("pause")
    arm.driver.responses["switch"] = False, "no such controller"
    response = arm.call("activate")
    assert not response.success and "no such controller" in response.message
    assert arm.displacement(0.2) < STILL_RAD
    assert arm.ask("resume").done and arm.moves()
    arm.stop("pause")
    arm.driver.responses["switch"] = True, ""
    assert arm.call("deactivate").success
    arm.driver.responses["switch"] = False, "again"
    assert not arm.call("activate").success
    arm.displacement(0.2)
    assert "deactivated" in arm.supervisor.stopping


def test_no_service_is_called_without_a_control_loop_or_a_section(start_arm):
    arm = start_arm(recover=())
    assert "no `driver: recover:`" in arm.call("recover").message
    arm.stop("pause")
    arm.alive = False
    assert "does not run" in arm.call("activate").message and not arm.driver.calls


@pytest.mark.parametrize("percent", [True, False])
def test_the_drivers_speed_counts_and_wrong_values_are_dropped_and_named(start_arm, percent):
    arm = start_arm(speed_scaling_topic="/driver/speed_scaling", speed_scaling_percent=percent)
    full_speed = 100.0 if percent else 1.0
    assert arm.speed.now(time.monotonic())[1] == "driver_speed"

    def publish_until(value: float, until) -> None:
        def publish_and_check() -> bool:
            arm.driver.speed.publish(Float64(data=value))
            return until()

        arm.graph.until(publish_and_check)

    publish_until(
        0.3 * full_speed, lambda: arm.speed.now(time.monotonic()) == (pytest.approx(0.3), "")
    )
    publish_until(0.0, lambda: arm.speed.now(time.monotonic())[1] == "driver_paused")
    publish_until(full_speed, lambda: arm.speed.now(time.monotonic()) == (1.0, ""))

    def assert_dropped(value: float) -> None:
        before = sum(arm.speed.dropped.values())
        publish_until(value, lambda: sum(arm.speed.dropped.values()) > before)

    for wrong in (math.nan, math.inf, -1.0, 1.5 * full_speed):
        assert_dropped(wrong)
    assert set(arm.speed.dropped) == {"non-finite", "range"}
    arm.graph.until(lambda: arm.speed.now(time.monotonic())[1] == "driver_speed")


@pytest.mark.parametrize(
    ("kind", "expected_message"),
    [("no_such_msgs/srv/Trigger", "package no_such_msgs cannot be imported"),
     ("std_srvs/srv/Triger", "got Triger, expected a service of std_srvs"),
     ("std_srvs/srv/Empty", "without a field success or ok")],
)  # fmt: skip
def test_a_service_type_that_cannot_be_used_is_one_line_at_the_start(
    start_arm, kind, expected_message
):
    with pytest.raises(UserError, match=expected_message) as raised:
        start_arm(recover=(ServiceCall("/driver/unlock", kind),))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("request_", "expected_message"),
    [({"dat": True}, "activate.request: got the field 'dat', expected one of: data"),
     ({"data": 1}, "activate.request.data: got 1, expected a value of the ROS type boolean")],
)  # fmt: skip
def test_a_request_that_does_not_fit_its_type_is_one_line_at_the_start(
    start_arm, request_, expected_message
):
    with pytest.raises(UserError, match=expected_message):
        start_arm(activate=ServiceCall("/driver/switch", SET_BOOL, request_))


def test_requests_are_filled_by_name_with_lists_and_nested_messages():
    from rcl_interfaces.srv import ListParameters, SetParameters

    list_request = filled(ListParameters.Request(), {"prefixes": ["a", "b"], "depth": 2}, "x")
    assert list(list_request.prefixes) == ["a", "b"] and list_request.depth == 2
    set_request = filled(
        SetParameters.Request(),
        {"parameters": [{"name": "n", "value": {"type": 3, "double_value": 1}}]},
        "x",
    )
    assert set_request.parameters[0].value.double_value == 1.0
    for wrong in ({"depth": -1}, {"depth": True}, {"depth": 2**64}, {"prefixes": "a"},
                  {"prefixes": [1]}):  # fmt: skip
        with pytest.raises(UserError):
            filled(ListParameters.Request(), wrong, "x")
    with pytest.raises(UserError, match=r"value\.type"):
        filled(SetParameters.Request(), {"parameters": [{"value": {"type": 300}}]}, "x")


def test_waiting_for_a_service_does_not_poll(start_arm):
    arm = start_arm(recover=(ServiceCall("/driver/unlock", TRIGGER, timeout_s=5.0),),
                speed_scaling_topic="/driver/speed_scaling")  # fmt: skip
    arm.stop("protective stop")
    arm.driver.delay_s = 1.0
    turns = 0

    def count_turns(spin_once):
        def counted_spin_once(**options):
            nonlocal turns
            turns += 1
            spin_once(**options)

        return counted_spin_once

    for executor in arm.services._executors.values():
        executor.spin_once = count_turns(executor.spin_once)
    client = arm.graph.probe.create_client(Trigger, "recover")
    arm.graph.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    published = 0
    while not future.done():
        arm.driver.speed.publish(Float64(data=100.0))
        published += 1
        arm.graph.executor.spin_once(timeout_sec=0.01)
    assert future.result().success
    assert turns <= 3 * published + 100  # a loop that polls makes thousands


def test_a_call_during_another_one_is_refused_at_once_and_not_executed_later(start_arm):
    arm = start_arm(recover=(ServiceCall("/driver/unlock", TRIGGER, timeout_s=5.0),),
                activate=ServiceCall("/driver/switch", SET_BOOL, {"data": True}))  # fmt: skip
    arm.stop("protective stop")
    arm.driver.delay_s = 1.5
    first, second = (
        arm.graph.probe.create_client(Trigger, name) for name in ("recover", "activate")
    )
    arm.graph.until(lambda: first.service_is_ready() and second.service_is_ready())
    recovered = first.call_async(Trigger.Request())
    arm.graph.until(lambda: arm.driver.calls)
    activated = second.call_async(Trigger.Request())
    arm.graph.until(activated.done)
    assert not recovered.done()
    assert not activated.result().success and "call again afterwards" in activated.result().message
    arm.graph.until(recovered.done)
    assert recovered.result().success
    arm.graph.spin(0.3)
    assert [name for name, _ in arm.driver.calls] == ["unlock"]


def test_an_outcome_counts_although_the_control_loop_ended_meanwhile(start_arm):
    arm = start_arm(recover=(ServiceCall("/driver/unlock", TRIGGER, timeout_s=5.0),))
    arm.stop("protective stop")
    arm.driver.delay_s = 0.5
    client = arm.graph.probe.create_client(Trigger, "recover")
    arm.graph.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    arm.graph.until(lambda: arm.driver.calls)
    arm.alive = False
    arm.graph.until(future.done)
    arm.alive = True
    arm.displacement(0.1)
    assert arm.loop._driver.busy == ""


def test_the_bring_up_check_names_each_service_that_is_wrong(graph, capsys):
    node = graph.add(RobotNode, begin=False)
    node.create_service(Trigger, "/driver/unlock", lambda request, response: response)
    section = DriverSection(
        recover=(
            ServiceCall("/driver/unlock", TRIGGER),
            ServiceCall("/driver/unlock", SET_BOOL, {"data": True}),
            ServiceCall("/driver/nowhere", TRIGGER),
        ),
        activate=ServiceCall("/driver/unlock", "std_srvs/srv/Triger"),
        deactivate=ServiceCall("/driver/unlock", SET_BOOL, {"dat": True}),
    )
    config = replace(read_config(find_config("arm_sim")), driver=section)
    graph.until(lambda: "/driver/unlock" in dict(node.get_service_names_and_types()))
    check_driver_services(config, node, Report())
    lines = [line for line in capsys.readouterr().out.splitlines() if "fix:" not in line]
    assert lines[0] == f"ok     driver.recover: /driver/unlock ({TRIGGER})"
    assert lines[1:3] == [
        f"WRONG  driver.recover: no service /driver/unlock of type {SET_BOOL}, it is {TRIGGER}",
        f"WRONG  driver.recover: no service /driver/nowhere of type {TRIGGER}",
    ]
    assert (
        "got Triger, expected a service of std_srvs" in lines[3]
        and "got the field 'dat'" in lines[4]
    )
