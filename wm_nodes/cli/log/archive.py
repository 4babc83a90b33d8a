"""`wm log archive LOG URL`: copy a log into an object store, also while it is recorded."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_datasets import LogError
from wm_datasets.remote.object_store import is_url
from wm_datasets.remote.upload import Archive, Uploaded
from wm_nodes.cli.arguments import parse, require
from wm_nodes.cli.progress_bar import Bar
from wm_nodes.errors import UserError, user_errors


@dataclass(frozen=True)
class ArchiveWords:
    """Upload the sealed rows of a log; the same command again goes on where it was.

    Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    AWS_ENDPOINT_URL. Readers of the archive never see half of it: `wm train --log URL`.
    """

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run; it may be in use."""
    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """Where to, as s3://BUCKET/FOLDER."""
    follow: bool = False
    """Go on uploading what is sealed, until Ctrl-C."""
    every_s: float = 5.0
    """With --follow: seconds between two looks at the log."""


def run_archive(words: Sequence[str], find_log: Callable[[Path], Path]) -> int:
    """Run `wm log archive WORDS`."""
    wanted = parse(ArchiveWords, "log archive", words)
    require("every-s", wanted.every_s, 0.1, 3600)
    if not is_url(wanted.url):
        raise UserError(f"URL: given {wanted.url!r}, right is s3://BUCKET/FOLDER.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with user_errors(LogError):
        archive = Archive(find_log(wanted.log), wanted.url)
        told = _upload(archive)
        while wanted.follow and not stop.wait(wanted.every_s):
            told = _upload(archive, told)
    return 0


def _upload(archive: Archive, before: Uploaded | None = None) -> Uploaded:
    """Bring the archive up to date, and say so where it was not."""
    bar, begin, first = Bar(0, "rows", sys.stderr), time.monotonic(), archive.rows

    def show(rows: int, total: int) -> None:
        bar.total = total
        bar.show(rows, (rows - first) / max(time.monotonic() - begin, 1e-9), "")

    done = archive.sync(show)
    bar.close()
    seconds = max(time.monotonic() - begin, 1e-9)
    if before is None or done.objects:
        print(
            f"{archive.store.url}: {done.rows} rows in {done.episodes} whole episodes; "
            f"{done.objects} objects, {done.bytes / 1e6:.1f} MB uploaded, "
            f"{done.bytes / 1e6 / seconds:.1f} MB/s",
            flush=True,
        )
    return done
