"""The operator sets the arm's goals, with real processes: by file and from the current image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco", reason="needs the [sim] extra")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from tests import domains
from wm_nodes.agent.goals import Goal, read_goal, write_goal
from wm_nodes.cli.main import main
from wm_nodes.errors import UserError
from wm_nodes.robots.arm.config.arm_config import find_config, read_config
from wm_nodes.ros import topics
from wm_nodes.ros.goal_client import GoalClient

pytestmark = pytest.mark.realtime

START_S = 180.0  # a loaded machine imports torch slowly
WM = [sys.executable, "-c", "from wm_nodes.cli.main import main; raise SystemExit(main())"]
ENV = {**os.environ, "ROS_DOMAIN_ID": str(domains.PROCESSES), "OMP_NUM_THREADS": "1"}
QUICK = ("weights:=arm-goal", "horizon:=1", "samples:=8", "iterations:=1", "time_limit:=100000")
PLANS = Path("runs/one/plans")


def test_a_goal_is_read_back_from_its_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    write_goal(tmp_path / "a.png", Goal(image))
    assert read_goal(tmp_path / "a.png").proprio is None
    joints = np.float32([0.1, -2.5])
    write_goal(tmp_path / "b.png", Goal(image, joints), ("one", "two"))
    goal = read_goal(tmp_path / "b.png")
    np.testing.assert_array_equal(goal.image, image)
    np.testing.assert_allclose(goal.proprio, joints, rtol=1e-6)
    (tmp_path / "b.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="without joint states"):
        read_goal(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"expected a name with \.png"):
        write_goal(tmp_path / "c.nothing", Goal(image))


def until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    end = time.monotonic() + START_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.1)


def goals_planned_for(folder: Path) -> list[int]:
    """For each plan, the number of the last goal received on the topic; 0: none yet."""
    plans = folder / PLANS / "plans.jsonl"
    lines = plans.read_text().splitlines() if plans.is_file() else []
    return [json.loads(line)["goal"] for line in lines]


@pytest.mark.timeout(600)
def test_goals_from_files_the_operator_and_the_current_image(tmp_path):
    def wm(*arguments: str) -> str:
        completed = subprocess.run(
            [*WM, "arm", "goal", *arguments], cwd=tmp_path, env=ENV, capture_output=True, text=True
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    write_goal(tmp_path / "first.png", Goal(np.full((64, 64, 3), 99, np.uint8)))
    launch_arguments = ("task:=goal", "goal:=first.png", "plans:=true", "run:=one", *QUICK)
    process = subprocess.Popen(
        [*WM, "launch", "arm_mpc", *launch_arguments],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(process, lambda: goals_planned_for(tmp_path))
        assert set(goals_planned_for(tmp_path)) == {0}  # the scene's own goal did not overrule it

        wm("--keep", "kept.png")
        written_goal = read_goal(tmp_path / "kept.png")
        config = read_config(find_config("arm_sim"))
        names = list(json.loads((tmp_path / "kept.json").read_text()))
        assert names[: len(config.limits.joints)] == list(config.limits.joints)
        joints = written_goal.proprio[: len(config.limits.joints)]
        assert (joints >= config.limits.low - 0.01).all()
        assert (joints <= config.limits.high + 0.01).all()

        wm("kept.png")
        until(process, lambda: 1 in goals_planned_for(tmp_path))
        np.testing.assert_array_equal(
            read_goal(tmp_path / PLANS / "goal-1.png").image, written_goal.image
        )

        assert "the current image is the goal" in wm("--here")
        until(process, lambda: 2 in goals_planned_for(tmp_path))
        current_image = read_goal(tmp_path / PLANS / "goal-2.png").image
        assert current_image.shape == written_goal.image.shape and not np.array_equal(
            current_image, written_goal.image
        )

        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=START_S)
        assert process.returncode == 0, output
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=START_S)


def test_a_goal_without_a_planner_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domains.EMPTY))
    write_goal(tmp_path / "a.png", Goal(np.zeros((8, 8, 3), np.uint8)))
    for arguments in (["a.png"], ["--here"], ["--keep", "b.png"]):
        assert main(["arm", "goal", *arguments, "--ns", "/robot", "--wait-s", "0.3"]) == 2
        printed = capsys.readouterr().err
        assert "wm launch arm_mpc" in printed and printed.count("\n") == 1


def test_a_subscriber_of_images_alone_is_no_planner(tmp_path):
    write_goal(tmp_path / "a.png", Goal(np.zeros((8, 8, 3), np.uint8)))
    context, received = rclpy.Context(), []
    rclpy.init(context=context, domain_id=domains.OWN)
    node = Node("both", context=context, namespace=topics.NAMESPACE)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = GoalClient(node, executor, wait_s=1.0)
    try:
        topics.GOAL.subscription(node, received.append)
        with pytest.raises(UserError, match="no planner takes goals within 1 s"):
            client.send(tmp_path / "a.png")
        assert not received
        topics.GOAL_JOINTS.subscription(node, lambda msg: None)
        client.send(tmp_path / "a.png")
        assert len(received) == 1
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
