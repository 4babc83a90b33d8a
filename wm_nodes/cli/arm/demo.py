"""`wm arm demo`: move the simulated arm to goal images with shipped weights; video and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wm_nodes.cli.arguments import parse, require, require_namespace
from wm_nodes.cli.demo import choose, read_cards
from wm_nodes.errors import UserError
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.launch.run_folder import RUNS
from wm_nodes.namespaces import ROBOT, beside

GRAPH = "arm_mpc"
VIDEO_HZ = 10.0
SLOW_MS = 700.0  # a plan is 1.5 s long and is due every 0.4 s


@dataclass(frozen=True)
class ArmDemo:
    """Watch shipped weights move the simulated arm to goals (arm-goal: the poses in goal images;
    arm-reach: a ball in the image), in real time through the ROS graph. Writes a report folder
    with plan, imagined frames, goal and true frames in one video."""

    weights: str = ""
    """Name of a shipped checkpoint; empty: the best."""
    episodes: int = 6
    """Number of goals."""
    video: int = 4
    """Episodes in the video; 0: no video."""
    seed: int = 0
    """Seed of the goals."""
    ns: str = ROBOT
    """Namespace of the robot's nodes; the simulated arm is in `arm_sim` beside it."""


def run(words: Sequence[str]) -> int:
    """Run `wm arm demo WORDS`."""
    options = parse(ArmDemo, "arm demo", words)
    require("episodes", options.episodes, 1)
    require("video", options.video, 0)
    require("seed", options.seed, 0, 2**31 - 1)
    ns = require_namespace("ns", options.ns)
    card = choose([card for card in read_cards() if card.graph == GRAPH], options.weights)
    if card is None:
        raise UserError("no weights for an arm ship with this version. Train some with wm train.")
    print(card.summary(), flush=True)
    arguments = {
        "task": card.task,
        "model": card.model,
        "weights": card.name,
        "plans": "true",
        "evaluate": "true",
        "episodes": str(options.episodes),
        "seed": str(options.seed),
        **({"ns": ns, "driver_ns": beside(ns, "arm_sim")} if ns != ROBOT else {}),
        "run": f"arm-demo-{datetime.now():%Y%m%d-%H%M%S}",
        **card.arguments,
    }

    from wm_nodes.graphs.launch.supervisor import launch

    code = launch(find_graph(GRAPH), [f"{name}:={value}" for name, value in arguments.items()])
    if code:
        return code
    folder = Path(RUNS) / arguments["run"]
    if not (folder / "metrics" / "summary.json").is_file():
        print("no report: the run ended before its last episode")
        return 1
    return report(folder, card.folder, options.video)


def report(run: Path, weights: Path, video: int) -> int:
    """Write figures and video of a finished run and print the figures."""
    import torch

    from wm_datasets import LogReader
    from wm_models.weights.store import load_model
    from wm_nodes.viz.goal_video import arm_figures, read_plans, video_frames
    from wm_nodes.viz.video import write_video

    torch.set_num_threads(1)
    with LogReader(run / "log") as log:
        plans = read_plans(run / "plans", log.spec.control_period_s)
        figures = arm_figures(log, plans)
        folder = run / "report"
        folder.mkdir(exist_ok=True)
        if video:
            model = load_model(weights)[0].eval()
            camera = next(iter(log.spec.cameras))
            frames = video_frames(log, camera, model, plans, run / "plans", video)
            figures["video"] = write_video(folder / "plan.mp4", frames, VIDEO_HZ)
    (folder / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(as_text(figures))
    print(f"report: {folder}")
    return 0


def as_text(figures: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    at_end, ever = figures["success_at_end_interval_95"], figures["success_ever_interval_95"]
    lines = [
        f"within {figures['within_m'] * 100:g} cm at the end: {figures['success_at_end']:.2f} "
        f"[{at_end[0]:.2f}, {at_end[1]:.2f}], ever: {figures['success_ever']:.2f} "
        f"[{ever[0]:.2f}, {ever[1]:.2f}] (95 %), {figures['episodes']} goals",
        "distances at the end: "
        + ", ".join(f"{metres * 100:.1f}" for metres in figures["end_distances_m"])
        + " cm",
    ]
    if figures.get("replans_per_s") and "plan_p50_ms" in figures:
        lines.append(
            f"{figures['replans_per_s']} searches a second; from observation to plan p50 "
            f"{figures['plan_p50_ms']:.0f} ms, p99 {figures['plan_p99_ms']:.0f} ms"
        )
        if figures["plan_p50_ms"] > SLOW_MS:
            lines.append(
                "the computer is too slow or busy: plans came when they were nearly over, and the "
                "arm stood still between them. End other programs and try again"
            )
    if "picture_to_command_p50_ms" in figures:
        lines.append(
            f"from image to command p50 {figures['picture_to_command_p50_ms']:.0f} ms, "
            f"p99 {figures['picture_to_command_p99_ms']:.0f} ms"
        )
    return "\n".join(lines)
