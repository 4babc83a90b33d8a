"""Masked World Models: an RSSM on the tokens of a masked autoencoder (Seo et al., CoRL 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.behaviors.dreamer_agent import DreamerAgent
from wm_models.behaviors.imitation import likelihood_loss
from wm_models.families.mwm.autoencoder import AutoencoderConfig, MaskedAutoencoder
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, symmetric_box
from wm_models.nets.blocks import Transformer, glorot_, sincos_2d
from wm_models.nets.dreamer_world import DreamerWorld
from wm_models.nets.heads import Actor, Critic, HeadConfig, ScalarHead
from wm_models.nets.kl import MixedClipKL
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState


@dataclass(frozen=True)
class TokenViTConfig:
    """The two small ViTs between autoencoder tokens and RSSM. The defaults are the paper's."""

    width: int = 128  # of tokens
    encoder_layers: int = 2  # blocks in front of the RSSM
    decoder_layers: int = 2  # blocks behind it
    heads: int = 4  # of attention
    tokens: str = "all"  # "cls" hands only the CLS token on (ablation)

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("width", "heads", high=16384)
        check.whole("encoder_layers", "decoder_layers", low=0, high=64)
        if self.width % self.heads or self.width % 4:
            check.refuse("width", f"a multiple of 4 and of heads, {self.heads}")
        if self.tokens not in ("all", "cls"):
            raise ValueError(f"vit.tokens: got {self.tokens!r}, expected 'all' or 'cls'.")


