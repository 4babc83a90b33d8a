"""Where a LeRobotDataset keeps what: in v2 a file per episode, in v3 many episodes to a file."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_datasets.formats.base import CorruptInputError, FormatError, need
from wm_datasets.spec import LogSpec

VERSIONS = ("v3.0", "v2.1")
READABLE = ("v2.0", *VERSIONS)
CHUNK = 1000  # files in a folder
DATA_BYTES, VIDEO_BYTES = 100 << 20, 200 << 20  # at which v3 begins the next file
IMAGES = "observation.images."
STATE = "observation.state"
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
DATA = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO = {
    "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
OWN_SPEC, OWN_LAST = "wm/spec.json", "wm/last.parquet"  # beside, where LeRobot does not look
OWN_FRAME = "wm/last/{camera}/episode_{episode_index:06d}.png"


@dataclass(frozen=True)
class Take:
    """Where an episode lies: its table, and of each video the file and where it begins in it."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, tuple[Path, float]]  # video key -> path, begin [s]


def read_info(root: Path) -> dict[str, Any]:
    """Return meta/info.json; FormatError where this is no dataset of a version that we read."""
    path = root / "meta/info.json"
    if not path.exists():
        inner = sorted(p.parents[1].relative_to(root).as_posix()
                       for p in root.glob("*/meta/info.json"))  # fmt: skip
        hint = f" Give one of its folders: {', '.join(inner)}." if inner else ""
        raise FormatError(f"{root}: no meta/info.json, so it is not LeRobot's layout.{hint}")
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise CorruptInputError(path, f"it is not JSON ({error}).") from error
    if not isinstance(info, dict):
        raise CorruptInputError(path, f"got a JSON {type(info).__name__}, expected an object.")
    version = info.get("codebase_version")
    if version not in READABLE:
        raise FormatError(
            f"{path}: version: got {version!r}, expected one of {', '.join(READABLE)}."
        )
    for name, (right, is_right) in _INFO.items():
        if not is_right(info.get(name)):
            raise CorruptInputError(path, f"{name}: got {info.get(name)!r}, expected {right}.")
    return info


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


_INFO: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "fps": ("a number > 0", _is_rate),
    "features": ("an object of features", lambda value: isinstance(value, dict)),
    "data_path": ("a path as text", lambda value: isinstance(value, str) and bool(value)),
    "video_path": ("a path as text, or null", lambda value: isinstance(value, str | None)),
    "robot_type": ("text, or null", lambda value: isinstance(value, str | None)),
    "splits": ("an object, or null", lambda value: isinstance(value, dict | None)),
    "chunks_size": ("a number > 0, or null", lambda v: v is None or (_is_count(v) and v > 0)),
    "total_episodes": ("a count", lambda value: value is None or _is_count(value)),
    "total_frames": ("a count", lambda value: value is None or _is_count(value)),
}


