"""Profile one update of `mwm_cpu`: `python docs/results/bench/profile_update.py`.

Prints GFLOP, time and rate of matrix products, attention and everything else, on one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from wm_models import preset
from wm_models.families.mwm.learner import MWMLearner
from wm_models.interface.learner import BatchSpec

PRODUCTS = ("aten::addmm", "aten::mm", "aten::mkldnn_convolution", "aten::convolution_backward")
ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"
SIZE, ACTIONS = 64, 4


def log_rows(spec: BatchSpec, generator: torch.Generator) -> dict[str, Tensor]:
    lead = (spec.batch, spec.length)
    false = torch.zeros(lead, dtype=torch.bool)
    action = torch.rand(*lead, ACTIONS, generator=generator) * 2 - 1
    shape = (*lead, SIZE, SIZE, 3)
    return {
        "image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "action": action,
        "commanded": action,
        "reward": torch.rand(lead, generator=generator),
        "is_first": false,
        "is_last": false,
        "is_terminal": false,
        "demo": torch.rand(lead, generator=generator) < 0.5,
    }


def cpu_s(function: Callable[[], object], repeats: int = 15) -> float:
    """Median CPU time of a call [s]."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    chosen = preset("mwm_cpu")
    learner = chosen.build_learner(chosen.build(ACTIONS), seed=0)
    assert isinstance(learner, MWMLearner)
    learner.updates = learner.initial_updates
    batches = {name: log_rows(spec, generator) for name, spec in learner.batch_specs.items()}
    for _ in range(3):
        learner.update(batches)
    update_s = cpu_s(lambda: learner.update(batches))
    a, b = torch.rand(2, 1024, 1024)
    best = 2 * 1024**3 / cpu_s(lambda: a @ b) / 1e9

    with FlopCounterMode(display=False) as counter:
        learner.update(batches)
    flops = {"attention": 0.0, "products": 0.0}
    for op, count in counter.get_flop_counts()["Global"].items():
        flops["attention" if "attention" in str(op) else "products"] += count / 1e9
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        learner.update(batches)
    seconds = {"attention": 0.0, "products": 0.0, "everything else": 0.0}
    calls = 0
    for row in profiler.key_averages():
        calls += row.count if row.key.startswith("aten::") else 0
        kind = "products" if row.key in PRODUCTS else "everything else"
        kind = "attention" if row.key.startswith(ATTENTION) else kind
        seconds[kind] += row.self_cpu_time_total / 1e6

    total = sum(flops.values())
    print(f"update: {1e3 * update_s:.0f} ms, {total:.2f} GFLOP, {total / update_s:.0f} GFLOP/s")
    print(f"matmul of 1024 x 1024: {best:.0f} GFLOP/s; share {total / update_s / best:.2f}")
    for kind, spent in seconds.items():
        rate = f", {flops[kind] / spent:.0f} GFLOP/s" if kind in flops else f", {calls} calls"
        print(f"{kind}: {spent / sum(seconds.values()):.2f} of the time{rate}")


if __name__ == "__main__":
    main()
