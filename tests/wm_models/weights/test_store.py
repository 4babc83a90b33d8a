"""Weights on disk: whole or absent, checked against their digests, refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from wm_models.errors import ModelError
from wm_models.interface.embodiment import Embodiment
from wm_models.registry import preset
from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore, load_model, load_modules, read_manifest


def parts(seed: int = 0, width: int = 3) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return {"actor": nn.Linear(width, 2), "critic": nn.Linear(width, 1)}


def manifest(version: int, **more: object) -> Manifest:
    return Manifest(version=version, preset="mwm_cpu", action_dim=4, **more)


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


def test_saved_weights_are_loaded_exactly(store) -> None:
    saved = parts(1)
    written = store.save(saved, manifest(7, step=50, metrics={"loss": 0.5}, extra={"task": "x"}))
    for path in (store.folder, store.path(7)):
        other = parts(2)
        assert load_modules(path, other) == written
        for name, module in saved.items():
            assert_close(other[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    assert read_manifest(store.folder).metrics == {"loss": 0.5}
    assert len(written.digest) == 64


def test_a_node_may_load_only_what_it_needs(store) -> None:
    store.save(parts(1), manifest(0))
    (store.path(0) / "critic.safetensors").unlink()
    actor = parts(2)["actor"]
    load_modules(store.folder, {"actor": actor})
    assert_close(actor.state_dict(), parts(1)["actor"].state_dict(), rtol=0, atol=0)


def test_the_newest_version_is_loaded_and_old_ones_are_deleted(tmp_path) -> None:
    store = WeightStore(tmp_path, keep=2)
    assert store.latest() is None and store.versions() == []
    for version in (1, 2, 10):
        store.save(parts(version), manifest(version))
    assert store.latest() == 10
    assert store.versions() == [2, 10]
    assert read_manifest(tmp_path).version == 10


def test_a_killed_writer_leaves_no_version(store) -> None:
    store.save(parts(1), manifest(1))
    aside = store.folder / ".0000000002.123"
    aside.mkdir()
    (aside / "actor.safetensors").write_bytes(b"half")
    assert store.versions() == [1] and store.latest() == 1


def test_a_version_may_be_written_again(store) -> None:
    store.save(parts(1), manifest(1))
    store.save(parts(2), manifest(1))
    loaded = parts(3)
    load_modules(store.folder, loaded)
    assert_close(loaded["actor"].weight, parts(2)["actor"].weight)


def damage(folder: Path, how: str) -> None:
    file = folder / "actor.safetensors"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    elif how == "flipped":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif how == "missing":
        file.unlink()
    elif how == "no manifest":
        (folder / "manifest.json").write_text("{")
    elif how == "another's manifest":
        (folder / "manifest.json").write_text('{"name": "x"}')
    elif how == "not safetensors":
        import hashlib

        file.write_bytes(b"something else")
        entries = json.loads((folder / "manifest.json").read_text())
        entries["sha256"][file.name] = hashlib.sha256(b"something else").hexdigest()
        (folder / "manifest.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("truncated", "damaged or foreign"),
        ("flipped", "damaged or foreign"),
        ("missing", r"is missing; the manifest lists \['actor.safetensors'"),
        ("no manifest", "is not a manifest of ours"),
        ("another's manifest", "is not a manifest of ours"),
        ("not safetensors", "is not a safetensors file"),
    ],
)
def test_damage_is_reported_and_changes_nothing(store, how: str, match: str) -> None:
    store.save(parts(1), manifest(0))
    damage(store.path(0), how)
    loaded = parts(2)
    with pytest.raises(WeightsError, match=match):
        load_modules(store.folder, loaded)
    assert_close(loaded["critic"].weight, parts(2)["critic"].weight, rtol=0, atol=0)


def test_weights_of_another_shape_are_refused(store) -> None:
    store.save(parts(1), manifest(0))
    with pytest.raises(WeightsError, match=r"'weight': got shape \(2, 3\), expected \(2, 4\)"):
        load_modules(store.folder, parts(2, width=4))
    store.save({"actor": nn.Linear(3, 2, bias=False)}, manifest(1))
    with pytest.raises(WeightsError, match="'bias' is missing"):
        load_modules(store.folder, {"actor": nn.Linear(3, 2)})
    store.save({"actor": nn.Linear(3, 2)}, manifest(2))
    with pytest.raises(WeightsError, match="'bias' is unexpected"):
        load_modules(store.folder, {"actor": nn.Linear(3, 2, bias=False)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(store, value) -> None:
    saved, loaded = parts(1), parts(2)
    with torch.no_grad():
        saved["critic"].weight[0, 1] = value
    store.save(saved, manifest(3))
    with pytest.raises(WeightsError, match="'weight' of 'critic', version 3, holds NaN or infi"):
        load_modules(store.folder, loaded)
    assert_close(loaded["actor"].weight, parts(2)["actor"].weight, rtol=0, atol=0)


def test_a_manifest_without_settings_is_as_before(store) -> None:
    """Versions of this package that know no settings read it."""
    store.save(parts(1), manifest(0))
    assert "settings" not in json.loads((store.path(0) / "manifest.json").read_text())
    assert read_manifest(store.folder).settings == {}
    store.save(parts(1), manifest(1, settings={"num_hist": 1}))
    assert read_manifest(store.folder).settings == {"num_hist": 1}
    with pytest.raises(ModelError, match="set: got 'num_hist'"):
        load_model(store.folder)


def test_a_folder_without_weights_is_refused_with_the_remedy(store, tmp_path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(WeightsError, match=r"nothing at .*Right: a version's folder"):
            read_manifest(path)


def test_a_pointer_to_a_missing_version_is_refused(store) -> None:
    store.save(parts(1), manifest(1))
    shutil.rmtree(store.path(1))
    with pytest.raises(WeightsError, match="nothing at"):
        read_manifest(store.folder)
    (store.folder / "latest").write_text("")
    with pytest.raises(WeightsError, match="latest: got '', expected the number of a version"):
        read_manifest(store.folder)


def test_a_whole_model_is_saved_and_loaded(store) -> None:
    model = preset("mwm_cpu").build(4, seed=3)
    model.critic.scale.fill_(2.0)
    store.save(model.modules_by_name(), manifest(0))
    loaded, manifest_of_model = load_model(store.folder)
    assert manifest_of_model.preset == "mwm_cpu" and not loaded.training
    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_unknown_preset_is_named(store) -> None:
    store.save(parts(1), Manifest(version=0, preset="mwm_gpu", action_dim=4))
    with pytest.raises(ModelError, match="model: got 'mwm_gpu'"):
        load_model(store.folder)


def test_an_embodiment_is_saved_with_the_weights(tmp_path: Path) -> None:
    embodiment = Embodiment((-2.0,) * 3, (0.5,) * 3, (0.1,) * 3, (0.7,) * 3, (1.0,), (2.0,), 0.05)
    manifest = Manifest(1, "mwm_cpu", 3, body=embodiment.to_json())
    WeightStore(tmp_path).save({"world_model": nn.Linear(2, 2)}, manifest)
    assert read_manifest(tmp_path).embodiment == embodiment
    assert Manifest(1, "mwm_cpu", 3).embodiment == Embodiment.unit(3)


def test_modules_that_do_not_change_are_stored_once(tmp_path: Path) -> None:
    store, frozen, learned = WeightStore(tmp_path, keep=2), nn.Linear(4, 4), nn.Linear(2, 2)
    for version in (1, 2, 3):
        with torch.no_grad():
            learned.weight.fill_(version)
        store.save({"frozen": frozen, "learned": learned}, Manifest(version, "any", 2))
    paths = [store.path(v) for v in store.versions()]
    assert len({(p / "frozen.safetensors").stat().st_ino for p in paths}) == 1
    assert len({(p / "learned.safetensors").stat().st_ino for p in paths}) == 2
    for path in paths:  # the version that wrote the file is deleted, the file is not
        loaded = nn.Linear(4, 4)
        load_modules(path, {"frozen": loaded})
        assert_close(loaded.state_dict(), frozen.state_dict(), rtol=0, atol=0)
