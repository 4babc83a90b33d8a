"""Planners by name, with settings for one CPU core."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from wm_models.interface import ModelError, Planner
from wm_models.planners.actor import ActorPlanner
from wm_models.planners.cem import CEM
from wm_models.planners.gd import GD
from wm_models.planners.mppi import MPPI

PLANNERS: Mapping[str, type[Any]] = {
    "actor": ActorPlanner,
    "cem": CEM,
    "mppi": MPPI,
    "gd": GD,
}


def planner(name: str, **options: Any) -> Planner:
    """The planner ``actor``, ``cem``, ``mppi`` or ``gd``; ``options`` are fields of its class."""
    make: Callable[..., Planner] = PLANNERS[_known("planner", name, list(PLANNERS))]
    names = [f.name for f in fields(PLANNERS[name])]
    for option in options:
        _known(f"planner {name}: option", option, names)
    return make(**options)


def _known(what: str, given: str, names: list[str]) -> str:
    if given in names:
        return given
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelError(f"{what}: nothing is named {given!r}.{hint} There are: {', '.join(names)}.")
