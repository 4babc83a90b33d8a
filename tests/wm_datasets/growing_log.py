"""A spec that grows, one sensor, camera and set of signals at a time, and the rows that follow.

Run as a program, a real writer opens a log with one field more than it has, and records until it
is killed:  python growing_log.py PATH
"""

import itertools
import sys
import time
from dataclasses import replace

import numpy as np

from tests.wm_datasets.log_rows import make_row, make_spec, small_blocks
from wm_datasets import LogReader, LogWriter, SensorSpec, VectorSpec
from wm_datasets.errors import LogFormatError

DEPTH = SensorSpec("uint16", (3, 4), "mm")
FLOATS = SensorSpec("float32", (2, 3, 2), "1")
WRENCH = SensorSpec(
    "float32", (6,), ("N", "N", "N", "N m", "N m", "N m"), ("fx", "fy", "fz", "tx", "ty", "tz")
)
TOUCH = SensorSpec("uint8", (4, 4, 1), "1")
KINDS = (DEPTH, FLOATS, WRENCH, TOUCH)


def grown_spec(fields):
    """The spec of log_rows with this many fields more."""
    spec = make_spec()
    for number in range(fields):
        match number % 6:
            case 4:
                spec = replace(spec, cameras=spec.cameras | {f"c{number}": (2, 3 + number, 3)})
            case 5 if spec.signals is None:
                lag = VectorSpec(("lag",), ("s",), (0,), (1,))
                spec = replace(spec, signals=lag)
            case kind:
                spec = replace(spec, sensors=spec.sensors | {f"s{number}": KINDS[kind % 4]})
    return spec


def grown_row(spec, number, step, last):
    """Row `number` of a log of that spec: what is not in make_row() follows from the number too."""
    row = make_row(number, step, last)
    for name, field in spec.fields.items():
        if name not in row:
            row[name] = np.full(field.shape, (number * 7 + 1) % 251, field.dtype)
    return row


def append_grown(writer, rows, *, complete=True):
    for step in range(rows):
        last = complete and step == rows - 1
        writer.append(grown_row(writer.spec, writer.length, step, last))
    if not complete:
        writer.end_episode()


def check_grown(reader, since):
    """Every row has what was appended, and no field is present before `since` says."""
    fields = reader.spec.fields
    rows = {name: reader.read_around(name, reader.first, reader.length) for name in fields}
    starts = reader.episodes["start"]
    for name in fields:
        assert reader.since(name) == since.get(name, 0), name
        assert reader.present(name).tolist() == (starts >= since.get(name, 0)).tolist()
    for i, number in enumerate(range(reader.first, reader.length)):
        step, last = int(rows["proprio"][i, 1]), bool(rows["is_last"][i])
        for name, value in grown_row(reader.spec, number, step, last).items():
            expected = np.asarray(value, rows[name].dtype)
            expected = expected if number >= since.get(name, 0) else np.zeros_like(expected)
            assert np.array_equal(rows[name][i], expected), (name, number)


def main(path):
    small_blocks()
    try:
        with LogReader(path) as reader:
            extra = len(reader.spec.fields) - len(make_spec().fields)
    except LogFormatError:
        extra = -1
    print("opening", flush=True)
    with LogWriter(path, grown_spec(extra + 1), durable_s=0.02) as writer:
        print("recording", flush=True)
        for step in itertools.count():
            step %= 20
            last = step == 19
            writer.append(grown_row(writer.spec, writer.length, step, last))
            time.sleep(0.0003)


if __name__ == "__main__":
    main(sys.argv[1])
