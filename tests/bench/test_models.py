"""Speed of training, acting and planning with `mwm_cpu` (pytest-benchmark prints the table)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from wm_models.families.mwm.model import MaskedWorldModel
from wm_models.interface.state import leading
from wm_models.planners import planner
from wm_models.registry import preset
from wm_nodes.checks.bench import models as bench

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> MaskedWorldModel:
    return preset("mwm_cpu").build(bench.ACTION_DIM).eval()


def test_training_update(benchmark) -> None:
    config = preset("mwm_cpu")
    net = config.build(bench.ACTION_DIM)
    update = bench.full_update(net, config.build_learner(net))
    metrics = benchmark.pedantic(update, rounds=3, warmup_rounds=1)
    assert {"ae/pixel_loss", "wm/kl", "ac/actor_loss"} <= set(metrics)


def test_agent_step(benchmark, model) -> None:
    step, _ = bench.agent_step(model)
    action = benchmark.pedantic(step, rounds=20, warmup_rounds=3)
    assert action.shape == (1, bench.ACTION_DIM)


@pytest.mark.parametrize("part", ["encode", "filter", "act"])
def test_parts_of_an_agent_step(benchmark, model, part: str) -> None:
    _, parts = bench.agent_step(model)
    result = benchmark.pedantic(parts[part], rounds=20, warmup_rounds=3)
    assert leading(result).shape[0] == 1 and leading(result).isfinite().all()


@pytest.mark.parametrize("name", ["actor", "cem", "mppi"])
def test_plan(benchmark, model, name: str) -> None:
    actions, _, _ = benchmark.pedantic(
        bench.plan_once(model, planner(name)), rounds=5, warmup_rounds=2
    )
    assert actions.shape[0] == 1 and actions.shape[2] == bench.ACTION_DIM
