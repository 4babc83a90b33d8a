"""Frozen encoders by name, and where their weights are looked for on this computer.

Nothing is ever downloaded. The order is: the path given, $WM_NODES_WEIGHTS/<name>.safetensors (.pt,
.pth), the Hugging Face cache, $TORCH_HOME/hub/checkpoints/<the original file>.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm_models.encoders.base import HALF, RESCALED_IMAGENET_MEAN, RESCALED_IMAGENET_STD, RGB
from wm_models.encoders.layouts import HUB, SMOOTH, Resampling, fitted
from wm_models.encoders.weight_file import read_tensors
from wm_models.errors import ModelError, unknown_name

ENVIRONMENT = "WM_NODES_WEIGHTS"
SUFFIXES = (".safetensors", ".pt", ".pth")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Entry:
    """One encoder: how timm calls it, what it gives, whose it is, and how it was released."""

    timm_name: str
    width: int  # numbers per token
    patch: int  # pixels per token side
    hubs: tuple[str, ...]  # repositories at Hugging Face, in the order in which they are looked for
    file: str  # the original file's name; empty: none known
    licence: str
    resizes: bool = True  # takes img_size
    positions: Resampling = HUB  # of its position table, in its authors' code
    mean: RGB = HALF  # of the images that DINO-WM's authors feed it
    std: RGB = HALF


_DINOV3 = "DINOv3 licence"
ZOO: Mapping[str, Entry] = {
    "dinov2_s": Entry(
        "vit_small_patch14_dinov2", 384, 14,
        ("timm/vit_small_patch14_dinov2.lvd142m", "facebook/dinov2-small"),
        "dinov2_vits14_pretrain.pth", "Apache-2.0",
    ),
    "dinov2_s_reg": Entry(
        "vit_small_patch14_reg4_dinov2", 384, 14,
        ("timm/vit_small_patch14_reg4_dinov2.lvd142m", "facebook/dinov2-with-registers-small"),
        "dinov2_vits14_reg4_pretrain.pth", "Apache-2.0", positions=SMOOTH,
    ),
    "dinov2_b": Entry(
        "vit_base_patch14_dinov2", 768, 14,
        ("timm/vit_base_patch14_dinov2.lvd142m", "facebook/dinov2-base"),
        "dinov2_vitb14_pretrain.pth", "Apache-2.0",
    ),
    "dinov3_s": Entry(
        "vit_small_patch16_dinov3", 384, 16, ("timm/vit_small_patch16_dinov3.lvd1689m",), "",
        _DINOV3,
    ),
    "dinov3_b": Entry(
        "vit_base_patch16_dinov3", 768, 16, ("timm/vit_base_patch16_dinov3.lvd1689m",), "",
        _DINOV3,
    ),
    "dino_s16": Entry(
        "vit_small_patch16_224", 384, 16, ("timm/vit_small_patch16_224.dino",),
        "dino_deitsmall16_pretrain.pth", "Apache-2.0",
    ),
    "resnet18": Entry(
        "resnet18", 512, 32, ("timm/resnet18.tv_in1k",), "resnet18-f37072fd.pth", "BSD-3-Clause",
        resizes=False, mean=RESCALED_IMAGENET_MEAN, std=RESCALED_IMAGENET_STD,
    ),
}  # fmt: skip


def entry(name: str) -> Entry:
    """The encoder of that name; a ModelError names the nearest one otherwise."""
    if name in ZOO:
        return ZOO[name]
    raise unknown_name("encoder", name, ZOO)


def make_backbone(name: str, input_size: int) -> nn.Module:
    """The network with random weights, for square images of ``input_size`` pixels."""
    import timm  # takes longer than torch: imported only when needed

    known = entry(name)
    options: dict[str, Any] = {"img_size": input_size} if known.resizes else {}
    return timm.create_model(known.timm_name, pretrained=False, num_classes=0, **options)


def find_weights(name: str, file: str | Path | None = None) -> Path:
    """The file of weights on this computer; a ModelError lists all places that were looked at."""
    from huggingface_hub import try_to_load_from_cache

    known = entry(name)
    if file is not None:
        if Path(file).is_file():
            return Path(file)
        raise ModelError(f"encoder {name}: weights: there is no file {file}.")
    folder = os.environ.get(ENVIRONMENT)
    places = [Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES] if folder else []
    for hub in known.hubs:
        for hub_file in _HUB_FILES:
            cached = try_to_load_from_cache(hub, hub_file)
            places += [Path(cached)] if isinstance(cached, str) else []
    if known.file:
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / known.file)
    for place in places:
        if place.is_file():
            return place
    raise ModelError(
        f"encoder {name}: no weights on this computer, and none are downloaded. Looked for: a path "
        f"given; ${ENVIRONMENT}/{name}.safetensors, .pt or .pth ({folder or 'not set'}); "
        f"{' or '.join(known.hubs)} in the Hugging Face cache; "
        f"{Path(torch.hub.get_dir()) / 'checkpoints' / (known.file or '(no file known)')}. Get "
        "them with a browser, or choose a preset whose encoder is our own (dino_wm_cpu)."
    )


def load_backbone(
    name: str, input_size: int, file: Path, positions: Resampling | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the weights of ``file``, and what they are: name, file, sha256, licence.

    The file may be in any layout of :mod:`wm_models.encoders.layouts`. ``positions`` says how its
    position table is resampled; None: as the encoder's authors do. ModelError, in one line: the
    file cannot be read, or which of its keys does not fit.
    """
    net = make_backbone(name, input_size)
    fill_backbone(name, net, read_tensors(file), str(file), positions)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    facts = {"name": name, "init": "pretrained", "file": file.name, "sha256": digest}
    return net, {**facts, "licence": entry(name).licence}


def fill_backbone(
    name: str,
    net: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    positions: Resampling | None = None,
) -> None:
    """Load a published ``state`` into the network of :func:`make_backbone`. ModelError, where
    ``source`` is what it calls the state."""
    known = entry(name)
    try:
        net.load_state_dict(fitted(state, net, positions or known.positions))
    except ModelError as error:
        right = " or ".join([*known.hubs, *[known.file][: bool(known.file)]])
        raise ModelError(
            f"encoder {name}: {source} does not fit {known.timm_name}: {error}. "
            f"Right: the weights of {right}, or the encoder that the file is of "
            f"({', '.join(ZOO)})."
        ) from None
