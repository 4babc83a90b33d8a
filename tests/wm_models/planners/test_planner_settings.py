"""Settings of planners and costs: invalid values are refused with one clear error."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from wm_models.errors import ModelError
from wm_models.planners import CEM, GD, MPPI, ActorPlanner, GoalCost, Receding, ReturnCost, planner
from wm_models.testing.contracts import seeded
from wm_models.testing.linear_model import LinearModel

NAN, INF = math.nan, math.inf
INVALID: list[tuple[Callable[..., object], str, object]] = [
    *((kind, name, value) for kind in (CEM, MPPI) for name, value in [
        ("horizon", 0), ("horizon", 2.0), ("samples", 2.5), ("samples", True), ("samples", NAN),
        ("elites", 0), ("elites", 65), ("iterations", -1), ("repeats", 0), ("n_policy", -1),
        ("n_policy", 64), ("chunk", 0), ("chunk", 1.5), ("sigma0", NAN), ("sigma0", -1.0),
        ("sigma0", INF), ("sigma0", (0.5, -0.1)), ("sigma0", ()), ("sigma0", "wide"),
        ("sigma_min", -0.1), ("sigma_min", NAN), ("sigma_min", 3.0), ("sigma_min", (0.1, 5.0)),
        ("sigma_max", NAN), ("sigma_max", -1.0), ("output", "worst"), ("clip", "yes"),
        ("explore", 1), ("include_mean", None), ("free_dims", (False, False)), ("free_dims", True),
    ] if not (kind is CEM and name == "sigma_min" and value in (3.0, (0.1, 5.0)))),
    (CEM, "momentum_mean", 2.0), (CEM, "momentum_mean", 1.0), (CEM, "momentum_std", -0.1),
    (CEM, "momentum_std", NAN), (CEM, "momentum_mean", (0.1, 2.0)),
    (MPPI, "temperature", -1.0), (MPPI, "temperature", NAN), (MPPI, "temperature", INF),
    (MPPI, "scale", "returns"),
    (GD, "steps", 0), (GD, "steps", 2.5), (GD, "restarts", 0), (GD, "horizon", NAN),
    (GD, "lr", 0.0), (GD, "lr", -1.0), (GD, "lr", NAN), (GD, "noise", -0.1), (GD, "noise", NAN),
    (GD, "init", -1.0), (GD, "init", NAN), (GD, "optimiser", "lbfgs"), (GD, "clip", 0),
    (GD, "output", "mean"),
    (ActorPlanner, "explore", "yes"),
    (ReturnCost, "gamma", NAN), (ReturnCost, "gamma", 1.5), (ReturnCost, "gamma", -0.1),
    (GoalCost, "base", 0.0), (GoalCost, "base", NAN), (GoalCost, "reduce", "first"),
    (GoalCost, "keys", {"visual": NAN}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "name", "value"), INVALID, ids=lambda x: getattr(x, "__name__", x)
)
def test_invalid_values_are_refused(make, name: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"{make.__name__}\.{name}: got .*, expected "):
        make(**{name: value})


@pytest.mark.parametrize(
    "valid",
    [
        {"sigma_min": (0.1, 0.2), "sigma_max": (0.3, INF)},
        {"sigma0": 0, "sigma_min": 0, "sigma_max": INF},
        {"samples": 1, "elites": 1, "iterations": 1, "horizon": 1},
        {"free_dims": (True, False), "chunk": 7, "n_policy": 63},
    ],
)
def test_valid_values_are_accepted(valid: dict) -> None:
    assert planner("cem", **valid) and planner("mppi", **{"sigma_max": 9.0, **valid})


@pytest.mark.parametrize("budget_s", [NAN, -0.1, INF, "soon", True])
def test_an_invalid_budget_is_refused(budget_s: object) -> None:
    model = LinearModel(torch.eye(2), torch.eye(2), torch.zeros(2))
    cost = ReturnCost(use_value=False)
    for search in (CEM(horizon=1), MPPI(horizon=1), GD(horizon=1), Receding(CEM(horizon=1))):
        with pytest.raises(
            ModelError, match=r"budget_s: got .*, expected a finite number of at least 0"
        ):
            search.plan(model, model.initial(1), cost, budget_s=budget_s, generator=seeded())


def test_a_width_per_dimension_has_its_own_floor_and_ceiling() -> None:
    model = LinearModel(torch.eye(2), torch.eye(2), torch.zeros(2))
    for kind in (CEM, MPPI):
        search = kind(horizon=1, sigma_min=(0.3, 0.01), sigma_max=(0.4, 0.02), iterations=5)
        _, _, info = search.plan(
            model, model.initial(1), ReturnCost(use_value=False), generator=seeded()
        )
        assert 0.5 * (0.3 + 0.01) <= float(info["std"]) <= 0.5 * (0.4 + 0.02)
        low, high = search._bounded(torch.zeros(1, 1, 2)), search._bounded(torch.ones(1, 1, 2))
        assert low.flatten().tolist() == pytest.approx([0.3, 0.01])
        assert high.flatten().tolist() == pytest.approx([0.4, 0.02])
    with pytest.raises(ModelError, match=r"sigma_min: got 3 numbers, expected one, or 2 "):
        CEM(horizon=1, sigma_min=(0.1, 0.1, 0.1)).plan(
            model, model.initial(1), ReturnCost(use_value=False)
        )


def test_descent_needs_a_gradient() -> None:
    model = LinearModel(torch.eye(2), torch.eye(2), torch.zeros(2))

    class Counts:
        """How many actions are positive: no gradient."""

        needs = frozenset[str]()

        def __call__(self, rollout, goal, actions):
            return (actions > 0).float().sum((-2, -1))

    class OtherGradient:
        """A cost with a gradient, but not of the actions."""

        needs = frozenset[str]()

        def __call__(self, rollout, goal, actions):
            return torch.zeros(actions.shape[:2], requires_grad=True) + 1.0

    for cost in (Counts(), OtherGradient()):
        with pytest.raises(ModelError, match=f"GD: got no gradient of {type(cost).__name__}"):
            GD(horizon=1).plan(model, model.initial(1), cost, generator=seeded())
