"""Records that nodes exchange, free of ROS. All records of one observation carry its stamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import Source
from wm_models.planners.registry import PLANNERS

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.uint16]  # (H, W) mm, 0: nothing measured
Vector = npt.NDArray[np.float32]

NO_VERSION = -1
_SOURCES = {
    "random": Source.RANDOM,
    "person": Source.PERSON,
    "script": Source.SCRIPT,
    **{name: Source[entry.source.upper()] for name, entry in PLANNERS.items()},
}


@dataclass(frozen=True)
class Origin:
    """The module that computed a record, as frame_id `<model>/<module>@<weights version>`."""

    model: str
    module: str
    version: int = NO_VERSION

    def __str__(self) -> str:
        return f"{self.model}/{self.module}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read a frame_id; ValueError if it has another form."""
        path, mark, version = text.rpartition("@")
        model, slash, module = path.partition("/")
        try:
            if not (mark and slash and model and module):
                raise ValueError
            return cls(model, module, int(version))
        except ValueError:
            raise ValueError(
                f"frame_id: got {text!r}, expected <model>/<module>@<version>, as in mwm/actor@7"
            ) from None

    @property
    def source(self) -> Source:
        """The source of an action with this origin, as the replay log names it."""
        return _SOURCES.get(self.model, _SOURCES.get(self.module, Source.POLICY))


RANDOM = Origin("random", "uniform")


@dataclass(frozen=True)
class Step:
    """What led to the observation of the same stamp (arrival form): zeros and false if is_first."""

    stamp_ns: int
    names: tuple[str, ...]  # action dimensions
    executed: Vector  # (A,) after limits
    commanded: Vector  # (A,) as planned
    reward: float = 0.0
    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False
    success: bool = False
    explore: bool = True  # a training episode; false: an evaluation episode
    weights: int = NO_VERSION  # version that chose the action
    source: int = int(Source.RANDOM)
    signal_names: tuple[str, ...] = ()
    signals: Vector | None = None  # (S,) about the action that led here; None: all zero


@dataclass(frozen=True)
class Transition:
    """One observation with the step that led to it; all carry the step's stamp.

    images: camera -> (H, W, 3). proprio: (P,). depths: name -> (H, W) [mm]. observed_s: steady
    time at which the observation was requested from the robot [s].
    """

    step: Step
    images: dict[str, Image]
    proprio: Vector
    depths: dict[str, Depth] = field(default_factory=dict)
    observed_s: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Actions (N, A): the first is due at once, each further one a period later."""

    stamp_ns: int
    origin: Origin
    names: tuple[str, ...]
    actions: Vector
    period_s: float


@dataclass(frozen=True)
class Features:
    """Encoder output: N tokens of D numbers."""

    stamp_ns: int
    origin: Origin
    tokens: npt.NDArray[np.float32]  # (N, D)


@dataclass(frozen=True)
class Latent:
    """The filtered state, packed flat."""

    stamp_ns: int
    origin: Origin
    state: npt.NDArray[np.float32]  # (S,)


@dataclass(frozen=True)
class Announcement:
    """The trainer's notice of new weights."""

    version: int
    path: str  # folder of the version
    sha256: str
    preset: str
    step: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Whether the control loop has executed a call, and its outcome or what to do instead."""

    done: bool
    text: str


DriverTask = Literal["recover", "activate", "deactivate"]


@dataclass(frozen=True)
class DriverStep:
    """One step of a task with an arm's driver, as a request to the control loop."""

    task: DriverTask
    phase: Literal["begin", "done", "failed"]
