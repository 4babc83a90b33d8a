"""Pixels of ROS images, raw or compressed: bytes and encodings in, arrays out, without ROS.

Bags and live topics are decoded here alike. `data` is anything with a buffer of bytes. The formats
of CompressedImage are those of image_transport: `jpeg`, `png`, `rgb8; jpeg compressed bgr8`,
`16UC1; png compressed`, `16UC1; compressedDepth png`, `32FC1; compressedDepth png`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

# Encoding -> bytes of a pixel, and which of them are red, green and blue.
COLORS = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)),
          "bgra8": (4, (2, 1, 0)), "mono8": (1, (0, 0, 0)), "8UC1": (1, (0, 0, 0)),
          "8UC3": (3, (2, 1, 0))}  # fmt: skip
DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}  # mm, mm, m
DEEP = "compressedDepth"
_CONFIG = np.dtype([("format", "<i4"), ("a", "<f4"), ("b", "<f4")])  # before a compressedDepth PNG
MOST_PIXELS = 2**26  # of a compressed image, whose few bytes may declare any size
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class ImageError(ValueError):
    """An image that cannot be used; `reason`: encoding, size or data."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def rgb(data: Any, encoding: str, height: int, width: int, step: int) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) RGB of a raw image; it may share the memory of `data`."""
    if encoding not in COLORS:
        right = ", ".join(COLORS)
        raise ImageError("encoding", f"encoding: got {encoding!r}, expected one of {right}.")
    channels, order = COLORS[encoding]
    pixels = _lines(data, encoding, height, width, step, channels)
    pixels = pixels.reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, 2::-1] if order == (2, 1, 0) else pixels[:, :, :3]


def distances(
    data: Any, encoding: str, height: int, width: int, step: int, big_endian: bool
) -> npt.NDArray[Any]:
    """Return (H, W) of a raw depth image: uint16 [mm] or float32 [m], as it was sent."""
    if encoding not in DEPTHS:
        right = ", ".join(DEPTHS)
        raise ImageError("encoding", f"encoding: got {encoding!r}, expected one of {right}.")
    kind = np.dtype(DEPTHS[encoding]).newbyteorder(">" if big_endian else "<")
    lines = _lines(data, encoding, height, width, step, kind.itemsize)
    values = np.ascontiguousarray(lines).view(kind)
    return values.astype(kind.newbyteorder("="), copy=False)


