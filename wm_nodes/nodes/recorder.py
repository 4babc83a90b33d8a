"""Topics in, replay log out: each step with the images of exactly its stamp."""

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
    log: str = param("runs/log", "Folder of the replay log; created if it is missing.")
    cameras: tuple[str, ...] = param(
        (), "Cameras to record, depth cameras included; empty: all of the robot's."
    )
    durable_s: float = param(
        1.0, "Rows older than this survive a power cut [s].", low=0.0, high=60.0
    )
    capacity_steps: int = param(0, "Most steps to keep, the newest ones; 0: no limit.", low=0)
    capacity_bytes: int = param(
        0, "Most compressed bytes to keep, the newest ones; 0: no limit.", low=0
    )
    raw: bool = param(
        False,
        "Record <camera>/image_raw, as for an arm, instead of <camera>/image.",
    )
    evaluation: bool = param(True, "Also record evaluation episodes (explore=0).")


class RecorderNode(ManagedNode[RecorderParams]):
    """The only writer of a log. Recording starts when topic `spec` has described the robot."""

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

    # Start --------------------------------------------------------------------------------------

    def _on_spec(self, spec: LogSpec) -> None:
        if self._spec is None:
            self._spec = spec
            if self.active:
                self._start(spec)

    def _start(self, spec: LogSpec) -> None:
        """Subscribe to everything that the robot publishes and the log keeps."""
        depths = {name: sensor for name, sensor in spec.sensors.items() if sensor.is_depth}
        chosen = self.params.cameras or (*spec.cameras, *depths)
        unknown = sorted({*chosen} - {*spec.cameras, *depths})
        if unknown:
            raise UserError(
                f"cameras: got {unknown[0]!r}, expected cameras of the robot: "
                f"{', '.join([*spec.cameras, *depths]) or 'it has none'}."
            )
        cameras = tuple(name for name in chosen if name in spec.cameras)
        sensors = {name: depths[name] for name in chosen if name in depths}
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
        """Pass one message to the recording."""
        started = time.perf_counter()
        try:
            with user_errors(
                LogError
            ):  # the log cannot be opened: in use, of another robot, disk full
                record(*parts)
        except MessageError as error:
            self.drop(error.reason, str(error))
        self.diagnostics.record_latency(time.perf_counter() - started)
        self._report()

    def _report(self) -> None:
        """Report when recording stops and when it continues."""
        fault = self._recording.fault if self._recording is not None else None
        if fault is not None:
            self.report_fault("log", f"not recording: {fault}", error=True)
        else:
            self.clear_fault("log", "recording again")

    def _acknowledge(self, stamp_ns: int) -> None:
        """Confirm to a lock-step robot that an episode's first observation is complete."""
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
