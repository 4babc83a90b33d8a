"""Model presets by name, with what each is: the only such list, read without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

SUMMARIES: Mapping[str, str] = {
    "mwm": "Masked World Models as published, Meta-World column (26M parameters).",
    "mwm_dmc": "The DeepMind Control column: batch 16 x 50, no reward normalisation.",
    "mwm_rlbench": (
        "The RLBench column: discount head, KL weight 0.1 with 1 nat free before scaling."
    ),
    "mwm_cpu": "Every mechanism of MWM at 1.2M parameters, for learning on one CPU core.",
    "mwm_cpu_fine": (
        "mwm_cpu for tasks with small marks: less masking, more imitation of demonstrations."
    ),
    "mwm_cpu_demos": "mwm_cpu_fine whose representation learns from demonstrations as well.",
    "mwm_cpu_plan": "mwm_cpu_fine for planning (cem) with a dense reward of at most 1.",
    "dino_wm": "DINO-WM with our settings (20M parameters, DINOv2-S frozen).",
    "dino_wm_repo": "DINO-WM as released (20M parameters, DINOv2-S frozen).",
    "dino_wm_cpu": (
        "Every mechanism of DINO-WM small enough for one CPU core: 64 pixels, our own encoder."
    ),
}
