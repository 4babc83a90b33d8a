"""The recorder node: the log holds what the robot published; what it lacks is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image as ImageMsg

from tests.wm_nodes.point_robot import PointRobot
from wm_datasets.errors import LogFullError
from wm_datasets.log import LogReader, LogWriter
from wm_nodes.episodes.playback import transitions
from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.episodes.runner import EpisodeRunner
from wm_nodes.episodes.schedule import Schedule, StopCriteria
from wm_nodes.errors import UserError
from wm_nodes.nodes.recorder import RecorderNode
from wm_nodes.records import Origin, Transition
from wm_nodes.ros import messages, topics

ACTOR = Origin("mwm_cpu", "actor", 7)


class RobotPublisher:
    """Publishes a robot's episodes as robot and camera node do, and keeps them in `published`."""

    def __init__(self, graph, criteria: StopCriteria | None = None, time_limit: int = 4) -> None:
        self.graph = graph
        self.runner = EpisodeRunner(
            PointRobot(time_limit=time_limit), Schedule(criteria or StopCriteria(), 0)
        )
        self.published: list[Transition] = []
        self.spec = topics.SPEC.always(graph.probe)
        self.image = topics.IMAGE.always(graph.probe, camera="top")
        self.joints = topics.JOINT_STATES.always(graph.probe)
        self.steps = topics.STEPS.always(graph.probe)
        self.acknowledgements = graph.subscribe(topics.RECORDED)

    def publish_spec(self) -> None:
        self.spec.publish(messages.spec_to_msg(self.runner.robot.spec.log_spec()))
        for publisher in (self.image, self.joints, self.steps):
            self.graph.matched(publisher)

    def publish(self, transition: Transition, with_image: bool = True) -> None:
        stamp = transition.step.stamp_ns
        self.published.append(transition)
        self.steps.publish(messages.step_to_msg(transition.step))
        names = self.runner.robot.spec.proprio.names
        self.joints.publish(messages.joints_to_msg(names, transition.proprio, stamp))
        if with_image:
            self.image.publish(messages.image_to_msg(transition.images["top"], stamp))

    def publish_episode(self, lost_image: int = -1, stop: int = 99) -> None:
        """Publish one episode up to step `stop`, without the image of observation `lost_image`."""
        transition = self.runner.begin()
        self.publish(transition, lost_image != 0)
        index = 0
        while not transition.step.is_last and index < stop:
            index += 1
            transition = self.runner.execute(np.float32([0.3 * (-1) ** index]), ACTOR)
            self.publish(transition, lost_image != index)
            self.graph.spin(0.002)


def wait_for_rows(graph, node, rows: int) -> None:
    graph.until(lambda: node._recording.writer and node._recording.writer.length >= rows)


