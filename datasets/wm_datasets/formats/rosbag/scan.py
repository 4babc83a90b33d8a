"""One look at all mapped messages of a bag, before anything is written: stamps, clocks and names.

Stamps of headers may be set back while a bag is recorded, or jump ahead. What lies between two
such jumps is a take, which becomes an episode of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from wm_datasets.formats.base import CorruptInputError
from wm_datasets.formats.rosbag.bag import Bag, Message
from wm_datasets.formats.rosbag.messages import dimensions

SET_BACK_NS = 200_000_000  # messages of one publisher are not that far out of order
AHEAD_NS = 1_000_000_000
MOST_JUMPS = 20
LATEST_NS = 10_000_000_000  # how much later than others of its stamp a message may be received
EARLY_NS = 100_000_000  # how far the clocks of two computers may be apart
GAP_PERIODS = 10
DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Span:
    """A take: the stamps from `start_ns` to `stop_ns` after `period` jumps; reception."""

    period: int
    start_ns: int
    stop_ns: int
    received_ns: tuple[int, int]


@dataclass
class _Publisher:
    period: int
    stamp_ns: int  # the newest
    least_ns: int  # largest of stamp - reception: the shortest delay


class Periods:
    """Tells how often the clock of a message's publisher jumped before it.

    A clock was set back where stamps decrease, and ahead where they come to be after reception.
    """

    def __init__(self) -> None:
        self._publishers: dict[Hashable, _Publisher] = {}
        self.now = 0
        self.jumps: list[tuple[str, int, int]] = []  # topic, received [ns], by how much [ns]

    def of(self, topic: str, publisher: Hashable, stamp_ns: int, received_ns: int) -> int:
        """Return the period; messages are given in the order of reception."""
        ahead_ns = stamp_ns - received_ns
        known = self._publishers.get(publisher)
        if known is None:
            known = self._publishers[publisher] = _Publisher(self.now, stamp_ns, ahead_ns)
        leaps = EARLY_NS < ahead_ns > known.least_ns + AHEAD_NS
        if leaps or stamp_ns < known.stamp_ns - SET_BACK_NS:
            by = stamp_ns - known.stamp_ns
            known = self._publishers[publisher] = _Publisher(known.period + 1, stamp_ns, ahead_ns)
            if known.period > self.now:
                self.now = known.period
                self.jumps.append((topic, received_ns, by))
        known.stamp_ns = max(known.stamp_ns, stamp_ns)
        known.least_ns = max(known.least_ns, ahead_ns)
        return known.period


@dataclass
class TopicInfo:
    """What the messages of one topic say."""

    rows: array[int] = field(default_factory=lambda: array("q"))  # period, stamp, received, ...
    names: dict[str, int] = field(default_factory=dict)  # dimension -> messages that have it
    no_header: bool = False
    ahead_ns: int = 0  # most that a stamp is after its reception
    behind_ns: int = 0  # most that a stamp is before the newest one of any topic

    @property
    def table(self) -> np.ndarray:
        """Return (messages, 3): period, stamp [ns], received [ns]."""
        return np.array(self.rows, np.int64).reshape(-1, 3)


class Scan:
    """All mapped messages of a bag by topic, and its takes.

    parts: topic -> fields of its vectors. CorruptInputError where the clocks of topics disagree.
    """

    def __init__(
        self, bag: Bag, topics: set[str], parts: Mapping[str, tuple[str, ...]], stamps: str
    ) -> None:
        self.bag, self.topics = bag, {topic: TopicInfo() for topic in topics}
        self._parts = parts
        self._last: dict[tuple[str, Hashable], tuple[int, int]] = {}  # publisher -> period, time
        periods, newest = Periods(), dict[int, int]()
        for message in bag.messages(topics):
            info = self.topics[message.topic]
            stamp, own, publisher = read_stamp(bag, message, stamps, parts, info)
            info.no_header |= not own
            period = periods.of(message.topic, publisher, stamp, message.received_ns)
            if len(periods.jumps) > MOST_JUMPS:
                raise CorruptInputError(
                    bag.path,
                    f"the stamps of {message.topic} jump again and again. Record one publisher on "
                    "it, or give stamps: received, in --topics.",
                )
            newest[period] = max(newest.get(period, stamp), stamp)
            info.rows.extend((period, stamp, message.received_ns))
            info.behind_ns = max(info.behind_ns, newest[period] - stamp)
            info.ahead_ns = max(info.ahead_ns, stamp - message.received_ns)
            self._last[message.topic, publisher] = period, message.received_ns
        self.periods = periods
        self._check_jumps()
        self._check_clocks()

    def forget(self) -> None:
        """Free the stamps of single messages, once the takes are known."""
        for info in self.topics.values():
            info.rows = array("q")

    @property
    def horizon_ns(self) -> int:
        """Within this time of stamps messages come out of order."""
        return max((info.behind_ns for info in self.topics.values()), default=0)

    def takes(self, clock: str | None, max_age_s: float) -> list[Span]:
        """Return the takes: they end where clocks jump, or all topics are silent.

        clock: the topic whose messages make rows; None: all.
        """
        paced = [clock] if clock else list(self.topics)
        limit = max(max_age_s, GAP_PERIODS * max(map(self.period_s, paced), default=0.0)) * 1e9
        spans: list[Span] = []
        table = np.concatenate([info.table for info in self.topics.values()])
        for period in range(self.periods.now + 1):
            rows = table[table[:, 0] == period]
            rows = rows[np.argsort(rows[:, 1], kind="stable")]
            for part in np.split(rows, np.flatnonzero(np.diff(rows[:, 1]) > limit) + 1):
                if len(part):
                    received = int(part[:, 2].min()), int(part[:, 2].max())
                    spans.append(Span(period, int(part[0, 1]), int(part[-1, 1]), received))
        return spans

    def messages(self, bag: Bag, take: Span, stamps: str) -> Iterator[tuple[int, Message]]:
        """Yield (stamp [ns], message) of a take, in the order of reception."""
        start, stop = take.received_ns
        # Periods are counted from the bag's beginning.
        between = (None, None) if self.periods.now else (start, stop + 1)
        parts = self._parts if self.periods.now else {}
        periods = Periods()
        for message in bag.messages(self.topics, *between):
            stamp, _, publisher = read_stamp(bag, message, stamps, parts)
            period = 0
            if self.periods.now:
                period = periods.of(message.topic, publisher, stamp, message.received_ns)
            if period == take.period and take.start_ns <= stamp <= take.stop_ns:
                yield stamp, message

    def period_s(self, topic: str) -> float:
        """Median distance of a topic's stamps [s], in any order of reception; 0: unknown."""
        gaps = np.concatenate(
            [np.zeros(0, np.int64), *(np.diff(np.unique(s)) for s in self._by_period(topic))]
        )
        return round(float(np.median(gaps)) / 1e9, 6) if len(gaps) else 0.0

    def rate_hz(self, topic: str, takes: list[Span]) -> float:
        """Messages a second of the takes."""
        seconds = sum(take.stop_ns - take.start_ns for take in takes) / 1e9
        return len(self.topics[topic].rows) / 3 / seconds if seconds > 0 else 0.0

    def _by_period(self, topic: str) -> list[np.ndarray]:
        table = self.topics[topic].table
        return [table[table[:, 0] == period, 1] for period in range(self.periods.now + 1)]

    def _check_jumps(self) -> None:
        """Where one clock jumps, so do all others."""
        for number, (topic, received, by) in enumerate(self.periods.jumps):
            stayed = sorted({
                other for (other, _), (period, last) in self._last.items()
                if period <= number and last > received + LATEST_NS // 10
            })  # fmt: skip
            if stayed:
                raise CorruptInputError(
                    self.bag.path,
                    f"the stamps of {topic} jump by {by / 1e9:.3g} s at {received} ns, those of "
                    f"{', '.join(stayed)} do not. Give stamps: received, in --topics.",
                )

    def _check_clocks(self) -> None:
        """Stamps of headers and times of reception can be compared, where both are needed."""
        known = {topic: h for topic, h in self.topics.items() if h.rows}
        apart = [t for t, h in known.items()
                 if not h.no_header and abs(h.rows[1] - h.rows[2]) > DAY_NS]  # fmt: skip
        if apart and len(apart) < len(known):
            raise CorruptInputError(
                self.bag.path,
                f"the stamps of {sorted(apart)} are of another clock than "
                f"{sorted(known.keys() - {*apart})}. Give stamps: received, in --topics.",
            )
        for topic, about in known.items():
            if about.behind_ns > LATEST_NS:
                raise CorruptInputError(
                    self.bag.path,
                    f"the stamps of {topic} are up to {about.behind_ns / 1e9:.3g} s behind those "
                    "of other topics that were received before. Synchronise the clocks (chrony, "
                    "PTP) when recording, or give stamps: received, in --topics.",
                )


def read_stamp(
    bag: Bag,
    message: Message,
    stamps: str,
    parts: Mapping[str, tuple[str, ...]],
    info: TopicInfo | None = None,
) -> tuple[int, bool, Hashable]:
    """Return a message's stamp [ns], whether its header has it, and its publisher, as far as known.

    Publishers of one topic are distinguished by the names in their messages, which `info` counts.
    """
    publisher: Hashable = message.topic
    fields = parts.get(message.topic)
    if fields and bag.is_named(message.connection.msgtype):
        decoded = message.decode()
        publisher = message.topic, tuple(decoded.name)
        if info is not None:
            try:
                names = dimensions(decoded, fields)
            except ValueError as error:
                raise CorruptInputError(bag.path, f"{message.topic}: {error}") from error
            for name in names:
                info.names[name] = info.names.get(name, 0) + 1
    own = bag.header_stamp(message) if stamps == "header" else None
    return (message.received_ns if own is None else own), own is not None, publisher
