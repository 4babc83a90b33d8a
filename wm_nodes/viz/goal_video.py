"""Plans, imagination and outcome of an arm's agent: figures of a run, and its video.

Computed from the run's log and its recorded plans. Frames are drawn by `goal_frame`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wm_datasets import LogReader
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.world_model import WorldModel
from wm_nodes.agent.goals import read_goal
from wm_nodes.evaluation.evaluate import CLOSE_M, wilson
from wm_nodes.robots.arm.sim.tasks import distance_of
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.robots.robot import Image
from wm_nodes.viz.goal_frame import IMAGINED, Moment, Vectors, draw
from wm_nodes.viz.run_report import LoggedEpisode, logged_episodes


@dataclass(frozen=True)
class Planned:
    """One plan as sent to the robot. `searched`: for this observation, not the rest of the last."""

    stamp_ns: int
    late_s: float  # from the observation to the plan
    goal: int  # number of the goal's image
    actions: Vectors  # (N, A)
    searched: bool


def read_plans(folder: Path, period_s: float) -> list[Planned]:
    """Return the plans that node plan_recorder wrote to a folder, in order."""
    plans: list[Planned] = []
    for line in (folder / "plans.jsonl").read_text().splitlines():
        row = json.loads(line)
        actions = np.asarray(row["actions"], np.float32)
        is_rest = bool(plans) and _is_rest(plans[-1], row["stamp_ns"], actions, period_s)
        plans.append(Planned(row["stamp_ns"], row["late_s"], row["goal"], actions, not is_rest))
    return plans


def _is_rest(before: Planned, stamp_ns: int, actions: Vectors, period_s: float) -> bool:
    """Return whether actions are the rest of an earlier plan."""
    passed = round((stamp_ns - before.stamp_ns) / 1e9 / period_s)
    rest = before.actions[max(passed, 0) :]
    return len(rest) == len(actions) and np.allclose(rest, actions, atol=1e-4)


def arm_figures(log: LogReader, plans: Sequence[Planned]) -> dict[str, Any]:
    """Return the figures of a run: success, distances at the end, replanning, latencies."""
    episodes = logged_episodes(log)
    ends, least = [], []
    for each in episodes:
        far = distances(log, each)
        ends.append(float(far[-1]))
        least.append(float(far.min()))
    count = len(ends)
    at_end, ever = sum(e < CLOSE_M for e in ends), sum(e < CLOSE_M for e in least)
    late = np.array([plan.late_s for plan in plans if plan.searched]) * 1e3
    gaps = _gaps_s(log, episodes, plans)
    signals = log.spec.signals
    figures: dict[str, Any] = {
        "episodes": count,
        "within_m": CLOSE_M,
        "success_at_end": at_end / max(count, 1),
        "success_at_end_interval_95": list(wilson(at_end, count)),
        "success_ever": ever / max(count, 1),
        "success_ever_interval_95": list(wilson(ever, count)),
        "end_distances_m": [round(e, 4) for e in ends],
        "end_distance_median_m": round(median(ends), 4) if ends else None,
        "end_distance_worst_m": round(max(ends), 4) if ends else None,
        "plans_searched": len(late),
        "replans_per_s": round(1.0 / float(np.mean(gaps)), 2) if len(gaps) else None,
    }
    if len(late):
        p50, p99 = np.percentile(late, (50, 99))
        figures |= {"plan_p50_ms": round(float(p50), 1), "plan_p99_ms": round(float(p99), 1)}
    if signals is not None and "latency_ms" in signals.names:
        rows = log.read("signals", log.first, log.length)[:, signals.names.index("latency_ms")]
        rows = rows[rows > 0]
        if len(rows):
            p50, p99 = np.percentile(rows, (50, 99))
            figures["picture_to_command_p50_ms"] = round(float(p50), 1)
            figures["picture_to_command_p99_ms"] = round(float(p99), 1)
    return figures


def distances(log: LogReader, episode: LoggedEpisode) -> npt.NDArray[np.float64]:
    """Return the distance of hand and goal [m] after each agent step, from the task's reward."""
    return distance_of(log.read("reward", episode.start, episode.start + episode.length))


