"""The URDF written from a model has the frames, joints, masses and shapes of the MJCF."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")

import mujoco

from tests.wm_nodes.robots.arm import arms
from tests.wm_nodes.robots.arm.geometry.test_model_file import ARM, JOINTS, URDF, cube, frames
from wm_nodes.robots.arm.geometry.kinematics import Kinematics
from wm_nodes.robots.arm.geometry.link_frames import LinkFrames
from wm_nodes.robots.arm.geometry.model_file import load
from wm_nodes.robots.arm.geometry.urdf import Description, describe
from wm_nodes.robots.arm.safety.limits import ArmLimits

# Joints beside their bodies' origins, two joints on one body, angles that are not zero at zero,
# a base that does not stand at the origin, frames, a mesh, and a site of a body's name.
ODD = """
<mujoco model="odd">
  <compiler angle="radian" autolimits="true"/>
  <asset><mesh name="wedge" file="wedge.obj" scale="0.1 0.2 0.3"/><mesh file="gone.stl"/>
    <texture name="t" type="2d" file="gone.png"/><material name="m" texture="t" rgba="1 0 0 1"/>
  </asset>
  <worldbody>
    <body name="foot" pos="0.1 0.2 0.3" quat="0.9 0.1 0.3 0.2">
      <geom name="collision_foot" type="sphere" size="0.05" material="m"/>
      <frame pos="0 0 0.1" euler="0.1 0.2 0.3">
        <body name="arm" pos="0 0.1 0.2" euler="0.3 -0.4 0.5">
          <joint name="a" axis="1 2 3" pos="0.01 0.02 0.03" range="-2 2"/>
          <joint name="b" axis="0 1 0" pos="0 0.2 0" range="-2 2" ref="0.4"/>
          <joint name="c" type="slide" axis="1 0 1" range="-1 1" ref="-0.2"/>
          <geom name="collision_arm" type="mesh" mesh="wedge" pos="0.1 0 0" euler="0.2 0.1 0"/>
          <geom type="mesh" mesh="gone"/>
          <geom type="ellipsoid" size="0.1 0.2 0.3"/>
          <body name="hand" pos="0 0 0.3">
            <joint name="d" axis="0 0 1"/>
            <geom name="collision_hand" type="capsule" size="0.02 0.1" euler="1 0 0"/>
            <site name="hand" pos="0 0.1 0" euler="1.5707963267948966 0 0"/>
            <camera name="eye" pos="0 0 0.1" euler="0.1 0.2 0.3"/>
          </body>
        </body>
      </frame>
    </body>
  </worldbody>
