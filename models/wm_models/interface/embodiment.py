"""The robot that a model is for: boxes and statistics of its vectors, and the way between units.

An :class:`Embodiment` is measured on the logs when learning begins and travels with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wm_models.errors import ModelError

Numbers = tuple[float, ...]
IMAGE = "image"  # the observation's only image; of several cameras each has "image/NAME"


@dataclass(frozen=True)
class Embodiment:
    """What the logs say about a robot's actions [A] and proprioception [P], in its own units."""

    action_low: Numbers  # the box that its actions were drawn from; finite
    action_high: Numbers
    action_mean: Numbers
    action_std: Numbers
    proprio_mean: Numbers = ()  # empty: it has none
    proprio_std: Numbers = ()
    period_s: float = 0.0  # of one robot step; 0 when unknown
    discrete: bool = False  # actions are one-hot vectors, one number for each of a set of actions
    # names of the cameras that a model sees together, in order; empty: one camera, of any name
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in ("action_low", "action_high", "action_mean", "action_std"):
            object.__setattr__(self, part, tuple(float(x) for x in getattr(self, part)))
        for part in ("proprio_mean", "proprio_std"):
            object.__setattr__(self, part, tuple(float(x) for x in getattr(self, part)))
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if len(self.cameras) == 1 or len(set(self.cameras)) != len(self.cameras):
            raise ModelError(
                f"embodiment: got cameras {', '.join(self.cameras)}, expected none, or two or more "
                "different names. A model of one camera keeps no name."
            )
        sizes = {len(self.action_low), len(self.action_high), len(self.action_mean)}
        if sizes != {len(self.action_std)} or len(self.proprio_mean) != len(self.proprio_std):
            raise ModelError(f"embodiment: got {self}, expected vectors of equal length.")
        if any(low >= high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise ModelError(
                f"embodiment: got action_low {self.action_low} and action_high "
                f"{self.action_high}, expected action_low < action_high."
            )
        if self.discrete and (set(self.action_low), set(self.action_high)) != ({0.0}, {1.0}):
            raise ModelError(
                f"embodiment: got discrete actions from {self.action_low} to {self.action_high}, "
                "expected 0 to 1."
            )
        if min((*self.action_std, *self.proprio_std)) <= 0:
            raise ModelError(f"embodiment: got {self}, expected standard deviations > 0.")

    @classmethod
    def unit(cls, size: int) -> Embodiment:
        """A robot whose ``size`` actions lie in -1..1 and of which nothing else is known."""
        return cls((-1.0,) * size, (1.0,) * size, (0.0,) * size, (1.0,) * size)

    @classmethod
    def one_hot(cls, size: int) -> Embodiment:
        """A robot with ``size`` discrete actions, of which nothing else is known."""
        share = 1.0 / size
        std = (share * (1.0 - share)) ** 0.5 or 0.5
        return cls((0.0,) * size, (1.0,) * size, (share,) * size, (std,) * size, discrete=True)

    @classmethod
    def action_free(cls, period_s: float = 0.0) -> Embodiment:
        """What a model is for that ignores actions: one in -1..1, which changes nothing."""
        return cls((-1.0,), (1.0,), (0.0,), (1.0,), period_s=period_s)

    @classmethod
    def of(cls, embodiment: Embodiment | int) -> Embodiment:
        """An embodiment, or the unit embodiment of that many actions."""
        return cls.unit(embodiment) if isinstance(embodiment, int) else embodiment

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Embodiment:
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        entries = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        for name in ("discrete", "cameras"):  # absent, as in manifests of older versions
            if not entries[name]:
                del entries[name]
        return entries

    @property
    def action_dim(self) -> int:
        return len(self.action_low)

    @property
    def proprio_dim(self) -> int:
        return len(self.proprio_mean)

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Names of the images in an observation: "image", or "image/NAME" of each of several
        cameras, in their order."""
        return tuple(f"{IMAGE}/{camera}" for camera in self.cameras) or (IMAGE,)
