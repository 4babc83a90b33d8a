"""Images in: from topics, or from devices of this computer. All callbacks are the robot node's."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg

from wm_nodes.errors import MessageError, user_errors
from wm_nodes.robots.arm.config.arm_config import ArmConfig
from wm_nodes.robots.arm.driver import Frame
from wm_nodes.robots.cameras.opencv import Capture, CaptureError
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.ros import messages
from wm_nodes.ros.arm.raw_subscription import count_dropped
from wm_nodes.ros.matched_subscription import MatchedSubscription
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.stamps import StampWatch

NEWEST = 1  # images in the queue: an arm acts on no old one
REMEDY = (  # for stamps that no image can have
    "Synchronise the clocks (chrony, PTP), or set `stamps: arrival` for this camera in the "
    "robot's YAML."
)
RESTART_NS = messages.SECOND_NS  # a stamp that goes back further is of a restarted camera
POLL_S = 1.0 / 60.0  # of camera devices
ROWS = 8  # an image is compared with the previous one in every eighth row


class CameraInputs:
    """The newest image of each camera. Call `close` also after an error of the constructor.

    frames: by camera. raw_sizes: height and width of images before they are cropped. frame_ids: of
    their headers.
    """

    def __init__(self, robot_node: ManagedNode[Any], config: ArmConfig) -> None:
        self._robot_node, self._config = robot_node, config
        self.frames: dict[str, Frame] = {}
        self.raw_sizes: dict[str, tuple[int, int]] = {}
        self.frame_ids: dict[str, str] = {}
        self._checksums: dict[str, int] = {}
        self._stamps: dict[str, int] = {}
        self._clocks = {name: StampWatch(robot_node, name) for name in config.cameras}
        self._pipelines: dict[str, ImagePipeline] = {}
        self._captures: dict[str, Capture] = {}
        self._on_close: list[Callable[[], object]] = []

    def open(self) -> None:
        """Subscribe, and open devices. UserError if a device cannot be opened."""
        for name, source in self._config.cameras.items():
            with user_errors(ValueError, CaptureError):
                self._pipelines[name] = ImagePipeline(
                    source.height, source.width, source.crop, exact=source.depth
                )
                if source.device:
                    self._captures[name] = Capture(source.device)
                else:
                    kind = CompressedImage if source.compressed else ImageMsg
                    self._subscribe(name, source.topic, kind)
        if self._captures:
            timer = self._robot_node.create_timer(POLL_S, self._on_poll)
            self._on_close.append(partial(self._robot_node.destroy_timer, timer))

    def clock_fault(self) -> str:
        """Return which cameras' stamps cannot be right, or ""."""
        return " ".join(watch.text for watch in self._clocks.values() if watch.text)

    def close(self) -> None:
        for capture in self._captures.values():
            capture.close()
        self._captures.clear()
        for remove in self._on_close:
            remove()
        self._on_close.clear()

    def _subscribe(self, name: str, topic: str, kind: type) -> None:
        def take(msg: ImageMsg | CompressedImage) -> None:
            try:
                self._on_image(name, msg)
            except MessageError as error:
                count_dropped(self._robot_node, topic, error)

        lost = partial(self._robot_node.report_lost, topic)
        matched = MatchedSubscription(self._robot_node, kind, topic, take, NEWEST, on_lost=lost)
        self._on_close.append(matched.close)

    def _on_image(self, name: str, msg: ImageMsg | CompressedImage) -> None:
        came, source = time.monotonic(), self._config.cameras[name]
        convert = messages.depth_from_msg if source.depth else messages.image_from_msg
        stamp_ns, raw = convert(msg)
        self.frame_ids[name] = msg.header.frame_id
        if source.stamps == "arrival":
            self._store(name, raw, came, came)
            return
        taken = self._taken_s(name, came, stamp_ns)
        before = self._stamps.get(name)
        if before is not None and 0 <= before - stamp_ns <= RESTART_NS:
            self._robot_node.drop(
                "image/repeated",
                f"camera {name}: got an image with the stamp of an earlier one, expected a newer "
                "stamp. Check the camera's driver, or set `stamps: arrival` in its YAML.",
            )
            return
        self._stamps[name] = stamp_ns
        self._store(name, raw, came, taken)

    def _taken_s(self, name: str, came_s: float, stamp_ns: int) -> float:
        """Return when an image was taken by its stamp [s, steady clock]; -inf: it cannot be."""
        watch = self._clocks[name]
        if not watch.right(stamp_ns, REMEDY):
            return -np.inf
        return came_s - max(watch.age_s, 0.0)

    def _on_poll(self) -> None:
        for name, capture in self._captures.items():
            raw = capture.newest()
            if raw is not None:
                self._store(name, raw.image, time.monotonic(), raw.taken_s)

    def _store(self, name: str, raw: Any, came: float, taken: float) -> None:
        image = self._pipelines[name](raw)
        self.raw_sizes[name] = raw.shape[:2]
        changed = True
        if self._config.watch.camera_frozen_s:
            checksum = zlib.adler32(raw[::ROWS].tobytes())
            changed = checksum != self._checksums.get(name)
            self._checksums[name] = checksum
        before = self.frames.get(name)
        number = 0 if before is None else before.number + 1
        self.frames[name] = Frame(lambda: image, came, taken, number, changed)
