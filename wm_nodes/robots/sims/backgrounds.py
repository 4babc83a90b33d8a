"""Videos instead of the sky and the floor of a simulator's images: distractions for world models.

A clip is chosen at random for each episode and begins at a random frame; one frame is shown for
each observation, and a clip that ends begins again. Clips for training and for evaluation are
disjoint. What is replaced are the pixels whose blue is above their red and their green, which are
the sky and the floor of dm_control's suite (as in DreamerPro, TPC and MuDreamer).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wm_datasets.formats.base import CorruptInputError, MissingExtraError
from wm_datasets.formats.video_decoder import decode, probe
from wm_datasets.images import CropResize
from wm_nodes.robots.robot import Image, RobotError
from wm_nodes.robots.sims.background_sources import (
    CLIPS,
    FRAMES,
    NONE,
    BackgroundError,
    find_videos,
    procedural,
)

MEMORY_BYTES = 256_000_000  # of decoded clips that are kept
WAVES, OBJECTS = 6, 12  # of a procedural clip
_STREAM = 8_404  # makes the draws of a background others than those of the simulator

Floats = npt.NDArray[np.float64]


class Clip(Protocol):
    """Frames (size, size, 3) uint8."""

    def __len__(self) -> int: ...

    def __getitem__(self, frame: int) -> Image: ...


class Source(abc.ABC):
    """Two disjoint sets of clips, one for training and one for evaluation."""

    @abc.abstractmethod
    def count(self, evaluation: bool) -> int:
        """Return the number of clips of a set."""

    @abc.abstractmethod
    def clip(self, evaluation: bool, index: int) -> Clip:
        """Return a clip of a set, with at least one frame."""


class Background:
    """What is behind the robot: the frames of one clip at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._clip: Clip | None = None
        self._frame = 0

    def begin(self, seed: int, *, evaluation: bool) -> None:
        """Choose the clip and its first frame for the episode of `seed`."""
        random = np.random.default_rng((_STREAM, seed))
        index = int(random.integers(self._source.count(evaluation)))
        self._clip = self._source.clip(evaluation, index)
        self._frame = int(random.integers(len(self._clip)))

    def behind(self, images: Mapping[str, Image]) -> dict[str, Image]:
        """Return images with the next frame behind what they show, the same for all cameras."""
        assert self._clip is not None
        frame = self._clip[self._frame]
        self._frame = (self._frame + 1) % len(self._clip)
        return {name: composed(image, frame) for name, image in images.items()}


def open_background(background: str, size: int) -> Background | None:
    """Return a background for images of `size` x `size` px; None for "none".

    RobotError: there is no such background, a video cannot be read, or a library is missing.
    """
    if background == NONE:
        return None
    try:
        name = procedural(background)
        return Background(Procedural(name, size) if name else Videos(background, size))
    except BackgroundError as error:
        raise RobotError(str(error)) from None


def composed(image: Image, frame: Image) -> Image:
    """Return an image (H, W, 3) with `frame`, of the same shape, in place of sky and floor."""
    red, green, blue = (image[..., channel] for channel in range(3))
    background = (blue > green) & (blue > red)
    result: Image = np.where(background[..., None], frame, image)
    return result


# Videos -----------------------------------------------------------------------------------------


