"""Taking back the newest rows of a log: those of an unfinished import."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wm_datasets.errors import LogRowError, disk_errors
from wm_datasets.log.writer import LogWriter
from wm_datasets.storage.column import sync_folder
from wm_datasets.storage.episodes import EpisodeIndex
from wm_datasets.storage.lock import WriterLock
from wm_datasets.storage.manifest import load_manifest, new_identity
from wm_datasets.storage.segment import MARK, WAL_FOLDER, list_segments, segment_path


def truncate(path: str | Path, length: int) -> int:
    """Make `length` the log's length, which must be an episode's end; return how many rows went.

    Where rows went the log gets a new id: readers that follow it refuse to continue, and archives
    that may hold those rows are refused, however many rows are appended afterwards.
    """
    root = Path(path)
    LogWriter(root, load_manifest(root).spec).close()  # seals what a killed writer left
    with disk_errors(root):
        lock = WriterLock(root)
        try:
            old = load_manifest(root)
            if not old.first <= length <= old.sealed:
                raise LogRowError(
                    f"length: got {length}, expected {old.first} to {old.sealed}, the rows of "
                    f"{root}."
                )
            index = EpisodeIndex(old.first)
            columns = old.columns(root)
            index.extend(*(columns[n].read(old.first, old.sealed) for n in ("is_first", "is_last")))
            starts = index.table["start"]
            if length not in (*starts.tolist(), old.sealed):
                raise LogRowError(
                    f"length: got {length}, which is in the middle of an episode of {root}, "
                    f"expected the first row of an episode, or {old.sealed}."
                )
            kept = int((starts < length).sum())
            for start in list_segments(root / WAL_FOLDER):  # sealed, or its rows would come back
                segment_path(root / WAL_FOLDER, start).unlink()
            (root / WAL_FOLDER / MARK).unlink(missing_ok=True)
            sync_folder(root / WAL_FOLDER)  # before the commit, or a power cut brings them back
            since = {name: min(row, length) for name, row in old.since.items()}
            identity = old.identity if length == old.sealed else new_identity()
            episodes = old.first_episode + kept
            replace(old, sealed=length, episodes=episodes, since=since, identity=identity).commit(
                root
            )
            for column in columns.values():
                column.drop_chunks(length + column.chunk - 1, old.sealed + column.chunk - 1)
            return old.sealed - length
        finally:
            lock.release()
