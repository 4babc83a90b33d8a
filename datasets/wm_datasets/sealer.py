"""Moving rows from the write-ahead segments into the zarr arrays, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from wm_datasets.column import ColumnWriter
from wm_datasets.episodes import EpisodeIndex
from wm_datasets.manifest import Manifest


class Sealer:
    """The zarr side of a log that is open for writing; not safe for several threads."""

    def __init__(self, root: Path, manifest: Manifest, capacity_steps: int | None) -> None:
        self.manifest = manifest  # what is committed
        self._root, self._capacity = root, capacity_steps
        columns, table = manifest.columns(root), manifest.episode_columns(root)
        self._sweep()
        self._rows = {n: ColumnWriter(c, manifest.sealed) for n, c in columns.items()}
        self._table = {n: ColumnWriter(c, manifest.episodes) for n, c in table.items()}
        self._index = EpisodeIndex(manifest.first)
        flags = [columns[n].read(manifest.first, manifest.sealed) for n in ("is_first", "is_last")]
        self._index.extend(*flags)

    def seal(self, records: np.ndarray, *, end_open: bool = False) -> None:
        """Append records, (n,) of record_dtype; they count when the root's zarr.json is in place.

        `end_open` closes an episode that is still open, as incomplete. A failure on the way leaves
        the log as it was, and the call may be made again.
        """
        for name, column in self._rows.items():
            column.stage(records[name])
        index = self._index.copy()
        index.extend(records["is_first"], records["is_last"])
        new = self._stage_episodes(index, end_open)
        if new == self.manifest:
            return
        new.commit(self._root)
        for column in (*self._rows.values(), *self._table.values()):
            column.commit()
        old, self.manifest, self._index = self.manifest, new, index
        index.drop_before(new.first)
        for column in self._rows.values():
            column.column.drop_chunks(old.first, new.first)

    def _stage_episodes(self, index: EpisodeIndex, end_open: bool) -> Manifest:
        """Write the episodes that ended and choose the ones that the capacity drops."""
        old, table = self.manifest, index.table
        still_open = len(table) > 0 and not table["complete"][-1] and not end_open
        known = old.episodes - old.first_episode
        ended = max(known, len(table) - still_open)
        for name, column in self._table.items():
            column.stage(table[known:ended][name.removeprefix("episode/")])
        drop = 0
        if self._capacity is not None:
            oldest = index.length - self._capacity
            drop = min(int(np.searchsorted(table["start"], oldest)), max(0, len(table) - 1))
        return replace(
            old,
            sealed=index.length,
            first=int(table["start"][drop]) if drop else old.first,
            episodes=old.first_episode + ended,
            first_episode=old.first_episode + drop,
        )

    def _sweep(self) -> None:
        """Remove what a killed writer left beside the log."""
        for aside in self._root.rglob("*.tmp"):
            aside.unlink()
        for column in self.manifest.columns(self._root).values():
            chunks = [int(path.name.split(".")[1]) for path in column.folder.glob("c.*")]
            column.drop_chunks(min(chunks, default=0) * column.chunk, self.manifest.first)
