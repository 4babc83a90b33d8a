"""Namespaces of running graphs on this computer: each belongs to one launch of a ROS domain.

A graph without a chosen namespace moves to a free one (/robot_2) while another graph has its own;
an explicitly chosen one is refused then. Nodes of other users and computers are detected by
the nodes themselves (`wm_nodes/ros/graph_conflicts.py`).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from wm_nodes.graphs.graph import Graph, GraphError, Value
from wm_nodes.graphs.launch.run_folder import Run

DOMAIN = "ROS_DOMAIN_ID"
MOST = 99  # graphs of one name in a domain
NAME_CHARS = 1000  # of a run's name in a lock file
FREE_DOMAINS = 101  # 0 to 100 can be used on every system


@dataclass(frozen=True)
class Claimed:
    """A run whose namespaces are its own as long as the files are open."""

    run: Run
    locks: tuple[IO[str], ...]


@contextmanager
def claimed(graph: Graph, run: Run) -> Iterator[Run]:
    """Hold the run's namespaces meanwhile; yields the run with the namespaces that it has."""
    held = claim(graph, run)
    with ExitStack() as stack:
        for lock in held.locks:
            stack.enter_context(lock)
        yield held.run


def claim(graph: Graph, run: Run) -> Claimed:
    """Take the namespaces that belong to the graph alone, or free ones if it may move.

    GraphError: another graph has them.
    """
    names = graph.owns(run.values)
    locks, user = _take(_moved(run, names, 1), run)
    if locks:
        return Claimed(run, locks)
    for number in range(2, MOST + 1):
        moved = _moved(run, names, number)
        locks, _ = _take(moved, run)
        if locks:
            break
    places = " ".join(f"{name}:={ns}" for name, ns in moved.items())
    if locks and run.movable:
        note = f"{run.values[names[0]]} is used by run {user}; this run has {places}"
        values: Mapping[str, Value] = {**run.values, **moved}
        return Claimed(replace(run, values=values, notes=(*run.notes, note)), locks)
    for lock in locks:
        lock.close()
    raise GraphError(
        f"ns: got {run.values[names[0]]} on ROS domain {domain()}, which run {user} uses, expected "
        f"a free one: {places}, or {DOMAIN}={(domain() + 1) % FREE_DOMAINS}. Or end that run first."
    )


def _moved(run: Run, names: tuple[str, ...], number: int) -> dict[str, str]:
    return {name: _numbered(str(run.values[name]), number) for name in names}


def domain() -> int:
    """Return the ROS domain that nodes of this process's environment are in."""
    word = os.environ.get(DOMAIN, "")
    return int(word) if word.isdigit() else 0


def _numbered(namespace: str, number: int) -> str:
    return namespace if number == 1 else f"{namespace.rstrip('/')}_{number}"


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"wm_nodes-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError as error:
        raise GraphError(f"ns: cannot write {folder} ({error.strerror}). Set TMPDIR.") from None
    if not mine:
        raise GraphError(f"ns: got {folder} of another user, expected an own one. Set TMPDIR.")
    return folder


def _take(namespaces: Mapping[str, str], run: Run) -> tuple[tuple[IO[str], ...], str]:
    """Return the locks of all the namespaces; none, and the run that has one of them, if taken."""
    folder = _folder()
    with ExitStack() as stack:
        locks = []
        for namespace in dict.fromkeys(namespaces.values()):
            path = folder / f"domain{domain()}{namespace.replace('/', '.')}.lock"
            try:
                stream = stack.enter_context(path.open("a+"))
            except OSError as error:
                raise GraphError(f"ns: cannot write {path} ({error.strerror}).") from None
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                return (), stream.read(NAME_CHARS).strip() or "unknown"
            locks.append(stream)
        for stream in locks:
            with suppress(OSError):  # the name is only information
                stream.seek(0)
                stream.truncate()
                stream.write(f"{run.name}\n")
                stream.flush()
        stack.pop_all()
    return tuple(locks), ""
