"""Checking one row against the spec and packing it into a record."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.spec import Field, LogSpec, Source
from wm_datasets.storage.segment import record_dtype

_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
_CODES = {"f4": "f", "b1": "?", "i8": "q", "u1": "B", "i4": "i"}
_SOURCES = frozenset(Source)
_SHOWN = 64  # numbers of a bad value that an error shows


class RowPacker:
    """Turns rows (field -> value) into records, or says what does not fit.

    A recorder calls this in between everything else a robot does, so the way of a good row is
    short; only a row that fails somewhere on it is gone through field by field, to say where.
    """

    def __init__(self, spec: LogSpec) -> None:
        self._spec, self._fields = spec, spec.fields
        self._record = np.zeros(1, record_dtype(self._fields))
        self._row_number = self._record["_row"]
        self._arrays = [
            (name, field.shape, _KINDS[field.dtype.kind], field.dtype.kind == "u",
             self._record[name][0])
            for name, field in self._fields.items()
            if field.shape
        ]  # fmt: skip
        self._scalars = [name for name, field in self._fields.items() if not field.shape]
        self._is_flag = [self._fields[name].dtype.kind == "b" for name in self._scalars]
        self._source = self._scalars.index("source")
        codes = [_CODES[self._fields[name].dtype.str[1:]] for name in self._scalars]
        self._struct = struct.Struct("<" + "".join(codes))
        self._bytes = self._record.view("u1")
        self._offset = self._record.itemsize - self._struct.size  # scalars end the record
        self._sensors = [
            self._record[name][0]
            for name, field in self._fields.items()
            if name.startswith("sensor/") and field.dtype.kind == "f"
        ]
        floats = [
            field
            for name, field in self._fields.items()
            if field.dtype.kind == "f" and not name.startswith("sensor/")
        ]
        begin = self._record.dtype.fields[floats[0].name][1] if floats else 0
        size = sum(field.row_bytes for field in floats)
        self._floats = self._bytes[begin : begin + size].view("<f4")  # they lie side by side

    def pack(self, row: Mapping[str, Any], number: int) -> np.ndarray:
        """Return the record, (1,), of row `number`; it is overwritten by the next call."""
        if not self._packs(row):
            self._refuse(row)
        self._row_number[0] = number
        if row["is_last"] and self._spec.action is not None:
            self._check_last(number)
        return self._record

    def _packs(self, row: Mapping[str, Any]) -> bool:
        """Fill the record; False when something does not fit."""
        if row.keys() != self._fields.keys():
            return False
        for name, shape, kinds, exact, part in self._arrays:
            value = np.asarray(row[name])
            if value.shape != shape or value.dtype.kind not in kinds:
                return False
            if value.dtype == part.dtype:
                part[...] = value
            elif exact:
                return False
            else:
                with np.errstate(over="ignore"):
                    part[...] = value
        values = [_plain(row[name]) for name in self._scalars]
        if any((type(value) is bool) != flag for value, flag in zip(values, self._is_flag)):
            return False
        try:
            self._struct.pack_into(self._bytes.data, self._offset, *values)
        except (struct.error, OverflowError, TypeError, ValueError):
            return False
        if not all(np.isfinite(part).all() for part in self._sensors):
            return False
        # few numbers, whose sum as Python's floats cannot overflow: quicker than numpy's own way
        return values[self._source] in _SOURCES and math.isfinite(sum(self._floats.tolist()))

    def _refuse(self, row: Mapping[str, Any]) -> None:
        if row.keys() != self._fields.keys():
            unknown = [n for n in row if n not in self._fields]
            missing = [n for n in self._fields if n not in row]
            wrong = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
            raise LogSpecError(
                f"row: got {', '.join(wrong)}, expected the fields of this log, "
                f"{list(self._fields)}."
            )
        for name, field in self._fields.items():
            self._check(field, np.asarray(row[name]))
        names = ", ".join(f"{s.value} {s.name.lower()}" for s in Source)
        raise LogSpecError(f"field 'source': got {row['source']!r}, expected one of {names}.")

    def _check(self, field: Field, value: np.ndarray) -> None:
        exact = bool(field.shape) and field.dtype.kind == "u"
        fits = value.dtype == field.dtype if exact else value.dtype.kind in _KINDS[field.dtype.kind]
        if not fits or value.shape != field.shape:
            raise LogSpecError(
                f"field '{field.name}': got {value.dtype.name} {value.shape}, expected "
                f"{field.dtype.name} {field.shape}.{self._dimensions(field)}"
            )
        if field.dtype.kind == "f" and not (np.abs(value) <= np.finfo("f4").max).all():
            shown = (
                value.tolist() if value.size <= _SHOWN else f"{value.size} numbers, not all finite"
            )
            raise LogSpecError(
                f"field '{field.name}': got {shown}, expected numbers that are finite in float32."
            )
        if field.dtype.kind in "iu" and not exact:
            limits = np.iinfo(field.dtype)
            if not limits.min <= int(value) <= limits.max:
                raise LogSpecError(
                    f"field '{field.name}': got {int(value)}, expected {limits.min} to "
                    f"{limits.max}."
                )

    def _check_last(self, number: int) -> None:
        for name in ("action", "commanded", "reward"):
            if name in self._fields and self._record[name].any():
                raise LogSpecError(
                    f"row {number}: '{name}': got {self._record[name][0].tolist()}, expected zero "
                    "in the row of is_last. An action and its reward belong to the row of the "
                    "observation from which it was executed."
                )

    def _dimensions(self, field: Field) -> str:
        vectors = {"proprio": self._spec.proprio, "action": self._spec.action,
                   "commanded": self._spec.action}  # fmt: skip
        vector = vectors.get(field.name)
        return f" Dimensions: {', '.join(vector.names)}." if vector else ""


def _plain(value: Any) -> Any:
    """A number or flag as Python's own; anything else as it is."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and not value.ndim else value
