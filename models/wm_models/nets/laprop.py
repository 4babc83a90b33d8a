"""LaProp: momentum of gradients that are normalised first (Ziyin et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class LaProp(Optimizer):
    """v <- b2 v + (1 - b2) g^2, m <- b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + eps),
    w <- w - lr m / (1 - b1^t).

    A step is no longer than the learning rate per weight, however small ``eps`` is; in Adam m and v
    can differ by any factor after a change of the gradient's scale.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            states = [self._state(p) for p in params]
            b1, b2 = group["betas"]
            counts = {int(s["step"]) for s in states}
            for count in counts:  # one, unless a parameter had no gradient once
                rows = [i for i, s in enumerate(states) if s["step"] == count]
                grads = [params[i].grad for i in rows]
                momenta = [states[i]["exp_avg"] for i in rows]
                squares = [states[i]["exp_avg_sq"] for i in rows]
                torch._foreach_mul_(squares, b2)
                torch._foreach_addcmul_(squares, grads, grads, 1.0 - b2)
                scales = torch._foreach_div(squares, 1.0 - b2 ** (count + 1))
                torch._foreach_sqrt_(scales)
                torch._foreach_add_(scales, group["eps"])
                torch._foreach_lerp_(momenta, torch._foreach_div(grads, scales), 1.0 - b1)
                step = -group["lr"] / (1.0 - b1 ** (count + 1))
                torch._foreach_add_([params[i] for i in rows], momenta, alpha=step)
            for state in states:
                state["step"] += 1

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
