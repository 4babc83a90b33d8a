"""Plain video in and out."""

import numpy as np
import pytest
from test_formats import bring, contents, export

from wm_datasets.formats import CorruptInputError, FormatError, Options, load_format

av = pytest.importorskip("av")
from wm_datasets.formats.video import decode, encode  # noqa: E402


def film(path, frames=10, size=(32, 48), stamps=None, lossy=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(frames)
    images = random.integers(0, 256, (frames, *size, 3), np.uint8)
    stamps = np.arange(frames) * 40_000_000 if stamps is None else stamps
    encode(path, iter(images), stamps, 0.04, lossy)
    return images


def losses(source, **options):
    with load_format("video").Import(source, Options(**options)) as importer:
        return " ".join(importer.losses)


def test_files_become_a_log_without_actions_with_every_pixel_and_stamp(tmp_path):
    uneven = np.array([0, 40, 75, 160]) * 1_000_000
    one = film(tmp_path / "in/a.mkv", 4, stamps=uneven)
    two = film(tmp_path / "in/b.mkv", 10)
    bring("video", tmp_path / "in", tmp_path / "log", camera="top", robot="hand")
    spec, episodes, rows = contents(tmp_path / "log")
    assert (spec.robot, spec.action, spec.proprio, spec.reward) == ("hand", None, None, False)
    assert spec.control_period_s == pytest.approx(0.04)
    assert not {"action", "commanded", "reward", "proprio"} & rows.keys()
    assert episodes["length"].tolist() == [4, 10] and episodes["complete"].all()
    assert np.array_equal(rows["image/top"], np.concatenate([one, two]))
    assert np.array_equal(rows["stamp"][:4], uneven)


def test_frames_and_cameras_of_a_log_come_back_exactly(make_log, tmp_path):
    log = make_log([5, 17])
    said = export("video", log, tmp_path / "films")
    assert "action, commanded, reward" in said[0]
    bring("video", tmp_path / "films", tmp_path / "out")
    (spec, episodes, rows), (spec2, episodes2, rows2) = contents(log), contents(tmp_path / "out")
    assert spec2.cameras == spec.cameras
    assert spec2.control_period_s == pytest.approx(spec.control_period_s)
    assert episodes2.tolist() == episodes.tolist()
    for camera in spec.cameras:
        assert np.array_equal(rows2[f"image/{camera}"], rows[f"image/{camera}"])
    first = rows["stamp"][episodes["start"]].repeat(episodes["length"])
    assert np.abs(rows2["stamp"] - (rows["stamp"] - first)).max() <= 1_000_000


def test_small_video_says_that_pixels_change_and_is_close(tmp_path, make_log):
    assert any("H.264" in x for x in export("video", make_log([3]), tmp_path / "f", lossy=True))
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 3, (64, 64))
    images = np.stack([np.stack([ramp] * 3, -1)] * 5)
    encode(tmp_path / "a.mp4", iter(images), np.arange(5) * 50_000_000, 0.05, True)
    back = list(decode(tmp_path / "a.mp4"))
    assert [stamp for stamp, _ in back] == [50_000_000 * i for i in range(5)]
    assert np.abs(back[2][1].astype(int) - images[2]).mean() < 3


def test_a_single_file_is_one_episode(tmp_path):
    film(tmp_path / "wave.mp4", 6, lossy=True)
    bring("video", tmp_path / "wave.mp4", tmp_path / "log")
    spec, episodes, _ = contents(tmp_path / "log")
    assert (spec.task, list(spec.cameras), len(episodes)) == ("wave", ["camera"], 1)


def test_different_sizes_need_a_size_and_say_that_frames_are_resized(tmp_path):
    film(tmp_path / "in/a.mkv")
    film(tmp_path / "in/b.mkv", size=(64, 64))
    with pytest.raises(FormatError, match="--size"):
        bring("video", tmp_path / "in", tmp_path / "log")
    assert "resized to 16 x 24" in losses(tmp_path / "in", size=(16, 24))
    bring("video", tmp_path / "in", tmp_path / "log", size=(16, 24))
    assert contents(tmp_path / "log")[2]["image/camera"].shape == (20, 16, 24, 3)


def test_different_rates_are_said(tmp_path):
    film(tmp_path / "in/a.mp4", lossy=True)
    encode(tmp_path / "in/b.mp4", iter(np.zeros((9, 32, 48, 3), np.uint8)),
           np.arange(9) * 100_000_000, 0.1, True)  # fmt: skip
    assert "one rate: the files have [10.0, 25.0] Hz" in losses(tmp_path / "in")


@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_corrupt_file_is_named_and_skipped_only_when_asked(tmp_path, damage):
    for name in "abc":
        film(tmp_path / f"in/{name}.mp4", 20, lossy=True)
    bad = tmp_path / "in/b.mp4"
    data = bytearray(bad.read_bytes())
    if damage == "noise":
        middle = slice(len(data) // 3, len(data) // 3 + 4000)
        data[middle] = np.random.default_rng(0).bytes(4000)
    bad.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": data}[damage])
    with pytest.raises(CorruptInputError, match=r"b\.mp4: "):
        bring("video", tmp_path / "in", tmp_path / "log")
    assert contents(tmp_path / "log")[1]["length"].tolist() == [20]
    done = bring("video", tmp_path / "in", tmp_path / "log", skip_corrupt=True)
    assert list(done.skipped) == ["b"] and "b.mp4" in done.skipped["b"]
    assert contents(tmp_path / "log")[1]["length"].tolist() == [20, 20]


def test_cameras_that_do_not_end_together_are_a_fault(tmp_path):
    film(tmp_path / "in/left/a.mkv", 5)
    film(tmp_path / "in/right/a.mkv", 6)
    with pytest.raises(CorruptInputError, match="ends after 5 frames, others do not"):
        bring("video", tmp_path / "in", tmp_path / "log")
