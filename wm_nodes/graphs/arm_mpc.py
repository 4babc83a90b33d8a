"""An arm, real or simulated, and its planner: a model with a goal, or a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wm_models.planners.registry import SEARCHES
from wm_nodes.assets import shared
from wm_nodes.graphs import path_arguments
from wm_nodes.graphs.arguments import (
    EPISODES,
    LOG,
    MODEL,
    NETWORK,
    NS,
    RUN,
    SEED,
    WEIGHTS,
    check_cameras,
    check_files,
    first_weights,
)
from wm_nodes.graphs.driver_namespace import driver_namespace
from wm_nodes.graphs.graph import (
    Argument,
    Graph,
    GraphError,
    NodeSpec,
    Parameter,
    Values,
    own_namespace,
)
from wm_nodes.namespaces import ROOT, absolute

TASKS = ("reach", "goal", "push", "lift")
SCRIPTED = ("expert", "random", "hold")
SIM, REAL = "sim", "real"
PLANNER_S = 120.0  # longest wait for a planner before an episode begins

ARGUMENTS = (
    Argument(
        "hardware",
        SIM,
        "sim: start arm_sim too; real: start no simulator, change nothing else.",
        choices=(SIM, REAL),
    ),
    Argument("robot", "arm_sim", "A name of config/robots, or the path of a YAML.", fixed=True,
             whole=path_arguments.robot_file),
    Argument("dry_run", False, "Do everything but command the arm."),
    Argument("task", "reach", "Task of the simulated arm: scene, reward, success.", fixed=True),
    Argument(
        "policy",
        "",
        "What plans: model (weights and, for a planner, a goal), expert (the task's script: "
        "simulated arm), random (smooth), hold; empty: model where there are weights, else expert.",
        choices=("", "model", *SCRIPTED),
    ),
    replace(MODEL, default="dino_wm_cpu"),
    WEIGHTS,
    Argument("planner", "cem", "What chooses the action.", choices=(*SEARCHES, "actor")),
    Argument("goal", "", "Image file of the goal; empty: goals come on topic goal/image.",
             whole=path_arguments.path),
    Argument("budget_s", 0.4, "Seconds for a search.", low=0.0, high=10.0),
    Argument("horizon", 0, "Model steps that a search looks ahead; 0: the model's own.", low=0),
    Argument("samples", 0, "Candidates of a search; 0: the model's own.", low=0),
    Argument("iterations", 0, "Iterations of a search; 0: the model's own.", low=0),
    Argument("delay_s", 0.0, "Delay of commands, more than in training [s].", low=0.0, high=2.0),
    Argument("compensate", True, "Plan from where the arm will be when the plan is ready."),
    Argument(
        "execute",
        0,
        "Actions that are executed before the next search; 0: the model's own.",
        low=0,
        high=50,
    ),
    Argument(
        "camera",
        "front",
        "Camera that the model sees, or several with commas between (Dreamers).",
        fixed=True,
        several=True,
    ),
    Argument("home", True, "Go to the home pose before each episode."),
    Argument(
        "confirm_home",
        True,
        "hardware:=real: go home only when the operator calls go_home (wm arm home), each time.",
    ),
    Argument(
        "require_realtime",
        True,
        "hardware:=real: do not start without real-time priority and locked memory.",
    ),
    Argument("speed_scale", 1.0, "All speeds stay below this share of their limits; wm arm speed "
             "changes it while the arm runs.", low=0.05, high=1.0),
    Argument("max_plan_s", 2.0, "Longest time that a plan is followed after its observation [s].",
             low=0.01, high=60.0),
    Argument(
        "tf",
        "auto",
        "Publish /tf; auto: unless another node publishes a robot_description.",
        choices=("auto", "always", "never"),
    ),
    Argument("frame_prefix", "", "Put before the names of all frames."),
    Argument(
        "rate_hz", 0.0, "Control rate; 0: the robot's own (50 Hz).", low=0.0, high=200.0
    ),
    Argument(
        "action_repeat", 5, "Control periods per agent step and row of the log.", low=1, high=50,
        fixed=True,
    ),
    Argument("time_limit", 100, "Agent steps per episode.", low=1, fixed=True),
    EPISODES,
    Argument("evaluate", False, "Evaluation episodes: no noise is added to a plan."),
    Argument("actuation_delay_s", 0.0, "Simulated arm: delay of commands [s].", low=0.0, high=2.0),
    Argument("plans", False, "Record every plan and goal image in the folder plans of the run."),
    Argument("record", True, "Record to the run's log."),
    SEED,
    RUN,
    LOG,
    NETWORK,
    NS,
    Argument(
        "driver_ns",
        "",
        "Namespace of the arm's driver, for relative names of its YAML; relative: as `ns`; empty: "
        "the YAML's.",
        namespace=True,
    ),
)  # fmt: skip


def _pick(values: Values, *names: str) -> dict[str, Parameter]:
    return {name: values[name] for name in names}


def _arm_sim(values: Values) -> Mapping[str, Parameter]:
    own = _pick(values, "robot", "task", "seed", "actuation_delay_s")
    own["robot_ns"] = values["ns"]
    return {**own, "show_goal": not values["goal"]}  # a file has precedence over the scene


def _robot(values: Values) -> Mapping[str, Parameter]:
    real = values["hardware"] == REAL
    names = "robot driver_ns dry_run task home rate_hz action_repeat time_limit episodes evaluate"
    names += " seed tf frame_prefix"
    return {
        **_pick(values, *names.split()),
        "adapter": "arm",
        "mode": "realtime",
        "max_age_s": 0.0,  # a plan is executed to its end and not beyond
        "max_plan_s": values["max_plan_s"],
        "speed_scale": values["speed_scale"],
        "confirm_home": real and values["confirm_home"],
        "require_realtime": real and values["require_realtime"],
        # A simulated arm starts with its run; a real one stays latched over runs.
        "safety_file": "" if real else f"{values['run']}/safety.json",
        "await_planner_s": PLANNER_S,
        "progress": f"{values['run']}/progress.json",
    }


def _scripted_policy(values: Values) -> Mapping[str, Parameter]:
    score = absolute("score", str(values["driver_ns"]))
    return {"policy": _who(values), "score": score, **_pick(values, "task", "seed")}


def _agent(values: Values) -> Mapping[str, Parameter]:
    names = "model run seed planner goal budget_s execute camera"
    names += " horizon samples iterations delay_s compensate"
    return {
        **_pick(values, *names.split()),
        "mode": "realtime",
        "weights": first_weights(values),
        "height": 0,
        "width": 0,
    }


def _who(values: Values) -> str:
    return str(values["policy"] or ("model" if _has_weights(values) else "expert"))


def _has_weights(values: Values) -> bool:
    return bool(values["weights"]) or (Path(str(values["run"])) / "weights").exists()


def _is_scripted(values: Values) -> bool:
    return _who(values) != "model"


def _robot_file(values: Values) -> Path:
    robot = str(values["robot"])
    own = robot.endswith((".yaml", ".yml"))
    return Path(robot) if own else shared(f"config/robots/{robot}.yaml")


def _namespaces(values: Values, pushed: str) -> dict[str, str]:
    configured = absolute(str(values["driver_ns"]), pushed or ROOT)
    driver_ns = configured or driver_namespace(_robot_file(values), pushed)
    return {**own_namespace(values, pushed), "driver_ns": driver_ns}


def _check(values: Values) -> None:
    robot, path = str(values["robot"]), _robot_file(values)
    own = robot.endswith((".yaml", ".yml"))
    if not path.is_file():
        raise GraphError(
            f"robot: got {path}, which does not exist, expected a name of config/robots, or a path."
        )
    if values["hardware"] == SIM and values["task"] not in TASKS:
        raise GraphError(
            f"task: got {values['task']!r}, expected a task of the simulated arm: "
            f"{', '.join(TASKS)}."
        )
    if values["hardware"] == SIM and robot != "arm_sim" and not own:
        raise GraphError(
            f"robot: got {robot}, which is not simulated, expected arm_sim, or hardware:=real."
        )
    if values["hardware"] == REAL and _who(values) == "expert":
        raise GraphError(
            "policy: got expert, which needs a simulator's state, expected model, random or hold."
        )
    if values["goal"] and not Path(str(values["goal"])).expanduser().is_file():
        raise GraphError(f"goal: got {values['goal']!r}, which does not exist, expected a file.")
    if not _is_scripted(values):
        if not _has_weights(values):
            raise GraphError(
                "policy: got model without weights, expected weights:=FOLDER, or policy:=expert."
            )
        check_files(values)
        check_cameras(values)


GRAPH = Graph(
    name="arm_mpc",
    description="An arm, simulated or real, behind a safety filter; a model or a script plans.",
    arguments=ARGUMENTS,
    nodes=(
        NodeSpec(
            "arm_sim",
            "arm_sim",
            _arm_sim,
            condition=lambda values: values["hardware"] == SIM,
            namespace=lambda values: str(values["driver_ns"]),
            stop_rank=2,
        ),
        NodeSpec("scripted_policy", "scripted_policy", _scripted_policy, condition=_is_scripted),
        NodeSpec("agent", "agent", _agent, condition=lambda values: not _is_scripted(values)),
        NodeSpec("robot", "robot", _robot, on_exit="shutdown", grace_s=2.0, stop_rank=0),
        NodeSpec(
            "recorder",
            "recorder",
            lambda values: {"log": values["log"], "raw": True},
            condition=lambda values: bool(values["record"]),
        ),
        NodeSpec(
            "plan_recorder",
            "plan_recorder",
            lambda values: {"folder": f"{values['run']}/plans"},
            condition=lambda values: bool(values["plans"]),
        ),
        NodeSpec(
            "monitor",
            "monitor",
            lambda values: _pick(values, "run", "log"),
            on_exit="shutdown",
            stop_rank=2,
            shown=True,
        ),
    ),
    check=_check,
    namespaces=_namespaces,
    owns=lambda values: ("ns", "driver_ns") if values["hardware"] == SIM else ("ns",),
    moves=lambda values: values["hardware"] == SIM,  # a real arm keeps its namespace
)
