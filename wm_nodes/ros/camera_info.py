"""sensor_msgs/CameraInfo of the cameras that the robot node publishes, and their frames.

Intrinsics come from the camera's driver, adjusted to crop and resize, or from a simulator. A camera
without calibration gets no camera_info; the diagnostics say why (`camera_info/<camera>`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from wm_nodes.errors import MessageError
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.config.sections import TRANSPORT_ENDINGS
from wm_nodes.robots.cameras.intrinsics import Intrinsics, Matrix, PixelMap
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.robots.robot import CalibratedCameras, Robot
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode

LARGEST = 64 * 1024  # bytes of a serialized CameraInfo message


class Views(Protocol):
    """What is known of the cameras."""

    def frame_id(self, camera: str) -> str:
        """Return the name of the optical frame."""

    def intrinsics(self, camera: str) -> Intrinsics | None:
        """Return those of the image that is published now; None: there are none."""

    def missing(self, camera: str) -> str:
        """Return why there are none."""


class SimulatedViews:
    """Cameras of a simulator, or of a robot that knows its intrinsics itself."""

    def __init__(self, robot: Robot, frame_prefix: str = "") -> None:
        self._robot, self._prefix = robot, frame_prefix

    def frame_id(self, camera: str) -> str:
        return self._prefix + messages.optical_frame(camera)

    def intrinsics(self, camera: str) -> Intrinsics | None:
        known = self._robot.intrinsics() if isinstance(self._robot, CalibratedCameras) else {}
        return known.get(camera)

    def missing(self, camera: str) -> str:
        return "the robot does not know the camera's intrinsics"


class DriverFrames(Protocol):
    """What an arm's driver knows of its cameras: size of the images as they come, frame names."""

    @property
    def raw_sizes(self) -> Mapping[str, tuple[int, int]]: ...

    @property
    def frame_ids(self) -> Mapping[str, str]: ...


class DriverViews:
    """Cameras of an arm: subscribes to the drivers' CameraInfo. The newest message counts.

    The topic is `info_topic` of the robot's YAML, else `camera_info` beside the image's topic.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        config: ArmConfig,
        driver: DriverFrames,
        frame_prefix: str = "",
    ) -> None:
        self._driver, self._prefix = driver, frame_prefix
        self._topics: dict[str, str] = {}
        self._pipelines: dict[str, ImagePipeline] = {}
        self._sent: dict[str, Intrinsics | None] = {}  # of the images as they come
        self._whole: dict[str, tuple[Any, Intrinsics]] = {}  # adjusted, with what they are from
        for name, source in config.cameras.items():
            self._pipelines[name] = ImagePipeline(source.height, source.width, source.crop)
            topic = source.info_topic or beside(source.topic)
            if topic:
                self._topics[name] = node.resolve_topic_name(topic)
                row = topics.Topic(self._topics[name], CameraInfo, topics.SENSOR)
                take = partial(self._take, name)
                node.listen(row, intrinsics_from_msg, take, idle=True, max_bytes=LARGEST)

    def frame_id(self, camera: str) -> str:
        """Return the driver's own name; without one, or where it is the model's, that of the
        model: `<camera>_optical_frame` with the prefix."""
        own, ours = self._driver.frame_ids.get(camera, ""), messages.optical_frame(camera)
        return self._prefix + ours if own in ("", ours) else own

    def intrinsics(self, camera: str) -> Intrinsics | None:
        sent, size = self._sent.get(camera), self._driver.raw_sizes.get(camera)
        if sent is None or size != (sent.height, sent.width):
            return None
        known = self._whole.get(camera)
        if known is None or known[0] is not sent:
            adjusted = sent.through(self._pipelines[camera].pixel_map(*size))
            self._whole[camera] = known = (sent, adjusted)
        return known[1]

    def missing(self, camera: str) -> str:
        if camera not in self._topics:
            return "no topic: set `info_topic` of the camera in the robot's YAML"
        if camera not in self._sent:
            return f"no CameraInfo on {self._topics[camera]}"
        sent = self._sent[camera]
        if sent is None:
            return f"the camera is not calibrated (K of {self._topics[camera]} is zero)"
        high, wide = self._driver.raw_sizes.get(camera, (0, 0))
        return (
            f"{self._topics[camera]} is of {sent.width}x{sent.height} pixels, the images have "
            f"{wide}x{high}: calibrate the camera at that size"
        )

    def _take(self, camera: str, intrinsics: Intrinsics | None) -> None:
        before = self._sent.get(camera)
        if intrinsics is None or before is None or not _same(intrinsics, before):
            self._sent[camera] = intrinsics


class CameraInfos:
    """Publishes `<camera>/camera_info` with the stamp and frame of each image."""

    def __init__(self, node: ManagedNode[Any], cameras: Mapping[str, object], views: Views) -> None:
        self._node, self._views = node, views
        self._out = {name: topics.CAMERA_INFO.publisher(node, camera=name) for name in cameras}
        self._messages: dict[str, tuple[Intrinsics, CameraInfo]] = {}

    @property
    def publishers(self) -> list[Publisher[Any]]:
        return list(self._out.values())

    def frame_id(self, camera: str) -> str:
        """Return the frame of a camera's images."""
        return self._views.frame_id(camera)

    def publish(self, camera: str, stamp_ns: int) -> None:
        """Publish the intrinsics of the image with this stamp, if they are known."""
        intrinsics, facts = self._views.intrinsics(camera), self._node.diagnostics.facts
        if intrinsics is None:
            facts[f"camera_info/{camera}"] = f"none: {self._views.missing(camera)}"
            return
        facts[f"camera_info/{camera}"] = "published"
        cached = self._messages.get(camera)
        if cached is None or cached[0] is not intrinsics:
            self._messages[camera] = cached = (intrinsics, intrinsics_to_msg(intrinsics))
        msg = cached[1]
        msg.header = messages.header(stamp_ns, self.frame_id(camera))
        self._out[camera].publish(msg)


