"""A format of your own: a folder with spec.json and a compressed .npz file for each episode.

    pytest docs/examples/test_npz_folder.py             # the round trip is exact

As a module in wm_datasets/formats/ with an entry in its FORMATS it is available in `wm log import`
and `wm log export`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    CorruptInputError,
    Episode,
    Exporter,
    Importer,
    Options,
    exportable,
    rows_of,
)
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec


class Export(Exporter):
    """DST/spec.json and DST/episode_000000.npz, an array of (length, ...) for each field."""

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._spec, self.losses = exportable(reader)  # losses: fields that no format can hold

    def open(self, destination: Path) -> None:
        self._folder, self._count = destination, 0
        destination.mkdir()
        (destination / "spec.json").write_text(json.dumps(self._spec.to_json()))

    def write(self, episode: Episode) -> None:
        arrays: dict[str, Any] = {
            name.replace("/", "."): episode.read(name) for name in self._spec.fields
        }
        np.savez_compressed(self._folder / f"episode_{self._count:06d}.npz", **arrays)
        self._count += 1

    def finish(self) -> None:
        """Every file is complete already."""


class Import(Importer):
    """Reads the folders of Export. The name of a file is the key of its episode."""

    def __init__(self, source: Path, options: Options) -> None:
        try:
            self.spec = LogSpec.from_json(json.loads((source / "spec.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptInputError(source / "spec.json", error) from error
        self._source = source
        self.keys = sorted(file.name for file in source.glob("*.npz"))
        self.losses = []

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        try:
            with np.load(self._source / key) as file:
                fields = {name: file[name.replace("/", ".")] for name in self.spec.fields}
        except (OSError, ValueError, KeyError) as error:
            raise CorruptInputError(self._source / key, error) from error
        length, complete = len(fields["is_last"]), bool(fields["is_last"][-1])
        yield from rows_of(self.spec, fields, length, complete=complete)
