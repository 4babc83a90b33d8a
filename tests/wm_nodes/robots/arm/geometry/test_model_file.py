"""URDF as a model: its kinematics, its collisions, its limits, and what is refused."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")

from tests.wm_nodes.robots.arm import arms
from wm_nodes.robots.arm.config.arm_config import read_config
from wm_nodes.robots.arm.geometry.collision import CollisionChecker
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.geometry.model_file import load, load_chain, read_urdf
from wm_nodes.robots.arm.sim.scene import ArmWorld
from wm_nodes.robots.robot import RobotError, SpecError

URDF = Path(__file__).parent.parent / "models" / "six_axis.urdf"
ARM = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
JOINTS = (*ARM, "finger")
HOME = np.array([0.3, -1.2, 1.4, 0.2, 0.9, -0.4, 0.02])
LIMITS = "velocity: 1, acceleration: 5, jerk: 50"
YAML = f"""
robot: six_axis
model: arm.urdf
hand: tool0
rate_hz: 50
joint_states: /joint_states
joints:
  shoulder_pan: {{low: -2.9, high: 2.9, {LIMITS}}}
  shoulder_lift: {{low: -2.5, high: 2.5, {LIMITS}}}
  elbow: {{low: -2.6, high: 2.6, {LIMITS}}}
  wrist_1: {{low: -3, high: 3, {LIMITS}}}
  wrist_2: {{low: -6, high: 6, continuous: true, {LIMITS}}}
  wrist_3: {{low: -3, high: 3, {LIMITS}}}
gripper: {{joint: finger, topic: /gripper, low: 0, high: 0.04, velocity: 0.1, acceleration: 1,
           jerk: 20}}
workspace: {{low: [-1.2, -1.2, -1], high: [1.2, 1.2, 1.5]}}
command: {{interface: position, topic: /commands}}
action: {{kind: hand_velocity, speed: 0.1}}
home: [0.3, -1.2, 1.4, 0.2, 0.9, -0.4, 0.02]
"""


def rotation(axis, angle: float) -> np.ndarray:
    """Return the rotation matrix by Rodrigues' formula."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def read_numbers(element, key: str, default: str) -> np.ndarray:
    return np.array((default if element is None else element.get(key, default)).split(), float)


def frames(text: str, q: dict[str, float]) -> dict[str, np.ndarray]:
    """Return each link's transform (4, 4) to the root, from the definition of URDF alone."""
    transforms = {"": np.eye(4)}
    robot = ET.fromstring(text)
    joints = robot.findall("joint")
    children = {joint.find("child").get("link") for joint in joints}
    (root,) = {link.get("name") for link in robot.findall("link")} - children
    transforms, remaining = {root: np.eye(4)}, joints
    while remaining:
        joint = next(j for j in remaining if j.find("parent").get("link") in transforms)
        remaining.remove(joint)
        offset, origin = np.eye(4), joint.find("origin")
        roll, pitch, yaw = read_numbers(origin, "rpy", "0 0 0")
        offset[:3, :3] = (
            rotation([0, 0, 1], yaw) @ rotation([0, 1, 0], pitch) @ rotation([1, 0, 0], roll)
        )
        offset[:3, 3] = read_numbers(origin, "xyz", "0 0 0")
        axis, value = (
            read_numbers(joint.find("axis"), "xyz", "1 0 0"),
            q.get(joint.get("name"), 0.0),
        )
        if (mimic := joint.find("mimic")) is not None:
            value = float(mimic.get("multiplier", 1)) * q.get(mimic.get("joint"), 0.0)
            value += float(mimic.get("offset", 0))
        motion = np.eye(4)
        if joint.get("type") in ("revolute", "continuous"):
            motion[:3, :3] = rotation(axis, value)
        elif joint.get("type") == "prismatic":
            motion[:3, 3] = axis / np.linalg.norm(axis) * value
        transforms[joint.find("child").get("link")] = (
            transforms[joint.find("parent").get("link")] @ offset @ motion
        )
    return transforms


def poses(count: int = 60) -> np.ndarray:
    random = np.random.default_rng(3)
    return np.c_[random.uniform(-3, 3, (count, len(ARM))), random.uniform(0, 0.04, count)]


