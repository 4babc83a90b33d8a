"""A point on a line that must reach a mark: the smallest robot that keeps the contract."""

from __future__ import annotations

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.robot import Observation, Robot, RobotError, RobotSpec, checked_action

LINE = VectorSpec(("x",), ("m",), (-2.0,), (2.0,))
PUSH = VectorSpec(("push",), ("m",), (-1.0,), (1.0,))


class PointRobot(Robot):
    """Starts at a random place; success within 0.1 m of the origin, reward minus the distance."""

    def __init__(self, seed: int = 0, time_limit: int = 5) -> None:
        self.spec = RobotSpec("point", "origin", 0.1, {"top": (8, 8, 3)}, LINE, PUSH, {})
        self._random, self._limit = np.random.default_rng(seed), time_limit
        self._newest: Observation | None = None
        self._ticks, self._closed = 0, False

    def reset(self, seed: int | None = None) -> Observation:
        self._require_open()
        random = self._random if seed is None else np.random.default_rng(seed)
        self._x, self._left = random.uniform(-1, 1), self._limit
        return self._observation(np.zeros(1, np.float32), np.zeros(1, np.float32), is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError("no episode yet: call reset")
        return self._newest

    def act(self, action: object) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError("the episode is over: call reset")
        executed, commanded = checked_action(PUSH, action, "point")
        self._x = float(np.clip(self._x + executed[0], -2, 2))
        self._left -= 1
        return self._observation(
            executed,
            commanded,
            reward=-abs(self._x),
            success=abs(self._x) < 0.1,
            is_last=not self._left,
        )

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self._closed = True

    def _observation(
        self, executed: np.ndarray, commanded: np.ndarray, **rest: object
    ) -> Observation:
        self._ticks += 1
        image = np.zeros((8, 8, 3), np.uint8)
        image[4, int((self._x + 2) / 4 * 7.99)] = 255
        self._newest = Observation(
            {"top": image},
            np.float32([self._x]),
            executed,
            commanded,
            stamp_ns=self._ticks * 100_000_000,
            **rest,
        )
        return self._newest

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError("the robot is closed")
