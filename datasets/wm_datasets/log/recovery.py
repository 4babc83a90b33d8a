"""Opening a log for writing: create it, or repair what the last writer left and continue it."""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH108

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_datasets.errors import LogFormatError, LogSpecError
from wm_datasets.log.reader import LogReader
from wm_datasets.log.segment_queue import segments_per_commit
from wm_datasets.spec import LogSpec
from wm_datasets.storage.added_fields import clear_undeclared
from wm_datasets.storage.column import clean_up, sync_folder
from wm_datasets.storage.damage import Damage
from wm_datasets.storage.damaged_copies import keep_aside
from wm_datasets.storage.file_reads import exists, list_names
from wm_datasets.storage.lock import LOCK_NAME
from wm_datasets.storage.manifest import ROOT, ROOT_COPY, Manifest, load_manifest
from wm_datasets.storage.sealer import Sealer
from wm_datasets.storage.segment import (
    HEADER_BYTES,
    WAL_FOLDER,
    list_segments,
    mark_durable,
    read_mark,
    record_dtype,
    segment_path,
)

_log = logging.getLogger(__name__)
MISSING = "they were on the disk, and the file is missing or cut"


@dataclass(frozen=True)
class OpenedLog:
    """A log without segments, ready to be appended to."""

    sealer: Sealer
    length: int
    repaired: str | None  # what recovery dropped or lost; None: nothing


def claim_folder(path: Path) -> None:
    """Make the folder, or make sure that it is a log's."""
    created = [p for p in (path, *path.parents) if not exists(p)]
    path.mkdir(parents=True, exist_ok=True)
    for folder in created:
        sync_folder(folder.parent)
    if exists(path / ROOT) or exists(path / ROOT_COPY):
        load_manifest(path)
    elif not exists(path / LOCK_NAME) and (others := list_names(path)):
        raise LogFormatError(
            f"log: got {path}, which holds {others[0]}, expected a log or a new path."
        )


def open_for_writing(
    path: Path, spec: LogSpec, capacity_steps: int | None, capacity_bytes: int | None
) -> OpenedLog:
    """Create the log, or seal what its segments hold and add the fields that `spec` has on top.

    The caller holds the log's lock. LogSpecError: the log has another spec.
    """
    if not exists(path / ROOT) and not exists(path / ROOT_COPY):
        manifest = Manifest.new(spec)
        manifest.create_folders(path)
        (path / WAL_FOLDER).mkdir(exist_ok=True)
        manifest.commit(path)
    manifest = load_manifest(path)
    differences, whole = manifest.spec.differences(spec), manifest.spec.with_fields_of(spec)
    if differences and whole is None:
        raise LogSpecError(
            f"spec: got another than the log {path} has. Differences: {'; '.join(differences)}. "
            "Use another path or the log's own spec."
        )
    clear_undeclared(path, manifest)
    manifest.create_folders(path)  # one that is missing takes its rows, not the next ones
    sealer = Sealer(path, manifest, capacity_steps, capacity_bytes)
    length, repaired = _recover(path, sealer)
    sealer.manifest.restore_arrays(path)
    if whole is not None and differences:
        manifest = sealer.manifest.with_fields_of(whole)
        manifest.create_folders(path)
        sync_folder(path)
        manifest.commit(path)
        sealer = Sealer(path, manifest, capacity_steps, capacity_bytes)
    return OpenedLog(sealer, length, repaired)


def _recover(path: Path, sealer: Sealer) -> tuple[int, str | None]:
    """Seal what segments hold, drop what is torn, and leave no segment; return length, repairs."""
    sealed, repairs = sealer.manifest.sealed, [str(d) for d in sealer.damage]
    with LogReader(path) as reader:
        records, length = reader.unsealed, reader.length
        segments = [d for d in reader.damage if d.path.suffix == ".seg"]
    wal = path / WAL_FOLDER
    starts, mark = list_segments(wal), read_mark(wal)
    torn = {
        start: _torn_bytes(wal, start, length, sealer.manifest)
        for start in starts
        if start >= sealed
    }
    _keep_segments(path, segments, torn if mark > length else {}, sealer.manifest.segment_rows)
    _seal(sealer, records, [row for d in segments for row in range(d.start, d.stop)])
    for start in starts:
        if start < length:
            clean_up(segment_path(wal, start))
        else:  # one without rows: it must be gone before a new layout is declared
            os.unlink(segment_path(wal, start))
    sync_folder(wal)  # or one without rows is back under a grown spec
    if dropped := sum(torn.values()):
        repairs.insert(0, f"dropped {dropped} bytes of an unfinished write after row {length - 1}")
    repairs += [str(damage) for damage in segments]
    if mark > length:
        repairs.append(str(Damage(segment_path(wal, length), length, mark, MISSING)))
    mark_durable(wal, length)
    if not repairs:
        return length, None
    lost_rows = sum(stop - start for start, stop in sealer.manifest.lost)
    whole = length - sealer.manifest.first - lost_rows
    repaired = f"{path}: {'; '.join(repairs)}; {whole} whole rows kept"
    _log.warning(repaired)
    return length, repaired


def _seal(sealer: Sealer, records: np.ndarray, lost: list[int]) -> None:
    """Seal all records, in commits that end where a segment does.

    So a kill in between leaves no half of a segment.
    """
    segment_rows = sealer.manifest.segment_rows
    while True:
        into = sealer.manifest.sealed % segment_rows
        count = segments_per_commit(sealer.manifest) * segment_rows - into
        part, records = np.split(records, [count])
        sealer.seal(part, end_open=not len(records), lost=lost)
        if not len(records):
            return


def _torn_bytes(wal: Path, start: int, length: int, manifest: Manifest) -> int:
    """Return the bytes of a segment that are no whole record; the log ends at row `length`."""
    size = segment_path(wal, start).stat().st_size
    end = (start // manifest.segment_rows + 1) * manifest.segment_rows
    rows = max(0, min(length, end) - start)
    whole = HEADER_BYTES + rows * record_dtype(manifest.spec.fields).itemsize
    return size if size < HEADER_BYTES else max(0, size - whole)


def _keep_segments(
    path: Path, damaged: Iterable[Damage], torn: Mapping[int, int], segment_rows: int
) -> None:
    """Keep segments aside that hold rows which were recorded and cannot be read."""
    wal = path / WAL_FOLDER
    starts = {damage.path: int(damage.path.stem) for damage in damaged}
    starts |= {segment_path(wal, start): start for start, count in torn.items() if count}
    for file, start in starts.items():
        keep_aside(path, file, start, (start // segment_rows + 1) * segment_rows)
