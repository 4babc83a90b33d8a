"""Robots in YAML: the shipped ones are complete, agree with their models and cap no velocity."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm.arms import NAMES, config, kinematics
from wm_nodes.robots.arm.config.arm_config import (
    CAMERA_TOPICS,
    Box,
    Collision,
    find_config,
    read_config,
)
from wm_nodes.robots.arm.safety.stopping import StoppingMotions
from wm_nodes.robots.robot import SpecError

PI = np.pi
# Denavit-Hartenberg parameters as the makers print them: (a, d, alpha) of each joint.
UR5E = [(0, 0.1625, PI / 2), (-0.425, 0, 0), (-0.3922, 0, 0), (0, 0.1333, PI / 2),
        (0, 0.0997, -PI / 2), (0, 0.0996, 0)]  # fmt: skip
FR3 = [(0, 0.333, 0), (0, 0, -PI / 2), (0, 0.316, PI / 2), (0.0825, 0, PI / 2),
       (-0.0825, 0.384, -PI / 2), (0, 0, PI / 2), (0.088, 0, PI / 2)]  # fmt: skip


def screw(axis: int, angle: float, shift: float) -> np.ndarray:
    """Return the transform that turns about and shifts along one axis."""
    c, s = np.cos(angle), np.sin(angle)
    first, second = [index for index in range(3) if index != axis]
    transform = np.eye(4)
    sign = -1 if axis == 1 else 1
    transform[first, first] = transform[second, second] = c
    transform[first, second], transform[second, first] = -sign * s, sign * s
    transform[axis, 3] = shift
    return transform


@pytest.mark.parametrize("name", NAMES)
def test_the_home_of_a_shipped_robot_is_inside_its_workspace(name):
    arm = config(name)
    position = kinematics(name).positions(arm.home[None])[0]
    assert (position > arm.limits.box_low + 0.01).all()
    assert (position < arm.limits.box_high - 0.01).all()
    assert arm.limits.hand_speed <= 0.25


@pytest.mark.parametrize("name", NAMES)
def test_limits_cite_their_sources(name):
    text = find_config(name).read_text()
    assert text.startswith("#")
    assert "not published" in text or name in ("arm_sim", "fr3")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=7, max_size=7))
def test_models_are_the_makers_chains(angles):
    pose = np.eye(4)
    for (a, d, alpha), angle in zip(UR5E, angles):
        pose = pose @ screw(2, angle, d) @ screw(0, alpha, a)
    position = kinematics("ur5e").positions(np.array([angles[:6]]))[0]
    np.testing.assert_allclose(position, pose[:3, 3], atol=1e-6)
    pose = np.eye(4)
    for (a, d, alpha), angle in zip(FR3, angles):
        pose = pose @ screw(0, alpha, a) @ screw(2, angle, d)
    pose = pose @ screw(2, 0, 0.107)
    position = kinematics("fr3").positions(np.array([angles]))[0]
    np.testing.assert_allclose(position, pose[:3, 3], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_many_poses_equal_single_ones_and_the_jacobian_is_the_slope(name):
    arm, random = kinematics(name), np.random.default_rng(0)
    poses = random.uniform(-1, 1, (70, len(arm.joints)))
    positions = arm.positions(poses)
    for pose, position in zip(poses[::10], positions[::10]):
        end_effector, linear, _ = arm.jacobian(pose)
        np.testing.assert_allclose(end_effector, position, atol=1e-12)
        steps = 1e-6 * np.eye(len(pose))
        slope = (arm.positions(pose + steps) - arm.positions(pose - steps)).T / 2e-6
        np.testing.assert_allclose(slope, linear, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_velocity_of_a_shipped_robot_is_capped(name):
    arm = config(name)
    np.testing.assert_allclose(
        StoppingMotions(arm.limits, 1 / arm.rate_hz).velocity,
        arm.limits.velocity,
        rtol=0,
        atol=1e-9,
    )


def test_continuous_joints_are_those_of_the_makers():
    gen3, jaco2 = config("gen3").limits, config("jaco2").limits
    assert np.flatnonzero(gen3.continuous).tolist() == [0, 2, 4, 6]
    assert np.flatnonzero(jaco2.continuous).tolist() == [0, 3, 4, 5]
    assert not any(config(name).limits.continuous.any() for name in ("arm_sim", "ur5e", "fr3"))


def test_the_home_of_gen3_is_the_makers_pose_with_another_elbow():
    arm, makers_pose = kinematics("gen3"), np.array([0.0, 0.26, 3.14, -2.27, 0.0, 0.96, 1.57])
    home = config("gen3").home
    positions = arm.positions(np.stack([home, makers_pose]))
    np.testing.assert_allclose(positions[0], positions[1], atol=1e-6)
    np.testing.assert_allclose(arm.orientation(home), arm.orientation(makers_pose), atol=2e-6)


def test_limits_have_one_flag_for_each_joint():
    limits = config("arm_sim").limits
    with pytest.raises(SpecError, match="expected 7 bools"):
        replace(limits, continuous=np.ones(3, bool))


def test_optional_fields_have_defaults_and_are_read(tmp_path):
    path = tmp_path / "robot.yaml"
    content = yaml.safe_load(find_config("arm_sim").read_text())
    content["model"] = str(find_config("arm_sim").parent / content["model"])
    content["command"]["timeout_s"] = 0.5
    content["cameras"]["side"] = {"preset": "usb_cam", "stamps": "arrival"}
    content["watch"] |= {"max_image_age_s": 0}
    content["collision"] = {
        "check": False,
        "obstacles": {"wall": {"low": [1, 0, 0], "high": [2, 1, 1]}},
    }
    content["driver_node"] = "/arm_driver"
    path.write_text(yaml.safe_dump(content))
    arm, default = read_config(path), config("ur5e")
    assert (arm.command.timeout_s, default.command.timeout_s) == (0.5, 0.0)
    assert arm.cameras["side"].stamps == "arrival"
    assert arm.cameras["side"].topic == f"/arm_sim/{CAMERA_TOPICS['usb_cam']}"
    assert default.cameras["front"].stamps == "header"
    assert arm.watch.max_image_age_s == 0.0
    assert default.watch.max_image_age_s == 0.3
    assert arm.collision == Collision(False, (Box("wall", (1, 0, 0), (2, 1, 1)),))
    assert default.collision == Collision(True, ())
    assert (arm.driver_node, default.driver_node) == ("/arm_driver", "")
    assert [box.name for box in config("arm_sim").collision.obstacles] == ["table"]


def test_an_unknown_robot_names_the_closest():
    with pytest.raises(SpecError, match="Did you mean 'ur5e'"):
        find_config("ur5")


def test_reading_a_robot_leaves_the_choice_of_gl_to_its_simulator():
    """MuJoCo reads MUJOCO_GL when it is imported, and a checked file imports it."""
    code = (
        "from wm_nodes.robots.arm.config.arm_config import find_config, read_config\n"
        "from wm_nodes.robots.sims.rendering import choose_gl\n"
        "read_config(find_config('arm_sim'))\n"
        "print(choose_gl())\n"
    )
    hidden = ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "egl"


def test_commands_go_to_a_joint_trajectory_controller_by_default(tmp_path):
    for content in ({}, {"command": {}}, {"command": {"interface": "trajectory"}}):
        base = yaml.safe_load(find_config("ur5e").read_text())
        base["model"] = str(find_config("ur5e").parent / base["model"])
        base.pop("command")
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.safe_dump({**base, **content}, sort_keys=False))
        command = read_config(path, driver_ns="/left").command
        assert command.interface == "trajectory"
        assert command.topic == "/left/joint_trajectory_controller/joint_trajectory"
