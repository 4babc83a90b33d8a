"""A damaged file loses the episodes whose rows it held, and no other."""

import errno
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wm_datasets.durability.test_killed_writer import abandon
from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from wm_datasets import (
    LogDamageError,
    LogError,
    LogReader,
    LogSpecError,
    LogWriter,
    Sampler,
    VectorSpec,
    describe,
)
from wm_datasets.log.verify import verify
from wm_datasets.storage.damage import (
    Damage,
    KnownDamage,
    episodes_hit,
    known_rows,
    merge,
    quiet,
    read_around,
)

FIELDS = ["proprio", "is_first", "is_last", "image/front"]


def flip(path, where=0.5):
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped bit": flip,
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
}
every_damage = pytest.mark.parametrize("apply_damage", DAMAGES.values(), ids=DAMAGES.keys())


def one_chunk(path, name):
    """The second chunk of a field's array, or its first where it has one only."""
    chunks = sorted((path / name).glob("c.*"), key=lambda p: int(p.name.split(".")[1]))
    return chunks[min(1, len(chunks) - 1)]


def test_ranges_are_merged_where_they_touch_and_cut_at_the_first_row():
    assert merge([(5, 7), (1, 3), (3, 5)]) == ((1, 7),)
    assert merge([(1, 3), (4, 5)]) == ((1, 3), (4, 5))
    assert merge([(1, 9), (2, 3)]) == ((1, 9),)
    assert merge([(1, 4), (4, 6), (8, 9)], first=3) == ((3, 6), (8, 9))
    assert merge([(1, 3), (3, 4)], first=3) == ((3, 4),)
    assert merge([(1, 3)], first=3) == merge([]) == ()


@pytest.mark.parametrize(
    ("lost", "intact"),
    [
        ([(12, 14)], [1, 1, 0, 0, 1]),
        ([(5, 11), (14, 99)], [0, 1, 1, 1, 0]),
        ([(3, 10), (15, 20)], [1, 1, 1, 1, 1]),
        ([(0, 99)], [0] * 5),
        ([], [1] * 5),
    ],
)
def test_rows_that_are_not_lost_are_intact(lost, intact):
    damage = [Damage(Path("x"), start, stop, "") for start, stop in lost]
    assert known_rows(damage, 10, 15).tolist() == [bool(one) for one in intact]


@pytest.mark.parametrize(
    ("lost", "hit"),
    [
        ((4, 5), [1, 0, 0]),
        ((6, 7), [1, 0, 0]),
        ((7, 8), [0, 1, 0]),
        ((6, 8), [1, 1, 0]),
        ((0, 4), [0, 0, 0]),
        ((9, 10), [0, 1, 0]),
        ((10, 12), [0, 0, 1]),
        ((12, 13), [0, 0, 0]),
        ((0, 99), [1, 1, 1]),
    ],
)
def test_episodes_are_hit_that_hold_a_lost_row(lost, hit):
    table = np.array([(4, 3), (7, 3), (10, 2)], [("start", "i8"), ("length", "i8")])
    damage = [Damage(Path("x"), *lost, "")]
    assert episodes_hit(table, damage).tolist() == [bool(one) for one in hit]


def test_damage_is_logged_once_and_dropped_with_its_rows(caplog):
    known_damage = KnownDamage()
    chunk = Damage(Path("/log/c.0"), 4, 8, "the file is missing")
    table = Damage(Path("/log/episode"), 0, 0, "no rows")
    wal = Damage(Path("/log/wal/000000000000.seg"), 2, 3, "cut")
    for damage in (chunk, table, wal, chunk, Damage(Path("/log/c.0"), 4, 9, "again")):
        known_damage.note(damage)
    assert len(known_damage) == 3 and caplog.text.count("are lost") == 3
    assert "/log/c.0 is damaged, rows 4 to 8 are lost: the file is missing" in caplog.text
    assert known_damage.since(0) == [chunk, table, wal]
    assert known_damage.since(3) == known_damage.since(7) == [chunk, table]
    assert known_damage.since(8) == [table]
    assert known_damage.of_segments() == [wal]


