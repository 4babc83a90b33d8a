"""A log to learn from, written LOG or LOG:WEIGHT: a folder or a URL, and its sampling weight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

URL = "://"  # of a log in an object store


@dataclass(frozen=True)
class WeightedLog:
    """path: folder or URL. weight: sampling weight relative to the other logs, above 0."""

    path: str
    weight: float = 1.0

    @classmethod
    def parse(cls, word: str) -> WeightedLog:
        """Read LOG or LOG:WEIGHT; ValueError: the weight is no number above 0.

        A colon belongs to the path where a slash follows it, or where such a folder exists.
        """
        word = word.strip()
        path, mark, text = word.rpartition(":")
        if not mark or "/" in text or Path(word).exists():
            path, text = word, "1"
        try:
            weight = float(text)
        except ValueError:
            weight = 0.0
        if not path or not 0 < weight < float("inf"):
            raise ValueError(f"got {word!r}, expected LOG or LOG:WEIGHT with a weight above 0")
        return cls(path, weight)

    @property
    def is_url(self) -> bool:
        """Whether the log is in an object store."""
        return URL in self.path

    def __str__(self) -> str:
        weight = int(self.weight) if self.weight.is_integer() else self.weight
        return f"{self.path}:{weight}"
