"""JSON from outside, read within bounds: what is too long, too deep or not finite is refused."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_BYTES, MOST_DEPTH, MOST_ITEMS = 1 << 20, 16, 20_000


def load_object(
    text: str, *, most_bytes: int = MOST_BYTES, most_depth: int = MOST_DEPTH, finite: bool = True
) -> dict[str, Any]:
    """Return the JSON object in a text; ValueError says in one line what is wrong.

    finite: refuse NaN and infinite numbers.
    """
    if len(text) > most_bytes or len(text.encode(errors="replace")) > most_bytes:
        raise ValueError(f"got {len(text)} characters, expected at most {most_bytes} bytes")
    try:
        value = json.loads(text, parse_constant=_refuse if finite else None)
    except RecursionError:
        raise ValueError(f"got deeper nesting than {most_depth}") from None
    if type(value) is not dict:
        raise ValueError(f"got a JSON {type(value).__name__}, expected an object")
    _check(value, most_depth, finite)
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"got {word}, expected finite numbers")


def _check(value: Any, most_depth: int, finite: bool) -> None:
    level, count, depth = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > most_depth:
            raise ValueError(f"got deeper nesting than {most_depth}")
        if count > MOST_ITEMS:
            raise ValueError(f"got more than {MOST_ITEMS} values")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise ValueError("got a number that is not finite")
        level = below
