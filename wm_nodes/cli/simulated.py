"""Simulated robots that commands can open by name: their tasks, cameras and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wm_nodes.cli.arguments import require_one_of
from wm_nodes.errors import UserError
from wm_nodes.robots.sims.metaworld_tasks import CAMERAS, TASKS


@dataclass(frozen=True)
class Simulated:
    """What may be asked of a robot; the first task and camera are meant where none is given.

    general: tasks that hold all others, so that weights made for one may be judged by any.
    """

    tasks: tuple[str, ...]
    cameras: tuple[str, ...]
    action_repeat: int  # simulator steps (arm: control periods of 20 ms) per decision
    general: tuple[str, ...] = ()

    def check(self, task: str, camera: str) -> None:
        """UserError where it has no such task or no such camera (several with commas between).

        A robot of the user's own checks both itself.
        """
        if self is OWN:
            return
        require_one_of("task", task, self.tasks)
        for each in camera.split(","):
            require_one_of("camera", each, self.cameras)


_FIRST = "drawer-close"
SIMULATED = {
    "metaworld": Simulated(
        tuple(f"{t}-v3" for t in (_FIRST, *(t for t in TASKS if t != _FIRST))), CAMERAS, 2
    ),
    "arm_sim": Simulated(("goal", "reach", "push", "lift"), ("front", "side", "wrist"), 5),
    "wall": Simulated(("wall-any", "wall-same", "wall-door"), ("top",), 1, ("wall-any",)),
    "point_maze": Simulated(("maze-u",), ("top",), 1),
}
# A robot of the user's own, as module:Class or FILE.py:Class: it has defaults of its own.
OWN = Simulated(("",), ("",), 0)


def simulated(robot: str) -> Simulated:
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
    from wm_nodes.robots.registry import adapter_class

    kind = adapter_class(robot)
    return next((name for name in SIMULATED if issubclass(kind, adapter_class(name))), "")


def refuse_unknown(robot: str, **given: object) -> None:
    """UserError where an option is given that the constructor of one's own robot does not take."""
    if simulated(robot) is not OWN:
        return
    from wm_nodes.robots.registry import takes

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
