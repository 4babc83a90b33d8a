"""`wm eval --policy ...`: a policy on fresh episodes, with confidence intervals, without ROS."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wm_models.planners.registry import PLANNERS
from wm_nodes.cli.arguments import parse, require, require_device
from wm_nodes.cli.options import Choices
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.cli.robot_options import (
    OWN,
    check,
    family,
    given_only,
    refuse_unknown,
    simulated,
)
from wm_nodes.errors import MessageError, UserError, user_errors
from wm_nodes.graphs.weights import WeightFacts, find_weights, read_facts
from wm_nodes.robots.registry import ROBOTS, SIMULATED
from wm_nodes.robots.robot import GoalTask, RobotError

if TYPE_CHECKING:
    from wm_nodes.agent.action_selection import SearchSettings
    from wm_nodes.agent.in_process import LearnedPolicy
    from wm_nodes.evaluation.evaluate import EpisodeRow, EvaluationResult
    from wm_nodes.evaluation.policy import Policy
    from wm_nodes.robots.robot import Robot

INTERRUPTED = 130  # exit code
BLIND = ("constant", "open_loop", "open_loop_best")  # of Meta-World
BASELINES: tuple[Literal["random", "hold"], ...] = ("random", "hold")  # beside tasks with a goal


@dataclass(frozen=True)
class Eval:
    """Success and return of a policy over fresh episodes, with 95 % intervals.

    Every policy gets the same episodes; none of them is part of training.
    """

    policy: Literal[
        "agent", "random", "hold", "constant", "expert", "open_loop", "open_loop_best"
    ] = "agent"
    """agent: trained weights; random and hold (stand still); constant, open_loop, open_loop_best:
    baselines that ignore images (metaworld); expert: the task's scripted policy."""
    robot: str = ""
    """{robots}, or one of your own: module:Class or FILE.py:Class; empty: the weights' own, else
    metaworld."""
    task: str = ""
    """Task of the robot; empty: that of the weights, else the robot's first. A task other than that
    of the weights is refused."""
    weights: str = ""
    """The agent's checkpoint: a folder, a run's weights folder, or the name of a shipped one."""
    episodes: int = 20
    """Number of evaluation episodes."""
    seed: int = 0
    """Seed of the episodes and of the policy."""
    planner: Annotated[str, Choices(("", *PLANNERS))] = ""
    """Planner of the agent; empty: its actor, or cem where the model has none."""
    horizon: int = 0
    """Horizon of the search, in model steps; 0: the model's default."""
    samples: int = 0
    """cem, mppi: candidates per iteration; 0: the model's default."""
    iterations: int = 0
    """Iterations of the search; 0: the model's default."""
    temperature: float = 0.0
    """mppi: how much the best candidates outweigh the others; 0: the model's default."""
    execute: int = 0
    """Actions of a plan that are executed before the next search; 0: the model's default."""
    goal_visual: float = 1.0
    """Weight of the goal's image in the cost."""
    goal_proprio: float = 1.0
    """Weight of the goal's proprioception in the cost, beside the image. The model predicts it from
    the goal image."""
    objective: Literal["", "last", "all"] = ""
    """Steps of a plan that are compared with the goal: last or all; empty: the model's default."""
    goal_joints: bool = False
    """Give the agent the goal's proprioception beside its image, as DINO-WM's release does."""
    actuation_delay_s: float = 0.0
    """Simulated arm: delay of its actuation [s]."""
    delay_s: float = 0.0
    """The actuation delay that the agent compensates [s]."""
    thinking_s: float = 0.0
    """Simulated time between an observation and its plan [s], as in real time; 0: none."""
    compensate: bool = True
    """Plan from the state expected when the plan takes effect."""
    device: str = "auto"
    """Device of the agent: cpu, cuda, or auto (the GPU if there is one)."""
    action_repeat: int = 0
    """Simulator steps (arm: control periods of 20 ms) per agent step; 0: that of the weights, else
    the robot's default."""
    time_limit: int = 0
    """Agent steps per episode; 0: the robot's longest (metaworld 250, others 60)."""
    camera: str = ""
    """Camera of the simulator; empty: that of the weights, else the robot's first."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Rendering: full (shadows), fast (about 10 ms in software), auto (full on a GPU)."""
    csv: Path | None = None
    """CSV file to write, one line per episode."""
    json: bool = False
    """Print JSON instead of text."""


