"""Wall: a dot in two rooms with a door between, DINO-WM's test world. Pure numpy, in pixels of 65.

The dot moves by twice the action. What would bring it through a wall stops it half a pixel before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.robot import (
    Image,
    Observation,
    Robot,
    RobotError,
    RobotSpec,
    checked_action,
)
from wm_nodes.robots.seeds import episode_seed

Floats = npt.NDArray[np.float64]
TASKS = ("wall-same", "wall-door", "wall-any")
CANVAS = 65.0  # px
LOW, HIGH = 5.0, 60.0  # px, the border
BACK = 0.5  # px that a wall pushes back
GAIN = 2.0  # px per unit of action
DOT = 1.7  # px, standard deviation of the dot's blob
SUCCESS = 4.5  # px from the goal
ROOM = 2.0  # px that starts and goals keep from walls
TINY = 1e-9  # px, stands for no motion
_LARGE = 1e9

ACTION = VectorSpec(("dx", "dy"), ("2px", "2px"), (-1.8, -1.8), (1.8, 1.8))
PROPRIO = VectorSpec(("x", "y"), ("px", "px"), (LOW, LOW), (HIGH, HIGH))


@dataclass(frozen=True)
class Layout:
    """The wall between the rooms, all in px: `door` is the middle of the way through."""

    x: float = 32.0
    width: float = 6.0
    door: float = 30.0
    half: float = 4.0  # half the door's height

    @property
    def blocks(self) -> Floats:
        """The wall's two parts, (2, 2, 2): low and high corner of each."""
        left, right = self.x - self.width / 2, self.x + self.width / 2
        below = ((left, -_LARGE), (right, self.door - self.half))
        above = ((left, self.door + self.half), (right, _LARGE))
        return np.array((below, above))


def move(place: Floats, action: npt.ArrayLike, layout: Layout) -> Floats:
    """Return where dots at `place` (..., 2) are after `action` (..., 2)."""
    step = GAIN * np.asarray(action, np.float64)
    step = np.where(np.abs(step) < TINY, TINY, step)
    share = np.maximum((LOW - place) / step, (HIGH - place) / step).min(-1)  # until a hit
    for low, high in layout.blocks:
        ends = np.stack([(low - place) / step, (high - place) / step])
        enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
        share = np.where((enter < leave) & (enter >= 0), np.minimum(share, enter), share)
    length = np.linalg.norm(step, axis=-1)
    stopped = np.maximum(share * length - BACK, 0.0) / length
    return place + step * np.where(share <= 1.0, stopped, 1.0)[..., None]


class Wall(Robot):
    """Episodes of `time_limit` decisions; starts and goals are drawn in the rooms, and starts that
    lie within reach of success again.

    wall-same: start and goal in one room; wall-door: in different ones; wall-any: anywhere. The
    reward is minus the distance to the goal in px; success within 4.5 px of it. Same seed, same
    episodes, bit for bit.
    """

    def __init__(
        self,
        task: str = "wall-any",
        *,
        seed: int = 0,
        size: int = 64,
        time_limit: int = 50,
        door: float = 30.0,
    ) -> None:
        if task not in TASKS:
            raise RobotError(f"task: expected one of {', '.join(TASKS)}, got {task!r}.")
        if time_limit < 1:
            raise RobotError(f"time_limit: expected a whole number from 1, got {time_limit!r}.")
        self.layout = Layout(door=door)
        self._seed, self._size, self._limit = seed, size, time_limit
        self._episode = self._ticks = self._decision = 0
        self._newest: Observation | None = None
        self._closed = False
        self.spec = RobotSpec(
            name="wall",
            task=task,
            control_period_s=0.1,
            cameras={"top": (size, size, 3)},
            proprio=PROPRIO,
            action=ACTION,
            extra={"seed": seed, "time_limit": time_limit, "door": door, "camera": "top"},
        )

    def reset(self, seed: int | None = None) -> Observation:
        self._require_open()
        if seed is None:
            seed = episode_seed(self._seed, self._episode)
            self._episode += 1
        random = np.random.default_rng(seed)
        room = int(random.integers(2))
        self._place = self._anywhere(random, room)
        other = {"wall-same": room, "wall-door": 1 - room}.get(self.spec.task)
        self._goal = self._anywhere(random, int(random.integers(2)) if other is None else other)
        while self._distance() < SUCCESS:  # drawn again: it would succeed without a move
            self._place = self._anywhere(random, room)
        self._decision = 0
        zeros = np.zeros(len(ACTION), np.float32)
        return self._observe(executed=zeros, commanded=zeros.copy(), is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError("wall: no episode yet. Right: call reset first.")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError("wall: the episode ended. Right: call reset.")
        executed, commanded = checked_action(ACTION, action, "wall")
        self._place = move(self._place, executed, self.layout)
        self._decision += 1
        distance = self._distance()
        return self._observe(
            executed=executed,
            commanded=commanded,
            reward=-distance,
            success=distance < SUCCESS,
            is_last=self._decision >= self._limit,
        )

    def goal(self) -> Observation:
        self.observe()
        zeros = np.zeros(len(ACTION), np.float32)
        return Observation(
            images={"top": self._picture(self._goal)},
            proprio=self._goal.astype(np.float32),
            executed=zeros,
            commanded=zeros.copy(),
        )

    def stop(self) -> None:
        """Do nothing: the dot stands still between two calls of `act`."""

    def close(self) -> None:
        self._closed = True

    def _distance(self) -> float:
        return float(np.linalg.norm(self._place - self._goal))

    def _anywhere(self, random: np.random.Generator, room: int) -> Floats:
        """Return a place in the left (0) or right (1) room."""
        half = self.layout.width / 2 + ROOM
        left = (LOW + ROOM, self.layout.x - half)
        right = (self.layout.x + half, HIGH - ROOM)
        x = random.uniform(*(right if room else left))
        return np.array([x, random.uniform(LOW + ROOM, HIGH - ROOM)])

    def _picture(self, place: Floats) -> Image:
        """Return (size, size, 3): walls black, floor white, the dot a red blob; y points down."""
        axis = (np.arange(self._size) + 0.5) * CANVAS / self._size
        x, y = axis[None, :], axis[:, None]
        free = (x > LOW) & (x < HIGH) & (y > LOW) & (y < HIGH)
        for low, high in self.layout.blocks:
            free = free & ~((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
        blob = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * DOT**2))[..., None]
        floor = np.where(free, 255.0, 0.0)[..., None]
        return np.rint(floor * (1 - blob) + np.array([255.0, 0.0, 0.0]) * blob).astype(np.uint8)

    def _observe(self, **rest: Any) -> Observation:
        self._ticks += 1
        self._newest = Observation(
            images={"top": self._picture(self._place)},
            proprio=self._place.astype(np.float32),
            stamp_ns=self._ticks * round(self.spec.control_period_s * 1e9),
            **rest,
        )
        return self._newest

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError("wall: the world is closed. Right: make a new Wall.")
