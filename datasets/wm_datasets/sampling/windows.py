"""Which windows of rows may be drawn from a log, and how likely each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from wm_datasets.errors import LogSpecError


class Ring:
    """The episodes to draw from, one behind the other; rows outside [first, length) are hidden.

    A place is a row's number in the ring: 0 is the first row of the oldest episode.
    """

    def __init__(
        self, table: np.ndarray, first: int | None = None, length: int | None = None
    ) -> None:
        """table: (E,) of (start, length, complete), oldest first."""
        if first is not None and length is not None:
            table = table[(table["start"] >= first) & (table["start"] < length)].copy()
            table["length"] = np.minimum(table["length"], length - table["start"])
        self.table = table
        self.first = int(table["start"][0]) if len(table) else first or 0
        self.length = int(table["start"][-1] + table["length"][-1]) if len(table) else self.first
        ends = np.cumsum(table["length"])
        self.size = int(ends[-1]) if len(table) else 0
        self.begin = ends - table["length"]  # place of each episode's first row

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows of the log at these places."""
        episode = np.searchsorted(self.begin, places, side="right") - 1
        rows: np.ndarray = self.table["start"][episode] + places - self.begin[episode]
        return rows


class Windows(NamedTuple):
    """The windows of each episode that has one, (E,): the place of the first one, how many there
    are, side by side, and the place of the episode's last one."""

    firsts: np.ndarray
    counts: np.ndarray
    lasts: np.ndarray


@dataclass(frozen=True)
class WindowOdds:
    """The odds of windows, as :class:`~wm_datasets.sampling.sampler.Sampler` describes them."""

    join: bool = True
    per_episode: bool = False
    ends: int = 0
    recency: float | None = None  # half-life [rows]

    def __post_init__(self) -> None:
        if self.ends < 0:
            raise LogSpecError(f"ends: got {self.ends}, expected at least 0.")
        if self.recency is not None and not (np.isfinite(self.recency) and self.recency > 0):
            raise LogSpecError(
                f"recency: got {self.recency}, expected a half-life > 0 [rows], or None."
            )

    def windows(self, ring: Ring, length: int) -> Windows:
        """Return the windows of `length` rows that may be drawn."""
        first, count = ring.begin, ring.table["length"]
        last = np.maximum(count - length, 0)  # the last window of each episode
        if not self.join:
            count = np.maximum(count - length + 1, 0)
        elif self.per_episode:
            count = last + 1
        newest = ring.size - length  # the last place where a window need not go on at the oldest
        if newest < 0:
            count = np.zeros_like(count)
        elif self.recency is not None:
            count = np.clip(newest + 1 - first, 0, count)
            last = np.minimum(last, newest - first)
        some = count > 0
        return Windows(first[some], count[some], first[some] + last[some])

    def shares(self, logs: Sequence[Windows]) -> np.ndarray:
        """Return the odds (N,) of logs that are drawn from as one: in proportion to the summed odds
        of their windows, where the newest window of each log has the same. Zeros without windows.
        """
        sums = np.array([self._sum(windows) for windows in logs])
        shares: np.ndarray = sums / max(sums.sum(), np.finfo(float).tiny)
        return shares

    def _sum(self, windows: Windows) -> float:
        """The summed odds of all windows (with `per_episode`: of all episodes)."""
        if not len(windows.counts):
            return 0.0
        if self.per_episode and self.recency is None:
            return float(len(windows.counts))
        if self.per_episode and self.recency is not None:
            return float(self._episode_odds(windows, self.recency).sum())
        if self.recency is None:
            return float((windows.counts + self.ends).sum())
        inside, extra, odds = self._recent_odds(windows, self.recency)
        return float((odds * (inside + extra)).sum())

    def draw(self, windows: Windows, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the places (count,) where windows begin."""
        if self.recency is None:
            return self._draw_alike(windows, count, rng)
        if self.per_episode:
            return self._draw_recent_episodes(windows, count, self.recency, rng)
        return self._draw_recent(windows, count, self.recency, rng)

    def _draw_alike(self, windows: Windows, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw with equal odds for all windows, but for `ends`."""
        tickets = windows.counts + self.ends
        if self.per_episode:
            episode = rng.integers(len(tickets), size=count)
            offset = rng.integers(tickets[episode])
        else:
            ends = np.cumsum(tickets)
            ticket = rng.integers(ends[-1], size=count)
            episode = np.searchsorted(ends, ticket, side="right")
            offset = ticket - (ends[episode] - tickets[episode])
        return _places(windows, episode, offset)

    def _draw_recent(
        self, windows: Windows, count: int, recency: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw with odds that halve with each `recency` rows of a window's age."""
        fall = np.log(2) / recency  # of the logarithm of the odds, per row
        newest = windows.firsts + windows.counts - 1  # of weight 1 inside its episode
        inside, extra, odds = self._recent_odds(windows, recency)
        cumulative = np.cumsum(odds * (inside + extra))
        episode = _pick(cumulative, count, rng)
        chance, size = rng.random((2, count)), windows.counts[episode]
        back = np.floor(-np.log1p(chance[0] * np.expm1(-fall * size)) / fall).astype(np.int64)
        place = newest[episode] - np.minimum(back, size - 1)
        at_end = chance[1] * (inside + extra)[episode] < extra[episode]
        return np.where(at_end, windows.lasts[episode], place)

    def _recent_odds(
        self, windows: Windows, recency: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each episode (E,): summed weights of its windows, extra weight of its last one, both
        relative to its newest window, and the odds of that one."""
        fall = np.log(2) / recency
        newest = windows.firsts + windows.counts - 1
        odds = np.exp(fall * (newest - newest.max()))
        inside = np.expm1(-fall * windows.counts) / np.expm1(-fall)
        extra = self.ends * np.exp(fall * (windows.lasts - newest))
        return inside, extra, odds

    def _episode_odds(self, windows: Windows, recency: float) -> np.ndarray:
        """The odds (E,) of episodes by the age of their newest windows."""
        newest = windows.firsts + windows.counts - 1
        odds: np.ndarray = 0.5 ** ((newest.max() - newest) / recency)
        return odds

    def _draw_recent_episodes(
        self, windows: Windows, count: int, recency: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw episodes by the age of their newest windows, then windows with equal odds."""
        episode = _pick(np.cumsum(self._episode_odds(windows, recency)), count, rng)
        offset = rng.integers((windows.counts + self.ends)[episode])
        return _places(windows, episode, offset)


def _pick(cumulative: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw numbers (count,) below len(cumulative), with odds given as their cumulative sum."""
    picked = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    numbers: np.ndarray = np.minimum(picked, len(cumulative) - 1)
    return numbers


def _places(windows: Windows, episode: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the places of windows; an offset beyond an episode's windows is its last one."""
    extra = offset >= windows.counts[episode]
    return np.where(extra, windows.lasts[episode], windows.firsts[episode] + offset)
