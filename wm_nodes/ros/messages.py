"""Message <-> record, both ways and nothing else. What must not be used raises MessageError.

Arrays go into messages as `array.array`, which rclpy copies in one piece;
lists cost 100 times more.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import CompressedImage, JointState
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wm_datasets import ros_images
from wm_datasets.errors import LogSpecError
from wm_datasets.spec import LogSpec, Source
from wm_models.weights.bounded_json import load_object
from wm_nodes.errors import MessageError
from wm_nodes.records import (
    Announcement,
    Depth,
    Features,
    Image,
    Latent,
    Origin,
    Plan,
    Step,
    Vector,
)
from wm_nodes.ros.json_records import MOST_NEWS, MOST_SPEC, check_spec, checked_announcement

SECOND_NS = 1_000_000_000
SCALARS = "reward is_first is_last is_terminal success explore weights source".split()
MAX_ACTIONS, MAX_POINTS = 256, 1024
POINT_FIELDS = ("positions", "velocities", "accelerations", "effort")
PLAN_BYTES = 1024  # of a serialized plan's header and frame
UNEVEN = 0.01  # share of a plan's spacing by which its points may be off


def to_time(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)


def from_time(stamp: Time) -> int:
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def header(stamp_ns: int, frame_id: str = "") -> Header:
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def optical_frame(camera: str) -> str:
    """Return the frame of a camera's images where the driver names none: z forward, y down."""
    return f"{camera}_optical_frame"


# Images --------------------------------------------------------------------------------------


def image_to_msg(image: Image, stamp_ns: int, frame_id: str = "") -> ImageMsg:
    """Return an rgb8 message of image (H, W, 3) uint8."""
    height, width, channels = image.shape
    return ImageMsg(
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        step=width * channels,
        data=array("B", image.tobytes()),
    )


def image_from_msg(msg: ImageMsg | CompressedImage) -> tuple[int, Image]:
    """Return (stamp [ns], image (H, W, 3) RGB uint8); it may share the message's memory."""
    with _image_errors("image"):
        if isinstance(msg, CompressedImage):
            pixels = ros_images.compressed_rgb(msg.data, msg.format)
        else:
            pixels = ros_images.rgb(msg.data, msg.encoding, msg.height, msg.width, msg.step)
    return from_time(msg.header.stamp), pixels


@contextmanager
def _image_errors(topic: str) -> Iterator[None]:
    try:
        yield
    except ros_images.ImageError as error:
        raise MessageError(error.reason, f"{topic}: {error}") from None


def depth_to_msg(depth: Depth, stamp_ns: int, frame_id: str = "") -> ImageMsg:
    """Return a 16UC1 message of a depth image (H, W) uint16 [mm]."""
    height, width = depth.shape
    return ImageMsg(
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="16UC1",
        step=2 * width,
        data=array("B", depth.astype("<u2").tobytes()),
    )


def depth_from_msg(msg: ImageMsg | CompressedImage) -> tuple[int, Depth]:
    """Return (stamp [ns], depth (H, W) uint16 [mm]) of 16UC1 [mm] or 32FC1 [m], raw or compressed.

    0 where nothing was measured: NaN, infinite, negative, or too far for the type (65.5 m).
    """
    with _image_errors("depth"):
        if isinstance(msg, CompressedImage):
            values = ros_images.compressed_distances(msg.data, msg.format)
        else:
            values = ros_images.distances(
                msg.data, msg.encoding, msg.height, msg.width, msg.step, bool(msg.is_bigendian)
            )
    return from_time(msg.header.stamp), ros_images.to_mm(values)


# Vectors ---------------------------------------------------------------------------------------


def joints_to_msg(names: tuple[str, ...], values: Vector, stamp_ns: int) -> JointState:
    """Return proprioception (P,) as a JointState."""
    return JointState(header=header(stamp_ns), name=list(names), position=_doubles(values))


def joints_from_msg(msg: JointState) -> tuple[int, tuple[str, ...], Vector]:
    """Return (stamp [ns], names, values (P,) float32)."""
    names, values = _named(msg, "joint_states")
    return from_time(msg.header.stamp), names, values.astype(np.float32)


def step_to_msg(step: Step) -> JointState:
    """Return a step as a stamped, named vector."""
    scalars = np.array([float(getattr(step, name)) for name in SCALARS])
    names = [f"action/{name}" for name in step.names]
    names += [f"commanded/{name}" for name in step.names]
    names += [f"signal/{name}" for name in step.signal_names]
    signals = np.zeros(len(step.signal_names)) if step.signals is None else step.signals
    values = np.concatenate([step.executed, step.commanded, signals, scalars])
    return JointState(
        header=header(step.stamp_ns), name=[*names, *SCALARS], position=_doubles(values)
    )


