"""Simulated robots that commands can open by name: their tasks, cameras and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from wm_nodes.cli.arguments import require_one_of
from wm_nodes.graphs.sim_metaworld import CAMERAS, TASKS


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
        """UserError where it has no such task or no such camera (several with commas between)."""
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
