"""Planning by gradient descent through a differentiable model, as DINO-WM's GD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from wm_models.interface import Cost, ModelError, PlanState, State, WorldModel
from wm_models.planners.search import Best, Deadline, Scorer, fitted, leading, per_dim

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True, kw_only=True)
class GD:
    """Follow the gradient of the cost with respect to the actions, from several starts at once.

    Restart 0 begins at the warm start (or 0), the others around it. After each step noise is added
    and the actions are clipped to the model's box; the best candidate seen is returned. DINO-WM:
    ``GD(horizon=5, steps=1000, lr=1, optimiser="sgd", noise=0.003, init=1, restarts=1,
    from_warm=False, clip=False)``.
    """

    horizon: int = 6  # H, model steps
    steps: int = 60
    lr: float = 0.1
    optimiser: str = "adam"
    noise: float = 0.0  # standard deviation, in action units, added after each step
    restarts: int = 4
    init: float = 0.5  # standard deviation of starts
    from_warm: bool = True  # False: restart 0 is drawn like the others
    clip: bool = True  # keep actions within the model's box

    def __post_init__(self) -> None:
        for name in ("horizon", "steps", "restarts"):
            if getattr(self, name) < 1:
                raise ModelError(f"GD.{name}: expected at least 1, got {getattr(self, name)!r}.")
        if self.optimiser not in OPTIMISERS:
            raise ModelError(
                f"GD.optimiser: expected {' or '.join(OPTIMISERS)}, got {self.optimiser!r}."
            )

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

        At least one step is made; another one only while it is expected to end within
        ``budget_s``. Info: "cost" [B] of the plan, "start_cost" [B] of restart 0, "best_cost"
        [iterations + 1, B] seen so far, "iterations" [], "approximate" [] bool. A model with
        dropout must be in evaluation mode. ModelError where no gradient passes through the model.
        """
        if not model.spec.differentiable:
            raise ModelError("GD: no gradient passes through this model; plan with cem or mppi.")
        deadline = Deadline(budget_s, leading(state).device)
        with torch.inference_mode(False), torch.enable_grad():
            state, goal = (tree_map(_plain, x) for x in (state, goal))
            score = Scorer(model, state, cost, goal, horizon=self.horizon)
            low, high = model.spec.bounds(leading(state))
            actions = self._start(model, state, warm, generator).requires_grad_()
            optimiser = OPTIMISERS[self.optimiser]([actions], lr=self.lr)
            best, history = Best(), []
            for done in range(self.steps + 1):
                costs = score(actions, generator)  # (B, S)
                best.see(actions.detach(), costs.detach(), only_first=False)
                history.append(best.cost)
                if not done:
                    start_cost = costs[:, 0].detach()
                elif not deadline.room_for_another():
                    break
                if done == self.steps:
                    break
                (gradient,) = torch.autograd.grad(costs.sum(), actions)
                actions.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
                optimiser.step()
                with torch.no_grad():
                    self._after_step(actions, low, high, generator)
        info = {
            "cost": best.cost,
            "start_cost": start_cost,
            "best_cost": torch.stack(history),
            "iterations": torch.tensor(len(history) - 1),
            "approximate": torch.tensor(score.approximate),
        }
        return best.plan, PlanState(best.plan), info

    def _start(
        self,
        model: WorldModel,
        state: State,
        warm: PlanState | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Starts [B, restarts, H, A]."""
        like = leading(state)
        zero = torch.zeros(len(like), self.horizon, model.spec.action_dim, device=like.device)
        middle = zero
        if warm is not None:
            middle = fitted(_plain(warm.mean).to(zero).nan_to_num(0.0), zero, 0.0)
        shape = (len(zero), self.restarts, *zero.shape[1:])
        noise = torch.randn(shape, generator=generator, device=zero.device)
        if self.from_warm:
            noise[:, 0] = 0.0
        starts = middle[:, None] + per_dim(self.init, zero, "init") * noise
        return starts.clamp(*model.spec.bounds(zero)) if self.clip else starts

    def _after_step(
        self, actions: Tensor, low: Tensor, high: Tensor, generator: torch.Generator | None
    ) -> None:
        if self.noise:
            noise = torch.randn(actions.shape, generator=generator, device=actions.device)
            actions.add_(self.noise * noise)
        if self.clip:
            actions.clamp_(low, high)


def _plain(x: Tensor) -> Tensor:
    """A tensor that autograd may keep, also of one that was made in inference mode."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
