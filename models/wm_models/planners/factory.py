"""Planners by name, with settings for one CPU core."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from wm_models.interface import ModelError, Planner
from wm_models.planners.registry import PLANNERS


def planner(name: str, **options: Any) -> Planner:
    """The planner ``actor``, ``cem``, ``mppi`` or ``gd``; ``options`` are fields of its class."""
    kind = PLANNERS[_known("planner", name, list(PLANNERS))].load()
    make: Callable[..., Planner] = kind
    names = [f.name for f in fields(kind)]
    for option in options:
        _known(f"planner {name}: option", option, names)
    return make(**options)


def _known(what: str, given: str, names: list[str]) -> str:
    if given in names:
        return given
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelError(f"{what}: nothing is named {given!r}.{hint} There are: {', '.join(names)}.")
