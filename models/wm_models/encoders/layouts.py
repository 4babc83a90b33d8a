"""The key layouts in which encoders are published, brought to timm's, and their position tables.

==================  ======================================================================
layout              where it comes from
==================  ======================================================================
timm                timm's own files; DINO v1's and torchvision's have the same names
DINOv2 hub          dinov2_vit*14_pretrain.pth: a mask token, registers apart from positions
Hugging Face        facebook/dinov2-*: embeddings.*, encoder.layer.*, q, k and v apart
DINOv3              Meta's own files: storage tokens
==================  ======================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_models.errors import ModelError
from wm_models.nets.state_dicts import misfit

_WRAPPERS = ("module.", "backbone.", "base_model.", "dinov2.", "dinov2_with_registers.")
_HEADS = ("head.", "fc.", "classifier.", "projectors.")  # of tasks that an encoder does not have
_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QKV = ("query", "key", "value")
_PROJECTION = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")
_INSIDE = {
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


@dataclass(frozen=True)
class Resampling:
    """How a position table of G x G is brought to g x g, bicubic (A = -0.75) in either case.

    With an ``offset`` output i reads at (i + 1/2) G / (g + offset) - 1/2, as DINOv2's hub does;
    without one at (i + 1/2) G / g - 1/2. ``antialias`` widens the kernel by G / g, as timm does.
    """

    antialias: bool
    offset: float


HUB = Resampling(antialias=False, offset=0.1)
SMOOTH = Resampling(antialias=True, offset=0.0)


def resample_positions(table: Tensor, grid: int, prefix: int, how: Resampling) -> Tensor:
    """A position table (1, prefix + G G, d) for ``grid`` x ``grid`` patches.

    Entries of the ``prefix`` tokens (CLS) stay as they are. Equal grids return ``table`` itself.
    ModelError: it is no square grid.
    """
    old = math.isqrt(max(table.shape[1] - prefix, 0))
    if old * old != table.shape[1] - prefix or not old:
        raise ModelError(
            f"position table: got {table.shape[1]} entries, {prefix} of them of no patch, expected "
            "those of a square grid."
        )
    if old == grid:
        return table
    patches = table[:, prefix:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    scale = (grid + how.offset) / old
    size: dict[str, Any] = (
        {"scale_factor": (scale, scale)} if how.offset else {"size": (grid, grid)}
    )
    resampled = F.interpolate(patches, mode="bicubic", antialias=how.antialias, **size)
    resampled = resampled.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)
    return torch.cat([table[:, :prefix], resampled], 1)


def fitted(state: Mapping[str, Tensor], net: nn.Module, how: Resampling) -> dict[str, Tensor]:
    """The state dict of timm network ``net`` of a published ``state``.

    ModelError names the layout that was recognised and the first key that is missing, unexpected
    or of another shape.
    """
    own = net.state_dict()
    layout, tensors = to_timm(state, net)
    tensors = {k: v for k, v in tensors.items() if k in own or not k.startswith(_HEADS)}
    if "pos_embed" in tensors and "pos_embed" in own:
        kept = 0 if getattr(net, "no_embed_class", False) else int(net.num_prefix_tokens)  # type: ignore[arg-type]
        grid = math.isqrt(own["pos_embed"].shape[1] - kept)
        if (
            tensors["pos_embed"].ndim == 3
            and tensors["pos_embed"].shape[1] != own["pos_embed"].shape[1]
        ):
            tensors["pos_embed"] = resample_positions(tensors["pos_embed"], grid, kept, how)
    if wrong := misfit(own, tensors):
        raise ModelError(f"read as layout {layout!r}: {wrong}")
    return tensors


def to_timm(state: Mapping[str, Tensor], net: nn.Module) -> tuple[str, dict[str, Tensor]]:
    """The name of the layout, and the tensors under timm's keys."""
    state = _unwrapped(state)
    if any(_LAYER.match(key) or key.startswith("embeddings.") for key in state):
        return "Hugging Face (facebook/dinov2-*)", _from_hub(_from_hugging_face(state))
    if "storage_tokens" in state:
        from timm.models.eva import checkpoint_filter_fn

        return "DINOv3", checkpoint_filter_fn(dict(state), net)
    if "mask_token" in state:
        return "DINOv2 hub", _from_hub(state)
    return "timm", dict(state)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of modules that the encoder was a part of."""
    inner = dict(state)
    for prefix in (*_WRAPPERS, *_WRAPPERS):  # one may be inside another
        inside = {k.removeprefix(prefix): v for k, v in inner.items() if k.startswith(prefix)}
        rest = [key for key in inner if not key.startswith((prefix, *_HEADS))]
        if inside and not rest:
            inner = inside
    return inner


def _from_hub(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's names are timm's, but for the mask token and for registers: with these timm keeps
    the class token's position inside the token."""
    tensors = {key: value for key, value in state.items() if key != "mask_token"}
    if "register_tokens" in tensors and {"cls_token", "pos_embed"} <= tensors.keys():
        tensors["reg_token"] = tensors.pop("register_tokens")
        tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    return tensors


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The hub's names; q, k and v side by side."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        inside = _LAYER.fullmatch(key)
        if inside is None:
            tensors[_EMBEDDINGS.get(key, key)] = value
        elif projection := _PROJECTION.fullmatch(inside[2]):
            prefix, kind = f"encoder.layer.{inside[1]}.attention.attention", projection[2]
            parts = [f"{prefix}.{name}.{kind}" for name in _QKV]
            if all(name in state for name in parts):
                joined = torch.cat([state[name] for name in parts])
                tensors[f"blocks.{inside[1]}.attn.qkv.{kind}"] = joined
        else:
            tensors[f"blocks.{inside[1]}.{_INSIDE.get(inside[2], inside[2])}"] = value
    return tensors
