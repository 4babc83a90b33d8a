"""Options --robot, --task and --camera of commands that open a simulated robot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_nodes.cli.arguments import require_one_of
from wm_nodes.errors import UserError
from wm_nodes.robots.registry import SIMULATED, RobotEntry

# A robot of the user's own, as module:Class or FILE.py:Class: it has defaults of its own.
OWN = RobotEntry("", "", tasks=("",), cameras=("",), action_repeat=0, time_limit=0)


def check(robot: RobotEntry, task: str, camera: str) -> None:
    """UserError where it has no such task or no such camera (several with commas between).

    A robot of the user's own checks both itself.
    """
    if robot is OWN:
        return
    require_one_of("task", task, robot.tasks)
    for each in camera.split(","):
        require_one_of("camera", each, robot.cameras)


def simulated(robot: str) -> RobotEntry:
    """Return what may be asked of `--robot`; OWN for module:Class and FILE.py:Class. UserError."""
    if ":" in robot:
        return OWN
    if robot not in SIMULATED:
        raise UserError(
            f"--robot: there is no {robot!r}. Right: {', '.join(SIMULATED)}, or one of your own: "
            "module:Class or FILE.py:Class."
        )
    return SIMULATED[robot]


def family(robot: str) -> str:
    """Return the name of the shipped robot that it is or derives from; "" for another."""
    if robot in SIMULATED:
        return robot
    from wm_nodes.robots.opening import adapter_class

    kind = adapter_class(robot)
    return next((name for name in SIMULATED if issubclass(kind, adapter_class(name))), "")


def refuse_unknown(robot: str, **given: object) -> None:
    """UserError where an option is given that the constructor of one's own robot does not take."""
    if simulated(robot) is not OWN:
        return
    from wm_nodes.robots.opening import takes

    for name, value in given.items():
        if value and not takes(robot, name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{option}: given {value!r}, but the constructor of {robot} has "
                "no such parameter. Right: leave it out."
            )


def given_only(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those left at "" or 0: a robot of one's own has defaults."""
    return {name: value for name, value in settings.items() if name == "seed" or value}