def compressed_rgb(data: Any, fmt: str) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) RGB of a compressed image."""
    encoding = _encoding(fmt)
    if is_depth(fmt):
        raise ImageError(
            "encoding", f"format: got {fmt!r}, a depth image, expected a color or grey image."
        )
    if encoding.startswith("bayer") and "compressed bgr" not in fmt:
        raise ImageError(
            "encoding", f"format: got {fmt!r}, a Bayer pattern, expected a debayered image."
        )
    pixels = _decoded(data, fmt)
    if pixels.dtype != np.uint8:
        bits = 8 * pixels.dtype.itemsize
        raise ImageError("encoding", f"image: got {fmt!r} with {bits} bits a channel, expected 8.")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    swapped = "compressed rgb" in fmt  # the encoder was given RGB where it expects BGR
    return np.ascontiguousarray(pixels[:, :, :3] if swapped else pixels[:, :, 2::-1])


def compressed_distances(data: Any, fmt: str) -> npt.NDArray[Any]:
    """Return (H, W) of a compressed depth image: uint16 [mm], or float32 [m] of `32FC1`."""
    encoding = _encoding(fmt)
    if "rvl" in fmt.lower().split():
        raise ImageError(
            "encoding",
            f"format: got {fmt!r}, expected PNG. RVL is not decoded: set the publisher's parameter "
            "compressedDepth.format to png, or republish as raw (image_transport).",
        )
    if DEEP not in fmt:
        if encoding == "32FC1":
            raise ImageError("encoding", f"format: got {fmt!r}, expected '32FC1; {DEEP} png'.")
        return _sixteen_bits(_decoded(data, fmt), fmt)
    raw = _bytes(data)
    if len(raw) <= _CONFIG.itemsize:
        raise ImageError(
            "size", f"image: got {len(raw)} bytes of {fmt!r}, expected a header and a PNG."
        )
    values = _sixteen_bits(_decoded(raw[_CONFIG.itemsize :], fmt), fmt)
    if encoding != "32FC1":
        return values
    a, b = np.frombuffer(raw[: _CONFIG.itemsize], _CONFIG)[0].tolist()[1:]
    if not (np.isfinite([a, b]).all() and a > 0):
        raise ImageError(
            "data", f"depthParam: got [{a}, {b}] of {fmt!r}, expected finite numbers, a > 0."
        )
    valid = (values > 0) & (values > b)  # inverse depth: 0 is unknown, b is infinity
    return np.where(valid, a / np.where(valid, values - np.float32(b), 1), 0).astype(np.float32)


def is_depth(fmt: str) -> bool:
    """Whether the format of a compressed image says that it holds distances."""
    return DEEP in fmt or _encoding(fmt) in DEPTHS


def to_mm(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return distances as uint16 [mm]; 0 where unknown, or too far for the type (65.5 m).

    Unknown are NaN, infinite and negative distances.
    """
    if values.dtype.kind == "u":
        return values.astype(np.uint16, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.rint(values.astype(np.float64) * 1e3)
        return np.where((far > 0) & (far <= np.iinfo(np.uint16).max), far, 0).astype(np.uint16)


def to_m(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return distances as float32 [m]."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) * np.float32(1e-3)
    return values.astype(np.float32, copy=False)


def _encoding(fmt: str) -> str:
    """The encoding before it was compressed; "": the format does not say."""
    before, divided, _ = fmt.partition(";")
    return before.strip() if divided else ""


def _bytes(data: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)


def _lines(
    data: Any, encoding: str, height: int, width: int, step: int, pixel_bytes: int
) -> npt.NDArray[np.uint8]:
    """Return (H, W * pixel_bytes), without what pads the lines."""
    used = width * pixel_bytes
    if not height or not width or step < used or len(data) != step * height:
        raise ImageError(
            "size",
            f"image: got {width}x{height} {encoding} with step {step} and {len(data)} bytes, "
            f"expected step >= {used} and step * height bytes.",
        )
    return _bytes(data).reshape(height, step)[:, :used]


def _decoded(data: Any, fmt: str) -> npt.NDArray[Any]:
    """Return (H, W) or (H, W, channels), blue first, of an image file, without its orientation."""
    import cv2

    raw = _bytes(data)
    whole, pixels = raw.tobytes(), None
    if whole.startswith(_JPEG) and whole.rfind(_JPEG_END) < whole.rfind(_JPEG_SCAN):
        raise ImageError(
            "data",
            f"image: got {len(raw)} bytes of {fmt!r}, a JPEG that is cut short, expected a whole "
            "one.",
        )
    if whole.startswith(_PNG) and _PNG_END not in whole[-64:]:
        raise ImageError(
            "data",
            f"image: got {len(raw)} bytes of {fmt!r}, a PNG that is cut short, expected a whole "
            "one.",
        )
    height, width = _declared(whole)
    if height * width > MOST_PIXELS:
        raise ImageError(
            "size",
            f"image: got {fmt!r} of {width}x{height}, expected at most {MOST_PIXELS} pixels.",
        )
    if len(raw):
        try:
            pixels = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
    if pixels is None:
        raise ImageError(
            "data", f"image: got {len(raw)} bytes of {fmt!r}, expected a readable image."
        )
    return np.asarray(pixels)


def _declared(file: bytes) -> tuple[int, int]:
    """Return height and width that a PNG or JPEG declares; zeros: another kind of file."""
    if file.startswith(_PNG) and len(file) >= 24:
        width, height = struct.unpack_from(">II", file, 16)
        return height, width
    at = 2
    while file.startswith(_JPEG) and at + 9 <= len(file) and file[at] == 0xFF:
        if 0xC0 <= file[at + 1] <= 0xCF and file[at + 1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", file, at + 5)
            return height, width
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return 0, 0


def _sixteen_bits(pixels: npt.NDArray[Any], fmt: str) -> npt.NDArray[np.uint16]:
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ImageError(
            "encoding",
            f"image: got {fmt!r} of {pixels.dtype} {pixels.shape}, expected a depth image of 16 "
            "bits.",
        )
    return pixels
