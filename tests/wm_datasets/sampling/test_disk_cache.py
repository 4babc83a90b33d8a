"""Rows beyond the memory cache are read from decoded files: equal rows, also after kills."""

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wm_datasets.conftest import PATHS
from tests.wm_datasets.log_rows import append_episode, make_spec
from tests.wm_datasets.sampling.test_sampler import FIELDS, check_windows, first_rows, sampler_of
from wm_datasets import LogReader, LogWriter
from wm_datasets.errors import LogRowError
from wm_datasets.sampling import disk_cache
from wm_datasets.storage.column import Column


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Chunks of 16 rows at most, so that a short log has many of every field."""
    from wm_datasets.storage import manifest

    chunk_rows = manifest.chunk_rows
    monkeypatch.setattr(manifest, "chunk_rows", lambda field: min(16, chunk_rows(field)))


@pytest.fixture
def count_decodes(monkeypatch):
    """Count the chunk files that are decoded from now on."""
    chunks, read_chunk = [], Column.read_chunk

    def counted(self, i):
        chunks.append((self.field.name, i))
        return read_chunk(self, i)

    monkeypatch.setattr(Column, "read_chunk", counted)
    return chunks


def row_bytes(fields=FIELDS):
    return sum(make_spec().fields[name].row_bytes for name in fields)


def bounded(path, memory_rows, disk_rows, **options):
    sizes = {"cache_bytes": memory_rows * row_bytes(), "disk_bytes": disk_rows * row_bytes()}
    return sampler_of(path, **(sizes | options))


def cache_folder():
    (only_folder,) = [
        f for f in (disk_cache.default_cache_folder() / "decoded").iterdir() if f.is_dir()
    ]
    return only_folder


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(memory=st.integers(1, 200), disk=st.integers(0, 400), length=st.integers(1, 20))
def test_cache_sizes_change_only_the_speed(make_log, tmp_path, memory, disk, length):
    path = tmp_path / "log"
    if not path.exists():
        make_log([40, 25, 60, 30, 80, 21])
    unbounded = sampler_of(path, length=length, disk_bytes=0)
    limited = bounded(path, memory, disk, length=length)
    for _ in range(6):
        a, b = unbounded.sample(), limited.sample()
        assert all(np.array_equal(a[name], b[name]) for name in FIELDS)
    limited.close()


def test_a_second_epoch_and_a_second_process_decode_nothing(make_log, count_decodes):
    path = make_log([50] * 8)
    first = bounded(path, 1, 512)
    for _ in range(60):
        first.sample()
    del count_decodes[:]
    for _ in range(60):
        check_windows(first.sample())
    remaining = {i for name, i in count_decodes if name == "image/front"}
    assert remaining <= {0, 24}  # at most chunks not drawn so far, and the last, unfinished chunk
    first.close()
    second = bounded(path, 1, 512)
    del count_decodes[:]
    for _ in range(60):
        check_windows(second.sample())
    assert {i for name, i in count_decodes if name == "image/front"} <= remaining | {0, 24, 25}
    second.close()


def test_a_sampler_that_is_dropped_releases_its_files_and_their_lock(make_log):
    path = make_log([50] * 4)
    sampler = bounded(path, 1, 512)
    sampler.sample()
    assert open_files(cache_folder())
    del sampler
    gc.collect()
    assert not open_files(cache_folder())


def open_files(below: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    names = []
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            names.append(str(file.readlink()))
    return [name for name in names if name.startswith(str(below))]


def test_the_files_stay_within_their_budget(make_log):
    path = make_log([50] * 20)
    sampler = bounded(path, 1, 128)
    for _ in range(60):
        check_windows(sampler.sample())
    sizes = [file.stat().st_size for file in cache_folder().glob("*.rows")]
    assert 0 < sum(sizes) <= 128 * row_bytes()


@pytest.mark.parametrize("damage", ["rows", "index", "cut"])
def test_files_that_are_damaged_are_decoded_again(make_log, damage):
    path = make_log([50] * 4)
    for _ in range(2):
        sampler = bounded(path, 1, 256)
        for _ in range(30):
            check_windows(sampler.sample())
        sampler.close()
        files = list(cache_folder().glob("*.index" if damage == "index" else "*.rows"))
        assert files
        for file in files:
            data = bytearray(file.read_bytes())
            data[:: 97 if damage == "rows" else 13] = bytes(
                len(data[:: 97 if damage == "rows" else 13])
            )
            file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)


def test_a_log_recreated_at_the_same_path_is_not_read_from_old_files(make_log, tmp_path):
    path = make_log([50] * 4)
    sampler = bounded(path, 1, 256)
    for _ in range(30):
        sampler.sample()
    sampler.close()
    shutil.rmtree(path)
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 30)
        for _ in range(10):
            append_episode(writer, 17)
    sampler = bounded(path, 1, 256)
    for _ in range(60):
        check_windows(sampler.sample())


def test_a_growing_log_and_one_that_drops_rows_are_followed(path):
    with LogWriter(path, make_spec(), capacity_steps=150, durable_s=0.01) as writer:
        append_episode(writer, 30)
        sampler = bounded(path, 20, 96)
        for _ in range(40):
            append_episode(writer, 30)
            sampler.refresh()
            check_windows(sampler.sample())
    sampler.refresh()
    assert first_rows(sampler.sample(batch=200)).min() >= LogReader(path).first > 900


def test_a_batch_is_drawn_again_as_long_as_the_log_drops_rows_meanwhile(path, monkeypatch):
    with LogWriter(path, make_spec(), capacity_steps=150, durable_s=0.01) as writer:
        for _ in range(5):
            append_episode(writer, 30)
        sampler = bounded(path, 1, 96)
        read, remaining = sampler._read, [3]

        def read_after_drop(*windows):
            """The writer drops all drawn rows before they are read: the reader's error."""
            if not remaining[0]:
                return read(*windows)
            remaining[0] -= 1
            newest = sampler._known_state[0][1]
            while first_of(path) < newest:
                append_episode(writer, 30)
            raise LogRowError("rows are gone (dropped by the log's capacity)")

        monkeypatch.setattr(sampler, "_read", read_after_drop)
        check_windows(sampler.sample())
        assert remaining == [0]


