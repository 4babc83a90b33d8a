"""What demonstrators chose, as a target: of a policy, of a representation (MoDem, DAPG)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wm_models.nets.distributions import ActionDistribution


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask holds; 0 where it holds nowhere."""
    weight = mask.float()
    return (values * weight).sum() / weight.sum().clamp_min(1)


def demonstrated(batch: Mapping[str, Tensor]) -> Tensor:
    """Rows whose ``next_action`` a demonstrator chose; last rows hold none."""
    return batch["demo"] & ~batch["is_last"] if "is_last" in batch else batch["demo"]


def likelihood_loss(policy: ActionDistribution, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log likelihood of demonstrated actions, per action dimension.

    ``batch`` in arrival form: demo (B, T) bool, next_action (B, T, A).
    """
    action = batch["next_action"].clamp(-policy.limit, policy.limit)
    return mean_over(-policy.log_prob(action) / action.shape[-1], demonstrated(batch))


def squared_loss(guess: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error of guessed actions (N, A) where they were demonstrated."""
    error = (guess.float() - batch["next_action"]).square().mean(-1)
    return mean_over(error, demonstrated(batch))
