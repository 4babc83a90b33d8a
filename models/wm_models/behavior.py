"""Actor and critic trained in imagination (DreamerV2; MWM, appendix A)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_models.demonstrations import likelihood_loss
from wm_models.heads import Actor, Critic
from wm_models.interface import check_finite, detach
from wm_models.mwm import MaskedWorldModel
from wm_models.rssm import RSSMState


@dataclass(frozen=True)
class BehaviorConfig:
    """Imagination, returns and losses of actor and critic. The defaults are MWM's on Meta-World."""

    horizon: int = 15  # imagined steps
    starts: int = 0  # replayed states to start from, drawn uniformly; 0 takes all
    lam: float = 0.95  # lambda of the lambda-return
    entropy: float = 1e-4  # weight of the actor's entropy
    actor_grad: str = "dynamics"  # "dynamics", "reinforce" or "both"
    mix: float = 0.1  # share of "dynamics" in "both"
    sample_gradient: str = "released"  # of the actor's samples; see TruncatedNormal.sample
    # Does the action inside log pi of "reinforce" and "both" pass no gradient? The release of MWM
    # lets it pass, which adds a pathwise term; that of DreamerV2 does so for "both" only.
    detach_action: bool = False
    reward_norm: float = 0.99  # momentum of the reward normaliser; 1 turns it off
    return_norm: bool = False  # divide by the 5..95 percentile range of returns (DreamerV3)
    target_every: int = 100  # critic updates between copies into the slow critic
    imitation: float = 0.0  # weight of the likelihood of demonstrated actions in the actor's loss

    def __post_init__(self) -> None:
        if self.actor_grad not in ("dynamics", "reinforce", "both"):
            raise ValueError(
                "behavior.actor_grad: expected 'dynamics', 'reinforce' or 'both', "
                f"got {self.actor_grad!r}."
            )
        if self.sample_gradient not in ("exact", "released"):
            raise ValueError(
                "behavior.sample_gradient: expected 'exact' or 'released', "
                f"got {self.sample_gradient!r}."
            )


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float) -> Tensor:
    """V_k = r_k + d_k ((1 - lam) v_{k+1} + lam V_{k+1}), V_H = v_H; inputs (H + 1, N) -> (H, N)."""
    last = value[-1]
    out = []
    for k in range(reward.shape[0] - 2, -1, -1):
        last = reward[k] + discount[k] * ((1.0 - lam) * value[k + 1] + lam * last)
        out.append(last)
    return torch.stack(out[::-1])


class StreamNorm(nn.Module):
    """Running mean of |r|, by which imagined rewards are divided."""

    mag: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mag", torch.ones(()))

    def forward(self, reward: Tensor) -> Tensor:
        if self.momentum < 1.0:
            self.mag.lerp_(reward.detach().abs().mean(), 1.0 - self.momentum)
        return reward / (self.mag + 1e-8)


class ReturnScale(nn.Module):
    """Running range between the 5th and 95th percentile of returns, at least 1 (DreamerV3)."""

    range: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("range", torch.zeros(()))

    def forward(self, returns: Tensor) -> Tensor:
        low, high = torch.quantile(returns.detach().flatten(), returns.new_tensor([0.05, 0.95]))
        self.range.lerp_(high - low, 1.0 - self.momentum)
        return self.range.clamp_min(1.0)


class Imagined(NamedTuple):
    """A rollout of the actor: feat (H + 1, N, F), action (H, N, A), entropy (H, N)."""

    feat: Tensor
    action: Tensor
    entropy: Tensor


