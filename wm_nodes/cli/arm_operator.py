"""`wm arm stop|clear|resume|home|pause|reset|recover|activate|deactivate`: the operator's calls to
an arm that runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wm_nodes.cli.arguments import parse, require
from wm_nodes.errors import UserError

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
ANSWER_S = 2.0  # at least so long for an answer
DRIVER_S = {"recover": 330.0, "activate": 40.0, "deactivate": 40.0}  # the driver may take long


@dataclass(frozen=True)
class OperatorCall:
    """Call a service of the robot node, and print its answer. Exit code 1: it was refused.

    stop: emergency stop, latched on the disk. clear: the cause is gone; nothing moves yet. resume:
    motion is allowed, from new plans. home: go to the home pose. pause: stop until resume. reset:
    end the episode. recover: call the driver's services that end a protective stop. activate,
    deactivate: switch the driver's controller.
    """

    ns: str = "/robot"
    """Namespace of the robot node."""
    wait_s: float = 10.0
    """How long to wait for the robot node."""


def run(name: str, words: Sequence[str]) -> int:
    """Run `wm arm NAME WORDS`."""
    given = parse(OperatorCall, f"arm {name}", words)
    require("wait-s", given.wait_s, 0.0, 600.0)
    service, value = CALLS[name]
    done, text = _call(given, service, value, DRIVER_S.get(name, ANSWER_S))
    print(text)
    return 0 if done else 1


def _call(
    given: OperatorCall, service: str, value: bool | None, answer_s: float
) -> tuple[bool, str]:
    """Return whether the request was executed, and the robot node's answer."""
    from std_srvs.srv import SetBool, Trigger

    kind = Trigger if value is None else SetBool
    request = Trigger.Request() if value is None else SetBool.Request(data=value)
    result = ask(given, service, kind, request, answer_s)
    return bool(result.success), str(result.message)


def ask(
    given: OperatorCall, service: str, kind: Any, request: Any, answer_s: float = ANSWER_S
) -> Any:
    """Return the response of a service of the robot node; UserError if there is none.

    answer_s: least time to wait for the answer, once the service is there [s].
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("operator", context=context, namespace=given.ns)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    end = time.monotonic() + given.wait_s
    try:
        client: Any = node.create_client(kind, service)
        while not client.service_is_ready():
            executor.spin_once(timeout_sec=0.02)
            if time.monotonic() > end:
                raise UserError(
                    f"no robot node offers {given.ns}/{service} within {given.wait_s:g} s. Start "
                    "wm launch arm_mpc, on this ROS_DOMAIN_ID, or give its namespace with --ns."
                )
        answer = client.call_async(request)
        wait_s = max(end - time.monotonic(), answer_s)
        executor.spin_until_future_complete(answer, timeout_sec=wait_s)
        result = answer.result() if answer.done() else None
        if result is None:
            raise UserError(f"{given.ns}/{service} did not answer. Is the robot node busy or gone?")
        return result
    finally:
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