def test_quiet_applies_only_to_its_block():
    log = logging.getLogger("wm_datasets")
    before = log.level
    with pytest.raises(KeyError), quiet():
        assert log.level == logging.CRITICAL
        raise KeyError
    assert log.level == before


@every_damage
@pytest.mark.parametrize("name", ["image/front", "image/wrist", "reward", "is_first", "stamp"])
def test_a_damaged_chunk_is_named_and_stops_neither_writer_nor_sampler(
    make_log, name, apply_damage
):
    path = make_log([10] * 20)
    chunk = one_chunk(path, name)
    apply_damage(chunk)
    report = verify(path)
    (fault,) = [fault for fault in report.faults if fault.kind == "damage"]
    assert fault.path == str(chunk)
    start, stop = fault.start, fault.stop
    assert 0 <= start < stop <= 200
    assert report.damaged == -(-stop // 10) - start // 10
    with LogReader(path) as reader:
        assert reader.episodes["length"].tolist() == [10] * 20
        message = f"{chunk.name} is damaged, rows {start} to {stop}"
        with pytest.raises(LogDamageError, match=message):
            reader.read(name, 0, 200)
        assert len(reader.read(name, 0, start)) == start
        assert len(reader.intact) == 20 - report.damaged
    describe(path)
    if report.damaged < 20:
        for cache_bytes in (1, 1 << 20):
            with LogReader(path) as reader:
                sampler = Sampler(reader, batch=64, length=4, seed=0, cache_bytes=cache_bytes)
                for _ in range(3):
                    rows = sampler.sample()["proprio"][..., 0].astype(int)
                    assert not np.isin(rows, range(start // 10 * 10, -(-stop // 10) * 10)).any()
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 30)
    with LogReader(path) as reader:
        check_rows(reader, range(start, stop))
        assert reader.length == 230


@every_damage
@pytest.mark.parametrize("name", ["episode/start", "episode/complete"])
def test_a_damaged_episode_table_is_rebuilt_from_the_rows(make_log, name, apply_damage):
    path = make_log([10, 3, 8])
    apply_damage(one_chunk(path, name))
    assert [fault.kind for fault in verify(path).faults] == ["damage"]
    with LogReader(path) as reader:
        check_rows(reader)
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 4)
    with LogReader(path) as reader:
        check_rows(reader)
        assert not reader.damage
    assert not verify(path).faults


@every_damage
def test_a_damaged_root_is_read_from_its_copy(make_log, apply_damage):
    path = make_log([10, 3, 8])
    apply_damage(path / "zarr.json")
    assert {fault.kind for fault in verify(path).faults} == {"metadata"}
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 4)
    with LogReader(path) as reader:
        check_rows(reader)
    assert not verify(path).faults


@pytest.mark.parametrize("field", ["image/front", "is_last", "episode/start"])
def test_metadata_of_an_array_that_is_wrong_is_named(make_log, field):
    path = make_log([10])
    flip(path / field / "zarr.json")
    (fault,) = verify(path).faults
    assert (fault.kind, fault.path) == ("metadata", str(path / field / "zarr.json"))


