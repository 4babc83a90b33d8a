"""The shipped durability test reports no fault of the writer, and reports faulty writers."""

import json
import os
import random
import resource
import signal

import numpy as np
import pytest

from wm_datasets import LogReader, LogSpecError, LogWriter
from wm_datasets.durability import writer_kills
from wm_datasets.durability.known_rows import checksum, make_row
from wm_datasets.durability.power_cut import Recorder, cut_power
from wm_datasets.durability.writer_kills import KillConfig
from wm_datasets.log.verify import verify
from wm_datasets.storage.segment import SegmentWriter, record_dtype

QUICK = {"kills": 6, "longest_s": 0.4, "most_rows": 400, "seed": 3}


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_log_survives_its_writers(tmp_path, power_cut):
    run_numbers = []
    result = writer_kills.kill_writers(
        tmp_path / "log", KillConfig(power_cut=power_cut, **QUICK),
        lambda number, faults: run_numbers.append(number),
    )  # fmt: skip
    assert not result.faults
    assert len(run_numbers) == len(result.lives) == 6
    kinds = {fault.kind for fault in verify(tmp_path / "log").faults}
    assert kinds <= ({"damage", "kept"} if power_cut else set())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log"]
    assert json.loads(json.dumps(result.to_json()))["kept_its_promises"]
    assert "6 power cuts" in result.line() if power_cut else "6 kills" in result.line()


@pytest.fixture
def many_open_files():
    """Descriptors 0 to 1023 are in use: select() refuses those above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("this system allows no more files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    null = os.open(os.devnull, os.O_RDONLY)
    descriptors = [null]
    while descriptors[-1] < 1024:
        descriptors.append(os.dup(null))
    yield
    for file in descriptors:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_runs_in_a_process_with_many_open_files(tmp_path, many_open_files):
    config = KillConfig(kills=1, longest_s=0.4, most_rows=60)
    assert not writer_kills.kill_writers(tmp_path / "log", config).faults


class PrematurelyDurable(LogWriter):
    """Reports rows as durable as soon as they are appended."""

    @property
    def durable(self):
        return self.length


def test_a_writer_that_reports_rows_as_durable_too_early_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_kills, "LogWriter", PrematurelyDurable)
    options = {"longest_s": 1.2, "most_rows": 10**6}
    config = KillConfig(power_cut=True, durable_s=60.0, **(QUICK | options))
    result = writer_kills.kill_writers(tmp_path / "log", config)
    assert any("was durable" in fault for fault in result.faults)


def test_a_log_that_loses_or_doubles_rows_is_detected(tmp_path):
    log = tmp_path / "log"
    run = writer_kills._WriterKills(log, KillConfig())
    with LogWriter(log, run.spec) as writer:
        for step in range(10):
            row = make_row(run.spec, 0, step, step, 0, step == 9)
            writer.append(row)
            run._sums[step] = checksum(run.spec, row)
    run._check(0)
    assert not run.result.faults
    run._sums[10] = 1
    run._sums[4] ^= 1
    run._check(0)
    assert [fault.split(": ")[1] for fault in run.result.faults] == [
        "rows 10 to 11 were acknowledged and are gone", "row 4 is not what was appended"
    ]  # fmt: skip
    with LogWriter(log, run.spec) as writer:
        writer.append(make_row(run.spec, 0, 3, 0, 3, False))
    run.result.faults.clear()
    run._check(10)
    assert any("shifted or doubled" in fault for fault in run.result.faults)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(LogSpecError, match="Give a new path"):
        writer_kills.kill_writers(tmp_path, KillConfig())


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Return a folder whose operations are recorded, and a function that cuts the power."""
    for name in ("open", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, getattr(os, name))
    folder, stash = tmp_path / "disk", tmp_path / "stash"
    folder.mkdir()
    stash.mkdir()
    (folder / "old").write_text("old")
    Recorder(folder, tmp_path / "journal", stash).install()
    return folder, lambda seed: cut_power(folder, tmp_path / "journal", random.Random(seed))


def put(folder, name, text, *, sync):
    fd = os.open(folder / f"{name}.tmp", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.pwrite(fd, text.encode(), 0)
    if sync:
        os.fsync(fd)
    os.close(fd)
    os.replace(folder / f"{name}.tmp", folder / name)  # noqa: PTH105


def sync_names(folder):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@pytest.mark.parametrize("seed", range(12))
def test_synced_data_survive_a_power_cut_and_other_data_may_not(disk, seed):
    folder, cut = disk
    put(folder, "safe", "x" * 5000, sync=True)
    sync_names(folder)
    put(folder, "old", "new", sync=True)
    put(folder, "loose", "y" * 5000, sync=False)
    cut(seed)
    assert (folder / "safe").read_text() == "x" * 5000
    assert (folder / "old").read_text() in ("old", "new")


class FirstChoice(random.Random):
    """Always loses all that a power cut may lose."""

    def choice(self, choices):
        return choices[0]


def test_a_segment_without_rows_is_not_read_with_a_grown_spec(tmp_path):
    """A power cut leaves a segment with only its header; a field is added; a second cut follows.

    The segment of the old layout must be deleted durably before the new layout is declared.
    """
    root, journal, stash = tmp_path / "log", tmp_path / "journal", tmp_path / "stash"
    config = KillConfig(kills=4)
    old, grown = writer_kills._spec(config, 0), writer_kills._spec(config, 1)
    with LogWriter(root, old) as writer:
        for step in range(10):
            writer.append(make_row(old, 0, step, step, 0, step == 9))
    SegmentWriter(root / "wal", 10, record_dtype(old.fields)).close()

    def record_until_killed() -> None:
        Recorder(root, journal, stash).install()
        writer = LogWriter(root, grown, durable_s=60.0)
        writer.append(make_row(grown, 0, 10, 0, 10, False))
        os.kill(os.getpid(), signal.SIGKILL)

    stash.mkdir()
    _, status = os.waitpid(writer_kills._fork(record_until_killed), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    cut_power(root, journal, FirstChoice())
    with LogReader(root) as reader:
        assert reader.length == 10 and "sensor/depth" in reader.spec.fields
    with LogWriter(root, grown) as writer:
        assert writer.append(make_row(grown, 0, 10, 0, 10, False)) == 10


def test_reading_back_compares_bits(tmp_path):
    config = KillConfig()
    spec = writer_kills._spec(config, config.kills)  # with all added fields
    row = make_row(spec, 0, 5, 2, 3, False)
    changed = row | {"image/front": row["image/front"] ^ np.uint8(1)}
    assert checksum(spec, row) != checksum(spec, changed)
    changed = row | {"sensor/depth": row["sensor/depth"] ^ np.uint16(1)}
    assert checksum(spec, row) != checksum(spec, changed)


def test_fields_are_added_during_the_runs(tmp_path):
    writer_kills.kill_writers(tmp_path / "log", KillConfig(**QUICK))
    with LogReader(tmp_path / "log") as log:
        later = ("sensor/depth", "sensor/radiance", "image/side", "sensor/force")
        added = [log.since(name) for name in later]
        assert added == sorted(added)
