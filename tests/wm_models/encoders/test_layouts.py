"""Published encoders in every layout give the same network; their position tables as released."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.testing import assert_close

from tests.tensors import assert_same_tensors
from wm_models.encoders import pretrained
from wm_models.encoders.layouts import HUB, SMOOTH, fitted, resample_positions
from wm_models.encoders.timm import TimmConfig
from wm_models.errors import ModelError


def table(size: int, width: int = 5) -> Tensor:
    g = torch.Generator().manual_seed(size)
    return torch.randn(1, 1 + size * size, width, generator=g)


def hub_matrix(old: int, new: int, offset: float) -> np.ndarray:
    """[new, old] weights of the hub's interpolation along one side, in float64.

    Output i reads at x = (i + 1/2) old / (new + offset) - 1/2, from the four entries about x, whose
    weights are Keys' cubic (1981) with A = -0.75; entries beyond the border repeat the last one.
    """

    def cubic(distance: float) -> float:
        a, d = -0.75, abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

    matrix = np.zeros((new, old))
    for i in range(new):
        x = (i + 0.5) * old / (new + offset) - 0.5
        for at in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            matrix[i, min(max(at, 0), old - 1)] += cubic(x - at)
    return matrix


def by_formula(positions: Tensor, old: int, new: int) -> Tensor:
    rows = positions[0, 1:].double().numpy().reshape(old, old, -1)
    m = hub_matrix(old, new, 0.1)
    patches = np.einsum("ia,jb,abd->ijd", m, m, rows).reshape(1, new * new, -1)
    return torch.cat([positions[:, :1].double(), torch.from_numpy(patches)], 1).float()


@pytest.mark.parametrize(("old", "new"), [(37, 14), (37, 16), (14, 37), (16, 7)])
def test_positions_are_resampled_as_the_hub_does(old: int, new: int) -> None:
    """Against the formula, and equal to the one call of torch that the hub makes."""
    positions = table(old)
    resampled = resample_positions(positions, new, 1, HUB)
    assert_close(resampled, by_formula(positions, old, new), rtol=1e-5, atol=1e-5)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    scale = float(new + 0.1) / old
    interpolated = F.interpolate(grid, mode="bicubic", antialias=False, scale_factor=(scale, scale))
    assert torch.equal(resampled[:, 1:], interpolated.permute(0, 2, 3, 1).reshape(1, new * new, -1))


def test_antialiasing_is_timms_and_differs() -> None:
    positions = table(37)
    smooth = resample_positions(positions, 14, 1, SMOOTH)
    assert torch.equal(smooth, resample_abs_pos_embed(positions, [14, 14], num_prefix_tokens=1))
    assert (smooth - resample_positions(positions, 14, 1, HUB)).abs().max() > 0.1


def test_equal_grids_stay_and_others_must_be_square() -> None:
    positions = table(14)
    assert resample_positions(positions, 14, 1, HUB) is positions
    with pytest.raises(ModelError, match="got 196 entries, 1 of them of no patch"):
        resample_positions(positions[:, 1:], 7, 1, HUB)


@pytest.fixture(scope="module")
def foreign() -> dict[str, dict[str, Tensor]]:
    """timm's keys of DINOv2-S, with registers and without, at its own 518 pixels."""
    torch.manual_seed(0)
    names = {
        "dinov2_s": "vit_small_patch14_dinov2",
        "dinov2_s_reg": "vit_small_patch14_reg4_dinov2",
    }
    nets = {k: timm.create_model(v, pretrained=False, num_classes=0) for k, v in names.items()}
    for net in nets.values():
        nn.init.normal_(net.pos_embed)  # type: ignore[arg-type]
        nn.init.normal_(net.cls_token)  # type: ignore[arg-type]
    return {k: dict(net.state_dict()) for k, net in nets.items()}


@pytest.fixture(scope="module")
def backbones() -> dict[str, nn.Module]:
    """Our networks for DINOv2-S, with registers and without; drawing 22 M weights takes long."""
    return {name: pretrained.make_backbone(name, 196) for name in ("dinov2_s", "dinov2_s_reg")}


