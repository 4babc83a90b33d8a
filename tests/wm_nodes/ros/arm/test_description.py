"""robot_description, transforms of links and the end effector's pose, with real nodes."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "egl")
pytest.importorskip("mujoco", reason="needs the [sim] extra")
pytest.importorskip("rclpy")

from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String

from tests.wm_nodes.robots.arm import arms
from tests.wm_nodes.robots.arm.geometry.test_model_file import URDF, frames
from wm_nodes.errors import UserError
from wm_nodes.nodes.arm_sim import ArmSimNode
from wm_nodes.nodes.robot import RobotNode
from wm_nodes.robots.arm.driver import Reading
from wm_nodes.ros import topics
from wm_nodes.ros.arm import description, endpoints
from wm_nodes.ros.arm.description import ArmDescription
from wm_nodes.ros.node import ManagedNode

CONFIG = arms.config()
JOINTS = CONFIG.limits.joints


class JointStateSource:
    """Joint states of a driver, set by a test."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.wrong: dict[str, str] = {}

    def joints(self) -> Reading | None:
        return self.reading

    def faults(self) -> dict[str, str]:
        return self.wrong

    def set_position(self, position) -> None:
        now, number = time.monotonic(), 0 if self.reading is None else self.reading.number + 1
        self.reading = Reading(np.array(position), np.zeros(len(position)), now, number, now)


class DescribedNode(ManagedNode):
    """A node that only describes an arm, with joint states set by a test."""

    NAME = "robot"
    config, options = CONFIG, {}

    def configure(self) -> None:
        self.source = JointStateSource()
        self.description = ArmDescription(self, self.config, self.source, **self.options)

    def cleanup(self) -> None:
        if hasattr(self, "description"):
            self.description.close()


@pytest.fixture
def add_described(graph):
    """Return a function that adds such a node."""

    def start(config=CONFIG, **options):
        kind = type("Described", (DescribedNode,), {"config": config, "options": options})
        return graph.add(kind)

    return start


@dataclass
class TransformMessage:
    """tf2_msgs/TFMessage, which pip does not have."""

    transforms: list


class TransformPublications:
    """Keeps the messages on /tf and /tf_static, in place of ROS."""

    def __init__(self, monkeypatch) -> None:
        self.messages = {"/tf": [], "/tf_static": []}
        self.topics: set[str] = set()
        create, destroy = Node.create_publisher, Node.destroy_publisher
        publications = self

        class Publisher:
            def __init__(self, name: str) -> None:
                self.name = name
                publications.topics.add(name)

            def publish(self, msg) -> None:
                assert self.name in publications.topics
                publications.messages[self.name].append(msg)

        def create_publisher(node, kind, name, *arguments, **options):
            if kind is TransformMessage:
                return Publisher(name)
            return create(node, kind, name, *arguments, **options)

        def destroy_publisher(node, publisher):
            if isinstance(publisher, Publisher):
                return publications.topics.discard(publisher.name)
            return destroy(node, publisher)

        monkeypatch.setattr(Node, "create_publisher", create_publisher)
        monkeypatch.setattr(Node, "destroy_publisher", destroy_publisher)
        monkeypatch.setattr(description, "tf_type", lambda: TransformMessage)
        monkeypatch.setattr(description, "LOOK_S", 0.05)


@pytest.fixture
def tf(monkeypatch) -> TransformPublications:
    return TransformPublications(monkeypatch)


def pose_values(transform) -> list[float]:
    translation, quaternion = transform.translation, transform.rotation
    return [
        translation.x,
        translation.y,
        translation.z,
        quaternion.x,
        quaternion.y,
        quaternion.z,
        quaternion.w,
    ]


def rotation(quaternion) -> np.ndarray:
    x, y, z, w = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix(transform) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = rotation(transform.rotation)
    out[:3, 3] = pose_values(transform)[:3]
    return out


# The robot node --------------------------------------------------------------------------------


@pytest.fixture
def start_robot(graph, monkeypatch):
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)

    def start(**parameters):
        graph.add(ArmSimNode, render="none", joint_noise_rad=0.0)
        defaults = {"adapter": "arm", "mode": "realtime", "home": False, "dry_run": True}
        return graph.add(RobotNode, **defaults, **parameters)

    return start


