"""Statistics of images are those with which pretrained networks were trained."""

from __future__ import annotations

import pytest

from wm_models.nets.images import IMAGENET_MEAN, IMAGENET_STD


def test_they_are_timms() -> None:
    constants = pytest.importorskip("timm.data.constants")
    assert IMAGENET_MEAN == constants.IMAGENET_DEFAULT_MEAN
    assert IMAGENET_STD == constants.IMAGENET_DEFAULT_STD
