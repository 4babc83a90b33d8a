"""DINO-WM's rope and granular: states.pth, actions.pth and 000000/obses.pth, an episode a folder.

`states.pth` [n, T, P, 4] are the simulator's particles. The authors give their models a zero for
proprioception, and every episode is T rows long; so it is here. The particles become the sensor
`particles`, which no model sees that does not ask for it. An action is a push of the tool from one
place on the table to another.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_datasets.formats.base import (
    CorruptInputError,
    FormatError,
    Importer,
    Options,
    rows_of,
)
from wm_datasets.formats.torch_file import load_tensor
from wm_datasets.sensors import SensorSpec
from wm_datasets.spec import LogSpec, VectorSpec

LAYOUT = "deformable"
PARTICLES = "particles"
_ACTION = ("x_start", "z_start", "x_end", "z_end")


def is_deformable(source: Path) -> bool:
    """Whether a folder has this layout: episodes are folders of their own."""
    return (source / "000000" / "obses.pth").exists()


class DeformableImport(Importer):
    """The folder of one object (deformable/rope, deformable/granular); key i is episode i."""

    uses = frozenset({"robot", "task", "period_s", "camera"})

    def __init__(self, source: Path, options: Options) -> None:
        self._folder = source
        self._particles = self._tensor(source / "states.pth", 4).astype(np.float32)
        self._actions = self._tensor(source / "actions.pth", 3).astype(np.float32)
        episodes, self._length = self._particles.shape[:2]
        if self._actions.shape[:2] != (episodes, self._length):
            raise CorruptInputError(
                source / "actions.pth",
                f"got {self._actions.shape[:2]} episodes and rows, expected those of states.pth, "
                f"{(episodes, self._length)}.",
            )
        self.keys = [str(i) for i in range(episodes)]
        self.losses = []
        if episodes and np.any(self._actions[:, -1]):
            self.losses.append("the last action of each episode: no frame shows its result")
        self.spec = self._make_spec(options)

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        i = int(key)
        camera = next(iter(self.spec.cameras))
        frames, shape = self._frames(i), (self._length, *self.spec.cameras[camera])
        if frames.shape != shape:
            raise CorruptInputError(self._path(i), f"got frames {frames.shape}, expected {shape}.")
        fields = {
            f"image/{camera}": frames,
            "proprio": np.zeros((self._length, 1), np.float32),
            "action": self._actions[i],
            f"sensor/{PARTICLES}": self._particles[i],
        }
        if not (np.isfinite(self._actions[i]).all() and np.isfinite(self._particles[i]).all()):
            raise CorruptInputError(self._folder, f"episode {i}: some numbers are not finite.")
        yield from rows_of(self.spec, fields, self._length)

    def _make_spec(self, options: Options) -> LogSpec:
        if not options.period_s:
            raise FormatError(f"{self._folder}: it does not say its rate. Give --period SECONDS.")
        size = self._actions.shape[2]
        names = _ACTION if size == len(_ACTION) else tuple(f"action_{i}" for i in range(size))
        particles = self._particles.shape[2:]
        kinds = ("x", "y", "z", "inverse_mass") if particles[1] == 4 else ()
        return LogSpec(
            robot=options.robot or LAYOUT,
            task=options.task or self._folder.name,
            control_period_s=options.period_s,
            cameras={options.camera or "camera": self._frame_shape()},
            proprio=VectorSpec(("none",), ("1",), (0.0,), (0.0,)),
            action=VectorSpec(names, ("1",) * size, (-math.inf,) * size, (math.inf,) * size),
            sensors={PARTICLES: SensorSpec("float32", particles, "1", kinds)},
            extra={"dino_wm": {"layout": LAYOUT}, "absent": ["reward", "success"]},
            reward=False,
        )

    def _frame_shape(self) -> tuple[int, int, int]:
        for i in range(len(self.keys)):
            try:
                frames = self._frames(i)
            except CorruptInputError:
                continue  # it is reported when its turn comes
            height, width, channels = frames.shape[1:]
            return height, width, channels
        raise CorruptInputError(self._folder, "none of its obses.pth can be read.")

    def _path(self, i: int) -> Path:
        return self._folder / f"{i:06d}" / "obses.pth"

    def _frames(self, i: int) -> np.ndarray:
        """Frames (T, H, W, 3) as bytes; whole numbers of another type are the same frames."""
        frames = self._tensor(self._path(i), 4)
        if frames.dtype != np.uint8:
            whole = frames.astype(np.uint8, casting="unsafe")
            if not np.array_equal(whole, frames):
                raise CorruptInputError(
                    self._path(i),
                    f"got {frames.dtype} frames, expected whole numbers from 0 to 255.",
                )
            frames = whole
        return frames

    def _tensor(self, path: Path, axes: int) -> np.ndarray:
        try:
            value = load_tensor(path)
        except FileNotFoundError:
            raise CorruptInputError(path, "there is no such file.") from None
        except (OSError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise CorruptInputError(path, error) from error
        if value.ndim != axes:
            raise CorruptInputError(path, f"got shape {value.shape}, expected {axes} axes.")
        return value
