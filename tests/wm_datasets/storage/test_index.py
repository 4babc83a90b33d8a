"""Episodes of sealed rows are read from the table, and from the flags where it is inconsistent."""

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_datasets.log_rows import make_spec
from wm_datasets.storage.column import ColumnWriter
from wm_datasets.storage.damage import LogDamageError
from wm_datasets.storage.index import read_table, sealed_index
from wm_datasets.storage.manifest import Manifest

LENGTHS = (3, 5, 1, 4)  # of the closed episodes; all but the second are complete
OPEN = 2  # rows of the open episode


@pytest.fixture
def manifest(tmp_path):
    """A log of flags and an episode table only; its first episode was dropped."""
    starts = np.cumsum([0, *LENGTHS])
    rows = int(starts[-1]) + OPEN
    new_manifest = replace(
        Manifest.new(make_spec()),
        sealed=rows,
        first=LENGTHS[0],
        episodes=len(LENGTHS),
        first_episode=1,
    )
    new_manifest.create_folders(tmp_path)
    first, last = np.zeros(rows, bool), np.zeros(rows, bool)
    first[starts], last[starts[1:] - 1] = True, True
    last[LENGTHS[0] + LENGTHS[1] - 1] = False
    columns = new_manifest.columns(tmp_path) | new_manifest.episode_columns(tmp_path)
    table = {"episode/start": starts[:-1], "episode/length": np.array(LENGTHS)}
    table["episode/complete"] = last[starts[1:] - 1]
    for name, values in {"is_first": first, "is_last": last, **table}.items():
        ColumnWriter(columns[name], 0).stage(values.astype(columns[name].field.dtype))
    return new_manifest


EPISODES = [(3, 5, False), (8, 1, True), (9, 4, True), (13, 2, False)]


def rewrite(root, manifest, name, change):
    """Change the entries of the episode table's column."""
    column = manifest.episode_columns(root)[name]
    values = column.read(0, manifest.episodes).copy()
    change(values)
    ColumnWriter(column, 0).stage(values)


def test_the_table_is_read_with_the_open_episode_behind_it(tmp_path, manifest):
    assert read_table(tmp_path, manifest).tolist() == EPISODES
    index, damage = sealed_index(tmp_path, manifest)
    assert index.table.tolist() == EPISODES and damage == []
    assert index.length == manifest.sealed
    closed = replace(manifest, sealed=manifest.sealed - OPEN)
    assert read_table(tmp_path, closed).tolist() == EPISODES[:-1]


def test_without_closed_episodes_all_rows_are_one_open_episode(tmp_path, manifest):
    without_closed = replace(manifest, first_episode=0, episodes=0, first=4)
    assert read_table(tmp_path, without_closed).tolist() == [(4, 11, False)]
    assert read_table(tmp_path, replace(without_closed, sealed=4)).tolist() == []


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("episode/start", 1, 2),
        ("episode/start", 1, 4),
        ("episode/start", 2, 9),
        ("episode/start", 3, 8),
        ("episode/length", 2, 0),
        ("episode/length", 3, 99),
        ("episode/length", 1, 4),
    ],
)
def test_an_inconsistent_table_is_rebuilt_from_the_flags(tmp_path, manifest, name, at, value):
    rewrite(tmp_path, manifest, name, lambda values: values.__setitem__(at, value))
    with pytest.raises(LogDamageError, match="do not follow each other"):
        read_table(tmp_path, manifest)
    index, damage = sealed_index(tmp_path, manifest)
    assert index.table.tolist() == EPISODES and index.length == manifest.sealed
    assert len(damage) == 1 and damage[0].start == damage[0].stop == manifest.first
    assert "episodes 1 to 4; read from the rows" in damage[0].reason


def test_an_empty_episode_between_two_is_refused(tmp_path, manifest):
    """Starts and lengths agree; only the length of 0 is wrong."""

    def empty(values):
        values[2] = 0

    def next_start(values):
        values[3] = 8

    def longer(values):
        values[2], values[3] = 0, 5

    rewrite(tmp_path, manifest, "episode/length", longer)
    rewrite(tmp_path, manifest, "episode/start", next_start)
    with pytest.raises(LogDamageError):
        read_table(tmp_path, manifest)


def test_where_flags_are_lost_an_episode_begins(tmp_path, manifest):
    columns = manifest.columns(tmp_path)
    manifest.episode_columns(tmp_path)["episode/start"].chunk_path(0).unlink()
    columns["is_first"].chunk_path(0).unlink()
    index, damage = sealed_index(tmp_path, manifest)
    assert index.table["start"][0] == manifest.first
    assert len(damage) == 2 and damage[1].start == manifest.first
    columns["is_last"].chunk_path(0).unlink()
    index, damage = sealed_index(tmp_path, manifest)
    assert len(damage) == 3 and not index.table["complete"].any()


def test_lost_flags_within_an_episode_begin_one(tmp_path, manifest):
    flags = manifest.columns(tmp_path)["is_first"].read(0, manifest.sealed)
    manifest = replace(manifest, chunks=manifest.chunks | {"is_first": 4})
    column = manifest.columns(tmp_path)["is_first"]
    ColumnWriter(column, 0).stage(flags)
    column.chunk_path(1).unlink()  # rows 4 to 8 of the episode that begins at 3
    manifest.episode_columns(tmp_path)["episode/start"].chunk_path(0).unlink()
    index, damage = sealed_index(tmp_path, manifest)
    assert index.table.tolist() == [(3, 1, False), (4, 4, False), *EPISODES[1:]]
    assert [(d.start, d.stop) for d in damage[1:]] == [(4, 8)]
