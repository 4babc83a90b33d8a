"""Training rate and memory, latency of an agent step and planner latency of a model preset, on CPU
threads."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from wm_models.interface.learner import BatchSpec, Learner
from wm_models.interface.planner import Planner
from wm_models.interface.world_model import WorldModel
from wm_models.planners import GoalCost, ReturnCost, planner
from wm_models.registry import preset
from wm_nodes.checks.bench import machine
from wm_nodes.checks.bench.rows import Row
from wm_nodes.checks.bench.timing import measure

ACTION_DIM = 4


def run(*, model: str = "mwm_cpu", updates: int = 7, agent_steps: int = 50) -> list[Row]:
    """All figures of the preset ``model``."""
    config = preset(model)
    net = config.build(ACTION_DIM)
    learner = config.build_learner(net)
    is_small = model == "mwm_cpu"
    rows = training(net, learner, updates, goal=3.0 if is_small else None)
    net.eval()
    rows += latency(net, agent_steps, goal_ms=8.0 if is_small else None)
    plans = max(5, agent_steps // 3)
    for kind in ("actor", "cem", "mppi") if net.spec.has_actor else ("cem", "mppi"):
        goal = 60.0 if is_small and kind == "cem" else None
        rows.append(planning(net, planner(kind), kind, plans, goal_ms=goal))
    return [replace(row, name=f"{model}: {row.name}") for row in rows]


def training(
    model: WorldModel, learner: Learner, updates: int, goal: float | None = None
) -> list[Row]:
    """Return complete updates (autoencoder, world model, behaviour) per second, their share of the
    rate of a plain matrix product, and the memory that one needs."""
    update = full_update(model, learner)
    update()  # the first one may train parts that few others do
    flops = statistics.median(flops_of(update) for _ in range(3))
    timing = measure(update, repeats=updates, warmup=1)
    peak = machine.matmul_flops(machine.matmul())
    return [
        timing.rate_row("models", "training updates", "1/s", goal=goal),
        Row(
            "models",
            "share of the matmul rate while training",
            100 * flops / timing.typical / peak,
            "%",
            samples=updates,
            better="higher",
            note=f"{flops / 1e9:.3g} GFLOP an update, {peak / 1e9:.3g} GFLOP/s in a matmul",
        ),
        Row(
            "models",
            "memory of an update",
            peak_memory(update) / 1e6,
            "MB",
            note="allocated at its peak, besides weights and optimiser",
        ),
    ]


def latency(model: WorldModel, agent_steps: int, goal_ms: float | None = None) -> list[Row]:
    """Return the time of one agent step from image to action, and of its parts."""
    decide, parts = agent_step(model)
    rows = [
        measure(decide, repeats=agent_steps).row(
            "models", "encode + observe + act", goal_ms=goal_ms
        )
    ]
    return rows + [
        measure(call, repeats=agent_steps).row("models", name) for name, call in parts.items()
    ]


def planning(
    model: WorldModel, plan: Planner, name: str, plans: int, goal_ms: float | None = None
) -> Row:
    """Return the time of one plan, from the state after one observation."""
    return measure(plan_once(model, plan), repeats=plans).row(
        "planners", name, goal_ms=goal_ms, note=_settings(plan)
    )


# what is timed, for tests/bench too ------------------------------------------------------------


def full_update(model: WorldModel, learner: Learner) -> Callable[[], object]:
    """Return one update of all parts on fixed random batches, as after the initial updates."""
    learner.updates = learner.initial_updates
    batches = {name: log_rows(model, spec) for name, spec in learner.batch_specs.items()}
    return lambda: learner.update(batches)


def flops_of(call: Callable[[], object]) -> int:
    """Return the floating-point operations of a call's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def peak_memory(call: Callable[[], object]) -> int:
    """Return the most bytes on the CPU that a call has allocated and not yet freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate((int(size) for _, size in changes), initial=0))


def log_rows(model: WorldModel, spec: BatchSpec, seed: int = 0) -> dict[str, Tensor]:
    """Log rows of random images, actions and rewards, each window inside one episode."""
    g = torch.Generator().manual_seed(seed)
    shape = (spec.batch, spec.length)
    actions = model.spec.action_dim // model.spec.frameskip
    size = model.spec.obs_keys["image"][1]
    never = torch.zeros(shape, dtype=torch.bool)
    return {
        "image": torch.randint(0, 256, (*shape, size, size, 3), generator=g, dtype=torch.uint8),
        "action": torch.rand(*shape, actions, generator=g) * 2 - 1,
        "reward": torch.rand(shape, generator=g),
        "is_first": never,
        "is_last": never.clone(),
        "is_terminal": never.clone(),
    }


def agent_step(
    model: WorldModel,
) -> tuple[Callable[[], object], dict[str, Callable[[], object]]]:
    """Return a function that computes one agent step, and functions for its parts."""
    size = model.spec.obs_keys["image"][1]
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, size, size, 3), generator=g, dtype=torch.uint8)
    action, first = torch.zeros(1, model.spec.action_dim), torch.zeros(1, dtype=torch.bool)

    with torch.inference_mode():
        start = model.initial(1)
        features = model.encode({"image": image})
        state = model.filter(start, action, features, first, generator=g)

    @torch.inference_mode()
    def decide() -> Tensor:
        observed = model.observe(start, action, {"image": image}, first, generator=g)
        return model.act(observed, mode=False, generator=g) if model.spec.has_actor else action

    @torch.inference_mode()
    def encode() -> Tensor:
        return model.encode({"image": image})

    @torch.inference_mode()
    def filter_() -> object:
        return model.filter(start, action, features, first, generator=g)

    @torch.inference_mode()
    def act() -> Tensor:
        return model.act(state, mode=False, generator=g)

    parts: dict[str, Callable[[], object]] = {"encode": encode, "filter": filter_}
    return decide, {**parts, "act": act} if model.spec.has_actor else parts


def plan_once(model: WorldModel, plan: Planner) -> Callable[[], object]:
    """A function that makes one plan, each with fresh noise."""
    g = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        state = model.step(model.initial(1), torch.zeros(1, model.spec.action_dim), generator=g)
        if model.spec.has_reward:
            return lambda: plan.plan(model, state, ReturnCost(), generator=g)
        goal = model.encode_goal({"image": torch.rand(1, *model.spec.obs_keys["image"])})
    return lambda: plan.plan(model, state, GoalCost(), goal, generator=g)


def _settings(plan: Planner) -> str:
    shown = ("samples", "iterations", "elites")
    numbers = [f"{getattr(plan, k)} {k}" for k in shown if hasattr(plan, k)]
    return ", ".join([f"horizon {plan.horizon}", *numbers])
