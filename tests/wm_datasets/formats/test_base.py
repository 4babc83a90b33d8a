"""Import and export: a round trip restores the log; losses are reported before."""

import json

import numpy as np
import pytest

from tests.wm_datasets.log_rows import append_episode, make_row, make_spec
from wm_datasets import LogReader, LogWriter, VectorSpec
from wm_datasets.errors import LogFormatError, LogFullError, LogSpecError
from wm_datasets.formats import (
    CorruptInputError,
    FormatError,
    Options,
    load_format,
    open_exporter,
    open_source,
)
from wm_datasets.formats.transfer import export_from, import_into
from wm_datasets.log.truncate import truncate
from wm_datasets.log.verify import verify
from wm_datasets.remote.upload import Archive

LENGTHS = [5, 2, 17, 30]


def export(name, log, destination, **options):
    with LogReader(log) as reader:
        exporter = open_exporter(name, reader, Options(**options))
        export_from(reader, exporter, destination)
    return exporter.losses


def import_log(name, source, log, *, skip_corrupt=False, **options):
    with open_source(name, source, Options(**options)) as importer:
        return import_into(importer, f"{name}:{source}", log, skip_corrupt=skip_corrupt)


def contents(log):
    with LogReader(log) as reader:
        return reader.spec, reader.episodes, reader.read_rows(reader.first, reader.length)


def assert_same(one, other, *, without=()):
    """Two logs hold the same spec, episodes and rows, apart from some fields."""
    (spec, episodes, rows), (spec2, episodes2, rows2) = contents(one), contents(other)
    assert spec.differences(spec2) == []
    assert episodes.tolist() == episodes2.tolist()
    for name in rows.keys() - set(without):
        assert np.array_equal(rows[name], rows2[name]), name


def cut_log(path):
    """A log whose second episode was cut."""
    with LogWriter(path, make_spec()) as writer:
        append_episode(writer, 4)
        append_episode(writer, 5, complete=False)
        append_episode(writer, 3)
    return path


@pytest.mark.parametrize("name", ["robomimic", "rosbag"])
def test_intact_episodes_of_a_damaged_log_can_be_exported(make_log, tmp_path, name):
    pytest.importorskip({"robomimic": "h5py", "rosbag": "rosbags"}[name])
    log = make_log([10] * 20)
    with LogReader(log) as reader:
        chunk = reader.chunk_rows("image/front")
        episodes, before = reader.episodes, reader.read("proprio", 0, 200)
    next((log / "image/front").glob("c.1.*")).unlink()
    losses = export(name, log, tmp_path / "out")
    hit = (episodes["start"] < 2 * chunk) & (episodes["start"] + 10 > chunk)
    assert any(line.startswith(f"{hit.sum()} episodes that hold lost rows") for line in losses)
    import_log(name, tmp_path / "out", tmp_path / "back")
    _, intact, rows = contents(tmp_path / "back")
    assert 0 < len(intact) == 20 - hit.sum()
    assert np.array_equal(rows["proprio"], before[np.repeat(~hit, 10)])


# Moving


def test_truncate_removes_whole_episodes(make_log, tmp_path):
    log, shorter = make_log(LENGTHS), make_log(LENGTHS[:2], "shorter")
    assert truncate(log, 7) == 47
    assert_same(log, shorter)
    with LogWriter(log, make_spec()) as writer:
        for rows in LENGTHS[2:]:
            append_episode(writer, rows)
    assert_same(log, make_log(LENGTHS, "again"))


def test_readers_of_rows_that_were_truncated_are_refused(make_log, tmp_path):
    log = make_log(LENGTHS)
    (tmp_path / "archive").mkdir()
    archive = Archive(log, f"file://{tmp_path}/archive")
    archive.sync()
    with LogReader(log) as reader:
        before = reader.identity
        truncate(log, sum(LENGTHS))
        archive.sync()
        assert not reader.refresh() and reader.identity == before  # no row was removed
        truncate(log, 7)
        with LogWriter(log, make_spec()) as writer:
            for rows in (*LENGTHS[2:], 9):  # more rows than were read
                append_episode(writer, rows)
        with pytest.raises(LogFormatError, match="was replaced by another log"):
            reader.refresh()
    with pytest.raises(LogSpecError, match=r"archive: got .* which is of another log"):
        archive.sync()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("rows", [0, 1, 6, 20, 53])
