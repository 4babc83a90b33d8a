"""Any Gymnasium task: images or vectors as observations, continuous or discrete actions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from wm_datasets.spec import VectorSpec
from wm_nodes.errors import closest
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.robots.robot import (
    Image,
    ObservationError,
    RenderError,
    RobotError,
    TaskFacts,
    Vector,
)
from wm_nodes.robots.sims import rendering
from wm_nodes.robots.sims.simulator import Simulator, StepOutcome, failures

Keys = tuple[str, ...]  # keys of nested Dict spaces
CAMERA = "image"  # of a task that shows one image
PERIOD_S = 1 / 30  # of a task that does not give its own
SMALLEST = 8  # side of an observation [px] that is an image: smaller ones are tables of numbers
UNBOUNDED = 1e30  # a bound beyond it stands for no bound
SUCCESS = ("is_success", "success")  # entries of a step's info
NO_PROPRIO = VectorSpec(("none",), ("1",), (0.0,), (1.0,))  # of a task that shows images only
REMEDY = "Run `pip install .[gym]`."


class TaskError(RobotError, ValueError):
    """A task that Gymnasium does not have, or that this robot cannot run."""


class GymTask(Simulator):
    """One task of Gymnasium, by its id; `module:Id` imports the module that registers it first.

    Images are the observation's own, else what `render_mode="rgb_array"` gives, resized to
    `size` x `size`; a task that has neither has no camera. All other numbers of the observation are
    proprioception; without any it is one constant 0. Discrete actions are one-hot vectors.
    A step succeeds if its info says so (`is_success` or `success`).
    """

    def __init__(
        self,
        task: str = "CarRacing-v3",
        *,
        seed: int = 0,
        size: int = 64,
        camera: str = CAMERA,
        action_repeat: int = 1,
        time_limit: int = 1000,
        render: str = "auto",
    ) -> None:
        """Open the task. time_limit: in agent steps; the task may have a shorter one of its own.
        camera: `image`, or the keys of several images of the observation with commas between.
        render: none does without images; the other presets are one, as the task itself renders."""
        super().__init__(seed=seed, time_limit=time_limit, action_repeat=action_repeat)
        _require_size(size)
        if render not in rendering.PRESETS:
            raise RenderError(
                f"render: got {render!r}, expected one of {', '.join(rendering.PRESETS)}."
            )
        self._env = _make(task)
        try:
            self._parts = _Parts(task, self._env.observation_space)
            self._actions = _Actions(task, self._env.action_space)
            images = _images_of(self._env, self._parts)
            images = _chosen(task, camera, images) if render != "none" else {}
            if None in images.values():
                self._env.close()
                self._env = _make(task, render_mode="rgb_array")
        except BaseException:
            self._env.close()
            raise
        self._images_at, self._resize = images, ImagePipeline(size, size)
        self.spec = self._spec(
            "gym",
            task,
            step_s=_period_s(self._env),
            cameras=dict.fromkeys(images, (size, size, 3)),
            proprio=self._parts.proprio,
            action=self._actions.spec,
            extra={"camera": camera, "render": render, **_versions()},
        )
        if None in images.values():
            self._draw_once(seed)

    def _draw_once(self, seed: int) -> None:
        """Have a library for drawing that is missing refused now, not in the first episode."""
        try:
            with failures(self.spec, "reset"):
                self._begin(seed)
                self._render()
        except BaseException:
            self.close()
            raise

    def _begin(self, seed: int) -> None:
        self._observed, _ = self._env.reset(seed=seed)

    def _simulate(self, action: Vector) -> StepOutcome:
        step = self._env.step(self._actions.of(action))
        self._observed, reward, terminated, truncated, info = step
        success = any(bool(info.get(name)) for name in SUCCESS)
        return StepOutcome(float(reward), success, bool(terminated), bool(truncated))

    def _proprio(self) -> Vector:
        return self._parts.vector(self._observed)

    def _images(self) -> dict[str, Image]:
        return {name: self._image(path) for name, path in self._images_at.items()}

    def _image(self, path: Keys | None) -> Image:
        """Return the image at this place in the observation; None: the rendered one."""
        raw = self._render() if path is None else _at(self._observed, path)
        if np.asarray(raw).dtype.kind == "f" and not np.isfinite(raw).all():
            raise ObservationError(
                f"observation of gym: {self.spec.task}: an image has numbers that are not finite, "
                "expected 0 to 255. Repair the task."
            )
        image = np.array(raw, np.uint8)  # a copy: the task may write to its own
        if image.ndim == 2 or image.shape[-1] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=-1)
        return self._resize(image)

    def _render(self) -> Any:
        try:
            image = self._env.render()
        except Exception as error:  # of whichever library draws
            raise _cannot_run(self.spec.task, error, "render") from None
        if np.ndim(image) != 3:
            raise RenderError(
                f"gym: {self.spec.task}: rendered {type(image).__name__}, expected an image "
                "(H, W, 3). Use render=none."
            )
        return image

    def _free(self) -> None:
        self._env.close()


def task_facts(task: str) -> TaskFacts:
    """Return facts about a task. TaskError: there is no such task, or this robot cannot run it;
    RobotError: something is not installed."""
    env = _make(task)
    try:
        images = _images_of(env, _Parts(task, env.observation_space))
        return TaskFacts(_Actions(task, env.action_space).spec.discrete, tuple(images))
    finally:
        env.close()


def _images_of(env: Any, parts: _Parts) -> Mapping[str, Keys | None]:
    """Return camera -> its place in the observation; None: the task draws it."""
    drawn = "rgb_array" in env.metadata.get("render_modes", ())
    return {CAMERA: None} if drawn and not parts.images else parts.images


class _Actions:
    """The action space: the robot's vector, and the task's own action."""

    def __init__(self, task: str, space: Any) -> None:
        spaces = _gymnasium().spaces
        self._space = space
        if isinstance(space, spaces.Discrete):
            self.spec = VectorSpec.one_hot(_numbered("action", int(space.n)))
            return
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise TaskError(
                f"gym: {task}: got actions {_shown(space)}, expected Discrete or a Box of floating "
                "point numbers. Register a wrapped environment that has those."
            )
        low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
        if not (np.abs([low, high]) < UNBOUNDED).all() or not (low < high).all():
            raise TaskError(
                f"gym: {task}: got actions {_shown(space)}, expected finite bounds, each low below "
                "its high. Register a wrapped environment that has those."
            )
        names = _numbered("action", low.size)
        self.spec = VectorSpec(names, ("1",) * low.size, tuple(low), tuple(high))

    def of(self, action: Vector) -> Any:
        """Return the task's action of a valid vector (A,)."""
        if self.spec.discrete:
            return int(self._space.start) + int(np.argmax(action))
        return action.astype(self._space.dtype).reshape(self._space.shape)


