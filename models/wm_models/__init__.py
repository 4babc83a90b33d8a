"""World models, behaviour and planners in PyTorch; knows neither ROS, zarr nor any simulator.

    from wm_models import load_model, preset
    model = preset("mwm_cpu").build(action_dim)

The names below are loaded when they are first used: importing the package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm_models.errors import ModelError
    from wm_models.interface.embodiment import Embodiment
    from wm_models.interface.learner import Learner
    from wm_models.interface.planner import Planner
    from wm_models.interface.world_model import WorldModel
    from wm_models.planners.registry import planner
    from wm_models.registry import preset
    from wm_models.weights.store import load_model

__all__ = [
    "Embodiment",
    "Learner",
    "ModelError",
    "Planner",
    "WorldModel",
    "load_model",
    "planner",
    "preset",
]
_MODULES = {
    "Embodiment": "interface.embodiment",
    "Learner": "interface.learner",
    "ModelError": "errors",
    "Planner": "interface.planner",
    "WorldModel": "interface.world_model",
    "load_model": "weights.store",
    "planner": "planners.registry",
    "preset": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
