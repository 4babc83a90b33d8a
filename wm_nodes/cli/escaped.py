"""Unexpected exceptions: one line for the terminal, the traceback in a log file."""

from __future__ import annotations

import os
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from wm_nodes.assets import version

LONGEST = 300  # characters of an error's own text


def one_line(error: BaseException, words: Sequence[str]) -> str:
    """Return an error as one line that names the log file with its traceback."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    kind = type(error).__name__
    summary = f"{kind}: {text.rstrip('.')}" if text else kind
    return f"{summary}. Traceback: {_write(error, words)}"


def _write(error: BaseException, words: Sequence[str]) -> Path | str:
    now = datetime.now()
    content = (
        f"wm {shlex.join(words)}\nversion {version()}, {now.isoformat(timespec='seconds')}\n\n"
    )
    content += "".join(traceback.format_exception(error))
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"wm-{now:%Y%m%d-%H%M%S}-{os.getpid()}.log"
            path.write_text(content)
            return path
        except OSError:
            continue
    return "no log file could be written"


def _folders() -> tuple[Path, ...]:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "wm_nodes" / "errors", Path(tempfile.gettempdir())
