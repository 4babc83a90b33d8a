"""`wm collect --task T --policy expert --out LOG`: record episodes into a replay log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.robot_options import (
    check,
    refuse_background,
    refuse_unknown,
    simulated,
    without_unset,
)
from wm_nodes.errors import UserError, user_errors
from wm_nodes.robots.robot import RobotError

if TYPE_CHECKING:
    from wm_nodes.episodes.collect import CollectionPolicy
    from wm_nodes.evaluation.evaluate import EpisodeRow
    from wm_nodes.robots.robot import Robot

SHOW_S = 2.0


@dataclass(frozen=True)
class Collect:
    """Record scripted demonstrations or random motion into a replay log, without ROS.

    Running the same command again adds the next episodes to the same log.
    """

    out: Path
    """Folder of the replay log; created if it does not exist. Of several tasks: folder of their
    logs, OUT/TASK."""
    robot: str = "metaworld"
    """{robots}, or your own: module:Class or FILE.py:Class."""
    task: str = ""
    """Task of the robot; several, separated by commas, give a log each. Empty: its first."""
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
    """Camera of the simulator; several, separated by commas, where the robot has them. Empty: its
    first."""
    size: int = 64
    """Side of the images [px]."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Rendering: full (shadows), fast (about 10 ms in software), auto (full on a GPU)."""
    background: str = ""
    """dmc: what replaces sky and floor, as of the graph sim_dmc; videos are those of training.
    Empty: none."""


def run(words: Sequence[str]) -> int:
    """Run `wm collect WORDS`."""
    typed = parse(Collect, "collect", words)
    options = _with_defaults(typed)
    tasks = list(dict.fromkeys(task.strip() for task in options.task.split(",")))
    for task in tasks:
        check(simulated(options.robot), task, options.camera)
    if len(tasks) > 1 and (options.out / "zarr.json").exists():
        raise UserError(
            f"--out: got {options.out}, which is a replay log, expected a folder for the logs of "
            f"{len(tasks)} tasks. Name another folder."
        )
    with user_errors(RobotError):
        refuse_unknown(
            typed.robot, task=typed.task, camera=typed.camera, action_repeat=typed.action_repeat
        )
        refuse_background(options.robot, options.background)
    require("size", options.size, 8, 1024)
    require("episodes", options.episodes, 1)
    require("noise", options.noise, 0, 10)
    require("near", options.near, 0, 1)
    require("hold", options.hold, 1)
    require("time-limit", options.time_limit, 1)
    require("action-repeat", options.action_repeat, 0, 20)
    require("seed", options.seed, 0, 2**31 - 1)
    for task in tasks:
        out = options.out / task if len(tasks) > 1 else options.out
        _record(replace(options, task=task, out=out))
    return 0


def _record(options: Collect) -> None:
    """Record the episodes of one task into its log."""
    from wm_datasets import LogError
    from wm_nodes.episodes.collect import collect
    from wm_nodes.robots.opening import open_robot

    names = "task seed camera size action_repeat time_limit render background"
    settings = without_unset({name: getattr(options, name) for name in names.split()})
    with (
        user_errors(RobotError, LogError, OSError),
        closing(open_robot(options.robot, settings)) as robot,
    ):
        show = _Progress(options.episodes, scored=robot.spec.success)
        policy = _policy(options, robot)
        result = collect(
            robot, policy, options.out, options.episodes, options.seed,
            name=options.policy, watch=show,
        )  # fmt: skip
    print(f"{result}\nlog: {options.out}")


def _with_defaults(options: Collect) -> Collect:
    robot = simulated(options.robot)
    return replace(
        options,
        task=options.task or robot.tasks[0],
        camera=options.camera or robot.cameras[0],
        action_repeat=options.action_repeat or robot.action_repeat,
    )


def _policy(options: Collect, robot: Robot) -> CollectionPolicy:
    from wm_nodes.episodes.collect import HeldRandom, NoisyExpert
    from wm_nodes.robots.opening import script_of

    if options.policy == "random":
        return HeldRandom(robot.spec, options.hold, options.seed)
    make = script_of(robot, options.policy)
    if options.policy == "play":
        policy: CollectionPolicy = make(robot, options.seed, options.near)
        return policy
    return NoisyExpert(make(robot), robot.spec, options.noise, options.seed)


class _Progress:
    """Prints a line at most every SHOW_S seconds."""

    def __init__(self, episodes: int, *, scored: bool) -> None:
        """scored: does the task report success?"""
        self._scored = scored
        self._episodes, self._done, self._steps, self._successes = episodes, 0, 0, 0
        self._start_s = self._shown_s = time.monotonic()

    def __call__(self, row: EpisodeRow) -> None:
        self._done += 1
        self._steps += row.length
        self._successes += row.success
        now = time.monotonic()
        if now - self._shown_s < SHOW_S:
            return
        self._shown_s = now
        success = f"{self._successes} with success, " if self._scored else ""
        print(
            f"{self._done}/{self._episodes} episodes, {success}"
            f"{self._steps} agent steps, {self._steps / (now - self._start_s):.0f}/s",
            flush=True,
        )
