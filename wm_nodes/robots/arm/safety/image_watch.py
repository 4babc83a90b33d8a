"""Are the images fresh? They must arrive, be new by their stamps, and change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wm_nodes.robots.arm.config.sections import Watch

OLD_S = 3600.0  # the largest age of an image that is reported


class ImageWatch:
    """Takes in the times of all cameras' images; the oldest camera counts. Times are steady [s]."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._came: dict[str, float] = {}  # of each camera's newest image
        self._taken: dict[str, float] = {}
        self._changed: dict[str, float] = {}

    def take(self, name: str, came_s: float, taken_s: float | None, changed: bool) -> None:
        """Take in an image, as `Supervisor.update_image` does."""
        self._came[name] = came_s
        self._taken[name] = came_s if taken_s is None else taken_s
        if changed or name not in self._changed:
            self._changed[name] = came_s

    def stop(self, now_s: float) -> str:
        """Return the stop that the images demand: camera, camera_late, frozen, or ""."""
        watch = self._watch
        if watch.camera_stop_s and _age(self._came, now_s) > watch.camera_stop_s:
            return "camera"
        if watch.max_image_age_s and _age(self._taken, now_s) > 2 * watch.max_image_age_s:
            return "camera_late"
        if watch.camera_frozen_s and _age(self._changed, now_s) > watch.camera_frozen_s:
            return "frozen"
        return ""

    def late(self, now_s: float) -> bool:
        """Are images so late that the arm must be slow?"""
        late = _age(self._taken, now_s) > (self._watch.max_image_age_s or np.inf)
        return late or _age(self._came, now_s) > (self._watch.camera_slow_s or np.inf)

    def age_s(self, now_s: float) -> float:
        """Return the age of the cameras' newest images, the oldest's, by stamp; OLD_S at most."""
        return min(_age(self._taken, now_s), OLD_S)


def _age(times: Mapping[str, float], now_s: float) -> float:
    return max((now_s - then for then in list(times.values())), default=0.0)
