"""Records demonstrations of a task's scripted expert into a log of their own, then ends."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from wm_datasets.errors import LogError
from wm_nodes.episodes.collect import NoisyExpert, collect
from wm_nodes.errors import UserError
from wm_nodes.evaluation.evaluate import EpisodeRow
from wm_nodes.robots.opening import limits_of, open_robot, script_of
from wm_nodes.robots.robot import RobotError
from wm_nodes.ros import spin
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param

STREAM = 1_000_003  # added to the seed: demonstrations are other episodes than the run's


@dataclass(frozen=True)
class DemonstratorParams(NodeParams):
    out: str = param("runs/run/demos", "Replay log to write; an existing one is kept unchanged.")
    adapter: str = param("metaworld", "Robot: the same value as of the robot node.")
    task: str = param("drawer-close-v3", "Task: the same value as of the robot node.")
    episodes: int = param(20, "Number of demonstrations.", low=1)
    noise: float = param(
        0.5,
        "Standard deviation of the action noise in three of four episodes, as a share of half the "
        "action range.",
        low=0.0,
    )
    seed: int = param(0, "Seed of episodes and noise.", low=0, high=2**31 - 1)
    action_repeat: int = param(2, "Simulator steps per agent step.", low=1, high=20)
    time_limit: int = param(100, "Agent steps per episode.", low=1)
    render: str = param(
        "auto",
        "Rendering quality: full, fast, or auto (full on a GPU, else fast).",
        choices=("auto", "fast", "full"),
    )
    camera: str = param("corner4", "Camera of the simulator.")
    size: int = param(64, "Side of the images [px].", low=8, high=1024)
    limits: str = param("", "YAML file of action limits: the same value as of the robot node.")


class DemonstratorNode(ManagedNode[DemonstratorParams]):
    """Writes a complete log or none: the folder is renamed after the last episode."""

    NAME = "demonstrator"

    def activate(self) -> None:
        self.diagnostics.ready = True
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._demonstrate, name="demonstrating")
        self._thread.start()
        self._timer = self.create_timer(0.1, self._watch)

    def deactivate(self) -> None:
        self._stop.set()
        self._thread.join()
        self.destroy_timer(self._timer)

    def _demonstrate(self) -> None:
        p, out = self.params, Path(self.params.out)
        if out.exists():
            return
        aside = out.with_name(f".{out.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        names = "task seed action_repeat time_limit render camera size".split()
        settings = {name: getattr(p, name) for name in names}
        try:
            with open_robot(p.adapter, settings | limits_of(p.adapter, p.limits)) as robot:
                policy = NoisyExpert(script_of(robot, "expert")(robot), robot.spec, p.noise, p.seed)
                collect(
                    robot,
                    policy,
                    aside,
                    p.episodes,
                    p.seed + STREAM,
                    name="expert",
                    watch=self._count,
                )
            aside.rename(out)
        except Exception as error:  # raised again on the ROS thread
            self._error = error

    def _count(self, row: EpisodeRow) -> None:
        self.diagnostics.facts["episodes"] = str(row.episode + 1)
        if self._stop.is_set():
            raise _Interrupted

    def _watch(self) -> None:
        if self._thread.is_alive():
            return
        if isinstance(self._error, (RobotError, LogError, OSError)):
            raise UserError(str(self._error)) from self._error
        if self._error is not None and not isinstance(self._error, _Interrupted):
            raise self._error
        self.diagnostics.facts["done"] = "true"
        self.finish()


class _Interrupted(Exception):
    """The node was stopped before the last demonstration."""


def main() -> None:
    spin.main(DemonstratorNode)


if __name__ == "__main__":
    main()
