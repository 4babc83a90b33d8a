"""An arm's connections to a simulated world in the same process, in simulated time: no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Frame, Reading, Score
from wm_nodes.robots.arm.safety.safety_filter import Setpoint
from wm_nodes.robots.arm.sensors.joint_readings import JointReadings
from wm_nodes.robots.arm.sensors.wrench import STOP, WrenchReading, WrenchReadings
from wm_nodes.robots.arm.sim.controller import Controller
from wm_nodes.robots.arm.sim.faults import Faults
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.robot import Image


class SimDriver:
    """Joint states are always fresh; images are rendered on request."""

    must_yield = False
    settled = True

    def __init__(
        self, config: ArmConfig, task: str = "reach", *, render: str = "auto", seed: int = 0
    ) -> None:
        self.config = config
        self.world = ArmWorld(config, task, render=render)
        self.controller = Controller(self.world, Faults(), seed)
        limits = config.limits
        self._readings = JointReadings(
            limits.joints, config.home, limits.continuous, config.grace_s
        )
        self._wrenches: WrenchReadings | None = None
        if config.force_torque is not None:
            self._wrenches = WrenchReadings(config.force_torque)
        self._frames: dict[str, Frame] = {}

    def now_s(self) -> float:
        return self.world.time_s

    def joints(self) -> Reading | None:
        states = self.controller.sensors.joint_states()
        if states is None:
            return None
        position, velocity, age_s = states
        now = self.world.time_s
        return self._readings.take(self.config.limits.joints, position, velocity, now, now - age_s)

    def frames(self) -> Mapping[str, Frame]:
        now, number = self.world.time_s, round(self.world.time_s * 1e6)
        if not self.controller.faults.camera_dropped:
            for name in self.config.cameras:
                self._frames[name] = Frame(partial(self._look, name), now, now, number)
        return self._frames

    def faults(self) -> Mapping[str, str]:
        return {}

    def reports(self) -> Mapping[str, str]:
        wrong = self._wrenches.wrong if self._wrenches is not None else ""
        return {STOP: wrong} if wrong else {}

    def wrench(self) -> WrenchReading | None:
        section, values = self.config.force_torque, self.controller.sensors.wrench()
        if section is None or self._wrenches is None:
            return None
        if values is not None:
            with suppress(MessageError):  # noted as `wrong`
                self._wrenches.take(values, section.frame, self.world.time_s, 0.0)
        return self._wrenches.newest

    def send(self, setpoint: Setpoint) -> None:
        n = self.config.arm_joints
        self.controller.command("position", setpoint.position[:n])
        if self.config.gripper is not None:
            self.controller.command("gripper", setpoint.position[n:])

    def halt(self) -> None:
        """Positions are commanded: the arm holds the last one."""

    def score(self) -> Score:
        state = self.world.state()
        return Score(self.world.task.reward(state), self.world.success())

    def request_scene(self, seed: int) -> None:
        self.world.set_scene(seed)

    def scene_is_set(self) -> bool:
        return True

    def wait(self, seconds: float) -> None:
        self.controller.advance(seconds)

    def close(self) -> None:
        self.world.close()

    def _look(self, camera: str) -> Image:
        return self.controller.sensors.image(camera, self.config.cameras[camera].height)
