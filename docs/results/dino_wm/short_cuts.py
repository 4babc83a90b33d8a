"""Time saved by the sliding cache and its error: `python short_cuts.py WEIGHTS LOG`.

On windows of a held-out log: errors of the features imagined five model steps ahead, exactly and
with the sliding cache; and the time of a rollout, compared with the plain one that recomputes
everything at every step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from wm_datasets import LogReader
from wm_datasets.sampling.sampler import Sampler
from wm_models.families.dino_wm import DinoWorldModel
from wm_models.interface.action_scaling import ActionAdapter
from wm_models.interface.world_model import Rollout, WorldModel
from wm_models.weights.store import load_model

HORIZON, WINDOWS, CANDIDATES, REPEATS = 5, 128, 64, 7
READOUTS = frozenset({"visual", "proprio"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("log")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = load_model(options.weights)
    assert isinstance(model, DinoWorldModel)
    skip = model.spec.frameskip
    with LogReader(options.log) as reader:
        camera = next(iter(reader.spec.cameras))
        fields = {"image": f"image/{camera}", "action": "action", "proprio": "proprio"}
        sampler = Sampler(reader, batch=WINDOWS, length=HORIZON * skip + 1, seed=options.seed,
                          fields=fields, join=False)  # fmt: skip
        batch = {k: torch.from_numpy(v.copy()) for k, v in sampler.sample().items()}
    chunks = batch["action"][:, :-1].unflatten(1, (HORIZON, skip))
    actions = ActionAdapter.of(model).from_robot(chunks)  # (W, H, f A)
    with torch.inference_mode():
        first = {k: batch[k][:, 0] for k in ("image", "proprio")}
        last = {k: batch[k][:, -1] for k in ("image", "proprio")}
        state = model.observe(
            model.initial(WINDOWS), torch.zeros(WINDOWS, actions.shape[-1]), first,
            torch.ones(WINDOWS, dtype=torch.bool),
        )  # fmt: skip
        target = model.encode_goal(last)
        current = model.encode_goal(first)
        figures: dict[str, Any] = {"still": errors(current, target)}
        for slide in ("exact", "cached"):
            model.config = replace(model.config, slide=slide)
            rolled = model.rollout(state, actions[:, None], want=READOUTS)
            figures[slide] = errors({k: v[:, 0, -1] for k, v in rolled.feat.items()}, target)
        figures |= times(model, state)
    print(json.dumps(figures, indent=1))


def errors(predicted: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return mean squared errors of features."""
    return {k: float((predicted[k] - target[k]).square().mean()) for k in ("visual", "proprio")}


def times(model: DinoWorldModel, state: torch.Tensor) -> dict[str, float]:
    """Return the processor time [s] of one rollout of all candidates from one state, the least of
    REPEATS; and the largest difference between the exact rollout and the plain one."""
    one = type(state)(*[x[:1] for x in state])
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(1, CANDIDATES, HORIZON, model.spec.action_dim, generator=generator)
    rollouts: dict[str, Callable[[], Rollout]] = {
        "plain": lambda: WorldModel._rollout_chunk(model, one, actions, READOUTS, False, None),
        "exact": lambda: model.rollout(one, actions, want=READOUTS),
        "cached": lambda: model.rollout(one, actions, want=READOUTS),
    }
    out, results = {}, {}
    for name, rollout in rollouts.items():
        model.config = replace(model.config, slide="cached" if name == "cached" else "exact")
        rollout()
        spent = []
        for _ in range(REPEATS):
            started = time.process_time()
            results[name] = rollout()
            spent.append(time.process_time() - started)
        out[f"{name}_rollout_s"] = min(spent)
    gaps = [results["exact"].feat[k] - results["plain"].feat[k] for k in READOUTS]
    return {**out, "exact_minus_plain": max(float(x.abs().max()) for x in gaps)}


if __name__ == "__main__":
    main()
