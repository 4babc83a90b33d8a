"""Python files of the user, given by path: a robot's class, a graph."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from zlib import crc32


class CodeError(ValueError):
    """A file that cannot be loaded: one line with the reason."""


def is_file(name: str) -> bool:
    """Is this a path to a Python file, not the name of something shipped?"""
    return name.endswith(".py")


def load_file(name: str) -> ModuleType:
    """Return the module of a Python file; once loaded it stays. CodeError if that fails."""
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise CodeError(f"file: got {name!r}, which does not exist, expected a Python file.")
    known = f"wm_own_{path.stem}_{crc32(bytes(path)):08x}"
    if known in sys.modules:
        return sys.modules[known]
    spec = spec_from_file_location(known, path)
    if spec is None or spec.loader is None:
        raise CodeError(f"file: got {name!r}, expected a Python file.")
    module = module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[known]
        reason = " ".join(str(error).split())
        raise CodeError(f"{name} cannot be loaded: {type(error).__name__}: {reason}.") from error
    return module