def run(words: Sequence[str]) -> int:
    """Run `wm eval WORDS`."""
    asked = parse(Eval, "eval", words)
    _check(asked)
    wanted = _with_defaults(asked, _facts(asked))
    check(simulated(wanted.robot), wanted.task, wanted.camera)
    with user_errors(RobotError):
        refuse_unknown(wanted.robot, task=asked.task, action_repeat=asked.action_repeat)
        _check_robot(wanted, family(wanted.robot))

    from wm_models.errors import ModelError
    from wm_models.weights.manifest import WeightsError
    from wm_nodes.agent.in_process import LearnedPolicy
    from wm_nodes.robots.opening import open_robot

    mistakes = (RobotError, WeightsError, ModelError, MessageError, OSError)
    with user_errors(*mistakes), closing(open_robot(wanted.robot, _settings(wanted))) as robot:
        if wanted.actuation_delay_s:
            _delay(robot, wanted.actuation_delay_s)
        policy = _policy(wanted, robot)
        result = _evaluate(robot, policy, wanted)
        cut = len(result.rows) < wanted.episodes
        beside = () if cut else _beside(robot, wanted)
        if wanted.csv is not None:
            result.write_csv(wanted.csv)
    pace = policy.thought() if isinstance(policy, LearnedPolicy) else {}
    if wanted.json:
        found = {**result.summary(), **pace, "interrupted": cut}
        found |= {"baselines": {each.policy: each.summary() for each in beside}} if beside else {}
        print(json.dumps(found, indent=2))
        return INTERRUPTED if cut else 0
    print(result)
    if result.nearness is not None:
        print(result.nearness)
    for each in beside:
        print(f"beside it: {each}")
        if each.nearness is not None:
            print(each.nearness)
    if pace:
        print(", ".join(f"{name} {value:g}" for name, value in pace.items()))
    if cut:
        print(f"interrupted after {len(result.rows)} of {wanted.episodes} episodes")
    return INTERRUPTED if cut else 0


def _evaluate(robot: Robot, policy: Policy, wanted: Eval) -> EvaluationResult:
    """Run the episodes, showing how far they are; Ctrl-C keeps those that are finished."""
    from wm_nodes.evaluation.evaluate import EvaluationResult, evaluate

    bar, began_s = Bar(wanted.episodes, "episodes", sys.stderr), time.monotonic()
    rows: list[EpisodeRow] = []

    def done(row: EpisodeRow) -> None:
        rows.append(row)
        rate = len(rows) / (time.monotonic() - began_s)
        text = f"success {sum(each.success for each in rows) / len(rows):.2f}"
        bar.show(len(rows), rate, text, now=len(rows) == wanted.episodes)

    try:
        bar.show(0, 0.0, "")
        return evaluate(robot, policy, wanted.episodes, wanted.seed, name=wanted.policy, done=done)
    except KeyboardInterrupt:
        if not rows:
            raise
        return EvaluationResult(robot.spec.task, wanted.policy, wanted.seed, tuple(rows))
    finally:
        bar.close()


def _beside(robot: Robot, wanted: Eval) -> tuple[EvaluationResult, ...]:
    """What random actions and standing still reach in the same episodes, where the task shows a
    goal: what does not do better has not found it. Nothing of tasks without one.

    `robot` has begun an episode.
    """
    from wm_nodes.evaluation.evaluate import evaluate
    from wm_nodes.robots.opening import open_robot

    if not isinstance(robot, GoalTask) or robot.goal() is None:
        return ()
    results = []
    for name in BASELINES:
        if name == wanted.policy:
            continue
        plain = replace(wanted, policy=name, weights="")
        try:
            with closing(open_robot(wanted.robot, _settings(plain))) as own:
                if wanted.actuation_delay_s:
                    _delay(own, wanted.actuation_delay_s)
                policy = _policy(plain, own)
                results.append(evaluate(own, policy, wanted.episodes, wanted.seed, name=name))
        except KeyboardInterrupt:  # what was asked for is finished and to be shown
            break
    return tuple(results)


def _facts(wanted: Eval) -> WeightFacts | None:
    """What the agent's weights say of themselves; None without any."""
    return read_facts(find_weights(wanted.weights)) if wanted.weights else None


def _with_defaults(wanted: Eval, facts: WeightFacts | None) -> Eval:
    """Fill what is not given from the weights. UserError: it is given, and another."""
    own = facts.robot if facts is not None else ""
    name = wanted.robot or own or "metaworld"
    if not wanted.robot and name not in SIMULATED:
        raise UserError(
            f"--robot: the weights are of {own!r}, which is none of {', '.join(SIMULATED)}. Right: "
            "one of these, or that robot as module:Class or FILE.py:Class."
        )
    robot = simulated(name)
    if own in SIMULATED and name != own:
        raise UserError(
            f"--robot: given {name!r}, but the weights were made for {own!r}. Leave it out."
        )
    same = own == name or (robot is OWN and bool(own))
    task = facts.task if facts is not None and same else ""
    if task and wanted.task not in ("", task, *(robot.tasks if task in robot.general else ())):
        raise UserError(
            f"--task: given {wanted.task!r}, but the weights were made for task {task!r}. Right: "
            "leave it out, or other weights."
        )
    made = facts.made_with if facts is not None and same else {}
    filled: dict[str, Any] = {
        "robot": name,
        "task": wanted.task or task or robot.tasks[0],
        "camera": wanted.camera or str(made.get("camera", "")) or robot.cameras[0],
        "action_repeat": wanted.action_repeat or made.get("action_repeat") or robot.action_repeat,
        "time_limit": wanted.time_limit or _time_limit(name),
    }
    return replace(wanted, **filled)


