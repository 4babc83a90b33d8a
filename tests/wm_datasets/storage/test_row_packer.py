"""A valid row is packed exactly; an invalid row is refused with the name of the field."""

import numpy as np
import pytest

from tests.wm_datasets.log_rows import make_row, make_spec
from wm_datasets import LogSpecError, SensorSpec
from wm_datasets.spec import Source
from wm_datasets.storage.row_packer import RowPacker

FLOAT_MAX = float(np.finfo(np.float32).max)
SENSORS = {"force": SensorSpec("float32", (2,), "N"), "depth": SensorSpec.depth(2, 3)}


@pytest.fixture
def packer():
    return RowPacker(make_spec())


def changed(last=False, **fields):
    return make_row(5, 3, last) | fields


@pytest.mark.parametrize("last", [False, True])
def test_a_valid_row_is_packed_exactly(packer, last):
    row = make_row(5, 3, last)
    record = packer.pack(row, 5)
    assert record.shape == (1,) and record["_row"][0] == 5
    for name, value in row.items():
        assert np.array_equal(record[name][0], np.asarray(value, record[name].dtype)), name


def test_equal_numbers_of_other_types_are_packed(packer):
    row = changed(
        proprio=[1, 2, 3],
        action=np.array([1, 0], np.int64),
        reward=np.float64(1),
        is_first=np.bool_(True),
        success=np.array(True),
        stamp=np.int32(7),
        weights=np.int64(3),
        source=int(Source.PERSON),
    )
    record = packer.pack(row, 0)[0]
    assert record["proprio"].tolist() == [1, 2, 3] and record["action"].tolist() == [1, 0]
    assert (record["reward"], record["stamp"], record["weights"]) == (1.0, 7, 3)
    assert record["is_first"] and record["success"] and record["source"] == Source.PERSON


INVALID_VALUES = {
    "proprio": [[1, 2], [1, 2, 3, 4], [[1, 2, 3]], ["a", "b", "c"], [True, True, True],
                [1, 2, np.nan], [np.inf, 0, 0], [0, -np.inf, 0], [2 * FLOAT_MAX, 0, 0]],
    "action": [[np.nan, 0], [1], 1.0],
    "reward": [np.nan, np.inf, -2 * FLOAT_MAX, True, "1", [1.0], None],
    "image/front": [np.zeros((4, 6, 3), np.int64), np.zeros((4, 6, 3), np.float32),
                    np.zeros((4, 6, 4), np.uint8), np.zeros((4, 6), np.uint8)],
    "is_first": [1, 0, 1.0, None, [True]],
    "is_last": [0, "x"],
    "stamp": [2**63, -(2**63) - 1, 1.0, True],
    "weights": [2**31, -(2**31) - 1, 0.5, True],
    "source": [-1, 256, max(Source) + 1, 1.0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in INVALID_VALUES.items() for v in values]
)
def test_a_field_that_does_not_fit_is_named(packer, name, value):
    with pytest.raises(LogSpecError, match=f"field '{name}'"):
        packer.pack(changed(**{name: value}), 0)


LIMIT_VALUES = {
    "proprio": [[FLOAT_MAX, -FLOAT_MAX, FLOAT_MAX]],
    "reward": [FLOAT_MAX, -FLOAT_MAX, 0, np.float32(1.5)],
    "stamp": [2**63 - 1, -(2**63), 0],
    "weights": [2**31 - 1, -(2**31)],
    "source": list(Source),
    "is_first": [False, np.False_, np.array(True)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in LIMIT_VALUES.items() for v in values]
)
def test_the_limits_of_a_range_are_valid(packer, name, value):
    record = packer.pack(changed(**{name: value}), 0)[0]
    assert np.array_equal(record[name], np.asarray(value, record[name].dtype))


def test_unknown_and_missing_fields_are_named(packer):
    row = changed(extra=1)
    with pytest.raises(LogSpecError, match=r"unknown \['extra'\], expected the fields"):
        packer.pack(row, 0)
    del row["extra"], row["stamp"]
    with pytest.raises(LogSpecError, match=r"row: got missing \['stamp'\]"):
        packer.pack(row, 0)
    with pytest.raises(LogSpecError, match=r"unknown \['extra'\], missing \['stamp'\]"):
        packer.pack(row | {"extra": 1}, 0)


def test_the_dimensions_of_a_vector_are_named(packer):
    for name, dimensions in (("proprio", "x, y, z"), ("action", "dx, grip")):
        with pytest.raises(LogSpecError, match=f"Dimensions: {dimensions}"):
            packer.pack(changed(**{name: [1.0]}), 0)
    with pytest.raises(LogSpecError) as refused:
        packer.pack(changed(reward=[1.0]), 0)
    assert "Dimensions" not in str(refused.value)


@pytest.mark.parametrize("name", ["action", "commanded", "reward"])
def test_the_last_row_has_no_action(packer, name):
    value = 0.5 if name == "reward" else [0.0, 0.5]
    packer.pack(changed(**{name: value}), 9)
    with pytest.raises(LogSpecError, match=f"row 9: '{name}': got .*, expected zero"):
        packer.pack(changed(last=True, **{name: value}), 9)


def test_sensors_are_finite_and_exact():
    packer = RowPacker(make_spec(sensors=SENSORS))
    row = changed() | {
        "sensor/force": np.float32([1, 2]),
        "sensor/depth": np.full((2, 3), 2**16 - 1, np.uint16),
    }
    record = packer.pack(row, 0)[0]
    assert record["sensor/force"].tolist() == [1, 2]
    assert (record["sensor/depth"] == 2**16 - 1).all()
    invalid = [("sensor/force", np.float32([1, np.nan])), ("sensor/force", np.float32([1]))]
    invalid += [("sensor/depth", np.zeros((2, 3), np.uint8))]
    for name, value in invalid:
        with pytest.raises(LogSpecError, match=f"field '{name}'"):
            packer.pack(row | {name: value}, 0)


def test_a_long_invalid_value_is_abbreviated():
    for size, message in ((64, "nan"), (65, "65 numbers, not all finite")):
        sensors = {"force": SensorSpec("float32", (size,), "N")}
        packer = RowPacker(make_spec(sensors=sensors))
        row = changed() | {"sensor/force": np.full(size, np.nan, np.float32)}
        with pytest.raises(LogSpecError, match=message):
            packer.pack(row, 0)
