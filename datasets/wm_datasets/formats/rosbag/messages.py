"""ROS messages of any type <-> stamps, vectors and pictures, without ROS."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_datasets.formats.contract import need
from wm_datasets.spec import LogSpec

SECOND_NS = 1_000_000_000
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
JOINTS = "sensor_msgs/msg/JointState"
TEXT = "std_msgs/msg/String"
FLAGS = ("is_first", "is_last", "is_terminal", "success")
SCALARS = ("reward", *FLAGS, "explore", "weights", "source")  # docs/topics.md, `step`
_ORDER = {"rgb8": [0, 1, 2], "rgba8": [0, 1, 2], "bgr8": [2, 1, 0], "bgra8": [2, 1, 0],
          "mono8": [0, 0, 0], "8UC1": [0, 0, 0], "8UC3": [2, 1, 0]}  # fmt: skip
_DEPTH = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}  # to metres
_DEPTH_HEADER = 12  # bytes before the PNG of compressed_depth_image_transport


def vector_names(spec: LogSpec) -> dict[str, list[str]]:
    """What the dimensions of the log's vectors are called in `step`, field by field."""
    kinds = (("action", "action", spec.action), ("commanded", "commanded", spec.action),
             ("signals", "signal", spec.signals))  # fmt: skip
    return {field: [f"{kind}/{name}" for name in vector.names]
            for field, kind, vector in kinds if vector is not None}  # fmt: skip


