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


class Source:
    """Joint states of a bus."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        self.wrong: dict[str, str] = {}

    def joints(self) -> Reading | None:
        return self.reading

    def faults(self) -> dict[str, str]:
        return self.wrong

    def say(self, position) -> None:
        now, number = time.monotonic(), 0 if self.reading is None else self.reading.number + 1
        self.reading = Reading(np.array(position), np.zeros(len(position)), now, number, now)


class DescribedNode(ManagedNode):
    """A node with nothing but a description, of joint states that a test gives."""

    NAME = "robot"
    config, options = CONFIG, {}

    def configure(self) -> None:
        self.source = Source()
        self.description = ArmDescription(self, self.config, self.source, **self.options)

    def cleanup(self) -> None:
        if hasattr(self, "description"):
            self.description.close()


@pytest.fixture
def described(graph):
    """Return a function that makes such a node."""

    def made(config=CONFIG, **options):
        kind = type("Described", (DescribedNode,), {"config": config, "options": options})
        return graph.add(kind)

    return made


@dataclass
class TransformMessage:
    """tf2_msgs/TFMessage, which pip does not have."""

    transforms: list


class Publications:
    """Takes what is published on /tf and /tf_static in place of ROS."""

    def __init__(self, monkeypatch) -> None:
        self.heard = {"/tf": [], "/tf_static": []}
        self.alive: set[str] = set()
        create, destroy = Node.create_publisher, Node.destroy_publisher
        here = self

        class Publisher:
            def __init__(self, name: str) -> None:
                self.name = name
                here.alive.add(name)

            def publish(self, msg) -> None:
                assert self.name in here.alive
                here.heard[self.name].append(msg)

        def made(node, kind, name, *given, **options):
            if kind is TransformMessage:
                return Publisher(name)
            return create(node, kind, name, *given, **options)

        def gone(node, publisher):
            if isinstance(publisher, Publisher):
                return here.alive.discard(publisher.name)
            return destroy(node, publisher)

        monkeypatch.setattr(Node, "create_publisher", made)
        monkeypatch.setattr(Node, "destroy_publisher", gone)
        monkeypatch.setattr(description, "tf_type", lambda: TransformMessage)
        monkeypatch.setattr(description, "LOOK_S", 0.05)


@pytest.fixture
def tf(monkeypatch) -> Publications:
    return Publications(monkeypatch)


def numbers(transform) -> list[float]:
    move, turn = transform.translation, transform.rotation
    return [move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w]


def rotation(turn) -> np.ndarray:
    x, y, z, w = turn.x, turn.y, turn.z, turn.w
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
    out[:3, 3] = numbers(transform)[:3]
    return out


# The robot node --------------------------------------------------------------------------------


@pytest.fixture
def robot(graph, monkeypatch):
    monkeypatch.setattr(endpoints, "DISCOVERY_S", 0.2)

    def made(**parameters):
        graph.add(ArmSimNode, render="none", joint_noise_rad=0.0)
        given = {"adapter": "arm", "mode": "realtime", "home": False, "dry_run": True}
        return graph.add(RobotNode, **given, **parameters)

    return made


def test_the_robot_node_describes_its_arm_and_says_where_it_is(graph, robot) -> None:
    node = robot(frame_prefix="left_")
    graph.spin(0.2)
    late = graph.subscribe(topics.ROBOT_DESCRIPTION)
    links, poses = (
        graph.subscribe(topics.LINK_TRANSFORMS),
        graph.subscribe(topics.END_EFFECTOR_POSE),
    )
    graph.until(lambda: late and links and poses)
    (text,) = {msg.data for msg in late}
    names = {link.get("name") for link in ET.fromstring(text).findall("link")}
    children = {c.get("link") for c in ET.fromstring(text).findall("joint/child")}
    (root,) = names - children
    assert node.get_parameter("robot_description").value == text
    seen, pose = links[-1], poses[-1]
    assert seen.header.frame_id == pose.header.frame_id == f"left_{root}"
    assert set(seen.joint_names) == {f"left_{name}" for name in names - {root}}
    right = frames(text, dict(zip(JOINTS, CONFIG.home)))  # the simulated arm rests there
    for name, transform in zip(seen.joint_names, seen.transforms):
        np.testing.assert_allclose(matrix(transform), right[name[5:]], atol=0.01)
    at = pose.pose.position
    hand = arms.kinematics().positions(CONFIG.home[None])[0]
    np.testing.assert_allclose([at.x, at.y, at.z], hand, atol=0.01)
    assert node.diagnostics.facts["tf"] == "off: tf2_msgs is not installed"


# The description -------------------------------------------------------------------------------


def test_a_urdf_is_published_as_it_is(graph, described) -> None:
    joints = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3", "finger")
    limits = replace(CONFIG.limits, joints=joints)
    node = described(replace(CONFIG, model=URDF, hand="tool0", limits=limits))
    received, links = (
        graph.subscribe(topics.ROBOT_DESCRIPTION),
        graph.subscribe(topics.LINK_TRANSFORMS),
    )
    graph.until(lambda: received)
    assert received[0].data == URDF.read_text()
    graph.matched(node.description._links)
    q = np.array([0.1, -0.5, 0.9, 0.3, 4.0, -1.0, 0.03])
    node.source.say(q)
    graph.until(lambda: links)
    right = frames(URDF.read_text(), dict(zip(joints, q)))
    assert len(links[0].joint_names) == len(right) - 1
    for name, transform in zip(links[0].joint_names, links[0].transforms):
        np.testing.assert_allclose(matrix(transform), right[name], atol=1e-9)


def test_a_model_that_cannot_be_described_is_a_fault_and_no_end(graph, described, tmp_path) -> None:
    (tmp_path / "arm.xml").write_text("<mujoco><worldbody><body/></worldbody></mujoco>")
    node = described(replace(CONFIG, model=tmp_path / "arm.xml"))
    assert node.active
    assert "no robot_description" in node.diagnostics.active_faults["robot_description"]
    node.source.say(CONFIG.home)
    graph.spin(0.1)


def test_the_parameter_cannot_be_set_and_comes_anew(graph, described) -> None:
    node = described()
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


def test_a_description_that_is_there_already_is_not_published_again(graph, described) -> None:
    other = Node("robot_state_publisher", context=graph.context, namespace=graph.namespace)
    topics.ROBOT_DESCRIPTION.always(other)
    graph.until(lambda: graph.probe.count_publishers("robot_description") == 1)
    node = described()
    assert "robot_state_publisher" in node.diagnostics.facts["robot_description"]
    assert graph.probe.count_publishers("robot_description") == 1
    other.destroy_node()


# Transforms ------------------------------------------------------------------------------------


def test_nothing_is_published_without_new_joint_states(graph, described) -> None:
    node = described(rate_hz=50.0)
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    graph.spin(0.15)
    assert not links
    for _ in range(3):
        node.source.say(CONFIG.home)
        count = len(links)
        graph.until(lambda c=count: len(links) > c)
        graph.spin(0.15)
        assert len(links) == count + 1
    stamps = [msg.header.stamp for msg in links]
    assert len({(stamp.sec, stamp.nanosec) for stamp in stamps}) == 3


def test_joint_states_of_several_publishers_are_not_shown(graph, described) -> None:
    node = described()
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    node.source.wrong = {"joint_sources": "two"}
    node.source.say(CONFIG.home)
    graph.spin(0.15)
    assert not links
    node.source.wrong = {}
    graph.until(lambda: links)


def test_no_more_transforms_than_the_rate(graph, described) -> None:
    node = described(rate_hz=10.0)
    links = graph.subscribe(topics.LINK_TRANSFORMS)
    graph.matched(node.description._links)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        node.source.say(CONFIG.home)
        graph.spin(0.01)
    assert 1 <= len(links) <= 12


def test_tf_has_all_links_and_the_constant_ones_once(graph, described, tf) -> None:
    node = described(frame_prefix="a/")
    assert node.diagnostics.facts["tf"] == "on"
    (static,) = tf.heard["/tf_static"]
    q = CONFIG.home + 0.01
    node.source.say(q)
    graph.until(lambda: tf.heard["/tf"])
    (moving,) = tf.heard["/tf"]
    text = node.get_parameter("robot_description").value
    right = {f"a/{name}": frame for name, frame in frames(text, dict(zip(JOINTS, q))).items()}
    both = [*static.transforms, *moving.transforms]
    assert sorted(part.child_frame_id for part in both) == sorted(set(right) - {"a/base"})
    kinds = {j.find("child").get("link"): j.get("type") for j in ET.fromstring(text).iter("joint")}
    for part in both:
        step = np.linalg.inv(right[part.header.frame_id]) @ right[part.child_frame_id]
        np.testing.assert_allclose(matrix(part.transform), step, atol=1e-9)
        still = kinds[part.child_frame_id[2:]] == "fixed"
        assert part in (static if still else moving).transforms


def test_tf_ends_when_the_drivers_own_description_appears(graph, described, tf) -> None:
    states = f"{graph.namespace}/driver/joint_states"
    node = described(replace(CONFIG, joint_states=states))
    assert tf.alive == {"/tf", "/tf_static"}
    elsewhere = Node("other_arm", context=graph.context, namespace=f"{graph.namespace}/elsewhere")
    topics.ROBOT_DESCRIPTION.always(elsewhere)
    graph.spin(0.3)
    assert tf.alive
    place = f"{graph.namespace}/driver"
    publisher = Node("state_publisher", context=graph.context, namespace=place)
    topics.ROBOT_DESCRIPTION.always(publisher)
    graph.until(lambda: not tf.alive)
    assert "state_publisher" in node.diagnostics.facts["tf"]
    count = len(tf.heard["/tf"])
    node.source.say(CONFIG.home)
    graph.spin(0.2)
    assert len(tf.heard["/tf"]) == count
    publisher.destroy_node()
    graph.until(lambda: tf.alive)
    elsewhere.destroy_node()


@pytest.mark.parametrize(("choice", "on"), [("always", True), ("never", False)])
def test_tf_as_the_user_says(graph, described, tf, choice, on) -> None:
    states = f"{graph.namespace}/driver/joint_states"
    place = f"{graph.namespace}/driver"
    publisher = Node("state_publisher", context=graph.context, namespace=place)
    publisher.create_publisher(String, "robot_description", topics.WEIGHTS)
    graph.until(lambda: graph.probe.count_publishers("driver/robot_description"))
    node = described(replace(CONFIG, joint_states=states), tf=choice)
    assert bool(tf.alive) == on
    assert node.diagnostics.facts["tf"] == ("on" if on else "off: parameter tf")
    publisher.destroy_node()


def test_tf_always_without_tf2_msgs_is_refused_in_one_line(graph, described) -> None:
    if description.tf_type() is not None:
        pytest.skip("tf2_msgs is installed")
    with pytest.raises(UserError, match="tf2_msgs is not installed") as error:
        described(tf="always")
    assert "\n" not in str(error.value)


def test_a_message_takes_little_time(graph, described) -> None:
    """About 0.3 ms for 9 links; the bound is far above, for slow machines."""
    node = described()
    graph.subscribe(topics.LINK_TRANSFORMS)
    graph.subscribe(topics.END_EFFECTOR_POSE)
    graph.matched(node.description._links)
    graph.matched(node.description._pose)
    best = np.inf
    for _ in range(30):
        node.source.say(CONFIG.home)
        start = time.perf_counter()
        node.description._tick()
        best = min(best, time.perf_counter() - start)
    assert best < 5e-3
