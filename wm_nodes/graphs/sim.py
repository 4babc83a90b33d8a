"""An agent that acts in a simulator and learns from it: any robot of the registry, or your own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

from wm_models.planners.registry import PLANNERS, continuous_search
from wm_models.registry import is_action_free, refusal_of_actions
from wm_nodes.graphs import path_arguments
from wm_nodes.graphs.arguments import (
    ALLOW_MIXED,
    CAPACITY,
    COMPOSITION,
    CONFIG,
    EPISODES,
    HOLD_OUT,
    LOG,
    MODEL,
    NETWORK,
    NS,
    OFFLINE,
    PLANNER,
    PRETRAINED,
    RECENCY,
    REPORT,
    RUN,
    SEED,
    SET,
    STEPS,
    TRAIN,
    WEIGHTS,
    begun_with,
    check_cameras,
    check_files,
    first_pretrained,
    first_weights,
    split_logs,
    trainer_threads,
)
from wm_nodes.graphs.environments import (
    ENVS,
    check_environments,
    count_of,
    has_several,
    implied,
    part_of,
    progress_file,
)
from wm_nodes.graphs.graph import Argument, Graph, GraphError, NodeSpec, Parameter, Value, Values
from wm_nodes.robots import environments
from wm_nodes.robots.cameras.names import camera_names
from wm_nodes.robots.registry import ROBOTS, SIMULATED, RobotEntry
from wm_nodes.robots.sims import background_sources

SEVERAL = "a Dreamer can see several together"
REPORT_S = 180.0  # after the robot's end, for the monitor's report
AHEAD = 100  # agent steps that the robot may be ahead of the trainer's ratio: then it waits
SAME_ROBOT = "adapter task seed action_repeat time_limit render camera size limits".split()
RECORDER_S = 10.0  # an episode begins without the recorder only after so long

MODE = Argument(
    "mode",
    "lockstep",
    "lockstep: the simulator waits for each plan, runs repeat; realtime: it never waits.",
    choices=("lockstep", "realtime"),
)
RENDER = Argument(
    "render",
    "auto",
    "Rendering: full (shadows), fast (about 10 ms in software), auto (full on a GPU).",
    choices=("auto", "fast", "full"),
    fixed=True,
)
SIZE = Argument(
    "size",
    64,
    "Side of the simulator's images [px]; the agent and the log get them at the model's size.",
    low=8,
    high=1024,
    fixed=True,
)
DEMOS = Argument(
    "demos",
    0,
    "Demonstrations by the task's scripted expert, recorded first and learned from; 0: none.",
    low=0,
    high=1000,
    fixed=True,
)
BACKGROUND = Argument(
    "background",
    background_sources.NONE,
    f"What replaces the simulator's sky and floor: {background_sources.HELP}.",
    fixed=True,
    whole=path_arguments.background,
)
EVAL_EVERY = Argument(
    "eval_every",
    0,
    "Agent steps (of all environments) between blocks of evaluation episodes; 0: none.",
    low=0,
)
EVAL_EPISODES = Argument("eval_episodes", 20, "Episodes of an evaluation block.", low=1, high=1000)


ROBOT = Argument(
    "robot",
    next(iter(SIMULATED)),
    "Simulator: "
    + ", ".join(f"{name} ({entry.summary})" for name, entry in SIMULATED.items())
    + ".",
    choices=tuple(SIMULATED),
    fixed=True,
)


@dataclass(frozen=True)
class GraphRobot:
    """A simulated robot, as its graph starts it. Everything that opens it reads `robot`.

    adapter: a name of `robots/registry.py`, or module:Class or FILE.py:Class of your own. Its
    constructor gets those of task, seed, action_repeat, time_limit, render, camera, size, limits,
    background that it takes. tasks, cameras: the choices, the default first. period_ms: of one
    simulator step; 0: the task decides. background: does it take one? time_limit: the longest
    episode, in agent steps. open_tasks: tasks and cameras are examples, the robot knows further
    ones. limits: YAML of action limits; empty:
    config/robots/<adapter>.yaml, or the class's own. demonstrated: has it a scripted expert that
    `demos:=N` records (Meta-World, the simulated arm, or a class derived from them)?
    """

    adapter: str
    tasks: tuple[str, ...]
    cameras: tuple[str, ...]
    period_ms: float
    action_repeat: int = 1
    time_limit: int = 250
    limits: str = ""
    background: bool = False
    demonstrated: bool = False
    open_tasks: bool = False

    @classmethod
    def of(cls, name: str) -> GraphRobot:
        """Return a robot of `robots/registry.py`."""
        entry = ROBOTS[name]
        return cls(
            adapter=name,
            tasks=entry.tasks,
            cameras=entry.cameras,
            period_ms=entry.period_ms,
            action_repeat=entry.action_repeat,
            time_limit=entry.time_limit,
            background=entry.background,
            demonstrated=bool(entry.expert),
            open_tasks=bool(entry.probe),
        )

    def own_arguments(self) -> tuple[Argument, ...]:
        """Return the arguments whose defaults and ranges are the robot's."""
        period = f" ({self.period_ms:g} ms)" if self.period_ms else ""
        repeat, limit = self.action_repeat, self.time_limit
        tasks, cameras, task = self.tasks, self.cameras, "Task."
        longest: int | None = limit
        if self.open_tasks:
            task = f"Task, for example {_short(tasks)}."
            tasks, cameras, longest = (), (), None
        return (
            Argument("task", self.tasks[0], task, choices=tasks, fixed=True),
            Argument(
                "camera",
                self.cameras[0],
                f"Camera of the simulator; {SEVERAL}{'' if cameras else ', with commas between'}.",
                choices=cameras,
                fixed=True,
                several=True,
            ),
            Argument(
                "action_repeat",
                repeat,
                f"Simulator steps{period} per agent step.",
                low=1,
                high=20,
                fixed=True,
            ),
            Argument(
                "time_limit", limit, "Agent steps per episode.", low=1, high=longest, fixed=True
            ),
        )

    def demonstrator(self, values: Values) -> Mapping[str, Parameter]:
        """Return the demonstrator's parameters: the robot node's robot and task."""
        robot = self.robot(values)
        same = {name: robot[name] for name in SAME_ROBOT if name in robot}
        return {**same, "episodes": values["demos"], "out": _demos(values)}

    def robot(self, values: Values) -> Mapping[str, Parameter]:
        """Return the robot node's parameters, of environment `env` where there are several."""
        names = "task mode eval_episodes"
        own = "action_repeat time_limit render camera size"
        number, count = int(values.get("env", 0)), count_of(values)
        totals = {name: int(values[name]) for name in ("episodes", "steps")}
        return {
            **_pick(values, *names.split(), *own.split()),
            "seed": environments.environment_seed(int(values["seed"]), number),
            **{name: environments.share(total, number, count) for name, total in totals.items()},
            "eval_every": part_of(values, "eval_every") if number == 0 else 0,
            "adapter": self.adapter,
            **({"limits": self.limits} if self.limits else {}),
            **({"background": _background(values)} if self.background else {}),
            "evaluate": not values["train"],
            "progress": f"{values['run']}/{progress_file(number)}",
            "await_recorder_s": RECORDER_S,
            "ahead": -(-AHEAD // count) if values["train"] else 0,
        }


def _split(values: Values) -> bool:
    return values["composition"] == "split"


def _fused(values: Values) -> bool:
    return values["composition"] == "fused" and not has_several(values)


def _pick(values: Values, *names: str) -> dict[str, Parameter]:
    return {name: values[name] for name in names}


def _camera(values: Values) -> Mapping[str, Parameter]:
    return _pick(values, "camera", "mode")


def _model_node(values: Values) -> dict[str, Parameter]:
    return {
        **_pick(values, "mode", "model", "run", "seed"),
        "weights": first_weights(values),
    }


def _image_node(values: Values) -> Mapping[str, Parameter]:
    return {**_model_node(values), "camera": values["camera"]}


def _policy(values: Values) -> Mapping[str, Parameter]:
    return {**_model_node(values), "planner": values["planner"]}


def _agent(values: Values) -> Mapping[str, Parameter]:
    return {**_policy(values), "camera": values["camera"]}


def _batched_agent(values: Values) -> Mapping[str, Parameter]:
    return {**_agent(values), "envs": values["envs"]}


def _demonstrates(values: Values) -> bool:
    return bool(values["train"] and values.get("demos"))


def _demos(values: Values) -> str:
    return f"{values['run']}/demos" if _demonstrates(values) else ""


def _background(values: Values) -> str:
    """Return the background as the robot node reads it. GraphError: there is no such one."""
    try:
        return background_sources.checked(str(values["background"]))
    except background_sources.BackgroundError as error:
        raise GraphError(str(error)) from None


def _trainer(values: Values) -> Mapping[str, Parameter]:
    offline = split_logs(values)
    return {
        **({"offline": offline} if offline else {}),
        **(_pick(values, "camera") if len(camera_names(str(values["camera"]))) > 1 else {}),
        **_pick(values, "model", "set", "run", "seed", "recency", "hold_out", "allow_mixed"),
        "log": values["log"],
        **({"envs": values["envs"]} if has_several(values) else {}),
        "weights": first_weights(values),
        "pretrained": first_pretrained(values),
        "demos": _demos(values),
        "threads": trainer_threads(os.cpu_count() or 1),
    }


def _recorder(values: Values) -> Mapping[str, Parameter]:
    return {
        "log": environments.environment_log(str(values["log"]), int(values.get("env", 0))),
        "capacity_steps": part_of(values, "capacity_steps"),
        "capacity_bytes": part_of(values, "capacity_bytes"),
    }


def _monitor(values: Values) -> Mapping[str, Parameter]:
    several = {"envs": values["envs"]} if has_several(values) else {}
    return {**_pick(values, "run", "log", "report"), **several, "weights": first_weights(values)}


def simulator_graph(name: str, description: str, robot: GraphRobot) -> Graph:
    """Return the graph of an agent that acts in a simulator and learns from what it records."""
    own = robot.own_arguments()
    arguments = _arguments(own, demonstrated=robot.demonstrated, background=robot.background)
    return _graph(name, description, arguments, lambda values: robot)


def any_simulator_graph(name: str, description: str) -> Graph:
    """Return that graph with an argument `robot`: any simulator of the registry.

    Defaults and ranges that differ between robots are filled in and checked when the robot is
    known, before anything starts.
    """
    arguments = (ROBOT, *_arguments(_any_robot(), demonstrated=True, background=True))
    graph = _graph(name, description, arguments, lambda v: GraphRobot.of(str(v["robot"])))
    return replace(graph, resolve=_resolve)


def _any_robot() -> tuple[Argument, ...]:
    """Return the arguments that every robot has choices of its own for, left open."""
    texts: tuple[Callable[[RobotEntry], str], ...] = (
        lambda entry: _short(entry.tasks) + (" or any other" if entry.probe else ""),
        lambda entry: _short(entry.cameras),
        lambda entry: str(entry.action_repeat) + _of_ms(entry.period_ms),
        lambda entry: str(entry.time_limit) + (" or more" if entry.probe else ""),
    )
    tasks, cameras, repeats, limits = (
        "; ".join(f"{name}: {text(entry)}" for name, entry in SIMULATED.items()) for text in texts
    )
    return (
        Argument("task", "", f"Task; empty: the robot's first. {tasks}.", fixed=True),
        Argument(
            "camera",
            "",
            f"Camera, or several with commas between: {SEVERAL}. Empty: the robot's first. "
            f"{cameras}.",
            fixed=True,
            several=True,
        ),
        Argument(
            "action_repeat",
            0,
            f"Simulator steps per agent step; 0: the robot's own. {repeats}.",
            low=0,
            high=20,
            fixed=True,
        ),
        Argument(
            "time_limit",
            0,
            f"Agent steps per episode; 0: the longest. {limits}.",
            low=0,
            fixed=True,
        ),
    )


def _of_ms(period_ms: float) -> str:
    return f" of {period_ms:g} ms" if period_ms else ""


def _check(robot: GraphRobot, values: Values) -> None:
    """Refuse what no node can do, before any process starts."""
    check_files(values)
    check_cameras(values, seen=bool(values["train"]) or begun_with(values) is not None)
    if has_several(values):
        check_environments(values)
    if "background" in values:
        _background(values)
    if is_action_free(model := str(values["model"])):
        raise GraphError(
            f"model: got {model!r}, which learns from videos and does not act, expected a model "
            "that acts. wm pretrain trains it; give its run as pretrained:=RUN."
        )
    if robot.open_tasks:
        _check_task(robot, values)
    else:
        _check_actions(values, discrete=False)


def _check_actions(values: Values, *, discrete: bool) -> None:
    """Refuse a model that cannot take the robot's actions."""
    learned = values["train"] or values["weights"]
    if learned and (why := refusal_of_actions(str(values["model"]), discrete=discrete)):
        raise GraphError(why)


def _check_task(robot: GraphRobot, values: Values) -> None:
    """Refuse a task that there is not, and cameras, planner and model that do not fit it.

    It is looked up where torch is, which the system Python of `ros2 launch` may lack: there the
    robot node refuses a task that there is not, and the trainer a model that cannot take it.
    """
    if find_spec("torch") is None:
        return
    opening = import_module("wm_nodes.robots.opening")
    task = str(values["task"])
    try:
        facts = opening.task_facts(robot.adapter, task)
    except opening.RobotError as error:
        raise GraphError(str(error)) from None
    for camera in camera_names(str(values["camera"])) if facts is not None else ():
        if camera not in facts.cameras:
            raise GraphError(_no_camera(task, camera, facts.cameras))
    discrete = facts is not None and facts.discrete
    planner = str(values["planner"])
    if discrete and not PLANNERS[planner].discrete:
        raise GraphError(continuous_search(planner))
    _check_actions(values, discrete=discrete)


def _no_camera(task: str, camera: str, cameras: Sequence[str]) -> str:
    if cameras:
        return f"camera: got {camera!r}, expected one of {', '.join(cameras)}, which {task} has."
    return (
        f"task: got {task!r}, which has no images (neither in its observations nor as "
        'render_mode="rgb_array"), expected a task with images, from which the agent of this graph '
        "acts. Register a wrapped environment that draws itself."
    )


def _short(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{names[0]} and {len(names) - 1} more"


def _resolve(values: Values) -> dict[str, Value]:
    """Fill in what the robot decides. GraphError: it has no such task, camera, ... or expert."""
    name = str(values["robot"])
    robot = GraphRobot.of(name)
    own = {
        argument.name: argument.parse(values[argument.name] or argument.default)
        for argument in robot.own_arguments()
    }
    if values["demos"] and not robot.demonstrated:
        experts = ", ".join(each for each, entry in SIMULATED.items() if entry.expert)
        raise GraphError(
            f"demos: got {values['demos']}, but robot {name!r} has no scripted expert; expected "
            f"one of {experts}. Leave demos out."
        )
    if values["background"] != background_sources.NONE and not robot.background:
        having = ", ".join(each for each, entry in SIMULATED.items() if entry.background)
        raise GraphError(
            f"background: got {values['background']!r}, but robot {name!r} takes none; expected "
            f"one of {having}. Leave background out."
        )
    return {**values, **own}


def _arguments(
    own: Sequence[Argument], *, demonstrated: bool, background: bool
) -> tuple[Argument, ...]:
    """Return all arguments; own: task, camera, action_repeat and time_limit."""
    task, camera, action_repeat, time_limit = own
    return (
        task,
        MODEL,
        SET,
        CONFIG,
        WEIGHTS,
        PRETRAINED,
        TRAIN,
        SEED,
        STEPS,
        EPISODES,
        RUN,
        LOG,
        *CAPACITY,
        RECENCY,
        HOLD_OUT,
        ENVS,
        MODE,
        COMPOSITION,
        RENDER,
        camera,
        SIZE,
        action_repeat,
        time_limit,
        *((BACKGROUND,) if background else ()),
        *((DEMOS,) if demonstrated else ()),
        OFFLINE,
        ALLOW_MIXED,
        PLANNER,
        EVAL_EVERY,
        EVAL_EPISODES,
        REPORT,
        NETWORK,
        NS,
    )


def _graph(
    name: str,
    description: str,
    arguments: tuple[Argument, ...],
    robot_of: Callable[[Values], GraphRobot],
) -> Graph:
    return Graph(
        name=name,
        description=description,
        arguments=arguments,
        nodes=(
            NodeSpec("camera", "camera", _camera, condition=_split, each="camera"),
            NodeSpec("encoder", "encoder", _image_node, condition=_split),
            NodeSpec("world_model", "world_model", _image_node, condition=_split),
            NodeSpec("policy", "policy", _policy, condition=_split),
            NodeSpec("agent", "agent", _agent, condition=_fused),
            NodeSpec("batched_agent", "batched_agent", _batched_agent, condition=has_several),
            NodeSpec(
                "robot",
                "robot",
                lambda values: robot_of(values).robot(values),
                on_exit="shutdown",
                grace_s=REPORT_S,
                stop_rank=0,
                per_environment=True,
            ),
            NodeSpec("recorder", "recorder", _recorder, per_environment=True),
            NodeSpec(
                "demonstrator",
                "demonstrator",
                lambda values: robot_of(values).demonstrator(values),
                condition=_demonstrates,
            ),
            NodeSpec(
                "trainer",
                "trainer",
                _trainer,
                condition=lambda values: bool(values["train"]),
                threads=trainer_threads,
                nice=5,
            ),
            NodeSpec("monitor", "monitor", _monitor, on_exit="shutdown", stop_rank=2, shown=True),
        ),
        check=lambda values: _check(robot_of(values), values),
        implies=implied,
        continues=("train", "offline_train"),
    )


GRAPH = any_simulator_graph("sim", "An agent that acts in a simulator and learns from it.")