class Behavior(nn.Module):
    """Losses of actor and critic; holds what they carry between updates."""

    updates: Tensor

    def __init__(self, model: MaskedWorldModel, config: BehaviorConfig) -> None:
        super().__init__()
        self.config = config
        self.target = copy.deepcopy(model.critic).requires_grad_(False)
        self.reward_norm = StreamNorm(config.reward_norm)
        self.return_scale = ReturnScale()
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def start_rows(
        self, count: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        """Which of ``count`` replayed states to start from."""
        rows = torch.arange(count, device=device)
        if not self.config.starts or self.config.starts >= count:
            return rows
        return torch.randperm(count, generator=generator, device=device)[: self.config.starts]

    def imagine(
        self, model: MaskedWorldModel, state: RSSMState, generator: torch.Generator | None
    ) -> Imagined:
        """Roll the actor through the prior for ``horizon`` steps; gradients reach the actor."""
        feats, actions, entropies = [state.feat], [], []
        for _ in range(self.config.horizon):
            policy = model.actor(feats[-1].detach())
            action = policy.sample(generator, self.config.sample_gradient)
            state = model.dynamics.rssm.imagine(state, action, generator)
            feats.append(state.feat)
            actions.append(action)
            entropies.append(policy.entropy())
        return Imagined(torch.stack(feats), torch.stack(actions), torch.stack(entropies))

    def losses(
        self,
        model: MaskedWorldModel,
        post: RSSMState,
        terminal: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Actor and critic loss from one imagined rollout. terminal (B, T): is the start an end?

        The gradient of the actor's loss passes through the world model, whose own weights must not
        require gradients meanwhile.
        """
        c = self.config
        rows = self.start_rows(terminal.numel(), generator, terminal.device)
        start = RSSMState(post.deter.flatten(0, 1)[rows], post.stoch.flatten(0, 1)[rows])
        rolled = self.imagine(model, detach(start), generator)
        reward = model.dynamics.reward.predict(rolled.feat)  # (H + 1, N)
        check_finite(
            "ac/reward", float(reward.detach().sum())
        )  # before any running mean takes it in
        reward = self.reward_norm(reward)
        model.critic.scale.copy_(self.reward_norm.mag)
        discount = self._discount(model, rolled.feat, terminal.flatten()[rows])
        weight = torch.cumprod(
            torch.cat([torch.ones_like(discount[:1]), discount[:-1]]), 0
        ).detach()
        value = self.target(rolled.feat)
        returns = lambda_return(reward, discount, value, c.lam)  # (H, N)

        scale = self.return_scale(returns) if c.return_norm else returns.new_ones(())
        objective = self._objective(model.actor, rolled, returns / scale, value / scale)
        actor_loss = -(weight[:-2] * (objective + c.entropy * rolled.entropy[:-1])).mean()
        critic_loss = (
            weight[:-1] * model.critic.loss(rolled.feat[:-1].detach(), returns.detach())
        ).mean()
        metrics = {
            "ac/actor_loss": actor_loss,
            "ac/critic_loss": critic_loss,
            "ac/return": returns.mean(),
            "ac/reward": reward.mean(),
            "ac/entropy": rolled.entropy.mean(),
            "ac/action_abs": rolled.action.abs().mean(),
        }
        return actor_loss, critic_loss, metrics

    def _objective(self, actor: Actor, rolled: Imagined, returns: Tensor, value: Tensor) -> Tensor:
        """What the actor maximises at each imagined state but the last: (H - 1, N)."""
        c = self.config
        if c.actor_grad == "dynamics":
            return returns[1:]
        advantage = (returns[1:] - value[:-2]).detach()
        policy = actor(rolled.feat[:-2].detach())
        action = rolled.action[:-1].detach() if c.detach_action else rolled.action[:-1]
        reinforce = policy.log_prob(action) * advantage
        return (
            reinforce
            if c.actor_grad == "reinforce"
            else c.mix * returns[1:] + (1 - c.mix) * reinforce
        )

    def _discount(self, model: MaskedWorldModel, feat: Tensor, ended: Tensor) -> Tensor:
        """d_k (H + 1, N): gamma, or what the discount head says; of replayed states the truth."""
        gamma = model.config.gamma
        if model.dynamics.discount is None:
            return torch.full(feat.shape[:2], gamma, device=feat.device)
        imagined = torch.sigmoid(model.dynamics.discount(feat[1:]))
        return torch.cat([gamma * (~ended).float()[None], imagined])

    def imitation_loss(self, actor: Actor, post: RSSMState, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of demonstrated actions (B, T); weights of the world model are left alone.

        Keeps a policy near demonstrations while reward improves it (MoDem; DAPG).
        """
        return likelihood_loss(actor(post.feat.detach()), batch)

    def after_critic_step(self, critic: Critic) -> None:
        """Copy the critic into the slow critic at updates 0, target_every, 2 target_every, ..."""
        if int(self.updates) % self.config.target_every == 0:
            self.target.load_state_dict(critic.state_dict())
        self.updates += 1
