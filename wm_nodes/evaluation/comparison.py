"""Compare runs by their evaluations, over seeds and tasks.

Runs whose arguments differ in nothing but seed and task are one method. A run's score is the mean
of its last evaluations, or the mean of its curve, up to the last step that all runs of its task
reach. Aggregates are those of Agarwal et al. 2021 ("Deep Reinforcement Learning at the Edge of the
Statistical Precipice"): the interquartile mean of all runs, intervals from a bootstrap that draws
seeds within each task, and the probability that one method's run is better than another's.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wm_nodes.atomic_file import replacing
from wm_nodes.csv_table import read_rows

Array = npt.NDArray[np.float64]
METRICS = ("success", "return")
SAME = frozenset(  # arguments that make no other method
    "seed run log ns network report steps episodes eval_every eval_episodes capacity_steps "
    "capacity_bytes composition".split()
)
TASK = ("graph", "robot", "task")
RESAMPLES = 2000
LEVEL = 0.95


class ComparisonError(ValueError):
    """Runs that cannot be compared: what is wrong, got what, expected what."""


@dataclass(frozen=True)
class Curve:
    """Evaluations of one run. steps (n,): simulator steps of training, rising; values (n,)."""

    run: str
    task: str
    seed: int
    settings: Mapping[str, str]  # arguments that make the method
    steps: Array
    values: Array

    def until(self, end: float) -> tuple[Array, Array]:
        """Return the curve up to `end`, where it is interpolated linearly."""
        inside = self.steps < end
        value = float(np.interp(end, self.steps, self.values))
        return np.append(self.steps[inside], end), np.append(self.values[inside], value)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Method:
    """Aggregates of one method over all its runs. better: method -> probability that a run of this
    one has the higher final score."""

    name: str
    runs: int
    tasks: int
    final: Estimate
    area: Estimate
    better: Mapping[str, Estimate]


def read_run(folder: Path, metric: str) -> Curve:
    """Return a run's evaluations. ComparisonError: it has none, or no arguments."""
    try:
        recorded = json.loads((folder / "run.json").read_text())
        arguments = {"graph": recorded["graph"], **recorded["arguments"]}
        seed = int(arguments.get("seed", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComparisonError(
            f"RUN: got {folder}, whose run.json cannot be read ({error}), expected the folder of a "
            "run."
        ) from None
    path = folder / "metrics" / "evaluations.csv"
    steps, values = _evaluations(path, metric)
    if not len(steps):
        if others := [name for name in METRICS if len(_evaluations(path, name)[0])]:
            raise ComparisonError(
                f"RUN: got {folder}, whose evaluations have no {metric}, as its task reports none; "
                f"expected runs that have it. Compare by --metric {others[0]}."
            )
        raise ComparisonError(
            f"RUN: got {folder}, which has no evaluations, expected a run with eval_every:=N."
        )
    return Curve(
        run=folder.name,
        task=" ".join(str(arguments[name]) for name in TASK if arguments.get(name)),
        seed=seed,
        settings={k: str(v) for k, v in arguments.items() if k not in SAME and k not in TASK},
        steps=steps,
        values=values,
    )


def _evaluations(path: Path, metric: str) -> tuple[Array, Array]:
    """Return steps and values, the newest of equal steps; what is no finite number is skipped."""
    by_step: dict[float, float] = {}
    for row in read_rows(path):
        try:
            step, value = float(row["steps"]), float(row[metric])
        except (KeyError, ValueError):
            continue
        if math.isfinite(step) and math.isfinite(value):
            by_step[step] = value
    steps = sorted(by_step)
    return np.array(steps), np.array([by_step[step] for step in steps])


def methods_of(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Return method -> its runs. Its name says in what its settings differ from the others'.

    ComparisonError: two runs of a method have the same task and seed.
    """
    names = sorted({name for curve in curves for name in curve.settings})
    differing = [n for n in names if len({curve.settings.get(n, "") for curve in curves}) > 1]
    methods: dict[str, list[Curve]] = {}
    for curve in curves:
        parts = [f"{n}={curve.settings.get(n, '') or '-'}" for n in differing]
        short = curve.settings.get("model", "runs")
        name = " ".join(p.removeprefix("model=") for p in parts) or short
        runs = methods.setdefault(name, [])
        for other in runs:
            if (other.task, other.seed) == (curve.task, curve.seed):
                raise ComparisonError(
                    f"RUN: got {other.run} and {curve.run} with equal settings, task and seed "
                    f"{curve.seed}, expected another seed, or one of them."
                )
        runs.append(curve)
    return methods


def common_end(curves: Sequence[Curve]) -> dict[str, float]:
    """Return task -> the last step that all of its runs have been evaluated at or beyond."""
    ends: dict[str, float] = {}
    for curve in curves:
        ends[curve.task] = min(ends.get(curve.task, np.inf), float(curve.steps[-1]))
    for curve in curves:
        if ends[curve.task] < curve.steps[0]:
            raise ComparisonError(
                f"RUN: got {curve.run}, first evaluated at step {curve.steps[0]:g}, but another "
                f"run of {curve.task} ends at step {ends[curve.task]:g}; expected runs that "
                "overlap."
            )
    return ends


def final_score(curve: Curve, end: float, last: int) -> float:
    """Return the mean of the last evaluations up to `end`."""
    _, values = curve.until(end)
    return float(values[-last:].mean())


def area_score(curve: Curve, end: float) -> float:
    """Return the mean height of the curve from its first evaluation to `end`."""
    steps, values = curve.until(end)
    if len(steps) < 2:
        return float(values[-1])
    heights = (values[1:] + values[:-1]) / 2
    return float((heights * np.diff(steps)).sum() / (steps[-1] - steps[0]))


def interquartile_mean(scores: Array) -> float:
    """Return the mean of the middle half of all scores (n,): a quarter is cut at either end."""
    ordered = np.sort(scores.ravel())
    cut = int(len(ordered) * 0.25)
    return float(ordered[cut : len(ordered) - cut].mean())


def probability_of_improvement(mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> float:
    """Return the probability that a run of one method scores higher than one of another on the
    same task, equal scores counting half: the mean over tasks, task -> scores (seeds,)."""
    each = []
    for task in mine:
        difference = mine[task][:, None] - theirs[task][None]
        each.append(float((difference > 0).mean() + 0.5 * (difference == 0).mean()))
    return float(np.mean(each))


def bootstrap(
    value: Callable[[Sequence[Mapping[str, Array]]], float],
    groups: Sequence[Mapping[str, Array]],
    seed: int = 0,
) -> Estimate:
    """Return a value of some methods' scores, with the interval of a stratified bootstrap: seeds
    are drawn with replacement within each task of each method."""
    rng = np.random.default_rng(seed)
    drawn = [
        value([{task: rng.choice(s, len(s)) for task, s in group.items()} for group in groups])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value(groups), float(low), float(high))


def compare(methods: Mapping[str, Sequence[Curve]], last: int = 3) -> list[Method]:
    """Return the aggregates of every method, the best final score first.

    ComparisonError: the methods were not run on the same tasks.
    """
    curves = [curve for runs in methods.values() for curve in runs]
    ends, tasks = common_end(curves), {curve.task for curve in curves}
    for name, runs in methods.items():
        if lacking := sorted(tasks - {curve.task for curve in runs}):
            raise ComparisonError(
                f"RUN: got no run of {name} on {', '.join(lacking)}, expected runs of every method "
                "on every task."
            )
    finals = {
        n: _scores(runs, lambda c: final_score(c, ends[c.task], last))
        for n, runs in methods.items()
    }
    areas = {n: _scores(runs, lambda c: area_score(c, ends[c.task])) for n, runs in methods.items()}
    results = [
        Method(
            name,
            runs=len(runs),
            tasks=len(tasks),
            final=bootstrap(_iqm, [finals[name]]),
            area=bootstrap(_iqm, [areas[name]]),
            better={
                other: bootstrap(
                    lambda groups: probability_of_improvement(*groups),
                    [finals[name], finals[other]],
                )
                for other in methods
                if other != name
            },
        )
        for name, runs in methods.items()
    ]
    return sorted(results, key=lambda method: -method.final.value)


def _scores(runs: Sequence[Curve], score: Callable[[Curve], float]) -> dict[str, Array]:
    by_task: dict[str, list[float]] = {}
    for curve in runs:
        by_task.setdefault(curve.task, []).append(score(curve))
    return {task: np.array(scores) for task, scores in by_task.items()}


def _iqm(groups: Sequence[Mapping[str, Array]]) -> float:
    return interquartile_mean(np.concatenate(list(groups[0].values())))


def markdown(results: Sequence[Method], metric: str, last: int) -> str:
    """Return the table in Markdown, with what its columns are above it."""
    about = (
        f"Interquartile mean of {metric} over all runs, with the 95 % interval of a bootstrap that "
        f"draws seeds within each task. *Final*: the last {last} evaluations; *area*: the mean of "
        "the whole curve; both up to the last step that all runs of a task reach. *Better than*: "
        "probability that a run's final score is higher, equal ones counting half."
    )
    names = [method.name for method in results]
    head = ["method", "runs", "tasks", "final", "area", *(f"better than {n}" for n in names)]
    lines = [about, "", _line(head), _line(["---"] * len(head))]
    for m in results:
        better = [str(m.better[n]) if n in m.better else "-" for n in names]
        lines.append(_line([m.name, str(m.runs), str(m.tasks), str(m.final), str(m.area), *better]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def write_comparison(
    folder: Path, methods: Mapping[str, Sequence[Curve]], results: Sequence[Method], metric: str,
    last: int,
) -> None:  # fmt: skip
    """Write comparison.md, comparison.csv (every evaluation) and comparison.png, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "comparison.md") as aside:
        aside.write_text(markdown(results, metric, last))
    with replacing(folder / "comparison.csv") as aside, aside.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "run", "task", "seed", "steps", metric])
        for name, runs in methods.items():
            for c in runs:
                rows = (
                    [name, c.run, c.task, c.seed, f"{s:g}", f"{v:.6g}"]
                    for s, v in zip(c.steps, c.values)
                )
                table.writerows(rows)
    with replacing(folder / "comparison.png") as aside:
        draw(methods, metric, aside)


def draw(methods: Mapping[str, Sequence[Curve]], metric: str, path: Path) -> None:
    """Write the figure as PNG: a panel a task, every run thin, the mean over seeds thick."""
    from matplotlib.figure import Figure

    tasks = sorted({curve.task for runs in methods.values() for curve in runs})
    figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks):
        for number, (name, runs) in enumerate(methods.items()):
            mine, color = [c for c in runs if c.task == task], f"C{number}"
            for curve in mine:
                axes.plot(curve.steps, curve.values, color=color, alpha=0.35, linewidth=1)
            steps, mean = mean_curve(mine)
            axes.plot(steps, mean, color=color, linewidth=2, label=f"{name} ({len(mine)} runs)")
        axes.set(title=task, xlabel="simulator steps of training", ylabel=metric)
        axes.legend(fontsize=7)
    figure.savefig(path, format="png", dpi=120)


def mean_curve(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """Return the mean over runs at every step of any of them that all have reached."""
    begin = max(curve.steps[0] for curve in curves)
    end = min(curve.steps[-1] for curve in curves)
    steps: Array = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(steps >= begin) & (steps <= end)]
    return steps, np.mean([np.interp(steps, c.steps, c.values) for c in curves], axis=0)
