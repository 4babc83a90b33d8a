"""State dicts compared with the module that they are meant for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def misfit(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> str:
    """The first key that keeps the state ``loaded`` from fitting strictly; "" where every key fits.

    ``own`` is the module's state dict. A missing key comes first, then one of another shape, then
    an unexpected one, each in the order of its dict; the other such keys are counted.
    """
    missing = [key for key in own if key not in loaded]
    shaped = [key for key in own if key in loaded and own[key].shape != loaded[key].shape]
    extra = [key for key in loaded if key not in own]
    if missing:
        problem = f"{missing[0]!r} is missing"
    elif shaped:
        got, right = (tuple(state[shaped[0]].shape) for state in (loaded, own))
        problem = f"{shaped[0]!r}: got shape {got}, expected {right}"
    elif extra:
        problem = f"{extra[0]!r} is unexpected"
    else:
        return ""
    counts = f"{len(missing)} missing, {len(shaped)} of another shape, {len(extra)} unexpected"
    return f"{problem} ({counts})"


def first_not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The first key that holds NaN or infinity; None where all numbers are finite."""
    return next((k for k, v in state.items() if not bool(v.isfinite().all())), None)
