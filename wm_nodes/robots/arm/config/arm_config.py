"""A robot's YAML: everything that differs between a simulated arm and a real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from wm_nodes.assets import shared
from wm_nodes.errors import did_you_mean
from wm_nodes.namespaces import ROOT, absolute, legal, refusal
from wm_nodes.robots.arm.config.driver_section import DriverSection
from wm_nodes.robots.arm.config.model_check import check_model
from wm_nodes.robots.arm.config.section_errors import NO_LIMITS, parse
from wm_nodes.robots.arm.config.sections import CAMERA_TOPICS as CAMERA_TOPICS
from wm_nodes.robots.arm.config.sections import INTERFACES as INTERFACES
from wm_nodes.robots.arm.config.sections import (
    ActionKind,
    ArmSections,
    CameraSource,
    Episodes,
    ForceTorqueSection,
    GripperSection,
    Output,
    Watch,
)
from wm_nodes.robots.arm.config.yaml_file import Place, YamlFile, read_yaml
from wm_nodes.robots.arm.safety.limits import PER_JOINT, ArmLimits, Floats
from wm_nodes.robots.robot import SpecError

FOLDER = "config/robots"
WRAP_MARGIN = 0.2  # [rad] that home keeps from ±pi where a joint is continuous


@dataclass(frozen=True)
class Gripper:
    """One joint that opens (towards `high`) and closes; how it is commanded, as in sections.py."""

    joint: str
    topic: str
    interface: str = "position"
    action: str = "velocity"
    timeout_s: float = 0.5
    action_type: str = "GripperCommand"
    deadband: float = 0.02  # share of the joint's range
    goal_hz: float = 5.0
    max_effort: float = 0.0  # N, Nm


@dataclass(frozen=True)
class Box:
    """An obstacle: a box in the arm's base frame, by two corners (x, y, z) [m]."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Collision:
    """Whether collisions are checked (of the arm with itself and with obstacles), and with what."""

    enabled: bool = True
    obstacles: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ArmConfig:
    """One arm, one field for each key of its YAML.

    `joints` of the limits are the arm's in order, then the gripper's if it has one. `hand`: site or
    body of the end effector in the model.
    """

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
    collision: Collision = field(default_factory=Collision)
    driver_node: str = ""  # the only node that may publish joint states; empty: any single one
    driver_ns: str = ROOT  # absolute: what the YAML's relative names are below
    force_torque: ForceTorqueSection | None = None
    driver: DriverSection = field(default_factory=DriverSection)

    @property
    def arm_joints(self) -> int:
        """How many of the joints are the arm's."""
        return len(self.limits.joints) - (self.gripper is not None)

    @property
    def grace_s(self) -> Floats:
        """How much longer than `watch.driver_s` each joint may be silent, (n,) [s]."""
        grace_s = np.zeros(len(self.limits.joints))
        if self.gripper is not None and self.watch.driver_s:
            grace_s[-1] = max(self.gripper.timeout_s - self.watch.driver_s, 0.0)
        return grace_s

    def gripper_acts(self, task: str) -> bool:
        """Is the gripper a dimension of the actions of this task?"""
        commanded = self.gripper is not None and bool(self.gripper.topic)
        return commanded and task not in self.action.gripper_rests


