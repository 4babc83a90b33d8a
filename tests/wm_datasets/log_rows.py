"""Rows that are computed from their number, so that the content of a log can be checked.

Run as a program, it is a real writer process:  python log_rows.py PATH ROWS CAPACITY PAUSE_S
"""

import itertools
import sys
import time

import numpy as np

from wm_datasets import LogReader, LogSpec, LogWriter, Source, VectorSpec
from wm_datasets.storage import column, manifest

EPISODE_ROWS = 20


def make_spec(**changes):
    proprio = VectorSpec(("x", "y", "z"), ("m", "m", "m"), (-1, -1, 0), (1, 1, float("inf")))
    action = VectorSpec(("dx", "grip"), ("m/s", "1"), (-1, -1), (6, 1))
    values = {
        "robot": "arm",
        "task": "reach",
        "control_period_s": 0.05,
        "cameras": {"front": (4, 6, 3), "wrist": (2, 2, 3)},
        "proprio": proprio,
        "action": action,
        "extra": {"render": "fast"},
    }
    return LogSpec(**(values | changes))


def make_row(number, step, last):
    """Row `number`, the `step`-th of its episode."""
    act = 0.0 if last else 1.0
    return {
        "image/front": (np.arange(72, dtype=np.uint8) + number % 251).reshape(4, 6, 3),
        "image/wrist": np.full((2, 2, 3), number % 256, np.uint8),
        "proprio": np.array([number, step, -1], np.float32),
        "action": np.array([number % 7, 0.5]) * act,
        "commanded": np.array([number % 5, 0.25]) * act,
        "reward": 0.5 * act,
        "is_first": step == 0,
        "is_last": last,
        "is_terminal": False,
        "success": last and number % 2 == 0,
        "stamp": 50_000_000 * (number + 1),
        "source": Source.RANDOM,
        "weights": -1,
    }


def append_episode(writer, rows, *, complete=True):
    """Append an episode of `rows` rows; the last is is_last unless it is left incomplete."""
    for step in range(rows):
        writer.append(make_row(writer.length, step, complete and step == rows - 1))
    if not complete:
        writer.end_episode()


def check_rows(reader, lost=()):
    """Every row of the log is the one that was appended under its number, bit for bit."""
    fields = reader.spec.fields
    rows = {name: reader.read_around(name, reader.first, reader.length) for name in fields}
    steps, lasts = rows["proprio"][:, 1].astype(int), rows["is_last"]
    for i, number in enumerate(range(reader.first, reader.length)):
        if number in lost:
            continue
        for name, value in make_row(number, steps[i], bool(lasts[i])).items():
            assert np.array_equal(rows[name][i], np.asarray(value, rows[name].dtype)), name
    if not lost:
        check_episodes(reader, rows)


def check_episodes(reader, rows):
    """Episodes tile [first, length), begin at is_first, and are complete iff is_last ends them."""
    table = reader.episodes
    starts, ends = table["start"], table["start"] + table["length"]
    bounds = [reader.first, *ends.tolist()] if len(table) else [reader.length]
    assert bounds[:-1] == starts.tolist()
    assert bounds[-1] == reader.length
    assert np.array_equal(np.flatnonzero(rows["is_first"]) + reader.first, starts)
    assert np.array_equal(rows["is_last"][ends - 1 - reader.first], table["complete"])


def small_blocks():
    """Make segments and chunks tiny, so that little data crosses many boundaries."""
    manifest._SEGMENT_BYTES = 1  # 16 rows
    column._CHUNK_BYTES = 512  # 4 rows of the camera


def main(path, rows, capacity, pause_s):
    small_blocks()
    with LogWriter(path, make_spec(), durable_s=0.02, capacity_steps=capacity or None) as writer:
        print("ready", flush=True)
        for step in itertools.islice(itertools.count(), rows):
            step %= EPISODE_ROWS
            writer.append(make_row(writer.length, step, step == EPISODE_ROWS - 1))
            time.sleep(pause_s)
    with LogReader(path) as reader:
        print("wrote", reader.length, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
