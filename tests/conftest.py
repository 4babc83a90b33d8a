"""Before anything imports mujoco: where there is no display, images are rendered through EGL.

Robots keep their latches in a folder of this test run, not in the user's.
"""

from __future__ import annotations

import os
import tempfile

if not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="wm-state-")

try:  # a busy machine is no reason to fail
    from hypothesis import settings
except ImportError:
    pass
else:
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
