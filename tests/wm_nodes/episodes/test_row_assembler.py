"""The recorder's assembler: whatever order parts come in, rows are right or the episode ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.records import Step

FIELDS = ("image/top", "proprio")


def episode(start: int, length: int) -> list[Step]:
    """Steps of one episode of `length` actions; step t brought reward t by action t."""
    return [
        Step(
            stamp_ns=(start + t) * 10,
            names=("x",),
            executed=np.float32([t]),
            commanded=np.float32([t + 0.5 * (t > 0)]),
            reward=float(t),
            is_first=t == 0,
            is_last=t == length,
            is_terminal=t == length,
            success=t == length,
            weights=t,
            source=0,
        )
        for t in range(length + 1)
    ]


def parts(step: Step) -> list[tuple]:
    """What is published of one observation; the picture shows its stamp."""
    return [
        ("step", step),
        ("image/top", step.stamp_ns, np.full((2, 2, 3), step.stamp_ns // 10, np.uint8)),
        ("proprio", step.stamp_ns, np.float32([step.stamp_ns])),
    ]


def feed(rows: RowAssembler, *given: tuple) -> list[dict]:
    out = []
    for part in given:
        out += rows.step(part[1]) if part[0] == "step" else rows.put(*part)
    return out


def assembler(**settings) -> RowAssembler:
    return RowAssembler(FIELDS, 1, **settings)


def check(rows: list[dict]) -> None:
    """Every row's parts are of its own stamp, its outcome is of the next, its episode is closed."""
    for row, after in zip(rows, [*rows[1:], None]):
        stamp = row["stamp"]
        assert row["image/top"][0, 0, 0] == stamp // 10 and row["proprio"] == [stamp]
        if row["is_last"]:
            assert not row["action"].any() and not row["commanded"].any() and row["reward"] == 0
            assert after is None or after["is_first"]
        else:
            assert row["action"][0] == row["reward"] and row["weights"] == row["reward"]
            assert after is not None and not after["is_first"] and after["stamp"] == stamp + 10


def test_rows_shift_what_an_action_brought_to_the_observation_it_was_taken_from() -> None:
    rows = feed(assembler(), *(part for step in episode(0, 3) for part in parts(step)))
    check(rows)
    assert [r["reward"] for r in rows] == [1, 2, 3, 0]
    assert [r["action"][0] for r in rows] == [1, 2, 3, 0]
    assert [r["commanded"][0] for r in rows] == [1.5, 2.5, 3.5, 0]
    assert [r["is_first"] for r in rows] == [True, False, False, False]
    assert [r["is_terminal"] for r in rows] == [False, False, True, True]
    assert [r["success"] for r in rows] == [False, False, True, True]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_order_and_repetition_of_parts_gives_the_same_rows(data) -> None:
    steps = [*episode(0, 4), *episode(5, 3)]
    queue = [part for step in steps for part in parts(step)]
    expected = feed(assembler(), *queue)
    assert len(expected) == len(steps)
    keys = [i + data.draw(st.integers(0, 9)) for i in range(len(queue))]
    mixed = [queue[i] for i in sorted(range(len(queue)), key=lambda i: keys[i])]
    in_order = iter(steps)  # `step` is one reliable topic: its own order holds
    mixed = [("step", next(in_order)) if p[0] == "step" else p for p in mixed]
    twice = []
    for part in mixed:
        twice.append(part)
        if part[0] != "step" and data.draw(st.booleans()):
            twice.append(part)
    rows = feed(assembler(patience=99), *twice)
    check(rows)
    assert [r["stamp"] for r in rows] == [r["stamp"] for r in expected]


def test_a_step_published_again_is_recorded_once() -> None:
    queue = [part for step in episode(0, 3) for part in parts(step) * 2]
    assert len(feed(assembler(), *queue)) == 4


def test_a_repeated_whole_observation_ends_the_wait_for_lost_parts_before_it() -> None:
    first, second = episode(0, 3), episode(4, 3)
    rows = assembler(patience=8)
    out = feed(rows, *(p for s in first[:3] for p in parts(s)), parts(first[3])[0])
    step, *others = parts(second[0])
    out += feed(rows, step, step)  # repeated, but not whole: the lost parts may still come
    assert rows.unjoined == 0 and rows.joined_ns == first[2].stamp_ns
    out += feed(rows, *others)
    assert rows.unjoined == 0
    out += feed(rows, step)
    assert rows.unjoined == 1 and rows.joined_ns == second[0].stamp_ns
    out += feed(rows, *(p for s in second[1:] for p in parts(s)))
    check(out)
    assert [r["stamp"] // 10 for r in out] == [0, 1, 2, 4, 5, 6, 7]


@settings(max_examples=100, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 11), st.sampled_from(FIELDS)), max_size=4))
def test_lost_parts_cut_episodes_and_never_misalign(lost) -> None:
    steps = [*episode(0, 5), *episode(6, 5)]
    queue = [
        part
        for index, step in enumerate(steps)
        for part in parts(step)
        if part[0] == "step" or (index, part[0]) not in lost
    ]
    rows = assembler(patience=2)
    out = feed(rows, *queue)
    out += rows.finish()
    check(out)
    gone = {index for index, _ in lost}
    late = {11 - i for i in range(3)}  # given up at the end without later ones to tell
    whole = set(range(12)) - gone
    pairs = [(i, i + 1) for i in whole if i + 1 in whole and i != 5]  # within an episode
    due = {i for pair in pairs for i in pair} - late  # an observation alone is no episode
    assert due <= {r["stamp"] // 10 for r in out} <= whole
    if not gone & late:
        assert rows.unjoined == len(gone)


def test_a_recorder_that_comes_late_begins_an_episode_of_its_own() -> None:
    queue = [part for step in episode(0, 5)[2:] for part in parts(step)]
    rows = feed(assembler(), *queue)
    check(rows)
    assert len(rows) == 4 and rows[0]["is_first"]


def test_a_reset_midway_ends_the_episode_where_it_was() -> None:
    rows = assembler()
    out = feed(rows, *(p for s in episode(0, 5)[:3] for p in parts(s)))
    out += feed(rows, *(p for s in episode(3, 2) for p in parts(s)))
    check(out)
    assert [r["stamp"] for r in out if r["is_last"]] == [20, 50] and rows.cut == 1


def test_a_robot_whose_clock_starts_again_does_not_mix_with_its_former_life() -> None:
    rows = assembler()
    out = feed(rows, *(p for s in episode(0, 5)[:4] for p in parts(s)))
    out += feed(rows, parts(episode(0, 5)[4])[1])  # a picture whose step never came
    again = [p for s in episode(0, 5) for p in parts(s)]
    out += feed(rows, *again)
    check(out)
    assert len(out) == 4 + 6


@pytest.mark.parametrize("only", [("proprio",), ("image/top",)])
def test_a_robot_may_have_cameras_or_joints_only(only: tuple[str, ...]) -> None:
    rows = RowAssembler(only, 1)
    queue = [p for s in episode(0, 2) for p in parts(s) if p[0] in ("step", *only)]
    assert len(feed(rows, *queue)) == 3


def test_memory_is_bounded_when_steps_never_come() -> None:
    rows = assembler(keep=10)
    for stamp in range(1000):
        rows.put("proprio", stamp, np.float32([0]))
    assert len(rows._early) <= 11
