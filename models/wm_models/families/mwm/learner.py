"""Training of Masked World Models: the schedule of updates and each of them (appendix D)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.behaviors.actor_critic import Behavior, BehaviorConfig
from wm_models.families.mwm.model import MaskedWorldModel
from wm_models.interface.checked import Checked
from wm_models.interface.learner import BatchSpec, arrival, without_context
from wm_models.interface.preset import Sampling
from wm_models.nets.optimizer import Optimizer, OptimizerConfig, keras_adam
from wm_models.nets.rssm import RSSMState

FIELDS = frozenset(
    {"image", "action", "commanded", "reward", "is_first", "is_last", "is_terminal", "demo"}
)


@dataclass(frozen=True)
class LearnerConfig:
    """How the parts are trained. The defaults are MWM's on Meta-World.

    A window has one row more than is learned from: its first row is there for the action and the
    reward of the second.
    """

    autoencoder_batch: BatchSpec = field(default_factory=lambda: BatchSpec(32, 33))
    agent_batch: BatchSpec = field(default_factory=lambda: BatchSpec(50, 51))
    autoencoder: OptimizerConfig = field(
        default_factory=lambda: keras_adam(3e-4, warmup=2500, decay_all=True)
    )
    world_model: OptimizerConfig = field(default_factory=lambda: keras_adam(3e-4))
    actor: OptimizerConfig = field(default_factory=lambda: keras_adam(1e-4))
    critic: OptimizerConfig = field(default_factory=lambda: keras_adam(1e-4))
    behavior: BehaviorConfig = field(default_factory=BehaviorConfig)
    autoencoder_init: int = 5000  # first updates, of the autoencoder alone
    world_model_init: int = 0  # then updates of autoencoder and world model, without behaviour
    autoencoder_every: int = 1  # afterwards, one autoencoder update per this many updates
    behavior_every: int = 1  # after its start, one update of actor and critic per this many
    prefill: int = 5000  # random steps before training starts
    train_every: int = 5  # agent steps per update once all parts are training
    sampling: Sampling = field(default_factory=lambda: Sampling(per_episode=True, ends=50))

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("autoencoder_every", "behavior_every", "train_every")
        check.whole("autoencoder_init", "world_model_init", "prefill", low=0)
        for name in ("autoencoder_batch", "agent_batch"):
            length = getattr(self, name).length
            if length < 2:
                raise ValueError(
                    f"learner.{name}.length: got {length}, expected the rows to learn from and "
                    "one more, 2 or more."
                )


class MWMLearner:
    """Owns the optimisers, the slow critic, the normalisers and the random generator.

    One :meth:`update` is a function of the weights, this object's :meth:`state_dict` and the
    batches alone: equal inputs give equal weights, bit for bit on CPU.
    """

    def __init__(
        self,
        model: MaskedWorldModel,
        config: LearnerConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.config = config
        self.fields = FIELDS
        self.behavior = Behavior(model.critic, config.behavior).to(self.device)
        self.updates = 0
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.optimizers = {
            "ae": Optimizer("ae", [model.autoencoder], config.autoencoder),
            "wm": Optimizer("wm", [model.dynamics], config.world_model),
            "actor": Optimizer("actor", [model.actor], config.actor),
            "critic": Optimizer("critic", [model.critic], config.critic),
        }

    @property
    def batch_specs(self) -> Mapping[str, BatchSpec]:
        """The batches of log rows that the next :meth:`update` needs."""
        c, u = self.config, self.updates
        specs = {}
        if u < c.autoencoder_init or (u - c.autoencoder_init) % c.autoencoder_every == 0:
            specs["autoencoder"] = c.autoencoder_batch
        if u >= c.autoencoder_init:
            specs["agent"] = c.agent_batch
        return specs

    @property
    def initial_updates(self) -> int:
        """Updates that precede behaviour learning; they do not wait for new experience."""
        return self.config.autoencoder_init + self.config.world_model_init

    @property
    def phase(self) -> str:
        if self.updates < self.config.autoencoder_init:
            return "autoencoder"
        return "world_model" if self.updates < self.initial_updates else "behaviour"

    def begin_with(self, step: int) -> None:
        self.behavior.target.load_state_dict(self.model.critic.state_dict())
        self.updates = min(step, self.initial_updates)

    def update(self, batches: Mapping[str, Mapping[str, Tensor]]) -> dict[str, float]:
        """One update of all that is due now. Batches of log rows: image (B, T, H, W, 3) uint8,
        action (B, T, A), reward, is_first, is_terminal (B, T); optionally commanded (B, T, A) and
        demo (B, T) bool, which marks the rows whose commanded action is worth imitating.

        Raises FloatingPointError, before the step at fault, when a loss or gradient is not finite.
        """
        metrics: dict[str, float] = {}
        if "autoencoder" in batches:
            metrics |= self.update_autoencoder(batches["autoencoder"])
        if "agent" in batches:
            batch = without_context(self._prepare(batches["agent"]), self._keep_resets)
            post, more = self.update_world_model(batch)
            metrics |= more
            since = self.updates - self.initial_updates
            if since >= 0 and since % self.config.behavior_every == 0:
                metrics |= self.update_behavior(post, batch)
        self.updates += 1
        return metrics

    def update_autoencoder(self, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step on single frames with the reward received on arriving at them.

        Reset frames are among them, with reward 0. All rows of a log are seen equally often as far
        as they are second in a window equally often, or first and a reset frame.
        """
        rows = self._prepare(batch)
        known = rows["reward_known"]
        known[:, 0] &= self._keep_resets
        rows = {name: value[known] for name, value in rows.items()}
        with self._autocast():
            loss, metrics = self.model.autoencoder.loss(rows, self.generator)
        return _numbers(metrics) | self.optimizers["ae"].step(loss)

    def update_world_model(self, batch: Mapping[str, Tensor]) -> tuple[RSSMState, dict[str, float]]:
        """One step on windows in arrival form; returns the posterior states for behaviour."""
        with self._autocast():
            loss, post, metrics = self.model.dynamics.loss(
                self.tokens(batch["image"]), batch, self.generator
            )
        return post, _numbers(metrics) | self.optimizers["wm"].step(loss)

    def update_behavior(self, post: RSSMState, batch: Mapping[str, Tensor]) -> dict[str, float]:
        """One step of actor and critic from one rollout of the just updated world model."""
        model, behavior = self.model, self.behavior
        with frozen(model.dynamics), self._autocast():
            trajectory = behavior.trajectory(
                model.imagination, model.actor, post, batch["is_terminal"], self.generator
            )
            behavior.update_scales(trajectory, model.critic)
            actor_loss, critic_loss, metrics = behavior.losses(
                model.actor, model.critic, trajectory
            )
            if self.config.behavior.imitation and "demo" in batch:
                loss = behavior.imitation_loss(model.actor, post, batch)
                actor_loss = actor_loss + self.config.behavior.imitation * loss
                metrics["ac/imitation_loss"] = loss
            numbers = _numbers(metrics) | self.optimizers["actor"].step(actor_loss)
        numbers |= self.optimizers["critic"].step(critic_loss)
        behavior.update_target(model.critic)
        return numbers

    def tokens(self, image: Tensor) -> Tensor:
        """Frozen autoencoder tokens (B, T, N, D) of images (B, T, H, W, 3)."""
        with torch.no_grad():
            flat = self.model.autoencoder.encode(image.flatten(0, 1))
        tokens: Tensor = flat.unflatten(0, image.shape[:2]).float()
        return tokens

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
    def _keep_resets(self) -> bool:
        """See :func:`without_context`: do windows go on into the next episode by exception only?"""
        return self.config.sampling.per_episode or not self.config.sampling.join

    def _prepare(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return arrival({k: v.to(self.device, non_blocking=True) for k, v in batch.items()})

    def _autocast(self) -> torch.autocast:
        """bfloat16 on CUDA; on CPU, where it is far slower than float32, nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``module`` without reaching its own weights."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in metrics.items()}
