"""Collect messages of several topics that carry the same stamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Synchronizer:
    """Collects the parts of each stamp; a complete set is returned once. Parts come in any order.

    Keeps at most `size` incomplete stamps and drops the oldest first; `on_drop` is called with the
    stamp [ns] of each and the names of the parts that it has.
    """

    def __init__(
        self,
        parts: tuple[str, ...],
        size: int = 16,
        on_drop: Callable[[int, frozenset[str]], object] | None = None,
    ) -> None:
        self._size, self._on_drop = size, on_drop
        self.require(parts)
        self._incomplete: dict[int, dict[str, Any]] = {}

    def require(self, parts: tuple[str, ...]) -> None:
        """Set which parts make a complete set from now on; other parts are ignored."""
        self._parts = frozenset(parts)

    def put(self, part: str, stamp_ns: int, value: Any) -> dict[str, Any] | None:
        """Add a part (a repeated one replaces the first); return the set when it is complete."""
        if part not in self._parts:
            return None
        values = self._incomplete.setdefault(stamp_ns, {})
        values[part] = value
        if self._parts <= values.keys():
            return self._incomplete.pop(stamp_ns)
        if len(self._incomplete) > self._size:
            oldest = next(iter(self._incomplete))
            had = frozenset(self._incomplete.pop(oldest))
            if self._on_drop:
                self._on_drop(oldest, had)
        return None
