"""What else a row observes: depth and float images, force, touch; declared by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wm_datasets.errors import LogSpecError

_DTYPES = {"float32": "<f4", "uint8": "u1", "uint16": "<u2"}
_MOST_AXES = 4


@dataclass(frozen=True)
class SensorSpec:
    """One array per row; a single number has shape (1,).

    dtype is "float32", "uint8" or "uint16"; `units` one unit for all numbers, or one for each along
    the last axis; `names`, where given, name those. Depth is uint16 (H, W) or (H, W, 1) in "mm",
    and 0 where it is unknown; a float image is float32 (H, W, C).
    """

    dtype: str
    shape: tuple[int, ...]
    units: str | tuple[str, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise LogSpecError(
                f"sensor: dtype: got {self.dtype!r}, expected one of {list(_DTYPES)}."
            )
        shape = tuple(int(n) for n in self.shape)
        if not 1 <= len(shape) <= _MOST_AXES or min(shape) < 1:
            raise LogSpecError(
                f"sensor: shape: got {self.shape}, expected 1 to {_MOST_AXES} axes, each >= 1."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        if not isinstance(self.units, str):
            object.__setattr__(self, "units", tuple(str(unit) for unit in self.units))
        for part, values in (("units", self.units), ("names", self.names)):
            if values and not isinstance(values, str) and len(values) != shape[-1]:
                raise LogSpecError(
                    f"sensor: {part}: got {values}, expected {shape[-1]}, the size of the last "
                    "axis."
                )
        if not self.units or len(set(self.names)) != len(self.names):
            raise LogSpecError(
                f"sensor: units, names: got {self.units!r}, {self.names}, expected units and "
                "different names."
            )

    @property
    def stored(self) -> str:
        """The dtype as numpy and the disk have it: little endian."""
        return _DTYPES[self.dtype]

    @property
    def is_depth(self) -> bool:
        """Is it an image of distances, (H, W) uint16 in mm?"""
        return self.dtype == "uint16" and len(self.shape) == 2 and self.units == "mm"

    @classmethod
    def depth(cls, height: int, width: int) -> SensorSpec:
        """A depth camera's images."""
        return cls("uint16", (height, width), "mm")

    def to_json(self) -> dict[str, Any]:
        units = self.units if isinstance(self.units, str) else list(self.units)
        return {"dtype": self.dtype, "shape": list(self.shape), "units": units,
                "names": list(self.names)}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SensorSpec:
        units = data["units"] if isinstance(data["units"], str) else tuple(data["units"])
        return cls(data["dtype"], tuple(data["shape"]), units, tuple(data["names"]))
