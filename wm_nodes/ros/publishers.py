"""Who publishes what a node uses: messages of a second graph are refused, and the node ends.

One process publishes each topic of a robot. A message is used if its publisher is the only one that
lives, and of the same launch as this node. Ghosts, the nodes of killed processes that DDS still
shows, do not count (`process_identity.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import rclpy
from rclpy.node import Node

from wm_nodes.graphs.launch.process_identity import ProcessIdentity

SENDING_S = 2.0  # a publisher without an identity is alive if it sent a message within this time
AGAIN_S = 0.5  # until a refused publisher is looked at again
NAMELESS = "_UNKNOWN_"  # in the names of nodes that are just being discovered
REMEDY = "Give each run a namespace (ns:=NAME) or a ROS_DOMAIN_ID of its own."


class Verdict(Enum):
    """What to do with a message; UNKNOWN: its publisher is just being discovered."""

    USE = "use"
    REFUSE = "refuse"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Conflict:
    """A second process where one is expected. yields: it was first, so this node must end.
    stays: it will not end by itself, as a later node of ours does."""

    text: str
    yields: bool
    stays: bool


@dataclass
class _Source:
    """The publisher whose messages are used on one topic."""

    gid: bytes
    last_message_s: float


@dataclass(frozen=True)
class _Party:
    """A living process that publishes a topic, or has a node's name. sending: of one without an
    identity, whether it has sent a message within SENDING_S; it may exist without sending any."""

    name: str
    identity: ProcessIdentity | None
    sending: bool = True

    def __str__(self) -> str:
        who = self.identity
        if who is None:
            return self.name
        return f"{self.name} (process {who.pid}{'' if who.local else ' of another computer'})"


class Publishers:
    """Living publishers of the topics that a node uses. For the thread of the node's executor.

    me: identity of this process; None: unknown, as in a program that is no node of ours.
    """

    def __init__(self, node: Node, me: ProcessIdentity | None = None) -> None:
        self.me = me
        self._node = node
        self._name = _joined(node.get_namespace(), node.get_name())
        self._sources: dict[str, _Source] = {}
        self._refused: dict[tuple[str, bytes], float] = {}  # since when [s]
        self._refused_last_s: dict[
            tuple[str, bytes], float
        ] = {}  # newest message of a refused publisher

    def verdict(self, topic: str, gid: bytes, *, patient: bool = True) -> Verdict:
        """Return what to do with a message of this publisher. topic: its full name.

        gid: from the message's info; b"": this middleware has none, all are used. patient: may the
        publisher's name still become known?
        """
        source, now = self._sources.get(topic), time.monotonic()
        if source is not None and source.gid == gid:
            source.last_message_s = now
            return Verdict.USE
        if not gid:
            return Verdict.USE
        key = (topic, gid)
        self._refused_last_s[key] = now
        if now - self._refused.get(key, -AGAIN_S) < AGAIN_S:
            return Verdict.REFUSE
        verdict = self._judge(topic, gid, now, patient)
        if verdict is Verdict.REFUSE:
            self._refused[key] = now
        elif verdict is Verdict.USE:
            self._refused.pop(key, None)
            self._sources[topic] = _Source(gid, now)
        return verdict

    def conflicts(self, topics: tuple[str, ...]) -> list[Conflict]:
        """Return who has this node's name, and which topics have several living publishers."""
        now, (nodes, _) = time.monotonic(), self._nodes()
        self._refused_last_s = {
            key: at for key, at in self._refused_last_s.items() if now - at < SENDING_S
        }
        self._refused = {key: at for key, at in self._refused.items() if now - at < AGAIN_S}
        same = [_Party(self._name, who) for who in nodes.get(self._name, ())]
        conflicts = [
            self._conflict(f"node {self._name}", party, involved=True)
            for party in _without_own(same, self.me)
        ]
        for topic in topics:
            parties = self._parties(topic, nodes, now)
            ours = [party for party in parties if self._is_ours(party)]
            others = [party for party in parties if not self._is_ours(party)]
            foreign = any(self._is_foreign(party) for party in others)
            if len(parties) > 1 or foreign:
                involved = bool(ours) or foreign
                conflicts += [self._conflict(f"topic {topic}", party, involved) for party in others]
        return conflicts

    # --------------------------------------------------------------------------------------------

    def _judge(self, topic: str, gid: bytes, now: float, patient: bool) -> Verdict:
        """Is this the only living publisher of the topic, and none of another launch?"""
        infos = self._node.get_publishers_info_by_topic(topic)
        nodes, known = self._nodes()
        name = next((_full_name(info) for info in infos if _gid(info) == gid), NAMELESS)
        if patient and NAMELESS in name and self.me is not None and self.me.launched:
            return Verdict.UNKNOWN
        if any(self._is_foreign(_Party(name, who)) for who in nodes.get(name, ())):
            return Verdict.REFUSE
        for info in infos:
            other = _full_name(info)
            living = nodes.get(other, [])
            if _process(_gid(info)) == _process(gid) or (other in known and not living):
                continue  # the same process, or a ghost
            if not living or None in living:
                lives = self._is_sending(topic, _gid(info), now)
            else:
                lives = len(living) > (other == name)
            if lives:
                return Verdict.REFUSE
        return Verdict.USE

    def _parties(
        self, topic: str, nodes: Mapping[str, list[ProcessIdentity | None]], now: float
    ) -> list[_Party]:
        """Return the living processes that publish a topic."""
        infos = self._node.get_publishers_info_by_topic(topic)
        names = sorted({_full_name(info) for info in infos})
        parties: dict[Any, _Party] = {}
        for name in names:
            for who in nodes.get(name, ()):
                if who is not None:
                    parties[who] = _Party(name, who)
        publishes = self._name in names
        for info in infos:
            name, gid = _full_name(info), _gid(info)
            unidentified = None in nodes.get(name, ()) and NAMELESS not in name
            sending = self._is_sending(topic, gid, now)
            if unidentified and (publishes or sending):
                party = _Party(name, None, sending)
                parties[_process(gid)] = max(parties.get(_process(gid), party), party, key=_sending)
        return list(parties.values())

    def _is_sending(self, topic: str, gid: bytes, now: float) -> bool:
        source = self._sources.get(topic)
        used = source is not None and source.gid == gid and now - source.last_message_s < SENDING_S
        return used or now - self._refused_last_s.get((topic, gid), -SENDING_S) < SENDING_S

    def _nodes(self) -> tuple[dict[str, list[ProcessIdentity | None]], set[str]]:
        """Return the identities of the living nodes of each full name, None for those without, and
        all full names, those of ghosts too."""
        living: dict[str, list[ProcessIdentity | None]] = {}
        known = set()
        for name, namespace, enclave in self._node.get_node_names_and_namespaces_with_enclaves():
            full_name, who = _joined(namespace, name), ProcessIdentity.parse(enclave)
            known.add(full_name)
            if who is None or who.alive:
                living.setdefault(full_name, []).append(who)
        return living, known

    def _is_ours(self, party: _Party) -> bool:
        """Is it this process, or one of the same launch?"""
        me, who = self.me, party.identity
        if me is None or who is None:
            return me is None and who is None and party.name == self._name
        return who == me or (me.launched and me.same_run(who))

    def _is_foreign(self, party: _Party) -> bool:
        return (
            self.me is not None and party.identity is not None and self.me.foreign(party.identity)
        )

    def _conflict(self, what: str, other: _Party, involved: bool) -> Conflict:
        me, who = self.me, other.identity
        first = involved and me is not None and who is not None and who.rank < me.rank
        text = f"{what}: got a second one, {other}{', which was first' if first else ''}"
        return Conflict(f"{text}; expected one. {REMEDY}", first, who is None and other.sending)


def _sending(party: _Party) -> bool:
    return party.sending


def _without_own(parties: list[_Party], me: ProcessIdentity | None) -> list[_Party]:
    """Return the nodes of one name without this one."""
    if me is None:
        own = next((party for party in parties if party.identity is None), None)
        return [party for party in parties if party is not own]
    return [party for party in parties if party.identity != me]


def gid_of(info: Mapping[str, Any]) -> bytes:
    """Return the publisher in a message's info; b"" where ROS does not say it, or where it is not
    the identifier that the ROS graph has (middleware other than Fast DDS)."""
    if not rclpy.get_rmw_implementation_identifier().startswith("rmw_fastrtps"):
        return b""
    return bytes((info.get("publisher_gid") or {}).get("data") or b"")[:16]


def _gid(info: Any) -> bytes:
    return bytes(info.endpoint_gid)[:16]


def _process(gid: bytes) -> bytes:
    """Return what the identifiers of all endpoints of one process begin with (DDS: GUID prefix)."""
    return gid[:12]


def _full_name(info: Any) -> str:
    return _joined(info.node_namespace, info.node_name)


def _joined(namespace: str, name: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"
