"""Robot nodes that run in this ROS domain, by namespace, for commands that call one or all of them.

A robot node is a node that offers `<namespace>/estop` (std_srvs/SetBool).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wm_nodes.errors import UserError

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

LOOKS = 120  # rounds of event handling at least: on a stalled computer time alone is no evidence
QUIET_S, QUIET_LOOKS = 1.5, 60  # complete when nothing new came in this time and so many rounds
DISCOVERY_S = 6.5  # DDS announces each node every 3 s, and one announcement may be lost
ESTOP, KIND = "/estop", "std_srvs/srv/SetBool"


@contextmanager
def operator() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Create a node in this ROS domain, and destroy it at the end."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("operator", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown(timeout_sec=0.5)
        node.destroy_node()
        rclpy.try_shutdown(context=context)


class RunningRobots:
    """Namespaces of the robot nodes that were discovered so far; `look` discovers more."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self._node, self._executor = node, executor
        self._clients: dict[str, Any] = {}
        self._since_s = self._new_s = time.monotonic()
        self._looks = self._new_look = 0
        self._known: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """Return whether every robot node that ran at the start must be known by now."""
        now = time.monotonic()
        quiet = now - self._new_s >= QUIET_S and self._looks - self._new_look >= QUIET_LOOKS
        return quiet and now - self._since_s >= DISCOVERY_S and self._looks >= LOOKS

    def look(self) -> list[str]:
        """Return the namespaces in order; handles events for a moment."""
        from std_srvs.srv import SetBool

        self._executor.spin_once(timeout_sec=0.02)
        self._looks += 1
        services = self._node.get_service_names_and_types()
        known = frozenset(name for name, _ in services)
        if known != self._known:
            self._known, self._new_s, self._new_look = known, time.monotonic(), self._looks
        for name, kinds in services:
            if name.endswith(ESTOP) and KIND in kinds and name not in self._clients:
                self._clients[name] = self._node.create_client(SetBool, name)
        # A name alone may be that of a client: a service is ready only where a server is.
        ready = [name for name, client in self._clients.items() if client.service_is_ready()]
        return sorted(name.removesuffix(ESTOP) or "/" for name in ready)

    def only(self, wait_s: float) -> str:
        """Return the namespace of the one robot node; "" if there is none within `wait_s`.

        It takes DISCOVERY_S at least, so that a second one is not missed. UserError: several run.
        """
        end = time.monotonic() + wait_s
        while True:
            namespaces = self.look()
            if len(namespaces) > 1:
                raise UserError(
                    f"{len(namespaces)} robot nodes run: {', '.join(namespaces)}. Choose one with "
                    f"--ns, as in --ns {namespaces[0]}."
                )
            if self.complete and (namespaces or time.monotonic() >= end):
                return namespaces[0] if namespaces else ""


def namespace_or_only(ns: str, wait_s: float) -> str:
    """Return `ns`; if it is empty, the namespace of the only robot node, or "" without one."""
    if ns:
        return ns
    with operator() as (node, executor):
        return RunningRobots(node, executor).only(wait_s)
