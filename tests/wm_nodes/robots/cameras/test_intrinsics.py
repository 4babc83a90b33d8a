"""What crop and resize do to a camera's intrinsics: laws, and a rendered ball."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wm_nodes.errors import MessageError
from wm_nodes.robots.cameras.intrinsics import Intrinsics, PixelMap
from wm_nodes.robots.cameras.preprocess import ImagePipeline

share = st.floats(0.0, 0.45)
side = st.integers(16, 2000)  # some pixels are left after the crop
D = (-0.3, 0.1, 0.001, -0.002, 0.02)


def camera(width: int, height: int, fx=500.0, fy=480.0, baseline=0.0) -> Intrinsics:
    k = np.array([[fx, 0.3, width / 2 + 3], [0, fy, height / 2 - 5], [0, 0, 1.0]])
    p = np.column_stack([k * [[1.01], [0.99], [1]], [-fx * baseline, 0, 0]])
    return Intrinsics(width, height, k, p, distortion=D)


def distorted(points: np.ndarray) -> np.ndarray:
    """Return (N, 3) on the plane z = 1 after plumb_bob distortion."""
    x, y = (points[:, :2] / points[:, 2:]).T
    k1, k2, p1, p2, k3 = D
    r = x * x + y * y
    radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
    u = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    return np.column_stack([u, v, np.ones(len(x))])


def pixels(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    seen = points @ matrix.T
    return seen[:, :2] / seen[:, 2:]


def mapped(at: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """Return pixels (N, 2) after crop and resize, by their definition: edges map to edges."""
    corner = np.array([pixel_map.left, pixel_map.top])
    return (at + 0.5 - corner) * pixel_map.scale - 0.5


@settings(max_examples=200, deadline=None)
@given(side, side, share, share, share, share, st.integers(0, 500), st.integers(0, 500),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_projection_then_crop_and_resize_is_projection_by_the_new_intrinsics(
    width, height, left, top, right, bottom, to_width, to_height, seed
) -> None:
    pipeline = ImagePipeline(to_height, to_width, (left, top, right, bottom))
    pixel_map = pipeline.pixel_map(height, width)
    sent = camera(width, height, baseline=0.1)
    ours = sent.through(pixel_map)
    random = np.random.default_rng(seed)
    points = np.column_stack([random.uniform(-1, 1, (20, 2)), random.uniform(1, 5, 20)])
    old, new = pixels(sent.k, distorted(points)), pixels(ours.k, distorted(points))
    np.testing.assert_allclose(new, mapped(old, pixel_map), rtol=1e-7, atol=1e-4)
    whole = np.column_stack([points, np.ones(20)])
    old, new = pixels(sent.p, whole), pixels(ours.p, whole)
    np.testing.assert_allclose(new, mapped(old, pixel_map), rtol=1e-7, atol=1e-4)
    assert ours.distortion == D
    assert (ours.k[2] == [0, 0, 1]).all()


@settings(max_examples=100, deadline=None)
@given(side, side, share, share, share, share, st.integers(0, 300), st.integers(0, 300))
def test_the_map_has_the_size_that_the_pipeline_makes(
    width, height, left, top, right, bottom, to_width, to_height
) -> None:
    assume(width * height < 2e5 and min(width, height) > 30)
    pipeline = ImagePipeline(to_height, to_width, (left, top, right, bottom))
    out = pipeline(np.zeros((height, width, 3), np.uint8))
    pixel_map = pipeline.pixel_map(height, width)
    assert out.shape[:2] == (pixel_map.height, pixel_map.width)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.3),
       st.integers(30, 300), st.integers(30, 300), st.floats(0.4, 0.6),
       st.floats(0.4, 0.6))  # fmt: skip
def test_a_spot_is_where_the_map_says(left, top, right, bottom, to_width, to_height, u, v) -> None:
    width, height = 320, 240
    at = np.array([u * width, v * height])
    y, x = np.mgrid[:height, :width]
    spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 4.0**2))
    image = np.repeat((255 * spot).astype(np.uint8)[:, :, None], 3, axis=2)
    pipeline = ImagePipeline(to_height, to_width, (left, top, right, bottom))
    out = pipeline(image)[:, :, 0].astype(float)
    y, x = np.mgrid[: out.shape[0], : out.shape[1]]
    found = np.array([(x * out).sum(), (y * out).sum()]) / out.sum()
    expected = mapped(at[None], pipeline.pixel_map(height, width))[0]
    np.testing.assert_allclose(found, expected, atol=0.25)


def test_a_crop_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(MessageError):
        ImagePipeline(8, 8, (0.5, 0.0, 0.45, 0.0)).pixel_map(10, 2)


def test_a_pinhole_sees_its_edges_at_half_the_angle() -> None:
    seen = Intrinsics.pinhole(64, 48, 60.0, upturned=False)
    edge = np.array([[0.0, np.tan(np.pi / 6), 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(pixels(seen.k, edge), [[31.5, 47.5], [31.5, 23.5]])
    turned = Intrinsics.pinhole(64, 48, 60.0, upturned=True)
    np.testing.assert_allclose(pixels(turned.k, edge), [[31.5, -0.5], [31.5, 23.5]], atol=1e-9)
