"""The report folder of a run: figures, a video, a prediction with the truth, a plot.

report/
  summary.json     success with its interval, return, weights, extra entries of the log, any facts
  episodes.mp4     the newest episodes, labelled
  episodes.png     return and success of every episode
  prediction.png   5 observed frames, then imagined ones, with the true frames (with a model)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_datasets import LogReader, Source
from wm_models.interface.world_model import WorldModel
from wm_nodes.evaluation.evaluate import mean_interval, wilson
from wm_nodes.evaluation.open_loop import (
    Prediction,
    draw_prediction,
    fields_to_predict,
    predict,
)
from wm_nodes.viz.video import episode_frames, write_video

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class ReportError(Exception):
    """No report of a log or run can be written."""


@dataclass(frozen=True)
class ReportSettings:
    """Extent of the report. Lengths are in frames."""

    last: int | None = None  # number of newest episodes to use; None: all
    video_episodes: int = 10
    context: int = 5  # observed frames before the imagined ones
    frames: int = 50  # frames of the prediction, observed ones included
    every: int = 5  # of which every k-th is drawn
    seed: int = 0


@dataclass(frozen=True)
class LoggedEpisode:
    """One complete episode of a log; `length` counts actions."""

    number: int
    start: int
    length: int
    total_reward: float  # nan where the log has no rewards
    success: bool
    first_success: int  # agent step, -1 if none
    weights: int  # newest version that acted
    sources: tuple[int, ...]
    evaluation: bool = False
    log: int = 0  # of several logs


def write_report(
    log: str | Path | LogReader,
    folder: str | Path,
    *,
    model: WorldModel | None = None,
    settings: ReportSettings = ReportSettings(),
    facts: Mapping[str, Any] | None = None,
    more: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write the report of a log and return the summary.

    Figures and video show the training episodes; without any, the evaluation episodes.
    A log that has both gets the figures of the latter as `evaluation` in the summary. `facts`
    (latencies, the command, blind baselines) are added to the summary as they are. more: logs of
    further environments of the run: figures count their episodes too; video and prediction show the
    first log.
    """
    require_viz()
    reader = log if isinstance(log, LogReader) else LogReader(log)
    whole = _episodes_of_all([reader, *map(LogReader, more)])
    judged = [episode for episode in whole if episode.evaluation]
    training = [episode for episode in whole if not episode.evaluation]
    episodes = (training or judged)[-(settings.last or 0) :]
    if not episodes:
        raise ReportError(f"log {reader.path}: got no complete episode, expected at least one.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(reader, episodes)
    if training and judged:
        summary["evaluation"] = outcomes(judged, scored=reader.spec.success)
    if more:
        summary["environments"] = 1 + len(more)
    figure = episode_figure(episodes, reader.spec.task, scored=reader.spec.success)
    figure.savefig(folder / "episodes.png", dpi=110)
    own = [episode for episode in episodes if episode.log == 0]
    if reader.spec.cameras and own:
        camera = next(iter(reader.spec.cameras))
        shown = [(e.number, e.start, e.length + 1) for e in own[-settings.video_episodes :]]
        rate_hz = min(50.0, 1 / reader.spec.control_period_s)
        frames = episode_frames(reader, camera, shown)
        summary["video"] = {
            "codec": write_video(folder / "episodes.mp4", frames, rate_hz),
            "episodes": len(shown),
        }
        if model is not None:
            summary |= write_prediction(reader, model, own, folder, settings)
    summary |= dict(facts or {})
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _episodes_of_all(readers: Sequence[LogReader]) -> list[LoggedEpisode]:
    """Return the episodes of all logs: the first ones of each, the second ones, and so on."""
    if len(readers) == 1:
        return logged_episodes(readers[0])
    episodes = [
        replace(episode, log=number)
        for number, reader in enumerate(readers)
        for episode in logged_episodes(reader)
    ]
    return sorted(episodes, key=lambda episode: (episode.number, episode.log))


def logged_episodes(reader: LogReader) -> list[LoggedEpisode]:
    """Return the complete episodes of a log with at least one action, oldest first."""
    episodes, marks = list[LoggedEpisode](), reader.evaluation_rows()
    for number, (start, rows, complete) in enumerate(reader.episodes.tolist()):
        if not complete or rows < 2:
            continue
        acted = slice(start, start + rows - 1)
        success = reader.read("success", start, start + rows)
        versions = reader.read("weights", acted.start, acted.stop)
        sources = reader.read("source", acted.start, acted.stop)
        episodes.append(
            LoggedEpisode(
                number=number,
                start=start,
                length=rows - 1,
                total_reward=_total_reward(reader, start, rows),
                success=bool(success.any()),
                first_success=int(success.argmax()) + 1 if success.any() else -1,
                weights=int(versions.max()),
                sources=tuple(sources.tolist()),
                evaluation=bool(marks[start - reader.first]),
            )
        )
    return episodes


def _total_reward(reader: LogReader, start: int, rows: int) -> float:
    """Return the sum of an episode's rewards; nan in a log without them."""
    if not reader.spec.reward:
        return math.nan
    return float(reader.read("reward", start, start + rows).sum())


def summarise(reader: LogReader, episodes: Sequence[LoggedEpisode]) -> dict[str, Any]:
    """Return the figures of some episodes as values for JSON."""
    spec = reader.spec
    acted = Counter(source for episode in episodes for source in episode.sources)
    firsts = [episode.first_success for episode in episodes if episode.success]
    return {
        "robot": spec.robot,
        "task": spec.task,
        **outcomes(episodes, scored=spec.success),
        "mean_first_success": fmean(firsts) if firsts else None,
        "weights": sorted({episode.weights for episode in episodes}),
        "decisions_by_source": {_source(code): count for code, count in sorted(acted.items())},
        "control_period_s": spec.control_period_s,
        "log": spec.extra,
    }


def outcomes(episodes: Sequence[LoggedEpisode], *, scored: bool) -> dict[str, Any]:
    """Return success and return of some episodes, with 95 % intervals. scored: does the task report
    success?"""
    successes = [episode.success for episode in episodes]
    interval = list(wilson(sum(successes), len(successes)))
    returns = [episode.total_reward for episode in episodes]
    known = all(map(math.isfinite, returns))
    return_interval = mean_interval(returns) if known else (math.nan, math.nan)
    return {
        "episodes": len(episodes),
        "decisions": sum(episode.length for episode in episodes),
        "success_rate": fmean(successes) if scored else None,
        "success_interval_95": interval if scored else None,
        "mean_return": fmean(returns) if known else None,
        "return_interval_95": [x if math.isfinite(x) else None for x in return_interval],
    }


def episode_figure(episodes: Sequence[LoggedEpisode], task: str, *, scored: bool = True) -> Figure:
    """Return a figure of every episode's return and, where the task reports it (`scored`), success.

    Weights that changed show means of the last 20 episodes; the same weights throughout are an
    evaluation and show one mean with its 95 % interval.
    """
    from matplotlib.figure import Figure

    numbers = _numbers(episodes)
    returns = np.array([episode.total_reward for episode in episodes])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    panels = figure.subplots(
        2 if scored else 1, 1, sharex=True, squeeze=False, height_ratios=(2, 1)[: 1 + scored]
    )[:, 0]
    success = np.array([episode.success for episode in episodes], float)
    colours = np.where(success > 0, "tab:green", "tab:gray")
    label = "episode (green: success)" if scored else "episode"
    panels[0].scatter(numbers, returns, c=colours, s=14, label=label)
    if len({episode.weights for episode in episodes}) == 1:
        _draw_mean(panels[0], fmean(returns), mean_interval(returns.tolist()))
    else:
        panels[0].plot(numbers, _trailing_mean(returns), color="black", label="mean of the last 20")
    panels[0].set(ylabel="return", title=task)
    panels[0].legend(fontsize=8)
    if scored:
        _draw_success(panels[1], episodes, success, colours)
    panels[-1].set(xlabel="episode")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _numbers(episodes: Sequence[LoggedEpisode]) -> list[int]:
    """Return where episodes are drawn: by their number, those of several logs one by one."""
    if any(episode.log for episode in episodes):
        return list(range(len(episodes)))
    return [episode.number for episode in episodes]


def _draw_success(
    axes: Axes, episodes: Sequence[LoggedEpisode], success: np.ndarray, colours: np.ndarray
) -> None:
    numbers = _numbers(episodes)
    if len({episode.weights for episode in episodes}) == 1:
        axes.scatter(numbers, success, c=colours, s=14)
        _draw_mean(axes, fmean(success), wilson(int(success.sum()), len(success)))
        axes.set(ylabel="success")
        axes.legend(fontsize=8)
    else:
        axes.plot(numbers, _trailing_mean(success), color="tab:green")
        axes.set(ylabel="success rate\nof the last 20")
    axes.set(ylim=(-0.05, 1.05))


def _draw_mean(axes: Axes, mean: float, interval: tuple[float, float]) -> None:
    axes.axhline(mean, color="black", label=f"mean of all: {mean:.3g}")
    if np.isfinite(interval).all():  # one episode has none
        low, high = interval
        label = f"95 % interval: {low:.3g} to {high:.3g}"
        axes.axhspan(low, high, color="black", alpha=0.12, label=label)


def write_prediction(
    reader: LogReader,
    model: WorldModel,
    episodes: Sequence[LoggedEpisode],
    folder: Path,
    settings: ReportSettings,
) -> dict[str, Any]:
    """Draw prediction.png and return its part of the summary; nothing without a decoder
    or the model's cameras."""
    missing = set(model.spec.cameras) - reader.spec.cameras.keys()
    if missing or not (reader.spec.cameras and model.spec.has_decoder):
        return {}
    camera = next(iter(reader.spec.cameras))
    prediction, episode = _predict(reader, camera, model, episodes, settings)
    title = f"{reader.spec.task}, episode {episode.number}."
    draw_prediction(prediction, folder / "prediction.png", every=settings.every, title=title)
    return {"prediction": {"episode": episode.number, **prediction.figures()}}


def _predict(
    reader: LogReader,
    camera: str,
    model: WorldModel,
    episodes: Sequence[LoggedEpisode],
    settings: ReportSettings,
) -> tuple[Prediction, LoggedEpisode]:
    """Predict the frames up to success of the newest successful episode, else of the newest."""
    episode = next((e for e in reversed(episodes) if e.success), episodes[-1])
    skip = model.spec.frameskip
    frames = min((settings.frames - 1) * skip + 1, episode.length + 1)
    goal = episode.first_success if episode.success else 0
    offset = int(np.clip(goal + 5 - frames, 0, episode.length + 1 - frames))
    start = episode.start + offset
    fields = fields_to_predict(model, [reader.spec], camera)
    rows = {key: reader.read(field, start, start + frames) for key, field in fields.items()}
    context = max(1, min(settings.context, (frames - 1) // skip))
    return predict(model, rows, context=context, start=offset, seed=settings.seed), episode


def require_viz() -> None:
    """ReportError: the packages for figures and videos are not installed."""
    absent = [name for name in ("av", "matplotlib") if find_spec(name) is None]
    if absent:
        raise ReportError(
            f"report: {', '.join(absent)} not installed. Install with: pip install 'wm_nodes[viz]'."
        )


def _trailing_mean(values: np.ndarray, window: int = 20) -> np.ndarray:
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


def _source(code: int) -> str:
    return Source(code).name.lower() if code in set(Source) else f"unknown {code}"
