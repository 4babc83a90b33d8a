"""Writes the latches of a robot to its safety record, in a thread: the control thread never waits
for the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from wm_nodes.control.base import ControlOutput
from wm_nodes.control.safety_record import Record, SafetyRecord

RETRY_S = 1.0  # after a failed write
STOP_S = 2.4  # longest wait for the last write


class LatchWriter:
    """latched: returns name -> why of everything that is latched. output: gets fault `record`."""

    def __init__(
        self,
        record: SafetyRecord,
        latched: Callable[[], Mapping[str, str]],
        output: ControlOutput,
    ) -> None:
        self._record, self._latched, self._output = record, latched, output
        self._changed, self._ended = threading.Event(), False
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """The latches have changed; returns at once."""
        self._changed.set()

    def start(self) -> None:
        """Write the record now, and after each `notify`."""
        self._ended = False
        self.store(running=True)
        self._thread = threading.Thread(target=self._run, name="latches", daemon=True)
        self._thread.start()

    def stop(self, *, running: bool) -> None:
        """End the thread and write the record. running: the robot may still move."""
        self._ended = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
        self.store(running=running)

    def store(self, *, running: bool) -> str:
        """Write the record; returns "" when it is on disk, or why it is not."""
        try:
            self._record.store(lambda: Record(self._latched(), running))
        except OSError as error:
            text = f"latches cannot be stored in {self._record.path} ({error.strerror})"
            fault = f"{text}. Free disk space, or set safety_file"
            self._output.report_fault("record", fault, error=True)
            return text
        self._output.clear_fault("record", "latches are stored again")
        return ""

    def _run(self) -> None:
        failure = ""
        while not self._ended:
            if self._changed.wait(RETRY_S if failure else None) or failure:
                self._changed.clear()
                if not self._ended:
                    failure = self.store(running=True)
