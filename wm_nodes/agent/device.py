"""Device names of torch, checked without importing torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"auto|cpu|cuda(:\d+)?")


def device_error(name: str) -> str:
    """Return the error in a device's name; "" if it is valid."""
    if NAME.fullmatch(name):
        return ""
    return f"device: got {name!r}, expected cpu, cuda, cuda:N, or auto (a GPU where there is one)."


def pick_device(name: str) -> torch.device:
    """Return the device of a name; auto takes the GPU where there is one. ModelError: no such
    device."""
    import torch

    from wm_models.errors import ModelError

    if wrong := device_error(name):
        raise ModelError(wrong)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if name.startswith("cuda") and not count:
        raise ModelError(
            f"device: got {name!r}, expected cpu or auto, as this machine has no usable CUDA."
        )
    index = int(name.partition(":")[2] or 0)
    if name != "cpu" and index >= count:
        raise ModelError(f"device: got {name!r}, expected cuda:0 to cuda:{count - 1}.")
    return torch.device(name)
