"""What a program imports before it is asked to compute: no torch for a mistake, no timm for a node.

Modules are counted, not seconds: the same on every machine.
"""

import subprocess
import sys

import pytest

RUN = """
import sys
from wm_nodes.cli.main import main
try:
    code = main({words!r})
except SystemExit as end:
    code = end.code
print("code", code, *[name for name in {heavy!r} if name in sys.modules])
"""
HEAVY = ("torch", "timm", "torchvision", "huggingface_hub", "mujoco", "rclpy", "zarr")


def loaded(program: str) -> list[str]:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "words",
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
def test_a_mistake_is_found_before_anything_large_is_imported(words):
    assert loaded(RUN.format(words=words, heavy=HEAVY)) == ["code", "2"]


@pytest.mark.parametrize("word", ["--help", "--version", "models", "weights", "launch --help"])
def test_lists_and_help_import_nothing_large(word):
    found = loaded(RUN.format(words=word.split(), heavy=(*HEAVY, "numpy")))
    assert found == ["code", "0"]


@pytest.mark.parametrize("node", ["encoder", "world_model", "policy", "agent", "trainer"])
def test_a_node_with_a_model_does_without_timm(node):
    program = f"import sys, wm_nodes.nodes.{node}\nprint([n for n in sys.modules if n == 'timm'])"
    assert loaded(program) == ["[]"]
