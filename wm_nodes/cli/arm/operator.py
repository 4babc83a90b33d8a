"""`wm arm stop|clear|resume|home|pause|reset|recover|activate|deactivate`: the operator's calls to
running arms."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_nodes.cli.arguments import parse, require, require_namespace
from wm_nodes.cli.running_robots import RunningRobots, operator
from wm_nodes.errors import UserError
from wm_nodes.namespaces import absolute

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

CALLS = {  # command -> (service, value of a SetBool request; None: Trigger)
    "stop": ("estop", True),
    "clear": ("estop", False),
    "resume": ("resume", None),
    "home": ("go_home", None),
    "pause": ("pause", True),
    "reset": ("reset", None),
    "recover": ("recover", None),
    "activate": ("activate", None),
    "deactivate": ("deactivate", None),
}
STOP = "stop"
ANSWER_S = 2.0  # of a service, at least
NO_ANSWER = "no answer. Is the robot node busy or gone?"
DRIVER_S = {"recover": 330.0, "activate": 40.0, "deactivate": 40.0}  # the driver may take long


@dataclass(frozen=True)
class OperatorCall:
    """Call a service of the robot node, and print its answer. Exit code 1: it was refused.

    stop: emergency stop, latched on the disk. clear: confirm that the cause is gone; nothing moves
    yet. resume: allow motion, from new plans. home: go to the home pose. pause: stop until resume.
    reset: end the episode. recover: call the driver's services that end a protective stop.
    activate, deactivate: switch the driver's controller. Without --ns, stop stops every robot node;
    the others need exactly one to be running.
    """

    ns: str = ""
    """Namespace of the robot node; empty: the only running one (stop: all)."""
    every: Annotated[bool, tyro.conf.arg(name="all")] = False
    """stop: all robot nodes of this ROS domain, as without --ns."""
    wait_s: float = 10.0
    """How long to wait for a robot node."""


@dataclass(frozen=True)
class ServiceCall:
    """A request to a service of a robot node. answer_s: longest wait for its answer [s]."""

    service: str
    kind: Any
    request: Any
    answer_s: float = ANSWER_S


@dataclass
class _Call:
    """A request to one robot node: sent as soon as its service is ready. Times [s]."""

    ns: str
    client: Any
    request: Any
    answer_s: float
    answer: Any = None
    end_s: float = field(default=float("inf"))

    def go_on(self) -> None:
        if self.answer is None and self.client.service_is_ready():
            self.answer = self.client.call_async(self.request)
            self.end_s = time.monotonic() + self.answer_s

    @property
    def over(self) -> bool:
        answered = self.answer is not None and self.answer.done()
        return answered or time.monotonic() > self.end_s

    def response(self) -> Any:
        """Return the response; None: there was none in time."""
        return self.answer.result() if self.answer is not None and self.answer.done() else None

    def result(self) -> tuple[bool, str]:
        """Return whether the request was executed, and the robot node's answer."""
        response = self.response()
        if response is None:
            return False, NO_ANSWER
        return bool(response.success), str(response.message)


def run(name: str, words: Sequence[str]) -> int:
    """Run `wm arm NAME WORDS`."""
    options = parse(OperatorCall, f"arm {name}", words)
    require("wait-s", options.wait_s, 0.0, 600.0)
    ns = require_namespace("ns", options.ns) if options.ns else ""
    if options.every and (ns or name != STOP):
        what = "--ns" if ns else f"wm arm {name}"
        raise UserError(f"--all: got {what}, expected wm arm stop --all, without --ns.")
    from std_srvs.srv import SetBool, Trigger

    service, value = CALLS[name]
    request = Trigger.Request() if value is None else SetBool.Request(data=value)
    fine = True
    with operator() as (node, executor):
        kind = Trigger if value is None else SetBool
        service_call = ServiceCall(service, kind, request, DRIVER_S.get(name, ANSWER_S))
        caller = _Caller(node, executor, service_call, options.wait_s)
        calls = caller.all() if name == STOP and not ns else caller.one(ns)
        for call in calls:
            done, text = call.result()
            print(f"{call.ns}: {text}", flush=True)
            fine = fine and done
    return 0 if fine else 1


def ask(ns: str, wait_s: float, call: ServiceCall) -> Any:
    """Return the response of a service of one robot node, the only one if `ns` is empty.

    wait_s: longest time until the node is there [s]. UserError: there is none, several run and none
    is named, or it does not answer.
    """
    name = require_namespace("ns", ns) if ns else ""
    with operator() as (node, executor):
        (robot_call,) = _Caller(node, executor, call, wait_s).one(name)
        response = robot_call.response()
        if response is None:
            raise UserError(f"{robot_call.ns}/{call.service}: {NO_ANSWER}")
        return response


class _Caller:
    """Calls the service of one command. UserError: no robot node offers it in time."""

    def __init__(
        self, node: Node, executor: SingleThreadedExecutor, call: ServiceCall, wait_s: float
    ) -> None:
        self._node, self._executor, self._call = node, executor, call
        self._end_s, self._wait_s = time.monotonic() + wait_s, wait_s
        self._robots = RunningRobots(node, executor)

    def one(self, ns: str) -> Iterator[_Call]:
        """Call one robot node, the only one if `ns` is empty."""
        ns = ns or self._robots.only(self._wait_s)
        if not ns:
            raise self._none("")
        call = self._make(ns)
        while not call.over:
            call.go_on()
            self._executor.spin_once(timeout_sec=0.02)
            if call.answer is None and time.monotonic() > self._end_s:
                raise self._none(ns)
        yield call

    def all(self) -> Iterator[_Call]:
        """Call every robot node at once when it is discovered; yield each when it has answered."""
        open_calls: dict[str, _Call] = {}
        known: set[str] = set()
        while open_calls or not self._robots.complete or not known:
            for ns in set(self._robots.look()) - known:
                known.add(ns)
                open_calls[ns] = self._make(ns)
            for ns, call in tuple(open_calls.items()):
                call.go_on()
                if call.over:
                    yield open_calls.pop(ns)
            if not known and time.monotonic() > self._end_s and self._robots.complete:
                raise self._none("")

    def _make(self, ns: str) -> _Call:
        call = self._call
        client: Any = self._node.create_client(call.kind, absolute(call.service, ns))
        return _Call(ns, client, call.request, call.answer_s)

    def _none(self, ns: str) -> UserError:
        what = f"offers {absolute(self._call.service, ns)}" if ns else "runs"
        return UserError(
            f"no robot node {what} within {self._wait_s:g} s. Start wm launch arm_mpc, on this "
            "ROS_DOMAIN_ID, or give its namespace with --ns."
        )
