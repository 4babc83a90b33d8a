"""A steady beat: a thread that calls a function every period, and how evenly it did."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

KEEP = 1000  # newest intervals that figures are of
SWITCH_S = 0.0001  # other threads give the interpreter back after so long
CLOSEST = 0.7
SPIN_S, SPIN_SHARE = 0.0004, 0.05  # the last of a wait, of a period at most, is not slept
MCL_CURRENT, MCL_FUTURE = 1, 2  # of mlockall(2)
OWN, OTHERS = 20, 10  # real-time priorities of the beat's thread and of the rest of its process


class Cadence:
    """Calls `beat` from a thread of its own every `period_s` by the steady clock.

    After a late beat the next may come sooner, but never sooner than CLOSEST of a period: after a
    later one the beat begins anew, and nothing makes up for lost time. Where the system allows it
    the thread has real-time priority. `alone`: so have all others of this process, a little less,
    since the beat may have to wait for one that holds the interpreter or a lock: the process has
    nothing else to do. `failed` is called when `beat` has raised: no beat follows.
    """

    def __init__(
        self,
        period_s: float,
        beat: Callable[[], None],
        *,
        alone: bool = False,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.period_s, self._beat, self._alone, self._failed = period_s, beat, alone, failed
        self._spin_s = min(SPIN_S, SPIN_SHARE * period_s)
        self._intervals: deque[float] = deque(maxlen=KEEP)
        self._busy: deque[float] = deque(maxlen=KEEP)
        self._end = threading.Event()
        self.realtime = False
        self.beats = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._end.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def figures(self) -> dict[str, str]:
        """Return period and jitter of the newest beats, for people."""
        if len(self._intervals) < 2:
            return {}
        periods = np.array(self._intervals)
        off = np.abs(periods - self.period_s) / self.period_s
        return {
            "period_ms": f"{1e3 * float(periods.mean()):.3f}",
            "jitter_p99": f"{float(np.percentile(off, 99)):.4f}",
            "jitter_max": f"{float(off.max()):.4f}",
            "busy_p99_ms": f"{1e3 * float(np.percentile(self._busy, 99)):.3f}",
            "beats": str(self.beats),
            "realtime": str(self.realtime).lower(),
        }

    def intervals_s(self) -> list[float]:
        """Return the newest intervals between beats."""
        return list(self._intervals)

    def _run(self) -> None:
        self.realtime = take_priority(OWN, OTHERS if self._alone else 0)
        due = time.monotonic()
        last: float | None = None
        while not self._end.is_set():
            began = time.monotonic()
            if last is not None:
                self._intervals.append(began - last)
            last = began
            self.beats += 1
            try:
                self._beat()
            except BaseException as error:
                self.error = error
                self._failed()
                return
            now = time.monotonic()
            self._busy.append(now - began)
            due += self.period_s
            if due - began < CLOSEST * self.period_s or due < now:
                due = max(began + self.period_s, now)  # too late for the old beat: a new one
            left = due - now - self._spin_s
            if left > 0 and self._end.wait(left):
                return
            while time.monotonic() < due:
                pass


def threads() -> list[int]:
    """Return the system's numbers of this process's threads; none where it does not tell."""
    folder = Path("/proc/self/task")
    return [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []


def take_priority(own: int, others: int = 0) -> bool:
    """Give this thread a real-time priority, and the process's others theirs (0: as they are).

    False: the system does not allow it.
    """
    allowed = _ask_for_realtime(0, own)
    if allowed and others:
        for thread in set(threads()) - {threading.get_native_id()}:
            _ask_for_realtime(thread, others)
    return allowed


def realtime_allowed() -> bool:
    """May a thread of this process have real-time priority?"""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(_ask_for_realtime(0, OWN)))
    thread.start()
    thread.join()
    return found[0]


def lock_memory() -> bool:
    """Keep this process in memory, so that no page fault delays a beat; False: not allowed."""
    try:
        return ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE) == 0
    except (OSError, AttributeError):
        return False


def _ask_for_realtime(thread: int, priority: int) -> bool:
    """Ask for SCHED_FIFO for a thread (0: this one); most systems refuse it to ordinary users."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, AttributeError):
        return False
    return True
