"""Publishes the observations of a robot, or of a log that replaces it: all topics of one stamp."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rclpy.duration import Duration
from rclpy.publisher import Publisher

from wm_nodes.records import Transition
from wm_nodes.ros import messages, topics
from wm_nodes.ros.camera_info import CameraInfos
from wm_nodes.ros.clock import ClockPublisher
from wm_nodes.ros.node import ManagedNode


class ObservationPublisher:
    """Topics `step`, `joint_states`, and of each camera `image_raw` and `camera_info`.

    joints: names of the proprioception; None: no joint states. steps: False: no topic `step`.
    infos: publishes camera_info and has the frames; None: no camera_info. as_camera: publish
    `<camera>/image` too. clock: publishes /clock with each observation.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        cameras: Collection[str],
        depths: Collection[str],
        joints: tuple[str, ...] | None,
        *,
        steps: bool = True,
        infos: CameraInfos | None = None,
        as_camera: bool = False,
        clock: ClockPublisher | None = None,
    ) -> None:
        kinds = (topics.IMAGE_RAW, topics.IMAGE) if as_camera else (topics.IMAGE_RAW,)
        self._images = {c: [kind.publisher(node, camera=c) for kind in kinds] for c in cameras}
        self._depths = {name: topics.IMAGE_RAW.publisher(node, camera=name) for name in depths}
        self._names = joints or ()
        self._joints = topics.JOINT_STATES.publisher(node) if joints is not None else None
        self._steps = topics.STEPS.publisher(node) if steps else None
        self._infos, self._clock = infos, clock

    def publish(self, transition: Transition) -> None:
        """Publish one observation; the step first, since a planner waits for it."""
        stamp = transition.step.stamp_ns
        if self._clock is not None:
            self._clock.publish(stamp)
        if self._steps is not None:
            self._steps.publish(messages.step_to_msg(transition.step))
        for camera, image in transition.images.items():
            msg = messages.image_to_msg(image, stamp, self._frame(camera))
            for publisher in self._images[camera]:
                publisher.publish(msg)
            self._publish_info(camera, stamp)
        for name, depth in transition.depths.items():
            self._depths[name].publish(messages.depth_to_msg(depth, stamp, self._frame(name)))
            self._publish_info(name, stamp)
        if self._joints is not None and len(transition.proprio):
            msg = messages.joints_to_msg(self._names, transition.proprio, stamp)
            self._joints.publish(msg)

    @property
    def has_subscriber(self) -> bool:
        """Does a node subscribe to the steps, or to an image where there are no steps?"""
        publishers = [self._steps] if self._steps else [p[0] for p in self._images.values()]
        return any(publisher.get_subscription_count() for publisher in publishers)

    def wait_for_acknowledgements(self, longest: Duration) -> None:
        """Wait until reliable subscribers have everything, for each topic at most `longest`."""
        for publisher in self._publishers():
            publisher.wait_for_all_acked(longest)

    def _frame(self, camera: str) -> str:
        return self._infos.frame_id(camera) if self._infos else messages.optical_frame(camera)

    def _publish_info(self, camera: str, stamp_ns: int) -> None:
        if self._infos is not None:
            self._infos.publish(camera, stamp_ns)

    def _publishers(self) -> list[Publisher[Any]]:
        single = [each for each in (self._steps, self._joints) if each is not None]
        images = [publisher for each in self._images.values() for publisher in each]
        infos = self._infos.publishers if self._infos is not None else []
        return [*single, *images, *self._depths.values(), *infos]
