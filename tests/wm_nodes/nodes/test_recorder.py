"""The recorder node: the log holds what the robot published, or says what it does not hold."""

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


class Player:
    """Publishes a robot's episodes as robot and camera node do, and remembers them."""

    def __init__(self, graph, criteria: StopCriteria | None = None, time_limit: int = 4) -> None:
        self.graph = graph
        self.runner = EpisodeRunner(
            PointRobot(time_limit=time_limit), Schedule(criteria or StopCriteria(), 0)
        )
        self.shown: list[Transition] = []
        self.spec = topics.SPEC.always(graph.probe)
        self.image = topics.IMAGE.always(graph.probe, camera="top")
        self.joints = topics.JOINT_STATES.always(graph.probe)
        self.steps = topics.STEPS.always(graph.probe)
        self.recorded = graph.hear(topics.RECORDED)

    def introduce(self) -> None:
        self.spec.publish(messages.spec_to_msg(self.runner.robot.spec.log_spec()))
        for publisher in (self.image, self.joints, self.steps):
            self.graph.joined(publisher)

    def show(self, transition: Transition, picture: bool = True) -> None:
        stamp = transition.step.stamp_ns
        self.shown.append(transition)
        self.steps.publish(messages.step_to_msg(transition.step))
        names = self.runner.robot.spec.proprio.names
        self.joints.publish(messages.joints_to_msg(names, transition.proprio, stamp))
        if picture:
            self.image.publish(messages.image_to_msg(transition.images["top"], stamp))

    def episode(self, lose: int = -1, stop: int = 99) -> None:
        """Play one episode; the picture of observation `lose` never comes, it ends at `stop`."""
        transition = self.runner.begin()
        self.show(transition, lose != 0)
        index = 0
        while not transition.step.is_last and index < stop:
            index += 1
            transition = self.runner.execute(np.float32([0.3 * (-1) ** index]), ACTOR)
            self.show(transition, lose != index)
            self.graph.spin(0.002)


def recorded(graph, node, rows: int) -> None:
    graph.until(lambda: node._recording.writer and node._recording.writer.length >= rows)


