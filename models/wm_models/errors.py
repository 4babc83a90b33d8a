"""Errors of models and planners, and the check for values that are not finite."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class ModelError(ValueError):
    """A model was asked for something it cannot give, or given something it cannot take."""


class PlanRefused(ModelError):
    """There is no plan: nothing that was imagined has a finite cost. Do not move; say why."""


def unknown_name(what: str, name: str, names: Iterable[str]) -> ModelError:
    """The error for a name that is not one of ``names``; it says which is nearest."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ModelError(f"{what}: got {name!r}, expected one of {', '.join(known)}.{hint}")


def other_actions(name: str, *, discrete: bool, able: Iterable[str] = ()) -> str:
    """The refusal of a model for another kind of actions than a robot's, which are ``discrete`` or
    continuous; ``able`` are the models to take instead."""
    own, robots = ("continuous", "discrete") if discrete else ("discrete", "continuous")
    models = ", ".join(able) or f"a model for {robots} actions"
    return (
        f"model: got {name!r}, which takes {own} actions only, expected one for {robots} actions. "
        f"Choose {models}, or a task with {own} actions."
    )


def one_camera_only(name: str, cameras: Iterable[str], able: Iterable[str] = ()) -> str:
    """The refusal of a model that sees one camera for several; ``able`` are the models to take
    instead."""
    models = " ".join(["a model of several cameras", *(f"({', '.join(able)})",)[: bool(able)]])
    return (
        f"camera: got {', '.join(cameras)} for model {name!r}, which sees one camera, expected one "
        f"of them. Name one camera, or choose {models}."
    )


def check_finite(name: str, value: float) -> float:
    """Pass a metric through; a non-finite one is an error of training, not a number to log."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"{name} became {value}: training diverged; go back to the last good weights."
        )
    return value