def test_the_robot_node_publishes_the_description_and_the_pose_of_its_arm(
    graph, start_robot
) -> None:
    node = start_robot(frame_prefix="left_")
    graph.spin(0.2)
    descriptions = graph.subscribe(topics.ROBOT_DESCRIPTION)
    links, poses = (
        graph.subscribe(topics.LINK_TRANSFORMS),
        graph.subscribe(topics.END_EFFECTOR_POSE),
    )
    graph.until(lambda: descriptions and links and poses)
    (text,) = {msg.data for msg in descriptions}
    names = {link.get("name") for link in ET.fromstring(text).findall("link")}
    children = {c.get("link") for c in ET.fromstring(text).findall("joint/child")}
    (root,) = names - children
    assert node.get_parameter("robot_description").value == text
    transforms, pose = links[-1], poses[-1]
    assert transforms.header.frame_id == pose.header.frame_id == f"left_{root}"
    assert set(transforms.joint_names) == {f"left_{name}" for name in names - {root}}
    expected = frames(text, dict(zip(JOINTS, CONFIG.home)))  # the simulated arm rests there
    for name, transform in zip(transforms.joint_names, transforms.transforms):
        np.testing.assert_allclose(matrix(transform), expected[name[5:]], atol=0.01)
    position = pose.pose.position
    end_effector = arms.kinematics().positions(CONFIG.home[None])[0]
    np.testing.assert_allclose([position.x, position.y, position.z], end_effector, atol=0.01)
    assert node.diagnostics.facts["tf"] == "off: tf2_msgs is not installed"


# The description -------------------------------------------------------------------------------


def test_a_urdf_is_published_unchanged(graph, add_described) -> None:
    joints = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3", "finger")
    limits = replace(CONFIG.limits, joints=joints)
    node = add_described(replace(CONFIG, model=URDF, hand="tool0", limits=limits))
    received, links = (
        graph.subscribe(topics.ROBOT_DESCRIPTION),
        graph.subscribe(topics.LINK_TRANSFORMS),
    )
    graph.until(lambda: received)
    assert received[0].data == URDF.read_text()
    graph.matched(node.description._links)
    q = np.array([0.1, -0.5, 0.9, 0.3, 4.0, -1.0, 0.03])
    node.source.set_position(q)
    graph.until(lambda: links)
    expected = frames(URDF.read_text(), dict(zip(joints, q)))
    assert len(links[0].joint_names) == len(expected) - 1
    for name, transform in zip(links[0].joint_names, links[0].transforms):
        np.testing.assert_allclose(matrix(transform), expected[name], atol=1e-9)


def test_a_model_that_cannot_be_described_is_a_fault_and_the_node_continues(
    graph, add_described, tmp_path
) -> None:
    (tmp_path / "arm.xml").write_text("<mujoco><worldbody><body/></worldbody></mujoco>")
    node = add_described(replace(CONFIG, model=tmp_path / "arm.xml"))
    assert node.active
    assert "no robot_description" in node.diagnostics.active_faults["robot_description"]
    node.source.set_position(CONFIG.home)
    graph.spin(0.1)


def test_the_parameter_cannot_be_set_and_is_declared_again_after_cleanup(
    graph, add_described
) -> None:
    node = add_described()
    text = node.get_parameter("robot_description").value
    (result,) = node.set_parameters([Parameter("robot_description", value="<robot/>")])
    assert not result.successful
    assert "robot's YAML" in result.reason
    assert node.get_parameter("robot_description").value == text
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert not node.has_parameter("robot_description")
    node.trigger_configure()
    assert node.get_parameter("robot_description").value == text


def test_with_another_publisher_the_description_is_not_published(graph, add_described) -> None:
    other = Node("robot_state_publisher", context=graph.context, namespace=graph.namespace)
    topics.ROBOT_DESCRIPTION.always(other)
    graph.until(lambda: graph.probe.count_publishers("robot_description") == 1)
    node = add_described()
    assert "robot_state_publisher" in node.diagnostics.facts["robot_description"]
    assert graph.probe.count_publishers("robot_description") == 1
    other.destroy_node()


# Transforms ------------------------------------------------------------------------------------


def test_nothing_is_published_without_new_joint_states(graph, add_described) -> None:
    node = add_described(rate_hz=50.0)
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    graph.spin(0.15)
    assert not links
    for _ in range(3):
        node.source.set_position(CONFIG.home)
        count = len(links)
        graph.until(lambda c=count: len(links) > c)
        graph.spin(0.15)
        assert len(links) == count + 1
    stamps = [msg.header.stamp for msg in links]
    assert len({(stamp.sec, stamp.nanosec) for stamp in stamps}) == 3


