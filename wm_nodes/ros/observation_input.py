"""Subscribes to the parts of an observation and combines those of one stamp."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile

from wm_nodes.records import Image, Step, Vector
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.synchronizer import Synchronizer

STEP, JOINTS = "step", "joints"


@dataclass(frozen=True)
class Observed:
    """One observation: its step, and what a model needs of images {camera: (H, W, 3)} and joint
    states (names and values)."""

    step: Step
    images: Mapping[str, Image]  # of all cameras in their order, or empty
    joints: tuple[tuple[str, ...], Vector] | None

    @property
    def image(self) -> Image | None:
        """The image of the only camera; None where there are several, or none."""
        return next(iter(self.images.values())) if len(self.images) == 1 else None

    @property
    def proprio(self) -> Vector | None:
        """The values (P,) of the joint states."""
        return None if self.joints is None else self.joints[1]


class ObservationInput:
    """Calls `handle` with each complete observation.

    It is complete when the images of all cameras, and the other parts, of its stamp are there.
    images: topic of a camera's images. prepare: is given the camera, the stamp and each image, and
    returns what to use, or None to drop it. on_step: is called with each step first. newest_only:
    of the observations that have been received, handle the newest only. place: namespace of all
    topics, below the node's own. At first images and a step are required; see `require`.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        images: topics.Topic,
        cameras: Sequence[str],
        qos: QoSProfile,
        handle: Callable[[Observed], None],
        *,
        prepare: Callable[[str, int, Image], Image | None] = lambda camera, stamp_ns, image: image,
        on_step: Callable[[Step], None] = lambda step: None,
        newest_only: bool = False,
        place: str = "",
    ) -> None:
        self._handle, self._prepare, self._on_step = handle, prepare, on_step
        self._newest_only, self._draining = newest_only, False
        self._newest: dict[str, Any] = {}
        self._cameras = tuple(cameras)
        self._node, self._images_required = node, True
        self._synchronizer = Synchronizer(
            (STEP, *map(image_part, cameras)), on_drop=self._report_incomplete
        )
        self._drains = (
            *(
                node.listen(
                    images.below(place),
                    messages.image_from_msg,
                    partial(self._on_image, camera),
                    qos,
                    camera=camera,
                )
                for camera in cameras
            ),
            node.listen(topics.STEPS.below(place), messages.step_from_msg, self._on_new_step),
            node.listen(
                topics.JOINT_STATES.below(place), messages.joints_from_msg, self._on_joints
            ),
        )

    def require(self, *, image: bool, joints: bool) -> None:
        """Set what belongs to an observation beside its step."""
        self._images_required = image
        parts = map(image_part, self._cameras) if image else ()
        self._synchronizer.require((STEP, *parts, *((JOINTS,) if joints else ())))

    def drain(self) -> None:
        """Handle the messages that wait in the queues."""
        for drain in self._drains:
            drain()

    def _on_image(self, camera: str, stamp_ns: int, image: Image) -> None:
        prepared = self._prepare(camera, stamp_ns, image)
        if prepared is not None:
            self._put(image_part(camera), stamp_ns, prepared)

    def _on_new_step(self, step: Step) -> None:
        self._on_step(step)
        self._put(STEP, step.stamp_ns, step)

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._put(JOINTS, stamp_ns, (names, values))

    def _report_incomplete(self, stamp_ns: int, had: frozenset[str]) -> None:
        """Report the cameras whose image is missing beside those of others."""
        missing = [camera for camera in self._cameras if image_part(camera) not in had]
        if not self._images_required or not 0 < len(missing) < len(self._cameras):
            return
        for camera in missing:
            self._node.drop(
                f"observation/{camera}",
                f"observation of stamp {stamp_ns}: got no image of camera {camera}, expected one "
                f"of each of {', '.join(self._cameras)}. Start that camera, or give the images of "
                "one moment the same stamp.",
            )

    def _put(self, part: str, stamp_ns: int, value: Any) -> None:
        parts = self._synchronizer.put(part, stamp_ns, value)
        if parts is None:
            return
        self._newest = parts
        if self._draining:
            return
        if self._newest_only:
            self._draining = True
            self.drain()
            self._draining = False
        newest = self._newest
        parts = {camera: newest.get(image_part(camera)) for camera in self._cameras}
        images = {camera: image for camera, image in parts.items() if image is not None}
        self._handle(Observed(newest[STEP], images, newest.get(JOINTS)))


def image_part(camera: str) -> str:
    """Return the name of a camera's image among the parts of an observation."""
    return f"image/{camera}"
