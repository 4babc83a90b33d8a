"""Figures of model presets: memory of an update."""

from __future__ import annotations

import torch

from wm_nodes.checks.bench.models import peak_memory

BLOCK = 250_000  # numbers of 4 bytes
MB = 4 * BLOCK


def test_memory_counts_what_is_held_at_the_same_time() -> None:
    def hold() -> list[torch.Tensor]:
        return [torch.zeros(BLOCK) for _ in range(3)]

    assert 3 * MB <= peak_memory(hold) < 4 * MB


def test_memory_that_was_freed_before_counts_once() -> None:
    def release() -> None:
        for _ in range(3):
            torch.zeros(BLOCK)

    assert MB <= peak_memory(release) < 2 * MB
