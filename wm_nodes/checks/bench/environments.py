"""Agent steps per second of the whole graph as `envs` grows, without and with training."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wm_nodes.checks.bench.processes import (
    NodeReports,
    diagnostics,
    environment,
    fresh_weights,
    last_lines,
)
from wm_nodes.checks.bench.rows import Row
from wm_nodes.graphs.sim import AHEAD

COUNTS = (1, 2, 4)
ACTION_DIM = 4  # of Meta-World
WARM_UP = 20  # agent steps of each environment that do not count
START_S = 400.0  # torch in many processes starts slowly on a busy machine
PROGRAM = "from wm_nodes.cli.main import main; raise SystemExit(main())"
TRAINING = {  # begins soon, and its ratio can be kept on two cores
    "learner.prefill": 100,
    "learner.autoencoder_init": 1,
    "learner.world_model_init": 1,
    "learner.train_every": 20,
}


def run(
    *, model: str = "mwm_cpu", seconds: float = 30.0, counts: Sequence[int] = COUNTS
) -> list[Row]:
    """Speed of `wm launch sim_metaworld envs:=N`: agent steps per second of all environments.

    Whole graphs, with simulators (fast rendering), recorders and the agent, on fresh weights, each
    measured for `seconds`. With training there is an update for every 20 agent steps, which limits
    the speed on a slow machine; it is measured once the trainer has caught up. The note has the
    mean size of the agent's batches, and the speed relative to the first of `counts`.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder:
        weights = fresh_weights(model, Path(folder), action_dim=ACTION_DIM)
        for train in (False, True):
            first = 0.0
            for count in counts:
                words = _words(model, weights, count, train=train)
                rate, batch = _measure(words, Path(folder), count, seconds, train=train)
                first = first or rate
                rows.append(_row(count, rate, batch, rate / first, train=train))
    return rows


def _words(model: str, weights: Path, count: int, *, train: bool) -> list[str]:
    """The arguments of `wm launch`."""
    changes = ",".join(f"{name}={value}" for name, value in TRAINING.items())
    return [
        "sim_metaworld",
        f"run:=envs{count}{'_train' if train else ''}",
        f"envs:={count}",
        "composition:=fused",
        "render:=fast",
        f"model:={model}",
        f"weights:={weights}",
        f"train:={str(train).lower()}",
        *([f"set:={changes}"] if train else []),
    ]


def _measure(
    words: Sequence[str], folder: Path, count: int, seconds: float, *, train: bool
) -> tuple[float, float]:
    """Return agent steps per second, and the mean size of a batch."""
    with environment({}), diagnostics() as reports, _launched(words, folder) as process:
        deadline = time.monotonic() + START_S
        while not _is_warm(reports, count, train=train):
            _require_running(process, folder, deadline)
            reports.spin()
        began_s, before = time.monotonic(), _decisions(reports)
        while time.monotonic() - began_s < seconds:
            _require_running(process, folder, deadline + seconds)
            reports.spin()
        rate = (_decisions(reports) - before) / (time.monotonic() - began_s)
        return rate, float(reports.of("agent").get("batch_mean", 1.0))


def _is_warm(reports: NodeReports, count: int, *, train: bool) -> bool:
    robots = [int(each.get("decisions", 0)) for each in reports.all_of("robot")]
    acts = len(robots) == count and min(robots) >= WARM_UP
    return acts and (not train or _is_caught_up(reports))


def _is_caught_up(reports: NodeReports) -> bool:
    """Do the robots no longer wait for the updates of the steps that they made before the trainer
    had started?"""
    trainer = reports.of("trainer")
    initial = TRAINING["learner.autoencoder_init"] + TRAINING["learner.world_model_init"]
    updates = int(trainer.get("updates", 0)) - initial
    covered = TRAINING["learner.prefill"] + updates * TRAINING["learner.train_every"]
    return updates > 0 and int(trainer.get("rows", 0)) <= covered + AHEAD


def _decisions(reports: NodeReports) -> int:
    return sum(int(each.get("decisions", 0)) for each in reports.all_of("robot"))


@contextmanager
def _launched(words: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a graph, ended as by Ctrl-C on exit."""
    with (folder / "launch.log").open("wb") as log:
        command = [sys.executable, "-c", PROGRAM, "launch", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _require_running(process: subprocess.Popen[bytes], folder: Path, deadline: float) -> None:
    if process.poll() is not None or time.monotonic() > deadline:
        what = "ended" if process.poll() is not None else "did not start in time"
        raise RuntimeError(f"environments: the graph {what}.{last_lines(folder)}")


def _row(count: int, rate: float, batch: float, ratio: float, *, train: bool) -> Row:
    return Row(
        "environments",
        f"envs {count}, {'with' if train else 'without'} training: agent steps",
        rate,
        "/s",
        better="higher",
        note=f"{ratio:.2f} of one, mean batch {batch:.2f}, wall clock",
    )
