"""A log whose images have the size that a model sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.images import CropResize
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec

_ROWS = 64  # read and resized at a time, so that large images need little memory


def resized(reader: LogReader, camera: str, height: int, width: int) -> LogReader:
    """Return the log with a camera's images of this size [pixels]; the same where they have it.

    Images are resized as they are read, as :class:`CropResize` does it; all else is the reader's.
    A sampler keeps the small images in its caches, so each is resized once, not for each batch.
    LogSpecError where the log has no such camera.
    """
    if camera not in reader.spec.cameras:
        raise LogSpecError(
            f"camera: got {camera!r}, expected one of {list(reader.spec.cameras)} as in "
            f"{reader.path}."
        )
    if reader.spec.cameras[camera] == (height, width, 3):
        return reader
    return cast(LogReader, _ResizedLog(reader, camera, height, width))


class _ResizedLog:
    """Takes the place of its reader: all but the camera's images is the reader's."""

    def __init__(self, reader: LogReader, camera: str, height: int, width: int) -> None:
        self._reader, self._camera, self._field = reader, camera, f"image/{camera}"
        self._shape = (height, width, 3)
        self._resize = CropResize(height, width)
        self._spec: tuple[LogSpec, LogSpec] | None = None  # the reader's, and this log's

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    @property
    def spec(self) -> LogSpec:
        spec = self._reader.spec
        if self._spec is None or self._spec[0] is not spec:
            own = replace(spec, cameras=spec.cameras | {self._camera: self._shape})
            self._spec = spec, own
        return self._spec[1]

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        return self._blocks(self._reader.read, field, start, stop, out)

    def read_around(
        self, field: str, start: int, stop: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        return self._blocks(self._reader.read_around, field, start, stop, out)

    def read_rows(
        self, start: int, stop: int, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        if fields is None:
            fields = [name for name in self.spec.fields if self._reader.since(name) <= start]
        return {name: self.read(name, start, stop) for name in fields}

    def read_chunk(self, field: str, i: int) -> np.ndarray:
        rows = self._reader.read_chunk(field, i)
        return self._resized(rows) if field == self._field else rows

    def _blocks(
        self,
        read: Callable[..., np.ndarray],
        field: str,
        start: int,
        stop: int,
        out: np.ndarray | None,
    ) -> np.ndarray:
        if field != self._field:
            return read(field, start, stop, out)
        if start >= stop:
            read(field, start, stop)  # refuses what is no range of rows
        if out is None:
            out = np.empty((stop - start, *self._shape), np.uint8)
        for at in range(start, stop, _ROWS):
            until = min(stop, at + _ROWS)
            out[at - start : until - start] = self._resized(read(field, at, until))
        return out

    def _resized(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, H, W, 3) of the camera, (n, height, width, 3)."""
        out = np.empty((len(rows), *self._shape), np.uint8)
        for number, image in enumerate(rows):
            out[number] = self._resize(image)
        return out
