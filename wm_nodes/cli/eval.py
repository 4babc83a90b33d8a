"""`wm eval --policy ...`: evaluate a policy on new episodes, with confidence intervals, without
ROS."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wm_models.planners.registry import PLANNERS
from wm_models.registry import is_action_free
from wm_nodes.cli.arguments import parse, require, require_device
from wm_nodes.cli.options import Choices
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.cli.robot_options import (
    OWN,
    check,
    family,
    refuse_background,
    refuse_unknown,
    simulated,
    without_unset,
)
from wm_nodes.errors import MessageError, UserError, user_errors
from wm_nodes.graphs.weights import WeightFacts, find_weights, read_facts
from wm_nodes.robots.cameras.names import camera_names, contradiction, joined
from wm_nodes.robots.registry import ROBOTS, SIMULATED
from wm_nodes.robots.robot import GoalTask, RobotError

if TYPE_CHECKING:
    from wm_nodes.agent.action_selection import SearchSettings
    from wm_nodes.agent.in_process import LearnedPolicy
    from wm_nodes.evaluation.evaluate import EpisodeRow, EvaluationResult
    from wm_nodes.evaluation.policy import Policy
    from wm_nodes.robots.robot import Robot

INTERRUPTED = 130  # exit code
BLIND = ("constant", "open_loop", "open_loop_best")  # of Meta-World; constant also of open tasks
BASELINES: tuple[Literal["random", "hold"], ...] = ("random", "hold")  # beside tasks with a goal


@dataclass(frozen=True)
class Eval:
    """Success and return of a policy over new episodes, with 95 % intervals.

    Every policy gets the same episodes; none of them is part of training.
    """

    policy: Literal[
        "agent", "random", "hold", "constant", "expert", "open_loop", "open_loop_best"
    ] = "agent"
    """agent: trained weights; random and hold (stand still); constant, open_loop, open_loop_best:
    baselines that ignore images (metaworld; constant also with discrete actions); expert: the
    task's scripted policy."""
    robot: str = ""
    """{robots}, or your own: module:Class or FILE.py:Class; empty: that of the weights, else
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
    """Actions of a plan to execute before the next search; 0: the model's default."""
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
    """Agent steps per episode; 0: the robot's longest (metaworld 250, dmc 1000, others 60)."""
    camera: str = ""
    """Camera of the simulator, or several with commas between; empty: those of the weights, else
    the robot's first. Several must be those of the weights, in their order."""
    render: Literal["auto", "fast", "full"] = "auto"
    """Rendering: full (shadows), fast (about 10 ms in software), auto (full on a GPU)."""
    background: str = ""
    """dmc: what replaces sky and floor, as of the graph sim_dmc; videos are those of evaluation.
    Empty: that of the weights, else none."""
    csv: Path | None = None
    """CSV file to write, one line per episode."""
    json: bool = False
    """Print JSON instead of text."""


def run(words: Sequence[str]) -> int:
    """Run `wm eval WORDS`."""
    typed = parse(Eval, "eval", words)
    _check(typed)
    options = _with_defaults(typed, _facts(typed))
    check(simulated(options.robot), options.task, options.camera)
    with user_errors(RobotError):
        refuse_unknown(options.robot, task=typed.task, action_repeat=typed.action_repeat)
        _check_robot(options, family(options.robot))

    from wm_models.errors import ModelError
    from wm_models.weights.manifest import WeightsError
    from wm_nodes.agent.in_process import LearnedPolicy
    from wm_nodes.robots.opening import open_robot

    mistakes = (RobotError, WeightsError, ModelError, MessageError, OSError)
    with user_errors(*mistakes), closing(open_robot(options.robot, _settings(options))) as robot:
        if options.actuation_delay_s:
            _delay(robot, options.actuation_delay_s)
        policy = _policy(options, robot)
        result = _evaluate(robot, policy, options)
        interrupted = len(result.rows) < options.episodes
        baselines = () if interrupted else _baselines(robot, options)
        if options.csv is not None:
            result.write_csv(options.csv)
    pace = policy.thought() if isinstance(policy, LearnedPolicy) else {}
    if options.json:
        print(_as_json(result, baselines, {**pace, "interrupted": interrupted}))
    else:
        print(_as_text(result, baselines, pace, options.episodes))
    return INTERRUPTED if interrupted else 0


def _as_json(
    result: EvaluationResult, baselines: Sequence[EvaluationResult], more: Mapping[str, float]
) -> str:
    content: dict[str, Any] = {**result.summary(), **more}
    if baselines:
        content["baselines"] = {each.policy: each.summary() for each in baselines}
    return json.dumps(content, indent=2)


