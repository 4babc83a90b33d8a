"""The sections of a robot's YAML: strict types, plausible ranges, no unknown keys (pydantic)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass

from wm_nodes.robots.arm.config.driver_section import DriverSection
from wm_nodes.robots.arm.config.field_types import (
    MAX_SECONDS,
    Acceleration,
    Between,
    Corner,
    Crop,
    Device,
    Effort,
    Flag,
    Force,
    HandSpeed,
    Home,
    Jerk,
    Lag,
    MaybeNamespace,
    MaybeTopic,
    Name,
    OneOf,
    Pixels,
    Position,
    Rate,
    Seconds,
    Share,
    Speed,
    Text,
    Topic,
    Torque,
    Velocity,
    Word,
    below_driver,
    wrong,
)
from wm_nodes.robots.arm.config.yaml_file import Place
from wm_nodes.robots.arm.safety.limits import HAND_SPEED_M_S

INTERFACES = ("position", "velocity", "trajectory", "twist")
ACTIONS = ("joint_velocity", "hand_velocity")
GRIPPER_INTERFACES = ("position", "trajectory", "gripper_command")
GRIPPER_ACTIONS = ("velocity", "position")
GOAL_TYPES = ("GripperCommand", "ParallelGripperCommand")  # of control_msgs
STAMPS = ("header", "arrival")
TRAJECTORIES = "joint_trajectory_controller/joint_trajectory"  # below driver_ns
CAMERA_TOPICS = {  # where the drivers publish, with their names as shipped, below driver_ns
    "realsense2_camera": "camera/camera/color/image_raw",
    "usb_cam": "image_raw",
}
TRANSPORT_ENDINGS = ("/compressed", "/compressedDepth")  # topics of CompressedImage
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class CameraSource:
    """Where images come from: a topic, a driver's preset, or a device that OpenCV opens.

    `compressed`: the topic carries CompressedImage, as topics that end in /compressed or
    /compressedDepth always do. `depth`: distances, 16UC1 [mm] or 32FC1 [m], recorded as a sensor in
    mm. `stamps`: `header` if the time stamps of the messages can be used; `arrival` if the camera's
    clock is unsynchronised. A preset is replaced by its topic. `info_topic`: of the driver's
    CameraInfo; empty: camera_info beside `topic`.
    """

    topic: MaybeTopic = ""
    preset: Word = ""
    device: Device = ""
    height: Pixels = 64
    width: Pixels = 64
    crop: Crop = (0.0, 0.0, 0.0, 0.0)  # left, top, right, bottom, shares of the image
    compressed: Flag = False
    depth: Flag = False
    stamps: Annotated[Word, AfterValidator(OneOf(STAMPS))] = "header"
    info_topic: MaybeTopic = ""

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> CameraSource:
        sources = [name for name in ("topic", "preset", "device") if getattr(self, name)]
        if len(sources) != 1:
            got = " and ".join(sources) or "no source"
            raise wrong("one of topic, preset, device", "Keep or add one.", got=got)
        if self.preset and self.preset not in CAMERA_TOPICS:
            OneOf(tuple(CAMERA_TOPICS))(self.preset)
        if self.depth and not self.topic:
            raise wrong("topic", "Give the depth topic.", got=f"{sources[0]} of a depth camera")
        if self.info_topic and self.info_topic == self.topic:
            expected = "the topic of its CameraInfo messages"
            raise wrong(expected, "Correct it, or leave it out.", got="the topic of the images",
                        key="info_topic")  # fmt: skip
        if self.preset:
            object.__setattr__(self, "topic", below_driver(CAMERA_TOPICS[self.preset], info))
            object.__setattr__(self, "preset", "")
        if self.topic.endswith(TRANSPORT_ENDINGS):
            object.__setattr__(self, "compressed", True)
        return self


@dataclass(frozen=True, config=STRICT)
class Output:
    """Commands: the kind of controller and its topic; `frame` of twists.

    The defaults are those of a joint_trajectory_controller under its usual name; other interfaces
    need `topic`. `timeout_s` (velocity, twist): the driver stops by itself so long after the last
    command [s]; 0: it does not.
    """

    interface: Annotated[Word, AfterValidator(OneOf(INTERFACES))] = "trajectory"
    topic: MaybeTopic = ""
    frame: Text = "base"
    timeout_s: Seconds = 0.0

    @model_validator(mode="after")
    def _usual_topic(self, info: ValidationInfo) -> Output:
        if not self.topic and self.interface != "trajectory":
            expected = f"the command topic of a controller that takes {self.interface}"
            raise wrong(expected, "Add `topic:`.", got="no topic", key="topic")
        if not self.topic:
            object.__setattr__(self, "topic", below_driver(TRAJECTORIES, info))
        return self


@dataclass(frozen=True, config=STRICT)
class ActionKind:
    """What an action means: joint velocities, or velocity of the end effector.

    The end effector's orientation is kept. `speed`: bound of each of its axes [m/s], or share of
    each joint's velocity limit. A commanded gripper is one more dimension; `gripper_rests`: except
    in these tasks.
    """

    kind: Annotated[Word, AfterValidator(OneOf(ACTIONS))]
    speed: Speed
    gripper_rests: tuple[Text, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Watch:
    """Time-outs of the watchdog [s] and how far the arm may lag behind [rad]; 0: not watched.

    `max_image_age_s`: age of images by their stamps; beyond it the arm slows, beyond twice it the
    arm stops.
    """

    camera_slow_s: Seconds = 0.15
    camera_stop_s: Seconds = 0.5
    camera_frozen_s: Seconds = 0.0  # the same image, to the pixel; only for cameras with noise
    driver_s: Seconds = 0.1
    tracking_rad: Lag = 0.2
    max_image_age_s: Seconds = 0.3


@dataclass(frozen=True, config=STRICT)
class Episodes:
    """Service that sets the scene and topic of the score, of a simulator; empty: the operator."""

    reset_service: MaybeTopic = ""
    score_topic: MaybeTopic = ""
    task_parameter_node: MaybeTopic = ""


@dataclass(frozen=True, config=STRICT)
class BoxSection:
    """A box in the arm's base frame by two corners (3,) [m]."""

    low: Corner
    high: Corner

    @model_validator(mode="after")
    def _low_below_high(self) -> BoxSection:
        for axis, low, high in zip("xyz", self.low, self.high):
            if not low < high:
                got = f"{axis} from {low:g} to {high:g} m"
                raise wrong(
                    "each low below its high", "Correct or swap the two.", got=got, key="low"
                )
        return self


