"""Settings of a joint_trajectory_controller (ros2_control) that decide whether an arm moves evenly.

Each of our messages replaces the last one. By default the controller begins a new trajectory at the
measured position, which lags behind the command: with every message the command would jump back by
the lag. With `interpolate_from_desired_state` (Jazzy and later) or `open_loop_control` (Humble,
Jazzy) it begins where the last one has brought it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node

FROM_COMMAND = ("interpolate_from_desired_state", "open_loop_control")  # either is enough
AGAIN_S = 2.0  # until a controller is asked again


class ControllerSettings:
    """Reads the settings of the nodes that take trajectories. Call it in one thread only.

    A node that does not answer, or that has neither parameter, is no joint_trajectory_controller
    and is accepted.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._clients: dict[str, Any] = {}  # full name of a node -> client of its parameters
        self._asked_s: dict[str, float] = {}
        self._pending: dict[tuple[str, str], Any] = {}  # (node, parameter) -> newest request
        self._values: dict[tuple[str, str], bool] = {}  # (node, parameter)

    def wrong(self, nodes: Iterable[str]) -> str:
        """Return what is wrong with these nodes' settings (full names), or nothing."""
        names = sorted(set(nodes))
        for gone in self._clients.keys() - set(names):
            self._forget(gone)
        for name in names:
            self._ask(name)
        for name in names:
            known = [self._values[name, key] for key in FROM_COMMAND if (name, key) in self._values]
            if known and not any(known):
                return (
                    f"controller {name}: got {FROM_COMMAND[0]} false, expected true: with every "
                    "message its command jumps back to the measured position. Set "
                    f"{FROM_COMMAND[0]}: true in the controllers' YAML and load it again."
                )
        return ""

    def _ask(self, name: str) -> None:
        """Ask for each parameter by itself: an undeclared one empties the whole answer."""
        now = time.monotonic()
        if now - self._asked_s.get(name, -AGAIN_S) < AGAIN_S:
            return
        if name not in self._clients:
            self._clients[name] = self._node.create_client(GetParameters, f"{name}/get_parameters")
        client = self._clients[name]
        if not client.service_is_ready():
            return
        self._asked_s[name] = now
        for key in FROM_COMMAND:
            if unanswered := self._pending.pop((name, key), None):
                client.remove_pending_request(unanswered)  # or they pile up
            future = client.call_async(GetParameters.Request(names=[key]))
            self._pending[name, key] = future
            future.add_done_callback(lambda done, key=key: self._answered(name, key, done))

    def _answered(self, name: str, key: str, done: Any) -> None:
        answer = None if done.cancelled() or done.exception() else done.result()
        if answer is None or name not in self._clients:
            return
        for value in answer.values:
            if value.type == ParameterType.PARAMETER_BOOL:
                self._values[name, key] = bool(value.bool_value)

    def _forget(self, name: str) -> None:
        self._node.destroy_client(self._clients.pop(name))
        self._asked_s.pop(name, None)
        for key in FROM_COMMAND:
            self._values.pop((name, key), None)
            self._pending.pop((name, key), None)
