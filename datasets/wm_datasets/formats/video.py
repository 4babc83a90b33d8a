"""Plain video: files into a log without actions, and a log's frames into files.

SRC is a file, a folder of files (an episode each), or a folder of folders named by camera, in which
files of one name are one episode seen by several cameras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    CorruptInputError,
    Episode,
    Exporter,
    FormatError,
    Importer,
    Options,
    exportable,
    need,
    rows_of,
)
from wm_datasets.formats.video_decoder import VideoInfo, decode, probe
from wm_datasets.log.reader import LogReader
from wm_datasets.spec import LogSpec

SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
TICK = Fraction(1, 1_000_000)  # [s], of the stamps in what is written


class Import(Importer):
    """A log with frames and stamps only: actions, rewards and joints are unknown."""

    uses = frozenset({"robot", "task", "period_s", "camera"})

    def __init__(self, source: Path, options: Options) -> None:
        self._files = _find(source, options.camera or "camera")
        self.keys = sorted(self._files)
        self.losses: list[str] = []
        cameras: dict[str, VideoInfo] = {}
        infos: list[VideoInfo] = []
        for key in self.keys:
            for camera, path in self._files[key].items():
                try:
                    info = probe(path)
                except CorruptInputError:
                    continue  # rows() of this key raises it
                infos.append(info)
                first = cameras.setdefault(camera, info)
                shape, other = (first.height, first.width), (info.height, info.width)
                if shape != other and not self.unequal:
                    self.unequal = (
                        f"{path}: frames: got {other}, expected {shape} (height, width) as in the "
                        "files before it. Give --size HEIGHT WIDTH, or make one log per size."
                    )
        if not infos:
            raise CorruptInputError(source, "none of its files is a readable video.")
        if options.camera and options.camera not in cameras:
            raise FormatError(
                f"--camera: got {options.camera!r}, expected no value, because folders name the "
                f"cameras: {', '.join(cameras)}. Leave it out."
            )
        self.spec = LogSpec(
            robot=options.robot or "unknown",
            task=options.task or source.stem,
            control_period_s=options.period_s or infos[0].period_s,
            cameras={c: (i.height, i.width, 3) for c, i in cameras.items()},
            proprio=None,
            action=None,
            extra={"absent": ["action", "reward", "proprio", "success"]},
        )
        self._add_losses(infos)

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        files = self._files[key]
        if files.keys() != self.spec.cameras.keys():
            missing = sorted(self.spec.cameras.keys() - files.keys())
            raise CorruptInputError(
                next(iter(files.values())), f"no file of the cameras {missing}."
            )
        streams = {c: decode(path) for c, path in files.items()}
        before: dict[str, Any] | None = None
        t = 0
        while frames := {c: f for c, stream in streams.items() if (f := next(stream, None))}:
            if len(frames) != len(streams):
                ended = sorted(streams.keys() - frames.keys())
                raise CorruptInputError(
                    files[ended[0]], f"got {t} frames, expected as many as other cameras have."
                )
            if before is not None:
                yield before
            arrays = {f"image/{c}": frame[None] for c, (_, frame) in frames.items()}
            arrays["stamp"] = np.array([next(iter(frames.values()))[0]])
            before = next(rows_of(self.spec, arrays, 1)) | {"is_first": t == 0, "is_last": False}
            t += 1
        if before is not None:
            yield before | {"is_last": True}

    def _add_losses(self, infos: list[VideoInfo]) -> None:
        period = self.spec.control_period_s
        rates = sorted({round(1 / i.period_s, 3) for i in infos})
        if any(abs(i.period_s - period) > 0.01 * period for i in infos):
            self.losses.append(
                f"one rate: the files have {rates} Hz, the log says {1 / period:g} Hz (the stamps "
                "of the frames are kept)"
            )
        if any(i.audio for i in infos):
            self.losses.append("sound")
        if deep := sorted({i.pixels for i in infos if i.pixels.endswith(("10le", "12le", "16le"))}):
            self.losses.append(f"more than 8 bits per colour ({', '.join(deep)})")
        if len(self.spec.cameras) > 1:
            self.losses.append("stamps of all cameras but the first, whose are the rows'")


class Export(Exporter):
    """DST/<camera>/episode_000000.mkv (FFV1, exact) or .mp4 (H.264) with `lossy`."""

    uses = frozenset({"lossy"})

    def __init__(self, reader: LogReader, options: Options) -> None:
        self._spec, self.losses = exportable(reader)
        self._lossy = options.lossy
        if not self._spec.cameras:
            raise FormatError(
                "log: got one without cameras, expected a camera for videos. Choose another format."
            )
        kept = {f"image/{c}" for c in self._spec.cameras} | {"stamp", "is_first", "is_last"}
        self.losses += [f"fields: {', '.join(f for f in self._spec.fields if f not in kept)}"]
        self.losses.append("robot, units, names, extra; stamps begin at 0 and are rounded to 1 us")
        if self._lossy:
            self.losses.append("exact pixels (H.264 at crf 18, colours at half resolution)")
        if not all(reader.episodes["complete"]):
            self.losses.append("which episodes were cut")

    def open(self, destination: Path) -> None:
        self._folder, self._count = destination, 0
        for camera in self._spec.cameras:
            (destination / camera).mkdir(parents=True)

    def write(self, episode: Episode) -> None:
        suffix = "mp4" if self._lossy else "mkv"
        stamps = episode.read("stamp")
        for camera in self._spec.cameras:
            path = self._folder / camera / f"episode_{self._count:06d}.{suffix}"
            encode(path, episode.frames(camera), stamps, self._spec.control_period_s, self._lossy)
        self._count += 1

    def finish(self) -> None:
        pass


class VideoWriter:
    """A video that is being written, frame by frame: FFV1, exact, or with `lossy` H.264.

    `tick` [s] is the unit of its frames' times; every `keys`-th frame can be sought, 0: as the
    encoder likes.
    """

    def __init__(
        self, path: Path, rate: Fraction, *, lossy: bool, tick: Fraction = TICK, keys: int = 0
    ) -> None:
        self._av, self._lossy, self._tick, self._keys = need("av"), lossy, tick, keys
        self._container = self._av.open(str(path), "w")
        self._stream = self._container.add_stream("libx264" if lossy else "ffv1", rate=rate)
        self._stream.time_base = self._stream.codec_context.time_base = tick
        self._stream.thread_type = "NONE"
        self._last = -1

    def add(self, frame: np.ndarray, at: int) -> None:
        """Append a frame (H, W, 3) uint8 at a time [ticks], or a tick after the one before."""
        stream = self._stream
        if self._last < 0:
            stream.height, stream.width = frame.shape[:2]
            stream.pix_fmt = pixel_format(*frame.shape[:2]) if self._lossy else "bgr0"
            if self._lossy:
                stream.options = {"crf": "18", "preset": "veryfast"}
                stream.options |= {"g": str(self._keys), "bf": "0"} if self._keys else {}
        image = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._last = max(self._last + 1, at)
        image.pts, image.time_base = self._last, self._tick
        self._container.mux(stream.encode(image))

    def close(self) -> None:
        """Write what the encoder still holds."""
        try:
            self._container.mux(self._stream.encode())
        finally:
            self._container.close()


def pixel_format(height: int, width: int) -> str:
    """Of H.264: colours at half resolution need even sides."""
    return "yuv444p" if height % 2 or width % 2 else "yuv420p"


def encode(
    path: Path, frames: Iterator[np.ndarray], stamps: np.ndarray, period_s: float, lossy: bool
) -> None:
    """Write a video whose frames carry `stamps` [ns], the first at 0."""
    rate = Fraction(1 / period_s).limit_denominator(1001)
    with closing(VideoWriter(path, rate, lossy=lossy)) as video:
        for frame, stamp in zip(frames, stamps):
            video.add(frame, round((int(stamp) - int(stamps[0])) / 1000))


def _find(source: Path, camera: str) -> dict[str, dict[str, Path]]:
    """Episode's key -> camera -> file."""
    if source.is_file():
        return {source.stem: {camera: source}}
    episodes: dict[str, dict[str, Path]] = {}
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES):
        parts = path.relative_to(source).parts
        if len(parts) > 2:
            raise FormatError(f"source: got {path}, expected SRC/*.mp4 or SRC/<camera>/*.mp4.")
        files = episodes.setdefault(path.stem, {})
        name = parts[0] if len(parts) == 2 else camera
        if name in files:
            raise FormatError(
                f"source: got {path} and {files[name]}, expected one file for each name. Rename "
                "one."
            )
        files[name] = path
    if not episodes:
        raise FormatError(f"{source}: no video in it ({', '.join(SUFFIXES)}).")
    return episodes
