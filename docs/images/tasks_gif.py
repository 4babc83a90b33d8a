"""Write the video of the README: first episodes of some logs side by side, as a GIF:

`python docs/images/tasks_gif.py docs/images/tasks.gif LOG ...`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wm_datasets import LogReader

SCALE, EVERY, SHOW_MS = 3, 2, 80  # enlargement, rows per frame, time per frame


def first_episode(log: Path) -> list[npt.NDArray[np.uint8]]:
    """Return frames (H, W, 3) of the log's first episode."""
    with LogReader(log) as reader:
        start, rows, _ = reader.episodes[0].tolist()
        frames = reader.read(f"image/{next(iter(reader.spec.cameras))}", start, start + rows)
    return [frame.repeat(SCALE, 0).repeat(SCALE, 1) for frame in frames[::EVERY]]


def main(out: str, *logs: str) -> None:
    episodes = [first_episode(Path(log)) for log in logs]
    gap = np.full((episodes[0][0].shape[0], 6, 3), 255, np.uint8)
    images = []
    for index in range(max(map(len, episodes))):
        row = [frames[min(index, len(frames) - 1)] for frames in episodes]
        joined = np.concatenate([x for frame in row for x in (frame, gap)][:-1], 1)
        images.append(Image.fromarray(joined).quantize(64, dither=Image.Dither.NONE))
    images[0].save(
        out, save_all=True, append_images=images[1:], duration=SHOW_MS, loop=0, optimize=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
