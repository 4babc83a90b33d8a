"""The simulated arm's sensors: joint states, forces and images, with their faults."""

from __future__ import annotations

from collections import deque

import numpy as np

from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sim.faults import Faults
from wm_nodes.robots.arm.sim.scene import ArmWorld, noisy
from wm_nodes.robots.robot import Image

TURN = 2.0 * np.pi


class Sensors:
    """What is measured in a world. `record` after each of its steps. seed: of all noise."""

    def __init__(self, world: ArmWorld, faults: Faults, seed: int = 0) -> None:
        import mujoco

        self._world, self._faults = world, faults
        joints = world.config.limits.joints
        self._n = len(joints)
        kinds = [world.model.joint(name).type[0] for name in joints]
        self._turns = np.array(kinds) == mujoco.mjtJoint.mjJNT_HINGE
        self._random = np.random.default_rng(seed)
        self._history: deque[tuple[float, Floats, Floats]] = deque(maxlen=2000)
        self._frozen: dict[str, Image] = {}

    def record(self) -> None:
        """Keep the state of this moment, for joint states that are reported late."""
        world = self._world
        self._history.append((world.time_s, world.positions(), world.velocities()))

    def joint_states(self) -> tuple[Floats, Floats, float] | None:
        """Return (positions (n,), velocities (n,), age [s]) as the driver reports them now.

        None: it reports nothing.
        """
        if self._faults.driver_dead:
            return None
        now = self._world.time_s
        age, place, speed = 0.0, self._world.positions(), self._world.velocities()
        if self._faults.joint_delay_s > 0:
            for then, past, pace in self._history:
                if then >= now - self._faults.joint_delay_s:
                    age, place, speed = now - then, past, pace
                    break
        noise = self._faults.joint_noise_rad
        if noise > 0:
            place = place + self._random.normal(0.0, noise, self._n)
        if self._faults.wrap_joints:
            wrapped = place - TURN * np.ceil(place / TURN - 0.5)
            place = np.where(self._turns, wrapped, place)
        if self._faults.nan_velocity:
            speed = np.full(self._n, np.nan)
        return place, speed, age

    def wrench(self) -> Floats | None:
        """Return what the force-torque sensor sends now, (6,) [N, Nm]; None: it sends nothing."""
        if self._faults.wrench_dropped:
            return None
        if self._faults.wrench_nan:
            return np.full(6, np.nan)
        values = self._world.wrench()
        values[2] += self._faults.wrench_bias_n
        return values

    def sent_image(self, camera: str, size: int) -> Image | None:
        """Return what a camera sends now; None: it sends nothing."""
        return None if self._faults.camera_dropped else self.image(camera, size)

    def image(self, camera: str, size: int) -> Image:
        """Return (size, size, 3): the camera's image, or the old one while it is frozen."""
        if self._faults.camera_frozen and camera in self._frozen:
            return self._frozen[camera]
        image = self._world.render(camera, size)
        if self._faults.image_noise > 0:
            image = noisy(image, self._faults.image_noise, self._random)
        self._frozen[camera] = image
        return image
