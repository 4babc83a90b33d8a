"""A robot of your own, with its graph: an arm of two joints must reach a ball.

    wm launch docs/examples/two_joint_arm.py            # learn the task
    pytest docs/examples/test_two_joint_arm.py          # it fulfils the contract of simulators

`Simulator` handles seeds, the time limit, errors and stamps. A real robot implements `Robot`
instead and calls its driver in `reset` and `act`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.graphs.sim import GraphRobot, simulator_graph
from wm_nodes.robots.robot import Image, Vector
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome, require_task

TASKS = ("reach", "reach-sparse")
PERIOD_S = 0.1  # of one agent step
LINK_M = 0.4
NEAR_M = 0.08  # success
JOINTS = VectorSpec(("shoulder", "elbow"), ("rad", "rad"), (-3.15, -3.15), (3.15, 3.15))
SPEEDS = VectorSpec(("shoulder", "elbow"), ("rad/s", "rad/s"), (-1.5, -1.5), (1.5, 1.5))


class TwoJointArm(Simulator):
    """reach: the reward is minus the distance of end effector and ball [m]; reach-sparse: 1 when
    near.

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
        super().__init__(seed=seed, time_limit=time_limit)
        require_task(task, TASKS)
        self._size = size
        self.spec = self._spec(
            "two_joint_arm",
            task,
            step_s=PERIOD_S,
            cameras={"front": (size, size, 3)},
            proprio=JOINTS,
            action=limits,
        )

    def _begin(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._joints = random.uniform(-1.5, 1.5, 2)
        self._ball = end_effector(random.uniform(-1.5, 1.5, 2))

    def _simulate(self, action: Vector) -> StepOutcome:
        self._joints = np.clip(self._joints + PERIOD_S * action, JOINTS.low, JOINTS.high)
        distance = float(np.linalg.norm(end_effector(self._joints) - self._ball))
        near = distance < NEAR_M
        sparse = self.spec.task == "reach-sparse"
        return StepOutcome(reward=float(near) if sparse else -distance, success=near)

    def _proprio(self) -> Vector:
        return self._joints.astype(np.float32)

    def _images(self) -> dict[str, Image]:
        """Return the view from above, (size, size, 3) RGB: the links blue, the ball red."""
        image = np.full((self._size, self._size, 3), 255, np.uint8)
        elbow = LINK_M * direction(self._joints[0])
        points = np.stack([np.zeros(2), elbow, end_effector(self._joints), self._ball])
        pixels = [(int(x), int(y)) for x, y in (0.5 + 0.5 * points) * self._size]
        for start, end in ((0, 1), (1, 2)):
            cv2.line(image, pixels[start], pixels[end], (40, 80, 200), max(self._size // 16, 1))
        cv2.circle(image, pixels[3], max(self._size // 16, 1), (220, 40, 40), cv2.FILLED)
        return {"front": image}


def direction(angle: float) -> npt.NDArray[np.float64]:
    """Return the unit vector (2,) of an angle [rad]."""
    return np.array([np.cos(angle), np.sin(angle)])


def end_effector(joints: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the position of the end effector (2,) [m] for joint positions (2,) [rad]."""
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