def find_config(name: str) -> Path:
    """Return the YAML of a robot, by name (config/robots) or by path."""
    path = _expanded(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    folder = shared(FOLDER)
    shipped = folder / f"{name}.yaml"
    names = sorted(file.stem for file in folder.glob("*.yaml") if _is_arm(file))
    if shipped.is_file() and name in names:
        return shipped
    raise SpecError(
        f"robot: got {name!r}, expected {', '.join(names)}, or a path that ends in .yaml. "
        f"{did_you_mean(name, names)}".strip()
    )


def read_config(path: str | Path, driver_ns: str = "") -> ArmConfig:
    """Return the arm of a YAML file, checked against its model. Its topics are absolute names.

    driver_ns: namespace of the driver, which relative names of the file are below; empty: the
    file's own.

    SpecError, in one line with file, line and remedy, if the file cannot be read, if a value is
    missing, unknown or implausible, or if it contradicts the model.
    """
    file = read_yaml(path)
    driver_ns = _driver_ns(file, driver_ns)
    sections = parse(file, driver_ns)
    _check_together(file, sections)
    config = _config(file, sections, driver_ns)
    _check_home(file, config)
    check_model(file, config)
    return config


def _is_arm(path: Path) -> bool:
    return "joints:" in path.read_text()


def _driver_ns(file: YamlFile, namespace: str) -> str:
    """Return the driver's absolute namespace: `namespace`, else the file's. An illegal one in the
    file is refused with the other values."""
    if namespace and not legal(namespace):
        raise SpecError(refusal("driver_ns", namespace))
    own = file.content.get("driver_ns") if isinstance(file.content, Mapping) else None
    word = namespace or (own if isinstance(own, str) and legal(own) else "")
    return absolute(word or ROOT)


def _config(file: YamlFile, sections: ArmSections, driver_ns: str) -> ArmConfig:
    gripper = sections.gripper
    return ArmConfig(
        robot=sections.robot,
        model=file.path.parent / _expanded(sections.model),  # an absolute path stays
        hand=sections.hand,
        rate_hz=sections.rate_hz,
        joint_states=sections.joint_states,
        limits=_limits(sections),
        command=sections.command,
        action=sections.action,
        home=np.array(sections.home, np.float64),
        cameras=sections.cameras,
        watch=sections.watch,
        episodes=sections.episodes,
        gripper=None if gripper is None else _gripper(gripper),
        collision=Collision(
            sections.collision.check,
            tuple(
                Box(name, box.low, box.high) for name, box in sections.collision.obstacles.items()
            ),
        ),
        driver_node=sections.driver_node,
        driver_ns=driver_ns,
        force_torque=sections.force_torque,
        driver=sections.driver,
    )


def _gripper(section: GripperSection) -> Gripper:
    return Gripper(**{each.name: getattr(section, each.name) for each in fields(Gripper)})


def _limits(sections: ArmSections) -> ArmLimits:
    """Return the limits of the arm's joints, then the gripper's."""
    gripper, workspace = sections.gripper, sections.workspace
    joints = [*sections.joints.values(), *([gripper] if gripper else [])]
    columns = {key: np.array([getattr(joint, key) for joint in joints]) for key in PER_JOINT}
    return ArmLimits(
        (*sections.joints, *([gripper.joint] if gripper else [])),
        **columns,
        target_change=columns["velocity"],
        box_low=np.array(workspace.low),
        box_high=np.array(workspace.high),
        hand_speed=workspace.hand_speed,
        continuous=np.array([getattr(joint, "continuous", False) for joint in joints]),
    )


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~ of a user that does not exist
        return Path(path)


def _check_together(file: YamlFile, sections: ArmSections) -> None:
    """Refuse sections that contradict one another."""
    gripper, tasks = sections.gripper, sections.action.gripper_rests
    if not sections.joints:
        raise file.error(("joints",), "no joint", "the limits of every joint", NO_LIMITS)
    if gripper is not None and gripper.joint in sections.joints:
        raise file.error(
            ("gripper", "joint"), f"{gripper.joint!r}, which is in `joints` too",
            "a joint of its own", "Name it in one of the two only.",
        )  # fmt: skip
    gripper_table = file.content.get("gripper")
    least_s = sections.watch.driver_s
    if gripper is not None and "timeout_s" in gripper_table and gripper.timeout_s < least_s:
        raise file.error(
            ("gripper", "timeout_s"), f"{gripper.timeout_s:g} s",
            f"at least watch.driver_s, {least_s:g} s: every joint may be silent for so long",
            "Raise it, or lower watch.driver_s.",
        )  # fmt: skip
    if gripper is None and tasks:
        raise file.error(
            ("action", "gripper_rests"), ", ".join(tasks), "no tasks: there is no gripper",
            "Remove them, or add `gripper:`.",
        )  # fmt: skip


def _check_home(file: YamlFile, config: ArmConfig) -> None:
    """Refuse a home beyond the limits of a joint, or where a continuous joint would wrap."""
    limits, wrap = config.limits, np.pi - WRAP_MARGIN
    if len(config.home) != len(limits.joints):
        raise file.error(
            ("home",), f"{len(config.home)} positions",
            f"{len(limits.joints)} ({', '.join(limits.joints)})", "Give one for each joint.",
        )  # fmt: skip
    for index, (name, value) in enumerate(zip(limits.joints, config.home)):
        place: Place = ("home", index)
        low, high = limits.low[index], limits.high[index]
        if not low <= value <= high:
            expected = f"{low:g} to {high:g}, the limits of {name}"
            raise file.error(
                place, f"{value:g}", expected, "Move home inside, or widen the limits."
            )
        if limits.continuous[index] and abs(value) > wrap:
            raise file.error(
                place, f"{value:g}, home too near the wrap of {name} at ±pi",
                f"{-wrap:.3f} to {wrap:.3f}", "Choose an equal pose: flip the elbow or the wrist.",
            )  # fmt: skip
