"""The simulated arm in one process and in simulated time: to collect, evaluate and test quickly.

It is the same adapter and safety filter as on topics; only the wires are shorter.
"""

from __future__ import annotations

from dataclasses import replace

from wm_nodes.robots.arm.adapter import Arm
from wm_nodes.robots.arm.config import find_config, read_config
from wm_nodes.robots.arm.driver import Faults
from wm_nodes.robots.arm.tasks import TASKS
from wm_nodes.robots.arm.world import ArmWorld
from wm_nodes.robots.arm.world_bus import WorldBus
from wm_nodes.robots.base import RobotError

ROBOT = "arm_sim"


class SimulatedArm(Arm):
    """`arm_sim` without topics. Equal seeds give equal episodes, whatever was done before."""

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
        robot: str = ROBOT,
    ) -> None:
        config = read_config(find_config(robot))
        source = next(iter(config.cameras.values()))
        names = camera.split(",") if camera else []
        cameras = {name: replace(source, topic=name, height=size, width=size) for name in names}
        if render == "none":
            cameras = {}
        config = replace(config, cameras=cameras)
        if task not in TASKS:
            raise RobotError(f"task: the arm has no {task!r}. Right: {', '.join(TASKS)}.")
        self._wires = WorldBus(config, task, render=render, seed=seed)
        super().__init__(
            self._wires,
            config,
            task=task,
            seed=seed,
            action_repeat=action_repeat,
            time_limit=time_limit,
        )

    @property
    def world(self) -> ArmWorld:
        """The physics, for scripts and judges: never published."""
        return self._wires.world

    @property
    def switches(self) -> Faults:
        """What is wrong with the driver now; may be changed at any time."""
        return self._wires.driver.faults
