"""A source whose images are cropped and resized as they come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from wm_datasets.formats.base import FormatError, Importer
from wm_datasets.images import NO_CROP, CropResize
from wm_datasets.sensors import SensorSpec


class Resized(Importer):
    """The same episodes with every image cropped, then resized, as a camera's are when a model
    acts (:class:`CropResize`); of depth cameras the nearest pixels are taken.

    size: (height, width) of the images, or None for that of the crop. crop: shares that are cut off
    at the left, top, right and bottom. `spec.extra["resized"]` of the log says so, which keeps such
    episodes and others apart. It closes the source.
    """

    def __init__(
        self,
        source: Importer,
        size: tuple[int, int] | None = None,
        crop: Sequence[float] | None = None,
    ) -> None:
        if size is not None and min(size) < 1:
            raise FormatError(f"--size: got {size}, expected height and width of at least 1.")
        try:
            colour = CropResize(*(size or (0, 0)), crop or NO_CROP)
        except ValueError as error:
            raise FormatError(f"--{error}") from error
        self._source, spec = source, source.spec
        depths = {name: sensor for name, sensor in spec.sensors.items() if sensor.is_depth}
        if not (spec.cameras or depths):
            option = "--size" if size else "--crop"
            raise FormatError(f"{option}: the source has no images. Leave it out.")
        self._change = {f"image/{name}": colour for name in spec.cameras}
        self._change |= {f"sensor/{name}": replace(colour, nearest=True) for name in depths}
        try:
            cameras = {n: (*colour.size(h, w), 3) for n, (h, w, _) in spec.cameras.items()}
            smaller = {n: SensorSpec.depth(*colour.size(*s.shape)) for n, s in depths.items()}
        except ValueError as error:
            raise FormatError(f"--crop: {error}") from error
        self.spec = replace(
            spec,
            cameras=cameras,
            sensors=spec.sensors | smaller,
            extra=spec.extra | {"resized": {"size": size, "crop": list(colour.crop)}},
        )
        before = ", ".join(f"{n} {h} x {w}" for n, (h, w, _) in spec.cameras.items())
        after = f"resized to {size[0]} x {size[1]}" if size else "not resized"
        cut = "" if crop is None else f"cropped by {', '.join(f'{share:g}' for share in crop)} and "
        self.keys, self.losses = source.keys, source.losses
        self.notes = (*source.notes, f"images are {cut}{after} (before: {before})")
        self.upside_down = source.upside_down
        self.unequal = "" if size else source.unequal

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self._source.rows(key)):
            try:
                images = {name: change(row[name]) for name, change in self._change.items()}
            except ValueError as error:
                raise FormatError(f"row {number}: {error}") from error
            yield row | images

    def close(self) -> None:
        self._source.close()
