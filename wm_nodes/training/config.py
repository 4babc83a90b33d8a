"""Settings of a training run, and its error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class TrainingError(RuntimeError):
    """Training cannot continue: what is wrong, got what, expected what."""


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. Paths are folders; see docs/configuration.md."""

    run: Path  # weights/, trainer/ and metrics/ go here
    logs: tuple[tuple[Path | str, float], ...]  # replay logs, or URLs of archives, and the share of
    # windows drawn from each; new rows of the first set the pace, others may be demonstrations
    environments: int = 1  # so many of the first logs are of the run's own environments: they are
    # drawn from as one log, and their rows together set the pace
    model: str = "mwm_cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the preset, that are changed
    weights: Path | None = None  # weights to begin with; a resumed run keeps its own
    seed: int = 0
    device: str = "auto"  # "auto" takes the GPU where there is one
    steps: int = 0  # updates to make in all; 0 for no limit
    pace: bool = True  # keep the preset's ratio of agent steps to updates; off for recorded logs
    publish_s: float = 15.0  # seconds between published weights
    keep: int = 10  # versions of weights to keep
    log_every: int = 25  # updates between rows of metrics
    cache_bytes: int = 2 << 30  # decoded rows kept in memory
    disk_bytes: int = 16 << 30  # decoded rows kept in files, of a log larger than that
    download_bytes: int = 8 << 30  # chunks of logs in object stores, kept in files
    resident_bytes: int = 0  # decoded rows kept on the device, in place of memory; 0: none
    pinned: bool = True  # batches for a GPU lie in pinned memory
    recency: float = 0.0  # half-life of an episode's odds to be drawn [rows]; 0: equal odds
    eval_every: int = 0  # updates between evaluations; 0: none
    camera: str = ""  # of the log, that the model sees, several with commas between; empty: see
    # camera.choose_cameras
    hold_out: float = 0.0  # share of every log's episodes to evaluate on, not to learn from
    allow_mixed: bool = False  # learn from logs whose robot, task or action space differ
