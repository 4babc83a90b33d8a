"""Training of MuDreamer: value prediction by a slow copy, BatchNorm, and the decoder probe."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.behaviors.dreamer_learner import DreamerLearner, DreamerLearnerConfig, numbers
from wm_models.behaviors.returns import replay_return
from wm_models.errors import ModelError
from wm_models.families.mudreamer.model import MuDreamer, spread
from wm_models.interface.checked import Checked
from wm_models.nets.optimizer import Optimizer
from wm_models.nets.rssm import RSSMState


@dataclass(frozen=True)
class MuDreamerLearnerConfig(DreamerLearnerConfig):
    """How the parts are trained. Gamma and lambda of the replayed returns that the value predictor
    learns are those of imagined ones."""

    value_rate: float = 0.01  # share of the value predictor in each step of its slow copy

    def __post_init__(self) -> None:
        super().__post_init__()
        Checked(self).number("value_rate", low=0.0, high=1.0)
        if self.joint:
            Checked(self).refuse("joint", "False: the world model makes its step first")


class MuDreamerLearner(DreamerLearner[MuDreamer, MuDreamerLearnerConfig]):
    """A Dreamer's learner that also keeps the slow copy of the value predictor."""

    batch_norm = True

    def __init__(
        self,
        model: MuDreamer,
        config: MuDreamerLearnerConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if model.config.rssm.posterior_norm == "batch" and config.agent_batch.batch < 2:
            raise ModelError(
                f"learner.agent_batch.batch: got {config.agent_batch.batch}, expected 2 or more: "
                "BatchNorm needs several windows. Or set model.rssm.posterior_norm=same."
            )
        super().__init__(model, config, seed=seed, device=device)
        self.model.eval()
        self.slow_value = copy.deepcopy(self.model.dynamics.value)
        if self.slow_value is not None:
            self.slow_value.requires_grad_(False)

    def make_optimizers(self) -> dict[str, Optimizer]:
        optimizers = super().make_optimizers()
        if self.model.probe is not None:
            optimizers["probe"] = Optimizer("probe", [self.model.probe], self.config.world_model)
        return optimizers

    def begin_with(self, step: int) -> None:
        super().begin_with(step)
        value = self.model.dynamics.value
        if self.slow_value is not None and value is not None:
            self.slow_value.load_state_dict(value.state_dict())

    def update_world_model(self, batch: Mapping[str, Tensor]) -> tuple[RSSMState, dict[str, float]]:
        with batch_statistics(self.model.dynamics):
            post, metrics = super().update_world_model(batch)
        self._follow_value()
        probe = self.model.probe
        if probe is not None:
            with self.autocast():
                losses = probe.losses(post.feat.detach(), batch)
            weights = self.model.dynamics.weights
            loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
            metrics |= numbers(losses) | self.optimizers["probe"].step(loss)
        return post, metrics

    def world_model_loss(
        self, features: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        """With the loss of the value predictor, whose target the slow copy bootstraps. Metrics
        tell whether features and recurrent states still differ from each other."""
        loss, post, metrics = super().world_model_loss(features, batch)
        dynamics = self.model.dynamics
        if dynamics.value is not None and self.slow_value is not None:
            slow = self.slow_value.predict(post.feat.detach())
            target = replay_return(batch, slow, dynamics.gamma, self.config.behavior.lam)
            metrics["wm/value_loss"] = dynamics.value.loss(post.feat, target).mean()
            loss = loss + metrics["wm/value_loss"]
        metrics["wm/feature_spread"] = spread(dynamics.embed(features))
        metrics["wm/deter_spread"] = spread(post.deter)
        return loss, post, metrics

    def state_dict(self) -> dict[str, Any]:
        slow = {} if self.slow_value is None else self.slow_value.state_dict()
        return {**super().state_dict(), "slow_value": slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.slow_value is not None:
            self.slow_value.load_state_dict(state["slow_value"])

    @torch.no_grad()
    def _follow_value(self) -> None:
        """One step of the exponential moving average."""
        value = self.model.dynamics.value
        if self.slow_value is None or value is None:
            return
        for slow, new in zip(self.slow_value.parameters(), value.parameters(), strict=True):
            slow.lerp_(new, self.config.value_rate)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorm by the statistics of each batch, which the running statistics follow.

    These are as before where a step fails.
    """
    before = [buffer.clone() for buffer in module.buffers()]
    module.train()
    try:
        yield
    except FloatingPointError:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)
        raise
    finally:
        module.eval()
