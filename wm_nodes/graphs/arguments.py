"""Arguments that several graphs share."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes
from wm_models.planners.registry import PLANNERS
from wm_models.registry import SUMMARIES, preset, refusal_of_cameras
from wm_nodes import namespaces
from wm_nodes.graphs import path_arguments
from wm_nodes.graphs.graph import Argument, GraphError, Values
from wm_nodes.graphs.pretrained import check_pretrained, pretrained_folder
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.graphs.weights import WeightFacts, find_weights, read_facts
from wm_nodes.robots.cameras.names import camera_names, contradiction

MODELS = tuple(SUMMARIES)

MODEL = Argument("model", "mwm_cpu", "Model preset.", choices=MODELS, fixed=True)
SET = Argument(
    "set",
    "",
    "Settings of the model preset to change, as NAME=VALUE with commas between: `wm models show "
    "MODEL` lists them. Empty: none.",
    fixed=True,
)
CONFIG = Argument(
    "config",
    "",
    "YAML file with a model preset and settings to change, as of `wm train --config`; `set` comes "
    "on top of it. The run keeps its content as model and set. Empty: none.",
)
WEIGHTS = Argument(
    "weights",
    "",
    "Checkpoint to begin with: a folder, or the name of a shipped one; empty: none. Task, model, "
    "camera, action_repeat and background are those of the weights by default; another task or "
    "model is refused.",
    whole=path_arguments.weights,
)
PRETRAINED = Argument(
    "pretrained",
    "",
    "Run of `wm pretrain`, or folder of its weights, that a model of APV begins with; empty: none.",
    fixed=True,
)
TRAIN = Argument("train", True, "Learn while acting; false only acts.")
SEED = Argument("seed", 0, "Seed of everything random.", low=0, high=2**31 - 1, fixed=True)
STEPS = Argument("steps", 0, "End after this many simulator steps; 0: never.", low=0)
EPISODES = Argument("episodes", 0, "End after this many episodes; 0: never.", low=0)
RUN = Argument(
    "run", "", "Name of the run (runs/NAME): an existing one is continued; empty: a new one."
)
LOG = Argument(
    "log",
    "",
    "Replay log; empty: the run's own (runs/NAME/log).",
    fixed=True,
    whole=path_arguments.path,
)
CAPACITY = (  # of the recorder
    Argument("capacity_steps", 0, "Keep the newest so many steps of the log; 0: all.", low=0),
    Argument("capacity_bytes", 0, "Keep the newest so many bytes of the log; 0: all.", low=0),
)
RECENCY = Argument(
    "recency",
    0.0,
    "Half-life of an episode's sampling weight, in rows of the log; 0: all equal.",
    low=0.0,
    fixed=True,
)
HOLD_OUT = Argument(
    "hold_out",
    0.0,
    "Share of each log's episodes that is held out of training; a run that `wm train` began keeps "
    "its own.",
    low=0.0,
    high=0.9,
    fixed=True,
)
ALLOW_MIXED = Argument(
    "allow_mixed", False, "Learn from logs whose robot, task or action space differ."
)
COMPOSITION = Argument(
    "composition",
    "split",
    "split: camera, encoder, world_model, policy as processes; fused: all four in one process.",
    choices=("split", "fused"),
)
PLANNER = Argument("planner", "actor", "What chooses the action.", choices=tuple(PLANNERS))
REPORT = Argument("report", False, "Leave a report in runs/NAME/report at the end.")
OFFLINE = Argument(
    "offline",
    "",
    "Further recorded logs to learn from, as LOG or LOG:WEIGHT, with commas between. Weights below "
    "0.5 in all are shares of the windows; otherwise half of the windows come from these logs, in "
    "proportion to the weights. A run that `wm train` began keeps its own. Empty: none.",
    fixed=True,
    whole=path_arguments.logs,
)
NS = Argument(
    "ns",
    namespaces.ROBOT[1:],
    "Namespace of the nodes; a relative one is below what PushRosNamespace pushed, else below /.",
    namespace=True,
)
NETWORK = Argument(
    "network",
    "local",
    "local: this computer only, by shared memory and loopback; subnet: other computers too.",
    choices=("local", "subnet"),
)


def first_weights(values: Values) -> str:
    """Return the folder of the weights to begin with; empty: none, or the run has newer ones."""
    weights = str(values["weights"])
    if not weights or _has_weights(values):
        return ""
    return str(find_weights(weights))


def begun_with(values: Values) -> WeightFacts | None:
    """Return the facts of the weights that the nodes begin with: the run's newest, else those of
    `weights`; None: there are none, or the nodes will find the run's unreadable."""
    run, weights = Path(str(values.get("run", ""))) / "weights", str(values.get("weights", ""))
    if (run / "latest").exists():
        try:
            return read_facts(run)
        except GraphError:
            return None
    return read_facts(find_weights(weights)) if weights else None


