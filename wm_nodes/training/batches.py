"""Log rows to the batches that a learner takes."""

from __future__ import annotations

from pathlib import Path

from wm_datasets.remote.object_store import is_url


def absolute(place: Path | str) -> str:
    """Return a log's place as it is called from everywhere."""
    return str(place) if is_url(place) else str(Path(place).resolve())


def _log_fields(wanted: frozenset[str], camera: str) -> dict[str, str]:
    """Fields of the log by their names in a batch; "demo" is made of two of them."""
    more = {"source", "is_last"} if "demo" in wanted else set()
    names = sorted((wanted - {"image", "demo"}) | more)
    image = {"image": f"image/{camera}"} if "image" in wanted else {}
    return {**image, **{name: name for name in names}}
