"""Frozen encoders: search order of weight files, errors with all locations, fit to our images."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from tests.wm_models.families.dino_wm.dino_tiny import EMBODIMENT
from wm_models.encoders import pretrained
from wm_models.encoders.timm import TimmConfig
from wm_models.errors import ModelError
from wm_models.nets.images import IMAGENET_MEAN, IMAGENET_STD
from wm_models.registry import PRESETS
from wm_models.weights.store import read_weights


@pytest.fixture(scope="module")
def foreign() -> nn.Module:
    """DINOv2-S as its weights are published: for 518 pixels."""
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A computer without any weights."""
    monkeypatch.delenv(pretrained.ENVIRONMENT, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_locations_are_searched_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = tmp_path / "torch/hub/checkpoints/dinov2_vits14_pretrain.pth"
    meta = tmp_path / "hub/models--facebook--dinov2-small"
    other = meta / "snapshots/abc/pytorch_model.bin"
    repo = tmp_path / "hub/models--timm--vit_small_patch14_dinov2.lvd142m"
    cached = repo / "snapshots/abc/model.safetensors"
    ours, file_argument = tmp_path / "own/dinov2_s.pt", tmp_path / "argument.pth"
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(tmp_path / "own"))
    for location in (original, other, cached, ours):  # from the last to the first
        location.parent.mkdir(parents=True)
        location.write_bytes(b"weights")
        for hub in (meta, repo):
            if hub in location.parents:
                (hub / "refs").mkdir()
                (hub / "refs/main").write_text("abc")
        assert pretrained.find_weights("dinov2_s") == location
    (tmp_path / "own/dinov2_s.safetensors").write_bytes(b"weights")
    assert pretrained.find_weights("dinov2_s").suffix == ".safetensors"
    file_argument.write_bytes(b"weights")
    assert pretrained.find_weights("dinov2_s", file_argument) == file_argument


def test_without_weights_all_locations_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        pretrained.find_weights("dinov2_s")
    for location in (
        pretrained.ENVIRONMENT,
        "Hugging Face",
        "dinov2_vits14_pretrain.pth",
        "dino_wm_cpu",
    ):
        assert location in str(error.value)
    with pytest.raises(ModelError, match="there is no file"):
        pretrained.find_weights("dinov2_s", tmp_path / "none.pt")
    with pytest.raises(ModelError, match="Did you mean 'dinov2_s'"):
        pretrained.entry("dinov2s")
    model = PRESETS["dino_wm"].build(EMBODIMENT)
    with pytest.raises(ModelError, match="none are downloaded"):
        PRESETS["dino_wm"].pretrain(model, read_weights)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_fitted_to_our_images(foreign: nn.Module, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"some{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(foreign.state_dict(), file)
    encoder = TimmConfig(weights=str(file)).make()
    facts = encoder.pretrain()
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (facts["name"], facts["init"], facts["licence"]) == (
        "dinov2_s", "pretrained", "Apache-2.0",
    )  # fmt: skip
    theirs = dict(foreign.named_parameters())
    for name, value in encoder.backbone.named_parameters():
        assert not value.requires_grad
        if name == "pos_embed":  # of another grid
            assert value.shape != theirs[name].shape
        else:
            assert torch.equal(value, theirs[name])


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dinov2_s.pth"
    file.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is no file of weights"):
        TimmConfig(weights=str(file)).make().pretrain()
    torch.save({"other.weight": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match=r"does not fit vit_small_patch14_dinov2: .* is missing"):
        TimmConfig(weights=str(file)).make().pretrain()


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (TimmConfig(), (196, 384)),
        (TimmConfig(tokens="cls"), (1, 384)),
        (TimmConfig("dinov2_s_reg"), (196, 384)),
        (TimmConfig("dinov3_s", input_size=224), (196, 384)),
        (TimmConfig("resnet18", input_size=224), (49, 512)),
    ],
)
@torch.no_grad()
def test_tokens_of_pretrained_encoders(config: TimmConfig, shape: tuple[int, int]) -> None:
    encoder = config.make().train()
    images = torch.randint(0, 256, (2, 224, 224, 3), generator=torch.Generator().manual_seed(0))
    tokens = encoder(images.byte())
    assert tokens.shape == (2, *shape) == (2, config.grid**2, config.width)
    assert torch.equal(tokens, encoder(images.byte()))  # no dropout, no running means
    floats = images.permute(0, 3, 1, 2) / 255.0
    assert_close(encoder(floats), tokens, rtol=1e-4, atol=1e-4)


def test_scales_of_images() -> None:
    """As released: [-1, 1] for every encoder; ours: the statistics of DINOv2's training."""
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 224, 224, 3)
    released = TimmConfig().make().standardise(images)
    assert (float(released[0].max()), float(released[1].min())) == (-1.0, 1.0)
    ours = TimmConfig(mean=IMAGENET_MEAN, std=IMAGENET_STD).make().standardise(images)
    assert_close(ours[0, :, 0, 0], -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD))
    assert PRESETS["dino_wm_repo"].model.encoder == TimmConfig()  # type: ignore[attr-defined]


@pytest.mark.parametrize("invalid", [{"tokens": "all"}, {"input_size": 200}, {"name": "dinov9"}])
def test_an_invalid_encoder_configuration_is_refused(invalid: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        replace(TimmConfig(), **invalid)  # type: ignore[arg-type]
