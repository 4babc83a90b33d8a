"""`wm log import` and `wm log export`, as a person or a script calls them."""

import json

import numpy as np
import pytest

from wm_datasets import LogReader
from wm_nodes.cli.main import main

h5py = pytest.importorskip("h5py")


@pytest.fixture
def source(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_kwargs": {"robots": "Panda", "control_freq": 20}}
        )
        for i in range(2):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.ones((3, 2), "f4")
            demo["obs/eef"] = demo["next_obs/eef"] = np.ones((3, 4), "f4")
    return tmp_path / "a.hdf5"


def test_a_script_says_yes_to_what_is_lost_or_nothing_is_written(source, tmp_path, capsys):
    with h5py.File(source, "a") as file:
        file["data/demo_0/states"] = np.zeros(3)
    words = ["log", "import", "robomimic", str(source), str(tmp_path / "log")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "states" in said.out and "--yes" in said.err
    assert not (tmp_path / "log").exists()
    assert main([*words, "--yes"]) == 0
    with LogReader(tmp_path / "log") as reader:
        assert (len(reader.episodes), reader.spec.reward) == (2, False)
    out = str(tmp_path / "b.hdf5")
    words = ["log", "export", "robomimic", str(tmp_path / "log"), out]
    assert main(words) == 2
    assert main([*words, "--yes"]) == 0
    assert h5py.File(out)["data"].attrs["total"] == 6


def test_a_log_goes_through_a_bag_and_comes_back(source, tmp_path):
    pytest.importorskip("rosbags")
    log, bag, back = (str(tmp_path / name) for name in ("log", "bag", "back"))
    assert main(["log", "import", "robomimic", str(source), log, "--yes"]) == 0
    assert main(["log", "export", "rosbag", log, bag, "--layout", "sqlite3", "--yes"]) == 0
    assert main(["log", "import", "rosbag", bag, back]) == 0
    with LogReader(log) as one, LogReader(back) as other:
        assert one.spec == other.spec
        for name in ("proprio", "action", "stamp"):
            assert np.array_equal(one.read(name, 0, 8), other.read(name, 0, 8))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "robomimc", ".", "/tmp/x"], "Closest: robomimic"),
        (["import", "robomimic", "/nowhere", "/tmp/x"], "there is no /nowhere"),
        (["export", "robomimic", "/nowhere", "/tmp/x"], "no log at /nowhere"),
    ],
)
def test_mistakes_are_said(words, said, capsys):
    assert main(["log", *words]) == 2
    assert said in capsys.readouterr().err
