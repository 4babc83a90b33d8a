"""`wm log import` and `wm log export`, interactive and in scripts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from wm_datasets import LogReader, LogSpec, LogWriter, VectorSpec
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


def test_lossy_transfers_need_yes_or_nothing_is_written(source, tmp_path, capsys):
    with h5py.File(source, "a") as file:
        file["data/demo_0/states"] = np.zeros(3)
    arguments = ["log", "import", "robomimic", str(source), str(tmp_path / "log")]
    assert main(arguments) == 2
    message = capsys.readouterr()
    assert "states" in message.out and "--yes" in message.err
    assert not (tmp_path / "log").exists()
    assert main([*arguments, "--yes"]) == 0
    with LogReader(tmp_path / "log") as reader:
        assert (len(reader.episodes), reader.spec.reward) == (2, False)
    out = str(tmp_path / "b.hdf5")
    arguments = ["log", "export", "robomimic", str(tmp_path / "log"), out]
    assert main(arguments) == 2
    assert main([*arguments, "--yes"]) == 0
    assert h5py.File(out)["data"].attrs["total"] == 6


def test_images_that_may_be_upside_down_are_mentioned_and_turned(source, tmp_path, capsys):
    with h5py.File(source, "a") as file:
        file["data"].attrs["env_args"] = json.dumps(
            {"env_name": "Libero_Living_Room", "env_kwargs": {"control_freq": 20}}
        )
        for demo in file["data"].values():
            demo["obs/top"] = demo["next_obs/top"] = np.arange(3 * 48, dtype="u1").reshape(
                3, 4, 4, 3
            )
            demo["actions"][0, 1] = 1.5
    arguments = ["log", "import", "robomimic", str(source), "--yes"]
    assert main([*arguments, str(tmp_path / "log")]) == 0
    message = capsys.readouterr().out
    assert "note: env_name 'Libero_Living_Room'" in message and "--flip turns them" in message
    assert "note: actions go beyond 1" in message and "action[1] 1.5" in message
    assert main([*arguments, str(tmp_path / "turned"), "--flip"]) == 0
    assert "upside down" not in capsys.readouterr().out
    with LogReader(tmp_path / "log") as original, LogReader(tmp_path / "turned") as copy:
        frames = original.read("image/top", 0, 8)
        assert np.array_equal(copy.read("image/top", 0, 8), frames[:, ::-1])


def test_a_log_survives_a_bag(source, tmp_path):
    pytest.importorskip("rosbags")
    log, bag, restored = (str(tmp_path / name) for name in ("log", "bag", "back"))
    assert main(["log", "import", "robomimic", str(source), log, "--yes"]) == 0
    assert main(["log", "export", "rosbag", log, bag, "--layout", "sqlite3", "--yes"]) == 0
    assert main(["log", "import", "rosbag", bag, restored]) == 0
    with LogReader(log) as original, LogReader(restored) as copy:
        assert original.spec == copy.spec
        for name in ("proprio", "action", "stamp"):
            assert np.array_equal(original.read(name, 0, 8), copy.read(name, 0, 8))


@pytest.mark.parametrize("name", ["rosbag", "lerobot"])
def test_an_import_killed_with_9_is_resumed(tmp_path, name):
    pytest.importorskip("rosbags" if name == "rosbag" else "pyarrow")
    vector = VectorSpec(("x", "y"), ("m", "m"), (-1, -1), (1, 1))
    spec = LogSpec("arm", "reach", 0.05, {"front": (48, 64, 3)}, vector, vector)
    with LogWriter(tmp_path / "log", spec) as writer:
        for number in range(60 * 20):
            last = number % 20 == 19
            values = np.full(2, (number % 9) / 9 * (not last), np.float32)
            writer.append({
                "image/front": np.full((48, 64, 3), number % 251, np.uint8),
                "proprio": values, "action": values, "commanded": values, "reward": values[0],
                "is_first": number % 20 == 0, "is_last": last, "is_terminal": False,
                "success": False, "stamp": 50_000_000 * (number + 1), "source": 1, "weights": 7,
            })  # fmt: skip
    exported, restored = str(tmp_path / "there"), tmp_path / "back"
    assert main(["log", "export", name, str(tmp_path / "log"), exported]) == 0
    arguments = [
        sys.executable,
        "-m",
        "wm_nodes.cli.main",
        "log",
        "import",
        name,
        exported,
        str(restored),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(20):  # on a busy machine an import may end before it is killed
        shutil.rmtree(restored, ignore_errors=True)
        process = subprocess.Popen(arguments, env=environment)
        while process.poll() is None and len(imported(restored)) < 3:
            time.sleep(0.01)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            break
    imported_before = imported(restored)
    assert 3 <= len(imported_before) < 60
    assert main(arguments[3:]) == 0
    assert imported(restored)[: len(imported_before)] == imported_before
    with LogReader(tmp_path / "log") as original, LogReader(restored) as copy:
        assert original.spec == copy.spec and original.episodes.tolist() == copy.episodes.tolist()
        for field in spec.fields:
            assert np.array_equal(original.read(field, 0, 1200), copy.read(field, 0, 1200)), field


def imported(log):
    try:
        return json.loads((log / "import.json").read_text())["done"]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "robomimc", ".", "/tmp/x"], "Closest: robomimic"),
        (["import", "robomimic", "/nowhere", "/tmp/x"], "SRC: got /nowhere, expected an existing"),
        (["export", "robomimic", "/nowhere", "/tmp/x"], "no log at /nowhere"),
    ],
)
def test_wrong_arguments_are_reported(arguments, message, capsys):
    assert main(["log", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_images_are_cropped_and_resized_and_other_options_refused(source, tmp_path, capsys):
    with h5py.File(source, "a") as file:
        for demo in file["data"].values():
            demo["obs/top"] = demo["next_obs/top"] = np.arange(3 * 192, dtype="u1").reshape(
                3, 8, 8, 3
            )
    arguments = ["log", "import", "robomimic", str(source), str(tmp_path / "log")]
    assert main([*arguments, "--camera", "hand"]) == 2
    assert (
        "--camera: got 'hand', expected no value, because the import of robomimic"
        in capsys.readouterr().err
    )
    assert main([*arguments, "--crop", "0", "0", "0.5", "0.5", "--size", "2", "4"]) == 0
    assert "cropped by 0, 0, 0.5, 0.5 and resized to 2 x 4" in capsys.readouterr().out
    with LogReader(tmp_path / "log") as reader:
        assert reader.spec.cameras == {"top": (2, 4, 3)}
    assert main(["log", "export", "robomimic", str(tmp_path / "log"), "x", "--lossy"]) == 2
    assert (
        "--lossy: got True, expected no value, because the export to robomimic"
        in capsys.readouterr().err
    )
