"""Learn tasks of Meta-World one after the other with the same settings, through the whole graph.

FOLDER/
  study.json              the settings, the same for all tasks
  state/TASK.json         how long a task has learned, and how its learning ended
  runs/TASK/              its run: log, demonstrations, weights, metrics
  output/TASK.log         output of its processes
  episodes/TASK.csv       the last weights on fresh episodes
  baselines/TASK_NAME.csv policies that use no image, on the same episodes
  tasks.csv tasks.md tasks.png

Everything is a `wm` process of its own. A study that was killed continues where it was.
"""

from __future__ import annotations

import csv
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from wm_nodes.atomic_file import replacing, write_json
from wm_nodes.evaluation.evaluate import wilson
from wm_nodes.evaluation.task_sets import PUBLISHED_STEPS, published
from wm_nodes.graphs.launch import die_with_parent

BLIND = ("random", "constant", "open_loop", "open_loop_best")
BASELINES = (*BLIND, "expert")  # the expert reads the simulator's state
WM = (sys.executable, "-m", "wm_nodes.cli.main")
TICK_S = 2.0  # between two writes of how long a task has learned
BELOW = 0.25  # of a line of the figure: baselines are drawn below the learned policy
END_S = 60.0  # for a graph that was asked to end
LAST = 3  # evaluations within learning that are averaged

End = Literal["", "minutes", "steps"]


class StudyError(RuntimeError):
    """A study cannot continue: what is wrong, got what, expected what."""


class _Failed(Exception):
    """A process of a task ended with another exit code than 0: code and command."""


@dataclass(frozen=True)
class StudySettings:
    """What all tasks of a study have in common; fixed when it begins."""

    model: str = "mwm_cpu"
    demos: int = 20  # demonstrations that are recorded first
    minutes: float = 30.0  # wall time of a task's graph, demonstrations included
    steps: int = 0  # simulator steps of training, 0: only `minutes` ends a task
    seed: int = 0
    time_limit: int = 100  # agent steps per episode
    eval_every: int = 2500  # agent steps of training between evaluations
    episodes: int = 20  # of each evaluation, and of the one at the end
    baselines: bool = True


@dataclass(frozen=True)
class TaskState:
    """Progress of a task. end: what ended its learning, "" while it goes on. code: exit code of the
    process that failed last; 0: none did."""

    seconds: float = 0.0
    end: End = ""
    code: int = 0


@dataclass(frozen=True)
class TaskRow:
    """One task's figures; None: not measured.

    success, low, high, mean_return: of the last weights on fresh episodes, with the 95 % interval.
    last_evaluations: mean success of the last evaluations within learning.
    """

    task: str
    end: str
    minutes: float
    steps: int
    updates: int
    success: float | None
    low: float | None
    high: float | None
    mean_return: float | None
    last_evaluations: float | None
    random: float | None
    constant: float | None
    open_loop: float | None
    open_loop_best: float | None
    expert: float | None
    published: float | None

    @property
    def blind(self) -> float | None:
        """The best success of a policy that uses no image."""
        return max((v for name in BLIND if (v := getattr(self, name)) is not None), default=None)

    def __str__(self) -> str:
        words = [f"{self.task}: "]
        if self.end == "failed":
            words.append("failed")
        elif self.success is None:
            words.append("no weights")
        else:
            words.append(f"success {self.success:.2f} [{self.low:.2f}, {self.high:.2f}]")
        if self.blind is not None:
            words.append(f", best blind policy {self.blind:.2f}")
        words.append(f", {self.steps} steps, {self.updates} updates, {self.minutes:.1f} min")
        return "".join(words)


