"""Where the files that ship with the package are: config/, launch/, models/pretrained/, samples."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

NAME = "wm_nodes"


class ShareError(FileNotFoundError):
    """Shared files of the package are missing."""


@cache
def share_dir() -> Path:
    """Return the folder that holds package.xml and the shipped files.

    That is the source tree (checkout, editable or symlinked install) or else `share/wm_nodes`
    of the prefix that this module was installed under (pip, colcon): every installation finds
    its own files.
    """
    here = Path(__file__).resolve()
    for parent in here.parents:
        for folder in (parent, parent / "share" / NAME):
            if (folder / "package.xml").is_file() and (folder / "launch").is_dir():
                return folder
    raise ShareError(
        f"shared files of {NAME}: got none beside {here.parent} nor under share/{NAME} of its "
        "prefix, expected package.xml and launch/. Install the package again (pip install . or "
        "colcon build)."
    )


def shared(relative: str) -> Path:
    """Return the path of one shipped file or folder, such as `config/robots`."""
    return share_dir() / relative


def version() -> str:
    """Return this package's version, as package.xml has it."""
    match = re.search(r"<version>([^<]+)</version>", shared("package.xml").read_text())
    return match[1] if match else "unknown"


def pretrained() -> dict[str, Path]:
    """Return the checkpoints that ship: name -> folder (empty where none do)."""
    root = shared("models/pretrained")
    if not root.is_dir():
        return {}
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