def test_rows_equal_what_was_published(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    for _ in range(3):
        robot.publish_episode()
    wait_for_rows(graph, node, 15)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [5, 5, 5] and log.episodes["complete"].all()
    for row, (now, after) in enumerate(zip(robot.published, [*robot.published[1:], None])):
        logged = {name: log.read(name, row, row + 1)[0] for name in log.spec.fields}
        assert np.array_equal(logged["image/top"], now.images["top"])
        assert np.array_equal(logged["proprio"], now.proprio)
        assert logged["stamp"] == now.step.stamp_ns
        assert (logged["is_first"], logged["is_last"]) == (now.step.is_first, now.step.is_last)
        if not now.step.is_last:
            assert logged["action"] == after.step.executed
            assert logged["reward"] == np.float32(after.step.reward)
            assert (logged["weights"], logged["source"]) == (7, 0)


def test_evaluation_episodes_are_marked(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph, StopCriteria(episodes=3, eval_every=8, eval_episodes=1))
    robot.publish_spec()
    for _ in range(4):
        robot.publish_episode()
    wait_for_rows(graph, node, 20)
    with LogReader(tmp_path / "log") as log:
        assert log.is_evaluation(log.episodes).tolist() == [False, False, True, False]
        marks = [not transition.step.explore for transition in robot.published]
        assert log.read("evaluation", 0, 20).tolist() == marks == log.evaluation_rows().tolist()
        explored = [
            [transition.step.explore for transition in transitions(log, number)]
            for number in (1, 2)
        ]
        assert explored == [[True] * 5, [False] * 5]


def test_a_log_of_an_older_version_is_continued_with_the_evaluation_mark(graph, tmp_path) -> None:
    """Its rows without the mark count as training rows."""
    old_spec = replace(PointRobot().spec.log_spec(), evaluation=False)
    robot = RobotPublisher(graph, StopCriteria(evaluate=True))
    with LogWriter(tmp_path / "log", old_spec) as writer:
        rows = RowAssembler(("image/top", "proprio"), 1)
        runner = EpisodeRunner(PointRobot(time_limit=4), Schedule(StopCriteria(), 0))
        for transition in (runner.begin(), *(runner.execute(np.float32([0.1]), ACTOR)
                                           for _ in range(4))):  # fmt: skip
            stamp = transition.step.stamp_ns
            complete_rows = rows.put("image/top", stamp, transition.images["top"])
            complete_rows += rows.put("proprio", stamp, transition.proprio) + rows.step(
                transition.step
            )
            for row in complete_rows:
                writer.append({name: row[name] for name in old_spec.fields})
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot.publish_spec()
    robot.publish_episode()
    wait_for_rows(graph, node, 10)
    with LogReader(tmp_path / "log") as log:
        assert log.since("evaluation") == 5
        assert log.is_evaluation(log.episodes).tolist() == [False, True]


def test_the_first_observation_of_an_episode_is_acknowledged(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    robot.publish_episode()
    robot.publish_episode()
    first_stamps = [
        transition.step.stamp_ns for transition in robot.published if transition.step.is_first
    ]
    graph.until(
        lambda: [messages.from_time(msg.stamp) for msg in robot.acknowledgements] == first_stamps
    )


def test_the_first_observation_of_a_restarted_robot_is_acknowledged_when_it_is_complete(
    graph, tmp_path
) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    first_process = RobotPublisher(graph)
    first_process.publish_spec()
    first_process.publish_episode()
    graph.until(lambda: len(first_process.acknowledgements) == 1)
    restarted = RobotPublisher(graph)  # its stamps begin where the first one's began
    restarted.publish_spec()
    first = restarted.runner.begin()
    restarted.publish(first, with_image=False)
    graph.spin(0.3)
    assert not restarted.acknowledgements
    for count in (1, 2):  # the robot repeats an observation that is not acknowledged
        restarted.publish(first)
        graph.until(lambda count=count: len(restarted.acknowledgements) == count)
    stamps = {messages.from_time(msg.stamp) for msg in restarted.acknowledgements}
    assert stamps == {first.step.stamp_ns} == {first_process.published[0].step.stamp_ns}


def test_a_lost_image_cuts_the_episode_and_is_counted(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph, time_limit=20)
    robot.publish_spec()
    robot.publish_episode(lost_image=5)
    wait_for_rows(graph, node, 20)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [5, 15] and node._recording.unjoined == 1
    stamps = log.read("stamp", 0, log.length)
    assert robot.published[5].step.stamp_ns not in stamps


def test_an_episode_begins_after_one_whose_last_image_was_lost(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    robot.publish_episode(lost_image=4)
    first = robot.runner.begin()
    while (
        len(robot.acknowledgements) < 2
    ):  # the robot waits for the recorder and repeats its observation
        robot.publish(first)
        graph.spin(0.1)
    assert messages.from_time(robot.acknowledgements[1].stamp) == first.step.stamp_ns
    assert node._recording.unjoined == 1


def test_a_log_is_continued_after_a_stop_within_an_episode(graph, tmp_path) -> None:
    robot = RobotPublisher(graph)
    for _ in range(2):
        node = graph.add(RecorderNode, log=str(tmp_path / "log"))
        robot.publish_spec()
        robot.publish_episode(stop=3)
        wait_for_rows(graph, node, 3)
        rows, newest = node._recording._rows, robot.published[-1].step.stamp_ns
        graph.until(lambda rows=rows, newest=newest: rows.joined_ns == newest)
        graph.remove(node)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [4, 4]


def test_evaluation_may_be_left_out(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"), evaluation=False)
    robot = RobotPublisher(graph, StopCriteria(eval_every=1, eval_episodes=1))
    robot.publish_spec()
    for _ in range(4):
        robot.publish_episode()
    wait_for_rows(graph, node, 10)
    stamps = LogReader(tmp_path / "log").read("stamp", 0, 10)
    training_stamps = [
        transition.step.stamp_ns for transition in robot.published if transition.step.explore
    ]
    assert stamps.tolist() == training_stamps
    graph.until(lambda: len(robot.acknowledgements) == 4)  # the robot is not kept waiting


def test_a_second_writer_is_refused_in_one_line(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    robot.publish_episode()
    graph.until(lambda: (tmp_path / "log" / "zarr.json").exists())
    with pytest.raises(UserError) as error:
        graph.add(RecorderNode, log=str(tmp_path / "log"))
    assert "\n" not in str(error.value)


def test_a_log_of_another_robot_is_refused(graph, tmp_path) -> None:
    spec = PointRobot().spec.log_spec()
    other = type(spec)(**{**vars(spec), "task": "elsewhere"})
    LogWriter(tmp_path / "log", other).close()
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    with pytest.raises(UserError, match="elsewhere"):
        robot.publish_spec()
        graph.spin(2.0)


def test_a_foreign_folder_is_refused(graph, tmp_path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "zarr.json").write_text("{}")
    with pytest.raises(UserError):
        graph.add(RecorderNode, log=str(tmp_path / "log"))


def test_a_camera_that_the_robot_does_not_have_is_refused(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"), cameras=["bottom"])
    with pytest.raises(UserError, match="top"):
        RobotPublisher(graph).publish_spec()
        graph.spin(2.0)


def test_a_full_disk_stops_only_the_recording(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("wm_nodes.episodes.recording.RETRY_S", 0.2)
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    robot.publish_episode()
    wait_for_rows(graph, node, 5)

    def raise_full(self, row):
        raise LogFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(LogWriter, "append", raise_full)
        robot.publish_episode()
        graph.until(lambda: "log" in node.diagnostics.active_faults)
    graph.spin(0.3)
    robot.publish_episode()
    graph.until(lambda: "log" not in node.diagnostics.active_faults)
    wait_for_rows(graph, node, 10)
    assert LogReader(tmp_path / "log").episodes["length"].tolist() == [5, 5]


def test_bad_messages_are_dropped_and_counted(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    robot = RobotPublisher(graph)
    robot.publish_spec()
    robot.image.publish(ImageMsg())
    robot.joints.publish(messages.joints_to_msg(("y",), np.float32([0]), 1))
    robot.joints.publish(messages.joints_to_msg(("x",), np.float32([np.inf]), 1))
    robot.publish_episode()
    robot.image.publish(messages.image_to_msg(np.zeros((9, 9, 3), np.uint8), 1))
    wait_for_rows(graph, node, 5)
    expected = {
        "top/image/encoding": 1,
        "top/image/size": 1,
        "joint_states/names": 1,
        "joint_states/non-finite": 1,
    }
    graph.until(lambda: dict(node.diagnostics.drops) == expected)
