"""Intrinsics of simulated cameras: a rendered ball is where they project it."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")

import mujoco

from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm
from wm_nodes.robots.robot import RenderError
from wm_nodes.robots.sims import rendering

SCENE = """
<mujoco><visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
<worldbody>
  <body name="ball" pos="{ball}"><geom type="sphere" size="0.03" rgba="1 0 0 1"/></body>
  <camera name="test" pos="{at}" xyaxes="{axes}" fovy="{fovy}"/>
</worldbody></mujoco>
"""
UP = "0 1 0 -0.6 0 0.8"


@pytest.fixture(autouse=True)
def gl():
    try:
        rendering.gl_renderer()
    except RenderError as error:
        pytest.skip(str(error))


def optical(data, camera: str, point) -> np.ndarray:
    """Return a point of the world in the camera's optical frame."""
    x, y, z = data.camera(camera).xmat.reshape(3, 3).T
    return np.array([x, -y, -z]) @ (np.asarray(point) - data.camera(camera).xpos)


@pytest.mark.parametrize("axes", [UP, "0 -1 0 0.6 0 0.8", "0 -1 0 -0.6 0 -0.8"])
@pytest.mark.parametrize("size", [64, 97])
def test_a_ball_is_rendered_where_the_intrinsics_project_it(axes, size) -> None:
    for ball, fovy in (("0.1 0.2 0.3", 42), ("-0.1 -0.25 0.1", 70), ("0 0 0", 55)):
        x, y = np.array(axes.split(), float).reshape(2, 3)
        backward = np.cross(x, y) / np.linalg.norm(np.cross(x, y))
        at = " ".join(map(str, 1.2 * backward))
        text = SCENE.format(ball=ball, at=at, axes=axes, fovy=fovy)
        model = mujoco.MjModel.from_xml_string(text)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = rendering.CameraRenderer(model, "test", size, "fast")
        image, intrinsics = camera.render(data).astype(float), camera.intrinsics(data)
        camera.close()
        red = image[:, :, 0] - image[:, :, 1]
        red[red < 60] = 0
        rows, columns = np.mgrid[:size, :size]
        centroid = np.array([(columns * red).sum(), (rows * red).sum()]) / red.sum()
        point = intrinsics.k @ optical(data, "test", data.body("ball").xpos)
        np.testing.assert_allclose(centroid, point[:2] / point[2], atol=1.0)
        assert (intrinsics.k[1, 1] < 0) == axes.endswith("-0.8")


def test_the_simulated_arm_knows_its_cameras() -> None:
    with SimulatedArm("reach", render="fast", camera="front", size=96) as robot:
        robot.reset()
        (intrinsics,) = robot.intrinsics().values()
        assert robot.intrinsics()["front"] is intrinsics
        world, marker = robot.world, np.array([0.35, 0.25, 0.3])  # in the air, beside the arm
        for name, position in (("marker", marker), ("disc", [0, 0, -1])):
            world.data.mocap_pos[world.model.body(name).mocapid[0]] = position
        mujoco.mj_forward(world.model, world.data)
        image = world.render("front", 96).astype(float)
        green = image[:, :, 1] - np.maximum(image[:, :, 0], image[:, :, 2])
        green[green < 25] = 0
        rows, columns = np.mgrid[:96, :96]
        centroid = np.array([(columns * green).sum(), (rows * green).sum()]) / green.sum()
        point = intrinsics.k @ optical(world.data, "front", marker)
        np.testing.assert_allclose(centroid, point[:2] / point[2], atol=1.0)


def test_metaworld_knows_its_camera() -> None:
    pytest.importorskip("metaworld")
    from wm_nodes.robots.sims.metaworld import MetaWorld

    with MetaWorld("reach-v3", render="fast", size=64) as robot:
        robot.reset()
        intrinsics = robot.intrinsics()["corner4"]
        assert (intrinsics.width, intrinsics.height) == (64, 64)
        env = robot._env
        in_camera = optical(env.data, "corner4", env.data.body("hand").xpos)
        point = intrinsics.k @ in_camera
        u, v = point[:2] / point[2]
        assert 0 < u < 64
        assert 0 < v < 64


def test_a_lens_that_is_no_pinhole_gives_no_intrinsics() -> None:
    text = SCENE.format(ball="0 0 0", at="1 0 0", axes="0 1 0 0 0 1", fovy=45)
    text = text.replace('fovy="45"', 'sensorsize="0.01 0.01" focal="0.01 0.01" resolution="64 64"')
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = rendering.CameraRenderer(model, "test", 64, "fast")
    assert camera.intrinsics(data) is None
    camera.close()
