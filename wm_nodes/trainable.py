"""What a log must hold to be learned from, and what can use one that lacks it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wm_datasets.spec import LogSpec

ACTION = frozenset({"action"})  # every model here learns from actions


def obstacle(place: Path | str, spec: LogSpec, model: str, fields: Collection[str] = ACTION) -> str:
    """Return why a model that needs these fields cannot learn from a log; empty where it can."""
    lacking = [name for name in sorted(fields) if name not in spec.fields]
    if "action" in lacking:
        return (
            f"log: {place} has no actions (plain video), and model {model!r} learns from them. "
            "Right: a log with actions. Video is for pre-training without actions (APV), which no "
            "model does here; wm log show, stats and export take it."
        )
    if lacking:
        without = " dino_wm and dino_wm_cpu need no reward." if lacking == ["reward"] else ""
        return (
            f"log: {place} has no {', '.join(lacking)}, and model {model!r} learns from it. Right: "
            f"a log that has it, or another model.{without}"
        )
    return ""
