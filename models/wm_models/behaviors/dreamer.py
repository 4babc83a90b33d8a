"""The plain Dreamer: an encoder, an RSSM that reconstructs observations, and the heads.

DreamerV2 and DreamerV3 (2023) are two settings of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.behaviors.dreamer_agent import DreamerAgent
from wm_models.behaviors.dreamer_learner import DreamerLearner, DreamerLearnerConfig
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.overrides import LIKE
from wm_models.interface.preset import Pace, Planning, Preset, Sampling
from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box
from wm_models.nets.block_gru import make_rssm
from wm_models.nets.dreamer_world import DreamerWorld
from wm_models.nets.heads import FORMS, Actor, ActorConfig, Critic, HeadConfig, ScalarHead
from wm_models.nets.kl import AveragedFreeKL, EachFreeKL
from wm_models.nets.observation import ObservationConfig, ObservationDecoder, ObservationEncoder
from wm_models.nets.rssm import RSSMConfig, RSSMState


@dataclass(frozen=True)
class DreamerConfig:
    """Everything that decides the shape of the weights and of the losses: DreamerV2's defaults."""

    observation: ObservationConfig = field(default_factory=ObservationConfig)
    rssm: RSSMConfig = field(default_factory=lambda: RSSMConfig(img_in_act="elu"))
    heads: HeadConfig = field(default_factory=lambda: HeadConfig(units=400))
    # of actor and critic, where they are not as `heads`
    behavior_heads: HeadConfig | None = field(default=None, metadata={LIKE: "heads"})
    actor: ActorConfig = field(
        default_factory=lambda: ActorConfig(std_span=2.0, std_slope=0.5, output_scale=1.0)
    )
    kl: AveragedFreeKL | EachFreeKL = field(default_factory=AveragedFreeKL)
    reward: str = "half_mse"  # form of the reward head, see ScalarHead
    critic: str = "half_mse"  # form of the critic
    output_scale: float = 1.0  # of the initial output weights of reward and critic
    discount: bool = False  # learn where episodes terminate
    gamma: float = 0.99  # discount of rewards per model step
    continues_as_gamma: bool = True  # the discount head predicts gamma (DreamerV2) or 1 (V3)
    image_scale: float = 0.5  # weight of the squared error of observations
    reward_scale: float = 1.0  # weight of the reward loss
    squash_reward: bool = False  # learn tanh of the reward (DreamerV2 on Atari)
    discount_scale: float = 1.0  # weight of the discount loss
    critic_counts_arrival: bool = True  # as `returns: arrival` of the behaviour (DreamerV2)

    def __post_init__(self) -> None:
        check = Checked(self)
        if self.actor.kind == "normal" and self.rssm.core != "block":
            Checked(self.actor).refuse(
                "kind", "another kind with rssm.core 'gru', which does not clip actions"
            )
        check.choice("reward", FORMS[:-1])
        check.choice("critic", FORMS[:-1])
        check.flag("discount", "squash_reward", "continues_as_gamma", "critic_counts_arrival")
        check.number("gamma", low=0.0, high=1.0, open_ends="low")
        check.number("output_scale", "image_scale", "reward_scale", "discount_scale", low=0.0)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {
            "wm/image_loss": self.image_scale,
            "wm/proprio_loss": self.image_scale,
            "wm/reward_loss": self.reward_scale,
            "wm/discount_loss": self.discount_scale,
        }