</mujoco>
"""
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])


def limits(*joints: str) -> ArmLimits:
    n = len(joints)
    arm_limits = replace(
        arms.config().limits, joints=joints,
        **{key: np.ones(n) for key in ("high", "velocity", "acceleration", "jerk")},
        low=-np.ones(n), target_change=np.ones(n), continuous=np.zeros(n, bool),
    )  # fmt: skip
    return arm_limits


@pytest.fixture
def odd(tmp_path) -> Path:
    faces = "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    lines = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
    (tmp_path / "wedge.obj").write_text(lines + faces)
    (tmp_path / "odd.xml").write_text(ODD)
    return tmp_path / "odd.xml"


def assert_frames(
    path: Path, end_effector: str, arm_limits: ArmLimits, tmp_path: Path, **bodies: str
) -> Description:
    """Assert that all frames are the MJCF's, by MuJoCo, by URDF's definition and by LinkFrames."""
    description = describe(path, end_effector, arm_limits, ("eye",))
    file = tmp_path / "description.urdf"
    file.write_text(description.text)
    spec = load(path, end_effector)
    for kind in ("geoms", "meshes", "materials", "textures"):
        for element in list(getattr(spec, kind)):
            element.delete()
    spec.compiler.boundmass = spec.compiler.boundinertia = 1e-3
    model = spec.compile()
    data = mujoco.MjData(model)
    kinematics = Kinematics(file, arm_limits.joints, description.end_effector)
    link_frames = LinkFrames(description, arm_limits.joints)
    indices = [int(model.joint(name).qposadr[0]) for name in arm_limits.joints]
    random = np.random.default_rng(5)
    for _ in range(30):
        q = random.uniform(np.maximum(arm_limits.low, -3), np.minimum(arm_limits.high, 3))
        data.qpos[indices] = q
        mujoco.mj_kinematics(model, data)
        tool_position, orientation = (
            data.site(end_effector).xpos,
            data.site(end_effector).xmat.reshape(3, 3),
        )
        np.testing.assert_allclose(kinematics.positions(q[None])[0], tool_position, atol=1e-6)
        np.testing.assert_allclose(kinematics.orientation(q), orientation, atol=1e-6)
        expected = frames(description.text, dict(zip(arm_limits.joints, q)))
        link_frames.place(q)
        positions, quats = link_frames.in_root()
        for name, position, quat in zip(link_frames.names, positions, quats):
            np.testing.assert_allclose(position, expected[name][:3, 3], atol=1e-9)
            np.testing.assert_allclose(matrix(quat), expected[name][:3, :3], atol=1e-9)
        positions, quats = link_frames.in_parents()
        for name, parent, position, quat in zip(
            link_frames.names, link_frames.parents, positions, quats
        ):
            relative = np.linalg.inv(expected[parent]) @ expected[name]
            np.testing.assert_allclose(position, relative[:3, 3], atol=1e-9)
            np.testing.assert_allclose(matrix(quat), relative[:3, :3], atol=1e-9)
        for body in range(1, model.nbody):
            name = bodies.get(model.body(body).name, model.body(body).name)
            if name in expected and name not in ("finger_right",):
                np.testing.assert_allclose(data.xpos[body], expected[name][:3, 3], atol=1e-6)
                orientation = data.xmat[body].reshape(3, 3)
                np.testing.assert_allclose(orientation, expected[name][:3, :3], atol=1e-6)
        position, quat = link_frames.end_effector()
        np.testing.assert_allclose(position, tool_position, atol=1e-6)
    return description


def matrix(quat) -> np.ndarray:
    """Return the matrix of a quaternion (x, y, z, w)."""
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, np.roll(quat, 1))
    return out.reshape(3, 3)


@pytest.mark.parametrize("name", arms.NAMES)
def test_frames_of_the_shipped_arms_are_the_models(name, tmp_path) -> None:
    config = arms.config(name)
    description = assert_frames(config.model, config.hand, config.limits, tmp_path)
    assert (description.root, description.end_effector) == ("base", "hand")


def test_frames_of_an_odd_model_are_the_models(odd, tmp_path) -> None:
    description = assert_frames(odd, "hand", limits("a", "b", "c", "d"), tmp_path)
    assert (description.root, description.end_effector) == ("world", "hand_")
    assert '"a_frame"' in description.text


def roots(text: str) -> list[str]:
    robot = ET.fromstring(text)
    children = {child.get("link") for child in robot.findall("joint/child")}
    return [n for link in robot.findall("link") if (n := link.get("name")) not in children]


@pytest.mark.parametrize("name", arms.NAMES)
def test_joints_links_and_limits_are_complete(name) -> None:
    config = arms.config(name)
    description = describe(config.model, config.hand, config.limits)
    robot = ET.fromstring(description.text)
    assert roots(description.text) == [description.root]
    names = [link.get("name") for link in robot.findall("link")]
    assert len(set(names)) == len(names)
    joints = {joint.get("name"): joint for joint in robot.findall("joint")}
    assert set(config.limits.joints) <= set(joints)
    for index, joint in enumerate(config.limits.joints):
        kind, limit = joints[joint].get("type"), joints[joint].find("limit")
        assert float(limit.get("velocity")) == config.limits.velocity[index]
        assert (kind == "continuous") == bool(config.limits.continuous[index])
        if kind != "continuous":
            assert float(limit.get("lower")) <= config.limits.low[index]
            assert float(limit.get("upper")) >= config.limits.high[index]
    for link in robot.findall("link"):  # collision geometry has visual geometry
        assert not link.findall("collision") or link.findall("visual")


def test_a_joint_that_follows_another_is_a_mimic_joint() -> None:
    description = describe(arms.config().model, "hand", arms.config().limits)
    mimic = ET.fromstring(description.text).find("joint[@name='finger_right_joint']/mimic")
    assert mimic.attrib == {"joint": "finger_joint", "multiplier": "1", "offset": "0"}
    link_frames = LinkFrames(description, arms.config().limits.joints)
    q = arms.config().home.copy()
    link_frames.place(q)
    before = dict(zip(link_frames.names, link_frames.in_root()[0]))
    q[-1] += 0.02
    link_frames.place(q)
    after = dict(zip(link_frames.names, link_frames.in_root()[0]))
    left_motion, right_motion = (after[n] - before[n] for n in ("finger_left", "finger_right"))
    np.testing.assert_allclose(left_motion, -right_motion, atol=1e-9)
    assert np.linalg.norm(left_motion) == pytest.approx(0.02)


def test_masses_and_collision_shapes_are_kept(odd, tmp_path) -> None:
    description = describe(odd, "hand", limits("a", "b", "c", "d"))
    (tmp_path / "description.urdf").write_text(description.text)
    original = mujoco.MjModel.from_xml_string(
        ODD.replace('<geom type="mesh" mesh="gone"/>', "")
        .replace('<mesh file="gone.stl"/>', "").replace('texture="t"', "")
        .replace('<texture name="t" type="2d" file="gone.png"/>', ""),
        {"wedge.obj": (tmp_path / "wedge.obj").read_bytes()},
    )  # fmt: skip
    spec = load(tmp_path / "description.urdf")
    spec.compiler.boundmass = spec.compiler.boundinertia = 1e-9  # links between two joints
    converted = spec.compile()
    original_data, converted_data = mujoco.MjData(original), mujoco.MjData(converted)
    original_data.qpos[:] = converted_data.qpos[:] = [0.3, -0.4, 0.2, 0.7]
    for model, data in ((original, original_data), (converted, converted_data)):
        mujoco.mj_forward(model, data)
    for body in ("arm", "hand"):
        assert converted.body(body).mass == pytest.approx(original.body(body).mass)
        np.testing.assert_allclose(
            converted_data.body(body).xipos, original_data.body(body).xipos, atol=1e-9
        )
    np.testing.assert_allclose(
        vertices(converted, converted_data), vertices(original, original_data), atol=1e-6
    )
    geoms = [
        g for g in range(converted.ngeom) if converted.body(converted.geom_bodyid[g]).name == "hand"
    ]
    radii = sorted(converted.geom_size[g, 0] for g in geoms)
    assert radii == pytest.approx([0.02] * 3)
    ends = [
        converted_data.geom_xpos[g]
        for g in geoms
        if converted.geom_type[g] == mujoco.mjtGeom.mjGEOM_SPHERE
    ]
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(0.2)


def vertices(model, data) -> np.ndarray:
    """Return the mesh's corners in the world, sorted."""
    geom = next(g for g in range(model.ngeom) if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH)
    inner = model.mesh_vert @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
    return inner[np.lexsort(np.round(inner, 5).T)]


