"""Checkpoints of DINO-WM's own code become weights of ours, exactly, or are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from tests.wm_models.weights import released_run as theirs
from wm_models.encoders import pretrained
from wm_models.errors import ModelError
from wm_models.families.dino_wm.model import DinoWorldModel
from wm_models.interface.embodiment import Embodiment
from wm_models.registry import preset
from wm_models.weights.manifest import WeightsError
from wm_models.weights.released_dino_wm import ReleasedRun, import_released
from wm_models.weights.store import load_model, read_manifest

EMBODIMENT = Embodiment(
    (-1.0,) * 2, (1.0,) * 2, (0.1, -0.2), (0.3, 0.4), (1.0, 2.0, 3.0, 4.0), (0.5,) * 4, 0.1
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ResNet-18's weights (random)."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "resnet18.safetensors"
    save_file(pretrained.make_backbone("resnet18", 224).state_dict(), path)
    return path


def imported_model(
    folder: Path, out: Path, encoder: Path, embodiment: Embodiment = EMBODIMENT
) -> DinoWorldModel:
    import_released(ReleasedRun.read(folder), embodiment, out, encoder=encoder)
    model, _ = load_model(out)
    assert isinstance(model, DinoWorldModel)
    return model


@torch.no_grad()
def test_a_checkpoint_as_released_is_exact(tmp_path: Path) -> None:
    """The default layout, 20 122 600 numbers in the predictor, against modules that were written
    from the paper; with its trained encoder, as a run with `train_encoder` leaves it."""
    torch.manual_seed(0)
    predictor, decoder = theirs.ViTPredictor(3, 196, 404), theirs.VQVAE()
    action, proprio = theirs.ProprioceptiveEmbedding(10, 10), theirs.ProprioceptiveEmbedding(4, 10)
    assert sum(p.numel() for p in predictor.parameters()) == 20_122_600
    optimizer = theirs.AcceleratedOptimizer(torch.optim.AdamW(action.parameters()))
    optimizer.optimizer.zero_grad()
    with torch.enable_grad():
        action(torch.randn(1, 2, 10)).sum().backward()
    optimizer.optimizer.step()
    hub = pretrained.make_backbone("dinov2_s", 196)
    hub.register_parameter("mask_token", nn.Parameter(torch.zeros(1, 384)))
    wrapped = nn.Module()
    wrapped.base_model = hub.requires_grad_(False)
    state = wrapped.state_dict()
    folder = theirs.write_run(
        tmp_path / "run",
        theirs.config(),
        {
            "epoch": 100, "encoder": state, "predictor": predictor, "decoder": decoder,
            "action_encoder": action, "proprio_encoder": proprio, "predictor_optimizer": optimizer,
        },
    )  # fmt: skip
    model = imported_model(folder, tmp_path / "out", tmp_path / "none")
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.preset, dict(manifest.settings)) == ("dino_wm_repo", {})
    assert manifest.extra["imported"] == {
        "code": "dino_wm", "file": "model_latest.pth", "epoch": 100,
    }  # fmt: skip
    assert sum(p.numel() for p in model.dynamics.predictor.parameters()) == 20_122_600
    for name, value in model.encoder.picture.backbone.state_dict().items():
        assert torch.equal(value, state[f"base_model.{name}"])

    g = torch.Generator().manual_seed(1)
    tokens = torch.randn(1, 3, 196, 404, generator=g)
    expected = predictor.eval()(tokens.flatten(1, 2)).unflatten(1, (3, 196))
    assert_close(model.dynamics.predictor(tokens), expected, rtol=0, atol=1e-5)
    actions = torch.randn(1, 3, 10, generator=g)
    assert_close(model.dynamics.action(actions), action(actions), rtol=0, atol=1e-6)
    raw = torch.randn(1, 3, 4, generator=g)
    scores = (raw - torch.tensor(EMBODIMENT.proprio_mean)) / torch.tensor(EMBODIMENT.proprio_std)
    assert model.encoder.proprio is not None and model.decoder is not None
    assert_close(model.encoder.proprio(raw), proprio(scores), rtol=0, atol=1e-6)
    visual = tokens[:, 0, :, :384]
    assert_close(model.decoder(visual), decoder(visual), rtol=0, atol=1e-5)


def test_settings_that_differ_from_the_preset_travel_with_the_weights(
    tmp_path: Path, encoder: Path
) -> None:
    """One frame, every step, ResNet-18, a decoder that we do not have: as for rope and granular."""
    folder = theirs.write_run(tmp_path / "run", theirs.small(), theirs.small_parts())
    run = ReleasedRun.read(folder)
    assert "TransposedConvDecoder is left out" in run.notes[0]
    model = imported_model(folder, tmp_path / "out", encoder)
    assert dict(read_manifest(tmp_path / "out").settings) == {
        "num_hist": 1, "frameskip": 1, "depth": 1, "heads": 2, "hidden": 16,
        "encoder": "resnet18", "tokens": "cls", "decoder": False,
    }  # fmt: skip
    assert (model.spec.frameskip, model.config.num_hist, model.decoder) == (1, 1, None)
    obs = {"image": torch.zeros(1, 224, 224, 3, dtype=torch.uint8), "proprio": torch.zeros(1, 4)}
    assert model.encode(obs).shape == (1, 1, 512 + 10)


def test_encoder_facts_go_into_the_manifest(tmp_path: Path, encoder: Path) -> None:
    folder = theirs.write_run(tmp_path / "run", theirs.small(), theirs.small_parts())
    imported_model(folder, tmp_path / "out", encoder)
    facts = read_manifest(tmp_path / "out").extra["encoder"]
    assert (facts["name"], facts["init"], facts["file"]) == (
        "resnet18", "pretrained", "resnet18.safetensors",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder___target_": "models.encoder.r3m.load_r3m"}, "models.encoder.r3m.load_r3m"),
        ({"encoder__unit_norm": True}, "encoder.unit_norm: got True"),
        ({"num_pred": 2}, "num_pred: got 2"),
        ({"has_predictor": False}, "has_predictor: got False"),
        ({"model___target_": "models.other.Model"}, "models.other.Model"),
        ({"predictor___target_": "models.other.Net"}, "models.other.Net"),
        ({"action_encoder___target_": "models.dummy.Dummy"}, "models.dummy.Dummy"),
        ({"num_hist": "three"}, "num_hist: got 'three'"),
        ({"decoder": {**theirs.CONFIG["decoder"], "quantize": True}}, "decoder.quantize: got True"),
        ({"encoder": {**theirs.CONFIG["encoder"], "name": "dinov2_vitg14"}}, "dinov2_vitg14"),
    ],
)
def test_a_configuration_without_counterpart_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    folder = theirs.write_run(tmp_path / "run", theirs.small(**changes), {"epoch": 1})
    with pytest.raises(WeightsError) as error:
        ReleasedRun.read(folder)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert str(folder / "hydra.yaml") in str(error.value)


def broken(parts: dict[str, Any], defect: str) -> dict[str, Any]:
    if defect == "absent":
        del parts["predictor"]
    elif defect == "class":
        parts["action_encoder"] = theirs.DummyRepeatActionEncoder()
    elif defect == "size":
        parts["action_encoder"] = theirs.ProprioceptiveEmbedding(3, 10)
    elif defect == "depth":
        parts["predictor"] = theirs.ViTPredictor(1, 1, 532, depth=2, heads=2, hidden=16)
    elif defect == "nan":
        with torch.no_grad():
            parts["proprio_encoder"].patch_embed.bias[3] = math.nan
    return parts


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("absent", "predictor: got nothing"),
        ("class", r"action_encoder: got a models\.dummy\.DummyRepeatActionEncoder"),
        ("size", r"action_encoder .*'weight': got shape \(10, 3\), expected \(10, 2\)"),
        ("depth", r"'blocks\.1\.norm\.weight' is unexpected"),
        ("nan", "'bias' of proprio_encoder holds NaN"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, encoder: Path, defect: str, message: str
) -> None:
    folder = theirs.write_run(
        tmp_path / "run", theirs.small(), broken(theirs.small_parts(), defect)
    )
    with pytest.raises(WeightsError, match=message) as error:
        imported_model(folder, tmp_path / "out", encoder)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_missing_files_are_named(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no hydra\.yaml"):
        ReleasedRun.read(tmp_path)
    folder = theirs.write_run(tmp_path / "run", theirs.small(), theirs.small_parts())
    run = ReleasedRun.read(folder)
    with pytest.raises(WeightsError, match=r"no checkpoints/model_3\.pth.*model_latest\.pth"):
        run.checkpoint("3")
    with pytest.raises(ModelError, match="there is no file"):
        import_released(run, EMBODIMENT, tmp_path / "out", encoder=tmp_path / "none.pth")
    (folder / "hydra.yaml").write_text("a: [")
    with pytest.raises(WeightsError, match="cannot be read as YAML"):
        ReleasedRun.read(folder)


@pytest.mark.parametrize(
    "invalid", [{"depth": 1000}, {"depth": True}, {"nothing": 1}, {"encoder": 3}, {"decoder": 1}]
)
def test_settings_of_a_manifest_are_checked(invalid: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"settings"):
        preset("dino_wm_repo").varied(invalid)
    with pytest.raises(ModelError, match=r"set: got "):
        preset("mwm_cpu").varied(invalid)
