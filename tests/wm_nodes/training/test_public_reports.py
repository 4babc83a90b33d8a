"""Errors that public reports describe in other code, tested here from a robot through its log to a
batch of a model, and back to an action.

A dimension that never moves (lerobot#211), rewards and actions one step off (navix#152), time-outs
taken as terminal (tdmpc2#62), statistics under frameskip (nano-world-model#9), and the context
of a model when an episode begins (stable-worldmodel#199).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.wm_models.families.dino_wm.dino_tiny import TINY as TINY_DINO
from tests.wm_nodes.tiny import SIZE, TINY, LargeImagePoint, record
from wm_datasets import LogReader, LogWriter, Sampler, VectorSpec
from wm_models.behaviors.actor_critic import Behavior
from wm_models.behaviors.returns import lambda_return
from wm_models.encoders.conv import ConvConfig
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.learner import arrival
from wm_models.interface.world_model import Rollout
from wm_models.planners import ReturnCost
from wm_models.registry import PRESETS
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import load_weights
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.evaluation.open_loop import predict
from wm_nodes.records import Step
from wm_nodes.training.config import TrainingConfig
from wm_nodes.training.embodiment_stats import measure_embodiment
from wm_nodes.training.loop import Trainer

DINO = replace(
    TINY_DINO,
    model=replace(
        TINY_DINO.model, encoder=ConvConfig(image_size=SIZE, channels=(4, 8, 8, 8), width=12)
    ),
)
SKIP, FRAMES = DINO.model.frameskip, DINO.model.num_hist


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(PRESETS, "dino_tiny", DINO)


@pytest.fixture
def log(tmp_path):
    return record(tmp_path / "log", 8)


def make_trainer(run, log, model):
    config = TrainingConfig(
        run, ((log, 1.0),), model=model, device="cpu", pace=False, publish_s=1e9
    )
    return Trainer(config)


def advance(trainer, updates):
    while trainer.progress.updates < updates:
        assert trainer.step()


def batch_of(log, fields, batch=64, length=5):
    """Windows of log rows as a learner receives them."""
    with LogReader(log) as reader:
        rows = Sampler(reader, batch=batch, length=length, seed=0, fields=fields).sample()
        return {name: torch.from_numpy(value.copy()) for name, value in rows.items()}


# A dimension that never moves (lerobot#211: a division by its deviation of 0) -----------------


def with_constant_dimensions(log, path, bounds):
    """The log with a second action dimension that is always 0.3, and a joint that is always 5."""
    with LogReader(log) as reader:
        action = VectorSpec(("push", "grip"), ("m", ""), (-1.0, -bounds), (1.0, bounds))
        joints = VectorSpec(("x", "joint"), ("m", ""), (-2.0, -bounds), (2.0, bounds))
        spec = replace(reader.spec, action=action, proprio=joints)
        with LogWriter(path, spec) as writer:
            for index in range(reader.length):
                row = {name: value[0] for name, value in reader.read_rows(index, index + 1).items()}
                grip = 0.0 if row["is_last"] else 0.3
                for name in ("action", "commanded"):
                    row[name] = np.append(row[name], np.float32(grip))
                row["proprio"] = np.append(row["proprio"], np.float32(5.0))
                writer.append(row)
    return path


@pytest.mark.parametrize("model", ["tiny", "dino_tiny"])
@pytest.mark.parametrize("bounds", [10.0, math.inf])
def test_a_constant_dimension_is_learned_and_commanded(tmp_path, log, model, bounds):
    constant_log = with_constant_dimensions(log, tmp_path / "still", bounds)
    with LogReader(constant_log) as reader:
        embodiment = measure_embodiment([reader])
    numbers = [
        *embodiment.action_std,
        *embodiment.proprio_std,
        *embodiment.action_mean,
        *embodiment.proprio_mean,
    ]
    assert all(math.isfinite(number) for number in numbers)
    assert embodiment.action_std[1] == 1.0 and embodiment.action_mean[1] == pytest.approx(0.3)
    trainer = make_trainer(tmp_path / "run", constant_log, model)
    advance(trainer, 8)
    assert all(math.isfinite(value) for value in trainer.metrics.values())
    adapter = ActionAdapter.of(trainer.model)
    executed = torch.tensor([[0.25, 0.3]] * adapter.frameskip)
    scores = adapter.from_robot(executed[None])
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(adapter.to_robot(scores), executed[None])
    # for any proposal of a search, an unknown dimension keeps its value
    extreme = 100 * torch.randn(50, trainer.model.spec.action_dim, generator=torch.manual_seed(0))
    gripper = adapter.to_robot(extreme)[..., 1]
    reach = 0.01 if math.isinf(bounds) else bounds
    assert ((gripper - 0.3).abs() <= reach + 1e-5).all() or not math.isinf(bounds)
    assert (gripper.abs() <= bounds).all()


# Rewards and actions one step off (navix#152) ---------------------------------------------------


def test_the_reward_of_a_row_is_that_of_its_observation(log):
    """The point's reward is minus its distance after the action; it moves by the action."""
    rows = batch_of(log, ["reward", "action", "proprio", "is_first", "is_terminal"])
    arrived = arrival(rows)
    position, known = arrived["proprio"][..., 0], arrived["reward_known"] & ~arrived["is_first"]
    assert known.sum() > 100
    torch.testing.assert_close(arrived["reward"][known], -position.abs()[known])
    before = torch.cat([position[:, :1], position[:, :-1]], 1)
    after = (before + arrived["action"][..., 0]).clamp(-2, 2)
    torch.testing.assert_close(position[known], after[known])
    first = rows["is_first"]
    assert not arrived["reward"][first].any() and not arrived["action"][first].any()


