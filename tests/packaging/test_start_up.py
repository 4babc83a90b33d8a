"""Imports at start: a wrong argument is refused without torch, nodes do not import timm.

Modules are counted, not seconds: the same on every machine.
"""

import subprocess
import sys

import pytest

RUN = """
import sys
from wm_nodes.cli.main import main
try:
    code = main({arguments!r})
except SystemExit as end:
    code = end.code
print("code", code, *[name for name in {heavy!r} if name in sys.modules])
"""
HEAVY = ("torch", "timm", "torchvision", "huggingface_hub", "mujoco", "rclpy", "zarr")


def last_line(program: str) -> list[str]:
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return completed.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--weights", "reac"],
        ["eval", "--weights", "reach", "--device", "tpu"],
        ["eval", "--weights", "reach", "--episodes", "many"],
        ["eval", "--policy", "random", "--task", "reac-v3"],
        ["average", "/nowhere"],
        ["report", "/nowhere"],
        ["train"],
        ["train", "--log", "/nowhere"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_refused_before_a_large_module_is_imported(arguments):
    assert last_line(RUN.format(arguments=arguments, heavy=HEAVY)) == ["code", "2"]


@pytest.mark.parametrize("arguments", ["--help", "--version", "weights", "launch --help"])
def test_lists_and_help_import_nothing_large(arguments):
    printed = last_line(RUN.format(arguments=arguments.split(), heavy=(*HEAVY, "numpy")))
    assert printed == ["code", "0"]


@pytest.mark.parametrize("node", ["encoder", "world_model", "policy", "agent", "trainer"])
def test_a_node_with_a_model_does_not_import_timm(node):
    program = f"import sys, wm_nodes.nodes.{node}\nprint([n for n in sys.modules if n == 'timm'])"
    assert last_line(program) == ["[]"]
