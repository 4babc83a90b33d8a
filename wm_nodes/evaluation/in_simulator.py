"""Judge weights in the simulator that a log was recorded in: success and return, with the log's
own task, camera and pace."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_datasets.spec import LogSpec
from wm_nodes.agent.in_process import LearnedPolicy
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.robot import RobotError

SETTINGS = ("camera", "action_repeat", "time_limit", "render")  # of the log's `extra`


@dataclass(frozen=True)
class SimulatorJudge:
    """Episodes of the evaluation stream: the same each time, and never met in training."""

    spec: LogSpec  # of the log that is learned from
    episodes: int
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.spec.robot != "metaworld":
            raise RobotError(
                f"evaluation in the simulator: the log is of robot {self.spec.robot!r}, right is "
                "a log of 'metaworld'. Without --eval-episodes held-out episodes are judged by."
            )

    def __call__(self, weights: Path) -> dict[str, float]:
        """Return success_rate, with its 95 % interval, and mean_return of a version's folder."""
        from wm_nodes.robots.sims.metaworld import MetaWorld

        extra: dict[str, Any] = {k: v for k, v in self.spec.extra.items() if k in SETTINGS}
        with closing(MetaWorld(self.spec.task, seed=self.seed, **extra)) as robot:
            policy = LearnedPolicy.load(weights, robot.spec, seed=self.seed, device=self.device)
            result = evaluate(robot, policy, self.episodes, self.seed)
        low, high = result.success_interval
        return {
            "eval/success_rate": result.success_rate,
            "eval/success_low": low,
            "eval/success_high": high,
            "eval/mean_return": result.mean_return,
        }
