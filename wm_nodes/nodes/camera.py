"""Images of a topic, device, file or URL in, images of the model's size out; stamps stay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from wm_nodes.errors import MessageError, user_errors
from wm_nodes.records import Image
from wm_nodes.robots.cameras.opencv import Capture, CaptureError
from wm_nodes.robots.cameras.preprocess import ImagePipeline
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.camera_watch import CameraWatch
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param
from wm_nodes.ros.robot_camera import RobotCamera


@dataclass(frozen=True)
class PipelineParams(NodeParams):
    """How camera and agent node receive and prepare images."""

    camera: str = param(
        "corner4", "Name of the camera; its topics are <camera>/image_raw and <camera>/image."
    )
    mode: str = param(
        "lockstep", "lockstep: use every image; realtime: use the newest one.", choices=topics.MODES
    )
    transport: str = param(
        topics.RAW,
        "raw: subscribe to <camera>/image_raw; compressed: to <camera>/image_raw/compressed.",
        choices=topics.TRANSPORTS,
    )
    height: int = param(
        64, "Height of the published image in pixels; 0: as received.", low=0, high=4096
    )
    width: int = param(
        64, "Width of the published image in pixels; 0: as received.", low=0, high=4096
    )
    crop: tuple[float, ...] = param(
        (0.0, 0.0, 0.0, 0.0),
        "Margins to cut off: left, top, right, bottom, as shares of width and height.",
        low=0.0,
        high=1.0,
    )
    stale_s: float = param(
        1.0, "Real time: report a camera without a new image for this time [s]; 0: never.", low=0.0
    )
    frozen_s: float = param(
        5.0,
        "Real time: report a camera with an unchanged image for this time [s]; 0: never.",
        low=0.0,
    )

    @property
    def images(self) -> topics.Topic:
        """Return the topic to subscribe to."""
        compressed = self.transport == topics.COMPRESSED
        return topics.IMAGE_COMPRESSED if compressed else topics.IMAGE_RAW

    def pipeline(self) -> ImagePipeline:
        """Return what crops and resizes images. UserError: the crop leaves nothing."""
        with user_errors(ValueError):
            return ImagePipeline(self.height, self.width, self.crop)


@dataclass(frozen=True)
class CameraParams(PipelineParams):
    source: str = param(
        "",
        "Device (/dev/video0 or 0), file or URL to read from; empty: subscribe to the topic that "
        "`transport` selects.",
        digits=True,
    )
    rate_hz: float = param(
        0.0, "Images per second: of a file, or at most in real time; 0: all.", low=0.0, high=1000.0
    )
    loop: bool = param(False, "Play a file again at its end; false: the node ends.")


class CameraNode(ManagedNode[CameraParams]):
    """Crops and resizes the images of one camera; each keeps its stamp."""

    NAME = "camera"

    def configure(self) -> None:
        p = self.params
        self._pipeline = p.pipeline()
        self._watch = CameraWatch(self, p.camera, p.stale_s, p.frozen_s)
        self._frame = messages.optical_frame(p.camera)
        self._last_s = 0.0
        self._capture: Capture | None = None
        self._out = topics.IMAGE.publisher(self, camera=p.camera)
        if p.source:
            with user_errors(CaptureError):
                self._capture = Capture(p.source, loop=p.loop, rate_hz=p.rate_hz)
            self._raw = topics.IMAGE_RAW.publisher(self, camera=p.camera)
        else:
            qos = topics.frames_qos(p.mode, topics.STREAM)
            self.listen(p.images, messages.image_from_msg, self._on_image, qos, camera=p.camera)
            self._robot = RobotCamera(self, p.camera, p.images)

    def activate(self) -> None:
        self.diagnostics.ready = True
        if self._capture is not None:
            look = partial(self._on_poll, self._capture)
            self._poll = self.create_timer(self._capture.period_s / 4, look)
        if self._capture is not None or self.params.mode == topics.REALTIME:
            self._watch.start()

    def deactivate(self) -> None:
        self._watch.stop()
        if self._capture is not None:
            self.destroy_timer(self._poll)

    def cleanup(self) -> None:
        capture = getattr(self, "_capture", None)
        if capture is not None:
            capture.close()

    def _on_image(self, stamp_ns: int, image: Image) -> None:
        """Crop, resize and publish an image."""
        started = time.perf_counter()
        p = self.params
        if p.mode == topics.REALTIME and self._capture is None:
            self._watch.check_stamp(stamp_ns)
        limited = p.rate_hz and p.mode == topics.REALTIME and self._capture is None
        if limited and started - self._last_s < 0.9 / p.rate_hz:
            return
        self._last_s = started
        try:
            out = self._pipeline(image)
        except MessageError as error:
            self.drop(f"{p.camera}/image_raw/{error.reason}", str(error))
            return
        self.diagnostics.record_latency(time.perf_counter() - started)
        self._out.publish(messages.image_to_msg(out, stamp_ns, self._frame))
        if self._capture is not None or p.mode == topics.REALTIME:
            self._watch.record(out)

    def _on_poll(self, capture: Capture) -> None:
        """Publish the newest image of the device or file, if there is a new one."""
        frame = capture.newest()
        if frame is not None:
            age_ns = round((time.monotonic() - frame.taken_s) * messages.SECOND_NS)
            stamp_ns = self.get_clock().now().nanoseconds - age_ns
            if self._raw.get_subscription_count():
                self._raw.publish(messages.image_to_msg(frame.image, stamp_ns, self._frame))
            self._on_image(stamp_ns, frame.image)
        elif capture.ended:
            self.get_logger().info(f"{self.params.source}: end of file")
            self.finish()


def main() -> None:
    spin.main(CameraNode)


if __name__ == "__main__":
    main()