@pytest.mark.parametrize("apply_damage", list(DAMAGES.values())[1:], ids=list(DAMAGES)[1:])
def test_only_rows_of_a_segment_damaged_during_writing_are_lost(path, apply_damage):
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    count, writer._queue.count_full = writer._queue.count_full, lambda: 0
    for _ in range(12):
        append_episode(writer, 4)
    append_episode(writer, 1)
    with LogReader(path) as reader:
        apply_damage(path / "wal" / "000000000016.seg")
        writer._queue.count_full = count
        if apply_damage is DAMAGES["missing"]:
            with pytest.raises(LogError):
                writer.close()
        else:
            append_episode(writer, 4)
            writer.close()
        reader.refresh()
        check_rows(reader, range(16, 32))
    LogWriter(path, make_spec()).close()
    with LogReader(path) as reader:
        lost = {row for d in reader.damage for row in range(d.start, d.stop)}
        assert lost
        assert lost <= set(range(16, 32))
        check_rows(reader, lost)
        with pytest.raises(LogDamageError):
            reader.read("reward", 0, reader.length)
    faults = verify(path).faults
    assert "damage" in {fault.kind for fault in faults} <= {"damage", "kept"}


def test_a_damaged_record_in_the_middle_of_an_open_log_loses_only_its_row(path):
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    writer._queue.count_full = lambda: 0
    append_episode(writer, 5)
    append_episode(writer, 5)
    abandon(writer)
    flip(path / "wal" / "000000000000.seg", 0.35)
    with LogReader(path) as reader:
        (damage,) = reader.damage
        check_rows(reader, {damage.start})
        assert reader.intact["start"].tolist() == [5]
    with LogWriter(path, make_spec()) as writer:
        assert f"rows {damage.start} to {damage.stop} are lost" in writer.repaired
        append_episode(writer, 5)
    with LogReader(path) as reader:
        assert [(d.start, d.stop) for d in reader.damage] == [(damage.start, damage.stop)]
        assert reader.intact["start"].tolist() == [5, 10]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_named(make_log, monkeypatch, number):
    path = make_log([5])
    real = os.open

    def refuse(name, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number), str(name))
        return real(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LogError, match=f"{path}: cannot be written: .*writer.lock"):
        LogWriter(path, make_spec())
    assert not verify(path).faults


def test_verify_names_stamps_rates_and_unfinished_writes(path):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 5)
        for step in range(6):
            stamp = {"stamp": 10**12 + step * 80_000_000}
            writer.append(make_row(5 + step, step, step == 5) | stamp)
        message = (
            "rows 5 to 11: time of one step: got 0.08 s on average, expected 0.05 s as declared"
        )
        assert list(writer.irregular) == [message]
        writer.append(make_row(11, 0, False))
        with pytest.raises(LogSpecError, match="expected growing stamps"):
            writer.append(make_row(12, 1, False) | {"stamp": 5})
    (fault,) = verify(path).faults
    assert (fault.kind, fault.start, fault.stop) == ("rate", 5, 11)
    assert not verify(path, rate_tolerance=0.7).faults
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 2)
    assert len(verify(path).faults) == 1
    abandon(writer)
    segment = path / "wal" / "000000000012.seg"
    os.truncate(segment, segment.stat().st_size - 1)
    assert [fault.kind for fault in verify(path).faults] == ["rate", "unfinished"]


def test_verify_names_actions_outside_the_declared_bounds(path):
    action_spec = VectorSpec(("dx", "grip"), ("m/s", "1"), (0.1, -float("inf")), (0.7, 1.0))
    dx = [0.1, 0.7, 1.79, 0.8, 0.1, 0.0, 0.5]  # 0.1 and 0.7 are a little off in float32
    with LogWriter(path, make_spec(action=action_spec)) as writer:
        for step, value in enumerate(dx):
            action = {"action": np.array([value, -1e9]), "commanded": np.array([9, 9])}
            writer.append(make_row(step, step, False) | action)
        writer.append(make_row(7, 7, True))  # without an action: zeros
    faults = verify(path).faults
    assert [(f.kind, f.start, f.stop) for f in faults] == [("bounds", 2, 4), ("bounds", 5, 6)]
    assert "'dx': got 1.79, expected 0.1 to 0.7 as declared" in str(faults[0])