def read_features(info: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the features that say their type and shape, and the names of the others.

    What a frame's indices are is known without.
    """
    good, odd = {}, []
    for name, feature in info["features"].items():
        if _is_feature(feature):
            good[name] = feature
        elif name in INDICES:
            good[name] = {"dtype": "int64", "shape": [1], "names": None}
        else:
            odd.append(name)
    return good, odd


def _is_feature(feature: Any) -> bool:
    if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
        return False
    shape = feature.get("shape")
    if not isinstance(shape, list) or not shape or not all(_is_count(n) and n for n in shape):
        return False
    return len(shape) == 3 or feature["dtype"] not in ("video", "image")


def read_takes(root: Path, info: dict[str, Any], video_keys: list[str]) -> list[Take]:
    """The dataset's episodes, by index."""
    v3 = info["codebase_version"] == "v3.0"
    folder = root / ("meta/episodes" if v3 else "meta/episodes.jsonl")
    try:
        episodes = _episodes_v3(folder) if v3 else _json_lines(folder)
        takes = [_take(root, info, video_keys, episode) for episode in episodes]
    except FileNotFoundError as error:
        raise FormatError(f"{root}: no {error.filename}, so it is not LeRobot's layout.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptInputError(folder, repr(error)) from error
    takes.sort(key=lambda take: take.index)
    if wrong := _contradiction(info, takes):
        raise CorruptInputError(folder, f"{wrong}. Give the whole dataset, as LeRobot wrote it.")
    return takes


def _contradiction(info: dict[str, Any], takes: list[Take]) -> str:
    """Return what the list of episodes and info.json disagree about; empty: nothing."""
    times = Counter(take.index for take in takes)
    if doubled := [index for index, count in times.items() if count > 1]:
        return f"episodes: got {_some(doubled)} more than once, expected each once"
    episodes, frames = len(takes), sum(take.length for take in takes)
    if (declared := info.get("total_episodes")) not in (None, episodes):
        absent = [index for index in range(min(declared, 10**6)) if index not in times]
        lacking = f"; not listed: {_some(absent)}" if absent else ""
        return f"episodes: got {episodes}, expected {declared} as in meta/info.json{lacking}"
    if (declared := info.get("total_frames")) not in (None, frames):
        return f"frames: got {frames} in all, expected {declared} as in meta/info.json"
    return ""


def _some(numbers: list[int], shown: int = 10) -> str:
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return ", ".join(map(str, numbers[:shown])) + more


def _take(root: Path, info: dict[str, Any], keys: list[str], episode: dict[str, Any]) -> Take:
    index = int(episode["episode_index"])
    videos: dict[str, tuple[Path, float]] = {}
    if info["codebase_version"] == "v3.0":
        at = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        for key in keys:
            part = {name: episode[f"videos/{key}/{name}"] for name in at}
            path = _path(root, info, "video_path", video_key=key, **part)
            videos[key] = (path, float(episode[f"videos/{key}/from_timestamp"]))
    else:
        chunk = index // int(info.get("chunks_size") or CHUNK)
        at = {"episode_chunk": chunk, "episode_index": index}
        videos = {k: (_path(root, info, "video_path", video_key=k, **at), 0.0) for k in keys}
    data = _path(root, info, "data_path", **at)
    tasks = [episode["tasks"]] if isinstance(episode["tasks"], str) else episode["tasks"]
    return Take(index, int(episode["length"]), tuple(map(str, tasks)), data, videos)


def _path(root: Path, info: dict[str, Any], name: str, **at: Any) -> Path:
    """Fill in a path of info.json, which must lie below the dataset's folder."""
    pattern = info.get(name)
    try:
        path = Path(str(pattern.format(**at))) if pattern else None
    except (KeyError, IndexError, ValueError, AttributeError, TypeError):
        path = None
    if path is None or path.is_absolute() or ".." in path.parts:
        right = "a path below the dataset's folder, made of " + ", ".join(at)
        raise CorruptInputError(
            root / "meta/info.json", f"{name}: got {pattern!r}, expected {right}."
        )
    return root / path


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from (json.loads(line) for line in file if line.strip())


def _episodes_v3(folder: Path) -> Iterator[dict[str, Any]]:
    parquet = need("pyarrow.parquet")
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise FileNotFoundError(None, None, str(folder))
    for path in paths:
        with parquet.ParquetFile(path) as file:
            names = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
            yield from file.read(columns=names).to_pylist()


# How a log's fields are called there -----------------------------------------------------------


def camera_key(spec: LogSpec, camera: str) -> str:
    """Key of a camera: the one that it came with, or observation.images.<camera>."""
    known = spec.extra.get("lerobot", {}).get("cameras", {})
    return str(known.get(camera, IMAGES + camera))


def camera_name(key: str) -> str:
    """Name of a camera, from its key."""
    short = key.removeprefix(IMAGES).removeprefix("observation.")
    return re.sub(r"[^A-Za-z0-9_-]", "_", short).lstrip("_-") or "camera"


def proprio_parts(spec: LogSpec) -> dict[str, int]:
    """Keys that proprio is made of, with their sizes."""
    if spec.proprio is None:
        return {}
    known = spec.extra.get("lerobot", {}).get("proprio", {})
    return known if sum(known.values()) == len(spec.proprio) else {STATE: len(spec.proprio)}


def names_of(feature: dict[str, Any], key: str) -> list[str]:
    """What the dimensions of a vector are called; LeRobot has lists and dicts of lists."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = [n for part in names.values() for n in (part if isinstance(part, list) else [part])]
    size = int(feature["shape"][0])
    if not isinstance(names, list) or len(names) != size or len({*map(str, names)}) != size:
        short = key.removeprefix("observation.")
        return [f"{short}[{i}]" for i in range(size)] if size > 1 else [short]
    return [str(name) for name in names]
