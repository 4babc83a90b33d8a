"""Check of changes to a preset's settings, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def checked_changes(model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of a preset's settings with their types. ModelError: one is wrong."""
    if not changes:
        return {}
    from wm_models.registry import preset  # imports torch

    return dict(preset(model).varied(changes).settings)
