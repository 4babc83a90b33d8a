"""Reports agree with the log; a model with the exact physics predicts the images exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.wm_nodes.point_robot import PointRobot
from wm_datasets import LogReader, LogWriter
from wm_models.interface.world_model import ModelSpec, WorldModel
from wm_nodes.cli.report import find
from wm_nodes.evaluation.open_loop import predict
from wm_nodes.viz import video
from wm_nodes.viz.run_report import (
    LoggedEpisode,
    ReportError,
    ReportSettings,
    episode_figure,
    logged_episodes,
    outcomes,
    write_report,
)
from wm_nodes.viz.training_report import write_training_report

av = pytest.importorskip("av", reason="needs the [viz] extra")
pytest.importorskip("matplotlib", reason="needs the [viz] extra")


class ExactPointModel(WorldModel):
    """The physics of the point robot; it reads proprio when it observes. State: position (B, 1)."""

    def __init__(self, push: float = 1.0) -> None:
        super().__init__()
        self.push = torch.nn.Parameter(torch.tensor(push))
        self.spec = ModelSpec((-1.0,), (1.0,), {"proprio": (1,)}, has_reward=True, has_decoder=True)
        self.observed = 0

    def initial(self, batch, device=None):
        return torch.zeros(batch, 1)

    def observe(self, state, prev_action, obs, is_first, *, generator=None):
        assert bool(is_first) == (self.observed == 0)
        if not is_first:
            torch.testing.assert_close(self.step(state, prev_action), obs["proprio"])
        self.observed += 1
        return obs["proprio"]

    def step(self, state, action, *, generator=None):
        return (state + self.push * action).clamp(-2, 2)

    def readout(self, state, want, *, generator=None):
        return {"reward": -state[:, 0].abs()}

    def decode(self, state):
        image = torch.zeros(len(state), 3, 8, 8)
        image[0, :, 4, int((float(state) + 2) / 4 * 7.99)] = 1
        return {"image": image}


@pytest.fixture
def log(tmp_path):
    """Four complete episodes of a random point, the third one homing, and an incomplete one."""
    random = np.random.default_rng(0)
    robot = PointRobot(seed=3, time_limit=30)
    with LogWriter(tmp_path / "log", robot.spec.log_spec()) as writer:
        for episode in range(5):
            observation = robot.reset()
            while True:
                push = -observation.proprio if episode == 2 else random.uniform(-0.4, 0.4, 1)
                next_observation = None if observation.is_last else robot.act(np.float32(push))
                writer.append(row(observation, next_observation, episode))
                if next_observation is None or (
                    episode == 4 and next_observation.stamp_ns > 130 * 10**8
                ):
                    break
                observation = next_observation
    return tmp_path / "log"


def row(observation, next_observation, episode):
    zeros = np.zeros(1, np.float32)
    return {
        "image/top": observation.images["top"],
        "proprio": observation.proprio,
        "action": zeros if next_observation is None else next_observation.executed,
        "commanded": zeros if next_observation is None else next_observation.commanded,
        "reward": 0.0 if next_observation is None else next_observation.reward,
        "is_first": observation.is_first,
        "is_last": observation.is_last,
        "is_terminal": False,
        "success": False if next_observation is None else next_observation.success,
        "stamp": observation.stamp_ns,
        "source": 4 if episode == 2 else 2,
        "weights": episode,
        "evaluation": False,
    }


def test_the_report_has_the_counts_of_the_log(log, tmp_path):
    summary = write_report(log, tmp_path / "report", model=ExactPointModel(), facts={"p99_ms": 3.0})
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == summary
    episodes = logged_episodes(LogReader(log))
    assert summary["episodes"] == len(episodes) == 4
    assert summary["decisions"] == 4 * 30
    assert summary["success_rate"] == np.mean([episode.success for episode in episodes])
    assert summary["decisions_by_source"] == {"random": 90, "script": 30}
    assert summary["weights"] == [0, 1, 2, 3]
    assert summary["p99_ms"] == 3.0
    assert episodes[2].success
    assert episodes[2].first_success in (1, 2)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"summary.json", "episodes.mp4", "episodes.png", "prediction.png"}


def test_the_video_shows_every_frame(log, tmp_path):
    settings = ReportSettings(video_episodes=2)
    write_report(log, tmp_path / "report", settings=settings)
    with av.open(str(tmp_path / "report" / "episodes.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 2 * 31
    assert frames[0].width % 2 == frames[0].height % 2 == 0
    assert not (tmp_path / "report" / "prediction.png").exists()


def test_the_video_falls_back_to_another_codec(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "CODECS", ("absent", "mpeg4"))
    frames = [video.labelled(np.full((8, 9, 3), v, np.uint8), ("a", "b")) for v in (0, 200)]
    assert video.write_video(tmp_path / "video.mp4", frames, 20.0) == "mpeg4"


def test_a_video_that_fails_leaves_no_file(tmp_path):
    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise RuntimeError("the log was removed")

    with pytest.raises(RuntimeError, match="was removed"):
        video.write_video(tmp_path / "video.mp4", frames(), 20.0)
    assert list(tmp_path.iterdir()) == []


def rows_of(log, episode, start=0, frames=25):
    reader = LogReader(log)
    first = int(reader.episodes["start"][episode]) + start
    fields = {"image": "image/top", "action": "action", "reward": "reward", "proprio": "proprio"}
    return {key: reader.read(field, first, first + frames) for key, field in fields.items()}


@pytest.mark.parametrize("start", [0, 4])
def test_a_model_with_the_physics_predicts_exactly(log, start):
    prediction = predict(ExactPointModel(), rows_of(log, 1, start), context=5, start=start)
    np.testing.assert_array_equal(prediction.predicted, prediction.truth)
    np.testing.assert_allclose(prediction.predicted_reward[1:], prediction.reward[1:], atol=1e-5)
    figures = prediction.figures()
    assert figures["mse"] == 0 < figures["mse_frozen"]


def test_a_wrong_model_has_errors(log):
    class WrongPointModel(ExactPointModel):
        def observe(self, state, prev_action, obs, is_first, *, generator=None):
            return obs["proprio"]

    figures = predict(WrongPointModel(push=-1.0), rows_of(log, 1), context=5).figures()
    assert figures["mse"] > 0
    assert figures["reward_mean_error"] > 0.01


def test_context_must_leave_frames_to_imagine(log):
    with pytest.raises(ValueError, match="context: got 25, expected 1 to 24 of 25 frames"):
        predict(ExactPointModel(), rows_of(log, 1), context=25)


def test_training_and_evaluation_are_not_mixed(log, tmp_path):
    with LogReader(log) as reader:
        rows, spec = reader.read_rows(0, reader.length), reader.spec
        second = reader.episodes[1]
    offsets = np.arange(len(rows["stamp"])) - int(second["start"])
    rows["evaluation"] = (offsets >= 0) & (offsets < int(second["length"]))
    with LogWriter(tmp_path / "mixed", spec) as writer:
        for index in range(len(offsets)):
            writer.append({name: values[index] for name, values in rows.items()})
    summary = write_report(tmp_path / "mixed", tmp_path / "report")
    assert summary["episodes"] == 3 and summary["evaluation"]["episodes"] == 1
    assert summary["weights"] == [0, 2, 3]  # the second episode's weights are 1


def test_only_the_last_episodes_count_when_asked(log, tmp_path):
    summary = write_report(log, tmp_path / "report", settings=ReportSettings(last=1))
    assert summary["episodes"] == 1
    assert summary["weights"] == [3]


def test_a_log_without_an_episode_is_refused(tmp_path):
    LogWriter(tmp_path / "log", PointRobot().spec.log_spec()).close()
    with pytest.raises(ReportError, match="no complete episode"):
        write_report(tmp_path / "log", tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.fixture
def trained(log, tmp_path):
    """A run as `wm train` writes it: run.json and metrics, without a log."""
    run = tmp_path / "runs" / "trained"
    (run / "metrics").mkdir(parents=True)
    rows = [f"1.0,{update},wm/loss,{1 / update}\n" for update in (25, 50, 75)]
    rows += ["2.0,50,eval/success_rate,0.5\n", "3.0,75,wm/kl,nan\n", "3.0,100,wm/lo"]
    (run / "metrics" / "train.csv").write_text("time,update,metric,value\n" + "".join(rows))
    arguments = {"model": "mwm_cpu", "seed": 3, "logs": [f"{log}:1"]}
    (run / "run.json").write_text(json.dumps({"graph": "train", "arguments": arguments}))
    return run


def test_a_run_of_wm_train_has_a_report(trained, capsys, monkeypatch):
    from wm_nodes.cli.main import main

    monkeypatch.chdir(trained.parents[1])
    assert main(["report", "trained"]) == 0
    assert "report: runs/trained/report" in capsys.readouterr().out
    summary = json.loads((trained / "report" / "summary.json").read_text())
    assert (summary["model"], summary["measured_updates"]) == ("mwm_cpu", 75)
    assert summary["metrics"] == {"wm/loss": pytest.approx(1 / 75), "eval/success_rate": 0.5}
    assert {p.name for p in (trained / "report").iterdir()} == {"summary.json", "training.png"}


def test_the_report_of_learning_predicts_the_log_that_was_learned_from(trained, log, tmp_path):
    model, reader = ExactPointModel(), LogReader(log)
    summary = write_training_report(trained, tmp_path / "out", model=model, log=reader)
    assert summary["prediction"]["mse"] == 0
    assert (tmp_path / "out" / "prediction.png").exists()


def test_a_run_of_few_updates_has_a_report_without_curves(trained, log, tmp_path):
    (trained / "metrics" / "train.csv").unlink()
    model, reader = ExactPointModel(), LogReader(log)
    summary = write_training_report(trained, tmp_path / "out", model=model, log=reader)
    assert (summary["measured_updates"], summary["metrics"]) == (0, {})
    assert summary["prediction"]["mse"] == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"summary.json", "prediction.png"}
    with pytest.raises(ReportError, match="got neither metrics, which are written every 25 upda"):
        write_training_report(trained, tmp_path / "none", log=reader)
    assert not (tmp_path / "none").exists()


def test_the_newest_weights_are_enough_for_a_report(tmp_path):
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "run" / "weights" / "latest").write_text("7")
    assert find(tmp_path / "run") == (tmp_path / "run", False)


def test_a_run_that_has_not_learned_yet_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    from wm_nodes.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "new").mkdir(parents=True)
    assert main(["report", "new"]) == 2
    assert "got runs/new, expected a run with a log, training metrics" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "new" / "report").exists()


def test_an_evaluation_shows_one_mean_and_learning_a_moving_one():
    def labels(weights: list[int]) -> list[str]:
        episodes = [
            LoggedEpisode(i, 10 * i, 9, float(i), i % 2 == 0, 3, version, (2,) * 9)
            for i, version in enumerate(weights)
        ]
        figure = episode_figure(episodes, "task")
        return [text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]]

    learned, frozen = labels([1, 2, 3, 4]), labels([7] * 4)
    assert "mean of the last 20" in learned and not any("mean of all" in t for t in learned)
    assert "mean of all: 1.5" in frozen and "mean of all: 0.5" in frozen
    assert sum("95 % interval" in text for text in frozen) == 2
    assert not any("last 20" in text for text in frozen)
    assert "mean of all: 0" in labels([7])  # one episode


def test_the_figure_of_a_task_that_reports_no_success_shows_returns_only():
    episodes = [LoggedEpisode(i, 10 * i, 9, float(i), False, -1, 7, (2,) * 9) for i in range(4)]
    assert len(episode_figure(episodes, "task").axes) == 2
    (axes,) = episode_figure(episodes, "task", scored=False).axes
    assert not any("success" in text for text in axes.get_legend_handles_labels()[1])
    assert outcomes(episodes, scored=False)["success_rate"] is None
    assert outcomes(episodes, scored=True)["success_rate"] == 0