def _as_text(
    result: EvaluationResult,
    baselines: Sequence[EvaluationResult],
    pace: Mapping[str, float],
    episodes: int,
) -> str:
    """Return the results as lines of text. pace: the agent's figures; episodes: as requested."""
    lines = [str(result)]
    if result.nearness is not None:
        lines.append(str(result.nearness))
    for each in baselines:
        lines.append(f"baseline: {each}")
        if each.nearness is not None:
            lines.append(str(each.nearness))
    if pace:
        lines.append(", ".join(f"{name} {value:g}" for name, value in pace.items()))
    if len(result.rows) < episodes:
        lines.append(f"interrupted after {len(result.rows)} of {episodes} episodes")
    return "\n".join(lines)


def _evaluate(robot: Robot, policy: Policy, options: Eval) -> EvaluationResult:
    """Run the episodes with a progress bar; Ctrl-C keeps those that are finished."""
    from wm_nodes.evaluation.evaluate import EvaluationResult, evaluate

    bar, start_s = Bar(options.episodes, "episodes", sys.stderr), time.monotonic()
    rows: list[EpisodeRow] = []

    def done(row: EpisodeRow) -> None:
        rows.append(row)
        rate = len(rows) / (time.monotonic() - start_s)
        mean = sum(each.total_reward for each in rows) / len(rows)
        success = f"success {sum(each.success for each in rows) / len(rows):.2f}"
        text = success if robot.spec.success else f"return {mean:.0f}"
        bar.show(len(rows), rate, text, now=len(rows) == options.episodes)

    try:
        bar.show(0, 0.0, "")
        return evaluate(
            robot, policy, options.episodes, options.seed, name=options.policy, done=done
        )
    except KeyboardInterrupt:
        if not rows:
            raise
        spec = robot.spec
        return EvaluationResult(spec.task, options.policy, options.seed, tuple(rows), spec.success)
    finally:
        bar.close()


def _baselines(robot: Robot, options: Eval) -> tuple[EvaluationResult, ...]:
    """Return the results of random actions and of standing still in the same episodes.

    A policy that is not better does not reach its goals. () for tasks without a goal. `robot` has
    begun an episode.
    """
    from wm_nodes.evaluation.evaluate import evaluate
    from wm_nodes.robots.opening import open_robot

    if not isinstance(robot, GoalTask) or robot.goal() is None:
        return ()
    results = []
    for name in BASELINES:
        if name == options.policy:
            continue
        plain = replace(options, policy=name, weights="")
        try:
            with closing(open_robot(options.robot, _settings(plain))) as own:
                if options.actuation_delay_s:
                    _delay(own, options.actuation_delay_s)
                policy = _policy(plain, own)
                results.append(evaluate(own, policy, options.episodes, options.seed, name=name))
        except KeyboardInterrupt:  # the requested policy is finished: show its results
            break
    return tuple(results)


def _facts(options: Eval) -> WeightFacts | None:
    """Return the facts in the manifest of the agent's weights; None without weights. UserError:
    they are of a model of videos, which does not act."""
    if not options.weights:
        return None
    facts = read_facts(find_weights(options.weights))
    if is_action_free(facts.preset):
        raise UserError(
            f"--weights: got {facts.folder} of model {facts.preset!r}, which learns from videos "
            "and does not act, expected weights of a model that acts. Give them to wm train "
            "--pretrained."
        )
    return facts


def _with_defaults(options: Eval, facts: WeightFacts | None) -> Eval:
    """Fill unset options from the weights. UserError: an option contradicts the weights."""
    own = facts.robot if facts is not None else ""
    name = options.robot or own or "metaworld"
    if not options.robot and name not in SIMULATED:
        raise UserError(
            f"--robot: got weights of {own!r}, expected one of {', '.join(SIMULATED)}. Give that "
            "robot as module:Class or FILE.py:Class."
        )
    robot = simulated(name)
    if own in SIMULATED and name != own:
        raise UserError(
            f"--robot: got {name!r}, expected {own!r}, the robot of the weights. Leave it out."
        )
    same = own == name or (robot is OWN and bool(own))
    task = facts.task if facts is not None and same else ""
    if task and options.task not in ("", task, *(robot.tasks if task in robot.general else ())):
        raise UserError(
            f"--task: got {options.task!r}, expected {task!r}, the task of the weights. Leave it "
            "out, or give other weights."
        )
    trained_with = facts.trained_with if facts is not None and same else {}
    _check_cameras(options, str(trained_with.get("camera", "")))
    filled: dict[str, Any] = {
        "robot": name,
        "task": options.task or task or robot.tasks[0],
        "camera": options.camera or str(trained_with.get("camera", "")) or robot.cameras[0],
        "action_repeat": (
            options.action_repeat or trained_with.get("action_repeat") or robot.action_repeat
        ),
        "time_limit": options.time_limit or _time_limit(name),
        "background": options.background or str(trained_with.get("background", "")),
    }
    return replace(options, **filled)


def _check_cameras(options: Eval, trained: str) -> None:
    """UserError: --camera contradicts the cameras that the weights were trained with."""
    with user_errors(ValueError):
        given = camera_names(options.camera)
    if trained and given and (why := contradiction(camera_names(trained), given)):
        raise UserError(f"--{why}")