def test_an_import_killed_at_any_row_continues_and_doubles_nothing(make_log, tmp_path, rows):
    log, file, out = make_log(LENGTHS), tmp_path / "a.hdf5", tmp_path / "out"
    export("robomimic", log, file)
    with load_format("robomimic").Import(file, Options()) as importer:
        remaining, rows_of = iter(range(rows)), importer.rows

        def until(key):
            for row in rows_of(key):
                if next(remaining, None) is None:
                    raise Killed
                yield row

        importer.rows = until
        with pytest.raises(Killed):
            import_into(importer, f"robomimic:{file}", out)
    result = import_log("robomimic", file, out)
    assert result.resumed == int((np.cumsum(LENGTHS) <= rows).sum())
    assert_same(log, out)
    assert import_log("robomimic", file, out).rows == 0
    assert_same(log, out)


def test_an_unfinished_import_changes_no_rows_of_another_writer(make_log, tmp_path):
    log, file, out = make_log(LENGTHS), tmp_path / "a.hdf5", tmp_path / "out"
    export("robomimic", log, file)
    import_log("robomimic", file, out)
    journal = json.loads((out / "import.json").read_text())
    (out / "import.json").write_text(json.dumps(journal | {"finished": False}))
    with LogWriter(out, make_spec()) as writer:
        append_episode(writer, 3)
        append_episode(writer, 3)
    with pytest.raises(FormatError, match="others have recorded"):
        import_log("robomimic", file, out)


