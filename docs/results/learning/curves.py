"""Collect the evaluations of runs and plot them with the blind baselines.

`python docs/results/learning/curves.py runs/NAME ...` writes NAME.csv and an entry in runs.json,
then draws TASK-LIMIT.png of all runs that are there.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
RUNS = FOLDER / "runs.json"
BASELINES = FOLDER.parent / "baselines"
STYLES = {"random": ":", "constant": "-.", "open_loop_best": "--", "expert": "-"}
Curve = tuple[str, dict[str, Any], list[dict[str, float]]]  # run, its arguments, its rows
COLUMNS = ("minutes", "steps", "updates", "episodes", "success", "low", "high", "return")


def main(runs: list[Path]) -> None:
    arguments_of_runs: dict[str, dict[str, Any]] = json.loads(RUNS.read_text())
    for run in runs:
        arguments = json.loads((run / "run.json").read_text())["arguments"]
        arguments_of_runs[run.name] = {
            name: arguments[name] for name in ("task", "time_limit", "demos")
        }
        write(FOLDER / f"{run.name}.csv", evaluations(run))
    RUNS.write_text(json.dumps(arguments_of_runs, indent=2, sort_keys=True) + "\n")
    curves_of_tasks: dict[tuple[str, int], list[Curve]] = defaultdict(list)
    for name, arguments in arguments_of_runs.items():
        rows = [{k: float(v) for k, v in row.items()} for row in read(FOLDER / f"{name}.csv")]
        curves_of_tasks[arguments["task"], arguments["time_limit"]].append((name, arguments, rows))
    for (task, limit), curves in curves_of_tasks.items():
        draw(task, limit, curves)


def evaluations(run: Path) -> list[dict[str, float]]:
    """Return the evaluation blocks of a run with the minutes since its first episode began."""
    start_s = float(read(run / "metrics" / "episodes.csv")[0]["time"])
    return [
        {name: float(row[name]) for name in COLUMNS[1:]}
        | {"minutes": (float(row["time"]) - start_s) / 60}
        for row in read(run / "metrics" / "evaluations.csv")
    ]


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([f"{row[name]:.5g}" for name in COLUMNS] for row in rows)


def draw(task: str, limit: int, curves: list[Curve]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, arguments, rows in curves:
        steps = [row["steps"] for row in rows]
        label = f"{name} ({arguments['demos']} demonstrations)"
        (line,) = axes.plot(steps, [row["success"] for row in rows], marker="o", label=label)
        low, high = ([row[end] for row in rows] for end in ("low", "high"))
        axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
    for name, style in STYLES.items():
        episodes = read(BASELINES / f"{task}_{limit}_{name}.csv")
        rate = fmean(float(row["success"]) for row in episodes)
        axes.axhline(rate, color="0.4", linestyle=style, linewidth=1, label=name)
    axes.set(
        xlabel="simulator steps of training",
        ylabel="success of 20 evaluation episodes",
        title=f"{task}, {limit} agent steps, random goals",
        ylim=(-0.03, 1.05),
    )
    axes.legend(fontsize=7)
    figure.savefig(FOLDER / f"{task}-{limit}.png", dpi=120)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
