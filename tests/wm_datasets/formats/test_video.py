"""Plain video in and out."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import contents, export, import_log
from wm_datasets.formats import CorruptInputError, FormatError, Options, open_source

av = pytest.importorskip("av")
from wm_datasets.formats.video import encode  # noqa: E402
from wm_datasets.formats.video_decoder import decode  # noqa: E402


def write_video(path, frames=10, size=(32, 48), stamps=None, lossy=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(frames)
    images = random.integers(0, 256, (frames, *size, 3), np.uint8)
    stamps = np.arange(frames) * 40_000_000 if stamps is None else stamps
    encode(path, iter(images), stamps, 0.04, lossy)
    return images


def losses(source, **options):
    with open_source("video", source, Options(**options)) as importer:
        return " ".join([*importer.losses, *importer.notes])


def test_files_become_a_log_without_actions_with_every_pixel_and_stamp(tmp_path):
    uneven = np.array([0, 40, 75, 160]) * 1_000_000
    one = write_video(tmp_path / "in/a.mkv", 4, stamps=uneven)
    two = write_video(tmp_path / "in/b.mkv", 10)
    import_log("video", tmp_path / "in", tmp_path / "log", camera="top", robot="hand")
    spec, episodes, rows = contents(tmp_path / "log")
    assert (spec.robot, spec.action, spec.proprio, spec.reward) == ("hand", None, None, False)
    assert spec.control_period_s == pytest.approx(0.04)
    assert not {"action", "commanded", "reward", "proprio"} & rows.keys()
    assert episodes["length"].tolist() == [4, 10] and episodes["complete"].all()
    assert np.array_equal(rows["image/top"], np.concatenate([one, two]))
    assert np.array_equal(rows["stamp"][:4], uneven)


def test_frames_and_cameras_of_a_log_are_restored_exactly(make_log, tmp_path):
    log = make_log([5, 17])
    losses = export("video", log, tmp_path / "videos")
    assert "action, commanded, reward" in losses[0]
    import_log("video", tmp_path / "videos", tmp_path / "out")
    (spec, episodes, rows), (spec2, episodes2, rows2) = contents(log), contents(tmp_path / "out")
    assert spec2.cameras == spec.cameras
    assert spec2.control_period_s == pytest.approx(spec.control_period_s)
    assert episodes2.tolist() == episodes.tolist()
    for camera in spec.cameras:
        assert np.array_equal(rows2[f"image/{camera}"], rows[f"image/{camera}"])
    first = rows["stamp"][episodes["start"]].repeat(episodes["length"])
    assert np.abs(rows2["stamp"] - (rows["stamp"] - first)).max() <= 1_000_000


def test_lossy_video_is_reported_and_close_to_the_images(tmp_path, make_log):
    assert any("H.264" in x for x in export("video", make_log([3]), tmp_path / "f", lossy=True))
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None] * 3, (64, 64))
    images = np.stack([np.stack([ramp] * 3, -1)] * 5)
    encode(tmp_path / "a.mp4", iter(images), np.arange(5) * 50_000_000, 0.05, True)
    decoded = list(decode(tmp_path / "a.mp4"))
    assert [stamp for stamp, _ in decoded] == [50_000_000 * i for i in range(5)]
    assert np.abs(decoded[2][1].astype(int) - images[2]).mean() < 3


def test_a_single_file_is_one_episode(tmp_path):
    write_video(tmp_path / "wave.mp4", 6, lossy=True)
    import_log("video", tmp_path / "wave.mp4", tmp_path / "log")
    spec, episodes, _ = contents(tmp_path / "log")
    assert (spec.task, list(spec.cameras), len(episodes)) == ("wave", ["camera"], 1)


def test_different_sizes_need_a_size_and_resizing_is_reported(tmp_path):
    write_video(tmp_path / "in/a.mkv")
    write_video(tmp_path / "in/b.mkv", size=(64, 64))
    with pytest.raises(FormatError, match="--size"):
        import_log("video", tmp_path / "in", tmp_path / "log")
    assert "resized to 16 x 24" in losses(tmp_path / "in", size=(16, 24))
    import_log("video", tmp_path / "in", tmp_path / "log", size=(16, 24))
    assert contents(tmp_path / "log")[2]["image/camera"].shape == (20, 16, 24, 3)


def test_different_rates_are_reported(tmp_path):
    write_video(tmp_path / "in/a.mp4", lossy=True)
    encode(tmp_path / "in/b.mp4", iter(np.zeros((9, 32, 48, 3), np.uint8)),
           np.arange(9) * 100_000_000, 0.1, True)  # fmt: skip
    assert "one rate: the files have [10.0, 25.0] Hz" in losses(tmp_path / "in")


@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_corrupt_file_is_named_and_skipped_only_on_request(tmp_path, damage):
    for name in "abc":
        write_video(tmp_path / f"in/{name}.mp4", 20, lossy=True)
    corrupt = tmp_path / "in/b.mp4"
    data = bytearray(corrupt.read_bytes())
    if damage == "noise":
        middle = slice(len(data) // 3, len(data) // 3 + 4000)
        data[middle] = np.random.default_rng(0).bytes(4000)
    corrupt.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": data}[damage])
    with pytest.raises(CorruptInputError, match=r"b\.mp4: "):
        import_log("video", tmp_path / "in", tmp_path / "log")
    assert contents(tmp_path / "log")[1]["length"].tolist() == [20]
    result = import_log("video", tmp_path / "in", tmp_path / "log", skip_corrupt=True)
    assert list(result.skipped) == ["b"] and "b.mp4" in result.skipped["b"]
    assert contents(tmp_path / "log")[1]["length"].tolist() == [20, 20]


def test_cameras_that_do_not_end_together_are_a_fault(tmp_path):
    write_video(tmp_path / "in/left/a.mkv", 5)
    write_video(tmp_path / "in/right/a.mkv", 6)
    with pytest.raises(
        CorruptInputError, match="got 5 frames, expected as many as other cameras have"
    ):
        import_log("video", tmp_path / "in", tmp_path / "log")


# Display matrix


def patch(path, box, offset, fmt, *values):
    """Overwrite numbers of an MP4 box, `offset` bytes behind its name."""
    data = bytearray(path.read_bytes())
    struct.pack_into(fmt, data, data.index(box) + 4 + offset, *values)
    path.write_bytes(data)


def decoded_by_ffmpeg(path, filters):
    """Decode with filters of ffmpeg; the display matrix is ignored."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        last = graph.add_buffer(template=stream)
        for name, arguments in filters:
            node = graph.add(name, arguments)
            last.link_to(node)
            last = node
        sink = graph.add("buffersink")
        last.link_to(sink)
        graph.configure()
        for frame in container.decode(stream):
            graph.push(frame)
            frames.append(graph.pull().to_ndarray(format="rgb24"))
    return np.stack(frames)


