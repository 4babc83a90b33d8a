"""A thread that calls a function every period, and figures of how regular the calls were."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

KEEP = 1000  # newest intervals that figures are computed from
SWITCH_S = 0.0001  # longest time that another thread keeps the interpreter
CLOSEST = 0.7
SPIN_S, SPIN_SHARE = 0.0004, 0.05  # busy-waited at the end of each wait; largest share of a period
MCL_CURRENT, MCL_FUTURE = 1, 2  # of mlockall(2)
OWN, OTHERS = 20, 10  # real-time priorities: of the periodic thread, of the process's other threads


class PeriodicThread:
    """Calls `tick` from a thread of its own every `period_s` by the steady clock.

    After a late call the next one follows sooner, but never within less than CLOSEST periods;
    after a longer delay the schedule restarts, and missed calls are skipped. The thread has
    real-time priority where the system allows it. `alone`: so have all other threads of this
    process, at a lower priority, since a call may wait for one that holds the interpreter or a
    lock. `failed` is called when `tick` has raised; no call follows.
    """

    def __init__(
        self,
        period_s: float,
        tick: Callable[[], None],
        *,
        alone: bool = False,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.period_s, self._tick, self._alone, self._failed = period_s, tick, alone, failed
        self._spin_s = min(SPIN_S, SPIN_SHARE * period_s)
        self._intervals: deque[float] = deque(maxlen=KEEP)
        self._busy: deque[float] = deque(maxlen=KEEP)
        self._end = threading.Event()
        self.realtime = False
        self.ticks = 0
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
        """Return period and jitter of the newest calls, as texts."""
        if len(self._intervals) < 2:
            return {}
        periods = np.array(self._intervals)
        off = np.abs(periods - self.period_s) / self.period_s
        return {
            "period_ms": f"{1e3 * float(periods.mean()):.3f}",
            "jitter_p99": f"{float(np.percentile(off, 99)):.4f}",
            "jitter_max": f"{float(off.max()):.4f}",
            "busy_p99_ms": f"{1e3 * float(np.percentile(self._busy, 99)):.3f}",
            "beats": str(self.ticks),
            "realtime": str(self.realtime).lower(),
        }

    def intervals_s(self) -> list[float]:
        """Return the newest intervals between calls [s]."""
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
            self.ticks += 1
            try:
                self._tick()
            except BaseException as error:
                self.error = error
                self._failed()
                return
            now = time.monotonic()
            self._busy.append(now - began)
            due += self.period_s
            if due - began < CLOSEST * self.period_s or due < now:
                due = max(began + self.period_s, now)  # too late: restart the schedule
            left = due - now - self._spin_s
            if left > 0 and self._end.wait(left):
                return
            while time.monotonic() < due:
                pass


def threads() -> list[int]:
    """Return the system's numbers of this process's threads; empty where they are unknown."""
    folder = Path("/proc/self/task")
    return [int(entry.name) for entry in folder.iterdir()] if folder.is_dir() else []


def take_priority(own: int, others: int = 0) -> bool:
    """Give this thread a real-time priority, and the process's others `others` (0: unchanged).

    Returns False if the system does not allow it.
    """
    allowed = _ask_for_realtime(0, own)
    if allowed and others:
        for thread in set(threads()) - {threading.get_native_id()}:
            _ask_for_realtime(thread, others)
    return allowed


def realtime_allowed() -> bool:
    """May a thread of this process have real-time priority?"""
    allowed: list[bool] = []
    thread = threading.Thread(target=lambda: allowed.append(_ask_for_realtime(0, OWN)))
    thread.start()
    thread.join()
    return allowed[0]


def lock_memory() -> bool:
    """Lock this process in memory, so that no page fault delays a call; False: not allowed."""
    try:
        failed = ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE)
    except (OSError, AttributeError):
        return False
    return not failed


def _ask_for_realtime(thread: int, priority: int) -> bool:
    """Request SCHED_FIFO for a thread (0: this one); most systems refuse it to ordinary users."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, AttributeError):
        return False
    return True
