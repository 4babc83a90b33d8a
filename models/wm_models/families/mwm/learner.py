"""Training of Masked World Models: the schedule of updates and each of them (appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from wm_models.behaviors.dreamer_learner import (
    DreamerLearner,
    DreamerLearnerConfig,
    numbers,
    require_context,
)
from wm_models.families.mwm.model import MaskedWorldModel
from wm_models.interface.checked import Checked
from wm_models.interface.learner import BatchSpec
from wm_models.interface.preset import Sampling
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, keras_adam


@dataclass(frozen=True)
class LearnerConfig(DreamerLearnerConfig):
    """How the parts are trained. The defaults are MWM's on Meta-World."""

    autoencoder_batch: BatchSpec = field(default_factory=lambda: BatchSpec(32, 33))
    autoencoder: OptimizerConfig = field(
        default_factory=lambda: keras_adam(3e-4, warmup=2500, decay_all=True)
    )
    world_model: OptimizerConfig = field(default_factory=lambda: keras_adam(3e-4))
    actor: OptimizerConfig = field(default_factory=lambda: keras_adam(1e-4))
    critic: OptimizerConfig = field(default_factory=lambda: keras_adam(1e-4))
    autoencoder_init: int = 5000  # first updates, of the autoencoder alone
    world_model_init: int = 0  # then updates of autoencoder and world model, without behaviour
    autoencoder_every: int = 1  # afterwards, one autoencoder update per this many updates
    sampling: Sampling = field(default_factory=lambda: Sampling(per_episode=True, ends=50))

    def __post_init__(self) -> None:
        super().__post_init__()
        Checked(self).whole("autoencoder_every")
        Checked(self).whole("autoencoder_init", low=0)
        require_context(self, "autoencoder_batch")


class MWMLearner(DreamerLearner[MaskedWorldModel, LearnerConfig]):
    """A Dreamer's learner with an autoencoder that learns first, and then beside the rest."""

    def make_optimizers(self) -> dict[str, Optimizer]:
        model, c = self.model, self.config
        return {
            "ae": Optimizer("ae", [model.autoencoder], c.autoencoder),
            "wm": Optimizer("wm", [model.dynamics], c.world_model),
            "actor": Optimizer("actor", [model.actor], c.actor),
            "critic": Optimizer("critic", [model.critic], c.critic),
        }

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]:
        c, u = self.config, self.updates
        specs = {}
        if u < c.autoencoder_init or (u - c.autoencoder_init) % c.autoencoder_every == 0:
            specs["autoencoder"] = c.autoencoder_batch
        if u >= c.autoencoder_init:
            specs["agent"] = c.agent_batch
        return specs

    @property
    def behavior_from(self) -> int:
        return self.config.autoencoder_init + self.config.world_model_init

    @property
    def phase(self) -> str:
        return "autoencoder" if self.updates < self.config.autoencoder_init else super().phase

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if "autoencoder" in batches:
            metrics = self.update_autoencoder(batches["autoencoder"])
        return metrics | super().update(batches)

    def update_autoencoder(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step on single frames with the reward received on arriving at them.

        Reset frames are among them, with reward 0. All rows of a log are seen equally often as far
        as they are second in a window equally often, or first and a reset frame.
        """
        rows = self.prepare(batch)
        known = rows["reward_known"]
        known[:, 0] &= self.keep_resets
        rows = {name: value[known] for name, value in rows.items()}
        with self.autocast():
            loss, metrics = self.model.autoencoder.loss(rows, self.generator)
        return numbers(metrics) | self.optimizers["ae"].step(loss)
