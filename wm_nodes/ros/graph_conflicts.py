"""Conflicts in the ROS graph: a second node of a name, a second publisher of a topic.

What a second graph publishes is not used. Of two graphs in one namespace the one that started later
ends; a second publisher of another program, which does not, ends every node that detects it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wm_nodes.errors import UserError
from wm_nodes.graphs.launch.process_identity import ProcessIdentity
from wm_nodes.ros import topics
from wm_nodes.ros.publishers import Conflict, Publishers, Verdict, gid_of

if TYPE_CHECKING:
    from wm_nodes.ros.node import ManagedNode

WATCHED = (topics.STEPS, topics.SPEC, topics.PLAN)  # a second publisher of these ends a node
FAULT = "second"
DISCOVERY_S = 1.0  # from a node's start until it acts: others are discovered meanwhile
EARLIER_S = 8.0  # for an earlier node of the same name to end, as after Ctrl-C
LOOK_S = 1.0  # between two looks at who else is there
GHOST_S = 25.0  # what a killed node has left in the graph is gone by then: DDS takes 20 s
HELD_S = 3.0  # a publisher without a name by then counts as one that never has one
HELD = 200  # messages of a topic that wait for their publisher's name
RELEASE_S = 0.02

Use = Callable[[Any], None]  # message


@dataclass(frozen=True)
class _Held:
    """A message that waits for its publisher's name."""

    since_s: float
    shown: str
    use: Use
    msg: Any
    gid: bytes


class GraphConflicts:
    """Watches one node's conflicts. `admits` is for every node; the rest begins with `take`."""

    def __init__(self, node: ManagedNode[Any]) -> None:
        self._node = node
        self._publishers = Publishers(node)
        self._taken = False
        self._since_s = time.monotonic()
        self._stays_s: float | None = None  # since when a second publisher of another program
        self._held: dict[str, deque[_Held]] = {}  # by topic
        self._busy = False
        self._releasing = node.create_timer(RELEASE_S, self.release)
        self._releasing.cancel()  # until a message is held

    def take(self, identity: ProcessIdentity | None) -> None:
        """The node has a process of its own: from now on look for a second graph."""
        self._taken, self._publishers.me = True, identity
        self._node.create_timer(LOOK_S, self._look)

    def wait(self) -> None:
        """Wait until others are discovered, and until an earlier node of this name has ended.

        It does so without the executor: the graph is discovered by threads of the middleware.
        """
        end = time.monotonic() + EARLIER_S
        while self._taken and not self._node.finished.done() and time.monotonic() < end:
            waited = time.monotonic() - self._since_s >= DISCOVERY_S
            if waited and not any(conflict.yields for conflict in self._conflicts()):
                return
            time.sleep(0.05)

    def refuse_second(self) -> None:
        """Raise UserError if another graph was here first."""
        for conflict in self._conflicts():
            if conflict.yields:
                raise UserError(conflict.text)

    def _conflicts(self) -> list[Conflict]:
        if not self._taken:
            return []
        names = tuple(self._node.resolve_topic_name(topic.name) for topic in WATCHED)
        return self._publishers.conflicts(names)

    def _look(self) -> None:
        """End the node if another graph was here first, or if a second one stays."""
        node, conflicts, now = self._node, self._conflicts(), time.monotonic()
        if not conflicts:
            self._stays_s = None
            node.clear_fault(FAULT, "the second publisher has gone")
            return
        if node.active:
            self.refuse_second()
        if node.diagnostics.report_fault(FAULT, conflicts[0].text):
            node.get_logger().error(f"{conflicts[0].text} Its messages are not used")
        stays = [conflict for conflict in conflicts if conflict.stays]
        self._stays_s = (self._stays_s or now) if stays else None
        if self._stays_s is not None and now - self._stays_s > GHOST_S:
            raise UserError(stays[0].text)

    # Messages -----------------------------------------------------------------------------------

    def admits(self, full_name: str, shown: str, use: Use, msg: Any, info: Any) -> bool:
        """Does a message come from the topic's only publisher? shown: the topic's relative name.

        One whose publisher is just being discovered is kept with all that follow it on its topic,
        and given to `use` in order of arrival.
        """
        held = _Held(time.monotonic(), shown, use, msg, gid_of(info))
        waiting = self._held.setdefault(full_name, deque())
        verdict = Verdict.UNKNOWN if waiting else self._publishers.verdict(full_name, held.gid)
        if verdict is Verdict.UNKNOWN and len(waiting) < HELD:
            self._releasing.reset()
            waiting.append(held)
        elif verdict is Verdict.UNKNOWN:
            self._node.drop(f"{shown}/unknown", f"{shown}: {HELD} messages of a new publisher wait")
        elif verdict is Verdict.REFUSE:
            self._refuse(shown)
        return verdict is Verdict.USE

    def release(self) -> None:
        """Handle messages that were kept and whose publisher is known now."""
        if self._busy or not any(self._held.values()):
            return
        self._busy = True  # handling one may receive others
        try:
            for full_name, waiting in list(self._held.items()):
                while waiting and self._handle(full_name, waiting):
                    pass
        finally:
            self._busy = False
        if not any(self._held.values()):
            self._releasing.cancel()

    def _handle(self, full_name: str, waiting: deque[_Held]) -> bool:
        """Handle the first message of a topic; False: its publisher is still unknown."""
        held = waiting[0]
        waited_s = time.monotonic() - held.since_s
        verdict = self._publishers.verdict(full_name, held.gid, patient=waited_s < HELD_S)
        if verdict is Verdict.UNKNOWN:
            return False
        waiting.popleft()
        if verdict is Verdict.USE:
            held.use(held.msg)
        else:
            self._refuse(held.shown)
        return True

    def _refuse(self, shown: str) -> None:
        self._node.drop(f"{shown}/publisher", f"{shown}: from a second publisher")