def step_from_msg(msg: JointState) -> Step:
    """Return the step of a message."""
    names, values = _named(msg, "step")
    at = {name: index for index, name in enumerate(names)}
    dims = tuple(name[7:] for name in names if name.startswith("action/"))
    about = tuple(name[7:] for name in names if name.startswith("signal/"))
    expected = [f"{part}/{d}" for part in ("action", "commanded") for d in dims]
    expected += [*(f"signal/{name}" for name in about), *SCALARS]
    odd = set(expected) ^ set(names)
    if not dims or odd:
        raise MessageError(
            "names",
            f"step: got wrong or missing names {sorted(odd) or 'action/<dim>'}, "
            f"expected action/<dim> and commanded/<dim> for each dim, and {', '.join(SCALARS)}",
        )
    ordered = values[[at[name] for name in expected]]
    count = len(dims)
    ends = (count, 2 * count, 2 * count + len(about))
    executed, commanded, signals, scalars = np.split(ordered, ends)
    reward, first, last, terminal, success, explore, weights, source = scalars.tolist()
    if int(source) not in Source._value2member_map_:
        raise MessageError(
            "source", f"step: got source {source}, expected 0 to {max(Source).value}"
        )
    return Step(
        stamp_ns=from_time(msg.header.stamp),
        names=dims,
        executed=executed.astype(np.float32),
        commanded=commanded.astype(np.float32),
        reward=reward,
        is_first=bool(first),
        is_last=bool(last),
        is_terminal=bool(terminal),
        success=bool(success),
        explore=bool(explore),
        weights=int(weights),
        source=int(source),
        signal_names=about,
        signals=signals.astype(np.float32) if about else None,
    )


def _doubles(values: npt.NDArray[Any]) -> array[float]:
    return array("d", np.ascontiguousarray(values, np.float64).tobytes())


def _named(msg: JointState, topic: str) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    names, values = tuple(msg.name), np.frombuffer(msg.position, np.float64)
    if len(names) != len(values) or not names or len(set(names)) != len(names):
        raise MessageError(
            "size",
            f"{topic}: got {len(names)} names for {len(values)} positions, expected one each",
        )
    if not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float32).max:
        raise MessageError("non-finite", f"{topic}: got {values.tolist()}, expected finite numbers")
    return names, values


# Plans -----------------------------------------------------------------------------------------


