"""What a node says of itself on /diagnostics: rate, latency, drops by reason, faults, weights."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

KEEP = 512  # newest latencies that p50 and p99 are of
START = 5  # first pieces of work, which load and allocate: in no latency once others are done


class Health:
    """Counts of one node since it started; `rate_hz` is of the time since the last report."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.facts: dict[str, object] = {}  # whatever else people want to see
        self.weights: int | None = None
        self.ready = False
        self._now: dict[str, str] = {}  # faults that last
        self._latencies: deque[float] = deque(maxlen=KEEP)
        self._done = 0
        self._marked = (0, time.monotonic())

    def worked(self, seconds: float) -> None:
        """One piece of work was finished; it took so long."""
        if self._done == START:
            self._latencies.clear()
        self._done += 1
        self._latencies.append(seconds)

    def drop(self, reason: str) -> int:
        """One message was not used; return how often that happened for this reason."""
        self.drops[reason] += 1
        return self.drops[reason]

    def fault(self, name: str, text: str) -> bool:
        """Something is wrong until `cleared`; True when that is news."""
        news = name not in self._now
        self.faults[name] += news
        self._now[name] = text
        return news

    def cleared(self, name: str) -> bool:
        """It is well again; True when that is news."""
        return self._now.pop(name, None) is not None

    @property
    def lasting(self) -> Mapping[str, str]:
        """Faults that are not cleared: name -> text."""
        return self._now

    @property
    def latency_ms(self) -> tuple[float, float]:
        """p50 and p99 of the newest pieces of work; zeros before the first."""
        if not self._latencies:
            return 0.0, 0.0
        p50, p99 = np.percentile(self._latencies, (50, 99))
        return float(p50) * 1e3, float(p99) * 1e3

    def report(self) -> dict[str, str]:
        """Return the values of one diagnostic status, and begin a new interval of the rate."""
        now = time.monotonic()
        count, since = self._marked
        rate = (self._done - count) / max(now - since, 1e-9)
        self._marked = (self._done, now)
        p50, p99 = self.latency_ms
        values: dict[str, object] = {
            "ready": str(self.ready).lower(),
            "count": self._done,
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
        """Return the message; `name` is the node's full name, its namespace says which hardware."""
        level = DiagnosticStatus.WARN if self._now else DiagnosticStatus.OK
        return DiagnosticStatus(
            level=level,
            name=name,
            message="; ".join(self._now.values()) or ("running" if self.ready else "starting"),
            hardware_id=name.rpartition("/")[0] or "/",
            values=[KeyValue(key=k, value=v) for k, v in self.report().items()],
        )


def statuses(msg: DiagnosticArray) -> Mapping[str, dict[str, str]]:
    """Return node name -> values of a diagnostics message."""
    return {s.name: {pair.key: pair.value for pair in s.values} for s in msg.status}
