"""The manifest of a log that another process may be writing: read again when its file changes."""

from __future__ import annotations

import os
from pathlib import Path

from wm_datasets.storage.manifest import ROOT, Manifest, load_manifest


class ManifestFile:
    """`manifest` is the one taken last; the file's state says whether there is another one."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, str(root / ROOT)
        self._stat: tuple[int, ...] | None = self._look()
        self.manifest = load_manifest(root)

    def is_unchanged(self) -> bool:
        """Is `manifest` certainly the one on disk?"""
        return bool(self._stat) and self._stat == self._look()

    def take(self) -> Manifest:
        """Take the manifest on disk; LogFormatError, LogReadError as load_manifest()."""
        stat = self._look()
        if not stat or stat != self._stat:
            self.manifest = load_manifest(self._root)
            self._stat = stat
        return self.manifest

    def peek(self) -> Manifest:
        """Return the manifest on disk without taking it."""
        return self.manifest if self.is_unchanged() else load_manifest(self._root)

    def put_back(self, manifest: Manifest) -> None:
        """Refuse what take() took: this manifest stays, and the file is read again next time."""
        self.manifest, self._stat = manifest, None

    def expect_change(self) -> None:
        """Read the file again next time, even when its state is the same."""
        self._stat = None

    def _look(self) -> tuple[int, ...]:
        """Return what changes when the file does; () where that cannot be known."""
        try:
            stat = os.stat(self._path)  # noqa: PTH116  (this is asked for every batch)
        except OSError:
            return ()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
