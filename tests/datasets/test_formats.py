"""Formats in and out: what comes back is what went, and what cannot is said before."""

import json

import numpy as np
import pytest
from log_rows import append_episode, make_row, make_spec

from wm_datasets import LogReader, LogWriter, VectorSpec
from wm_datasets.formats import FormatError, Options, load_format
from wm_datasets.formats.transfer import export_from, import_into
from wm_datasets.rewind import rewind

LENGTHS = [5, 2, 17, 30]


def export(name, log, destination, **options):
    with LogReader(log) as reader:
        exporter = load_format(name).Export(reader, Options(**options))
        export_from(reader, exporter, destination)
    return exporter.losses


def bring(name, source, log, *, skip_corrupt=False, **options):
    with load_format(name).Import(source, Options(**options)) as importer:
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
def test_what_is_whole_of_a_damaged_log_can_leave_it(make_log, tmp_path, name):
    pytest.importorskip({"robomimic": "h5py", "rosbag": "rosbags"}[name])
    log = make_log([10] * 20)
    with LogReader(log) as reader:
        chunk = reader.chunk_rows("image/front")
        episodes, before = reader.episodes, reader.read("proprio", 0, 200)
    next((log / "image/front").glob("c.1.*")).unlink()
    losses = export(name, log, tmp_path / "out")
    hit = (episodes["start"] < 2 * chunk) & (episodes["start"] + 10 > chunk)
    assert any(line.startswith(f"{hit.sum()} episodes that hold lost rows") for line in losses)
    bring(name, tmp_path / "out", tmp_path / "back")
    _, left, rows = contents(tmp_path / "back")
    assert 0 < len(left) == 20 - hit.sum()
    assert np.array_equal(rows["proprio"], before[np.repeat(~hit, 10)])


# Moving


def test_rewind_takes_back_whole_episodes(make_log, tmp_path):
    log, shorter = make_log(LENGTHS), make_log(LENGTHS[:2], "shorter")
    assert rewind(log, 7) == 47
    assert_same(log, shorter)
    with LogWriter(log, make_spec()) as writer:
        for rows in LENGTHS[2:]:
            append_episode(writer, rows)
    assert_same(log, make_log(LENGTHS, "again"))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("rows", [0, 1, 6, 20, 53])
def test_an_import_killed_at_any_row_goes_on_and_doubles_nothing(make_log, tmp_path, rows):
    log, file, out = make_log(LENGTHS), tmp_path / "a.hdf5", tmp_path / "out"
    export("robomimic", log, file)
    with load_format("robomimic").Import(file, Options()) as importer:
        left, whole = iter(range(rows)), importer.rows

        def until(key):
            for row in whole(key):
                if next(left, None) is None:
                    raise Killed
                yield row

        importer.rows = until
        with pytest.raises(Killed):
            import_into(importer, f"robomimic:{file}", out)
    done = bring("robomimic", file, out)
    assert done.resumed == int((np.cumsum(LENGTHS) <= rows).sum())
    assert_same(log, out)
    assert bring("robomimic", file, out).rows == 0
    assert_same(log, out)


def test_an_unfinished_import_touches_nothing_that_others_recorded(make_log, tmp_path):
    log, file, out = make_log(LENGTHS), tmp_path / "a.hdf5", tmp_path / "out"
    export("robomimic", log, file)
    bring("robomimic", file, out)
    journal = json.loads((out / "import.json").read_text())
    (out / "import.json").write_text(json.dumps(journal | {"finished": False}))
    with LogWriter(out, make_spec()) as writer:
        append_episode(writer, 3)
        append_episode(writer, 3)
    with pytest.raises(FormatError, match="others have recorded"):
        bring("robomimic", file, out)


def test_export_overwrites_nothing_and_leaves_nothing_half(make_log, tmp_path, monkeypatch):
    log, file = make_log(LENGTHS), tmp_path / "a.hdf5"
    file.write_text("mine")
    with pytest.raises(FormatError, match="exists"):
        export("robomimic", log, file)
    assert file.read_text() == "mine"
    exporter = load_format("robomimic").Export
    monkeypatch.setattr(exporter, "finish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export("robomimic", log, tmp_path / "b.hdf5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5", "log"]


@pytest.mark.parametrize("name", ["robomimic", "dino_wm", "rosbag", "lerobot"])
def test_signals_about_actions_come_back(tmp_path, name):
    signals = VectorSpec(("latency", "limited"), ("s", "1"), (0, 0), (1, 1))
    spec = make_spec(signals=signals, cameras={"front": (4, 6, 3)})
    with LogWriter(tmp_path / "log", spec) as writer:
        for step in range(5):
            row = make_row(step, step, step == 4) | {"success": False}
            row["signals"] = np.array([0.01 * step, 1]) * (step < 4)
            writer.append({field: row[field] for field in spec.fields})
    assert export(name, tmp_path / "log", tmp_path / "there") == []
    bring(name, tmp_path / "there", tmp_path / "out")
    assert_same(tmp_path / "log", tmp_path / "out")


def test_a_missing_library_names_the_extra(monkeypatch):
    from wm_datasets.formats import contract

    with pytest.raises(contract.MissingExtraError, match=r"\[formats\]"):
        contract.need("no_such_library")
