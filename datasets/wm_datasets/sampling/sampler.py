"""Batches of windows of rows from logs: seeded, with stated odds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogEmptyError, LogReadError, LogRowError, LogSpecError
from wm_datasets.log.reader import LogReader
from wm_datasets.sampling.memory_cache import Allocate, BufferPool, RowCache, roomy
from wm_datasets.sampling.windows import Ring, WindowOdds
from wm_datasets.storage.damage import Damage, LogDamageError


class Sampler:
    """Draws windows (B, T) of T rows each, with odds that its options state.

    The episodes of a log that are drawn from follow each other in one ring of rows: a window goes
    on into the next episode, whose first row has `is_first`, and from the newest episode to the
    oldest. By default every row of the ring is equally likely to begin a window, so that all rows
    are seen equally often, those of episodes shorter than T too. With `join=False` each window
    lies inside one episode: one of L rows has L - T + 1 windows, one shorter than T has none.

    With `per_episode` an episode is drawn first, so that short ones are seen as often as long
    ones; then a window that begins in it, which continues into the next episode only where it is
    shorter than T (DreamerV2 and MWM sample so). `ends` makes the last window of each episode, row
    max(L - T, 0) on, likelier: it has so many chances on top of its own, as DreamerV2's
    `prioritize_ends` gives it (`ends` is the release's `minlen`).

    Several readers with weights mix logs: each window comes from log i with probability
    weight_i / sum, over the logs that hold a window at all. The first `pooled` readers are drawn
    from as one log is: the sum of their weights is divided among them by the odds of their windows,
    so that without `recency` every row of theirs is equally likely to begin a window. With it, ages
    are counted in the rows of each log.

    `recency` is a half-life in rows: the odds of a window halve with each so many rows of the ring
    between its first row and that of the newest window of its log, and no window continues from the
    newest episode to the oldest; with `per_episode` the age of an episode's newest window counts,
    and its windows are equally likely. Beside `ends` the odds multiply.

    Episodes that were recorded to evaluate a policy (field `evaluation`) are never drawn.
    `episodes` chooses among the others: it gets their table, (E,) of (start, length, complete), and
    returns a mask (E,). It must always make the same choice, or resuming is not exact. Episodes
    that are older than one of the fields are left out.

    Rows come as the log has them: `is_first` and actions are not changed. `fields` chooses and,
    given as {name in the batch: field of the log}, renames. The newest rows are kept decoded in
    memory, up to `cache_bytes`; older ones, where there are any, in memory-mapped files of up to
    `disk_bytes` under `cache_folder` (default ~/.cache/wm_nodes), which outlive the process. Only
    refresh() takes in new rows (sample() refreshes by itself just when rows that did not fit into
    the cache were dropped by the log's capacity), so between two refreshes equal state gives equal
    batches. The arrays of a batch are made by `allocate` (in pinned memory, say). Episodes with a
    row that is lost to a damaged file are left out, from the moment when the damage is met; the
    reader names it. What the machine cannot read just now is no damage: after a second of trying
    it is a LogReadError, and the state is as before the call: the next sample() draws the very
    windows that failed; windows that were given (`drawn`) are to be given again. One thread at a
    time.
    """

    def __init__(
        self,
        reader: LogReader | Sequence[tuple[LogReader, float]],
        *,
        batch: int,
        length: int,
        seed: int,
        fields: Sequence[str] | Mapping[str, str] | None = None,
        join: bool = True,
        per_episode: bool = False,
        ends: int = 0,
        episodes: Callable[[np.ndarray], np.ndarray] | None = None,
        recency: float | None = None,
        pooled: int = 1,
        cache_bytes: int = 2 << 30,
        disk_bytes: int = 16 << 30,
        cache_folder: Path | None = None,
        allocate: Allocate = roomy,
    ) -> None:
        logs = [(reader, 1.0)] if isinstance(reader, LogReader) else list(reader)
        if not logs or not all(np.isfinite(w) and w > 0 for _, w in logs):
            weights = [weight for _, weight in logs]
            raise LogSpecError(
                f"weights: got {weights}, expected one log or more, each with a weight > 0."
            )
        if not 1 <= pooled <= len(logs):
            raise LogSpecError(f"pooled: got {pooled}, expected 1 to {len(logs)}, the logs.")
        if min(batch, length, cache_bytes) < 1 or disk_bytes < 0:
            raise LogSpecError(
                f"batch, length, cache_bytes, disk_bytes: got {batch}, {length}, {cache_bytes}, "
                f"{disk_bytes}, expected at least 1, 1, 1, 0."
            )
        self.batch, self.length = batch, length
        self.odds = WindowOdds(join, per_episode, ends, recency)
        self._episodes = episodes or (lambda table: np.ones(len(table), bool))
        self._fields = _choose(fields, [log for log, _ in logs])
        self._weights = np.array([weight for _, weight in logs])
        self._pooled = pooled
        stored = list(self._fields.values())
        shares = zip(_shares(logs, stored, cache_bytes), _shares(logs, stored, disk_bytes))
        self._caches = [
            RowCache(log, stored, memory, disk, cache_folder)
            for (log, _), (memory, disk) in zip(logs, shares)
        ]
        self._pool = BufferPool(allocate)
        self._known_state: list[tuple[int, int, int]] = []  # of each log, when the views were made
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self.refresh()

    def refresh(self) -> None:
        """Follow the logs as they stand now."""
        while True:
            for cache in self._caches:
                cache.follow()
            state = [(c.reader.first, c.reader.length, len(c.reader.damage)) for c in self._caches]
            if state == self._known_state:
                return
            try:
                self._views = [Ring(self._table(cache.reader)) for cache in self._caches]
            except LogRowError:  # the log's capacity dropped rows meanwhile
                if not any([cache.reader.refresh() for cache in self._caches]):
                    raise
                continue
            self._known_state = state
            return

    def sample(
        self,
        batch: int | None = None,
        length: int | None = None,
        drawn: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return one batch: name -> (B, T, ...), of windows that draw() gave or of new ones.

        The arrays are the caller's for as long as anything refers to them; drop them, and a later
        batch uses their memory again.
        """
        batch, length = batch or self.batch, length or self.length
        before = self._rng.bit_generator.state
        while True:
            windows, drawn = drawn or self.draw(batch, length), None
            try:
                return self._read(batch, length, *windows)
            except LogDamageError:  # noted by its reader: each turn leaves more episodes out
                self._views = [
                    Ring(self._table(cache.reader), view.first, view.length)
                    for cache, view in zip(self._caches, self._views)
                ]
            except LogReadError:
                self._rng.bit_generator.state = before
                raise
            except LogRowError:  # rows that are not cached were dropped by the log's capacity
                state = self._known_state
                self.refresh()
                if self._known_state == state:  # that is not the reason: it would fail again
                    raise

    def draw(self, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw windows without reading them: which log (B,), and the rows of it (B, T)."""
        counts = [self.odds.windows(ring, length) for ring in self._views]
        odds = self._weights * [len(windows.firsts) > 0 for windows in counts]
        if (pooled := self._pooled) > 1:
            odds[:pooled] = self._weights[:pooled].sum() * self.odds.shares(counts[:pooled])
        if not odds.any():
            raise LogEmptyError(self._too_short(length))
        which = np.zeros(batch, np.int64)
        if len(odds) > 1:
            which = self._rng.choice(len(odds), batch, p=odds / odds.sum())
        rows = np.zeros((batch, length), np.int64)
        for i, (ring, windows) in enumerate(zip(self._views, counts)):
            mine = np.flatnonzero(which == i)
            if len(mine):
                begin = self.odds.draw(windows, len(mine), self._rng)
                places = begin[:, None] + np.arange(length)
                rows[mine] = ring.rows(places % ring.size)
        return which, rows

    def state_dict(self) -> dict[str, Any]:
        """Return what continues the sequence of batches exactly, as JSON."""
        views = [
            {"first": view.first, "length": view.length,
             "lost": [[d.start, d.stop, str(d.path), d.reason] for d in cache.reader.damage]}
            for cache, view in zip(self._caches, self._views)
        ]  # fmt: skip
        return {"rng": self._rng.bit_generator.state, "logs": views}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; rows that came later stay unseen until the next refresh()."""
        if len(state["logs"]) != len(self._caches):
            raise LogSpecError(
                f"state: got that of {len(state['logs'])} logs, expected that of "
                f"{len(self._caches)}."
            )
        for cache, view in zip(self._caches, state["logs"]):
            if view["length"] > cache.reader.length:
                raise LogSpecError(
                    f"state: got one that has seen {view['length']} rows, expected at most "
                    f"{cache.reader.length}, the rows of {cache.reader.path}. Open the log of this "
                    "state."
                )
        for cache, view in zip(self._caches, state["logs"]):
            for start, stop, path, reason in view.get("lost", ()):
                if reason.startswith("[Errno"):  # older versions took the machine's errors for it
                    continue
                cache.reader.note(Damage(Path(path), start, stop, reason))
        self._views = [
            Ring(self._table(cache.reader), view["first"], view["length"])
            for cache, view in zip(self._caches, state["logs"])
        ]
        self._known_state = []
        self._rng.bit_generator.state = state["rng"]

    def _read(
        self, batch: int, length: int, which: np.ndarray, rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        out = {name: self._pool.take((batch, length, *self._shape(f)), self._dtype(f))
               for name, f in self._fields.items()}  # fmt: skip
        for i, cache in enumerate(self._caches):
            mine = np.flatnonzero(which == i)
            whole = (np.diff(rows[mine]) == 1).all(axis=1)
            slots = mine[whole]
            targets = [(field, out[name]) for name, field in self._fields.items()]
            cache.copy_windows(rows[slots, 0], length, slots, targets)
            for slot in mine[~whole].tolist():
                for begin, end in _runs(rows[slot]):
                    piece = [(field, target[slot : slot + 1, begin:end])
                             for field, target in targets]  # fmt: skip
                    at = rows[slot, begin : begin + 1]
                    cache.copy_windows(at, end - begin, np.zeros(1, np.int64), piece)
        return out

    @property
    def longest(self) -> int:
        """Rows of the longest episode that is drawn from; 0 without any."""
        return max((int(v.table["length"].max(initial=0)) for v in self._views), default=0)

    def _table(self, reader: LogReader) -> np.ndarray:
        """The episodes of a log to draw from."""
        table = reader.learnable
        begin = max(reader.since(field) for field in self._fields.values())
        return table[np.asarray(self._episodes(table), bool) & (table["start"] >= begin)]

    def close(self) -> None:
        """Let go of the files that decoded rows are kept in; the readers stay open."""
        for cache in self._caches:
            cache.close()

    def _shape(self, field: str) -> tuple[int, ...]:
        return self._caches[0].reader.spec.fields[field].shape

    def _dtype(self, field: str) -> np.dtype[Any]:
        return self._caches[0].reader.spec.fields[field].dtype

    def _too_short(self, length: int) -> str:
        paths = ", ".join(str(c.reader.path) for c in self._caches)
        evaluation = sum(int(c.reader.evaluation_rows().sum()) for c in self._caches)
        also = f" ({evaluation} more are of evaluation episodes)" if evaluation else ""
        rows = sum(ring.size for ring in self._views)
        return (
            f"no window of {length} rows in {paths}: {rows} rows to draw from{also}, the longest "
            f"episode has {self.longest}. Record more or longer episodes, or use shorter windows."
        )


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the runs of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    yield from itertools.pairwise([0, *breaks.tolist(), len(rows)])


def _choose(
    fields: Sequence[str] | Mapping[str, str] | None, logs: Sequence[LogReader]
) -> dict[str, str]:
    """Return name in the batch -> field of every log, checked to be the same in all."""
    names = list(logs[0].spec.fields) if fields is None else fields
    chosen = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    for field in chosen.values():
        specs = [log.spec.fields.get(field) for log in logs]
        for log, spec in zip(logs, specs):
            if spec is None:
                raise LogRowError(
                    f"field: got {field!r}, expected one of {list(log.spec.fields)} as in "
                    f"{log.path}."
                )
            if specs[0] is not None and spec != specs[0]:
                raise LogSpecError(
                    f"field '{field}': got {spec.dtype.name} {spec.shape} in {log.path}, expected "
                    f"{specs[0].dtype.name} {specs[0].shape} as in {logs[0].path}. Mix logs with "
                    "equal fields."
                )
    return chosen


def _shares(
    logs: Sequence[tuple[LogReader, float]], fields: Sequence[str], cache_bytes: int
) -> list[int]:
    """Split the cache: what each log holds now, and the rest by weight, for rows to come."""
    row = [sum(log.spec.fields[f].row_bytes for f in fields) for log, _ in logs]
    held = [(log.length - log.first) * r for (log, _), r in zip(logs, row)]
    scale = min(1.0, cache_bytes / max(1, sum(held)))
    rest = cache_bytes - sum(h * scale for h in held)
    total = sum(weight for _, weight in logs)
    return [int(h * scale + rest * weight / total) for h, (_, weight) in zip(held, logs)]
