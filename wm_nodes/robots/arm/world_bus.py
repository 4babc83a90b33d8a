"""An arm's wires into a simulated world of the same process, in simulated time: no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from wm_nodes.robots.arm.bus import Frame, Reading, Score
from wm_nodes.robots.arm.config import ArmConfig
from wm_nodes.robots.arm.driver import Driver, Faults
from wm_nodes.robots.arm.safety import Setpoint
from wm_nodes.robots.arm.world import ArmWorld
from wm_nodes.robots.base import Image


class WorldBus:
    """Joint states are always fresh; pictures are taken when they are asked for."""

    def __init__(
        self, config: ArmConfig, task: str = "reach", *, render: str = "auto", seed: int = 0
    ) -> None:
        self.config = config
        self.world = ArmWorld(config, task, render=render)
        self.driver = Driver(self.world, Faults(), seed)
        self._count = 0
        self._frames: dict[str, Frame] = {}

    def now_s(self) -> float:
        return self.world.time_s

    def joints(self) -> Reading | None:
        said = self.driver.joint_states()
        if said is None:
            return None
        self._count += 1
        return Reading(said[0], said[1], self.world.time_s, self._count)

    def frames(self) -> Mapping[str, Frame]:
        now, number = self.world.time_s, round(self.world.time_s * 1e6)
        if not self.driver.faults.camera_dropped:
            for name in self.config.cameras:
                self._frames[name] = Frame(partial(self._look, name), now, now, number)
        return self._frames

    def send(self, setpoint: Setpoint) -> None:
        n = self.config.arm_joints
        self.driver.command("position", setpoint.position[:n])
        if self.config.gripper is not None:
            self.driver.command("gripper", setpoint.position[n:])

    def score(self) -> Score:
        state = self.world.state()
        return Score(self.world.task.reward(state), self.world.success())

    def begin(self, seed: int) -> None:
        self.world.set_scene(seed)

    def begun(self) -> bool:
        return True

    def wait(self, seconds: float) -> None:
        self.driver.advance(seconds)

    def close(self) -> None:
        self.world.close()

    def _look(self, camera: str) -> Image:
        return self.driver.look(camera, self.config.cameras[camera].height)
