"""Open a robot by the name in the registry, or as module:Class or FILE.py:Class of your own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from wm_datasets.spec import VectorSpec
from wm_nodes.assets import shared
from wm_nodes.errors import did_you_mean
from wm_nodes.own_code import CodeError, is_file, load_file
from wm_nodes.robots.action_limits import read_limits
from wm_nodes.robots.registry import ROBOTS
from wm_nodes.robots.robot import Robot, RobotError, TaskFacts


def adapter_class(name: str) -> type[Robot]:
    """Return the class of an adapter: a name of the registry, or module:Class or FILE.py:Class."""
    path = ROBOTS[name].path if name in ROBOTS else name
    module, mark, attribute = path.rpartition(":")
    if not mark:
        raise RobotError(
            f"adapter: got {name!r}, expected one of {', '.join(ROBOTS)}, or one of your own as "
            f"module:Class or FILE.py:Class. {did_you_mean(name, ROBOTS)}".rstrip()
        )
    try:
        code = load_file(module) if is_file(module) else import_module(module)
        kind = getattr(code, attribute)
    except (ImportError, AttributeError, CodeError) as error:
        raise RobotError(f"adapter: {name!r} cannot be imported ({error}).") from None
    if not (inspect.isclass(kind) and issubclass(kind, Robot)):
        raise RobotError(
            f"adapter: got {name!r}, expected a subclass of Robot (wm_nodes/robots/robot.py)."
        )
    return kind


def open_robot(name: str, settings: Mapping[str, Any]) -> Robot:
    """Open a robot with the settings that its constructor takes; RobotError if it needs others."""
    kind = adapter_class(name)
    taken = _taken(kind)
    missing = [
        key for key, about in taken.items() if about.default is about.empty and key not in settings
    ]
    if missing:
        raise RobotError(
            f"adapter: got {name!r}, which requires {', '.join(missing)}, expected settings of the "
            "robot node. Give them defaults"
            + (", or limits:=FILE." if "limits" in missing else ".")
        )
    return kind(**{key: value for key, value in settings.items() if key in taken})


def takes(name: str, setting: str) -> bool:
    """Does this adapter have such a setting?"""
    return setting in _taken(adapter_class(name))


def task_facts(name: str, task: str) -> TaskFacts | None:
    """Return facts about a task of a robot of the registry whose tasks are an open set; None for
    another robot, and for a class of your own, which is not opened.

    RobotError: there is no such task.
    """
    probe = ROBOTS[name].probe if name in ROBOTS else ""
    facts: TaskFacts | None = _load(probe)(task) if probe else None
    return facts


def limits_of(name: str, path: str) -> dict[str, VectorSpec]:
    """Return the setting `limits` of an adapter, from a YAML file.

    path: the file; empty: config/robots/<name>.yaml of a shipped adapter, and no setting for a
    class of your own. SpecError: the file is absent or malformed.
    """
    if not takes(name, "limits") or not (path or name in ROBOTS):
        return {}
    return {"limits": read_limits(path or shared(f"config/robots/{name}.yaml"))}


def _taken(kind: type[Robot]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor; those of its base class too where it takes **rest."""
    parameters: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        own = list(inspect.signature(each).parameters.items())
        for key, about in own:
            if about.kind in (about.POSITIONAL_OR_KEYWORD, about.KEYWORD_ONLY):
                parameters.setdefault(key, about)
        if not any(about.kind is about.VAR_KEYWORD for _, about in own):
            break
    return parameters


def script_of(robot: Robot, kind: Literal["expert", "play"]) -> Callable[..., Any]:
    """Return the maker of a robot's script, or of that of a class that its class derives from.

    expert(robot): solves the task from the simulator's state. play(robot, seed, near): smooth
    motion to random places. RobotError: it has none.
    """
    for entry in ROBOTS.values():
        path = getattr(entry, kind)
        if path and isinstance(robot, _load(entry.path)):
            make: Callable[..., Any] = _load(path)
            return make
    having = ", ".join(name for name, entry in ROBOTS.items() if getattr(entry, kind))
    raise RobotError(
        f"policy: got {kind}, but robot {robot.spec.name!r} has no {kind}, expected {having}, or a "
        "class derived from one of them. Choose another policy."
    )


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