@dataclass(frozen=True)
class MWMConfig:
    """Everything that decides the shape of the weights and of the losses."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    vit: TokenViTConfig = field(default_factory=TokenViTConfig)
    rssm: RSSMConfig = field(default_factory=RSSMConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)  # of attention
    kl: MixedClipKL = field(default_factory=MixedClipKL)
    discount: bool = False  # episodes can terminate: learn a discount head (RLBench)
    gamma: float = 0.99  # discount of rewards per model step
    reward_scale: float = 1.0  # weight of the reward loss
    # weight of the likelihood of demonstrated actions, with gradients into the posterior: what the
    # demonstrator looked at is worth remembering (MoDem trains its encoder so); 0: no such head
    demonstrations: float = 0.0

    def __post_init__(self) -> None:
        check = Checked(self)
        check.flag("discount")
        check.number("gamma", low=0.0, high=1.0, open_ends="low")
        check.number("reward_scale", "demonstrations", low=0.0)


class TokenEncoder(nn.Module):
    """Autoencoder tokens (..., N, D) -> embedding (..., width): mean of a small ViT's tokens."""

    position: Tensor

    def __init__(self, config: TokenViTConfig, width_in: int, grid: int) -> None:
        super().__init__()
        self.cls_only = config.tokens == "cls"
        self.proj = nn.Linear(width_in, config.width)
        self.vit = Transformer(config.width, config.encoder_layers, config.heads)
        glorot_(self)
        position, corner = sincos_2d(config.width, grid)
        self.register_buffer("position", torch.cat([position, corner[None]]), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        lead, (count, width) = tokens.shape[:-2], tokens.shape[-2:]
        x = self.proj(cls_last(tokens.reshape(-1, count, width)))
        x = x[:, -1:] + self.position[-1:] if self.cls_only else x + self.position
        embedding: Tensor = self.vit(x).mean(1).reshape(*lead, -1)
        return embedding


class TokenDecoder(nn.Module):
    """State features (..., F) -> predicted autoencoder tokens (..., N, D), CLS first."""

    position: Tensor

    def __init__(self, config: TokenViTConfig, feat: int, width_out: int, grid: int) -> None:
        super().__init__()
        self.count = grid * grid + 1
        self.embed = nn.Linear(feat, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.vit = Transformer(config.width, config.decoder_layers, config.heads)
        self.proj = nn.Linear(config.width, width_out)
        glorot_(self)
        nn.init.normal_(self.mask_token, std=0.02)
        position, corner = sincos_2d(config.width, grid)
        position = torch.cat([torch.zeros(1, config.width), position, corner[None]])
        self.register_buffer("position", position, persistent=False)

    def forward(self, feat: Tensor) -> Tensor:
        lead = feat.shape[:-1]
        state = self.embed(feat.reshape(-1, 1, feat.shape[-1]))
        x = (
            torch.cat([state, self.mask_token.expand(len(state), self.count, -1)], 1)
            + self.position
        )
        x = cls_first(self.proj(self.vit(x)[:, 1:]))
        return x.reshape(*lead, *x.shape[-2:])


def cls_last(tokens: Tensor) -> Tensor:
    """[CLS, grid] -> [grid, CLS], the order inside the world model's ViTs."""
    return torch.cat([tokens[:, 1:], tokens[:, :1]], 1)


def cls_first(tokens: Tensor) -> Tensor:
    """Inverse of :func:`cls_last`."""
    return torch.cat([tokens[:, -1:], tokens[:, :-1]], 1)


class Dynamics(DreamerWorld):
    """The trainable world model on frozen tokens: ViTs, RSSM, reward and discount heads."""

    def __init__(self, config: MWMConfig, action_dim: int) -> None:
        super().__init__(
            config.kl,
            config.gamma,
            continues_as=config.gamma,
            weights={
                "wm/reward_loss": config.reward_scale,
                "wm/demonstration_loss": config.demonstrations,
            },
        )
        ae, feat = config.autoencoder, config.rssm.feat
        self.encoder = TokenEncoder(config.vit, ae.width, ae.grid)
        self.rssm = RSSM(config.rssm, action_dim, config.vit.width)
        self.decoder = TokenDecoder(config.vit, feat, ae.width, ae.grid)
        self.reward = ScalarHead(feat, config.heads, "symlog")
        self.discount = ScalarHead(feat, config.heads, "bernoulli") if config.discount else None
        self.demonstrator = Actor(feat, action_dim, config.heads) if config.demonstrations else None

    def embed(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(features)
        return embedding

    def target_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Squared error of predicted tokens: summed over D, averaged over tokens and frames."""
        error = self.decoder(post.feat).float() - features.float()
        return {"wm/feature_loss": error.square().sum(-1).mean()}

    def extra_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The likelihood of demonstrated actions."""
        if self.demonstrator is None or "demo" not in batch:
            return {}
        return {"wm/demonstration_loss": likelihood_loss(self.demonstrator(post.feat), batch)}


class MaskedWorldModel(DreamerAgent):
    """MWM behind the world-model contract: autoencoder, dynamics, actor and critic."""

    dynamics: Dynamics

    def __init__(self, config: MWMConfig, embodiment: Embodiment) -> None:
        super().__init__()
        self.embodiment, action_dim = embodiment, embodiment.action_dim
        feat = config.rssm.feat
        self.config = config
        self.autoencoder = MaskedAutoencoder(config.autoencoder, action_dim)
        self.dynamics = Dynamics(config, action_dim)
        self.actor = Actor(feat, action_dim, config.heads)
        self.critic = Critic(feat, config.heads)
        low, high = symmetric_box(action_dim)
        size = config.autoencoder.image_size
        self.spec = ModelSpec(
            action_low=low,
            action_high=high,
            obs_keys={"image": (3, size, size)},
            model_dt=embodiment.period_s,
            has_reward=True,
            has_value=True,
            has_actor=True,
            has_continue=config.discount,
            has_decoder=True,
            stochastic=True,
            encoder_module="autoencoder",
        )

    def modules_by_name(self) -> dict[str, nn.Module]:
        return {
            "autoencoder": self.autoencoder,
            "world_model": self.dynamics,
            "actor": self.actor,
            "critic": self.critic,
        }

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self.autoencoder.encode(obs["image"])

    def features(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Tokens (B, T, N, D) of a batch; the autoencoder learns by itself."""
        with torch.no_grad():
            return super().features(batch).float()

    def decode(self, state: State) -> dict[str, Tensor]:
        return {"image": self.autoencoder.image(self.dynamics.decoder(state.feat))}
