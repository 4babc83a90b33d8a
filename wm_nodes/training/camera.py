"""Which cameras of a log the model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wm_datasets.log import LogReader
from wm_nodes.robots.cameras.names import contradiction, joined
from wm_nodes.training.config import TrainingError


def choose_cameras(
    cameras: Mapping[str, tuple[int, int, int]],
    image_size: tuple[int, int],
    *,
    requested: Sequence[str],
    trained_with: Sequence[str],
    resumed_run: str,
    model: str,
) -> tuple[str, ...]:
    """Return the log's cameras that the model sees: one, or several in their order.

    First of these that there are: the `requested` ones, those that the weights were `trained_with`,
    the first of the model's image size, the only one. cameras: name -> (H, W, 3); image_size:
    (H, W) of the model; `resumed_run`: name of a run that is resumed, else empty. TrainingError:
    none of these, or a resumed run has others, or weights of several cameras have others.
    """
    if resumed_run and requested and tuple(requested) != tuple(trained_with):
        raise TrainingError(
            f"camera: got {joined(requested)!r}, but run {resumed_run} learns from "
            f"{joined(trained_with)!r}, expected the same. Leave it out, or start another run."
        )
    if requested and trained_with and (why := contradiction(trained_with, requested)):
        raise TrainingError(why)
    sizes = ", ".join(f"{name!r} of {h}x{w}" for name, (h, w, _) in cameras.items()) or "none"
    kept = trained_with if len(trained_with) > 1 or set(trained_with) <= cameras.keys() else ()
    chosen = tuple(requested or kept)
    if unknown := [name for name in chosen if name not in cameras]:
        raise TrainingError(f"camera: got {unknown[0]!r}, expected a camera of the log: {sizes}.")
    if chosen:
        return chosen
    fitting = [name for name, shape in cameras.items() if shape == (*image_size, 3)]
    if fitting or len(cameras) == 1:
        return (fitting[0] if fitting else next(iter(cameras)),)
    raise TrainingError(
        f"camera: got {sizes} in the log, expected one of {image_size[0]}x{image_size[1]}, the "
        f"image size of model {model!r}. Name the camera (--camera): images of another size are "
        "resized."
    )


def choose_videos(
    readers: Sequence[LogReader],
    image_size: tuple[int, int],
    *,
    requested: Sequence[str],
    recorded: Sequence[str],
    resumed_run: str,
    model: str,
) -> list[tuple[str, ...]]:
    """Return the cameras of each log that a model of videos learns from, each of them a video.

    Of the `requested` ones, or those `recorded` with the weights, those that the log has; where
    none is named, one as :func:`choose_cameras` finds it. TrainingError: a log has none of them, or
    a resumed run has others.
    """
    if resumed_run and requested and tuple(requested) != tuple(recorded):
        raise TrainingError(
            f"camera: got {joined(requested)!r}, but run {resumed_run} learns from "
            f"{joined(recorded) or 'the first that fits'!r}, expected the same. Leave it out, or "
            "start another run."
        )
    wanted, chosen = requested or recorded, []
    for reader in readers:
        cameras = reader.spec.cameras
        own = [name for name in wanted if name in cameras]
        if not own and requested:
            raise TrainingError(
                f"camera: got {joined(requested)!r}, expected a camera of {reader.path}: "
                f"{', '.join(cameras)}."
            )
        fitting = choose_cameras(
            cameras, image_size, requested=own, trained_with=(), resumed_run="", model=model
        )
        chosen.append(fitting)
    return chosen
