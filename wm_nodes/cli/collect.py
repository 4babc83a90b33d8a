"""`wm collect --task T --policy expert --out LOG`: demonstrations or play into a replay log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.errors import user_errors
from wm_nodes.graphs.sim_metaworld import CAMERAS, TASKS

if TYPE_CHECKING:
    from wm_nodes.collect import Player
    from wm_nodes.evaluate import EpisodeRow
    from wm_nodes.robots.metaworld import MetaWorld

SHOW_S = 2.0


@dataclass(frozen=True)
class Collect:
    """Record demonstrations (expert) or play (random) into a replay log, without ROS.

    The same command again adds the next episodes to the same log.
    """

    out: Path
    """Folder of the replay log; made if it is not there."""
    task: str = "drawer-close-v3"
    """Meta-World task."""
    policy: Literal["expert", "random"] = "expert"
    """expert: the task's script, which reads the simulator's state; random: uniform actions."""
    episodes: int = 20
    """Episodes to add."""
    noise: float = 0.5
    """expert: standard deviation of the noise in three of four episodes; 0: none. The log keeps
    what the expert meant as `commanded`."""
    hold: float = 1.0
    """random: decisions for which an action is held, in the mean."""
    time_limit: int = 100
    """Decisions per episode."""
    action_repeat: int = 2
    """Simulator steps per decision."""
    seed: int = 0
    """Seed of episodes and noise."""
    camera: str = "corner4"
    """Camera of the simulator."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Pictures."""


def run(words: Sequence[str]) -> int:
    """Run `wm collect WORDS`."""
    wanted = parse(Collect, "collect", words)
    require_one_of("task", wanted.task, [f"{task}-v3" for task in TASKS])
    require_one_of("camera", wanted.camera, CAMERAS)
    require("episodes", wanted.episodes, 1)
    require("noise", wanted.noise, 0, 10)
    require("hold", wanted.hold, 1)
    require("time-limit", wanted.time_limit, 1)
    require("action-repeat", wanted.action_repeat, 1, 20)
    require("seed", wanted.seed, 0, 2**31 - 1)

    from wm_datasets import LogError
    from wm_nodes.collect import collect
    from wm_nodes.robots.base import RobotError
    from wm_nodes.robots.metaworld import MetaWorld

    settings = {
        name: getattr(wanted, name)
        for name in ("task", "seed", "camera", "action_repeat", "time_limit", "render")
    }
    with user_errors(RobotError, LogError, OSError), closing(MetaWorld(**settings)) as robot:
        show = _Progress(wanted.episodes)
        player = _player(wanted, robot)
        result = collect(
            robot, player, wanted.out, wanted.episodes, wanted.seed,
            name=wanted.policy, watch=show,
        )  # fmt: skip
    print(f"{result}\nlog: {wanted.out}")
    return 0


def _player(wanted: Collect, robot: MetaWorld) -> Player:
    from wm_nodes.collect import HeldRandom, NoisyExpert
    from wm_nodes.policies import Expert

    if wanted.policy == "random":
        return HeldRandom(robot.spec, wanted.hold, wanted.seed)
    return NoisyExpert(Expert(robot), robot.spec, wanted.noise, wanted.seed)


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
            f"{self._decisions} decisions, {self._decisions / (now - self._began):.0f}/s",
            flush=True,
        )
