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

RENDER_THEN_LIST_THREADS = """
import os
from pathlib import Path
from wm_nodes.robots.opening import open_robot

robot = open_robot("metaworld", {"task": "drawer-close-v3", "render": "fast", "size": 16})
robot.reset(0)
threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
print(*sorted({os.getpriority(os.PRIO_PROCESS, t) - os.nice(0) for t in threads}))
"""


def test_a_process_that_has_rendered_can_make_an_optimizer() -> None:
    """Both load LLVM: Mesa the system's, torch that of triton."""
    assert output(RENDER_THEN_LEARN) == "done"


def test_all_threads_of_a_process_that_has_rendered_have_its_priority() -> None:
    """Mesa's shader cache has one of the lowest: the process waits for it to end, on a machine
    that is busy for seconds."""
    assert output(RENDER_THEN_LIST_THREADS) == "0"


def output(program: str) -> str:
    """What a program of its own process prints."""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
