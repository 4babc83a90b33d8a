"""Which run and which process a ROS node belongs to, readable by all other nodes.

A process writes its identity into the enclave of its ROS context, which every node of the domain
sees beside the node's name: /wm/<run>/<host>/<process>. It distinguishes a second graph from a
killed process, whose nodes DDS shows for up to 20 s more, and from a restarted node.

Standard library only: launchers use it too.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RUN = "WM_NODES_RUN"  # environment variable of all nodes of one launch
BY_HAND = "none"  # run of a node that no launcher started
ENCLAVE = re.compile(r"/wm/r([0-9a-f]+)_(\w+)/h(\w+)/p(\d+)_(\d+)")
RUN_ID = re.compile(r"[0-9a-f]{1,16}_[0-9a-f]{1,16}")
DEAD_STATES = ("Z", "X")


@dataclass(frozen=True)
class ProcessIdentity:
    """started_ns: wall time at which the run, or without one the process, began; ticks: start of
    the process in clock ticks after boot (0: unknown)."""

    started_ns: int
    run: str
    host: str
    pid: int
    ticks: int

    @property
    def enclave(self) -> str:
        return f"/wm/r{self.started_ns:x}_{self.run}/h{self.host}/p{self.pid}_{self.ticks}"

    @property
    def rank(self) -> tuple[int, str, str, int]:
        """Of two that must not both go on, the one with the lower rank does."""
        return (self.started_ns, self.run, self.host, self.pid)

    @property
    def launched(self) -> bool:
        """Was it started by `wm launch` or `ros2 launch`?"""
        return self.run != BY_HAND

    @property
    def local(self) -> bool:
        """Can its process be looked up here?"""
        return self.host == host()

    @property
    def alive(self) -> bool:
        """Does its process run? Of another computer that cannot be known: true."""
        return not self.local or _runs(self.pid, self.ticks)

    def same_run(self, other: ProcessIdentity) -> bool:
        return (self.started_ns, self.run) == (other.started_ns, other.run)

    def foreign(self, other: ProcessIdentity) -> bool:
        """Do the two belong to different launches? Nodes started by hand may join any."""
        return self.launched and other.launched and not self.same_run(other)

    @classmethod
    def parse(cls, enclave: str) -> ProcessIdentity | None:
        """Return the identity in an enclave; None for one that has another meaning."""
        match = ENCLAVE.fullmatch(enclave)
        if match is None:
            return None
        started, run, where, pid, ticks = match.groups()
        return cls(int(started, 16), run, where, int(pid), int(ticks))


def new_run() -> str:
    """Return the value of RUN for a launch that begins now."""
    return f"{time.time_ns():x}_{secrets.token_hex(4)}"


def own() -> ProcessIdentity:
    """Return the identity of this process."""
    started, _, run = os.environ.get(RUN, "").partition("_")
    launched = bool(RUN_ID.fullmatch(f"{started}_{run}"))
    started_ns = int(started, 16) if launched else _BEGAN_NS
    pid = os.getpid()
    return ProcessIdentity(started_ns, run if launched else BY_HAND, host(), pid, _ticks(pid))


def published(arguments: Sequence[str]) -> ProcessIdentity | None:
    """Return this process's identity if its enclave may hold it.

    None where the user gives an enclave, or where SROS2 takes keys by it.
    """
    chosen = {"-e", "--enclave"} & set(arguments)
    secured = os.environ.get("ROS_SECURITY_ENABLE", "").lower() == "true"
    return None if chosen or secured else own()


def with_enclave(arguments: Sequence[str]) -> list[str]:
    """Return a program's arguments with its identity, if it may have one, as ROS enclave."""
    identity = published(arguments)
    if identity is None:
        return list(arguments)
    program, *rest = arguments or [""]
    return [program, "--ros-args", "--enclave", identity.enclave, "--", *rest]


@cache
def host() -> str:
    """Return a word for this boot of this computer, and for its space of process ids."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _runs(pid: int, ticks: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    state, started = _status(pid)
    return state not in DEAD_STATES and started in (0, ticks)


def _ticks(pid: int) -> int:
    return _status(pid)[1]


def _status(pid: int) -> tuple[str, int]:
    """Return state and start of a process; ("", 0): it cannot be read."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return words[0], int(words[19])
    except (OSError, IndexError, ValueError):
        return "", 0


_BEGAN_NS = time.time_ns()
