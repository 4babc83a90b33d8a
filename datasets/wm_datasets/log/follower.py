"""Following a log that another process writes: its manifest, its newest rows and its episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wm_datasets.errors import LogFormatError
from wm_datasets.storage.column import Column
from wm_datasets.storage.damage import Damage
from wm_datasets.storage.episode_table import EpisodeTable, Read
from wm_datasets.storage.index import sealed_index
from wm_datasets.storage.manifest import Manifest
from wm_datasets.storage.manifest_file import ManifestFile
from wm_datasets.storage.unsealed_rows import UnsealedRows

_PATIENCE = 1000  # tries while the writer seals again and again


MakeColumns = Callable[[Manifest], dict[str, Column]]


class LogFollower:
    """A log as it stood at the last refresh(); damage that is met goes to `note`.

    It does not refer to its reader: rows that are no longer needed are freed with it at once.
    """

    def __init__(
        self, root: Path, make_columns: MakeColumns, note: Callable[[Damage], None]
    ) -> None:
        self._root = root
        self._file = ManifestFile(root)
        self.columns = make_columns(self.manifest)
        index, damages = sealed_index(root, self.manifest)
        for damage in damages:
            note(damage)
        self.episodes = EpisodeTable(index, self.manifest.first)
        self.unsealed = UnsealedRows(root, self._file, note)
        self._segments_stat: int | None = None  # when the folder of segments last changed [ns]
        self._before = self._range()  # at the last refresh() that succeeded

    @property
    def manifest(self) -> Manifest:
        return self._file.manifest

    def refresh(self, read: Read, make_columns: MakeColumns) -> bool:
        """Follow the log; True when rows came or went since the last call that succeeded.

        `read` reads rows of a field; `make_columns` is called where fields were added.
        """
        try:
            self._refresh(read, make_columns)
        except BaseException:
            self._segments_stat = None  # what is half followed is looked at in full next time
            raise
        before, self._before = self._before, self._range()
        return before != self._before

    def _range(self) -> tuple[int, int]:
        return self.manifest.first, self.unsealed.length

    def _refresh(self, read: Read, make_columns: MakeColumns) -> None:
        if self._only_grew(read):
            return
        for _ in range(_PATIENCE):
            folder = self.unsealed.folder_changed()
            self._follow_manifest(make_columns)
            try:
                followed = self.unsealed.follow() and self._follow_episodes(read)
            except LogFormatError:  # a segment with fields that were added this moment?
                if self._file.peek().spec == self.manifest.spec:
                    raise
                followed = False
            if followed:
                self._segments_stat = folder
                return
            self._file.expect_change()  # the writer sealed meanwhile: look again
        raise LogFormatError(
            f"{self._root}: its segments and its zarr.json contradict each other. Run wm log "
            "verify."
        )

    def _only_grew(self, read: Read) -> bool:
        """Did the log get nothing but rows of the open segment? Takes them; False when in doubt.

        Nearly every refresh ends here: it looks at the states of three files.
        """
        known = self._segments_stat
        if known is None or known != self.unsealed.folder_changed():
            return False
        if not self._file.is_unchanged():
            return False
        before = self.unsealed.length
        if not self.unsealed.take_open():
            return False
        return self.unsealed.length == before or self._follow_episodes(read)

    def _follow_manifest(self, make_columns: MakeColumns) -> None:
        old, new = self.manifest, self._file.take()
        whole = new.spec == old.spec or old.spec.with_fields_of(new.spec) is not None
        if new.spec != old.spec and new.sealed < self.unsealed.length:
            whole = False
        gone = new.sealed < old.sealed or new.first < old.first
        if gone or not whole or new.is_of_another_log(old):
            self._file.put_back(old)  # so that the next refresh() refuses too
            raise LogFormatError(f"{self._root}: it was replaced by another log. Open it again.")
        if new.spec != old.spec:  # fields were added, when all rows there were had been sealed
            self.columns = make_columns(new)
            self.unsealed.set_layout(new)
        self.unsealed.drop_sealed(new.sealed)

    def _follow_episodes(self, read: Read) -> bool:
        return self.episodes.follow(self.manifest.first, self.unsealed.length, read)
