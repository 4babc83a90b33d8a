"""Checking one row against the spec and packing it into a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.segment import record_dtype
from wm_datasets.spec import Field, LogSpec, Source

_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
_SOURCES = ", ".join(f"{s.value} {s.name.lower()}" for s in Source)


class RowPacker:
    """Turns rows (field -> value) into records, or says what does not fit."""

    def __init__(self, spec: LogSpec) -> None:
        self._fields = spec.fields
        self._spec = spec
        self._record = np.zeros(1, record_dtype(self._fields))

    def pack(self, row: Mapping[str, Any], number: int) -> np.ndarray:
        """Return the record, (1,), of row `number`; it is overwritten by the next call."""
        if row.keys() != self._fields.keys():
            self._refuse_names(row)
        self._record["_row"] = number
        for name, field in self._fields.items():
            self._record[name][0] = self._checked(field, row[name])
        if row["source"] not in Source._value2member_map_:
            raise LogSpecError(f"row {number}: source {row['source']} is none of {_SOURCES}")
        if row["is_last"] and self._spec.action is not None:
            self._check_last(number)
        return self._record

    def _checked(self, field: Field, given: Any) -> np.ndarray:
        value = np.asarray(given)
        image = len(field.shape) == 3
        fits = value.dtype == field.dtype if image else value.dtype.kind in _KINDS[field.dtype.kind]
        if not fits or value.shape != field.shape:
            raise LogSpecError(
                f"field '{field.name}': expected {field.dtype.name} {field.shape}, "
                f"got {value.dtype.name} {value.shape}{self._dimensions(field)}"
            )
        if field.dtype.kind == "f":
            with np.errstate(over="ignore"):
                value = value.astype(field.dtype)
            if not np.isfinite(value).all():
                raise LogSpecError(f"field '{field.name}': must be finite, got {value.tolist()}")
        elif field.dtype.kind in "iu" and not image:
            limits = np.iinfo(field.dtype)
            if not limits.min <= int(value) <= limits.max:
                raise LogSpecError(
                    f"field '{field.name}': {int(value)} is outside {limits.min} .. {limits.max}"
                )
        return value

    def _check_last(self, number: int) -> None:
        for name in ("action", "commanded", "reward"):
            if self._record[name].any():
                raise LogSpecError(
                    f"row {number}: the row of is_last carries no action: '{name}' must be zero, "
                    f"got {self._record[name][0].tolist()} (an action and the reward it brought "
                    "belong to the row of the observation from which it was executed)"
                )

    def _refuse_names(self, row: Mapping[str, Any]) -> None:
        unknown = [n for n in row if n not in self._fields]
        missing = [n for n in self._fields if n not in row]
        wrong = [f"unknown {unknown}"] * bool(unknown) + [f"missing {missing}"] * bool(missing)
        raise LogSpecError(f"row: {', '.join(wrong)}. Fields of this log: {list(self._fields)}")

    def _dimensions(self, field: Field) -> str:
        vectors = {"proprio": self._spec.proprio, "action": self._spec.action,
                   "commanded": self._spec.action}  # fmt: skip
        vector = vectors.get(field.name)
        return f". Dimensions: {', '.join(vector.names)}" if vector else ""
