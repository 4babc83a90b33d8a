"""Whether a row may follow the one before, and whether an episode has the declared rate."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_datasets.errors import LogSpecError

_log = logging.getLogger(__name__)
RATE_TOLERANCE = 0.1  # of the declared control period


class RowOrder:
    """Follows the flags and stamps of the rows that a writer appends."""

    def __init__(self, path: Path, period_s: float) -> None:
        self.irregular: deque[str] = deque(maxlen=100)  # episodes whose rate is not the declared
        self._path, self._period_s = path, period_s
        self._in_episode, self._last_stamp = False, 0
        self._first_row, self._first_stamp = -1, 0  # of the open episode; -1: its rate is checked

    def check(self, row: Mapping[str, Any], number: int) -> None:
        """LogSpecError: the row, with this number, may not follow the one before."""
        if not (self._in_episode or row["is_first"]):
            raise LogSpecError(
                f"row {number}: got is_first=False, expected True, because no episode is open."
            )
        if self._in_episode and not row["is_first"] and row["stamp"] <= self._last_stamp:
            raise LogSpecError(
                f"row {number}: stamp: got {row['stamp']} ns after {self._last_stamp} ns, expected "
                "growing stamps within an episode."
            )

    def appended(self, row: Mapping[str, Any], number: int) -> None:
        """Take note of a row that is in the log now."""
        if row["is_first"]:
            self._check_rate(number)
            self._first_row, self._first_stamp = number, int(row["stamp"])
        self._in_episode, self._last_stamp = not row["is_last"], int(row["stamp"])
        if row["is_last"]:
            self._check_rate(number + 1)

    def end_episode(self, length: int) -> None:
        """The open episode, if any, ends at row `length`, incomplete."""
        self._check_rate(length)
        self._in_episode = False

    def break_episode(self) -> None:
        """A row is missing: the next one must begin an episode."""
        self._in_episode = False

    def _check_rate(self, stop: int) -> None:
        """Compare the rate of the episode that ends before row `stop` with the declared one."""
        steps = stop - 1 - self._first_row
        if self._first_row < 0 or steps < 1:
            return
        seconds = (self._last_stamp - self._first_stamp) * 1e-9
        if not math.isclose(seconds, steps * self._period_s, rel_tol=RATE_TOLERANCE):
            message = (
                f"rows {self._first_row} to {stop}: time of one step: got {seconds / steps:.4g} s "
                f"on average, expected {self._period_s:g} s as declared"
            )
            self.irregular.append(message)
            _log.warning("%s: %s", self._path, message)
        self._first_row = -1