def test_a_camera_looks_along_z_of_its_optical_frame() -> None:
    config = arms.config()
    description = describe(config.model, config.hand, config.limits, ("front", "wrist"))
    expected = frames(description.text, {})
    model = mujoco.MjModel.from_xml_path(str(config.model))
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    for camera in ("front", "wrist"):
        frame, camera_data = expected[f"{camera}_optical_frame"], data.camera(camera)
        np.testing.assert_allclose(frame[:3, 3], camera_data.xpos, atol=1e-6)
        x, y, z = camera_data.xmat.reshape(3, 3).T
        np.testing.assert_allclose(frame[:3, :3].T, [x, -y, -z], atol=1e-6)


def test_a_urdf_is_its_own_description() -> None:
    description = describe(URDF, "tool0", limits(*JOINTS))
    assert (description.text, description.root, description.end_effector) == (
        URDF.read_text(),
        "world",
        "tool0",
    )
    link_frames = LinkFrames(description, JOINTS)
    assert set(link_frames.names) == set(frames(description.text, {})) - {"world"}
    moving = {
        name for name, constant in zip(link_frames.names, link_frames.constant) if not constant
    }
    links = "shoulder_link upper_arm_link forearm_link wrist_1_link wrist_2_link wrist_3_link"
    assert moving == {*links.split(), "finger_left", "finger_right"}
    assert len(ARM) + 2 == len(moving)


def test_all_links_take_less_than_2_ms() -> None:
    """20 to 60 µs for 9 links; the bound is far above, for slow machines."""
    config = arms.config()
    link_frames = LinkFrames(describe(config.model, "hand", config.limits), config.limits.joints)
    best = np.inf
    for _ in range(50):
        start = time.perf_counter()
        link_frames.place(config.home)
        link_frames.in_root()
        link_frames.in_parents()
        best = min(best, time.perf_counter() - start)
    assert best < 2e-3


def test_a_mesh_of_mjcf_is_named_by_its_path(tmp_path) -> None:
    cube(tmp_path / "my meshes/cube.obj")
    asset = '<asset><mesh name="cube" file="my meshes/cube.obj" scale="0.1 0.1 0.1"/></asset>'
    text = arms.config().model.read_text().replace("<option", f"{asset}<option")
    text = text.replace('<site name="hand"', '<geom type="mesh" mesh="cube"/><site name="hand"')
    (tmp_path / "arm.xml").write_text(text)
    description = describe(tmp_path / "arm.xml", "hand", arms.config().limits)
    (mesh,) = ET.fromstring(description.text).iterfind("link[@name='link_6']/visual/geometry/mesh")
    assert mesh.get("filename") == (tmp_path / "my meshes/cube.obj").as_uri()
    (tmp_path / "description.urdf").write_text(description.text.replace("visual", "collision"))
    load(tmp_path / "description.urdf").compile()
