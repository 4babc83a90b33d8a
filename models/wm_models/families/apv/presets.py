"""Named settings of APV: as published, and a small one; each with its pre-training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wm_models.behaviors.actor_critic import BehaviorConfig
from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.errors import ModelError
from wm_models.families.apv.bonus import BonusConfig
from wm_models.families.apv.learner import APVLearner, APVLearnerConfig
from wm_models.families.apv.model import (
    APVConfig,
    APVDreamer,
    NaiveDreamer,
    StackedDreamer,
    load_pretrained,
)
from wm_models.families.apv.video import VideoConfig, VideoLearnerConfig, VideoModel, VideoPreset
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Preset, Sampling, WeightsReader
from wm_models.interface.world_model import WorldModel
from wm_models.nets.cnn import CNNConfig
from wm_models.nets.heads import HeadConfig
from wm_models.nets.kl import AveragedFreeKL
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.optimizer import keras_adam
from wm_models.nets.rssm import RSSMConfig
from wm_models.registry import SUMMARIES


@dataclass(frozen=True)
class APVPreset(DreamerPreset):
    """APV's second phase: fine-tuning on a robot."""

    model: APVConfig = field(default_factory=APVConfig)
    learner: APVLearnerConfig = field(default_factory=APVLearnerConfig)

    @property
    def several_cameras(self) -> bool:
        """Its pre-training is on videos, which have one camera."""
        return False

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> APVDreamer:
        kind = StackedDreamer if self.model.stack == "stacked" else NaiveDreamer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return kind(self.model, self.fitted(embodiment))

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> APVLearner:
        assert isinstance(model, APVDreamer)
        return APVLearner(model, self.learner, seed=seed, device=device)

    def check_pretrained(self, other: Preset, place: str) -> None:
        config = other.model if isinstance(other, VideoPreset) else None
        self._check_video(config, f"{place}, weights of {other.name!r}")

    def _check_video(self, config: VideoConfig | None, place: str) -> None:
        """config: of a model of videos; None: the weights are of another kind of model."""
        if config is None:
            raise ModelError(
                f"pretrained: got {place}, expected those of a pre-training preset, such "
                "as 'apv_pretrain'. See wm pretrain --help."
            )
        if (config.observation, config.rssm) != (self.model.observation, self.model.rssm):
            raise ModelError(
                f"pretrained: got {place}, expected encoder and RSSM of the sizes of "
                f"{self.name!r}. Pre-train with --model {self.name}, or change the same settings "
                "in both."
            )

    def pretrain(self, model: WorldModel, read: WeightsReader) -> dict[str, Any]:
        """Load what ``learner.pretrained`` names, where it does. ModelError: these are weights of
        another kind of model or of another size."""
        folder = self.learner.pretrained
        if not folder:
            return {}
        assert isinstance(model, APVDreamer)
        video, facts = read(folder)
        place = f"{folder}, weights of {facts['preset']!r}"
        config = video.config if isinstance(video, VideoModel) else None
        self._check_video(config, place)
        states = {name: part.state_dict() for name, part in video.modules_by_name().items()}
        load_pretrained(model, self.learner.load, states)
        return {"pretrained": {**facts, "parts": list(self.learner.load)}}


APV = APVPreset(
    "apv",
    SUMMARIES["apv"],
    learner=APVLearnerConfig(
        behavior=BehaviorConfig(reward_norm=1.0),
        behavior_init=100,
        sampling=Sampling(per_episode=True, ends=50),
    ),
)

APV_DMC = APVPreset(
    "apv_dmc",
    SUMMARIES["apv_dmc"],
    model=APVConfig(concat_embed=True, kl=AveragedFreeKL(free=1.0)),
    learner=replace(
        APV.learner,
        agent_batch=BatchSpec(16, 51),
        pretrained_parts=keras_adam(3e-4, decay_all=True),
        bonus=BonusConfig(scale=0.1),
        prefill=1000,
        sampling=Sampling(per_episode=True),
    ),
)

# The KL term weighs 0.1 in the release's settings for manipulation videos, and 1 in the paper.
APV_PRETRAIN = VideoPreset("apv_pretrain", SUMMARIES["apv_pretrain"])

# Where apv_cpu departs from the Meta-World column besides size, and why:
# - Higher learning rates: a model this small bears them, and updates are few on one core.
# - The KL term weighs 0.1, as in pre-training: posteriors and priors of both phases then go
#   together, and a small model learns its images faster so (measured with mwm_cpu).
# - Imagination starts from 128 of the replayed states and goes on for 8 steps: behaviour is the
#   larger part of the cost.
# - Behaviour starts after 200 updates of the world model, during the first 100 of which the
#   pre-trained parts hold still: an actor that is trained in a bad model saturates on its errors
#   and does not come back (measured with mwm_cpu).
# - Returns are divided by their percentile range (DreamerV3), so that one entropy weight fits the
#   first reward as well as the last.
# - Windows begin at any row alike, and stay inside episodes: the bonus compares means over five
#   states of one episode.
_SMALL_OBSERVATION = ObservationConfig(cnn=CNNConfig(depth=12), mlp=HeadConfig(units=128, layers=2))
_SMALL_RSSM = RSSMConfig(
    deter=192, hidden=192, stoch=16, classes=16, img_in_act="elu", action_pad=50
)
APV_CPU = APVPreset(
    "apv_cpu",
    SUMMARIES["apv_cpu"],
    model=APVConfig(
        observation=_SMALL_OBSERVATION,
        rssm=_SMALL_RSSM,
        heads=HeadConfig(units=128, layers=2),
        kl=AveragedFreeKL(scale=0.1),
    ),
    learner=replace(
        APV.learner,
        agent_batch=BatchSpec(8, 17),
        world_model=keras_adam(1e-3, decay_all=True),
        pretrained_parts=keras_adam(6e-4, decay_all=True, hold=100),
        actor=keras_adam(1e-4, decay_all=True),
        critic=keras_adam(3e-4, decay_all=True),
        behavior=BehaviorConfig(
            horizon=8, starts=128, reward_norm=1.0, return_norm=True, entropy=1e-3
        ),
        world_model_init=200,
        behavior_init=0,
        prefill=1000,
        sampling=Sampling(join=False),
    ),
)

# Where apv_cpu_pretrain departs from apv_pretrain besides size: the learning rate, as above, and
# shorter windows, of which a core sees more.
APV_CPU_PRETRAIN = VideoPreset(
    "apv_cpu_pretrain",
    SUMMARIES["apv_cpu_pretrain"],
    model=VideoConfig(observation=_SMALL_OBSERVATION, rssm=_SMALL_RSSM),
    learner=VideoLearnerConfig(
        batch=BatchSpec(8, 16), optimizer=keras_adam(1e-3, decay_all=True), sampling=Sampling()
    ),
)

PRESETS = (APV, APV_DMC, APV_PRETRAIN, APV_CPU, APV_CPU_PRETRAIN)
