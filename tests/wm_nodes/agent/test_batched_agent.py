"""Several environments in one batch: each gets what it would get alone, and waits for no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.wm_nodes.agent.test_delay_compensation import Line
from tests.wm_nodes.agent.test_delay_compensation import weights as weights_of
from tests.wm_nodes.tiny import SIZE, TINY
from wm_models.errors import PlanRefused
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.agent.action_selection import SearchSettings, action_selector
from wm_nodes.agent.batched_agent import BatchedAgent, Observation
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter, update_all
from wm_nodes.agent.weights import load_weights
from wm_nodes.errors import MessageError
from wm_nodes.records import Step
from wm_nodes.robots.environments import environment_seed

CPU, COUNT, LENGTH = torch.device("cpu"), 3, 7
SEEDS = [environment_seed(5, number) for number in range(COUNT)]


def make_weights(folder, version=1, seed=4):
    manifest = Manifest(version, "tiny", action_dim=1)
    WeightStore(folder).save(TINY.build(1, seed=seed).modules_by_name(), manifest)
    return load_weights(folder, ("encode", "filter", "act", "plan"), CPU)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return make_weights(tmp_path / "one")


@pytest.fixture
def newer(tmp_path, weights):
    return make_weights(tmp_path / "two", version=2, seed=9)


def make_agent(planner="actor"):
    settings = SearchSettings(horizon=2, samples=4, iterations=1) if planner != "actor" else None
    planners = [ActionPlanner(seed, CPU, action_selector(planner, settings)) for seed in SEEDS]
    return BatchedAgent(SEEDS, CPU, planners)


def observation(number: int, tick: int, *, length: int = LENGTH, explore: bool = True):
    """Observation of an environment whose episodes have `length` rows."""
    random = np.random.default_rng((number, tick))
    place = tick % length
    action = random.uniform(-1, 1, 1).astype(np.float32) * (place > 0)
    step = Step(
        stamp_ns=(tick + 1) * 20_000_000,
        names=("x",),
        executed=action.astype(np.float32),
        commanded=action.astype(np.float32),
        is_first=place == 0,
        is_last=place == length - 1,
        explore=explore,
    )
    return Observation(step, random.integers(0, 256, (SIZE, SIZE, 3), np.uint8))


def alone(number, observations, weights, planner="actor"):
    """What environment `number` gets from an agent for it alone."""
    settings = SearchSettings(horizon=2, samples=4, iterations=1) if planner != "actor" else None
    policy = ActionPlanner(SEEDS[number], CPU, action_selector(planner, settings))
    state_filter, encoder = StateFilter(SEEDS[number], CPU), Encoder()
    answers = []
    for each in observations:
        state = state_filter.update(weights, encoder.encode(weights, each.images), each.step)
        ends = each.step.is_last
        answers.append(None if ends else policy.act(weights, state, each.step))
    return answers


def agree(got, expected):
    assert (got is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("planner", ["actor", "cem"])
def test_a_batch_gives_each_environment_what_it_gets_alone(weights, planner):
    """Episodes of different lengths, so resets fall on different rows of the batch."""
    agent, lengths = make_agent(planner), (3, 5, LENGTH)
    runs = [
        [observation(n, tick, length=lengths[n], explore=n != 1) for tick in range(9)]
        for n in range(COUNT)
    ]
    expected = [alone(n, run, weights, planner) for n, run in enumerate(runs)]
    for tick in range(9):
        decisions = agent.act({n: runs[n][tick] for n in range(COUNT)}, weights)
        for number in range(COUNT):
            agree(decisions[number].actions, expected[number][tick])


def test_whom_it_answers_together_does_not_matter(weights):
    """The same observations in batches of changing members."""
    runs = [[observation(n, tick) for tick in range(9)] for n in range(COUNT)]
    expected = [alone(n, run, weights) for n, run in enumerate(runs)]
    agent, next_tick, random = make_agent(), [0] * COUNT, np.random.default_rng(0)
    while min(next_tick) < 9:
        ready = [n for n in range(COUNT) if next_tick[n] < 9 and random.random() < 0.6]
        decisions = agent.act({n: runs[n][next_tick[n]] for n in ready}, weights)
        assert sorted(decisions) == ready
        for number in ready:
            agree(decisions[number].actions, expected[number][next_tick[number]])
            next_tick[number] += 1


def test_a_silent_environment_blocks_no_other(weights):
    agent = make_agent()
    agent.act({n: observation(n, 0) for n in range(COUNT)}, weights)
    for tick in range(1, LENGTH - 1):  # environment 1 shows nothing
        decisions = agent.act({n: observation(n, tick) for n in (0, 2)}, weights)
        assert all(decisions[n].actions is not None for n in (0, 2))
    assert agent.act({1: observation(1, 1)}, weights)[1].actions is not None


def test_environments_explore_differently(weights):
    agent = make_agent()
    same = observation(0, 0)
    decisions = agent.act(dict.fromkeys(range(COUNT), same), weights)
    actions = [float(decisions[n].actions[0, 0]) for n in range(COUNT)]
    assert len({round(action, 4) for action in actions}) == COUNT


def test_each_environment_switches_versions_at_its_own_episode_start(weights, newer):
    agent = make_agent()
    agent.act({n: observation(n, 0) for n in range(COUNT)}, weights)
    mixed = {0: observation(0, 1), 1: observation(1, LENGTH), 2: observation(2, 1)}
    decisions = agent.act(mixed, newer)
    assert [decisions[n].weights.version for n in range(COUNT)] == [1, 2, 1]
    agree(decisions[1].actions, alone(1, [mixed[1]], newer)[0])


def test_a_wrong_image_is_refused_for_its_environment_only(weights):
    agent, wrong = make_agent(), replace(observation(1, 0), images=np.zeros((8, 8, 3), np.uint8))
    decisions = agent.act({0: observation(0, 0), 1: wrong}, weights)
    assert isinstance(decisions[1].error, MessageError) and decisions[1].actions is None
    agree(decisions[0].actions, alone(0, [observation(0, 0)], weights)[0])


def test_an_action_that_is_not_finite_is_refused_for_its_environment_only(weights, monkeypatch):
    act = type(weights.model).act

    def broken(self, state, **options):
        actions = act(self, state, **options)
        actions[0] = torch.nan
        return actions

    monkeypatch.setattr(type(weights.model), "act", broken)
    decisions = make_agent().act({n: observation(n, 0) for n in range(2)}, weights)
    assert isinstance(decisions[0].error, PlanRefused)
    assert np.isfinite(decisions[1].actions).all()


def test_without_weights_there_is_no_decision_yet():
    decision = make_agent().act({2: observation(2, 0)}, None)[2]
    assert decision.weights is None and decision.actions is None


def test_frames_of_environments_fall_on_different_steps():
    """A model with a frameskip takes a frame of only some environments of a batch."""
    line = Line()
    line.spec = replace(line.spec, context=3)
    line.initial = lambda batch, device=None: {"x": torch.zeros(batch, 1)}
    line.filter = lambda state, action, tokens, is_first, *, generator=None: {
        "x": torch.where(is_first[:, None], 0.0, state["x"]) + action.sum(-1, keepdim=True)
    }
    loaded, length = weights_of(line), 20
    together, single = ([StateFilter(s, CPU) for s in SEEDS[:2]] for _ in range(2))
    moved = [0, 0]
    for tick in range(12):
        steps = [observation(n, tick + 19 * n, length=length).step for n in range(2)]
        states = update_all(together, loaded, torch.zeros(2, 1, 1), steps)
        for number, step in enumerate(steps):
            before = single[number]._state
            state = single[number].update(loaded, torch.zeros(1, 1, 1), step)
            moved[number] |= (state is not before) << tick
            assert torch.equal(state["x"], states[number]["x"])
    assert moved[0] != moved[1] and all(moved)
