"""The episode table agrees with the flags of the rows, in whatever parts they are added."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wm_datasets.storage.episodes import EPISODE, EpisodeIndex

FIRST = 7
flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


def episodes(is_first, is_last):
    """The table by definition: an episode begins at each is_first, and at the first row."""
    starts = [i for i, first in enumerate(is_first) if first or i == 0]
    ends = [*starts[1:], len(is_first)]
    return [(FIRST + a, b - a, bool(is_last[b - 1])) for a, b in zip(starts, ends)]


def extend(index, rows):
    index.extend(*(np.array(column, bool) for column in zip(*rows)))


@given(rows=flags, cuts=st.lists(st.integers(0, 80), max_size=5))
def test_the_table_does_not_depend_on_how_the_rows_are_cut(rows, cuts):
    rows[0] = (True, rows[0][1])
    index = EpisodeIndex(FIRST)
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for lo, hi in pairwise(bounds):
        extend(index, rows[lo:hi])
    expected = episodes(*zip(*rows))
    assert index.table.tolist() == expected
    assert (len(index), index.length) == (len(expected), FIRST + len(rows))


def test_many_episodes_fit_and_dropping_makes_room_for_more():
    index = EpisodeIndex(0)
    for row in range(0, 400, 2):
        extend(index, [(True, False), (False, True)])
        index.drop_before(row - 20)
    assert index.table["start"].tolist() == list(range(378, 400, 2))
    assert index.table["complete"].all() and (index.table["length"] == 2).all()


def test_no_rows_change_nothing():
    index = EpisodeIndex(3)
    index.extend(np.zeros(0, bool), np.zeros(0, bool))
    assert (len(index), index.length) == (0, 3)


@pytest.mark.parametrize(("row", "remaining"), [(0, 3), (1, 2), (3, 2), (4, 1), (6, 1), (7, 0)])
def test_episodes_that_start_before_a_row_are_dropped(row, remaining):
    table = np.array([(0, 3, True), (3, 3, True), (6, 1, False)], EPISODE)
    index = EpisodeIndex.of(table, 7)
    index.drop_before(row)
    assert (
        index.table.tolist() == table[len(table) - remaining :].tolist() and len(index) == remaining
    )


def test_copies_and_tables_share_no_memory():
    table = np.array([(0, 3, False)], EPISODE)
    index = EpisodeIndex.of(table, 3)
    copy = index.copy()
    extend(index, [(False, True)])
    index.table["length"][:] = 0
    assert copy.table.tolist() == table.tolist() == [(0, 3, False)] and copy.length == 3
    assert index.table.tolist() == [(0, 4, True)]
