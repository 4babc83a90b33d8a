"""A log into a robomimic file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wm_datasets.formats.base import (
    Episode,
    Exporter,
    FormatError,
    Options,
    episodes_of,
    exportable,
    need,
)
from wm_datasets.log.reader import LogReader

_OWN = "commanded signals success is_terminal stamp source weights evaluation".split()


class Export(Exporter):
    """One file; opened by robomimic's SequenceDataset. Keys of observations are the log's."""

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._spec, self.losses = exportable(reader)
        spec = self._spec
        if spec.action is None:
            raise FormatError(
                "log: got one without actions (plain video), expected actions for robomimic. "
                "Choose another format."
            )
        self._split = spec.extra.get("robomimic", {}).get("proprio")
        if not self._split or sum(self._split.values()) != len(spec.proprio or ()):
            self._split = {"proprio": len(spec.proprio)} if spec.proprio else {}
        lengths = [e.length - e.complete for e in episodes_of(reader)]
        if empty := lengths.count(0):
            self.losses.append(f"{empty} episodes without any action")
        if not spec.reward:
            self.losses.append(
                "that rewards are unknown: robomimic's reader wants them, 0 is given"
            )
        if not all(e.complete for e in episodes_of(reader)):
            self.losses.append(
                "the result of the last action of a cut episode: its next_obs repeats obs"
            )

    def open(self, destination: Path) -> None:
        self._file = need("h5py").File(destination, "w")
        self._data, self._total = self._file.create_group("data"), 0
        spec = self._spec
        env = spec.extra.get("robomimic", {}).get("env_args") or {
            "env_name": spec.task,
            "type": 2,  # robomimic's gym
            "env_kwargs": {"robots": spec.robot, "control_freq": 1 / spec.control_period_s},
        }
        self._data.attrs["env_args"] = json.dumps(env)
        self._data.attrs["wm_log"] = json.dumps(spec.to_json())

    def write(self, episode: Episode) -> None:
        steps = episode.steps
        if steps == 0:
            return
        demo = self._data.create_group(f"demo_{len(self._data)}")
        demo.attrs["num_samples"], demo.attrs["wm_complete"] = steps, episode.complete
        demo["actions"] = episode.read("action")[:steps]
        reward = episode.read("reward")[:steps] if self._spec.reward else np.zeros(steps, "f4")
        demo["rewards"] = reward
        demo["dones"] = (np.arange(steps) == steps - 1).astype(np.int64)
        arrays = {f: episode.read(f"image/{f}") for f in self._spec.cameras}
        if self._spec.proprio is not None:
            cuts = np.cumsum(list(self._split.values()))[:-1]
            arrays |= dict(zip(self._split, np.split(episode.read("proprio"), cuts, axis=1)))
        after = [*range(1, episode.length), episode.length - 1][:steps]
        for name, value in arrays.items():
            options = {"compression": "gzip", "compression_opts": 1} if value.ndim == 4 else {}
            demo.create_dataset(f"obs/{name}", data=value[:steps], **options)
            demo.create_dataset(f"next_obs/{name}", data=value[after], **options)
        for name in [n for n in _OWN if n in self._spec.fields]:
            demo[f"wm/{name}"] = episode.read(name)
        self._total += steps

    def finish(self) -> None:
        self._data.attrs["total"] = self._total
        self._file.close()
