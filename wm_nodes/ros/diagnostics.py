"""What a node publishes on /diagnostics: rate, latency, drops by reason, faults, weights."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

SEPARATOR = ": "  # of namespace and node in a status's name, as diagnostic_updater has it
KEPT = 512  # newest latencies that p50 and p99 are computed from
WARM_UP = 5  # first latencies, which include loading and allocation: discarded once others follow


class NodeDiagnostics:
    """Counts of one node since its start; `rate_hz` covers the time since the last report.

    facts: further values to show. weights: version in use. ready: the node does its work.
    """

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.facts: dict[str, object] = {}
        self.weights: int | None = None
        self.ready = False
        self._active: dict[str, str] = {}  # faults that are not cleared: name -> text
        self._errors: set[str] = set()  # those of them with which the node cannot do its work
        self._latencies: deque[float] = deque(maxlen=KEPT)
        self._count = 0
        self._last_report = (0, time.monotonic())

    def record_latency(self, seconds: float) -> None:
        """Count one completed piece of work and the time that it took."""
        if self._count == WARM_UP:
            self._latencies.clear()
        self._count += 1
        self._latencies.append(seconds)

    def count_drop(self, reason: str, count: int = 1) -> int:
        """Count messages that are not used; return the total for this reason."""
        self.drops[reason] += count
        return self.drops[reason]

    def report_fault(self, name: str, text: str, *, error: bool = False) -> bool:
        """Set a fault until `clear_fault`; True if it was not set. error: level ERROR."""
        new = name not in self._active
        self.faults[name] += new
        self._active[name] = text
        (self._errors.add if error else self._errors.discard)(name)
        return new

    def clear_fault(self, name: str) -> bool:
        """Clear a fault; True if it was set."""
        self._errors.discard(name)
        return self._active.pop(name, None) is not None

    def reset(self) -> None:
        """The node is no longer active: clear all faults; it is not ready."""
        self.ready = False
        self._active.clear()
        self._errors.clear()

    @property
    def active_faults(self) -> Mapping[str, str]:
        """Faults that are not cleared: name -> text."""
        return self._active

    @property
    def latency_ms(self) -> tuple[float, float]:
        """p50 and p99 of the newest latencies [ms]; zeros before the first."""
        if not self._latencies:
            return 0.0, 0.0
        p50, p99 = np.percentile(self._latencies, (50, 99))
        return float(p50) * 1e3, float(p99) * 1e3

    def report(self) -> dict[str, str]:
        """Return the values of one diagnostic status, and start a new interval of the rate."""
        now = time.monotonic()
        count, since = self._last_report
        rate = (self._count - count) / max(now - since, 1e-9)
        self._last_report = (self._count, now)
        p50, p99 = self.latency_ms
        values: dict[str, object] = {
            "ready": str(self.ready).lower(),
            "count": self._count,
            "rate_hz": f"{rate:.2f}",
            "latency_p50_ms": f"{p50:.3f}",
            "latency_p99_ms": f"{p99:.3f}",
            "weights": "none" if self.weights is None else self.weights,
            "drops": sum(self.drops.values()),
            **{f"drops/{reason}": count for reason, count in sorted(self.drops.items())},
            **{f"faults/{name}": count for name, count in sorted(self.faults.items())},
            **self.facts,
        }
        return {key: str(value) for key, value in values.items()}

    def status(self, name: str) -> DiagnosticStatus:
        """Return the message of the node with this full name; the hardware is its namespace."""
        level = DiagnosticStatus.OK
        if self._active:
            level = DiagnosticStatus.ERROR if self._errors else DiagnosticStatus.WARN
        namespace, _, node = name.rpartition("/")
        return DiagnosticStatus(
            level=level,
            name=f"{namespace or '/'}{SEPARATOR}{node}",
            message="; ".join(self._active.values()) or ("running" if self.ready else "starting"),
            hardware_id=namespace or "/",
            values=[KeyValue(key=k, value=v) for k, v in self.report().items()],
        )


def statuses(msg: DiagnosticArray) -> Mapping[str, dict[str, str]]:
    """Return full node name -> values of a diagnostics message."""
    return {full_name(s): {pair.key: pair.value for pair in s.values} for s in msg.status}


def full_name(status: DiagnosticStatus) -> str:
    """Return the full name of the node of a status; names of other programs' nodes unchanged."""
    return str(status.name).replace(f"/{SEPARATOR}", "/", 1).replace(SEPARATOR, "/", 1)
