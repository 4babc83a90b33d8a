"""Which camera of a log the model uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wm_datasets.log import LogReader
from wm_nodes.training.config import TrainingError


def choose_camera(
    cameras: Mapping[str, tuple[int, int, int]],
    image_size: tuple[int, int],
    *,
    requested: str,
    trained_with: str,
    resumed_run: str,
    model: str,
) -> str:
    """Return the log's camera that the model uses.

    In this order: the `requested` one, the one that the weights were `trained_with`, the first of
    the model's image size, the only one. cameras: name -> (H, W, 3); image_size: (H, W) of the
    model; `resumed_run`: name of a run that is resumed, else empty; empty names: none.
    TrainingError: none of these, or a resumed run has another one.
    """
    if resumed_run and requested not in ("", trained_with):
        raise TrainingError(
            f"camera: got {requested!r}, but run {resumed_run} learns from {trained_with!r}, "
            "expected the same. Leave it out, or start another run."
        )
    sizes = ", ".join(f"{name!r} of {h}x{w}" for name, (h, w, _) in cameras.items()) or "none"
    if requested and requested not in cameras:
        raise TrainingError(f"camera: got {requested!r}, expected a camera of the log: {sizes}.")
    if requested or trained_with in cameras:
        return requested or trained_with
    fitting = [name for name, shape in cameras.items() if shape == (*image_size, 3)]
    if fitting or len(cameras) == 1:
        return fitting[0] if fitting else next(iter(cameras))
    raise TrainingError(
        f"camera: got {sizes} in the log, expected one of {image_size[0]}x{image_size[1]}, the "
        f"image size of model {model!r}. Name the camera (--camera): images of another size are "
        "resized."
    )


def choose_cameras(
    readers: Sequence[LogReader],
    image_size: tuple[int, int],
    *,
    requested: str,
    recorded: str,
    resumed_run: str,
    model: str,
) -> list[list[str]]:
    """Return the cameras of each log that a model of videos learns from, each of them a video.

    Of the `requested` ones, or those `recorded` with the weights (several with commas between),
    those that the log has; where none is named, one as :func:`choose_camera` finds it.
    TrainingError: a log has none of them, or a resumed run has others.
    """
    if resumed_run and requested not in ("", recorded):
        raise TrainingError(
            f"camera: got {requested!r}, but run {resumed_run} learns from "
            f"{recorded or 'the first that fits'!r}, expected the same. Leave it out, or start "
            "another run."
        )
    wanted = [name for name in map(str.strip, (requested or recorded).split(",")) if name]
    chosen = []
    for reader in readers:
        cameras = reader.spec.cameras
        own = [name for name in dict.fromkeys(wanted) if name in cameras]
        if not own and requested:
            raise TrainingError(
                f"camera: got {requested!r}, expected a camera of {reader.path}: "
                f"{', '.join(cameras)}."
            )
        chosen.append(
            own
            or [
                choose_camera(
                    cameras, image_size, requested="", trained_with="", resumed_run="", model=model
                )
            ]
        )
    return chosen
