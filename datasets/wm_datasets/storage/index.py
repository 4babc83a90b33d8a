"""The episodes of the sealed rows: from the episode table, or from the rows' flags without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm_datasets.storage.column import Column
from wm_datasets.storage.damage import Damage, LogDamageError, read_around
from wm_datasets.storage.episodes import EPISODE, EpisodeIndex
from wm_datasets.storage.manifest import Manifest


def sealed_index(root: Path, manifest: Manifest) -> tuple[EpisodeIndex, list[Damage]]:
    """Return the episodes of rows [first, sealed), and what was found damaged on the way.

    The table is short, so a log of a million rows opens as quickly as one of a thousand.
    """
    try:
        table = read_table(root, manifest)
    except LogDamageError as error:
        index, damage = _from_flags(manifest.columns(root), manifest)
        broken = error.damage
        reason = f"{broken.reason} (episodes {broken.start} to {broken.stop}; read from the rows)"
        return index, [Damage(broken.path, manifest.first, manifest.first, reason), *damage]
    return EpisodeIndex.of(table, manifest.sealed), []


def read_table(root: Path, manifest: Manifest) -> np.ndarray:
    """Return the sealed rows' episodes, (E,) of EPISODE; LogDamageError when they make no sense."""
    begin, end = manifest.first_episode, manifest.episodes
    table = np.zeros(end - begin + 1, EPISODE)
    columns = manifest.episode_columns(root)
    for name, column in columns.items():
        table[name.removeprefix("episode/")][:-1] = column.read(begin, end)
    closed = table[:-1]
    open_since = int(closed["start"][-1] + closed["length"][-1]) if len(closed) else manifest.first
    table[-1] = (open_since, manifest.sealed - open_since, False)
    starts = np.append(manifest.first, closed["start"] + closed["length"])
    if (starts != table["start"]).any() or (closed["length"] < 1).any() or table[-1]["length"] < 0:
        path = columns["episode/start"].folder
        raise LogDamageError(Damage(path, begin, end, "the episodes do not follow each other"))
    return table if table["length"][-1] else closed


def _from_flags(
    columns: dict[str, Column], manifest: Manifest
) -> tuple[EpisodeIndex, list[Damage]]:
    """Read the flags of all rows; where they are lost, an episode of unknown rows begins."""
    first, sealed = manifest.first, manifest.sealed
    flags = {name: np.zeros(sealed - first, bool) for name in ("is_first", "is_last")}
    damage = []
    for name, values in flags.items():
        for lost in read_around(columns[name].read, first, sealed, values):
            damage.append(lost)
            if name == "is_first":
                values[lost.start - first] = True
    if sealed > first:
        flags["is_first"][0] = True
    index = EpisodeIndex(first)
    index.extend(flags["is_first"], flags["is_last"])
    return index, damage
