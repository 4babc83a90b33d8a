"""What a kill leaves of fields that were being added to a log: taken away before the next try.

Adding goes: seal all rows, make the new arrays' folders and metadata, then replace the root, which
declares them. Before that the log is the old one, and what lies there of the new arrays is nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from wm_datasets.errors import LogFormatError
from wm_datasets.spec import EVALUATION
from wm_datasets.storage.manifest import ROOT_COPY, Manifest, read_root

_log = logging.getLogger(__name__)


def clear_undeclared(root: Path, manifest: Manifest) -> None:
    """Remove arrays that `manifest`, the log's, does not declare, and mend the root's copy."""
    for folder in _undeclared(root, manifest):
        files = [path.name for path in folder.iterdir()]
        if any(not name.startswith("zarr.json") for name in files):
            _log.warning("%s: it is not a field of this log and is left as it is", folder)
            continue
        for name in files:
            (folder / name).unlink()
        folder.rmdir()
    try:
        ahead = read_root(root, ROOT_COPY).spec != manifest.spec
    except LogFormatError:
        return  # the next commit writes it again
    if ahead:
        manifest.commit(root)


def _undeclared(root: Path, manifest: Manifest) -> Iterator[Path]:
    declared = {root / name for name in manifest.spec.fields}
    folders = [root / "signals", root / EVALUATION]
    for group in ("image", "sensor"):
        folders += (root / group).glob("*/")
    yield from (path for path in folders if path.is_dir() and path not in declared)
