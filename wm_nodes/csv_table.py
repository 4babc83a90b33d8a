"""CSV files that grow while a run goes on: appended line by line, read without a torn last line."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Table:
    """A CSV file that rows are added to; its columns are those of its first row."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append rows of equal columns, in one write. A last line without its end, of a process
        that was killed while it wrote, is removed first."""
        if not rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._end_whole():
            writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
        with self.path.open("a", newline="") as file:
            file.write(text.getvalue())

    def _end_whole(self) -> bool:
        """Remove a torn last line; return whether a line is left."""
        if not self.path.exists():
            return False
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if size and file.read() != b"\n":
                file.seek(0)
                size = file.read().rfind(b"\n") + 1
                file.truncate(size)
        return size > 0


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column; none where there is no such file.

    A last line without its end may lack digits: it is left out, and so are lines with more or fewer
    cells than columns.
    """
    text = path.read_text(errors="replace") if path.is_file() else ""
    lines = csv.reader(text[: text.rfind("\n") + 1].splitlines())
    columns = next(lines, [])
    for cells in lines:
        if len(cells) == len(columns):
            yield dict(zip(columns, cells))
