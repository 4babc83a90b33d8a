"""Evaluate weights in the simulator that a log was recorded in: success and return."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_datasets.spec import LogSpec
from wm_models.weights.store import read_manifest
from wm_nodes.agent.in_process import LearnedPolicy, chosen_cameras, goal_of
from wm_nodes.evaluation.evaluate import evaluate
from wm_nodes.robots.cameras.names import camera_names, joined
from wm_nodes.robots.opening import open_robot
from wm_nodes.robots.registry import SIMULATED
from wm_nodes.robots.robot import Robot, RobotError


@dataclass(frozen=True)
class SimulatorEvaluation:
    """Episodes of the evaluation stream: equal each time, and never part of training.

    spec: of the log that is learned from; the robot, its task and its settings are those of the
    log. RobotError: no simulator of the registry recorded it.
    """

    spec: LogSpec
    episodes: int
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.spec.robot not in SIMULATED:
            raise RobotError(
                f"evaluation in the simulator: got a log of robot {self.spec.robot!r}, expected "
                f"one of {', '.join(SIMULATED)}. Leave --eval-episodes out: held-out episodes are "
                "evaluated."
            )

    def open(self) -> Robot:
        """Open the simulator as it was when the log was recorded."""
        spec = self.spec
        settings: dict[str, Any] = {**spec.extra, "task": spec.task, "seed": self.seed}
        settings["limits"] = spec.action
        if spec.cameras:
            settings["camera"] = ",".join(spec.cameras)
            settings["size"] = next(iter(spec.cameras.values()))[0]
        return open_robot(spec.robot, settings)

    def __call__(self, weights: Path) -> dict[str, float]:
        """Return mean_return of a version's folder, and success_rate with its 95 % interval where
        the task reports success."""
        with closing(self.open()) as robot:
            trained_on = camera_names(str(read_manifest(weights).extra.get("camera", "")))
            known = bool(trained_on) and set(trained_on) <= robot.spec.cameras.keys()
            cameras = trained_on if known else chosen_cameras(robot.spec, "")
            policy = LearnedPolicy.load(
                weights,
                robot.spec,
                seed=self.seed,
                device=self.device,
                camera=joined(cameras),
                goal=goal_of(robot, cameras[0]),
            )
            result = evaluate(robot, policy, self.episodes, self.seed)
        figures = {"eval/mean_return": result.mean_return}
        if not result.scored:
            return figures
        low, high = result.success_interval
        return {
            "eval/success_rate": result.success_rate,
            "eval/success_low": low,
            "eval/success_high": high,
            **figures,
        }
