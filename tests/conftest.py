"""Before anything imports mujoco: where there is no display, pictures are made through EGL."""

from __future__ import annotations

import os

if not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")
