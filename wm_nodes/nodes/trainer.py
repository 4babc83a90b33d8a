"""Replay log in, weights out: the learning loop runs in a thread beside ROS."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from std_msgs.msg import UInt64

from wm_datasets.errors import LogError
from wm_datasets.remote.object_store import is_url
from wm_models.errors import ModelError
from wm_models.interface.overrides import read_changes
from wm_models.weights.manifest import Manifest, WeightsError
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.pretrained import PRETRAINED
from wm_nodes.graphs.weighted_log import WeightedLog
from wm_nodes.records import Announcement
from wm_nodes.robots.environments import environment_logs, namespace
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param
from wm_nodes.training.config import TrainingConfig, TrainingError
from wm_nodes.training.loop import Trainer

REST_S = 0.05  # before a log that has not grown is read again
WATCH_S = 0.25
SHOWN = 12  # metrics in diagnostics


@dataclass(frozen=True)
class TrainerParams(NodeParams):
    run: str = param("runs/run", "Folder of the run, for weights/, trainer/ and metrics/.")
    log: str = param("", "Replay log to learn from; empty: the run's own.")
    envs: int = param(
        1,
        "Number of environments of the run: those after the first have logs of their own, "
        "LOG_env_1, ...",
        low=1,
        high=64,
    )
    demos: str = param("", "Log of demonstrations to learn from as well; empty: none.")
    offline: tuple[str, ...] = param(
        (),
        "Further logs to learn from, as LOG:WEIGHT; `demos` has weight 1. Weights that sum up to "
        "less than `demos_share` are shares of the windows.",
    )
    demos_share: float = param(
        0.5, "Largest share of training windows from `demos` and `offline`.", low=0.0, high=1.0
    )
    model: str = param("mwm_cpu", "Model preset.")
    set: str = param(
        "", "Settings of the preset to change, as NAME=VALUE separated by commas; empty: none."
    )
    camera: str = param(
        "",
        "Camera of the log to learn from, or several with commas between; empty: the first with "
        "the model's image size, or the only one.",
    )
    weights: str = param(
        "", "Folder of the first weights; empty: random ones. A resumed run keeps its own."
    )
    pretrained: str = param(
        "",
        "Folder of weights of `wm pretrain` that a model of APV begins with (its setting "
        "learner.pretrained); empty: none.",
    )
    seed: int = param(0, "Seed of weights and batches.", low=0, high=2**31 - 1)
    device: str = param("auto", "Torch device: cpu, cuda, or auto (the GPU if there is one).")
    threads: int = param(1, "Number of CPU threads of torch.", low=1, high=256)
    steps: int = param(0, "End after this many updates; 0: no limit.", low=0)
    pace: bool = param(
        True, "Keep the preset's ratio of agent steps to updates; set to false for recorded logs."
    )
    publish_s: float = param(15.0, "Time between published weights [s].", low=0.1)
    recency: float = param(
        0.0,
        "Half-life of an episode's sampling weight, in rows; 0: all episodes are equal.",
        low=0.0,
    )
    hold_out: float = param(
        0.0, "Share of each log's episodes that is held out of training.", low=0.0, high=0.9
    )
    allow_mixed: bool = param(False, "Accept logs whose robot, task or action space differ.")
    cache_bytes: int = param(2 << 30, "Bytes of decoded rows to keep in memory.", low=1)
    disk_bytes: int = param(
        16 << 30,
        "Bytes of decoded rows to keep in files, for logs that do not fit in memory.",
        low=0,
    )
    resident_bytes: int = param(0, "Bytes of decoded rows to keep on the GPU; 0: none.", low=0)
    pinned: bool = param(True, "Put batches for a GPU into pinned memory.")


class TrainerNode(ManagedNode[TrainerParams]):
    """Learns as the log grows; every published version is announced on `weights`."""

    NAME = "trainer"
    TAKES_OVER = True

    def configure(self) -> None:
        p = self.params
        torch.set_num_threads(p.threads)
        with user_errors(TrainingError, ModelError, WeightsError, LogError):
            self._learning = Trainer(training_config(p), publish=self._publish)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._news = topics.ANNOUNCEMENTS.publisher(self)
        places = [namespace(number, p.envs) for number in range(p.envs)]
        self._paces = [topics.PACE.below(place).publisher(self) for place in places]

    def activate(self) -> None:
        self.diagnostics.ready = True
        self._stop.clear()
        self._thread = threading.Thread(target=self._learn, name="learning", daemon=True)
        self._thread.start()
        self._timer = self.create_timer(WATCH_S, self._watch)

    def deactivate(self) -> None:
        """Stop after the current update and save the checkpoint."""
        self._stop.set()
        self._thread.join()
        self.destroy_timer(self._timer)

    # The learning thread ------------------------------------------------------------------------

    def _learn(self) -> None:
        try:
            while not (self._stop.is_set() or self._learning.done):
                started = time.perf_counter()
                if self._learning.step():
                    self.diagnostics.record_latency(time.perf_counter() - started)
                else:
                    self._stop.wait(REST_S)
            self._learning.close()
        except Exception as error:
            self._error = error
        finally:
            self._stop.set()

    def _publish(self, manifest: Manifest, path: Path) -> None:
        """Announce a version that is completely on disk."""
        self.diagnostics.weights = manifest.version
        news = Announcement(
            version=manifest.version,
            path=str(path.resolve()),
            sha256=manifest.digest,
            preset=manifest.preset,
            step=manifest.step,
            metrics=dict(manifest.metrics),
        )
        self._news.publish(messages.announcement_to_msg(news))

    # The ROS thread -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Publish how many agent steps of each environment are covered by updates; end when the
        thread has ended."""
        for number, pace in enumerate(self._paces):
            pace.publish(UInt64(data=self._learning.covered_steps_of(number)))
        if not self._stop.is_set():
            return
        self._thread.join()
        if self._error is not None:
            self._give_up(self._error)
        self.diagnostics.facts["done"] = "true"
        self.finish()

    def _give_up(self, error: BaseException) -> None:
        """After divergence the launcher restarts from the checkpoint; other errors end the run."""
        if isinstance(error.__cause__, FloatingPointError):
            self.get_logger().error(str(error))
            self.finish(spin.FAILED)
        elif isinstance(error, (TrainingError, ModelError, WeightsError, LogError)):
            raise UserError(str(error)) from error
        else:
            raise error

    def diagnose(self) -> None:
        if hasattr(self, "_learning"):
            progress = self._learning.progress
            self.diagnostics.facts.update(
                updates=progress.updates,
                rows=progress.agent_steps,
                phase=progress.phase,
                updates_per_s=f"{progress.updates_per_s:.2f}",
                rollbacks=progress.rollbacks,
            )
            for name, value in list(progress.metrics.items())[:SHOWN]:
                self.diagnostics.facts[f"metrics/{name}"] = f"{value:.4g}"
        super().diagnose()


