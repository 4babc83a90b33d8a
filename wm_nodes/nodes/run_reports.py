"""The newest reports on /diagnostics of one run's nodes, those of all its environments together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from wm_nodes.namespaces import absolute, within

GONE_S = 3.0  # a node without diagnostics for this long is reported as silent


class RunReports:
    """Reports by a node's name in the run, as agent, or env_1/robot of one environment.

    namespace: of the run. places: of its environments, below it; "": the run's own.
    """

    def __init__(self, namespace: str, places: Sequence[str]) -> None:
        self._namespace, self._places = namespace, places
        self.nodes: dict[str, dict[str, str]] = {}
        self._last_s: dict[str, float] = {}

    def update(self, statuses: Mapping[str, dict[str, str]]) -> None:
        """Keep the reports of this run's nodes, given by full name."""
        for full_name, values in statuses.items():
            if name := self._name(full_name):
                self.nodes[name] = values
                self._last_s[name] = time.monotonic()

    def fact(self, node: str, name: str, default: str = "") -> str:
        """Return a value of a node's newest report."""
        return self.nodes.get(node, {}).get(name, default)

    def of_environments(self, node: str) -> list[dict[str, str]]:
        """Return the reports of a node that each environment has, of those that have sent one."""
        names = [f"{place}/{node}".lstrip("/") for place in self._places]
        return [self.nodes[name] for name in names if name in self.nodes]

    def is_done(self, node: str) -> bool:
        """Whether a node has ended, in each environment if that has it."""
        reports = self.of_environments(node) if node == "robot" else [self.nodes.get(node, {})]
        expected = len(self._places) if node == "robot" else 1
        return sum(report.get("done") == "true" for report in reports) == expected

    def speed(self) -> dict[str, float]:
        """Return agent steps per second of all robots, and the largest of their latencies."""
        robots = self.of_environments("robot")
        latencies = ("latency_p50_ms", "latency_p99_ms")
        largest = {name: max(float(robot[name]) for robot in robots) for name in latencies}
        return {"rate_hz": sum(float(robot["rate_hz"]) for robot in robots), **largest}

    def silent(self) -> list[str]:
        """Return the nodes that have stopped to report before they were done."""
        now = time.monotonic()
        silent = [name for name, at in self._last_s.items() if now - at > GONE_S]
        return sorted(n for n in silent if n != "monitor" and self.fact(n, "done") != "true")

    def _name(self, full_name: str) -> str:
        """Return a node's name in this run; "": of another one."""
        for place in ("", *filter(None, self._places)):
            if name := within(absolute(place, self._namespace) or self._namespace, full_name):
                return f"{place}/{name}".lstrip("/")
        return ""


def total(reports: Iterable[Mapping[str, str]], name: str) -> int:
    """Return the sum of a count in several reports."""
    return sum(int(report.get(name, 0)) for report in reports)
