"""The simulated arm's world: MuJoCo physics of arm, table and cube, and its cameras."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.geometry.model_file import load
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.arm.sim.tasks import TASKS, Scene, State
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Image, RobotError
from wm_nodes.robots.sims import rendering

STEP_S = 0.002


class ArmWorld:
    """Positions in, physics, joint states and images out. Time is counted, not measured."""

    def __init__(self, config: ArmConfig, task: str = "reach", *, render: str = "fast") -> None:
        if task not in TASKS:
            raise RobotError(f"task: got {task!r}, expected one of {', '.join(TASKS)}.")
        preset, _ = rendering.resolve(render)
        import mujoco

        self._mj, self.config, self.task = mujoco, config, TASKS[task]
        self.model = _scene(config)
        self.data = mujoco.MjData(self.model)
        joints = [self.model.joint(name) for name in config.limits.joints]
        self._at = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        names = [self.model.actuator(index).name for index in range(self.model.nu)]
        self._actuators = np.array([names.index(name) for name in config.limits.joints])
        self._cube = self.model.joint("cube").qposadr[0]
        self._mocap = {n: self.model.body(n).mocapid[0] for n in ("marker", "disc")}
        self._site = self.model.site(config.hand).id
        self._preset = preset
        self._cameras: dict[str, rendering.CameraRenderer] = {}
        self.scene = Scene()
        self._hold(config.home)
        self._home_hand = self.data.site_xpos[self._site].copy()
        self.set_scene(0)

    # Time ---------------------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """Simulated seconds since the beginning."""
        return float(self.data.time)

    def advance(self, target: Floats) -> None:
        """Let STEP_S pass with the servos pulling towards `target` (n,)."""
        self.data.ctrl[self._actuators] = target
        self._mj.mj_step(self.model, self.data)

    def positions(self) -> Floats:
        """Return joint positions (n,)."""
        out: Floats = self.data.qpos[self._at].copy()
        return out

    def velocities(self) -> Floats:
        """Return joint velocities (n,)."""
        out: Floats = self.data.qvel[self._dof].copy()
        return out

    def wrench(self) -> Floats:
        """Return force [N] and torque [Nm], (6,), with which link 5 holds what is beyond joint 6.

        In the frame of the site `wrist`; the weight of gripper and fingers is in them.
        """
        parts = [self.data.sensor(f"wrist_{what}").data for what in ("force", "torque")]
        return np.concatenate(parts)

    # Episodes -----------------------------------------------------------------------------------

    def set_scene(self, seed: int) -> None:
        """Set the scene of a seed; the arm stays where it is. Scenes in which the task is done as
        soon as the arm is at home are drawn again."""
        random = np.random.default_rng(seed)
        self.scene = self.task.scene(random)
        while self.task.distance(self._at_home()) < self.task.enough:
            self.scene = self.task.scene(random)
        self.data.qpos[self._cube : self._cube + 7] = [*self.scene.cube, 1, 0, 0, 0]
        dof = self.model.joint("cube").dofadr[0]
        self.data.qvel[dof : dof + 6] = 0.0
        if self.scene.cube[2] < 0:
            self.data.qpos[self._cube : self._cube + 3] = [-1.0, 0.0, 0.025]  # behind, out of sight
        self.data.mocap_pos[self._mocap["marker"]] = self.scene.marker
        self.data.mocap_pos[self._mocap["disc"]] = self.scene.disc
        self._mj.mj_forward(self.model, self.data)

    def state(self) -> State:
        """Return the state that scripts and scores use."""
        limits = self.config.limits
        opening = self.data.qpos[self._at[-1]] / limits.high[-1] if self.config.gripper else 1.0
        return State(
            end_effector=self.data.site_xpos[self._site].copy(),
            cube=self.data.qpos[self._cube : self._cube + 3].copy(),
            goal=np.array(self.scene.goal),
            opening=float(opening),
        )

    def _at_home(self) -> State:
        """The state that this scene begins with once the arm is at home."""
        return State(self._home_hand, np.array(self.scene.cube), np.array(self.scene.goal), 1.0)

    def things(self) -> list[Floats]:
        """Return the places (3,) [m] of ball and cube, those that are visible."""
        state, scene = self.state(), self.scene
        visible = [np.array(scene.marker)] if scene.marker[2] >= 0 else []
        return [*visible, state.cube] if scene.cube[2] >= 0 else visible

    def success(self) -> bool:
        state = self.state()
        return bool(self.task.distance(state) < self.task.enough)

    # Images -----------------------------------------------------------------------------------

    def render(self, camera: str, size: int) -> Image:
        """Return (size, size, 3) of a camera now."""
        return self._camera(camera, size).render(self.data)

    def intrinsics(self, camera: str, size: int) -> Intrinsics | None:
        """Return the intrinsics of a camera's images."""
        return self._camera(camera, size).intrinsics(self.data)

    def _camera(self, camera: str, size: int) -> rendering.CameraRenderer:
        key = f"{camera}/{size}"
        if key not in self._cameras:
            self._cameras[key] = rendering.CameraRenderer(self.model, camera, size, self._preset)
        return self._cameras[key]

    def goal_image(self, pose: Floats, camera: str, size: int) -> Image:
        """Return the image of `camera` with the arm at rest in `pose` (n,); nothing moves."""
        kept = self.data.qpos.copy(), self.data.qvel.copy()
        self.data.qpos[self._at] = pose
        self._mirror_finger()
        self._mj.mj_forward(self.model, self.data)
        image = self.render(camera, size)
        self.data.qpos[:], self.data.qvel[:] = kept
        self._mj.mj_forward(self.model, self.data)
        return image

    def goal_pose(self) -> Floats:
        """Return joints (n,) with the end effector in the scene's goal, at home's attitude."""
        config = self.config
        chain = Kinematics(config.model, config.limits.joints, config.hand)
        upright, pose, arm = chain.orientation(config.home), config.home.copy(), config.arm_joints
        for _ in range(200):
            off = np.array(self.scene.goal) - chain.positions(pose[None])[0]
            twist = np.concatenate([off, chain.turned(pose, upright)])
            pose[:arm] += 0.5 * chain.follow(pose, twist, arm)
            pose = np.clip(pose, config.limits.low, config.limits.high)
        return pose

    def close(self) -> None:
        """Free the GL contexts."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras.clear()

    def _hold(self, pose: Floats) -> None:
        self.data.qpos[self._at] = pose
        self._mirror_finger()
        self.data.ctrl[self._actuators] = pose
        self._mj.mj_forward(self.model, self.data)

    def _mirror_finger(self) -> None:
        right: Any = self.model.joint("finger_right_joint")
        self.data.qpos[right.qposadr[0]] = self.data.qpos[self._at[-1]]


def _scene(config: ArmConfig) -> Any:
    """Return the compiled model; RobotError if it is an arm without the scene."""
    try:
        model = load(config.model, config.hand).compile()
    except ValueError as error:
        raise RobotError(f"model {config.model}: {str(error).splitlines()[0]}") from None
    import mujoco

    kinds = mujoco.mjtObj
    parts = [(kinds.mjOBJ_JOINT, "cube"), (kinds.mjOBJ_BODY, "marker"), (kinds.mjOBJ_BODY, "disc")]
    parts += [(kinds.mjOBJ_ACTUATOR, name) for name in config.limits.joints]
    for kind, name in parts:
        if mujoco.mj_name2id(model, kind, name) < 0:
            what = kind.name.removeprefix("mjOBJ_").lower()
            raise RobotError(
                f"model {config.model}: got no {what} {name!r}, expected the scene of a simulated "
                "arm (cube, marker, disc, an actuator for each joint). Simulate arm_sim."
            )
    return model


def noisy(image: Image, levels: float, random: np.random.Generator) -> Image:
    """Return the image with normal noise of so many grey levels."""
    noise = random.normal(0.0, levels, image.shape)
    out: Image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return out
