"""The folders of DINO-WM, and torch files without torch."""

import pickle

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import assert_same, contents, cut_log, export, import_log
from tests.wm_datasets.log_rows import make_row, make_spec
from wm_datasets import LogWriter
from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format
from wm_datasets.formats.torch_file import load_pickle, load_tensor, save_tensor

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 300, 1), (2, 3, 4, 5)])
def test_tensors_pass_between_torch_and_numpy(tmp_path, dtype, shape):
    value = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    save_tensor(tmp_path / "a.pth", value)
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert loaded.shape == shape and np.array_equal(loaded.numpy(), value)
    torch.save(torch.tensor(value), tmp_path / "b.pth")
    loaded = load_tensor(tmp_path / "b.pth")
    assert loaded.dtype == value.dtype and np.array_equal(loaded, value)


def test_views_are_read_as_torch_reads_them(tmp_path):
    view = torch.arange(60.0).reshape(3, 4, 5)[1:, ::2].permute(2, 0, 1)
    torch.save(view, tmp_path / "a.pth")
    assert np.array_equal(load_tensor(tmp_path / "a.pth"), view.numpy())


def test_loading_a_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    torch.save(Evil(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"(builtins|__builtin__)\.print"):
        load_tensor(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"(builtins|__builtin__)\.print"):
        load_pickle(pickle.dumps(Evil()))
    torch.save({"a": torch.zeros(2)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match="got a dict, expected a tensor"):
        load_tensor(tmp_path / "b.pth")


def one_camera_log(path, lengths):
    with LogWriter(path, make_spec(cameras={"front": (4, 6, 3)})) as writer:
        for rows in lengths:
            for step in range(rows):
                row = make_row(writer.length, step, step == rows - 1)
                writer.append({k: v for k, v in row.items() if k != "image/wrist"})
    return path


@pytest.mark.parametrize("layout", ["point_maze", "wall"])
def test_a_log_is_restored_bit_for_bit(tmp_path, layout):
    log = one_camera_log(tmp_path / "log", [5, 2, 17])
    assert export("dino_wm", log, tmp_path / "set", layout=layout) == []
    import_log("dino_wm", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out")


def test_pusht_is_restored_except_for_its_video(tmp_path):
    log = one_camera_log(tmp_path / "log", [5, 2])
    assert "H.264" in export("dino_wm", log, tmp_path / "set", layout="pusht")[0]
    import_log("dino_wm", tmp_path / "set", tmp_path / "out")
    assert_same(log, tmp_path / "out", without=["image/front", "action"])
    action = [contents(p)[2]["action"] for p in (log, tmp_path / "out")]
    np.testing.assert_allclose(*action, rtol=1e-6)


def test_other_cameras_are_reported_and_cut_episodes_stay_cut(tmp_path):
    log = cut_log(tmp_path / "log")
    assert export("dino_wm", log, tmp_path / "set") == ["cameras: wrist"]
    import_log("dino_wm", tmp_path / "set", tmp_path / "out")
    assert contents(tmp_path / "out")[1].tolist() == contents(log)[1].tolist()


@pytest.fixture
def maze(tmp_path):
    """PointMaze as DINO-WM's own script stores it."""
    folder, random = tmp_path / "point_maze", np.random.default_rng(0)
    (folder / "obses").mkdir(parents=True)
    lengths = [6, 4, 5]
    torch.save(
        torch.tensor(random.normal(size=(3, 6, 4)), dtype=torch.float32), folder / "states.pth"
    )
    torch.save(
        torch.tensor(random.normal(size=(3, 6, 2)), dtype=torch.float32), folder / "actions.pth"
    )
    torch.save(torch.tensor(lengths), folder / "seq_lengths.pth")
    for i, rows in enumerate(lengths):
        frames = random.integers(0, 256, (rows, 8, 8, 3), np.uint8)
        torch.save(torch.from_numpy(frames), folder / "obses" / f"episode_{i:03d}.pth")
    return folder


def test_a_folder_of_torchs_own_files(maze, tmp_path):
    with load_format("dino_wm").Import(maze, Options()) as importer:
        assert "last action" in importer.losses[0]
    import_log("dino_wm", maze, tmp_path / "log", camera="top")
    spec, episodes, rows = contents(tmp_path / "log")
    assert (spec.proprio.names, spec.proprio.units[3]) == (("x", "y", "vx", "vy"), "m/s")
    assert (spec.control_period_s, spec.reward) == (0.05, False)
    assert episodes["length"].tolist() == [6, 4, 5]
    actions = torch.load(maze / "actions.pth").numpy()
    assert np.array_equal(rows["action"][6:9], actions[1, :3])
    assert not rows["action"][9].any()
    frames = torch.load(maze / "obses/episode_002.pth").numpy()
    assert np.array_equal(rows["image/top"][10:], frames)
    export("dino_wm", tmp_path / "log", tmp_path / "back")
    for name in ("states.pth", "seq_lengths.pth", "obses/episode_001.pth"):
        one, two = (torch.load(f / name, weights_only=True) for f in (maze, tmp_path / "back"))
        if name == "states.pth":  # theirs has rows behind the episodes' ends
            one = torch.stack([torch.cat([e[:n], 0 * e[n:]]) for e, n in zip(one, (6, 4, 5))])
        assert torch.equal(one, two), name


def test_pusht_of_torchs_own_files(tmp_path):
    from wm_datasets.formats.video import encode

    folder = tmp_path / "pusht"
    (folder / "obses").mkdir(parents=True)
    torch.save(torch.arange(10.0, 15).expand(1, 5, 5), folder / "states.pth")
    torch.save(torch.arange(20.0, 22).expand(1, 5, 2), folder / "velocities.pth")
    torch.save(torch.full((1, 5, 2), 50.0), folder / "rel_actions.pth")
    torch.save(torch.full((1, 5, 2), 50.0), folder / "abs_actions.pth")
    (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(np.array([5])))
    encode(folder / "obses/episode_000.mp4", iter(np.zeros((5, 32, 32, 3), np.uint8)),
           np.arange(5) * 100_000_000, 0.1, True)  # fmt: skip
    with load_format("dino_wm").Import(folder, Options()) as importer:
        assert "abs_actions.pth" in importer.losses[1]
    import_log("dino_wm", folder, tmp_path / "log")
    spec, _, rows = contents(tmp_path / "log")
    assert spec.proprio.names == ("agent_x", "agent_y", "agent_vx", "agent_vy")
    assert spec.sensors["block"].names == ("block_x", "block_y", "block_angle")
    assert rows["proprio"].tolist() == [[10, 11, 20, 21]] * 5
    assert rows["sensor/block"].tolist() == [[12, 13, 14]] * 5  # of the last row too
    assert rows["action"].tolist() == [[0.5, 0.5]] * 4 + [[0, 0]]
    assert export("dino_wm", tmp_path / "log", tmp_path / "back") == [
        "exact pixels (H.264 at crf 18); actions are rounded in float32"
    ]
    for name in ("states.pth", "velocities.pth"):
        one, two = (torch.load(f / name, weights_only=True) for f in (folder, tmp_path / "back"))
        assert torch.equal(one, two), name
    import_log("dino_wm", tmp_path / "back", tmp_path / "again")
    assert_same(tmp_path / "log", tmp_path / "again", without=["image/camera", "action"])


@pytest.mark.parametrize("damage", ["gone", "cut", "short"])
def test_a_corrupt_file_is_named_and_skipped_only_on_request(maze, tmp_path, damage):
    corrupt = maze / "obses/episode_001.pth"
    data = corrupt.read_bytes()
    corrupt.unlink()
    if damage == "cut":
        corrupt.write_bytes(data[: len(data) // 2])
    elif damage == "short":
        torch.save(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), corrupt)
    with pytest.raises(CorruptInputError, match=r"episode_001\.pth: "):
        import_log("dino_wm", maze, tmp_path / "log")
    result = import_log("dino_wm", maze, tmp_path / "log", skip_corrupt=True)
    assert list(result.skipped) == ["1"]
    assert contents(tmp_path / "log")[1]["length"].tolist() == [6, 5]


def test_the_parent_folder_is_refused_with_the_right_folder(maze, tmp_path):
    with pytest.raises(FormatError, match=r"Give one of its folders: point_maze\."):
        import_log("dino_wm", tmp_path, tmp_path / "log")