def test_open_loop_rewards_are_those_of_their_frames(tmp_path, log):
    trainer = make_trainer(tmp_path / "run", log, "tiny")
    advance(trainer, 6)
    with LogReader(log) as reader:
        rows = {"image": "image/top", "action": "action", "reward": "reward", "proprio": "proprio"}
        rows = {name: reader.read(field, 0, 9) for name, field in rows.items()}
    rewards = predict(trainer.model, rows, context=2).reward
    np.testing.assert_allclose(rewards[1:], -np.abs(rows["proprio"][1:, 0]), atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_true_values_are_their_own_lambda_returns(lam):
    """Each reward is bootstrapped with the value of the very next state, for every lambda."""
    g = torch.Generator().manual_seed(0)
    reward, discount = torch.randn(9, 4, generator=g), torch.rand(9, 4, generator=g)
    value = [torch.randn(4, generator=g)]
    for k in range(7, -1, -1):
        value.append(reward[k] + discount[k] * value[-1])
    exact = torch.stack(value[::-1])
    torch.testing.assert_close(lambda_return(reward, discount, exact, lam), exact[:-1])


def test_the_return_of_a_plan_sums_the_reward_of_each_action():
    """Reward t of a rollout is that of arriving by action t, discounted t times."""
    reward = torch.tensor([[[1.0, 10.0, 100.0], [100.0, 10.0, 1.0]]])
    cost = ReturnCost(gamma=0.1, use_value=False)
    costs = cost(Rollout(feat={}, reward=reward), None, torch.zeros(1, 2, 3, 1))
    torch.testing.assert_close(costs, -torch.tensor([[3.0, 101.01]]))


# Time-outs taken as terminal (tdmpc2#62: one flag of a window counted for all its rows) ----------


def with_terminals(log, path):
    """The log, where every second episode ended for good with its last action."""
    with LogReader(log) as reader:
        episode = np.searchsorted(reader.episodes["start"], np.arange(reader.length), side="right")
        last = reader.read("is_last", 0, reader.length)
        with LogWriter(path, reader.spec) as writer:
            for index in range(reader.length):
                row = {name: value[0] for name, value in reader.read_rows(index, index + 1).items()}
                ends = index + 1 < reader.length and last[index + 1] and episode[index] % 2 == 0
                writer.append(row | {"is_terminal": bool(ends)})
    return path


def test_a_time_limit_ends_an_episode_and_no_more(log):
    with LogReader(log) as reader:
        assert reader.read("is_last", 0, reader.length).any()
        assert not reader.read("is_terminal", 0, reader.length).any()


def test_only_the_state_after_a_terminal_action_is_terminal(tmp_path, log):
    fields = ["reward", "action", "is_first", "is_last", "is_terminal", "proprio"]
    rows = batch_of(with_terminals(log, tmp_path / "ended"), fields, length=9)
    arrived = arrival(rows)
    terminal, last = arrived["is_terminal"], rows["is_last"]
    assert terminal.any() and (last & ~terminal).any()  # of both kinds
    assert (~terminal | last).all()  # no other row of such a window
    learner = replace(TINY, model=replace(TINY.model, discount=True))
    model = learner.build(1, seed=0)
    behavior = Behavior(model.critic, TINY.learner.behavior)
    starts = terminal.flatten()
    feat = torch.randn(4, len(starts), TINY.model.rssm.feat, generator=torch.manual_seed(0))
    first = behavior._discount(model.imagination, feat, starts)[0]
    gamma = TINY.model.gamma
    torch.testing.assert_close(first, torch.where(starts, 0.0, gamma))


# Statistics under frameskip (nano-world-model#9: those of single steps against chunks of them) ---


@pytest.mark.parametrize("skip", [1, 2, 5])
def test_statistics_are_of_single_actions_for_each_frameskip(tmp_path, log, skip):
    with LogReader(log) as reader:
        embodiment = measure_embodiment([reader])
        last = reader.read("is_last", 0, reader.length)
        actions = reader.read("action", 0, reader.length)[~last]
    preset = replace(DINO, model=replace(DINO.model, frameskip=skip))
    model = preset.build(embodiment)
    adapter = ActionAdapter.of(model)
    assert len(model.spec.action_low) == skip
    chunks = torch.from_numpy(actions[: len(actions) // skip * skip]).reshape(-1, skip, 1)
    scores = adapter.from_robot(chunks)
    expected = (chunks - actions.mean()) / actions.std()
    torch.testing.assert_close(scores, expected.flatten(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapter.to_robot(scores), chunks, atol=1e-5, rtol=1e-5)
    low = (embodiment.action_low[0] - actions.mean()) / actions.std()
    np.testing.assert_allclose(model.spec.action_low, [low] * skip, rtol=1e-5)


# The context of a model when an episode begins (stable-worldmodel#199) ---------------------------


def steps_of(reader, start, count):
    """Rows of an episode as the robot's steps: action and image that came with each."""
    rows = reader.read_rows(start, start + count)
    arriving = np.concatenate([np.zeros((1, 1), np.float32), rows["action"][:-1]])
    return [
        (
            Step(
                stamp_ns=int(rows["stamp"][t]), names=reader.spec.action.names,
                executed=arriving[t], commanded=arriving[t], is_first=t == 0,
            ),
            rows["image/top"][t],
            rows["proprio"][t],
        )
        for t in range(count)
    ]  # fmt: skip


def test_at_the_start_of_an_episode_the_context_has_only_that_episode(tmp_path, log):
    """One frame, then two, then all: real ones of this episode, `frameskip` apart, with the very
    actions between them; none repeated, none padded in, none of the episode before."""
    trainer = make_trainer(tmp_path / "run", log, "dino_tiny")
    advance(trainer, 5)
    trainer.close()
    weights = load_weights(tmp_path / "run/weights", ("encode", "filter"), torch.device("cpu"))
    encoder, state_filter = Encoder(), StateFilter(0, torch.device("cpu"))
    with LogReader(log) as reader:
        for start in reader.episodes["start"][:2].tolist():
            tokens, executed = [], []
            for t, (step, image, proprio) in enumerate(steps_of(reader, start, 3 * SKIP + 1)):
                state = state_filter.update(weights, encoder.encode(weights, image, proprio), step)
                executed.append(torch.from_numpy(step.executed))
                if t % SKIP:
                    continue  # between two frames of the model nothing changes
                tokens.append(encoder.encode(weights, image, proprio)[0])
                count = min(len(tokens), FRAMES)
                assert state.length.tolist() == [count]
                torch.testing.assert_close(state.observed[0, :count], torch.stack(tokens[-count:]))
                assert not state.observed[0, count:].any()
                assert not state.action[0, count - 1 :].any()
                if count > 1:
                    blocks = torch.stack(executed[1:]).reshape(-1, SKIP, 1)
                    between = weights.actions.from_robot(blocks)[-(count - 1) :]
                    torch.testing.assert_close(state.action[0, : count - 1], between)


def test_windows_of_a_model_with_frameskip_stay_in_one_episode(tmp_path):
    """Its frames lie `frameskip` rows apart: a window over an end would join two episodes that no
    flag tells apart."""
    with LargeImagePoint(time_limit=8) as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "log", 12, 0)
    numbered = tmp_path / "numbered"
    with LogReader(tmp_path / "log") as reader, LogWriter(numbered, reader.spec) as writer:
        starts = reader.episodes["start"]
        for index in range(reader.length):
            row = {name: value[0] for name, value in reader.read_rows(index, index + 1).items()}
            number = np.searchsorted(starts, index, side="right")
            writer.append(row | {"proprio": np.array([number], np.float32)})
    trainer = make_trainer(tmp_path / "run", numbered, "dino_tiny")
    advance(trainer, 4)
    for _ in range(20):
        episode = trainer.setup.batches.draw(trainer.learner.batch_specs)["windows"]["proprio"][
            ..., 0
        ]
        assert (episode == episode[:, :1]).all()
