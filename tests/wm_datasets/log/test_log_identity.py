"""A log is identified by the random id from its creation, not by its path alone."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from tests.wm_datasets.sampling.test_disk_cache import bounded, short_chunks  # noqa: F401  (a fixture)
from wm_datasets import LogFormatError, LogReader, LogWriter
from wm_datasets.log.verify import verify
from wm_datasets.sampling import disk_cache
from wm_datasets.storage.manifest import Manifest, load_manifest

EPISODES = [50] * 6


def write(path, shade):
    """A log whose frames are all of one shade."""
    with LogWriter(path, make_spec()) as writer:
        for rows in EPISODES:
            for step in range(rows):
                row = make_row(writer.length, step, step == rows - 1)
                writer.append(row | {"image/front": np.full((4, 6, 3), shade, np.uint8)})


def clamp_times(path):
    """Set all times of files to one value, as archives that clamp time stamps do."""
    for file in path.rglob("*"):
        os.utime(file, ns=(10**18, 10**18))


def shades(path):
    sampler = bounded(path, 1, 1000, batch=32)
    unique_values = [np.unique(sampler.sample()["image/front"]).tolist() for _ in range(4)]
    sampler.close()
    return unique_values


def remove_identity(path):
    """Change the log to one of an older version."""
    replace(load_manifest(path), identity="").commit(path)


@pytest.mark.parametrize("old", [False, True], ids=["with an id", "of an older version"])
def test_decoded_rows_are_never_another_logs(path, tmp_path, old):
    """Two logs of equal path, times and sizes: no frame of the first is read from the second."""
    for shade in (1, 2):
        shutil.rmtree(path, ignore_errors=True)
        write(path, shade)
        if old:
            remove_identity(path)
        clamp_times(path)
        assert shades(path) == [[shade]] * 4
    assert len(list((disk_cache.default_cache_folder() / "decoded").iterdir())) == 1


def test_decoded_rows_of_logs_of_equal_relative_paths_are_separate(tmp_path, monkeypatch):
    for shade in (1, 2):
        home = tmp_path / str(shade)
        home.mkdir()
        monkeypatch.chdir(home)
        write(home / "log", shade)
        clamp_times(home / "log")
        assert shades("log") == [[shade]] * 4
    assert len(list((disk_cache.default_cache_folder() / "decoded").iterdir())) == 2


def test_a_log_keeps_its_identity_and_two_logs_have_two(path, make_log):
    make_log([5])
    with LogReader(path) as reader:
        identity = reader.identity
    with LogWriter(path, make_spec(cameras={"front": (4, 6, 3), "wrist": (2, 2, 3)})) as writer:
        append_episode(writer, 5)
    root = json.loads((path / "zarr.json").read_text())
    assert root["attributes"]["wm_log"]["id"] == identity
    assert len(identity) == 32
    assert Manifest.new(make_spec()).identity != identity


def test_a_log_without_an_identity_is_read_and_continued(path, make_log):
    make_log([5, 8])
    remove_identity(path)
    assert "id" not in json.loads((path / "zarr.json").read_text())["attributes"]["wm_log"]
    with LogReader(path) as reader, LogWriter(path, make_spec()) as writer:
        append_episode(writer, 20)
        reader.refresh()
        assert (reader.length, reader.identity) == (33, "")
        check_rows(reader)
    assert not verify(path).faults


def test_a_reader_refuses_a_longer_log_that_replaced_its_log(path, make_log):
    make_log([20])
    with LogReader(path) as reader:
        make_log([20, 20], name="other")
        shutil.rmtree(path)
        (path.parent / "other").rename(path)
        with pytest.raises(LogFormatError, match="replaced by another log"):
            reader.refresh()
