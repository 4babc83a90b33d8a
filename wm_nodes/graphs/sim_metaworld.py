"""Meta-World in, a learning agent out: the whole graph on one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from wm_nodes.graphs.arguments import (
    CAPACITY,
    COMPOSITION,
    EPISODES,
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
    STEPS,
    TRAIN,
    WEIGHTS,
    check_files,
    first_weights,
    split_logs,
    trainer_threads,
)
from wm_nodes.graphs.declaration import Argument, Graph, NodeSpec, Parameter, Values

TASKS = (
    "assembly basketball bin-picking box-close button-press button-press-topdown "
    "button-press-topdown-wall button-press-wall coffee-button coffee-pull coffee-push dial-turn "
    "disassemble door-close door-lock door-open door-unlock drawer-close drawer-open faucet-close "
    "faucet-open hammer hand-insert handle-press handle-press-side handle-pull handle-pull-side "
    "lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall "
    "plate-slide plate-slide-back plate-slide-back-side plate-slide-side push push-back push-wall "
    "reach reach-wall shelf-place soccer stick-pull stick-push sweep sweep-into window-close "
    "window-open"
).split()
REPORT_S = 180.0  # after the robot's end, for the monitor's report
AHEAD = 100  # decisions that the robot may be ahead of the trainer's ratio: it waits for learning
RECORDER_S = 10.0  # an episode begins without the recorder only after so long
CAMERAS = ("corner4", "corner", "corner2", "corner3", "topview", "behindGripper", "gripperPOV")

ARGUMENTS = (
    Argument(
        "task",
        "drawer-close-v3",
        "Meta-World task (random goals).",
        choices=tuple(f"{task}-v3" for task in TASKS),
        fixed=True,
    ),
    MODEL,
    WEIGHTS,
    TRAIN,
    SEED,
    STEPS,
    EPISODES,
    RUN,
    LOG,
    *CAPACITY,
    RECENCY,
    Argument(
        "mode",
        "lockstep",
        "lockstep: the simulator waits for each plan, runs repeat; realtime: it never waits.",
        choices=("lockstep", "realtime"),
    ),
    COMPOSITION,
    Argument(
        "render",
        "auto",
        "Pictures: full (shadows), fast (about 10 ms in software), auto (full on a GPU).",
        choices=("auto", "fast", "full"),
        fixed=True,
    ),
    Argument("camera", "corner4", "Camera of the simulator.", choices=CAMERAS, fixed=True),
    Argument(
        "action_repeat",
        2,
        "Simulator steps (12.5 ms) per decision.",
        low=1,
        high=20,
        fixed=True,
    ),
    Argument(
        "time_limit",
        250,
        "Decisions per episode (250 as published; 100 are enough on a small machine).",
        low=1,
        high=250,
        fixed=True,
    ),
    Argument(
        "demos",
        0,
        "Demonstrations by the task's script, recorded first and learned from; 0: none.",
        low=0,
        high=1000,
        fixed=True,
    ),
    OFFLINE,
    PLANNER,
    Argument("eval_every", 0, "Decisions between blocks of evaluation episodes; 0: none.", low=0),
    Argument("eval_episodes", 20, "Episodes of an evaluation block.", low=1, high=1000),
    REPORT,
    NETWORK,
    NS,
)


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
    return bool(values["train"] and values["demos"])


def _demos(values: Values) -> str:
    return f"{values['run']}/demos" if _demonstrates(values) else ""


def _demonstrator(values: Values) -> Mapping[str, Parameter]:
    names = "task seed action_repeat time_limit render camera"
    return {**_pick(values, *names.split()), "episodes": values["demos"], "out": _demos(values)}


def _trainer(values: Values) -> Mapping[str, Parameter]:
    offline = split_logs(values)
    return {
        **({"offline": offline} if offline else {}),
        **_pick(values, "model", "run", "seed", "recency"),
        "log": values["log"],
        "weights": first_weights(values),
        "demos": _demos(values),
        "threads": trainer_threads(os.cpu_count() or 1),
    }


def _recorder(values: Values) -> Mapping[str, Parameter]:
    return _pick(values, "log", "capacity_steps", "capacity_bytes")


def _monitor(values: Values) -> Mapping[str, Parameter]:
    return {**_pick(values, "run", "log", "report"), "weights": first_weights(values)}


def _robot(values: Values) -> Mapping[str, Parameter]:
    names = "task seed mode episodes steps eval_every eval_episodes"
    simulator = "action_repeat time_limit render camera"
    return {
        **_pick(values, *names.split(), *simulator.split()),
        "adapter": "metaworld",
        "evaluate": not values["train"],
        "progress": f"{values['run']}/progress.json",
        "await_recorder_s": RECORDER_S,
        "ahead": AHEAD if values["train"] else 0,
    }


GRAPH = Graph(
    name="sim_metaworld",
    description="Meta-World in, a learning agent out, over ROS 2.",
    arguments=ARGUMENTS,
    nodes=(
        NodeSpec("camera", "camera", _camera, condition=_split),
        NodeSpec("encoder", "encoder", _seeing, condition=_split),
        NodeSpec("world_model", "world_model", _seeing, condition=_split),
        NodeSpec("policy", "policy", _policy, condition=_split),
        NodeSpec("agent", "agent", _agent, condition=_fused),
        NodeSpec("robot", "robot", _robot, on_exit="shutdown", grace_s=REPORT_S, stop_rank=0),
        NodeSpec("recorder", "recorder", _recorder),
        NodeSpec("demonstrator", "demonstrator", _demonstrator, condition=_demonstrates),
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
