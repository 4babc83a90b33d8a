"""`wm` for users: help, errors as one line with exit code 2, no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wm_datasets import LogSpec, LogWriter, Source, VectorSpec
from wm_nodes import graphs
from wm_nodes.cli.demo import Card, choose, show_summary
from wm_nodes.cli.main import COMMANDS, main


def wm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wm_nodes.cli.main import main; raise SystemExit(main())"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    try:
        code = main([command, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lunch"], "Closest: launch"),
        (["launch", "sim_metaword"], "Closest: sim_metaworld"),
        (["launch", "sim_metaworld", "task:=reach"], "Closest: reach-v3"),
        (["log", "info", "/nowhere"], "no log at /nowhere"),
        (["log", "inf"], "expected one of info"),
        (["average", "/nowhere"], "has no weights"),
        (["eval", "--task", "reac-v3"], "Closest: reach-v3"),
        (["eval", "--policy", "agent"], "--weights"),
        (["eval", "--policy", "random", "--episodes", "0"], "got 0, expected at least 1"),
        (["train", "--log", "/nowhere"], "got /nowhere, expected a replay log"),
        (["train", "--log", "/nowhere", "--model", "mwm_cp"], "Closest: mwm_cpu"),
        (["report", "/nowhere"], "RUN: got /nowhere, expected a log or a run"),
        (["demo", "--weights", "nothing"], "shipped checkpoint: got 'nothing'"),
        (["bench", "speed"], "group: got 'speed', expected"),
        (["train"], "--log: got none"),
        (["train", "--log", "a", "--device", "tpu"], "--device: got 'tpu'"),
        (["eval", "--policy", "random", "--device", "tpu"], "--device: got 'tpu'"),
        (["eval", "--policy", "random", "--device", "cuda:x"], "expected cpu, cuda, cuda:N"),
        (["eval", "--weights", "windw-close"], "Shipped: window-close"),
        (["eval", "--weights", "arm-goal", "--robot", "metaworld"], "expected 'arm_sim', the"),
        (["eval", "--weights", "reach", "--task", "push-v3"], "expected 'reach-v3', the task of"),
        (["eval", "--policy", "random", "--weights", "reach"], "got policy random, expected"),
        (
            ["launch", "sim_metaworld", "weights:=arm-reach"],
            "expected a task of graph 'sim_metaworld'",
        ),
        (
            ["launch", "sim_metaworld", "weights:=reach", "task:=push-v3"],
            "expected 'reach-v3', the task",
        ),
        (["launch", "sim_metaworld", "weights:=reach", "model:=mwm"], "'mwm_cpu_demos'"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_2(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unexpected_error_is_one_line_with_the_path_of_its_traceback(
    monkeypatch, capsys, tmp_path
):
    def broken(arguments):
        raise RuntimeError("a tensor\nof 3 rows")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("wm_nodes.cli.models.run", broken)
    assert main(["models", "--json"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("wm models: RuntimeError: a tensor of 3 rows. Traceback: ")
    assert error.count("\n") == 1
    path = Path(error.split("Traceback: ")[1].strip())
    assert path.parent == tmp_path / "wm_nodes" / "errors"
    assert "wm models --json" in path.read_text()
    assert "Traceback (most recent call last)" in path.read_text()


def test_an_unexpected_error_is_reported_where_no_file_can_be_written(
    monkeypatch, capsys, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    monkeypatch.setattr("wm_nodes.cli.models.run", lambda arguments: 1 / 0)
    assert main(["models"]) == 1
    assert "ZeroDivisionError: division by zero. Traceback: no log file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("GRAPH = 1 +", "invalid syntax"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("GRAPH = 3", "got GRAPH of type int in wm_nodes/graphs/mine.py, expected"),
        ("", "has no attribute 'GRAPH'"),
    ],
)
def test_a_broken_graph_file_is_named_and_the_others_work(
    content, message, monkeypatch, tmp_path, capsys
):
    (tmp_path / "mine.py").write_text(content)
    monkeypatch.setattr("wm_nodes.graphs.__path__", [*graphs.__path__, str(tmp_path)])
    monkeypatch.setattr(graphs, "NAMES", (*graphs.NAMES, "mine"))
    monkeypatch.setattr("wm_nodes.cli.launch.NAMES", (*graphs.NAMES, "mine"))
    monkeypatch.delitem(sys.modules, "wm_nodes.graphs.mine", raising=False)
    assert main(["launch", "--help"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Train from a recorded log." in output
    assert "BROKEN: graph 'mine' cannot be read" in output
    assert main(["launch", "mine", "--show-args"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert main(["launch", "replay", "--show-args"]) == 0


def test_a_log_of_video_is_refused_with_what_can_use_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    video = LogSpec("hand", "wave", 0.04, {"camera": (8, 8, 3)}, None, None)
    LogWriter(tmp_path / "video", video).close()
    assert main(["train", "--log", str(tmp_path / "video")]) == 2
    error = capsys.readouterr().err
    assert "without actions (plain video)" in error and "pre-training" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


def test_a_wrong_type_is_refused_by_the_process():
    result = wm("eval", "--episodes", "many")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr + result.stdout
    assert "many" in result.stderr + result.stdout


def test_a_closed_pipe_is_no_error():
    result = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m wm_nodes.cli.main launch | head -1"],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert "Traceback" not in result.stderr


@pytest.fixture
def log(tmp_path):
    """A log of one episode of three actions that succeeds."""
    action = VectorSpec(("x",), ("m",), (-1.0,), (1.0,))
    spec = LogSpec("point", "reach", 0.05, {"eye": (4, 4, 3)}, None, action, {"render": "fast"})
    with LogWriter(tmp_path / "run" / "log", spec) as writer:
        for t in range(4):
            writer.append(
                {
                    "image/eye": np.zeros((4, 4, 3), np.uint8),
                    "action": np.zeros(1, np.float32),
                    "commanded": np.zeros(1, np.float32),
                    "reward": float(t < 3),
                    "is_first": t == 0,
                    "is_last": t == 3,
                    "is_terminal": False,
                    "success": t == 2,
                    "stamp": t,
                    "source": int(Source.RANDOM),
                    "weights": -1,
                }
            )
    return tmp_path / "run"


def test_log_info_accepts_the_log_or_its_run(log, capsys):
    assert main(["log", "info", str(log)]) == 0
    run_output = capsys.readouterr().out
    assert main(["log", "info", str(log / "log")]) == 0
    assert capsys.readouterr().out == run_output
    assert "1 complete, success 1.00, mean return 3.0" in run_output
    assert "source random" in run_output


def test_log_info_as_json(log, capsys):
    assert main(["log", "info", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] == 1


def card(name: str, vision: bool, rate: float) -> Card:
    return Card(name, None, "reach-v3", "mwm_cpu", vision, rate, {"random": 0.1}, {})


def test_the_demo_prefers_a_solved_vision_task():
    drawer, weak, window = card("drawer", False, 1.0), card("r", True, 0.5), card("w", True, 0.85)
    assert choose([drawer, weak, window]) is window
    assert choose([drawer, weak]) is drawer
    assert choose([weak]) is weak
    assert choose([]) is None
    assert choose([drawer, window], "drawer") is drawer


def test_the_summary_names_the_baselines_beaten(tmp_path, capsys):
    (tmp_path / "metrics").mkdir()
    summary = {
        "success_rate": 0.9,
        "success_interval_95": [0.6, 0.98],
        "episodes_judged": 10,
        "mean_return": 12.0,
        "latency_p50_ms": 5.0,
        "latency_p99_ms": 9.0,
    }
    (tmp_path / "metrics" / "summary.json").write_text(json.dumps(summary))
    assert show_summary(tmp_path, card("w", True, 0.85)) == 0
    out = capsys.readouterr().out
    assert "0.90 [0.60, 0.98]" in out
    assert "random" in out


def test_an_agent_is_evaluated_on_the_task_of_its_weights(capsys):
    assert main(["eval", "--weights", "reach", "--episodes", "1", "--time-limit", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("reach-v3 agent")
    assert "camera" not in printed.err