@dataclass(frozen=True, config=STRICT)
class WorkspaceSection(BoxSection):
    """The box that the end effector stays in, and its speed [m/s]."""

    hand_speed: HandSpeed = HAND_SPEED_M_S


@dataclass(frozen=True, config=STRICT)
class CollisionSection:
    """`check`: whether collisions are checked; `obstacles`: boxes by name."""

    check: Flag = True
    obstacles: dict[Name, BoxSection] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class JointLimits:
    """Limits of one joint [rad, rad/s, rad/s², rad/s³; m where it slides]."""

    low: Position
    high: Position
    velocity: Velocity
    acceleration: Acceleration
    jerk: Jerk

    @model_validator(mode="after")
    def _low_below_high(self) -> JointLimits:
        if not self.low < self.high:
            got = f"{self.low:g} to {self.high:g}"
            raise wrong("low below high", "Correct or swap the two.", got=got, key="low")
        return self


@dataclass(frozen=True, config=STRICT)
class JointSection(JointLimits):
    """`continuous`: no end stops; joint states may be wrapped to ±pi, low and high are not."""

    continuous: Flag = False


@dataclass(frozen=True, config=STRICT)
class GripperSection(JointLimits):
    """The joint that opens (towards `high`) and closes, its limits, and how it is commanded.

    `topic`: commands, or the name of the action; empty: the gripper is measured only. `action`:
    what an agent's action means, a speed or an opening. `timeout_s`: the arm stops when the joint
    is silent for so long [s]. `action_type`, `deadband` (share of the joint's range), `goal_hz`,
    `max_effort` [N, Nm; 0: as the gripper's driver has it]: of interface gripper_command only.
    """

    joint: Text
    topic: MaybeTopic = ""
    interface: Annotated[Word, AfterValidator(OneOf(GRIPPER_INTERFACES))] = "position"
    action: Annotated[Word, AfterValidator(OneOf(GRIPPER_ACTIONS))] = "velocity"
    timeout_s: Seconds = 0.5
    action_type: Annotated[Word, AfterValidator(OneOf(GOAL_TYPES))] = "GripperCommand"
    deadband: Share = 0.02
    goal_hz: Rate = 5.0
    max_effort: Effort = 0.0

    @model_validator(mode="after")
    def _commanded(self) -> GripperSection:
        if self.interface != "position" and not self.topic:
            got = f"interface {self.interface} and no topic"
            raise wrong("the topic or action name of the gripper's controller", "Add `topic:`.",
                        got=got)  # fmt: skip
        if self.interface != "gripper_command":
            for name in ("action_type", "deadband", "goal_hz", "max_effort"):
                if getattr(self, name) != getattr(GripperSection, name):
                    raise wrong("interface: gripper_command with it", f"Remove `{name}:`.",
                                got=f"interface {self.interface}", key=name)  # fmt: skip
        return self


