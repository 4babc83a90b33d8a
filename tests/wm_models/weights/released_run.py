"""A run's folder as DINO-WM's own code writes it, built from modules of our own.

The checkpoint pickles whole modules. Classes of the same names and attributes as there are put into
``sys.modules`` while it is written; their forward passes are written from the paper's description
(Zhou et al., 2024, section 3 and appendix) and are the reference of the tests.
"""

from __future__ import annotations

import copy
import enum
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from torch import Tensor, nn


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, width),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, mask: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.attend = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(0.1)
        self.to_qkv = nn.Linear(width, 3 * heads * 64, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * 64, width), nn.Dropout(0.1))
        self.bias = mask  # neither parameter nor buffer there

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = self.to_qkv(self.norm(x)).reshape(batch, length, 3, self.heads, 64)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        scores = q @ k.mT / 8.0
        scores = scores.masked_fill(self.bias[:, :, :length, :length] == 0, -torch.inf)
        return self.to_out((self.attend(scores) @ v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, hidden: int, mask: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(width, heads, mask), FeedForward(width, hidden)])
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for attention, mlp in self.layers:  # type: ignore[misc]
            x = x + attention(x)
            x = x + mlp(x)
        return self.norm(x)


class ViTPredictor(nn.Module):
    """(B, frames tokens, D) to the same; a token sees its own frame and those before."""

    def __init__(
        self, frames: int, tokens: int, width: int, depth: int = 6, heads: int = 16,
        hidden: int = 2048,
    ) -> None:  # fmt: skip
        super().__init__()
        frame = torch.arange(frames * tokens) // tokens
        mask = (frame[None] <= frame[:, None]).float()[None, None]
        self.pos_embedding = nn.Parameter(torch.randn(1, frames * tokens, width))
        self.dropout = nn.Dropout(0.0)
        self.transformer = Transformer(width, depth, heads, hidden, mask)
        self.pool = "mean"

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(self.dropout(x + self.pos_embedding[:, : x.shape[1]]))


class ProprioceptiveEmbedding(nn.Module):
    """(B, T, D) to (B, T, d)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.num_frames, self.tubelet_size, self.in_chans, self.emb_dim = 1, 1, size, width
        self.patch_embed = nn.Conv1d(size, width, kernel_size=1, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.patch_embed(x.mT).mT


class DummyRepeatActionEncoder(nn.Module):
    """An action encoder there that this package has no counterpart of."""


class ResBlock(nn.Module):
    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, narrow, 3, padding=1),
            nn.ReLU(inplace=True), nn.Conv2d(narrow, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Decoder(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(width, 384, 3, padding=1),
            *[ResBlock(384, 128) for _ in range(4)],
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(384, 192, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(192, out, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Quantize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(384, 8))
        self.register_buffer("cluster_size", torch.zeros(8))


class VQVAE(nn.Module):
    """Tokens (B, 196, 384) to images (B, 3, 224, 224)."""

    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.quantize_b = False, Quantize()
        self.upsample_b, self.dec = Decoder(384, 384), Decoder(384, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        grid = tokens.reshape(-1, 14, 14, 384).permute(0, 3, 1, 2)
        return self.dec(self.upsample_b(grid))


class DistributedType(str, enum.Enum):
    NO = "NO"


class AcceleratedOptimizer:
    """What accelerate wraps optimisers in: enumerations and devices are in its pickle too."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.state = {"device": torch.device("cpu"), "type": DistributedType.NO}
        self.seen = defaultdict(dict, {"a": {1: 2}})
        self.scaler = None


PLACES: Mapping[str, tuple[type, ...]] = {
    "models.vit": (ViTPredictor, Transformer, Attention, FeedForward),
    "models.proprio": (ProprioceptiveEmbedding,),
    "models.dummy": (DummyRepeatActionEncoder,),
    "models.vqvae": (VQVAE, Decoder, ResBlock, Quantize),
    "accelerate.optimizer": (AcceleratedOptimizer,),
    "accelerate.utils.dataclasses": (DistributedType,),
}


