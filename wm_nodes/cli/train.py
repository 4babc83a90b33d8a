"""`wm train --log LOG --model mwm_cpu`: train on recorded logs, without ROS."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from wm_datasets.remote.object_store import is_url
from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes, written
from wm_models.registry import is_action_free, refusal_of_cameras
from wm_nodes.cli.arguments import parse, refuse_changes, require, require_device, require_one_of
from wm_nodes.cli.paths import find_log
from wm_nodes.cli.preset_changes import checked_changes
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.graphs.config_file import ConfigFile, read_config_file
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import hides_hold_out, read_training, write_training
from wm_nodes.graphs.pretrained import PRETRAINED, check_pretrained, pretrained_folder
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.robots.cameras.names import camera_names, joined
from wm_nodes.training.trainable import refusal

if TYPE_CHECKING:
    from wm_nodes.training.config import TrainingConfig
    from wm_nodes.training.loop import Trainer

GB = 10**9
SHOWN = 3  # losses in the bar
FIXED = ("model", "seed", "recency", "hold_out")  # as the run began; the logs are fixed too


@dataclass(frozen=True)
class Learning:
    """Options of a command that learns from recorded logs: `wm train` and `wm pretrain`."""

    COMMAND: ClassVar[str]

    log: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="LOG[:WEIGHT]")
    ]
    """Replay log (or run) to learn from, or its archive as s3://BUCKET/FOLDER; repeat for more.
    Windows are drawn in proportion to the weights (default 1)."""
    model: str = "mwm_cpu"
    """Model preset."""
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """Setting of the preset to change, as in learner.train_every=4; repeat for more. `wm models
    show MODEL` lists them."""
    config: Path | None = None
    """YAML file with the settings to change, and optionally the preset; --set overrides it."""
    run: str = ""
    """Name of the run (runs/NAME); empty: a new one."""
    steps: int = 0
    """End after this number of updates in total; 0: at Ctrl-C."""
    seed: int = 0
    """Seed of weights and batches."""
    device: str = "auto"
    """cpu, cuda or auto (the GPU where there is one)."""
    publish_s: float = 60.0
    """Seconds between saved weights."""
    camera: str = ""
    """Camera of the log that the model sees, or several with commas between (Dreamers); empty: the
    first of its image size, or the only one. Images of another size are resized."""
    recency: float = 0.0
    """Half-life of an episode's weight in sampling, in rows of the log; 0: uniform."""
    cache_gb: float = 2.0
    """Decoded rows kept in memory [GB]."""
    disk_gb: float = 16.0
    """Decoded rows kept in memory-mapped files, for a log larger than the memory cache [GB]; 0:
    none."""
    download_gb: float = 8.0
    """Chunks of logs in object stores that are kept on this disk [GB]."""
    gpu_gb: float = 0.0
    """Decoded rows kept in the GPU's memory instead [GB]; 0: none."""
    eval_every: int = 0
    """Updates between evaluations; 0: none."""
    hold_out: float = 0.1
    """Share of each log's episodes that is held out for evaluation (with --eval-every)."""

    @classmethod
    def models(cls) -> Sequence[str]:
        """Return the words that --model takes."""
        return MODELS

    @classmethod
    def preset_of(cls, model: str) -> str:
        """Return the preset that a word of --model stands for."""
        return model

    def continued(self, run: str, robot: str) -> str:
        """Return a line that says how a run of this robot's logs goes on; empty: none."""
        return ""

    @property
    def simulated_episodes(self) -> int:
        """Episodes of an evaluation in the log's simulator."""
        return 0

    @property
    def mixes(self) -> bool:
        """Whether logs of different robots, tasks or action spaces are accepted."""
        return False

    @property
    def begins_with(self) -> str:
        """The pre-trained weights, as the user names them; empty: none."""
        return ""


@dataclass(frozen=True)
class Train(Learning):
    """Train on recorded logs, without ROS. --run NAME resumes a run.

    Options that change what is learned (logs and their weights, model, seed, recency, hold-out,
    pre-trained weights) are fixed in run.json when a run begins: a resumed run keeps them, and
    refuses other values.
    """

    COMMAND = "train"

    eval_episodes: int = 0
    """Evaluation episodes in the log's simulator, with --eval-every; 0: none."""
    allow_mixed: bool = False
    """Accept logs whose robot, task or action space differ; else they are refused."""
    pretrained: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """Run of `wm pretrain` (or a folder of its weights) that a model of APV begins with; empty:
    none."""

    def continued(self, run: str, robot: str) -> str:
        graph = f"with new episodes: wm launch sim_metaworld run:={run}"
        return graph if robot == "metaworld" else ""

    @property
    def simulated_episodes(self) -> int:
        return self.eval_episodes

    @property
    def mixes(self) -> bool:
        return self.allow_mixed

    @property
    def begins_with(self) -> str:
        return self.pretrained