@dataclass(frozen=True, config=STRICT)
class ForceTorqueSection:
    """A force-torque sensor (geometry_msgs/WrenchStamped), recorded as proprioception.

    `frame`: the frame_id that its messages must have; empty: any. `timeout_s`: the arm stops when
    the newest reading is older [s]. `max_force_n`, `max_torque_nm`: beyond it the arm stops and
    latches; 0: not watched. `stamps`: `arrival` if its clock is unsynchronised.
    """

    topic: Topic
    frame: Word = ""
    timeout_s: Annotated[Seconds, AfterValidator(Between(0, MAX_SECONDS, "s", above=True))] = 0.5
    max_force_n: Force = 0.0
    max_torque_nm: Torque = 0.0
    stamps: Annotated[Word, AfterValidator(OneOf(STAMPS))] = "header"


@dataclass(frozen=True, config=STRICT)
class ArmSections:
    """A robot's YAML as a whole.

    `driver_ns`: namespace of the driver, which relative topic and service names are below; a
    relative one is below the namespace that a launch file pushed, if any. Empty: the root.
    """

    robot: Text
    model: Text
    hand: Text
    rate_hz: Rate
    joint_states: Topic
    joints: dict[Text, JointSection]
    workspace: WorkspaceSection
    action: ActionKind
    home: Home
    command: Output = Field(default_factory=dict, validate_default=True)
    gripper: GripperSection | None = None
    cameras: dict[Name, CameraSource] = dataclasses.field(default_factory=dict)
    watch: Watch = dataclasses.field(default_factory=Watch)
    episodes: Episodes = dataclasses.field(default_factory=Episodes)
    collision: CollisionSection = dataclasses.field(default_factory=CollisionSection)
    driver_node: MaybeTopic = ""
    driver_ns: MaybeNamespace = ""
    force_torque: ForceTorqueSection | None = None
    driver: DriverSection = dataclasses.field(default_factory=DriverSection)


def keys_at(place: Place) -> dict[str, bool]:
    """Return the keys of the section at a place, each with whether it is required."""
    kind: Any = ArmSections
    for part in place:
        if isinstance(part, int):  # `kind` is that of a list's entries already
            continue
        if dataclasses.is_dataclass(kind):
            kind = _section(get_type_hints(kind).get(str(part)))
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
    return dict(_keys(kind)) if dataclasses.is_dataclass(kind) else {}


def _keys(kind: Any) -> Iterator[tuple[str, bool]]:
    for spec in dataclasses.fields(kind):
        free = (spec.default, spec.default_factory)
        yield spec.name, all(value is dataclasses.MISSING for value in free)


def _section(kind: Any) -> Any:
    """Return X of `X | None`."""
    parts = [part for part in get_args(kind) if dataclasses.is_dataclass(part)]
    return parts[0] if parts and get_origin(kind) is not dict else kind
