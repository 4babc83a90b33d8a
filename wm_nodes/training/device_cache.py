"""A log's newest rows on the device that learns, so that a batch is gathered there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_datasets.errors import LogRowError
from wm_datasets.log import LogReader

_ROWS = 1024  # carried over at a time


class DeviceCache:
    """The newest `capacity` rows of each log, decoded, in the memory of a device.

    Row r of a field lies at r modulo capacity. `budget` bytes are shared by the logs in proportion
    to what they hold now, so leave room for rows to come. Any torch device works.
    """

    def __init__(
        self,
        readers: Sequence[LogReader],
        fields: Mapping[str, str],
        budget: int,
        device: str | torch.device,
    ) -> None:
        self.fields = dict(fields)  # name in the batch -> field of the log
        held = [max(1, reader.length - reader.first) for reader in readers]
        self._logs = [
            _Log(reader, self.fields, budget * count // sum(held), torch.device(device))
            for reader, count in zip(readers, held)
        ]

    def follow(self) -> None:
        """Read the rows that are new since the last call; rows that are lost become zeros."""
        for log in self._logs:
            log.follow()

    def gather(self, which: np.ndarray, rows: np.ndarray) -> dict[str, Tensor]:
        """Return windows as name -> (B, T, ...) on the device; {} where a row is not resident.

        which (B,), rows (B, T): as Sampler.draw gives them.
        """
        picked = [np.flatnonzero(which == i) for i in range(len(self._logs))]
        if not all(log.holds(rows[mine]) for log, mine in zip(self._logs, picked)):
            return {}
        back = np.argsort(np.concatenate(picked))
        parts = [log.gather(rows[mine]) for log, mine in zip(self._logs, picked) if len(mine)]
        if len(parts) == 1:
            return parts[0]
        order = torch.from_numpy(back).to(parts[0][next(iter(self.fields))].device)
        return {name: torch.cat([part[name] for part in parts])[order] for name in self.fields}


class _Log:
    def __init__(
        self, reader: LogReader, fields: Mapping[str, str], budget: int, device: torch.device
    ) -> None:
        self._reader, self._fields, self._device = reader, fields, device
        specs = {name: reader.spec.fields[field] for name, field in fields.items()}
        self.capacity = max(1, budget // sum(spec.row_bytes for spec in specs.values()))
        self._rings = {
            name: torch.zeros((self.capacity, *spec.shape), dtype=_dtype(spec.dtype), device=device)
            for name, spec in specs.items()
        }
        self.start = self.stop = 0

    def follow(self) -> None:
        reader = self._reader
        reader.refresh()
        oldest = max(reader.first, reader.length - self.capacity)
        if self.stop < oldest:
            self.start = self.stop = oldest
        while self.stop < reader.length:
            at = self.stop % self.capacity
            count = min(_ROWS, reader.length - self.stop, self.capacity - at)
            # A read that fails below leaves the slots of the oldest rows partly overwritten.
            self.start = max(self.start, self.stop + count - self.capacity)
            for name, field in self._fields.items():
                try:
                    rows = reader.read_around(field, self.stop, self.stop + count)
                except LogRowError:  # the capacity dropped them: the next refresh shows it
                    return
                self._rings[name][at : at + count].copy_(torch.from_numpy(rows))
            self.stop += count

    def holds(self, rows: np.ndarray) -> bool:
        return bool(np.all((rows >= self.start) & (rows < self.stop)))

    def gather(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = torch.from_numpy(rows % self.capacity).to(self._device)
        return {name: ring[index] for name, ring in self._rings.items()}


def _dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array in memory that a GPU copies from by itself."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    array: np.ndarray = torch.empty(shape, dtype=kind, pin_memory=True).numpy()
    return array
