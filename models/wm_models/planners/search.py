"""The loop that CEM and MPPI share: draw candidates, imagine, score, refit, while there is time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from wm_models.interface import Cost, ModelError, PlanState, State, WorldModel, expand

PerDim = float | tuple[float, ...]  # one number for all action dimensions, or one for each
_WORST = 1e30  # stands for costs that are not finite, so that arithmetic on them stays finite


@dataclass(frozen=True, kw_only=True)
class Search:
    """Population search over action sequences [B, S, H, A] with a diagonal normal per step.

    Subclasses refit the normal to the elites. Candidate 0 of each iteration is the mean itself
    (``include_mean``), so that the start is scored and nothing worse than it is returned.
    """

    horizon: int = 6  # H, model steps
    samples: int = 64  # S, candidates per iteration
    elites: int = 8  # K, the best candidates, to which the normal is refitted
    iterations: int = 3
    sigma0: PerDim = 0.5  # width at the start, in action units
    sigma_min: float = 0.05  # the width never falls below
    sigma_max: float = float("inf")
    n_policy: int = 0  # candidates drawn from the model's actor, the same in every iteration
    include_mean: bool = True
    clip: bool = True  # keep candidates within the model's box
    free_dims: tuple[bool, ...] | None = None  # False: this dimension stays as it starts
    repeats: int = 1  # imaginations per candidate whose mean counts; for stochastic models
    chunk: int | None = None  # candidates imagined at once (memory)
    output: str = "mean"  # which plan is returned, see `outputs`
    explore: bool = False  # add noise of the final width to the first action

    outputs: ClassVar[tuple[str, ...]] = ("mean", "best")

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "elites", "iterations", "repeats"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("elites", self.elites <= self.samples, f"at most samples ({self.samples})")
        self._check(
            "sigma_min", 0 <= self.sigma_min <= self.sigma_max, "0 <= sigma_min <= sigma_max"
        )
        room = self.samples - self.include_mean
        self._check("n_policy", 0 <= self.n_policy <= room, f"between 0 and {room}")
        self._check("output", self.output in self.outputs, " or ".join(map(repr, self.outputs)))

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            given = getattr(self, name)
            raise ModelError(f"{type(self).__name__}.{name}: expected {expected}, got {given!r}.")

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
        """Actions [B, H, A], the refitted normal as the next start, and facts.

        At least one iteration is made; another one only while it is expected to end within
        ``budget_s``. Info: "cost" [B] of the plan, "start_cost" [B] of the first candidate (with
        ``include_mean`` the mean at the start), "best_cost" [iterations, B] seen so far, "std" [B]
        after the search, "iterations" [], "approximate" [] bool.
        """
        deadline = Deadline(budget_s, leading(state).device)
        score = Scorer(
            model, state, cost, goal,
            horizon=self.horizon, repeats=self.repeats, chunk=self.chunk,
        )  # fmt: skip
        mean, std = self._start(model, state, warm)
        proposals = policy_candidates(model, state, self, mean, generator)
        box = model.spec.bounds(mean) if self.clip else None
        best = Best()
        history: list[Tensor] = []
        for _ in range(self.iterations):
            actions = self._draw(mean, std, proposals, box, generator)
            costs = score(actions, generator)
            best.see(actions, costs, only_first=self.output != "best")
            if not history:
                start_cost = costs[:, 0]
            history.append(costs.amin(1).minimum(history[-1]) if history else costs.amin(1))
            elite_cost, rows = costs.topk(self.elites, 1, largest=False)
            elites = take(actions, rows)  # (B, K, H, A)
            new_mean, new_std = self._refit(elites, elite_cost, mean, std)
            mean, std = self._hold(mean, std, new_mean, new_std)
            if not deadline.room_for_another():
                break
        warm = PlanState(mean, std)
        plan, plan_cost = self._choose(best, mean, elites, elite_cost, score, box, generator)
        info = {
            "cost": plan_cost,
            "start_cost": start_cost,
            "best_cost": torch.stack(history),
            "std": std.mean((1, 2)),
            "iterations": torch.tensor(len(history)),
            "approximate": torch.tensor(score.approximate),
        }
        return self._explored(plan, std, box, generator), warm, info

    # what subclasses say -------------------------------------------------------------------

    def _refit(
        self, elites: Tensor, cost: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and std [B, H, A] from elites [B, K, H, A] and their costs [B, K]."""
        raise NotImplementedError

    # the parts of the loop -----------------------------------------------------------------

    def _start(
        self, model: WorldModel, state: State, warm: PlanState | None
    ) -> tuple[Tensor, Tensor]:
        like, size = leading(state), model.spec.action_dim
        low, high = model.spec.bounds(like)
        mean = torch.zeros(like.shape[0], self.horizon, size, device=like.device)
        std = per_dim(self.sigma0, mean, "sigma0").expand_as(mean)
        if warm is not None:
            mean = fitted(warm.mean.to(mean).nan_to_num(0.0), mean, 0.0)
            std = std if warm.std is None else fitted(warm.std.to(mean), std, None)
        std = std.clamp(self.sigma_min, self.sigma_max)
        return (mean.clamp(low, high) if self.clip else mean), self._frozen_dims(std)

    def _frozen_dims(self, std: Tensor) -> Tensor:
        if self.free_dims is None:
            return std
        return std * per_dim(tuple(map(float, self.free_dims)), std, "free_dims")

    def _hold(
        self, mean: Tensor, std: Tensor, new_mean: Tensor, new_std: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The refitted normal, with its width bounded and the dimensions that are not free held."""
        new_std = self._frozen_dims(new_std.clamp(self.sigma_min, self.sigma_max))
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

    def _choose(
        self,
        best: Best,
        mean: Tensor,
        elites: Tensor,
        elite_cost: Tensor,
        score: Scorer,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """The plan [B, H, A] and its cost [B]. "mean": the last mean, unless an earlier one cost
        less. "best": the cheapest candidate or mean."""
        last = (mean if box is None else mean.clamp(*box))[:, None]
        costs = score(last, generator)
        if self.output == "mean" and not self.include_mean:  # no earlier mean was scored
            return last[:, 0], costs[:, 0]
        best.see(last, costs, only_first=True)
        return best.plan, best.cost

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
    """The cheapest plan seen so far, one per batch row."""

    plan: Tensor
    cost: Tensor

    def __init__(self) -> None:
        self._empty = True

    def see(self, actions: Tensor, costs: Tensor, *, only_first: bool) -> None:
        """Compare candidates [B, S, H, A], or the first one alone, with the plan so far."""
        if only_first:
            actions, costs = actions[:, :1], costs[:, :1]
        cost, row = costs.min(1)
        plan = take(actions, row[:, None])[:, 0]
        if not self._empty:
            better = cost < self.cost
            plan = torch.where(better[:, None, None], plan, self.plan)
            cost = torch.where(better, cost, self.cost)
        self.plan, self.cost, self._empty = plan, cost, False


class Deadline:
    """Whether one more round fits: judged by the longest so far."""

    def __init__(self, budget_s: float | None, device: torch.device) -> None:
        self.budget_s, self.device = budget_s, device
        self._start = self._last = time.perf_counter()
        self._longest = 0.0

    def room_for_another(self) -> bool:
        """Call at the end of each round."""
        if self.budget_s is None:
            return True
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        return now - self._start + self._longest <= self.budget_s


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
        self._want = wanted(model, cost, goal)
        limit = model.spec.max_horizon
        if limit is not None and horizon > limit:
            raise ModelError(f"horizon: this model imagines at most {limit} steps, got {horizon}.")
        self._model, self._state, self._cost, self._goal = model, state, cost, goal
        self._repeats = repeats if model.spec.stochastic else 1
        self._chunk = chunk
        self.approximate = False

    def __call__(self, actions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Finite costs [B, S] of actions [B, S, H, A]."""
        repeats = self._repeats
        many = actions.repeat_interleave(repeats, 1) if repeats > 1 else actions
        rollout = self._model.rollout(
            self._state, many, want=self._want, chunk=self._chunk, generator=generator
        )
        self.approximate |= rollout.approximate
        each = self._cost(rollout, self._goal, many).float()
        if each.shape != many.shape[:2]:
            raise ModelError(
                f"{type(self._cost).__name__}: expected costs {tuple(many.shape[:2])}, "
                f"got {tuple(each.shape)}."
            )
        each = each.unflatten(1, (-1, repeats)).mean(-1)
        return each.nan_to_num(_WORST, _WORST, -_WORST)


def wanted(model: WorldModel, cost: Cost, goal: Mapping[str, Tensor] | None) -> frozenset[str]:
    """What to ask of a rollout for ``cost``; a ModelError if the model cannot give it."""
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
        told = "pass goal=model.encode_goal(...)" if spec.has_goal else "this model takes no goals"
        raise ModelError(f"{name}: no goal was given; {told}.")
    optional = frozenset(getattr(cost, "optional", ()))
    return frozenset(cost.needs) | {x for x in optional if able.get(x, False)}


def policy_candidates(
    model: WorldModel,
    state: State,
    search: Search,
    like: Tensor,
    generator: torch.Generator | None,
) -> Tensor | None:
    """``n_policy`` sequences [B, n, H, A] that the actor draws while the model imagines them."""
    count = search.n_policy
    if not count:
        return None
    if not model.spec.has_actor:
        raise ModelError(f"n_policy: expected 0 for a model without an actor, got {count}.")
    state = expand(state, count)
    actions = []
    for t in range(search.horizon):
        actions.append(model.act(state, mode=False, generator=generator))
        if t + 1 < search.horizon:
            state = model.step(state, actions[-1], generator=generator)
    return torch.stack(actions, 1).unflatten(0, (like.shape[0], count)).to(like.dtype)


def leading(state: State) -> Tensor:
    """Some leaf [B, ...] of a state, for its batch size and device."""
    leaves = [x for x in tree_leaves(state) if isinstance(x, Tensor)]
    if not leaves:
        raise ModelError("state: expected a pytree of tensors [B, ...], got one without tensors.")
    return next((x for x in leaves if x.is_floating_point()), leaves[0])


def take(actions: Tensor, rows: Tensor) -> Tensor:
    """Candidates ``rows`` [B, K] of ``actions`` [B, S, H, A]: [B, K, H, A]."""
    return actions.gather(1, rows[..., None, None].expand(-1, -1, *actions.shape[2:]))


def per_dim(value: PerDim, like: Tensor, name: str) -> Tensor:
    """``value`` as [A] or [] on the device of ``like`` [..., A]."""
    tensor = like.new_tensor(value)
    if tensor.ndim and tensor.shape != like.shape[-1:]:
        raise ModelError(
            f"{name}: expected one number or {like.shape[-1]} (one per action dimension), "
            f"got {tensor.shape[0]}."
        )
    return tensor


def fitted(given: Tensor, like: Tensor, fill: float | None) -> Tensor:
    """``given`` [B, h, A] cut or padded to the shape of ``like`` [B, H, A]: with ``fill``, or with
    what ``like`` holds there."""
    if given.ndim != 3 or given.shape[0] != like.shape[0] or given.shape[2] != like.shape[2]:
        raise ModelError(
            f"warm: expected (B, H, A) = ({like.shape[0]}, any, {like.shape[2]}), "
            f"got {tuple(given.shape)}."
        )
    tail = like[:, given.shape[1] :]
    tail = tail if fill is None else torch.full_like(tail, fill)
    return torch.cat([given[:, : like.shape[1]], tail], 1)
