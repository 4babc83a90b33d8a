"""Baselines that ignore images: a learned policy must beat them to show that it uses vision.

`random` acts uniformly, `hold` stands still, `constant` repeats the best of 27 actions, `open_loop`
replays an expert's actions of another episode, `open_loop_best` the best of 30 such recordings,
`expert` reads the simulator's own state.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wm_nodes.evaluation.policy import P, Policy
from wm_nodes.evaluation.rollout import EpisodeTally, rollout
from wm_nodes.robots.robot import Observation, Robot, RobotError, Vector
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims.metaworld import ACTION, MetaWorld
from wm_nodes.robots.sims.metaworld_expert import Expert

BASELINES = ("random", "constant", "open_loop", "open_loop_best", "expert")


class Random:
    """Uniform actions of the robot's action space."""

    def __init__(self, robot: Robot, seed: int) -> None:
        self._space = robot.spec.action
        self._random = np.random.default_rng(seed)

    def begin(self) -> None:
        pass

    def act(self, observation: Observation) -> Vector:
        return self._space.draw(self._random)


class Constant:
    """The same action at every step."""

    def __init__(self, action: npt.ArrayLike) -> None:
        self.action = np.array(action, np.float32)

    def begin(self) -> None:
        pass

    def act(self, observation: Observation) -> Vector:
        return self.action


class Hold:
    """Keeps still: dimensions that are positions keep their values."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot

    def begin(self) -> None:
        pass

    def act(self, observation: Observation) -> Vector:
        return self._robot.holding()


class Replay:
    """The same actions (T, A) in every episode; the last is held where the episode is longer."""

    def __init__(self, actions: npt.ArrayLike) -> None:
        self.actions: Vector = np.array(actions, np.float32)

    def begin(self) -> None:
        self._next = 0

    def act(self, observation: Observation) -> Vector:
        self._next += 1
        action: Vector = self.actions[min(self._next, len(self.actions)) - 1]
        return action


class OpenLoop:
    """An expert's actions, of another episode of another stream, replayed.

    `recorder` is a second robot of the same task; every episode gets a new recording.
    """

    def __init__(self, recorder: MetaWorld, seed: int) -> None:
        self._recorder, self._seed, self._episode = recorder, seed, 0
        self._expert = Expert(recorder)

    def begin(self) -> None:
        self._replay = self.record()
        self._replay.begin()

    def act(self, observation: Observation) -> Vector:
        return self._replay.act(observation)

    def record(self) -> Replay:
        """Return the expert's actions of the next episode of the search stream."""
        seed = episode_seed(self._seed, self._episode, "search")
        self._episode += 1
        _, *steps = rollout(self._recorder, self._expert, seed)
        return Replay([step.executed for step in steps])


def best_constant(
    robot: Robot, seed: int, *, gripper: float = 1.0, trials: int = 4, finals: int = 10
) -> Constant:
    """Return the best of the 27 actions with x, y, z in {-1, 0, 1} and the gripper held, or of the
    actions of a discrete set.

    All are tried on `trials` episodes, the best five on `finals` more; success counts first, then
    return. The episodes are of the search stream: none of them is used to evaluate the winner.
    """
    space = robot.spec.action
    if space.discrete:
        candidates = [Constant(action) for action in np.eye(len(space))]
    elif space.names == ACTION.names:
        grid = itertools.product((-1.0, 0.0, 1.0), repeat=3)
        candidates = [Constant((*xyz, gripper)) for xyz in grid]
    else:
        raise RobotError(
            f"policy: got constant for actions {', '.join(space.names)}, expected those of "
            "metaworld, or discrete ones. Choose random or hold."
        )
    return _best(robot, candidates, seed, trials, finals)


def best_open_loop(
    robot: Robot,
    recorder: MetaWorld,
    seed: int,
    *,
    recordings: int = 30,
    trials: int = 5,
    finals: int = 10,
) -> Replay:
    """Return the recording of an expert that scores best when replayed in other episodes.

    The strongest blind policy here: one fixed sequence, chosen like the best constant. Where it
    succeeds, the task can be solved without images.
    """
    source = OpenLoop(recorder, seed)
    candidates = [source.record() for _ in range(recordings)]
    return _best(robot, candidates, seed, trials, finals, first=recordings)


def baseline(name: str, robot: MetaWorld, seed: int, settings: dict[str, object]) -> Policy:
    """Return a baseline by name for a robot. `settings` open a twin of it for the recordings."""
    if name == "random":
        return Random(robot, seed)
    if name == "constant":
        return best_constant(robot, seed)
    if name == "expert":
        return Expert(robot)
    if name in ("open_loop", "open_loop_best"):
        twin = type(robot)(**{**settings, "render": "none"})  # type: ignore[arg-type]
        return OpenLoop(twin, seed) if name == "open_loop" else best_open_loop(robot, twin, seed)
    raise RobotError(f"policy: got {name!r}, expected one of {', '.join(BASELINES)}.")


def _best(
    robot: Robot, candidates: Sequence[P], seed: int, trials: int, finals: int, first: int = 0
) -> P:
    """Try all on `trials` search episodes from `first` on, the best five on `finals` more."""
    seeds = [episode_seed(seed, first + index, "search") for index in range(trials + finals)]
    ranked = sorted(candidates, key=lambda c: _score(robot, c, seeds[:trials]), reverse=True)
    return max(ranked[:5], key=lambda c: _score(robot, c, seeds[trials:]))


def _score(robot: Robot, policy: Policy, seeds: Sequence[int]) -> tuple[float, float]:
    """Return (share of episodes with success, mean return)."""
    successes, total = 0, 0.0
    for seed in seeds:
        tally = EpisodeTally()
        for observation in rollout(robot, policy, seed):
            tally.add(observation)
        total += tally.total_reward
        successes += tally.success
    return successes / len(seeds), total / len(seeds)
