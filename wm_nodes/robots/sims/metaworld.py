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
from wm_nodes.robots.robot import Observation, Robot, RobotError, RobotSpec, Vector, checked_action
from wm_nodes.robots.seeds import episode_seed
from wm_nodes.robots.sims import rendering

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
    wanted = task.removesuffix("-v2").removesuffix("-v3") + "-v3"
    near = closest(wanted, names) or list(names[:3])
    raise TaskError(
        f"task: Meta-World has no {task!r}. Closest: {', '.join(near)}. "
        f"`{LIST_TASKS}` lists all {len(names)}."
    )


class MetaWorld(Robot):
    """One Meta-World task with random goals; an episode ends at the time limit only.

    The reward of a decision is summed over the action repeat (0 to 10 per simulator step),
    success is any of the repeated steps'. Same seed, same episodes, bit for bit; episode k is the
    same whatever was done in those before it.
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
        """Open the simulator. `time_limit` in decisions, `size` is the picture's side in pixels.

        `script_task` is the Meta-World task that scripts solve; a class derived from this one may
        give its `spec` another task's name.
        """
        _require_positive(action_repeat=action_repeat, time_limit=time_limit)
        check_task(task)
        self._action = within(limits, ACTION, "metaworld")
        preset, gl_name = rendering.resolve(render)
        self._env = _make(task, seed)
        self._env.max_path_length = action_repeat * time_limit
        self.script_task = task
        self._seed, self._episode = seed, 0
        self._repeat, self._limit = action_repeat, time_limit
        self._decision = self._ticks = 0
        self._newest: Observation | None = None
        self._closed = False
        self._camera: rendering.CameraRenderer | None = None
        if preset != "none":
            self._camera = rendering.CameraRenderer(self._env.model, camera, size, preset)
        period_s = float(self._env.dt) * action_repeat
        self._period_ns = round(period_s * 1e9)
        self.spec = RobotSpec(
            name="metaworld",
            task=task,
            control_period_s=period_s,
            cameras={} if self._camera is None else {camera: (size, size, 3)},
            proprio=PROPRIO,
            action=self._action,
            extra={
                "seed": seed,
                "action_repeat": action_repeat,
                "time_limit": time_limit,
                "camera": camera,
                "orientation": "upright, mirrored (rows of the hanging camera reversed)",
                "render": preset,
                "gl_renderer": gl_name,
                **_versions(),
            },
        )

    @property
    def privileged_state(self) -> npt.NDArray[np.float64]:
        """Return the simulator's state (39,), goal included: for experts only, never published."""
        return self._state.copy()

    def reset(self, seed: int | None = None) -> Observation:
        import mujoco

        self._require_open()
        if seed is None:
            seed = episode_seed(self._seed, self._episode)
            self._episode += 1
        self._env.seed(seed)
        self._state, _ = self._env.reset()
        mujoco.mj_forward(self._env.model, self._env.data)  # moved sites and bodies show only now
        self._decision = 0
        zeros = np.zeros(len(ACTION.names), np.float32)
        return self._observation(executed=zeros, commanded=zeros.copy(), is_first=True)

    def observe(self) -> Observation:
        if self._newest is None:
            raise RobotError("metaworld: no episode yet. Right: call reset first.")
        return self._newest

    def act(self, action: npt.ArrayLike) -> Observation:
        self._require_open()
        if self.observe().is_last:
            raise RobotError(
                f"metaworld: the episode ended after {self._decision} decisions. Right: call reset."
            )
        executed, commanded = checked_action(self._action, action, "metaworld")
        reward, success = 0.0, False
        for _ in range(self._repeat):
            self._state, step_reward, _, _, info = self._env.step(executed)
            reward += float(step_reward)
            success |= bool(info["success"])
        self._decision += 1
        return self._observation(
            executed=executed,
            commanded=commanded,
            reward=reward,
            success=success,
            is_last=self._decision >= self._limit,
        )

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        found = None if self._camera is None else self._camera.intrinsics(self._env.data)
        return {} if self._camera is None or found is None else {self._camera.camera: found}

    def stop(self) -> None:
        """Do nothing: simulated time stands still between two calls of `act`."""

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._camera is not None:
            self._camera.close()
        self._env.close()

    def _observation(self, **rest: Any) -> Observation:
        self._ticks += 1
        images = {}
        if self._camera is not None:
            images[self._camera.camera] = self._camera.render(self._env.data)
        self._newest = Observation(
            images=images, proprio=self._proprio(), stamp_ns=self._ticks * self._period_ns, **rest
        )
        return self._newest

    def _proprio(self) -> Vector:
        now = self._env._get_curr_obs_combined_no_goal()[:4].astype(np.float32)
        now[3] *= GRIPPER_RANGE_M
        return np.clip(now, *np.array([PROPRIO.low, PROPRIO.high], np.float32))

    def _require_open(self) -> None:
        if self._closed:
            raise RobotError("metaworld: the simulator is closed. Right: make a new MetaWorld.")


def _environments() -> dict[str, Any]:
    rendering.choose_gl()
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    except Exception as error:  # a bad MUJOCO_GL raises RuntimeError when mujoco is imported
        raise RobotError(
            f"metaworld cannot be imported: {error}. Right: `pip install .[sim]`, MUJOCO_GL=egl."
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


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise RobotError(f"{name}: expected a whole number from 1, got {value!r}.")


if __name__ == "__main__":
    print("\n".join(tasks()))
