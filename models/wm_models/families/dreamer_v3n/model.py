"""DreamerV3 (Hafner et al., Nature 2025), with or without a reconstruction of observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.behaviors.dreamer import Dreamer, DreamerConfig, PlainWorld
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.nets.blocks import INITIALIZERS
from wm_models.nets.heads import ActorConfig, HeadConfig
from wm_models.nets.kl import EachFreeKL
from wm_models.nets.observation import ObservationConfig
from wm_models.nets.pooled_cnn import PooledCNNConfig
from wm_models.nets.rssm import RSSMConfig, RSSMState

INIT = "truncated_normal_in"


def layers(count: int, units: int) -> HeadConfig:
    """Hidden layers as this model has them everywhere."""
    return HeadConfig(units=units, layers=count, act="silu", norm="rms", init=INIT)


@dataclass(frozen=True)
class DreamerV3NConfig(DreamerConfig):
    """DreamerV3 (Nature 2025) with 12M parameters, and what its states must predict."""

    observation: ObservationConfig = field(
        default_factory=lambda: ObservationConfig(cnn=PooledCNNConfig(), mlp=layers(3, 256))
    )
    rssm: RSSMConfig = field(
        default_factory=lambda: RSSMConfig(
            core="block",
            deter=2048,
            hidden=256,
            classes=16,
            prior_layers=2,
            action_pad=0,
            act="silu",
            norm="rms",
            unimix=0.01,
            init=INIT,
        )
    )
    heads: HeadConfig = field(default_factory=lambda: layers(1, 256))
    behavior_heads: HeadConfig | None = field(default_factory=lambda: layers(3, 256))
    actor: ActorConfig = field(
        default_factory=lambda: ActorConfig("normal", std_shift=2.0, output_scale=0.01)
    )
    kl: EachFreeKL = field(default_factory=lambda: EachFreeKL(dyn=1.0, rep=0.1))
    reward: str = "symexp_twohot"  # form of the reward head, see ScalarHead
    critic: str = "symexp_twohot"  # form of the critic
    output_scale: float = 0.0  # of the initial output weights of reward and critic
    discount: bool = True  # learn where episodes terminate
    gamma: float = 1.0 - 1.0 / 333.0  # discount of rewards per model step
    image_scale: float = 1.0  # weight of the squared error of observations
    critic_counts_arrival: bool = False  # as `returns: next` of the behaviour
    # what makes the states informative: "reconstruction" of the observation, or "r2", a projection
    # of the state that correlates with the encoder's outputs one by one (R2-Dreamer, ICLR 2026)
    representation: str = "reconstruction"
    r2_scale: float = 0.05  # weight of its loss
    r2_redundancy: float = 5e-4  # weight, within it, of correlations with other outputs

    def __post_init__(self) -> None:
        super().__post_init__()
        Checked(self).choice("representation", ("reconstruction", "r2"))
        Checked(self).number("r2_scale", "r2_redundancy", low=0.0)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {**super().loss_weights, "wm/r2_loss": self.r2_scale}


class R2World(PlainWorld):
    """A world model without a decoder: a linear projection of its states predicts the encoder's
    outputs up to their scale, each of them by itself (R2-Dreamer, after Barlow Twins)."""

    def __init__(self, config: DreamerV3NConfig, embodiment: Embodiment) -> None:
        super().__init__(config, embodiment)
        self.redundancy = config.r2_redundancy
        self.projector = nn.Linear(config.rssm.feat, config.observation.width, bias=False)
        INITIALIZERS[config.rssm.init](self.projector)

    def target_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The encoder gets no gradient from this term: it would make its outputs constant."""
        projected = self.projector(post.feat).float().flatten(0, 1)
        return {"wm/r2_loss": redundancy_loss(projected, self.embed(features), self.redundancy)}


def redundancy_loss(projected: Tensor, embedding: Tensor, redundancy: float) -> Tensor:
    """Squared distance of the correlations between ``projected`` (N, E) and ``embedding``
    (..., E), as constants, from the unit matrix: 1 on the diagonal, 0 beside it.

    What lies beside the diagonal counts ``redundancy`` times. Means, deviations and correlations
    are over all N states of a batch.
    """
    target = embedding.detach().float().reshape(projected.shape)
    correlation = _standardised(projected).T @ _standardised(target) / len(projected)
    own = torch.diagonal(correlation)
    others = correlation.square().sum() - own.square().sum()
    return (own - 1.0).square().sum() + redundancy * others


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-8)


class DreamerV3N(Dreamer):
    """DreamerV3 (Nature 2025) behind the world-model contract."""

    def make_world(self, config: DreamerConfig, embodiment: Embodiment) -> PlainWorld:
        assert isinstance(config, DreamerV3NConfig)
        if config.representation == "r2":
            return R2World(config, embodiment)
        return super().make_world(config, embodiment)
