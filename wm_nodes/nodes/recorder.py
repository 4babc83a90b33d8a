"""Topics in, replay log out: every step joined with its pictures by exact stamp."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wm_datasets.errors import LogError, LogSpecError
from wm_datasets.log import LogReader, LogWriter
from wm_datasets.spec import LogSpec

from wm_nodes import messages, spin, topics
from wm_nodes.cores.records import Image, Step, Vector
from wm_nodes.cores.rows import Row, RowAssembler
from wm_nodes.errors import UserError, user_errors
from wm_nodes.nodes.shell import Shell, ShellParams
from wm_nodes.params import param

RETRY_S = 5.0  # a full disk is tried again so often


@dataclass(frozen=True)
class RecorderParams(ShellParams):
    log: str = param("runs/log", "Folder of the replay log; made if it is not there.")
    cameras: tuple[str, ...] = param((), "Cameras to record; empty: all of the robot's.")
    durable_s: float = param(1.0, "What is older survives a power cut.", low=0.0, high=60.0)
    capacity_steps: int = param(0, "Keep at most so many steps; 0: all.", low=0)
    evaluation: bool = param(True, "Record evaluation episodes (explore=0) too.")


class RecorderNode(Shell):
    """The one writer of a log. Opens it when the robot has said what it is (topic `spec`)."""

    NAME = "recorder"
    PARAMS = RecorderParams

    def configure(self) -> None:
        self._writer: LogWriter | None = None
        self._rows: RowAssembler | None = None
        self._spec: LogSpec | None = None
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._muted_until = 0.0
        self._first_ns = -1  # an episode's first observation that waits to be acknowledged
        self._recorded = topics.RECORDED.publisher(self)
        self._open_existing()
        self.listen(topics.SPEC, messages.spec_from_msg, self._on_spec, idle=True)

    def activate(self) -> None:
        if self._spec is not None and self._rows is None:
            self._subscribe()

    def deactivate(self) -> None:
        if self._rows is not None:
            self._write(self._rows.finish())
        if self._writer is not None:
            with suppress(LogError):
                self._writer.flush()

    def cleanup(self) -> None:
        writer, self._writer = getattr(self, "_writer", None), None
        if writer is not None:
            try:
                writer.close()
            except LogError as error:
                self.get_logger().error(str(error))

    # Opening ------------------------------------------------------------------------------------

    def _open_existing(self) -> None:
        """Refuse a busy or foreign log now, before anybody relies on it."""
        path = Path(self.params.log)
        if (path / "zarr.json").exists():
            with user_errors(LogError):
                self._open(LogReader(path).spec)

    def _open(self, spec: LogSpec) -> None:
        p = self.params
        with user_errors(LogError):
            self._writer = LogWriter(
                p.log, spec, durable_s=p.durable_s, capacity_steps=p.capacity_steps or None
            )
        if self._writer.repaired:
            self.get_logger().warn(self._writer.repaired)

    def _on_spec(self, spec: LogSpec) -> None:
        """The robot has said what it is: record what it shows."""
        if self._spec is not None:
            return
        if spec.action is None:
            self.fault("spec", "the robot has no actions: nothing can be recorded")
            return
        self._spec, self._cameras = spec, self.params.cameras or tuple(spec.cameras)
        unknown = sorted(set(self._cameras) - set(spec.cameras))
        if unknown:
            raise UserError(f"cameras: the robot has no {unknown[0]!r}, it has {list(spec.cameras)}")
        if self.active:
            self._subscribe()

    def _subscribe(self) -> None:
        if self._spec.proprio is not None:
            self.listen(topics.JOINT_STATES, messages.joints_from_msg, self._on_joints)
        for camera in self._cameras:
            handle = partial(self._on_image, camera)
            self.listen(topics.IMAGE, messages.image_from_msg, handle, camera=camera)
        self.listen(topics.STEPS, messages.step_from_msg, self._on_step)
        self._rows = self._assembler()
        self.health.ready = True

    def _assembler(self) -> RowAssembler:
        fields = [f"image/{camera}" for camera in self._cameras]
        fields += ["proprio"] * (self._spec.proprio is not None)
        return RowAssembler(tuple(fields), len(self._spec.action))

    # Messages -----------------------------------------------------------------------------------

    def _on_image(self, camera: str, stamp_ns: int, image: Image) -> None:
        size = self._sizes.setdefault(camera, image.shape)
        if size != image.shape:
            self.drop(f"{camera}/image/size", f"{camera}/image: {image.shape}, it began with {size}")
        else:
            self._record(stamp_ns, lambda rows: rows.put(f"image/{camera}", stamp_ns, image))

    def _on_joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        wanted = self._spec.proprio.names
        if names != wanted:
            self.drop("joint_states/names", f"joint_states: {names}, right is {wanted}")
        else:
            self._record(stamp_ns, lambda rows: rows.put("proprio", stamp_ns, values))

    def _on_step(self, step: Step) -> None:
        wanted = self._spec.action.names
        if step.names != wanted:
            self.drop("step/names", f"step: {step.names}, right is {wanted}")
        elif not (step.explore or self.params.evaluation):
            self._acknowledge(step.stamp_ns)
        else:
            if step.is_first:
                self._first_ns = step.stamp_ns
            self._record(step.stamp_ns, lambda rows: rows.step(step))

    # Recording ----------------------------------------------------------------------------------

    def _record(self, stamp_ns: int, put: Callable[[RowAssembler], list[Row]]) -> None:
        """Give a part to the assembler and write the rows that it completes."""
        started = time.perf_counter()
        if started < self._muted_until:
            self.health.drop("disk")
            return
        self._write(put(self._rows))
        if self._first_ns >= 0 and self._rows.joined_ns >= self._first_ns:
            self._acknowledge(self._rows.joined_ns)
        self.health.worked(time.perf_counter() - started)

    def _acknowledge(self, stamp_ns: int) -> None:
        """Tell a lock-step robot that an episode's first observation is in hand."""
        self._first_ns = -1
        self._recorded.publish(messages.header(stamp_ns))

    def _write(self, rows: list[Row]) -> None:
        for row in rows:
            try:
                if self._writer is None:
                    self._open(self._log_spec())
                self._writer.append(row)
            except LogSpecError as error:
                self.drop("row", str(error))
                self._rows.interrupt()
                return
            except LogError as error:
                self._mute(error)
                return
            if self.health.cleared("disk"):
                self.get_logger().info("recording again")

    def _mute(self, error: LogError) -> None:
        """The disk takes no more: control goes on, and after a while recording is tried again."""
        self.fault("disk", f"not recording: {error}")
        self._muted_until = time.perf_counter() + RETRY_S
        self._rows = self._assembler()

    def _log_spec(self) -> LogSpec:
        """The robot's spec with the recorded cameras, at the size in which they come."""
        sizes = {camera: self._sizes[camera] for camera in self._cameras}
        return replace(self._spec, cameras=sizes)

    def diagnose(self) -> None:
        rows, writer = getattr(self, "_rows", None), getattr(self, "_writer", None)
        if rows is not None:
            self.health.facts.update(unjoined=rows.unjoined, cut=rows.cut)
        if writer is not None:
            each = sum(field.row_bytes for field in writer.spec.fields.values())
            self.health.facts.update(rows=writer.length, log_mb=round(writer.length * each / 1e6, 1))
        super().diagnose()


def main() -> None:
    spin.main(RecorderNode)


if __name__ == "__main__":
    main()
