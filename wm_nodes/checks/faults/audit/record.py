"""Results of an audit: counts of violations, and the commands around the first ones."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from wm_nodes.robots.arm.safety.limits import Floats

AROUND = 12  # commands before a broken limit that are kept with it
AT_ONCE = 200  # commands that are audited together
KEPT = 20  # broken limits that are kept with their commands


@dataclass(frozen=True)
class Command:
    """A command: its number as the auditor counts, its stamp [s], the commanded values (n,)."""

    number: int
    when_s: float
    place: Floats
    starts_path: bool


@dataclass(frozen=True)
class BrokenLimit:
    """A limit that was broken, and the commands up to it."""

    limit: str
    number: int  # of the command
    commands: tuple[Command, ...]
    note: str = ""  # what was measured, and when


@dataclass
class AuditRecord:
    """Violations by name; `broken`: the first ones; `recent`: the newest commands."""

    violations: dict[str, int] = field(default_factory=dict)
    broken: list[BrokenLimit] = field(default_factory=list)
    recent: deque[Command] = field(default_factory=lambda: deque(maxlen=AT_ONCE + AROUND))

    def count(self, name: str, count: int = 1) -> None:
        if count:
            self.violations[name] = self.violations.get(name, 0) + count

    @property
    def room(self) -> int:
        """Number of broken limits that may still be kept."""
        return max(KEPT - len(self.broken), 0)
