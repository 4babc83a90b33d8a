"""One measured figure; tables and files of figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure: a median where ``samples`` > 1, with its range from 10 to 90 %."""

    group: str  # models, planners, sampler, log, simulator, graph, machine
    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    samples: int = 1
    goal: float | None = None  # target of the project on a 2020s server core
    better: str = "lower"  # "lower" or "higher" values are better
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


def table(rows: Sequence[Row]) -> str:
    """Return rows as an aligned table."""
    head = ("group", "what", "median", "unit", "10-90 %", "goal", "", "note")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head) - 1)]
    right = {2, 4}
    lines = []
    for line in cells:
        padded = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths))
        ]
        lines.append("  ".join([*padded, line[-1]]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def save(rows: Sequence[Row], folder: Path, machine: dict[str, object]) -> tuple[Path, Path]:
    """Write ``bench.json`` (with the machine) and ``bench.csv``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "bench.json", folder / "bench.csv"
    records = [{**asdict(row), "reached": row.reached} for row in rows]
    as_json.write_text(json.dumps({"machine": machine, "rows": records}, indent=1) + "\n")
    with as_csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), "reached"])
        writer.writeheader()
        writer.writerows(records)
    return as_json, as_csv


def _cells(row: Row) -> tuple[str, ...]:
    spread = (
        "" if row.low is None or row.high is None else f"{_number(row.low)}-{_number(row.high)}"
    )
    sign = "<=" if row.better == "lower" else ">="
    goal = "" if row.goal is None else f"{sign} {_number(row.goal)}"
    verdict = {None: "", True: "ok", False: "missed"}[row.reached]
    return (row.group, row.name, _number(row.value), row.unit, spread, goal, verdict, row.note)


def _number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
