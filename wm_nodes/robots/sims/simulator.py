"""Base of simulators: seeds, time limit, action repeat, episode errors and the newest observation.

A simulator is one file: a subclass of `Simulator` that begins an episode from a seed, simulates one
step, and returns proprioception and images. dm_control, Gymnasium and RLBench differ in what a step
reports; `StepOutcome` holds all of it. Where MuJoCo renders, `rendering.Cameras` makes the images.
"""

from __future__ import annotations

import abc
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.errors import did_you_mean
from wm_nodes.records import Depth
from wm_nodes.robots.robot import (
    Image,
    Observation,
    Robot,
    RobotError,
    RobotSpec,
    Vector,
    checked_action,
)
from wm_nodes.robots.seeds import episode_seed

State = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StepOutcome:
    """Result of one simulator step.

    terminal: the task itself ended (fallen, reached): no reward can follow, and learners do not
    bootstrap. truncated: the simulator's own limit ended the episode; learners bootstrap.
    """

    reward: float = 0.0
    success: bool = False
    terminal: bool = False
    truncated: bool = False


class Simulator(Robot):
    """A robot whose time stands still between two calls of `act`.

    An agent step is `action_repeat` simulator steps: rewards are summed, success is that of any of
    them, and a step that ends the episode ends the repeat. An episode ends after `time_limit` agent
    steps, not terminal, or when the simulator ends it. Equal seeds give equal episodes, bit for
    bit; episode k does not depend on the actions in those before it.

    A subclass calls `super().__init__` first, sets `self.spec = self._spec(...)`, and implements
    `_begin`, `_simulate`, `_proprio` and `_images`; `_depths`, `_free` and `privileged_state` where
    it has them. All of them are called with the simulator open; the arrays that they return belong
    to the observation.
    """

    def __init__(self, *, seed: int = 0, time_limit: int, action_repeat: int = 1) -> None:
        """seed: of the robot's own stream of episodes. RobotError: a setting is out of range."""
        require_whole(time_limit=time_limit, action_repeat=action_repeat)
        self._seed, self._limit, self._repeat = seed, time_limit, action_repeat
        self._episode = self._steps = self._observations = 0
        self._newest: Observation | None = None
        self._closed = False

    # A subclass implements ----------------------------------------------------------------------

    @abc.abstractmethod
    def _begin(self, seed: int) -> None:
        """Put the simulator into the first state of the episode that `seed` determines."""

    @abc.abstractmethod
    def _simulate(self, action: Vector) -> StepOutcome:
        """Simulate one step with `action` (A,), which is finite and within the bounds."""

    @abc.abstractmethod
    def _proprio(self) -> Vector:
        """Return proprioception (P,) float32 now."""

    @abc.abstractmethod
    def _images(self) -> dict[str, Image]:
        """Return the image of each camera now, (H, W, 3) uint8."""

    def _depths(self) -> dict[str, Depth]:
        """Return the image of each depth camera now, (H, W) uint16 [mm]; 0: not measured."""
        return {}

    def _free(self) -> None:
        """Release windows, GL contexts and processes; called once."""

    @property
    def privileged_state(self) -> State:
        """Return the simulator's own state (n,), goal included; (0,) where it has none to give.

        For scripted experts and evaluation only: it is no part of any observation.
        """
        return np.zeros(0)

    # The Robot interface ------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Observation:
        self._require_open()
        if seed is None:
            seed = episode_seed(self._seed, self._episode)
            self._episode += 1
        self._steps, self._newest = 0, None  # a reset that fails leaves no episode
        with failures(self.spec, "reset"):
            self._begin(seed)
            return self._observation(is_first=True, **self._no_action())

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError(
                f"{self.spec.name}: observe: got no episode, expected one. Call reset first."
            )
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError(
                f"{self.spec.name}: act: got an action after the last of {self._steps} agent "
                "steps, expected an episode that has not ended. Call reset."
            )
        executed, commanded = checked_action(self.spec.action, action, self.spec.name)
        with failures(self.spec, "step"):
            return self._step(executed, commanded)

    def _step(self, executed: Vector, commanded: Vector) -> Observation:
        """Simulate an agent step and return what follows."""
        reward, success, ended = 0.0, False, False
        for _ in range(self._repeat):
            outcome = self._simulate(executed)
            reward += float(outcome.reward)
            success |= bool(outcome.success)
            ended = outcome.terminal or outcome.truncated
            if ended:
                break
        self._steps += 1
        return self._observation(
            executed=executed,
            commanded=commanded,
            reward=reward,
            success=success,
            is_last=bool(ended) or self._steps >= self._limit,
            is_terminal=bool(outcome.terminal),
        )

    def stop(self) -> None:
        """Do nothing: simulated time stands still between two calls of `act`."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._free()

    # Shared by subclasses -----------------------------------------------------------------------

    def _spec(
        self,
        name: str,
        task: str,
        *,
        step_s: float,
        cameras: Mapping[str, tuple[int, int, int]],
        proprio: VectorSpec,
        action: VectorSpec,
        extra: Mapping[str, Any] | None = None,
        depths: Mapping[str, tuple[int, int]] | None = None,
        success: bool = True,
    ) -> RobotSpec:
        """Return the specification of a simulator whose steps last `step_s` [s].

        `extra` is recorded with the log, beside seed, action repeat and time limit. success: does
        the task report it?
        """
        return RobotSpec(
            name=name,
            task=task,
            control_period_s=step_s * self._repeat,
            cameras=dict(cameras),
            proprio=proprio,
            action=action,
            extra={
                "seed": self._seed,
                "action_repeat": self._repeat,
                "time_limit": self._limit,
                **(extra or {}),
            },
            depths=dict(depths or {}),
            success=success,
        )

    def _goal_observation(self, images: dict[str, Image], proprio: Vector) -> Observation:
        """Return an observation of a goal: only images and proprioception are valid."""
        return Observation(images=images, proprio=proprio, **self._no_action())

    def _observation(self, **step: Any) -> Observation:
        self._observations += 1
        self._newest = Observation(
            images=self._images(),
            proprio=self._proprio(),
            depths=self._depths(),
            stamp_ns=self._observations * round(self.spec.control_period_s * 1e9),
            **step,
        )
        return self._newest

    def _no_action(self) -> dict[str, Any]:
        return {
            name: np.zeros(len(self.spec.action), np.float32) for name in ("executed", "commanded")
        }

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError(
                f"{self.spec.name}: got a closed simulator, expected an open one. Open a new one."
            )


@contextmanager
def failures(spec: RobotSpec, what: str) -> Iterator[None]:
    """Turn what the code of a simulator or task raises into a RobotError that says where."""
    try:
        yield
    except RobotError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        raise RobotError(
            f"{spec.name}: task {spec.task!r}: {what} failed ({reason}, at "
            f"{Path(place.filename).name}:{place.lineno})."
        ) from error


def require_whole(**settings: int) -> None:
    """RobotError for a setting that is no whole number from 1."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < 1:
            raise RobotError(f"{name}: got {value!r}, expected a whole number from 1.")


def require_task(task: str, tasks: Sequence[str]) -> None:
    """RobotError for a task that the simulator does not have."""
    if task not in tasks:
        raise RobotError(
            f"task: got {task!r}, expected one of {', '.join(tasks)}. "
            f"{did_you_mean(task, tasks)}".rstrip()
        )
