"""Crop and resize: in the import of every format, and of a log's images as they are read."""

import json
import pickle

import cv2
import numpy as np
import pytest

from tests.wm_datasets.formats.test_base import contents, export, import_log
from tests.wm_datasets.log_rows import make_row, make_spec
from wm_datasets import LogReader, LogWriter, Sampler
from wm_datasets.errors import LogSpecError
from wm_datasets.formats import FORMATS, FormatError, Options, open_exporter, open_source
from wm_datasets.images import CropResize
from wm_datasets.sampling.resized_log import resized
from wm_datasets.sensors import SensorSpec

SIDE = 24


def noise_image(number, height=SIDE, width=SIDE):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def log_of(path, lengths, size=(SIDE, SIDE), sensors=None):
    """A log of one camera with noise in its images."""
    spec = make_spec(cameras={"front": (*size, 3)}, sensors=sensors or {})
    with LogWriter(path, spec) as writer:
        for rows in lengths:
            for step in range(rows):
                row = make_row(writer.length, step, step == rows - 1)
                row["image/front"] = noise_image(writer.length, *size)
                for name, sensor in spec.sensors.items():
                    row[f"sensor/{name}"] = np.full(sensor.shape, writer.length, sensor.stored)
                writer.append({name: row[name] for name in spec.fields})
    return path


# The operation


