"""Writes the log of one robot: assembles rows, opens the log, continues after a full disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wm_datasets.errors import LogError, LogSpecError
from wm_datasets.log import LogReader, LogWriter
from wm_datasets.spec import LogSpec, VectorSpec
from wm_nodes.episodes.row_assembler import Row, RowAssembler
from wm_nodes.errors import MessageError
from wm_nodes.records import Depth, Image, Step, Vector

RETRY_S = 5.0  # between two attempts to write to a full disk


@dataclass(frozen=True)
class LogFile:
    """Path and limits of a log."""

    path: str
    durable_s: float = 1.0
    capacity_steps: int | None = None
    capacity_bytes: int | None = None

    def open(self, spec: LogSpec) -> LogWriter:
        """Open or create the log. Raises LogBusyError, LogSpecError, LogFullError."""
        return LogWriter(
            self.path,
            spec,
            durable_s=self.durable_s,
            capacity_steps=self.capacity_steps,
            capacity_bytes=self.capacity_bytes,
        )


@dataclass
class Recording:
    """Takes parts of observations and steps in any order; writes the rows that are complete.

    writer: an existing log; a new one is opened with the first row, when the image sizes are
    known. A full disk interrupts recording, not control.
    """

    file: LogFile
    robot: LogSpec
    cameras: tuple[str, ...]
    evaluation: bool = True  # also record evaluation episodes
    writer: LogWriter | None = None
    fault: LogError | None = None  # why nothing is recorded now
    lost: int = 0  # parts received while nothing was recorded
    acknowledge: Callable[[int], None] = lambda stamp_ns: None
    _action: VectorSpec = field(init=False)
    _rows: RowAssembler = field(init=False)
    _sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _muted_until: float = 0.0
    _first_ns: int = -1  # an episode's first observation, not yet acknowledged
    _counted: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.robot.action is None:
            raise LogSpecError("robot: got a spec without actions, expected one with actions")
        self._action = self.robot.action
        self.robot = replace(self.robot, evaluation=True)
        self._rows = self._assembler()
        if self.writer is not None:
            self._sizes = {c: s for c, s in self.writer.spec.cameras.items() if c in self.cameras}
            self._continue_log(self.writer)

    @property
    def unjoined(self) -> int:
        """Observations dropped because a part of them was not received."""
        return self._counted[0] + self._rows.unjoined

    @property
    def cut(self) -> int:
        """Episodes that are incomplete in the log."""
        return self._counted[1] + self._rows.cut

    def image(self, camera: str, stamp_ns: int, image: Image) -> None:
        """Record an image (H, W, 3). MessageError if its size has changed."""
        size = self._sizes.setdefault(camera, image.shape)
        if size != image.shape:
            raise MessageError(
                f"{camera}/image/size", f"{camera}/image: got shape {image.shape}, expected {size}"
            )
        self._record(lambda rows: rows.put(f"image/{camera}", stamp_ns, image))

    def depth(self, name: str, stamp_ns: int, depth: Depth) -> None:
        """Record a depth image (H, W). MessageError if its size is not the robot's."""
        size = self.robot.sensors[name].shape
        if size != depth.shape:
            raise MessageError(
                f"{name}/image_raw/size", f"{name}: got shape {depth.shape}, expected {size}"
            )
        self._record(lambda rows: rows.put(f"sensor/{name}", stamp_ns, depth))

    def joints(self, stamp_ns: int, names: tuple[str, ...], values: Vector) -> None:
        """Record proprioception (P,). MessageError if it is another robot's."""
        own = self.robot.proprio.names if self.robot.proprio else ()
        if names != own:
            raise MessageError("joint_states/names", f"joint_states: got {names}, expected {own}")
        self._record(lambda rows: rows.put("proprio", stamp_ns, values))

    def step(self, step: Step) -> None:
        """Record one step. MessageError if it is another robot's."""
        if step.names != self._action.names:
            raise MessageError(
                "step/names", f"step: got {step.names}, expected {self._action.names}"
            )
        if not (step.explore or self.evaluation):
            if step.is_first:
                self.acknowledge(step.stamp_ns)
            return
        if step.is_first:
            self._first_ns = step.stamp_ns
            if time.monotonic() < self._muted_until:
                self._acknowledge_first()
        self._record(lambda rows: rows.step(step))

    def finish(self) -> None:
        """End the open episode and make everything durable."""
        self._write(self._rows.finish())
        if self.writer is not None and self.fault is None:
            self.writer.flush()

    # --------------------------------------------------------------------------------------------

    def _assembler(self) -> RowAssembler:
        fields = [f"image/{camera}" for camera in self.cameras]
        fields += [f"sensor/{name}" for name in self.robot.sensors]
        fields += ["proprio"] * (self.robot.proprio is not None)
        return RowAssembler(tuple(fields), len(self._action))

    def _continue_log(self, writer: LogWriter) -> None:
        """Raise LogSpecError if the log is another robot's; `extra` may differ (versions, seeds).

        Fields that the log does not have yet are added to it.
        """
        spec = writer.spec
        mine = replace(self.robot, cameras=spec.cameras, extra=spec.extra)
        differences = spec.differences(mine)
        if differences and spec.with_fields_of(mine) is not None:
            writer.close()
            self.writer, differences = self.file.open(mine), []
        missing = sorted(set(self.cameras) ^ set(spec.cameras))
        if differences or missing:
            what = "; ".join(differences) or f"cameras {sorted(spec.cameras)}, not {self.cameras}"
            raise LogSpecError(
                f"log: got {self.file.path} of another robot or task ({what}), expected one of "
                "this robot and task. Use another log, or the robot and task of this log."
            )

    def _record(self, put: Callable[[RowAssembler], list[Row]]) -> None:
        if time.monotonic() < self._muted_until:
            self.lost += 1
            return
        self._write(put(self._rows))
        if self._first_ns >= 0 and self._rows.joined_ns >= self._first_ns:
            self._acknowledge_first()

    def _write(self, rows: list[Row]) -> None:
        """Append rows. Errors when the log is opened are raised; a failing disk is not."""
        if rows and self.writer is None:
            received = self._sizes  # in the order of their first images: the log has the robot's
            sizes = {c: (received[c][0], received[c][1], 3) for c in self.cameras if c in received}
            self.writer = self.file.open(replace(self.robot, cameras=sizes))
        for row in rows:
            assert self.writer is not None
            try:
                self.writer.append(row)
                self.fault = None
            except LogError as error:
                self._mute(error)
                return

    def _mute(self, error: LogError) -> None:
        """Stop recording; continue with a new episode after RETRY_S."""
        self.fault = error
        self._muted_until = time.monotonic() + RETRY_S
        self._counted = (self.unjoined, self.cut + 1)
        self._rows = self._assembler()
        self._acknowledge_first()

    def _acknowledge_first(self) -> None:
        """Acknowledge the episode's first observation: it is complete, or will not be recorded."""
        if self._first_ns >= 0:
            self.acknowledge(self._first_ns)
        self._first_ns = -1


def open_existing(file: LogFile) -> LogWriter | None:
    """Open an existing log with its own spec; None if there is none."""
    if not (Path(file.path) / "zarr.json").exists():
        return None
    with LogReader(file.path) as reader:
        spec = reader.spec
    return file.open(spec)