class TaskStudy:
    """The tasks of one folder. `program` is the command that starts `wm`."""

    def __init__(
        self,
        folder: Path,
        settings: StudySettings,
        tasks: Sequence[str],
        *,
        program: Sequence[str] = WM,
        report: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.settings, self.tasks = folder.resolve(), settings, tuple(tasks)
        self._program, self._report = tuple(program), report

    def run(self) -> list[TaskRow]:
        """Measure, learn and evaluate every task that is not finished; return all rows.

        A task of which a process failed is recorded and skipped; the next run of the study tries
        it again. StudyError: another process has the folder.
        """
        for part in ("state", "runs", "output", "episodes", "baselines"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        with (self.folder / ".study.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StudyError(
                    f"study: got {self.folder}, which another process uses, expected a free "
                    "folder. Give another --folder, or end that process."
                ) from None
            write_json(self.folder / "study.json", asdict(self.settings), indent=2)
            for number, task in enumerate(self.tasks, 1):
                note = "" if self.finished(task) else self._try(task, number)
                self._report(f"{self.row(task)}{note}")
                write_tables(self.folder, self.rows(), self.settings)
        return self.rows()

    def finished(self, task: str) -> bool:
        """Is there nothing left to do for a task?"""
        state = self.state(task)
        evaluated = self._episodes(task).exists() or self._weights(task) is None
        return bool(state.end) and evaluated and not self._missing(task)

    def state(self, task: str) -> TaskState:
        """Return the progress of a task. StudyError: its file cannot be read."""
        file = self.folder / "state" / f"{task}.json"
        if not file.exists():
            return TaskState()
        try:
            return TaskState(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"study: got {file}, which cannot be read ({error}), expected a task's state. "
                "Delete it to learn the task again."
            ) from None

    def rows(self) -> list[TaskRow]:
        """Return the figures of every task that has begun."""
        return [self.row(task) for task in self.tasks if self.state(task) != TaskState()]

    def row(self, task: str) -> TaskRow:
        """Return a task's figures, from the files in the folder."""
        state, run = self.state(task), self.folder / "runs" / task
        success, interval, mean_return = _results(self._episodes(task))
        low, high = interval or (None, None)
        evaluations = [float(row["success"]) for row in _table(run / "metrics" / "evaluations.csv")]
        blind = {name: _results(self._baseline(task, name))[0] for name in BASELINES}
        return TaskRow(
            task=task,
            end="failed" if state.code else state.end,
            minutes=round(state.seconds / 60, 2),
            steps=int(_json(run / "progress.json").get("steps", 0)),
            updates=int(_json((self._weights(task) or run) / "manifest.json").get("step", 0)),
            success=success,
            low=low,
            high=high,
            mean_return=mean_return,
            last_evaluations=round(fmean(evaluations[-LAST:]), 4) if evaluations else None,
            published=published(task),
            **blind,
        )

    # --- one task --------------------------------------------------------------------------------

    def _try(self, task: str, number: int) -> str:
        """Complete a task; return a note on its failure, "" where it succeeded."""
        file = self.folder / "output" / f"{task}.log"
        self._report(f"{task}: {number} of {len(self.tasks)}, output in {file}")
        try:
            self._run_task(task)
        except _Failed as failure:
            code, command = failure.args
            self._note(task, replace(self.state(task), code=code))
            return f" (`wm {command}` ended with {code}; the same study tries it again: {file})"
        return ""

    def _run_task(self, task: str) -> None:
        self._note(task, replace(self.state(task), code=0))
        for name in self._missing(task):
            self._evaluate(task, self._baseline(task, name), "--policy", name, "--task", task)
        if not self.state(task).end:
            self._learn(task)
        weights = self._weights(task)
        if weights is not None:
            self._evaluate(task, self._episodes(task), "--weights", str(weights.parent))

    def _learn(self, task: str) -> None:
        """Run the task's graph until its time is over; a graph that was begun is continued."""
        before = self.state(task).seconds
        limit_s = 60 * self.settings.minutes
        if before >= limit_s:
            self._note(task, TaskState(before, "minutes"))
            return
        began = time.monotonic()
        end: End = ""
        with self._output(task) as output:
            process = subprocess.Popen(
                [*die_with_parent.prefix(), *self._program, *self._graph(task)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C reaches the study only
            )
            try:
                while process.poll() is None and not end:
                    seconds = before + time.monotonic() - began
                    self._note(task, TaskState(seconds))
                    if seconds >= limit_s:
                        end = "minutes"
                    else:
                        _wait(process, min(TICK_S, limit_s - seconds))
            finally:
                code = _end(process)
        seconds = before + time.monotonic() - began
        if code and not end:
            self._note(task, TaskState(seconds))
            raise _Failed(code, " ".join(self._graph(task)))
        self._note(task, TaskState(seconds, end or "steps"))

    def _graph(self, task: str) -> list[str]:
        s = self.settings
        arguments = {
            "task": task,
            "model": s.model,
            "demos": s.demos,
            "time_limit": s.time_limit,
            "composition": "fused",
            "eval_every": s.eval_every,
            "eval_episodes": s.episodes,
            "steps": s.steps,
            "seed": s.seed,
            "run": self.folder / "runs" / task,
        }
        words = [f"{name}:={value}" for name, value in arguments.items()]
        return ["launch", "sim_metaworld", *words]

    def _evaluate(self, task: str, file: Path, *words: str) -> None:
        """Evaluate a policy on the same episodes as all others; the file is whole or absent."""
        s = self.settings
        numbers = {"episodes": s.episodes, "seed": s.seed, "time-limit": s.time_limit}
        options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
        command = [*die_with_parent.prefix(), *self._program, "eval", *words, *options]
        with self._output(task) as output, replacing(file) as aside:
            process = subprocess.Popen(
                [*command, "--csv", str(aside)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait()
            finally:
                _end(process)
            if code:
                raise _Failed(code, f"eval {' '.join(words)}")

    # --- files -----------------------------------------------------------------------------------

    def _note(self, task: str, state: TaskState) -> None:
        write_json(self.folder / "state" / f"{task}.json", asdict(state), indent=2)

    def _output(self, task: str) -> Any:
        return (self.folder / "output" / f"{task}.log").open("ab")

    def _episodes(self, task: str) -> Path:
        return self.folder / "episodes" / f"{task}.csv"

    def _baseline(self, task: str, name: str) -> Path:
        return self.folder / "baselines" / f"{task}_{name}.csv"

    def _missing(self, task: str) -> list[str]:
        names = BASELINES if self.settings.baselines else ()
        return [name for name in names if not self._baseline(task, name).exists()]

    def _weights(self, task: str) -> Path | None:
        """Return the folder of the newest weights; None where none were saved."""
        store = self.folder / "runs" / task / "weights"
        latest = store / "latest"
        return store / f"{int(latest.read_text()):010d}" if latest.exists() else None


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that a study began with; empty for a new one. StudyError."""
    file = folder / "study.json"
    if not file.exists():
        return {}
    known = {field.name for field in fields(StudySettings)}
    try:
        settings = dict(json.loads(file.read_text()))
        if not set(settings) <= known:
            raise ValueError(f"unknown: {', '.join(sorted(set(settings) - known))}")
    except (OSError, ValueError, TypeError) as error:
        raise StudyError(
            f"study: got {file}, which cannot be read ({error}), expected a study's settings. Give "
            "another --folder, or repair the file."
        ) from None
    return settings


def write_tables(folder: Path, rows: Sequence[TaskRow], settings: StudySettings) -> None:
    """Write tasks.csv, tasks.md and tasks.png, each whole or not at all."""
    if not rows:
        return
    with replacing(folder / "tasks.csv") as aside, aside.open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(TaskRow)], lineterminator="\n")
        table.writeheader()
        table.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)
    with replacing(folder / "tasks.md") as aside:
        aside.write_text(markdown(rows, settings))
    with replacing(folder / "tasks.png") as aside:
        draw(rows, settings, aside)


def markdown(rows: Sequence[TaskRow], settings: StudySettings) -> str:
    """Return the table in Markdown, with the settings above it."""
    s = settings
    limits = f"at most {s.minutes:g} minutes" + (f" or {s.steps} simulator steps" * bool(s.steps))
    about = (
        f"`{s.model}`, {s.demos} demonstrations, {limits} a task, seed {s.seed}. Success of "
        f"{s.episodes} fresh episodes of {s.time_limit} agent steps by the last weights, with "
        "Wilson's 95 % interval; every policy has the same episodes. *Last evaluations*: mean "
        f"of the last {LAST} within learning. *MWM*: published, {PUBLISHED_STEPS} simulator steps, "
        "five seeds, no demonstrations, episodes of 250 agent steps."
    )
    head = (
        "task", "success", "last evaluations", "return", "random", "best constant",
        "expert replayed", "best of 30 replays", "script", "MWM", "simulator steps", "updates",
        "minutes", "ended by",
    )  # fmt: skip
    lines = [about, "", _line(head), _line(["---"] * len(head))]
    for row in rows:
        success = "-" if row.low is None else f"{row.success:.2f} [{row.low:.2f}, {row.high:.2f}]"
        shares = [_share(getattr(row, name)) for name in (*BASELINES, "published")]
        mean_return = "-" if row.mean_return is None else f"{row.mean_return:.0f}"
        counts = [str(row.steps), str(row.updates), f"{row.minutes:.1f}", row.end or "-"]
        last = _share(row.last_evaluations)
        lines.append(_line([row.task, success, last, mean_return, *shares, *counts]))
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[TaskRow], settings: StudySettings, path: Path) -> None:
    """Write the figure as PNG: a line a task, success with its interval beside the baselines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.4 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    marks = dict(zip((*BASELINES, "published"), "os^D|x"))
    for name, mark in marks.items():
        measured = [
            (v, at + BELOW)
            for at, row in zip(places, rows)
            if (v := getattr(row, name)) is not None
        ]
        if measured:
            color, label = "0.55", name.replace("_", " ")
            if name == "published":
                color, label = "tab:orange", f"MWM, published, {PUBLISHED_STEPS} steps"
            rates, heights = zip(*measured)
            axes.scatter(rates, heights, s=36, color=color, marker=mark, label=label)
    learned = [
        (row.success, at, row.success - row.low, row.high - row.success)
        for at, row in zip(places, rows)
        if row.success is not None and row.low is not None and row.high is not None
    ]
    if learned:
        rates, heights, below, above = zip(*learned)
        bars, label = [below, above], "learned, 95 %"
        axes.errorbar(rates, heights, xerr=bars, fmt="o", color="tab:blue", capsize=3, label=label)
    axes.set(
        yticks=list(places),
        yticklabels=[row.task for row in rows],
        ylim=(len(rows) - 0.5, -0.5),
        xlim=(-0.03, 1.05),
        xlabel=f"success, {settings.episodes} episodes of {settings.time_limit} agent steps",
        title=f"{settings.model}, {settings.demos} demonstrations, {settings.minutes:g} minutes",
    )
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=120, format="png")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _results(file: Path) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Return success, its 95 % interval and the mean return of a file of episodes."""
    rows = _table(file)
    if not rows:
        return None, None, None
    wins = sum(int(row["success"]) for row in rows)
    low, high = wilson(wins, len(rows))
    mean_return = fmean(float(row["total_reward"]) for row in rows)
    return wins / len(rows), (round(low, 4), round(high, 4)), round(mean_return, 2)


def _table(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _json(file: Path) -> Mapping[str, Any]:
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(max(seconds, 0.01))
    except subprocess.TimeoutExpired:
        return


def _end(process: subprocess.Popen[bytes]) -> int:
    """Interrupt a process as Ctrl-C does, kill it if it does not end; return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        _wait(process, END_S)
    if process.poll() is None:
        process.kill()
    return process.wait()