def test_rows_equal_what_was_published(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    for _ in range(3):
        player.episode()
    recorded(graph, node, 15)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [5, 5, 5] and log.episodes["complete"].all()
    for row, (now, after) in enumerate(zip(player.shown, [*player.shown[1:], None])):
        read = {name: log.read(name, row, row + 1)[0] for name in log.spec.fields}
        assert np.array_equal(read["image/top"], now.images["top"])
        assert np.array_equal(read["proprio"], now.proprio)
        assert read["stamp"] == now.step.stamp_ns
        assert (read["is_first"], read["is_last"]) == (now.step.is_first, now.step.is_last)
        if not now.step.is_last:
            assert read["action"] == after.step.executed
            assert read["reward"] == np.float32(after.step.reward)
            assert (read["weights"], read["source"]) == (7, 0)


def test_evaluation_episodes_are_marked(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph, StopCriteria(episodes=3, eval_every=8, eval_episodes=1))
    player.introduce()
    for _ in range(4):
        player.episode()
    recorded(graph, node, 20)
    with LogReader(tmp_path / "log") as log:
        assert log.is_evaluation(log.episodes).tolist() == [False, False, True, False]
        marks = [not transition.step.explore for transition in player.shown]
        assert log.read("evaluation", 0, 20).tolist() == marks == log.evaluation_rows().tolist()
        played = [[a.step.explore for a in transitions(log, number)] for number in (1, 2)]
        assert played == [[True] * 5, [False] * 5]


def test_a_log_of_an_older_version_goes_on_with_the_mark(graph, tmp_path) -> None:
    """Its own rows are training rows, as they were taken for."""
    old = replace(PointRobot().spec.log_spec(), evaluation=False)
    player = Player(graph, StopCriteria(evaluate=True))
    with LogWriter(tmp_path / "log", old) as writer:
        rows = RowAssembler(("image/top", "proprio"), 1)
        runner = EpisodeRunner(PointRobot(time_limit=4), Schedule(StopCriteria(), 0))
        for transition in (runner.begin(), *(runner.execute(np.float32([0.1]), ACTOR)
                                           for _ in range(4))):  # fmt: skip
            stamp = transition.step.stamp_ns
            done = rows.put("image/top", stamp, transition.images["top"])
            done += rows.put("proprio", stamp, transition.proprio) + rows.step(transition.step)
            for row in done:
                writer.append({name: row[name] for name in old.fields})
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player.introduce()
    player.episode()
    recorded(graph, node, 10)
    with LogReader(tmp_path / "log") as log:
        assert log.since("evaluation") == 5
        assert log.is_evaluation(log.episodes).tolist() == [False, True]


def test_the_first_observation_of_an_episode_is_acknowledged(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    player.episode()
    player.episode()
    firsts = [a.step.stamp_ns for a in player.shown if a.step.is_first]
    graph.until(lambda: [messages.from_time(m.stamp) for m in player.recorded] == firsts)


def test_a_restarted_robots_first_observation_is_acknowledged_when_all_of_it_has_come(
    graph, tmp_path
) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    before = Player(graph)
    before.introduce()
    before.episode()
    graph.until(lambda: len(before.recorded) == 1)
    again = Player(graph)  # its stamps begin where the first one's began
    again.introduce()
    first = again.runner.begin()
    again.show(first, picture=False)
    graph.spin(0.3)
    assert not again.recorded
    for count in (1, 2):  # the robot repeats an observation that is not acknowledged
        again.show(first)
        graph.until(lambda count=count: len(again.recorded) == count)
    stamps = {messages.from_time(msg.stamp) for msg in again.recorded}
    assert stamps == {first.step.stamp_ns} == {before.shown[0].step.stamp_ns}


def test_a_lost_picture_cuts_the_episode_and_is_counted(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph, time_limit=20)
    player.introduce()
    player.episode(lose=5)
    recorded(graph, node, 20)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [5, 15] and node._recording.unjoined == 1
    stamps = log.read("stamp", 0, log.length)
    assert player.shown[5].step.stamp_ns not in stamps


def test_an_episode_begins_after_one_whose_last_picture_was_lost(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    player.episode(lose=4)
    first = player.runner.begin()
    while len(player.recorded) < 2:  # the robot waits for the recorder and repeats its observation
        player.show(first)
        graph.spin(0.1)
    assert messages.from_time(player.recorded[1].stamp) == first.step.stamp_ns
    assert node._recording.unjoined == 1


def test_a_stop_midway_leaves_a_log_that_goes_on(graph, tmp_path) -> None:
    player = Player(graph)
    for _ in range(2):
        node = graph.add(RecorderNode, log=str(tmp_path / "log"))
        player.introduce()
        player.episode(stop=3)
        recorded(graph, node, 3)
        rows, newest = node._recording._rows, player.shown[-1].step.stamp_ns
        graph.until(lambda rows=rows, newest=newest: rows.joined_ns == newest)
        graph.remove(node)
    log = LogReader(tmp_path / "log")
    assert log.episodes["length"].tolist() == [4, 4]


def test_evaluation_may_be_left_out(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"), evaluation=False)
    player = Player(graph, StopCriteria(eval_every=1, eval_episodes=1))
    player.introduce()
    for _ in range(4):
        player.episode()
    recorded(graph, node, 10)
    stamps = LogReader(tmp_path / "log").read("stamp", 0, 10)
    trained = [a.step.stamp_ns for a in player.shown if a.step.explore]
    assert stamps.tolist() == trained
    graph.until(lambda: len(player.recorded) == 4)  # the robot is not kept waiting


def test_a_second_writer_is_refused_in_one_line(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    player.episode()
    graph.until(lambda: (tmp_path / "log" / "zarr.json").exists())
    with pytest.raises(UserError) as error:
        graph.add(RecorderNode, log=str(tmp_path / "log"))
    assert "\n" not in str(error.value)


def test_a_log_of_another_robot_is_refused(graph, tmp_path) -> None:
    spec = PointRobot().spec.log_spec()
    other = type(spec)(**{**vars(spec), "task": "elsewhere"})
    LogWriter(tmp_path / "log", other).close()
    graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    with pytest.raises(UserError, match="elsewhere"):
        player.introduce()
        graph.spin(2.0)


def test_a_foreign_folder_is_refused(graph, tmp_path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "zarr.json").write_text("{}")
    with pytest.raises(UserError):
        graph.add(RecorderNode, log=str(tmp_path / "log"))


def test_a_camera_that_the_robot_has_not_is_refused(graph, tmp_path) -> None:
    graph.add(RecorderNode, log=str(tmp_path / "log"), cameras=["bottom"])
    with pytest.raises(UserError, match="top"):
        Player(graph).introduce()
        graph.spin(2.0)


def test_a_full_disk_stops_recording_and_nothing_else(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("wm_nodes.episodes.recording.RETRY_S", 0.2)
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    player.episode()
    recorded(graph, node, 5)

    def full(self, row):
        raise LogFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(LogWriter, "append", full)
        player.episode()
        graph.until(lambda: "log" in node.diagnostics.active_faults)
    graph.spin(0.3)
    player.episode()
    graph.until(lambda: "log" not in node.diagnostics.active_faults)
    recorded(graph, node, 10)
    assert LogReader(tmp_path / "log").episodes["length"].tolist() == [5, 5]


def test_bad_messages_are_dropped_and_counted(graph, tmp_path) -> None:
    node = graph.add(RecorderNode, log=str(tmp_path / "log"))
    player = Player(graph)
    player.introduce()
    player.image.publish(ImageMsg())
    player.joints.publish(messages.joints_to_msg(("y",), np.float32([0]), 1))
    player.joints.publish(messages.joints_to_msg(("x",), np.float32([np.inf]), 1))
    player.episode()
    player.image.publish(messages.image_to_msg(np.zeros((9, 9, 3), np.uint8), 1))
    recorded(graph, node, 5)
    expected = {
        "top/image/encoding": 1,
        "top/image/size": 1,
        "joint_states/names": 1,
        "joint_states/non-finite": 1,
    }
    graph.until(lambda: dict(node.diagnostics.drops) == expected)
