"""The folder of a run, and how `run:=NAME` goes on with the arguments it began with.

runs/<run>/run.json   graph and arguments, written whole before any node starts
runs/<run>/log/ weights/ trainer/ metrics/ report/   belong to the nodes
runs/<run>/logs/      output of the processes
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
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
TRAIN, PRETRAIN = "train", "pretrain"  # what run.json calls `wm train` and `wm pretrain`
ROBOT = (
    "robot",
    "task",
    "camera",
    "render",
    "action_repeat",
    "time_limit",
    "background",
)  # of weights
RENAMED = {"album": "plans"}  # arguments in run.json of older versions
LEARNED = (
    "model",
    "set",
    "hold_out",
    "recency",
    "allow_mixed",
    "pretrained",
)  # of `wm train`, for a graph
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NOT_NAME = re.compile(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+")  # of a task, in the name of a new run


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


def open_run(graph: Graph, arguments: Mapping[str, Value], pushed: str = "") -> Run:
    """Create or resume the run folder and write run.json; refuse arguments that contradict it.

    A run that is running is refused, and its run.json stays as it is. Launches at the same moment
    that name no run get a folder each. pushed: namespace that relative ones are below; empty: none.
    """
    chosen = graph.whole(graph.parse(with_config(graph.parse(arguments))), Path.cwd())
    while (run := _open(graph, chosen, pushed)) is None:
        pass  # another launch made the folder of that name first
    return run


def _open(graph: Graph, chosen: Mapping[str, Value], pushed: str) -> Run | None:
    """Return the run, locked; None where another launch made the folder meanwhile."""
    word = str(chosen.get("run", ""))
    path = _folder(word or _fresh_name(graph, chosen))
    if path.is_dir() and not word:
        return None
    with ExitStack() as stack:
        lock = stack.enter_context(_lock(path)) if word and path.is_dir() else None
        run, arguments = _plan(graph, path, chosen, pushed)
        try:
            path.mkdir(parents=True, exist_ok=bool(word))
        except FileExistsError:
            if not word:
                return None
            raise GraphError(f"run: got {path}, which is no folder, expected one.") from None
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
    graph: Graph, path: Path, chosen: Mapping[str, Value], pushed: str
) -> tuple[dict[str, Any], dict[str, Value]]:
    """Return the run's values, resumed, notes and movable, and the arguments to write."""
    file = path / FILE
    resumed = file.exists()
    before = _read(file, graph, chosen) if resumed else {}
    notes = _compare(graph, path, before, chosen) if resumed else []
    if before.get("offline"):
        notes.append(f"learned before, and learns on, from {before['offline']}")
    merged = {**before, **chosen}
    learned = (path / "weights" / "latest").exists()  # newer weights than those to begin with
    taken = {} if learned else arguments_of(graph, merged)
    if taken:
        listed = ", ".join(f"{name}:={show(value)}" for name, value in taken.items())
        notes.append(f"as the weights were made: {listed}")
    implied = {**graph.defaults(), **graph.implies(merged)}
    arguments = graph.resolve({**implied, **taken, **merged, "run": path.name})
    values = _complete(graph, path, arguments)
    graph.check(values)
    named = any(name in chosen or _differs(graph, arguments, name) for name in graph.owns(values))
    movable = graph.moves(values) and not named
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
            f"run: got {_name(path)!r}, which is running already, expected another run:=NAME. Or "
            "end it first."
        ) from None
    return stream


def _name(path: Path) -> str:
    return str(path) if path.parent != Path(RUNS).resolve() else path.name


def _folder(word: str) -> Path:
    if "/" in word:
        return Path(word).expanduser().resolve()
    if not NAME.fullmatch(word):
        raise GraphError(f"run: got {word!r}, expected letters, digits, '.', '_', '-' (or a path).")
    return (Path(RUNS) / word).resolve()


def _fresh_name(graph: Graph, chosen: Mapping[str, Value]) -> str:
    taken = arguments_of(graph, chosen)
    arguments = graph.resolve({**graph.defaults(), **taken, **chosen})
    about = NOT_NAME.sub("-", str(arguments.get("task") or graph.name))
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


