"""A progress bar on a terminal; a plain line every few seconds in a file."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

LINES_S = 5.0  # between lines in a file
DRAWN_S = 0.2  # between two drawings
WIDTH = 24


class Bar:
    """Shows `done` of `total` (0: unknown), the rate and the time left, followed by a text."""

    def __init__(self, total: int, unit: str, stream: TextIO | None = None) -> None:
        self.total, self.unit = total, unit
        self._stream = stream or sys.stdout
        self._drawn = self._stream.isatty()
        self._shown_at = float("-inf")

    def show(self, done: int, rate: float, text: str, *, now: bool = False) -> None:
        """Draw, unless the last drawing is too recent; `rate` in units per second."""
        wait = DRAWN_S if self._drawn else LINES_S
        if not now and time.monotonic() - self._shown_at < wait:
            return
        self._shown_at = time.monotonic()
        line = self.line(done, rate, text)
        if self._drawn:
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
        self._stream.write(line + ("" if self._drawn else "\n"))
        self._stream.flush()

    def line(self, done: int, rate: float, text: str) -> str:
        """Return the text: bar, counts, and rate and time left where they are known."""
        head, parts = "", [f"{done} {self.unit}"]
        if 0 < self.total >= done:  # a run that is past its end has no bar
            filled = WIDTH * done // self.total
            head = "#" * filled + "." * (WIDTH - filled) + " "
            parts = [f"{done} of {self.total} {self.unit}"]
        if rate > 0:
            parts.append(f"{rate:.2f}/s")
        if rate > 0 and self.total > done:
            parts.append(f"{duration((self.total - done) / rate)} left")
        return head + ", ".join([*parts, text] if text else parts)

    def close(self) -> None:
        """Leave the bar where it is and continue below it."""
        if self._drawn and self._shown_at > 0:
            self._stream.write("\n")
            self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 2 h 05 min, 40 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
