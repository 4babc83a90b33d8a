"""A point on a line that must reach a mark: the smallest simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome

LINE = VectorSpec(("x",), ("m",), (-2.0,), (2.0,))
PUSH = VectorSpec(("push",), ("m",), (-1.0,), (1.0,))


class PointRobot(Simulator):
    """Starts at a random place; success within 0.1 m of the origin, reward minus the distance."""

    def __init__(self, seed: int = 0, time_limit: int = 5, size: int = 8) -> None:
        super().__init__(seed=seed, time_limit=time_limit)
        self._scale = size // 8
        self.spec = self._spec(
            "point",
            "origin",
            step_s=0.1,
            cameras={"top": (size, size, 3)},
            proprio=LINE,
            action=PUSH,
        )

    def _begin(self, seed: int) -> None:
        self._x = np.random.default_rng(seed).uniform(-1, 1)

    def _simulate(self, action: np.ndarray) -> StepOutcome:
        self._x = float(np.clip(self._x + action[0], -2, 2))
        return StepOutcome(reward=-abs(self._x), success=abs(self._x) < 0.1)

    def _proprio(self) -> np.ndarray:
        return np.float32([self._x])

    def _images(self) -> dict[str, np.ndarray]:
        image = np.zeros((8, 8, 3), np.uint8)
        image[4, int((self._x + 2) / 4 * 7.99)] = 255
        return {"top": image.repeat(self._scale, 0).repeat(self._scale, 1)}


class UnscoredPoint(PointRobot):
    """The same task, which reports rewards only; remembers whose scenes each episode showed."""

    def __init__(self, seed: int = 0, time_limit: int = 5) -> None:
        super().__init__(seed, time_limit)
        self.spec = replace(self.spec, success=False)
        self.evaluation = False
        self.shown: list[bool] = []

    def select_scenes(self, *, evaluation: bool) -> None:
        self.evaluation = evaluation

    def _begin(self, seed: int) -> None:
        self.shown.append(self.evaluation)
        super()._begin(seed)

    def _simulate(self, action: np.ndarray) -> StepOutcome:
        return replace(super()._simulate(action), success=False)
