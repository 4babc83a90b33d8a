"""What an arm's agent planned, imagined and reached: figures of a run, and its film.

Made from the run's log and the album of its plans. A frame of the film shows what the camera saw,
the goal, and what the model makes of the plan in hand 0.5, 1.0 and 1.5 s from then; below, the plan
and what was done.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wm_datasets import LogReader
from wm_models.body import ActionAdapter
from wm_models.interface import WorldModel
from wm_nodes.cores.goal import read_goal
from wm_nodes.cores.images import ImagePipeline
from wm_nodes.evaluate import CLOSE_M, wilson
from wm_nodes.report import LoggedEpisode, logged_episodes
from wm_nodes.robots.arm.tasks import distance_of
from wm_nodes.robots.base import Image

SIDE, GAP, BAR, LANE = 192, 6, 26, 34  # pixels
IMAGINED = 3  # model steps shown
BEHIND, AHEAD = 30, 20  # decisions of the strip before and after now
DARK, TEXT, FAINT = (24, 24, 24), (235, 235, 235), (95, 95, 95)
DONE, PLANNED, GOOD = (110, 180, 255), (230, 150, 60), (120, 230, 120)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Planned:
    """One plan as it went to the robot. `searched`: made for this observation, not carried on."""

    stamp_ns: int
    late_s: float  # from the observation to the plan
    goal: int  # number of the goal's picture
    actions: Vectors  # (N, A)
    searched: bool


def read_album(folder: Path, period_s: float) -> list[Planned]:
    """Return the plans of an album, in order."""
    found: list[Planned] = []
    for line in (folder / "plans.jsonl").read_text().splitlines():
        row = json.loads(line)
        actions = np.asarray(row["actions"], np.float32)
        again = bool(found) and _carries_on(found[-1], row["stamp_ns"], actions, period_s)
        found.append(Planned(row["stamp_ns"], row["late_s"], row["goal"], actions, not again))
    return found


def _carries_on(before: Planned, stamp_ns: int, actions: Vectors, period_s: float) -> bool:
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
    found: dict[str, Any] = {
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
        found |= {"plan_p50_ms": round(float(p50), 1), "plan_p99_ms": round(float(p99), 1)}
    if signals is not None and "latency_ms" in signals.names:
        rows = log.read("signals", log.first, log.length)[:, signals.names.index("latency_ms")]
        rows = rows[rows > 0]
        if len(rows):
            p50, p99 = np.percentile(rows, (50, 99))
            found["picture_to_command_p50_ms"] = round(float(p50), 1)
            found["picture_to_command_p99_ms"] = round(float(p99), 1)
    return found


def distances(log: LogReader, episode: LoggedEpisode) -> npt.NDArray[np.float64]:
    """Return how far the hand was from the goal [m] after each decision, by the judge's reward."""
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


def film_frames(
    log: LogReader,
    camera: str,
    model: WorldModel,
    plans: Sequence[Planned],
    album: Path,
    episodes: int,
) -> Iterator[Image]:
    """Yield a frame (H, W, 3) for each decision of the first episodes."""
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
        for row in range(each.length):
            at = bisect_right(starts, int(stamps[row])) - 1
            plan = plans[at] if at >= 0 and plans[at].stamp_ns >= stamps[0] else None
            seen = int(np.searchsorted(stamps, plan.stamp_ns)) if plan else row
            here = far[max(row - 1, 0)]
            shown = [images[row]]
            if plan is not None:
                if plan.goal not in goals:
                    goals[plan.goal] = read_goal(album / f"goal-{plan.goal}.png").image
                shown += [goals[plan.goal]]
                shown += imagine(model, images[seen], proprio[seen], plan.actions)
            words = f"episode {each.number}   decision {row}   {here * 100:.1f} cm from the goal"
            yield _frame(shown, words, bool(here < CLOSE_M), _strip(done, plan, row, seen, high))


@torch.inference_mode()
def imagine(model: WorldModel, image: Image, proprio: Vectors, actions: Vectors) -> list[Image]:
    """Return what the model expects to see after each whole model step of a plan (N, A)."""
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
    pictures = []
    for step in range(min(IMAGINED, len(scaled) // skip)):
        block = scaled[step * skip : (step + 1) * skip].reshape(1, -1)
        state = model.step(state, block)
        picture = model.decode(state)["image"][0].float().clamp(0, 1)
        pictures.append((picture * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    return pictures


def _frame(pictures: Sequence[Image], words: str, good: bool, strip: Image) -> Image:
    names = ("camera", "goal", *(f"imagined +{0.5 * (i + 1):.1f} s" for i in range(IMAGINED)))
    width = len(names) * (SIDE + GAP) + GAP
    frame = np.full((2 * BAR + SIDE + strip.shape[0] + 2 * GAP, width, 3), DARK, np.uint8)
    _write(frame, words, (GAP, 18), GOOD if good else TEXT)
    for index, name in enumerate(names):
        left = GAP + index * (SIDE + GAP)
        _write(frame, name, (left, BAR + 17), FAINT if index >= len(pictures) else TEXT)
        if index < len(pictures):
            big = cv2.resize(pictures[index], (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            frame[2 * BAR : 2 * BAR + SIDE, left : left + SIDE] = big
    top = 2 * BAR + SIDE + GAP
    frame[top : top + strip.shape[0], GAP : GAP + strip.shape[1]] = strip
    return frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]


def _strip(done: Vectors, plan: Planned | None, row: int, seen: int, high: Vectors) -> Image:
    """Draw what was done before now (blue) and what is planned from now (orange), by dimension."""
    width = (2 + IMAGINED) * (SIDE + GAP) - GAP
    each = width / (BEHIND + AHEAD)
    strip = np.full((LANE * done.shape[1], width, 3), (38, 38, 38), np.uint8)
    now = round(BEHIND * each)
    for dim in range(done.shape[1]):
        middle = LANE * dim + LANE // 2
        cv2.line(strip, (0, middle), (width, middle), (60, 60, 60), 1)
        for k in range(max(0, row - BEHIND), row):
            _bar(strip, now + (k - row) * each, each, middle, done[k, dim] / high[dim], DONE)
        for k in range(row - seen, len(plan.actions) if plan else 0):
            ahead = k - (row - seen)
            if plan is not None and ahead < AHEAD:
                value = plan.actions[k, dim] / high[dim]
                _bar(strip, now + ahead * each, each, middle, value, PLANNED)
        name = "xyz"[dim] if dim < 3 else str(dim)
        _write(strip, f"{name}: done | planned" if not dim else name, (4, middle - 5), TEXT, 0.36)
    cv2.line(strip, (now, 0), (now, strip.shape[0]), TEXT, 1)
    return strip


def _bar(
    strip: Image, left: float, wide: float, middle: int, value: float, colour: tuple[int, int, int]
) -> None:
    tip = middle - round(float(np.clip(value, -1, 1)) * (LANE // 2 - 2))
    corner, other = (round(left) + 1, middle), (round(left + wide) - 2, tip)
    cv2.rectangle(strip, corner, other, colour, -1)


def _write(
    image: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int], size: float = 0.45
) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
