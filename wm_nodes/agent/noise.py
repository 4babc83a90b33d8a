"""Random numbers that depend on a seed, a role and a stamp only.

A node that was restarted, or asked twice, draws the same noise for the same observation: runs in
lock-step repeat bit for bit whatever the processes went through, split or fused.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def noise_seed(seed: int, role: str, stamp_ns: int) -> int:
    """Return 63 well-mixed bits."""
    text = f"{seed}/{role}/{stamp_ns}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_noise(generator: torch.Generator, seed: int, role: str, stamp_ns: int) -> torch.Generator:
    """Return the generator, set for this stamp."""
    return generator.manual_seed(noise_seed(seed, role, stamp_ns))


def numpy_noise(seed: int, role: str, stamp_ns: int) -> np.random.Generator:
    """Return a generator for this stamp."""
    return np.random.Generator(np.random.SFC64(noise_seed(seed, role, stamp_ns)))
