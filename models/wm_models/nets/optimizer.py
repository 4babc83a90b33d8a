"""Adam as the Dreamer code uses it: warm-up, clipping, decay that ignores the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.errors import check_finite
from wm_models.interface.checked import Checked

LAST_SHARE = 0.1  # of the learning rate, after annealing


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of one optimiser. The defaults are those of MWM's world model, as released, but for
    ``epsilon_hat``: :func:`keras_adam` sets it.

    ``epsilon_hat`` adds ``eps`` to sqrt(v) before the bias correction, as Keras does (Kingma and
    Ba 2015, end of section 2), instead of after it, as PyTorch does. At update t the denominator
    is then that of PyTorch with eps / sqrt(1 - 0.999^t): 31.6 times eps at the first update.
    """

    lr: float = 3e-4
    eps: float = 1e-5
    epsilon_hat: bool = False
    clip: float = 100.0  # global norm of the gradient
    decay: float = 1e-6  # w <- (1 - decay) w before each step
    decay_all: bool = False  # decay biases, norms and tokens too (the autoencoder's setting)
    hold: int = 0  # first updates, at learning rate 0; their gradients count in Adam's means (APV)
    warmup: int = 0  # updates over which the learning rate rises linearly from 0
    anneal: int = 0  # updates over which it then falls to a tenth (half a cosine); 0: constant

    def __post_init__(self) -> None:
        check = Checked(self)
        check.number("lr", low=0.0)
        check.number("eps", low=0.0, open_ends="low")
        check.flag("epsilon_hat", "decay_all")
        if self.clip != math.inf:
            check.number("clip", low=0.0, open_ends="low")
        check.number("decay", low=0.0, high=1.0)
        check.whole("hold", "warmup", "anneal", low=0)


def keras_adam(lr: float = 3e-4, **settings: Any) -> OptimizerConfig:
    """Adam as the TensorFlow releases of DreamerV2, MWM and APV compute it."""
    return OptimizerConfig(lr=lr, epsilon_hat=True, **settings)


class Optimizer:
    """One Adam over the parameters of some modules, those that are frozen now left out."""

    def __init__(self, name: str, modules: Iterable[nn.Module], config: OptimizerConfig) -> None:
        self.name, self.config = name, config
        self.params: list[Tensor] = [p for m in modules for p in m.parameters() if p.requires_grad]
        kernels = [p for p in self.params if p.ndim in (2, 4)]  # linear and convolution, no tokens
        self._decayed = self.params if config.decay_all else kernels
        self.adam = torch.optim.Adam(self.params, lr=config.lr, eps=config.eps, fused=True)
        self.updates = 0

    def step(self, loss: Tensor) -> dict[str, float]:
        """Minimise ``loss`` by one step; a non-finite loss or gradient changes nothing and raises
        FloatingPointError."""
        return minimise(loss, [self])

    def clip(self) -> float:
        """Clip the gradients; the norm that they had."""
        return float(nn.utils.clip_grad_norm_(self.params, self.config.clip, foreach=True))

    def apply(self) -> None:
        """Move the weights along the gradients."""
        with torch.no_grad():
            torch._foreach_mul_(self._decayed, 1.0 - self.config.decay)
        for group in self.adam.param_groups:
            group["lr"] = self.config.lr * self._warmup() * self._anneal()
            group["eps"] = self.config.eps
            if self.config.epsilon_hat:  # PyTorch divides sqrt(v) by this: let eps share it
                group["eps"] /= math.sqrt(1.0 - group["betas"][1] ** (self.updates + 1))
        self.adam.step()
        self.updates += 1

    def _warmup(self) -> float:
        if self.updates < self.config.hold:
            return 0.0
        return min(self.updates / self.config.warmup, 1.0) if self.config.warmup else 1.0

    def _anneal(self) -> float:
        if not self.config.anneal:
            return 1.0
        done = min(max(self.updates - self.config.warmup, 0) / self.config.anneal, 1.0)
        return LAST_SHARE + (1.0 - LAST_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done))

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.updates = state["updates"]


def minimise(loss: Tensor, optimizers: Sequence[Optimizer]) -> dict[str, float]:
    """Minimise ``loss`` by one backward and a step of each optimiser, each of weights of its own;
    a non-finite loss or gradient changes nothing and raises FloatingPointError."""
    check_finite(f"{'+'.join(each.name for each in optimizers)}/loss", float(loss.detach()))
    for each in optimizers:
        each.adam.zero_grad(set_to_none=True)
    loss.backward()
    norms = {f"{each.name}/grad_norm": each.clip() for each in optimizers}
    for name, norm in norms.items():
        check_finite(name, norm)
    for each in optimizers:
        each.apply()
    return norms
