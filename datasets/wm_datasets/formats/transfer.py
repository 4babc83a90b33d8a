"""Moving episodes: a source into a log, resumable, and a log into a new file or folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_datasets.errors import LogError, LogSpecError
from wm_datasets.formats.base import (
    CorruptInputError,
    Exporter,
    FormatError,
    Importer,
    episodes_of,
)
from wm_datasets.log.reader import LogReader
from wm_datasets.log.truncate import truncate
from wm_datasets.log.writer import LogWriter
from wm_datasets.storage.column import sync_folder, write_whole

_log = logging.getLogger(__name__)

JOURNAL = "import.json"
Progress = Callable[[int, int, str], None]  # done, total, what


@dataclass
class Journal:
    """`<log>/import.json`: which episodes of a source are in the log, whole and durable.

    `finished`: the import has ended, at its last episode or at one that it refused, and no part of
    an episode is in the log. `others` keeps `done` and `skipped` of sources imported before.
    """

    path: Path
    source: str
    length: int = 0  # of the log behind the last whole episode
    done: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, log: Path) -> Journal | None:
        path = log / JOURNAL
        if not path.exists():
            return None
        try:
            return cls(path, **json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise FormatError(
                f"{path}: the journal of an import is damaged: {error}. Import into another log."
            ) from error

    def of(self, name: str) -> Journal:
        """The journal of another source, which may have been imported before this one."""
        others = self.others | {self.source: {"done": self.done, "skipped": self.skipped}}
        known = others.pop(name, {})
        return Journal(self.path, name, finished=True, others=others, **known)

    def save(self) -> None:
        data = {k: v for k, v in vars(self).items() if k != "path"}
        write_whole(self.path, json.dumps(data, indent=1).encode())
        sync_folder(self.path.parent)


@dataclass(frozen=True)
class Imported:
    """What an import did; `resumed` of the episodes were in the log before, `rows` are new."""

    episodes: int
    resumed: int
    rows: int
    skipped: dict[str, str]


def import_into(
    source: Importer,
    name: str,
    log: Path,
    *,
    skip_corrupt: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> Imported:
    """Append the source's episodes to a log, new or of the same spec; `name` is the source's.

    One episode is either whole in the log or not there. When it was killed or failed, the same
    call continues after the last whole episode. A corrupt input, or a row that the log refuses,
    stops the import with CorruptInputError, or, with `skip_corrupt`, leaves out its episode.
    """
    if source.unequal:
        raise FormatError(source.unequal)
    journal = _resume(log, name)
    writer = LogWriter(log, source.spec)
    try:
        if journal is None:
            journal = Journal(log / JOURNAL, name, writer.length)
        if journal.finished:  # the source has grown, and others may have recorded since
            journal.length, journal.finished = writer.length, False
        journal.save()
        resumed, rows = len(journal.done), 0
        for key in source.keys:
            if key in journal.done or (skip_corrupt and key in journal.skipped):
                continue
            progress(len(journal.done) + len(journal.skipped), len(source.keys), key)
            journal.skipped.pop(key, None)
            try:
                _append_episode(writer, source, name, key)
            except Exception as error:
                whole = _take_back(writer, journal)
                if not (whole and skip_corrupt and isinstance(error, CorruptInputError)):
                    raise
                writer = LogWriter(log, source.spec)
                journal.length, journal.finished = writer.length, False
                journal.skipped[key] = str(error)
            else:
                writer.flush()
                journal.done.append(key)
                rows += writer.length - journal.length
                journal.length = writer.length
            journal.save()
        progress(len(source.keys), len(source.keys), "")
        journal.finished = True
        journal.save()
    finally:
        writer.close()
    return Imported(len(journal.done), resumed, rows, journal.skipped)


def _append_episode(writer: LogWriter, source: Importer, name: str, key: str) -> None:
    """Append an episode; CorruptInputError, naming file and episode, where the source is at fault.

    Errors of the disk that the log is on are not the source's and pass as they are.
    """
    file, before = Path(name.partition(":")[2] or name), writer.length
    try:
        for row in source.rows(key):
            writer.append(row)
    except CorruptInputError:
        raise
    except (FormatError, LogSpecError) as error:
        raise CorruptInputError(file, f"{key}: {error}") from error
    if writer.length == before:
        raise CorruptInputError(file, f"{key}: it holds no row.")
    writer.end_episode()


def _take_back(writer: LogWriter, journal: Journal) -> bool:
    """Remove what a failed episode left; False where the disk forbids it: the next import does."""
    try:
        writer.close()
        truncate(journal.path.parent, journal.length)
        journal.finished = True
        journal.save()
    except (LogError, OSError) as error:
        _log.warning(
            "%s: half an episode is left in the log, the next import removes it: %s",
            journal.path.parent,
            error,
        )
        return False
    return True


def _resume(log: Path, name: str) -> Journal | None:
    """Take back what an import that was stopped left of its last episode."""
    journal = Journal.load(log)
    if journal is None:
        return None
    if journal.source == name and journal.finished:
        return journal
    if journal.source != name:
        if not journal.finished:
            raise FormatError(
                f"{log}: an import of {journal.source} was begun and not finished. Finish it first "
                "(the same command again), or give another log."
            )
        return journal.of(name)
    with LogReader(log) as reader:
        begun = [e for e in reader.episodes["start"].tolist() if e >= journal.length]
        length = reader.length
    if len(begun) > 1:
        raise FormatError(
            f"{log}: others have recorded into it since the import of {name} was stopped, so it "
            "cannot be continued. Import into another log."
        )
    if length > journal.length:
        truncate(log, journal.length)
    return journal


def export_from(
    reader: LogReader,
    exporter: Exporter,
    destination: Path,
    *,
    progress: Progress = lambda done, total, what: None,
) -> int:
    """Write all episodes of a log to `destination`, which appears only when it is whole."""
    if destination.exists():
        raise FormatError(
            f"destination: got {destination}, which exists, expected a new path. Nothing is "
            "overwritten."
        )
    aside = destination.with_name(f".{destination.name}.part")
    _remove(aside)
    aside.parent.mkdir(parents=True, exist_ok=True)
    episodes = episodes_of(reader)
    try:
        exporter.open(aside)
        for i, episode in enumerate(episodes):
            progress(i, len(episodes), f"episode {i}")
            exporter.write(episode)
        exporter.finish()
        aside.rename(destination)
    except BaseException:
        _remove(aside)
        raise
    progress(len(episodes), len(episodes), "")
    return len(episodes)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