def test_rows_that_are_missing_for_another_reason_are_an_error(make_log, monkeypatch):
    sampler = bounded(make_log([50] * 4), 1, 96)

    def missing(*windows):
        raise LogRowError("rows are missing")

    monkeypatch.setattr(sampler, "_read", missing)
    with pytest.raises(LogRowError, match="are missing"):
        sampler.sample()


def first_of(path) -> int:
    with LogReader(path) as reader:
        return reader.first


def test_two_samplers_at_once_do_not_affect_each_other(make_log):
    path = make_log([50] * 10)
    one, two = bounded(path, 1, 64), bounded(path, 1, 128, seed=1)
    for _ in range(40):
        check_windows(one.sample())
        check_windows(two.sample())
    layout = json.loads((cache_folder() / "layout.json").read_text())
    assert layout["rows"] == 64  # of the first sampler; the second has files without names
    assert len(list(cache_folder().glob("*.tmp"))) == 0


def test_the_files_of_a_deleted_log_are_removed(make_log):
    path, other = make_log([50] * 4), make_log([50] * 4, "other")
    sampler = bounded(path, 1, 64)
    sampler.sample()
    sampler.close()
    files_of_deleted = cache_folder()
    shutil.rmtree(path)
    bounded(other, 1, 64).sample()
    assert not files_of_deleted.exists()


def test_a_disk_that_is_full_or_a_folder_that_cannot_be_written_only_costs_time(
    make_log, monkeypatch, tmp_path
):
    path = make_log([50] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(disk_cache, "_LEFT_FREE", 1 << 60)
        sampler = bounded(path, 1, 256)
        for _ in range(20):
            check_windows(sampler.sample())
        sampler.close()
    (tmp_path / "file").write_text("not a folder")
    sampler = bounded(path, 1, 256, cache_folder=tmp_path / "file")
    check_windows(sampler.sample())


def test_a_kill_at_any_moment_leaves_files_that_are_right(make_log):
    """A process that fills the files is killed repeatedly; its files are compared with the log."""
    path = make_log([50] * 20)
    program = (
        f"import sys; sys.path[:0] = {PATHS!r}\n"
        "from wm_datasets import LogReader, Sampler\n"
        f"s = Sampler(LogReader({str(path)!r}), batch=8, length=4, seed=0, fields={FIELDS!r},\n"
        f"            cache_bytes={row_bytes()}, disk_bytes={96 * row_bytes()})\n"
        "print('ready', flush=True)\n"
        "while True: s.sample()\n"
    )
    for wait_s in (0.0, 0.01, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sampler = bounded(path, 1, 96)
        for _ in range(20):
            check_windows(sampler.sample())
        sampler.close()


def test_the_reader_names_a_damaged_chunk_also_when_it_is_decoded_ahead(make_log):
    path = make_log([10] * 20)
    chunk = sorted((path / "image" / "front").glob("c.*"))[3]
    os.truncate(chunk, chunk.stat().st_size // 2)
    with LogReader(path) as reader:
        sampler = bounded(path, 1, 256)
        for _ in range(20):
            check_windows(sampler.sample())
        reader.read_around("image/front", 0, 200)
        (damage,) = reader.damage
        hit = set(range(damage.start // 10, -(-damage.stop // 10)))
        assert not hit & set((first_rows(sampler.sample(batch=200)) // 10).tolist())
