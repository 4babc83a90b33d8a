"""An episode that ended by a time limit is not imported as terminal.

The end of an episode (a time-out, a recording that was stopped) does not determine the value of the
states after it: only `is_terminal` does (tdmpc2#62). Sources that mark every end with a `done` do
not tell the two apart.
"""

import json

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import contents, export, import_log
from wm_datasets import LogReader
from wm_datasets.formats import Options, open_source

STEPS = (4, 3, 5)


def robomimic_file(path, done):
    h5py = pytest.importorskip("h5py")
    env = {"env_name": "Lift", "env_kwargs": {"robots": "Panda", "control_freq": 20}}
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(env)
        for i, (steps, ends) in enumerate(zip(STEPS, done, strict=True)):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.full((steps, 2), 0.5)
            demo["obs/eef"] = demo["next_obs/eef"] = np.zeros((steps, 3))
            demo["dones"] = (np.arange(steps) == steps - 1) & ends
    return path


def lerobot_folder(path, make_log, done):
    """A dataset without our own spec file, with other values of next.done."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    export("lerobot", make_log([steps + 1 for steps in STEPS], "log"), path)
    (path / "wm/spec.json").unlink()
    for file in sorted(path.glob("data/*/*.parquet")):
        table = parquet.read_table(file)
        index = np.array(table["episode_index"])
        last = np.append(np.diff(index) > 0, True)
        column = table.schema.get_field_index("next.done")
        ended = pyarrow.array(last & np.array(done)[index])
        parquet.write_table(table.set_column(column, "next.done", ended), file)
    return path


@pytest.mark.parametrize("name", ["robomimic", "lerobot"])
def test_a_done_at_every_end_is_no_terminal_and_is_reported(tmp_path, make_log, name):
    done = (True, True, True)
    source = (
        robomimic_file(tmp_path / "a.hdf5", done)
        if name == "robomimic"
        else lerobot_folder(tmp_path / "set", make_log, done)
    )
    with open_source(name, source, Options()) as opened:
        assert any("marks its end" in note and "is_terminal" in note for note in opened.notes)
        assert "is_terminal" in opened.spec.extra["absent"]
    import_log(name, source, tmp_path / "out")
    assert not contents(tmp_path / "out")[2]["is_terminal"].any()


@pytest.mark.parametrize("name", ["robomimic", "lerobot"])
def test_where_some_episodes_end_without_a_done_it_marks_the_terminals(tmp_path, make_log, name):
    done = (True, False, True)
    source = (
        robomimic_file(tmp_path / "a.hdf5", done)
        if name == "robomimic"
        else lerobot_folder(tmp_path / "set", make_log, done)
    )
    import_log(name, source, tmp_path / "out")
    spec, episodes, rows = contents(tmp_path / "out")
    assert "is_terminal" not in spec.extra["absent"]
    ends = [rows["is_terminal"][s : s + n].any() for s, n, _ in episodes.tolist()]
    assert ends == list(done) and rows["is_terminal"].sum() == 2


@pytest.mark.parametrize("name", ["robomimic", "lerobot"])
def test_an_exported_log_keeps_its_terminals(tmp_path, make_log, name):
    pytest.importorskip({"robomimic": "h5py", "lerobot": "pyarrow"}[name])
    log = make_log([5, 4])
    export(name, log, tmp_path / "exported")
    import_log(name, tmp_path / "exported", tmp_path / "back")
    with LogReader(log) as one, LogReader(tmp_path / "back") as other:
        expected = one.read("is_terminal", 0, 9)
        assert np.array_equal(other.read("is_terminal", 0, 9), expected)
