"""Files that are whole or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield the path to write instead of `path`; it becomes `path` when the block ends.

    A reader finds the old file or the whole new one, also after a power cut. When the block raises
    an error, the old file stays and the new one is removed. The folder is made where it is missing.
    The yielded name is always the same and ends in .part: one writer at a time.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        yield aside
        _flush(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _flush(path.parent)


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all. OSError."""
    with replacing(path) as aside, aside.open("w") as file:
        json.dump(content, file, indent=indent)
        file.write("\n")


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
