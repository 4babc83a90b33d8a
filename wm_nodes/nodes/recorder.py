"""Topics in, replay log out: every step joined with its pictures by exact stamp."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wm_datasets.errors import LogError
from wm_datasets.spec import LogSpec
from wm_nodes.episodes.recording import LogFile, Recording, open_existing
from wm_nodes.errors import MessageError, UserError, user_errors
from wm_nodes.ros import messages, spin, topics
from wm_nodes.ros.node import ManagedNode, NodeParams
from wm_nodes.ros.parameters import param


@dataclass(frozen=True)
class RecorderParams(NodeParams):
    log: str = param("runs/log", "Folder of the replay log; made if it is not there.")
    cameras: tuple[str, ...] = param((), "Cameras to record, depth too; empty: the robot's.")
    durable_s: float = param(1.0, "What is older survives a power cut.", low=0.0, high=60.0)
    capacity_steps: int = param(0, "Keep at most so many steps; 0: all.", low=0)
    capacity_bytes: int = param(0, "Keep at most so many bytes, as compressed; 0: all.", low=0)
    raw: bool = param(False, "Record <camera>/image_raw: an arm's pictures are cropped already.")
    evaluation: bool = param(True, "Record evaluation episodes (explore=0) too.")


class RecorderNode(ManagedNode[RecorderParams]):
    """The one writer of a log. Begins when the robot has said what it is (topic `spec`)."""

    NAME = "recorder"
    TAKES_OVER = True

    def configure(self) -> None:
        p = self.params
        self._file = LogFile(p.log, p.durable_s, p.capacity_steps or None, p.capacity_bytes or None)
        self._recording: Recording | None = None
        self._spec: LogSpec | None = None
        with user_errors(LogError):
            self._writer = open_existing(self._file)
        if self._writer is not None and self._writer.repaired:
            self.get_logger().warn(self._writer.repaired)
        self._recorded = topics.RECORDED.publisher(self)
        self.listen(topics.SPEC, messages.spec_from_msg, self._on_spec, idle=True)

    def activate(self) -> None:
        if self._spec is not None and self._recording is None:
            self._start(self._spec)

    def deactivate(self) -> None:
        if self._recording is not None:
            with suppress(LogError):
                self._recording.finish()

    def cleanup(self) -> None:
        recording = getattr(self, "_recording", None)
        writer = recording.writer if recording is not None else getattr(self, "_writer", None)
        self._recording = self._writer = None
        if writer is not None:
            try:
                writer.close()
            except LogError as error:
                self.get_logger().error(str(error))

    # Beginning ----------------------------------------------------------------------------------

    def _on_spec(self, spec: LogSpec) -> None:
        if self._spec is None:
            self._spec = spec
            if self.active:
                self._start(spec)

    def _start(self, spec: LogSpec) -> None:
        """The robot is known: record what it shows."""
        depths = {name: sensor for name, sensor in spec.sensors.items() if sensor.is_depth}
        wanted = self.params.cameras or (*spec.cameras, *depths)
        unknown = sorted({*wanted} - {*spec.cameras, *depths})
        if unknown:
            raise UserError(
                f"cameras: the robot has no {unknown[0]!r}, it has {[*spec.cameras, *depths]}"
            )
        cameras = tuple(name for name in wanted if name in spec.cameras)
        sensors = {name: depths[name] for name in wanted if name in depths}
        with user_errors(LogError):
            self._recording = Recording(
                self._file,
                replace(spec, sensors=sensors),
                cameras,
                self.params.evaluation,
                self._writer,
            )
            self._writer = self._recording.writer
        self._recording.acknowledge = self._acknowledge
        record = self._recording
        if spec.proprio is not None:
            self.listen(
                topics.JOINT_STATES, messages.joints_from_msg, partial(self._take, record.joints)
            )
        for camera in cameras:
            take = partial(self._take, record.image, camera)
            topic = topics.IMAGE_RAW if self.params.raw else topics.IMAGE
            self.listen(topic, messages.image_from_msg, take, camera=camera)
        for name in sensors:
            take = partial(self._take, record.depth, name)
            self.listen(topics.IMAGE_RAW, messages.depth_from_msg, take, camera=name)
        self.listen(topics.STEPS, messages.step_from_msg, partial(self._take, record.step))
        self.diagnostics.ready = True

    # Recording ----------------------------------------------------------------------------------

    def _take(self, record: Any, *parts: Any) -> None:
        """Give one message to the recording."""
        started = time.perf_counter()
        try:
            with user_errors(LogError):  # the log cannot be opened: busy, foreign, no room
                record(*parts)
        except MessageError as error:
            self.drop(error.reason, str(error))
        self.diagnostics.record_latency(time.perf_counter() - started)
        self._look()

    def _look(self) -> None:
        """Say when recording stops and when it goes on."""
        fault = self._recording.fault if self._recording is not None else None
        if fault is not None:
            self.report_fault("log", f"not recording: {fault}", error=True)
        else:
            self.clear_fault("log", "recording again")

    def _acknowledge(self, stamp_ns: int) -> None:
        """Tell a lock-step robot that an episode's first observation is in hand."""
        self._recorded.publish(messages.header(stamp_ns))

    def diagnose(self) -> None:
        recording = getattr(self, "_recording", None)
        if recording is not None:
            facts = self.diagnostics.facts
            facts.update(unjoined=recording.unjoined, cut=recording.cut, lost=recording.lost)
            if recording.writer is not None:
                rows = recording.writer.length
                each = sum(field.row_bytes for field in recording.writer.spec.fields.values())
                facts.update(rows=rows, log_mb=round(rows * each / 1e6, 1))
        super().diagnose()


def main() -> None:
    spin.main(RecorderNode)


if __name__ == "__main__":
    main()
