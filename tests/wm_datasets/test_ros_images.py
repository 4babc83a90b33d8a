"""Images of bags and topics: every encoding gives its pixels, or is refused with its reason."""

import struct

import numpy as np
import pytest

from wm_datasets.ros_images import (
    ImageError,
    compressed_distances,
    compressed_rgb,
    distances,
    is_depth,
    rgb,
    to_m,
    to_mm,
)

cv2 = pytest.importorskip("cv2")

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), np.uint8)
BGR = np.ascontiguousarray(RGB[:, :, ::-1])
FLAT = np.full((16, 16, 3), [200, 100, 30], np.uint8)  # one colour, which JPEG keeps


def encoded(suffix, pixels):
    return cv2.imencode(suffix, np.ascontiguousarray(pixels))[1].tobytes()


def quantized(metres, quantization=100.0, farthest=10.0):
    """A 32FC1 compressedDepth message as compressed_depth_image_transport makes it."""
    a = np.float32(quantization * (quantization + 1))
    b = np.float32(1 - a / np.float32(farthest))
    with np.errstate(invalid="ignore"):
        inverse = np.where(metres < farthest, a / metres + b, 0).astype(np.uint16)
    return struct.pack("<iff", 0, a, b) + encoded(".png", inverse)


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB), ("bgr8", BGR), ("8UC3", BGR),
        ("rgba8", np.dstack([RGB, RGB[:, :, 0]])), ("bgra8", np.dstack([BGR, RGB[:, :, 0]])),
        ("mono8", RGB[:, :, :1]), ("8UC1", RGB[:, :, :1]),
    ],
)  # fmt: skip
def test_raw_encodings_become_rgb_without_their_padding(encoding, pixels):
    lines = np.pad(pixels.reshape(6, -1), ((0, 0), (0, 5)))
    expected = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else RGB
    decoded = rgb(lines.tobytes(), encoding, 6, 8, lines.shape[1])
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize(
    "fmt", ["png", "bgr8; png", "rgb8; png compressed bgr8", "rgb8;png compressed bgr8", ""]
)
def test_png_is_exact(fmt):
    assert np.array_equal(compressed_rgb(encoded(".png", BGR), fmt), RGB)


@pytest.mark.parametrize("fmt", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg"])
def test_jpeg_keeps_a_colour(fmt):
    decoded = compressed_rgb(encoded(".jpg", FLAT[:, :, ::-1]), fmt)
    assert np.abs(decoded.astype(int) - FLAT).max() <= 3


def test_channels_that_the_encoder_swapped_are_swapped_back():
    assert np.array_equal(compressed_rgb(encoded(".png", RGB), "rgb8; png compressed rgb8"), RGB)


def test_grey_and_transparent_files_become_rgb():
    grey = compressed_rgb(encoded(".png", RGB[:, :, 0]), "mono8; png compressed ")
    assert np.array_equal(grey, np.repeat(RGB[:, :, :1], 3, axis=2))
    alpha = np.dstack([BGR, np.zeros((6, 8), np.uint8)])
    assert np.array_equal(compressed_rgb(encoded(".png", alpha), "png"), RGB)


@pytest.mark.parametrize(
    "fmt", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "mono16; compressedDepth png"]
)
def test_depth_in_16_bits_is_exact(fmt):
    depth = RNG.integers(0, 65536, (5, 7), np.uint16)
    data = struct.pack("<iff", 0, 0, 0) + encoded(".png", depth)
    decoded = compressed_distances(data, fmt)
    assert decoded.dtype == np.uint16 and np.array_equal(to_mm(decoded), depth) and is_depth(fmt)
    assert np.array_equal(compressed_distances(encoded(".png", depth), "16UC1; png"), depth)


