"""Replay is the inverse of recording: a log that is replayed and recorded again is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wm_nodes.point_robot import PointRobot
from wm_datasets import LogReader, LogSpec, LogWriter, VectorSpec
from wm_nodes.episodes.collect import NoisyExpert, collect
from wm_nodes.episodes.playback import BLOCK, Pacer, transitions
from wm_nodes.episodes.row_assembler import RowAssembler
from wm_nodes.errors import UserError


class Homing:
    """Pushes to the origin, from afar harder than the robot allows."""

    def begin(self) -> None:
        pass

    def act(self, observation):
        return np.float32(-3 * observation.proprio)


@pytest.fixture
def log(tmp_path) -> Path:
    """Three episodes of nine rows, by an expert whose intended and executed actions differ."""
    with PointRobot(time_limit=8) as robot:
        collect(robot, NoisyExpert(Homing(), robot.spec, 0.5, 0), tmp_path / "log", 3, 0)
    return tmp_path / "log"


def replayed_rows(log: LogReader, episode: int) -> list[dict]:
    """Play an episode into the recorder's assembler."""
    rows = RowAssembler(("image/top", "proprio"), 1)
    out = []
    for transition in transitions(log, episode):
        stamp = transition.step.stamp_ns
        out += rows.step(transition.step)
        out += rows.put("image/top", stamp, transition.images["top"])
        out += rows.put("proprio", stamp, transition.proprio)
    return out


def test_a_replayed_and_recorded_episode_is_unchanged(log) -> None:
    with LogReader(log) as reader:
        for number, (start, count, _) in enumerate(reader.episodes.tolist()):
            replayed = replayed_rows(reader, number)
            assert len(replayed) == count == 9
            for index, row in enumerate(replayed):
                assert set(row) == set(reader.spec.fields)
                for name, value in row.items():
                    logged = reader.read(name, start + index, start + index + 1)[0]
                    assert np.array_equal(value, logged), (name, index)


def test_an_episode_longer_than_a_block_is_whole(tmp_path) -> None:
    spec = LogSpec("r", "t", 0.1, {}, VectorSpec(("p",), ("m",), (0,), (9,)),
                   VectorSpec(("a",), ("m",), (-9,), (9,)))  # fmt: skip
    count = 2 * BLOCK + 1
    with LogWriter(tmp_path / "log", spec) as writer:
        for t in range(count):
            last = t == count - 1
            writer.append({
                "proprio": np.float32([t]), "action": np.float32([0 if last else t + 1]),
                "commanded": np.float32([0]), "reward": 0.0 if last else float(t),
                "is_first": t == 0, "is_last": last, "is_terminal": False, "success": False,
                "stamp": t, "source": 0, "weights": t,
            })  # fmt: skip
    with LogReader(tmp_path / "log") as reader:
        steps = [transition.step for transition in transitions(reader, -1)]
    assert [step.stamp_ns for step in steps] == list(range(count))
    assert [float(step.executed[0]) for step in steps] == list(range(count))
    assert [step.weights for step in steps[1:]] == list(range(count - 1))


def test_an_episode_cut_short_is_replayed_up_to_its_last_observation(tmp_path, log) -> None:
    with LogReader(log) as reader:
        rows = reader.read_rows(0, 5)
        spec = reader.spec
    with LogWriter(tmp_path / "cut", spec) as writer:
        for t in range(5):
            writer.append({name: values[t] for name, values in rows.items()})
    with LogReader(tmp_path / "cut") as reader:
        steps = [transition.step for transition in transitions(reader, 0)]
    assert len(steps) == 5 and not any(step.is_last for step in steps)
    assert np.array_equal(steps[4].executed, rows["action"][3])


@pytest.mark.parametrize("number", [3, -4])
def test_a_missing_episode_is_refused(log, number) -> None:
    with LogReader(log) as reader, pytest.raises(UserError, match="expected 0 to 2, or -1"):
        next(transitions(reader, number))


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.1, 10.0),
    gaps=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20),
    lateness=st.lists(st.floats(0.0, 0.005), min_size=20, max_size=20),
)
def test_lateness_of_a_timer_does_not_add_up(rate, gaps, lateness) -> None:
    """With each observation late by less than a gap, the last one is due at the same time."""
    pacer, now, stamp = Pacer(rate), 7.0, 1_000
    assert pacer.wait_s(stamp, now) == 0.0
    small = [x * min(gaps) / rate for x in lateness]
    for gap, lag in zip(gaps, small):
        stamp += round(gap * 1e9)
        now += pacer.wait_s(stamp, now) + lag
    assert now - small[len(gaps) - 1] - 7.0 == pytest.approx(sum(gaps) / rate, abs=1e-6)


def test_a_delay_is_not_followed_by_a_burst() -> None:
    pacer = Pacer(1.0)
    assert pacer.wait_s(0, 0.0) == 0.0
    assert pacer.wait_s(100_000_000, 5.0) == 0.0  # the answer to its predecessor was late
    assert pacer.wait_s(200_000_000, 5.0) == pytest.approx(0.1)


def test_rate_zero_is_without_any_pause() -> None:
    pacer = Pacer(0.0)
    assert [pacer.wait_s(stamp, 3.0) for stamp in (0, 10**9, 10**12)] == [0.0] * 3
