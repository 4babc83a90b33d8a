"""Measure the blind baselines and the scripted expert; write one CSV each and print the table.

python docs/results/baselines/measure.py            # about 10 minutes on one core, no images
"""

from __future__ import annotations

import platform
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from wm_nodes.evaluation.baselines import BASELINES, Constant, baseline
from wm_nodes.evaluation.evaluate import EvaluationResult, evaluate
from wm_nodes.robots.sims.metaworld import MetaWorld

TASKS = ("drawer-close-v3", "window-close-v3", "reach-v3")
CASES = [(task, limit, 20, 0) for task in TASKS for limit in (100, 250)]  # episodes, seed
CASES.append(("reach-v3", 40, 100, 500))
FOLDER = Path(__file__).parent


def main() -> None:
    print("| task | agent steps | policy | success | 95 % | return | 95 % | first success |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    start_s = time.perf_counter()
    for task, limit, episodes, seed in CASES:
        for name in BASELINES:
            result, label = measure(task, limit, name, episodes, seed)
            result.write_csv(FOLDER / f"{task}_{limit}_{name}.csv")
            print(row(result, limit, label), flush=True)
    minutes = (time.perf_counter() - start_s) / 60
    print(f"\nAction repeat 2. {minutes:.0f} minutes", end="")
    print(f" on one core of {processor()}, Python {platform.python_version()}.")


def measure(
    task: str, limit: int, name: str, episodes: int, seed: int
) -> tuple[EvaluationResult, str]:
    """Return the result and the policy's label, with the best constant action."""
    settings: dict[str, Any] = {"task": task, "seed": seed, "time_limit": limit, "render": "none"}
    with closing(MetaWorld(**settings)) as robot:
        policy = baseline(name, robot, seed, settings)
        result = evaluate(robot, policy, episodes, seed, name=name)
    if isinstance(policy, Constant):
        name += f" ({', '.join(f'{value:g}' for value in policy.action)})"
    return result, name


def row(result: EvaluationResult, limit: int, label: str) -> str:
    figures = result.summary()
    low, high = figures["success_interval_95"]
    below, above = figures["return_interval_95"]
    first = figures["mean_first_success"]
    return (
        f"| {result.task} | {limit} | {label} | {figures['success_rate']:.2f} "
        f"| {low:.2f} to {high:.2f} | {figures['mean_return']:.0f} | {below:.0f} to {above:.0f} "
        f"| {'-' if first is None else f'{first:.0f}'} |"
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "an unknown processor"


if __name__ == "__main__":
    main()
