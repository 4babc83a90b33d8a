"""Robots in YAML: the shipped ones are whole and right, a wrong one is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.robots.arms import NAMES, config, kinematics
from wm_nodes.robots.arm.config import find_config, read_config
from wm_nodes.robots.base import SpecError

ARM = yaml.safe_load(find_config("arm_sim").read_text())
PI = np.pi
# Denavit-Hartenberg parameters as the makers print them: (a, d, alpha) of each joint.
UR5E = [(0, 0.1625, PI / 2), (-0.425, 0, 0), (-0.3922, 0, 0), (0, 0.1333, PI / 2),
        (0, 0.0997, -PI / 2), (0, 0.0996, 0)]  # fmt: skip
FR3 = [(0, 0.333, 0), (0, 0, -PI / 2), (0, 0.316, PI / 2), (0.0825, 0, PI / 2),
       (-0.0825, 0.384, -PI / 2), (0, 0, PI / 2), (0.088, 0, PI / 2)]  # fmt: skip


def screw(axis: int, turn: float, shift: float) -> np.ndarray:
    """Return the transform that turns about and shifts along one axis."""
    c, s = np.cos(turn), np.sin(turn)
    one, two = [index for index in range(3) if index != axis]
    out = np.eye(4)
    sign = -1 if axis == 1 else 1
    out[one, one] = out[two, two] = c
    out[one, two], out[two, one] = -sign * s, sign * s
    out[axis, 3] = shift
    return out


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_robot_rests_at_home_inside_everything(name):
    arm = config(name)
    place = kinematics(name).positions(arm.home[None])[0]
    assert (place > arm.limits.box_low + 0.01).all()
    assert (place < arm.limits.box_high - 0.01).all()
    assert arm.limits.hand_speed <= 0.25


@pytest.mark.parametrize("name", NAMES)
def test_limits_cite_where_they_are_from(name):
    text = find_config(name).read_text()
    assert text.startswith("#")
    assert "not published" in text or name in ("arm_sim", "fr3")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=7, max_size=7))
def test_models_are_the_makers_chains(angles):
    pose = np.eye(4)
    for (a, d, alpha), angle in zip(UR5E, angles):
        pose = pose @ screw(2, angle, d) @ screw(0, alpha, a)
    ours = kinematics("ur5e").positions(np.array([angles[:6]]))[0]
    np.testing.assert_allclose(ours, pose[:3, 3], atol=1e-6)
    pose = np.eye(4)
    for (a, d, alpha), angle in zip(FR3, angles):
        pose = pose @ screw(0, alpha, a) @ screw(2, angle, d)
    pose = pose @ screw(2, 0, 0.107)
    ours = kinematics("fr3").positions(np.array([angles]))[0]
    np.testing.assert_allclose(ours, pose[:3, 3], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_many_poses_are_as_one_and_the_jacobian_is_the_slope(name):
    arm, random = kinematics(name), np.random.default_rng(0)
    poses = random.uniform(-1, 1, (70, len(arm.joints)))
    places = arm.positions(poses)
    for pose, place in zip(poses[::10], places[::10]):
        at, linear, _ = arm.jacobian(pose)
        np.testing.assert_allclose(at, place, atol=1e-12)
        steps = 1e-6 * np.eye(len(pose))
        slope = (arm.positions(pose + steps) - arm.positions(pose - steps)).T / 2e-6
        np.testing.assert_allclose(slope, linear, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "right"),
    [
        ({"joints": {}}, "A robot without limits does not start"),
        ({"joints": None}, "A robot without limits does not start"),
        ({"joints": {"joint_1": {"low": -1, "high": 1}}}, "A robot without limits does not start"),
        ({"workspace": {"low": [0, 0, 0]}}, "missing"),
        ({"workspace": {"low": [1, 0, 0], "high": [0, 1, 1]}}, "below"),
        ({"workspace": {**ARM["workspace"], "hand_speed": 9.0}}, "hand_speed"),
        ({"rate_hz": 1000}, "1 to 200"),
        ({"home": [0, 0]}, "home"),
        ({"command": {"interface": "torque", "topic": "x"}}, "position, velocity, trajectory"),
        ({"cameras": {"front": {"preset": "realsence2_camera"}}}, "realsense2_camera, usb_cam"),
        ({"cameras": {"front": {}}}, "one of topic, preset, device"),
        ({"watch": {"camera_stop": 1}}, "Did you mean 'camera_stop_s'"),
        ({"watch": {"camera_stop_s": -1}}, "0 or more"),
        ({"jionts": 1}, "Did you mean 'joints'"),
        ({"action": {"kind": "hand_velocity", "speed": 7}}, "above 0 to 1"),
    ],
)
def test_a_wrong_robot_is_refused(tmp_path, spoil, right):
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump({**ARM, **spoil}))
    with pytest.raises(SpecError, match=right) as error:
        read_config(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["joints", "workspace", "command", "model", "home"])
def test_nothing_needed_may_be_missing(tmp_path, key):
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in ARM.items() if k != key}))
    with pytest.raises(SpecError, match=key):
        read_config(path)


def test_an_unknown_robot_names_the_closest():
    with pytest.raises(SpecError, match="Did you mean 'ur5e'"):
        find_config("ur5")
