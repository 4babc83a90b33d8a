"""A simulated robot in, a learning agent out: the whole graph on one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from wm_nodes.graphs.arguments import (
    ALLOW_MIXED,
    CAPACITY,
    COMPOSITION,
    EPISODES,
    HOLD_OUT,
    LOG,
    MODEL,
    NETWORK,
    NS,
    OFFLINE,
    PLANNER,
    RECENCY,
    REPORT,
    RUN,
    SEED,
    SET,
    STEPS,
    TRAIN,
    WEIGHTS,
    check_files,
    first_weights,
    split_logs,
    trainer_threads,
)
from wm_nodes.graphs.graph import Argument, Graph, NodeSpec, Parameter, Values
from wm_nodes.robots.registry import ROBOTS

REPORT_S = 180.0  # after the robot's end, for the monitor's report
AHEAD = 100  # decisions that the robot may be ahead of the trainer's ratio: it waits for learning
SAME_ROBOT = "adapter task seed action_repeat time_limit render camera limits".split()
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
    "Pictures: full (shadows), fast (about 10 ms in software), auto (full on a GPU).",
    choices=("auto", "fast", "full"),
    fixed=True,
)
DEMOS = Argument(
    "demos",
    0,
    "Demonstrations by the task's script, recorded first and learned from; 0: none.",
    low=0,
    high=1000,
    fixed=True,
)
EVAL_EVERY = Argument(
    "eval_every", 0, "Decisions between blocks of evaluation episodes; 0: none.", low=0
)
EVAL_EPISODES = Argument("eval_episodes", 20, "Episodes of an evaluation block.", low=1, high=1000)


@dataclass(frozen=True)
class Simulator:
    """A simulated robot, as its graph starts it. Everything that opens it reads `robot`.

    adapter: a name of `robots/registry.py`, or module:Class or FILE.py:Class of your own. Its
    constructor's parameters among task, seed, action_repeat, time_limit, render, camera, limits are
    given. tasks, cameras: what may be asked for; the first is the default. period_ms: of one
    simulator step. time_limit: the longest episode, in decisions. limits: YAML of action limits;
    empty: config/robots/<adapter>.yaml, or the class's own. demonstrated: has it a script that
    `demos:=N` records (Meta-World, the simulated arm, or a class derived from them)?
    """

    adapter: str
    tasks: tuple[str, ...]
    cameras: tuple[str, ...]
    period_ms: float
    action_repeat: int = 1
    time_limit: int = 250
    limits: str = ""
    demonstrated: bool = False

    @classmethod
    def of(cls, name: str) -> Simulator:
        """Return a robot of `robots/registry.py`."""
        entry = ROBOTS[name]
        return cls(
            adapter=name,
            tasks=entry.tasks,
            cameras=entry.cameras,
            period_ms=entry.period_ms,
            action_repeat=entry.action_repeat,
            time_limit=entry.time_limit,
            demonstrated=bool(entry.expert),
        )

    def arguments(self) -> tuple[Argument, ...]:
        """Return the graph's arguments."""
        return (
            Argument("task", self.tasks[0], "Task.", choices=self.tasks, fixed=True),
            MODEL,
            SET,
            WEIGHTS,
            TRAIN,
            SEED,
            STEPS,
            EPISODES,
            RUN,
            LOG,
            *CAPACITY,
            RECENCY,
            HOLD_OUT,
            MODE,
            COMPOSITION,
            RENDER,
            Argument(
                "camera",
                self.cameras[0],
                "Camera of the simulator.",
                choices=self.cameras,
                fixed=True,
            ),
            Argument(
                "action_repeat",
                self.action_repeat,
                f"Simulator steps ({self.period_ms:g} ms) per decision.",
                low=1,
                high=20,
                fixed=True,
            ),
            Argument(
                "time_limit",
                self.time_limit,
                "Decisions per episode.",
                low=1,
                high=self.time_limit,
                fixed=True,
            ),
            *((DEMOS,) if self.demonstrated else ()),
            OFFLINE,
            ALLOW_MIXED,
            PLANNER,
            EVAL_EVERY,
            EVAL_EPISODES,
            REPORT,
            NETWORK,
            NS,
        )

    def demonstrator(self, values: Values) -> Mapping[str, Parameter]:
        """Return the demonstrator's parameters: the robot node's robot and task."""
        robot = self.robot(values)
        same = {name: robot[name] for name in SAME_ROBOT if name in robot}
        return {**same, "episodes": values["demos"], "out": _demos(values)}

    def robot(self, values: Values) -> Mapping[str, Parameter]:
        """Return the robot node's parameters."""
        names = "task seed mode episodes steps eval_every eval_episodes"
        own = "action_repeat time_limit render camera"
        return {
            **_pick(values, *names.split(), *own.split()),
            "adapter": self.adapter,
            **({"limits": self.limits} if self.limits else {}),
            "evaluate": not values["train"],
            "progress": f"{values['run']}/progress.json",
            "await_recorder_s": RECORDER_S,
            "ahead": AHEAD if values["train"] else 0,
        }


