"""`wm train --log LOG --model mwm_cpu`: learn from recorded logs, without ROS."""

from __future__ import annotations

import signal
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.cli.log import find_log
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.graphs.runs import write_training

if TYPE_CHECKING:
    from wm_nodes.learn import Learning

SHOW_S = 5.0


@dataclass(frozen=True)
class Train:
    """Learn from recorded logs, without ROS. The same command with --run NAME goes on."""

    log: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="LOG[:WEIGHT]")
    ]
    """Replay log (or run) to learn from; give it again for more. Windows are drawn in proportion to
    the weights (1 where none is given)."""
    model: str = "mwm_cpu"
    """Model preset."""
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


def run(words: Sequence[str]) -> int:
    """Run `wm train WORDS`."""
    wanted = parse(Train, "train", words)
    require_one_of("model", wanted.model, MODELS)
    require("steps", wanted.steps, 0)
    require("seed", wanted.seed, 0, 2**31 - 1)
    require("publish-s", wanted.publish_s, 1.0)
    logs = tuple(weighted_log(text) for text in wanted.log)

    from wm_datasets import LogError
    from wm_models.checkpoint import WeightsError
    from wm_models.interface import ModelError
    from wm_nodes.learn import LearnConfig, LearnError, Learning

    folder = Path("runs") / (wanted.run or f"train-{datetime.now():%Y%m%d-%H%M%S}")
    config = LearnConfig(
        run=folder,
        logs=logs,
        model=wanted.model,
        seed=wanted.seed,
        device=wanted.device,
        steps=wanted.steps,
        pace=False,
        publish_s=wanted.publish_s,
    )
    words = [f"{path.resolve()}:{weight:g}" for path, weight in logs]
    write_training(folder, {"model": wanted.model, "seed": wanted.seed, "logs": words})
    with user_errors(LearnError, LogError, ModelError, WeightsError):
        _learn(Learning(config), folder)
    return 0


def weighted_log(text: str) -> tuple[Path, float]:
    """Return the log's folder and its weight from PATH or PATH:WEIGHT."""
    path, mark, weight = text.rpartition(":")
    if not mark or Path(text).exists():
        path, weight = text, "1"
    try:
        share = float(weight)
    except ValueError:
        share = -1.0
    if not 0 < share < float("inf"):
        raise UserError(
            f"--log: given {text!r}, right is a path, or path:weight with a weight > 0."
        )
    folder = find_log(Path(path))
    if not (folder / "zarr.json").is_file():
        raise UserError(f"--log: no replay log at {folder}. Right: what `wm log info` shows.")
    return folder, share


def _learn(learning: Learning, folder: Path) -> None:
    print(f"run {folder} (Ctrl-C ends and saves)", flush=True)
    stop = _Stop()
    shown = 0.0
    try:
        while not (learning.done or stop.asked):
            if not learning.step():
                raise UserError("--log: no whole episode to learn from. See `wm log info`.")
            if time.monotonic() - shown > SHOW_S:
                shown = time.monotonic()
                _show(learning)
    finally:
        learning.close()
    _show(learning)
    print(
        f"weights: {folder / 'weights'}; --run {folder.name} goes on; so does, acting, "
        f"wm launch sim_metaworld run:={folder.name}"
    )


def _show(learning: Learning) -> None:
    progress = learning.progress
    losses = ", ".join(f"{name} {value:.3g}" for name, value in list(progress.metrics.items())[:5])
    print(
        f"{progress.updates} updates, {progress.updates_per_s:.2f}/s, {progress.phase}, "
        f"weights {progress.version}: {losses}",
        flush=True,
    )


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
