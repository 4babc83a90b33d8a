"""The simulated arm in one process and in simulated time: to collect, evaluate and test quickly.

Adapter and safety filter are those of an arm on topics; only the driver is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wm_nodes.robots.arm.arm import Arm
from wm_nodes.robots.arm.config.arm_config import ArmConfig, find_config, read_config
from wm_nodes.robots.arm.sim.driver import SimDriver
from wm_nodes.robots.arm.sim.faults import Faults
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.arm.sim.tasks import TASKS
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Observation, RobotError

ROBOT = "arm_sim"


class SimulatedArm(Arm):
    """`arm_sim` without topics. Equal seeds give equal episodes, whatever was done before.

    robot: name or path of a YAML, or what was read from one.
    """

    def __init__(
        self,
        task: str = "reach",
        *,
        seed: int = 0,
        action_repeat: int = 5,
        time_limit: int = 100,
        render: str = "auto",
        camera: str = "front",
        size: int = 64,
        robot: str | ArmConfig = ROBOT,
    ) -> None:
        config = robot if isinstance(robot, ArmConfig) else read_config(find_config(robot))
        source = next(camera for camera in config.cameras.values() if not camera.depth)
        names = camera.split(",") if camera else []
        cameras = {name: replace(source, topic=name, height=size, width=size) for name in names}
        if render == "none":
            cameras = {}
        config = replace(config, cameras=cameras)
        self._views = cameras
        if task not in TASKS:
            raise RobotError(f"task: got {task!r}, expected one of {', '.join(TASKS)}.")
        self._sim_driver = SimDriver(config, task, render=render, seed=seed)
        super().__init__(
            self._sim_driver,
            config,
            task=task,
            seed=seed,
            action_repeat=action_repeat,
            time_limit=time_limit,
        )

    def goal(self) -> Observation | None:
        """Return the observation with the end effector at rest in the goal of this scene."""
        if self.spec.task != "goal":
            return None
        world = self.world
        pose = world.goal_pose()
        held = self.holding()
        return Observation(
            images={n: world.goal_image(pose, n, c.height) for n, c in self._views.items()},
            proprio=self.observations.proprio(pose),
            executed=held,
            commanded=held.copy(),
        )

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        """Return the intrinsics of the cameras."""
        cameras = {name: self.world.intrinsics(name, c.height) for name, c in self._views.items()}
        return {name: known for name, known in cameras.items() if known is not None}

    def distance(self) -> float:
        """Return how far the task is from done now [m], by the simulator's own state."""
        return self.world.task.distance(self.world.state())

    @property
    def world(self) -> ArmWorld:
        """The physics, for scripts and evaluation: never published."""
        return self._sim_driver.world

    @property
    def switches(self) -> Faults:
        """What is wrong with the driver now; may be changed at any time."""
        return self._sim_driver.controller.faults
