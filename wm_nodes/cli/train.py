"""`wm train --log LOG --model mwm_cpu`: learn from recorded logs, without ROS."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wm_datasets.remote.object_store import is_url
from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes, written
from wm_nodes.cli.arguments import as_begun, parse, require, require_device, require_one_of
from wm_nodes.cli.paths import find_log
from wm_nodes.cli.preset_changes import checked_changes
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.graphs.config_file import ConfigFile, read_config_file
from wm_nodes.graphs.graph import GraphError
from wm_nodes.graphs.launch.run_folder import hides_hold_out, read_training, write_training
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.training.trainable import mixture, obstacle

if TYPE_CHECKING:
    from wm_nodes.training.loop import Trainer

GB = 10**9
SHOWN = 3  # losses in the bar
FIXED = ("model", "seed", "recency", "hold_out")  # and the logs: as the run began


@dataclass(frozen=True)
class Train:
    """Learn from recorded logs, without ROS. --run NAME goes on.

    What changes what is learned (logs and their weights, model, seed, recency, hold-out) is fixed
    in run.json when a run begins: a run that goes on keeps it, and refuses another value.
    """

    log: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="LOG[:WEIGHT]")
    ]
    """Replay log (or run) to learn from, or its archive as s3://BUCKET/FOLDER; give it again for
    more. Windows are drawn in proportion to the weights (1 where none is given)."""
    model: str = "mwm_cpu"
    """Model preset."""
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")
    ] = ()
    """Setting of the preset to change, as in learner.train_every=4; give it again for more.
    `wm models show MODEL` lists them."""
    config: Path | None = None
    """YAML file with the settings to change, and optionally the preset; --set comes on top."""
    run: str = ""
    """Name of the run (runs/NAME); empty: a new one."""
    steps: int = 0
    """End after this many updates in all; 0: at Ctrl-C."""
    seed: int = 0
    """Seed of weights and batches."""
    device: str = "auto"
    """cpu, cuda or auto (the GPU where there is one)."""
    publish_s: float = 60.0
    """Seconds between saved weights."""
    camera: str = ""
    """Camera of the log that the model sees; empty: the first of its image size, or the only one.
    Images of another size are resized."""
    recency: float = 0.0
    """Half-life of an episode's odds to be drawn, in rows of the log; 0: all alike."""
    cache_gb: float = 2.0
    """Decoded rows kept in memory [GB]."""
    disk_gb: float = 16.0
    """Decoded rows kept in memory-mapped files, of a log larger than that [GB]; 0: none."""
    download_gb: float = 8.0
    """Chunks of logs in object stores that are kept on this disk [GB]."""
    gpu_gb: float = 0.0
    """Decoded rows kept in the GPU's memory instead [GB]; 0: none."""
    eval_every: int = 0
    """Updates between evaluations; 0: none."""
    hold_out: float = 0.1
    """Share of each log's episodes that is evaluated on, not learned from (with --eval-every)."""
    eval_episodes: int = 0
    """Evaluation episodes in the log's simulator, with --eval-every; 0: none."""
    allow_mixed: bool = False
    """Learn from logs whose robot, task or action space differ; else they are refused."""


def run(words: Sequence[str]) -> int:
    """Run `wm train WORDS`."""
    wanted = parse(Train, "train", words)
    folder = Path("runs") / (wanted.run or f"train-{datetime.now():%Y%m%d-%H%M%S}")
    began = read_training(folder) if wanted.run else {}
    if began:
        kept = {name: began[name] for name in FIXED if name in began}
        base = Train(log=(), allow_mixed=began.get("allow_mixed", False), **kept)
        wanted = as_begun(Train, "train", words, base, kept, wanted.run)
    wanted = _preset_of_file(wanted)
    require_one_of("model", wanted.model, MODELS)
    require("steps", wanted.steps, 0)
    require("seed", wanted.seed, 0, 2**31 - 1)
    require("publish-s", wanted.publish_s, 0.0)
    require("recency", wanted.recency, 0.0)
    for name in ("cache_gb", "disk_gb", "download_gb", "gpu_gb"):
        require(name.replace("_", "-"), getattr(wanted, name), 0.0)
    require("eval-every", wanted.eval_every, 0)
    require("hold-out", wanted.hold_out, 0.0, 0.9)
    require("eval-episodes", wanted.eval_episodes, 0)
    require_device(wanted.device)
    logs = _logs(wanted, began.get("logs"))
    if began and not wanted.eval_every and hides_hold_out(folder, began):
        raise UserError(
            f"--hold-out: run {folder.name!r} held episodes out, but its run.json, of an older "
            "version, does not say which share; expected the options that it began with. Give "
            "--eval-every N --hold-out SHARE (0.1 where none was given)."
        )
    hold_out = began.get("hold_out", wanted.hold_out if wanted.eval_every else 0.0)
    if wanted.eval_every and not (hold_out or wanted.eval_episodes):
        raise UserError(
            f"--eval-every: run {folder.name!r} learns from every episode (hold-out 0), expected "
            "some to evaluate on. Give --eval-episodes N, or hold some out in another run."
        )
    changes = _changes(wanted, began.get("set", "") if began else None)
    _refuse_logs(logs, wanted.model, wanted.allow_mixed)

    from wm_datasets import LogError
    from wm_models.weights.manifest import WeightsError
    from wm_nodes.robots.robot import RobotError
    from wm_nodes.training.config import TrainingConfig, TrainingError
    from wm_nodes.training.loop import Trainer

    config = TrainingConfig(
        run=folder,
        logs=logs,
        model=wanted.model,
        settings=changes,
        seed=wanted.seed,
        device=wanted.device,
        steps=wanted.steps,
        pace=False,
        publish_s=wanted.publish_s,
        camera=wanted.camera,
        recency=wanted.recency,
        cache_bytes=max(1, round(wanted.cache_gb * GB)),
        disk_bytes=round(wanted.disk_gb * GB),
        download_bytes=round(wanted.download_gb * GB),
        resident_bytes=round(wanted.gpu_gb * GB),
        eval_every=wanted.eval_every,
        hold_out=hold_out,
        allow_mixed=wanted.allow_mixed,
    )
    about = {name: getattr(config, name) for name in (*FIXED, "allow_mixed")}
    about["logs"], about["set"] = _log_words(logs), written(changes)

    def begin() -> None:
        """What cannot be learned from leaves no run.json behind; weights always have one."""
        write_training(folder, about)

    with user_errors(TrainingError, LogError, ModelError, RobotError, WeightsError, OSError):
        evaluation = _evaluation(wanted, logs[0][0])
        _learn(Trainer(config, evaluate=evaluation, on_first_save=begin), folder)
    return 0