def run(words: Sequence[str]) -> int:
    """Run `wm train WORDS`."""
    learn(Train, words)
    return 0


def learn(kind: type[Learning], words: Sequence[str]) -> None:
    """Learn from logs as the words say, until the last update or Ctrl-C."""
    options = _with_preset(parse(kind, kind.COMMAND, words))
    folder = Path("runs") / (options.run or f"{kind.COMMAND}-{datetime.now():%Y%m%d-%H%M%S}")
    recorded = read_training(folder, kind.COMMAND) if options.run else {}
    if recorded:
        options = _resumed(kind, words, recorded, options.run)
    options = _preset_of_file(options)
    _check(options)
    logs = _logs(options, recorded.get("logs"))
    hold_out = _hold_out(options, folder, recorded)
    changes = _changes(options, recorded.get("set", "") if recorded else None)
    _refuse_cameras(options)
    pretrained = _pretrained(options, changes, recorded)
    _refuse_logs(logs, options)

    from wm_datasets import LogError
    from wm_models.weights.manifest import WeightsError
    from wm_nodes.robots.robot import RobotError
    from wm_nodes.training.config import TrainingError
    from wm_nodes.training.loop import Trainer

    begins = {PRETRAINED: pretrained} if pretrained else {}
    config = _training_config(options, folder, logs, {**changes, **begins}, hold_out)
    settings = {name: getattr(config, name) for name in (*FIXED, "allow_mixed")}
    settings["logs"], settings["set"] = _log_words(logs), written(changes)
    settings |= {"pretrained": pretrained} if pretrained else {}

    def write_run() -> None:
        """Write run.json with the first weights: a log that cannot be learned from leaves none."""
        write_training(folder, settings, kind.COMMAND)

    with user_errors(TrainingError, LogError, ModelError, RobotError, WeightsError, OSError):
        evaluation = _evaluation(options, logs[0][0])
        _learn(Trainer(config, evaluate=evaluation, on_first_save=write_run), folder, options)


def _resumed(
    kind: type[Learning], words: Sequence[str], recorded: Mapping[str, Any], run: str
) -> Learning:
    """Return the options of a resumed run. UserError: they differ from the recorded ones."""
    known = {field.name for field in fields(kind)}
    fixed = {name: recorded[name] for name in FIXED if name in recorded}
    base = {name: recorded[name] for name in (*FIXED, "allow_mixed") if name in recorded}
    before = kind(log=(), **{name: value for name, value in base.items() if name in known})
    options = _with_preset(parse(kind, kind.COMMAND, words, before))
    refuse_changes(options, before, fixed, run)
    return options


def _with_preset(options: Learning) -> Learning:
    return replace(options, model=options.preset_of(options.model))


def _check(options: Learning) -> None:
    require_one_of("model", options.model, options.models())
    require("steps", options.steps, 0)
    require("seed", options.seed, 0, 2**31 - 1)
    require("publish-s", options.publish_s, 0.0)
    require("recency", options.recency, 0.0)
    for name in ("cache_gb", "disk_gb", "download_gb", "gpu_gb"):
        require(name.replace("_", "-"), getattr(options, name), 0.0)
    require("eval-every", options.eval_every, 0)
    require("hold-out", options.hold_out, 0.0, 0.9)
    require("eval-episodes", options.simulated_episodes, 0)
    require_device(options.device)


def _hold_out(options: Learning, folder: Path, recorded: Mapping[str, Any]) -> float:
    """Return the share of episodes to hold out, that of run.json where the run is resumed.

    UserError: run.json of an older version lacks it, or there is nothing to evaluate on.
    """
    if recorded and not options.eval_every and hides_hold_out(folder, recorded):
        raise UserError(
            f"--hold-out: run {folder.name!r} held episodes out, but its run.json, of an older "
            "version, lacks the share, expected the options that it began with. Give --eval-every "
            "N --hold-out SHARE (default 0.1)."
        )
    hold_out: float = recorded.get("hold_out", options.hold_out if options.eval_every else 0.0)
    if options.eval_every and not (hold_out or options.simulated_episodes):
        raise UserError(
            f"--eval-every: run {folder.name!r} learns from every episode (hold-out 0), expected "
            "some to evaluate on. Hold some out in another run, or give --eval-episodes N of wm "
            "train."
        )
    return hold_out