class _Parts:
    """The observation space: where its images are, and how all other entries make one vector.

    images: camera -> the keys that lead to it; a single one is the camera `image`.
    """

    def __init__(self, task: str, space: Any) -> None:
        self.images: dict[str, Keys | None] = {}
        self._vectors: list[tuple[Keys, Any]] = []
        names: list[str] = []
        low: list[float] = []
        high: list[float] = []
        for path, part in _entries(space):
            if _is_image(part):
                self.images["_".join(path)] = path
                continue
            try:
                box = _gymnasium().spaces.flatten_space(part)
                bounds = [np.asarray(b, np.float64).ravel() for b in (box.low, box.high)]
            except (AttributeError, NotImplementedError):
                raise TaskError(
                    f"gym: {task}: got observations with {_shown(part)}, expected images and "
                    "numbers. Register a wrapped environment that leaves it out."
                ) from None
            self._vectors.append((path, part))
            for bound, limits in zip(bounds, (low, high)):
                limits.extend(
                    np.where(np.abs(bound) < UNBOUNDED, bound, np.copysign(np.inf, bound))
                )
            names.extend(_numbered("_".join(path) or "observation", box.shape[0]))
        if len(self.images) == 1:
            self.images = {CAMERA: next(iter(self.images.values()))}
        self.proprio = NO_PROPRIO
        if names:
            self.proprio = VectorSpec(tuple(names), ("1",) * len(names), tuple(low), tuple(high))

    def vector(self, observed: Any) -> Vector:
        """Return the numbers of an observation (P,)."""
        if not self._vectors:
            return np.zeros(1, np.float32)
        flatten = _gymnasium().spaces.flatten
        parts = [flatten(part, _at(observed, path)) for path, part in self._vectors]
        vector: Vector = np.concatenate(parts).astype(np.float32)
        return vector


