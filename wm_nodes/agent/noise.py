"""Random numbers that depend on a seed, a role and a stamp only.

A node that was restarted draws the same noise for the same observation, also for a repeated one:
lock-step runs repeat bit for bit, with split and fused nodes, after any restart.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def noise_seed(seed: int, role: str, stamp_ns: int) -> int:
    """Return a seed of 63 bits from a hash."""
    text = f"{seed}/{role}/{stamp_ns}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_noise(generator: torch.Generator, seed: int, role: str, stamp_ns: int) -> torch.Generator:
    """Return the generator, seeded for this stamp."""
    return generator.manual_seed(noise_seed(seed, role, stamp_ns))


def numpy_noise(seed: int, role: str, stamp_ns: int) -> np.random.Generator:
    """Return a generator for this stamp."""
    return np.random.Generator(np.random.SFC64(noise_seed(seed, role, stamp_ns)))
