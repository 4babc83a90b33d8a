"""Where caches go on this computer."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_folder() -> Path:
    """Where decoded rows are kept: $XDG_CACHE_HOME/wm_nodes, or ~/.cache/wm_nodes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wm_nodes"
