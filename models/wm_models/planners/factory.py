"""Planners by name, with settings for one CPU core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from wm_models.errors import unknown_name
from wm_models.interface.planner import Planner
from wm_models.planners.registry import PLANNERS


def planner(name: str, **options: Any) -> Planner:
    """The planner ``actor``, ``cem``, ``mppi`` or ``gd``; ``options`` are fields of its class."""
    if name not in PLANNERS:
        raise unknown_name("planner", name, PLANNERS)
    kind = PLANNERS[name].load()
    make: Callable[..., Planner] = kind
    names = [f.name for f in fields(kind)]
    for option in options:
        if option not in names:
            raise unknown_name(f"planner {name}: option", option, names)
    return make(**options)