def _training_config(
    options: Learning,
    folder: Path,
    logs: tuple[tuple[Path | str, float], ...],
    changes: dict[str, Any],
    hold_out: float,
) -> TrainingConfig:
    from wm_nodes.training.config import TrainingConfig

    return TrainingConfig(
        run=folder,
        logs=logs,
        model=options.model,
        settings=changes,
        seed=options.seed,
        device=options.device,
        steps=options.steps,
        pace=False,
        publish_s=options.publish_s,
        camera=options.camera,
        recency=options.recency,
        cache_bytes=max(1, round(options.cache_gb * GB)),
        disk_bytes=round(options.disk_gb * GB),
        download_bytes=round(options.download_gb * GB),
        resident_bytes=round(options.gpu_gb * GB),
        eval_every=options.eval_every,
        hold_out=hold_out,
        allow_mixed=options.mixes,
    )


def _preset_of_file(options: Learning) -> Learning:
    """Take the model preset that --config names. UserError: --model names another."""
    named = options.preset_of(_config_file(options).preset)
    if named and options.model not in (named, options.preset_of(type(options).model)):
        raise UserError(
            f"--model: got {options.model!r}, but {options.config} has preset {named!r}, expected "
            "the same. Leave one of them out."
        )
    return replace(options, model=named or options.model)


def _config_file(options: Learning) -> ConfigFile:
    """Return the content of --config; empty without it. UserError: the file is wrong."""
    if options.config is None:
        return ConfigFile("", {})
    try:
        return read_config_file(options.config)
    except GraphError as error:
        raise UserError(f"--{error}") from None


def _changes(options: Learning, recorded: str | None) -> dict[str, Any]:
    """Return the settings of the preset that are changed, checked and with their types.

    recorded: those of run.json. UserError: one is wrong, or they differ from the recorded ones.
    """
    requested = dict(_config_file(options).settings)
    with user_errors(ModelError):
        for word in options.set:
            requested |= read_changes(word)
        old = read_changes(recorded or "")
        changes = checked_changes(options.model, requested or old)
        if recorded is not None and changes != checked_changes(options.model, old):
            raise UserError(
                f"--set: got {written(changes)}, but run {options.run!r} began with "
                f"{recorded or 'no changed settings'}, expected the same. Leave it out, or start "
                "another run."
            )
    return changes


def _logs(
    options: Learning, recorded: Sequence[str] | None
) -> tuple[tuple[Path | str, float], ...]:
    """Return the logs of --log, or the recorded ones of run.json. UserError: they differ."""
    if not (options.log or recorded):
        raise UserError("--log: got none, expected a replay log or a run, as in --log runs/NAME.")
    logs = tuple(weighted_log(text) for text in options.log or recorded or ())
    if recorded and (words := _log_words(logs)) != list(recorded):
        raise UserError(
            f"--log: got {', '.join(words)}, but run {options.run!r} began with "
            f"{', '.join(recorded)}, expected the same logs and weights. Leave --log out, or start "
            "another run."
        )
    return logs


def _log_words(logs: Sequence[tuple[Path | str, float]]) -> list[str]:
    """Return logs as run.json keeps them: absolute paths (or URLs) with their weights."""
    return [
        f"{place if is_url(place) else Path(place).resolve()}:{weight:g}" for place, weight in logs
    ]


def _refuse_cameras(options: Learning) -> None:
    """Refuse names of cameras that are wrong, and several for a model that sees one."""
    with user_errors(ValueError):
        cameras = camera_names(options.camera)
    if is_action_free(options.model):  # each is a video of its own
        return
    if why := refusal_of_cameras(options.model, cameras):
        raise UserError(f"--{why}")