def test_a_smaller_image_is_averaged_over_areas_and_a_larger_one_interpolated():
    image = noise_image(0)
    small = CropResize(8, 8)(image)
    blocks = image.reshape(8, 3, 8, 3, 3).astype(float).mean((1, 3))
    assert np.abs(small - blocks).max() <= 0.5
    expected = cv2.resize(image, (48, 48), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(CropResize(48, 48)(image), expected)


def test_images_are_cropped_before_resizing_and_depth_is_not_interpolated():
    image = noise_image(0, 20, 40)
    change = CropResize(5, 5, (0.5, 0.0, 0.25, 0.5))
    assert change.size(20, 40) == (5, 5) and CropResize(crop=change.crop).size(20, 40) == (10, 10)
    assert np.array_equal(change(image), CropResize(5, 5)(image[:10, 20:30]))
    depth = np.where(np.arange(400).reshape(20, 20) % 3, 3000, 0).astype(np.uint16)
    assert set(np.unique(CropResize(7, 7, nearest=True)(depth))) <= {0, 3000}
    with pytest.raises(ValueError, match="which the crop leaves empty"):
        CropResize(4, 4, (0.5, 0.0, 0.45, 0.0)).size(10, 2)


# Imports


def source_of(name, log, folder):
    """Export a log in a format; return the path."""
    options = {"layout": "point_maze"} if name == "dino_wm" else {}
    export(name, log, folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_crops_and_resizes(tmp_path, name):
    need = {"robomimic": "h5py", "video": "av", "rosbag": "rosbags", "lerobot": "pyarrow"}
    if name in need:
        pytest.importorskip(need[name])
    source = source_of(name, log_of(tmp_path / "log", [4, 3]), tmp_path)
    crop, size = (0.25, 0.0, 0.0, 0.25), (9, 6)
    import_log(name, source, tmp_path / "plain")
    import_log(name, source, tmp_path / "out", crop=crop, size=size)
    (before, _, plain), (spec, episodes, rows) = (
        contents(tmp_path / "plain"),
        contents(tmp_path / "out"),
    )
    (camera,) = spec.cameras
    assert spec.cameras[camera] == (9, 6, 3) and len(episodes) == 2
    assert spec.extra["resized"] == {"size": [9, 6], "crop": list(crop)}
    change = CropResize(*size, crop)
    expected = np.stack([change(image) for image in plain[f"image/{camera}"]])
    assert np.array_equal(rows[f"image/{camera}"], expected)
    for field in before.fields.keys() - {f"image/{camera}"}:
        assert np.array_equal(rows[field], plain[field]), field
    with open_source(name, source, Options(size=size)) as opened:
        assert any("resized to 9 x 6" in note for note in opened.notes)


def test_depth_is_resized_and_other_sensors_stay(tmp_path):
    pytest.importorskip("rosbags")
    sensors = {"depth": SensorSpec.depth(SIDE, SIDE)}
    log = log_of(tmp_path / "log", [4], sensors=sensors)
    source = source_of("rosbag", log, tmp_path)
    import_log("rosbag", source, tmp_path / "out", size=(8, 8))
    spec, _, rows = contents(tmp_path / "out")
    assert spec.sensors["depth"].shape == (8, 8)
    assert (rows["sensor/depth"] == np.arange(4)[:, None, None]).all()


def test_frames_of_several_sizes_need_a_size(tmp_path):
    pytest.importorskip("av")
    from wm_datasets.formats.video import encode

    (tmp_path / "in").mkdir()
    images = {}
    for name, size in (("a", (SIDE, 32)), ("b", (16, 20))):
        images[name] = np.stack([noise_image(i, *size) for i in range(3)])
        stamps = np.arange(3) * 40_000_000
        encode(tmp_path / f"in/{name}.mkv", iter(images[name]), stamps, 0.04, False)
    with pytest.raises(FormatError, match="--size HEIGHT WIDTH"):
        import_log("video", tmp_path / "in", tmp_path / "log", crop=(0.1, 0, 0, 0))
    assert not (tmp_path / "log").exists()
    import_log("video", tmp_path / "in", tmp_path / "log", size=(8, 8))
    expected = [CropResize(8, 8)(image) for name in "ab" for image in images[name]]
    assert np.array_equal(contents(tmp_path / "log")[2]["image/camera"], np.stack(expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, "--size: got"),
        ({"crop": (0.5, 0, 0.5, 0)}, "--crop: got"),
        ({"crop": (0.5, 0, 0.49, 0)}, "--crop: image: got .* leaves empty"),
    ],
)
def test_a_size_or_crop_without_pixels_is_refused_before_anything_is_written(
    tmp_path, options, message
):
    source = source_of("dino_wm", log_of(tmp_path / "log", [3], (4, 6)), tmp_path)
    with pytest.raises(FormatError, match=message):
        import_log("dino_wm", source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_source_without_images_has_none_to_resize(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        env = {"env_name": "Lift", "env_kwargs": {"robots": "Panda", "control_freq": 20}}
        file.create_group("data").attrs["env_args"] = json.dumps(env)
        file["data/demo_0/actions"] = np.ones((3, 2))
        file["data/demo_0/obs/eef"] = np.ones((3, 2))
    with pytest.raises(FormatError, match="--size: the source has no images"):
        import_log("robomimic", tmp_path / "a.hdf5", tmp_path / "out", size=(8, 8))


# Options that a format does not use

IMPORTS = {"camera": "hand", "topics": "x.yaml"}
EXPORTS = {"lossy": True, "layout": "wall", "version": "v2.1", "topics": "x.yaml"}
USED = {
    "robomimic": (set(), set()),
    "video": ({"camera"}, {"lossy"}),
    "dino_wm": ({"camera"}, {"layout"}),
    "rosbag": ({"topics"}, {"lossy", "layout", "topics"}),
    "lerobot": (set(), {"lossy", "version"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_option_that_a_format_does_not_use_is_refused_by_name(tmp_path, name):
    import_options, export_options = USED[name]
    for option, value in IMPORTS.items():
        if option not in import_options:
            with pytest.raises(FormatError, match=f"--{option}: got .* import of {name}"):
                open_source(name, tmp_path, Options(**{option: value}))
    with LogReader(log_of(tmp_path / "log", [3])) as reader:
        for option, value in EXPORTS.items():
            if option not in export_options:
                with pytest.raises(FormatError, match=f"--{option}: got .* export to {name}"):
                    open_exporter(name, reader, Options(**{option: value}))


@pytest.mark.parametrize("name", ["robomimic", "dino_wm", "rosbag", "lerobot"])
def test_an_import_of_an_exported_log_refuses_another_robot_task_or_period(tmp_path, name):
    need = {"robomimic": "h5py", "rosbag": "rosbags", "lerobot": "pyarrow"}
    if name in need:
        pytest.importorskip(need[name])
    source = source_of(name, log_of(tmp_path / "log", [3]), tmp_path)
    for option, value in (("robot", "other"), ("task", "other"), ("period_s", 0.1)):
        with pytest.raises(FormatError, match="came from a log"):
            open_source(name, source, Options(**{option: value}))


def test_folders_name_the_cameras_of_a_video(make_log, tmp_path):
    pytest.importorskip("av")
    export("video", make_log([3]), tmp_path / "films")
    with pytest.raises(FormatError, match=r"--camera: got 'hand', .* folders name"):
        import_log("video", tmp_path / "films", tmp_path / "out", camera="hand")


# Resized logs


def test_a_resized_log_is_the_log_with_smaller_images(tmp_path):
    log = log_of(tmp_path / "log", [100, 70])
    with LogReader(log) as reader, LogReader(log) as plain:
        small = resized(reader, "front", 8, 8)
        assert small.spec.cameras == {"front": (8, 8, 3)}
        assert (small.length, small.identity) == (plain.length, plain.identity)
        expected = np.stack([CropResize(8, 8)(i) for i in plain.read("image/front", 0, 170)])
        assert np.array_equal(small.read("image/front", 0, 170), expected)
        assert np.array_equal(small.read_around("image/front", 65, 131), expected[65:131])
        out = np.zeros((66, 8, 8, 3), np.uint8)
        assert small.read("image/front", 65, 131, out) is out
        assert np.array_equal(out, expected[65:131])
        rows, all_rows = small.read_rows(3, 5), plain.read_rows(3, 5)
        assert rows.keys() == all_rows.keys()
        assert np.array_equal(rows["proprio"], all_rows["proprio"])
        assert np.array_equal(rows["image/front"], expected[3:5])
        assert resized(small, "front", 8, 8) is small
        assert resized(reader, "front", SIDE, SIDE) is reader
        with pytest.raises(LogSpecError, match="camera: got 'side', expected one of"):
            resized(reader, "side", 8, 8)


@pytest.mark.parametrize("memory", [1 << 20, 1])
def test_a_sampler_draws_the_same_windows_resized(tmp_path, memory):
    """From memory, and from decoded files beside those of the same log at its original size."""
    log = log_of(tmp_path / "log", [60, 50, 40])
    options = {"batch": 6, "length": 4, "seed": 3, "fields": ["image/front", "proprio"]}
    options |= {"cache_bytes": memory, "cache_folder": tmp_path / "cache"}
    with LogReader(log) as one, LogReader(log) as other:
        plain = Sampler(one, **options)
        small = Sampler([(resized(other, "front", 8, 8), 1.0)], **options)
        for _ in range(5):
            plain_batch, small_batch = plain.sample(), small.sample()
            assert np.array_equal(plain_batch["proprio"], small_batch["proprio"])
            images = plain_batch["image/front"].reshape(-1, SIDE, SIDE, 3)
            expected = np.stack([CropResize(8, 8)(image) for image in images])
            assert np.array_equal(small_batch["image/front"].reshape(expected.shape), expected)
        plain.close(), small.close()


def test_a_log_that_grows_grows_resized(tmp_path):
    log = log_of(tmp_path / "log", [5])
    with LogReader(log) as reader:
        small = resized(reader, "front", 8, 8)
        log_of(log, [4])
        assert small.refresh() and small.length == 9
        assert np.array_equal(small.read("image/front", 8, 9)[0], CropResize(8, 8)(noise_image(8)))


def test_a_log_of_an_import_without_a_size_is_untouched(tmp_path):
    source = source_of("dino_wm", log_of(tmp_path / "log", [3]), tmp_path)
    assert pickle.loads(pickle.dumps(Options())).changed() == []
    import_log("dino_wm", source, tmp_path / "out")
    assert "resized" not in contents(tmp_path / "out")[0].extra
