"""One video file: what its header says, and its frames as they are shown, to the last one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import CorruptInputError, need

_WHOLE_TIMELINE = ("matroska", "webm")  # whose duration counts from 0, not from the first frame
_SAYING_DURATION = (*_WHOLE_TIMELINE, "mov", "mp4", "avi")
_LATE = Fraction(3, 2)  # of the longest frame: the last one's end may be that much off
_NEAR = math.sin(math.radians(1))  # as near to a multiple of 90 degrees as ffmpeg wants it
_NS = 1_000_000_000


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says; height and width are those of the frames as shown."""

    height: int
    width: int
    period_s: float
    pixels: str
    audio: bool


def probe(path: Path) -> VideoInfo:
    """Read a video's header and first frame, or say that the file is corrupt."""
    av = need("av")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            if not rate:
                raise ValueError("it does not say its frame rate")
            stream.thread_type = "NONE"
            first = next(container.decode(stream), None)
            turn = Turn.of(first) if first is not None else Turn()
            codec = stream.codec_context
            height, width = turn.size(codec.height, codec.width)
            return VideoInfo(height, width, float(1 / rate), codec.pix_fmt or "",
                             bool(container.streams.audio))  # fmt: skip
    except IndexError:
        raise CorruptInputError(path, "it holds no video.") from None
    except (av.FFmpegError, ValueError) as error:
        raise CorruptInputError(path, f"it is not a readable video ({error}).") from error


@dataclass(frozen=True)
class Turn:
    """How stored frames are turned to be shown, as ffmpeg does: transposed, then mirrored."""

    transpose: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, frame: Any) -> Turn:
        """Read the display matrix of a frame; ValueError where it is no multiple of 90 degrees."""
        matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[
            :5
        ].tolist()  # x' = ax+cy, y' = bx+dy
        flat = max(map(abs, (a, b, c, d))) * _NEAR
        if max(abs(b), abs(c)) <= flat < min(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if max(abs(a), abs(d)) <= flat < min(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        angle = math.degrees(math.atan2(b, a))
        raise ValueError(f"rotation: got {angle:.0f} degrees, expected a multiple of 90")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of a frame after the turn, or of the one before it."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn a frame (H, W, 3)."""
        shown = pixels.swapaxes(0, 1) if self.transpose else pixels
        return shown[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


def decode(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (stamp [ns], frame (H, W, 3) uint8), as shown.

    CorruptInputError at the first broken frame, and where the file ends before its header says.
    """
    av = need("av")
    last: int | None = None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"}
            count, end = 0, _End()
            for packet in container.demux():
                end.add_packet(packet)
                for frame in packet.decode() if packet.stream is stream else ():
                    if frame.pts is None or frame.is_corrupt:
                        raise ValueError(f"frame {count} is damaged")
                    stamp = round(frame.pts * frame.time_base * _NS)
                    if last is not None and stamp <= last:
                        raise ValueError(
                            f"frame {count}: stamp: got {stamp} ns after {last} ns, expected "
                            "growing stamps"
                        )
                    if last is not None:
                        end.longest = max(end.longest, Fraction(stamp - last, _NS))
                    last, count = stamp, count + 1
                    turn = Turn.of(frame)
                    pixels = frame.to_ndarray(format="rgb24")
                    yield stamp, turn.apply(pixels)
            if not count:
                raise ValueError("it holds no frame")
            end.check(container, stream, count)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise CorruptInputError(path, error) from error


class _End:
    """Where the packets of all streams end [s], held against what the header says."""

    def __init__(self) -> None:
        self._first: Fraction | None = None
        self._last = Fraction(0)
        self.longest = Fraction(0)  # frame but the last

    def add_packet(self, packet: Any) -> None:
        if packet.pts is None or packet.time_base is None:
            return
        begin = packet.pts * packet.time_base
        self._first = begin if self._first is None else min(self._first, begin)
        self._last = max(self._last, begin + (packet.duration or 0) * packet.time_base)

    def check(self, container: Any, stream: Any, count: int) -> None:
        """Raise ValueError where the file was cut.

        A count of frames is not enough to say so: an edit list shows only some of them.
        """
        if stream.frames and count >= stream.frames:
            return
        kinds = container.format.name.split(",")
        if container.duration and any(kind in _SAYING_DURATION for kind in kinds):
            begin = 0 if kinds[0] in _WHOLE_TIMELINE else self._first or 0
            declared, duration = Fraction(container.duration, 1_000_000), self._last - begin
            period = 1 / (stream.average_rate or Fraction(1))
            if "avi" in kinds:  # ffmpeg measures its duration on what is left
                declared = max(declared, stream.frames * period)
            longest = self.longest or period
            if duration < declared - _LATE * longest:
                raise ValueError(
                    f"it is cut short: got {count} frames up to {float(duration):.3f} s, expected "
                    f"{float(declared):.3f} s as in its header"
                )
        elif stream.frames:
            raise ValueError(
                f"it is cut short: got {count} frames, expected {stream.frames} as in its header"
            )
