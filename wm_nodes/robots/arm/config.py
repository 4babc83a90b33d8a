"""A robot's YAML: everything that differs between a simulated arm and a real one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wm_nodes.robots.arm.limits import ArmLimits, Floats
from wm_nodes.robots.base import SpecError
from wm_nodes.share import shared

FOLDER = "config/robots"
INTERFACES = ("position", "velocity", "trajectory", "twist")
ACTIONS = ("joint_velocity", "hand_velocity")
CAMERA_TOPICS = {  # where the drivers publish, with their names as shipped
    "realsense2_camera": "/camera/camera/color/image_raw",
    "usb_cam": "/image_raw",
}
MAX_RATE_HZ = 200.0


@dataclass(frozen=True)
class CameraSource:
    """Where pictures come from: a topic, a driver's preset, or a device that OpenCV opens.

    `depth`: they are distances, 16UC1 [mm] or 32FC1 [m], and recorded as a sensor in mm.
    """

    topic: str = ""
    preset: str = ""
    device: str = ""
    height: int = 64
    width: int = 64
    crop: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    depth: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("topic", "preset", "device") if str(getattr(self, name))]
        if len(given) != 1:
            raise SpecError(f"camera: given {given}, right is one of topic, preset, device.")
        if self.preset and self.preset not in CAMERA_TOPICS:
            raise SpecError(
                f"camera: there is no preset {self.preset!r}. Right: {', '.join(CAMERA_TOPICS)}."
            )
        if self.depth and not self.topic:
            raise SpecError(f"camera: given {given} of depth, right is topic.")
        object.__setattr__(self, "topic", self.topic or CAMERA_TOPICS.get(self.preset, ""))
        object.__setattr__(self, "device", str(self.device))
        object.__setattr__(self, "crop", tuple(float(part) for part in self.crop))


@dataclass(frozen=True)
class Output:
    """Commands out: which kind of controller, on which topic; `frame` of twists."""

    interface: str
    topic: str
    frame: str = "base"

    def __post_init__(self) -> None:
        _one_of("command: interface", self.interface, INTERFACES)


@dataclass(frozen=True)
class ActionKind:
    """What an action means: joint velocities, or the hand's velocity with its attitude kept.

    `speed`: bound of each axis of the hand [m/s], or share of each joint's velocity limit.
    `gripper_tasks`: tasks in which the gripper is one more dimension; in others it rests.
    """

    kind: str
    speed: float
    gripper_tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("action: kind", self.kind, ACTIONS)
        if not 0 < self.speed <= 1:
            raise SpecError(f"action: speed: given {self.speed}, right is above 0 to 1.")


@dataclass(frozen=True)
class Gripper:
    """One joint that opens (towards `high`) and closes; its commands have a topic of their own."""

    joint: str
    topic: str


@dataclass(frozen=True)
class Watch:
    """How long silence is borne [s], and how far the arm may lag behind [rad]; 0: not watched."""

    camera_slow_s: float = 0.15
    camera_stop_s: float = 0.5
    camera_frozen_s: float = 0.0  # the same picture, to the pixel; only noisy cameras can tell
    driver_s: float = 0.1
    tracking_rad: float = 0.2

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if not 0 <= value < np.inf:
                raise SpecError(f"watch: {spec.name}: given {value}, right is 0 or more.")


@dataclass(frozen=True)
class Episodes:
    """What begins an episode and judges it where something can (a simulator); empty: a person."""

    reset_service: str = ""
    score_topic: str = ""
    task_parameter_node: str = ""


@dataclass(frozen=True)
class ArmConfig:
    """One arm. `joints` of the limits are the arm's in order, then the gripper's if it has one."""

    robot: str
    model: Path
    hand: str
    rate_hz: float
    joint_states: str
    limits: ArmLimits
    command: Output
    action: ActionKind
    home: Floats  # (n,)
    cameras: Mapping[str, CameraSource]
    watch: Watch = field(default_factory=Watch)
    episodes: Episodes = field(default_factory=Episodes)
    gripper: Gripper | None = None

    @property
    def arm_joints(self) -> int:
        """How many of the joints are the arm's."""
        return len(self.limits.joints) - (self.gripper is not None)