def _make(task: str, **settings: Any) -> Any:
    """Return the environment. RobotError: there is no such task, or it lacks a library."""
    gymnasium = _gymnasium()
    rendering.choose_gl()  # MuJoCo's tasks
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's: no window is needed
    module, _, _ = task.rpartition(":")
    try:
        if module:
            import_module(module)
    except ImportError as error:
        raise TaskError(
            f"task: got {task!r}, but module {module!r} cannot be imported ({error}), expected "
            "one that registers the task. Install it, or add its folder to PYTHONPATH."
        ) from None
    except Exception as error:  # of the module's own code
        raise TaskError(
            f"task: got {task!r}, but module {module!r} fails when it is imported "
            f"({type(error).__name__}: {_reason(error)}), expected one that registers the task. "
            "Repair it."
        ) from error
    try:
        return gymnasium.make(task, disable_env_checker=True, **settings)
    except Exception as error:  # of whichever library makes it
        known = task.rpartition(":")[2] in gymnasium.registry
        lacks = isinstance(error, gymnasium.error.DependencyNotInstalled)
        if isinstance(error, gymnasium.error.Error) and not (known or lacks):
            raise _unknown_task(task) from None
        raise _cannot_run(task, error, "open") from None


def _unknown_task(task: str) -> TaskError:
    registered = list(_gymnasium().registry)
    near = closest(task.rpartition(":")[2], registered) or registered[:3]
    return TaskError(
        f"task: got {task!r}, expected the id of a registered Gymnasium task, or module:Id of one "
        f"that a module registers. Closest: {', '.join(near)}."
    )


def _cannot_run(task: str, error: Exception, what: str) -> RobotError:
    reason = _reason(error)
    if isinstance(error, (ImportError, _gymnasium().error.DependencyNotInstalled)):
        lacking = reason.partition(", ")[0]  # Gymnasium's own advice follows
        return RobotError(f"gym: {task} cannot {what}: {lacking}. {REMEDY}")
    return RobotError(f"gym: {task} cannot {what} ({reason}).")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _gymnasium() -> Any:
    try:
        return import_module("gymnasium")
    except ImportError as error:
        raise RobotError(f"gymnasium cannot be imported: {error}. {REMEDY}") from None


def _entries(space: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield every entry of a space that is no Dict, with the keys that lead to it."""
    if not isinstance(space, _gymnasium().spaces.Dict):
        yield path, space
        return
    for key, part in space.spaces.items():
        yield from _entries(part, (*path, str(key)))


def _at(observed: Any, path: Keys) -> Any:
    for key in path:
        observed = observed[key]
    return observed


def _is_image(space: Any) -> bool:
    if not isinstance(space, _gymnasium().spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return flat and min(shape[:2]) >= SMALLEST


def _chosen(task: str, camera: str, images: Mapping[str, Keys | None]) -> dict[str, Keys | None]:
    """Return the images of these cameras, with commas between; none where the task has none."""
    names = camera.split(",") if images else []
    if missing := [name for name in names if name not in images]:
        raise RenderError(
            f"camera: got {missing[0]!r}, expected one of {', '.join(images)}, which {task} has."
        )
    return {name: images[name] for name in names}


def _require_size(size: int) -> None:
    if not SMALLEST <= size <= 2048:
        raise RenderError(f"size: got {size}, expected {SMALLEST} to 2048.")


def _period_s(env: Any) -> float:
    """Return the simulated time of a step [s]: MuJoCo's, else of a frame of the task's videos."""
    step_s, rate = getattr(env.unwrapped, "dt", 0), env.metadata.get("render_fps") or 0
    if isinstance(step_s, (int, float)) and step_s > 0:
        return float(step_s)
    return 1 / rate if rate > 0 else PERIOD_S


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{index}" for index in range(count)) if count != 1 else (name,)


def _shown(space: Any, most: int = 80) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= most else f"{text[:most]}..."


def _versions() -> dict[str, str]:
    return {"gymnasium": str(_gymnasium().__version__)}
