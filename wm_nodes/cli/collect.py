"""`wm collect --task T --policy expert --out LOG`: demonstrations or play into a replay log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.robot_options import check, given_only, refuse_unknown, simulated
from wm_nodes.errors import user_errors
from wm_nodes.robots.robot import RobotError

if TYPE_CHECKING:
    from wm_nodes.episodes.collect import CollectionPolicy
    from wm_nodes.evaluation.evaluate import EpisodeRow
    from wm_nodes.robots.robot import Robot

SHOW_S = 2.0


@dataclass(frozen=True)
class Collect:
    """Record scripted demonstrations or random motion into a replay log, without ROS.

    The same command again adds the next episodes to the same log.
    """

    out: Path
    """Folder of the replay log; created if it does not exist."""
    robot: str = "metaworld"
    """{robots}, or one of your own: module:Class or FILE.py:Class."""
    task: str = ""
    """Task of the robot; empty: its first."""
    policy: Literal["expert", "random", "play"] = "expert"
    """expert: the task's scripted policy, which reads the simulator's state; random: uniform
    actions; play: smooth motion to random places (arm_sim)."""
    episodes: int = 20
    """Episodes to add."""
    noise: float = 0.5
    """expert: standard deviation of the noise added in three of four episodes, as a share of half
    the action range; 0: none. The log keeps the action without noise as `commanded`."""
    near: float = 0.0
    """play: share of the target places that lie within 10 cm of the ball or the cube."""
    hold: float = 1.0
    """random: mean number of agent steps for which an action is held."""
    time_limit: int = 100
    """Agent steps per episode."""
    action_repeat: int = 0
    """Simulator steps (arm: control periods of 20 ms) per agent step; 0: the robot's default."""
    seed: int = 0
    """Seed of episodes and noise."""
    camera: str = ""
    """Camera of the simulator; several with commas between, where the robot has them. Empty: its
    first."""
    size: int = 64
    """Side of the images [px]."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Rendering: full (shadows), fast (about 10 ms in software), auto (full on a GPU)."""


def run(words: Sequence[str]) -> int:
    """Run `wm collect WORDS`."""
    asked = parse(Collect, "collect", words)
    wanted = _with_defaults(asked)
    check(simulated(wanted.robot), wanted.task, wanted.camera)
    with user_errors(RobotError):
        refuse_unknown(
            asked.robot, task=asked.task, camera=asked.camera, action_repeat=asked.action_repeat
        )
    require("size", wanted.size, 8, 1024)
    require("episodes", wanted.episodes, 1)
    require("noise", wanted.noise, 0, 10)
    require("near", wanted.near, 0, 1)
    require("hold", wanted.hold, 1)
    require("time-limit", wanted.time_limit, 1)
    require("action-repeat", wanted.action_repeat, 0, 20)
    require("seed", wanted.seed, 0, 2**31 - 1)

    from wm_datasets import LogError
    from wm_nodes.episodes.collect import collect
    from wm_nodes.robots.opening import open_robot

    names = "task seed camera size action_repeat time_limit render"
    settings = given_only({name: getattr(wanted, name) for name in names.split()})
    with (
        user_errors(RobotError, LogError, OSError),
        closing(open_robot(wanted.robot, settings)) as robot,
    ):
        show = _Progress(wanted.episodes)
        policy = _policy(wanted, robot)
        result = collect(
            robot, policy, wanted.out, wanted.episodes, wanted.seed,
            name=wanted.policy, watch=show,
        )  # fmt: skip
    print(f"{result}\nlog: {wanted.out}")
    return 0


def _with_defaults(wanted: Collect) -> Collect:
    robot = simulated(wanted.robot)
    return replace(
        wanted,
        task=wanted.task or robot.tasks[0],
        camera=wanted.camera or robot.cameras[0],
        action_repeat=wanted.action_repeat or robot.action_repeat,
    )


def _policy(wanted: Collect, robot: Robot) -> CollectionPolicy:
    from wm_nodes.episodes.collect import HeldRandom, NoisyExpert
    from wm_nodes.robots.opening import script_of

    if wanted.policy == "random":
        return HeldRandom(robot.spec, wanted.hold, wanted.seed)
    make = script_of(robot, wanted.policy)
    if wanted.policy == "play":
        policy: CollectionPolicy = make(robot, wanted.seed, wanted.near)
        return policy
    return NoisyExpert(make(robot), robot.spec, wanted.noise, wanted.seed)


class _Progress:
    """A line now and then."""

    def __init__(self, episodes: int) -> None:
        self._episodes, self._done, self._decisions, self._successes = episodes, 0, 0, 0
        self._began = self._shown = time.monotonic()

    def __call__(self, row: EpisodeRow) -> None:
        self._done += 1
        self._decisions += row.length
        self._successes += row.success
        now = time.monotonic()
        if now - self._shown < SHOW_S:
            return
        self._shown = now
        print(
            f"{self._done}/{self._episodes} episodes, {self._successes} with success, "
            f"{self._decisions} agent steps, {self._decisions / (now - self._began):.0f}/s",
            flush=True,
        )
