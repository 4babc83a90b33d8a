"""The model of videos that APV is pre-trained as: an action-free RSSM, without any head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Pace, Preset, Sampling
from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box
from wm_models.nets.kl import AveragedFreeKL
from wm_models.nets.observation import ObservationConfig, ObservationDecoder, ObservationEncoder
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, keras_adam
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState


@dataclass(frozen=True)
class VideoConfig:
    """Everything that decides the shape of the weights and of the losses."""

    observation: ObservationConfig = field(default_factory=ObservationConfig)
    rssm: RSSMConfig = field(default_factory=lambda: RSSMConfig(img_in_act="elu"))
    kl: AveragedFreeKL = field(default_factory=lambda: AveragedFreeKL(scale=0.1))
    image_scale: float = 0.5  # weight of the squared error of observations

    def __post_init__(self) -> None:
        Checked(self).number("image_scale", low=0.0)
        if self.observation.proprio:
            Checked(self.observation).refuse("inputs", "'image': videos hold nothing else")
        if self.rssm.posterior_norm == "batch":
            Checked(self.rssm).refuse("posterior_norm", "'same': only MuDreamer has BatchNorm")


def no_action(is_first: Tensor) -> Tensor:
    """Actions of no dimension for rows (B, T): (B, T, 0)."""
    return torch.zeros(*is_first.shape, 0, device=is_first.device)


class VideoWorld(nn.Module):
    """An RSSM without actions, and the decoder that its states are learned by."""

    def __init__(self, config: VideoConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.kl, self.image_scale = config.kl, config.image_scale
        self.rssm = RSSM(config.rssm, 0, config.observation.width)
        self.decoder = ObservationDecoder(
            config.observation, embodiment, config.rssm.feat, config.rssm.deter
        )

    def loss(
        self,
        features: Tensor,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on features (B, T, N, D) and frames with ``is_first``, and its terms."""
        first = batch["is_first"]
        post, logits = self.rssm.observe(
            self.rssm.initial(len(features), features),
            no_action(first),
            features.flatten(-2),
            first,
            generator,
        )
        kl_loss, kl = self.kl.loss(logits, self.rssm.prior_logits(post.deter))
        losses = self.decoder.losses(post.feat, batch)
        total = kl_loss + self.image_scale * losses["wm/image_loss"]
        return total, {**losses, "wm/kl_loss": kl_loss, "wm/kl": kl}


class VideoModel(WorldModel):
    """A model of videos behind the world-model contract. Actions change nothing."""

    def __init__(self, config: VideoConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.config, self.embodiment = config, embodiment
        self.encoder = ObservationEncoder(config.observation, embodiment)
        self.dynamics = VideoWorld(config, embodiment)
        low, high = symmetric_box(embodiment.action_dim)
        self.spec = ModelSpec(
            action_low=low,
            action_high=high,
            obs_keys=config.observation.obs_keys(embodiment),
            model_dt=embodiment.period_s,
            has_decoder=True,
            stochastic=True,
            uses_actions=False,
        )

    def modules_by_name(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "world_model": self.dynamics}

    def initial(self, batch: int, device: torch.device | str | None = None) -> RSSMState:
        weight = self.dynamics.rssm.gru.weight.detach()
        return self.dynamics.rssm.initial(batch, weight if device is None else weight.to(device))

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        features: Tensor = self.encoder(obs)
        return features

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> RSSMState:
        first = is_first[:, None]
        states, _ = self.dynamics.rssm.observe(
            state, no_action(first), features.flatten(-2)[:, None], first, generator
        )
        return RSSMState(states.deter[:, 0], states.stoch[:, 0])

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> RSSMState:
        return self.dynamics.rssm.imagine(state, action[:, :0], generator)

    def readout(
        self, state: State, want: frozenset[str], *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        self._check_want(want)
        return {"feat": state.feat} if "feat" in want else {}

    def decode(self, state: State) -> dict[str, Tensor]:
        return self.dynamics.decoder.images(state.feat)

    def pack(self, state: State) -> Tensor:
        return self.dynamics.rssm.pack(state)

    def unpack(self, flat: Tensor) -> RSSMState:
        return self.dynamics.rssm.unpack(flat)


@dataclass(frozen=True)
class VideoLearnerConfig:
    """How the model of videos is trained. The defaults are the release's for RLBench's videos."""

    batch: BatchSpec = field(default_factory=lambda: BatchSpec(16, 25))
    optimizer: OptimizerConfig = field(default_factory=lambda: keras_adam(3e-4, decay_all=True))
    sampling: Sampling = field(default_factory=lambda: Sampling(per_episode=True, ends=25))


class VideoLearner:
    """Trains a model of videos: owns its optimiser and the random generator.

    One :meth:`update` is a function of the weights, this object's :meth:`state_dict` and the batch
    alone: equal inputs give equal weights, bit for bit on CPU.
    """

    fields = frozenset({"image", "is_first"})
    initial_updates = 0
    phase = "world_model"

    def __init__(
        self,
        model: VideoModel,
        config: VideoLearnerConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model, self.config = model.to(self.device), config
        self.updates = 0
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizer = Optimizer("wm", [model.encoder, model.dynamics], config.optimizer)

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]:
        return {"videos": self.config.batch}

    def begin_with(self, step: int) -> None:
        """Nothing here depends on how long weights were trained."""

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """One step on windows of frames: image (B, T, H, W, 3) uint8, is_first (B, T).

        Raises FloatingPointError, before the step, when the loss or gradient is not finite.
        """
        rows = {k: v.to(self.device, non_blocking=True) for k, v in batches["videos"].items()}
        first = rows["is_first"].bool().clone()
        first[:, 0] = True
        image = rows["image"]
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda):
            features = self.model.encode({"image": image.flatten(0, 1)})
            loss, metrics = self.model.dynamics.loss(
                features.unflatten(0, first.shape),
                {"image": image, "is_first": first},
                self.generator,
            )
        result = {name: float(value.detach()) for name, value in metrics.items()}
        result |= self.optimizer.step(loss)
        self.updates += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that decides the next update."""
        return {
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.generator.set_state(state["generator"].cpu())
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class VideoPreset(Preset):
    """A model of videos and how it is trained."""

    model: VideoConfig = field(default_factory=VideoConfig)
    learner: VideoLearnerConfig = field(default_factory=VideoLearnerConfig)

    @property
    def pace(self) -> Pace:
        """Videos are all there from the start."""
        return Pace(prefill=self.learner.batch.length, train_every=1)

    @property
    def sampling(self) -> Sampling:
        return self.learner.sampling

    @property
    def action_free(self) -> bool:
        return True

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> VideoModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return VideoModel(self.model, self.fitted(embodiment))

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> VideoLearner:
        assert isinstance(model, VideoModel)
        return VideoLearner(model, self.learner, seed=seed, device=device)
