"""One tensor in a torch file (.pth), read and written with numpy alone.

Datasets must not need torch, and torch.load runs any code that a pickle names. A .pth is a zip file
of raw storages beside a pickle that describes them; the reader here knows the six names that
tensors need and refuses every other one, so that no file can run code. Old files (torch < 1.6) are
no zip.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _STORAGES.items()}
_NUMPY = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", name)
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
}


def load_pickle(data: bytes, storage: Callable[[Any], Any] | None = None) -> Any:
    """Unpickle numbers, containers, numpy arrays and, given their storages, tensors; no more."""
    reader = _Reader(io.BytesIO(data))
    reader.storage = storage
    return reader.load()


def load_tensor(path: Path) -> np.ndarray:
    """Return the tensor that a .pth file holds; ValueError when it holds something else."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not a torch file of version 1.6 or later (not a zip file)")
    with zipfile.ZipFile(path) as archive:
        root = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
        if root is None:
            raise ValueError("it is not a torch file (no data.pkl in it)")
        folder = root.removesuffix("data.pkl")

        def storage(key: Any) -> np.ndarray:
            _, dtype, name, _, _ = key
            return np.frombuffer(archive.read(f"{folder}data/{name}"), dtype)

        value = load_pickle(archive.read(root), storage)
    if not isinstance(value, np.ndarray):
        raise ValueError(f"got a {type(value).__name__}, expected a tensor")
    return value


def save_tensor(path: Path, value: np.ndarray) -> None:
    """Write a .pth file that torch.load reads (also with weights_only=True)."""
    value = np.asarray(value, order="C")
    if (name := _NAMES.get(value.dtype)) is None:
        raise ValueError(f"tensor: got {value.dtype}, expected one of {sorted(map(str, _NAMES))}")
    strides = [s // value.itemsize for s in value.strides]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _describe(name, value.size, value.shape, strides))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", value.tobytes())
        archive.writestr("archive/version", "3\n")


class _Reader(pickle.Unpickler):
    storage: Callable[[Any], Any] | None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2") and self.storage:
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        if (module, name) in _NUMPY:
            return super().find_class(module, name)
        raise ValueError(f"it names {module}.{name}, which is never loaded from a file")

    def persistent_load(self, key: Any) -> Any:
        if self.storage is None:
            raise ValueError("it refers to a storage that is missing")
        return self.storage(key)


def _rebuild(storage: np.ndarray, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """What torch._utils._rebuild_tensor_v2 does, checked against the storage's bounds."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if offset < 0 or min([*stride, 0]) < 0 or last >= storage.size:
        raise ValueError(
            f"tensor: got shape {tuple(size)}, expected one that fits {storage.size} numbers"
        )
    steps = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


def _describe(name: str, count: int, shape: tuple[int, ...], strides: list[int]) -> bytes:
    """The pickle of one tensor, opcode by opcode: its names cannot be imported without torch."""
    storage = b"(" + _text("storage") + f"ctorch\n{name}\n".encode()
    storage += _text("0") + _text("cpu") + _whole(count) + b"tQ"
    empty = b"ccollections\nOrderedDict\n)R"
    arguments = storage + _whole(0) + _tuple(shape) + _tuple(strides) + b"\x89" + empty
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR."


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _whole(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(values: Any) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"
