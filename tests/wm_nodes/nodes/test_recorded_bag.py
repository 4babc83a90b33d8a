"""A bag that another program records from our topics, as `ros2 bag record` does, is our log."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from tests.wm_nodes.nodes.test_robot import POINT, Brain
from wm_datasets.formats import Options, load_format
from wm_datasets.formats.transfer import import_into
from wm_datasets.log import LogReader
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.nodes.robot import RobotNode

STORE = get_typestore(Stores.LATEST)


class Recorder:
    """Subscribes to every topic with its publishers' quality of service; writes what comes, as
    serialized, with the time of reception."""

    def __init__(self, graph, path, storage: StoragePlugin) -> None:
        self._graph, self._known = graph, {}
        self._newest: dict[str, bytes] = {}
        self._bag = Writer(path, version=9, storage_plugin=storage)
        self._bag.open()

    def look(self) -> None:
        """Subscribe to topics that are new."""
        for topic, kinds in self._graph.probe.get_topic_names_and_types():
            if topic in self._known or not topic.startswith(self._graph.namespace):
                continue
            package, _, name = kinds[0].split("/")
            kind = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
            offered = [
                each.qos_profile for each in self._graph.probe.get_publishers_info_by_topic(topic)
            ]
            if not offered:
                continue
            latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
            reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
            qos = QoSProfile(
                depth=100,
                durability=DurabilityPolicy.TRANSIENT_LOCAL
                if latched
                else DurabilityPolicy.VOLATILE,
                reliability=ReliabilityPolicy.RELIABLE
                if reliable
                else ReliabilityPolicy.BEST_EFFORT,
            )
            named = topic.replace(self._graph.namespace, "/robot", 1)
            self._known[topic] = connection = self._bag.add_connection(
                named, kinds[0], typestore=STORE
            )
            write = lambda data, to=connection: self._write(to, data)  # noqa: E731
            self._graph.probe.create_subscription(kind, topic, write, qos, raw=True)

    def _write(self, connection, data: bytes) -> None:
        self._bag.write(connection, self._graph.probe.get_clock().now().nanoseconds, data)
        self._newest[connection.topic] = data

    def stamp(self, topic: str) -> int:
        """Return the stamp of the newest message on a topic of /robot, in ns."""
        kind = next(c.msgtype for c in self._known.values() if c.topic == topic)
        at = STORE.deserialize_cdr(self._newest[topic], kind).header.stamp
        return at.sec * 10**9 + at.nanosec

    def close(self) -> None:
        self._bag.close()


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_of_the_running_graph_holds_the_rows_of_its_log(graph, tmp_path, storage) -> None:
    recorder = Recorder(graph, tmp_path / "bag", storage)
    brain = Brain(graph)
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    graph.add(CameraNode, camera="top", height=8, width=8)
    robot = graph.add(RobotNode, **{**POINT, "episodes": 3, "await_recorder_s": 60.0})
    graph.until(lambda: brain.steps)
    recorder.look()
    brain.play(2)
    recorder.look()
    while not robot.finished.done():
        before = len(brain.steps)
        brain.plan()
        graph.until(lambda before=before: len(brain.steps) > before or robot.finished.done())
    graph.until(lambda: node._recording.writer.length >= 12)
    last = brain.steps[-1].stamp_ns
    topics = ("/robot/step", "/robot/joint_states", "/robot/top/image")
    graph.until(lambda: all(recorder.stamp(topic) == last for topic in topics))
    recorder.close()
    graph.remove(node)

    with load_format("rosbag").Import(tmp_path / "bag", Options()) as importer:
        import_into(importer, "bag", tmp_path / "imported")
    ours, theirs = LogReader(tmp_path / "log"), LogReader(tmp_path / "imported")
    assert ours.spec.differences(theirs.spec) == []
    stamps = ours.read("stamp", 0, ours.length).tolist()
    first = stamps.index(int(theirs.read("stamp", 0, 1)[0]))  # the bag was begun later
    assert theirs.length == ours.length - first >= 8
    for name in ours.spec.fields:
        found, right = theirs.read(name, 0, theirs.length), ours.read(name, first, ours.length)
        if name not in ("is_first", "is_last"):
            assert np.array_equal(found, right), name
