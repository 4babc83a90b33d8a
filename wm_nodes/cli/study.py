"""`wm study tasks --set easy`: learn a set of tasks with the same settings, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from wm_nodes.cli.arguments import parse, parse_resumed, require, require_one_of
from wm_nodes.cli.helptext import group_help
from wm_nodes.errors import UserError, unknown, user_errors
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.robots.sims.metaworld_tasks import TASKS

SUBCOMMANDS = {
    "tasks": "learn tasks of Meta-World one after the other with the same settings; a table and a "
    "figure beside blind baselines",
}


@dataclass(frozen=True)
class Tasks:
    """Learn tasks of Meta-World one after the other with the same settings, through the whole
    graph, and leave tasks.csv, tasks.md and tasks.png beside blind baselines.

    The same command resumes the study; a finished task is not repeated. The settings are fixed
    when a study begins; the tasks may change. Exit code 1: a task failed.
    """

    set: Literal["easy", "medium", "hard", "very-hard"] = "easy"
    """Set of tasks, as in the paper on Masked World Models (28, 11, 6 and 5 tasks)."""
    tasks: str = ""
    """Tasks instead of a set, separated by commas: coffee-button,door-open."""
    demos: int = 20
    """Demonstrations by each task's script, recorded first; 0: none."""
    minutes: float = 30.0
    """Limit for each task's graph, demonstrations included [min]."""
    steps: int = 0
    """Limit for each task in simulator steps of training; 0: none."""
    seed: int = 0
    """Seed of everything random."""
    model: str = "mwm_cpu"
    """Model preset."""
    time_limit: int = 100
    """Agent steps per episode."""
    eval_every: int = 2500
    """Agent steps of training between evaluations; 0: none."""
    episodes: int = 20
    """Episodes of each evaluation, of the one at the end, and of each baseline."""
    baselines: bool = True
    """Measure the blind policies and the script on the same episodes first; their time is not part
    of --minutes."""
    folder: Path | None = None
    """Folder of the study; empty: runs/study-SET, with --tasks runs/study-tasks."""


def run(words: Sequence[str]) -> int:
    """Run `wm study WORDS`."""
    if words and words[0] == "tasks":
        return _tasks(words[1:])
    if words and words[0] not in ("-h", "--help"):
        raise UserError(unknown("subcommand", words[0], SUBCOMMANDS))
    print(group_help("study", SUBCOMMANDS))
    return 0 if words else 2


def _tasks(words: Sequence[str]) -> int:
    options = parse(Tasks, "study tasks", words)
    folder = options.folder or Path("runs") / f"study-{'tasks' if options.tasks else options.set}"

    from wm_nodes.evaluation.task_study import StudyError, StudySettings, TaskStudy, read_settings

    with user_errors(StudyError):
        recorded = read_settings(folder)
    options = parse_resumed(Tasks, "study tasks", words, Tasks(**recorded), recorded, str(folder))
    tasks = _names(options)
    require_one_of("model", options.model, MODELS)
    require("demos", options.demos, 0, 1000)
    require("minutes", options.minutes, 0.01)
    require("steps", options.steps, 0)
    require("seed", options.seed, 0, 2**31 - 1)
    require("time-limit", options.time_limit, 1, 250)
    require("eval-every", options.eval_every, 0)
    require("episodes", options.episodes, 1, 1000)
    known = {field.name for field in fields(StudySettings)}
    settings = StudySettings(**{k: v for k, v in asdict(options).items() if k in known})
    print(f"{len(tasks)} tasks in {folder} (the same command resumes)", flush=True)
    with user_errors(StudyError, OSError):
        rows = TaskStudy(folder, settings, tasks, report=lambda text: print(text, flush=True)).run()
    print(f"table: {folder / 'tasks.md'}, figure: {folder / 'tasks.png'}")
    return 1 if any(row.end == "failed" for row in rows) else 0


def _names(options: Tasks) -> tuple[str, ...]:
    """Return the tasks, as Meta-World names them, each once."""
    from wm_nodes.evaluation.task_sets import SETS

    if not options.tasks:
        return SETS[options.set]
    known = [f"{task}-v3" for task in TASKS]
    names = [word.strip().removesuffix("-v3") for word in options.tasks.split(",") if word.strip()]
    for task in names:
        require_one_of("tasks", f"{task}-v3", known)
    if not names:
        raise UserError("--tasks: got no task, expected names separated by commas.")
    return tuple(dict.fromkeys(f"{task}-v3" for task in names))
