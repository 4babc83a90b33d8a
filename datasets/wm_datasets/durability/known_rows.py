"""Rows that follow from their number, and their checksums: each row of a log is known to be right
or wrong."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import default_rng  # before any fork

from wm_datasets.log.reader import LogReader
from wm_datasets.log.writer import LogWriter
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import Field, LogSpec, Source, VectorSpec
from wm_datasets.storage.manifest import Manifest
from wm_datasets.storage.row_packer import RowPacker
from wm_datasets.storage.segment import (
    WAL_FOLDER,
    SegmentWriter,
    mark_durable,
    record_dtype,
    seal_record,
)

LATER: tuple[tuple[str, SensorSpec | tuple[int, int, int]], ...] = (  # added one by one
    ("depth", SensorSpec("uint16", (4, 6), "mm")),
    ("radiance", SensorSpec("float32", (3, 4, 2), "W/m^2/sr")),
    ("side", (5, 3, 3)),
    ("force", SensorSpec("float32", (6,), ("N",) * 3 + ("Nm",) * 3)),
)


def make_spec(frame: int, rate_hz: float, added: int = 0) -> LogSpec:
    """A log with two cameras, the first of `frame` x `frame`, and the first fields of LATER."""
    place = VectorSpec(("row", "step", "episode"), ("1",) * 3, (0,) * 3, (float("inf"),) * 3)
    hand = VectorSpec(("x", "y"), ("m", "m"), (-1, -1), (1, 1))
    cameras = {"front": (frame, frame, 3), "wrist": (4, 6, 3)}
    sensors: dict[str, SensorSpec] = {}
    for name, more in LATER[:added]:
        if isinstance(more, SensorSpec):
            sensors[name] = more
        else:
            cameras[name] = more
    return LogSpec("torture", "none", 1 / rate_hz, cameras, place, hand, sensors=sensors)


def create_log(root: Path, spec: LogSpec, segment_rows: int, chunk_rows: int | None = None) -> None:
    """Make an empty log with small segments, and small chunks if given."""
    manifest = replace(Manifest.new(spec), segment_rows=segment_rows)
    if chunk_rows is not None:
        manifest = replace(manifest, chunks=dict.fromkeys(manifest.chunks, chunk_rows))
    root.mkdir(parents=True, exist_ok=True)
    manifest.create_folders(root)
    (root / WAL_FOLDER).mkdir()
    manifest.commit(root)


def make_row(
    spec: LogSpec, seed: int, number: int, step: int, start: int, last: bool
) -> dict[str, Any]:
    """Row `number`, the `step`-th of the episode that begins with row `start`."""
    rng = default_rng((seed, number))
    action = np.zeros(2, np.float32) if last else rng.uniform(-1, 1, 2).astype(np.float32)
    observed = {
        name: _noise(field, rng)
        for name, field in spec.fields.items()
        if name.startswith(("image/", "sensor/"))
    }
    return {
        **observed,
        "proprio": np.array([number, step, start], np.float32),
        "action": action,
        "commanded": action,
        "reward": np.float32(0 if last else number % 7),
        "is_first": step == 0,
        "is_last": last,
        "is_terminal": False,
        "success": number % 3 == 0,
        "stamp": round((number + 1) * 1e9 * spec.control_period_s),
        "source": Source.RANDOM,
        "weights": number % 1000,
    }


def leave_log(
    root: Path, spec: LogSpec, seed: int, *, sealed: int, left: int, episode: int
) -> dict[int, int]:
    """Make a log as a killed writer leaves it; return the checksum of each of its rows.

    It has `sealed` rows in the arrays and `left` durable ones in segments, `episode` rows each;
    segments and chunks hold 16.
    """
    create_log(root, spec, 16, 16)
    sums = {}
    with LogWriter(root, spec) as writer:
        for number in range(sealed):
            step = number % episode
            row = make_row(spec, seed, number, step, number - step, step == episode - 1)
            sums[writer.append(row)] = checksum(spec, row)
    packer, wal = RowPacker(spec), root / WAL_FOLDER
    segments: list[SegmentWriter] = []
    for number in range(sealed, sealed + left):
        if not segments or number % 16 == 0:
            segments.append(SegmentWriter(wal, number, record_dtype(spec.fields)))
        step = number % episode
        row = make_row(spec, seed, number, step, number - step, step == episode - 1)
        segments[-1].append(seal_record(packer.pack(row, number)))
        sums[number] = checksum(spec, row)
    for segment in segments:
        segment.close()
    mark_durable(wal, sealed + left)
    return sums


def checksum(spec: LogSpec, row: Mapping[str, Any]) -> int:
    """Of all bits of a row."""
    crc = 0
    for name, f in spec.fields.items():
        crc = zlib.crc32(np.asarray(row[name], f.dtype).tobytes(), crc)
    return crc


def checksums(reader: LogReader, start: int, stop: int) -> list[int]:
    """The checksum of every row, over the fields that it has; that of a lost one is of zeros."""
    sums = [0] * (stop - start)
    for name in reader.spec.fields:
        begin = min(max(start, reader.since(name)), stop)
        values = reader.read_around(name, begin, stop)
        for i, value in enumerate(values, begin - start):
            sums[i] = zlib.crc32(value.tobytes(), sums[i])
    return sums


def _noise(field: Field, rng: np.random.Generator) -> np.ndarray:
    """One row of a camera or sensor, which no compression makes small."""
    if field.dtype.kind == "f":
        return rng.normal(0, 100, field.shape).astype(field.dtype)
    return rng.integers(0, np.iinfo(field.dtype).max, field.shape, field.dtype, endpoint=True)