def training_config(p: TrainerParams) -> TrainingConfig:
    """Return the training that the parameters describe."""
    run = Path(p.run)
    others = [_weighted_log(word) for word in p.offline]
    others += [(Path(p.demos), 1.0)] * bool(p.demos)
    total = sum(weight for _, weight in others)
    share = min(p.demos_share, total)
    own = environment_logs(p.log or str(run / "log"), p.envs)
    logs: list[tuple[Path | str, float]] = [
        (log if is_url(log) else Path(log), (1.0 - share) / p.envs) for log in own
    ]
    logs += [(path, share * weight / total) for path, weight in others]
    changes = read_changes(p.set)
    changes |= {PRETRAINED: p.pretrained} if p.pretrained else {}
    names = "model camera seed device steps pace publish_s recency hold_out allow_mixed"
    names += " cache_bytes disk_bytes resident_bytes pinned"
    settings: dict[str, Any] = {name: getattr(p, name) for name in names.split()}
    return TrainingConfig(
        run=run,
        logs=tuple(logs),
        settings=changes,
        environments=p.envs,
        weights=Path(p.weights) if p.weights else None,
        **settings,
    )


def _weighted_log(word: str) -> tuple[Path | str, float]:
    """Return folder, or URL, and weight of LOG or LOG:WEIGHT."""
    try:
        log = WeightedLog.parse(word)
    except ValueError as error:
        raise UserError(f"offline: {error}, as in runs/a/log:1.") from None
    return (log.path if log.is_url else Path(log.path)), log.weight


def main() -> None:
    spin.main(TrainerNode)


if __name__ == "__main__":
    main()
