"""Robots by name: class, tasks, cameras, defaults, scripted policies. The only such list.

Standard library only: graphs and commands read it without importing a simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wm_nodes.robots.sims import dm_control_tasks, metaworld_tasks


@dataclass(frozen=True)
class RobotEntry:
    """One robot.

    path: its class, as module:Class. tasks, cameras: the choices, the default first; a robot
    without tasks is no simulator that commands open by name. action_repeat: simulator steps of
    period_ms (arm: control periods) per agent step; 0 ms: the task decides. time_limit: longest
    episode, in agent steps. background: does it take one, as in `sims/background_sources.py`?
    general: tasks that include all others: weights trained on one may be evaluated on any. expert,
    play: makers of the robot's scripted policies, as module:function; see `opening.script_of`.
    probe: of a robot whose tasks and cameras are an open set, of which those here are examples: a
    function as module:function that returns the `TaskFacts` of a task, or raises RobotError for one
    that there is not; see `opening.task_facts`.
    """

    path: str
    summary: str
    tasks: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    period_ms: float = 0.0
    action_repeat: int = 1
    time_limit: int = 60
    background: bool = False
    general: tuple[str, ...] = ()
    expert: str = ""
    play: str = ""
    probe: str = ""


_FIRST = "drawer-close"
_OTHERS = tuple(task for task in metaworld_tasks.TASKS if task != _FIRST)

ROBOTS: Mapping[str, RobotEntry] = {
    "metaworld": RobotEntry(
        "wm_nodes.robots.sims.metaworld:MetaWorld",
        "Meta-World's 50 tasks",
        tasks=tuple(f"{task}-v3" for task in (_FIRST, *_OTHERS)),
        cameras=metaworld_tasks.CAMERAS,
        period_ms=12.5,
        action_repeat=2,
        time_limit=250,
        expert="wm_nodes.robots.sims.metaworld_expert:Expert",
    ),
    "arm": RobotEntry("wm_nodes.robots.arm.arm:Arm", "an arm behind its ROS driver"),
    "arm_sim": RobotEntry(
        "wm_nodes.robots.arm.sim.arm_sim:SimulatedArm",
        "the simulated arm with its safety filter",
        tasks=("goal", "reach", "push", "lift"),
        cameras=("front", "side", "wrist"),
        period_ms=20.0,
        action_repeat=5,
        expert="wm_nodes.robots.arm.sim.scripted:expert_of",
        play="wm_nodes.robots.arm.sim.scripted:play_of",
    ),
    "wall": RobotEntry(
        "wm_nodes.robots.sims.wall:Wall",
        "DINO-WM's Wall",
        tasks=("wall-any", "wall-same", "wall-door"),
        cameras=("top",),
        period_ms=100.0,
        general=("wall-any",),
    ),
    "point_maze": RobotEntry(
        "wm_nodes.robots.sims.point_maze:PointMaze",
        "DINO-WM's PointMaze",
        tasks=("maze-u",),
        cameras=("top",),
        period_ms=50.0,
    ),
    "dmc": RobotEntry(
        "wm_nodes.robots.sims.dm_control:DmControl",
        "dm_control's suite and manipulation",
        tasks=tuple(dm_control_tasks.TASKS),
        cameras=dm_control_tasks.CAMERAS,
        action_repeat=2,
        time_limit=dm_control_tasks.EPISODE_STEPS,
        background=True,
    ),
    "gym": RobotEntry(
        "wm_nodes.robots.sims.gymnasium:GymTask",
        "any Gymnasium task by its id",
        tasks=("CarRacing-v3", "CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"),
        cameras=("image",),
        time_limit=1000,
        probe="wm_nodes.robots.sims.gymnasium:task_facts",
    ),
}
SIMULATED = {name: entry for name, entry in ROBOTS.items() if entry.tasks}
