"""What a log's numbers are like: ranges of every dimension, rates, lengths, success by kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.log.reader import LogReader
from wm_datasets.log.summary import Tally, describe
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec
from wm_datasets.storage.damage import known_rows

LATE = 1.5  # a gap longer than so many control periods is late
MOST_IMAGES = 256


@dataclass(frozen=True)
class Range:
    """One dimension as logged; `low` and `high` are its declared bounds, nan where none are.

    All numbers of an image are one dimension, read in at most MOST_IMAGES rows, evenly apart.
    """

    name: str
    unit: str
    low: float
    high: float
    min: float
    q01: float
    mean: float
    std: float
    q99: float
    max: float
    at_bounds: float  # share of rows at or beyond a declared bound


@dataclass(frozen=True)
class Rate:
    """Gaps between the stamps of an episode's observations, in seconds; nan where there is none."""

    declared_hz: float
    real_hz: float  # one over the median gap
    gap_median_s: float
    gap_p99_s: float
    gap_max_s: float
    late: float  # share of gaps longer than LATE periods


@dataclass(frozen=True)
class LogStats:
    """Statistics of a log as it stood. `lengths` (E,) counts actions, oldest episode first."""

    path: Path
    spec: LogSpec
    ranges: tuple[Range, ...]
    rate: Rate
    gaps_s: np.ndarray
    lengths: np.ndarray
    complete: np.ndarray  # (E,) bool
    changed: float  # share of actions that were executed otherwise than commanded
    per_source: dict[str, Tally]
    per_weights: dict[int, Tally]

    def to_json(self) -> dict[str, Any]:
        """The statistics as JSON; what is not a number is null."""
        lengths = self.lengths
        content: dict[str, Any] = _plain({
            "path": str(self.path),
            "ranges": [asdict(item) for item in self.ranges],
            "rate": asdict(self.rate),
            "episodes": len(lengths),
            "complete": int(self.complete.sum()),
            "lengths": {
                "min": _of(np.min, lengths),
                "median": _of(np.median, lengths),
                "max": _of(np.max, lengths),
            },
            "changed": self.changed,
            "per_source": {name: asdict(tally) for name, tally in self.per_source.items()},
            "per_weights": {str(v): asdict(tally) for v, tally in self.per_weights.items()},
        })  # fmt: skip
        return content


def measure(log: LogReader | str | Path) -> LogStats:
    """Return the statistics of a log; it may be in use. Lost rows are left out."""
    if not isinstance(log, LogReader):
        with LogReader(log) as reader:
            return measure(reader)
    spec, table = log.spec, log.episodes
    columns = {
        name: log.read_around(name, log.first, log.length)
        for name, field in spec.fields.items()
        if len(field.shape) < 2
    }
    known = known_rows(log.damage, log.first, log.length)
    acted = known & ~columns["is_last"]  # rows that an action was executed from
    follows = np.ones(len(known), bool)  # rows that come one step after the one before
    follows[table["start"] - log.first] = False
    follows[1:] &= known[1:] & known[:-1]
    gaps_s = np.diff(columns["stamp"])[follows[1:]] / 1e9
    ranges: list[Range] = []
    changed = np.nan
    if spec.proprio is not None:
        ranges += _ranges("proprio", spec.proprio, columns["proprio"][known])
    every = np.arange(log.first, log.length)
    for name in (f"sensor/{sensor}" for sensor in spec.sensors):
        having = known & (every >= log.since(name))
        values = columns[name][having] if name in columns else _images_of(log, name, every[having])
        ranges += _sensor_ranges(name, spec.sensors[name.partition("/")[2]], values)
    if spec.action is not None:
        executed, commanded = columns["action"][acted], columns["commanded"][acted]
        ranges += _ranges("action", spec.action, executed)
        ranges += _ranges("commanded", spec.action, commanded)
        changed = _of(np.mean, (executed != commanded).any(axis=1))
    if spec.signals is not None:
        having = acted & (every >= log.since("signals"))
        ranges += _ranges("signals", spec.signals, columns["signals"][having])
    if "reward" in spec.fields:
        ranges.append(_range("reward", "", np.nan, np.nan, columns["reward"][acted]))
    summary = describe(log)
    return LogStats(
        path=log.path,
        spec=spec,
        ranges=tuple(ranges),
        rate=_rate(gaps_s, spec.control_period_s),
        gaps_s=gaps_s,
        lengths=table["length"] - table["complete"],
        complete=table["complete"].astype(bool),
        changed=changed,
        per_source=summary.per_source,
        per_weights=summary.per_weights,
    )


def _ranges(field: str, vector: VectorSpec, values: np.ndarray) -> list[Range]:
    parts = zip(vector.names, vector.units, vector.low, vector.high, values.T, strict=True)
    return [_range(f"{field}/{name}", *rest) for name, *rest in parts]


def _images_of(log: LogReader, field: str, rows: np.ndarray) -> np.ndarray:
    """Return a field in at most MOST_IMAGES of these rows, evenly apart, (n, *shape)."""
    if len(rows) > MOST_IMAGES:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_IMAGES).astype(int)]
    rows_read = [log.read_around(field, row, row + 1) for row in rows.tolist()]
    kept = known_rows(log.damage, log.first, log.length)[rows - log.first]
    images = np.concatenate([log.read_around(field, log.length, log.length), *rows_read])
    known: np.ndarray = images[kept]
    return known


def _sensor_ranges(field: str, sensor: SensorSpec, values: np.ndarray) -> list[Range]:
    """One range for each number of a vector and each named or differing channel, else one."""
    each = len(sensor.shape) == 1 or sensor.names or not isinstance(sensor.units, str)
    count = sensor.shape[-1] if each else 1
    flat = values.reshape(-1, count)
    units = (sensor.units,) * count if isinstance(sensor.units, str) else sensor.units
    names = sensor.names or tuple(map(str, range(count)))
    labels = [f"{field}/{name}" if count > 1 or sensor.names else field for name in names]
    parts = zip(labels, units, flat.T, strict=True)
    return [_range(label, unit, np.nan, np.nan, column) for label, unit, column in parts]


def _range(name: str, unit: str, low: float, high: float, values: np.ndarray) -> Range:
    x = values.astype(np.float64)
    q01, q99 = np.quantile(x, (0.01, 0.99)) if len(x) else (np.nan, np.nan)
    return Range(
        name=name,
        unit=unit,
        low=low,
        high=high,
        min=_of(np.min, x),
        q01=float(q01),
        mean=_of(np.mean, x),
        std=_of(np.std, x),
        q99=float(q99),
        max=_of(np.max, x),
        at_bounds=_of(np.mean, (values <= np.float32(low)) | (values >= np.float32(high))),
    )


def _rate(gaps_s: np.ndarray, period_s: float) -> Rate:
    median = _of(np.median, gaps_s)
    return Rate(
        declared_hz=1 / period_s,
        real_hz=1 / median if median > 0 else np.nan,
        gap_median_s=median,
        gap_p99_s=_of(lambda gaps: np.quantile(gaps, 0.99), gaps_s),
        gap_max_s=_of(np.max, gaps_s),
        late=_of(np.mean, gaps_s > LATE * period_s),
    )


def _of(function: Any, values: np.ndarray) -> float:
    """Apply to values; nan where there are none."""
    return float(function(values)) if len(values) else np.nan


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