class PlainWorld(DreamerWorld):
    """RSSM and heads as a configuration says; what the states must predict is left to a family.
    ``embed``: numbers that the posterior gets, those of the encoder by default."""

    def __init__(
        self, config: DreamerConfig, embodiment: Embodiment, embed: int | None = None
    ) -> None:
        c, feat = config, config.rssm.feat
        super().__init__(
            c.kl,
            c.gamma,
            continues_as=c.gamma if c.continues_as_gamma else 1.0,
            weights=c.loss_weights,
        )
        self.squash_reward = c.squash_reward
        self.rssm = make_rssm(c.rssm, embodiment.action_dim, embed or c.observation.width)
        self.reward = ScalarHead(feat, c.heads, c.reward, output_scale=c.output_scale)
        self.discount = (
            ScalarHead(feat, c.heads, "bernoulli", output_scale=1.0) if c.discount else None
        )

    def loss(
        self,
        features: Tensor,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        if self.squash_reward:
            batch = {**batch, "reward": torch.tanh(batch["reward"])}
        return super().loss(features, batch, generator)


class ReconstructingWorld(PlainWorld):
    """An RSSM whose states reconstruct the observation."""

    def __init__(
        self, config: DreamerConfig, embodiment: Embodiment, embed: int | None = None
    ) -> None:
        super().__init__(config, embodiment, embed)
        rssm = config.rssm
        self.decoder = ObservationDecoder(config.observation, embodiment, rssm.feat, rssm.deter)

    def target_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return self.decoder.losses(post.feat, batch)


class Dreamer(DreamerAgent):
    """Encoder, world model, actor and critic as a configuration says."""

    dynamics: PlainWorld

    def __init__(self, config: DreamerConfig, embodiment: Embodiment) -> None:
        super().__init__()
        c, feat, action_dim = config, config.rssm.feat, embodiment.action_dim
        self.config, self.embodiment = config, embodiment
        self.critic_counts_arrival = c.critic_counts_arrival
        obs_keys = c.observation.obs_keys(embodiment)
        self.encoder = ObservationEncoder(c.observation, embodiment)
        self.dynamics = self.make_world(c, embodiment)
        heads = c.behavior_heads or c.heads
        self.actor = Actor(feat, action_dim, heads, c.actor)
        self.critic = Critic(feat, heads, c.critic, output_scale=c.output_scale)
        low, high = symmetric_box(action_dim)
        if c.actor.discrete:
            low = (0.0,) * action_dim
        self.spec = ModelSpec(
            action_low=low,
            action_high=high,
            obs_keys=obs_keys,
            model_dt=embodiment.period_s,
            has_reward=True,
            has_value=True,
            has_actor=True,
            has_continue=c.discount,
            has_decoder=c.observation.images and isinstance(self.dynamics, ReconstructingWorld),
            stochastic=True,
            discrete=c.actor.discrete,
        )

    def make_world(self, config: DreamerConfig, embodiment: Embodiment) -> PlainWorld:
        """The world model; a family may have another one."""
        return ReconstructingWorld(config, embodiment)

    def modules_by_name(self) -> dict[str, nn.Module]:
        return {
            "encoder": self.encoder,
            "world_model": self.dynamics,
            "actor": self.actor,
            "critic": self.critic,
        }

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        features: Tensor = self.encoder(obs)
        return features

    def decode(self, state: State) -> dict[str, Tensor]:
        if not isinstance(self.dynamics, ReconstructingWorld):
            return super().decode(state)
        return self.dynamics.decoder.images(state.feat)


@dataclass(frozen=True)
class DreamerPreset(Preset):
    """A plain Dreamer and how it is trained."""

    model: DreamerConfig = field(default_factory=DreamerConfig)
    learner: DreamerLearnerConfig = field(default_factory=DreamerLearnerConfig)

    @property
    def pace(self) -> Pace:
        c = self.learner
        return Pace(c.prefill, c.train_every, c.world_model_init + c.behavior_init)

    @property
    def sampling(self) -> Sampling:
        return self.learner.sampling

    @property
    def planning(self) -> Planning:
        """Imagined rewards are discounted as the critic is trained to."""
        return Planning(gamma=self.model.gamma)

    @property
    def discrete(self) -> bool:
        return self.model.actor.discrete

    @property
    def several_cameras(self) -> bool:
        return True

    def build(self, embodiment: Embodiment | int, seed: int = 0) -> WorldModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Dreamer(self.model, self.fitted(embodiment))

    def build_learner(
        self, model: WorldModel, seed: int = 0, device: str | torch.device = "cpu"
    ) -> DreamerLearner[Any, Any]:
        assert isinstance(model, Dreamer)
        return DreamerLearner(model, self.learner, seed=seed, device=device)
