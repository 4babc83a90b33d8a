"""Meta-World's 50 v3 tasks behind the Robot contract: pixels, hand and gripper; random goals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.errors import closest
from wm_nodes.robots.action_limits import within
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Image, RobotError, Vector
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome

ACTION = VectorSpec(  # one unit moves the hand's target by 1 cm per simulator step of 12.5 ms
    names=("x", "y", "z", "gripper"),
    units=("cm/sim_step", "cm/sim_step", "cm/sim_step", "1"),
    low=(-1.0, -1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0, 1.0),
)
PROPRIO = VectorSpec(
    names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    units=("m", "m", "m", "m"),
    low=(-0.525, 0.348, -0.0525, 0.0),
    high=(0.525, 1.025, 0.7, 0.1),
)
GRIPPER_RANGE_M = 0.1  # Meta-World gives the opening as a share of this
LIST_TASKS = "python -m wm_nodes.robots.sims.metaworld"


class TaskError(RobotError, ValueError):
    """A task that Meta-World does not have."""


def tasks() -> tuple[str, ...]:
    """Return the names of all 50 tasks, sorted."""
    return tuple(sorted(name.removesuffix("-goal-observable") for name in _environments()))


def check_task(task: str) -> str:
    """Return the task, or refuse it naming the closest ones."""
    names = tasks()
    if task in names:
        return task
    name = task.removesuffix("-v2").removesuffix("-v3") + "-v3"
    near = closest(name, names) or list(names[:3])
    raise TaskError(
        f"task: got {task!r}, expected one of Meta-World's {len(names)} tasks (`{LIST_TASKS}`). "
        f"Closest: {', '.join(near)}."
    )


class MetaWorld(Simulator):
    """One Meta-World task with random goals; an episode ends at the time limit only.

    The reward is 0 to 10 for each simulator step.
    """

    def __init__(
        self,
        task: str = "drawer-close-v3",
        *,
        seed: int = 0,
        size: int = 64,
        camera: str = "corner4",
        action_repeat: int = 2,
        time_limit: int = 250,
        render: str = "auto",
        limits: VectorSpec = ACTION,
    ) -> None:
        """Open the simulator. time_limit: in agent steps. size: side of the images [px]. camera:
        one of Meta-World's, or several with commas between.

        `script_task` is the Meta-World task that scripts solve; a class derived from this one may
        give its `spec` another task's name.
        """
        super().__init__(seed=seed, time_limit=time_limit, action_repeat=action_repeat)
        check_task(task)
        limits = within(limits, ACTION, "metaworld")
        self._env = _make(task, seed)
        self._env.max_path_length = action_repeat * time_limit
        self.script_task = task
        self._cameras = rendering.Cameras(self._env.model, camera.split(","), size, render)
        self.spec = self._spec(
            "metaworld",
            task,
            step_s=float(self._env.dt),
            cameras=self._cameras.shapes,
            proprio=PROPRIO,
            action=limits,
            extra={
                "camera": camera,
                "orientation": "upright, mirrored (rows of the hanging camera reversed)",
                **self._cameras.extra,
                **_versions(),
            },
        )

    @property
    def privileged_state(self) -> npt.NDArray[np.float64]:
        """Return the simulator's state (39,), goal included."""
        state: npt.NDArray[np.float64] = self._state.copy()
        return state

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        return self._cameras.intrinsics(self._env.data)

    def _begin(self, seed: int) -> None:
        import mujoco

        self._env.seed(seed)
        self._state, _ = self._env.reset()
        mujoco.mj_forward(self._env.model, self._env.data)  # moved sites and bodies show only now

    def _simulate(self, action: Vector) -> StepOutcome:
        self._state, reward, _, _, info = self._env.step(action)
        return StepOutcome(reward=float(reward), success=bool(info["success"]))

    def _proprio(self) -> Vector:
        now: Vector = self._env._get_curr_obs_combined_no_goal()[:4].astype(np.float32)
        now[3] *= GRIPPER_RANGE_M
        inside: Vector = np.clip(now, *np.array([PROPRIO.low, PROPRIO.high], np.float32))
        return inside

    def _images(self) -> dict[str, Image]:
        return self._cameras.images(self._env.data)

    def _free(self) -> None:
        self._cameras.close()
        self._env.close()


def _environments() -> dict[str, Any]:
    rendering.choose_gl()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    except Exception as error:  # a bad MUJOCO_GL raises RuntimeError when mujoco is imported
        raise RobotError(
            f"metaworld cannot be imported: {error}. Run `pip install .[sim]`, set MUJOCO_GL=egl."
        ) from None
    return ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE


def _make(task: str, seed: int) -> Any:
    """Return the environment with a new goal at every reset, drawn from its own generator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = _environments()[f"{task}-goal-observable"](seed=seed)
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    return env


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("metaworld", "mujoco")}


if __name__ == "__main__":
    print("\n".join(tasks()))
