"""Fine-tuning of APV: the parts that videos taught have an optimiser of their own, and novelty is
rewarded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wm_models.behaviors.dreamer_learner import DreamerLearner, DreamerLearnerConfig, numbers
from wm_models.errors import ModelError
from wm_models.families.apv.bonus import Bonus, BonusConfig
from wm_models.families.apv.model import APVDreamer
from wm_models.interface.checked import Checked
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, keras_adam, minimise
from wm_models.nets.rssm import RSSMState

PARTS = ("encoder", "decoder", "af_rssm")  # that pre-training can give


@dataclass(frozen=True)
class APVLearnerConfig(DreamerLearnerConfig):
    """How the parts are trained. The defaults are the release's on Meta-World."""

    world_model: OptimizerConfig = field(default_factory=lambda: keras_adam(3e-4, decay_all=True))
    actor: OptimizerConfig = field(default_factory=lambda: keras_adam(8e-5, decay_all=True))
    critic: OptimizerConfig = field(default_factory=lambda: keras_adam(8e-5, decay_all=True))
    # of encoder and action-free RSSM; it holds still for the first updates on Meta-World
    pretrained_parts: OptimizerConfig = field(
        default_factory=lambda: keras_adam(3e-4, decay_all=True, hold=100)
    )
    bonus: BonusConfig = field(default_factory=BonusConfig)
    pretrained: str = ""  # folder of a pre-training run's weights; empty: start without
    load: tuple[str, ...] = PARTS  # what is taken from there
    af_frozen: bool = False  # encoder and action-free RSSM never change

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checked(self)
        check.flag("af_frozen")
        if self.joint:
            check.refuse("joint", "False: the world model makes its step first")
        if not self.load or not set(self.load) <= set(PARTS):
            check.refuse("load", f"some of {', '.join(PARTS)}")
        if self.agent_batch.length - 1 < self.bonus.window:
            check.refuse("agent_batch", f"windows of {self.bonus.window + 1} rows or more")


class APVLearner(DreamerLearner[APVDreamer, APVLearnerConfig]):
    """A Dreamer's learner that rewards novelty in a copy of each batch."""

    def __init__(
        self,
        model: APVDreamer,
        config: APVLearnerConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if config.af_frozen and not model.dynamics.video_parts():
            raise ModelError(
                "learner.af_frozen: got True, expected False with stack 'naive', whose one RSSM "
                "has to learn what actions do."
            )
        super().__init__(model, config, seed=seed, device=device)
        self.bonus: Bonus | None = None
        if config.bonus.scale:
            self.bonus = Bonus(config.bonus, model.config.rssm.feat, self.generator).to(self.device)

    def make_optimizers(self) -> dict[str, Optimizer]:
        model, world, c = self.model, self.model.dynamics, self.config
        first = [model.encoder, *world.video_parts()]
        rest = [part for part in world.children() if part not in first]
        optimizers = {
            "wm": Optimizer("wm", rest, c.world_model),
            "actor": Optimizer("actor", [model.actor], c.actor),
            "critic": Optimizer("critic", [model.critic], c.critic),
        }
        if c.af_frozen:
            for part in first:
                part.requires_grad_(False)
        else:
            optimizers["enc"] = Optimizer("enc", first, c.pretrained_parts)
        return optimizers

    def update_world_model(self, batch: Mapping[str, Tensor]) -> tuple[RSSMState, dict[str, float]]:
        """One step of all parts of the world model, with the bonus in the rewards it learns."""
        model, world = self.model, self.model.dynamics
        with self.autocast():
            features = model.features(batch)
            stage = world.stage(features, batch["is_first"], self.generator)
        novelty = None if self.bonus is None else self.bonus(stage.feat)
        if novelty is not None:
            batch = rewarded(batch, self.config.bonus.scale * novelty.bonus)
        with self.autocast():
            loss, post, metrics = world.loss(stage.inputs, batch, self.generator)
        metrics["wm/af_kl"] = stage.kl
        if novelty is not None:
            metrics["wm/bonus"] = novelty.distance.mean()
        updated = [self.optimizers[name] for name in ("enc", "wm") if name in self.optimizers]
        result = numbers(metrics) | minimise(
            loss + model.config.af_kl_scale * stage.kl_loss, updated
        )
        if self.bonus is not None and novelty is not None:
            self.bonus.take(novelty)
        return post, result

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return state if self.bonus is None else {**state, "bonus": self.bonus.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.bonus is not None:
            self.bonus.load_state_dict(state["bonus"])


def rewarded(batch: Mapping[str, Tensor], bonus: Tensor) -> dict[str, Tensor]:
    """The batch with a bonus (B, T') on its first T' rewards; the rewards after these count as
    unknown."""
    count = bonus.shape[1]
    reward, known = batch["reward"].clone(), batch["reward_known"].clone()
    reward[:, :count] += bonus
    known[:, count:] = False
    return {**batch, "reward": reward, "reward_known": known}
