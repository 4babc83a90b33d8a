"""Features of a frozen encoder, kept by image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 16  # images encoded at once: a fixed number, so that features do not depend on the batch


class FeatureCache:
    """Features by the image's content, independent of log, window and run.

    ``encode`` takes uint8 images (B, H, W, 3); features are kept on the CPU, up to ``size``
    bytes. Equal images have equal features, kept or not, so that resuming is exact.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], size: int) -> None:
        self._encode, self._free = encode, size
        self._kept: dict[bytes, Tensor] = {}
        self.hits = self.misses = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, N, d) of images (B, H, W, 3) on the CPU."""
        keys = [hashlib.blake2b(x, digest_size=16).digest() for x in images.contiguous().numpy()]
        here = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: row for row, key in enumerate(keys) if key not in here}
        here |= self._encoded(images, missing)
        self.misses += len(missing)
        self.hits += len(keys) - len(missing)
        return torch.stack([here[key] for key in keys])

    def clear(self) -> None:
        """Drop all features: the encoder has changed."""
        self._free += sum(_bytes(x) for x in self._kept.values())
        self._kept.clear()

    @torch.no_grad()
    def _encoded(self, images: Tensor, missing: dict[bytes, int]) -> dict[bytes, Tensor]:
        encoded: dict[bytes, Tensor] = {}
        names, rows = list(missing), torch.tensor(list(missing.values()), dtype=torch.int64)
        for start in range(0, len(names), BLOCK):
            part = images[rows[start : start + BLOCK]]
            padded = torch.cat([part, part[-1:].expand(BLOCK - len(part), -1, -1, -1)])
            features = self._encode(padded)[: len(part)].float().cpu()
            encoded |= {name: x.clone() for name, x in zip(names[start:], features)}
        for name, feature in encoded.items():
            if _bytes(feature) <= self._free:
                self._kept[name] = feature
                self._free -= _bytes(feature)
        return encoded


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
