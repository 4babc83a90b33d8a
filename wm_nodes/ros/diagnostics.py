"""What a node says of itself on /diagnostics: rate, latency, drops by reason, faults, weights."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

SEPARATOR = ": "  # of namespace and node in a status's name, as diagnostic_updater has it
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
        self._errors: set[str] = set()  # those of them with which the node cannot do its work
        self._latencies: deque[float] = deque(maxlen=KEEP)
        self._done = 0
        self._marked = (0, time.monotonic())

    def worked(self, seconds: float) -> None:
        """One piece of work was finished; it took so long."""
        if self._done == START:
            self._latencies.clear()
        self._done += 1
        self._latencies.append(seconds)

    def drop(self, reason: str, count: int = 1) -> int:
        """So many messages were not used; return how many in all for this reason."""
        self.drops[reason] += count
        return self.drops[reason]

    def fault(self, name: str, text: str, *, error: bool = False) -> bool:
        """Something is wrong until `cleared`; True when that is news. error: level ERROR."""
        news = name not in self._now
        self.faults[name] += news
        self._now[name] = text
        (self._errors.add if error else self._errors.discard)(name)
        return news

    def cleared(self, name: str) -> bool:
        """It is well again; True when that is news."""
        self._errors.discard(name)
        return self._now.pop(name, None) is not None

    def rest(self) -> None:
        """The node is not active any more: faults are over, it is not ready."""
        self.ready = False
        self._now.clear()
        self._errors.clear()

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
        """Return the message of the node with this full name; the hardware is its namespace."""
        level = DiagnosticStatus.OK
        if self._now:
            level = DiagnosticStatus.ERROR if self._errors else DiagnosticStatus.WARN
        namespace, _, node = name.rpartition("/")
        return DiagnosticStatus(
            level=level,
            name=f"{namespace or '/'}{SEPARATOR}{node}",
            message="; ".join(self._now.values()) or ("running" if self.ready else "starting"),
            hardware_id=namespace or "/",
            values=[KeyValue(key=k, value=v) for k, v in self.report().items()],
        )


def statuses(msg: DiagnosticArray) -> Mapping[str, dict[str, str]]:
    """Return full node name -> values of a diagnostics message."""
    return {full_name(s): {pair.key: pair.value for pair in s.values} for s in msg.status}


def full_name(status: DiagnosticStatus) -> str:
    """Return the full name of the node that a status is of; other programs' names as they are."""
    return str(status.name).replace(f"/{SEPARATOR}", "/", 1).replace(SEPARATOR, "/", 1)
