"""Planning by gradient descent through a differentiable model, as DINO-WM's GD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from wm_models.errors import ModelError
from wm_models.interface.checked import Checked, PerDim
from wm_models.interface.planner import Cost, PlanState
from wm_models.interface.state import State, leading
from wm_models.interface.world_model import WorldModel
from wm_models.planners.population import (
    Best,
    Deadline,
    Scorer,
    no_finite_plan,
    per_dim,
    start_mean,
    take,
)

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
_FIRST_STEP = 3.0  # scorings that a first step is reckoned as: a gradient is about two of them


@dataclass(frozen=True, kw_only=True)
class GD:
    """Follow the gradient of the cost with respect to the actions, from several starts at once.

    Restart 0 begins at the warm start (or 0), the others around it. After each step noise is added
    and the actions are clipped to the model's box. A restart of which the cost is not finite is
    redrawn. DINO-WM: ``GD(horizon=5, steps=1000, lr=1, optimiser="sgd", noise=0.003, init=1,
    restarts=1, from_warm=False, clip=False, output="last")``.
    """

    horizon: int = 6  # H, model steps
    steps: int = 60
    lr: float = 0.1
    optimiser: str = "adam"
    noise: float = 0.0  # standard deviation, in action units, added after each step
    restarts: int = 4
    init: PerDim = 0.5  # standard deviation of starts
    from_warm: bool = True  # False: restart 0 is drawn like the others
    clip: bool = True  # keep actions within the model's box
    output: str = "best"  # the best candidate seen; "last": the best restart after the last step

    outputs: ClassVar[tuple[str, ...]] = ("best", "last")

    def __post_init__(self) -> None:
        check = Checked(self)
        check.whole("horizon", "steps", "restarts")
        check.number("lr", low=0.0, open_ends="low")
        check.number("noise", low=0.0)
        check.per_dim("init")
        check.flag("from_warm", "clip")
        check.choice("output", self.outputs)
        if self.optimiser not in OPTIMISERS:
            check.refuse("optimiser", " or ".join(OPTIMISERS))

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
        """Actions [B, H, A], the same as the next start, and facts.

        The starts are scored whatever ``budget_s``; a step, with its gradient and the scoring
        after it, is run only if it is expected to end in time. Info: "cost" [B] of the plan,
        "start_cost" [B] of restart 0, "best_cost" [iterations + 1, B] seen so far, "iterations" []
        steps run, "approximate" [] bool, "floor_s" [] seconds of scoring the starts. A model with
        dropout must be in evaluation mode.

        ModelError where no gradient passes through the model or the cost. PlanRefused where no
        candidate of a row has a finite cost.
        """
        if not model.spec.differentiable:
            raise ModelError("GD: no gradient passes through this model; plan with cem or mppi.")
        deadline = Deadline(budget_s, leading(state).device)
        with torch.inference_mode(False), torch.enable_grad():
            state, aim = (tree_map(_plain, x) for x in (state, goal))
            score = Scorer(model, state, cost, aim, horizon=self.horizon)
            middle = self._middle(model, state, warm, aim)
            box = model.spec.bounds(middle) if self.clip else None
            actions = self._start(middle, box, generator).requires_grad_()
            optimiser = OPTIMISERS[self.optimiser]([actions], lr=self.lr)
            best, history = Best(), []
            for done in range(self.steps + 1):
                costs = score(actions, generator)  # (B, S)
                costs = costs.masked_fill(~actions.isfinite().flatten(2).all(-1), torch.inf)
                last_cost, row = costs.detach().min(1)
                last = take(actions.detach(), row[:, None])[:, 0]
                best.update(last, last_cost)
                history.append(best.cost)
                if not done:
                    start_cost = costs[:, 0].detach()
                deadline.lap()
                if done == self.steps or not deadline.room_for(1.0 if done else _FIRST_STEP):
                    break
                actions.grad = _gradient(costs, actions, cost)
                optimiser.step()
                with torch.no_grad():
                    self._after_step(actions, costs.detach(), middle, box, generator)
        if not bool(best.cost.isfinite().all()):
            raise no_finite_plan(self, len(history) * self.restarts, best.cost)
        chosen = (best.plan, best.cost) if self.output == "best" else (last, last_cost)
        plan, plan_cost = best.unless_finite(*chosen)
        info = {
            "cost": plan_cost,
            "start_cost": start_cost,
            "best_cost": torch.stack(history),
            "iterations": torch.tensor(len(history) - 1),
            "approximate": torch.tensor(score.approximate),
            "floor_s": torch.tensor(deadline.first),
        }
        return plan, PlanState(plan, goal), info

    def _middle(
        self,
        model: WorldModel,
        state: State,
        warm: PlanState | None,
        goal: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """What the starts lie around, [B, H, A]."""
        like = leading(state)
        zero = torch.zeros(len(like), self.horizon, model.spec.action_dim, device=like.device)
        return _plain(start_mean(warm, goal, zero))

    def _start(
        self,
        middle: Tensor,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Starts [B, restarts, H, A]."""
        noise = self._noise(middle, generator)
        if self.from_warm:
            noise[:, 0] = 0.0
        starts = middle[:, None] + per_dim(self.init, middle, "init") * noise
        return starts if box is None else starts.clamp(*box)

    def _after_step(
        self,
        actions: Tensor,
        costs: Tensor,
        middle: Tensor,
        box: tuple[Tensor, Tensor] | None,
        generator: torch.Generator | None,
    ) -> None:
        """Add noise, redraw restarts whose ``costs`` before the step were not finite, and
        clip, all in place."""
        if self.noise:
            actions.add_(self.noise * self._noise(middle, generator))
        lost = ~costs.isfinite()
        if bool(lost.any()):
            drawn = per_dim(self.init, middle, "init") * self._noise(middle, generator)
            actions.copy_(torch.where(lost[..., None, None], middle[:, None] + drawn, actions))
        if box is not None:
            actions.clamp_(*box)

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Unit noise [B, restarts, H, A]."""
        shape = (len(like), self.restarts, *like.shape[1:])
        return torch.randn(shape, generator=generator, device=like.device)


def _gradient(costs: Tensor, actions: Tensor, cost: Cost) -> Tensor:
    """The gradient of costs [B, S] with respect to the actions; 0 where it is not finite."""
    gradient = None
    if costs.requires_grad:
        (gradient,) = torch.autograd.grad(costs.sum(), actions, allow_unused=True)
    if gradient is None:
        raise ModelError(
            f"GD: got no gradient of {type(cost).__name__} with respect to the actions, expected "
            "one. The cost, or the model, is not differentiable: plan with cem or mppi."
        )
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def _plain(x: Tensor) -> Tensor:
    """A tensor that autograd may keep, also for an inference tensor."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
