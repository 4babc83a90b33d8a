"""A trained agent without ROS: the graph's own encoder, filter and chooser, hand to hand.

On the same episodes it decides exactly as the nodes do: same objects, same stamps, same noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_models.errors import PlanRefused
from wm_models.weights.store import read_manifest
from wm_nodes.agent.action_selection import CHOOSERS, SearchSettings, chooser
from wm_nodes.agent.delay_compensation import Delay
from wm_nodes.agent.device import pick_device
from wm_nodes.agent.encoder import Encoder
from wm_nodes.agent.goals import Goal
from wm_nodes.agent.policy import Policy
from wm_nodes.agent.state_filter import Filter
from wm_nodes.agent.weights import Weights, device_of, load_weights
from wm_nodes.records import Step
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.robots.hold_action import still
from wm_nodes.robots.robot import GoalTask, Observation, Robot, RobotError, RobotSpec, Vector

NEEDS = ("encode", "filter", "act", "plan")
TELLING = ("robot", "task", "camera", "action_repeat", "time_limit", "render")


class LearnedPolicy:
    """Sees one camera, filters what it sees, acts by its actor or by a search in imagination."""

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
        """`planner` may be empty: the actor, or cem where the model has none.

        `explore` samples as in training episodes; `camera` may be empty if there is one only.

        `goal` is asked at each episode's beginning; a planner then plans for what it returns.
        `delay_s` says how much later than in training commands act. `thinking_s` lets time pass
        between an observation and its plan, as it does in real time: until then the plan before is
        played. `compensate` plans from where the robot will be when the plan comes.
        """
        planner = planner or ("actor" if weights.model.spec.has_actor else "cem")
        if planner not in CHOOSERS:
            raise RobotError(f"planner: expected one of {', '.join(CHOOSERS)}, got {planner!r}.")
        size = weights.model.spec.image_size
        self.camera = only_camera(robot, camera) if size or camera else ""
        self._weights, self._names, self._explore = weights, robot.action.names, explore
        self._seed, self._device = seed, device_of(weights.model)
        self._pipeline = ImagePipeline(*size) if size else None
        self._encoder = Encoder()
        delay = Delay(delay_s)
        if compensate and thinking_s:
            delay.took(thinking_s)
        self._policy = Policy(seed, self._device, chooser(planner, search), delay)
        self._coming = Coming(thinking_s, robot.control_period_s, self._names)
        self._goal, self._robot = goal, robot
        self._thought_s: list[float] = []  # for each plan that was made
        self._refused = 0  # plans; the robot stood still instead
        self._filter = Filter(self._seed, self._device)

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
        self._filter = Filter(self._seed, self._device)
        self._coming.forget()
        if self._goal is not None:
            self._policy.goal = self._goal()

    def thought(self) -> dict[str, float]:
        """Return how long plans took from picture to action, median and 99th percentile.

        The first plan is start-up and left out, where it is not the only one.
        `plans_refused` counts plans that were refused, where there are any.
        """
        refused: dict[str, float] = {"plans_refused": self._refused} if self._refused else {}
        if not self._thought_s:
            return refused
        p50, p99 = np.percentile(self._thought_s[1:] or self._thought_s, (50, 99)) * 1e3
        return {
            "plans": len(self._thought_s),
            "plan_p50_ms": round(float(p50), 1),
            "plan_p99_ms": round(float(p99), 1),
            **refused,
        }

    def act(self, observation: Observation) -> Vector:
        began = time.perf_counter()
        step = Step(
            stamp_ns=observation.stamp_ns,
            names=self._names,
            executed=observation.executed,
            commanded=observation.commanded,
            is_first=observation.is_first,
            explore=self._explore,
        )
        image = self._pipeline(observation.images[self.camera]) if self._pipeline else None
        tokens = self._encoder.encode(self._weights, image, observation.proprio)
        state = self._filter.update(self._weights, tokens, step)
        if not self._policy.can_act(self._weights):
            raise RobotError(
                f"{self._weights.preset}: plans to goals, and {self._robot.task!r} shows none. "
                "Right: a task that does, or a model that predicts rewards."
            )
        try:
            actions = self._policy.act(self._weights, state, step)
        except PlanRefused:
            self._refused += 1
            return still(self._names, observation.commanded)
        if self._policy.planned_ns == step.stamp_ns:
            self._thought_s.append(time.perf_counter() - began)
        return self._coming.due(step.stamp_ns, actions, observation.commanded)


class Coming:
    """Plans that come some time after their observation; what is due is of the newest that came."""

    def __init__(self, late_s: float, period_s: float, names: tuple[str, ...]) -> None:
        self._late_s, self._period_s, self._names = late_s, period_s, names
        self._plans: list[tuple[int, Vector]] = []

    def forget(self) -> None:
        """An episode begins: no plan has come."""
        self._plans.clear()

    def due(self, now_ns: int, actions: Vector, last: Vector) -> Vector:
        """Return the action (A,) to do now, when actions (N, A) are the answer to what is seen.

        last: what was commanded before (A,): of dimensions that are positions it is kept.
        """
        if not self._late_s:
            return np.asarray(actions[0])
        self._plans.append((now_ns, actions))
        here = [plan for plan in self._plans if now_ns - plan[0] >= self._late_s * 1e9 - 1e6]
        if not here:
            return still(self._names, last)
        stamp_ns, plan = here[-1]
        self._plans = [each for each in self._plans if each[0] >= stamp_ns]
        index = round((now_ns - stamp_ns) / 1e9 / self._period_s)
        return np.asarray(plan[index]) if index < len(plan) else still(self._names, last)


def goal_of(robot: Robot, camera: str, *, joints: bool = False) -> Callable[[], Goal | None]:
    """Return a function that gives what a robot's present episode is to bring about: a picture,
    and with `joints` the proprioception there too."""

    def now() -> Goal | None:
        shown = robot.goal() if isinstance(robot, GoalTask) else None
        if shown is None:
            return None
        return Goal(shown.images[camera], shown.proprio if joints else None)

    return now


def differences(folder: str | Path, robot: RobotSpec) -> list[str]:
    """Say in what the weights' training differs from this robot: task, camera, pictures, pace."""
    made = read_manifest(folder).extra
    here = {"robot": robot.name, "task": robot.task, **robot.extra}
    return [
        f"{name}: the weights were made with {made[name]}, this is {here[name]}"
        for name in TELLING
        if name in made and name in here and made[name] != here[name]
    ]


def only_camera(robot: RobotSpec, camera: str) -> str:
    """Return the camera, or the robot's only one where `camera` is empty. RobotError."""
    found = list(robot.cameras)
    if camera in found:
        return camera
    if camera or len(found) != 1:
        asked = repr(camera) if camera else "none"
        raise RobotError(f"camera: asked for {asked}, the robot has {found or 'no pictures'}.")
    return found[0]