def _preset_of_file(wanted: Train) -> Train:
    """Take the model preset that --config names. UserError: --model says another."""
    named = _config_file(wanted).preset
    if named and wanted.model not in (named, Train.model):
        raise UserError(
            f"--model: got {wanted.model!r}, but {wanted.config} has preset {named!r}, expected "
            "the same. Leave one of them out."
        )
    return replace(wanted, model=named or wanted.model)


def _config_file(wanted: Train) -> ConfigFile:
    """Return the content of --config; empty where it is not given. UserError."""
    if wanted.config is None:
        return ConfigFile("", {})
    try:
        return read_config_file(wanted.config)
    except GraphError as error:
        raise UserError(f"--{error}") from None


def _changes(wanted: Train, began: str | None) -> dict[str, Any]:
    """Return the settings of the preset that are changed, checked and with their types.

    UserError: one is wrong, or they differ from those that the run began with.
    """
    given = dict(_config_file(wanted).settings)
    with user_errors(ModelError):
        for word in wanted.set:
            given |= read_changes(word)
        old = read_changes(began or "")
        changes = checked_changes(wanted.model, given or old)
        if began is not None and changes != checked_changes(wanted.model, old):
            raise UserError(
                f"--set: got {written(changes)}, but run {wanted.run!r} began with "
                f"{began or 'no changed settings'}, expected the same. Leave it out, or start "
                "another run."
            )
    return changes


def _logs(wanted: Train, began: Sequence[str] | None) -> tuple[tuple[Path | str, float], ...]:
    """Return the logs to learn from: those given, or those of the run. UserError: they differ."""
    if not (wanted.log or began):
        raise UserError("--log: none given, right is a replay log or a run, as in --log runs/NAME.")
    logs = tuple(weighted_log(text) for text in wanted.log or began or ())
    if began and (words := _log_words(logs)) != list(began):
        raise UserError(
            f"--log: got {', '.join(words)}, but run {wanted.run!r} began with "
            f"{', '.join(began)}, expected the same logs and weights. Leave --log out, or start "
            "another run."
        )
    return logs


def _log_words(logs: Sequence[tuple[Path | str, float]]) -> list[str]:
    """Return logs as run.json keeps them: whole paths (or URLs) with their weights."""
    return [
        f"{place if is_url(place) else Path(place).resolve()}:{weight:g}" for place, weight in logs
    ]


def _refuse_logs(logs: Sequence[tuple[Path | str, float]], model: str, allow_mixed: bool) -> None:
    """Refuse logs without actions, and logs that do not go together, before anything is imported
    for learning or written."""
    from wm_datasets import LogError
    from wm_datasets.remote.reader import open_log

    specs = []
    for place, _ in logs:
        with user_errors(LogError), open_log(place) as reader:
            specs.append((place, reader.spec))
            if why := obstacle(place, reader.spec, model):
                raise UserError(why)
    if why := mixture(specs, allow_mixed):
        raise UserError(why)


def _evaluation(wanted: Train, log: Path | str) -> Callable[[Path], Mapping[str, float]] | None:
    """Return the evaluation in the simulator of the first log; None: it was not asked for."""
    if not (wanted.eval_every and wanted.eval_episodes):
        return None
    from wm_datasets.remote.reader import open_log
    from wm_nodes.evaluation.in_simulator import SimulatorEvaluation

    with open_log(log) as reader:
        return SimulatorEvaluation(reader.spec, wanted.eval_episodes, wanted.seed)


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
        raise UserError(f"--log: no replay log at {folder}. Right: what `wm log info` shows.")
    return folder, log.weight


def _learn(trainer: Trainer, folder: Path) -> None:
    """Learn to the end."""
    print(f"run {folder} (Ctrl-C ends and saves)", flush=True)
    stop, bar = _Stop(), Bar(trainer.config.steps, "updates")
    evaluation = trainer.evaluation
    try:
        while not (trainer.done or stop.asked):
            if not (trainer.step() or trainer.done):
                raise UserError("--log: no whole episode to learn from. See `wm log info`.")
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
        height, width = trainer.logs.resized_from
        print(
            f"images of camera {trainer.setup.camera!r} were resized from {height}x{width} to the "
            f"size that {trainer.config.model} sees, as they are when it acts"
        )
    if 0 < trainer.config.steps < (made := trainer.progress.updates):
        print(f"--steps {trainer.config.steps}: the run has {made} updates, none was added")
    acting = f"; so does, acting, wm launch sim_metaworld run:={folder.name}"
    on_line = acting if trainer.logs.robot == "metaworld" else ""
    print(f"weights: {folder / 'weights'}; --run {folder.name} goes on{on_line}")


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
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
