"""A log whose camera has another name: logs of different cameras are drawn from together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec


def seen_as(reader: LogReader, camera: str, name: str) -> LogReader:
    """Return the log with one camera alone, under `name`; the same where that is its name.

    All else is the reader's. LogSpecError where the log has no such camera.
    """
    if camera not in reader.spec.cameras:
        raise LogSpecError(
            f"camera: got {camera!r}, expected one of {list(reader.spec.cameras)} as in "
            f"{reader.path}."
        )
    return reader if camera == name else cast(LogReader, _CameraView(reader, camera, name))


class _CameraView:
    """Takes the place of its reader: all but the camera's name is the reader's."""

    def __init__(self, reader: LogReader, camera: str, name: str) -> None:
        self._reader, self._camera, self._name = reader, camera, name
        self._spec: tuple[LogSpec, LogSpec] | None = None  # the reader's, and this log's

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    @property
    def spec(self) -> LogSpec:
        spec = self._reader.spec
        if self._spec is None or self._spec[0] is not spec:
            self._spec = spec, replace(spec, cameras={self._name: spec.cameras[self._camera]})
        return self._spec[1]

    def read(self, field: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        return self._reader.read(self._own(field), start, stop, out)

    def read_around(
        self, field: str, start: int, stop: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        return self._reader.read_around(self._own(field), start, stop, out)

    def read_rows(
        self, start: int, stop: int, fields: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        if fields is None:
            fields = [name for name in self.spec.fields if self.since(name) <= start]
        return {name: self.read(name, start, stop) for name in fields}

    def read_chunk(self, field: str, i: int) -> np.ndarray:
        return self._reader.read_chunk(self._own(field), i)

    def chunk_rows(self, field: str) -> int:
        return self._reader.chunk_rows(self._own(field))

    def chunk_signature(self, field: str, i: int) -> tuple[int, int, int]:
        return self._reader.chunk_signature(self._own(field), i)

    def since(self, field: str) -> int:
        return self._reader.since(self._own(field))

    def present(self, *fields: str) -> np.ndarray:
        return self._reader.present(*map(self._own, fields))

    def _own(self, field: str) -> str:
        """Return the reader's name of a field."""
        return f"image/{self._camera}" if field == f"image/{self._name}" else field
