"""Names of cameras in one word, and which of them weights can see."""

from __future__ import annotations

import pytest

from wm_nodes.robots.cameras.names import camera_names, contradiction, joined, required_names


def test_a_word_is_its_names_in_order() -> None:
    assert camera_names("") == camera_names("  ") == ()
    assert camera_names("front") == ("front",)
    assert camera_names("wrist, front") == ("wrist", "front")
    assert joined(camera_names("wrist,front")) == "wrist,front"


@pytest.mark.parametrize("text", ["front,", ",", "front,,wrist", "front,front"])
def test_empty_and_repeated_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=rf"camera: got '{text}', expected one name, or several"):
        camera_names(text)


def test_a_node_needs_a_camera() -> None:
    with pytest.raises(ValueError, match="camera: got none"):
        required_names("")


@pytest.mark.parametrize("trained", [(), ("front",), ("front", "wrist")])
@pytest.mark.parametrize("cameras", [(), ("front",), ("side",), ("wrist", "front")])
def test_only_one_camera_may_be_another(trained: tuple, cameras: tuple) -> None:
    why = contradiction(trained, cameras)
    several = max(len(trained), len(cameras)) > 1
    assert bool(why) == (several and trained != cameras)
    if why:
        assert f"got {joined(cameras) or 'none'}, expected" in why
        assert (joined(trained) or "a single camera") in why


def test_the_same_cameras_fit() -> None:
    assert not contradiction(("front", "wrist"), ["front", "wrist"])
