"""Actor and critic trained in imagination (DreamerV2, MWM, APV, DreamerV3, MuDreamer)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_models.behaviors.imitation import likelihood_loss
from wm_models.behaviors.returns import ReturnScale, StreamNorm, lambda_return
from wm_models.errors import check_finite
from wm_models.interface.checked import Checked
from wm_models.interface.state import State, detach, flatten_time, index
from wm_models.nets.distributions import ActionDistribution
from wm_models.nets.freezing import frozen
from wm_models.nets.heads import Actor, Critic


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
    # What a value is of: "arrival" counts the reward of arriving in the state (DreamerV2:
    # V_k = r_k + d_k V_{k+1}), "next" what follows (DreamerV3: R_k = r_{k+1} + d_{k+1} R_{k+1});
    # with "next" the actor's objective is the advantage R_k - v_k.
    returns: str = "arrival"
    bootstrap: str = "slow"  # critic within returns: "slow", or "online" (DreamerV3)
    target: str = "copy"  # slow critic: a "copy" once in a while, or an "ema" (DreamerV3)
    target_every: int = 100  # critic updates between copies into the slow critic
    target_rate: float = 0.02  # share of the critic in each step of the "ema"
    slow_regularizer: float = 0.0  # weight of the loss towards the slow critic; 1 in DreamerV3
    # Does a state's own discount count in the weight of its losses, that of a replayed start as
    # predicted (DreamerV3, Nature)? Without, a start weighs 1.
    weigh_start: bool = False
    # weight of the critic's loss on returns of replayed rewards, which end in the returns imagined
    # from their last states; .3 in DreamerV3 (Nature)
    replay_value: float = 0.0
    imitation: float = 0.0  # weight of the likelihood of demonstrated actions in the actor's loss

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("target_every")
        check.whole("starts", low=0)
        check.number("lam", "mix", "reward_norm", "target_rate", low=0.0, high=1.0)
        check.number("entropy", "imitation", "slow_regularizer", "replay_value", low=0.0)
        check.choice("returns", ("arrival", "next"))
        # the last action changes no return of "arrival"
        check.whole("horizon", low=2 if self.returns == "arrival" else 1)
        check.choice("bootstrap", ("slow", "online"))
        check.choice("target", ("copy", "ema"))
        check.flag("detach_action", "return_norm", "weigh_start")
        if self.actor_grad not in ("dynamics", "reinforce", "both"):
            raise ValueError(
                f"behavior.actor_grad: got {self.actor_grad!r}, expected 'dynamics', 'reinforce' "
                "or 'both'."
            )
        if self.replay_value and self.returns != "next":
            check.refuse("replay_value", "0 with returns 'arrival'; use returns 'next'")
        if self.sample_gradient not in ("exact", "released"):
            raise ValueError(
                f"behavior.sample_gradient: got {self.sample_gradient!r}, expected 'exact' or "
                "'released'."
            )

    @property
    def pathwise(self) -> bool:
        """Do gradients pass through imagined steps? If not, they are taken without."""
        return self.actor_grad != "reinforce" or not self.detach_action


@dataclass(frozen=True)
class Imagination:
    """What imagining needs of a world model whose states have features ``feat`` (..., F).

    step: state, action (N, A) and generator -> next state. reward: features -> predicted rewards
    (...,). discount: features -> predicted discounts (...,) between 0 and 1; without, ``gamma``
    counts everywhere.
    """

    step: Callable[[State, Tensor, torch.Generator | None], State]
    reward: Callable[[Tensor], Tensor]
    discount: Callable[[Tensor], Tensor] | None
    gamma: float


class Imagined(NamedTuple):
    """A rollout of the actor: feat (H + 1, N, F), action (H, N, A), entropy (H, N)."""

    feat: Tensor
    action: Tensor
    entropy: Tensor


class Trajectory(NamedTuple):
    """A rollout of the actor with what the returns need, each (H + 1, N)."""

    rollout: Imagined
    reward: Tensor  # predicted, not normalised
    discount: Tensor
    value: Tensor  # of the critic that returns bootstrap from, for normalised rewards
    rows: Tensor  # (N,): which of the replayed states it starts from


class Behavior(nn.Module):
    """Learning of actor and critic, and its state between updates: slow critic and normalisers.

    One update: :meth:`trajectory`, :meth:`update_scales`, :meth:`losses`, the steps of both
    optimisers, :meth:`update_target`. Only the two updates write state.
    """

    updates: Tensor

    def __init__(self, critic: Critic, config: BehaviorConfig) -> None:
        super().__init__()
        self.config = config
        self.target = copy.deepcopy(critic).requires_grad_(False)
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
        self,
        world: Imagination,
        actor: Actor,
        state: State,
        generator: torch.Generator | None,
    ) -> Imagined:
        """Roll the actor through the prior for ``horizon`` steps; gradients reach the actor where
        its objective has any (``pathwise``)."""
        feats, actions, entropies = [state.feat], [], []
        with torch.set_grad_enabled(self.config.pathwise and torch.is_grad_enabled()):
            for _ in range(self.config.horizon):
                policy = actor(feats[-1].detach())
                action = policy.sample(generator, self.config.sample_gradient)
                state = world.step(state, action, generator)
                feats.append(state.feat)
                actions.append(action)
                entropies.append(policy.entropy())
        return Imagined(torch.stack(feats), torch.stack(actions), torch.stack(entropies))

    def trajectory(
        self,
        world: Imagination,
        actor: Actor,
        critic: Critic,
        post: State,
        terminal: Tensor,
        generator: torch.Generator | None,
    ) -> Trajectory:
        """Imagine from posterior states ``post``, leaves (B, T, ...). terminal (B, T) bool:
        the task ends at the state.

        Gradients pass through the world model, whose own weights must not require gradients
        meanwhile.
        """
        rows = self.start_rows(terminal.numel(), generator, terminal.device)
        start = detach(index(flatten_time(post), rows))
        rollout = self.imagine(world, actor, start, generator)
        bootstrap = critic if self.config.bootstrap == "online" else self.target
        with frozen(bootstrap):
            value = bootstrap.normalized(rollout.feat)
        return Trajectory(
            rollout,
            reward=world.reward(rollout.feat),
            discount=self._discount(world, rollout.feat, terminal.flatten()[rows]),
            value=value,
            rows=rows,
        )

    @torch.no_grad()
    def update_scales(self, trajectory: Trajectory, critic: Critic) -> None:
        """Update the normalisers of rewards and returns; the critic takes the scale of rewards.

        Raises FloatingPointError, before anything changes, where a reward is not finite.
        """
        check_finite("ac/reward", float(trajectory.reward.sum()))
        self.reward_norm.update(trajectory.reward)
        critic.scale.copy_(self.reward_norm.mag)
        if self.config.return_norm:
            self.return_scale.update(self._returns(trajectory))

    def losses(
        self, actor: Actor, critic: Critic, trajectory: Trajectory
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Actor and critic loss of a trajectory, and metrics."""
        c, rollout, discount = self.config, trajectory.rollout, trajectory.discount
        own = discount
        if not c.weigh_start:
            own = torch.cat([torch.ones_like(discount[:1]), discount[:-1]])
        weight = torch.cumprod(own, 0).detach()
        returns = self._returns(trajectory)  # (H, N)
        scale = self.return_scale.divisor if c.return_norm else returns.new_ones(())
        count = len(returns) - (c.returns == "arrival")  # of states whose action changes a return
        policy = None if c.actor_grad == "dynamics" else actor(rollout.feat[:count].detach())
        objective = self._objective(policy, rollout, returns / scale, trajectory.value / scale)
        entropy = rollout.entropy[:count] if c.pathwise or policy is None else policy.entropy()
        actor_loss = -(weight[:count] * (objective + c.entropy * entropy)).mean()
        feat = rollout.feat[:-1].detach()
        critic_loss = (weight[:-1] * self._critic_loss(critic, feat, returns.detach())).mean()
        metrics = {
            "ac/actor_loss": actor_loss,
            "ac/critic_loss": critic_loss,
            "ac/return": returns.mean(),
            "ac/reward": self.reward_norm(trajectory.reward).mean(),
            "ac/entropy": rollout.entropy.mean(),
            "ac/action_abs": rollout.action.abs().mean(),
        }
        return actor_loss, critic_loss, metrics

    def replay_loss(
        self,
        critic: Critic,
        feat: Tensor,
        batch: Mapping[str, Tensor],
        trajectory: Trajectory,
        gamma: float,
    ) -> Tensor:
        """The critic's loss at replayed states, on lambda-returns of their own rewards.

        feat (B, T, F), of the posterior states, passes gradients. ``batch`` (B, T) in arrival form.
        Returns go on from the return imagined from a state, or its value where none was, at the
        end of a window and of an episode.
        """
        c = self.config
        last = batch["is_last"].bool().clone()
        last[:, :-1] |= batch["is_first"][:, 1:]  # a recording may stop without an end
        with torch.no_grad():
            end = (critic if c.bootstrap == "online" else self.target).normalized(feat)
            imagined = self._returns(trajectory)[0]
            end = end.flatten().scatter(0, trajectory.rows, imagined).view_as(end)
            reward = self.reward_norm(batch["reward"])
            live = gamma * (~batch["is_terminal"]).float()
            keep = c.lam * (~last).float()
            returns = [end[:, -1]]
            for t in range(end.shape[1] - 1, 0, -1):
                ahead = (1.0 - keep[:, t]) * end[:, t] + keep[:, t] * returns[-1]
                returns.append(reward[:, t] + live[:, t] * ahead)
            target = torch.stack(returns[:0:-1], 1)  # (B, T - 1)
        feat = feat[:, :-1]
        loss = self._critic_loss(critic, feat, target)
        return ((~last[:, :-1]).float() * loss).mean()

    def _critic_loss(self, critic: Critic, feat: Tensor, returns: Tensor) -> Tensor:
        """Loss (...,) of ``returns`` (...,) at features (..., F), with the regulariser towards the
        slow critic where there is one."""
        c = self.config
        if not c.slow_regularizer:
            return critic.loss(feat, returns)
        loss, slow = critic.losses(feat, returns, self.target.normalized(feat.detach()))
        return loss + c.slow_regularizer * slow

    def _returns(self, trajectory: Trajectory) -> Tensor:
        """Lambda-returns (H, N) of normalised rewards."""
        reward, discount = self.reward_norm(trajectory.reward), trajectory.discount
        if self.config.returns == "next":
            reward, discount = _next(reward), _next(discount)
        return lambda_return(reward, discount, trajectory.value, self.config.lam)

    def _objective(
        self,
        policy: ActionDistribution | None,
        rollout: Imagined,
        returns: Tensor,
        value: Tensor,
    ) -> Tensor:
        """The actor's objective at each imagined state whose action changes a return: (H, N) of
        "next", (H - 1, N) of "arrival". ``policy``: at these states; "dynamics" needs none."""
        c = self.config
        if c.returns == "next":
            advantage = returns - value[:-1]
            pathwise = advantage
        else:
            advantage, pathwise = returns[1:] - value[:-2], returns[1:]
        if policy is None:
            return pathwise
        action = rollout.action[: len(advantage)]
        log_prob = policy.log_prob(action.detach() if c.detach_action else action)
        reinforce = log_prob * advantage.detach()
        if c.actor_grad == "reinforce":
            return reinforce
        return c.mix * pathwise + (1 - c.mix) * reinforce

    def _discount(self, world: Imagination, feat: Tensor, ended: Tensor) -> Tensor:
        """Discounts d_k (H + 1, N): gamma, or the discount head's; true ones at replayed states,
        but with ``weigh_start``."""
        if world.discount is None:
            return torch.full(feat.shape[:2], world.gamma, device=feat.device)
        if self.config.weigh_start:
            return world.discount(feat)
        return torch.cat([world.gamma * (~ended).float()[None], world.discount(feat[1:])])

    def imitation_loss(self, actor: Actor, post: State, batch: Mapping[str, Tensor]) -> Tensor:
        """Loss of demonstrated actions (B, T); weights of the world model are left alone.

        Keeps a policy near demonstrations while reward improves it (MoDem; DAPG).
        """
        return likelihood_loss(actor(post.feat.detach()), batch)

    @torch.no_grad()
    def update_target(self, critic: Critic) -> None:
        """Move the slow critic: a copy at updates 0, target_every, 2 target_every, ..., or a step
        of the exponential moving average."""
        if self.config.target == "ema":
            pairs = zip(self.target.parameters(), critic.parameters(), strict=True)
            for slow, parameter in pairs:
                slow.lerp_(parameter, self.config.target_rate)
        elif int(self.updates) % self.config.target_every == 0:
            self.target.load_state_dict(critic.state_dict())
        self.updates += 1


def _next(x: Tensor) -> Tensor:
    """Each step's successor (H + 1, N); the last, which has none, is never used."""
    return torch.cat([x[1:], x[-1:]])