def _time_limit(robot: str) -> int:
    """Return how many agent steps an episode has; 0: as the robot's class says."""
    if simulated(robot) is OWN:
        return 0
    return SIMULATED[robot].time_limit


def _check(wanted: Eval) -> None:
    """Refuse what is wrong whatever the robot is."""
    require("episodes", wanted.episodes, 1)
    require("seed", wanted.seed, 0, 2**31 - 1)
    require("action-repeat", wanted.action_repeat, 0, 20)
    require("time-limit", wanted.time_limit, 0)
    for name in ("horizon", "samples", "iterations"):
        require(name, getattr(wanted, name), 0)
    require("execute", wanted.execute, 0)
    for name in ("temperature", "goal_visual", "goal_proprio"):
        require(name.replace("_", "-"), getattr(wanted, name), 0.0)
    for name in ("actuation_delay_s", "delay_s", "thinking_s"):
        require(name.replace("_", "-"), getattr(wanted, name), 0.0, 2.0)
    require_device(wanted.device)
    if wanted.policy != "agent" and wanted.weights:
        raise UserError(f"--weights: policy {wanted.policy} has none. Right: --policy agent.")
    if wanted.csv is not None and not wanted.csv.parent.is_dir():
        raise UserError(f"--csv: there is no folder {wanted.csv.parent}.")


def _check_robot(wanted: Eval, kind: str) -> None:
    """Refuse what a robot of this family cannot do, and an agent without weights."""
    if wanted.policy == "agent" and not wanted.weights:
        raise UserError("--weights: an agent needs some: a folder, or the name of a shipped one.")
    if wanted.actuation_delay_s and kind != "arm_sim":
        raise UserError("--actuation-delay-s: only arm_sim can be late. Right: --robot arm_sim.")
    if wanted.policy in BLIND and kind != "metaworld":
        raise UserError(f"--policy: {wanted.policy} is of metaworld. Right: agent, random or hold.")
    if wanted.policy == "expert" and not (kind and ROBOTS[kind].expert):
        raise UserError(f"--policy: {wanted.robot} has no script. Right: agent, random or hold.")


def _settings(wanted: Eval) -> dict[str, Any]:
    blind = wanted.policy != "agent" and family(wanted.robot)
    settings = {
        "task": wanted.task,
        "seed": wanted.seed,
        "camera": wanted.camera,
        "action_repeat": wanted.action_repeat,
        "time_limit": wanted.time_limit,
        "render": "none" if blind else wanted.render,
    }
    return given_only(settings)


def _policy(wanted: Eval, robot: Robot) -> Policy:
    if wanted.policy == "agent":
        return _agent(wanted, robot)
    if wanted.policy == "hold":
        from wm_nodes.evaluation.baselines import Hold

        return Hold(robot)
    if wanted.policy == "random":
        from wm_nodes.evaluation.baselines import Random

        return Random(robot, wanted.seed)
    if wanted.policy == "expert":
        from wm_nodes.robots.opening import script_of

        expert: Policy = script_of(robot, "expert")(robot)
        return expert
    from wm_nodes.evaluation.baselines import baseline
    from wm_nodes.robots.sims.metaworld import MetaWorld

    assert isinstance(robot, MetaWorld)
    return baseline(wanted.policy, robot, wanted.seed, _settings(wanted))


def _agent(wanted: Eval, robot: Robot) -> LearnedPolicy:
    import torch

    from wm_nodes.agent.device import pick_device
    from wm_nodes.agent.in_process import NEEDS, LearnedPolicy, differences, goal_of, only_camera
    from wm_nodes.agent.weights import load_weights

    torch.set_num_threads(1)  # as in the nodes: the same numbers
    folder = find_weights(wanted.weights)
    for difference in differences(folder, robot.spec):
        print(f"wm eval: note: {difference}", file=sys.stderr)
    weights = load_weights(folder, NEEDS, pick_device(wanted.device))
    camera = only_camera(robot.spec, wanted.camera)
    return LearnedPolicy(
        weights,
        robot.spec,
        seed=wanted.seed,
        planner=wanted.planner,
        search=_search_settings(wanted),
        camera=camera,
        goal=goal_of(robot, camera, joints=wanted.goal_joints),
        delay_s=wanted.delay_s,
        thinking_s=wanted.thinking_s,
        compensate=wanted.compensate,
    )


def _search_settings(wanted: Eval) -> SearchSettings:
    from wm_nodes.agent.action_selection import SearchSettings

    return SearchSettings(
        horizon=wanted.horizon,
        samples=wanted.samples,
        iterations=wanted.iterations,
        execute=wanted.execute,
        temperature=wanted.temperature,
        goal_visual=wanted.goal_visual,
        goal_proprio=wanted.goal_proprio,
        objective=wanted.objective,
    )


def _delay(robot: Robot, seconds: float) -> None:
    from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

    assert isinstance(robot, SimulatedArm)
    robot.switches.actuation_delay_s = seconds
