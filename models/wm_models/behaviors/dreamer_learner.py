"""Training of the Dreamer family: world model, then actor and critic in its imagination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from wm_models.behaviors.actor_critic import Behavior, BehaviorConfig
from wm_models.behaviors.dreamer_agent import DreamerAgent
from wm_models.errors import ModelError, check_finite
from wm_models.interface.checked import Checked
from wm_models.interface.learner import BatchSpec, arrival, without_context
from wm_models.interface.preset import Sampling
from wm_models.nets.freezing import frozen
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, minimise
from wm_models.nets.rssm import RSSMState

FIELDS = frozenset(
    {"action", "commanded", "reward", "is_first", "is_last", "is_terminal", "demo"}
)  # besides the parts of the observation


@dataclass(frozen=True)
class DreamerLearnerConfig:
    """How world model, actor and critic are trained.

    A window has one row more than is learned from: its first row is there for the action and the
    reward of the second.
    """

    agent_batch: BatchSpec = field(default_factory=lambda: BatchSpec(50, 51))
    world_model: OptimizerConfig = field(default_factory=OptimizerConfig)
    actor: OptimizerConfig = field(default_factory=OptimizerConfig)
    critic: OptimizerConfig = field(default_factory=OptimizerConfig)
    behavior: BehaviorConfig = field(default_factory=BehaviorConfig)
    world_model_init: int = 0  # first updates of the world model, without behaviour
    behavior_init: int = 0  # then updates of all parts, which do not wait for new experience
    # Are world model, actor and critic trained by one backward of the sum of their losses, in which
    # the critic's loss on replayed returns reaches the world model (DreamerV3, Nature)? Otherwise
    # the world model makes its step first.
    joint: bool = False
    behavior_every: int = 1  # after its start, one update of actor and critic per this many
    prefill: int = 5000  # random steps before training starts
    train_every: int = 5  # agent steps per update once all parts are training
    sampling: Sampling = field(default_factory=lambda: Sampling(per_episode=True))

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("behavior_every", "train_every")
        check.whole("world_model_init", "behavior_init", "prefill", low=0)
        check.flag("joint")
        require_context(self, "agent_batch")


def require_context(config: Any, *names: str) -> None:
    """ValueError for windows that have no row in front of those to learn from."""
    for name in names:
        length = getattr(config, name).length
        if length < 2:
            raise ValueError(
                f"learner.{name}.length: got {length}, expected the rows to learn from and "
                "one more, 2 or more."
            )


AgentT = TypeVar("AgentT", bound=DreamerAgent)
ConfigT = TypeVar("ConfigT", bound=DreamerLearnerConfig)


class DreamerLearner(Generic[AgentT, ConfigT]):
    """Owns the optimisers, the slow critic, the normalisers and the random generator.

    One :meth:`update` is a function of the weights, this object's :meth:`state_dict` and the
    batches alone: equal inputs give equal weights, bit for bit on CPU.
    """

    batch_norm = False  # does it switch BatchNorm between training and evaluation?

    def __init__(
        self,
        model: AgentT,
        config: ConfigT,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self._require_fit(model, config)
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.config = config
        self.fields = FIELDS | model.spec.obs_keys.keys()
        self.behavior = Behavior(model.critic, config.behavior).to(self.device)
        self.updates = 0
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizers = self.make_optimizers()

    def _require_fit(self, model: AgentT, config: ConfigT) -> None:
        """ModelError: model and settings are each valid, but not together."""
        returns = "arrival" if model.critic_counts_arrival else "next"
        if config.behavior.returns != returns:
            raise ModelError(
                f"learner.behavior.returns: got {config.behavior.returns!r}, expected {returns!r} "
                "for this model. Change model.critic_counts_arrival with it, where it is a setting."
            )
        if not self.batch_norm and any(isinstance(m, nn.BatchNorm1d) for m in model.modules()):
            raise ModelError(
                "model.rssm.posterior_norm: got 'batch', expected 'same'. Only MuDreamer can be "
                "trained with BatchNorm."
            )

    def make_optimizers(self) -> dict[str, Optimizer]:
        """The optimisers by name: encoder and world model share one."""
        model, c = self.model, self.config
        encoder = model.modules_by_name()[model.spec.encoder_module]
        return {
            "wm": Optimizer("wm", [encoder, model.dynamics], c.world_model),
            "actor": Optimizer("actor", [model.actor], c.actor),
            "critic": Optimizer("critic", [model.critic], c.critic),
        }

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]:
        """The batches of log rows that the next :meth:`update` needs."""
        return {"agent": self.config.agent_batch}

    @property
    def behavior_from(self) -> int:
        """Updates that precede behaviour learning."""
        return self.config.world_model_init

    @property
    def initial_updates(self) -> int:
        """First updates, which do not wait for new experience."""
        return self.behavior_from + self.config.behavior_init

    @property
    def phase(self) -> str:
        return "world_model" if self.updates < self.behavior_from else "behaviour"

    def begin_with(self, step: int) -> None:
        self.behavior.target.load_state_dict(self.model.critic.state_dict())
        self.updates = min(step, self.initial_updates)

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """One update of all that is due now. Batches of log rows: image (B, T, H, W, 3) uint8 and
        proprio (B, T, P) where the model takes them, action (B, T, A), reward, is_first,
        is_terminal (B, T); optionally commanded (B, T, A) and demo (B, T) bool, which marks the
        rows whose commanded action is worth imitating.

        Raises FloatingPointError, before the step at fault, when a loss or gradient is not finite.
        """
        metrics: dict[str, float] = {}
        if "agent" in batches:
            batch = without_context(self.prepare(batches["agent"]), self.keep_resets)
            since = self.updates - self.behavior_from
            behaves = since >= 0 and since % self.config.behavior_every == 0
            if behaves and self.config.joint:
                metrics = self.update_jointly(batch)
            else:
                post, metrics = self.update_world_model(batch)
                if behaves:
                    metrics |= self.update_behavior(post, batch)
        self.updates += 1
        return metrics

    def update_world_model(self, batch: Mapping[str, Tensor]) -> tuple[RSSMState, dict[str, float]]:
        """One step on windows in arrival form; returns the posterior states for behaviour."""
        loss, post, metrics = self._world_model_loss(batch)
        return post, numbers(metrics) | self.optimizers["wm"].step(loss)

    def world_model_loss(
        self, features: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        """The loss, the posterior states and the terms of the loss; a family adds here the terms
        that need what the learner keeps between updates."""
        return self.model.dynamics.loss(features, batch, self.generator)

    def update_behavior(self, post: RSSMState, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step of actor and critic from one rollout of the just updated world model."""
        actor_loss, critic_loss, metrics = self._behavior_losses(post, post.feat.detach(), batch)
        result = numbers(metrics) | self.optimizers["actor"].step(actor_loss)
        result |= self.optimizers["critic"].step(critic_loss)
        self.behavior.update_target(self.model.critic)
        return result

    def update_jointly(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step of world model, actor and critic on the sum of their losses."""
        loss, metrics = self.joint_loss(batch)
        parts = [self.optimizers[name] for name in ("wm", "actor", "critic")]
        result = numbers(metrics) | minimise(loss, parts)
        self.behavior.update_target(self.model.critic)
        return result

    def joint_loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the losses of world model, actor and critic, and metrics."""
        loss, post, metrics = self._world_model_loss(batch)
        check_finite("wm/loss", float(loss.detach()))  # before the behaviour changes its scales
        actor_loss, critic_loss, more = self._behavior_losses(post, post.feat, batch)
        return loss + actor_loss + critic_loss, metrics | more

    def _world_model_loss(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, RSSMState, dict[str, Tensor]]:
        with self.autocast():
            return self.world_model_loss(self.model.features(batch), batch)

    def _behavior_losses(
        self, post: RSSMState, replayed: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Losses of actor and critic from one rollout, and metrics. ``replayed`` (B, T, F) are the
        features on which the critic learns from replayed rewards."""
        model, behavior, c = self.model, self.behavior, self.config.behavior
        with frozen(model.dynamics), self.autocast():
            trajectory = behavior.trajectory(
                model.imagination,
                model.actor,
                model.critic,
                post,
                batch["is_terminal"],
                self.generator,
            )
            behavior.update_scales(trajectory, model.critic)
            actor_loss, critic_loss, metrics = behavior.losses(
                model.actor, model.critic, trajectory
            )
            if c.imitation and "demo" in batch:
                loss = behavior.imitation_loss(model.actor, post, batch)
                actor_loss = actor_loss + c.imitation * loss
                metrics["ac/imitation_loss"] = loss
            if c.replay_value:
                gamma = model.dynamics.gamma
                loss = behavior.replay_loss(model.critic, replayed, batch, trajectory, gamma)
                critic_loss = critic_loss + c.replay_value * loss
                metrics["ac/replay_value_loss"] = loss
        return actor_loss, critic_loss, metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that decides the next update."""
        return {
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "behavior": self.behavior.state_dict(),
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.generator.set_state(state["generator"].cpu())
        self.behavior.load_state_dict(state["behavior"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    @property
    def keep_resets(self) -> bool:
        """See :func:`without_context`: do windows go on into the next episode by exception only?"""
        return self.config.sampling.per_episode or not self.config.sampling.join

    def prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log rows on the device, in arrival form."""
        return arrival({k: v.to(self.device, non_blocking=True) for k, v in batch.items()})

    def autocast(self) -> torch.autocast:
        """bfloat16 on CUDA; on CPU, where it is far slower than float32, nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Metrics as plain numbers."""
    return {k: float(v.detach()) for k, v in metrics.items()}
