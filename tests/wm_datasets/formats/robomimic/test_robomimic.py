"""HDF5 in the robomimic layout."""

import json

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import assert_same, contents, cut_log, export, import_log
from tests.wm_datasets.log_rows import make_spec
from wm_datasets.errors import LogSpecError
from wm_datasets.formats import CorruptInputError, Flipped, FormatError, Options, load_format
from wm_datasets.formats.transfer import import_into
from wm_datasets.log.verify import verify

h5py = pytest.importorskip("h5py")


def test_a_log_is_restored_bit_for_bit_without_losses(make_log, tmp_path):
    log = make_log([5, 2, 17])
    assert export("robomimic", log, tmp_path / "a.hdf5") == []
    import_log("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_a_cut_episode_stays_cut_and_is_reported(tmp_path):
    log = cut_log(tmp_path / "log")
    assert "next_obs repeats" in export("robomimic", log, tmp_path / "a.hdf5")[0]
    import_log("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_rows_are_stored_in_the_layout_of_robomimic(make_log, tmp_path):
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


def test_a_foreign_file_keeps_names_rates_and_order_and_losses_are_listed(foreign, tmp_path):
    with load_format("robomimic").Import(foreign, Options()) as importer:
        output = " ".join(importer.losses)
    assert all(loss in output for loss in ("states", "float32", "train", "model_file"))
    import_log("robomimic", foreign, tmp_path / "out")
    spec, episodes, rows = contents(tmp_path / "out")
    assert (spec.robot, spec.task, spec.control_period_s) == ("Panda", "Lift", 0.05)
    assert spec.cameras == {"agentview_image": (8, 8, 3)}
    assert spec.proprio.names[2:4] == ("robot0_eef_pos[2]", "robot0_gripper_qpos[0]")
    assert episodes["length"].tolist() == [8, 3, 4]  # demo_0, demo_2, demo_10
    assert not rows["is_terminal"].any()  # every demo ends with a done: not terminal
    with h5py.File(foreign) as file:
        expected = file["data/demo_0/next_obs/robot0_eef_pos"][-1]
        assert np.array_equal(rows["proprio"][7, :3], expected.astype("f4"))
        assert np.array_equal(rows["action"][:7], file["data/demo_0/actions"][()].astype("f4"))
    assert np.diff(rows["stamp"][:8]).tolist() == [50_000_000] * 7


def test_without_next_obs_the_last_action_stays(foreign, tmp_path):
    with h5py.File(foreign, "a") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
    with load_format("robomimic").Import(foreign, Options()) as importer:
        assert "no next_obs" in " ".join(importer.losses)
    import_log("robomimic", foreign, tmp_path / "out")
    _, episodes, rows = contents(tmp_path / "out")
    assert episodes["length"].tolist() == [7, 2, 3] and not episodes["complete"].any()
    assert not rows["is_terminal"].any()
    with h5py.File(foreign) as file:
        assert np.array_equal(rows["action"][:7], file["data/demo_0/actions"][()].astype("f4"))


def test_a_foreign_file_is_exported_with_its_own_keys(foreign, tmp_path):
    import_log("robomimic", foreign, tmp_path / "log")
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
        import_log("robomimic", foreign, tmp_path / "out")
    assert len(contents(tmp_path / "out")[1]) == 1
    result = import_log("robomimic", foreign, tmp_path / "out", skip_corrupt=True)
    assert (result.episodes, result.resumed, list(result.skipped)) == (2, 1, ["demo_2"])
    assert contents(tmp_path / "out")[1]["length"].tolist() == [8, 4]


def test_a_file_of_another_layout_is_refused(tmp_path):
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF nothing")
    with pytest.raises(CorruptInputError, match="not a readable HDF5"):
        import_log("robomimic", tmp_path / "a.hdf5", tmp_path / "out")
    h5py.File(tmp_path / "b.hdf5", "w").close()
    with pytest.raises(FormatError, match="no group 'data'"):
        import_log("robomimic", tmp_path / "b.hdf5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_without_rewards_reports_the_loss(tmp_path):
    from wm_datasets import LogReader, LogWriter
    from wm_datasets.formats import Options, load_format

    LogWriter(tmp_path / "log", make_spec(reward=False)).close()
    with LogReader(tmp_path / "log") as reader:
        assert "rewards" in load_format("robomimic").Export(reader, Options()).losses[0]


# Irregular files of other tools


def opened(file, **options):
    with load_format("robomimic").Import(file, Options(**options)) as importer:
        return importer


def change(file, name, value):
    """Replace a dataset of every demo by what value(its content) returns; None: leave it out."""
    with h5py.File(file, "a") as opened_file:
        for demo in opened_file["data"].values():
            old = demo[name][()] if name in demo else None
            if name in demo:
                del demo[name]
            if (new := value(old)) is not None:
                demo[name] = new


def set_env(file, text):
    with h5py.File(file, "a") as opened_file:
        opened_file["data"].attrs["env_args"] = text


def test_actions_beyond_1_are_not_declared_to_be_within_1(foreign, tmp_path):
    assert not any("beyond 1" in note for note in opened(foreign).notes)
    with h5py.File(foreign, "a") as file:
        file["data/demo_10/actions"][1, 2] = -1.79
    (note,) = (note for note in opened(foreign).notes if "beyond 1" in note)
    assert "action[2] 1.79" in note and "action[1]" not in note
    import_log("robomimic", foreign, tmp_path / "out")
    action = contents(tmp_path / "out")[0].action
    assert action.low == (-1, -1, -np.inf, -1, -1, -1, -1)
    assert action.high == (1, 1, np.inf, 1, 1, 1, 1)
    assert not verify(tmp_path / "out").faults


def test_actions_without_a_second_axis_are_one_dimension(foreign, tmp_path):
    change(foreign, "actions", lambda old: old[:, 0])
    import_log("robomimic", foreign, tmp_path / "out")
    spec, _, rows = contents(tmp_path / "out")
    assert len(spec.action) == 1
    with h5py.File(foreign) as file:
        assert np.array_equal(rows["action"][:7, 0], file["data/demo_0/actions"][()].astype("f4"))


def test_actions_that_are_no_vectors_are_refused(foreign, tmp_path):
    change(foreign, "actions", lambda old: old[:, None])
    with pytest.raises(FormatError, match=r"numbers 'actions' \(T, A\)"):
        import_log("robomimic", foreign, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["no JSON", "[1, 2]", "3", '{"env_kwargs": [1]}', "{}"])
def test_irregular_env_args_need_a_rate_from_the_user(foreign, tmp_path, text):
    set_env(foreign, text)
    with pytest.raises(FormatError, match=r"does not say its rate.*--period"):
        opened(foreign)
    importer = opened(foreign, period_s=0.05)
    assert any("env_args" in line for line in importer.losses) == (not text.startswith("{"))
    import_log("robomimic", foreign, tmp_path / "out", period_s=0.05)
    spec = contents(tmp_path / "out")[0]
    assert (spec.robot, spec.task, spec.control_period_s) == ("unknown", "unknown", 0.05)


@pytest.mark.parametrize("rate", ["0", "-20", '"20"', "true", "null", "NaN", "Infinity", "[20]"])
def test_a_rate_that_is_none_is_named(foreign, tmp_path, rate):
    text = '{"env_name": 7, "env_kwargs": {"robots": [1], "control_freq": %s}}'
    set_env(foreign, text % rate)
    with pytest.raises(FormatError, match=r"control_freq: .*--period SECONDS"):
        opened(foreign)
    import_log("robomimic", foreign, tmp_path / "out", period_s=0.1)
    spec = contents(tmp_path / "out")[0]
    assert (spec.robot, spec.task) == ("unknown", "unknown")


def test_a_demo_without_actions_is_listed_and_left_out(foreign, tmp_path):
    with h5py.File(foreign, "a") as file:
        demo = file["data/demo_0"]
        for name in ("actions", "rewards", "dones", *(f"{o}/{k}" for o in ("obs", "next_obs")
                                                      for k in demo["obs"])):  # fmt: skip
            value = demo[name][:0]
            del demo[name]
            demo[name] = value
    importer = opened(foreign)
    assert "demos without any action: demo_0" in importer.losses
    assert importer.keys == ["demo_2", "demo_10"]
    import_log("robomimic", foreign, tmp_path / "out")
    assert contents(tmp_path / "out")[1]["length"].tolist() == [3, 4]


@pytest.mark.parametrize("name", ["obs/note", "rewards", "dones"])
def test_a_field_of_text_is_listed_and_left_out(foreign, tmp_path, name):
    change(foreign, name, lambda old: np.array([b"a"] * 7))
    assert name.removeprefix("obs/") in " ".join(opened(foreign).losses)
    import_log("robomimic", foreign, tmp_path / "out")
    spec, _, rows = contents(tmp_path / "out")
    assert spec.reward == (name != "rewards") == ("reward" in rows)
    assert not rows["is_terminal"].any()


def test_rewards_and_dones_may_have_a_second_axis(foreign, tmp_path):
    change(foreign, "rewards", lambda old: old[:, None] + 1)
    change(foreign, "dones", lambda old: old[:, None])
    import_log("robomimic", foreign, tmp_path / "out")
    rows = contents(tmp_path / "out")[2]
    assert rows["reward"][:8].tolist() == [1] * 7 + [0]
    assert not rows["is_terminal"].any()  # every demo ends with a done: not terminal


@pytest.mark.parametrize(
    ("name", "value"),
    [("obs", np.zeros(3)), ("obs/robot0_eef_pos", np.array([b"a"])), ("rewards", np.zeros(9)),
     ("dones", np.zeros(9)), ("next_obs", np.zeros(2)), ("actions", np.zeros((3, 5)))],
)  # fmt: skip
def test_one_irregular_demo_is_named_and_skipped_on_request(foreign, tmp_path, name, value):
    with h5py.File(foreign, "a") as file:
        del file[f"data/demo_2/{name}"]
        file[f"data/demo_2/{name}"] = value
    with pytest.raises(CorruptInputError, match=r"lift\.hdf5: demo_2: "):
        import_log("robomimic", foreign, tmp_path / "out")
    result = import_log("robomimic", foreign, tmp_path / "out", skip_corrupt=True)
    assert (result.episodes, list(result.skipped)) == (2, ["demo_2"])


@pytest.mark.parametrize("text", ["no JSON", "{}", "[]", '{"robot": 1}'])
def test_a_damaged_spec_of_our_own_is_named(make_log, tmp_path, text):
    export("robomimic", make_log([3]), tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data"].attrs["wm_log"] = text
    with pytest.raises(CorruptInputError, match=r"a\.hdf5: .*wm_log"):
        opened(tmp_path / "a.hdf5")


# Upside down


@pytest.mark.parametrize(
    ("env_name", "hint"), [("Libero_Kitchen_Tabletop_Manipulation", True), ("Lift", False)]
)
def test_images_of_libero_are_reported_as_upside_down(foreign, env_name, hint):
    set_env(foreign, json.dumps({"env_name": env_name, "env_kwargs": {"control_freq": 20}}))
    assert bool(opened(foreign).upside_down) == hint


def test_flip_applies_to_every_frame_and_is_not_mixed_with_unflipped_rows(foreign, tmp_path):
    out = tmp_path / "out"
    with Flipped(load_format("robomimic").Import(foreign, Options())) as importer:
        assert importer.upside_down == ""
        import_into(importer, f"robomimic:{foreign}", out)
    spec, _, rows = contents(out)
    assert spec.extra["flipped"] is True
    with h5py.File(foreign) as file:
        expected = file["data/demo_0/obs/agentview_image"][()]
        assert np.array_equal(rows["image/agentview_image"][:7], expected[:, ::-1])
        assert np.array_equal(rows["proprio"][0, :3],
                              file["data/demo_0/obs/robot0_eef_pos"][0].astype("f4"))  # fmt: skip
    with pytest.raises(LogSpecError, match="flipped"):
        import_log("robomimic", foreign, out)


def test_flip_without_images_is_refused(foreign):
    change(foreign, "obs/agentview_image", lambda old: None)
    with pytest.raises(FormatError, match="--flip: the source has no images"):
        Flipped(load_format("robomimic").Import(foreign, Options()))
