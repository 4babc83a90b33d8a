"""A trained agent in one process without ROS: the encoder, state filter and planner of the nodes.

On the same episodes its actions are exactly those of the nodes: same objects, stamps and noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_models.errors import PlanRefused
from wm_models.weights.store import read_manifest
from wm_nodes.agent.action_selection import ACTION_SELECTORS, SearchSettings, action_selector
from wm_nodes.agent.delay_compensation import DelayCompensator
from wm_nodes.agent.device import pick_device
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.policy import ActionPlanner
from wm_nodes.agent.state_filter import StateFilter
from wm_nodes.agent.weights import Weights, check_cameras, check_space, device_of, load_weights
from wm_nodes.records import Step
from wm_nodes.robots.cameras.names import camera_names, joined
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.robots.hold_action import still
from wm_nodes.robots.robot import GoalTask, Observation, Robot, RobotError, RobotSpec, Vector

NEEDS = ("encode", "filter", "act", "plan")
COMPARED = ("robot", "task", "camera", "action_repeat", "time_limit", "render", "background")


class LearnedPolicy:
    """Filters the images of its cameras; acts by its actor or by a search in imagination."""

    def __init__(
        self,
        weights: Weights,
        robot: RobotSpec,
        *,
        seed: int = 0,
        planner: str = "",
        search: SearchSettings | None = None,
        explore: bool = False,
        camera: str = "",
        goal: Callable[[], Goal | None] | None = None,
        delay_s: float = 0.0,
        thinking_s: float = 0.0,
        compensate: bool = True,
    ) -> None:
        """planner: empty: the actor, or cem where the model has none.

        `explore`: sample as in training episodes. `camera`: several have commas between; empty: the
        weights' several, or the robot's only one.

        `goal` is called at the start of each episode and returns the goal of its plans. `delay_s`:
        how much later [s] than in training commands act. `thinking_s`: simulated planning time [s]
        between an observation and its plan; until then the previous plan is executed. `compensate`:
        plan from the state that the robot will have when the plan is ready.
        """
        planner = planner or ("actor" if weights.model.spec.has_actor else "cem")
        if planner not in ACTION_SELECTORS:
            raise RobotError(
                f"planner: got {planner!r}, expected one of {', '.join(ACTION_SELECTORS)}."
            )
        check_space(weights, robot.action, planner)
        size = weights.model.spec.image_size
        trained = joined(weights.model.spec.cameras)
        self.cameras = chosen_cameras(robot, camera or trained) if size or camera else ()
        check_cameras(weights, self.cameras)
        self._weights, self._names, self._explore = weights, robot.action.names, explore
        self._seed, self._device = seed, device_of(weights.model)
        self._pipeline = ImagePipeline(*size) if size else None
        self._encoder = Encoder()
        delay = DelayCompensator(delay_s)
        if compensate and thinking_s:
            delay.record_planning_time(thinking_s)
        self._policy = ActionPlanner(seed, self._device, action_selector(planner, search), delay)
        self._delayed = DelayedPlans(thinking_s, robot.control_period_s, self._names)
        self._goal, self._robot = goal, robot
        self._planning_s: list[float] = []  # of each plan
        self._refused = 0  # plans; the robot stands still instead
        self._filter = StateFilter(self._seed, self._device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        robot: RobotSpec,
        *,
        seed: int = 0,
        planner: str = "",
        search: SearchSettings | None = None,
        device: str = "auto",
        camera: str = "",
        goal: Callable[[], Goal | None] | None = None,
    ) -> LearnedPolicy:
        """Load a version's folder, or a store's newest. WeightsError, ModelError."""
        weights = load_weights(folder, NEEDS, pick_device(device))
        return cls(
            weights, robot, seed=seed, planner=planner, search=search, camera=camera, goal=goal
        )

    def begin(self) -> None:
        self._filter = StateFilter(self._seed, self._device)
        self._delayed.clear()
        if self._goal is not None:
            self._policy.goal = self._goal()

    def thought(self) -> dict[str, float]:
        """Return the time from image to action of all plans: median and 99th percentile [ms].

        The first plan includes start-up and is left out, unless it is the only one.
        `plans_refused` counts refused plans, if there are any.
        """
        refused: dict[str, float] = {"plans_refused": self._refused} if self._refused else {}
        if not self._planning_s:
            return refused
        p50, p99 = np.percentile(self._planning_s[1:] or self._planning_s, (50, 99)) * 1e3
        return {
            "plans": len(self._planning_s),
            "plan_p50_ms": round(float(p50), 1),
            "plan_p99_ms": round(float(p99), 1),
            **refused,
        }

    def act(self, observation: Observation) -> Vector:
        started = time.perf_counter()
        step = Step(
            stamp_ns=observation.stamp_ns,
            names=self._names,
            executed=observation.executed,
            commanded=observation.commanded,
            is_first=observation.is_first,
            explore=self._explore,
        )
        pipeline, images = self._pipeline, observation.images
        seen = {name: pipeline(images[name]) for name in self.cameras} if pipeline else None
        tokens = self._encoder.encode(self._weights, seen, observation.proprio)
        state = self._filter.update(self._weights, tokens, step)
        if not self._policy.can_act(self._weights):
            raise RobotError(
                f"{self._weights.preset}: got task {self._robot.task!r} without a goal, expected "
                "one with a goal. Choose such a task, or a model that predicts rewards."
            )
        try:
            actions = self._policy.act(self._weights, state, step)
        except PlanRefused:
            self._refused += 1
            return still(self._names, observation.commanded)
        if self._policy.planned_ns == step.stamp_ns:
            self._planning_s.append(time.perf_counter() - started)
        return self._delayed.due(step.stamp_ns, actions, observation.commanded)


class DelayedPlans:
    """Plans that are ready some time after their observation; actions are those of the newest."""

    def __init__(self, delay_s: float, period_s: float, names: tuple[str, ...]) -> None:
        self._delay_s, self._period_s, self._names = delay_s, period_s, names
        self._plans: list[tuple[int, Vector]] = []

    def clear(self) -> None:
        """Drop all plans, at the start of an episode."""
        self._plans.clear()

    def due(self, now_ns: int, actions: Vector, last: Vector) -> Vector:
        """Return the action (A,) that is due now; actions (N, A) are the newest observation's plan.

        last: the previous command (A,); without a plan its position dimensions are held.
        """
        if not self._delay_s:
            return np.asarray(actions[0])
        self._plans.append((now_ns, actions))
        ready = [plan for plan in self._plans if now_ns - plan[0] >= self._delay_s * 1e9 - 1e6]
        if not ready:
            return still(self._names, last)
        stamp_ns, plan = ready[-1]
        self._plans = [each for each in self._plans if each[0] >= stamp_ns]
        index = round((now_ns - stamp_ns) / 1e9 / self._period_s)
        return np.asarray(plan[index]) if index < len(plan) else still(self._names, last)


def goal_of(robot: Robot, camera: str, *, joints: bool = False) -> Callable[[], Goal | None]:
    """Return a function that gives the goal of the robot's current episode: the camera's image, and
    with `joints` its proprioception."""

    def now() -> Goal | None:
        observation = robot.goal() if isinstance(robot, GoalTask) else None
        if observation is None:
            return None
        return Goal(observation.images[camera], observation.proprio if joints else None)

    return now


def differences(folder: str | Path, robot: RobotSpec) -> list[str]:
    """Return how the robot differs from the one in training: task, camera, images, time limit."""
    trained = read_manifest(folder).extra
    current = {"robot": robot.name, "task": robot.task, **robot.extra}
    return [
        f"{name}: trained with {trained[name]}, this is {current[name]}"
        for name in COMPARED
        if name in trained and name in current and trained[name] != current[name]
    ]


def chosen_cameras(robot: RobotSpec, camera: str) -> tuple[str, ...]:
    """Return the cameras with commas between, or the robot's only one where `camera` is empty.
    RobotError."""
    names = list(robot.cameras)
    try:
        chosen = camera_names(camera)
    except ValueError as error:
        raise RobotError(str(error)) from None
    unknown = [name for name in chosen if name not in names]
    if unknown or (not chosen and len(names) != 1):
        got = repr(unknown[0]) if unknown else "none"
        expected = f"one of {names}" if names else "a robot with a camera"
        raise RobotError(f"camera: got {got}, expected {expected}.")
    return chosen or (names[0],)
