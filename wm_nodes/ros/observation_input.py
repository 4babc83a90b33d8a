"""Subscribes to the parts of an observation and combines those of one stamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSProfile

from wm_nodes.records import Image, Step, Vector
from wm_nodes.ros import messages, topics
from wm_nodes.ros.node import ManagedNode
from wm_nodes.ros.synchronizer import Synchronizer

STEP, IMAGE, JOINTS = "step", "image", "joints"


@dataclass(frozen=True)
class Observed:
    """One observation: its step, and what a model needs of image (H, W, 3) and joint states (names
    and values)."""

    step: Step
    image: Image | None
    joints: tuple[tuple[str, ...], Vector] | None

    @property
    def proprio(self) -> Vector | None:
        """The values (P,) of the joint states."""
        return None if self.joints is None else self.joints[1]


class ObservationInput:
    """Calls `handle` with each complete observation.

    images: topic of the camera's images. prepare: is given each image and its stamp, and returns
    what to use, or None to drop it. on_step: is called with each step first. newest_only: of the
    observations that have been received, handle the newest only. place: namespace of all topics,
    below the node's own. At first an image and a step are required; see `require`.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        images: topics.Topic,
        camera: str,
        qos: QoSProfile,
        handle: Callable[[Observed], None],
        *,
        prepare: Callable[[int, Image], Image | None] = lambda stamp_ns, image: image,
        on_step: Callable[[Step], None] = lambda step: None,
        newest_only: bool = False,
        place: str = "",
    ) -> None:
        self._handle, self._prepare, self._on_step = handle, prepare, on_step
        self._newest_only, self._draining = newest_only, False
        self._newest: dict[str, Any] = {}
        self._synchronizer = Synchronizer((IMAGE, STEP))
        self._drains = (
            node.listen(
                images.below(place), messages.image_from_msg, self._on_image, qos, camera=camera
            ),
            node.listen(topics.STEPS.below(place), messages.step_from_msg, self._on_new_step),
            node.listen(
                topics.JOINT_STATES.below(place), messages.joints_from_msg, self._on_joints
            ),
        )

    def require(self, *, image: bool, joints: bool) -> None:
        """Set what belongs to an observation beside its step."""
        parts = [name for name, needed in ((IMAGE, image), (JOINTS, joints)) if needed]
        self._synchronizer.require((STEP, *parts))

    def drain(self) -> None:
        """Handle the messages that wait in the queues."""
        for drain in self._drains:
            drain()

    def _on_image(self, stamp_ns: int, image: Image) -> None:
        prepared = self._prepare(stamp_ns, image)
        if prepared is not None:
            self._put(IMAGE, stamp_ns, prepared)

    def _on_new_step(self, step: Step) -> None:
        self._on_step(step)
        self._put(STEP, step.stamp_ns, step)

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        self._put(JOINTS, stamp_ns, (names, values))

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
        self._handle(Observed(newest[STEP], newest.get(IMAGE), newest.get(JOINTS)))
