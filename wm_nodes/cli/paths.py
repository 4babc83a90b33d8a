"""Folders on the command line: a log, by its own path or by the name of its run."""

from __future__ import annotations

from pathlib import Path


def find_log(path: Path) -> Path:
    """Return the log's folder: the path itself, or `log` in it where a run was named."""
    for folder in (path, path / "log", Path("runs") / path / "log"):
        if (folder / "zarr.json").is_file():
            return folder
    return path  # the reader reports what is wrong with it
