"""One entry in a registry makes a planner, a model or a robot available in every command.

Each registry is loaded with one additional line, before other modules are imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = {
    "wm_models.planners.registry": (
        "models/wm_models/planners/registry.py",
        "PLANNERS: Mapping[str, PlannerEntry] = {",
        '"shooting": PlannerEntry("mine:Shooting", "planner", "Random shooting."),',
    ),
    "wm_models.registry": (
        "models/wm_models/registry.py",
        "ENTRIES: Mapping[str, PresetEntry] = {",
        '"small": PresetEntry("mine", "A small model."),',
    ),
    "wm_nodes.robots.registry": (
        "wm_nodes/robots/registry.py",
        "ROBOTS: Mapping[str, RobotEntry] = {",
        '"bench": RobotEntry("mine:Bench", "a bench", tasks=("press",), cameras=("eye",)),',
    ),
}
MINE = """
from dataclasses import dataclass

from tests.wm_nodes.point_robot import PointRobot
from wm_models.interface.preset import Preset


@dataclass(frozen=True)
class Shooting:
    horizon: int = 3


class Bench(PointRobot):
    pass


class Small(Preset):
    def build(self, embodiment, seed=0):
        import torch

        from wm_models.testing.linear_model import LinearModel

        return LinearModel(torch.eye(2), torch.eye(2), torch.ones(2))


PRESETS = (Small("small", "A small model."),)
"""
PROGRAM = """
import json, sys, types
from pathlib import Path

for name, (path, mark, line) in json.loads(sys.argv[1]).items():
    source = Path(path).read_text()
    assert source.count(mark) == 1, name
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source.replace(mark, mark + line), path, "exec"), module.__dict__)
"""


@pytest.fixture
def run(tmp_path):
    """Return a function: program -> what it prints, with the three entries added."""
    (tmp_path / "mine.py").write_text(MINE)
    paths = [*(str(ROOT / p) for p in (".", "models", "datasets")), str(tmp_path)]

    def run_program(program: str) -> str:
        completed = subprocess.run(
            [sys.executable, "-c", PROGRAM + program, json.dumps(ENTRIES)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run_program


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("eval --help", "shooting|actor|cem|mppi|gd"),
        ("eval --help", "bench (a bench)"),
        ("collect --help", "bench (a bench)"),
        ("models", "A small model."),
        ("launch sim_metaworld --show-args", "shooting"),
        ("launch sim_metaworld --show-args", "small"),
        ("launch sim --show-args", "bench"),
        ("launch sim --show-args", "press"),
        ("launch arm_mpc --show-args", "shooting"),
        ("completion bash", "shooting"),
        ("completion bash", "small"),
        ("completion bash", "bench"),
        ("completion bash", "press"),
    ],
)
def test_commands_graphs_and_completion_list_the_entry(run, arguments, expected):
    output = run(
        "from wm_nodes.cli.main import main\n"
        f"try: main({arguments.split()!r})\n"
        "except SystemExit: pass\n"
    )
    assert expected in output


def test_the_entries_are_opened_and_their_actions_have_a_source(run):
    output = run(
        "from wm_datasets.spec import Source\n"
        "from wm_models.planners import planner\n"
        "from wm_models.registry import preset\n"
        "from wm_nodes.records import Origin\n"
        "from wm_nodes.robots.opening import adapter_class\n"
        "assert Origin('small', 'shooting').source is Source.PLANNER\n"
        "print(planner('shooting', horizon=4), preset('small').name, adapter_class('bench'))\n"
    )
    assert output == "Shooting(horizon=4) small <class 'mine.Bench'>\n"
