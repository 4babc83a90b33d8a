"""What a log will hold of a LeRobotDataset: its spec, and what is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.formats.base import CorruptInputError, FormatError, Options, need
from wm_datasets.formats.lerobot import layout
from wm_datasets.formats.lerobot.layout import (
    INDICES,
    STATE,
    Take,
    camera_key,
    names_of,
    proprio_parts,
)
from wm_datasets.spec import LogSpec, VectorSpec

NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
REWARD, DONE, SUCCESS, ACTION = "next.reward", "next.done", "next.success", "action"
_KEPT = "commanded signals is_terminal stamp source weights evaluation".split()
OWN = {name: f"wm.{name}" for name in _KEPT}


class Contents:
    """Found out when a dataset is opened, from its metadata and the ends of its episodes.

    A dataset that was exported from a log (`is_own`) has that log's spec beside it, and in `last`
    the last row of each episode, by the episode's number.
    """

    def __init__(
        self,
        root: Path,
        info: dict[str, Any],
        features: dict[str, dict[str, Any]],
        takes: list[Take],
        options: Options,
    ) -> None:
        self.info, self.features = info, features
        self._root, self._takes = root, takes
        self.losses: list[str] = []
        self.notes: tuple[str, ...] = ()
        self.last: dict[int, dict[str, Any]] = {}
        own = self._own_spec()
        self.is_own = own is not None
        if own is not None:
            options.refuse_beside_spec(root)
        self.outcomes = {k for k in (REWARD, DONE, SUCCESS) if self._is_number(k)}
        self.terminals = own is None and DONE in self.outcomes and self._some_end_without_done()
        try:
            self.spec = own or self._foreign_spec(options)
        except LogSpecError as error:
            raise FormatError(f"{root}: {error}") from error
        if own is None:
            self._find_losses()

    def _own_spec(self) -> LogSpec | None:
        """The spec of the log that this dataset came from, if all of it is still there."""
        path = self._root / layout.OWN_SPEC
        if not path.exists():
            return None
        try:
            spec = LogSpec.from_json(json.loads(path.read_text()))
            last = need("pyarrow.parquet").read_table(self._root / layout.OWN_LAST).to_pylist()
        except (OSError, ValueError, KeyError, TypeError, LogSpecError) as error:
            raise CorruptInputError(path.parent, repr(error)) from error
        keys = {camera_key(spec, c) for c in spec.cameras} | proprio_parts(spec).keys()
        keys |= {OWN[name] for name in OWN if name in spec.fields}
        if not keys <= self.features.keys():
            return None
        self.last = {row["episode_index"]: row for row in last}
        return spec

    def _foreign_spec(self, options: Options) -> LogSpec:
        cameras = {k: f for k, f in self.features.items() if f["dtype"] in ("video", "image")}
        vectors = [k for k in self.features if k.startswith("observation.") and self._is_vector(k)]
        vectors.sort(key=lambda k: (k != STATE, k))
        tasks = sorted({task for take in self._takes for task in take.tasks})
        self._tasks = tasks
        names = {layout.camera_name(key): key for key in cameras}
        if len(names) != len(cameras):
            raise FormatError(
                f"{self._root}: cameras: got {list(cameras)}, which become {list(names)}, expected "
                "different names."
            )
        has_action = ACTION in self.features and self._is_vector(ACTION)
        reward = has_action and REWARD in self.outcomes
        absent = [
            *([] if has_action else ["action"]), *([] if reward else ["reward"]),
            *([] if vectors else ["proprio"]), *([] if SUCCESS in self.outcomes else ["success"]),
            *([] if self.terminals else ["is_terminal"]),
        ]  # fmt: skip
        sizes = {key: int(self.features[key]["shape"][0]) for key in vectors}
        return LogSpec(
            robot=options.robot or self.info.get("robot_type") or "unknown",
            task=options.task or (tasks[0] if len(tasks) == 1 else self._root.name),
            control_period_s=options.period_s or 1 / self.info["fps"],
            cameras={name: _frame_shape(cameras[key]) for name, key in names.items()},
            proprio=self._vector(vectors) if vectors else None,
            action=self._vector([ACTION]) if has_action else None,
            extra={"lerobot": {"cameras": names, "proprio": sizes, "tasks": tasks},
                   "absent": absent},
            reward=reward,
        )  # fmt: skip

    def _some_end_without_done(self) -> bool:
        """Does `next.done` say where a task ended for good? Where every episode ends with one, as
        LeRobot writes it, it marks the episode's end, as at a time limit: to learn that nothing
        comes after it would be wrong."""
        parquet, keys = need("pyarrow.parquet"), [DONE, "episode_index"]
        for path in dict.fromkeys(take.data for take in self._takes):
            try:
                table = parquet.read_table(path, columns=keys)
                done, episode = (numbers_of(table, key, np.int64)[:, 0] for key in keys)
            except (OSError, ValueError, KeyError, TypeError):  # the episode's own import raises it
                continue
            last = np.flatnonzero(np.diff(episode, append=-1))
            if not done[last].all():
                return True
        self.notes += (
            f"every episode ends with {DONE}, which marks its end: whether the task ended for good "
            "(is_terminal) is not known",
        )
        return False

    def _is_vector(self, key: str) -> bool:
        feature = self.features[key]
        return len(feature["shape"]) == 1 and feature["dtype"] in NUMBERS

    def _is_number(self, key: str) -> bool:
        feature = self.features.get(key)
        return (
            feature is not None
            and feature["shape"] == [1]
            and feature["dtype"] in (*NUMBERS, "bool")
        )

    def _vector(self, keys: list[str]) -> VectorSpec:
        """Joined vectors; LeRobot knows names, neither units nor bounds."""
        names = [name for key in keys for name in names_of(self.features[key], key)]
        if len({*names}) < len(names):
            names = [f"{key.removeprefix('observation.')}/{name}" for key in keys
                     for name in names_of(self.features[key], key)]  # fmt: skip
        size = len(names)
        bounds = (math.inf,) * size
        return VectorSpec(tuple(names), ("",) * size, tuple(-b for b in bounds), bounds)

    def _find_losses(self) -> None:
        cameras = {camera_key(self.spec, c) for c in self.spec.cameras}
        kept = {*cameras, *proprio_parts(self.spec), *self.outcomes, *INDICES}
        kept |= {ACTION} if self.spec.action is not None else set()
        if left := sorted(self.features.keys() - kept):
            self.losses.append(f"features: {', '.join(left)}")
        wide = [k for k in kept & self.features.keys() - {*INDICES}
                if self.features[k]["dtype"] in ("float64", "int64", "int32")]  # fmt: skip
        if wide:
            self.losses.append(f"digits beyond float32: {', '.join(sorted(wide))}")
        if len(self._tasks) > 1:
            self.losses.append(f"which of {len(self._tasks)} tasks an episode is of")
        splits = self.info.get("splits") or {}
        if list(splits) not in ([], ["train"]):
            self.losses.append(f"splits: {', '.join(splits)}")
        for key in sorted(cameras):
            about = self.features[key].get("info") or {}
            if about.get("video.is_depth_map") or self.features[key]["shape"][-1] == 1:
                self.losses.append(f"{key}: more than 8 bits, if it has them")
            if about.get("has_audio"):
                self.losses.append(f"{key}: sound")


def numbers_of(table: Any, key: str, dtype: Any = np.float32) -> np.ndarray:
    """A column of numbers or lists of numbers, (rows, d)."""
    column = table[key].combine_chunks()
    flat = need("pyarrow.compute").list_flatten(column) if hasattr(column, "values") else column
    if flat.null_count:
        raise ValueError(f"{key}: got {flat.null_count} empty values, expected none")
    values: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(dtype)
    return values.reshape(table.num_rows, -1)


def _frame_shape(feature: dict[str, Any]) -> tuple[int, int, int]:
    """(height, width, 3) of a camera; old datasets have the channels first."""
    shape, names = [int(n) for n in feature["shape"]], feature.get("names")
    if isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel"):
        shape = [shape[1], shape[2], shape[0]]
    return shape[0], shape[1], 3
