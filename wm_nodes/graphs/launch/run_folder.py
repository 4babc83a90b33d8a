"""The folder of a run, and how `run:=NAME` goes on with the arguments it began with.

runs/<run>/run.json   graph and arguments, written whole before any node starts
runs/<run>/log/ weights/ trainer/ metrics/ report/   belong to the nodes
runs/<run>/logs/      output of the processes
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from wm_nodes.atomic_file import write_json
from wm_nodes.graphs.config_file import with_config
from wm_nodes.graphs.graph import Graph, GraphError, Value, show
from wm_nodes.graphs.launch.process_identity import new_run
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.graphs.weights import arguments_of

RUNS = "runs"
FILE = "run.json"
TRAIN = "train"  # what run.json calls `wm train`
ROBOT = ("robot", "task", "camera", "render", "action_repeat", "time_limit")  # of weights
RENAMED = {"album": "plans"}  # arguments in run.json of older versions
LEARNED = ("model", "set", "hold_out", "recency", "allow_mixed")  # of `wm train`, for a graph
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Run:
    """A run that is about to start: values are complete, `run` and `log` are absolute paths.

    lock: while it is open, a second launch of the run is refused. movable: it may take another
    namespace than that in `values`. launch: identity of this launch, in all its nodes' environment.
    """

    path: Path
    values: Mapping[str, Value]
    resumed: bool
    notes: tuple[str, ...]
    lock: IO[str]
    movable: bool = False
    launch: str = field(default_factory=new_run)

    @property
    def name(self) -> str:
        """Return the word that `run:=` takes to go on with this run."""
        return _name(self.path)


def open_run(graph: Graph, given: Mapping[str, Value], pushed: str = "") -> Run:
    """Make or resume the run folder and write run.json; refuse what contradicts it.

    A run that is running is refused, and its run.json stays as it is. Launches at the same moment
    that name no run get a folder each. pushed: namespace that relative ones are below; empty: none.
    """
    wanted = graph.parse(with_config(graph.parse(given)))
    while (run := _open(graph, wanted, pushed)) is None:
        pass  # another launch made the folder of that name first
    return run


def _open(graph: Graph, wanted: Mapping[str, Value], pushed: str) -> Run | None:
    """Return the run, locked; None where another launch made the folder meanwhile."""
    word = str(wanted.get("run", ""))
    path = _folder(word or _fresh_name(graph, wanted))
    if path.is_dir() and not word:
        return None
    with ExitStack() as stack:
        lock = stack.enter_context(_lock(path)) if path.is_dir() else None
        run, arguments = _plan(graph, path, wanted, pushed)
        try:
            path.mkdir(parents=True, exist_ok=bool(word))
        except FileExistsError:
            if not word:
                return None
            raise GraphError(f"run: cannot write in {path}, which is no folder.") from None
        except OSError as error:
            raise GraphError(f"run: cannot make {path} ({error.strerror}).") from None
        if lock is None:
            lock = stack.enter_context(_lock(path))
            if (path / FILE).exists():
                return None
        try:
            write_json(path / FILE, {"graph": graph.name, "arguments": arguments}, indent=2)
        except OSError as error:
            raise GraphError(f"run: cannot write {path / FILE} ({error.strerror}).") from None
        stack.pop_all()
    return Run(path=path, lock=lock, **run)


def _plan(
    graph: Graph, path: Path, wanted: Mapping[str, Value], pushed: str
) -> tuple[dict[str, Any], dict[str, Value]]:
    """Return the run's values, resumed, notes and movable, and the arguments to write."""
    file = path / FILE
    resumed = file.exists()
    before = _read(file, graph, wanted) if resumed else {}
    notes = _compare(graph, path, before, wanted) if resumed else []
    if before.get("offline"):
        notes.append(f"learned before, and learns on, from {before['offline']}")
    given = {**before, **wanted}
    learned = (path / "weights" / "latest").exists()  # newer weights than those to begin with
    taken = {} if learned else arguments_of(graph, given)
    if taken:
        told = ", ".join(f"{name}:={show(value)}" for name, value in taken.items())
        notes.append(f"as the weights were made: {told}")
    arguments = graph.resolve({**graph.defaults(), **taken, **given, "run": path.name})
    values = _complete(graph, path, arguments)
    graph.check(values)
    chosen = any(name in wanted or _differs(graph, arguments, name) for name in graph.owns(values))
    movable = graph.moves(values) and not chosen
    values |= graph.namespaces(values, pushed)
    graph.task(values)
    run = {"values": values, "resumed": resumed, "notes": tuple(notes), "movable": movable}
    return run, arguments


def _differs(graph: Graph, arguments: Mapping[str, Value], name: str) -> bool:
    """Has an argument another value than its default?"""
    defaults = graph.defaults()
    return name in defaults and arguments[name] != defaults[name]


def _lock(path: Path) -> IO[str]:
    """Return the run's lock, which holds until it is closed. GraphError: another launch has it."""
    file = path / ".launch.lock"
    try:
        stream = file.open("w")
    except OSError as error:
        raise GraphError(f"run: cannot write {file} ({error.strerror}).") from None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise GraphError(
            f"run: {_name(path)!r} is running already. Right: another run:=NAME, or end it first."
        ) from None
    return stream


def _name(path: Path) -> str:
    return str(path) if path.parent != Path(RUNS).resolve() else path.name


def _folder(word: str) -> Path:
    if "/" in word:
        return Path(word).expanduser().resolve()
    if not NAME.fullmatch(word):
        raise GraphError(
            f"run: given {word!r}, right is letters, digits, '.', '_', '-' (or a path)."
        )
    return (Path(RUNS) / word).resolve()


