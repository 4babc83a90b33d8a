"""The root's manifest and the zarr.json of each array agree after a log was opened."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_datasets.log_rows import append_episode, check_rows, make_spec
from wm_datasets import LogReader, LogWriter, SensorSpec
from wm_datasets.errors import LogFormatError, LogReadError
from wm_datasets.log.verify import verify
from wm_datasets.storage import manifest as manifest_module
from wm_datasets.storage.manifest import (
    ADDED_FIELDS_SCHEMA,
    EVALUATION_SCHEMA,
    ROOT,
    ROOT_COPY,
    SCHEMA,
    Manifest,
    load_manifest,
    parse_root,
    read_root,
)

ARRAYS = ("action", "image/top", "episode/start")


@pytest.fixture
def log(path):
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 20)
    return path


def shape(log, array):
    return json.loads((log / array / "zarr.json").read_text())["shape"]


def test_an_array_that_counts_rows_lost_in_a_power_cut_is_restored(log):
    """The state after a commit that ended before the root was written."""
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
    correct = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    LogWriter(log, make_spec()).close()
    assert file.read_bytes() == correct


def test_a_correct_file_is_not_written_again(log):
    file = log / "action" / "zarr.json"
    inode = file.stat().st_ino
    LogWriter(log, make_spec()).close()
    assert file.stat().st_ino == inode


FORCE = SensorSpec("float32", (2,), ("N", "Nm"), ("pull", "twist"))


@pytest.fixture
def committed(tmp_path):
    """A manifest without default values, committed to a log's folder."""
    new_manifest = replace(
        Manifest.new(make_spec(sensors={"force": FORCE})),
        first=3,
        sealed=64,
        first_episode=1,
        episodes=5,
        lost=((5, 8), (60, 64)),
        since={"sensor/force": 32},
    )
    new_manifest.create_folders(tmp_path)
    new_manifest.commit(tmp_path)
    return new_manifest


def change_root(root, name=ROOT, **parts):
    """Change parts of a root's attribute, without its checksum."""
    content = json.loads((root / name).read_text())
    content["attributes"]["wm_log"] |= parts
    (root / name).write_text(json.dumps(content))


def test_a_committed_manifest_is_loaded(tmp_path, committed):
    assert load_manifest(tmp_path) == committed == read_root(tmp_path, ROOT_COPY)


def test_only_sealed_rows_can_be_lost(tmp_path, committed):
    replace(committed, sealed=62, lost=((5, 8), (60, 64), (62, 66))).commit(tmp_path)
    loaded = load_manifest(tmp_path)
    assert loaded.lost == ((5, 8), (60, 62))
    assert [(d.start, d.stop, d.path) for d in loaded.damage(tmp_path)] == [
        (5, 8, tmp_path),
        (60, 62, tmp_path),
    ]


@pytest.mark.parametrize(
    ("row_bytes", "rows"),
    [(1, 1024), (4096, 1024), (4097, 512), (1 << 13, 512), (1 << 18, 16), (1 << 22, 16)],
)
def test_a_segment_is_a_power_of_two_of_rows_within_its_size(monkeypatch, row_bytes, rows):
    monkeypatch.setattr(manifest_module, "_SEGMENT_BYTES", 4 << 20)
    plain = make_spec(cameras={}, proprio=None, action=None,
                      sensors={"all": SensorSpec("uint8", (1,), "1")})  # fmt: skip
    other_bytes = sum(field.row_bytes for field in plain.fields.values()) - 1
    if row_bytes <= other_bytes:
        assert Manifest.new(plain).segment_rows == rows
        return
    sensors = {"all": SensorSpec("uint8", (row_bytes - other_bytes,), "1")}
    assert Manifest.new(replace(plain, sensors=sensors)).segment_rows == rows


@pytest.mark.parametrize(
    ("spec", "since", "schema"),
    [
        (make_spec(), {}, SCHEMA),
        (make_spec(), {"reward": 3}, ADDED_FIELDS_SCHEMA),
        (make_spec(sensors={"force": FORCE}), {}, ADDED_FIELDS_SCHEMA),
        (make_spec(evaluation=True), {}, EVALUATION_SCHEMA),
        (make_spec(evaluation=True), {"evaluation": 3}, EVALUATION_SCHEMA),
    ],
)
def test_the_schema_is_the_oldest_that_reads_the_log(tmp_path, spec, since, schema):
    manifest = replace(Manifest.new(spec), since=since, sealed=9)
    root = manifest.root({})
    assert root["attributes"]["wm_log"]["schema"] == schema
    assert parse_root(root, tmp_path / ROOT) == manifest


def test_two_logs_are_distinguished_by_their_identities():
    one, other = Manifest.new(make_spec()), Manifest.new(make_spec())
    assert len(one.identity) == 32 and one.is_of_another_log(other)
    assert not one.is_of_another_log(replace(other, identity=one.identity))
    for identity, other_identity in (("", "x"), ("x", ""), ("", "")):
        pair = replace(one, identity=identity), replace(other, identity=other_identity)
        assert not pair[0].is_of_another_log(pair[1])


