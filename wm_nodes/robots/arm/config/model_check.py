"""Compares a robot's YAML with its model (MJCF or URDF): joint names, types, ranges, home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_nodes.errors import did_you_mean
from wm_nodes.robots.arm.config.yaml_file import Place, YamlFile, shown
from wm_nodes.robots.arm.geometry.model_file import load_chain
from wm_nodes.robots.arm.safety.limits import Floats
from wm_nodes.robots.robot import SpecError
from wm_nodes.robots.sims.rendering import choose_gl

if TYPE_CHECKING:
    from wm_nodes.robots.arm.config.arm_config import ArmConfig

HINGE, SLIDE = "hinge", "slide"
TOLERANCE = 1e-3  # [rad, m] that limits may be beyond the model's range: rounded numbers
MAX_TRAVEL_M = 5.0
LEAST_TRAVEL_RAD = 0.1  # of a gripper that turns


@dataclass(frozen=True)
class ModelJoint:
    """One joint of the model: `kind` hinge, slide, ball or free; `range` (2,) if it has ends."""

    name: str
    kind: str
    range: Floats | None


def check_model(file: YamlFile, config: ArmConfig) -> None:
    """Refuse (SpecError) a configuration that its model contradicts.

    Every joint between the world and `hand` must be in the YAML, and every joint of the
    YAML in the model, with the same type and within its range; at home the end effector must
    be inside the workspace. Without MuJoCo only the file's existence is checked.
    """
    _check_exists(file, config)
    choose_gl()  # MuJoCo reads it when it is imported
    try:
        import mujoco
    except ImportError:
        return
    model = _compiled(file, config)
    sites = [model.site(index).name for index in range(model.nsite)]
    if config.hand not in sites:
        names = [*sites, *(model.body(index).name for index in range(1, model.nbody))]
        fix = f"{did_you_mean(config.hand, names)}Name one of these, or add a site to the model."
        has = ", ".join(filter(None, names)) or "it has none"
        raise file.error(("hand",), shown(config.hand), f"a site or link of the model ({has})", fix)
    joints = {joint.name: joint for joint in map(_joint_of(model), range(model.njnt))}
    chain = _chain(model, config.hand)
    _check_names(file, config, joints, [model.joint(index).name for index in chain])
    for index, name in enumerate(config.limits.joints):
        _check_joint(file, config, index, joints[name])
    data = mujoco.MjData(model)
    for name, value in zip(config.limits.joints, config.home):
        data.qpos[model.jnt_qposadr[model.joint(name).id]] = value
    mujoco.mj_kinematics(model, data)
    _check_home(file, config, data.site_xpos[model.site(config.hand).id])


def _check_exists(file: YamlFile, config: ArmConfig) -> None:
    try:
        there = config.model.is_file()
    except (OSError, ValueError):  # a name too long, or impossible
        there = False
    if not there:
        raise file.error(
            ("model",), f"{shown(str(config.model))}, which is no file", "an MJCF or URDF file",
            "Give its path, relative to this file.",
        )  # fmt: skip


def _compiled(file: YamlFile, config: ArmConfig) -> Any:
    try:
        return load_chain(config.model, config.hand).compile()
    except (SpecError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise file.error(
            ("model",), f"{shown(str(config.model))} ({reason})", "MJCF, or the arm's URDF",
            "Correct the model, or name another.",
        ) from None  # fmt: skip


def _joint_of(model: Any) -> Any:
    kinds = ("free", "ball", SLIDE, HINGE)

    def joint(index: int) -> ModelJoint:
        ends = np.array(model.jnt_range[index]) if model.jnt_limited[index] else None
        return ModelJoint(model.joint(index).name, kinds[int(model.jnt_type[index])], ends)

    return joint


def _chain(model: Any, site: str) -> list[int]:
    """Return the indices of the joints from the world to a site, in that order."""
    body = int(model.site_bodyid[model.site(site).id])
    joints: list[int] = []
    while body:
        first = int(model.body_jntadr[body])
        joints[:0] = range(first, first + int(model.body_jntnum[body]))
        body = int(model.body_parentid[body])
    return joints


def _check_names(
    file: YamlFile, config: ArmConfig, joints: dict[str, ModelJoint], chain: list[str]
) -> None:
    arm = config.limits.joints[: config.arm_joints]
    names = ", ".join(filter(None, joints))
    for name in config.limits.joints:
        if name not in joints:
            place = _place(config, name, "joint")
            raise file.error(
                place, f"the joint {shown(name)}", f"a joint of the model ({names})",
                f"{did_you_mean(name, joints)}Use the name that the model has.",
            )  # fmt: skip
    for name in chain:
        if name not in config.limits.joints:
            raise file.error(
                ("joints",), f"no joint {shown(name)}",
                f"every joint from the base to the end effector ({', '.join(chain)})",
                "Add its limits, or remove the joint from the model.",
            )  # fmt: skip
    for name in arm:
        if name not in chain:
            raise file.error(
                ("joints", name), "a joint that does not move the end effector",
                f"joints from the base to the end effector ({', '.join(chain)})",
                "Remove it, or choose another site as `hand`.",
            )  # fmt: skip


def _check_joint(file: YamlFile, config: ArmConfig, index: int, joint: ModelJoint) -> None:
    limits, name = config.limits, config.limits.joints[index]
    low, high = float(limits.low[index]), float(limits.high[index])
    place, got = _place(config, name, "low"), f"{low:g} to {high:g}"
    gripper = index >= config.arm_joints
    if joint.kind not in (HINGE, SLIDE):
        raise file.error(
            _place(config, name), f"a {joint.kind} joint in the model", "a hinge or slide joint",
            "Correct the model.",
        )  # fmt: skip
    if limits.continuous[index] and (joint.kind == SLIDE or joint.range is not None):
        what = "slides" if joint.kind == SLIDE else "has end stops"
        raise file.error(
            _place(config, name, "continuous"), f"true, but in the model it {what}", "false",
            "Remove `continuous`, or correct the model.",
        )  # fmt: skip
    if joint.kind == SLIDE and high - low > MAX_TRAVEL_M:
        raise file.error(
            place, got, f"at most {MAX_TRAVEL_M:g} m of travel: the joint slides in the model",
            "It looks like millimetres or radians: write metres.",
        )  # fmt: skip
    if gripper and joint.kind == HINGE and high - low < LEAST_TRAVEL_RAD:
        raise file.error(
            place, got, "an angle in rad: the joint is a hinge in the model",
            "It looks like metres: write radians.",
        )  # fmt: skip
    if joint.range is not None and not (
        joint.range[0] - TOLERANCE <= low and high <= joint.range[1] + TOLERANCE
    ):
        raise file.error(
            place, got, f"within the model's range {joint.range[0]:g} to {joint.range[1]:g}",
            "Narrow the limits, or correct the model.",
        )  # fmt: skip


def _check_home(file: YamlFile, config: ArmConfig, end_effector: Floats) -> None:
    low, high = config.limits.box_low, config.limits.box_high
    if (end_effector < low).any() or (end_effector > high).any():
        raise file.error(
            ("home",), f"the end effector at {_metres(end_effector)} m",
            f"inside the workspace {_metres(low)} to {_metres(high)}",
            "Widen the workspace, or choose another home.",
        )  # fmt: skip


def _metres(place: Floats) -> str:
    return str([round(float(value), 3) for value in place])


def _place(config: ArmConfig, name: str, key: str = "") -> Place:
    gripper = config.gripper is not None and name == config.gripper.joint
    place: Place = ("gripper",) if gripper else ("joints", name)
    return (*place, key) if key and (gripper or key != "joint") else place
