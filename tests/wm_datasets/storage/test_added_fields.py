"""Arrays that the log does not declare are removed, unless they hold data."""

from dataclasses import replace

import pytest

from tests.wm_datasets.log_rows import make_spec
from wm_datasets import SensorSpec
from wm_datasets.storage.added_fields import clear_undeclared
from wm_datasets.storage.manifest import ROOT, ROOT_COPY, Manifest, read_root

ADDED = ("signals", "evaluation", "image/side", "sensor/depth")


@pytest.fixture
def manifest(tmp_path):
    spec = make_spec(sensors={"force": SensorSpec("float32", (2,), "N")})
    new_manifest = Manifest.new(spec)
    new_manifest.create_folders(tmp_path)
    new_manifest.commit(tmp_path)
    return new_manifest


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("files", [(), ("zarr.json",), ("zarr.json", "zarr.json.tmp")])
def test_an_array_that_was_being_added_is_removed(tmp_path, manifest, name, files):
    (tmp_path / name).mkdir(parents=True)
    for file in files:
        (tmp_path / name / file).touch()
    clear_undeclared(tmp_path, manifest)
    assert not (tmp_path / name).exists()
    for declared in manifest.spec.fields:
        assert (tmp_path / declared / "zarr.json").is_file()


@pytest.mark.parametrize("name", ADDED)
def test_a_folder_with_other_files_is_kept_and_named(tmp_path, manifest, name, caplog):
    (tmp_path / name).mkdir(parents=True)
    for file in ("zarr.json", "c.0"):
        (tmp_path / name / file).touch()
    (tmp_path / "sensor" / "other").mkdir()
    clear_undeclared(tmp_path, manifest)
    assert {path.name for path in (tmp_path / name).iterdir()} == {"zarr.json", "c.0"}
    assert name in caplog.text and "it is not a field of this log" in caplog.text
    assert not (tmp_path / "sensor" / "other").exists()  # the others are removed all the same


def test_a_copy_of_the_root_that_is_newer_is_restored(tmp_path, manifest):
    newer = replace(manifest, spec=replace(manifest.spec, evaluation=True))
    newer = replace(newer, chunks=newer.chunks | {"evaluation": 16})
    root = (tmp_path / ROOT).read_bytes()
    (tmp_path / "evaluation").mkdir()
    newer.commit(tmp_path)
    (tmp_path / ROOT).write_bytes(root)
    assert read_root(tmp_path, ROOT_COPY).spec.evaluation
    clear_undeclared(tmp_path, manifest)
    assert read_root(tmp_path, ROOT_COPY) == manifest


@pytest.mark.parametrize("copy", ["equal", "damaged", "missing"])
def test_other_copies_are_not_changed(tmp_path, manifest, copy):
    path = tmp_path / ROOT_COPY
    if copy == "damaged":
        path.write_bytes(b"{")
    elif copy == "missing":
        path.unlink()
    before = path.stat() if path.exists() else None
    clear_undeclared(tmp_path, manifest)
    assert (path.stat() if path.exists() else None) == before
