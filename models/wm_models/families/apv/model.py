"""APV: an action-conditional RSSM on the states of one that was trained on videos alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_models.behaviors.dreamer import Dreamer, DreamerConfig, ReconstructingWorld
from wm_models.families.apv.video import no_action
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.state import State
from wm_models.nets.rssm import RSSM, RSSMState


@dataclass(frozen=True)
class APVConfig(DreamerConfig):
    """Everything that decides the shape of the weights and of the losses."""

    # "stacked": an action-conditional RSSM on the states of an action-free one. "naive" (ablation):
    # one RSSM, pre-trained with zeros in place of actions
    stack: str = "stacked"
    concat_embed: bool = False  # the action-conditional RSSM gets the image's embedding too
    af_kl_scale: float = 0.0  # weight of the action-free RSSM's KL term in fine-tuning

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checked(self)
        check.choice("stack", ("stacked", "naive"))
        check.flag("concat_embed")
        check.number("af_kl_scale", low=0.0)
        if self.stack == "naive" and self.concat_embed:
            check.refuse("concat_embed", "False with stack 'naive'")


class Stage(NamedTuple):
    """What comes before the RSSM that imagines."""

    inputs: Tensor  # (B, T, N, D), what that RSSM gets in place of the image's features
    feat: Tensor  # (B, T, F), states whose novelty is rewarded
    kl_loss: Tensor  # KL term of the action-free RSSM
    kl: Tensor  # its KL [nats]


class APVWorld(ReconstructingWorld):
    """A world model that videos have taught a part of."""

    def stage(
        self, features: Tensor, is_first: Tensor, generator: torch.Generator | None = None
    ) -> Stage:
        """What precedes the loss on features (B, T, N, D)."""
        raise NotImplementedError

    def video_parts(self) -> list[nn.Module]:
        """The parts that hold still with the encoder."""
        return []


class StackedWorld(APVWorld):
    """Two RSSMs: the posterior of the second gets the state of the first in place of the image."""

    def __init__(self, config: APVConfig, embodiment: Embodiment) -> None:
        width = config.observation.width
        super().__init__(
            config, embodiment, config.rssm.feat + (width if config.concat_embed else 0)
        )
        self.concat_embed = config.concat_embed
        self.af_rssm = RSSM(config.rssm, 0, width)

    def video_parts(self) -> list[nn.Module]:
        return [self.af_rssm]

    def stage(
        self, features: Tensor, is_first: Tensor, generator: torch.Generator | None = None
    ) -> Stage:
        start = self.af_rssm.initial(len(features), features)
        free, logits = self.free(start, features, is_first, generator)
        kl_loss, kl = self.kl.loss(logits, self.af_rssm.prior_logits(free.deter))
        return Stage(self.stacked(features, free), free.feat, kl_loss, kl)

    def free(
        self,
        start: RSSMState,
        features: Tensor,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[RSSMState, Tensor]:
        """Filter features (B, T, N, D) without actions: states and posterior logits (B, T, ...)."""
        return self.af_rssm.observe(
            start, no_action(is_first), features.flatten(-2), is_first, generator
        )

    def stacked(self, features: Tensor, free: RSSMState) -> Tensor:
        """What the action-conditional posterior gets: (B, T, 1, E)."""
        parts = [features.flatten(-2), free.feat] if self.concat_embed else [free.feat]
        return torch.cat(parts, -1)[..., None, :]


class NaiveWorld(APVWorld):
    """One RSSM, which began without actions."""

    def stage(
        self, features: Tensor, is_first: Tensor, generator: torch.Generator | None = None
    ) -> Stage:
        with torch.no_grad():  # as videos were filtered: actions are 0
            action = torch.zeros(*is_first.shape, self.rssm.action_dim, device=features.device)
            start = self.rssm.initial(len(features), features)
            states, _ = self.rssm.observe(start, action, features.flatten(-2), is_first, generator)
        none = features.new_zeros(())
        return Stage(features, states.feat, none, none)


class APVState(NamedTuple):
    """States of both RSSMs; imagination changes the second alone."""

    free: RSSMState
    conditional: RSSMState

    @property
    def feat(self) -> Tensor:
        return self.conditional.feat


class APVDreamer(Dreamer):
    """APV behind the world-model contract."""

    config: APVConfig
    dynamics: APVWorld


class NaiveDreamer(APVDreamer):
    """The ablation with one RSSM."""

    def make_world(self, config: DreamerConfig, embodiment: Embodiment) -> NaiveWorld:
        return NaiveWorld(config, embodiment)


class StackedDreamer(APVDreamer):
    """APV as published."""

    dynamics: StackedWorld

    def make_world(self, config: DreamerConfig, embodiment: Embodiment) -> StackedWorld:
        assert isinstance(config, APVConfig)
        return StackedWorld(config, embodiment)

    def initial(self, batch: int, device: torch.device | str | None = None) -> State:
        conditional = super().initial(batch, device)
        return APVState(self.dynamics.af_rssm.initial(batch, conditional.deter), conditional)

    def filter(
        self,
        state: State,
        prev_action: Tensor,
        features: Tensor,
        is_first: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        states, _ = self.dynamics.free(state.free, features[:, None], is_first[:, None], generator)
        stacked = self.dynamics.stacked(features[:, None], states)[:, 0]
        conditional = super().filter(
            state.conditional, prev_action, stacked, is_first, generator=generator
        )
        return APVState(RSSMState(states.deter[:, 0], states.stoch[:, 0]), conditional)

    def step(
        self, state: State, action: Tensor, *, generator: torch.Generator | None = None
    ) -> State:
        return APVState(state.free, super().step(state.conditional, action, generator=generator))

    def pack(self, state: State) -> Tensor:
        """Both states side by side, the action-free one first."""
        free = self.dynamics.af_rssm.pack(state.free)
        return torch.cat([free, super().pack(state.conditional)], -1)

    def unpack(self, flat: Tensor) -> State:
        size = self.config.rssm.feat
        return APVState(
            self.dynamics.af_rssm.unpack(flat[..., :size]), super().unpack(flat[..., size:])
        )


def load_pretrained(
    model: APVDreamer, parts: tuple[str, ...], states: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Put weights of a pre-trained :class:`~video.VideoModel` into a model that begins to learn.

    parts: which of "encoder", "decoder" and "af_rssm". states: weights of the video model's modules
    by name. Without a stack the action-free RSSM becomes the RSSM, whose weights on actions keep
    their fresh values: in pre-training their inputs were 0.
    """
    world = model.dynamics
    first = world.af_rssm if isinstance(world, StackedWorld) else world.rssm
    targets: dict[str, nn.Module] = {
        "encoder": model.encoder,
        "decoder": world.decoder,
        "af_rssm": first,
    }
    sources = {
        "encoder": dict(states["encoder"]),
        "decoder": below(states["world_model"], "decoder."),
        "af_rssm": below(states["world_model"], "rssm."),
    }
    if first is world.rssm:
        latent = world.rssm.config.stoch * world.rssm.config.classes
        weight = sources["af_rssm"]["img_in.weight"].clone()
        weight[:, latent:] = world.rssm.img_in.weight.detach()[:, latent:]
        sources["af_rssm"]["img_in.weight"] = weight
    for part in parts:
        targets[part].load_state_dict(sources[part])


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of a state whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
