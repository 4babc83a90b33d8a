"""Episodes as a video: enlarged images, each below lines of text with step, reward and success."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from wm_datasets import LogReader
from wm_nodes.atomic_file import replacing
from wm_nodes.robots.robot import Image

CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that the installed PyAV can write
SIDE = 320  # smallest image side in the video, pixels
BAR = 44  # height of the text above, pixels


def write_video(path: str | Path, frames: Iterable[Image], rate_hz: float) -> str:
    """Write (H, W, 3) frames of even size as MP4, complete or not at all; return the codec."""
    import av

    codec = next(name for name in CODECS if name in av.codecs_available)
    with replacing(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=max(1, round(rate_hz)))
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return codec


def episode_frames(
    log: LogReader, camera: str, episodes: Iterable[tuple[int, int, int]]
) -> Iterator[Image]:
    """Yield labelled frames of episodes given as (number, start row, rows)."""
    for number, start, rows in episodes:
        images = log.read(f"image/{camera}", start, start + rows)
        rewards = np.concatenate([[0.0], log.read("reward", start, start + rows)[:-1]])
        success = np.concatenate([[False], log.read("success", start, start + rows)[:-1]])
        total, done = np.cumsum(rewards), np.logical_or.accumulate(success)
        for row, image in enumerate(images):
            lines = (
                f"{log.spec.task}   episode {number}   agent step {row}",
                f"reward {rewards[row]:.1f}   return {total[row]:.0f}   "
                + ("success" if done[row] else ""),
            )
            yield labelled(image, lines, good=bool(done[row]))


def labelled(image: Image, lines: Iterable[str], *, good: bool = False) -> Image:
    """Return the image enlarged by a whole factor below two lines of text; sides are even."""
    factor = max(1, -(-SIDE // min(image.shape[:2])))
    enlarged = np.kron(image, np.ones((factor, factor, 1), np.uint8))
    width = enlarged.shape[1] + enlarged.shape[1] % 2
    height = BAR + enlarged.shape[0] + enlarged.shape[0] % 2
    frame = np.full((height, width, 3), 24, np.uint8)
    frame[BAR : BAR + enlarged.shape[0], : enlarged.shape[1]] = enlarged
    for index, text in enumerate(lines):
        colour = (120, 230, 120) if good and index else (235, 235, 235)
        where = (6, 17 + 19 * index)
        cv2.putText(frame, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return frame