@pytest.mark.parametrize("sealed", [0, 48])
def test_added_fields_are_stored_with_their_first_row(sealed):
    old = replace(Manifest.new(make_spec()), sealed=sealed, segment_rows=64, since={"reward": 7})
    spec = make_spec(sensors={"force": FORCE}, evaluation=True)
    new = old.with_fields_of(spec)
    assert new.spec == spec and new.segment_rows == min(64, Manifest.new(spec).segment_rows)
    added = {"sensor/force": sealed, "evaluation": sealed} if sealed else {}
    assert new.since == {"reward": 7} | added
    assert set(new.chunks) == set(old.chunks) | {"sensor/force", "evaluation"}
    assert new.identity == old.identity and new.sealed == sealed


def test_columns_have_their_chunks_and_first_rows(tmp_path, committed):
    columns = committed.columns(tmp_path)
    assert list(columns) == list(committed.spec.fields)
    for name, column in columns.items():
        assert column.folder == tmp_path / name and column.chunk == committed.chunks[name]
        assert column.since == (32 if name == "sensor/force" else 0)
    table = committed.episode_columns(tmp_path)
    assert list(table) == ["episode/start", "episode/length", "episode/complete"]


def test_the_arrays_have_units_and_names(committed):
    nodes = committed.metadata()
    groups = {name for name, node in nodes.items() if node["node_type"] == "group"}
    assert groups == {"episode", "image", "sensor"}
    assert nodes["reward"]["shape"] == [64] and nodes["episode/start"]["shape"] == [5]
    attributes = {name: node["attributes"] for name, node in nodes.items()}
    assert attributes["stamp"] == {"units": "ns"} and attributes["reward"] == {}
    assert attributes["proprio"] == committed.spec.proprio.to_json()
    assert attributes["action"] == attributes["commanded"] == committed.spec.action.to_json()
    assert attributes["sensor/force"] == {
        "units": ["N", "Nm"], "names": ["pull", "twist"], "absent_before": 32,
    }  # fmt: skip
    assert attributes["episode/start"] == attributes["image/front"] == {}


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_root_is_read_from_its_copy_with_one_warning(tmp_path, committed, caplog, damage):
    path = tmp_path / ROOT
    if damage == "changed":
        change_root(tmp_path, sealed=63)
    else:
        path.unlink()
        if damage == "cut":
            path.write_text("{")
    manifest_module._warned.clear()
    for _ in range(2):
        assert load_manifest(tmp_path) == committed
    assert caplog.text.count("read from zarr.json.copy instead") == 1
    (tmp_path / ROOT_COPY).write_text("{")
    with pytest.raises(LogFormatError, match=r"zarr\.json(?!\.copy)"):
        load_manifest(tmp_path)
    (tmp_path / ROOT_COPY).unlink()
    with pytest.raises(LogFormatError):
        load_manifest(tmp_path)


def test_a_log_of_another_schema_is_refused_whatever_its_copy(tmp_path, committed):
    change_root(tmp_path, schema=99)
    with pytest.raises(LogFormatError, match=r"schema: got 99, expected one of"):
        load_manifest(tmp_path)


def test_a_root_without_a_checksum_is_of_an_older_version(tmp_path, committed):
    content = json.loads((tmp_path / ROOT).read_text())
    for part in ("crc32", "id", "lost", "since"):
        del content["attributes"]["wm_log"][part]
    loaded = parse_root(content, tmp_path / ROOT)
    assert loaded == replace(committed, identity="", lost=(), since={})


@pytest.mark.parametrize(
    "content", [None, [], {}, {"attributes": {}}, {"attributes": {"wm_log": 1}}]
)
def test_what_is_no_log_is_refused(content):
    with pytest.raises(
        LogFormatError, match=r"/x: it is not a log: its zarr\.json has no readable"
    ):
        parse_root(content, "/x/zarr.json")


def test_a_part_that_is_missing_is_damage(committed):
    root = committed.root({})
    del root["attributes"]["wm_log"]["spec"], root["attributes"]["wm_log"]["crc32"]
    with pytest.raises(LogFormatError, match="/x: its attribute 'wm_log' is damaged"):
        parse_root(root, "/x/zarr.json")


def test_a_folder_that_is_no_log_or_does_not_exist_is_named(tmp_path):
    with pytest.raises(LogFormatError, match=r"the folder holds no zarr\.json"):
        load_manifest(tmp_path)
    with pytest.raises(LogFormatError, match="there is no such folder"):
        load_manifest(tmp_path / "none")


def test_a_root_that_cannot_be_read_is_not_replaced_by_its_copy(tmp_path, committed, monkeypatch):
    def unreadable(path):
        raise LogReadError("no file descriptors")

    monkeypatch.setattr(manifest_module, "read_file", unreadable)
    with pytest.raises(LogReadError):
        load_manifest(tmp_path)


def test_numbers_of_the_root_are_python_types(committed):
    assert not isinstance(committed.segment_rows, np.generic)
    json.dumps(committed.root(committed.metadata()))
