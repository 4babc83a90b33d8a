"""A bag that another program records from our topics, as `ros2 bag record` does, is our log."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from tests.wm_nodes.nodes.test_robot import POINT, Planner
from wm_datasets.formats import Options, load_format
from wm_datasets.formats.transfer import import_into
from wm_datasets.log import LogReader
from wm_nodes.nodes.camera import CameraNode
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.nodes.robot import RobotNode

TYPES = get_typestore(Stores.LATEST)


class BagRecorder:
    """Subscribes to every topic with its publishers' quality of service; writes the messages
    as serialized, with the time of reception."""

    def __init__(self, graph, path, storage: StoragePlugin) -> None:
        self._graph, self._connections = graph, {}
        self._newest: dict[str, bytes] = {}
        self._bag = Writer(path, version=9, storage_plugin=storage)
        self._bag.open()

    def subscribe_to_new_topics(self) -> None:
        """Subscribe to each topic that has no subscription yet."""
        for topic, types in self._graph.probe.get_topic_names_and_types():
            if topic in self._connections or not topic.startswith(self._graph.namespace):
                continue
            package, _, name = types[0].split("/")
            kind = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
            profiles = [
                info.qos_profile for info in self._graph.probe.get_publishers_info_by_topic(topic)
            ]
            if not profiles:
                continue
            latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in profiles)
            reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in profiles)
            qos = QoSProfile(
                depth=100,
                durability=DurabilityPolicy.TRANSIENT_LOCAL
                if latched
                else DurabilityPolicy.VOLATILE,
                reliability=ReliabilityPolicy.RELIABLE
                if reliable
                else ReliabilityPolicy.BEST_EFFORT,
            )
            bag_topic = topic.replace(self._graph.namespace, "/robot", 1)
            self._connections[topic] = connection = self._bag.add_connection(
                bag_topic, types[0], typestore=TYPES
            )
            write = lambda data, to=connection: self._write(to, data)  # noqa: E731
            self._graph.probe.create_subscription(kind, topic, write, qos, raw=True)

    def _write(self, connection, data: bytes) -> None:
        self._bag.write(connection, self._graph.probe.get_clock().now().nanoseconds, data)
        self._newest[connection.topic] = data

    def stamp(self, topic: str) -> int:
        """Return the stamp of the newest message on a topic of /robot, in ns."""
        kind = next(c.msgtype for c in self._connections.values() if c.topic == topic)
        time = TYPES.deserialize_cdr(self._newest[topic], kind).header.stamp
        return time.sec * 10**9 + time.nanosec

    def close(self) -> None:
        self._bag.close()


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_of_the_running_graph_holds_the_rows_of_its_log(graph, tmp_path, storage) -> None:
    recorder = BagRecorder(graph, tmp_path / "bag", storage)
    planner = Planner(graph)
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    graph.add(CameraNode, camera="top", height=8, width=8)
    robot = graph.add(RobotNode, **{**POINT, "episodes": 3, "await_recorder_s": 60.0})
    graph.until(lambda: planner.steps)
    recorder.subscribe_to_new_topics()
    planner.execute(2)
    recorder.subscribe_to_new_topics()
    while not robot.finished.done():
        before = len(planner.steps)
        planner.plan()
        graph.until(lambda before=before: len(planner.steps) > before or robot.finished.done())
    graph.until(lambda: node._recording.writer.length >= 12)
    last = planner.steps[-1].stamp_ns
    topics = ("/robot/step", "/robot/joint_states", "/robot/top/image")
    graph.until(lambda: all(recorder.stamp(topic) == last for topic in topics))
    recorder.close()
    graph.remove(node)

    with load_format("rosbag").Import(tmp_path / "bag", Options()) as importer:
        import_into(importer, "bag", tmp_path / "imported")
    log, imported = LogReader(tmp_path / "log"), LogReader(tmp_path / "imported")
    assert log.spec.differences(imported.spec) == []
    stamps = log.read("stamp", 0, log.length).tolist()
    first = stamps.index(int(imported.read("stamp", 0, 1)[0]))  # the bag begins later
    assert imported.length == log.length - first >= 8
    for name in log.spec.fields:
        actual, expected = (
            imported.read(name, 0, imported.length),
            log.read(name, first, log.length),
        )
        if name not in ("is_first", "is_last"):
            assert np.array_equal(actual, expected), name
