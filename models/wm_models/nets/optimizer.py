"""Adam and LaProp as the Dreamer code uses them: warm-up, clipping, decay that ignores the learning
rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.errors import check_finite
from wm_models.interface.checked import Checked
from wm_models.nets.blocks import BlockLinear
from wm_models.nets.laprop import LaProp

LAST_SHARE = 0.1  # of the learning rate, after annealing
SMALLEST_NORM = 1e-3  # of a tensor of weights, for "agc"


def _fused_adam(params: list[Tensor], lr: float, eps: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=lr, eps=eps, fused=True)


def _laprop(params: list[Tensor], lr: float, eps: float) -> torch.optim.Optimizer:
    return LaProp(params, lr=lr, eps=eps)


ALGORITHMS = {"adam": _fused_adam, "laprop": _laprop}


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of one optimiser. The defaults are those of MWM's world model, as released, but for
    ``epsilon_hat``: :func:`keras_adam` sets it.

    ``epsilon_hat`` adds ``eps`` to sqrt(v) before the bias correction, as Keras does (Kingma and
    Ba 2015, end of section 2), instead of after it, as PyTorch does. At update t the denominator
    is then that of PyTorch with eps / sqrt(1 - 0.999^t): 31.6 times eps at the first update.
    """

    lr: float = 3e-4  # learning rate
    eps: float = 1e-5  # added to the denominator
    epsilon_hat: bool = False  # where eps is added, as above
    algorithm: str = "adam"  # or "laprop" (DreamerV3, Nature)
    # "norm": of the gradient of all weights. "agc": of each tensor's gradient, in units of the norm
    # of its weights (adaptive gradient clipping; Brock et al., 2021)
    clip_kind: str = "norm"
    clip: float = 100.0  # largest norm of the gradient
    decay: float = 1e-6  # w <- (1 - decay) w before each step
    decay_all: bool = False  # decay biases, norms and tokens too (the autoencoder's setting)
    hold: int = 0  # first updates, at learning rate 0; their gradients count in Adam's means (APV)
    warmup: int = 0  # updates over which the learning rate rises linearly from 0
    anneal: int = 0  # updates over which it then falls to a tenth (half a cosine); 0: constant

    def __post_init__(self) -> None:
        check = Checked(self)
        check.choice("algorithm", tuple(ALGORITHMS))
        check.choice("clip_kind", ("norm", "agc"))
        if self.epsilon_hat and self.algorithm != "adam":
            check.refuse("epsilon_hat", f"False with algorithm {self.algorithm!r}")
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


def laprop(lr: float = 4e-5, **settings: Any) -> OptimizerConfig:
    """LaProp with adaptive clipping as DreamerV3 (Nature) uses it."""
    defaults = {"eps": 1e-20, "clip_kind": "agc", "clip": 0.3, "decay": 0.0, "warmup": 1000}
    return OptimizerConfig(algorithm="laprop", lr=lr, **{**defaults, **settings})


class Optimizer:
    """One optimiser over the parameters of some modules, those that are frozen now left out."""

    def __init__(self, name: str, modules: Iterable[nn.Module], config: OptimizerConfig) -> None:
        self.name, self.config = name, config
        modules = list(modules)
        self.params: list[Tensor] = [p for m in modules for p in m.parameters() if p.requires_grad]
        layers = [layer for m in modules for layer in m.modules()]
        blocks = {id(layer.weight) for layer in layers if isinstance(layer, BlockLinear)}
        # of linear layers and convolutions, no tokens
        kernels = [p for p in self.params if p.ndim in (2, 4) or id(p) in blocks]
        self._decayed = self.params if config.decay_all else kernels
        self.rule = ALGORITHMS[config.algorithm](self.params, config.lr, config.eps)
        self.updates = 0

    def step(self, loss: Tensor) -> dict[str, float]:
        """Minimise ``loss`` by one step; a non-finite loss or gradient changes nothing and raises
        FloatingPointError."""
        return minimise(loss, [self])

    def clip(self) -> float:
        """Clip the gradients; the norm that they had."""
        c = self.config
        if c.clip_kind == "norm":
            return float(nn.utils.clip_grad_norm_(self.params, c.clip, foreach=True))
        pairs = [(p.detach(), p.grad) for p in self.params if p.grad is not None]
        grads = [grad for _, grad in pairs]
        norms = torch._foreach_norm(grads)
        largest = torch._foreach_norm([weight for weight, _ in pairs])
        torch._foreach_clamp_min_(largest, SMALLEST_NORM)
        torch._foreach_mul_(largest, c.clip)
        excess = torch._foreach_div(norms, largest)
        torch._foreach_clamp_min_(excess, 1.0)
        torch._foreach_div_(grads, list(excess))
        return float(torch.stack(list(norms)).square().sum().sqrt())

    def apply(self) -> None:
        """Move the weights along the gradients."""
        with torch.no_grad():
            torch._foreach_mul_(self._decayed, 1.0 - self.config.decay)
        for group in self.rule.param_groups:
            group["lr"] = self.config.lr * self._warmup() * self._anneal()
            group["eps"] = self.config.eps
            if self.config.epsilon_hat:  # PyTorch divides sqrt(v) by this: let eps share it
                group["eps"] /= math.sqrt(1.0 - group["betas"][1] ** (self.updates + 1))
        self.rule.step()
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
        return {self.config.algorithm: self.rule.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rule.load_state_dict(state[self.config.algorithm])
        self.updates = state["updates"]


def minimise(loss: Tensor, optimizers: Sequence[Optimizer]) -> dict[str, float]:
    """Minimise ``loss`` by one backward and a step of each optimiser, each of weights of its own;
    a non-finite loss or gradient changes nothing and raises FloatingPointError."""
    check_finite(f"{'+'.join(each.name for each in optimizers)}/loss", float(loss.detach()))
    for each in optimizers:
        each.rule.zero_grad(set_to_none=True)
    loss.backward()
    norms = {f"{each.name}/grad_norm": each.clip() for each in optimizers}
    for name, norm in norms.items():
        check_finite(name, norm)
    for each in optimizers:
        each.apply()
    return norms