def test_joint_states_of_several_publishers_are_not_published_as_transforms(
    graph, add_described
) -> None:
    node = add_described()
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    node.source.wrong = {"joint_sources": "two"}
    node.source.set_position(CONFIG.home)
    graph.spin(0.15)
    assert not links
    node.source.wrong = {}
    graph.until(lambda: links)


def test_no_more_transforms_than_the_rate(graph, add_described) -> None:
    node = add_described(rate_hz=10.0)
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        node.source.set_position(CONFIG.home)
        graph.spin(0.01)
    assert 1 <= len(links) <= 12


def test_tf_has_all_links_and_the_constant_ones_once(graph, add_described, tf) -> None:
    node = add_described(frame_prefix="a/")
    assert node.diagnostics.facts["tf"] == "on"
    (static,) = tf.messages["/tf_static"]
    q = CONFIG.home + 0.01
    node.source.set_position(q)
    graph.until(lambda: tf.messages["/tf"])
    (moving,) = tf.messages["/tf"]
    text = node.get_parameter("robot_description").value
    expected = {f"a/{name}": frame for name, frame in frames(text, dict(zip(JOINTS, q))).items()}
    transforms = [*static.transforms, *moving.transforms]
    assert sorted(transform.child_frame_id for transform in transforms) == sorted(
        set(expected) - {"a/base"}
    )
    joint_types = {
        j.find("child").get("link"): j.get("type") for j in ET.fromstring(text).iter("joint")
    }
    for transform in transforms:
        relative = (
            np.linalg.inv(expected[transform.header.frame_id]) @ expected[transform.child_frame_id]
        )
        np.testing.assert_allclose(matrix(transform.transform), relative, atol=1e-9)
        fixed = joint_types[transform.child_frame_id[2:]] == "fixed"
        assert transform in (static if fixed else moving).transforms


def test_tf_ends_when_the_drivers_own_description_appears(graph, add_described, tf) -> None:
    states = f"{graph.namespace}/driver/joint_states"
    node = add_described(replace(CONFIG, joint_states=states))
    assert tf.topics == {"/tf", "/tf_static"}
    other_arm = Node("other_arm", context=graph.context, namespace=f"{graph.namespace}/elsewhere")
    topics.ROBOT_DESCRIPTION.always(other_arm)
    graph.spin(0.3)
    assert tf.topics
    namespace = f"{graph.namespace}/driver"
    publisher = Node("state_publisher", context=graph.context, namespace=namespace)
    topics.ROBOT_DESCRIPTION.always(publisher)
    graph.until(lambda: not tf.topics)
    assert "state_publisher" in node.diagnostics.facts["tf"]
    count = len(tf.messages["/tf"])
    node.source.set_position(CONFIG.home)
    graph.spin(0.2)
    assert len(tf.messages["/tf"]) == count
    publisher.destroy_node()
    graph.until(lambda: tf.topics)
    other_arm.destroy_node()


@pytest.mark.parametrize(("setting", "published"), [("always", True), ("never", False)])
def test_tf_follows_its_parameter(graph, add_described, tf, setting, published) -> None:
    states = f"{graph.namespace}/driver/joint_states"
    namespace = f"{graph.namespace}/driver"
    publisher = Node("state_publisher", context=graph.context, namespace=namespace)
    publisher.create_publisher(String, "robot_description", topics.WEIGHTS)
    graph.until(lambda: graph.probe.count_publishers("driver/robot_description"))
    node = add_described(replace(CONFIG, joint_states=states), tf=setting)
    assert bool(tf.topics) == published
    assert node.diagnostics.facts["tf"] == ("on" if published else "off: parameter tf")
    publisher.destroy_node()


def test_tf_always_without_tf2_msgs_is_refused_in_one_line(graph, add_described) -> None:
    if description.tf_type() is not None:
        pytest.skip("tf2_msgs is installed")
    with pytest.raises(UserError, match="tf2_msgs is not installed") as error:
        add_described(tf="always")
    assert "\n" not in str(error.value)


def test_a_message_takes_less_than_5_ms(graph, add_described) -> None:
    """About 0.3 ms for 9 links; the bound is far above, for slow machines."""
    node = add_described()
    graph.subscribe(topics.LINK_TRANSFORMS)
    graph.subscribe(topics.END_EFFECTOR_POSE)
    graph.matched(node.description._links)
    graph.matched(node.description._pose)
    best = np.inf
    for _ in range(30):
        node.source.set_position(CONFIG.home)
        start = time.perf_counter()
        node.description._tick()
        best = min(best, time.perf_counter() - start)
    assert best < 5e-3
