"""Other nodes that command the same arm, and which of them has precedence."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rclpy.node import Node

from wm_nodes.ros.arm import endpoints

PREFIX = "robot_driver_"  # name of a driver's node: then its start time [ns] in hex
NAMELESS_S = 1.0  # a publisher may be discovered so long before its node's name


def node_name(start_ns: int) -> str:
    """Return the name of the node of a driver that started at a time [ns]."""
    return f"{PREFIX}{start_ns:x}"


@dataclass(frozen=True)
class Commander:
    """Another publisher of commands; `precedes`: this driver must yield to it."""

    name: str
    precedes: bool
    text: str


class Commanders:
    """Other publishers on the command topics: the robot node that started first has precedence.

    Anything else that publishes commands precedes every robot node.
    """

    def __init__(self, node: Node, start_ns: int, topics: Mapping[str, str]) -> None:
        self._node, self._topics = node, tuple(topics)
        self._own_name = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
        self._rank = (start_ns, self._own_name)
        self._nameless: dict[bytes, float] = {}  # publisher without a name -> first look at it [s]
        self._known: set[str] = set()

    def others(self) -> list[Commander]:
        """Return all other commanders. A new node's name is waited for."""
        others: dict[str, Commander] = {}
        now, nameless = time.monotonic(), {}
        for topic in self._topics:
            for info in self._node.get_publishers_info_by_topic(topic):
                name, gid = endpoints.full_name(info), endpoints.identifier(info.endpoint_gid)
                if name == self._own_name:
                    continue
                if endpoints.UNNAMED in name:
                    nameless[gid] = self._nameless.get(gid, now)
                    if now - nameless[gid] < NAMELESS_S:
                        continue
                others.setdefault(name, self._commander(name, topic))
        self._nameless = nameless
        return list(others.values())

    def new(self, others: Sequence[Commander]) -> list[Commander]:
        """Return those that were not there at the last call."""
        new = [other for other in others if other.name not in self._known]
        self._known = {other.name for other in others}
        return new

    def _commander(self, name: str, topic: str) -> Commander:
        started = re.fullmatch(f".*/{PREFIX}([0-9a-f]+)", name)
        rank = (int(started[1], 16), name) if started else None
        precedes = rank is None or rank < self._rank
        if rank is None:
            what = f"{name}, which is no robot node"
        else:
            what = f"the robot node of {name}, which started {'earlier' if precedes else 'later'}"
        if precedes:
            remedy = "End that node, or give one of the two another command topic."
        else:
            remedy = "That one yields: end it."
        text = f"commands on {topic}: got another publisher, {what}, expected none. {remedy}"
        return Commander(name, precedes, text)