def _gaps_s(
    log: LogReader, episodes: Sequence[LoggedEpisode], plans: Sequence[Planned]
) -> npt.NDArray[np.float64]:
    """Return the times between searches within episodes."""
    stamps = np.array([plan.stamp_ns for plan in plans if plan.searched], np.int64)
    gaps = []
    for each in episodes:
        first, last = _span(log, each)
        inside = stamps[(stamps >= first) & (stamps <= last)]
        gaps.append(np.diff(inside) / 1e9)
    return np.concatenate(gaps) if gaps else np.zeros(0)


def _span(log: LogReader, episode: LoggedEpisode) -> tuple[int, int]:
    stamps = log.read("stamp", episode.start, episode.start + episode.length + 1)
    return int(stamps[0]), int(stamps[-1])


def video_frames(
    log: LogReader,
    camera: str,
    model: WorldModel,
    plans: Sequence[Planned],
    folder: Path,
    episodes: int,
) -> Iterator[Image]:
    """Yield a frame (H, W, 3) for each agent step of the first episodes."""
    plans = [plan for plan in plans if plan.searched]
    starts = [plan.stamp_ns for plan in plans]
    goals: dict[int, Image] = {}
    for each in logged_episodes(log)[:episodes]:
        stop = each.start + each.length
        images = log.read(f"image/{camera}", each.start, stop)
        proprio = log.read("proprio", each.start, stop)
        done = log.read("action", each.start, stop)
        stamps = log.read("stamp", each.start, stop)
        far = distances(log, each)
        assert log.spec.action is not None
        high = np.asarray(log.spec.action.high)
        skip = model.spec.frameskip
        for row in range(each.length):
            at = bisect_right(starts, int(stamps[row])) - 1
            plan = plans[at] if at >= 0 and plans[at].stamp_ns >= stamps[0] else None
            origin = int(np.searchsorted(stamps, plan.stamp_ns)) if plan else row  # of the plan
            goal, expected, truth, stride = None, [], [], 1
            if plan is not None:
                if plan.goal and plan.goal not in goals:
                    goals[plan.goal] = read_goal(folder / f"goal-{plan.goal}.png").image
                goal = goals.get(plan.goal)  # 0: the reward is the goal
                stride = max(1, len(plan.actions) // skip // IMAGINED)
                expected = imagine(model, images[origin], proprio[origin], plan.actions, stride)
                then = [origin + skip * stride * (k + 1) for k in range(len(expected))]
                truth = [images[i] if i < each.length else None for i in then]
            yield draw(
                Moment(
                    episode=each.number,
                    row=row,
                    image=images[row],
                    goal=goal,
                    expected=expected,
                    truth=truth,
                    step_s=skip * stride * log.spec.control_period_s,
                    far_m=far[: max(row, 1)],
                    length=each.length,
                    done=done[:row] / high,
                    planned=plan.actions[row - origin :] / high if plan else done[:0],
                )
            )


@torch.inference_mode()
def imagine(
    model: WorldModel, image: Image, proprio: Vectors, actions: Vectors, stride: int = 1
) -> list[Image]:
    """Return the image that the model predicts after each `stride` model steps of a plan (N, A),
    at most IMAGINED of them."""
    device = next(model.parameters()).device
    _, height, width = model.spec.obs_keys["image"]
    image = ImagePipeline(height, width)(image)
    obs = {"image": torch.from_numpy(np.ascontiguousarray(image))[None].to(device)}
    if "proprio" in model.spec.obs_keys:
        obs["proprio"] = torch.from_numpy(proprio)[None].to(device)
    skip, start = model.spec.frameskip, model.initial(1, device)
    none = torch.zeros(1, model.spec.action_dim, device=device)
    state = model.observe(start, none, obs, torch.ones(1, dtype=torch.bool, device=device))
    scaled = ActionAdapter.of(model).scale(torch.from_numpy(actions).to(device))
    images, noise = [], torch.Generator(device).manual_seed(0)
    for step in range(min(IMAGINED * stride, len(scaled) // skip)):
        block = scaled[step * skip : (step + 1) * skip].reshape(1, -1)
        state = model.step(state, block, generator=noise)
        if (step + 1) % stride:
            continue
        decoded = model.decode(state)["image"][0].float().clamp(0, 1)
        images.append((decoded * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    return images
