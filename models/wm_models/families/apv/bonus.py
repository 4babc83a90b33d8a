"""APV's intrinsic bonus: how far a stretch of video lies from those seen lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_models.errors import check_finite
from wm_models.interface.checked import Checked


@dataclass(frozen=True)
class BonusConfig:
    """The bonus that is added to the rewards which the reward head learns. As released for
    Meta-World."""

    scale: float = 1.0  # weight of the bonus beside the task's reward; 0: no bonus
    window: int = 5  # states whose mean is compared
    neighbours: int = 16  # nearest ones whose mean distance counts
    queue: int = 4096  # latest means that are kept
    width: int = 128  # numbers that a mean is projected to
    momentum: float = 0.99  # of the running mean that distances are divided by

    def __post_init__(self) -> None:
        check = Checked(self)
        check.number("scale", low=0.0)
        check.number("momentum", low=0.0, high=1.0)
        check.whole("window", "neighbours", "queue", "width", high=1_000_000)


class Novelty(NamedTuple):
    """The bonus of a batch, and the bonus' state after it."""

    bonus: Tensor  # (B, T - window + 1), normalised
    distance: Tensor  # the same before normalisation
    queue: Tensor
    mag: Tensor


class Bonus(nn.Module):
    """Mean distance of projected window means to their nearest neighbours in a queue.

    :meth:`forward` changes nothing; :meth:`take` keeps the state after a batch.
    """

    projection: Tensor
    queue: Tensor
    filled: Tensor
    mag: Tensor

    def __init__(self, config: BonusConfig, feat: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        # a standard deviation of 1 / width as released, where the paper's text has the variance
        noise = torch.randn(feat, config.width, generator=generator, device=generator.device)
        self.register_buffer("projection", noise / config.width)
        self.register_buffer("queue", torch.zeros(config.queue, config.width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("mag", torch.ones(()))

    @torch.no_grad()
    def forward(self, feat: Tensor) -> Novelty:
        """The bonus of states (B, T, F). The batch enters the queue before the search: each mean
        is among its own neighbours, at distance 0."""
        c = self.config
        means = feat.float().unfold(1, c.window, 1).mean(-1) @ self.projection
        rows = means.flatten(0, 1)
        queue = torch.cat([rows, self.queue[: int(self.filled)]])[: c.queue]
        distance = mean_distance(rows, queue, min(c.neighbours, len(queue)))
        check_finite("bonus/distance", float(distance.sum()))
        mag = torch.lerp(distance.mean(), self.mag, c.momentum)
        distance = distance.unflatten(0, means.shape[:2])
        return Novelty(distance / (mag + 1e-8), distance, queue, mag)

    @torch.no_grad()
    def take(self, novelty: Novelty) -> None:
        """Keep the queue and the running mean of a batch."""
        count = len(novelty.queue)
        self.queue[:count] = novelty.queue
        self.filled.fill_(count)
        self.mag.copy_(novelty.mag)


def mean_distance(rows: Tensor, queue: Tensor, neighbours: int) -> Tensor:
    """Mean distance (N,) of rows (N, D) to the nearest of the queue (Q, D).

    The nearest are found by |y|^2 - 2 y.q + |q|^2, a product of matrices of N x Q numbers; their
    distances are then computed from the differences, so that equal vectors are 0 apart.
    """
    squared = queue.square().sum(-1) - 2.0 * rows @ queue.T  # |y|^2 is the same along each row
    nearest = squared.topk(neighbours, largest=False).indices
    mean: Tensor = (rows[:, None] - queue[nearest]).norm(dim=-1).mean(-1)
    return mean
