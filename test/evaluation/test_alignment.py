"""Umeyama: exact recovery, no reflections, degenerate inputs marked."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError
from human_scene_ros.evaluation.alignment import umeyama


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 12, 3))


def test_a_similarity_is_recovered_exactly(points):
    R = Rotation.random(5, random_state=1).as_matrix()
    t, s = np.arange(15.0).reshape(5, 3), np.array([0.5, 1.0, 2.0, 3.0, 10.0])
    moved = s[:, None, None] * points @ np.swapaxes(R, -1, -2) + t[:, None]
    fit = umeyama(points, moved)
    np.testing.assert_allclose(fit.R, R, atol=1e-12)
    np.testing.assert_allclose(fit.t, t, atol=1e-11)
    np.testing.assert_allclose(fit.s, s, rtol=1e-12)
    np.testing.assert_allclose(fit.apply(points), moved, atol=1e-11)


def test_a_rigid_fit_keeps_the_scale_at_one(points):
    fit = umeyama(points, 3.0 * points, with_scale=False)
    np.testing.assert_array_equal(fit.s, np.ones(5))
    np.testing.assert_allclose(fit.R, np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)


def test_a_mirrored_set_gives_a_rotation_and_not_a_reflection(points):
    fit = umeyama(points, points * [1.0, 1.0, -1.0])
    np.testing.assert_allclose(np.linalg.det(fit.R), 1.0, atol=1e-12)


@pytest.mark.parametrize("src", [
    np.zeros((6, 3)), np.outer(np.arange(6.0), [1.0, 2.0, 3.0]), np.eye(3)[:2], np.ones((1, 3))],
                         ids=["coincident", "on a line", "two points", "one point"])
def test_undetermined_rotations_are_marked_and_nan(src):
    fit = umeyama(src, 2.0 * src + 1.0)
    assert bool(fit.degenerate)
    assert np.isnan(fit.apply(src)).all()


@pytest.mark.parametrize("shape", [
    (1.0, 1.0, 1.0), (1.0, 0.3, 0.08), (1.0, 0.3, 0.0), (1.0, 1e-4, 1e-6), (1.0, 0.0, 0.0)],
                         ids=["round", "a body", "flat", "a needle", "a line"])
def test_many_at_once_are_what_they_are_one_by_one(shape):
    """Above some number another way of computing takes over; noise and mirrored sets are among them."""
    rng = np.random.default_rng(3)
    src = rng.normal(size=(100, 12, 3)) * shape
    dst = src @ Rotation.random(100, random_state=2).as_matrix() * 2.0 + rng.normal(size=(100, 1, 3))
    dst[::3] += rng.normal(scale=0.1 if shape[2] > 1e-3 else 0.0, size=dst[::3].shape)
    dst[::7, :, 2] *= -1.0
    together, alone = umeyama(src, dst), [umeyama(s, d) for s, d in zip(src, dst, strict=True)]
    np.testing.assert_array_equal(together.degenerate, [bool(a.degenerate) for a in alone])
    assert together.degenerate.all() == (shape[1] == 0.0)
    for name in ("R", "s", "t"):
        np.testing.assert_allclose(getattr(together, name), [getattr(a, name) for a in alone], atol=1e-9, err_msg=name)


def test_points_of_weight_zero_do_not_matter(points):
    src, dst = points[0], 2.0 * points[0] + 1.0
    spoiled = dst.copy()
    spoiled[3] = 1e3
    weights = np.ones(12)
    weights[3] = 0.0
    assert float(umeyama(src, spoiled, weights=weights).s) == pytest.approx(2.0, rel=1e-12)
    assert float(umeyama(src, spoiled).s) != pytest.approx(2.0, rel=1e-2)


def test_shapes_that_differ_are_refused_with_both():
    with pytest.raises(ShapeError, match=r"src has shape \(4, 3\), dst has \(5, 3\)"):
        umeyama(np.zeros((4, 3)), np.zeros((5, 3)))
