"""Where a LeRobotDataset keeps what: in v2 a file per episode, in v3 many episodes to a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_datasets.formats.contract import CorruptInputError, FormatError, need
from wm_datasets.spec import LogSpec

VERSIONS = ("v3.0", "v2.1")
READABLE = ("v2.0", *VERSIONS)
CHUNK = 1000  # files in a folder
DATA_BYTES, VIDEO_BYTES = 100 << 20, 200 << 20  # at which v3 begins the next file
IMAGES = "observation.images."
STATE = "observation.state"
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
    films: dict[str, tuple[Path, float]]  # video key -> path, begin [s]


def read_info(root: Path) -> dict[str, Any]:
    """Return meta/info.json; FormatError where this is no dataset of a version that we read."""
    path = root / "meta/info.json"
    if not path.exists():
        inner = sorted(p.parents[1].relative_to(root).as_posix()
                       for p in root.glob("*/meta/info.json"))  # fmt: skip
        hint = f" Right: one of its folders {inner}." if inner else ""
        raise FormatError(f"{root} holds no meta/info.json: not LeRobot's layout.{hint}")
    try:
        info = json.loads(path.read_text())
        version, fps, features = info["codebase_version"], info["fps"], info["features"]
        if not (fps > 0 and isinstance(features, dict) and info["data_path"]):
            raise ValueError(f"fps {fps}, {len(features)} features")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptInputError(path, f"not what LeRobot writes ({error!r})") from error
    if version not in READABLE:
        raise FormatError(f"{path}: version {version!r}, right: {', '.join(READABLE)}")
    return dict(info)


def read_takes(root: Path, info: dict[str, Any], video_keys: list[str]) -> list[Take]:
    """The dataset's episodes, by index."""
    v3 = info["codebase_version"] == "v3.0"
    folder = root / ("meta/episodes" if v3 else "meta/episodes.jsonl")
    try:
        found = _episodes_v3(folder) if v3 else _json_lines(folder)
        return [_take(root, info, video_keys, episode) for episode in found]
    except FileNotFoundError as error:
        raise FormatError(f"{root} has no {error.filename}: not LeRobot's layout") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptInputError(folder, repr(error)) from error


def _take(root: Path, info: dict[str, Any], keys: list[str], episode: dict[str, Any]) -> Take:
    index = int(episode["episode_index"])
    films: dict[str, tuple[Path, float]] = {}
    if info["codebase_version"] == "v3.0":
        at = {"chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"]}
        for key in keys:
            part = {name: episode[f"videos/{key}/{name}"] for name in at}
            path = root / info["video_path"].format(video_key=key, **part)
            films[key] = (path, float(episode[f"videos/{key}/from_timestamp"]))
    else:
        chunk = index // int(info.get("chunks_size", CHUNK))
        at = {"episode_chunk": chunk, "episode_index": index}
        films = {k: (root / info["video_path"].format(video_key=k, **at), 0.0) for k in keys}
    data = root / info["data_path"].format(**at)
    return Take(index, int(episode["length"]), tuple(episode["tasks"]), data, films)


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
