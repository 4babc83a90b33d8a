"""The arm's video and figures agree with the log and the recorded plans."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs the [sim] extra")

from wm_datasets import LogReader, LogSpec, LogWriter, VectorSpec
from wm_models.registry import preset
from wm_nodes.robots.arm.sim.tasks import STEEP
from wm_nodes.viz import goal_frame
from wm_nodes.viz.goal_frame import Moment, draw
from wm_nodes.viz.goal_video import arm_figures, distances, imagine, read_plans, video_frames
from wm_nodes.viz.run_report import logged_episodes

PERIOD_NS = 100_000_000
NAMES = ("x", "y", "z")


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def moment(row: int, known: int = 3, **rest) -> Moment:
    defaults = {
        "episode": 0,
        "row": row,
        "image": random_image(1),
        "goal": random_image(2) if known else None,
        "expected": [random_image(10 + k) for k in range(known)],
        "truth": [random_image(20 + k) if k < known - 1 else None for k in range(known)],
        "step_s": 0.5,
        "far_m": np.linspace(0.5, 0.02, max(row, 1)),
        "length": 60,
        "done": np.zeros((row, 3), np.float32),
        "planned": np.full((4 * known, 3), 2.0, np.float32),
    }
    return Moment(**{**defaults, **rest})


def shows(frame: np.ndarray, image: np.ndarray) -> bool:
    """Is the enlarged image anywhere in the frame?"""
    factor = goal_frame.SIDE // len(image)
    enlarged = np.kron(image, np.ones((factor, factor, 1), np.uint8))
    corners = np.argwhere((frame == enlarged[0, 0]).all(-1))
    side = len(enlarged)
    return any(np.array_equal(frame[y : y + side, x : x + side], enlarged) for y, x in corners)


def test_every_frame_shows_the_available_images_and_has_the_same_even_size():
    frames = [draw(moment(row, known)) for row in (0, 1, 40, 59) for known in range(4)]
    assert len({frame.shape for frame in frames}) == 1
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    complete = draw(moment(30))
    for seed in (1, 2, 10, 11, 12, 20, 21):
        assert shows(complete, random_image(seed)), seed
    assert not shows(draw(moment(30, known=1)), random_image(11))


@pytest.fixture
def run(tmp_path):
    """Two episodes of 20 agent steps that end 2 cm and 9 cm away, planned every 5 steps."""
    vector = VectorSpec(NAMES, ("m/s",) * 3, (-0.2,) * 3, (0.2,) * 3)
    spec = LogSpec("arm", "goal", 0.1, {"front": (16, 16, 3)}, vector, vector, {})
    lines, stamp = [], 0
    with LogWriter(tmp_path / "log", spec) as log:
        for end in (0.02, 0.09):
            distances_m = np.linspace(0.3, end, 20)
            for row in range(21):
                stamp += PERIOD_NS
                last = row == 20
                log.append(
                    {
                        "image/front": random_image(row),
                        "proprio": np.zeros(3, np.float32),
                        "action": np.zeros(3, np.float32),
                        "commanded": np.zeros(3, np.float32),
                        "reward": 0.0 if last else 1.0 - np.tanh(STEEP * distances_m[row]),
                        "is_first": row == 0,
                        "is_last": last,
                        "is_terminal": False,
                        "success": False,
                        "stamp": stamp,
                        "source": 1,
                        "weights": 0,
                    }
                )
                if not last:
                    plan = np.random.default_rng(stamp // PERIOD_NS - row % 5).uniform(size=(15, 3))
                    remaining = plan[row % 5 :].round(5).tolist()
                    lines.append(
                        {"stamp_ns": stamp, "late_s": 0.2, "goal": 1, "actions": remaining}
                    )
    (tmp_path / "plans.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def test_the_figures_are_those_of_the_log(run):
    plans = read_plans(run, 0.1)
    assert [plan.searched for plan in plans] == [row % 5 == 0 for row in range(20)] * 2
    with LogReader(run / "log") as log:
        figures = arm_figures(log, plans)
        first_distances = distances(log, logged_episodes(log)[0])
    np.testing.assert_allclose(first_distances, np.linspace(0.3, 0.02, 20), atol=1e-4)
    assert figures["end_distances_m"] == [0.02, 0.09]
    assert (figures["success_at_end"], figures["success_ever"]) == (0.5, 0.5)
    assert (figures["plans_searched"], figures["replans_per_s"]) == (8, 2.0)
    assert figures["plan_p50_ms"] == 200.0


def test_a_run_for_reward_has_a_video_without_goal_images(run):
    plans = run / "plans.jsonl"
    plans.write_text(plans.read_text().replace('"goal": 1', '"goal": 0'))
    model = preset("mwm_cpu").build(3)
    with LogReader(run / "log") as log:
        frames = list(video_frames(log, "front", model, read_plans(run, 0.1), run, 1))
    assert len(frames) == 20 and len({frame.shape for frame in frames}) == 1
    action = np.zeros((15, 3), np.float32)
    assert len(imagine(model, random_image(1), np.zeros(3, np.float32), action, 5)) == 3
    assert len(imagine(model, random_image(1), np.zeros(3, np.float32), action[:7], 5)) == 1