def check_cameras(values: Values, *, seen: bool = True) -> None:
    """Refuse wrong names of cameras and, where a model sees them, cameras that it or the weights to
    begin with cannot see, before any process starts."""
    try:
        cameras = camera_names(str(values["camera"]))
    except ValueError as error:
        raise GraphError(str(error)) from None
    if not seen:
        return
    if why := refusal_of_cameras(str(values["model"]), cameras):
        raise GraphError(why)
    facts = begun_with(values)
    if cameras and facts and facts.cameras and (why := contradiction(facts.cameras, cameras)):
        raise GraphError(why)


def split_logs(values: Values) -> list[str]:
    """Return the logs of `offline` as LOG:WEIGHT, with whole paths. GraphError."""
    logs = []
    for word in filter(None, (each.strip() for each in str(values.get("offline", "")).split(","))):
        try:
            log = WeightedLog.parse(word)
        except ValueError as error:
            raise GraphError(f"offline: {error}, commas between.") from None
        if not log.is_url:  # the trainer finds out whether one in an object store is there
            folder = Path(log.path).expanduser().resolve()
            if not (folder / "zarr.json").is_file():
                raise GraphError(
                    f"offline: got {word!r}, which is no replay log, expected LOG or LOG:WEIGHT, "
                    "with commas between."
                )
            log = WeightedLog(str(folder), log.weight)
        logs.append(str(log))
    return logs


def trainer_threads(cores: int) -> int:
    """Return how many threads training may use: half of the cores are left for acting."""
    return max(1, cores // 2)


def check_settings(values: Values) -> None:
    """Refuse wrong settings of the model preset, before any process starts.

    They are looked up where torch is, which the system Python of `ros2 launch` may lack: there the
    trainer refuses them.
    """
    try:
        changes = read_changes(str(values.get("set", "")))
        if changes and find_spec("torch") is not None:
            preset(str(values["model"])).varied(changes)
    except ModelError as error:
        raise GraphError(str(error)) from None


def first_pretrained(values: Values) -> str:
    """Return the folder of the pre-trained weights to begin with; empty: none. Where they are gone
    a run with weights of its own does not need them. GraphError."""
    word = str(values.get("pretrained", ""))
    if not word:
        return ""
    try:
        return str(pretrained_folder(word))
    except GraphError:
        if _has_weights(values):
            return word
        raise


def _has_weights(values: Values) -> bool:
    return (Path(str(values["run"])) / "weights" / "latest").exists()


def _check_pretrained(values: Values) -> None:
    """Refuse pre-trained weights that a new run cannot begin with."""
    folder = first_pretrained(values)
    if not folder or _has_weights(values):
        return
    if values.get("weights"):
        raise GraphError(
            f"pretrained: got {folder} beside weights:={values['weights']}, which were trained "
            "already, expected one of them. Leave one of them out."
        )
    changes = read_changes(str(values.get("set", "")))
    check_pretrained(str(values["model"]), changes, Path(folder))


def check_files(values: Values) -> None:
    """Refuse weights that do not exist or are of another model, before any process starts."""
    split_logs(values)
    check_settings(values)
    weights = str(values.get("weights", ""))
    _check_pretrained(values)
    if not weights:
        return
    facts = read_facts(find_weights(weights))
    if facts.preset != values["model"]:
        raise GraphError(
            f"model: got {values['model']!r}, but the weights in {facts.folder} are of model "
            f"{facts.preset!r}, expected the same. Set model:={facts.preset}, or take other "
            "weights."
        )
