"""A power cut without pulling the plug: what a writer asked of the disk is recorded, and then all
that it had not made durable is taken away again, in part or whole.

What POSIX leaves open is drawn at random: of each file any bytes that were not synced may be
missing, or zero; of each folder any newest names (made, replaced, removed) that were not synced
may be as they were before.
"""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH108, PTH110, PTH116, PTH120

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SECTOR = 512


class Recorder:
    """Records the file operations of this process below `root`; install() is for good.

    Nothing is synced for real. What an operation destroys is kept in `stash`, as a link.
    """

    def __init__(self, root: Path, journal: Path, stash: Path) -> None:
        self._root, self._stash = str(root), stash
        self._journal = os.open(journal, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        self._lock, self._count = threading.RLock(), 0
        self._open, self._replace, self._unlink = os.open, os.replace, os.unlink

    def install(self) -> None:
        replaced: dict[str, Callable[..., Any]] = {
            "open": self.open, "fsync": self.fsync, "replace": self.replace, "unlink": self.unlink
        }  # fmt: skip
        for name, function in replaced.items():
            setattr(os, name, function)

    def open(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if not flags & os.O_CREAT or not str(path).startswith(self._root):
            return self._open(path, flags, *args, **kwargs)
        with self._lock:
            old = self._keep(path, copy=True) if flags & os.O_TRUNC else None
            existed = os.path.exists(path)
            fd = self._open(path, flags, *args, **kwargs)
            if old or not existed:
                self._note("create", path=str(path), ino=os.fstat(fd).st_ino, stash=old)
            return fd

    def fsync(self, fd: int) -> None:
        before, at = os.fstat(fd), self._count
        with self._lock:
            if stat.S_ISDIR(before.st_mode):
                self._note("sync names", ino=before.st_ino, upto=at)
            else:
                self._note("sync", ino=before.st_ino, size=before.st_size)

    def replace(self, source: Any, target: Any) -> None:
        with self._lock:
            ino, old = os.stat(source).st_ino, self._keep(target)
            self._note("replace", path=str(target), source=str(source), ino=ino, stash=old)
            self._replace(source, target)

    def unlink(self, path: Any, **kwargs: Any) -> None:
        with self._lock:
            if str(path).startswith(self._root) and os.path.exists(path):
                self._note("unlink", path=str(path), stash=self._keep(path))
            self._unlink(path, **kwargs)

    def _keep(self, path: Any, *, copy: bool = False) -> str | None:
        if not os.path.exists(path):
            return None
        kept = str(self._stash / str(self._count))
        (shutil.copyfile if copy else os.link)(path, kept)
        return kept

    def _note(self, what: str, **values: Any) -> None:
        line = json.dumps({"op": what, "n": self._count, **values}) + "\n"
        self._count += 1
        os.write(self._journal, line.encode())


def cut_power(root: Path, journal: Path, chance: random.Random) -> None:
    """Take away from `root` what the recorded process, which is dead, had not made durable."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    steps = [json.loads(line) for line in lines]
    for step in reversed(_undone(root, steps, chance)):
        _undo(step)
    synced: dict[int, int] = defaultdict(int)
    for step in steps:
        if step["op"] == "sync":
            synced[step["ino"]] = max(synced[step["ino"]], step["size"])
    fresh = {step["ino"] for step in steps if step["op"] == "create"}
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_ino in fresh:
            _forget(path, synced[path.stat().st_ino], chance)


def _undone(root: Path, steps: list[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    """Of each folder's names that are not durable, choose how many of the newest are gone."""
    folders = {path.stat().st_ino: str(path) for path in (root, *root.rglob("*")) if path.is_dir()}
    durable: dict[str, int] = defaultdict(int)
    changes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for step in steps:
        if step["op"] == "sync names" and step["ino"] in folders:
            folder = folders[step["ino"]]
            durable[folder] = max(durable[folder], step["upto"])
        elif step["op"] != "sync" and "path" in step:
            changes[os.path.dirname(step["path"])].append(step)
    gone = []
    for folder, steps in changes.items():
        loose = [step for step in steps if step["n"] >= durable[folder]]
        kept = chance.choice([0, len(loose), chance.randint(0, len(loose))])
        gone += loose[kept:]
    return sorted(gone, key=lambda step: step["n"])


def _undo(step: dict[str, Any]) -> None:
    path, stash = step["path"], step["stash"]
    if step["op"] == "unlink":
        if not os.path.exists(path):  # killed before it happened, otherwise
            os.link(stash, path)
        return
    if not os.path.exists(path) or os.stat(path).st_ino != step["ino"]:
        return  # noted, but killed before it happened
    if step["op"] == "replace":
        os.link(path, step["source"])
    os.unlink(path)
    if stash:
        os.link(stash, path)


def _forget(path: Path, synced: int, chance: random.Random) -> None:
    """Lose bytes of a file past its first `synced` ones: cut off, or zero in some sectors."""
    size = path.stat().st_size
    if size <= synced:
        return
    end = chance.choice([synced, size, chance.randint(synced, size)])
    odds = chance.choice([0.0, 0.1, 0.5, 1.0])
    with path.open("r+b") as file:
        file.truncate(end)
        for at in range(synced // _SECTOR * _SECTOR, end, _SECTOR):
            if chance.random() < odds:
                begin = max(at, synced)
                file.seek(begin)
                file.write(bytes(min(at + _SECTOR, end) - begin))
