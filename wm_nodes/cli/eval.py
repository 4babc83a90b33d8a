"""`wm eval --policy ...`: a policy on fresh episodes, with confidence intervals, without ROS."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wm_nodes.cli.arguments import parse, require, require_one_of
from wm_nodes.errors import UserError, user_errors
from wm_nodes.graphs.arguments import find_weights
from wm_nodes.graphs.sim_metaworld import CAMERAS, TASKS

if TYPE_CHECKING:
    from wm_nodes.policies import Policy
    from wm_nodes.robots.metaworld import MetaWorld


@dataclass(frozen=True)
class Eval:
    """Success and return of a policy over fresh episodes, with 95 % intervals.

    Every policy meets the same episodes; none of them is met in training.
    """

    policy: Literal["agent", "random", "constant", "expert", "open_loop", "open_loop_best"] = (
        "agent"
    )
    """Blind baselines, the scripted expert, or an agent of ours."""
    task: str = "drawer-close-v3"
    """Meta-World task."""
    weights: str = ""
    """The agent's checkpoint: a folder, a run's weights folder, or the name of a shipped one."""
    episodes: int = 20
    """Episodes to judge by."""
    seed: int = 0
    """Seed of the episodes and of the policy."""
    planner: Literal["actor", "cem", "mppi"] = "actor"
    """What chooses the agent's action."""
    device: str = "auto"
    """Where the agent computes: cpu, cuda, or auto (the GPU where there is one)."""
    action_repeat: int = 2
    """Simulator steps per decision."""
    time_limit: int = 250
    """Decisions per episode."""
    camera: str = "corner4"
    """Camera of the simulator."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Pictures."""
    csv: Path | None = None
    """Write one line per episode here."""
    json: bool = False
    """Print JSON instead of text."""


def run(words: Sequence[str]) -> int:
    """Run `wm eval WORDS`."""
    wanted = parse(Eval, "eval", words)
    _check(wanted)

    from wm_models.checkpoint import WeightsError
    from wm_models.interface import ModelError
    from wm_nodes.evaluate import evaluate
    from wm_nodes.robots.base import RobotError
    from wm_nodes.robots.metaworld import MetaWorld

    mistakes = (RobotError, WeightsError, ModelError, OSError)
    with user_errors(*mistakes), closing(MetaWorld(**_settings(wanted))) as robot:
        policy = _policy(wanted, robot)
        result = evaluate(robot, policy, wanted.episodes, wanted.seed, name=wanted.policy)
        if wanted.csv is not None:
            result.write_csv(wanted.csv)
    print(json.dumps(result.summary(), indent=2) if wanted.json else result)
    return 0


def _check(wanted: Eval) -> None:
    require_one_of("task", wanted.task, [f"{task}-v3" for task in TASKS])
    require_one_of("camera", wanted.camera, CAMERAS)
    require("episodes", wanted.episodes, 1)
    require("seed", wanted.seed, 0, 2**31 - 1)
    require("action-repeat", wanted.action_repeat, 1, 20)
    require("time-limit", wanted.time_limit, 1)
    if wanted.policy == "agent" and not wanted.weights:
        raise UserError("--weights: an agent needs some: a folder, or the name of a shipped one.")
    if wanted.csv is not None and not wanted.csv.parent.is_dir():
        raise UserError(f"--csv: there is no folder {wanted.csv.parent}.")


def _settings(wanted: Eval) -> dict[str, Any]:
    blind = wanted.policy != "agent"
    return {
        "task": wanted.task,
        "seed": wanted.seed,
        "camera": wanted.camera,
        "action_repeat": wanted.action_repeat,
        "time_limit": wanted.time_limit,
        "render": "none" if blind else wanted.render,
    }


def _policy(wanted: Eval, robot: MetaWorld) -> Policy:
    if wanted.policy != "agent":
        from wm_nodes.policies import baseline

        return baseline(wanted.policy, robot, wanted.seed, _settings(wanted))
    import torch

    from wm_nodes.learned import LearnedPolicy, differences

    torch.set_num_threads(1)  # as in the nodes: the same numbers
    folder = find_weights(wanted.weights)
    for difference in differences(folder, robot.spec):
        print(f"wm eval: note: {difference}", file=sys.stderr)
    return LearnedPolicy.load(
        folder, robot.spec, seed=wanted.seed, planner=wanted.planner, device=wanted.device
    )
