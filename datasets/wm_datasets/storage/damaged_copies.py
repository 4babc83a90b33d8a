"""Damaged files of a log, kept as they were found before anything takes their place.

They lie in `<log>/damaged/` as `<first row>-<end row>.<file, with dots>`. Nothing reads them;
`verify` names them until they are deleted, and they go when the log's capacity drops their rows.
"""

# A simulated power cut records what is asked of `os` (durability/power_cut.py):
# ruff: noqa: PTH102

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from wm_datasets.storage.column import sync_folder, write_whole
from wm_datasets.storage.file_reads import exists, list_names, read_file

FOLDER = "damaged"
_NAME = re.compile(r"(\d+)-(\d+)\..+")


def keep_aside(root: Path, path: Path, start: int, stop: int) -> None:
    """Keep a durable copy of a damaged file, which held rows [start, stop), unless it is empty."""
    try:
        data = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not data:
        return
    folder = root / FOLDER
    if not exists(folder):
        os.mkdir(folder)
        sync_folder(root)
    name = f"{start}-{stop}." + ".".join(path.relative_to(root).parts)
    for number in itertools.count():
        target = folder / (f"{name}.{number}" if number else name)
        if not exists(target):
            write_whole(target, data)
            return sync_folder(folder)
        if read_file(target) == data:  # by a writer that was killed before it went on
            return None


def kept_aside(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield the files that are kept, each with the rows [start, stop) that it held."""
    for name in list_names(root / FOLDER):
        if (match := _NAME.fullmatch(name)) and not name.endswith(".tmp"):
            yield root / FOLDER / name, int(match[1]), int(match[2])
