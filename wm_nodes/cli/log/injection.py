"""`wm log torture --inject calls|flips|owners`: failing calls, changed bytes, files of others."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wm_datasets import LogSpecError
from wm_datasets.durability.byte_flips import flip_bytes
from wm_datasets.durability.failing_calls import fail_calls
from wm_datasets.durability.owner_changes import change_owners

_SHOWN = 50  # broken promises
_FLIPS = 500  # of each kind of file
Progress = Callable[[int, int], None]


def inject(
    kind: str, folder: Path, trials: int, seed: int, out: Path | None, progress: Progress
) -> int:
    """Write logs in `folder`, which must not exist, inject faults, print the outcome.

    `trials` bounds the faults (0: every call and file, 500 bytes of each kind of file). Writes a
    line per call and reason, or per file, to OUT.csv. Returns 1 where a promise was broken.
    """
    if folder.exists():
        raise LogSpecError(f"LOG: got {folder}, which exists, expected a new path.")
    folder.mkdir(parents=True)
    works: Mapping[str, Callable[[], Sequence[Any]]] = {
        "calls": lambda: fail_calls(folder, trials or None, seed, progress=progress),
        "flips": lambda: flip_bytes(folder, trials or _FLIPS, seed, progress=progress),
        "owners": lambda: change_owners(folder, trials or None, progress),
    }
    rows = [asdict(outcome) for outcome in works[kind]()]
    broken = [text for row in rows for text in row["wrong"]]
    table = [row | {"wrong": len(row["wrong"])} for row in rows]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    for text in broken[:_SHOWN]:
        print(text)
    print(_line(table, len(broken)))
    return 1 if broken else 0


def _line(table: Sequence[Mapping[str, Any]], broken: int) -> str:
    """The result in one line."""
    count = sum(row.get("trials", 1) for row in table)
    labels = {
        "refused": "ended in an error of one line",
        "named": "lost rows, named",
        "right": "lost none",
    }
    more = [f"{sum(row[n] for row in table)} {text}" for n, text in labels.items() if n in table[0]]
    return f"{count} trials: {', '.join(more)}; {broken} broken promises"
