"""The loop that CEM and MPPI share: draw candidates, imagine, score, refit, while there is time.

A candidate with a cost or an action that is not finite is never an elite and has no weight. Where
no candidate at all has a finite cost there is no plan: :class:`PlanRefused`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wm_models.errors import ModelError, PlanRefused
from wm_models.interface.checked import Checked, PerDim, checked_budget
from wm_models.interface.planner import Cost, PlanState
from wm_models.interface.state import State, expand, leading
from wm_models.interface.world_model import WorldModel

_REFUSED = float("inf")  # the cost of a candidate that must not be chosen


@dataclass(frozen=True, kw_only=True)
class Search:
    """Population search over action sequences [B, S, H, A] with a diagonal normal per step.

    Subclasses refit the normal to the elites. Candidate 0 of each iteration is the mean itself
    (``include_mean``), so that the start is scored and nothing worse than it is returned. Every
    search begins with the width ``sigma0``; a warm start gives the mean alone, and is forgotten in
    batch rows with another goal.
    """

    horizon: int = 6  # H, model steps
    samples: int = 64  # S, candidates per iteration
    elites: int = 8  # K, the best candidates, to which the normal is refitted
    iterations: int = 3
    sigma0: PerDim = 0.5  # width at the start, in action units
    sigma_min: PerDim = 0.05  # the width never falls below
    sigma_max: PerDim = float("inf")
    n_policy: int = 0  # candidates drawn from the model's actor, the same in every iteration
    include_mean: bool = True
    clip: bool = True  # keep candidates within the model's box
    free_dims: tuple[bool, ...] | None = None  # False: this dimension stays as it starts
    repeats: int = 1  # imaginations per candidate whose mean counts; for stochastic models
    chunk: int | None = None  # candidates imagined at once (memory)
    output: str = "mean"  # which plan is returned, see `outputs`
    explore: bool = False  # add noise of the final width to the first action

    # mean: the last mean, unless an earlier one cost less. last: the last mean, as released with
    # DINO-WM. best: the cheapest candidate or mean.
    outputs: ClassVar[tuple[str, ...]] = ("mean", "last", "best")

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("horizon", "samples", "elites", "iterations", "repeats")
        check.whole("n_policy", low=0)
        check.flag("include_mean", "clip", "explore")
        check.choice("output", self.outputs)
        if self.chunk is not None:
            check.whole("chunk")
        if self.elites > self.samples:
            check.refuse("elites", f"at most samples ({self.samples})")
        room = self.samples - self.include_mean
        if self.n_policy > room:
            check.refuse("n_policy", f"between 0 and {room}")
        check.per_dim("sigma0", "sigma_min")
        check.per_dim("sigma_max", infinite=True)
        if any(low > high for low, high in _pairs(self.sigma_min, self.sigma_max)):
            check.refuse("sigma_min", f"at most sigma_max ({self.sigma_max})")
        free = self.free_dims
        if free is not None and not (isinstance(free, tuple) and any(free)):
            check.refuse("free_dims", "None, or a tuple with at least one True")

    @torch.inference_mode()
    def plan(
        self,
        model: WorldModel,
        state: State,
        cost: Cost,
        goal: Mapping[str, Tensor] | None = None,
        warm: PlanState | None = None,
        budget_s: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, PlanState, dict[str, Tensor]]:
        """Actions [B, H, A], the refitted mean as the next start, and facts.

        At least one iteration is run, whatever ``budget_s``: otherwise there is no plan. Another
        one, and the scoring of the last mean, are run only if they are expected to end in time,
        judged by the longest iteration so far. Where the last mean is not scored, the cheapest
        candidate is returned.

        Info: "cost" [B] of the plan, "start_cost" [B] of the first candidate (with ``include_mean``
        the mean at the start), "best_cost" [iterations, B] seen so far, "std" [B] after the search,
        "iterations" [], "approximate" [] bool, "floor_s" [] seconds of the first iteration, the
        least that a plan takes. PlanRefused where no candidate of a row has a finite cost.
        """
        deadline = Deadline(budget_s, leading(state).device)
        score = Scorer(
            model, state, cost, goal,
            horizon=self.horizon, repeats=self.repeats, chunk=self.chunk,
        )  # fmt: skip
        mean, std = self._start(model, state, warm, goal)
        proposals = policy_candidates(model, state, self, mean, generator)
        box = model.spec.bounds(mean) if self.clip else None
        means, cheapest = Best(), Best()
        history: list[Tensor] = []
        for _ in range(self.iterations):
            actions = self._draw(mean, std, proposals, box, generator)
            costs = score(actions, generator)
            if self.include_mean:
                means.update(actions[:, 0], costs[:, 0])
            if not history:
                start_cost = costs[:, 0]
            elite_cost, rows = costs.topk(self.elites, 1, largest=False)  # the cheapest first
            elites = take(actions, rows)  # (B, K, H, A)
            cheapest.update(elites[:, 0], elite_cost[:, 0])
            history.append(cheapest.cost)
            mean, std = self._refitted(elites, elite_cost, mean, std)
            deadline.lap()
            if not deadline.room_for(1 + self._scores_last):
                break
        if not bool(cheapest.cost.isfinite().all()):
            raise no_finite_plan(self, len(history) * self.samples, cheapest.cost)
        if self._scores_last and not deadline.room_for(1):
            plan, plan_cost = cheapest.plan, cheapest.cost
        else:
            if self._scores_last:
                last = mean if box is None else mean.clamp(*box)
                last_cost = score(last[:, None], generator)[:, 0]
                means = Best() if self.output == "last" else means
                for best in (means, cheapest):
                    best.update(last, last_cost)
            plan, plan_cost = self._choose(means, cheapest, elites, elite_cost, generator)
        plan, plan_cost = cheapest.unless_finite(plan, plan_cost)
        info = {
            "cost": plan_cost,
            "start_cost": start_cost,
            "best_cost": torch.stack(history),
            "std": std.mean((1, 2)),
            "iterations": torch.tensor(len(history)),
            "approximate": torch.tensor(score.approximate),
            "floor_s": torch.tensor(deadline.first),
        }
        return self._explored(plan, std, box, generator), PlanState(mean, goal), info

    # for subclasses ------------------------------------------------------------------------

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and std [B, H, A] from elites [B, K, H, A] and their costs [B, K]; those that cost
        inf have no weight."""
        raise NotImplementedError

    @property
    def _scores_last(self) -> int:
        """Whether the last mean is scored, after the last iteration: 1 or 0."""
        return 1

    def _choose(
        self,
        means: Best,
        cheapest: Best,
        elites: Tensor,
        elite_cost: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """The plan [B, H, A] and its cost [B]."""
        best = cheapest if self.output == "best" else means
        return best.plan, best.cost

    # the parts of the loop -----------------------------------------------------------------

    def _start(
        self,
        model: WorldModel,
        state: State,
        warm: PlanState | None,
        goal: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        like, size = leading(state), model.spec.action_dim
        low, high = model.spec.bounds(like)
        zero = torch.zeros(like.shape[0], self.horizon, size, device=like.device)
        std = per_dim(self.sigma0, zero, "sigma0").expand_as(zero)
        mean = start_mean(warm, goal, zero)
        return (mean.clamp(low, high) if self.clip else mean), self._bounded(std)

    def _bounded(self, std: Tensor) -> Tensor:
        """The width within its floor and ceiling, and 0 in dimensions that are not free."""
        low, high = self.sigma_min, self.sigma_max
        if isinstance(low, tuple) or isinstance(high, tuple):
            std = std.clamp(per_dim(low, std, "sigma_min"), per_dim(high, std, "sigma_max"))
        else:
            std = std.clamp(low, high)
        if self.free_dims is None:
            return std
        return std * per_dim(tuple(map(float, self.free_dims)), std, "free_dims")

    def _refitted(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The normal refitted to the elites of finite cost, all others cost inf. Without any it
        stays; one among several says nothing of the width, which then stays too. Dimensions that
        are not free are held."""
        count = (cost < _REFUSED).sum(1)[:, None, None]
        new_mean, new_std = self._refit(elites, cost, mean, std)
        new_mean = torch.where(count > 0, new_mean, mean)
        new_std = torch.where(count >= min(2, self.elites), self._bounded(new_std), std)
        if self.free_dims is not None:
            free = torch.tensor(self.free_dims, device=mean.device)
            new_mean = torch.where(free, new_mean, mean)
        return new_mean, new_std

    def _draw(
        self,
        mean: Tensor,
        std: Tensor,
        proposals: Tensor | None,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Candidates [B, S, H, A]: the mean, the proposals, and draws from the normal."""
        fixed = [mean[:, None]] if self.include_mean else []
        fixed += [] if proposals is None else [proposals]
        count = self.samples - sum(x.shape[1] for x in fixed)
        shape = (mean.shape[0], count, *mean.shape[1:])
        noise = torch.randn(shape, generator=generator, device=mean.device)
        actions = torch.cat([*fixed, mean[:, None] + std[:, None] * noise], 1)
        if self.free_dims is not None and proposals is not None:
            free = torch.tensor(self.free_dims, device=mean.device)
            actions = torch.where(free, actions, mean[:, None])
        return actions if box is None else actions.clamp(*box)

    def _explored(
        self,
        plan: Tensor,
        std: Tensor,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        if not self.explore:
            return plan
        noise = torch.randn(std[:, 0].shape, generator=generator, device=std.device)
        first = plan[:, 0] + std[:, 0] * noise
        first = first if box is None else first.clamp(*box)
        return torch.cat([first[:, None], plan[:, 1:]], 1)


class Best:
    """The cheapest plan seen so far, one per batch row; its cost is inf before a finite one."""

    plan: Tensor
    cost: Tensor

    def __init__(self) -> None:
        self._empty = True

    def update(self, plan: Tensor, cost: Tensor) -> None:
        """Compare a plan [B, H, A] of cost [B] with the one so far."""
        if not self._empty:
            better = cost < self.cost
            plan = torch.where(better[:, None, None], plan, self.plan)
            cost = torch.where(better, cost, self.cost)
        self.plan, self.cost, self._empty = plan, cost, False

    def unless_finite(self, plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """``plan`` [B, H, A] where its cost [B] is finite, else the cheapest one."""
        finite = cost.isfinite()
        plan = torch.where(finite[:, None, None], plan, self.plan)
        return plan, torch.where(finite, cost, self.cost)


class Deadline:
    """Whether more scorings fit into the time, judged by the longest so far."""

    def __init__(self, budget_s: float | None, device: torch.device) -> None:
        self.budget_s, self.device = checked_budget(budget_s), device
        self._start = self._last = time.perf_counter()
        self._longest = 0.0
        self.first = 0.0  # seconds of the first scoring, with all that precedes it

    def lap(self) -> None:
        """Call after each scoring."""
        if self.device.type == "cuda" and (self.budget_s is not None or not self.first):
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self.first = self.first or now - self._start
        self._last = now

    def room_for(self, scorings: float) -> bool:
        """Whether ``scorings`` more are expected to end in time."""
        if self.budget_s is None:
            return True
        spent = time.perf_counter() - self._start
        return spent + scorings * self._longest <= self.budget_s


class Scorer:
    """Costs of candidates by imagining them; checks first that the model can give what the cost
    needs. ``approximate`` tells whether the model took a short cut so far."""

    def __init__(
        self,
        model: WorldModel,
        state: State,
        cost: Cost,
        goal: Mapping[str, Tensor] | None,
        *,
        horizon: int,
        repeats: int = 1,
        chunk: int | None = None,
    ) -> None:
        if model.spec.discrete:
            raise ModelError(
                "search: got a model with discrete actions, expected continuous ones, which a "
                "search chooses from. Use the model's actor."
            )
        self._want = required_readouts(model, cost, goal)
        limit = model.spec.max_horizon
        if limit is not None and horizon > limit:
            raise ModelError(f"horizon: got {horizon}, expected at most {limit} for this model.")
        self._model, self._state, self._cost, self._goal = model, state, cost, goal
        self._repeats = repeats if model.spec.stochastic else 1
        self._chunk = chunk
        self.approximate = False

    def __call__(self, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Costs [B, S] of actions [B, S, H, A]; inf where they are not finite."""
        repeats = self._repeats
        many = actions.repeat_interleave(repeats, 1) if repeats > 1 else actions
        rollout = self._model.rollout(
            self._state, many, want=self._want, chunk=self._chunk, generator=generator
        )
        self.approximate |= rollout.approximate
        each = self._cost(rollout, self._goal, many).float()
        if each.shape != many.shape[:2]:
            raise ModelError(
                f"{type(self._cost).__name__}: got costs of shape {tuple(each.shape)}, expected "
                f"{tuple(many.shape[:2])}."
            )
        if repeats > 1:
            each = each.unflatten(1, (-1, repeats)).mean(-1)
        return each.nan_to_num(_REFUSED, _REFUSED, _REFUSED)


def no_finite_plan(planner: object, candidates: int, cost: Tensor) -> PlanRefused:
    """The error of a search in which some row's candidates all have costs that are not finite."""
    rows = torch.nonzero(~cost.isfinite())[:, 0].tolist()
    where = f" in batch rows {rows}" if len(cost) > 1 else ""
    return PlanRefused(
        f"{type(planner).__name__}: no plan: got no finite cost among {candidates} candidates"
        f"{where}, expected at least one. What the model predicts, or the goal, is not finite: "
        "give other weights or another goal."
    )


def required_readouts(
    model: WorldModel, cost: Cost, goal: Mapping[str, Tensor] | None
) -> frozenset[str]:
    """Names to ask of a rollout for ``cost``; a ModelError if the model cannot give it."""
    spec, name = model.spec, type(cost).__name__
    able = {
        "reward": spec.has_reward,
        "value": spec.has_value,
        "cont": spec.has_continue,
        "disagreement": spec.has_disagreement,
    }
    lacking = sorted(x for x in cost.needs if not able.get(x, True))
    if lacking:
        hint = " Use ReturnCost(use_value=False)." if lacking == ["value"] else ""
        has = ", ".join(sorted(x for x, yes in able.items() if yes)) or "none of these"
        raise ModelError(
            f"{name}: needs {', '.join(lacking)}, but this model predicts {has}.{hint}"
        )
    if getattr(cost, "goal", False) and goal is None:
        hint = "pass goal=model.encode_goal(...)" if spec.has_goal else "this model takes no goals"
        raise ModelError(f"{name}: got no goal, expected one: {hint}.")
    optional = frozenset(getattr(cost, "optional", ()))
    return frozenset(cost.needs) | {x for x in optional if able.get(x, False)}


def policy_candidates(
    model: WorldModel,
    state: State,
    search: Search,
    like: Tensor,
    generator: torch.Generator | None,
) -> Tensor | None:
    """``n_policy`` sequences [B, n, H, A] that the actor draws while the model imagines them; those
    that are not finite are ``like`` [B, H, A] instead."""
    count = search.n_policy
    if not count:
        return None
    if not model.spec.has_actor:
        raise ModelError(f"n_policy: got {count}, expected 0 for a model without an actor.")
    state = expand(state, count)
    actions = []
    for t in range(search.horizon):
        actions.append(model.act(state, mode=False, generator=generator))
        if t + 1 < search.horizon:
            state = model.step(state, actions[-1], generator=generator)
    proposals = torch.stack(actions, 1).unflatten(0, (like.shape[0], count)).to(like.dtype)
    finite = proposals.isfinite().flatten(2).all(-1)[..., None, None]
    return torch.where(finite, proposals, like[:, None])


def take(actions: Tensor, rows: Tensor) -> Tensor:
    """Candidates ``rows`` [B, K] of ``actions`` [B, S, H, A]: [B, K, H, A]."""
    return actions.gather(1, rows[..., None, None].expand(-1, -1, *actions.shape[2:]))


def per_dim(value: PerDim, like: Tensor, name: str) -> Tensor:
    """``value`` as [A] or [] on the device of ``like`` [..., A]."""
    tensor = like.new_tensor(value)
    if tensor.ndim and tensor.shape != like.shape[-1:]:
        raise ModelError(
            f"{name}: got {tensor.shape[0]} numbers, expected one, or {like.shape[-1]} (one per "
            "action dimension)."
        )
    return tensor


def start_mean(warm: PlanState | None, goal: Mapping[str, Tensor] | None, zero: Tensor) -> Tensor:
    """Where a search [B, H, A] begins: at the warm start, 0 in rows without one for this goal."""
    if warm is None:
        return zero
    mean = fitted(warm.mean.to(zero).nan_to_num(0.0, 0.0, 0.0), zero)
    return torch.where(warm.serves(goal)[:, None, None], mean, zero)


def fitted(plan: Tensor, like: Tensor) -> Tensor:
    """``plan`` [B, h, A] cut or padded with zeros to the shape of ``like`` [B, H, A]."""
    if plan.ndim != 3 or plan.shape[0] != like.shape[0] or plan.shape[2] != like.shape[2]:
        raise ModelError(
            f"warm: got {tuple(plan.shape)}, expected (B, H, A) = "
            f"({like.shape[0]}, any, {like.shape[2]})."
        )
    tail = torch.zeros_like(like[:, plan.shape[1] :])
    return torch.cat([plan[:, : like.shape[1]], tail], 1)


def _pairs(low: PerDim, high: PerDim) -> list[tuple[float, float]]:
    """The two numbers of each dimension."""
    size = max(len(x) if isinstance(x, tuple) else 1 for x in (low, high))
    each = [x if isinstance(x, tuple) else (x,) * size for x in (low, high)]
    return list(zip(*each, strict=False))
