"""The mean of a run's newest weights: steadier than any of them (Izmailov 2018, SWA).

With a constant learning rate weights wander about a place that is better than where they are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wm_models.weights.manifest import Manifest, WeightsError
from wm_models.weights.store import WeightStore, load_model

SAME = ("preset", "settings", "body")  # of versions that have a mean


def average(source: str | Path, last: int, out: str | Path) -> Manifest:
    """Write the mean of the ``last`` newest versions of store ``source`` into the store ``out``.

    Parameters are averaged in float64; whole numbers (counters, flags) are the newest's. The
    manifest is the newest's, with it as the parent and the versions in ``extra["averaged"]``.
    WeightsError: fewer versions, damaged ones, several presets, or ``out`` is ``source``.
    """
    store = WeightStore(source)
    versions = store.versions()[-last:]
    if last < 2 or len(versions) < last:
        raise WeightsError(
            f"last: {last}, and {store.folder} holds {len(versions)} versions. "
            "Right: 2, or as many more as there are."
        )
    if store.folder.resolve() == Path(out).resolve():
        raise WeightsError(f"out: {out} is where the versions are. Right: another folder.")
    model, newest = load_model(store.path(versions[-1]))
    newest_state = model.state_dict()
    sums = {name: value.double() for name, value in newest_state.items()}
    for version in versions[:-1]:
        other, manifest = load_model(store.path(version))
        if any(getattr(manifest, k) != getattr(newest, k) for k in SAME):
            raise WeightsError(
                f"weights: version {version} is of {manifest.preset}, {newest.version} of "
                f"{newest.preset}, or their robots differ. Right: versions of one run."
            )
        for name, value in other.state_dict().items():
            sums[name] += value
    mean = {
        name: (sums[name] / last).to(value.dtype) if value.is_floating_point() else value
        for name, value in newest_state.items()
    }
    model.load_state_dict(mean)
    extra = {**newest.extra, "averaged": versions}
    manifest = replace(newest, parent=newest.version, extra=extra, metrics={})
    return WeightStore(out).save(model.modules_by_name(), manifest)
