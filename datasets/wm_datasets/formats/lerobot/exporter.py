"""A log into a LeRobotDataset of v3.0 or v2.1, which LeRobot's own reader opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

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
from wm_datasets.formats.lerobot import layout, stats
from wm_datasets.formats.lerobot.contents import ACTION, DONE, OWN, REWARD, SUCCESS
from wm_datasets.formats.lerobot.frames import encode_png
from wm_datasets.formats.lerobot.layout import CHUNK, INDICES, camera_key, proprio_parts
from wm_datasets.formats.lerobot.videos import Videos
from wm_datasets.formats.video import pixel_format
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec

_INTEGERS = ("stamp", "source", "weights")  # int64 there; LeRobot has no smaller ones everywhere


class Export(Exporter):
    """One frame for each action; an episode's last observation, which has none, lies beside."""

    uses = frozenset({"version", "lossy"})

    def __init__(self, reader: LogReader, options: Options) -> None:
        version = options.version or layout.VERSIONS[0]
        self._version = version if version.startswith("v") else f"v{version}"
        if self._version not in layout.VERSIONS:
            raise FormatError(
                f"--version: got {version!r}, expected one of {', '.join(layout.VERSIONS)}."
            )
        self._spec, self.losses = exportable(reader)
        self._video = options.lossy
        self._rate = Fraction(1 / reader.spec.control_period_s).limit_denominator(1001)
        episodes = episodes_of(reader)
        counts = [self._frames(episode) for episode in episodes]
        if not any(counts):
            raise FormatError(
                "log: got no episode with an action, expected one or more. LeRobot cannot open a "
                "dataset without frames."
            )
        if empty := counts.count(0):
            self.losses.append(f"{empty} episodes without any action")
        if self._video and reader.spec.cameras:
            self.losses.append("exact pixels (H.264 at crf 18; without --lossy: PNG, exact)")
        if self._rate.denominator > 1:
            self.losses.append(
                f"a whole number of frames per second, which LeRobot's tools like: it is "
                f"{float(self._rate):g}"
            )

    def open(self, destination: Path) -> None:
        self._root = destination
        (destination / "meta").mkdir(parents=True)
        self._columns = _columns(self._spec)
        self._video_files = Videos(destination, self._version, self._rate)
        self._data = _Tables(destination, self._version, self._schema())
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, stats.Stats]] = []
        self._last: list[dict[str, Any]] = []
        self._total = 0

    def write(self, episode: Episode) -> None:
        count, index = self._frames(episode), len(self._episodes)
        if count == 0:
            return
        pyarrow = need("pyarrow")
        values = self._values(episode, count, index)
        quantiles = self._version == "v3.0"
        statistics = {k: stats.of_values(v.reshape(count, -1), quantiles=quantiles)
                 for k, v in values.items()}  # fmt: skip
        columns = {k: _array(pyarrow, v) for k, v in values.items()}
        entry = {"episode_index": index, "tasks": [self._spec.task], "length": count}
        for camera in self._spec.cameras:
            key = camera_key(self._spec, camera)
            sampled: list[np.ndarray] = []
            frames = self._tapped(episode, camera, count, index, sampled)
            if self._video:
                entry |= self._video_files.write(key, index, frames)
            else:
                cells = [{"bytes": encode_png(frame), "path": f"frame-{i:06d}.png"}
                         for i, frame in enumerate(frames)]  # fmt: skip
                columns[key] = pyarrow.array(cells, self._data.schema.field(key).type)
            statistics[key] = stats.of_frames(sampled, quantiles=quantiles)
        table = pyarrow.table([columns[n] for n in self._data.schema.names],
                              schema=self._data.schema)  # fmt: skip
        entry |= self._data.write(table, index)
        entry |= {"dataset_from_index": self._total, "dataset_to_index": self._total + count}
        self._total += count
        self._episodes.append(entry)
        self._stats.append(statistics)
        if episode.length > count:
            scalars = [f for f in self._spec.fields if not f.startswith("image/")]
            row = {name: episode.read(name)[count].tolist() for name in scalars}
            self._last.append({"episode_index": index, **row})

    def finish(self) -> None:
        self._video_files.close()
        self._data.close()
        pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
        _write_json(self._root / "meta/info.json", self._info())
        (self._root / "wm").mkdir(exist_ok=True)
        _write_json(self._root / layout.OWN_SPEC, self._spec.to_json())
        last = pyarrow.Table.from_pylist(self._last)
        parquet.write_table(last, self._root / layout.OWN_LAST)
        if self._version == "v3.0":
            self._finish_v3()
        else:
            self._finish_v21()

    # --------------------------------------------------------------------------------------------

    def _frames(self, episode: Episode) -> int:
        """Frames that an episode has there: one for each action, or all of a log without."""
        return episode.length if self._spec.action is None else episode.steps

    def _values(self, episode: Episode, count: int, index: int) -> dict[str, np.ndarray]:
        """Columns of numbers: (count,) or (count, d)."""
        values: dict[str, np.ndarray] = {}
        parts = proprio_parts(self._spec)
        if parts:
            cuts = np.cumsum(list(parts.values()))[:-1]
            whole = episode.read("proprio")[:count]
            values |= dict(zip(parts, np.split(whole, cuts, axis=1)))
        for key, (field, _) in self._columns.items():
            column = episode.read(field)[:count]
            values[key] = column.astype(np.int64) if field in _INTEGERS else column
        done = np.zeros(count, bool)
        done[-1] = episode.complete
        numbers = np.arange(count)
        values |= {
            DONE: done,
            "timestamp": (numbers / float(self._rate)).astype(np.float32),
            "frame_index": numbers,
            "episode_index": np.full(count, index),
            "index": self._total + numbers,
            "task_index": np.zeros(count, np.int64),
        }
        return values

    def _tapped(
        self, episode: Episode, camera: str, count: int, index: int, sampled: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yield the frames that have an action; keep some for statistics, and write the last."""
        every = max(1, count // stats.SAMPLES)
        for number, frame in enumerate(episode.frames(camera)):
            if number < count:
                if number % every == 0:
                    sampled.append(frame)
                yield frame
            else:
                name = layout.OWN_FRAME.format(camera=camera, episode_index=index)
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                (self._root / name).write_bytes(encode_png(frame))

    def _features(self) -> dict[str, dict[str, Any]]:
        """The dataset's features, as info.json has them."""
        spec = self._spec
        features: dict[str, dict[str, Any]] = {}
        for camera, (height, width, _) in spec.cameras.items():
            feature: dict[str, Any] = {
                "dtype": "video" if self._video else "image",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
            }
            if self._video:
                feature["info"] = {
                    "video.height": height, "video.width": width, "video.codec": "h264",
                    "video.pix_fmt": pixel_format(height, width), "video.is_depth_map": False,
                    "video.fps": self._fps, "video.channels": 3, "has_audio": False,
                }  # fmt: skip
            features[camera_key(spec, camera)] = feature
        begin = 0
        for key, size in proprio_parts(spec).items():
            assert spec.proprio is not None
            names = list(spec.proprio.names[begin : begin + size])
            features[key] = {"dtype": "float32", "shape": [size], "names": names}
            begin += size
        for key, (field, names_) in self._columns.items():
            kind = "int64" if field in _INTEGERS else spec.fields[field].dtype.name
            shape = list(spec.fields[field].shape) or [1]
            features[key] = {"dtype": kind, "shape": shape, "names": names_}
        features[DONE] = {"dtype": "bool", "shape": [1], "names": None}
        for key in INDICES:
            kind = "float32" if key == "timestamp" else "int64"
            features[key] = {"dtype": kind, "shape": [1], "names": None}
        return features

    @property
    def _fps(self) -> int | float:
        whole = self._rate.denominator == 1
        return self._rate.numerator if whole else float(self._rate)

    def _schema(self) -> Any:
        """Arrow's schema of the tables, with what Hugging Face's datasets want to know of it."""
        pyarrow = need("pyarrow")
        listed = "List" if self._version == "v3.0" else "Sequence"
        fields: list[tuple[str, Any]] = []
        features: dict[str, Any] = {}
        for key, feature in self._features().items():
            kind, size = feature["dtype"], feature["shape"][0]
            if kind == "video":
                continue
            if kind == "image":
                cell = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
                fields.append((key, cell))
                features[key] = {"_type": "Image"}
                continue
            number = pyarrow.bool_() if kind == "bool" else getattr(pyarrow, kind)()
            value = {"dtype": kind, "_type": "Value"}
            fields.append((key, number if size == 1 else pyarrow.list_(number, size)))
            features[key] = (
                value if size == 1 else {"feature": value, "length": size, "_type": listed}
            )
        about = json.dumps({"info": {"features": features}})
        return pyarrow.schema(fields, metadata={"huggingface": about})

    def _info(self) -> dict[str, Any]:
        count = len(self._episodes)
        videos = len(self._spec.cameras) if self._video else 0
        sizes = (
            {"data_files_size_in_mb": layout.DATA_BYTES >> 20,
             "video_files_size_in_mb": layout.VIDEO_BYTES >> 20}
            if self._version == "v3.0"
            else {"total_videos": videos * count, "total_chunks": -(-count // CHUNK)}
        )  # fmt: skip
        return {
            "codebase_version": self._version,
            "robot_type": self._spec.robot,
            "total_episodes": count,
            "total_frames": self._total,
            "total_tasks": 1,
            "chunks_size": CHUNK,
            **sizes,
            "fps": self._fps,
            "splits": {"train": f"0:{count}"},
            "data_path": layout.DATA[self._version],
            "video_path": layout.VIDEO[self._version] if videos else None,
            "features": self._features(),
        }

    def _finish_v21(self) -> None:
        names = ("episode_index", "tasks", "length")
        meta = self._root / "meta"
        episodes = [{name: e[name] for name in names} for e in self._episodes]
        _write_lines(meta / "episodes.jsonl", episodes)
        _write_lines(meta / "tasks.jsonl", [{"task_index": 0, "task": self._spec.task}])
        statistics = [{"episode_index": i, "stats": s} for i, s in enumerate(self._stats)]
        _write_lines(meta / "episodes_stats.jsonl", statistics)

    def _finish_v3(self) -> None:
        pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")
        rows = []
        for episode, statistics in zip(self._episodes, self._stats):
            flat = {f"stats/{k}/{n}": v for k, part in statistics.items() for n, v in part.items()}
            at = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            rows.append(episode | flat | at)
        path = self._root / "meta/episodes/chunk-000/file-000.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        every = {key: stats.together([s[key] for s in self._stats]) for key in self._stats[0]}
        _write_json(self._root / "meta/stats.json", every)
        parquet.write_table(_tasks(pyarrow, self._spec.task), self._root / "meta/tasks.parquet")


class _Tables:
    """Parquet files of the frames: one per episode, or in v3 many episodes to a file."""

    def __init__(self, root: Path, version: str, schema: Any) -> None:
        self.schema, self._root, self._version = schema, root, version
        self._file, self._writer = 0, None

    _writer: Any

    def write(self, table: Any, index: int) -> dict[str, int]:
        """Write an episode; return what v3 keeps of where it is."""
        parquet = need("pyarrow.parquet")
        if self._version != "v3.0":
            at = {"episode_chunk": index // CHUNK, "episode_index": index}
            parquet.write_table(table, self._path(at))
            return {}
        at = {"chunk_index": self._file // CHUNK, "file_index": self._file % CHUNK}
        path = self._path(at)
        if self._writer is None:
            self._writer = parquet.ParquetWriter(path, self.schema)
        self._writer.write_table(table)
        if path.stat().st_size >= layout.DATA_BYTES:
            self.close()
            self._file += 1
        return {f"data/{name}": number for name, number in at.items()}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _path(self, at: dict[str, int]) -> Path:
        path = self._root / layout.DATA[self._version].format(**at)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _columns(spec: LogSpec) -> dict[str, tuple[str, list[str] | None]]:
    """Columns that are one field of the log each: key -> field, names of its dimensions."""
    columns: dict[str, tuple[str, list[str] | None]] = {}
    if spec.action is not None:
        columns[ACTION] = ("action", list(spec.action.names))
    if spec.reward:
        columns[REWARD] = ("reward", None)
    columns[SUCCESS] = ("success", None)
    for name in [n for n in OWN if n in spec.fields]:
        vector = {"commanded": spec.action, "signals": spec.signals}.get(name)
        columns[OWN[name]] = (name, list(vector.names) if vector else None)
    return columns


def _array(pyarrow: Any, values: np.ndarray) -> Any:
    """Numbers, or lists of numbers where there are several for each frame."""
    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    size = values.shape[1] if values.ndim == 2 else 1
    return flat if size == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, size)


def _tasks(pyarrow: Any, task: str) -> Any:
    """A table as pandas writes it, indexed by the tasks' texts."""
    name = "__index_level_0__"
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64",
         "numpy_type": "int64", "metadata": None},
        {"name": None, "field_name": name, "pandas_type": "unicode",
         "numpy_type": "object", "metadata": None},
    ]  # fmt: skip
    header = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object",
              "metadata": {"encoding": "UTF-8"}}  # fmt: skip
    about = {"index_columns": [name], "column_indexes": [header], "columns": columns,
             "pandas_version": "2.2.0"}  # fmt: skip
    table = pyarrow.table({"task_index": [0], name: [task]})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=4, ensure_ascii=False))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
