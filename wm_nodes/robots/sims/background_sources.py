"""What may replace the sky and the floor of a simulator's images: names, and folders of videos.

Standard library only: graphs refuse a wrong background before anything starts.
"""

from __future__ import annotations

from pathlib import Path

NONE = "none"
PROCEDURAL = ("static", "distracting", "subtle")
SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
CLIPS = 100  # clips of a set: that of training, that of evaluation
FRAMES = 1000  # frames of a clip
HELP = (
    f"{NONE}; {', '.join(f'procedural:{name}' for name in PROCEDURAL)}; or a folder of videos, "
    "sorted by name: every other one is for evaluation"
)


class BackgroundError(ValueError):
    """A background that does not exist or cannot be read: what, got and expected in one line."""


def procedural(background: str) -> str:
    """Return the name of a procedural background; "" for a folder. BackgroundError: unknown."""
    kind, mark, name = background.partition(":")
    if kind != "procedural" or not mark:
        return ""
    if name not in PROCEDURAL:
        raise BackgroundError(f"background: got {background!r}, expected {HELP}.")
    return name


def find_videos(folder: str) -> tuple[list[Path], list[Path]]:
    """Return the videos of a folder for training and for evaluation: those at even and at odd
    positions, sorted by name. BackgroundError: no such folder, or fewer than two videos."""
    path = Path(folder).expanduser()
    try:
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackgroundError(
            f"background: got {folder!r}, which is no readable folder ({reason}), expected {HELP}."
        ) from None
    if len(files) < 2:
        raise BackgroundError(
            f"background: got {len(files)} videos in {path}, expected at least two: one for "
            f"training, one for evaluation. Add videos ({' '.join(SUFFIXES)}), or use "
            "background:=procedural:distracting."
        )
    return files[0::2][:CLIPS], files[1::2][:CLIPS]


def checked(background: str) -> str:
    """Return a background as a node on this computer reads it: folders with their whole path.

    BackgroundError: there is no such one.
    """
    if background == NONE or procedural(background):
        return background
    find_videos(background)
    return str(Path(background).expanduser().resolve())
