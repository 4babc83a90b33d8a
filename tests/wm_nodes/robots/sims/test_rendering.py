"""Rendering beside other libraries in one process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("metaworld", reason="needs the [sim] extra")

RENDER_THEN_LEARN = """
from wm_nodes.robots.opening import open_robot

robot = open_robot("metaworld", {"task": "drawer-close-v3", "render": "fast", "size": 16})
robot.reset(0)

import torch

weight = torch.nn.Parameter(torch.zeros(3))
torch.optim.Adam([weight])
print("done")
"""


def test_a_process_that_has_rendered_can_make_an_optimizer() -> None:
    """Both load LLVM: Mesa the system's, torch that of triton."""
    result = subprocess.run(
        [sys.executable, "-c", RENDER_THEN_LEARN], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