def _split(values: Values) -> bool:
    return values["composition"] == "split"


def _fused(values: Values) -> bool:
    return values["composition"] == "fused"


def _pick(values: Values, *names: str) -> dict[str, Parameter]:
    return {name: values[name] for name in names}


def _camera(values: Values) -> Mapping[str, Parameter]:
    return _pick(values, "camera", "mode")


def _thinker(values: Values) -> dict[str, Parameter]:
    return {
        **_pick(values, "mode", "model", "run", "seed"),
        "weights": first_weights(values),
    }


def _seeing(values: Values) -> Mapping[str, Parameter]:
    return {**_thinker(values), "camera": values["camera"]}


def _policy(values: Values) -> Mapping[str, Parameter]:
    return {**_thinker(values), "planner": values["planner"]}


def _agent(values: Values) -> Mapping[str, Parameter]:
    return {**_policy(values), "camera": values["camera"]}


def _demonstrates(values: Values) -> bool:
    return bool(values["train"] and values.get("demos"))


def _demos(values: Values) -> str:
    return f"{values['run']}/demos" if _demonstrates(values) else ""


def _trainer(values: Values) -> Mapping[str, Parameter]:
    offline = split_logs(values)
    return {
        **({"offline": offline} if offline else {}),
        **_pick(values, "model", "set", "run", "seed", "recency", "hold_out", "allow_mixed"),
        "log": values["log"],
        "weights": first_weights(values),
        "demos": _demos(values),
        "threads": trainer_threads(os.cpu_count() or 1),
    }


def _recorder(values: Values) -> Mapping[str, Parameter]:
    return _pick(values, "log", "capacity_steps", "capacity_bytes")


def _monitor(values: Values) -> Mapping[str, Parameter]:
    return {**_pick(values, "run", "log", "report"), "weights": first_weights(values)}


def simulator_graph(name: str, description: str, simulator: Simulator) -> Graph:
    """Return the graph of an agent that acts in a simulator and learns from what it records."""
    return Graph(
        name=name,
        description=description,
        arguments=simulator.arguments(),
        nodes=(
            NodeSpec("camera", "camera", _camera, condition=_split),
            NodeSpec("encoder", "encoder", _seeing, condition=_split),
            NodeSpec("world_model", "world_model", _seeing, condition=_split),
            NodeSpec("policy", "policy", _policy, condition=_split),
            NodeSpec("agent", "agent", _agent, condition=_fused),
            NodeSpec(
                "robot", "robot", simulator.robot, on_exit="shutdown", grace_s=REPORT_S, stop_rank=0
            ),
            NodeSpec("recorder", "recorder", _recorder),
            NodeSpec(
                "demonstrator",
                "demonstrator",
                simulator.demonstrator,
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
        check=check_files,
        continues=("train", "offline_train"),
    )
