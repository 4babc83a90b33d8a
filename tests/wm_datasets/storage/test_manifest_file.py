"""A manifest is read again when its file changed, and only then."""

from dataclasses import replace

import pytest

from tests.wm_datasets.log_rows import make_spec
from wm_datasets.storage.manifest import ROOT, Manifest
from wm_datasets.storage.manifest_file import ManifestFile


@pytest.fixture
def manifest(tmp_path):
    new_manifest = Manifest.new(make_spec())
    new_manifest.create_folders(tmp_path)
    new_manifest.commit(tmp_path)
    return new_manifest


def test_a_change_is_detected_and_loaded_by_take(tmp_path, manifest):
    file = ManifestFile(tmp_path)
    assert file.is_unchanged() and file.manifest == manifest
    assert file.take() is file.manifest and file.peek() is file.manifest
    newer = replace(manifest, sealed=16)
    newer.commit(tmp_path)
    assert not file.is_unchanged()
    assert file.peek() == newer and file.manifest == manifest
    assert file.take() == newer and file.manifest == newer and file.is_unchanged()
    assert file.take() is file.manifest


def test_a_manifest_that_is_refused_is_read_again(tmp_path, manifest):
    file = ManifestFile(tmp_path)
    newer = replace(manifest, sealed=16)
    newer.commit(tmp_path)
    file.take()
    file.put_back(manifest)
    assert file.manifest is manifest and not file.is_unchanged()
    assert file.take() == newer


def test_an_expected_change_is_read_even_if_the_file_looks_unchanged(tmp_path, manifest):
    file = ManifestFile(tmp_path)
    before = file.manifest
    file.expect_change()
    assert not file.is_unchanged()
    assert file.take() == before and file.manifest is not before and file.is_unchanged()


def test_a_missing_file_does_not_count_as_unchanged(tmp_path, manifest):
    file = ManifestFile(tmp_path)
    (tmp_path / ROOT).rename(tmp_path / "away")
    assert not file.is_unchanged()
    (tmp_path / "away").rename(tmp_path / ROOT)
    assert file.is_unchanged()