def intrinsics_to_msg(intrinsics: Intrinsics, header: Header | None = None) -> CameraInfo:
    """Return a CameraInfo of the whole image: no binning, no region of interest."""
    return CameraInfo(
        header=header or Header(),
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model=intrinsics.model,
        d=list(intrinsics.distortion),
        k=intrinsics.k.ravel().tolist(),
        r=intrinsics.r.ravel().tolist(),
        p=intrinsics.p.ravel().tolist(),
    )


def intrinsics_from_msg(msg: CameraInfo) -> Intrinsics | None:
    """Return the intrinsics of the image that the driver sends, which binning and the region of
    interest have made smaller; None: the camera is not calibrated (K[0] is 0).

    Raises MessageError: sizes that cannot be, or numbers that are not finite.
    """
    k, r = (np.array(values, np.float64).reshape(3, 3) for values in (msg.k, msg.r))
    p = np.array(msg.p, np.float64).reshape(3, 4)
    values = np.concatenate([k.ravel(), r.ravel(), p.ravel(), np.asarray(msg.d, np.float64)])
    if not np.isfinite(values).all():
        raise MessageError(
            "non-finite", f"camera_info: got {values.tolist()}, expected finite numbers"
        )
    if not k[0, 0]:
        return None
    whole = Intrinsics(
        msg.width, msg.height, k, p if p[0, 0] else np.column_stack([k, np.zeros(3)]),
        r if r.any() else np.eye(3), tuple(msg.d), msg.distortion_model,
    )  # fmt: skip
    roi, x, y = msg.roi, max(msg.binning_x, 1), max(msg.binning_y, 1)
    width, height = roi.width or msg.width, roi.height or msg.height
    inside = roi.x_offset + width <= msg.width and roi.y_offset + height <= msg.height
    if not (inside and width >= x and height >= y):
        raise MessageError(
            "size",
            f"camera_info: got a region of {width}x{height} pixels at {roi.x_offset}, "
            f"{roi.y_offset}, binning {x}x{y}, expected it inside {msg.width}x{msg.height}",
        )
    scale = 1.0 / x, 1.0 / y
    sent = PixelMap(roi.x_offset, roi.y_offset, scale, width // x, height // y)
    return whole.through(sent)


def beside(topic: str) -> str:
    """Return the topic camera_info in the namespace of an image's topic; "" of none.

    image_transport puts compressed images one level below: <camera>/image_raw/compressed.
    """
    for ending in TRANSPORT_ENDINGS:
        topic = topic.removesuffix(ending)
    place, slash, _ = topic.rpartition("/")
    return f"{place}{slash}camera_info" if topic else ""


def _same(one: Intrinsics, other: Intrinsics) -> bool:
    def parts(intrinsics: Intrinsics) -> tuple[Matrix, ...]:
        return intrinsics.k, intrinsics.p, intrinsics.r, np.array(intrinsics.distortion)

    sizes = (one.width, one.height, one.model) == (other.width, other.height, other.model)
    return sizes and all(np.array_equal(a, b) for a, b in zip(parts(one), parts(other)))
