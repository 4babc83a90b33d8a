"""The mean of a run's newest weights: steadier than any of them (Izmailov 2018, SWA).

With a constant learning rate weights wander about a place that is better than where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wm_models.checkpoint import Manifest, WeightsError, WeightStore, load_model


def average(source: str | Path, last: int, out: str | Path) -> Manifest:
    """Write the mean of the ``last`` newest versions of store ``source`` into the store ``out``.

    Parameters are averaged in float64; whole numbers (counters, flags) are the newest's. The
    manifest is the newest's, with it as the parent and the versions in ``extra["averaged"]``.
    WeightsError: fewer versions, damaged ones, or several presets.
    """
    store = WeightStore(source)
    versions = store.versions()[-last:]
    if last < 2 or len(versions) < last:
        raise WeightsError(
            f"last: {last}, and {store.folder} holds {len(versions)} versions. "
            "Right: 2, or as many more as there are."
        )
    states: list[dict[str, Tensor]] = []
    manifests: list[Manifest] = []
    for version in versions:
        model, manifest = load_model(store.path(version))
        manifests.append(manifest)
        states.append(model.state_dict())
    newest = manifests[-1]
    if odd := [m for m in manifests if (m.preset, m.body) != (newest.preset, newest.body)]:
        raise WeightsError(
            f"weights: version {odd[0].version} is of {odd[0].preset}, {newest.version} of "
            f"{newest.preset}, or their robots differ. Right: versions of one run."
        )
    model.load_state_dict({name: _mean([state[name] for state in states]) for name in states[-1]})
    made = replace(
        newest, parent=newest.version, extra={**newest.extra, "averaged": versions}, metrics={}
    )
    return WeightStore(out).save(model.modules_by_name(), made)


def _mean(values: Sequence[Tensor]) -> Tensor:
    newest = values[-1]
    if not newest.is_floating_point():
        return newest
    return torch.stack([value.double() for value in values]).mean(0).to(newest.dtype)
