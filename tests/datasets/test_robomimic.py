"""HDF5 in the robomimic layout."""

import json

import numpy as np
import pytest
from log_rows import make_spec
from test_formats import assert_same, bring, contents, cut_log, export

from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format

h5py = pytest.importorskip("h5py")


def test_a_log_comes_back_bit_equal_and_nothing_is_lost(make_log, tmp_path):
    log = make_log([5, 2, 17])
    assert export("robomimic", log, tmp_path / "a.hdf5") == []
    bring("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_a_cut_episode_stays_cut_and_is_mentioned(tmp_path):
    log = cut_log(tmp_path / "log")
    assert "next_obs repeats" in export("robomimic", log, tmp_path / "a.hdf5")[0]
    bring("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_rows_lie_where_robomimic_looks_for_them(make_log, tmp_path):
    log = make_log([5, 3])
    export("robomimic", log, tmp_path / "a.hdf5")
    _, _, rows = contents(log)
    with h5py.File(tmp_path / "a.hdf5") as file:
        demo = file["data/demo_0"]
        assert (file["data"].attrs["total"], demo.attrs["num_samples"]) == (6, 4)
        assert np.array_equal(demo["actions"], rows["action"][:4])
        assert np.array_equal(demo["obs/front"], rows["image/front"][:4])
        assert np.array_equal(demo["next_obs/front"], rows["image/front"][1:5])
        assert demo["dones"][()].tolist() == [0, 0, 0, 1]
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "reach"


@pytest.fixture
def foreign(tmp_path):
    """A file as robomimic's own tools write it, of robosuite's Lift."""
    random = np.random.default_rng(0)
    path = tmp_path / "lift.hdf5"
    env = {"env_name": "Lift", "type": 1,
           "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}  # fmt: skip
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"], data.attrs["total"] = json.dumps(env), 12
        for i, steps in ((0, 7), (10, 3), (2, 2)):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"], demo.attrs["model_file"] = steps, "<mujoco/>"
            demo["actions"] = random.uniform(-1, 1, (steps, 7))
            demo["rewards"], demo["dones"] = np.zeros(steps), np.arange(steps) == steps - 1
            demo["states"] = random.normal(size=(steps, 32))
            obs = {"agentview_image": random.integers(0, 256, (steps + 1, 8, 8, 3), np.uint8),
                   "robot0_eef_pos": random.normal(size=(steps + 1, 3)),
                   "robot0_gripper_qpos": random.normal(size=(steps + 1, 2))}  # fmt: skip
            for key, value in obs.items():
                demo[f"obs/{key}"], demo[f"next_obs/{key}"] = value[:-1], value[1:]
        file["mask/train"] = np.array([b"demo_0"])
    return path


def test_a_foreign_file_keeps_names_rates_and_order_and_says_what_goes(foreign, tmp_path):
    with load_format("robomimic").Import(foreign, Options()) as importer:
        said = " ".join(importer.losses)
    assert all(word in said for word in ("states", "float32", "train", "model_file"))
    bring("robomimic", foreign, tmp_path / "out")
    spec, episodes, rows = contents(tmp_path / "out")
    assert (spec.robot, spec.task, spec.control_period_s) == ("Panda", "Lift", 0.05)
    assert spec.cameras == {"agentview_image": (8, 8, 3)}
    assert spec.proprio.names[2:4] == ("robot0_eef_pos[2]", "robot0_gripper_qpos[0]")
    assert episodes["length"].tolist() == [8, 3, 4]  # demo_0, demo_2, demo_10
    assert rows["is_terminal"].nonzero()[0].tolist() == [6, 9, 13]
    with h5py.File(foreign) as file:
        wanted = file["data/demo_0/next_obs/robot0_eef_pos"][-1]
        assert np.array_equal(rows["proprio"][7, :3], wanted.astype("f4"))
        assert np.array_equal(rows["action"][:7], file["data/demo_0/actions"][()].astype("f4"))
    assert np.diff(rows["stamp"][:8]).tolist() == [50_000_000] * 7


def test_without_next_obs_the_last_action_and_its_done_stay(foreign, tmp_path):
    with h5py.File(foreign, "a") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
    with load_format("robomimic").Import(foreign, Options()) as importer:
        assert "no next_obs" in " ".join(importer.losses)
    bring("robomimic", foreign, tmp_path / "out")
    _, episodes, rows = contents(tmp_path / "out")
    assert episodes["length"].tolist() == [7, 2, 3] and not episodes["complete"].any()
    assert rows["is_terminal"].nonzero()[0].tolist() == [6, 8, 11]
    with h5py.File(foreign) as file:
        assert np.array_equal(rows["action"][:7], file["data/demo_0/actions"][()].astype("f4"))


def test_a_foreign_file_goes_back_under_its_own_keys(foreign, tmp_path):
    bring("robomimic", foreign, tmp_path / "log")
    export("robomimic", tmp_path / "log", tmp_path / "back.hdf5")
    with h5py.File(foreign) as old, h5py.File(tmp_path / "back.hdf5") as new:
        for key in ("obs/agentview_image", "next_obs/robot0_gripper_qpos", "actions", "dones"):
            one, two = old["data/demo_10"][key][()], new["data/demo_2"][key][()]
            assert np.array_equal(one.astype(two.dtype), two), key
        assert json.loads(new["data"].attrs["env_args"])["type"] == 1


def test_broken_demos_stop_the_import_unless_they_are_to_be_skipped(foreign, tmp_path):
    with h5py.File(foreign, "a") as file:
        del file["data/demo_2/obs/robot0_eef_pos"]
    with pytest.raises(CorruptInputError, match=r"lift\.hdf5: demo_2: .*robot0_eef_pos"):
        bring("robomimic", foreign, tmp_path / "out")
    assert len(contents(tmp_path / "out")[1]) == 1
    done = bring("robomimic", foreign, tmp_path / "out", skip_corrupt=True)
    assert (done.episodes, done.resumed, list(done.skipped)) == (2, 1, ["demo_2"])
    assert contents(tmp_path / "out")[1]["length"].tolist() == [8, 4]


def test_what_is_no_robomimic_file_is_said(tmp_path):
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF nothing")
    with pytest.raises(CorruptInputError, match="not a readable HDF5"):
        bring("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    h5py.File(tmp_path / "b.hdf5", "w").close()
    with pytest.raises(FormatError, match="no group 'data'"):
        bring("robomimic", tmp_path / "b.hdf5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_without_rewards_says_so(tmp_path):
    from wm_datasets import LogReader, LogWriter
    from wm_datasets.formats import Options, load_format

    LogWriter(tmp_path / "log", make_spec(reward=False)).close()
    with LogReader(tmp_path / "log") as reader:
        assert "rewards" in load_format("robomimic").Export(reader, Options()).losses[0]