class Videos(Source):
    """The videos of a folder, resized to (size, size) whatever their shape.

    Videos at even positions of the sorted names are for training, those at odd ones for evaluation.
    Of each the first 1000 frames are used, or those before the first damaged one. The headers and
    first frames are read at once, so that a file that is no video is refused at the start.
    """

    def __init__(self, folder: str, size: int) -> None:
        """BackgroundError: fewer than two videos, or one that cannot be read."""
        self._sets = find_videos(folder)
        kept = max(1, MEMORY_BYTES // (FRAMES * size * size * 3))
        self._decoded = lru_cache(maxsize=kept)(_decoder(size))
        for path in (path for paths in self._sets for path in paths):
            _check(path)

    def count(self, evaluation: bool) -> int:
        return len(self._sets[evaluation])

    def clip(self, evaluation: bool, index: int) -> Clip:
        return self._decoded(self._sets[evaluation][index])


def _check(path: Path) -> None:
    try:
        probe(path)
    except MissingExtraError:
        raise BackgroundError(
            "background: got a folder of videos, but the library av is not installed. Run `pip "
            "install 'wm_nodes[formats]'`, or use background:=procedural:distracting."
        ) from None
    except CorruptInputError as error:
        raise BackgroundError(
            f"background: got {path}, which cannot be read ({error.what}), expected a video. "
            "Remove it from the folder, or repair it."
        ) from None


class _decoder:
    """Reads the frames (T, size, size, 3) of a video."""

    def __init__(self, size: int) -> None:
        self._resize = CropResize(size, size)

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        frames = list[npt.NDArray[np.uint8]]()
        try:
            for _, frame in islice(decode(path), FRAMES):
                frames.append(self._resize(frame))
        except CorruptInputError:
            if not frames:
                raise RobotError(
                    f"background: got {path}, which can no longer be read, expected a video. "
                    "Restore it, or remove it from the folder."
                ) from None
        return np.stack(frames)


# Procedural -------------------------------------------------------------------------------------


class Procedural(Source):
    """Clips that are computed from their number, for tests and for machines without videos.

    distracting: coloured waves that move across the whole image. static: one frame of that for an
    episode. subtle: that frame with a few moving objects of one to three hundredths of the image.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size

    def count(self, evaluation: bool) -> int:
        return CLIPS

    def clip(self, evaluation: bool, index: int) -> Clip:
        random = np.random.default_rng((_STREAM, int(evaluation), index))
        waves = Waves(random, self._size)
        if self._name == "distracting":
            return waves
        still = Still(waves[int(random.integers(len(waves)))])
        return still if self._name == "static" else SmallObjects(still, random)


class Waves(Clip):
    """Sums of plane waves, one sum for each colour; the last frame leads to the first."""

    def __init__(self, random: np.random.Generator, size: int) -> None:
        shape = (3, WAVES)
        directions = random.normal(0.0, 2.0, (*shape, 2))  # waves across the image
        place = np.stack(np.meshgrid(*[np.arange(size) / size] * 2), axis=-1)  # (size, size, 2)
        self._phases: Floats = np.einsum("cwd,yxd->cwyx", directions, place)
        self._phases += random.uniform(0.0, 1.0, shape)[..., None, None]
        self._turns = random.integers(5, 40, shape) * random.choice((-1, 1), shape)  # of a clip
        self._strengths: Floats = random.dirichlet(np.ones(WAVES), 3)

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, frame: int) -> Image:
        phases = self._phases + (self._turns * frame / FRAMES)[..., None, None]
        colours = np.einsum("cw,cwyx->yxc", self._strengths, np.sin(2 * np.pi * phases))
        image: Image = np.rint(127.5 + 127.5 * colours).astype(np.uint8)
        return image


class Still(Clip):
    """One frame for all of a clip."""

    def __init__(self, frame: Image) -> None:
        self._shown = frame

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, frame: int) -> Image:
        return self._shown


class SmallObjects(Clip):
    """Bright squares that circle over a still image."""

    def __init__(self, behind: Still, random: np.random.Generator) -> None:
        self._behind = behind
        self._middles = random.uniform(0.0, 1.0, (OBJECTS, 2))  # shares of the image
        self._radii = random.uniform(0.05, 0.3, OBJECTS)
        self._starts = random.uniform(0.0, 1.0, OBJECTS)
        self._turns = random.integers(3, 12, OBJECTS) * random.choice((-1, 1), OBJECTS)
        self._sides = random.uniform(0.01, 0.03, OBJECTS)
        self._colours = random.integers(160, 256, (OBJECTS, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return FRAMES

    def __getitem__(self, frame: int) -> Image:
        image = self._behind[frame].copy()
        size = len(image)
        angles = 2 * np.pi * (self._starts + self._turns * frame / FRAMES)
        circles = self._radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        corners = np.floor((self._middles + circles) % 1.0 * size).astype(int)
        for (row, column), share, colour in zip(corners, self._sides, self._colours):
            side = max(1, round(share * size))
            image[row : row + side, column : column + side] = colour
        return image
