"""Statistics of a log: as a table in text, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.log.statistics import LogStats, Range
from wm_datasets.log.summary import Tally
from wm_nodes.errors import UserError
from wm_nodes.evaluation.evaluate import wilson

HEAD = ("dimension", "unit", "declared", "min", "1 %", "mean", "99 %", "max", "std", "at bounds")
TALLY = ("episodes", "success", "95 % interval", "mean return")
MOST = 40  # dimensions drawn


def as_text(stats: LogStats) -> str:
    """Return the statistics as lines of text."""
    rate, lengths = stats.rate, stats.lengths
    lines = [
        f"{stats.path}",
        f"rate      declared {rate.declared_hz:.4g} Hz, real {_short(rate.real_hz)} Hz: gap median "
        f"{_ms(rate.gap_median_s)}, 99 % {_ms(rate.gap_p99_s)}, longest {_ms(rate.gap_max_s)}; "
        f"{_share(rate.late)} late",
    ]
    if len(lengths):
        seconds = np.array([lengths.min(), np.median(lengths), lengths.max()])
        shown = " / ".join(f"{length:g}" for length in seconds)
        lines.append(
            f"lengths   {shown} actions (shortest / median / longest episode), "
            f"{len(lengths)} episodes, {int(stats.complete.sum())} complete"
        )
    if math.isfinite(stats.changed):
        lines.append(f"changed   {_share(stats.changed)} of the actions differ from the commands")
    lines += ["", *_table(HEAD, map(_cells, stats.ranges))]
    for kind, tallies in (("source", stats.per_source), ("weights", stats.per_weights)):
        success = stats.spec.success
        lines += ["", *_table((kind, *_tally_head(success)), _tally_rows(tallies, success))]
    return "\n".join(lines)


def draw(stats: LogStats, path: str | Path) -> None:
    """Write the statistics as a figure (PNG, PDF or SVG by the name's ending)."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "--figure: matplotlib is not installed. Install it: pip install 'wm_nodes[viz]'."
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    observed = [r for r in stats.ranges if r.name.startswith("sensor/")]
    # Images have far larger ranges than vectors: they are drawn only without vectors.
    observed = [r for r in observed if r.name.count("/") > 1] or observed
    signals = [r for r in stats.ranges if r.name.startswith("signals/")]
    panels = figure.subplots(2, 4 if observed or signals else 3)
    figure.suptitle(f"{stats.spec.robot}, {stats.spec.task}: {len(stats.lengths)} episodes")
    _draw_ranges(panels[0, 0], [r for r in stats.ranges if r.name.startswith("action/")], "action")
    proprio = [r for r in stats.ranges if r.name.startswith("proprio/")]
    _draw_ranges(panels[0, 1], proprio, "proprioception")
    _draw_histogram(panels[0, 2], stats.lengths, "actions of an episode")
    tallies = _draw_tallies if stats.spec.success else _draw_returns
    tallies(panels[1, 0], stats.per_source, "source")
    tallies(panels[1, 1], stats.per_weights, "weights version")
    _draw_histogram(panels[1, 2], stats.gaps_s * 1e3, "gap between observations [ms]")
    if observed or signals:
        _draw_ranges(panels[0, 3], observed, "sensors")
        _draw_ranges(panels[1, 3], signals, "signals")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"--figure: cannot write {path}: {error}.") from None


# Text ------------------------------------------------------------------------------------------


def _cells(row: Range) -> tuple[str, ...]:
    bounded = math.isfinite(row.low) or math.isfinite(row.high)
    declared = f"{row.low:g} .. {row.high:g}" if bounded else ""
    numbers = (row.min, row.q01, row.mean, row.q99, row.max, row.std)
    at_bounds = _share(row.at_bounds) if bounded else ""
    return (row.name, row.unit, declared, *map(_short, numbers), at_bounds)


def _tally_head(success: bool) -> tuple[str, ...]:
    return TALLY if success else (TALLY[0], TALLY[-1])


