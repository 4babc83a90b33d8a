"""The background thread of a writer: syncs rows in time and seals full segments."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from wm_datasets.errors import LogError, LogFullError, LogReadError, disk_errors
from wm_datasets.log.segment_queue import SegmentQueue

_log = logging.getLogger(__name__)
_PASSING = (LogFullError, LogReadError)  # faults after which the keeper tries again


class Keeper:
    """Keeps a queue of segments durable, at most `durable_s` [s] late, and short.

    What fails becomes the queue's fault: one that may pass is tried again, until the queue is
    closed; after any other one the thread ends.
    """

    def __init__(self, path: Path, queue: SegmentQueue, durable_s: float) -> None:
        self._path, self._queue, self._durable_s = path, queue, durable_s
        self._thread = threading.Thread(target=self._run, name="log keeper", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread's end; the queue must be closed."""
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_work():
            fault = self._work()
            if fault is not None:
                _log.error("%s", fault)
            if not self._note(fault):
                return

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when the queue is closed."""
        queue = self._queue
        with queue.work:
            while not queue.closed and (rest := self._rest()) != 0:
                queue.work.wait(rest)
            return not queue.closed

    def _rest(self) -> float | None:
        """Seconds until there is something to do; None: until notified."""
        queue = self._queue
        if queue.fault is not None or queue.count_full():
            return 0
        if queue.dirty_since is None:
            return None
        return max(0.0, queue.dirty_since + self._durable_s - time.monotonic())

    def _work(self) -> LogError | None:
        """Sync where it is due, and seal; return what failed."""
        queue = self._queue
        with queue.work:
            since = queue.dirty_since
            due = since is not None and time.monotonic() >= since + self._durable_s
        try:
            with disk_errors(self._path):
                if due:
                    queue.sync()
                queue.seal_full()
        except LogError as error:
            return error
        except Exception as error:
            return LogError(
                f"{self._path}: the writer failed: {error!r}. Close it and open a new one."
            )
        return None

    def _note(self, fault: LogError | None) -> bool:
        """Make it the queue's fault; False: a disk that failed is not trusted again."""
        queue = self._queue
        with queue.work:
            if queue.fault is None or isinstance(queue.fault, _PASSING):
                queue.fault = fault
            queue.room.notify_all()
            if queue.fault is None:
                return True
            if isinstance(queue.fault, _PASSING):
                if not queue.closed:
                    queue.work.wait(max(self._durable_s, 0.1))
                return True
            return False
