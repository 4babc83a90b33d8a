"""Single frames: out of a video at given times, and PNG in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wm_datasets.formats.base import CorruptInputError, need


def frames_at(path: Path, times_s: Sequence[float], tolerance_s: float) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 at growing times; CorruptInputError where one is missing."""
    av = need("av")
    count = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"}
            if begin := max(0, int((times_s[0] - tolerance_s) / stream.time_base)):
                container.seek(begin, stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is None or frame.is_corrupt:
                    raise ValueError(f"the frame at about {times_s[count]:.3f} s is damaged")
                if frame.time < times_s[count] - tolerance_s:
                    continue
                if frame.time > times_s[count] + tolerance_s:
                    raise ValueError(
                        f"got the next frame at {frame.time:.3f} s, expected one at "
                        f"{times_s[count]:.3f} s"
                    )
                yield frame.to_ndarray(format="rgb24")
                count += 1
                if count == len(times_s):
                    return
            raise ValueError(f"it ends before {times_s[count]:.3f} s, where a frame is expected")
    except (av.FFmpegError, ValueError, IndexError, OSError) as error:
        raise CorruptInputError(path, error) from error


def encode_png(frame: np.ndarray) -> bytes:
    """Return a frame (H, W, 3) RGB uint8 as PNG."""
    cv2 = need("cv2")
    return bytes(cv2.imencode(".png", np.ascontiguousarray(frame[:, :, ::-1]))[1])


def decode_image(data: bytes) -> np.ndarray:
    """Return (H, W, 3) RGB uint8 of PNG or JPEG; ValueError when it is neither."""
    cv2 = need("cv2")
    coded = np.frombuffer(data, np.uint8)
    pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR) if coded.size else None
    if pixels is None:
        raise ValueError(f"got {coded.size} bytes that are no readable image, expected PNG or JPEG")
    return np.ascontiguousarray(pixels[:, :, ::-1])
