"""`wm log show` and `wm log stats`: they draw and count the contents of the log."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_nodes.point_robot import PointRobot, UnscoredPoint
from wm_datasets import LogReader, LogSpec, LogWriter, SensorSpec, Source, VectorSpec
from wm_datasets.log.statistics import measure
from wm_nodes.cli.main import main
from wm_nodes.episodes.collect import HeldRandom, collect
from wm_nodes.viz.episode_video import LANE, curves, show_frames
from wm_nodes.viz.image_panels import panels
from wm_nodes.viz.video import BAR

PERIOD_S = 0.1
ACTION = VectorSpec(("x", "grip"), ("m", "1"), (-1, 0), (1, np.inf))
JOINTS = VectorSpec(("q",), ("rad",), (-np.inf,), (np.inf,))
VIEWS = {"eye": (6, 8, 3), "hand": (3, 3, 3)}


def rows(episode: int, actions: int, weights: int, source: Source, success: bool, gap_s: float):
    """Rows with values that identify them; the second dimension of the action is changed."""
    for t in range(actions + 1):
        last = t == actions
        x = 0.0 if last else -1.0 + 0.5 * t
        yield {
            "image/eye": np.full(VIEWS["eye"], 10 * t, np.uint8),
            "image/hand": np.full(VIEWS["hand"], 200, np.uint8),
            "proprio": np.float32([episode]),
            "action": np.float32([x, 0.0]),
            "commanded": np.float32([x, 0.0 if last or t else 3.0]),
            "reward": 0.0 if last else float(t),
            "is_first": t == 0,
            "is_last": last,
            "is_terminal": False,
            "success": success and t == actions - 1,
            "stamp": round((100 * episode + t * gap_s) * 1e9),
            "source": int(source),
            "weights": weights,
        }


@pytest.fixture
def log(tmp_path):
    """Three episodes: 4 and 2 actions by versions 1 and 2, 3 by a script and late."""
    spec = LogSpec("arm", "lift", PERIOD_S, VIEWS, JOINTS, ACTION)
    episodes = [(4, 1, Source.POLICY, True, 0.1), (2, 2, Source.POLICY, False, 0.1),
             (3, -1, Source.SCRIPT, True, 0.2)]  # fmt: skip
    with LogWriter(tmp_path / "log", spec) as writer:
        for episode, settings in enumerate(episodes):
            for row in rows(episode, *settings):
                writer.append(row)
    return tmp_path / "log"


def test_ranges_are_of_executed_actions_and_rates_are_within_episodes(log):
    stats = measure(log)
    ranges = {value_range.name: value_range for value_range in stats.ranges}
    assert list(ranges) == ["proprio/q", "action/x", "action/grip", "commanded/x",
                            "commanded/grip", "reward"]  # fmt: skip
    x = ranges["action/x"]
    assert (x.min, x.max, x.low, x.high, x.unit) == (-1.0, 0.5, -1.0, 1.0, "m")
    assert x.mean == pytest.approx(np.mean([-1, -0.5, 0, 0.5, -1, -0.5, -1, -0.5, 0]))
    assert x.at_bounds == pytest.approx(3 / 9)
    assert ranges["commanded/grip"].max == 3.0 and ranges["action/grip"].at_bounds == 1.0
    assert (ranges["proprio/q"].min, ranges["proprio/q"].max) == (0, 2)
    assert stats.changed == pytest.approx(3 / 9)
    assert stats.lengths.tolist() == [4, 2, 3] and stats.complete.all()
    assert stats.rate.declared_hz == pytest.approx(10) == stats.rate.real_hz
    assert stats.rate.gap_max_s == pytest.approx(0.2) and stats.rate.late == pytest.approx(3 / 9)


def test_success_is_counted_by_source_and_by_weights(log):
    stats = measure(log)
    rates = {name: (t.episodes, t.success_rate) for name, t in stats.per_source.items()}
    assert rates == {"policy": (2, 0.5), "script": (1, 1.0)}
    assert {v: t.success_rate for v, t in stats.per_weights.items()} == {-1: 1.0, 1: 1.0, 2: 0.0}


def test_stats_as_table_as_json_and_as_figure(log, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "stats.png"
    assert main(["log", "stats", str(log), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    assert "action/x" in out and "2 / 3 / 4 actions" in out and "policy" in out
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert main(["log", "stats", str(log), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["lengths"] == {"min": 2.0, "median": 3.0, "max": 4.0}
    assert stats["ranges"][0]["low"] is None  # unbounded


def test_an_empty_log_and_one_without_actions_have_statistics(tmp_path, capsys):
    LogWriter(tmp_path / "empty", LogSpec("r", "t", 0.1, VIEWS, JOINTS, ACTION)).close()
    video = LogSpec("r", "t", 0.1, {"eye": (4, 4, 3)}, None, None)
    LogWriter(tmp_path / "video", video).close()
    for name in ("empty", "video"):
        assert main(["log", "stats", str(tmp_path / name)]) == 0
    capsys.readouterr()


def test_the_curves_show_every_action_and_the_reward(log):
    with LogReader(log) as reader:
        lanes = curves(reader, 0, 5)
    assert [lane.name for lane in lanes] == ["x", "grip", "reward"]
    assert np.array_equal(lanes[0].values, [-1, -0.5, 0, 0.5, np.nan], equal_nan=True)
    assert np.array_equal(lanes[1].behind, [3, 0, 0, 0, np.nan], equal_nan=True)
    assert (lanes[0].low, lanes[0].high, lanes[1].high) == (-1, 1, 3)


def test_a_frame_has_all_cameras_and_a_cursor_that_moves(log):
    with LogReader(log) as reader:
        frames = list(show_frames(reader, 0))
    assert len(frames) == 5 and {frame.shape for frame in frames} == {frames[0].shape}
    height, width, _ = frames[0].shape
    assert height % 2 == width % 2 == 0 and height >= BAR + 320 + 3 * LANE
    middle = BAR + 160
    assert frames[3][middle, 100].tolist() == [30] * 3  # camera eye at row 3
    assert (frames[3][middle, -100] == 200).all()  # camera hand
    cursors = [frame[BAR + 320 :].astype(int) for frame in frames]
    assert all((a != b).any() for a, b in itertools.pairwise(cursors))


def test_show_writes_a_video_with_a_frame_for_each_row(log, tmp_path, capsys):
    av = pytest.importorskip("av")
    video = tmp_path / "videos" / "one.mp4"
    assert main(["log", "show", str(log), "--episode", "1", "--out", str(video)]) == 0
    assert "3 frames, 10 a second" in capsys.readouterr().out
    with av.open(str(video)) as container:
        assert len(list(container.decode(video=0))) == 3
    assert [path.name for path in video.parent.iterdir()] == ["one.mp4"]


def test_an_episode_of_the_point_robot_is_shown_by_default(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    with PointRobot() as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, 0), tmp_path / "log", 2, 0)
    monkeypatch.chdir(tmp_path)
    assert main(["log", "show", "log"]) == 0
    assert (tmp_path / "origin-episode-1.mp4").stat().st_size > 1000
    capsys.readouterr()


def test_rerun_s_file_holds_every_entity(log, tmp_path, capsys):
    pytest.importorskip("rerun")
    path = tmp_path / "one.rrd"
    assert main(["log", "show", str(log), "--episode", "0", "--rerun", str(path)]) == 0
    assert "rerun" in capsys.readouterr().out
    assert path.read_bytes()[:3] == b"RRF" and list(tmp_path.glob("*.mp4")) == []
    content = path.read_bytes()
    for entity in ("image/eye", "image/hand", "proprio/q", "action/x/executed",
                   "action/grip/commanded", "reward", "success", "weights", "gap_ms"):  # fmt: skip
        assert entity.encode() in content, entity


@pytest.fixture
def sensor_log(log):
    """The log with one more episode, of 3 actions, which has depth, force and signals too."""
    sensors = {"depth": SensorSpec("uint16", (4, 6), "mm"),
               "force": SensorSpec("float32", (2,), ("N", "N"), ("fx", "fy"))}  # fmt: skip
    signals = VectorSpec(("latency", "stops"), ("ms", "1"), (0, 0), (np.inf,) * 2)
    with LogReader(log) as reader:
        spec = replace(reader.spec, sensors=sensors, signals=signals)
    with LogWriter(log, spec) as writer:
        for t, row in enumerate(rows(3, 3, -1, Source.PERSON, True, 0.1)):
            sensor_values = {
                "sensor/depth": np.full((4, 6), 500 * t, np.uint16),
                "sensor/force": np.float32([t, -t]),
                "signals": np.float32([7, 1]) * (t < 3),
            }
            writer.append(row | sensor_values)
    return log


def test_sensors_and_signals_are_measured_where_there_are_any(sensor_log, tmp_path, capsys):
    ranges = {value_range.name: value_range for value_range in measure(sensor_log).ranges}
    assert (ranges["sensor/depth"].min, ranges["sensor/depth"].max) == (0, 1500)
    assert (ranges["sensor/force/fy"].min, ranges["sensor/force/fy"].unit) == (-3, "N")
    assert (ranges["signals/latency"].min, ranges["signals/latency"].max) == (7, 7)
    assert main(["log", "stats", str(sensor_log), "--figure", str(tmp_path / "a.png")]) == 0
    assert main(["log", "info", str(sensor_log)]) == 0
    assert "from row 12 on" in capsys.readouterr().out


def test_depth_is_shown_beside_the_cameras_where_there_is_any(sensor_log):
    with LogReader(sensor_log) as reader:
        before, after = list(show_frames(reader, 0)), list(show_frames(reader, -1))
        assert [p.field for p in panels(reader, 0, 5)] == ["image/eye", "image/hand"]
        assert [p.field for p in panels(reader, 12, 4)][2:] == ["sensor/depth"]
        assert [c.name for c in curves(reader, 12, 4)][-3:] == ["reward", "latency", "stops"]
    assert after[0].shape[1] > before[0].shape[1]
    middle = BAR + 160
    assert not after[0][middle, -100].any()  # no depth was measured
    near, far = after[1][middle, -100].astype(int), after[3][middle, -100].astype(int)
    assert near[2] > near[0] and far[0] > far[2]


def test_rerun_prints_all_sent_entities(sensor_log, tmp_path, capsys):
    pytest.importorskip("rerun")
    path = tmp_path / "one.rrd"
    assert main(["log", "show", str(sensor_log), "--rerun", str(path)]) == 0
    capsys.readouterr()
    arguments = [sys.executable, "-m", "rerun", "rrd", "print", str(path)]
    output = subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    for entity in ("sensor/depth", "sensor/force/fx", "signal/latency", "signal/stops"):
        assert f"/{entity}" in output, entity


def test_a_damaged_episode_is_not_counted(log, capsys):
    for chunk in (log / "source").glob("c*"):
        chunk.write_bytes(b"")
    stats = measure(log)
    assert not stats.per_source and np.isnan(stats.ranges[0].max)
    assert main(["log", "info", str(log)]) == 0
    assert "3 episodes, not counted below" in capsys.readouterr().out


def test_without_rerun_the_error_names_what_to_install(log, monkeypatch, capsys):
    monkeypatch.setattr("wm_nodes.viz.rerun.find_spec", lambda name: None)
    assert main(["log", "show", str(log), "--rerun", "--episode", "0"]) == 2
    error = capsys.readouterr().err
    assert "wm_nodes[viz]" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["log", "show", "/nowhere"], "no log at /nowhere"),
        (["log", "stats", "/nowhere"], "no log at /nowhere"),
    ],
)
def test_a_missing_log_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_missing_episode_is_refused(log, capsys):
    assert main(["log", "show", str(log), "--episode", "3"]) == 2
    assert "expected 0 to 2, or -1 for the newest" in capsys.readouterr().err


def test_a_task_that_reports_no_success_has_returns_only(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    with UnscoredPoint() as robot:
        collect(robot, HeldRandom(robot.spec, 1.0, 0), tmp_path / "log", 2, 0)
    figure = str(tmp_path / "stats.png")
    for words in (["info"], ["stats", "--figure", figure]):
        assert main(["log", words[0], str(tmp_path / "log"), *words[1:]]) == 0
        out = capsys.readouterr().out
        assert "mean return" in out
        assert not any("success" in line for line in out.splitlines() if "bool" not in line)
