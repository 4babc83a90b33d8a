"""Which fields a log must have for training, and which logs may be combined."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from wm_datasets.spec import LogSpec, VectorSpec
from wm_models.registry import is_action_free, refusal_of_actions

ACTION = frozenset({"action"})  # what every model but those of videos learns from


def refusal(logs: Sequence[tuple[Path | str, LogSpec]], model: str, allow_mixed: bool) -> str:
    """Return why a model cannot learn from these logs; empty: it can.

    A model of videos may learn from any logs with images together.
    """
    if is_action_free(model):
        return next(filter(None, (_no_images(place, spec, model) for place, spec in logs)), "")
    obstacles = (obstacle(place, spec, model) for place, spec in logs)
    return next(filter(None, obstacles), "") or mixture(logs, allow_mixed)


def _no_images(place: Path | str, spec: LogSpec, model: str) -> str:
    if spec.cameras:
        return ""
    return (
        f"log: got {place} without images, expected a camera, as model {model!r} learns from "
        "videos. Give another log."
    )


def obstacle(place: Path | str, spec: LogSpec, model: str, fields: Collection[str] = ACTION) -> str:
    """Return why a model that needs these fields cannot learn from a log; empty where it can."""
    lacking = [name for name in sorted(fields) if name not in spec.fields]
    if "action" in lacking:
        return (
            f"log: got {place} without actions (plain video), expected actions, from which model "
            f"{model!r} learns. Video is for pre-training without actions (APV): wm pretrain. wm "
            "log show, stats and export take it too."
        )
    if lacking:
        without = " dino_wm and dino_wm_cpu need no reward." if lacking == ["reward"] else ""
        return (
            f"log: got {place} without {', '.join(lacking)}, expected it, as model {model!r} "
            f"learns from it. Give another log, or another model.{without}"
        )
    if spec.action is not None and not is_action_free(model):
        kind = "discrete" if spec.action.discrete else "continuous"
        if why := refusal_of_actions(model, discrete=spec.action.discrete):
            return f"log: got {place} with {kind} actions. {why}"
    return ""


def mixture(logs: Sequence[tuple[Path | str, LogSpec]], allow_mixed: bool) -> str:
    """Return why these logs, all with actions, cannot be learned from together; empty: they can.

    Robot, task and action space must be the same unless `allow_mixed`; the number of action
    dimensions, and whether they are discrete, always.
    """
    (first, spec), *others = logs
    for place, other in others:
        assert spec.action is not None and other.action is not None
        sizes = len(spec.action), len(other.action)
        if sizes[0] != sizes[1]:
            return (
                f"log: {first} has {sizes[0]} action dimensions ({', '.join(spec.action.names)}), "
                f"{place} has {sizes[1]} ({', '.join(other.action.names)}), expected the same "
                "number. Learn from one of them."
            )
        if spec.action.discrete != other.action.discrete:
            discrete, continuous = (first, place) if spec.action.discrete else (place, first)
            return (
                f"log: {discrete} has discrete actions, {continuous} has continuous ones, expected "
                "the same kind. Learn from one of them."
            )
        pairs = [
            ("robot", repr(spec.robot), repr(other.robot)),
            ("task", repr(spec.task), repr(other.task)),
            ("action space", *_difference(spec.action, other.action)),
        ]
        if differing := [f"{name} {a} and {b}" for name, a, b in pairs if a != b]:
            if allow_mixed:
                continue
            return (
                f"log: {first} and {place} differ: {'; '.join(differing)}. Expected logs of one "
                "robot, task and action space. Leave one of them out, or allow it: wm train "
                "--allow-mixed, allow_mixed:=true of a graph."
            )
    return ""


def _difference(a: VectorSpec, b: VectorSpec) -> tuple[str, str]:
    """Return the first part of two action spaces that differs, as text; equal texts: none does."""
    for part in ("names", "units", "low", "high"):
        mine, theirs = list(getattr(a, part)), list(getattr(b, part))
        if mine != theirs:
            return f"({part}) {mine}", f"{theirs}"
    return "", ""