def write_robot(tmp_path, *edits: tuple[str, str], yaml: str = YAML) -> Path:
    text = URDF.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "arm.urdf").write_text(text)
    (tmp_path / "arm.yaml").write_text(yaml)
    return tmp_path / "arm.yaml"


@pytest.mark.parametrize("end_effector", ["tool0", "flange", "wrist_3_link"])
def test_kinematics_equal_those_of_the_definition(end_effector) -> None:
    chain, q = Kinematics(URDF, JOINTS, end_effector), poses()
    text = URDF.read_text()
    expected_frames = [frames(text, dict(zip(JOINTS, pose))) for pose in q]
    np.testing.assert_allclose(
        chain.positions(q), [f[end_effector][:3, 3] for f in expected_frames], atol=1e-9
    )
    for pose, expected in zip(q, expected_frames):
        np.testing.assert_allclose(
            chain.orientation(pose), expected[end_effector][:3, :3], atol=1e-9
        )
    for index, name in enumerate(chain.link_names):
        links = [f[name][:3, 3] for f in expected_frames]
        np.testing.assert_allclose(chain.links(q)[:, index], links, atol=1e-9)


def test_the_jacobian_is_the_derivative() -> None:
    chain, step = Kinematics(URDF, JOINTS, "tool0"), 1e-6
    for pose in poses(10):
        _, linear, _ = chain.jacobian(pose)
        positions = [chain.positions((pose + d)[None])[0] for d in step * np.eye(len(JOINTS))]
        numeric = (np.array(positions) - chain.positions(pose[None])).T / step
        np.testing.assert_allclose(linear, numeric, atol=1e-5)


def test_a_site_of_mjcf_counts_before_a_body_of_that_name(tmp_path) -> None:
    text = arms.config().model.read_text().replace('site name="hand"', 'site name="link_6"')
    (tmp_path / "arm.xml").write_text(text)
    q = arms.config().home[None]
    site = Kinematics(tmp_path / "arm.xml", arms.config().limits.joints, "link_6").positions(q)
    np.testing.assert_allclose(site, arms.kinematics().positions(q))
    other = Kinematics(tmp_path / "arm.xml", arms.config().limits.joints, "link_5").positions(q)
    assert np.linalg.norm(other - site) > 0.1


def test_all_collision_geometry_counts_but_that_of_neighbours() -> None:
    checker = CollisionChecker(URDF, JOINTS)
    assert checker.contacts_at(HOME) == ()
    folded = np.array([0.0, 0.0, np.pi, 0.0, 0.0, 0.0, 0.0])
    assert any("upper_arm_link / wrist" in pair for pair in checker.contacts_at(folded))
    # Origins of links far from their parents' geometry: only pairs that are no neighbours.
    neighbours = {"base_link / shoulder_link", "shoulder_link / upper_arm_link"}
    assert not neighbours & {p for q in poses() for p in checker.contacts_at(q)}


def test_a_box_is_hit_by_any_moving_link_of_a_urdf() -> None:
    class Box:
        name, low, high = "wall", np.array([-2.0, -2.0, -2.0]), np.array([2.0, 2.0, -0.5])

    checker = CollisionChecker(URDF, JOINTS, obstacles=[Box()])
    finger, zero = Kinematics(URDF, JOINTS, "finger_left"), np.zeros(len(JOINTS))
    touching = [q for q in poses(200) if finger.positions(q[None])[0, 2] < -0.52]
    assert touching
    for q in touching:
        assert any("wall" in pair for pair in checker.contacts_at(q))
    assert not any("wall" in pair for pair in checker.contacts_at(zero))


def test_a_finger_that_mimics_follows() -> None:
    q = np.zeros(len(JOINTS))
    model = load(URDF).compile()
    assert model.neq == 1
    checker = CollisionChecker(URDF, JOINTS)
    assert checker.contacts_at(q) == CollisionChecker(URDF, ARM).contacts_at(q[:-1])