def _fresh_name(graph: Graph, wanted: Mapping[str, Value]) -> str:
    taken = arguments_of(graph, wanted)
    arguments = graph.resolve({**graph.defaults(), **taken, **wanted})
    about = arguments.get("task") or graph.name
    stem = f"{about}-{datetime.now():%Y%m%d-%H%M%S}"
    name, count = stem, 1
    while (Path(RUNS) / name).exists():
        count += 1
        name = f"{stem}-{count}"
    return name


def _complete(graph: Graph, path: Path, arguments: Mapping[str, Value]) -> dict[str, Value]:
    values = {name: arguments[name] for name in graph.defaults()}
    values["run"] = str(path)
    if "log" in values:
        log = str(values["log"])
        values["log"] = str(Path(log).expanduser().resolve()) if log else str(path / "log")
    return values


def _read(file: Path, graph: Graph, wanted: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments that a run began with; what it did not know yet is as wanted now."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        # runs of older versions changed no settings of their preset
        name, arguments = content["graph"], {"set": "", **content["arguments"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(
            f"run: {file} cannot be read ({error}). Right: another run:=NAME, or mend the file."
        ) from None
    if name in graph.continues:
        if "hold_out" not in wanted and hides_hold_out(file.parent, arguments):
            raise GraphError(
                f"hold_out: run {file.parent.name!r} held episodes out, but its {FILE}, of an "
                "older version, does not say which share; expected that share. Give "
                "hold_out:=SHARE (0.1 where none was given)."
            )
        return {**wanted, **_learned(file.parent, graph, arguments)}
    if name != graph.name:
        raise GraphError(f"run: {file} belongs to graph {name!r}, not to {graph.name!r}.")
    arguments = {RENAMED.get(key, key): value for key, value in arguments.items()}
    return graph.parse({key: value for key, value in arguments.items() if key in graph.defaults()})


def _learned(path: Path, graph: Graph, arguments: Mapping[str, Any]) -> dict[str, Value]:
    """Return what a run that has learned off line means for a graph that acts.

    The seed is the run's, model and robot are those of its newest weights; the logs it learned
    from go on to be learned from.
    """
    own = str(path / "log")
    logs = arguments.get("logs") or [arguments.get("log")]
    logs = [str(log) for log in logs if log and WeightedLog.parse(str(log)).path != own]
    found: dict[str, Any] = {"seed": arguments.get("seed", 0)}
    found |= {name: arguments.get(name) for name in LEARNED}
    found |= {"offline": ",".join(logs), **_robot(path)}
    known = {argument.name: argument for argument in graph.arguments}
    kept: dict[str, Value] = {}
    for name, value in found.items():
        if name in known and value is not None:
            with suppress(GraphError):  # of another robot: the person says what is right here
                kept[name] = known[name].parse(value)
    return kept


def _robot(path: Path) -> dict[str, Any]:
    """Return what the newest weights say of model and robot; nothing where there are none."""
    try:
        version = int((path / "weights" / "latest").read_text())
        file = path / "weights" / f"{version:010d}" / "manifest.json"
        manifest = json.loads(file.read_text())
        facts = {name: manifest["extra"][name] for name in ROBOT if name in manifest["extra"]}
        return {**facts, "model": manifest["preset"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_training(path: Path) -> dict[str, Any]:
    """Return what a run learns by, of LEARNED and `seed`, and its `logs` where `wm train` began it;
    empty for a new run. What run.json of an older version does not say is absent. GraphError."""
    file = path / FILE
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text())
        arguments = dict(content["arguments"])
        began = content["graph"] == TRAIN
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(
            f"run: {file} cannot be read ({error}). Right: another --run, or mend the file."
        ) from None
    names = (*LEARNED, "seed", *(("logs",) if began else ()))
    whole = {} if began else {"hold_out": 0.0, "recency": 0.0}  # what older graphs learned by
    return whole | {name: arguments[name] for name in names if name in arguments}


def hides_hold_out(path: Path, arguments: Mapping[str, Any]) -> bool:
    """Whether a run was judged on held-out episodes although its arguments do not say which share
    they are: versions before `hold_out` was in run.json did not."""
    if "hold_out" in arguments:
        return False
    try:
        return ",heldout/" in (path / "metrics" / "train.csv").read_text(errors="replace")
    except OSError:
        return False


def write_training(path: Path, arguments: Mapping[str, Any]) -> None:
    """Note what `wm train` learns from, so that a graph can go on with the run; a run that a graph
    has begun stays that graph's."""
    file = path / FILE
    with suppress(OSError, ValueError, TypeError, KeyError):
        if json.loads(file.read_text())["graph"] != TRAIN:
            return
    path.mkdir(parents=True, exist_ok=True)
    write_json(file, {"graph": TRAIN, "arguments": dict(arguments)}, indent=2)


def _compare(
    graph: Graph, path: Path, before: Mapping[str, Value], wanted: Mapping[str, Value]
) -> list[str]:
    notes = []
    for argument in graph.arguments:
        name = argument.name
        if name == "run" or name not in wanted or wanted[name] == before.get(name):
            continue
        old, new = show(before.get(name, argument.default)), show(wanted[name])
        if argument.fixed and old != new:
            raise GraphError(
                f"{name}: run {path.name!r} began with {name}:={old}, given {new!r}. "
                f"Right: leave {name} out, or start another run."
            )
        notes.append(f"{name}:={new} (was {old})")
    return notes
