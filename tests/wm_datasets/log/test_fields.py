"""A log holds depth, float images, force and touch, and fields can be added between episodes."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wm_datasets.conftest import HERE, PATHS
from tests.wm_datasets.growing_log import (
    DEPTH,
    FLOATS,
    TOUCH,
    WRENCH,
    append_grown,
    check_grown,
    grown_row,
    grown_spec,
)
from tests.wm_datasets.log_rows import append_episode, check_rows, make_spec
from wm_datasets import (
    LogAbsentError,
    LogEmptyError,
    LogReader,
    LogSpec,
    LogSpecError,
    LogWriter,
    Sampler,
    SensorSpec,
    VectorSpec,
)
from wm_datasets.log.truncate import truncate
from wm_datasets.log.verify import verify

ALL = {"depth": DEPTH, "heat": FLOATS, "wrench": WRENCH, "touch": TOUCH}
examples = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def root_of(path):
    return json.loads((path / "zarr.json").read_text())["attributes"]["wm_log"]


# Content of a row


@examples
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dtype=st.sampled_from(["float32", "uint8", "uint16"]),
    rows=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_every_sensor_is_restored_bit_for_bit(tmp_path_factory, shape, dtype, rows, seed):
    path, rng = tmp_path_factory.mktemp("sensor") / "log", np.random.default_rng(seed)
    spec = make_spec(sensors={"it": SensorSpec(dtype, tuple(shape), "1")})
    size = (rows, *shape)
    values = rng.integers(0, np.iinfo(dtype).max, size, dtype) if dtype != "float32" else (
        rng.normal(size=size).astype("f4"))  # fmt: skip
    with LogWriter(path, spec) as writer, LogReader(path) as live:
        for t in range(rows):
            row = grown_row(spec, t, t, t == rows - 1) | {"sensor/it": values[t]}
            writer.append(row)
        live.refresh()
        assert np.array_equal(live.read("sensor/it", 0, rows), values)
    with LogReader(path) as reader:
        assert reader.sealed == rows
        assert reader.spec == spec
        restored = reader.read("sensor/it", 0, rows)
        assert restored.dtype == np.dtype(dtype)
        assert np.array_equal(restored, values)


def test_zarr_reads_sensors_with_their_units(path):
    zarr = pytest.importorskip("zarr")
    with LogWriter(path, make_spec(sensors=ALL)) as writer:
        append_grown(writer, 21)
    group = zarr.open_group(path, mode="r")
    with LogReader(path) as reader:
        for name, sensor in ALL.items():
            array = group[f"sensor/{name}"]
            assert array.dtype == np.dtype(sensor.dtype)
            assert array.attrs["units"] == sensor.to_json()["units"]
            assert np.array_equal(array[:], reader.read(f"sensor/{name}", 0, 21))
    assert verify(path).faults == ()


@pytest.mark.parametrize("name, value, message", [
    ("depth", np.zeros((3, 4), np.int64), "got int64 .3, 4., expected uint16 .3, 4."),
    ("depth", np.zeros((4, 3), np.uint16), "got uint16 .4, 3."),
    ("heat", np.full((2, 3, 2), np.nan), "expected numbers that are finite"),
    ("wrench", np.full(6, 1e39), "expected numbers that are finite"),
    ("wrench", np.zeros(5), "got float64 .5,."),
])  # fmt: skip
def test_a_value_that_does_not_fit_its_sensor_is_refused(path, name, value, message):
    with LogWriter(path, make_spec(sensors=ALL)) as writer:
        row = grown_row(writer.spec, 0, 0, False)
        with pytest.raises(LogSpecError, match=f"sensor/{name}.*{message}"):
            writer.append(row | {f"sensor/{name}": value})
        writer.append(row)
        assert writer.length == 1


@pytest.mark.parametrize("make", [
    lambda: SensorSpec("float64", (2,), "1"),
    lambda: SensorSpec("uint8", (), "1"),
    lambda: SensorSpec("uint8", (2, 0), "1"),
    lambda: SensorSpec("uint8", (2,), ("N", "N", "N")),
    lambda: SensorSpec("uint8", (2,), "N", ("a", "a")),
    lambda: SensorSpec("uint8", (2,), ""),
    lambda: make_spec(sensors={"a/b": DEPTH}),
    lambda: make_spec(cameras={"depth": (4, 4, 1)}),
])  # fmt: skip
def test_an_invalid_sensor_is_refused(make):
    with pytest.raises(LogSpecError):
        make()


def test_a_spec_is_the_same_after_json():
    spec = make_spec(sensors=ALL)
    assert LogSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_log_that_marks_evaluation_is_refused_by_versions_that_would_learn_from_it(tmp_path):
    with LogWriter(tmp_path / "log", make_spec(evaluation=True)):
        pass
    assert root_of(tmp_path / "log")["schema"] == 3  # they read schemas 1 and 2


def test_a_log_without_new_fields_is_written_as_before(make_log):
    root = root_of(make_log([5]))
    assert root["schema"] == 1
    assert "since" not in root
    assert "sensors" not in root["spec"]


# Fields that are added between episodes


@examples
@given(
    phases=st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(1, 25), max_size=3)),
                    min_size=1, max_size=4),
    complete=st.booleans(),
)  # fmt: skip
def test_earlier_episodes_are_declared_absent(tmp_path_factory, phases, complete):
    path, fields, since = tmp_path_factory.mktemp("grow") / "log", 0, {}
    LogWriter(path, make_spec()).close()
    live = LogReader(path)
    for added_count, episodes in phases:
        fields += added_count
        with LogReader(path) as reader:
            old_fields, length = reader.spec.fields, reader.length
        spec = grown_spec(fields)
        since |= {name: length for name in spec.fields if name not in old_fields}
        with LogWriter(path, spec) as writer:
            assert writer.repaired is None
            for rows in episodes:
                append_grown(writer, rows, complete=complete)
            live.refresh()
            check_grown(live, since)
        with LogReader(path) as reader:
            check_grown(reader, since)
        assert [f for f in verify(path).faults if f.kind != "rate"] == []
    live.close()


def test_reading_absent_rows_reports_where_the_field_begins(make_log):
    path = make_log([5, 6])
    with LogWriter(path, grown_spec(1)) as writer:
        append_grown(writer, 4)
    with LogReader(path) as reader:
        for start, stop in ((0, 5), (10, 12)):
            with pytest.raises(LogAbsentError, match=r"got rows .*, expected rows from 11 on"):
                reader.read("sensor/s0", start, stop)
        assert reader.read("sensor/s0", 11, 15).any()
        assert not reader.read_around("sensor/s0", 0, 11).any()
        assert reader.present("sensor/s0").tolist() == [False, False, True]
        assert reader.present().tolist() == [True] * 3
        assert "sensor/s0" not in reader.read_rows(0, 5)
        assert "sensor/s0" in reader.read_rows(11, 15)
        assert reader.damage == []


def test_zarr_reads_zeros_where_a_field_is_absent(make_log):
    zarr = pytest.importorskip("zarr")
    path = make_log([7, 30])
    with LogWriter(path, grown_spec(6)) as writer:
        append_grown(writer, 9)
    group = zarr.open_group(path, mode="r")
    with LogReader(path) as reader:
        for name in reader.spec.fields:
            assert np.array_equal(group[name][:], reader.read_around(name, 0, 46)), name
        assert group["sensor/s0"].attrs["absent_before"] == 37


@pytest.mark.parametrize("memory, disk", [(1 << 20, 0), (1, 1 << 20), (1, 0)])
def test_windows_are_drawn_only_from_episodes_that_have_the_fields(make_log, memory, disk):
    path = make_log([30, 12])
    options = {"batch": 8, "length": 4, "seed": 0, "cache_bytes": memory, "disk_bytes": disk}
    with LogWriter(path, grown_spec(1)) as writer, LogReader(path) as reader:
        with pytest.raises(LogEmptyError):
            Sampler(reader, fields=["stamp", "sensor/s0"], **options).sample()
        append_grown(writer, 25)
        writer.flush()
    with LogReader(path) as reader:
        new = Sampler(reader, fields=["proprio", "sensor/s0"], **options)
        old = Sampler(reader, fields=["proprio"], **options)
        rows = [new.sample() for _ in range(20)]
        numbers = np.concatenate([batch["proprio"][..., 0].ravel() for batch in rows])
        depth = np.concatenate([batch["sensor/s0"].reshape(-1, 12) for batch in rows])
        assert numbers.min() >= 42
        assert (depth == ((numbers * 7 + 1) % 251)[:, None]).all()
        assert min(old.sample()["proprio"][..., 0].min() for _ in range(20)) < 42
        new.close()
        old.close()


def test_a_sampler_continues_while_fields_are_added(make_log):
    path = make_log([30])
    with LogReader(path) as reader:
        sampler = Sampler(reader, fields=["proprio"], batch=4, length=3, seed=0)
        sampler.sample()
        with LogWriter(path, grown_spec(2)) as writer:
            append_grown(writer, 40)
            sampler.refresh()
            assert reader.spec == grown_spec(2)
            numbers = [sampler.sample()["proprio"][..., 0] for _ in range(40)]
        assert max(n.max() for n in numbers) >= 30
        sampler.close()


@pytest.mark.parametrize("change", [
    lambda spec: make_spec(),
    lambda spec: replace(spec, sensors={"s0": TOUCH}),
    lambda spec: replace(spec, cameras={"front": (4, 6, 3)}),
    lambda spec: replace(spec, cameras=spec.cameras | {"front": (8, 6, 3)}),
    lambda spec: replace(spec, task="another", sensors=spec.sensors | {"s9": TOUCH}),
    lambda spec: replace(spec, signals=VectorSpec(("a",), ("1",), (0,), (1,)), proprio=None),
])  # fmt: skip
def test_a_spec_that_lacks_or_changes_anything_is_refused(path, change):
    LogWriter(path, grown_spec(1)).close()
    before = root_of(path)
    with pytest.raises(LogSpecError, match="spec: got another"):
        LogWriter(path, change(grown_spec(1)))
    assert root_of(path) == before


def test_the_order_in_which_fields_are_named_does_not_matter(path):
    spec = grown_spec(2)
    with LogWriter(path, spec) as writer:
        append_grown(writer, 5)
    reordered = replace(
        spec,
        cameras=dict(reversed(spec.cameras.items())),
        sensors=dict(reversed(spec.sensors.items())) | {"last": DEPTH},
    )
    with LogWriter(path, reordered) as writer:
        append_grown(writer, 5)
    with LogReader(path) as reader:
        assert reader.length == 10
        check_grown(reader, {"sensor/last": 5})


def test_a_damaged_chunk_of_a_new_field_loses_no_row_without_it(make_log):
    path = make_log([21])
    with LogWriter(path, grown_spec(1)) as writer:
        append_grown(writer, 4)
    chunk = min((path / "sensor/s0").glob("c.*"))
    chunk.write_bytes(b"damaged")
    LogWriter(path, grown_spec(1)).close()
    with LogReader(path) as reader:
        assert [(d.start, d.stop) for d in reader.damage] == [(21, 25)]
        assert len(reader.intact) == 1
        check_rows_before(reader, 21)


def check_rows_before(reader, stop):
    numbers = reader.read("proprio", 0, stop)[:, 0]
    assert numbers.tolist() == list(range(stop))


def test_capacity_drops_episodes_of_before_and_after(path):
    with LogWriter(path, make_spec(), capacity_steps=60) as writer:
        for _ in range(5):
            append_episode(writer, 20)
    with LogWriter(path, grown_spec(3), capacity_steps=60) as writer:
        for _ in range(2):
            append_grown(writer, 20)
    with LogReader(path) as reader:
        assert reader.first == 80
        check_grown(reader, {f"sensor/s{i}": 100 for i in range(3)})
    assert verify(path).faults == ()


def test_truncating_a_log_moves_a_new_field_to_its_end(make_log):
    path = make_log([5])
    with LogWriter(path, grown_spec(1)) as writer:
        append_grown(writer, 6)
    truncate(path, 5)
    truncate(path, 0)
    with LogWriter(path, grown_spec(1)) as writer:
        append_grown(writer, 9)
    with LogReader(path) as reader:
        assert reader.length == 9
        check_grown(reader, {})


# Kills


def test_kill_9_at_random_moments_of_growing_leaves_a_whole_log(path):
    rng, read_length, since = random.Random(3), 0, {}
    LogWriter(path, make_spec()).close()
    grew, growing_s = 0, 0.01
    for round_ in range(14):
        folders = [*PATHS, os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "growing_log.py"), str(path)], stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": ":".join(folders)},
        )  # fmt: skip
        try:
            assert process.stdout.readline() == b"opening\n"
            begin = time.monotonic()
            if round_ % 2:
                assert process.stdout.readline() == b"recording\n"
                growing_s = time.monotonic() - begin
            time.sleep(rng.choice([0.1, 0.4, 1.2]) * rng.random() * growing_s)
        finally:
            process.kill()
            process.wait()
        with LogReader(path) as reader:
            fields = reader.spec.fields
            for name in fields:
                if name not in make_spec().fields and name not in since:
                    since[name] = reader.since(name)
                    assert since[name] >= read_length
                    grew += 1
            assert reader.length >= read_length
            read_length = reader.length
            check_grown(reader, since)
        LogWriter(path, reader.spec).close()
        array_names = {str(p.relative_to(path)) for p in path.glob("*/*") if p.is_dir()}
        assert array_names == {name for name in fields if "/" in name} | {
            f"episode/{name}" for name in ("start", "length", "complete")
        }
    assert grew > 6
    assert [f for f in verify(path).faults if f.kind != "rate"] == []
    check_rows_before(LogReader(path), read_length)


def test_old_rows_are_the_same_after_growing(make_log):
    path = make_log([9, 33])
    before = {p: p.read_bytes() for p in path.rglob("c.*") if p.parent.parent.name != "episode"}
    LogWriter(path, grown_spec(5)).close()
    assert {p: p.read_bytes() for p in before} == before
    with LogReader(path) as reader:
        check_rows_of_old_fields(reader)


def check_rows_of_old_fields(reader):
    class Old:
        spec, first, length, episodes = make_spec(), reader.first, reader.length, reader.episodes
        read_around = staticmethod(reader.read_around)

    check_rows(Old)
