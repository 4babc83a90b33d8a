"""A LeRobotDataset into a log."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.errors import LogSpecError
from wm_datasets.formats.base import (
    CorruptInputError,
    FormatError,
    Importer,
    Options,
    need,
    rows_of,
)
from wm_datasets.formats.lerobot import layout
from wm_datasets.formats.lerobot.frames import decode_picture, frames_at
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
CLOCK_S = 1e-4  # LeRobot's tolerance between timestamp and frame_index / fps


class Import(Importer):
    """A dataset's folder; key i is episode i.

    A dataset has as many actions as frames: an episode ends like one that was cut, with its last
    action and no observation after it. Datasets that came from a log have that observation beside.
    """

    uses = frozenset({"robot", "task", "period_s"})

    def __init__(self, source: Path, options: Options) -> None:
        self._root = source
        self._info = info = layout.read_info(source)
        self._features, odd = layout.read_features(info)
        kinds = {key: str(feature["dtype"]) for key, feature in self._features.items()}
        self._videos = [key for key, kind in kinds.items() if kind == "video"]
        takes = layout.read_takes(source, info, self._videos)
        self._takes = {str(take.index): take for take in takes}
        self.keys = list(self._takes)
        if not self.keys:
            raise FormatError(f"{source} holds no episode")
        self.losses = (
            [f"features that do not say their type and shape: {', '.join(odd)}"] if odd else []
        )
        self._last: dict[int, dict[str, Any]] = {}
        own = self._own_spec()
        self._is_own = own is not None
        if own is not None:
            options.refuse_beside_spec(source)
        self._outcomes = {k for k in (REWARD, DONE, SUCCESS) if self._is_number(k)}
        self._terminals = own is None and DONE in self._outcomes and self._some_end_without_done()
        try:
            self.spec = own or self._foreign_spec(options, takes)
        except LogSpecError as error:
            raise FormatError(f"{source}: {error}") from error
        if own is None:
            self._say_losses(takes)

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        take = self._takes[key]
        try:
            table = self._table(take)
            fields = self._fields(table)
            times = self._times(table)
        except (OSError, ValueError, KeyError, TypeError) as error:  # Arrow's are some of these
            raise CorruptInputError(take.data, f"episode {take.index}: {error}") from error
        if "stamp" not in fields:
            fields["stamp"] = np.round(times * 1e9).astype(np.int64)
        films = {f"image/{c}": self._film(c, take, table, times) for c in self.spec.cameras}
        # With actions the last frame has one too, and does not end its episode.
        ends = self.spec.action is None and (not self._is_own or _ended(table))
        for number, row in enumerate(rows_of(self.spec, fields, take.length, complete=False), 1):
            row["is_last"] = ends and number == take.length
            yield row | {name: next(film) for name, film in films.items()}
        last = self._last.get(take.index)
        if last is not None and last["stamp"] > fields["stamp"][-1]:
            yield {name: last[name] for name in self.spec.fields if name in last} | {
                f"image/{camera}": self._last_frame(camera, take.index)
                for camera in self.spec.cameras
            }

    # What the log will be ----------------------------------------------------------------------

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
        wanted = {camera_key(spec, c) for c in spec.cameras} | proprio_parts(spec).keys()
        wanted |= {OWN[name] for name in OWN if name in spec.fields}
        if not wanted <= self._features.keys():
            return None
        self._last = {row["episode_index"]: row for row in last}
        return spec

    def _foreign_spec(self, options: Options, takes: list[Take]) -> LogSpec:
        cameras = {k: f for k, f in self._features.items() if f["dtype"] in ("video", "image")}
        vectors = [k for k in self._features if k.startswith("observation.") and self._is_vector(k)]
        vectors.sort(key=lambda k: (k != STATE, k))
        tasks = sorted({task for take in takes for task in take.tasks})
        self._tasks = tasks
        names = {layout.camera_name(key): key for key in cameras}
        if len(names) != len(cameras):
            raise FormatError(f"{self._root}: cameras {list(cameras)} get the names {list(names)}")
        has_action = ACTION in self._features and self._is_vector(ACTION)
        reward = has_action and REWARD in self._outcomes
        absent = [
            *([] if has_action else ["action"]), *([] if reward else ["reward"]),
            *([] if vectors else ["proprio"]), *([] if SUCCESS in self._outcomes else ["success"]),
            *([] if self._terminals else ["is_terminal"]),
        ]  # fmt: skip
        sizes = {key: int(self._features[key]["shape"][0]) for key in vectors}
        return LogSpec(
            robot=options.robot or self._info.get("robot_type") or "unknown",
            task=options.task or (tasks[0] if len(tasks) == 1 else self._root.name),
            control_period_s=options.period_s or 1 / self._info["fps"],
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
        for path in dict.fromkeys(take.data for take in self._takes.values()):
            try:
                table = parquet.read_table(path, columns=keys)
                done, episode = (_numbers(table, key, np.int64)[:, 0] for key in keys)
            except (OSError, ValueError, KeyError, TypeError):  # said when its turn comes
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
        feature = self._features[key]
        return len(feature["shape"]) == 1 and feature["dtype"] in NUMBERS

    def _is_number(self, key: str) -> bool:
        feature = self._features.get(key)
        return (
            feature is not None
            and feature["shape"] == [1]
            and feature["dtype"] in (*NUMBERS, "bool")
        )

    def _vector(self, keys: list[str]) -> VectorSpec:
        """Joined vectors; LeRobot knows names, neither units nor bounds."""
        names = [name for key in keys for name in names_of(self._features[key], key)]
        if len({*names}) < len(names):
            names = [f"{key.removeprefix('observation.')}/{name}" for key in keys
                     for name in names_of(self._features[key], key)]  # fmt: skip
        size = len(names)
        bounds = (math.inf,) * size
        return VectorSpec(tuple(names), ("",) * size, tuple(-b for b in bounds), bounds)

    def _say_losses(self, takes: list[Take]) -> None:
        cameras = {camera_key(self.spec, c) for c in self.spec.cameras}
        kept = {*cameras, *proprio_parts(self.spec), *self._outcomes, *INDICES}
        kept |= {ACTION} if self.spec.action is not None else set()
        if left := sorted(self._features.keys() - kept):
            self.losses.append(f"features: {', '.join(left)}")
        wide = [k for k in kept & self._features.keys() - {*INDICES}
                if self._features[k]["dtype"] in ("float64", "int64", "int32")]  # fmt: skip
        if wide:
            self.losses.append(f"digits beyond float32: {', '.join(sorted(wide))}")
        if len(self._tasks) > 1:
            self.losses.append(f"which of {len(self._tasks)} tasks an episode is of")
        splits = self._info.get("splits") or {}
        if list(splits) not in ([], ["train"]):
            self.losses.append(f"splits: {', '.join(splits)}")
        for key in sorted(cameras):
            about = self._features[key].get("info") or {}
            if about.get("video.is_depth_map") or self._features[key]["shape"][-1] == 1:
                self.losses.append(f"{key}: more than 8 bits, if it has them")
            if about.get("has_audio"):
                self.losses.append(f"{key}: sound")

    # An episode --------------------------------------------------------------------------------

    def _table(self, take: Take) -> Any:
        parquet = need("pyarrow.parquet")
        if not take.data.exists():
            raise ValueError("there is no such file")
        if take.length < 1:
            raise ValueError(f"it has length {take.length}")
        wanted = [key for key in self._features if key not in self._videos]
        table = parquet.read_table(
            take.data, columns=wanted, filters=[("episode_index", "=", take.index)]
        )
        if table.num_rows != take.length:
            raise ValueError(f"{table.num_rows} frames, meta/ says {take.length}")
        if table["frame_index"].to_pylist() != list(range(take.length)):
            raise ValueError(f"frame_index is not 0 to {take.length - 1}")
        return table

    def _fields(self, table: Any) -> dict[str, np.ndarray]:
        spec = self.spec
        fields: dict[str, np.ndarray] = {}
        parts = proprio_parts(spec)
        if parts:
            fields["proprio"] = np.concatenate([_numbers(table, k) for k in parts], 1)
        if spec.action is not None:
            fields["action"] = _numbers(table, ACTION)
        if spec.reward:
            fields["reward"] = _numbers(table, REWARD)[:, 0]
        if SUCCESS in self._outcomes:
            fields["success"] = _numbers(table, SUCCESS, bool)[:, 0]
        if self._is_own:
            for name in [n for n in OWN if n in spec.fields]:
                field = spec.fields[name]
                values = _numbers(table, OWN[name], field.dtype)
                fields[name] = values if field.shape else values[:, 0]
        elif self._terminals:
            fields["is_terminal"] = np.zeros(table.num_rows, bool)
            fields["is_terminal"][-1] = _ended(table)
        wrong = [n for n, v in fields.items()
                 if v.dtype.kind == "f" and not np.isfinite(v).all()]  # fmt: skip
        if wrong:
            raise ValueError(f"numbers that are not finite in {', '.join(wrong)}")
        return fields

    def _times(self, table: Any) -> np.ndarray:
        """Times of an episode's frames [s]: float32 in the file, exact where the rate is kept."""
        times = _numbers(table, "timestamp", np.float64)[:, 0]
        exact = np.arange(len(times)) / self._info["fps"]
        if np.abs(times - exact).max(initial=0) <= CLOCK_S:
            return exact
        if not (np.diff(times) > 0).all():
            raise ValueError("timestamp does not grow")
        return times

    def _film(self, camera: str, take: Take, table: Any, times: np.ndarray) -> Iterator[np.ndarray]:
        key, wanted = camera_key(self.spec, camera), self.spec.cameras[camera]
        if key in take.films:
            path, begin = take.films[key]
            found = frames_at(path, (times + begin).tolist(), 0.5 / self._info["fps"])
        else:
            path, found = take.data, self._pictures(take, table, key)
        for frame in found:
            if frame.shape != wanted:
                raise CorruptInputError(path, f"{key}: a frame of {frame.shape}, right: {wanted}")
            yield frame

    def _pictures(self, take: Take, table: Any, key: str) -> Iterator[np.ndarray]:
        for number in range(table.num_rows):
            cell = table[key][number].as_py() or {}
            try:
                data = cell.get("bytes") or (self._root / (cell.get("path") or "")).read_bytes()
                yield decode_picture(data)
            except (OSError, ValueError) as error:
                raise CorruptInputError(
                    take.data, f"episode {take.index}, {key}, frame {number}: {error}"
                ) from error

    def _last_frame(self, camera: str, index: int) -> np.ndarray:
        path = self._root / layout.OWN_FRAME.format(camera=camera, episode_index=index)
        try:
            return decode_picture(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CorruptInputError(path, error) from error


def _ended(table: Any) -> bool:
    return bool(_numbers(table, DONE, bool)[-1, 0])


def _numbers(table: Any, key: str, dtype: Any = np.float32) -> np.ndarray:
    """A column of numbers or lists of numbers, (rows, d)."""
    column = table[key].combine_chunks()
    flat = need("pyarrow.compute").list_flatten(column) if hasattr(column, "values") else column
    if flat.null_count:
        raise ValueError(f"{key} has {flat.null_count} holes")
    values = flat.to_numpy(zero_copy_only=False).astype(dtype)
    return values.reshape(table.num_rows, -1)


def _frame_shape(feature: dict[str, Any]) -> tuple[int, int, int]:
    """(height, width, 3) of a camera; old datasets have the channels first."""
    shape, names = [int(n) for n in feature["shape"]], feature.get("names")
    if isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel"):
        shape = [shape[1], shape[2], shape[0]]
    return shape[0], shape[1], 3
