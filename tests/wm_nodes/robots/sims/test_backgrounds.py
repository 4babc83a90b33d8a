"""Backgrounds: what is replaced, by which clips, and how wrong ones are refused."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from wm_nodes.robots.robot import RobotError
from wm_nodes.robots.sims import backgrounds
from wm_nodes.robots.sims.background_sources import (
    PROCEDURAL,
    BackgroundError,
    checked,
    find_videos,
)
from wm_nodes.robots.sims.backgrounds import Procedural, composed, open_background

SIZE = 16
BLUE = np.full((SIZE, SIZE, 3), (10, 20, 30), np.uint8)  # all of it is background


def write_clip(
    path: Path, grey: int, frames: int = 5, size: tuple[int, int] = (48, 64), kind: str = "mp4"
) -> None:
    """Write a video whose frame k is grey + 10 k all over."""
    av = pytest.importorskip("av", reason="needs the [formats] extra")
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            image = np.full((*size, 3), grey + 10 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, size in enumerate([(48, 64), (64, 32), (48, 64), (32, 32)]):
        write_clip(tmp_path / f"{index}.mp4", 20 + 60 * index, size=size)
    (tmp_path / "notes.txt").write_text("no video")
    return tmp_path


def greys(background, seed: int, evaluation: bool, frames: int = 7) -> list[float]:
    background.begin(seed, evaluation=evaluation)
    return [float(background.behind({"main": BLUE})["main"].mean()) for _ in range(frames)]


def test_only_pixels_whose_blue_is_largest_are_replaced():
    image = np.array([[[1, 2, 3], [3, 2, 3], [1, 3, 3], [0, 0, 1], [9, 9, 9]]], np.uint8)
    frame = np.full_like(image, 77)
    replaced = (composed(image, frame) == 77).all(axis=-1)
    assert replaced.tolist() == [[True, False, False, True, False]]
    np.testing.assert_array_equal(composed(image, frame)[~replaced], image[~replaced])


def test_a_clip_plays_one_frame_for_each_observation_and_begins_again(folder):
    shown = greys(open_background(str(folder), SIZE), seed=1, evaluation=False)
    steps = np.diff(shown)
    assert np.abs(steps[steps > 0] - 10).max() < 3  # the codec's loss
    assert (steps < 0).any() and np.abs(steps[steps < 0] + 40).max() < 6
    assert shown[5:] == shown[:2]


def test_all_cameras_show_the_same_frame(folder):
    background = open_background(str(folder), SIZE)
    background.begin(0, evaluation=False)
    images = background.behind({"one": BLUE, "other": BLUE})
    np.testing.assert_array_equal(images["one"], images["other"])


def test_a_seed_decides_clip_and_frame_whatever_was_shown_before(folder):
    one, other = (open_background(str(folder), SIZE) for _ in range(2))
    greys(other, 5, True, frames=3)
    assert greys(one, 9, False) == greys(other, 9, False)
    assert len({tuple(greys(one, seed, False)) for seed in range(12)}) > 4


def test_training_and_evaluation_share_no_video(folder):
    training, evaluation = find_videos(str(folder))
    assert [path.name for path in training] == ["0.mp4", "2.mp4"]
    assert [path.name for path in evaluation] == ["1.mp4", "3.mp4"]
    background = open_background(str(folder), SIZE)
    shown = [
        {(grey - 10) // 60 for seed in range(12) for grey in greys(background, seed, each, 1)}
        for each in (False, True)
    ]
    assert shown == [{0, 2}, {1, 3}]


def test_at_most_a_hundred_clips_of_a_set_and_the_first_frames_of_each(folder, monkeypatch):
    for index in range(220):
        (folder / f"x{index:03d}.mp4").touch()
    assert [len(each) for each in find_videos(str(folder))] == [100, 100]
    for path in folder.glob("x*.mp4"):
        path.unlink()
    monkeypatch.setattr(backgrounds, "FRAMES", 2)
    assert len(set(greys(open_background(str(folder), SIZE), 0, False))) == 2


def test_a_video_that_was_cut_ends_at_its_last_good_frame(folder):
    path = folder / "0.mkv"
    write_clip(path, 20, frames=20, kind="matroska")
    whole = backgrounds._decoder(SIZE)(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    rest = backgrounds._decoder(SIZE)(path)
    assert 1 <= len(rest) < len(whole) == 20
    np.testing.assert_array_equal(rest, whole[: len(rest)])


@pytest.mark.parametrize("name", PROCEDURAL)
def test_procedural_clips_are_those_of_their_number_and_loop(name):
    clip, again = (Procedural(name, SIZE).clip(False, 3) for _ in range(2))
    for frame in (0, 1, 500, len(clip) - 1):
        assert clip[frame].shape == (SIZE, SIZE, 3) and clip[frame].dtype == np.uint8
        np.testing.assert_array_equal(clip[frame], again[frame])
    others = [Procedural(name, SIZE).clip(*which)[0] for which in ((True, 3), (False, 4))]
    assert all((other != clip[0]).any() for other in others)
    first, last = clip[0].astype(int), clip[len(clip) - 1].astype(int)
    assert np.abs(first - last).mean() < 16  # no jump


def test_static_stands_distracting_moves_everywhere_and_subtle_little():
    changed = {}
    for name in PROCEDURAL:
        clip = Procedural(name, 64).clip(False, 0)
        changed[name] = (clip[0] != clip[20]).any(axis=-1).mean()
    assert changed["static"] == 0
    assert changed["distracting"] > 0.9
    assert 0 < changed["subtle"] < 0.05


def test_none_is_no_background():
    assert open_background("none", SIZE) is None
    assert checked("none") == "none"


def broken(folder: Path) -> str:
    (folder / "3.mp4").write_bytes(b"no video at all" * 100)
    return str(folder)


def empty(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def single(folder: Path) -> str:
    for path in list(islice(folder.glob("*.mp4"), 3)):
        path.unlink()
    return str(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken, "3.mp4, which cannot be read.*Remove it"),
        (empty, "got 0 videos.*at least two.*procedural"),
        (single, "got 1 videos.*at least two"),
        (lambda folder: str(folder / "nowhere"), "no readable folder.*expected none; procedural"),
        (lambda folder: str(folder / "notes.txt"), "no readable folder"),
        (lambda folder: "procedural:wild", "'procedural:wild', expected .*procedural:static"),
    ],
)
def test_a_wrong_background_is_refused_in_one_line(folder, spoil, words):
    with pytest.raises(RobotError, match=words) as error:
        open_background(spoil(folder), SIZE)
    assert "\n" not in str(error.value)


def test_a_relative_folder_is_made_whole(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert checked(folder.name) == str(folder)
    with pytest.raises(BackgroundError):
        checked("nowhere")


def test_without_av_the_error_names_the_extra(folder):
    code = (
        "import sys\nsys.modules['av'] = None\n"
        "from wm_nodes.robots.robot import RobotError\n"
        "from wm_nodes.robots.sims.backgrounds import open_background\n"
        f"try:\n    open_background({str(folder)!r}, 16)\n"
        "except RobotError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240,
                          env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert "pip install 'wm_nodes[formats]'" in done.stdout
    assert not done.stderr
