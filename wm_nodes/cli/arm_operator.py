"""`wm arm stop|clear|resume|home|pause|reset`: the operator's calls to an arm that runs."""

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
}


@dataclass(frozen=True)
class OperatorCall:
    """Call a service of the robot node, and print its answer. Exit code 1: it was refused.

    stop: emergency stop, latched on the disk. clear: the cause is gone; nothing moves yet. resume:
    motion is allowed, from new plans. home: go to the home pose. pause: stop until resume. reset:
    end the episode.
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
    done, text = _call(given, service, value)
    print(text)
    return 0 if done else 1


def _call(given: OperatorCall, service: str, value: bool | None) -> tuple[bool, str]:
    """Return whether the request was executed, and the robot node's answer."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from std_srvs.srv import SetBool, Trigger

    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("operator", context=context, namespace=given.ns)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    end = time.monotonic() + given.wait_s
    try:
        kind = Trigger if value is None else SetBool
        client: Any = node.create_client(kind, service)
        while not client.service_is_ready():
            executor.spin_once(timeout_sec=0.02)
            if time.monotonic() > end:
                raise UserError(
                    f"no robot node offers {given.ns}/{service} within {given.wait_s:g} s. Start "
                    "wm launch arm_mpc, on this ROS_DOMAIN_ID, or give its namespace with --ns."
                )
        request = Trigger.Request() if value is None else SetBool.Request(data=value)
        answer = client.call_async(request)
        executor.spin_until_future_complete(answer, timeout_sec=max(end - time.monotonic(), 2.0))
        result = answer.result() if answer.done() else None
        if result is None:
            raise UserError(f"{given.ns}/{service} did not answer. Is the robot node busy or gone?")
        return bool(result.success), str(result.message)
    finally:
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
