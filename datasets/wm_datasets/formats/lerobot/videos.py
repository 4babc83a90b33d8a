"""Video files of a dataset: one per episode, or in v3 many episodes to a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from wm_datasets.formats.lerobot.layout import CHUNK, VIDEO, VIDEO_BYTES
from wm_datasets.formats.video import VideoWriter

KEYS = 2  # LeRobot reads frames at random, and writes every second one so that it can be sought


@dataclass
class _Reel:
    """A file that episodes are appended to."""

    number: int
    path: Path
    video: VideoWriter
    frames: int = 0


class Videos:
    """Writes H.264 at the log's rate; frame i of a file is at i / rate."""

    def __init__(self, root: Path, version: str, rate: Fraction) -> None:
        self._root, self._version, self._rate = root, version, rate
        self._reels: dict[str, _Reel] = {}  # open, of each video key
        self._next: dict[str, int] = {}  # number of the file that is begun next

    def write(self, key: str, index: int, frames: Iterator[np.ndarray]) -> dict[str, int | float]:
        """Write an episode's frames; return what v3 keeps of where they are."""
        if self._version != "v3.0":
            at = {"episode_chunk": index // CHUNK, "episode_index": index}
            reel = self._begin(key, index, at)
            self._append(reel, frames)
            reel.video.close()
            return {}
        reel = self._reels.pop(key) if key in self._reels else self._begin_file(key)
        begin = reel.frames
        self._append(reel, frames)
        entry: dict[str, int | float] = {
            "chunk_index": reel.number // CHUNK,
            "file_index": reel.number % CHUNK,
            "from_timestamp": float(begin / self._rate),
            "to_timestamp": float(reel.frames / self._rate),
        }
        if reel.path.stat().st_size >= VIDEO_BYTES:
            reel.video.close()
            self._next[key] = reel.number + 1
        else:
            self._reels[key] = reel
        return {f"videos/{key}/{name}": value for name, value in entry.items()}

    def close(self) -> None:
        """Finish all files."""
        for reel in self._reels.values():
            reel.video.close()
        self._reels.clear()

    def _begin_file(self, key: str) -> _Reel:
        number = self._next.get(key, 0)
        at = {"chunk_index": number // CHUNK, "file_index": number % CHUNK}
        return self._begin(key, number, at)

    def _begin(self, key: str, number: int, at: dict[str, int]) -> _Reel:
        path = self._root / VIDEO[self._version].format(video_key=key, **at)
        path.parent.mkdir(parents=True, exist_ok=True)
        video = VideoWriter(path, self._rate, lossy=True, tick=1 / self._rate, keys=KEYS)
        return _Reel(number, path, video)

    def _append(self, reel: _Reel, frames: Iterator[np.ndarray]) -> None:
        for frame in frames:
            reel.video.add(frame, reel.frames)
            reel.frames += 1
