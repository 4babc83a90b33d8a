"""Masked World Models: an RSSM on the tokens of a masked autoencoder (Seo et al., CoRL 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wm_models.behaviors.actor_critic import Imagination
from wm_models.behaviors.imitation import likelihood_loss
from wm_models.families.mwm.autoencoder import AutoencoderConfig, MaskedAutoencoder
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.state import State
from wm_models.interface.world_model import ModelSpec, WorldModel, symmetric_box
from wm_models.nets.blocks import Transformer, glorot_, sincos_2d
from wm_models.nets.heads import Actor, Critic, HeadConfig, ScalarHead
from wm_models.nets.kl import MixedClipKL
from wm_models.nets.rssm import RSSM, RSSMConfig, RSSMState


@dataclass(frozen=True)
class TokenViTConfig:
    """The two small ViTs between autoencoder tokens and RSSM. The defaults are the paper's."""

    width: int = 128
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 4
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
    heads: HeadConfig = field(default_factory=HeadConfig)
    kl: MixedClipKL = field(default_factory=MixedClipKL)
    discount: bool = False  # episodes can terminate: learn a discount head (RLBench)
    gamma: float = 0.99
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


class Dynamics(nn.Module):
    """The trainable world model on frozen tokens: ViTs, RSSM, reward and discount heads."""

    def __init__(self, config: MWMConfig, action_dim: int) -> None:
        super().__init__()
        ae, feat = config.autoencoder, config.rssm.feat
        self.config = config
        self.encoder = TokenEncoder(config.vit, ae.width, ae.grid)
        self.rssm = RSSM(config.rssm, action_dim, config.vit.width)
        self.decoder = TokenDecoder(config.vit, feat, ae.width, ae.grid)
        self.reward = ScalarHead(feat, config.heads, "symlog")
        self.discount = (
            ScalarHead(feat, config.heads, "bernoulli") if config.discount else None
        )
        self.demonstrator = Actor(feat, action_dim, config.heads) if config.demonstrations else None

    def loss(
        self, tokens: Tensor, batch: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        """Loss on tokens (B, T, N, D) and ``batch`` in arrival form, and the posterior states."""
        c = self.config
        start = self.rssm.initial(tokens.shape[0], tokens)
        post, post_logits = self.rssm.observe(
            start, batch["action"], self.encoder(tokens), batch["is_first"], generator
        )
        feat = post.feat
        known = batch["reward_known"].float()
        kl_loss, kl = c.kl.loss(post_logits, self.rssm.prior_logits(post.deter))
        losses = {
            "wm/feature_loss": self._feature_loss(feat, tokens),
            "wm/reward_loss": (self.reward.loss(feat, batch["reward"]) * known).sum()
            / known.sum().clamp_min(1),
            "wm/kl_loss": kl_loss,
        }
        if self.discount is not None:
            target = c.gamma * (~batch["is_terminal"]).float()
            losses["wm/discount_loss"] = self.discount.loss(feat, target).mean()
        if self.demonstrator is not None and "demo" in batch:
            losses["wm/demonstration_loss"] = likelihood_loss(self.demonstrator(feat), batch)
        weights = {"wm/reward_loss": c.reward_scale, "wm/demonstration_loss": c.demonstrations}
        total: Tensor = sum(  # type: ignore[assignment]
            weights.get(name, 1.0) * value for name, value in losses.items()
        )
        return total, post, {**losses, "wm/kl": kl}

    def imagined_discount(self, feat: Tensor) -> Tensor:
        """The discount head's prediction (...,): gamma times the probability of going on."""
        assert self.discount is not None
        return self.discount.predict(feat)

    def _feature_loss(self, feat: Tensor, tokens: Tensor) -> Tensor:
        """Squared error of predicted tokens: summed over D, averaged over tokens and frames."""
        loss: Tensor = (self.decoder(feat).float() - tokens.float()).square().sum(-1).mean()
        return loss


class MaskedWorldModel(WorldModel):
    """MWM behind the world-model contract: autoencoder, dynamics, actor and critic."""

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

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        needed = {
            "encode": {"autoencoder"},
            "filter": {"world_model"},
            "act": {"actor"},
            "plan": {"world_model", "actor", "critic"},
            "decode": {"autoencoder", "world_model"},
        }
        return self._parts(needed, verbs)

    @property
    def imagination(self) -> Imagination:
        """What actor and critic learn from."""
        dynamics = self.dynamics
        return Imagination(
            step=dynamics.rssm.imagine,
            reward=dynamics.reward.predict,
            discount=dynamics.imagined_discount if dynamics.discount is not None else None,
            gamma=self.config.gamma,
        )

    def initial(self, batch: int, device: torch.device | str | None = None) -> RSSMState:
        like = self.autoencoder.cls if device is None else self.autoencoder.cls.to(device)
        return self.dynamics.rssm.initial(batch, like.detach())

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        return self.autoencoder.encode(obs["image"])

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> RSSMState:
        embed = self.dynamics.encoder(features)
        states, _ = self.dynamics.rssm.observe(
            state, prev_action[:, None], embed[:, None], is_first[:, None], generator
        )
        return RSSMState(states.deter[:, 0], states.stoch[:, 0])

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> RSSMState:
        return self.dynamics.rssm.imagine(state, action, generator)

    def readout(
        self,
        state: State,
        want: frozenset[str],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        self._check_want(want)
        feat: Tensor = state.feat
        heads: dict[str, Callable[[], Tensor]] = {
            "feat": lambda: feat,
            "reward": lambda: self.dynamics.reward.predict(feat),
            "value": lambda: self._value_after(feat),
            "cont": lambda: self._continue(feat),
        }
        return {name: heads[name]() for name in want if name in heads}

    def _value_after(self, feat: Tensor) -> Tensor:
        """Value of what follows the state: the critic's V_k = r_k + d_k V_{k+1} counts, as Dreamer
        does, the reward of arriving too, which a rollout has in its own ``reward`` already."""
        going_on = self._continue(feat).clamp_min(1e-3) if self.config.discount else 1.0
        after = self.critic.predict(feat) - self.dynamics.reward.predict(feat)
        return after / (self.config.gamma * going_on)

    def _continue(self, feat: Tensor) -> Tensor:
        """Probability of going on; the discount head predicts gamma times that."""
        return (self.dynamics.imagined_discount(feat) / self.config.gamma).clamp(0.0, 1.0)

    def act(self, state: State, *, mode: bool, generator: torch.Generator | None = None) -> Tensor:
        policy = self.actor(state.feat)
        action: Tensor = policy.mode() if mode else policy.sample(generator)
        return action

    def decode(self, state: State) -> dict[str, Tensor]:
        return {"image": self.autoencoder.image(self.dynamics.decoder(state.feat))}

    def pack(self, state: State) -> Tensor:
        return self.dynamics.rssm.pack(state)

    def unpack(self, flat: Tensor) -> RSSMState:
        return self.dynamics.rssm.unpack(flat)
