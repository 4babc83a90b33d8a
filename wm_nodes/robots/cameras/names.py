"""Names of the cameras that an agent sees, in one word with commas between them."""

from __future__ import annotations

from collections.abc import Sequence


def camera_names(text: str) -> tuple[str, ...]:
    """Return the cameras of a word such as "front" or "front,wrist", in order; "": none.

    ValueError: an empty or a repeated name.
    """
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(
            f"camera: got {text!r}, expected one name, or several different ones with commas "
            "between, such as front,wrist."
        )
    return names


def required_names(text: str) -> tuple[str, ...]:
    """Return the cameras of a word, one at least. ValueError: none, or as :func:`camera_names`."""
    if names := camera_names(text):
        return names
    raise ValueError("camera: got none, expected the name of a camera.")


def joined(cameras: Sequence[str]) -> str:
    """Return the word for these cameras."""
    return ",".join(cameras)


def contradiction(trained: Sequence[str], cameras: Sequence[str]) -> str:
    """Return why weights cannot see these cameras; "" where they can.

    Several cameras must be those of the training, in their order. One camera may be replaced by
    another one. trained: empty where the name of a single camera is not known.
    """
    if tuple(trained) == tuple(cameras) or max(len(trained), len(cameras)) < 2:
        return ""
    expected = f"{joined(trained)} in this order" if trained else "a single camera"
    return (
        f"camera: got {joined(cameras) or 'none'}, expected {expected}, as the weights were "
        "trained. Leave the camera out, or take other weights."
    )
