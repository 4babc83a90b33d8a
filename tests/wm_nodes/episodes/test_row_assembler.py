"""The recorder's assembler: with any order of parts, rows are correct or the episode ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.records import Step

FIELDS = ("image/top", "proprio")


def episode(start: int, length: int) -> list[Step]:
    """Steps of one episode of `length` actions; step t has reward t of action t."""
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
    """The messages of one observation; the image shows its stamp."""
    return [
        ("step", step),
        ("image/top", step.stamp_ns, np.full((2, 2, 3), step.stamp_ns // 10, np.uint8)),
        ("proprio", step.stamp_ns, np.float32([step.stamp_ns])),
    ]


def feed(rows: RowAssembler, *messages: tuple) -> list[dict]:
    out = []
    for message in messages:
        out += rows.step(message[1]) if message[0] == "step" else rows.put(*message)
    return out


def assembler(**settings) -> RowAssembler:
    return RowAssembler(FIELDS, 1, **settings)


def check(rows: list[dict]) -> None:
    """The parts of a row have its stamp, the outcome is of the next row, the episode is closed."""
    for row, next_row in zip(rows, [*rows[1:], None]):
        stamp = row["stamp"]
        assert row["image/top"][0, 0, 0] == stamp // 10 and row["proprio"] == [stamp]
        if row["is_last"]:
            assert not row["action"].any() and not row["commanded"].any() and row["reward"] == 0
            assert next_row is None or next_row["is_first"]
        else:
            assert row["action"][0] == row["reward"] and row["weights"] == row["reward"]
            assert (
                next_row is not None
                and not next_row["is_first"]
                and next_row["stamp"] == stamp + 10
            )


def test_rows_have_the_outcome_of_the_action_taken_from_their_observation() -> None:
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


def test_a_repeated_complete_observation_ends_the_wait_for_earlier_lost_parts() -> None:
    first, second = episode(0, 3), episode(4, 3)
    rows = assembler(patience=8)
    out = feed(rows, *(p for s in first[:3] for p in parts(s)), parts(first[3])[0])
    step, *others = parts(second[0])
    out += feed(rows, step, step)  # repeated, but not complete: the lost parts may still arrive
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
    incomplete = {index for index, _ in lost}
    last = {11 - i for i in range(3)}  # dropped at the end, without a later one
    complete = set(range(12)) - incomplete
    pairs = [(i, i + 1) for i in complete if i + 1 in complete and i != 5]  # within an episode
    recorded = {i for pair in pairs for i in pair} - last  # a single observation is no episode
    assert recorded <= {r["stamp"] // 10 for r in out} <= complete
    if not incomplete & last:
        assert rows.unjoined == len(incomplete)


def test_a_recorder_that_starts_late_begins_a_new_episode() -> None:
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


def test_a_robot_whose_clock_restarts_is_not_mixed_with_the_rows_before() -> None:
    rows = assembler()
    out = feed(rows, *(p for s in episode(0, 5)[:4] for p in parts(s)))
    out += feed(rows, parts(episode(0, 5)[4])[1])  # an image whose step was lost
    repeated = [p for s in episode(0, 5) for p in parts(s)]
    out += feed(rows, *repeated)
    check(out)
    assert len(out) == 4 + 6


@pytest.mark.parametrize("fields", [("proprio",), ("image/top",)])
def test_a_robot_may_have_cameras_or_joints_only(fields: tuple[str, ...]) -> None:
    rows = RowAssembler(fields, 1)
    queue = [p for s in episode(0, 2) for p in parts(s) if p[0] in ("step", *fields)]
    assert len(feed(rows, *queue)) == 3


def test_memory_is_bounded_when_steps_never_come() -> None:
    rows = assembler(keep=10)
    for stamp in range(1000):
        rows.put("proprio", stamp, np.float32([0]))
    assert len(rows._early) <= 11