def _time_limit(robot: str) -> int:
    """Return the agent steps of an episode; 0: the default of the robot's class."""
    if simulated(robot) is OWN:
        return 0
    return SIMULATED[robot].time_limit


def _check(options: Eval) -> None:
    """Refuse options that are wrong for every robot."""
    require("episodes", options.episodes, 1)
    require("seed", options.seed, 0, 2**31 - 1)
    require("action-repeat", options.action_repeat, 0, 20)
    require("time-limit", options.time_limit, 0)
    for name in ("horizon", "samples", "iterations"):
        require(name, getattr(options, name), 0)
    require("execute", options.execute, 0)
    for name in ("temperature", "goal_visual", "goal_proprio"):
        require(name.replace("_", "-"), getattr(options, name), 0.0)
    for name in ("actuation_delay_s", "delay_s", "thinking_s"):
        require(name.replace("_", "-"), getattr(options, name), 0.0, 2.0)
    require_device(options.device)
    if options.policy != "agent" and options.weights:
        raise UserError(f"--weights: got policy {options.policy}, expected --policy agent.")
    if options.csv is not None and not options.csv.parent.is_dir():
        raise UserError(f"--csv: got {options.csv}, expected a file in an existing folder.")


def _check_robot(options: Eval, kind: str) -> None:
    """Refuse options that a robot of this family lacks, and an agent without weights."""
    if options.policy == "agent" and not options.weights:
        raise UserError("--weights: got none, expected a folder or the name of shipped weights.")
    if options.actuation_delay_s and kind != "arm_sim":
        raise UserError(
            f"--actuation-delay-s: got robot {options.robot}, expected --robot arm_sim."
        )
    others = "expected agent, random or hold"
    refuse_background(options.robot, options.background)
    opened = (
        options.policy == "constant" and kind and ROBOTS[kind].probe
    )  # then the baseline checks
    if options.policy in BLIND and kind != "metaworld" and not opened:
        raise UserError(f"--policy: got {options.policy}, which needs metaworld, {others}.")
    if options.policy == "expert" and not (kind and ROBOTS[kind].expert):
        raise UserError(f"--policy: got expert, but {options.robot} has no script, {others}.")


def _settings(options: Eval) -> dict[str, Any]:
    blind = options.policy != "agent" and family(options.robot)
    settings = {
        "task": options.task,
        "seed": options.seed,
        "camera": options.camera,
        "action_repeat": options.action_repeat,
        "time_limit": options.time_limit,
        "render": "none" if blind else options.render,
        "background": options.background,
    }
    return without_unset(settings)


def _policy(options: Eval, robot: Robot) -> Policy:
    if options.policy == "agent":
        return _agent(options, robot)
    if options.policy == "hold":
        from wm_nodes.evaluation.baselines import Hold

        return Hold(robot)
    if options.policy == "random":
        from wm_nodes.evaluation.baselines import Random

        return Random(robot, options.seed)
    if options.policy == "expert":
        from wm_nodes.robots.opening import script_of

        expert: Policy = script_of(robot, "expert")(robot)
        return expert
    from wm_nodes.evaluation.baselines import baseline, best_constant
    from wm_nodes.robots.sims.metaworld import MetaWorld

    if options.policy == "constant":
        return best_constant(robot, options.seed)
    assert isinstance(robot, MetaWorld)
    return baseline(options.policy, robot, options.seed, _settings(options))


def _agent(options: Eval, robot: Robot) -> LearnedPolicy:
    import torch

    from wm_nodes.agent.device import pick_device
    from wm_nodes.agent.in_process import NEEDS, LearnedPolicy, chosen_cameras, differences, goal_of
    from wm_nodes.agent.weights import load_weights

    torch.set_num_threads(1)  # as in the nodes: the same numbers
    folder = find_weights(options.weights)
    for difference in differences(folder, robot.spec):
        print(f"wm eval: note: {difference}", file=sys.stderr)
    weights = load_weights(folder, NEEDS, pick_device(options.device))
    cameras = chosen_cameras(robot.spec, options.camera)
    return LearnedPolicy(
        weights,
        robot.spec,
        seed=options.seed,
        planner=options.planner,
        search=_search_settings(options),
        camera=joined(cameras),
        goal=goal_of(robot, cameras[0], joints=options.goal_joints),
        delay_s=options.delay_s,
        thinking_s=options.thinking_s,
        compensate=options.compensate,
    )


def _search_settings(options: Eval) -> SearchSettings:
    from wm_nodes.agent.action_selection import SearchSettings

    return SearchSettings(
        horizon=options.horizon,
        samples=options.samples,
        iterations=options.iterations,
        execute=options.execute,
        temperature=options.temperature,
        goal_visual=options.goal_visual,
        goal_proprio=options.goal_proprio,
        objective=options.objective,
    )


def _delay(robot: Robot, seconds: float) -> None:
    from wm_nodes.robots.arm.sim.arm_sim import SimulatedArm

    assert isinstance(robot, SimulatedArm)
    robot.switches.actuation_delay_s = seconds
