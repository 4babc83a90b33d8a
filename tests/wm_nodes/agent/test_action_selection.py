"""Action selectors: settings of preset and user, refused plans, models of any kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from tests.wm_models.posed import Posed
from tests.wm_nodes.agent.test_delay_compensation import Exact, Line, step
from tests.wm_nodes.agent.test_delay_compensation import weights as line_weights
from wm_datasets.spec import VectorSpec
from wm_models.errors import ModelError, PlanRefused
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.preset import Planning, Preset
from wm_models.interface.world_model import ModelSpec
from wm_models.planners import CEM, GD, MPPI, GoalCost, ReturnCost
from wm_models.registry import PRESETS
from wm_models.weights.manifest import Manifest, WeightsError
from wm_nodes.agent.action_selection import SearchSelector, SearchSettings, action_selector
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.in_process import LearnedPolicy
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import Weights, blank_observation, ready
from wm_nodes.errors import MessageError
from wm_nodes.robots.robot import Observation, RobotSpec

CPU = torch.device("cpu")
NO_TOKENS = torch.zeros(0)
GOAL = Goal(np.full((4, 4, 3), 50, np.uint8))


@dataclass(frozen=True)
class PlanningPreset(Preset):
    """A preset with settings of planners only."""

    settings: Planning = field(default_factory=Planning)

    @property
    def planning(self) -> Planning:
        return self.settings


@pytest.fixture
def set_planning(monkeypatch):
    """Return a function that sets the planning of the presets "line" and "posed"."""

    def use(**settings) -> None:
        for name in ("line", "posed"):
            monkeypatch.setitem(PRESETS, name, PlanningPreset(name, "", Planning(**settings)))

    use()
    return use


def posed_weights(seed: int = 0, **changes) -> Weights:
    torch.manual_seed(seed)
    model = Posed().eval()
    model.spec = replace(model.spec, **changes)
    return ready(model, Manifest(1, "posed", action_dim=2))


def weights_of_line(bad: float | None = None) -> Weights:
    """A point on a line; `bad` is added to all that it imagines."""

    class InvalidLine(Line):
        def readout(self, state, want, *, generator=None):
            return {k: v + bad for k, v in super().readout(state, want).items()}

    return line_weights(Line() if bad is None else InvalidLine())


# refused plans ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("planner", ["cem", "mppi", "gd"])
def test_after_a_refused_plan_the_next_search_is_fresh(
    set_planning, planner: str, bad: float
) -> None:
    policy = ActionPlanner(
        0, CPU, action_selector(planner, SearchSettings(horizon=2, iterations=3))
    )
    policy.goal = GOAL
    state = {"x": torch.zeros(1, 1)}
    good = policy.act(weights_of_line(), state, step(0))
    assert np.isfinite(good).all() and policy.planned_ns == 0
    for tick in (3, 4):
        with pytest.raises(PlanRefused, match="no finite cost"):
            policy.act(weights_of_line(bad), state, step(tick))
        assert policy.planned_ns == -1  # the old plan is not continued
    fresh = policy.act(weights_of_line(), state, step(5))
    assert np.isfinite(fresh).all() and policy.planned_ns == 500_000_000


def test_an_actor_that_diverged_is_refused(set_planning) -> None:
    weights = posed_weights()
    with torch.no_grad():
        weights.model.actor.bias.fill_(math.nan)
    with pytest.raises(PlanRefused, match="an action that is not finite"):
        action_selector("actor").select(
            weights, {"pose": torch.zeros(1, 2)}, step(0), None, None, NO_TOKENS
        )


# settings ---------------------------------------------------------------------------------------


def test_the_preset_decides_discount_and_value_of_imagined_rewards(set_planning) -> None:
    search = action_selector("cem")
    assert search._cost(posed_weights(), None) == ReturnCost(0.99, use_value=True)
    assert search._cost(posed_weights(has_value=False), None) == ReturnCost(0.99, use_value=False)
    set_planning(gamma=0.7, use_value=False)
    assert search._cost(posed_weights(), None) == ReturnCost(0.7, use_value=False)


def test_the_user_s_objective_overrides_the_preset_s(set_planning) -> None:
    goal = {"visual": torch.zeros(1, 1), "proprio": torch.zeros(1, 1)}
    keys = {"visual": 1.0, "proprio": 1.0}
    assert action_selector("cem")._cost(weights_of_line(), goal) == GoalCost(
        keys=keys, reduce="all"
    )
    set_planning(objective="last")
    assert action_selector("cem")._cost(weights_of_line(), goal) == GoalCost(
        keys=keys, reduce="last"
    )
    settings = SearchSettings(objective="all", goal_proprio=0.0)
    assert action_selector("cem", settings)._cost(weights_of_line(), goal) == GoalCost(
        keys={"visual": 1.0}, reduce="all"
    )


def test_the_preset_decides_how_much_is_executed(set_planning) -> None:
    assert action_selector("cem").executes(weights_of_line()) == 3  # a model step's
    set_planning(execute=6)
    assert action_selector("cem").executes(weights_of_line()) == 6
    assert action_selector("cem", SearchSettings(execute=2)).executes(weights_of_line()) == 2
    policy = ActionPlanner(0, CPU, action_selector("cem"))
    policy.goal = GOAL
    weights, planned_steps = weights_of_line(), []
    for tick in range(13):
        policy.act(weights, {"x": torch.zeros(1, 1)}, step(tick))
        planned_steps.append(policy.planned_ns // 100_000_000)
    assert sorted(set(planned_steps)) == [0, 6, 12]


def test_the_settings_of_a_model_override_those_of_its_preset() -> None:
    weights = replace(weights_of_line(), preset="dino_wm_repo", settings={"frameskip": 2})
    assert action_selector("cem").executes(weights) == 5 * 2  # all of a plan, as released


def test_candidates_of_the_actor_are_the_preset_s_within_the_samples(set_planning) -> None:
    def search(weights: Weights, **settings) -> CEM:
        return action_selector("cem", SearchSettings(**settings))._search(weights, explore=False)

    assert search(posed_weights()).n_policy == 12
    assert (
        search(posed_weights(), samples=5).n_policy == 4
        and search(posed_weights(), samples=5).elites == 5
    )
    assert search(posed_weights(has_actor=False)).n_policy == 0
    set_planning(planners={"cem": {"n_policy": 3, "sigma0": 0.2}})
    assert search(posed_weights()) == CEM(n_policy=3, sigma0=0.2)
    gd = action_selector("gd", SearchSettings(samples=2, iterations=7))._search(
        posed_weights(), explore=True
    )
    assert gd == GD(restarts=2, steps=7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget_s", math.nan), ("budget_s", -1.0), ("samples", 2.5), ("horizon", -1),
        ("execute", 1.5), ("goal_proprio", -0.1), ("goal_proprio", math.inf), ("objective", "best"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(name: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"SearchSettings\.{name}: got .*, expected "):
        SearchSettings(**{name: value})


# settings that change at run time ---------------------------------------------------------------


class RecordingSelector(Exact):
    """A search that records its warm starts."""

    def __init__(self, settings: SearchSettings) -> None:
        super().__init__("mppi", settings)
        self.starts: list[torch.Tensor | None] = []

    def planning(self, weights):
        return Planning()

    def _search(self, weights, explore):
        search = SearchSelector._search(self, weights, explore)
        selector = self

        class RecordingSearch:
            horizon, iterations = search.horizon, search.iterations

            def plan(self, *args, warm, **rest):
                selector.starts.append(None if warm is None else warm.mean)
                return search.plan(*args, warm=warm, **rest)

        return RecordingSearch()


SHORT = SearchSettings(horizon=2, samples=16, iterations=2)


@pytest.mark.parametrize(
    ("change", "keeps_warm_start"),
    [
        ({"samples": 32}, True), ({"iterations": 3}, True), ({"temperature": 4.0}, True),
        ({"goal_proprio": 2.0}, True), ({"objective": "last"}, True), ({"horizon": 4}, False),
    ],
)  # fmt: skip
def test_a_changed_setting_acts_at_the_next_search(
    set_planning, change, keeps_warm_start: bool
) -> None:
    """The plan in execution is not changed; a warm start of another shape is dropped."""
    selector = RecordingSelector(SHORT)
    policy = ActionPlanner(0, CPU, selector)
    policy.goal = GOAL
    weights, state = weights_of_line(), {"x": torch.zeros(1, 1)}
    first = policy.act(weights, state, step(0))
    policy.configure(replace(SHORT, **change))
    assert np.array_equal(policy.act(weights, state, step(1)), first[1:])
    second = policy.act(weights, state, step(3))
    assert len(second) == 3 * (change.get("horizon") or 2)
    assert len(selector.starts) == 2 and (selector.starts[1] is not None) == keeps_warm_start


def test_every_changed_setting_reaches_planner_or_cost(set_planning) -> None:
    goal = {"visual": torch.zeros(1, 1), "proprio": torch.zeros(1, 1)}
    selector = action_selector("mppi", SHORT)
    selector._search(weights_of_line(), explore=False)
    settings = SearchSettings(
        horizon=4, samples=32, iterations=3, temperature=4.0, objective="last", goal_visual=0.5,
        goal_proprio=2.0,
    )  # fmt: skip
    selector.configure(settings)
    search = selector._search(weights_of_line(), explore=False)
    assert search == MPPI(horizon=4, samples=32, iterations=3, temperature=4.0)
    keys = {"visual": 0.5, "proprio": 2.0}
    assert selector._cost(weights_of_line(), goal) == GoalCost(keys=keys, reduce="last")


def test_settings_that_a_planner_does_not_take_are_refused(set_planning) -> None:
    settings = SearchSettings(temperature=2.0)
    with pytest.raises(ModelError, match="temperature: got 2 for planner gd, expected 0"):
        action_selector("gd", settings)
    selector = action_selector("cem", SHORT)
    with pytest.raises(ModelError, match="temperature: got 2 for planner cem, expected 0"):
        selector.configure(replace(settings, samples=99))
    assert selector._search(weights_of_line(), explore=False).samples == 16  # nothing has changed
    with pytest.raises(ModelError, match="for planner actor, expected one of cem, mppi, gd"):
        action_selector("actor").configure(SHORT)


def test_a_goal_without_any_weight_is_refused(set_planning) -> None:
    with pytest.raises(ModelError, match="goal_visual"):
        SearchSettings(goal_visual=0.0, goal_proprio=0.0)
    selector = action_selector("cem", SearchSettings(goal_visual=0.0))
    with pytest.raises(MessageError, match="got an image without joint states"):
        selector._cost(weights_of_line(), {"visual": torch.zeros(1, 1)})


# models of another kind -------------------------------------------------------------------------


def observation(tick: int, pose: np.ndarray, executed: np.ndarray) -> Observation:
    return Observation(
        stamp_ns=tick * 100_000_000, images={}, proprio=pose.astype(np.float32), executed=executed,
        commanded=executed, is_first=tick == 0,
    )  # fmt: skip


@pytest.mark.parametrize("planner", ["actor", "cem", "mppi", "gd"])
def test_a_model_without_images_acts(set_planning, planner: str) -> None:
    """Its state is a dict, and the raw pose reaches it through encode and filter."""
    weights = posed_weights()
    box = ("m/s",) * 2, (-1.0, -1.0), (1.0, 1.0)
    proprio, action = VectorSpec(("x", "y"), *box), VectorSpec(("dx", "dy"), *box)
    spec = RobotSpec("point", "reach", 0.1, {}, proprio, action)
    search = SearchSettings(horizon=2, samples=16, iterations=2)
    agent = LearnedPolicy(weights, spec, planner=planner, search=search)
    agent.begin()
    pose, action = np.array([0.6, -0.4], np.float32), np.zeros(2, np.float32)
    for tick in range(3):
        action = agent.act(observation(tick, pose, action))
        assert action.shape == (2,) and np.isfinite(action).all()
        pose = pose + 0.1 * action
    if planner != "actor":  # towards 0, where the reward is
        assert np.abs(pose).sum() < 1.0


def test_the_raw_pose_is_not_rounded() -> None:
    weights = posed_weights()
    pose = np.array([1.2345678, -9.8765432], np.float32)
    tokens = Encoder().encode(weights, None, pose)
    assert tokens.shape == (1, *weights.tokens)
    state = StateFilter(0, CPU).update(
        weights, tokens, replace(step(0), names=("dx", "dy"), executed=np.zeros(2, np.float32))
    )
    assert state["pose"][0].numpy().tolist() == pose.tolist()


def test_an_observation_without_a_topic_is_refused() -> None:
    spec = ModelSpec((-1.0,), (1.0,), {"image": (3, 8, 8), "touch": (2,)})
    with pytest.raises(WeightsError, match="got a model that takes touch, expected one that"):
        blank_observation(spec, CPU)
    image_spec = replace(spec, obs_keys={"image": (3, 8, 6), "proprio": (2,)})
    shapes = {name: tuple(x.shape) for name, x in blank_observation(image_spec, CPU).items()}
    assert shapes == {"image": (1, 8, 6, 3), "proprio": (1, 2)}
    assert image_spec.image_size == (8, 6)


def test_the_adapter_of_the_posed_model_has_its_frameskip() -> None:
    assert ActionAdapter.of(posed_weights().model).frameskip == 1