def _tally_rows(tallies: Mapping[Any, Tally], success: bool) -> Iterable[tuple[str, ...]]:
    """Yield a row for each kind of episode; without success where the task reports none."""
    for name, tally in tallies.items():
        low, high = wilson(tally.successes, tally.episodes)
        mean = "" if tally.mean_return is None else _short(tally.mean_return)
        rate, interval = f"{tally.success_rate:.2f}", f"{low:.2f} .. {high:.2f}"
        known = (rate, interval) if success else ()
        yield str(name), str(tally.episodes), *known, mean


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns: the first to the left, the others to the right."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _ms(seconds: float) -> str:
    return f"{_short(seconds * 1e3)} ms"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


# Figure ----------------------------------------------------------------------------------------


def _draw_ranges(axes: Any, ranges: Sequence[Range], title: str) -> None:
    """Bars from min to max, thick from 1 % to 99 %, the mean as a dot, declared bounds as marks."""
    shown = list(ranges[:MOST])[::-1]
    axes.set_title(title if len(ranges) <= MOST else f"{title}: first {MOST} of {len(ranges)}")
    for at, row in enumerate(shown):
        axes.plot([row.min, row.max], [at, at], color="tab:blue", lw=1)
        axes.plot([row.q01, row.q99], [at, at], color="tab:blue", lw=5, alpha=0.5)
        axes.plot([row.mean], [at], "o", color="tab:blue", ms=4)
        bounds = [bound for bound in (row.low, row.high) if math.isfinite(bound)]
        axes.plot(bounds, [at] * len(bounds), "|", color="black", ms=10)
    names = [f"{stats_of.name.partition('/')[2]} [{stats_of.unit}]" for stats_of in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8 if len(shown) < 20 else 5)
    if not shown:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)


def _draw_histogram(axes: Any, values: np.ndarray, title: str) -> None:
    axes.set_title(title)
    if len(values):
        low, high = float(np.min(values)), float(np.max(values))
        margin = 0.5 if low == high else 0.0
        axes.hist(values, bins=30, range=(low - margin, high + margin), color="tab:gray")


def _draw_tallies(axes: Any, tallies: Mapping[Any, Tally], kind: str) -> None:
    """Success with its 95 % interval, and the number of episodes above."""
    axes.set_title(f"success by {kind}")
    rates = [tally.success_rate for tally in tallies.values()]
    ends = np.array([wilson(t.successes, t.episodes) for t in tallies.values()]).reshape(-1, 2)
    at = np.arange(len(rates))
    below, above = np.clip(rates - ends[:, 0], 0, 1), np.clip(ends[:, 1] - rates, 0, 1)
    axes.errorbar(at, rates, yerr=(below, above), fmt="o", color="tab:green", capsize=3)
    axes.set_ylim(-0.05, 1.12)
    _name_tallies(axes, tallies, [1.04] * len(rates))


def _draw_returns(axes: Any, tallies: Mapping[Any, Tally], kind: str) -> None:
    """Mean returns, and the number of episodes above."""
    axes.set_title(f"mean return by {kind}")
    means = [
        math.nan if each.mean_return is None else each.mean_return for each in tallies.values()
    ]
    axes.plot(np.arange(len(means)), means, "o", color="tab:blue")
    axes.margins(y=0.2)
    _name_tallies(axes, tallies, means)


def _name_tallies(axes: Any, tallies: Mapping[Any, Tally], heights: Sequence[float]) -> None:
    """Name the tallies along x, and write the number of episodes above at the heights."""
    at, step = np.arange(len(tallies)), max(1, len(tallies) // 12)
    axes.set_xticks(at[::step], [str(name) for name in tallies][::step], fontsize=8)
    for x, height, tally in list(zip(at, heights, tallies.values(), strict=True))[::step]:
        if math.isfinite(height):
            axes.annotate(f"n={tally.episodes}", (x, height), fontsize=7, ha="center", va="bottom")