def as_hub(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An additional mask token; separate registers, and the class token's position in the table."""
    hub_state = {**state, "mask_token": torch.zeros(1, 384)}
    if "reg_token" in hub_state:
        hub_state["register_tokens"] = hub_state.pop("reg_token")
        position = torch.randn(1, 1, 384)
        hub_state["pos_embed"] = torch.cat([position, hub_state["pos_embed"]], 1)
        hub_state["cls_token"] = hub_state["cls_token"] - position
    return hub_state


def as_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in facebook/dinov2-*: q, k and v are separate."""
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    renamed: dict[str, Tensor] = {}
    for key, value in as_hub(state).items():
        if key in names:
            renamed[names[key]] = value
            continue
        _, i, rest = key.split(".", 2)
        block = f"encoder.layer.{i}"
        if match := re.fullmatch(r"attn\.qkv\.(weight|bias)", rest):
            for part, tensor in zip(("query", "key", "value"), value.chunk(3)):
                renamed[f"{block}.attention.attention.{part}.{match[1]}"] = tensor.clone()
        else:
            rest = rest.replace("attn.proj", "attention.output.dense")
            rest = re.sub(r"ls(\d)\.gamma", r"layer_scale\1.lambda1", rest)
            renamed[f"{block}.{rest}"] = value
    return renamed


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Dinov2ForImageClassification has them."""
    head = {"classifier.weight": torch.zeros(10, 768)}
    return {f"dinov2.{k}": v for k, v in as_hugging_face(state).items()} | head


@pytest.mark.parametrize("layout", [dict, as_hub, as_hugging_face, prefixed])
@pytest.mark.parametrize("name", ["dinov2_s", "dinov2_s_reg"])
def test_every_layout_is_the_same_network(foreign, backbones, name: str, layout) -> None:
    state, net = foreign[name], backbones[name]
    for value in net.state_dict().values():  # nothing is left of another layout's weights
        value.fill_(7)
    pretrained.fill_backbone(name, net, layout(state), "file")
    for key, value in net.state_dict().items():
        if key != "pos_embed":
            assert_close(value, state[key], rtol=0, atol=1e-6)
    prefix = 1 - ("reg" in name)  # with registers timm's table has no entry for the class token
    expected = resample_positions(state["pos_embed"], 14, prefix, pretrained.entry(name).positions)
    assert_close(net.state_dict()["pos_embed"], expected, rtol=0, atol=1e-6)


def test_the_setting_positions_selects_the_resampling(foreign, tmp_path: Path) -> None:
    """DINOv2's table as the hub has it, from 37 x 37 to 14 x 14; timm's resampling on request."""
    save_file(as_hub(foreign["dinov2_s"]), tmp_path / "s.safetensors")
    tables = {}
    for setting in ("released", "antialias"):
        encoder = TimmConfig(weights=str(tmp_path / "s.safetensors"), positions=setting).make()
        encoder.pretrain()
        tables[setting] = encoder.backbone.pos_embed.detach()
    positions = foreign["dinov2_s"]["pos_embed"]
    assert_close(tables["released"], by_formula(positions, 37, 14), rtol=1e-5, atol=1e-5)
    assert torch.equal(
        tables["antialias"], resample_abs_pos_embed(positions, [14, 14], num_prefix_tokens=1)
    )
    with pytest.raises(ModelError, match=r"encoder\.positions: got .*, expected released or"):
        TimmConfig(positions="bilinear")


def broken(state: dict[str, Tensor], defect: str) -> dict[str, Tensor]:
    state = as_hub(state)
    if defect == "missing":
        del state["blocks.3.attn.qkv.weight"]
    elif defect == "unexpected":
        state["blocks.12.norm1.weight"] = torch.zeros(384)
    elif defect == "shape":
        state["blocks.3.mlp.fc1.bias"] = torch.zeros(7)
    return state


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("missing", r"'blocks\.3\.attn\.qkv\.weight' is missing \(1 missing, 0 of another shape"),
        ("unexpected", r"'blocks\.12\.norm1\.weight' is unexpected"),
        ("shape", r"'blocks\.3\.mlp\.fc1\.bias': got shape \(7,\), expected \(1536,\)"),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(
    foreign, backbones, defect: str, message: str
) -> None:
    net = backbones["dinov2_s"]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModelError, match=message) as error:
        pretrained.fill_backbone("dinov2_s", net, broken(foreign["dinov2_s"], defect), "some.pth")
    text = str(error.value)
    assert "\n" not in text and "layout 'DINOv2 hub'" in text and "some.pth" in text
    assert "facebook/dinov2-small" in text  # the right file
    assert_same_tensors(net.state_dict(), before)


def test_heads_of_tasks_are_left_out() -> None:
    net = pretrained.make_backbone("resnet18", 224)
    state = {**net.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    assert fitted(state, net, HUB).keys() == net.state_dict().keys()


@torch.no_grad()
def test_resnet_inputs_are_scaled_as_in_the_code_of_dino_wm() -> None:
    """Images in [-1, 1], ImageNet's scale on top, and the mean over the map: one token."""
    encoder = TimmConfig("resnet18", input_size=224, tokens="cls").make()
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 224, 224, 3), generator=g).byte()
    scaled = (images.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (scaled - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert_close(encoder.standardise(images), normalised, rtol=1e-5, atol=1e-5)
    expected = encoder.backbone.forward_features(normalised).mean((2, 3))[:, None]
    assert_close(encoder(images), expected, rtol=1e-4, atol=1e-4)
    stated = TimmConfig("resnet18", input_size=224, mean=(0.5,) * 3, std=(0.5,) * 3).make()
    assert_close(stated.standardise(images), scaled)
