"""A robot that two cameras see, the smallest model that sees both, and its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.wm_models.families.dreamer_v3n.v3n_tiny import TINY as TINY_V3N
from tests.wm_nodes.point_robot import PointRobot
from wm_models.interface.embodiment import Embodiment
from wm_models.weights.manifest import Manifest
from wm_models.weights.store import WeightStore
from wm_nodes.episodes.collect import HeldRandom, collect

SIZE = 16
CAMERAS = ("front", "wrist")
TINY = replace(TINY_V3N, name="two_eyed", learner=replace(TINY_V3N.learner, prefill=20))
ROBOT = replace(Embodiment.unit(1), cameras=CAMERAS)


class TwoEyedPoint(PointRobot):
    """The point robot. The front camera shows where it is, the wrist camera a brighter mirror
    image."""

    def __init__(
        self, seed: int = 0, time_limit: int = 8, size: int = SIZE, camera: str = "front,wrist"
    ) -> None:
        super().__init__(seed, time_limit, size)
        self._names = camera.split(",")
        shape = self.spec.cameras["top"]
        self.spec = replace(self.spec, cameras=dict.fromkeys(self._names, shape))

    def _images(self) -> dict[str, np.ndarray]:
        image = super()._images()["top"]
        views = {"front": image, "wrist": image[:, ::-1] // 2 + 60}
        return {name: views[name] for name in self._names}


def record(log: Path, episodes: int = 4, *, seed: int = 0, size: int = SIZE) -> Path:
    """Add episodes of random actions to a log; return the log."""
    with TwoEyedPoint(size=size) as robot:
        collect(robot, HeldRandom(robot.spec, 2.0, seed), log, episodes, seed)
    return log


def save_weights(folder: Path, embodiment: Embodiment = ROBOT, camera: str = "front,wrist") -> Path:
    """Save one version of the model, as preset `two_eyed`; return the folder."""
    extra = {"robot": "point", "task": "origin", "camera": camera}
    manifest = Manifest(1, "two_eyed", action_dim=1, extra=extra, body=embodiment.to_json())
    WeightStore(folder).save(TINY.build(embodiment, seed=4).modules_by_name(), manifest)
    return folder
