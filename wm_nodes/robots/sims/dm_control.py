"""dm_control's suite and manipulation tasks behind the Robot contract: pixels and observations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wm_datasets.spec import VectorSpec
from wm_nodes.errors import unknown
from wm_nodes.robots.cameras.intrinsics import Intrinsics
from wm_nodes.robots.robot import Image, RenderError, RobotError, Vector
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.background_sources import NONE
from wm_nodes.robots.sims.backgrounds import open_background
from wm_nodes.robots.sims.dm_control_tasks import (
    CAMERAS,
    EPISODE_STEPS,
    EPISODE_STEPS_OF,
    MAIN,
    MAIN_CAMERAS,
    MANIPULATION,
    SUITE_NAMES,
    TASKS,
)
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome, require_whole

INSTALL = "Run `pip install .[sim]`, set MUJOCO_GL=egl."


class DmControl(Simulator):
    """One task of dm_control; its episodes end as dm_control's do, after 1000 simulator steps
    (manipulation: 250), or after `time_limit` agent steps where that is earlier.

    The reward is dm_control's, 0 to 1 for each simulator step; no task reports success.
    Proprioception is the task's own observation, flattened; it has no bounds. For `background` see
    `backgrounds.py`.
    """

    def __init__(
        self,
        task: str = "cartpole_balance",
        *,
        seed: int = 0,
        size: int = 64,
        camera: str = MAIN,
        action_repeat: int = 2,
        time_limit: int = EPISODE_STEPS,
        render: str = "auto",
        background: str = NONE,
    ) -> None:
        """Open the simulator. time_limit: in agent steps. size: side of the images [px]. camera:
        `main`, or camera0, camera1, ... in the model's order, or several with commas between."""
        require_whole(time_limit=time_limit, action_repeat=action_repeat)
        if task not in TASKS:
            raise RobotError(unknown("task", task, TASKS))
        domain, own_task = TASKS[task]
        own_limit = math.ceil(EPISODE_STEPS_OF.get(domain, EPISODE_STEPS) / action_repeat)
        limit = min(time_limit, own_limit)
        super().__init__(seed=seed, time_limit=limit, action_repeat=action_repeat)
        self._background = open_background(background, size)
        self._evaluation = False  # whose clips the next episode shows
        self._domain = domain
        self._env = _load(domain, own_task)
        self._entries = tuple(_vectors(self._env))
        self._size, self._render = size, render
        self._camera_names = {
            name: _model_camera(self._model, name, domain) for name in camera.split(",")
        }
        self._open_cameras()
        self.spec = self._spec(
            "dmc",
            task,
            step_s=float(self._env.control_timestep()),
            cameras=self._cameras.shapes,
            proprio=_proprio_spec(self._env),
            action=_action_spec(self._env),
            extra={
                "camera": camera,
                "background": background,
                **self._cameras.extra,
                **_versions(),
            },
            success=False,
        )

    @property
    def privileged_state(self) -> npt.NDArray[np.float64]:
        """Return the state of the physics: positions, velocities and activations."""
        state: npt.NDArray[np.float64] = self._env.physics.get_state()
        return state

    def intrinsics(self) -> Mapping[str, Intrinsics]:
        return self._cameras.intrinsics(self._env.physics.data.ptr)

    def select_scenes(self, *, evaluation: bool) -> None:
        self._evaluation = evaluation

    @property
    def _model(self) -> Any:
        return self._env.physics.model.ptr

    def _open_cameras(self) -> None:
        """Make the renderers of the present model, whose height field is copied to the GPU."""
        self._drawn, self._relief = self._model, self._model.hfield_data.copy()
        self._cameras = rendering.Cameras(self._drawn, self._camera_names, self._size, self._render)

    def _begin(self, seed: int) -> None:
        manipulation = self._domain == MANIPULATION
        random = self._env.random_state if manipulation else self._env.task.random
        random.seed(seed)
        self._observed = self._env.reset().observation
        if self._model is not self._drawn or (self._model.hfield_data != self._relief).any():
            self._cameras.close()  # the model was compiled again, or has other ground
            self._open_cameras()
        if self._background is not None:
            self._background.begin(seed, evaluation=self._evaluation)

    def _simulate(self, action: Vector) -> StepOutcome:
        step = self._env.step(action)
        self._observed = step.observation
        terminal = bool(step.last() and step.discount == 0)
        return StepOutcome(
            reward=float(step.reward), terminal=terminal, truncated=step.last() and not terminal
        )

    def _proprio(self) -> Vector:
        entries = [np.ravel(self._observed[name]) for name in self._entries]
        return np.concatenate(entries).astype(np.float32)

    def _images(self) -> dict[str, Image]:
        images = self._cameras.images(self._env.physics.data.ptr)
        return images if self._background is None else self._background.behind(images)

    def _free(self) -> None:
        self._cameras.close()
        self._env.close()


def _load(domain: str, task: str) -> Any:
    """Return dm_control's environment. RobotError: it cannot be imported, or lacks a numpy."""
    if domain == "quadruped" and not hasattr(np, "in1d"):
        raise RobotError(
            f"task: dm_control's quadruped got numpy {np.__version__}, expected one below 2.4, "
            "which has np.in1d. Run `pip install 'numpy<2.4'`, or choose another task."
        )
    # numpy 2 warns at each step of a quadruped; 2.4 is refused above
    warnings.filterwarnings("ignore", message="`in1d` is deprecated", category=DeprecationWarning)
    rendering.choose_gl()
    rendering.load_triton()  # the import of dm_control opens EGL
    try:
        from dm_control import manipulation, suite
        from dm_control.composer.observation.observable import MJCFCamera
    except Exception as error:  # a bad MUJOCO_GL raises RuntimeError when it is imported
        raise RobotError(f"dm_control cannot be imported: {error}. {INSTALL}") from None
    if domain != MANIPULATION:
        return suite.load(SUITE_NAMES.get(domain, domain), task, task_kwargs={"random": 0})
    env = manipulation.load(f"{task}_vision", seed=0)
    for observable in env.task.observables.values():
        if isinstance(observable, MJCFCamera):  # `rendering` makes the images
            observable.enabled = False
    return env


def _model_camera(model: Any, name: str, domain: str) -> str:
    """Return the model's own name of a camera. RenderError: the model has no such camera."""
    names = CAMERAS[: 1 + model.ncam]
    if name not in names:
        raise RenderError(f"camera: got {name!r}, expected one of {', '.join(names)}.")
    index = MAIN_CAMERAS.get(domain, 0) if name == MAIN else names.index(name) - 1
    own: str = model.camera(index).name
    return own


def _vectors(env: Any) -> dict[str, Any]:
    """Return the specifications of the entries of an observation that are no images."""
    return {name: spec for name, spec in env.observation_spec().items() if spec.dtype != np.uint8}


def _proprio_spec(env: Any) -> VectorSpec:
    names = list[str]()
    for entry, spec in _vectors(env).items():
        size = math.prod(spec.shape)
        names += [f"{entry}_{index}" for index in range(size)] if size > 1 else [entry]
    units, bound = ("1",) * len(names), (math.inf,) * len(names)
    return VectorSpec(tuple(names), units, tuple(-each for each in bound), bound)


def _action_spec(env: Any) -> VectorSpec:
    """Return names and bounds of the actuators; their unit is the model's own."""
    spec, model = env.action_spec(), env.physics.model.ptr
    names = tuple(model.actuator(i).name or f"actuator{i}" for i in range(model.nu))
    return VectorSpec(names, ("1",) * len(names), tuple(spec.minimum), tuple(spec.maximum))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("dm_control", "mujoco")}
