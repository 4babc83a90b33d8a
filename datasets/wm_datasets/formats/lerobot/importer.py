"""A LeRobotDataset into a log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    CorruptInputError,
    FormatError,
    Importer,
    Options,
    need,
    rows_of,
)
from wm_datasets.formats.lerobot import layout
from wm_datasets.formats.lerobot.contents import (
    ACTION,
    DONE,
    OWN,
    REWARD,
    SUCCESS,
    Contents,
    numbers_of,
)
from wm_datasets.formats.lerobot.frames import decode_image, frames_at
from wm_datasets.formats.lerobot.layout import Take, camera_key, proprio_parts

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
            raise FormatError(f"{source}: no episode in it.")
        self._contents = contents = Contents(source, info, self._features, takes, options)
        self.spec, self.notes = contents.spec, contents.notes
        self.losses = contents.losses
        if odd:
            self.losses.insert(
                0, f"features that do not say their type and shape: {', '.join(odd)}"
            )

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
        frames = {f"image/{c}": self._frames(c, take, table, times) for c in self.spec.cameras}
        # With actions the last frame has one too, and does not end its episode.
        ends = self.spec.action is None and (not self._contents.is_own or _ended(table))
        for number, row in enumerate(rows_of(self.spec, fields, take.length, complete=False), 1):
            row["is_last"] = ends and number == take.length
            yield row | {name: next(images) for name, images in frames.items()}
        last = self._contents.last.get(take.index)
        if last is not None and last["stamp"] > fields["stamp"][-1]:
            yield {name: last[name] for name in self.spec.fields if name in last} | {
                f"image/{camera}": self._last_frame(camera, take.index)
                for camera in self.spec.cameras
            }

    # An episode --------------------------------------------------------------------------------

    def _table(self, take: Take) -> Any:
        parquet = need("pyarrow.parquet")
        if not take.data.exists():
            raise ValueError("there is no such file")
        if take.length < 1:
            raise ValueError(f"length: got {take.length}, expected at least 1")
        columns = [key for key in self._features if key not in self._videos]
        table = parquet.read_table(
            take.data, columns=columns, filters=[("episode_index", "=", take.index)]
        )
        if table.num_rows != take.length:
            raise ValueError(f"got {table.num_rows} frames, expected {take.length} as in meta/")
        if table["frame_index"].to_pylist() != list(range(take.length)):
            raise ValueError(
                f"frame_index: got other numbers, expected 0 to {take.length - 1} in order"
            )
        return table

    def _fields(self, table: Any) -> dict[str, np.ndarray]:
        spec = self.spec
        fields: dict[str, np.ndarray] = {}
        parts = proprio_parts(spec)
        if parts:
            fields["proprio"] = np.concatenate([numbers_of(table, k) for k in parts], 1)
        if spec.action is not None:
            fields["action"] = numbers_of(table, ACTION)
        if spec.reward:
            fields["reward"] = numbers_of(table, REWARD)[:, 0]
        if SUCCESS in self._contents.outcomes:
            fields["success"] = numbers_of(table, SUCCESS, bool)[:, 0]
        if self._contents.is_own:
            for name in [n for n in OWN if n in spec.fields]:
                field = spec.fields[name]
                values = numbers_of(table, OWN[name], field.dtype)
                fields[name] = values if field.shape else values[:, 0]
        elif self._contents.terminals:
            fields["is_terminal"] = np.zeros(table.num_rows, bool)
            fields["is_terminal"][-1] = _ended(table)
        wrong = [n for n, v in fields.items()
                 if v.dtype.kind == "f" and not np.isfinite(v).all()]  # fmt: skip
        if wrong:
            raise ValueError(f"numbers that are not finite in {', '.join(wrong)}")
        return fields

    def _times(self, table: Any) -> np.ndarray:
        """Times of an episode's frames [s]: float32 in the file, exact where the rate is kept."""
        times = numbers_of(table, "timestamp", np.float64)[:, 0]
        exact: np.ndarray = np.arange(len(times)) / self._info["fps"]
        if np.abs(times - exact).max(initial=0) <= CLOCK_S:
            return exact
        if not (np.diff(times) > 0).all():
            raise ValueError("timestamp: got values that do not grow, expected growing values")
        return times

    def _frames(
        self, camera: str, take: Take, table: Any, times: np.ndarray
    ) -> Iterator[np.ndarray]:
        key, shape = camera_key(self.spec, camera), self.spec.cameras[camera]
        if key in take.videos:
            path, begin = take.videos[key]
            frames = frames_at(path, (times + begin).tolist(), 0.5 / self._info["fps"])
        else:
            path, frames = take.data, self._images_of(take, table, key)
        for frame in frames:
            if frame.shape != shape:
                raise CorruptInputError(
                    path, f"{key}: got a frame of {frame.shape}, expected {shape}."
                )
            yield frame

    def _images_of(self, take: Take, table: Any, key: str) -> Iterator[np.ndarray]:
        for number in range(table.num_rows):
            cell = table[key][number].as_py() or {}
            try:
                data = cell.get("bytes") or (self._root / (cell.get("path") or "")).read_bytes()
                yield decode_image(data)
            except (OSError, ValueError) as error:
                raise CorruptInputError(
                    take.data, f"episode {take.index}, {key}, frame {number}: {error}"
                ) from error

    def _last_frame(self, camera: str, index: int) -> np.ndarray:
        path = self._root / layout.OWN_FRAME.format(camera=camera, episode_index=index)
        try:
            return decode_image(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CorruptInputError(path, error) from error


def _ended(table: Any) -> bool:
    return bool(numbers_of(table, DONE, bool)[-1, 0])
