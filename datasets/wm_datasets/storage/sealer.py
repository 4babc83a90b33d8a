"""Moving rows from the write-ahead segments into the zarr arrays, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wm_datasets.storage.column import Column, ColumnWriter, clean_up
from wm_datasets.storage.damage import merge
from wm_datasets.storage.damaged_copies import FOLDER, keep_aside, kept_aside
from wm_datasets.storage.episodes import EpisodeIndex
from wm_datasets.storage.file_reads import list_names, retried
from wm_datasets.storage.index import sealed_index
from wm_datasets.storage.manifest import Manifest


class Sealer:
    """The zarr side of a log that is open for writing; not safe for several threads.

    The newest episodes are kept: as many as fit into `capacity_steps` rows and `capacity_bytes`
    bytes of chunks, and always the newest one. `damage` is what was damaged at opening.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        capacity_steps: int | None = None,
        capacity_bytes: int | None = None,
    ) -> None:
        self.manifest = manifest  # what is committed
        self._root, self._steps, self._bytes = root, capacity_steps, capacity_bytes
        self._index, self.damage = sealed_index(root, manifest)
        self._rows = {
            name: ColumnWriter(column, manifest.sealed)
            for name, column in manifest.columns(root).items()
        }
        self._spoilt: list[Path] = []  # chunks of the episode table that zeros stand in for
        self._table = {
            name: self._open_table(name, column)
            for name, column in manifest.episode_columns(root).items()
        }
        self._clean_folders()
        self._lost = [column.lost for column in self._rows.values() if column.lost]
        self.damage += self._lost

    def seal(
        self, records: np.ndarray, *, end_open: bool = False, lost: Sequence[int] = ()
    ) -> None:
        """Append records, (n,) of record_dtype; they count when the root's zarr.json is in place.

        `end_open` closes an episode that is still open, as incomplete; `lost` are the rows whose
        records only stand in for damaged ones. A failure on the way leaves the log as it was, and
        the call may be made again. Files that count for nothing afterwards are deleted last, and
        one that cannot be is logged: nothing that fails comes between the commit and the books.
        """
        self._declare_lost(replaced=len(records) > 0)
        for name, column in self._rows.items():
            column.stage(records[name])
        index = self._index.copy()
        index.extend(records["is_first"], records["is_last"])
        new = self._stage_episodes(index, end_open)
        ranges = [*new.lost, *((row, row + 1) for row in lost)]
        new = replace(new, lost=merge(ranges, new.first))
        if new == self.manifest:
            return
        new.commit(self._root)
        for column in (*self._rows.values(), *self._table.values()):
            column.commit()
        old, self.manifest, self._index = self.manifest, new, index
        index.drop_before(new.first)
        for column in self._rows.values():
            column.drop(old.first, new.first)

    def _declare_lost(self, *, replaced: bool) -> None:
        """Declare durably which rows were lost at opening, before zeros stand in for them.

        Their files are about to be `replaced` by ones with these zeros: they are kept aside first.
        """
        if not self._lost and not self._spoilt:
            return
        ranges = [*self.manifest.lost, *((damage.start, damage.stop) for damage in self._lost)]
        new = replace(self.manifest, lost=merge(ranges, self.manifest.first))
        if new != self.manifest:
            new.commit(self._root)
            self.manifest = new
        for path in self._spoilt:
            keep_aside(self._root, path, new.first, new.first)
        self._spoilt = []
        if replaced:
            for damage in self._lost:
                keep_aside(self._root, damage.path, damage.start, damage.stop)
            self._lost = []

    def _stage_episodes(self, index: EpisodeIndex, end_open: bool) -> Manifest:
        """Write the episodes that ended and choose the ones that the capacity drops."""
        old, table = self.manifest, index.table
        still_open = len(table) > 0 and not table["complete"][-1] and not end_open
        known = old.episodes - old.first_episode
        ended = max(known, len(table) - still_open)
        for name, column in self._table.items():
            column.stage(table[known:ended][name.removeprefix("episode/")])
        drop = self._count_dropped(table["start"], index.length)
        return replace(
            old,
            sealed=index.length,
            first=int(table["start"][drop]) if drop else old.first,
            episodes=old.first_episode + ended,
            first_episode=old.first_episode + drop,
        )

    def _count_dropped(self, starts: np.ndarray, length: int) -> int:
        """How many of the oldest episodes go; `starts` (E,) are the first rows of all."""
        drop = 0
        if self._steps is not None:
            drop = int(np.searchsorted(starts, length - self._steps))
        if self._bytes is not None:
            drop = max(drop, int(np.searchsorted(-self._bytes_from(starts), -self._bytes)))
        return min(drop, max(0, len(starts) - 1))

    def _bytes_from(self, rows: np.ndarray) -> np.ndarray:
        """Bytes of the chunks that stay when each of `rows` (E,) is the first one kept."""
        chunks = [
            ((i + 1) * writer.column.chunk, size)
            for writer in self._rows.values()
            for i, size in writer.sizes.items()
        ]
        ends, sizes = np.array(sorted(chunks), np.int64).reshape(-1, 2).T
        kept = np.append(sizes[::-1].cumsum()[::-1], 0)
        return kept[np.searchsorted(ends, rows, side="right")]

    def _open_table(self, name: str, column: Column) -> ColumnWriter:
        """Continue the episode table; its last chunk is written again where it is damaged."""
        count, begin = self.manifest.episodes, self.manifest.first_episode
        used = count % column.chunk
        if not self.damage or not used:
            return ColumnWriter(column, count)
        values = np.zeros(count, column.field.dtype)
        known = self._index.table[name.removeprefix("episode/")][: count - begin]
        values[begin : begin + len(known)] = known
        if len(self.damage) > 1:  # so are the flags it is made from
            self._spoilt.append(column.chunk_path(count // column.chunk))
        return ColumnWriter(column, count, values[count - used :])

    def _clean_folders(self) -> None:
        """Remove what a killed writer left beside the log, and look at the sizes of chunks."""
        groups = [self._root]
        groups += [self._root / name for name in ("episode", "image", "sensor", FOLDER)]
        for folder in (*groups, *(writer.column.folder for writer in self._table.values())):
            _remove_unfinished(folder)
        for writer in self._rows.values():
            self._clean_column(writer)
        for path, _, stop in kept_aside(self._root):
            if stop < self.manifest.first:
                clean_up(path)

    def _clean_column(self, writer: ColumnWriter) -> None:
        """Remove unfinished files and dropped chunks of a field; note the sizes of the others."""
        folder, oldest = writer.column.folder, self.manifest.first // writer.column.chunk
        for name in _remove_unfinished(folder):
            i = writer.column.chunk_number(name)
            if i is None:
                continue
            if i < oldest:
                clean_up(folder / name)
            elif self._bytes is not None:
                writer.sizes[i] = _size(folder / name)


def _remove_unfinished(folder: Path) -> list[str]:
    """Remove files that a killed writer did not finish; return the names of the others."""
    names = list_names(folder)
    for name in names:
        if name.endswith(".tmp"):
            clean_up(folder / name)
    return [name for name in names if not name.endswith(".tmp")]


def _size(path: Path) -> int:
    """Bytes of a file, which is not opened for it; 0 without one."""
    try:
        return retried(path, path.stat).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
