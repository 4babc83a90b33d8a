"""The episodes of a reader follow the log's rows, its capacity and its damage."""

import numpy as np
import pytest

from wm_datasets.errors import LogRowError
from wm_datasets.storage.damage import Damage, LogDamageError
from wm_datasets.storage.episode_table import EpisodeTable
from wm_datasets.storage.episodes import EpisodeIndex

IS_FIRST = np.array([1, 0, 0, 1, 0, 1, 0, 0], bool)
IS_LAST = np.array([0, 0, 1, 0, 1, 0, 0, 0], bool)


def read(name, start, stop, out):
    out[:] = {"is_first": IS_FIRST, "is_last": IS_LAST}[name][start:stop]


def test_new_rows_and_dropped_episodes_are_followed():
    table = EpisodeTable(EpisodeIndex(0), 0)
    assert table.follow(0, 4, read)
    assert table.table.tolist() == [(0, 3, True), (3, 1, False)]
    assert table.follow(0, 8, read)
    assert table.table.tolist() == [(0, 3, True), (3, 2, True), (5, 3, False)]
    assert table.follow(3, 8, read)
    assert table.table.tolist() == [(3, 2, True), (5, 3, False)]


@pytest.mark.parametrize("first", [3, 5])
def test_a_reader_whose_next_rows_were_dropped_starts_at_the_first_row(first):
    table = EpisodeTable(EpisodeIndex(0), 0)
    table.follow(0, 2, read)
    assert table.follow(first, 8, read)
    assert table.table["start"].tolist() == [start for start in (3, 5) if start >= first]


def test_rows_that_were_dropped_while_they_were_read_are_read_again_later():
    def read_dropped(name, start, stop, out):
        raise LogRowError("dropped")

    table = EpisodeTable(EpisodeIndex(0), 0)
    assert not table.follow(0, 8, read_dropped)
    assert len(table.table) == 0
    assert table.follow(3, 8, read)


def test_lost_rows_begin_an_episode():
    def read_damaged(name, start, stop, out):
        if start <= 6 < stop:
            raise LogDamageError(Damage(None, 6, 7, "x"))
        read(name, start, stop, out)

    table = EpisodeTable(EpisodeIndex(0), 0)
    table.follow(0, 4, read)
    assert table.follow(0, 8, read_damaged)
    assert table.table["start"].tolist() == [0, 3, 5, 6]


def test_evaluation_marks_are_read_once_and_follow_the_rows():
    marks, read_ranges = np.arange(12) % 3 == 0, []

    def read_marks(start, stop):
        read_ranges.append((start, stop))
        return marks[start:stop]

    table = EpisodeTable(EpisodeIndex(2), 2)
    for first, length in ((2, 5), (2, 5), (2, 8), (4, 10), (4, 10), (6, 10)):
        evaluation_rows = table.evaluation_rows(first, length, read_marks)
        assert evaluation_rows.tolist() == marks[first:length].tolist()
    assert read_ranges == [(2, 5), (5, 8), (8, 10), (10, 10)]
