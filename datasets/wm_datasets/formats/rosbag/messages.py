"""ROS messages of any type <-> stamps, vectors and images, without ROS."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_datasets import ros_images
from wm_datasets.formats.base import need
from wm_datasets.spec import LogSpec

SECOND_NS = 1_000_000_000
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
JOINTS = "sensor_msgs/msg/JointState"
TEXT = "std_msgs/msg/String"
FLAGS = ("is_first", "is_last", "is_terminal", "success")
SCALARS = ("reward", *FLAGS, "explore", "weights", "source")  # docs/topics.md, `step`


def vector_names(spec: LogSpec) -> dict[str, list[str]]:
    """What the dimensions of the log's vectors are called in `step`, field by field."""
    kinds = (("action", "action", spec.action), ("commanded", "commanded", spec.action),
             ("signals", "signal", spec.signals))  # fmt: skip
    return {field: [f"{kind}/{name}" for name in vector.names]
            for field, kind, vector in kinds if vector is not None}  # fmt: skip


def stamp_of(message: Any) -> int | None:
    """Time in a message's header [ns]; None without one, or where it was not filled in."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * SECOND_NS + header.stamp.nanosec or None


def image_of(message: Any, depth_m: tuple[float, float] | None) -> np.ndarray:
    """Return (H, W, 3) RGB uint8 of an Image or CompressedImage; ValueError says what is wrong."""
    if _is_depth(message) or (depth_m is not None and hasattr(message, "format")):
        return _grey(ros_images.to_m(_distances(message)), depth_m)
    if hasattr(message, "format"):
        return ros_images.compressed_rgb(message.data, message.format)
    if message.encoding not in ros_images.COLORS:
        right = ", ".join([*ros_images.COLORS, *ros_images.DEPTHS])
        raise ValueError(f"encoding: got {message.encoding!r}, expected one of {right}")
    return np.ascontiguousarray(
        ros_images.rgb(message.data, message.encoding, message.height, message.width, message.step)
    )


def depth(message: Any) -> np.ndarray:
    """Return (H, W) uint16 [mm] of a depth Image or CompressedImage; 0: unknown, or too far."""
    return ros_images.to_mm(_distances(message))


def depth_of(message: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return depth(message); ValueError where its size is not `shape`."""
    frame = depth(message)
    if frame.shape != shape:
        raise ValueError(f"depth image: got {frame.shape}, expected {shape} as in the log")
    return frame


def _is_depth(message: Any) -> bool:
    if hasattr(message, "format"):
        return ros_images.is_depth(message.format)
    return message.encoding in ros_images.DEPTHS


def _distances(message: Any) -> np.ndarray:
    """Return (H, W) of an Image or CompressedImage: uint16 [mm] or float32 [m]."""
    if hasattr(message, "format"):
        return ros_images.compressed_distances(message.data, message.format)
    return ros_images.distances(
        message.data, message.encoding, message.height, message.width, message.step,
        bool(message.is_bigendian),
    )  # fmt: skip


def _grey(metres: np.ndarray, depth_m: tuple[float, float] | None) -> np.ndarray:
    """Depth as grey, near 1 to far 255; 0 is unknown."""
    if depth_m is None:
        raise ValueError(
            "got a depth image, expected a color or grey image. Give depth_m: [near, far] in "
            "--topics"
        )
    near, far = depth_m
    valid = np.isfinite(metres) & (metres > 0)
    share = np.clip((np.where(valid, metres, near) - near) / (far - near), 0, 1)
    grey = np.where(valid, np.rint(1 + 254 * share), 0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def dimensions(message: Any, fields: tuple[str, ...]) -> tuple[str, ...]:
    """What the numbers in some fields of a message are called.

    A message that names its numbers may leave a field empty: it has none of those.
    """
    names: list[str] = []
    joints = _joints(message)
    if len(set(joints)) != len(joints):
        raise ValueError(f"names: got {joints}, expected different names")
    for field in fields:
        value = np.asarray(_field(message, field))
        if value.ndim == 0:
            names.append(field)
        elif joints and value.size not in (0, len(joints)):
            raise ValueError(
                f"{field}: got {value.size} numbers, expected 0 or {len(joints)}, one for each name"
            )
        elif joints:
            own = joints if value.size else []
            names += own if field == "position" else [f"{j}/{field}" for j in own]
        else:
            names += [f"{field}[{i}]" for i in range(value.size)]
    return tuple(names)


def numbers(
    message: Any, fields: tuple[str, ...], names: tuple[str, ...]
) -> tuple[list[int], np.ndarray]:
    """Return which of the named numbers a message has, and their values, float32.

    A message that names its numbers is asked by name, the numbers of others come in order.
    """
    values = np.concatenate([np.asarray(_field(message, f), np.float64).reshape(-1)
                             for f in fields])  # fmt: skip
    places = list(range(len(names)))
    if _joints(message):
        at = {name: i for i, name in enumerate(dimensions(message, fields))}
        places = [place for place, name in enumerate(names) if name in at]
        values = values[[at[names[place]] for place in places]]
    elif len(values) != len(names):
        raise ValueError(
            f"{', '.join(fields)}: got {len(values)} numbers, expected one for each of "
            f"{list(names)}"
        )
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > np.finfo("f4").max:
        raise ValueError(f"numbers: got {values.tolist()}, expected finite float32 values")
    return places, values.astype(np.float32)


def vector(message: Any, fields: tuple[str, ...], names: tuple[str, ...]) -> np.ndarray | None:
    """Return all named numbers of a message, float32; None when it does not have them all."""
    places, values = numbers(message, fields, names)
    return values if len(places) == len(names) else None


def _joints(message: Any) -> list[str]:
    """The names that a message gives its numbers, as JointState does."""
    names = getattr(message, "name", [])
    return [] if isinstance(names, str) else list(names)


def _field(message: Any, path: str) -> Any:
    value = message
    for name in path.split("."):
        if not hasattr(value, name):
            right = [n for n in vars(value) if not n.startswith("_")]
            raise ValueError(f"{value.__msgtype__}: got field {name!r}, expected one of {right}")
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
            raise ValueError(
                f"image: got {frame.shape}, expected one that can be written as {encoding}"
            )
        text = f"rgb8; {encoding} compressed bgr8"
        return self._types[COMPRESSED](self.header(stamp_ns), text, data.reshape(-1))

    def depth(self, values: np.ndarray, stamp_ns: int) -> Any:
        """Return distances (H, W) uint16 [mm] as 16UC1."""
        height, width = values.shape
        return self._types[IMAGE](
            header=self.header(stamp_ns), height=height, width=width, encoding="16UC1",
            is_bigendian=0, step=2 * width, data=values.astype("<u2").view(np.uint8).reshape(-1),
        )  # fmt: skip