def plan_to_msg(plan: Plan) -> JointTrajectory:
    """Return a plan; point i is due i periods after the observation."""
    points = []
    for index, action in enumerate(plan.actions):
        due = round(index * plan.period_s * SECOND_NS)
        start = Duration(sec=due // SECOND_NS, nanosec=due % SECOND_NS)
        points.append(JointTrajectoryPoint(positions=_doubles(action), time_from_start=start))
    return JointTrajectory(
        header=header(plan.stamp_ns, str(plan.origin)), joint_names=list(plan.names), points=points
    )


def largest_plan(names: tuple[str, ...]) -> int:
    """Return the size [bytes] that no serialized plan with these dimensions exceeds."""
    point = 4 * len(POINT_FIELDS) + 8 * len(names) + 16  # lengths, positions, alignment and time
    return PLAN_BYTES + sum(len(name.encode()) + 8 for name in names) + MAX_POINTS * point


def plan_from_msg(msg: JointTrajectory) -> Plan:
    """Return the plan of a message; what its dimensions are called is for the robot to check."""
    names = tuple(msg.joint_names)
    origin = _origin(msg.header.frame_id)
    if not names or len(names) > MAX_ACTIONS or not 1 <= len(msg.points) <= MAX_POINTS:
        raise MessageError(
            "size",
            f"plan: got {len(names)} dimensions, {len(msg.points)} points, expected 1 to "
            f"{MAX_ACTIONS} and 1 to {MAX_POINTS}",
        )
    lengths = {len(point.positions) for point in msg.points}
    if lengths != {len(names)}:
        raise MessageError(
            "size",
            f"plan: got points of {sorted(lengths)} positions, expected {len(names)} in each",
        )
    actions = np.array([point.positions for point in msg.points], np.float64)
    if not np.isfinite(actions).all():
        raise MessageError(
            "non-finite", f"plan: got {actions[0].tolist()} ..., expected finite numbers"
        )
    period_s = _spacing([p.time_from_start for p in msg.points])
    with np.errstate(over="ignore"):
        return Plan(
            from_time(msg.header.stamp), origin, names, actions.astype(np.float32), period_s
        )


def _spacing(starts: list[Duration]) -> float:
    """Return the time between two points of a plan [s]; 0: not given."""
    due = np.array([start.sec + start.nanosec / SECOND_NS for start in starts])
    gaps = np.diff(due)
    even = not len(gaps) or (gaps[0] >= 0 and np.abs(gaps - gaps[0]).max() <= UNEVEN * gaps[0])
    if due[0] != 0 or not even:
        raise MessageError(
            "times",
            f"plan: got points at {due[:3].tolist()} ... s, expected the first at 0 and all others "
            "evenly spaced",
        )
    return float(gaps.mean()) if len(gaps) else 0.0


def _origin(frame_id: str) -> Origin:
    try:
        return Origin.parse(frame_id)
    except ValueError as error:
        raise MessageError("frame_id", str(error)) from None


# Latent vectors --------------------------------------------------------------------------------


def features_to_msg(features: Features) -> ImageMsg:
    """Return tokens (N, D) as an image of D channels; a square grid where N is a square."""
    count, depth = features.tokens.shape
    side = math.isqrt(count)
    height, width = (side, side) if side * side == count else (1, count)
    return _floats(
        features.tokens, f"32FC{depth}", height, width, features.stamp_ns, features.origin
    )


def features_from_msg(msg: ImageMsg) -> Features:
    """Return the tokens of a message, in row order of its grid."""
    depth = msg.encoding[4:]
    if not msg.encoding.startswith("32FC") or not depth.isdigit() or not int(depth):
        raise MessageError("encoding", f"features: got encoding {msg.encoding!r}, expected 32FC<D>")
    values = _floats_from(msg, int(depth), "features")
    return Features(from_time(msg.header.stamp), _origin(msg.header.frame_id), values)


def latent_to_msg(latent: Latent) -> ImageMsg:
    """Return a packed state (S,) as an image of one row."""
    return _floats(latent.state, "32FC1", 1, latent.state.size, latent.stamp_ns, latent.origin)


def latent_from_msg(msg: ImageMsg) -> Latent:
    """Return the packed state of a message."""
    if msg.encoding != "32FC1" or msg.height != 1:
        raise MessageError(
            "encoding",
            f"latent: got {msg.encoding!r} of {msg.height} rows, expected 32FC1 of 1 row",
        )
    values = _floats_from(msg, 1, "latent").reshape(-1)
    return Latent(from_time(msg.header.stamp), _origin(msg.header.frame_id), values)


def _floats(
    values: npt.NDArray[np.float32],
    encoding: str,
    height: int,
    width: int,
    stamp_ns: int,
    origin: Origin,
) -> ImageMsg:
    data = np.ascontiguousarray(values, np.dtype("<f4")).tobytes()
    return ImageMsg(
        header=header(stamp_ns, str(origin)),
        height=height,
        width=width,
        encoding=encoding,
        step=len(data) // height,
        data=array("B", data),
    )


def _floats_from(msg: ImageMsg, depth: int, topic: str) -> npt.NDArray[np.float32]:
    """Return (height * width, depth)."""
    row = msg.width * depth * 4
    if not msg.height or not row or msg.step != row or len(msg.data) != row * msg.height:
        raise MessageError(
            "size",
            f"{topic}: got step {msg.step} and {len(msg.data)} bytes, expected step {row} and "
            f"{row * msg.height} bytes of {msg.height}x{msg.width} {msg.encoding}",
        )
    values = np.frombuffer(msg.data, ">f4" if msg.is_bigendian else "<f4")
    if not np.isfinite(values).all():
        raise MessageError("non-finite", f"{topic}: got non-finite values, expected finite ones")
    return values.astype(np.float32, copy=False).reshape(-1, depth)


# JSON ------------------------------------------------------------------------------------------


def announcement_to_msg(news: Announcement) -> String:
    """Return the notice of new weights as JSON."""
    metrics = {k: v for k, v in news.metrics.items() if not _odd(v)}
    return String(data=json.dumps({**vars(news), "metrics": metrics}))


def _odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def announcement_from_msg(msg: String) -> Announcement:
    """Return the notice of new weights."""
    try:
        return checked_announcement(load_object(msg.data, most_bytes=MOST_NEWS))
    except (ValueError, TypeError) as error:
        raise MessageError(
            "json",
            f"weights: {error!s:.300}. Expected: JSON with version, path, sha256, preset, step, "
            "metrics",
        ) from None


def spec_to_msg(spec: LogSpec) -> String:
    """Return what a robot is as JSON."""
    return String(data=json.dumps(spec.to_json()))


def spec_from_msg(msg: String) -> LogSpec:
    """Return what a robot is."""
    try:
        spec = load_object(msg.data, most_bytes=MOST_SPEC)
        check_spec(spec)
        return LogSpec.from_json(spec)
    except (ValueError, TypeError, KeyError, ArithmeticError, LogSpecError) as error:
        raise MessageError(
            "json", f"spec: {error!s:.300}. Expected: what the robot node publishes"
        ) from None
