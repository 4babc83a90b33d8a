"""LeRobotDataset: datasets of LeRobot are read, and exported logs are restored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.wm_datasets.formats.rosbag.test_rosbag import recorded_log
from tests.wm_datasets.formats.test_base import assert_same, contents, cut_log, export, import_log
from tests.wm_datasets.log_rows import make_row, make_spec
from wm_datasets import LogReader, LogWriter
from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")
from wm_datasets.formats.lerobot import exporter, layout, stats  # noqa: E402

DATASETS = Path(__file__).parent / "reference_datasets"
VERSIONS = ["v3.0", "v2.1"]
MOST_IMAGES = ("image/front", "image/wrist")


def brightening_log(path, lengths):
    """A log of smooth images, each brighter than the one before, so that video frames differ."""
    spec = make_spec(cameras={"front": (32, 48, 3)}, proprio=None)
    ramp = np.broadcast_to(np.arange(48, dtype=np.uint8), (32, 48))
    with LogWriter(path, spec) as writer:
        for rows in lengths:
            for step in range(rows):
                row = make_row(writer.length, step, step == rows - 1)
                row["image/front"] = np.stack([ramp + np.uint8(6 * writer.length)] * 3, -1)
                writer.append({k: v for k, v in row.items() if k in spec.fields})
    return path


def assert_close_images(one, other):
    """Every frame is the right one: neighbours differ by 6."""
    frames = [contents(p)[2]["image/front"].astype(int) for p in (one, other)]
    assert np.abs(frames[0] - frames[1]).mean((1, 2, 3)).max() < 2.5
    return frames


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_is_restored_bit_for_bit_without_losses(tmp_path, version):
    log = recorded_log(tmp_path / "log", [5, 2, 17])
    assert export("lerobot", log, tmp_path / "set", version=version) == []
    import_log("lerobot", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out")


@pytest.mark.parametrize("version", VERSIONS)
def test_lossy_video_is_reported_and_all_else_is_restored(tmp_path, version):
    log = brightening_log(tmp_path / "log", [9, 2, 5])
    losses = export("lerobot", log, tmp_path / "set", version=version, lossy=True)
    assert "exact pixels" in losses[0]
    import_log("lerobot", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out", without=["image/front"])
    one, other = assert_close_images(log, tmp_path / "out")
    assert (one[8] == other[8]).all()  # the last image of an episode is stored separately, exact


def test_cut_episodes_and_logs_without_actions_or_rewards_are_restored(tmp_path):
    logs = {"cut": cut_log(tmp_path / "cut")}
    for name, changes in (("video", {"action": None}), ("demo", {"reward": False})):
        logs[name] = recorded_log(tmp_path / name, [4, 3], **changes)
    logs["blind"] = recorded_log(tmp_path / "blind", [4, 3], cameras={})
    for name, log in logs.items():
        assert export("lerobot", log, tmp_path / f"{name}.set") == []
        import_log("lerobot", tmp_path / f"{name}.set", tmp_path / f"{name}.out")
        assert_same(log, tmp_path / f"{name}.out")


def test_episodes_without_an_action_are_left_out_and_reported(make_log, tmp_path):
    assert export("lerobot", make_log([3, 1, 2]), tmp_path / "set")[0].startswith("1 episodes")
    import_log("lerobot", tmp_path / "set", tmp_path / "out")
    assert contents(tmp_path / "out")[1]["length"].tolist() == [3, 2]
    LogWriter(tmp_path / "empty", make_spec()).close()
    with pytest.raises(FormatError, match="no episode with an action"):
        export("lerobot", tmp_path / "empty", tmp_path / "none")


@pytest.mark.parametrize("lossy", [False, True])
def test_lerobot_opens_exported_logs(tmp_path, monkeypatch, lossy):
    """Where lerobot is installed: of 0.4 and later it reads v3.0, before v2.1."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    log = brightening_log(tmp_path / "log", [9, 2, 5])
    _, episodes, rows = contents(log)
    export("lerobot", log, tmp_path / "set", version=lerobot.CODEBASE_VERSION, lossy=lossy)
    data = lerobot.LeRobotDataset(
        "a/b", root=tmp_path / "set", delta_timestamps={"action": [0.0, 0.05]}
    )
    assert (len(data), data.num_episodes, data.fps) == (13, 3, 20)
    rows_with_action = [s + t for s, n, _ in episodes.tolist() for t in range(n - 1)]
    for item, row in zip((data[i] for i in range(13)), rows_with_action, strict=True):
        assert np.array_equal(item["action"][0].numpy(), rows["action"][row])
        assert item["next.reward"].item() == rows["reward"][row]
        assert item["wm.stamp"].item() == rows["stamp"][row]
        assert item["task"] == "reach"
        frame = np.rint(item["observation.images.front"].numpy().transpose(1, 2, 0) * 255)
        assert np.abs(frame - rows["image/front"][row]).mean() <= (2.5 if lossy else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_datasets_of_lerobot_are_imported(tmp_path, version):
    with load_format("lerobot").Import(DATASETS / version, Options()) as importer:
        assert importer.losses == ["which of 2 tasks an episode is of"]
    import_log("lerobot", DATASETS / version, tmp_path / "out", task="push")
    spec, episodes, rows = contents(tmp_path / "out")
    assert (spec.robot, spec.task, spec.control_period_s) == ("so100", "push", 0.1)
    assert spec.cameras == {"top": (64, 96, 3), "wrist": (16, 24, 3)}
    assert spec.proprio.names == ("x", "y", "grip")
    assert spec.action.names == ("dx", "dy")
    assert spec.extra["absent"] == ["success", "is_terminal"]
    # as many actions as frames: the observation after the last action is not known
    assert episodes.tolist() == [(0, 6, False), (6, 4, False), (10, 5, False)]
    e = np.repeat([0, 1, 2], [6, 4, 5])
    t = np.concatenate([np.arange(n) for n in (6, 4, 5)])
    assert np.array_equal(rows["proprio"], np.stack([e, t, np.full(15, 0.5)], 1))
    assert np.array_equal(rows["action"], np.stack([t / 10, -e], 1).astype("f4"))
    assert np.array_equal(rows["stamp"], t * 100_000_000)
    assert rows["reward"].nonzero()[0].tolist() == [5, 9, 14]
    assert not rows["is_terminal"].any()  # every episode ends with next.done: not terminal
    assert (rows["image/wrist"] == (10 * e + t)[:, None, None, None]).all()
    y, x = np.mgrid[:64, :96]
    for row in range(15):  # every frame is the right one: blue tells them apart
        expected = np.stack([2 * x, 3 * y, np.full_like(x, 40 * e[row] + 10 * t[row])], -1)
        difference = np.abs(rows["image/top"][row].astype(int) - expected)
        assert difference.mean() < 6 and abs(difference[..., 2].mean()) < 5, row


@pytest.mark.parametrize("version", VERSIONS)
def test_a_foreign_dataset_is_exported_with_its_own_keys(tmp_path, version):
    import_log("lerobot", DATASETS / version, tmp_path / "log")
    export("lerobot", tmp_path / "log", tmp_path / "set", version=version)
    old, new = (json.loads((p / "meta/info.json").read_text())
                for p in (DATASETS / version, tmp_path / "set"))  # fmt: skip
    same = "codebase_version robot_type total_episodes total_frames fps splits chunks_size"
    assert {k: old[k] for k in same.split()} == {k: new[k] for k in same.split()}
    assert old["features"].keys() <= new["features"].keys()
    assert new["features"]["observation.state"] == old["features"]["observation.state"]
    for folder in ("data", "meta"):
        files = [sorted(f.relative_to(p).as_posix() for f in (p / folder).glob("**/*.*"))
                 for p in (DATASETS / version, tmp_path / "set")]  # fmt: skip
        assert files[0] == files[1]
    path = next((DATASETS / version / "data").glob("*/*")).relative_to(DATASETS / version)
    one, two = pq.read_table(DATASETS / version / path), pq.read_table(tmp_path / "set" / path)
    for name in ("observation.state", "action", "next.reward", "next.done", "frame_index"):
        assert one.schema.field(name).type == two.schema.field(name).type
    for name in ("observation.state", "action", "next.reward", "timestamp", "index"):
        assert one[name].to_pylist() == two[name].to_pylist()


@pytest.mark.parametrize("version", VERSIONS)
def test_statistics_equal_those_of_lerobot(tmp_path, version):
    import_log("lerobot", DATASETS / version, tmp_path / "log")
    export("lerobot", tmp_path / "log", tmp_path / "set", version=version)
    old, new = (
        _read_stats(path / "meta", version) for path in (DATASETS / version, tmp_path / "set")
    )
    for key in ("observation.state", "action", "timestamp", "observation.images.wrist", "index"):
        for name in ("min", "max", "mean", "std", "count"):
            assert np.shape(old[key][name]) == np.shape(new[key][name])
            tolerance = 5e-3 if name == "std" else 1e-6  # LeRobot's is not exact over episodes
            assert np.allclose(old[key][name], new[key][name], rtol=tolerance), (key, name)


def _read_stats(meta, version):
    if version == "v3.0":
        return json.loads((meta / "stats.json").read_text())
    return json.loads((meta / "episodes_stats.jsonl").read_text().splitlines()[1])["stats"]


def test_statistics_of_parts_make_those_of_the_whole():
    values = np.random.default_rng(0).normal(3, 2, (50, 4))
    parts = [stats.of_values(v, quantiles=True) for v in np.split(values, [7, 20])]
    whole, combined = stats.of_values(values, quantiles=True), stats.together(parts)
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(whole[name], combined[name])


def test_new_files_of_v3_begin_at_the_size_limit(make_log, tmp_path, monkeypatch):
    from wm_datasets.formats.lerobot import videos

    log = brightening_log(tmp_path / "log", [9, 8, 7, 6])
    monkeypatch.setattr(layout, "DATA_BYTES", 1)
    monkeypatch.setattr(videos, "VIDEO_BYTES", 1)
    monkeypatch.setattr(videos, "CHUNK", 3)
    monkeypatch.setattr(exporter, "CHUNK", 3)
    export("lerobot", log, tmp_path / "set", lossy=True)
    video_paths = sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("set/videos/**/*.mp4")
    )
    assert video_paths[-1] == "set/videos/observation.images.front/chunk-001/file-000.mp4"
    assert len(video_paths) == 4
    import_log("lerobot", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out", without=["image/front"])
    assert_close_images(log, tmp_path / "out")


def test_a_rate_that_is_no_whole_number_is_kept_and_reported(tmp_path):
    log = recorded_log(tmp_path / "log", [5], control_period_s=0.03)
    assert "33.3" in export("lerobot", log, tmp_path / "set", lossy=True)[1]
    import_log("lerobot", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out", without=MOST_IMAGES)


@pytest.fixture(params=VERSIONS)
def broken(request, tmp_path):
    """A copy of a dataset of LeRobot, to be damaged."""
    shutil.copytree(DATASETS / request.param, tmp_path / "set")
    return tmp_path / "set"


def damage(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(data)


def test_broken_videos_stop_the_import_unless_they_are_to_be_skipped(broken, tmp_path):
    video = sorted(broken.glob("videos/**/*.mp4"))[-1]
    damage(video)
    with pytest.raises(CorruptInputError, match=video.name):
        import_log("lerobot", broken, tmp_path / "out")
    result = import_log("lerobot", broken, tmp_path / "out", skip_corrupt=True)
    assert result.skipped and result.episodes == 3 - len(result.skipped)


def test_broken_tables_are_named(broken, tmp_path):
    table = sorted(broken.glob("data/**/*.parquet"))[-1]
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(CorruptInputError, match=table.name):
        import_log("lerobot", broken, tmp_path / "out")
    result = import_log("lerobot", broken, tmp_path / "out", skip_corrupt=True)
    assert "2" in result.skipped
    table.unlink()
    assert (
        "no such file"
        in import_log("lerobot", broken, tmp_path / "out2", skip_corrupt=True).skipped["2"]
    )


def test_a_folder_without_a_dataset_is_refused(broken, tmp_path):
    with pytest.raises(FormatError, match=r"Give one of its folders: set\."):
        import_log("lerobot", tmp_path, tmp_path / "out")
    info = broken / "meta/info.json"
    text = info.read_text()
    info.write_text(text.replace('"codebase_version": "v', '"codebase_version": "v1'))
    with pytest.raises(FormatError, match=r"version: got .*, expected one of v2\.0, v3\.0, v2\.1"):
        import_log("lerobot", broken, tmp_path / "out")
    info.write_text(text[:100])
    with pytest.raises(CorruptInputError, match=r"info\.json"):
        import_log("lerobot", broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_that_a_log_cannot_hold_are_listed(broken, tmp_path):
    info = json.loads((broken / "meta/info.json").read_text())
    info["features"]["complementary_info.note"] = {"dtype": "string", "shape": [1], "names": None}
    info["features"]["action"]["dtype"] = "float64"
    info["splits"] = {"train": "0:2", "test": "2:3"}
    (broken / "meta/info.json").write_text(json.dumps(info))
    with load_format("lerobot").Import(broken, Options()) as importer:
        message = " ".join(importer.losses)
    assert all(
        w in message for w in ("complementary_info.note", "float32: action", "splits", "task")
    )


def test_versions_that_are_not_written_are_refused(make_log):
    with LogReader(make_log([3])) as reader, pytest.raises(FormatError, match=r"v3\.0, v2\.1"):
        load_format("lerobot").Export(reader, Options(version="v1.6"))


# Metadata in meta/


def edit_info(root, **changes):
    """Change keys of info.json; of `features`, each feature given; None removes it."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for name, feature in changes.pop("features", {}).items():
        info["features"][name] = feature
    path.write_text(json.dumps(info | changes))


def edit_episodes(root, change):
    """Replace the list of episodes by what change(list) returns."""
    path = root / "meta/episodes.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
        return
    path = next((root / "meta/episodes").glob("*/*.parquet"))
    table = pq.read_table(path)
    pq.write_table(type(table).from_pylist(change(table.to_pylist()), table.schema), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[:1] + rows[2:],
            "episodes: got 2, expected 3 as in meta/info.json; not listed: 1",
        ),
        (lambda rows: [*rows, rows[1]], "episodes: got 1 more than once"),
        (lambda rows: [rows[0], rows[0], rows[2]], "episodes: got 0 more than once"),
        (
            lambda rows: [*rows[:2], rows[2] | {"length": 4}],
            "frames: got 14 in all, expected 15 as in meta/info.json",
        ),
    ],
)
def test_episodes_that_contradict_info_are_refused(broken, tmp_path, change, message):
    edit_episodes(broken, change)
    with pytest.raises(CorruptInputError, match=rf"meta/episodes.*: .*{message}.*whole"):
        import_log("lerobot", broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "value"), [("total_episodes", 4), ("total_frames", 16)])
def test_info_that_contradicts_the_episodes_is_refused(broken, tmp_path, name, value):
    edit_info(broken, **{name: value})
    with pytest.raises(CorruptInputError, match=f"expected {value} as in meta/info.json"):
        import_log("lerobot", broken, tmp_path / "out")


def test_episodes_are_sorted_by_their_index(broken, tmp_path):
    edit_episodes(broken, lambda rows: rows[::-1])
    import_log("lerobot", broken, tmp_path / "out")
    assert contents(tmp_path / "out")[1]["length"].tolist() == [6, 4, 5]


def test_a_deleted_episode_leaves_a_gap(broken, tmp_path):
    edit_episodes(broken, lambda rows: [rows[0], rows[2]])
    edit_info(broken, total_episodes=2, total_frames=11)
    import_log("lerobot", broken, tmp_path / "out")
    assert contents(tmp_path / "out")[1]["length"].tolist() == [6, 5]


@pytest.mark.parametrize(
    ("name", "value"),
    [("data_path", 7), ("data_path", None), ("data_path", ["a"]), ("data_path", "d/{nothing}"),
     ("data_path", "d/{0}"), ("data_path", "../{episode_index}"), ("video_path", 3),
     ("video_path", None), ("video_path", "/tmp/a.mp4"), ("fps", "10"), ("fps", 0), ("fps", True),
     ("features", []), ("robot_type", ["a"]), ("total_episodes", "three"), ("chunks_size", 0),
     ("splits", "train")],
)  # fmt: skip
def test_invalid_values_in_info_are_named(broken, tmp_path, name, value):
    path = broken / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CorruptInputError, match=rf"info\.json: {name}: got "):
        import_log("lerobot", broken, tmp_path / "out")
    path.write_text("[]")
    with pytest.raises(CorruptInputError, match=r"info\.json: got a JSON list, expected an object"):
        import_log("lerobot", broken, tmp_path / "out")


@pytest.mark.parametrize(
    "feature",
    [{"dtype": "float32"}, {"shape": [2]}, None, 3, {"dtype": "float32", "shape": None},
     {"dtype": "float32", "shape": []}, {"dtype": "float32", "shape": ["two"]},
     {"dtype": "image", "shape": [4, 4]}, {"dtype": 7, "shape": [2]}],
)  # fmt: skip
def test_a_feature_without_a_shape_is_listed_and_left_out(broken, tmp_path, feature):
    features = {n: feature for n in ("observation.more", "observation.images.wrist", "timestamp")}
    edit_info(broken, features=features)
    with load_format("lerobot").Import(broken, Options()) as importer:
        (message,) = [line for line in importer.losses if "type and shape" in line]
    assert "observation.more" in message and "wrist" in message and "timestamp" not in message
    import_log("lerobot", broken, tmp_path / "out")
    spec, episodes, _ = contents(tmp_path / "out")
    assert list(spec.cameras) == ["top"] and episodes["length"].tolist() == [6, 4, 5]


def test_a_reward_of_text_is_listed_and_declared_absent(broken, tmp_path):
    edit_info(broken, features={"next.reward": {"dtype": "string", "shape": [1], "names": None}})
    with load_format("lerobot").Import(broken, Options()) as importer:
        assert "features: next.reward" in importer.losses
    import_log("lerobot", broken, tmp_path / "out")
    assert "reward" in contents(tmp_path / "out")[0].extra["absent"]


def test_a_dataset_without_observations_is_refused_by_name(broken, tmp_path):
    info = json.loads((broken / "meta/info.json").read_text())
    edit_info(broken, features={n: None for n in info["features"] if n.startswith("observation")})
    with pytest.raises(FormatError, match=r"set: spec: got no camera, no proprio"):
        import_log("lerobot", broken, tmp_path / "out")
