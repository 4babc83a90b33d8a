"""Bring together what carries the same stamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Join:
    """Parts by name and stamp; a full set is handed out once. Order of arrival does not matter.

    Holds at most `size` unfinished stamps; the oldest is dropped first; `lost` gets its stamp.
    """

    def __init__(
        self, parts: tuple[str, ...], size: int = 16, lost: Callable[[int], None] | None = None
    ) -> None:
        self._size, self._lost = size, lost
        self.want(parts)
        self._open: dict[int, dict[str, Any]] = {}

    def want(self, parts: tuple[str, ...]) -> None:
        """Say which parts make a full set from now on; other parts are passed over."""
        self._parts = frozenset(parts)

    def put(self, part: str, stamp_ns: int, value: Any) -> dict[str, Any] | None:
        """Add a part (a repeated one replaces the first); return the set when it is full."""
        if part not in self._parts:
            return None
        found = self._open.setdefault(stamp_ns, {})
        found[part] = value
        if self._parts <= found.keys():
            return self._open.pop(stamp_ns)
        if len(self._open) > self._size:
            oldest = next(iter(self._open))
            del self._open[oldest]
            if self._lost:
                self._lost(oldest)
        return None