@pytest.mark.parametrize(
    ("matrix", "filters"),
    [
        ((1, 0, 0, 1), []),
        ((0, 1, -1, 0), [("transpose", "clock")]),
        ((0, -1, 1, 0), [("transpose", "cclock")]),
        ((-1, 0, 0, -1), [("hflip", ""), ("vflip", "")]),
        ((-1, 0, 0, 1), [("hflip", "")]),
        ((1, 0, 0, -1), [("vflip", "")]),
        ((0, 1, 1, 0), [("transpose", "cclock_flip")]),
        ((0, -1, -1, 0), [("transpose", "clock_flip")]),
    ],
)
def test_frames_are_rotated_by_the_display_matrix(tmp_path, matrix, filters):
    write_video(tmp_path / "a.mp4", 3, lossy=True)
    a, b, c, d = (65536 * n for n in matrix)
    patch(tmp_path / "a.mp4", b"tkhd", 40, ">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    expected = decoded_by_ffmpeg(tmp_path / "a.mp4", filters)
    import_log("video", tmp_path / "a.mp4", tmp_path / "log")
    spec, _, rows = contents(tmp_path / "log")
    assert spec.cameras["camera"] == expected.shape[1:]
    assert np.abs(rows["image/camera"].astype(int) - expected).max() <= 2  # of 4:2:0, turned


def test_a_rotation_that_is_no_multiple_of_90_degrees_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4", 3, lossy=True)
    patch(tmp_path / "a.mp4", b"tkhd", 40, ">5i", 56756, 32768, 0, -32768, 56756)  # 30 degrees
    with pytest.raises(
        CorruptInputError, match=r"a\.mp4: .*rotation: got 30 degrees, expected a multiple of 90"
    ):
        list(decode(tmp_path / "a.mp4"))


# Complete files, and files that were cut


def with_sound(path, frames=60, seconds=2.4):
    """A video whose sound lasts `seconds`; its frames last 0.04 s each."""
    with av.open(str(path), "w") as container:
        exact = path.suffix != ".mov"
        video = container.add_stream("ffv1" if exact else "libx264", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "bgr0" if exact else "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000)
        random = np.random.default_rng(0)
        for number in range(max(frames, round(seconds * 25))):
            if number < frames:
                pixels = random.integers(0, 256, (32, 48, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(video.encode(frame))
            if number < round(seconds * 25):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 320), "i2"), "s16", "mono")
                part.sample_rate, part.pts = 8000, 320 * number
                container.mux(sound.encode(part))
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize("share", [0.2, 0.62, 0.9])
@pytest.mark.parametrize(
    ("suffix", "kind"), [("mkv", "even"), ("mkv", "uneven"), ("mkv", "sound"), ("avi", "sound")]
)
def test_a_cut_file_is_named(tmp_path, share, suffix, kind):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    gaps = np.random.default_rng(1).integers(20, 90, 59) * 1_000_000
    if kind == "sound":
        with_sound(whole)
    else:
        write_video(whole, 60, stamps=None if kind == "even" else np.cumsum([0, *gaps]))
    assert len(list(decode(whole))) == 60
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(CorruptInputError, match=rf"cut\.{suffix}: "):
        list(decode(cut))


@pytest.mark.parametrize("seconds", [1.0, 4.0])
@pytest.mark.parametrize("suffix", ["mkv", "mov", "avi"])
def test_sound_may_be_shorter_or_longer_than_the_frames(tmp_path, suffix, seconds):
    path = with_sound(tmp_path / f"a.{suffix}", seconds=seconds)
    assert len(list(decode(path))) == 60


def test_an_edit_list_selects_the_frames(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, 60, lossy=True)
    frames = [frame for _, frame in decode(path)]
    # from 0.5 s on, 1.9 s of 2.4 s: what `ffmpeg -ss 0.5 -c copy` writes
    patch(path, b"elst", 8, ">Ii", 1900, 580_000)
    edited = list(decode(path))
    assert len(edited) == 47 and edited[0][0] == 0
    assert all(np.array_equal(a, b) for (_, a), b in zip(edited, frames[13:], strict=True))


def test_a_cut_mp4_with_its_header_in_front_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, 60, lossy=True)
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    front = tmp_path / "front.mp4"
    assert len(list(decode(front))) == 60
    for share in (0.3, 0.62, 0.9):
        (tmp_path / "cut.mp4").write_bytes(front.read_bytes()[: int(share * front.stat().st_size)])
        with pytest.raises(CorruptInputError, match=r"cut\.mp4: "):
            list(decode(tmp_path / "cut.mp4"))
