"""The Robot interface, and the further ones that only some robots have.

`Robot` is all that evaluation, recording and lock-step need. `RealtimeRobot` is one that moves by
itself. `GoalTask`, `ScoredTask`, `HeldOutScenes` and `CalibratedCameras` are recognised by their
one method.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.errors import UserError
from wm_nodes.records import Depth
from wm_nodes.robots.cameras.intrinsics import Intrinsics

Image = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)
NUMBERS = ("reward", "proprio", "executed", "commanded", "signals")  # of an observation


class RobotError(Exception):
    """A robot failed, or cannot do what was requested."""


class SpecError(RobotError, ValueError):
    """A value that does not fit the robot's specification; it was not executed."""


class ObservationError(RobotError, UserError):
    """A robot returned an observation that must not be used: one with a number that is not finite.
    To start the program again would not help."""


class RenderError(RobotError):
    """No image can be rendered here: GL library, display or camera missing."""


@dataclass(frozen=True)
class RobotSpec:
    """Sizes, units and bounds of observations and actions. `control_period_s`: of an agent step."""

    name: str
    task: str
    control_period_s: float
    cameras: dict[str, tuple[int, int, int]]  # name -> (H, W, 3), uint8 RGB
    proprio: VectorSpec
    action: VectorSpec
    extra: dict[str, Any] = field(default_factory=dict)  # JSON-able, recorded with the log
    signals: VectorSpec | None = None  # numbers about what an action did, recorded with it
    depths: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (H, W), uint16 mm
    success: bool = True  # does the task report success? Where not, only returns are shown

    def log_spec(self) -> LogSpec:
        """Return the specification of a replay log of this robot."""
        return LogSpec(
            robot=self.name,
            task=self.task,
            control_period_s=self.control_period_s,
            cameras=dict(self.cameras),
            proprio=self.proprio,
            action=self.action,
            extra=dict(self.extra),
            signals=self.signals,
            sensors={name: SensorSpec.depth(*shape) for name, shape in self.depths.items()},
            evaluation=True,
            success=self.success,
        )


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a task before an episode. cameras: names, in their order."""

    discrete: bool  # are its actions a discrete set?
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """One observation o_t and what led to it (arrival form: action, reward and ends are a_{t-1}'s).

    The arrays belong to the receiver: a robot never writes to them again.
    """

    images: dict[str, Image]  # camera -> (H, W, 3) RGB
    proprio: Vector  # (P,)
    executed: Vector  # (A,) the action that was executed before this observation
    commanded: Vector  # (A,) the action as requested; both: the held action if is_first (zeros, but
    # for dimensions that are positions: `wm_nodes.robots.hold_action`)
    reward: float = 0.0
    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False
    success: bool = False  # of this step; an episode succeeds if any of its steps does
    stamp_ns: int = 0  # time of the observation, strictly growing over episodes
    signals: Vector | None = None  # (S,) of the action that led here; None: all zero
    depths: dict[str, Depth] = field(
        default_factory=dict
    )  # depth camera -> (H, W) mm; 0: unmeasured


class Robot(abc.ABC):
    """A simulator or an arm. Use as a context manager; one thread only (GL contexts are)."""

    spec: RobotSpec

    @abc.abstractmethod
    def reset(self, seed: int | None = None) -> Observation:
        """Begin an episode and return its first observation.

        With a seed the episode is the one that this seed alone determines, whatever happened
        before (simulators; an arm ignores it). Without, the next one of the robot's own stream.
        """

    @abc.abstractmethod
    def observe(self) -> Observation:
        """Return the newest observation again; nothing moves. RobotError before the first reset."""

    @abc.abstractmethod
    def act(self, action: npt.ArrayLike) -> Observation:
        """Execute `action` (A,) for one control period and return what follows.

        Values outside the bounds are clipped and reported in `executed`; of a discrete set the
        largest value selects the action, and `executed` is its one-hot vector. A non-finite or
        mis-shaped action is refused with SpecError and nothing moves. RobotError after is_last
        and before the first reset.
        """

    def holding(self) -> Vector:
        """Return the action (A,) that moves nothing now: zeros, or the nearest to it in bounds; the
        first one of a discrete set.

        A robot whose actions are positions in some dimensions returns what it holds there.
        """
        action = self.spec.action
        return action.nearest(np.zeros(len(action)))

    @abc.abstractmethod
    def stop(self) -> None:
        """Hold still. May be called at any time, any number of times; `act` moves again."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything. May be called twice; nothing else may be called afterwards."""

    def __enter__(self) -> Robot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@runtime_checkable
class GoalTask(Protocol):
    """A robot whose task is to reach a goal that can be shown."""

    def goal(self) -> Observation | None:
        """Return the goal of the episode that has begun, as it would be observed; None: this task
        shows none.

        Nothing moves. Only images and proprioception are valid.
        """


@runtime_checkable
class ScoredTask(Protocol):
    """A robot that measures how far its task is from done, for evaluations."""

    def distance(self) -> float:
        """Return the distance of the present state to success of the task [m]; at least 0."""


@runtime_checkable
class HeldOutScenes(Protocol):
    """A robot whose evaluation episodes may show what no training episode shows."""

    def select_scenes(self, *, evaluation: bool) -> None:
        """Show scenes of evaluation, or of training, in the episodes that `reset` begins from now
        on. At first they are of training."""


@runtime_checkable
class CalibratedCameras(Protocol):
    """A robot that knows its cameras' intrinsics itself, as simulators do."""

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        """Return the intrinsics of the newest images by camera, where they are known. Equal
        intrinsics are the same object."""


class RealtimeRobot(Robot):
    """A robot that moves by itself between observations: it is called every `tick_s`.

    The control loop (`wm_nodes.control.realtime`) calls `sense` once each control period, then
    `tick` or `go_home`. After `tick` has returned True, `act` returns the observation of the agent
    step that is complete, and moves nothing. `reset` begins an episode at once when `waiting_for`
    returns "".
    """

    @property
    @abc.abstractmethod
    def tick_s(self) -> float:
        """Control period [s]."""

    @abc.abstractmethod
    def prepare(self, seed: int) -> None:
        """Request the scene of the episode of this seed, without blocking."""

    @abc.abstractmethod
    def waiting_for(self) -> str:
        """Return why an episode cannot begin yet; "" when it can."""

    @abc.abstractmethod
    def sense(self) -> None:
        """Take in what was measured since the last control period."""

    @abc.abstractmethod
    def tick(
        self, action: npt.ArrayLike | None, observed_s: float = float("inf"), age_s: float = 0.0
    ) -> bool:
        """Execute one control period towards `action` (A,); None: come to rest.

        observed_s: steady time of the observation that the action answers [s]; age_s: how old its
        images are now. Returns True when an agent step is complete: call `act`.
        """

    @abc.abstractmethod
    def complete(self) -> bool:
        """Is an agent step complete that `act` has not returned?"""

    @abc.abstractmethod
    def go_home(self) -> bool:
        """Execute one control period towards the home pose; True: it rests there."""

    @abc.abstractmethod
    def end_episode(self) -> None:
        """Make the next observation the last of this episode."""

    @abc.abstractmethod
    def driver_ready(self) -> bool:
        """Is the driver identified, fresh and able to take commands?"""

    @abc.abstractmethod
    def at_rest(self) -> bool:
        """Is the robot commanded to stand?"""

    @abc.abstractmethod
    def stopped(self) -> bool:
        """Does a watchdog or a latch forbid motion now?"""

    @abc.abstractmethod
    def latched(self) -> Mapping[str, str]:
        """Return what must be cleared by the operator: name -> why."""

    @abc.abstractmethod
    def latch(self, name: str, why: str) -> None:
        """Stop, and stay stopped until `clear`."""

    @abc.abstractmethod
    def clear(self) -> str:
        """Clear all latches; returns "" or why that is refused."""

    @abc.abstractmethod
    def invalidate_plans(self, now_s: float) -> None:
        """Actions of observations made before the steady time `now_s` move nothing any more."""

    def set_speed_scale(self, scale: float) -> str:
        """Keep all speeds below scale x their limits from now on; "" or why that is refused."""
        return "this robot has no speed scale"

    def release_driver(self) -> None:
        """Command nothing before `take_driver`. The robot must be at rest."""

    def take_driver(self, switched: bool) -> None:
        """Command again; switched: the driver's controller was switched, and motion begins where
        the robot is measured."""

    @abc.abstractmethod
    def halt(self) -> None:
        """Command standing still at once, past everything else: the program ends or has failed."""

    @abc.abstractmethod
    def image_age_s(self) -> float:
        """Return how old the oldest of the cameras' newest images is [s]."""

    @abc.abstractmethod
    def faults(self) -> Mapping[str, str]:
        """Return what is wrong with the robot now: name -> what it means."""

    @abc.abstractmethod
    def facts(self) -> Mapping[str, object]:
        """Return figures for the diagnostics."""


def checked_observation(observation: Observation, robot: str) -> Observation:
    """Return the observation. ObservationError: a number in it is not finite in float32, or an
    image is not of whole numbers, as one that may hold NaN."""
    parts = {name: getattr(observation, name) for name in NUMBERS}
    for name, value in parts.items():
        if value is not None and not (np.abs(value) <= LARGEST).all():  # False for NaN
            raise ObservationError(
                f"observation of {robot}: {name}: got {_shown(value)}, expected finite numbers. "
                "Nothing of it is recorded. Repair the robot or simulator."
            )
    images: list[tuple[str, npt.NDArray[Any]]] = [*observation.images.items()]
    for name, image in [*images, *observation.depths.items()]:
        if not np.issubdtype(image.dtype, np.integer):
            raise ObservationError(
                f"observation of {robot}: image {name!r}: got {image.dtype} numbers, expected "
                "uint8, or uint16 [mm] of a depth image. Repair the robot or simulator."
            )
    return observation


def _shown(value: Any, most: int = 80) -> str:
    text = str(np.asarray(value).tolist())
    return text if len(text) <= most else f"{text[:most]}..."


def checked_action(spec: VectorSpec, action: npt.ArrayLike, robot: str) -> tuple[Vector, Vector]:
    """Return (executed, commanded), both (A,) float32: the valid action nearest to `action`, and
    `action` as it is."""
    expected = f"expected {len(spec.names)} finite numbers: {', '.join(spec.names)}."
    try:
        commanded = np.array(action, dtype=np.float32)
    except (TypeError, ValueError):
        raise SpecError(f"action of {robot}: got {action!r}, {expected}") from None
    if commanded.shape != (len(spec.names),):
        raise SpecError(f"action of {robot}: got shape {commanded.shape}, {expected}")
    if not np.isfinite(commanded).all():
        raise SpecError(f"action of {robot}: got {commanded.tolist()}, {expected}")
    return spec.nearest(commanded), commanded
