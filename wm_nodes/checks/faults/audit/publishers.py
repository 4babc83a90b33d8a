"""Promise: one publisher commands the arm at a time, and its commands are numbered."""

from __future__ import annotations

from wm_nodes.checks.faults.audit.record import AuditRecord

SILENT_S = 0.3  # least pause between the commands of two publishers
FIRST, JOINED, MISSED, NEXT = "first", "joined", "missed", "next"


class PublisherOrder:
    """Orders commands by publisher and number. Violation `publishers`: commands of two publishers
    within SILENT_S, or of an earlier one again. `not_received`: commands that were sent only.
    """

    def __init__(self, record: AuditRecord) -> None:
        self._record = record
        self._publisher, self._sent = "", 0
        self._past: set[str] = set()
        self.not_received = 0

    def take(self, when_s: float, sent: int, publisher: str, last_s: float | None) -> str:
        """Return what this command is to its publisher: FIRST, JOINED, MISSED, NEXT.

        JOINED: earlier commands of this publisher were not received; MISSED: some in between.
        sent: its number as the publisher counts, 0 where that is unknown. last_s: time of the last
        command that was audited; None: there was none.
        """
        before, self._sent = self._sent, sent
        old, self._publisher = self._publisher, publisher
        if last_s is None:
            self.not_received += max(sent - 1, 0)
            return FIRST if sent == 1 else JOINED
        if publisher != old or 0 < sent <= before:
            if when_s - last_s < SILENT_S or (publisher and publisher in self._past):
                self._record.count("publishers")
            self._past.add(old)
            self.not_received += max(sent - 1, 0)
            return FIRST if sent == 1 else JOINED
        if 0 < before < sent - 1:
            self.not_received += sent - 1 - before
            return MISSED
        return NEXT
