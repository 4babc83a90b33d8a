"""The completion script in a real bash: its completions of a typed line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from wm_nodes.assets import pretrained
from wm_nodes.cli import completion
from wm_nodes.graphs import NAMES

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")
# As readline does: the words are broken at the characters of COMP_WORDBREAKS.
DRIVER = """
source "$1"
COMP_LINE="$2"; COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_wm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "wm.bash"
    path.write_text(completion.script())
    return path


def completions(script: Path, line: str, cwd: Path | None = None) -> list[str]:
    command = [BASH, "--norc", "-c", DRIVER, "bash", str(script), line]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)
    assert result.stderr == ""
    return result.stdout.split()


REACHER = ("reacher_easy", "reacher_hard")  # of dm_control


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wm ev", ["eval"]),
        ("wm --v", ["--version"]),
        ("wm log ver", ["verify"]),
        ("wm log verify --js", ["--json"]),
        ("wm eval --epi", ["--episodes"]),
        ("wm eval --no-c", ["--no-compensate"]),
        ("wm eval --planner c", ["cem"]),
        (
            "wm eval --task rea",
            ["reach-v3", "reach-wall-v3", "reach", "reacher_easy", "reacher_hard"],
        ),
        ("wm eval --seed 1 --wei", ["--weights"]),
        ("wm train --model dino_wm_c", ["dino_wm_cpu"]),
        ("wm launch arm", ["arm_mpc"]),
        ("wm launch arm_mpc plan", ["planner:=", "plans:="]),
        ("wm launch arm_mpc planner:", ["="]),
        ("wm eval --seed ", []),
        ("wm launch arm_mpc planner:=", ["cem", "mppi", "gd", "actor"]),
        ("wm launch arm_mpc task:=goal planner:=m", ["mppi"]),
        ("wm launch sim_metaworld train:=f", ["false"]),
        ("wm completion ", ["bash", "--help"]),
        ("wm launch arm_mpc nothing_like_it", []),
    ],
)
def test_arguments_are_completed(script, line, expected, tmp_path):
    assert completions(script, line, tmp_path) == expected


def test_all_graphs_and_shipped_weights_are_offered(script, tmp_path):
    assert set(NAMES) < set(completions(script, "wm launch ", tmp_path))
    assert set(completions(script, "wm eval --weights ", tmp_path)) == set(pretrained())
    assert set(completions(script, "wm launch arm_mpc weights:=", tmp_path)) == set(pretrained())


def test_files_are_completed_where_a_path_is_expected(script, tmp_path):
    (tmp_path / "runs").mkdir()
    assert completions(script, "wm report ru", tmp_path) == ["runs"]
    assert completions(script, "wm eval --csv ru", tmp_path) == ["runs"]
    assert completions(script, "wm launch replay log:=ru", tmp_path) == ["runs"]
    assert completions(script, "wm eval --planner ru", tmp_path) == []


def test_a_command_with_options_may_have_a_subcommand(script, tmp_path):
    assert {"--json", "import"} <= set(completions(script, "wm weights ", tmp_path))
    assert completions(script, "wm weights import --ep", tmp_path) == ["--epoch"]