@pytest.mark.parametrize("fmt", ["32FC1; compressedDepth png", "32FC1; compressedDepth"])
def test_float_depth_is_decoded_by_its_header(fmt):
    metres = np.float32([[2.0, 0.35, 1.0, 5.0], [9.9, 10.0, 12.0, np.nan]])
    decoded = compressed_distances(quantized(metres), fmt)
    step = metres**2 / (100 * 101)  # of the quantization, which grows with the square
    assert (np.abs(decoded - metres)[0] <= 1.01 * step[0]).all()
    assert abs(decoded[1, 0] - 9.9) <= 1.01 * step[1, 0] and not decoded[1, 1:].any()
    assert abs(int(to_mm(decoded)[0, 0]) - 2000) <= 1


def test_raw_depth_of_both_byte_orders():
    metres = np.float32([[1.25, np.nan, -1.0, 70.0]])
    for big in (False, True):
        data = metres.astype(">f4" if big else "<f4").tobytes()
        assert to_mm(distances(data, "32FC1", 1, 4, 16, big)).tolist() == [[1250, 0, 0, 0]]
        data = np.uint16([[1, 65535]]).astype(">u2" if big else "<u2").tobytes()
        decoded = distances(data, "16UC1", 1, 2, 4, big)
        assert decoded.tolist() == [[1, 65535]] and to_m(decoded)[0, 0] == np.float32(1e-3)


PNG, JPEG = encoded(".png", BGR), encoded(".jpg", FLAT)
HUGE_PNG = PNG[:16] + struct.pack(">II", 40_000, 40_000) + PNG[24:]
FRAME = JPEG.index(b"\xff\xc0") + 5  # height and width
HUGE_JPEG = JPEG[:FRAME] + b"\xff" * 4 + JPEG[FRAME + 4 :]
DEEP = struct.pack("<iff", 0, 0, 0) + encoded(".png", np.full((4, 4), 900, np.uint16))


@pytest.mark.parametrize(
    ("decode", "data", "fmt", "reason", "message"),
    [
        (compressed_distances, DEEP, "16UC1; compressedDepth rvl", "encoding", "RVL is not dec"),
        (compressed_distances, DEEP, "32FC1; compressedDepth png", "data", "depthParam"),
        (compressed_distances, DEEP[:12], "16UC1; compressedDepth png", "size", "a header and"),
        (compressed_distances, PNG, "png", "encoding", "expected a depth image of 16 bits"),
        (compressed_distances, PNG, "32FC1; png compressed ", "encoding", "compressedDepth"),
        (compressed_rgb, DEEP, "16UC1; compressedDepth png", "encoding", "a depth image"),
        (compressed_rgb, DEEP[12:], "png", "encoding", "16 bits a channel"),
        (compressed_rgb, DEEP[12:], "16UC1; jpeg compressed ", "encoding", "a depth image"),
        (compressed_rgb, PNG, "bayer_rggb8; png compressed ", "encoding", "Bayer"),
        (compressed_rgb, PNG[:-20], "png", "data", "cut short"),
        (compressed_rgb, JPEG[:-20], "jpeg", "data", "cut short"),
        (compressed_rgb, HUGE_PNG, "png", "size", "of 40000x40000"),
        (compressed_rgb, HUGE_JPEG, "jpeg", "size", "of 65535x65535"),
        (compressed_rgb, b"", "jpeg", "data", "0 bytes"),
        (compressed_rgb, b"\0" * 64, "h264", "data", "expected a readable image"),
    ],
)
def test_data_that_are_no_image_are_refused_with_their_reason(decode, data, fmt, reason, message):
    with pytest.raises(ImageError, match=message) as error:
        decode(data, fmt)
    assert error.value.reason == reason and "\n" not in str(error.value)


def test_a_flipped_bit_of_a_png_never_changes_pixels():
    for place in range(len(PNG)):
        data = bytearray(PNG)
        data[place] ^= 1
        try:
            decoded = compressed_rgb(bytes(data), "png")
        except ImageError:
            continue
        assert np.array_equal(decoded, RGB), place