@contextmanager
def their_names() -> Iterator[None]:
    """The classes above are importable under the authors' module names."""
    before = dict(sys.modules)
    own = {kind: kind.__module__ for kinds in PLACES.values() for kind in kinds}
    for place, kinds in PLACES.items():
        parts = place.split(".")
        for i in range(len(parts)):
            sys.modules[".".join(parts[: i + 1])] = ModuleType(".".join(parts[: i + 1]))
        for kind in kinds:
            setattr(sys.modules[place], kind.__name__, kind)
            kind.__module__ = place
    try:
        yield
    finally:
        for kind, place in own.items():
            kind.__module__ = place
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]
        sys.modules.update(before)


CONFIG: dict[str, Any] = {
    "img_size": 224, "frameskip": 5, "concat_dim": 1, "normalize_action": True,
    "action_emb_dim": 10, "num_action_repeat": 1, "proprio_emb_dim": 10, "num_proprio_repeat": 1,
    "num_hist": 3, "num_pred": 1, "has_predictor": True, "has_decoder": True,
    "env": {
        "name": "pusht",
        "dataset": {
            "data_path": "/their/data/pusht_noise", "n_rollout": None, "normalize_action": True,
            "with_velocity": True,
        },
    },
    "encoder": {
        "_target_": "models.dino.DinoV2Encoder", "name": "dinov2_vits14",
        "feature_key": "x_norm_patchtokens",
    },
    "action_encoder": {"_target_": "models.proprio.ProprioceptiveEmbedding", "tubelet_size": 1},
    "proprio_encoder": {"_target_": "models.proprio.ProprioceptiveEmbedding", "tubelet_size": 1},
    "decoder": {
        "_target_": "models.vqvae.VQVAE", "channel": 384, "n_embed": 2048, "n_res_block": 4,
        "n_res_channel": 128, "quantize": False,
    },
    "predictor": {
        "_target_": "models.vit.ViTPredictor", "depth": 6, "heads": 16, "mlp_dim": 2048,
        "dropout": 0.1, "emb_dropout": 0, "pool": "mean",
    },
    "model": {"_target_": "models.visual_world_model.VWorldModel", "image_size": 224},
}  # fmt: skip

# One frame of one token: ResNet-18's. Small enough for tests of everything but exactness.
SMALL: dict[str, Any] = {
    "num_hist": 1, "frameskip": 1, "has_decoder": True,
    "encoder": {"_target_": "models.encoder.resnet.resnet18", "unit_norm": False},
    "decoder": {"_target_": "models.decoder.transposed_conv.TransposedConvDecoder"},
    "predictor": {
        "_target_": "models.vit.ViTPredictor", "depth": 1, "heads": 2, "mlp_dim": 16,
    },
}  # fmt: skip


def config(**changes: Any) -> dict[str, Any]:
    """hydra.yaml; a dotted name (written with two underscores) changes one entry of a branch."""
    result = copy.deepcopy(CONFIG)
    for name, value in changes.items():
        *branch, last = name.split("__")
        place = result
        for part in branch:
            place = place[part]
        place[last] = copy.deepcopy(value)
    return result


def small(**changes: Any) -> dict[str, Any]:
    return config(**{**SMALL, **changes})


def write_run(folder: Path, hydra: Mapping[str, Any], parts: Mapping[str, Any]) -> Path:
    """A run's folder; ``parts`` are what its checkpoint holds."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hydra.yaml").write_text(yaml.safe_dump(dict(hydra)))
    with their_names():
        torch.save(dict(parts), folder / "checkpoints" / "model_latest.pth")
    return folder


def small_parts(actions: int = 2, proprio: int = 4) -> dict[str, Any]:
    """Modules that fit :func:`small`."""
    torch.manual_seed(0)
    return {
        "epoch": 7,
        "predictor": ViTPredictor(1, 1, 512 + 20, depth=1, heads=2, hidden=16),
        "action_encoder": ProprioceptiveEmbedding(actions, 10),
        "proprio_encoder": ProprioceptiveEmbedding(proprio, 10),
    }