def stamp_of(message: Any) -> int | None:
    """Time in a message's header [ns]; None without one, or where nobody filled it in."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * SECOND_NS + header.stamp.nanosec or None


def picture(message: Any, depth_m: tuple[float, float] | None) -> np.ndarray:
    """Return (H, W, 3) RGB uint8 of an Image or CompressedImage; ValueError says what is wrong."""
    if hasattr(message, "format"):
        return _compressed(message, depth_m)
    encoding, height, width = message.encoding, message.height, message.width
    if encoding in _DEPTH:
        return _grey(_metres(message), depth_m)
    if encoding not in _ORDER:
        raise ValueError(f"encoding {encoding!r}, right: {', '.join([*_ORDER, *_DEPTH])}")
    channels = 1 if encoding in ("mono8", "8UC1") else 4 if "a8" in encoding else 3
    pixels = _pixels(message, channels).reshape(height, width, channels)
    return np.ascontiguousarray(pixels[:, :, _ORDER[encoding]])


def depth(message: Any) -> np.ndarray:
    """Return (H, W) uint16 [mm] of a depth Image or CompressedImage; 0: not seen, or too far."""
    if hasattr(message, "format"):
        pixels = _decoded(message, need("cv2").IMREAD_ANYDEPTH)
        if pixels.dtype != np.uint16:
            raise ValueError(f"{message.format!r} is no depth picture of 16 bits")
        return pixels
    if message.encoding not in _DEPTH:
        raise ValueError(f"encoding {message.encoding!r}, right: {', '.join(_DEPTH)}")
    millimetres = np.rint(_metres(message).astype(np.float64) * 1e3)
    seen = (millimetres > 0) & (millimetres <= np.iinfo(np.uint16).max)
    return np.where(seen, millimetres, 0).astype(np.uint16)


def depth_of(message: Any, wanted: tuple[int, ...]) -> np.ndarray:
    """Return depth(message); ValueError where its size is not `wanted`."""
    found = depth(message)
    if found.shape != wanted:
        raise ValueError(f"a depth picture of {found.shape}, the log has {wanted}")
    return found


def _metres(message: Any) -> np.ndarray:
    """The distances of a depth Image, (H, W) float32."""
    code, metres = _DEPTH[message.encoding]
    kind = np.dtype(code).newbyteorder(">" if message.is_bigendian else "<")
    values = _pixels(message, kind.itemsize).view(kind)
    return values.reshape(message.height, message.width).astype(np.float32) * np.float32(metres)


def _pixels(message: Any, pixel_bytes: int) -> np.ndarray:
    """The bytes of each pixel, (H * W * pixel_bytes,), without what pads the lines."""
    used, step = message.width * pixel_bytes, message.step
    if not used or step < used or message.data.size != step * message.height:
        raise ValueError(
            f"{message.width} x {message.height} {message.encoding} with step {step} does not "
            f"fit {message.data.size} bytes"
        )
    return np.ascontiguousarray(message.data.reshape(message.height, step)[:, :used]).reshape(-1)


def _compressed(message: Any, depth_m: tuple[float, float] | None) -> np.ndarray:
    cv2 = need("cv2")
    deep = "compressedDepth" in message.format
    pixels = _decoded(message, cv2.IMREAD_ANYDEPTH if deep or depth_m else cv2.IMREAD_COLOR)
    if pixels.dtype == np.uint16:
        return _grey(pixels.astype(np.float32) * 1e-3, depth_m)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _decoded(message: Any, flags: int) -> np.ndarray:
    deep = "compressedDepth" in message.format
    data = message.data[_DEPTH_HEADER:] if deep else message.data
    pixels = need("cv2").imdecode(np.ascontiguousarray(data), flags) if data.size else None
    if pixels is None:
        raise ValueError(f"{data.size} bytes of {message.format!r} are not a readable picture")
    return np.asarray(pixels)


def _grey(metres: np.ndarray, depth_m: tuple[float, float] | None) -> np.ndarray:
    """Depth as grey, near 1 to far 255; 0 is not seen."""
    if depth_m is None:
        raise ValueError("a depth picture. Right: say depth_m: [near, far] of it in --topics")
    near, far = depth_m
    seen = np.isfinite(metres) & (metres > 0)
    share = np.clip((np.where(seen, metres, near) - near) / (far - near), 0, 1)
    grey = np.where(seen, np.rint(1 + 254 * share), 0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def dimensions(message: Any, fields: tuple[str, ...]) -> tuple[str, ...]:
    """What the numbers in some fields of a message are called."""
    names: list[str] = []
    joints = list(getattr(message, "name", []))
    for field in fields:
        value = np.asarray(_field(message, field))
        if value.ndim == 0:
            names.append(field)
        elif joints and value.size == len(joints):
            names += joints if field == "position" else [f"{j}/{field}" for j in joints]
        else:
            names += [f"{field}[{i}]" for i in range(value.size)]
    return tuple(names)


def vector(message: Any, fields: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray | None:
    """Return the named numbers of a message, float32; None when it is about other joints.

    A message that names its numbers is asked by name, the numbers of others come in order.
    """
    values = np.concatenate([np.asarray(_field(message, f), np.float64).reshape(-1)
                             for f in fields])  # fmt: skip
    if len(getattr(message, "name", ())):
        at = {name: i for i, name in enumerate(dimensions(message, fields))}
        if not all(name in at for name in names):
            return None
        values = values[[at[name] for name in names]]
    elif len(values) != len(names):
        raise ValueError(f"{len(values)} numbers in {', '.join(fields)} for {list(names)}")
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > np.finfo("f4").max:
        raise ValueError(f"numbers must be finite, got {values.tolist()}")
    return values.astype(np.float32)


def _field(message: Any, path: str) -> Any:
    value = message
    for name in path.split("."):
        if not hasattr(value, name):
            right = [n for n in vars(value) if not n.startswith("_")]
            raise ValueError(f"{value.__msgtype__} has no field {name!r}, right: {right}")
        value = getattr(value, name)
    return value


class Maker:
    """Makes messages of one typestore."""

    def __init__(self, typestore: Any) -> None:
        self._types = typestore.types

    def header(self, stamp_ns: int) -> Any:
        time = self._types["builtin_interfaces/msg/Time"]
        stamp = time(sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id="")

    def text(self, data: str) -> Any:
        return self._types[TEXT](data=data)

    def joints(self, names: list[str], values: np.ndarray, stamp_ns: int) -> Any:
        none = np.zeros(0)
        position = np.asarray(values, np.float64)
        return self._types[JOINTS](self.header(stamp_ns), names, position, none, none)

    def image(self, frame: np.ndarray, stamp_ns: int, encoding: str) -> Any:
        """Return frame (H, W, 3) RGB uint8 as rgb8 (`raw`) or compressed (`png`, `jpeg`)."""
        height, width, _ = frame.shape
        if encoding == "raw":
            data = np.ascontiguousarray(frame).reshape(-1)
            return self._types[IMAGE](
                header=self.header(stamp_ns), height=height, width=width, encoding="rgb8",
                is_bigendian=0, step=3 * width, data=data,
            )  # fmt: skip
        cv2 = need("cv2")
        options = [cv2.IMWRITE_JPEG_QUALITY, 95] if encoding == "jpeg" else []
        done, data = cv2.imencode(f".{encoding}", np.ascontiguousarray(frame[:, :, ::-1]), options)
        if not done:
            raise ValueError(f"a picture of {frame.shape} cannot be written as {encoding}")
        text = f"rgb8; {encoding} compressed bgr8"
        return self._types[COMPRESSED](self.header(stamp_ns), text, data.reshape(-1))

    def depth(self, values: np.ndarray, stamp_ns: int) -> Any:
        """Return distances (H, W) uint16 [mm] as 16UC1."""
        height, width = values.shape
        return self._types[IMAGE](
            header=self.header(stamp_ns), height=height, width=width, encoding="16UC1",
            is_bigendian=0, step=2 * width, data=values.astype("<u2").view(np.uint8).reshape(-1),
        )  # fmt: skip
