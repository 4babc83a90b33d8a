"""A robot of your own, with its graph: an arm of two joints whose hand must reach a ball.

    wm launch docs/examples/two_joint_arm.py            # learn the task
    pytest docs/examples/test_two_joint_arm.py          # it fulfils the Robot contract

A real robot does the same and calls its driver in `reset` and `act`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.graphs.sim import GraphRobot, simulator_graph
from wm_nodes.robots.robot import Observation, Robot, RobotError, RobotSpec, checked_action
from wm_nodes.robots.seeds import episode_seed

TASKS = ("reach", "reach-sparse")
PERIOD_S = 0.1  # of one agent step
LINK_M = 0.4
NEAR_M = 0.08  # success
JOINTS = VectorSpec(("shoulder", "elbow"), ("rad", "rad"), (-3.15, -3.15), (3.15, 3.15))
SPEEDS = VectorSpec(("shoulder", "elbow"), ("rad/s", "rad/s"), (-1.5, -1.5), (1.5, 1.5))


class TwoJointArm(Robot):
    """reach: the reward is minus the distance of hand and ball [m]; reach-sparse: 1 when near.

    size: side of the square image [px]. time_limit: agent steps of an episode. limits: bounds of
    the joint velocities; `limits:=FILE` reads them from a YAML.
    """

    def __init__(
        self,
        task: str = "reach",
        seed: int = 0,
        time_limit: int = 50,
        size: int = 64,
        limits: VectorSpec = SPEEDS,
    ) -> None:
        if task not in TASKS:
            raise RobotError(f"task: got {task!r}, expected one of {', '.join(TASKS)}.")
        self.spec = RobotSpec(
            name="two_joint_arm",
            task=task,
            control_period_s=PERIOD_S,
            cameras={"front": (size, size, 3)},
            proprio=JOINTS,
            action=limits,
        )
        self._seed, self._limit, self._size = seed, time_limit, size
        self._episode = self._stamp_ns = 0
        self._newest: Observation | None = None
        self._closed = False

    def reset(self, seed: int | None = None) -> Observation:
        self._require_open()
        if seed is None:  # the next episode of the robot's own
            seed = episode_seed(self._seed, self._episode)
            self._episode += 1
        random = np.random.default_rng(seed)
        self._joints = random.uniform(-1.5, 1.5, 2)
        self._ball = hand(random.uniform(-1.5, 1.5, 2))
        self._left = self._limit
        zeros = np.zeros(2, np.float32)
        return self._observe(executed=zeros, commanded=zeros, is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError("two_joint_arm: got no episode, expected one. Call reset first.")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError("two_joint_arm: the episode has ended. Call reset first.")
        executed, commanded = checked_action(self.spec.action, action, self.spec.name)
        self._joints = np.clip(self._joints + PERIOD_S * executed, JOINTS.low, JOINTS.high)
        self._left -= 1
        distance = float(np.linalg.norm(hand(self._joints) - self._ball))
        near = distance < NEAR_M
        return self._observe(
            executed=executed,
            commanded=commanded,
            reward=float(near) if self.spec.task == "reach-sparse" else -distance,
            success=near,
            is_last=self._left == 0,
        )

    def stop(self) -> None:
        """Nothing moves between two calls of `act`."""

    def close(self) -> None:
        self._closed = True

    def _observe(self, **rest: object) -> Observation:
        self._stamp_ns += round(PERIOD_S * 1e9)
        self._newest = Observation(
            images={"front": self._draw()},
            proprio=self._joints.astype(np.float32),
            stamp_ns=self._stamp_ns,
            **rest,
        )
        return self._newest

    def _draw(self) -> npt.NDArray[np.uint8]:
        """Return (size, size, 3) RGB, viewed from above: the links blue, the ball red."""
        image = np.full((self._size, self._size, 3), 255, np.uint8)
        elbow = LINK_M * direction(self._joints[0])
        points = np.stack([np.zeros(2), elbow, hand(self._joints), self._ball])
        pixels = [tuple(p) for p in np.int32((0.5 + 0.5 * points) * self._size)]
        for start, end in ((0, 1), (1, 2)):
            cv2.line(image, pixels[start], pixels[end], (40, 80, 200), max(self._size // 16, 1))
        cv2.circle(image, pixels[3], max(self._size // 16, 1), (220, 40, 40), cv2.FILLED)
        return image

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError("two_joint_arm: the robot is closed.")


def direction(angle: float) -> npt.NDArray[np.float64]:
    """Return the unit vector (2,) of an angle [rad]."""
    return np.array([np.cos(angle), np.sin(angle)])


def hand(joints: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the position of the hand (2,) [m] for joint positions (2,) [rad]."""
    return LINK_M * (direction(joints[0]) + direction(joints[0] + joints[1]))


GRAPH = simulator_graph(
    "two_joint_arm",
    "An arm of two joints learns to reach a ball.",
    GraphRobot(
        adapter=f"{__file__}:TwoJointArm",
        tasks=TASKS,
        cameras=("front",),
        period_ms=1000 * PERIOD_S,
        time_limit=50,
    ),
)
