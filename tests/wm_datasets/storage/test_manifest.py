"""The root's manifest and the arrays' own zarr.json say the same after a log was opened."""

import json

import pytest

from tests.wm_datasets.log_rows import append_episode, check_rows, make_spec
from wm_datasets import LogReader, LogWriter
from wm_datasets.log.verify import verify

ARRAYS = ("action", "image/top", "episode/start")


@pytest.fixture
def log(path):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 20)
    return path


def shape(log, array):
    return json.loads((log / array / "zarr.json").read_text())["shape"]


def test_an_array_that_counts_rows_that_a_power_cut_took_is_restored(log):
    """As a commit leaves them that ended before the root was written."""
    arrays = [array for array in ARRAYS if (log / array).exists()]
    assert len(arrays) >= 2
    committed = {array: shape(log, array) for array in arrays}
    for array in arrays:
        file = log / array / "zarr.json"
        content = json.loads(file.read_text())
        content["shape"][0] += 3
        file.write_text(json.dumps(content))
    assert {fault.kind for fault in verify(log).faults} == {"metadata"}
    LogWriter(log, make_spec()).close()
    assert {array: shape(log, array) for array in arrays} == committed
    assert not verify(log).faults
    with LogReader(log) as reader:
        check_rows(reader)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
def test_an_array_s_file_that_is_missing_or_damaged_is_restored(log, content):
    file = log / "action" / "zarr.json"
    right = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    LogWriter(log, make_spec()).close()
    assert file.read_bytes() == right


def test_a_file_that_is_right_is_not_written_again(log):
    file = log / "action" / "zarr.json"
    inode = file.stat().st_ino
    LogWriter(log, make_spec()).close()
    assert file.stat().st_ino == inode
