"""What makes a plan good or bad: costs [B, S] of imagined candidates, lower is better.

Costs add up and scale: ``ReturnCost() + 0.1 * ActionPenalty()``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from wm_models.errors import ModelError
from wm_models.interface.checked import Checked
from wm_models.interface.planner import Cost
from wm_models.interface.world_model import SCALARS, Rollout

METRICS = ("mse", "l1", "cos")
REDUCTIONS = ("last", "all")


class Summable:
    """Arithmetic of costs: sums, and products with a number."""

    def __add__(self, other: Cost) -> Sum:
        return Sum((*_terms(self), *_terms(other)))  # type: ignore[arg-type]

    def __mul__(self, weight: float) -> Sum:
        return Sum(tuple((w * weight, cost) for w, cost in _terms(self)))  # type: ignore[arg-type]

    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum(Summable):
    """Weighted sum of costs."""

    terms: tuple[tuple[float, Cost], ...]

    @property
    def needs(self) -> frozenset[str]:
        needs = [cost.needs for _, cost in self.terms]
        looking = [names for names in needs if names - SCALARS]  # at features
        whole = any("last" not in names for names in looking)
        return frozenset().union(*needs) - ({"last"} if whole else set())

    @property
    def optional(self) -> frozenset[str]:
        return frozenset().union(*(getattr(c, "optional", frozenset()) for _, c in self.terms))

    @property
    def goal(self) -> bool:
        return any(getattr(cost, "goal", False) for _, cost in self.terms)

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        return torch.stack([w * cost(rollout, goal, actions) for w, cost in self.terms]).sum(0)


@dataclass(frozen=True)
class ReturnCost(Summable):
    """Minus the imagined return.

    J = -(sum_t gamma^t p_t r_t + gamma^H p_H value), p_t the product of the continuation
    probabilities of the steps before t (1 where the model predicts none).
    """

    gamma: float = 0.99
    use_value: bool = True

    optional = frozenset({"cont"})

    def __post_init__(self) -> None:
        check = Checked(self)
        check.number("gamma", low=0.0, high=1.0)
        check.flag("use_value")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "value"} if self.use_value else {"reward"})

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        reward = _have(rollout.reward, "reward", self)  # (B, S, H)
        steps = reward.shape[-1]
        weight = reward.new_tensor([-(self.gamma**t) for t in range(steps + 1)])  # (H + 1)
        if rollout.cont is not None:
            alive = rollout.cont.cumprod(-1)  # (B, S, H), after each step
            weight = weight * torch.cat([torch.ones_like(alive[..., :1]), alive], -1)
        cost = (weight[..., :-1] * reward).sum(-1)
        if self.use_value:
            cost = cost + weight[..., -1] * _have(rollout.value, "value", self)
        return cost


@dataclass(frozen=True)
class GoalCost(Summable):
    """Distance of imagined features to those of a goal.

    Of each key in ``keys`` (name -> weight) the distance is averaged over everything but B, S and
    H: squared ("mse"), absolute ("l1") or one minus the cosine over the last dimension ("cos").
    ``reduce`` "last" counts the last step alone, "all" each step i with weight base^i / sum base^j.
    """

    metric: str = "mse"
    keys: Mapping[str, float] = field(default_factory=lambda: {"visual": 1.0})
    reduce: str = "last"
    base: float = 2.0

    goal = True

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ModelError(
                f"GoalCost.metric: got {self.metric!r}, expected one of {', '.join(METRICS)}."
            )
        check = Checked(self)
        check.choice("reduce", REDUCTIONS)
        check.number("base", low=0.0, open_ends="low")
        if not self.keys:
            raise ModelError("GoalCost.keys: got none, expected at least one feature name.")
        if not all(math.isfinite(weight) for weight in self.keys.values()):
            check.refuse("keys", "finite weights")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.keys) | ({"last"} if self.reduce == "last" else set())

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        if goal is None:
            raise ModelError("GoalCost: got no goal, expected goal=model.encode_goal(...).")
        return torch.stack(
            [w * self._distance(name, rollout, goal) for name, w in self.keys.items()]
        ).sum(0)

    def _distance(self, name: str, rollout: Rollout, goal: Mapping[str, Tensor]) -> Tensor:
        """Distance [B, S] in one feature."""
        if name not in rollout.feat or name not in goal:
            raise ModelError(
                f"GoalCost.keys: {name!r} must be in rollout and goal; the rollout has "
                f"{sorted(rollout.feat)}, the goal has {sorted(goal)}."
            )
        feat, aim = rollout.feat[name], goal[name][:, None, None]  # (B, S, H, ...), (B, 1, 1, ...)
        if self.reduce == "last":
            feat = feat[:, :, -1:]
        if feat.shape[3:] != aim.shape[3:] or feat.shape[0] != aim.shape[0]:
            raise ModelError(
                f"GoalCost: goal {name!r}: got shape {tuple(goal[name].shape)}, expected "
                f"{(feat.shape[0], *feat.shape[3:])} as the model imagines it."
            )
        each = self._metric(feat, aim).flatten(3).mean(-1)  # (B, S, H) or (B, S, 1)
        step = torch.arange(each.shape[-1], device=each.device, dtype=each.dtype)
        weight = self.base ** (step - step[-1])
        return (each * (weight / weight.sum())).sum(-1)

    def _metric(self, feat: Tensor, aim: Tensor) -> Tensor:
        if self.metric == "cos":
            return 1.0 - F.cosine_similarity(feat, aim, dim=-1).unsqueeze(-1)
        difference = feat - aim
        return (difference.square() if self.metric == "mse" else difference.abs()).unsqueeze(-1)


@dataclass(frozen=True)
class ActionPenalty(Summable):
    """Mean squared action, and mean squared change from one action to the next (``rate``)."""

    weight: float = 1.0
    rate: float = 0.0

    needs = frozenset[str]()

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        cost = self.weight * actions.square().mean((-2, -1))
        if self.rate and actions.shape[2] > 1:
            cost = cost + self.rate * actions.diff(dim=2).square().mean((-2, -1))
        return cost


@dataclass(frozen=True)
class BoxPenalty(Summable):
    """Mean squared distance of actions to a box [A], narrower than the model's own."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    weight: float = 1.0

    needs = frozenset[str]()

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        low, high = actions.new_tensor(self.low), actions.new_tensor(self.high)
        outside = actions - actions.clamp(low, high)
        return self.weight * outside.square().mean((-2, -1))


@dataclass(frozen=True)
class DisagreementPenalty(Summable):
    """Mean disagreement of the model's ensemble along the plan: stay where the model is sure."""

    weight: float = 1.0

    needs = frozenset({"disagreement"})

    def __call__(
        self, rollout: Rollout, goal: Mapping[str, Tensor] | None, actions: Tensor
    ) -> Tensor:
        return self.weight * _have(rollout.disagreement, "disagreement", self).mean(-1)


def _terms(cost: Cost) -> tuple[tuple[float, Cost], ...]:
    return cost.terms if isinstance(cost, Sum) else ((1.0, cost),)


def _have(value: Tensor | None, name: str, cost: Cost) -> Tensor:
    if value is None:
        raise ModelError(f"{type(cost).__name__}: the rollout holds no {name}; ask for it.")
    return value
