"""A log reads back what was written, to every reader, and refuses what does not fit."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wm_datasets.log_rows import append_episode, check_rows, make_row, make_spec
from wm_datasets import (
    LogBusyError,
    LogError,
    LogFormatError,
    LogReader,
    LogRowError,
    LogSpec,
    LogSpecError,
    LogWriter,
    VectorSpec,
)

LENGTHS = [5, 1, 40, 17, 3]


@pytest.mark.parametrize("lengths", [[], [1], LENGTHS, [16, 16, 16]])
def test_closed_log_reads_back_bit_equal(make_log, lengths):
    with LogReader(make_log(lengths)) as reader:
        assert (reader.first, reader.length, reader.sealed) == (0, sum(lengths), sum(lengths))
        assert reader.episodes["length"].tolist() == lengths
        assert reader.episodes["complete"].all()
        assert reader.spec == make_spec()
        check_rows(reader)


def test_open_log_shows_every_row_as_soon_as_it_is_appended(path):
    with LogWriter(path, make_spec()) as writer, LogReader(path) as reader:
        for step in range(50):
            assert writer.append(make_row(step, step, False)) == step
            assert reader.refresh()
            assert reader.length == step + 1
            assert not reader.episodes["complete"].any()
        assert not reader.refresh()
        check_rows(reader)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(sessions=st.lists(st.lists(st.integers(1, 25), max_size=4), min_size=1, max_size=4))
def test_episodes_of_several_writers_are_appended(tmp_path_factory, sessions):
    path = tmp_path_factory.mktemp("sessions") / "log"
    for lengths in sessions:
        with LogWriter(path, make_spec()) as writer:
            assert writer.repaired is None
            for rows in lengths:
                append_episode(writer, rows)
    with LogReader(path) as reader:
        assert reader.episodes["length"].tolist() == [
            rows for lengths in sessions for rows in lengths
        ]
        check_rows(reader)


def test_readers_that_refresh_rarely_and_often_agree(path):
    with LogWriter(path, make_spec()) as writer, LogReader(path) as rare:
        with LogReader(path) as often:
            for rows in LENGTHS * 3:
                append_episode(writer, rows)
                often.refresh()
            rare.refresh()
            assert rare.length == often.length == writer.length
            assert np.array_equal(rare.episodes, often.episodes)
            check_rows(often)
        check_rows(rare)


def test_an_episode_left_open_ends_at_its_last_row_with_its_action(path):
    with LogWriter(path, make_spec()) as writer:
        for step in range(7):
            writer.append(make_row(step, step, False))
    with LogWriter(path, make_spec()) as writer:
        with pytest.raises(
            LogSpecError, match="got is_first=False, expected True, because no episode is open"
        ):
            writer.append(make_row(7, 7, False))
        append_episode(writer, 4)
    with LogReader(path) as reader:
        assert reader.episodes.tolist() == [(0, 7, False), (7, 4, True)]
        assert reader.read("action", 6, 7).any()
        check_rows(reader)


def test_capacity_drops_whole_oldest_episodes_and_their_files(path):
    with LogWriter(path, make_spec(), capacity_steps=50) as writer, LogReader(path) as reader:
        for _ in range(30):
            append_episode(writer, 10)
            reader.refresh()
    reader = LogReader(path)
    assert reader.length == 300
    assert reader.first == 250
    assert reader.episodes["start"].tolist() == [250, 260, 270, 280, 290]
    check_rows(reader)
    chunks = sorted(int(p.name.split(".")[1]) for p in (path / "image/front").glob("c.*"))
    assert chunks[0] == 250 // 4
    with pytest.raises(LogRowError, match="expected some of 250 to 300"):
        reader.read("reward", 249, 260)
    with LogWriter(path, make_spec(), capacity_steps=15) as writer:
        assert writer.first == 290


def test_capacity_keeps_the_newest_episode_however_long(path):
    with LogWriter(path, make_spec(), capacity_steps=5) as writer:
        append_episode(writer, 40)
        append_episode(writer, 100)
    with LogReader(path) as reader:
        assert reader.episodes.tolist() == [(40, 100, True)]


def test_plain_zarr_reads_a_closed_log(make_log):
    zarr = pytest.importorskip("zarr")
    path = make_log(LENGTHS)
    group, reader = zarr.open_group(path, mode="r"), LogReader(path)
    for name in reader.spec.fields:
        assert group[name].dtype == reader.spec.fields[name].dtype
        assert np.array_equal(group[name][:], reader.read(name, 0, reader.length)), name
    for name in ("start", "length", "complete"):
        assert np.array_equal(group[f"episode/{name}"][:], reader.episodes[name])
    assert group["action"].attrs["names"] == ["dx", "grip"]
    assert group["proprio"].attrs["high"] == [1, 1, "inf"]
    assert group.attrs["wm_log"]["spec"]["task"] == "reach"
    assert group["image/front"].metadata.dimension_names == ("time", "height", "width", "channel")


def test_each_array_stands_alone_for_zarr_and_tensorstore(make_log):
    zarr, tensorstore = pytest.importorskip("zarr"), pytest.importorskip("tensorstore")
    path = make_log(LENGTHS)
    for name in LogReader(path).spec.fields:
        alone = zarr.open_array(path / name, mode="r")[:]
        kvstore = {"driver": "file", "path": str(path / name)}
        store = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
        assert np.array_equal(alone, store.read().result()), name


def test_several_cameras_or_none_and_no_actions(tmp_path):
    video = make_spec(action=None, proprio=None)
    assert not {"action", "commanded", "reward", "proprio"} & set(video.fields)
    with LogWriter(tmp_path / "video", video) as writer:
        row = {k: v for k, v in make_row(0, 0, False).items() if k in video.fields}
        writer.append(row)
    assert LogReader(tmp_path / "video").length == 1
    with LogWriter(tmp_path / "blind", make_spec(cameras={})) as writer:
        writer.append({k: v for k, v in row.items() if "image" not in k} | {
            k: make_row(0, 0, False)[k] for k in ("proprio", "action", "commanded", "reward")
        })  # fmt: skip
    assert LogReader(tmp_path / "blind").spec.cameras == {}


INVALID_ROWS = {
    "wrong shape": (
        {"action": np.zeros(3)},
        r"'action': got .*\(3,\), expected .*\(2,\).*dx, grip",
    ),
    "wrong image type": (
        {"image/front": np.zeros((4, 6, 3))},
        "'image/front': got float64 .*, expected uint8",
    ),
    "nan": (
        {"proprio": np.array([0, np.nan, 0])},
        r"'proprio': got \[0.0, nan, 0.0\], expected numbers that are finite",
    ),
    "overflow": ({"reward": 1e39}, "'reward': got 1e.39, expected numbers that are finite"),
    "flag that is a number": ({"is_first": 1}, "'is_first': got int64 .*, expected bool"),
    "flag for a number": ({"weights": True}, "'weights': got bool .*, expected int32"),
    "fraction for a whole number": ({"stamp": 2.5}, "'stamp': got float64 .*, expected int64"),
    "text": ({"reward": "high"}, "'reward': got .*, expected float32"),
    "unknown field": (
        {"torque": 1.0},
        r"got unknown \['torque'\], expected the fields of this log",
    ),
    "unknown source": ({"source": 9}, "'source': got 9, expected one of 0 policy"),
    "weights out of range": (
        {"weights": 2**40},
        "'weights': got 1099511627776, expected -2147483648 to",
    ),
    "action in the last row": (
        {"is_last": True},
        "'action': got .*, expected zero in the row of is_last",
    ),
    "stamp that stands": (
        {"stamp": 1_000_000},
        "stamp: got 1000000 ns after 50000000 ns, expected growing",
    ),
}


@pytest.mark.parametrize("change, message", INVALID_ROWS.values(), ids=INVALID_ROWS.keys())
def test_a_row_that_does_not_fit_is_refused_and_leaves_no_trace(path, change, message):
    with LogWriter(path, make_spec()) as writer:
        writer.append(make_row(0, 0, False))
        with pytest.raises(LogSpecError, match=message):
            writer.append(make_row(1, 1, False) | change)
        writer.append(make_row(1, 1, False))
    with LogReader(path) as reader:
        assert reader.length == 2
        check_rows(reader)


@pytest.mark.parametrize("scalar", [lambda v: v, np.asarray, lambda v: np.asarray(v)[()]])
def test_numbers_may_be_pythons_or_numpys(path, scalar):
    with LogWriter(path, make_spec()) as writer:
        for step in range(3):
            row = make_row(step, step, step == 2)
            plain = {k: scalar(v) if np.ndim(v) == 0 else v.tolist() for k, v in row.items()}
            plain |= {k: v for k, v in row.items() if "image" in k}
            writer.append(plain)
    with LogReader(path) as reader:
        assert reader.length == 3
        check_rows(reader)


def test_a_missing_field_is_named(path):
    row = make_row(0, 0, False)
    del row["commanded"]
    missing = pytest.raises(LogSpecError, match=r"missing \['commanded'\]")
    with LogWriter(path, make_spec()) as writer, missing:
        writer.append(row)


def test_first_row_must_begin_an_episode(path):
    with LogWriter(path, make_spec()) as writer, pytest.raises(LogSpecError, match="is_first"):
        writer.append(make_row(0, 3, False))


@pytest.mark.parametrize("change", [
    {"task": "push"}, {"control_period_s": 0.1}, {"cameras": {"front": (4, 6, 3)}},
    {"extra": {"render": "full"}}, {"action": None},
])  # fmt: skip
def test_another_spec_is_refused_by_name(make_log, change):
    path = make_log([3])
    with pytest.raises(
        LogSpecError, match=f"spec: got another .* Differences: {next(iter(change))}"
    ):
        LogWriter(path, make_spec(**change))
    with LogReader(path) as reader:
        check_rows(reader)


INVALID_SPECS = [
    (lambda: make_spec(control_period_s=0.0), "control_period_s: got 0.0, expected"),
    (lambda: make_spec(cameras={}, proprio=None), "no camera, no proprio"),
    (lambda: make_spec(cameras={"../x": (4, 4, 3)}), "camera name"),
    (lambda: make_spec(cameras={"front": (4, 4)}), r"got \(4, 4\), expected \(height, width, 3"),
    (lambda: make_spec(extra={"x": {1, 2}}), "extra: .* expected JSON"),
    (
        lambda: VectorSpec(("a", "b"), ("m",), (0, 0), (1, 1)),
        "vector: got .* expected as many names",
    ),
    (
        lambda: VectorSpec(("a", "a"), ("m", "m"), (0, 0), (1, 1)),
        "names: got .* expected different names",
    ),
    (lambda: VectorSpec(("a",), ("m",), (1,), (0,)), "low <= high"),
]


@pytest.mark.parametrize("make, message", INVALID_SPECS)
def test_an_invalid_spec_is_refused(make, message):
    with pytest.raises(LogSpecError, match=message):
        make()


def test_spec_survives_json():
    spec = make_spec()
    assert LogSpec.from_json(spec.to_json()) == spec
    assert spec.differences(dataclasses.replace(spec, task="push")) == ['task: "reach", not "push"']


def test_a_second_writer_is_refused_and_the_first_continues(path, start_writer):
    with LogWriter(path, make_spec()) as writer:
        with pytest.raises(LogBusyError, match=f"written by process {os.getpid()} "):
            LogWriter(path, make_spec())
        append_episode(writer, 3)
    process = start_writer(path)
    with pytest.raises(LogBusyError, match=f"written by process {process.pid} "):
        LogWriter(path, make_spec())


def test_a_folder_without_a_log_is_refused_and_not_changed(tmp_path):
    with pytest.raises(LogFormatError, match="no such folder"):
        LogReader(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(LogFormatError, match=r"holds no zarr\.json"):
        LogReader(tmp_path / "photos")
    with pytest.raises(LogFormatError, match=r"which holds cat\.jpg, expected a log"):
        LogWriter(tmp_path / "photos", make_spec())
    (tmp_path / "photos" / "zarr.json").write_text('{"attributes": {}}')
    for refused in (LogReader, lambda p: LogWriter(p, make_spec())):
        with pytest.raises(LogFormatError, match="no readable attribute 'wm_log'"):
            refused(tmp_path / "photos")
    assert sorted(p.name for p in (tmp_path / "photos").iterdir()) == ["cat.jpg", "zarr.json"]


def test_a_later_schema_is_refused(make_log):
    path = make_log([3])
    root = path / "zarr.json"
    root.write_text(root.read_text().replace('"schema": 1', '"schema": 4'))
    with pytest.raises(LogFormatError, match="schema: got 4, expected one of"):
        LogReader(path)


def test_a_damaged_chunk_is_named(make_log):
    path = make_log([30])
    chunk = path / "image/front/c.1.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    reader = LogReader(path)
    assert reader.read("image/front", 0, 4).shape == (4, 4, 6, 3)
    with pytest.raises(LogFormatError, match=r"c\.1\.0\.0\.0 is damaged"):
        reader.read("image/front", 0, 30)


def test_rows_and_fields_that_do_not_exist_are_named(make_log):
    reader = LogReader(make_log([5]))
    with pytest.raises(LogRowError, match=r"rows: got 3 to 9, expected some of 0 to 5"):
        reader.read("reward", 3, 9)
    with pytest.raises(LogRowError, match=r"field: got 'torque', expected one of .*image/front"):
        reader.read("torque", 0, 1)


def test_a_closed_writer_refuses_rows(make_log, path):
    make_log([2])
    writer = LogWriter(path, make_spec())
    writer.close()
    writer.close()
    with pytest.raises(LogError, match="is closed"):
        writer.append(make_row(2, 0, False))


def test_invalid_options_are_refused(path):
    with pytest.raises(LogSpecError, match="durable_s"):
        LogWriter(path, make_spec(), durable_s=-1.0)
    with pytest.raises(LogSpecError, match="capacity_steps"):
        LogWriter(path, make_spec(), capacity_steps=0)


def test_flush_syncs_the_segment_and_its_folder(path, monkeypatch):
    synced = []

    def record_path(fd):
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", record_path)
    with LogWriter(path, make_spec(), durable_s=1000.0) as writer:
        append_episode(writer, 3)
        synced.clear()
        writer.flush()
        assert synced == [path / "wal" / "000000000000.seg", path / "wal"]


def test_rows_are_synced_in_the_background(path, monkeypatch):
    synced = []
    with LogWriter(path, make_spec(), durable_s=0.01) as writer:
        monkeypatch.setattr(os, "fsync", synced.append)
        append_episode(writer, 3)
        deadline = time.monotonic() + 10
        while len(synced) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(synced) >= 2


def test_the_package_needs_neither_torch_nor_ros():
    code = "import sys, wm_datasets; print({'torch', 'rclpy', 'wm_models'} & set(sys.modules))"
    folder = Path(__file__).parents[3] / "datasets"
    completed = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert completed.stdout == "set()\n", completed.stderr


def test_rewards_may_be_declared_absent_and_older_specs_have_them(path):
    spec = make_spec(reward=False)
    assert "reward" not in spec.fields and "action" in spec.fields
    with LogWriter(path, spec) as writer:
        for step in range(3):
            row = make_row(writer.length, step, step == 2)
            writer.append({k: v for k, v in row.items() if k != "reward"})
    with LogReader(path) as reader:
        assert reader.spec == spec and reader.length == 3
    older = make_spec().to_json()
    del older["reward"]
    assert LogSpec.from_json(older) == make_spec()
