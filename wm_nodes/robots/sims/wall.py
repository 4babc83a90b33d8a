"""Wall: a dot in two rooms with a door between, DINO-WM's test world. Pure numpy, in pixels of 65.

The dot moves by twice the action. A move into a wall ends half a pixel before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.robot import Image, Observation, Vector
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome, require_task

Floats = npt.NDArray[np.float64]
TASKS = ("wall-same", "wall-door", "wall-any")
STEP_S = 0.1
CANVAS = 65.0  # px
LOW, HIGH = 5.0, 60.0  # px, the border
BACK = 0.5  # px that a wall pushes back
GAIN = 2.0  # px per unit of action
DOT = 1.7  # px, standard deviation of the dot's blob
SUCCESS = 4.5  # px from the goal
ROOM = 2.0  # px that starts and goals keep from walls
TINY = 1e-9  # px, stands for no motion
_LARGE = 1e9

RED = np.array([255.0, 0.0, 0.0])
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
    end: Floats = place + step * np.where(share <= 1.0, stopped, 1.0)[..., None]
    return end


class Wall(Simulator):
    """Episodes of `time_limit` agent steps; starts and goals are drawn in the rooms. A start that
    would succeed at once is drawn again.

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
        action_repeat: int = 1,
        time_limit: int = 50,
        door: float = 30.0,
    ) -> None:
        super().__init__(seed=seed, time_limit=time_limit, action_repeat=action_repeat)
        require_task(task, TASKS)
        self.layout, self._size = Layout(door=door), size
        self.spec = self._spec(
            "wall",
            task,
            step_s=STEP_S,
            cameras={"top": (size, size, 3)},
            proprio=PROPRIO,
            action=ACTION,
            extra={"door": door, "camera": "top"},
        )

    @property
    def privileged_state(self) -> Floats:
        """Return place and goal, (x, y, goal x, goal y) [px]."""
        return np.concatenate([self._place, self._goal])

    def goal(self) -> Observation:
        self.observe()
        return self._goal_observation(
            {"top": self._image_of(self._goal)}, self._goal.astype(np.float32)
        )

    def _begin(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        room = int(random.integers(2))
        self._place = self._anywhere(random, room)
        other = {"wall-same": room, "wall-door": 1 - room}.get(self.spec.task)
        self._goal = self._anywhere(random, int(random.integers(2)) if other is None else other)
        while self._distance() < SUCCESS:  # drawn again: it would succeed without a move
            self._place = self._anywhere(random, room)

    def _simulate(self, action: Vector) -> StepOutcome:
        self._place = move(self._place, action, self.layout)
        distance = self._distance()
        return StepOutcome(reward=-distance, success=distance < SUCCESS)

    def _proprio(self) -> Vector:
        return self._place.astype(np.float32)

    def _images(self) -> dict[str, Image]:
        return {"top": self._image_of(self._place)}

    def _distance(self) -> float:
        return float(np.linalg.norm(self._place - self._goal))

    def _anywhere(self, random: np.random.Generator, room: int) -> Floats:
        """Return a place in the left (0) or right (1) room."""
        half = self.layout.width / 2 + ROOM
        left = (LOW + ROOM, self.layout.x - half)
        right = (self.layout.x + half, HIGH - ROOM)
        x = random.uniform(*(right if room else left))
        return np.array([x, random.uniform(LOW + ROOM, HIGH - ROOM)])

    def _image_of(self, place: Floats) -> Image:
        """Return (size, size, 3): walls black, floor white, the dot a red blob; y points down."""
        axis = (np.arange(self._size) + 0.5) * CANVAS / self._size
        x, y = axis[None, :], axis[:, None]
        free = (x > LOW) & (x < HIGH) & (y > LOW) & (y < HIGH)
        for low, high in self.layout.blocks:
            free = free & ~((x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]))
        blob = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * DOT**2))[..., None]
        floor = np.where(free, 255.0, 0.0)[..., None]
        image: Image = np.rint(floor * (1 - blob) + RED * blob).astype(np.uint8)
        return image
