"""Torch files of whole objects are read without importing or running the names in them."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.wm_models.weights.released_run import ViTPredictor, their_names
from wm_models.weights.manifest import WeightsError
from wm_models.weights.torch_pickle import Bag, TorchFile


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_module_is_a_bag_with_the_numbers_of_its_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = nn.Sequential(ViTPredictor(2, 3, 8, depth=2, heads=1, hidden=4), nn.BatchNorm1d(4))
    saved[1].register_buffer("passing", torch.zeros(3), persistent=False)
    with their_names():
        torch.save({"a": saved, "half": saved.state_dict()}, tmp_path / "m.pth")
    with TorchFile(tmp_path / "m.pth") as file:
        bag = file.content["a"]
        assert isinstance(bag, Bag) and bag.kind == "torch.nn.modules.container.Sequential"
        tensors = file.tensors(bag.state_dict())
        plain = file.tensors(dict(file.content["half"]))
    assert_close(tensors, dict(saved.state_dict()), rtol=0, atol=0)
    assert_close(plain, tensors, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_views_and_types_are_read_as_torch_reads_them(tmp_path: Path, dtype: torch.dtype) -> None:
    view = torch.arange(60).reshape(3, 4, 5)[1:, ::2].permute(2, 0, 1).to(dtype)
    saved = {"view": torch.arange(60)[5:].to(dtype).reshape(5, 11).T, "other": view}
    torch.save(saved, tmp_path / "v.pth")
    with TorchFile(tmp_path / "v.pth") as file:
        tensors = file.tensors(file.content)
    assert_close(tensors, saved, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (__import__, r"(builtins|__builtin__)\.__import__"),
        (pickle.loads, r"pickle\.loads"),
    ],
)
def test_a_file_that_would_run_code_is_refused_by_name(
    tmp_path: Path, function: Callable[..., Any], named: str
) -> None:
    mark = tmp_path / "ran"
    calls = Calls(function, f"touch {mark}")
    torch.save({"epoch": 1, "optimizer": [calls]}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=named) as error, TorchFile(tmp_path / "evil.pth"):
        pass
    assert "\n" not in str(error.value) and not mark.exists()


def test_functions_of_installed_packages_are_not_called_either(tmp_path: Path) -> None:
    torch.save({"a": Calls(torch.save, 1, str(tmp_path / "ran"))}, tmp_path / "a.pth")
    with TorchFile(tmp_path / "a.pth") as file:
        assert file.content["a"].kind == "torch.serialization.save"
        assert file.content["a"].state_dict() == {}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty"),
        ("text", "truncated, or no torch file"),
        ("old", "truncated, or no torch file"),
        ("truncated", "truncated, or no torch file"),
        ("zip", r"no torch file \(data.pkl\)"),
        ("pickle", "in its pickle"),
    ],
)
def test_invalid_torch_files_are_refused_in_one_line(
    tmp_path: Path, kind: str, message: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(9)}, path, _use_new_zipfile_serialization=kind != "old")
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "some text" * 30)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind in ("zip", "pickle"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl" if kind == "pickle" else "a/other", b"\x80\x02(broken")
    with pytest.raises(WeightsError, match=message) as error, TorchFile(path):
        pass
    assert "\n" not in str(error.value)


def test_a_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(9)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data[:-4] if name.endswith("/data/0") else data)
    with (
        TorchFile(tmp_path / "b.pth") as file,
        pytest.raises(WeightsError, match="storage '0' of 36 bytes is missing or damaged"),
    ):
        file.tensors(file.content)