def test_export_overwrites_no_file_and_leaves_no_partial_file(make_log, tmp_path, monkeypatch):
    log, file = make_log(LENGTHS), tmp_path / "a.hdf5"
    file.write_text("mine")
    with pytest.raises(FormatError, match="which exists, expected a new path"):
        export("robomimic", log, file)
    assert file.read_text() == "mine"
    exporter = load_format("robomimic").Export
    monkeypatch.setattr(exporter, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export("robomimic", log, tmp_path / "b.hdf5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5", "log"]


@pytest.mark.parametrize("name", ["robomimic", "dino_wm", "rosbag", "lerobot"])
def test_signals_about_actions_are_restored(tmp_path, name):
    signals = VectorSpec(("latency", "limited"), ("s", "1"), (0, 0), (1, 1))
    spec = make_spec(signals=signals, cameras={"front": (4, 6, 3)})
    with LogWriter(tmp_path / "log", spec) as writer:
        for step in range(5):
            row = make_row(step, step, step == 4) | {"success": False}
            row["signals"] = np.array([0.01 * step, 1]) * (step < 4)
            writer.append({field: row[field] for field in spec.fields})
    assert export(name, tmp_path / "log", tmp_path / "exported") == []
    import_log(name, tmp_path / "exported", tmp_path / "out")
    assert_same(tmp_path / "log", tmp_path / "out")


def test_a_missing_library_names_the_extra(monkeypatch):
    from wm_datasets.formats import base

    with pytest.raises(base.MissingExtraError, match=r"\[formats\]"):
        base.need("no_such_library")


# A row that the log refuses


def set_of_demos(path, steps=(4, 3, 5), **changes):
    """A robomimic file; demo_1's datasets are changed as given."""
    import h5py

    with h5py.File(path, "w") as file:
        env = {"env_name": "Lift", "env_kwargs": {"robots": "Panda", "control_freq": 20}}
        file.create_group("data").attrs["env_args"] = json.dumps(env)
        for i, count in enumerate(steps):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.full((count, 2), 0.5)
            demo["obs/eef"] = demo["next_obs/eef"] = np.full((count, 3), i, "f8")
        for name, value in changes.items():
            del file[f"data/demo_1/{name}"]
            file[f"data/demo_1/{name}"] = value
    return path


@pytest.mark.parametrize("wrong", [np.nan, 1e300])
def test_a_row_that_the_log_refuses_is_the_sources_fault_and_leaves_nothing(tmp_path, wrong):
    actions = np.full((3, 2), 0.5)
    actions[2, 0] = wrong
    invalid, log = set_of_demos(tmp_path / "bad.hdf5", actions=actions), tmp_path / "log"
    with pytest.raises(CorruptInputError, match=r"bad\.hdf5: demo_1: field 'action': got"):
        import_log("robomimic", invalid, log)
    assert contents(log)[1]["length"].tolist() == [5]
    assert not verify(log).faults
    # another source may be imported now, and the first one later: nothing is doubled
    valid = set_of_demos(tmp_path / "good.hdf5", steps=(2,))
    assert import_log("robomimic", valid, log).rows == 3
    result = import_log("robomimic", invalid, log, skip_corrupt=True)
    assert (result.resumed, result.episodes, list(result.skipped)) == (1, 2, ["demo_1"])
    assert contents(log)[1]["length"].tolist() == [5, 3, 6]
    assert import_log("robomimic", valid, log).rows == 0
    assert import_log("robomimic", invalid, log, skip_corrupt=True).rows == 0
    assert contents(log)[1]["length"].tolist() == [5, 3, 6]


def test_stamps_that_do_not_grow_are_reported_and_skipped_on_request(tmp_path):
    file, log = set_of_demos(tmp_path / "a.hdf5"), tmp_path / "log"
    with load_format("robomimic").Import(file, Options()) as importer:
        rows_of = importer.rows

        def late(key):
            for number, row in enumerate(rows_of(key)):
                yield row | {"stamp": 0} if (key, number) == ("demo_1", 2) else row

        importer.rows = late
        with pytest.raises(
            CorruptInputError, match=r"a\.hdf5: demo_1: .*stamp: got .* expected growing"
        ):
            import_into(importer, f"robomimic:{file}", log)
        result = import_into(importer, f"robomimic:{file}", log, skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (2, ["demo_1"])
    assert contents(log)[1]["length"].tolist() == [5, 6]


def test_any_failure_of_a_source_leaves_no_half_episode(tmp_path):
    file, log = set_of_demos(tmp_path / "a.hdf5"), tmp_path / "log"
    with load_format("robomimic").Import(file, Options()) as importer:
        rows_of = importer.rows

        def failing(key):
            for row in rows_of(key):
                yield row
                if key == "demo_1":
                    raise ZeroDivisionError

        importer.rows = failing
        with pytest.raises(ZeroDivisionError):
            import_into(importer, f"robomimic:{file}", log, skip_corrupt=True)
    assert contents(log)[1]["length"].tolist() == [5]
    assert import_log("robomimic", file, log).rows == 4 + 6


def test_a_full_disk_is_not_the_sources_fault(tmp_path, monkeypatch):
    file, log = set_of_demos(tmp_path / "a.hdf5"), tmp_path / "log"
    append = LogWriter.append

    def full(self, row):
        if self.length == 7:
            raise LogFullError("no room")
        return append(self, row)

    monkeypatch.setattr(LogWriter, "append", full)
    with pytest.raises(LogFullError):
        import_log("robomimic", file, log, skip_corrupt=True)
    monkeypatch.undo()
    assert contents(log)[1]["length"].tolist() == [5]
    result = import_log("robomimic", file, log)
    assert (result.episodes, result.skipped) == (3, {})


def test_an_import_of_a_grown_source_that_is_killed_leaves_no_partial_episode(tmp_path):
    file, log = set_of_demos(tmp_path / "a.hdf5", steps=(4,)), tmp_path / "log"
    import_log("robomimic", file, log)
    set_of_demos(file, steps=(4, 6))
    with load_format("robomimic").Import(file, Options()) as importer:
        rows_of = importer.rows

        def killed(key):
            yield from list(rows_of(key))[:3]
            raise Killed

        importer.rows = killed
        with pytest.raises(Killed):
            import_into(importer, f"robomimic:{file}", log)
    assert import_log("robomimic", file, log).rows == 7
    assert contents(log)[1]["length"].tolist() == [5, 7]


@pytest.mark.parametrize(
    ("name", "library"), [("lerobot", "av"), ("robomimic", "h5py"), ("rosbag", "rosbags")]
)
def test_evaluation_marks_added_later_are_kept(tmp_path, name, library):
    """A continued run of an older version: its first episodes have no mark."""
    pytest.importorskip(library)
    for marked in (False, True):
        with LogWriter(tmp_path / "log", make_spec(evaluation=marked)) as writer:
            for step in range(5):
                row = make_row(writer.length, step, step == 4)
                writer.append(row | ({"evaluation": True} if marked else {}))
    losses = export(name, tmp_path / "log", tmp_path / "out")
    assert not any("evaluation" in loss for loss in losses)
    import_log(name, tmp_path / "out", tmp_path / "back")
    with LogReader(tmp_path / "back") as reader:
        assert reader.read("evaluation", 0, 10).tolist() == [False] * 5 + [True] * 5


@pytest.mark.parametrize(
    ("name", "library"), [("lerobot", "av"), ("robomimic", "h5py"), ("rosbag", "rosbags")]
)
def test_evaluation_episodes_are_restored_with_their_mark(tmp_path, name, library):
    pytest.importorskip(library)
    with LogWriter(tmp_path / "log", make_spec(evaluation=True)) as writer:
        for episode in range(3):
            for step in range(5):
                row = make_row(writer.length, step, step == 4)
                writer.append(row | {"evaluation": episode == 1})
    export(name, tmp_path / "log", tmp_path / "out")
    import_log(name, tmp_path / "out", tmp_path / "back")
    for log in (tmp_path / "log", tmp_path / "back"):
        with LogReader(log) as reader:
            assert reader.is_evaluation(reader.episodes).tolist() == [False, True, False]
            assert (
                reader.read("evaluation", 0, 15).tolist() == [False] * 5 + [True] * 5 + [False] * 5
            )
