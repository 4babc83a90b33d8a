"""A source whose images are upside down, turned as they come in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from wm_datasets.formats.base import FormatError, Importer


class Flipped(Importer):
    """The same episodes with the rows of every image in reverse order: frames, (H, W) sensors.

    `spec.extra["flipped"]` of the log says so, which keeps flipped episodes and others apart. It
    closes the source.
    """

    def __init__(self, source: Importer) -> None:
        self._source, spec = source, source.spec
        self._images = [
            name
            for name, field in spec.fields.items()
            if name.startswith(("image/", "sensor/")) and len(field.shape) > 1
        ]
        if not self._images:
            raise FormatError("--flip: the source has no images. Leave it out.")
        self.spec = replace(
            spec, extra=spec.extra | {"flipped": not spec.extra.get("flipped", False)}
        )
        self.keys, self.losses, self.notes = source.keys, source.losses, source.notes
        self.unequal = source.unequal

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        for row in self._source.rows(key):
            yield row | {name: row[name][::-1] for name in self._images}

    def close(self) -> None:
        self._source.close()
