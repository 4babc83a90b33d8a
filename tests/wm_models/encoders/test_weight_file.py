"""A file that is no file of weights is refused in one line with the reason."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wm_models.encoders.weight_file import read_tensors
from wm_models.errors import ModelError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}


def shortened(save: Callable[[Any, Path], None], by: int) -> Callable[[Path], object]:
    """Return a function that writes a file of weights without its last bytes."""

    def write(file: Path) -> None:
        save(TENSORS, file)
        file.write_bytes(file.read_bytes()[:-by])

    return write


INVALID_FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("not a weight file\n" * 20),
    "list": lambda file: torch.save([torch.zeros(2)], file),
    "tensor": lambda file: torch.save(torch.zeros(2), file),
    "empty dict": lambda file: torch.save({}, file),
    "numbers": lambda file: torch.save({**TENSORS, "epoch": 3}, file),
    "module": lambda file: torch.save(nn.Linear(2, 2), file),
    "pickle": lambda file: file.write_bytes(pickle.dumps(TENSORS["b"].tolist())),
    "truncated": shortened(torch.save, 200),
    "truncated safetensors": shortened(save_file, 4),
    "nan": lambda file: torch.save({**TENSORS, "c": torch.tensor([1.0, math.nan])}, file),
    "infinite": lambda file: save_file({**TENSORS, "c": torch.tensor([1.0, math.inf])}, file),
}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty"),
        ("text", "is no file of weights"),
        ("list", "holds a list"),
        ("tensor", "holds a Tensor"),
        ("empty dict", "holds an empty dict"),
        ("numbers", "'epoch' is of type int"),
        ("module", r"Python objects \(torch\.nn\.modules\.linear\.Linear\).*state_dict"),
        ("pickle", "is no file of weights|holds a list"),
        ("truncated", "truncated or damaged torch file"),
        ("truncated safetensors", "not a whole safetensors file"),
        ("nan", "'c': got NaN or infinity"),
        ("infinite", "'c': got NaN or infinity"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".bin"])
def test_an_invalid_weight_file_is_refused_in_one_line(
    tmp_path: Path, kind: str, message: str, suffix: str
) -> None:
    file = tmp_path / f"some{suffix}"
    INVALID_FILES[kind](file)
    with pytest.raises(ModelError, match=message) as error:
        read_tensors(file)
    text = str(error.value)
    assert "\n" not in text and str(file) in text
    assert "weights_only" not in text  # torch's advice to run the code in the file


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_tensors_are_read_whatever_the_suffix(tmp_path: Path, wrapper: str | None) -> None:
    torch.save(TENSORS if wrapper is None else {wrapper: TENSORS}, tmp_path / "a.pth")
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(TENSORS, tmp_path / "a.bin")
    for name in ("a.pth", "old.pt", "a.bin"):
        tensors = read_tensors(tmp_path / name)
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
