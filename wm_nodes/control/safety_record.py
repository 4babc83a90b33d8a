"""What must survive the process: latches, and whether the last run of this robot ended cleanly.

A small JSON file, written aside, flushed to the disk and renamed, so that it is whole at any time.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wm_nodes.atomic_file import write_json

UNREADABLE = "record"


@dataclass(frozen=True)
class Record:
    """latched: name -> why. running: a process that moves the robot has begun and not ended."""

    latched: Mapping[str, str] = field(default_factory=dict)
    running: bool = False


class SafetyRecord:
    """Reads and writes one robot's record. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._written: Record | None = None

    def load(self) -> Record:
        """Return the record; one that cannot be read counts as latched, since nothing is known."""
        try:
            content = json.loads(self.path.read_text())
            latched = {str(name): str(why) for name, why in content["latched"].items()}
            return Record(latched, bool(content["running"]))
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            return Record({UNREADABLE: f"{self.path} cannot be read ({reason})"}, running=True)

    def store(self, make: Callable[[], Record]) -> None:
        """Write what `make` returns; returns when it is on the disk. Raises OSError."""
        with self._lock:
            record = make()
            if record == self._written:
                return
            write_json(self.path, asdict(record))
            self._written = record


def default_path(name: str, domain: str, namespace: str) -> Path:
    """Return the record's path of a robot that is commanded in a ROS domain and namespace.

    No two namespaces have the same path: names in ROS have no dots.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    place = namespace.strip("/").replace("/", ".") or "."
    return Path(state).expanduser() / "wm_nodes" / "robots" / f"{name}@{domain}_{place}.json"
