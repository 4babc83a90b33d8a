"""What a preset is: a model and the way to train it, under a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wm_models.errors import ModelError, one_camera_only, other_actions
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import Learner
from wm_models.interface.overrides import overridden, plain
from wm_models.interface.world_model import WorldModel

# reads the model of a weights folder; also what it is, for the manifest: preset, step, digests
WeightsReader = Callable[[str], tuple[WorldModel, dict[str, Any]]]


@dataclass(frozen=True)
class Pace:
    """How learning goes along with acting."""

    prefill: int  # random decisions before training starts
    train_every: int  # decisions per update once all parts are training
    initial: int = 0  # first updates, which do not wait for new experience; none is published


@dataclass(frozen=True)
class Sampling:
    """Which windows of a log a model learns from.

    join: a window goes on into the next episode (`is_first` says where); without, each lies inside
    one. per_episode: an episode is drawn first, then a window that begins in it; without, every row
    is seen equally often. ends: chances of the last window of an episode on top of its own
    (`prioritize_ends` in DreamerV2's and MWM's releases, which add their replay's `minlen`).
    """

    join: bool = True  # windows go on into the next episode
    per_episode: bool = False  # an episode is drawn first, then a window in it
    ends: int = 0  # further chances of an episode's last window

    def __post_init__(self) -> None:
        Checked(self).flag("join", "per_episode")
        Checked(self).whole("ends", low=0)


@dataclass(frozen=True)
class Planning:
    """Default settings of planning with a model."""

    # settings by planner; those that are not named are the planner's own
    planners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objective: str = "all"  # steps of a plan that are compared with a goal (GoalCost.reduce)
    execute: int = 0  # robot actions that are done before the next search; 0: a model step's
    gamma: float = 0.99  # discount of imagined rewards (ReturnCost)
    use_value: bool = True  # count the value after the last step, where the model predicts one


@dataclass(frozen=True)
class Preset:
    """A model with the way to train it. Subclasses hold the configurations."""

    name: str
    summary: str
    settings: Mapping[str, Any] = field(
        default_factory=dict, kw_only=True, hash=False
    )  # see `varied`

    @property
    def pace(self) -> Pace:
        raise NotImplementedError

    @property
    def sampling(self) -> Sampling:
        """Which windows its learner gets. They may hold the end of one episode and the beginning of
        the next, with ``is_first`` there; a learner that cannot use these says ``join=False``."""
        return Sampling()

    @property
    def planning(self) -> Planning:
        """How the model is planned with."""
        return Planning()

    @property
    def discrete(self) -> bool:
        """Whether the model is for a robot with discrete actions; otherwise for continuous ones."""
        return False

    @property
    def several_cameras(self) -> bool:
        """Whether the model can see the images of several cameras together."""
        return False

    @property
    def action_free(self) -> bool:
        """Whether it learns from images alone: logs without actions are enough."""
        return False

    def fitted(self, embodiment: Embodiment | int) -> Embodiment:
        """The embodiment to build the model for; of a mere number of actions, the model's kind of
        them. ModelError: its actions are discrete and the model's are not, or the reverse; it has
        several cameras, and the model sees one."""
        if isinstance(embodiment, int):
            kind = Embodiment.one_hot if self.discrete else Embodiment.unit
            return kind(embodiment)
        if embodiment.discrete != self.discrete:
            raise ModelError(other_actions(self.name, discrete=embodiment.discrete))
        if embodiment.cameras and not self.several_cameras:
            raise ModelError(one_camera_only(self.name, embodiment.cameras))
        return embodiment

    def varied(self, settings: Mapping[str, Any]) -> Preset:
        """This preset with some settings changed: those of :func:`settings_of`, by dotted names.

        Values are of the setting's type, or text that says them. ``settings`` of the result has
        all changes, as a manifest keeps them. ModelError: there is no such setting, or the value
        is of another type or out of range.
        """
        if not settings:
            return self
        changed: Preset = overridden(self, settings)
        return replace(changed, settings={**self.settings, **plain(changed, settings)})

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> WorldModel:
        """The model with freshly drawn weights; equal seeds give equal weights.

        ``embodiment`` is the robot it is for, or just the number of its actions in -1..1.
        """
        raise NotImplementedError

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Learner:
        raise NotImplementedError

    def check_pretrained(self, other: Preset, place: str) -> None:
        """ModelError: this model cannot begin with weights of preset ``other``, at ``place``."""
        raise ModelError(
            f"pretrained: got {place}, but model {self.name!r} has no pre-training, expected a "
            "model of APV, such as apv_cpu. Leave it out, or choose another model."
        )

    def pretrain(self, model: WorldModel, read: WeightsReader) -> dict[str, Any]:
        """Put weights that were trained elsewhere into a model that begins to learn; what they are
        and where they came from, for the manifest. Nothing for most models. ``read`` reads those
        of another run."""
        return {}
