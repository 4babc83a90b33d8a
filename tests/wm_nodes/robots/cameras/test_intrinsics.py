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


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    projected = points @ matrix.T
    return projected[:, :2] / projected[:, 2:]


def map_pixels(pixel: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """Return pixels (N, 2) after crop and resize, by their definition: edges map to edges."""
    corner = np.array([pixel_map.left, pixel_map.top])
    return (pixel + 0.5 - corner) * pixel_map.scale - 0.5


@settings(max_examples=200, deadline=None)
@given(side, side, share, share, share, share, st.integers(0, 500), st.integers(0, 500),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_projection_then_crop_and_resize_is_projection_by_the_new_intrinsics(
    width, height, left, top, right, bottom, to_width, to_height, seed
) -> None:
    pipeline = ImagePipeline(to_height, to_width, (left, top, right, bottom))
    pixel_map = pipeline.pixel_map(height, width)
    original = camera(width, height, baseline=0.1)
    adjusted = original.through(pixel_map)
    random = np.random.default_rng(seed)
    points = np.column_stack([random.uniform(-1, 1, (20, 2)), random.uniform(1, 5, 20)])
    old, new = project(original.k, distorted(points)), project(adjusted.k, distorted(points))
    np.testing.assert_allclose(new, map_pixels(old, pixel_map), rtol=1e-7, atol=1e-4)
    homogeneous = np.column_stack([points, np.ones(20)])
    old, new = project(original.p, homogeneous), project(adjusted.p, homogeneous)
    np.testing.assert_allclose(new, map_pixels(old, pixel_map), rtol=1e-7, atol=1e-4)
    assert adjusted.distortion == D
    assert (adjusted.k[2] == [0, 0, 1]).all()


@settings(max_examples=100, deadline=None)
@given(side, side, share, share, share, share, st.integers(0, 300), st.integers(0, 300))
def test_the_map_has_the_size_of_the_pipelines_images(
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
def test_a_spot_is_where_the_map_puts_it(
    left, top, right, bottom, to_width, to_height, u, v
) -> None:
    width, height = 320, 240
    center = np.array([u * width, v * height])
    y, x = np.mgrid[:height, :width]
    spot = np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * 4.0**2))
    image = np.repeat((255 * spot).astype(np.uint8)[:, :, None], 3, axis=2)
    pipeline = ImagePipeline(to_height, to_width, (left, top, right, bottom))
    out = pipeline(image)[:, :, 0].astype(float)
    y, x = np.mgrid[: out.shape[0], : out.shape[1]]
    centroid = np.array([(x * out).sum(), (y * out).sum()]) / out.sum()
    expected = map_pixels(center[None], pipeline.pixel_map(height, width))[0]
    np.testing.assert_allclose(centroid, expected, atol=0.25)


def test_a_crop_that_leaves_no_pixel_is_refused() -> None:
    with pytest.raises(MessageError):
        ImagePipeline(8, 8, (0.5, 0.0, 0.45, 0.0)).pixel_map(10, 2)


def test_a_pinhole_sees_its_edges_at_half_the_angle() -> None:
    intrinsics = Intrinsics.pinhole(64, 48, 60.0, upturned=False)
    edge = np.array([[0.0, np.tan(np.pi / 6), 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(project(intrinsics.k, edge), [[31.5, 47.5], [31.5, 23.5]])
    upturned_intrinsics = Intrinsics.pinhole(64, 48, 60.0, upturned=True)
    np.testing.assert_allclose(
        project(upturned_intrinsics.k, edge), [[31.5, -0.5], [31.5, 23.5]], atol=1e-9
    )
