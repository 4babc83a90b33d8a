"""Torch files of whole Python objects, read without importing or running anything they name.

Such a file is a zip of raw storages beside a pickle. Four names are understood: OrderedDict, set,
and the two functions that rebuild tensors and parameters, with the storages that these refer to.
Every other object of the packages that checkpoints of models consist of (``PACKAGES``) becomes a
:class:`Bag`: its class name and its attributes, without its code. A file that names anything else
is refused with that name.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wm_models.weights.manifest import WeightsError

PACKAGES = ("models", "dinov2", "torch", "torchvision", "accelerate", "collections")
# Names of builtins in optimiser states; enumerations of Python 3.11 refer to getattr. They are bags
# like all others: nothing is called.
BUILTINS = ("dict", "list", "tuple", "object", "int", "float", "str", "bool", "getattr")
MOST_BYTES = 64 << 20  # of the pickle, which only describes; the numbers lie in the storages
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Bag:
    """An object whose class is not imported: ``kind`` is its full name."""

    kind = ""

    def __new__(cls, *args: Any, **more: Any) -> Bag:
        bag = super().__new__(cls)
        bag.attributes = {}
        return bag

    attributes: dict[str, Any]

    def __init__(self, *args: Any, **more: Any) -> None:
        """Arguments of constructors and functions are left out."""

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.attributes.update({str(k): v for k, v in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of dicts of other classes are left out."""

    def append(self, value: Any) -> None:
        """Items of lists of other classes are left out."""

    def extend(self, values: Any) -> None:
        """Items of lists of other classes are left out."""

    def state_dict(self) -> dict[str, StoredTensor]:
        """Parameters and persistent buffers, if this was a module, under their dotted names."""
        state: dict[str, StoredTensor] = {}
        self._collect("", state, 0)
        return state

    def _collect(self, prefix: str, state: dict[str, StoredTensor], depth: int) -> None:
        if depth > 64:
            raise WeightsError(f"weights: {self.kind}: modules are nested deeper than 64.")
        passing = self.attributes.get("_non_persistent_buffers_set")
        for name, value in {**self._part("_parameters"), **self._part("_buffers")}.items():
            kept = not isinstance(passing, set) or name not in passing
            if isinstance(value, StoredTensor) and kept:
                state[f"{prefix}{name}"] = value
        for name, value in self._part("_modules").items():
            if isinstance(value, Bag):
                value._collect(f"{prefix}{name}.", state, depth + 1)

    def _part(self, name: str) -> Mapping[Any, Any]:
        value = self.attributes.get(name)
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file: it is read when asked for."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    name: str
    dtype: torch.dtype
    count: int


@dataclass
class TorchFile:
    """A torch file of version 1.6 or later; use it as a context manager.

    ``content`` is what was saved. WeightsError, in one line: the file is empty, truncated, older,
    or names what is refused.
    """

    path: Path
    content: Any = field(init=False)

    def __enter__(self) -> TorchFile:
        if not self.path.stat().st_size:
            raise WeightsError(f"weights: {self.path} is empty. Copy it again.")
        try:
            self._zip = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile:
            raise WeightsError(
                f"weights: {self.path} is truncated, or no torch file of version 1.6 or later. "
                "Copy it again, or save it with a newer torch."
            ) from None
        try:
            names = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
            if not names or self._zip.getinfo(names[0]).file_size > MOST_BYTES:
                raise WeightsError(f"weights: {self.path} is no torch file (data.pkl).")
            self._root = names[0].removesuffix("data.pkl")
            with self._zip.open(names[0]) as stream:
                self.content = _Reader(stream, self.path).load()
        except WeightsError:
            self._zip.close()
            raise
        except Exception as error:  # a pickle can be broken in any way
            self._zip.close()
            raise WeightsError(
                f"weights: {self.path} cannot be read ({type(error).__name__} in its pickle). "
                "Copy it again."
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def tensors(self, state: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """The numbers of tensors by name, on the CPU. WeightsError."""
        return {name: self.tensor(stored) for name, stored in state.items()}

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The numbers of one tensor, on the CPU. WeightsError: they do not fit the storage."""
        storage, size, stride = stored.storage, stored.size, stored.stride
        if len(size) != len(stride) or min((stored.offset, *size, *stride), default=0) < 0:
            raise WeightsError(
                f"weights: {self.path}: a tensor of size {size} and stride {stride}."
            )
        if 0 in size:
            return torch.zeros(size, dtype=storage.dtype)
        last = stored.offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if last >= storage.count or math.prod(size) > max(storage.count, 1):
            raise WeightsError(
                f"weights: {self.path}: a tensor of shape {size} does not fit a storage of "
                f"{storage.count} numbers."
            )
        return torch.as_strided(self._numbers(storage), size, stride, stored.offset).clone()

    def _numbers(self, storage: _Storage) -> Tensor:
        name = f"{self._root}data/{storage.name}"
        expected_bytes = storage.count * storage.dtype.itemsize
        try:
            entry = self._zip.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != expected_bytes:
                raise ValueError
            data = bytearray(self._zip.read(name))
        except (KeyError, ValueError, OSError, zipfile.BadZipFile):
            raise WeightsError(
                f"weights: {self.path}: storage {storage.name!r} of {expected_bytes} bytes is "
                "missing or damaged. Copy the file again."
            ) from None
        return torch.frombuffer(data, dtype=storage.dtype)


class _Reader(pickle.Unpickler):
    """Finds no class of the process: see the module."""

    def __init__(self, stream: Any, path: Path) -> None:
        super().__init__(stream)
        self._path = path
        self._bags: dict[str, type[Bag]] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module.replace("__builtin__", "builtins"), name))
        if known is not None:
            return known
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        full = f"{module}.{name}"
        builtin = module in ("builtins", "__builtin__") and name in BUILTINS
        if not builtin and module.partition(".")[0] not in PACKAGES:
            raise WeightsError(
                f"weights: {self._path} names {full}, which does not belong into a checkpoint. "
                "Nothing of it was run; do not open this file with anything else."
            )
        if full not in self._bags:
            self._bags[full] = type(name.rpartition(".")[2], (Bag,), {"kind": full})
        return self._bags[full]

    def persistent_load(self, key: Any) -> _Storage:
        tag, dtype, name, _, count = key
        if tag != "storage" or not isinstance(dtype, torch.dtype) or type(count) is not int:
            raise ValueError(key)
        return _Storage(str(name), dtype, count)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise ValueError(storage)
    numbers = [int(n) for n in (offset, *size, *stride)]
    count = len(tuple(size))
    return StoredTensor(
        storage, numbers[0], tuple(numbers[1 : count + 1]), tuple(numbers[count + 1 :])
    )


def _parameter(data: Any, *_: Any) -> Any:
    return data


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