def test_a_urdf_is_read_and_compared_with_its_robot(tmp_path) -> None:
    config = read_config(write_robot(tmp_path))
    assert config.hand == "tool0"
    for edit, message in (
        (("shoulder_lift: {low: -2.5", "shoulder_lift: {low: -2.7"), "model's range -2.5 to 2.5"),
        (("hand: tool0", "hand: tool"), "Did you mean 'tool0'"),
        (("wrist_3: {", "wrist_4: {"), "wrist_4"),
        (("elbow: {low: -2.6, ", "elbow: {continuous: true, low: -2.6, "), "end stops"),
    ):
        with pytest.raises(SpecError, match=message) as error:
            read_config(write_robot(tmp_path, yaml=YAML.replace(*edit)))
        assert "\n" not in str(error.value)


BOX = '<box size="0.07 0.07 0.18"/>'
MESH = '<mesh filename="package://six_axis_description/meshes/forearm.{}" scale="0.07 0.07 0.18"/>'


def cube(path: Path) -> None:
    """Write a cube of side 1 around the origin."""
    corners = np.array(np.meshgrid(*[[-0.5, 0.5]] * 3)).T.reshape(-1, 3)
    faces = "1 2 4 3,5 7 8 6,1 5 6 2,3 4 8 7,1 3 7 5,2 6 8 4".split(",")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + [f"f {face}" for face in faces]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("folder", ["six_axis_description/meshes", "meshes"])
def test_meshes_of_collision_geometry_are_found_and_collide(tmp_path, folder) -> None:
    cube(tmp_path / folder / "forearm.obj")
    path = write_robot(tmp_path, (BOX, MESH.format("obj"))).with_suffix(".urdf")
    checker, boxes = CollisionChecker(path, JOINTS), CollisionChecker(URDF, JOINTS)
    for q in poses(30):
        assert checker.contacts_at(q) == boxes.contacts_at(q)


def test_meshes_in_a_package_of_the_sourced_ros_are_found(tmp_path, monkeypatch) -> None:
    cube(tmp_path / "install/share/six_axis_description/meshes/forearm.obj")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}/install")
    (tmp_path / "elsewhere").mkdir()
    path = write_robot(tmp_path / "elsewhere", (BOX, MESH.format("obj"))).with_suffix(".urdf")
    assert CollisionChecker(path, JOINTS).contacts_at(HOME) == ()


def test_a_missing_mesh_is_refused_where_collisions_are_checked_only(tmp_path) -> None:
    path = write_robot(tmp_path, (BOX, MESH.format("stl")))
    q = HOME[None]
    config = read_config(path)
    chain = Kinematics(config.model, JOINTS, "tool0")
    np.testing.assert_array_equal(
        chain.positions(q), Kinematics(URDF, JOINTS, "tool0").positions(q)
    )
    with pytest.raises(SpecError, match=r"forearm\.stl.*collision: \{check: false\}") as error:
        CollisionChecker(config.model, JOINTS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (('<link name="world"/>', ""), "a joint of 'world', expected a link of the file"),
        (("</robot>", "<link name='lone'/></robot>"), "2 root links .world, lone"),
        (("</robot>", ""), "no element found"),
        (("<robot", "<robot xmlns:xacro='http://www.ros.org/wiki/xacro'"), "a xacro file"),
        (("</robot>", "<link name='tool0'/></robot>"), "link 'tool0' twice"),
        (('<mimic joint="finger"/>', '<mimic joint="thumb"/>'), "mimic joint='thumb'"),
        (('xyz="0 0 0.18"', 'xyz="0 zero 0.18"'), "."),
    ],
)  # fmt: skip
def test_a_bad_urdf_is_refused_in_one_line(tmp_path, edit, message) -> None:
    path = write_robot(tmp_path, edit).with_suffix(".urdf")
    with pytest.raises(SpecError, match=message) as error:
        load_chain(path)
    assert "\n" not in str(error.value)
    with pytest.raises(SpecError, match="line 3"):
        read_config(tmp_path / "arm.yaml")


def test_the_text_of_a_urdf_is_unchanged() -> None:
    text, robot = read_urdf(URDF)
    assert text == URDF.read_text()
    assert robot.get("name") == "six_axis"


def test_a_world_without_a_scene_is_refused(tmp_path) -> None:
    with pytest.raises(RobotError, match="no joint 'cube'"):
        ArmWorld(read_config(write_robot(tmp_path)), render="none")