def _read(file: Path, graph: Graph, chosen: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments that a run began with; those it did not have yet are as chosen now."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        # runs of older versions changed no settings of their preset
        name, arguments = content["graph"], {"set": "", **content["arguments"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(
            f"run: {file} cannot be read ({error}). Take another run:=NAME, or repair the file."
        ) from None
    if name in graph.continues:
        if "hold_out" not in chosen and hides_hold_out(file.parent, arguments):
            raise GraphError(
                f"hold_out: got none, but run {file.parent.name!r} held episodes out and its "
                f"{FILE}, of an older version, does not record which share; expected that share. "
                "Give hold_out:=SHARE (0.1 by default)."
            )
        return {**chosen, **_learned(file.parent, graph, arguments)}
    if name == PRETRAIN:
        raise GraphError(
            f"run: got {file.parent.name!r}, which wm pretrain began and which does not act, "
            f"expected another run. Begin one with its weights: pretrained:={file.parent.name}."
        )
    if name != graph.name:
        raise GraphError(f"run: got {file} of graph {name!r}, expected one of {graph.name!r}.")
    arguments = {RENAMED.get(key, key): value for key, value in arguments.items()}
    known = {key: value for key, value in arguments.items() if key in graph.defaults()}
    return graph.whole(graph.parse(known), _began_in(file.parent))


def _began_in(path: Path) -> Path:
    """Return the folder that a run was launched in, to which relative paths in run.json of older
    versions refer."""
    return path.parent.parent if path.parent.name == RUNS else Path.cwd()


def _learned(path: Path, graph: Graph, arguments: Mapping[str, Any]) -> dict[str, Value]:
    """Return the arguments of a graph that acts which a run of offline training decides.

    The seed is the run's, model and robot are those of its newest weights; the logs it learned
    from go on to be learned from.
    """
    own = str(path / "log")
    logs = arguments.get("logs") or [arguments.get("log")]
    words = [WeightedLog.parse(str(log)) for log in logs if log]
    logs = _relative([log for log in words if log.path != own])
    learned: dict[str, Any] = {"seed": arguments.get("seed", 0)}
    learned |= {name: arguments.get(name) for name in LEARNED}
    learned |= {"offline": ",".join(logs), **_robot(path)}
    known = {argument.name: argument for argument in graph.arguments}
    kept: dict[str, Value] = {}
    for name, value in learned.items():
        if name in known and value is not None:
            with suppress(GraphError):  # of another robot: the user chooses it
                kept[name] = known[name].parse(value)
    return kept


def _relative(logs: Sequence[WeightedLog]) -> list[str]:
    """Return logs as words whose weights sum up to 1 or more: proportions, not small shares."""
    total = sum(log.weight for log in logs)
    scale = 1.0 if total >= 1 else total
    return [str(replace(log, weight=log.weight / scale)) for log in logs]


def _robot(path: Path) -> dict[str, Any]:
    """Return model and robot settings of the newest weights; empty where there are none."""
    try:
        version = int((path / "weights" / "latest").read_text())
        file = path / "weights" / f"{version:010d}" / "manifest.json"
        manifest = json.loads(file.read_text())
        facts = {name: manifest["extra"][name] for name in ROBOT if name in manifest["extra"]}
        return {**facts, "model": manifest["preset"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_training(path: Path, command: str = TRAIN) -> dict[str, Any]:
    """Return the training settings of a run, of LEARNED and `seed`, and its `logs` where the
    command (TRAIN or PRETRAIN) began it; empty for a new run. Those that an older run.json does not
    have are absent. GraphError: it cannot be read, or is of the other command."""
    file = path / FILE
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text())
        arguments = dict(content["arguments"])
        graph = str(content["graph"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphError(
            f"run: {file} cannot be read ({error}). Take another --run, or repair the file."
        ) from None
    if PRETRAIN in (graph, command) and graph != command:
        other = f"wm {graph}" if graph in (TRAIN, PRETRAIN) else f"graph {graph}"
        raise GraphError(
            f"run: got {path.name!r}, which {other} began, expected a run of wm {command}. Take "
            "another --run."
        )
    own = graph == command
    names = (*LEARNED, "seed", *(("logs",) if own else ()))
    whole = {} if own else {"hold_out": 0.0, "recency": 0.0}  # what older graphs learned by
    return whole | {name: arguments[name] for name in names if name in arguments}


def hides_hold_out(path: Path, arguments: Mapping[str, Any]) -> bool:
    """Whether a run was evaluated on held-out episodes although its arguments do not have their
    share: in older versions run.json had no `hold_out`."""
    if "hold_out" in arguments:
        return False
    try:
        return ",heldout/" in (path / "metrics" / "train.csv").read_text(errors="replace")
    except OSError:
        return False


def write_training(path: Path, arguments: Mapping[str, Any], command: str = TRAIN) -> None:
    """Record the settings of `wm train` (or of the command PRETRAIN), so that the run can be
    continued. A run that a graph has begun stays that graph's."""
    file = path / FILE
    with suppress(OSError, ValueError, TypeError, KeyError):
        if json.loads(file.read_text())["graph"] != command:
            return
    path.mkdir(parents=True, exist_ok=True)
    write_json(file, {"graph": command, "arguments": dict(arguments)}, indent=2)


def _compare(
    graph: Graph, path: Path, before: Mapping[str, Value], chosen: Mapping[str, Value]
) -> list[str]:
    notes = []
    for argument in graph.arguments:
        name = argument.name
        if name == "run" or name not in chosen or chosen[name] == before.get(name):
            continue
        old, new = show(before.get(name, argument.default)), show(chosen[name])
        if argument.fixed and old != new:
            raise GraphError(
                f"{name}: got {new!r}, but run {path.name!r} began with {name}:={old}, expected "
                f"the same. Leave {name} out, or start another run."
            )
        notes.append(f"{name}:={new} (was {old})")
    return notes
