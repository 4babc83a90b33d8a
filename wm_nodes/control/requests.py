"""Calls of the operator, executed by the control thread in its next period."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from wm_nodes.records import Answer


@dataclass
class _Request:
    name: str
    value: object
    answer: Future[Answer] = field(default_factory=Future)


class Requests:
    """A queue from any thread to the control thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Request] = SimpleQueue()

    def put(self, name: str, value: object = None) -> Future[Answer]:
        """Add a request; the future gets its answer. If it is cancelled first, nothing happens."""
        request = _Request(name, value)
        self._queue.put(request)
        return request.answer

    def serve(self, execute: Callable[[str, object], Answer]) -> None:
        """Execute all waiting requests in their order. In the control thread only."""
        while True:
            try:
                request = self._queue.get_nowait()
            except Empty:
                return
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_result(execute(request.name, request.value))