def test_capacity_in_bytes_drops_whole_oldest_episodes(path):
    with LogWriter(path, make_spec(), capacity_bytes=20_000) as writer:
        for _ in range(60):
            append_episode(writer, 10)
    chunks = [p for name in make_spec().fields for p in (path / name).glob("c.*")]
    assert sum(p.stat().st_size for p in chunks) <= 20_000
    with LogReader(path) as reader:
        assert 0 < reader.first < reader.length == 600
        check_rows(reader)
    with LogWriter(path, make_spec(), capacity_bytes=1) as writer:
        assert writer.first == 590


@pytest.mark.parametrize("loss", ["missing", "cut"])
def test_durable_rows_whose_segment_is_missing_are_reported_as_lost(path, loss):
    """No row, table or later segment shows that they existed; the durable mark does."""
    writer = LogWriter(path, make_spec(), durable_s=1000.0)
    append_episode(writer, 8)
    writer.flush()
    abandon(writer)
    (segment,) = (path / "wal").glob("*.seg")
    if loss == "missing":
        segment.unlink()
    else:
        os.truncate(segment, 0)
    (fault,) = [fault for fault in verify(path).faults if fault.kind == "damage"]
    assert (fault.path, fault.start, fault.stop) == (str(segment), 0, 8)
    with LogWriter(path, make_spec()) as writer:
        assert "rows 0 to 8 are lost" in writer.repaired
        append_episode(writer, 5)
    assert not verify(path).faults


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=6),
    st.integers(0, 30), st.integers(0, 30), st.randoms(use_true_random=False),
)  # fmt: skip
def test_all_intact_rows_are_read_whichever_damage_is_reported_first(lost, one, two, rng):
    start, stop = sorted((one, two))
    damage = [Damage(Path("file"), begin, begin + rows, "") for begin, rows in lost]

    def read(lo, hi, out):
        overlapping = [d for d in damage if d.start < hi and lo < d.stop]
        if overlapping:
            raise LogDamageError(rng.choice(overlapping))
        out[: hi - lo] = np.arange(lo, hi) + 1

    out = np.full(stop - start, -1)
    reported = read_around(read, start, stop, out)
    lost_rows = {row for d in damage for row in range(d.start, d.stop) if start <= row < stop}
    assert {row for d in reported for row in range(d.start, d.stop)} == lost_rows
    assert out.tolist() == [0 if row in lost_rows else row + 1 for row in range(start, stop)]


def test_damage_in_a_segment_and_in_a_chunk_loses_the_rows_of_both(path):
    writer = LogWriter(path, make_spec())
    for _ in range(260):
        append_episode(writer, 10)
    writer.flush()
    while len(list((path / "wal").glob("*.seg"))) > 1:
        time.sleep(0.01)
    abandon(writer)
    flip(next((path / "wal").glob("*.seg")))
    one_chunk(path, "image/front").unlink()
    with LogReader(path) as reader:
        chunk = reader.chunk_rows("image/front")
        values = reader.read_around("image/front", 0, reader.length)
        assert len(reader.damage) == 2
        lost = {row for d in reader.damage for row in range(d.start, d.stop)}
        assert len(lost) == chunk + 1
        for row in (0, chunk - 1, 2 * chunk, reader.length - 1):
            assert (row in lost) != np.array_equal(
                values[row], make_row(row, 0, False)["image/front"]
            )
        check_rows(reader, lost)


def test_corrupting_each_kind_of_file_breaks_no_promise(monkeypatch):
    from wm_datasets.durability.file_corruption import FILES, WAYS, corrupt_files
    from wm_datasets.storage import column, manifest

    monkeypatch.setattr(manifest, "_SEGMENT_BYTES", 1 << 20)
    monkeypatch.setattr(column, "_CHUNK_BYTES", 1 << 18)
    reported = corrupt_files(trials=1, episodes=45)
    assert [(o.file, o.way) for o in reported] == [(file, loss) for file in FILES for loss in WAYS]
    assert [o for o in reported if o.broken_promises or o.errors] == []
    assert any(o.mean_rows for o in reported)
