"""Images from a device, a file or a URL through OpenCV, read by a thread; the newest is kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_nodes.records import Image

REOPEN_S = 1.0
OLDEST_S = 10.0  # a driver's time of capture that is older is of another clock


class CaptureError(Exception):
    """A source that cannot be opened."""


@dataclass(frozen=True)
class Captured:
    """image (H, W, 3) RGB; taken_s [s]: when it was taken, by the steady clock."""

    image: Image
    taken_s: float


def taken_s(stamp_ms: float, now_s: float) -> float:
    """Return when an image was taken [s]: its driver's stamp [ms] if that can be, else now."""
    stamp_s = stamp_ms / 1e3
    return stamp_s if 0.0 <= now_s - stamp_s <= OLDEST_S else now_s


class Capture:
    """A file plays at its own rate (or `rate_hz`); devices and URLs are opened again when lost."""

    def __init__(self, source: str, *, loop: bool = False, rate_hz: float = 0.0) -> None:
        self._source: str | int = int(source) if source.isdigit() else source
        self._file = isinstance(self._source, str) and Path(self._source).is_file()
        self._loop = loop
        self._video = self._open()
        rate = rate_hz or self._video.get(cv2.CAP_PROP_FPS) or 30.0
        self.period_s = 1.0 / rate
        self.ended = False
        self._newest: Captured | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)
        self._thread.start()

    def newest(self) -> Captured | None:
        """Return the newest image once, None until another comes."""
        frame, self._newest = self._newest, None
        return frame

    def close(self) -> None:
        """End the thread and free the source."""
        self._stop.set()
        self._thread.join(2.0)
        self._video.release()

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(self._source)
        if not video.isOpened():
            raise CaptureError(
                f"source: got {self._source!r}, which cannot be opened, expected a device (0, "
                "/dev/video0), a video file or a URL"
            )
        return video

    def _read(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            fine, frame = self._video.read()
            if fine:
                taken = self._taken_s()
                image = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
                self._newest = Captured(image, taken)
            elif not self._again():
                return
            if self._file:
                due = max(due + self.period_s, time.monotonic() - self.period_s)
                self._stop.wait(max(due - time.monotonic(), 0.0))

    def _taken_s(self) -> float:
        """Return when the present frame was taken: V4L2 stamps it by the steady clock."""
        now = time.monotonic()
        if self._file or self._video.getBackendName() != "V4L2":
            return now
        return taken_s(self._video.get(cv2.CAP_PROP_POS_MSEC), now)

    def _again(self) -> bool:
        """The source returned no frame: restart a looped file, reopen a lost device, or end."""
        if self._file and not self._loop:
            self.ended = True
            return False
        if not self._file:
            self._stop.wait(REOPEN_S)
        self._video.release()
        self._video = cv2.VideoCapture(self._source)
        return True
