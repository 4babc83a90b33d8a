"""Follow the log files of processes and pick out the errors in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

ERROR = re.compile(r"^\s*(\[(ERROR|FATAL)\]|error:|\w*Error:)")
STAMP = re.compile(r"^\[(ERROR|FATAL)\]\s*(\[\d+\.\d+\]\s*)?(\[[\w./-]+\]:\s*)?")
TRACEBACK = "Traceback (most recent call last)"


class Tail:
    """The part of a file that was written since the last look; survives rotation."""

    def __init__(self, path: Path) -> None:
        """Follow from the file's present end (a resumed run has old lines)."""
        self.path = path
        self._stream: IO[bytes] | None = None
        self._skip = path.stat().st_size if path.exists() else 0

    def read(self) -> bytes:
        """Return what is new; empty if nothing is."""
        if self._stream is None and not self._open():
            return b""
        assert self._stream is not None
        new = self._stream.read()
        if not new and self._replaced():
            self.close()
            self._skip = 0
            return self.read()
        return new

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> bool:
        if not self.path.exists():
            return False
        self._stream = self.path.open("rb")
        self._stream.seek(self._skip)
        return True

    def _replaced(self) -> bool:
        assert self._stream is not None
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return False
        return now.st_ino != self._inode() or now.st_size < self._stream.tell()

    def _inode(self) -> int:
        assert self._stream is not None
        return Path(f"/dev/fd/{self._stream.fileno()}").stat().st_ino


class Errors:
    """Lines of one node's output -> the errors in it, one line each; tracebacks shortened."""

    def __init__(self) -> None:
        self.recent: list[str] = []  # last lines, for a node that ends without an [ERROR] line
        self.shown = 0
        self._rest = ""
        self._in_traceback = False

    def pick(self, text: bytes) -> list[str]:
        """Return the error lines in this piece of output."""
        *lines, self._rest = (self._rest + text.decode(errors="replace")).split("\n")
        picked = [line for line in map(self._look, lines) if line]
        self.shown += len(picked)
        return picked

    def last_lines(self) -> list[str]:
        """Return the last lines if none was shown as an error yet."""
        return [] if self.shown else self.recent[-2:]

    def _look(self, line: str) -> str | None:
        line = line.rstrip()
        if not line:
            return None
        self.recent = [*self.recent[-9:], line]
        if TRACEBACK in line:
            self._in_traceback = True
            return None
        if self._in_traceback:
            if line[0].isspace():
                return None
            self._in_traceback = False
            return line
        return STAMP.sub("", line) if ERROR.match(line) else None
