"""Does torch.compile make updates of the Dreamer family faster on a CPU?

`python docs/results/bench/compile_update.py dreamer_v3_cpu mudreamer_cpu`: seconds of CPU time per
update on one thread, as it is and with the recurrent core, the prior and the heads compiled, and
the seconds that compiling took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wm_models import preset
from wm_models.behaviors.dreamer_agent import DreamerAgent
from wm_models.behaviors.dreamer_learner import DreamerLearner
from wm_nodes.checks.bench.models import ACTION_DIM, full_update
from wm_nodes.checks.bench.timing import measure

UPDATES = 7


def compile_parts(model: DreamerAgent, learner: DreamerLearner[Any, Any]) -> None:
    """Compile what one update calls most often."""
    world = model.dynamics
    for name in ("recur", "prior_logits"):
        setattr(world.rssm, name, compiled(getattr(world.rssm, name)))
    heads = (world.reward, world.discount, model.critic, learner.behavior.target)
    nets: list[nn.Module] = [head.net for head in heads if head is not None]
    for net in (*nets, model.actor.body):
        net.forward = compiled(net.forward)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    chosen: Callable[..., Any] = torch.compile(function, dynamic=False)
    return chosen


def main() -> None:
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64
    print(f"{'model':20}{'as it is [s]':>14}{'compiled [s]':>14}{'compiling [s]':>15}")
    for name in sys.argv[1:]:
        chosen = preset(name)
        model = chosen.build(ACTION_DIM)
        learner = chosen.build_learner(model)
        assert isinstance(model, DreamerAgent) and isinstance(learner, DreamerLearner)
        update = full_update(model, learner)
        before = measure(update, repeats=UPDATES).typical
        compile_parts(model, learner)
        began = time.perf_counter()
        update()
        took = time.perf_counter() - began
        after = measure(update, repeats=UPDATES).typical
        print(f"{name:20}{before:14.3f}{after:14.3f}{took:15.0f}", flush=True)


if __name__ == "__main__":
    main()
