"""Checks of settings, of models, learners, planners and costs: the one place that refuses them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from wm_models.errors import ModelError

PerDim = float | tuple[float, ...]  # one number for all action dimensions, or one for each


class Checked:
    """Checks of an object's fields. Each raises a ModelError that names class, field and value."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def whole(self, *names: str, low: int = 1, high: int | None = None) -> None:
        """Whole numbers of at least ``low``, and at most ``high``."""
        for name in names:
            value = getattr(self._owner, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                self.refuse(name, "a whole number")
            if value < low:
                self.refuse(name, f"at least {low}")
            if high is not None and value > high:
                self.refuse(name, f"at most {high}")

    def number(
        self, *names: str, low: float = -math.inf, high: float = math.inf, open_ends: str = ""
    ) -> None:
        """Finite numbers from ``low`` to ``high``; ``open_ends`` ("low", "high") leaves one out."""
        for name in names:
            if not _fits(getattr(self._owner, name), low, high, open_ends):
                self.refuse(name, _range(low, high, open_ends))

    def per_dim(
        self, *names: str, low: float = 0.0, high: float = math.inf, open_ends: str = "",
        infinite: bool = False,
    ) -> None:  # fmt: skip
        """A number within the range, or a tuple of them; ``infinite`` allows +inf."""
        for name in names:
            value = getattr(self._owner, name)
            each = value if isinstance(value, tuple) else (value,)
            finite = [x for x in each if not (infinite and _is_number(x) and x == math.inf)]
            if not each or not all(_fits(x, low, high, open_ends) for x in finite):
                right = _range(low, high, open_ends)
                self.refuse(name, f"{right}, or a tuple with one such number per action dimension")

    def flag(self, *names: str) -> None:
        """True or False."""
        for name in names:
            if not isinstance(getattr(self._owner, name), bool):
                self.refuse(name, "True or False")

    def choice(self, name: str, choices: Sequence[str]) -> None:
        """One of ``choices``."""
        if getattr(self._owner, name) not in choices:
            self.refuse(name, " or ".join(map(repr, choices)))

    def refuse(self, name: str, expected: str) -> None:
        """Raise the ModelError of a field that is not as expected."""
        value = getattr(self._owner, name)
        raise ModelError(
            f"{type(self._owner).__name__}.{name}: got {value!r}, expected {expected}."
        )


def checked_budget(budget_s: float | None) -> float | None:
    """A search's time in seconds, None for no limit; a ModelError if it is neither."""
    if budget_s is not None and not _fits(budget_s, 0.0, math.inf, ""):
        raise ModelError(
            f"budget_s: got {budget_s!r}, expected a finite number of at least 0, or None for no "
            "limit."
        )
    return budget_s


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _fits(value: Any, low: float, high: float, open_ends: str) -> bool:
    if not _is_number(value) or not math.isfinite(value):
        return False
    above: bool = value > low if "low" in open_ends else value >= low
    below: bool = value < high if "high" in open_ends else value <= high
    return above and below


def _range(low: float, high: float, open_ends: str) -> str:
    ends = []
    if math.isfinite(low):
        ends.append(f"more than {low:g}" if "low" in open_ends else f"at least {low:g}")
    if math.isfinite(high):
        ends.append(f"less than {high:g}" if "high" in open_ends else f"at most {high:g}")
    return "a finite number" + (f" of {' and '.join(ends)}" if ends else "")
