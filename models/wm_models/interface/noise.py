"""Random numbers of a batch: from one generator, or from a generator of its own for each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wm_models.errors import ModelError

Draw = Callable[..., Tensor]


class RowGenerators(torch.Generator):
    """One generator per row of a batch: what a row draws does not depend on the other rows.

    `WorldModel.filter`, `step` and `act` take it as their ``generator``; every row then gets the
    numbers that it would get alone, with its generator. Draw from it with :func:`uniform` and
    :func:`normal` only: torch's functions would not use the rows.
    """

    rows: tuple[torch.Generator, ...]

    def __new__(cls, rows: Sequence[torch.Generator]) -> RowGenerators:
        if not rows:
            raise ModelError("rows: got no generator, expected at least one.")
        generators = super().__new__(cls, rows[0].device)  # type: ignore[call-arg]
        generators.rows = tuple(rows)
        return generators


def uniform(
    shape: torch.Size | tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """Uniform numbers in [0, 1), float32. ``shape`` begins with the batch."""
    return _drawn(torch.rand, shape, generator, device)


def normal(
    shape: torch.Size | tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    """Standard normal numbers, float32. ``shape`` begins with the batch."""
    return _drawn(torch.randn, shape, generator, device)


def _drawn(
    draw: Draw,
    shape: torch.Size | tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device,
) -> Tensor:
    options = {"device": device, "dtype": torch.float32}
    if not isinstance(generator, RowGenerators):
        return draw(shape, generator=generator, **options)
    if len(generator.rows) != shape[0]:
        raise ModelError(
            f"generator: got {len(generator.rows)} rows for a batch of {shape[0]}, expected as "
            "many as the batch has."
        )
    return torch.cat([draw((1, *shape[1:]), generator=row, **options) for row in generator.rows])
