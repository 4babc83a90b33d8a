"""The whole algorithm in a small world: a light that is seen is to be pushed to the middle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.wm_models.families.dreamer_v3.dreamer_v3_tiny import PIXELS, TINY
from tests.wm_models.families.mudreamer.mudreamer_tiny import TINY as TINY_MUDREAMER
from wm_models.behaviors.dreamer import DreamerPreset
from wm_models.interface.world_model import WorldModel

LENGTH = 9  # rows per episode
SETTINGS = {
    "model.rssm.deter": 24,
    "model.rssm.hidden": 24,
    "model.heads.units": 24,
    "learner.agent_batch.batch": 8,
    "learner.agent_batch.length": LENGTH,
    "learner.behavior.starts": 64,
    "learner.world_model.lr": 3e-3,
    "learner.actor.lr": 3e-3,
    "learner.critic.lr": 3e-3,
    "learner.world_model_init": 100,
}


def images(place: Tensor) -> Tensor:
    """uint8 (B, H, W, 3): a bright column. place (B,) from -1 to 1."""
    column = ((place + 1) / 2 * (PIXELS - 2)).round().long()
    image = torch.full((len(place), PIXELS, PIXELS, 3), 20, dtype=torch.uint8)
    for i, c in enumerate(column.tolist()):
        image[i, :, c : c + 2] = 220
    return image


def step(place: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Where the light is after an action (B, 1), and the reward (B,)."""
    place = (place + 0.5 * action[:, 0]).clamp(-1, 1)
    return place, 1 - 2 * place.abs()


def log_rows(batch: int, g: torch.Generator) -> dict[str, Tensor]:
    """Random play, one episode per window."""
    place = torch.rand(batch, generator=g) * 2 - 1
    action = torch.rand(batch, LENGTH, 1, generator=g) * 2 - 1
    frames, rewards = [], []
    for t in range(LENGTH):
        frames.append(images(place))
        place, reward = step(place, action[:, t])
        rewards.append(reward)
    first = torch.zeros(batch, LENGTH, dtype=torch.bool)
    first[:, 0] = True
    return {
        "image": torch.stack(frames, 1),
        "action": action,
        "reward": torch.stack(rewards, 1),
        "is_first": first,
        "is_last": torch.zeros_like(first),
        "is_terminal": torch.zeros_like(first),
    }


@torch.inference_mode()
def mean_reward(model: WorldModel) -> float:
    """Reward per action of the policy, from places spread evenly."""
    g = torch.Generator().manual_seed(1)
    place = torch.linspace(-1, 1, 32)
    state, action = model.initial(32), torch.zeros(32, 1)
    first, total = torch.ones(32).bool(), 0.0
    for _ in range(LENGTH):
        obs = {"image": images(place)}
        state = model.observe(state, action, obs, first, generator=g)
        action, first = model.act(state, mode=True), torch.zeros(32).bool()
        place, reward = step(place, action)
        total += reward.mean().item()
    return total / LENGTH


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tiny", [TINY, TINY_MUDREAMER], ids=["dreamer_v3", "mudreamer"])
def test_it_learns_to_push_the_light_to_the_middle(tiny: DreamerPreset) -> None:
    preset = tiny.varied(SETTINGS)
    model = preset.build(1, seed=0)
    learner = preset.build_learner(model)
    g = torch.Generator().manual_seed(0)
    assert mean_reward(model) < 0.3  # no action at all gets 0, the best .89
    while mean_reward(model) < 0.6 and learner.updates < 600:
        for _ in range(50):
            learner.update({"agent": log_rows(8, g)})
    assert mean_reward(model) >= 0.6
