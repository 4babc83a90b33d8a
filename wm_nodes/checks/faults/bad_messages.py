"""Malformed and hostile messages: for every subscription and service of the robot node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import WrenchStamped
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

NUMBERS = (0.0, 1.0, -1.0, 0.1, 1e-300, 1e30, -1e300, np.nan, np.inf, -np.inf)
NAMES = ("x", "y", "z", "gripper", "joint_1", "joint_2", "joint_7", "", "x" * 300, "\u00e4", "push")
FRAMES = ("random/uniform@-1", "mwm/actor@7", "", "a/b@c", "@", "x/y@99999999999999999999", "/@1")
ENCODINGS = ("rgb8", "bgr8", "mono8", "32FC3", "", "rgb8\0", "yuv422")


def _stamp(random: np.random.Generator, now_ns: int) -> Any:
    from wm_nodes.ros.messages import to_time

    offset = int(random.choice([0, -(10**8), 10**8, -(10**12), 10**12, -now_ns]))
    return to_time(max(0, min(now_ns + offset, (2**31 - 1) * 10**9)))


def _numbers(random: np.random.Generator, count: int) -> list[float]:
    if random.random() < 0.5:
        return [float(value) for value in random.uniform(-1, 1, count)]
    return [float(value) for value in random.choice(NUMBERS, count)]


def bad_plan(random: np.random.Generator, now_ns: int = 10**18) -> JointTrajectory:
    """Return a plan; a few are valid."""
    good = random.random() < 0.5
    names = ["x", "y", "z"] if good else list(random.choice(NAMES, int(random.integers(0, 6))))
    msg = JointTrajectory(joint_names=[str(name) for name in names])
    msg.header.stamp = _stamp(random, now_ns)
    msg.header.frame_id = str(random.choice(FRAMES))
    for _ in range(int(random.choice([0, 1, 1, 2, 5, 50]))):
        count = len(names) if random.random() < 0.9 else int(random.integers(0, 9))
        point = JointTrajectoryPoint(positions=_numbers(random, count))
        point.time_from_start.sec = int(random.integers(-(2**31), 2**31))
        point.time_from_start.nanosec = int(random.integers(0, 2**32))
        msg.points.append(point)
    return msg


def bad_joints(random: np.random.Generator, now_ns: int) -> JointState:
    """Return joint states of another or a faulty driver."""
    names = [f"joint_{index}" for index in range(1, 7)] + ["finger_joint"]
    if random.random() < 0.5:
        names = [str(name) for name in random.choice(NAMES, int(random.integers(0, 9)))]
    count = len(names) if random.random() < 0.7 else int(random.integers(0, 12))
    msg = JointState(name=names, position=_numbers(random, count))
    if random.random() < 0.7:
        msg.velocity = _numbers(random, int(random.choice([count, 0, 1, 9])))
    msg.header.stamp = _stamp(random, now_ns)
    return msg


def bad_image(random: np.random.Generator, now_ns: int) -> Image:
    """Return an image whose size, encoding and bytes need not agree."""
    high, wide = (int(v) for v in random.choice([0, 1, 2, 7, 96], 2))
    step = wide * 3 if random.random() < 0.6 else int(random.integers(0, 400))
    size = high * step if random.random() < 0.7 else int(random.integers(0, 5000))
    msg = Image(height=high, width=wide, step=step, encoding=str(random.choice(ENCODINGS)))
    msg.data = random.integers(0, 256, size, dtype=np.uint8).tobytes()
    msg.header.stamp = _stamp(random, now_ns)
    return msg


def bad_score(random: np.random.Generator, now_ns: int) -> JointState:
    """Return an invalid score."""
    names = [str(n) for n in random.choice(["reward", "success", "hand_x", ""], 3)]
    return JointState(name=names, position=_numbers(random, int(random.integers(0, 5))))


def bad_recorded(random: np.random.Generator, now_ns: int) -> Header:
    return Header(stamp=_stamp(random, now_ns))


def bad_wrench(random: np.random.Generator, now_ns: int) -> WrenchStamped:
    """Return an impossible measurement; half of the frames are right."""
    msg = WrenchStamped()
    for part, values in ((msg.wrench.force, _numbers(random, 3)), (msg.wrench.torque, [0.0] * 3)):
        part.x, part.y, part.z = values
    msg.header.frame_id = str(random.choice(["wrist", "wrist", "", "base"]))
    msg.header.stamp = _stamp(random, now_ns)
    return msg


def bad_speed(random: np.random.Generator, now_ns: int) -> Float64:
    """Return a speed scale, in percent or not."""
    return Float64(data=float(random.choice([*NUMBERS, 30.0, 100.0, 100.0, 101.0])))


def bad_camera_info(random: np.random.Generator, now_ns: int) -> CameraInfo:
    """Return a calibration whose size, model and matrices need not agree."""
    high, wide = (int(v) for v in random.choice([0, 1, 96, 2**32 - 1], 2))
    msg = CameraInfo(height=high, width=wide)
    msg.distortion_model = str(random.choice(["plumb_bob", "", "equidistant", "x" * 300]))
    msg.d = _numbers(random, int(random.choice([0, 5, 8, 1000])))
    msg.k, msg.p = _numbers(random, 9), _numbers(random, 12)
    msg.binning_x = int(random.choice([0, 1, 2, 2**32 - 1]))
    msg.roi.x_offset = int(random.choice([0, 10, 2**32 - 1]))
    msg.header.stamp = _stamp(random, now_ns)
    return msg


KINDS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "plan": bad_plan,
    "joint_states": bad_joints,
    "image": bad_image,
    "score": bad_score,
    "recorded": bad_recorded,
    "wrench": bad_wrench,
    "speed": bad_speed,
    "camera_info": bad_camera_info,
}
