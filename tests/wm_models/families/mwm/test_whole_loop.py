"""The whole algorithm on a minimal task: the bright half of the image gives the direction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wm_models.interface.learner import BatchSpec
from wm_models.interface.planner import Planner
from wm_models.nets.optimizer import OptimizerConfig
from wm_models.planners import CEM, ActorPlanner, Receding, ReturnCost

LENGTH, SIZE = 9, 32  # agent steps per episode, pixels


def images(side: Tensor) -> Tensor:
    """uint8 (B, H, W, 3): the left or the right half is bright. side (B,) is -1 or 1."""
    image = torch.full((len(side), SIZE, SIZE, 3), 20, dtype=torch.uint8)
    image[side < 0, :, : SIZE // 2] = 220
    image[side > 0, :, SIZE // 2 :] = 220
    return image


def reward(side: Tensor, action: Tensor) -> Tensor:
    """1 for a push towards the bright side, -1 for one away from it, in proportion. (B,)"""
    return side * action[:, 0]


def log_rows(batch: int, length: int, g: torch.Generator) -> dict[str, Tensor]:
    """Random play, one episode per row."""
    side = torch.randint(0, 2, (batch,), generator=g) * 2.0 - 1.0
    action = torch.rand(batch, length, 1, generator=g) * 2 - 1
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    nowhere = torch.zeros_like(first)
    return {
        "image": images(side)[:, None].expand(-1, length, -1, -1, -1),
        "action": action,
        "reward": side[:, None] * action[..., 0],
        "is_first": first,
        "is_last": nowhere,
        "is_terminal": nowhere,
    }


def mean_reward(model, planner: Planner, episodes: int = 16) -> float:
    """Reward per agent step when acting with ``planner``."""
    g = torch.Generator().manual_seed(1)
    side = torch.where(torch.arange(episodes) % 2 == 0, 1.0, -1.0)
    obs, first = {"image": images(side)}, torch.ones(episodes).bool()
    state, action, total, warm = model.initial(episodes), torch.zeros(episodes, 1), 0.0, None
    for _ in range(LENGTH):
        with torch.inference_mode():
            state = model.observe(state, action, obs, first, generator=g)
        actions, warm, _ = planner.plan(model, state, ReturnCost(), warm=warm, generator=g)
        action, first = actions[:, 0], torch.zeros(episodes).bool()
        total += reward(side, action).mean().item()
    return total / LENGTH


@pytest.mark.timeout(300)
def test_it_learns_to_push_towards_the_bright_half(changed) -> None:
    preset = changed(
        behavior={"horizon": 4, "starts": 64},
        learner={
            "autoencoder_batch": BatchSpec(16, 2),
            "agent_batch": BatchSpec(8, LENGTH),
            "autoencoder": OptimizerConfig(lr=3e-3, decay_all=True),
            "world_model": OptimizerConfig(lr=3e-3),
            "actor": OptimizerConfig(lr=1e-3),
            "critic": OptimizerConfig(lr=1e-3),
            "autoencoder_init": 50,
            "world_model_init": 100,
        },
    )
    model = preset.build(1, seed=0)
    learner = preset.build_learner(model)
    g = torch.Generator().manual_seed(0)
    search = Receding(CEM(horizon=3, samples=32, elites=4, iterations=3))
    by_actor = by_search = 0.0
    # Random actions have a mean reward of 0, the best 1.
    while min(by_actor, by_search) < 0.5 and learner.updates < 800:
        for _ in range(50 if learner.updates else 300):
            specs = learner.batch_specs.items()
            learner.update({name: log_rows(spec.batch, spec.length, g) for name, spec in specs})
        by_actor = mean_reward(model, ActorPlanner())
        by_search = mean_reward(model, search)
    assert min(by_actor, by_search) >= 0.5
    assert abs(mean_reward(preset.build(1, seed=5), search)) < 0.4  # untrained
