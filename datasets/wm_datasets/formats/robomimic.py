"""HDF5 in the robomimic layout: data/demo_<i>/{actions, rewards, dones, obs/*, next_obs/*}.

What the layout has no place for goes into extra items that robomimic does not look at: the
attribute `wm_log` of `data` (the spec) and the group `wm` of each demo (one dataset per field).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.contract import (
    CorruptInputError,
    Episode,
    Exporter,
    FormatError,
    Importer,
    Options,
    episodes_of,
    exportable,
    need,
    rows_of,
)
from wm_datasets.reader import LogReader
from wm_datasets.spec import LogSpec, VectorSpec

_OWN = ("commanded", "signals", "success", "is_terminal", "stamp", "source", "weights")


class Import(Importer):
    """A robomimic file; each demo is an episode. Row T of T actions comes from next_obs."""

    def __init__(self, source: Path, options: Options) -> None:
        h5py = need("h5py")
        self._path = source
        try:
            self._file = h5py.File(source, "r")
        except OSError as error:
            raise CorruptInputError(source, f"not a readable HDF5 file ({error})") from error
        if "data" not in self._file or not len(self._file["data"]):
            raise FormatError(f"{source} has no group 'data' with demos: not robomimic's layout")
        self._data = self._file["data"]
        self.keys = sorted(self._data, key=lambda k: [int(n) for n in re.findall(r"\d+", k)])
        self.losses: list[str] = []
        first = self._first_whole()
        self._cameras = sorted(k for k, v in first["obs"].items() if _is_image(v))
        self._vectors = {
            k: math.prod(v.shape[1:]) for k, v in sorted(first["obs"].items()) if v.ndim <= 2
        }
        self.spec = self._make_spec(first, options)
        self._say_losses(first)

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        demo = self._data[key]
        try:
            yield from self._read(demo)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise CorruptInputError(self._path, f"{key}: {error}") from error

    def close(self) -> None:
        self._file.close()

    def _first_whole(self) -> Any:
        for key in self.keys:
            if {"actions", "obs"} <= set(self._data[key]):
                return self._data[key]
        raise FormatError(f"{self._path}: no demo has 'actions' and 'obs': not robomimic's layout")

    def _make_spec(self, demo: Any, options: Options) -> LogSpec:
        if (own := self._data.attrs.get("wm_log")) is not None:
            return LogSpec.from_json(json.loads(own))
        env = json.loads(self._data.attrs.get("env_args", "{}"))
        kwargs = env.get("env_kwargs", {})
        period = options.period_s or (1 / kwargs["control_freq"] if "control_freq" in kwargs else 0)
        if not period:
            raise FormatError(f"{self._path} does not say its rate. Right: --period SECONDS.")
        robots = kwargs.get("robots", "unknown")
        absent = ["success", *([] if "rewards" in demo else ["reward"])]
        return LogSpec(
            robot=options.robot or (robots if isinstance(robots, str) else "+".join(robots)),
            task=options.task or env.get("env_name", "unknown"),
            control_period_s=period,
            cameras={k: demo["obs"][k].shape[1:] for k in self._cameras},
            proprio=_vector(self._vectors) if self._vectors else None,
            action=_vector({"action": demo["actions"].shape[1]}, bound=1.0),
            extra={"robomimic": {"env_args": env, "proprio": self._vectors}, "absent": absent},
            reward="rewards" in demo,
        )

    def _say_losses(self, demo: Any) -> None:
        if "wm_log" in self._data.attrs:
            return
        known = {"actions", "rewards", "dones", "obs", "next_obs"}
        if left := sorted(set(demo) - known):
            self.losses.append(f"datasets of each demo: {', '.join(left)}")
        if other := sorted(set(demo["obs"]) - {*self._cameras, *self._vectors}):
            self.losses.append(f"observations that are neither RGB uint8 nor vectors: {other}")
        if wide := [k for k in self._vectors if demo["obs"][k].dtype.itemsize > 4]:
            self.losses.append(f"digits beyond float32: actions, rewards, {', '.join(wide)}")
        if "mask" in self._file:
            self.losses.append(f"splits (mask/): {', '.join(sorted(self._file['mask']))}")
        if "model_file" in demo.attrs:
            self.losses.append("attributes of each demo: model_file (the simulator's XML)")
        if "dones" in demo and demo["dones"][:-1].any():
            self.losses.append("dones before the last action of a demo")
        if "next_obs" not in demo:
            self.losses.append(
                "no next_obs: what each last action led to; its row has the action, not is_last"
            )

    def _read(self, demo: Any) -> Iterator[dict[str, Any]]:
        actions = demo["actions"][()]
        complete = bool(demo.attrs.get("wm_complete", "next_obs" in demo))
        whole = "next_obs" in demo and complete
        rows = len(actions) + whole
        fields: dict[str, np.ndarray] = {"action": _longer(actions, rows)}
        if self.spec.reward:
            fields["reward"] = _longer(demo["rewards"][()], rows)
        if "wm" in demo:
            fields |= {k: v[()] for k, v in demo["wm"].items() if k in self.spec.fields}
        elif "dones" in demo:
            dones = demo["dones"][()].astype(bool)
            fields["is_terminal"] = np.zeros(rows, bool)
            fields["is_terminal"][len(actions) - 1] = dones[-1]
        for name in self._cameras:
            fields[f"image/{name}"] = _rows(demo, name, whole)
        if self.spec.proprio is not None:
            parts = [_rows(demo, k, whole) for k in self._vectors]
            flat = [p.reshape(rows, -1).astype(np.float32) for p in parts]
            fields["proprio"] = np.concatenate(flat, axis=1)
        short = {k: len(v) for k, v in fields.items() if len(v) != rows}
        if short:
            raise ValueError(f"{len(actions)} actions but {short} (rows: {rows})")
        yield from rows_of(self.spec, fields, rows, complete=complete)


class Export(Exporter):
    """One file; opened by robomimic's SequenceDataset. Keys of observations are the log's."""

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._spec, self.losses = exportable(reader)
        spec = self._spec
        if spec.action is None:
            raise FormatError("robomimic needs actions, this log has none (plain video)")
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
                "what the last action of a cut episode brought: its next_obs repeats obs"
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


def _is_image(dataset: Any) -> bool:
    return dataset.ndim == 4 and dataset.shape[-1] == 3 and dataset.dtype == np.uint8


def _vector(parts: dict[str, int], bound: float = math.inf) -> VectorSpec:
    """Names key[0], key[1] ... of joined vectors; robomimic declares neither units nor bounds."""
    names = tuple(f"{k}[{i}]" if n > 1 else k for k, n in parts.items() for i in range(n))
    return VectorSpec(names, ("",) * len(names), (-bound,) * len(names), (bound,) * len(names))


def _rows(demo: Any, name: str, whole: bool) -> np.ndarray:
    """obs/<name> and, after it, the last of next_obs/<name>."""
    value = demo["obs"][name][()]
    return np.concatenate([value, demo["next_obs"][name][-1:]]) if whole else value


def _longer(value: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([value, np.zeros_like(value[:1])])[:rows].astype(np.float32)
