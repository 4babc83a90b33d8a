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
class ArchiveOptions:
    """Upload the sealed rows of a log; the same command again resumes the upload.

    Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    AWS_ENDPOINT_URL. Readers of the archive (`wm train --log URL`) never see an incomplete upload.
    """

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """Folder of the log, or of a run; it may be in use."""
    url: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """Destination, as s3://BUCKET/FOLDER."""
    follow: bool = False
    """Keep uploading newly sealed rows, until Ctrl-C."""
    every_s: float = 5.0
    """With --follow: seconds between two checks of the log."""


def run_archive(words: Sequence[str], find_log: Callable[[Path], Path]) -> int:
    """Run `wm log archive WORDS`."""
    options = parse(ArchiveOptions, "log archive", words)
    require("every-s", options.every_s, 0.1, 3600)
    if not is_url(options.url):
        raise UserError(f"URL: got {options.url!r}, expected s3://BUCKET/FOLDER.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with user_errors(LogError):
        archive = Archive(find_log(options.log), options.url)
        uploaded = _upload(archive)
        while options.follow and not stop.wait(options.every_s):
            uploaded = _upload(archive, uploaded)
    return 0


def _upload(archive: Archive, before: Uploaded | None = None) -> Uploaded:
    """Bring the archive up to date, and print what was uploaded."""
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
