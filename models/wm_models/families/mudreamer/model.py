"""MuDreamer: states learn by predicting rewards, values and actions instead of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.behaviors.dreamer import Dreamer, DreamerConfig, PlainWorld
from wm_models.behaviors.imitation import mean_over
from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.interface.embodiment import Embodiment
from wm_models.interface.state import State
from wm_models.nets.heads import Actor, ScalarHead
from wm_models.nets.observation import ObservationDecoder
from wm_models.nets.rssm import RSSMState


@dataclass(frozen=True)
class MuDreamerConfig(DreamerConfig):
    """Everything that decides the shape of the weights and of the losses.

    ``rssm.posterior_norm`` "batch" is MuDreamer's, "same" the ablation with LayerNorm.
    ``image_scale`` weighs the probe's loss, which nothing but the probe learns from.
    """

    value_predictor: bool = True  # states predict the return that followed in the replay
    action_predictor: bool = True  # image and previous state predict the action between them
    decoder_probe: bool = False  # a decoder to look at; states learn nothing from it

    def __post_init__(self) -> None:
        super().__post_init__()
        Checked(self).flag("value_predictor", "action_predictor", "decoder_probe")


class PredictingWorld(PlainWorld):
    """A world model whose states predict rewards and, by the learner's loss, values. Features and
    the state before predict the action that led from one to the other."""

    def __init__(self, config: MuDreamerConfig, embodiment: Embodiment) -> None:
        super().__init__(config, embodiment)
        c, feat = config, config.rssm.feat
        self.value: ScalarHead | None = None
        if c.value_predictor:
            self.value = ScalarHead(feat, c.heads, c.critic, output_scale=c.output_scale)
        self.action: Actor | None = None
        if c.action_predictor:
            width = c.observation.width + feat
            self.action = Actor(width, embodiment.action_dim, c.heads, c.actor)

    def target_losses(
        self, features: Tensor, post: RSSMState, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Negative log likelihood of the action that led to each row; none led to a first row.

        It is predicted from s_{t-1} and the features of o_t. s_t itself would give it away.
        """
        if self.action is None:
            return {}
        before = torch.cat([torch.zeros_like(post.feat[:, :1]), post.feat[:, :-1]], 1)
        policy = self.action(torch.cat([self.embed(features), before], -1))
        action = batch["action"].clamp(-policy.limit, policy.limit)
        return {"wm/action_loss": mean_over(-policy.log_prob(action), ~batch["is_first"])}


class MuDreamer(Dreamer):
    """MuDreamer behind the world-model contract.

    It is in evaluation mode from the beginning, and its learner leaves it only for the loss of the
    world model: everywhere else the posterior's BatchNorm uses running statistics.
    """

    dynamics: PredictingWorld

    def __init__(self, config: MuDreamerConfig, embodiment: Embodiment) -> None:
        super().__init__(config, embodiment)
        self.probe: ObservationDecoder | None = None
        if config.decoder_probe:
            self.probe = ObservationDecoder(
                config.observation, embodiment, config.rssm.feat, config.rssm.deter
            )
        self.spec = replace(
            self.spec, has_decoder=config.decoder_probe and config.observation.images
        )
        self.eval()

    def make_world(self, config: DreamerConfig, embodiment: Embodiment) -> PredictingWorld:
        assert isinstance(config, MuDreamerConfig)
        return PredictingWorld(config, embodiment)

    def modules_by_name(self) -> dict[str, nn.Module]:
        probe = {} if self.probe is None else {"decoder": self.probe}
        return {**super().modules_by_name(), **probe}

    def parts_for(self, *verbs: str) -> tuple[str, ...]:
        probe = ("decoder",) if self.probe is not None and "decode" in verbs else ()
        return (*super().parts_for(*verbs), *probe)

    def decode(self, state: State) -> dict[str, Tensor]:
        if self.probe is None:
            raise ModelError(
                "decode: this model does not reconstruct; train it with model.decoder_probe=true "
                "to look at its states."
            )
        return self.probe.images(state.feat)


def spread(vectors: Tensor) -> Tensor:
    """Mean standard deviation over all vectors (B, T, D), each of length 1: 0 where they are all
    alike, as after a collapse, and 1 / sqrt(D) at most."""
    return F.normalize(vectors.detach().float(), dim=-1).flatten(0, 1).std(0).mean()
