"""Read a file of tensors, safetensors or torch by its content, without executing code in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wm_models.errors import ModelError
from wm_models.nets.state_dicts import first_not_finite

WRAPPERS = ("state_dict", "model", "teacher")  # keys below which training scripts put the tensors
_GLOBAL = re.compile(r"(?:GLOBAL|global) ([\w.]+)")  # how torch names what it refuses
_RIGHT = "Expected a safetensors file, or a torch file that holds a dict of names and tensors"


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    ModelError, in one line: the file is empty, truncated, of another kind, holds something else
    than a dict of names and tensors, or numbers that are not finite.
    """
    if not file.stat().st_size:
        raise ModelError(f"weights: {file} is empty. {_RIGHT}; copy it again.")
    state = _load_safetensors(file) if _is_safetensors(file) else _load_torch(file)
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ModelError(f"weights: {file} holds a {type(state).__name__}. {_RIGHT}.")
    if not state:
        raise ModelError(f"weights: {file} holds an empty dict. {_RIGHT}.")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ModelError(f"weights: {file}: {key!r} is of type {kind}. {_RIGHT}.")
    if (bad := first_not_finite(state)) is not None:
        raise ModelError(
            f"weights: {file}: {bad!r}: got NaN or infinity, expected finite numbers. "
            "Choose a version from before the training diverged."
        )
    return dict(state)


def _is_safetensors(file: Path) -> bool:
    """A safetensors file begins with the size of its header (8 bytes) and a JSON object."""
    with file.open("rb") as stream:
        head = stream.read(9)
    return file.suffix == ".safetensors" or head[8:] == b"{"


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ModelError(
            f"weights: {file} is not a whole safetensors file ({_line(error)}). Copy it again."
        ) from None


def _load_torch(file: Path) -> Any:
    """What torch.load reads without running code. Its own messages are not passed on: they advise
    to run the code in the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch does not write
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if match := _GLOBAL.search(str(error)):
            raise ModelError(
                f"weights: {file} holds Python objects ({match[1]}), which are not read. {_RIGHT}: "
                "save the model's state_dict()."
            ) from None
        raise ModelError(f"weights: {file} is no file of weights. {_RIGHT}.") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError):
        with file.open("rb") as stream:
            whole = zipfile.is_zipfile(file)
            zipped = stream.read(2) == b"PK"
        kind = "a truncated or damaged torch file" if zipped or whole else "no file of weights"
        raise ModelError(f"weights: {file} is {kind}. {_RIGHT}; copy it again.") from None


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