def _pretrained(options: Learning, changes: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Return the folder of the weights to begin with, that of run.json in a resumed run; empty:
    none. UserError: it differs from the recorded one, or the model cannot begin with it."""
    word, before = options.begins_with, str(recorded.get("pretrained", ""))
    if recorded and word in ("", before):
        return before and str(_pretrained_folder(before, exists=False))
    folder = str(_pretrained_folder(word)) if word else ""
    if recorded:
        if before and folder == str(_pretrained_folder(before, exists=False)):
            return folder
        raise UserError(
            f"--pretrained: got {word}, but run {options.run!r} began with "
            f"{before or 'no pre-trained weights'}, expected the same. Leave --pretrained out, or "
            "start another run."
        )
    if folder:
        try:
            check_pretrained(options.model, changes, Path(folder))
        except GraphError as error:
            raise UserError(f"--{error}") from None
    return folder


def _pretrained_folder(word: str, *, exists: bool = True) -> Path:
    """Return the folder of pre-trained weights; with exists=False the word's, where there is none.
    UserError: there is none."""
    try:
        return pretrained_folder(word)
    except GraphError as error:
        if exists:
            raise UserError(f"--{error}") from None
        return Path(word)


def _refuse_logs(logs: Sequence[tuple[Path | str, float]], options: Learning) -> None:
    """Refuse logs without actions, and logs that do not fit together, before anything is imported
    for training or written."""
    from wm_datasets import LogError
    from wm_datasets.remote.reader import open_log

    specs = []
    for place, _ in logs:
        with user_errors(LogError), open_log(place) as reader:
            specs.append((place, reader.spec))
    if why := refusal(specs, options.model, options.mixes):
        raise UserError(why)


def _evaluation(options: Learning, log: Path | str) -> Callable[[Path], Mapping[str, float]] | None:
    """Return the evaluation in the simulator of the first log; None if it was not requested."""
    if not (options.eval_every and options.simulated_episodes):
        return None
    from wm_datasets.remote.reader import open_log
    from wm_nodes.evaluation.in_simulator import SimulatorEvaluation

    with open_log(log) as reader:
        return SimulatorEvaluation(reader.spec, options.simulated_episodes, options.seed)


def weighted_log(text: str) -> tuple[Path | str, float]:
    """Return folder or URL, and weight, of LOG or LOG:WEIGHT. UserError: there is no such log."""
    try:
        log = WeightedLog.parse(text)
    except ValueError as error:
        raise UserError(f"--log: {error}.") from None
    if log.is_url:
        return log.path, log.weight
    folder = find_log(Path(log.path))
    if not (folder / "zarr.json").is_file():
        raise UserError(f"--log: got {folder}, expected a replay log. See `wm log info`.")
    return folder, log.weight


def _learn(trainer: Trainer, folder: Path, options: Learning) -> None:
    """Train until the last update or Ctrl-C."""
    print(f"run {folder} (Ctrl-C ends and saves)", flush=True)
    stop, bar = _Stop(), Bar(trainer.config.steps, "updates")
    evaluation = trainer.evaluation
    try:
        while not (trainer.done or stop.requested):
            if not (trainer.step() or trainer.done):
                raise UserError("--log: got no complete episode, expected one. See `wm log info`.")
            _show(bar, trainer)
            if trainer.evaluation is not evaluation:
                evaluation = trainer.evaluation
                bar.close()
                print(f"{trainer.progress.updates} updates: {_values(evaluation)}", flush=True)
    finally:
        trainer.close()
    _show(bar, trainer, now=True)
    bar.close()
    if trainer.logs.resized_from is not None:
        (height, width), names = trainer.logs.resized_from, joined(trainer.setup.cameras)
        print(
            f"images of camera {names!r} were resized from {height}x{width} to the "
            f"size that {trainer.config.model} takes, as in the nodes"
        )
    if 0 < trainer.config.steps < (updates := trainer.progress.updates):
        print(f"--steps {trainer.config.steps}: the run has {updates} updates, none was added")
    print(f"weights: {folder / 'weights'}; --run {folder.name} resumes the run")
    if hint := options.continued(folder.name, trainer.logs.robot):
        print(hint)


def _show(bar: Bar, trainer: Trainer, *, now: bool = False) -> None:
    progress = trainer.progress
    losses = dict(list(progress.metrics.items())[:SHOWN])
    weights = "no weights yet" if progress.version is None else f"weights {progress.version}"
    text = ", ".join(filter(None, (progress.phase, weights, _values(losses))))
    bar.show(progress.updates, progress.updates_per_s, text, now=now)


def _values(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())


class _Stop:
    """Ctrl-C and SIGTERM end the loop between two updates; a second one ends at once."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: types.FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
