"""An arm's observations: images of its driver, and proprioception."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Driver
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sensors import wrench
from wm_nodes.robots.robot import Observation, Vector


class ArmObservations:
    """Makes observations of what the driver has measured. step_s: time between two [s].

    `cameras`: height, width, channels of colour images; `depths`: height, width of depth images.
    """

    def __init__(
        self, config: ArmConfig, driver: Driver, kinematics: Kinematics, step_s: float
    ) -> None:
        self._config, self._driver, self._kinematics = config, driver, kinematics
        self._step_ns, self._stamp_ns = round(step_s * 1e9), 0
        views = config.cameras.items()
        self.cameras = {name: (c.height, c.width, 3) for name, c in views if not c.depth}
        self.depths = {name: (c.height, c.width) for name, c in views if c.depth}

    def make(self, measured: Floats | None, **rest: Any) -> Observation | None:
        """Return an observation with measured joints (n,); None: not all of it has arrived yet.

        rest: its further fields. Stamps are of the driver's steady time and at least a step apart.
        """
        frames, forces = self._driver.frames(), None
        if measured is None or not set(self._config.cameras) <= set(frames):
            return None
        if self._config.force_torque is not None:
            reading = self._driver.wrench()
            if reading is None:
                return None
            forces = reading.values
        now_ns = round(self._driver.now_s() * 1e9)
        self._stamp_ns = max(now_ns, self._stamp_ns + self._step_ns)
        return Observation(
            images={name: frames[name].look() for name in self.cameras},
            depths={name: frames[name].look() for name in self.depths},
            proprio=self.proprio(measured, forces),
            stamp_ns=self._stamp_ns,
            **rest,
        )

    def proprio(self, position: Floats, forces: Floats | None = None) -> Vector:
        """Return proprioception (P,) of a pose (n,); forces (6,) [N, Nm], zeros if not given."""
        end_effector = self._kinematics.positions(position[None])[0]
        parts = [position, end_effector]
        if self._config.force_torque is not None:
            parts.append(np.zeros(len(wrench.NAMES)) if forces is None else forces)
        proprio: Vector = np.concatenate(parts).astype(np.float32)
        return proprio

    def proprio_spec(self) -> VectorSpec:
        config, limits = self._config, self._config.limits
        units = ["rad"] * config.arm_joints + ["m"] * (config.gripper is not None)
        names = wrench.NAMES if config.force_torque is not None else ()
        beyond = (float("inf"),) * len(names)
        return VectorSpec(
            (*limits.joints, "hand_x", "hand_y", "hand_z", *names),
            (*units, "m", "m", "m", *wrench.UNITS[: len(names)]),
            (*limits.low.tolist(), *limits.box_low.tolist(), *(-value for value in beyond)),
            (*limits.high.tolist(), *limits.box_high.tolist(), *beyond),
        )
