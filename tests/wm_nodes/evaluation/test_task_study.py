"""A study of tasks is continued, and finished tasks are not repeated."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wm_nodes.cli.arguments import parse
from wm_nodes.cli.eval import Eval
from wm_nodes.cli.main import main
from wm_nodes.evaluation.task_sets import SETS, published
from wm_nodes.evaluation.task_study import BASELINES, StudyError, StudySettings, TaskStudy
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.graph import split_words
from wm_nodes.robots.sims.metaworld_tasks import TASKS

ROOT = Path(__file__).parents[3]
STUB_WM = Path(__file__).with_name("recorded_wm.py")
WAIT_S = 180.0
PROGRAM = """
import sys
from pathlib import Path
from wm_nodes.evaluation.task_study import StudySettings, TaskStudy
settings = StudySettings(minutes=float(sys.argv[2]), baselines=False)
program = (sys.executable, sys.argv[3], sys.argv[1])
TaskStudy(Path(sys.argv[1]) / "study", settings, ["reach-v3"], program=program).run()
"""


@pytest.fixture
def study(tmp_path):
    """Return a function that makes a study with a stub of `wm`: study(tasks, **settings)."""

    def make(*tasks, **settings):
        study_settings = StudySettings(**{"steps": 5000, "episodes": 4, **settings})
        program = (sys.executable, str(STUB_WM), str(tmp_path))
        messages: list[str] = []
        task_study = TaskStudy(
            tmp_path / "study", study_settings, tasks, program=program, report=messages.append
        )
        return task_study, messages

    return make


def calls(folder: Path, kind: str = "") -> list[str]:
    file = folder / "calls.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.startswith(kind)]


def test_every_task_has_baselines_training_and_evaluation_with_the_same_settings(study, tmp_path):
    task_study, messages = study("reach-v3", "door-open-v3", seed=7, time_limit=50, demos=5)
    rows = task_study.run()
    launches = calls(tmp_path, "launch")
    assert [word for line in launches for word in line.split() if word.startswith("task:=")] == [
        "task:=reach-v3", "task:=door-open-v3",
    ]  # fmt: skip
    for line in launches:
        assert {"demos:=5", "seed:=7", "time_limit:=50", "composition:=fused"} <= set(line.split())
    assert len(calls(tmp_path, "eval")) == 2 * (len(BASELINES) + 1)
    for line in calls(tmp_path, "eval"):
        assert "--episodes 4 --seed 7 --time-limit 50" in line
    row = rows[0]
    assert (row.success, row.mean_return, row.blind) == (0.75, 15.0, 0.5)
    assert (row.low, row.high) == (0.3006, 0.9544)  # Wilson, 3 of 4
    assert (row.steps, row.updates, row.end) == (5000, 321, "steps")
    assert row.last_evaluations == 0.75  # of .5, .75 and 1
    assert [line for line in messages if line.startswith("reach-v3: success 0.75 [0.30, 0.95]")]


def test_the_graph_and_the_evaluation_accept_their_arguments(study, tmp_path):
    """The arguments that the stub records are parsed by `wm` itself."""
    study("reach-v3", seed=7, time_limit=50, demos=5, minutes=3.0)[0].run()
    (launch,) = calls(tmp_path, "launch")
    _, name, *arguments = launch.split()
    values = find_graph(name).parse(split_words(arguments))
    assert (values["task"], values["demos"], values["seed"]) == ("reach-v3", 5, 7)
    evaluations = [parse(Eval, "eval", line.split()[1:]) for line in calls(tmp_path, "eval")]
    assert {evaluation.policy for evaluation in evaluations} == {"agent", *BASELINES}
    assert {
        (evaluation.episodes, evaluation.seed, evaluation.time_limit) for evaluation in evaluations
    } == {(4, 7, 50)}
    tasks = {evaluation.policy: evaluation.task for evaluation in evaluations}
    assert tasks == {"agent": "", **dict.fromkeys(BASELINES, "reach-v3")}  # "": that of the weights


def test_a_finished_task_is_not_repeated(study, tmp_path):
    study("reach-v3")[0].run()
    before = calls(tmp_path)
    rows = study("reach-v3", "door-open-v3")[0].run()
    assert [row.task for row in rows] == ["reach-v3", "door-open-v3"]
    assert not [line for line in calls(tmp_path)[len(before) :] if "reach-v3" in line]


def test_a_failed_task_does_not_affect_the_others_and_is_repeated(study, tmp_path):
    (tmp_path / "fail").write_text("reach-v3")
    rows = study("reach-v3", "door-open-v3")[0].run()
    assert [row.end for row in rows] == ["failed", "steps"]
    (tmp_path / "fail").unlink()
    rows = study("reach-v3", "door-open-v3")[0].run()
    assert [row.end for row in rows] == ["steps", "steps"]
    assert len(calls(tmp_path, "launch")) == 3
    assert len([line for line in calls(tmp_path, "eval") if "--task reach-v3" in line]) == 5


def test_a_baseline_that_failed_is_measured_again(study, tmp_path):
    (tmp_path / "fail").write_text("constant")
    (row,) = study("reach-v3")[0].run()
    assert row.end == "failed" and row.random == 0.0 and row.constant is None
    (tmp_path / "fail").unlink()
    (row,) = study("reach-v3")[0].run()
    assert (row.end, row.constant, row.expert) == ("steps", 0.0, 1.0)
    assert len([line for line in calls(tmp_path) if "--policy random" in line]) == 1


def test_the_table_and_the_figure_hold_every_task(study, tmp_path):
    study("reach-v3", "push-v3")[0].run()
    folder = tmp_path / "study"
    with (folder / "tasks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["reach-v3", "push-v3"]
    assert (rows[0]["success"], rows[0]["published"], rows[1]["published"]) == ("0.75", "0.96", "")
    lines = (folder / "tasks.md").read_text().splitlines()
    assert "`mwm_cpu`, 20 demonstrations" in lines[0]
    cells = [cell.strip() for cell in lines[-2].strip("|").split("|")]
    assert cells[:4] == ["reach-v3", "0.75 [0.30, 0.95]", "0.75", "15"]
    assert cells[4:10] == ["0.00", "0.00", "0.00", "0.50", "1.00", "0.96"]
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert (folder / "tasks.png").read_bytes().startswith(b"\x89PNG")


def wait_for(condition, process):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, "the study ended"
        assert time.monotonic() < end, "the condition did not hold in time"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_ended_study_leaves_no_process_and_is_continued(tmp_path, number):
    """The minutes of a task are shared by the processes that ran it."""
    paths = [str(path) for path in (ROOT, ROOT / "models", ROOT / "datasets")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def start(minutes):
        arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), str(minutes), str(STUB_WM)]
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)

    state, pid = (
        tmp_path / "study" / "state" / "reach-v3.json",
        tmp_path / "study/runs/reach-v3/pid",
    )

    def seconds():
        return json.loads(state.read_text())["seconds"] if state.exists() else 0.0

    first = start(30)
    wait_for(lambda: seconds() > 0 and pid.exists(), first)
    first.send_signal(number)
    assert first.wait(WAIT_S) != 0
    graph = Path("/proc") / pid.read_text()
    end = time.monotonic() + WAIT_S
    while graph.exists():
        assert time.monotonic() < end, "the graph runs on after its study"
        time.sleep(0.05)
    used_s = seconds()
    assert json.loads(state.read_text())["end"] == ""

    assert start((used_s + 1.0) / 60).wait(WAIT_S) == 0
    result = json.loads(state.read_text())
    assert result["end"] == "minutes" and result["seconds"] >= used_s + 1.0
    assert len(calls(tmp_path, "launch")) == 2
    assert len(calls(tmp_path, "eval")) == 1
    assert (tmp_path / "study" / "episodes" / "reach-v3.csv").exists()


def test_two_processes_cannot_have_one_study(study, tmp_path):
    task_study, _ = study("reach-v3")
    (tmp_path / "study").mkdir()

    def while_it_runs(text):
        with pytest.raises(StudyError, match="which another process uses"):
            study("reach-v3")[0].run()

    task_study._report = while_it_runs
    task_study.run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "5"], "--minutes: got 5.0, but run 'one' began with 9"),
        (["--demos", "3"], "--demos: got 3, but run 'one' began with 20"),
        (["--no-baselines"], "--baselines: got False, but run 'one' began with True"),
        (["--tasks", "reach,pusch"], "choices. Closest: push-v3"),
        (["--tasks", ","], "--tasks: got no task"),
    ],
)
def test_settings_are_fixed_when_a_study_begins(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TaskStudy, "run", lambda self: [])
    Path("one").mkdir()
    Path("one/study.json").write_text('{"minutes": 9.0, "demos": 20, "baselines": true}')
    assert main(["study", "tasks", "--folder", "one", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert main(["study", "tasks", "--folder", "one"]) == 0


def test_the_sets_are_the_paper_s():
    assert [len(SETS[name]) for name in ("easy", "medium", "hard", "very-hard")] == [28, 11, 6, 5]
    names = [task for tasks in SETS.values() for task in tasks]
    assert sorted(names) == sorted(f"{task}-v3" for task in TASKS)
    rates = [published(task) for task in SETS["easy"]]
    assert round(sum(rates) / len(rates), 3) == 0.961  # of the class, as released
    assert published("push-v3") is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_through_the_real_graph(tmp_path, monkeypatch):
    """One task, a few agent steps: demonstrations are recorded, and it is not done twice."""
    pytest.importorskip("rclpy")
    pytest.importorskip("metaworld")
    from tests import domains
    from wm_datasets import LogReader

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domains.PROCESSES))
    arguments = ["study", "tasks", "--tasks", "reach", "--folder", "one", "--demos", "2", "--steps",
             "60", "--time-limit", "15", "--episodes", "2", "--eval-every", "15", "--minutes", "5",
             "--no-baselines"]  # fmt: skip
    assert main(arguments) == 0
    state = json.loads(Path("one/state/reach-v3.json").read_text())
    assert state["end"] == "steps" and state["code"] == 0
    with LogReader("one/runs/reach-v3/demos") as log:
        assert log.spec.task == "reach-v3" and len(log.episodes) == 2
    assert main(arguments) == 0
    assert json.loads(Path("one/state/reach-v3.json").read_text()) == state
    assert "| reach-v3 | - |" in Path("one/tasks.md").read_text()  # too short for weights