def find_config(name: str) -> Path:
    """Return the YAML of a robot given by name (config/robots) or by path."""
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return path
    folder = shared(FOLDER)
    found = folder / f"{name}.yaml"
    names = sorted(file.stem for file in folder.glob("*.yaml") if _is_arm(file))
    if found.is_file() and name in names:
        return found
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise SpecError(
        f"robot: there is no {name!r}. {hint}Right: {', '.join(names)}, or a path that ends in "
        ".yaml."
    )


def read_config(path: str | Path) -> ArmConfig:
    """Return the arm of a YAML file; SpecError says what is missing or wrong in it."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise SpecError(f"robot {path}: cannot be read ({reason}). Right: a YAML file.") from None
    try:
        return _config(content, Path(path))
    except SpecError as error:
        raise SpecError(f"robot {path}: {error}") from None


def _is_arm(path: Path) -> bool:
    return "joints:" in path.read_text()


def _config(content: Any, path: Path) -> ArmConfig:
    if not isinstance(content, dict):
        raise SpecError("expected a table of settings.")
    known = {
        "robot", "model", "hand", "rate_hz", "joint_states", "joints", "gripper", "workspace",
        "command", "action", "home", "cameras", "watch", "episodes",
    }  # fmt: skip
    _refuse_unknown("", content, known)
    needed = known - {"gripper", "watch", "episodes", "cameras"}
    if missing := sorted(needed - set(content)):
        raise SpecError(f"missing {', '.join(missing)}. A robot without limits does not start.")
    joints = dict(content["joints"] or {})
    if not joints:
        raise SpecError("joints: none. A robot without limits does not start.")
    gripper = None
    if content.get("gripper"):
        given = dict(content["gripper"])
        gripper = Gripper(str(given.pop("joint", "")), str(given.pop("topic", "")))
        joints[gripper.joint] = given
    limits = ArmLimits.read(joints, content["workspace"] or {})
    rate = content["rate_hz"]
    if not isinstance(rate, (int, float)) or not 1 <= rate <= MAX_RATE_HZ:
        raise SpecError(f"rate_hz: given {rate!r}, right is 1 to {MAX_RATE_HZ:.0f}.")
    home = np.array(content["home"], np.float64)
    if home.shape != (len(joints),) or (home < limits.low).any() or (home > limits.high).any():
        raise SpecError(f"home: expected {len(joints)} positions within the limits, got {home}.")
    model = Path(str(content["model"])).expanduser()
    return ArmConfig(
        robot=str(content["robot"]),
        model=model if model.is_absolute() else path.parent / model,
        hand=str(content["hand"]),
        rate_hz=float(rate),
        joint_states=str(content["joint_states"]),
        limits=limits,
        command=_part(Output, "command", content["command"]),
        action=_part(ActionKind, "action", content["action"]),
        home=home,
        cameras={
            name: _part(CameraSource, f"cameras: {name}", given)
            for name, given in (content.get("cameras") or {}).items()
        },
        watch=_part(Watch, "watch", content.get("watch") or {}),
        episodes=_part(Episodes, "episodes", content.get("episodes") or {}),
        gripper=gripper,
    )


def _part(kind: type[Any], name: str, given: Any) -> Any:
    if not isinstance(given, dict):
        raise SpecError(f"{name}: expected a table, got {given!r}.")
    _refuse_unknown(f"{name}: ", given, {spec.name for spec in fields(kind)})
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    except TypeError as error:
        raise SpecError(f"{name}: {str(error).rpartition('__init__() ')[2]}.") from None


def _refuse_unknown(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise SpecError(f"{where}there is no {name!r}. {hint}Right: {', '.join(sorted(known))}")


def _one_of(what: str, given: str, right: tuple[str, ...]) -> None:
    if given not in right:
        raise SpecError(f"{what}: given {given!r}, right is one of {', '.join(right)}.")
