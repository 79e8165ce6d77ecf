"""Rays and points with covariance: exact truths and every status."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.fusion import triangulation as tri
from human_scene_ros.fusion.matrices import invert_symmetric, mahalanobis_squared
from human_scene_ros.fusion.triangulation import TriangulationStatus as Status

X = np.array([0.4, -0.3, 1.1])
RING = 5.0 * np.array([[1.0, 0, 0.3], [0, 1.0, 0.3], [-1.0, 0.2, 0.3], [0.1, -1.0, 0.3]])


def rays_to(point: np.ndarray, centres: np.ndarray = RING) -> np.ndarray:
    d = point - centres
    return d / np.linalg.norm(d, axis=1, keepdims=True)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_exact_rays_meet_in_the_point_also_far_from_the_origin(shift: float):
    solution = tri.solve_rays(RING + shift, rays_to(X), np.array([1.0, 0.2, 3.0, 1.0]))
    assert solution.status is Status.OK
    assert np.linalg.norm(solution.point - (X + shift)) < 1e-9 * max(shift, 1.0)
    assert solution.residuals.max() < 1e-9 * max(shift, 1.0)


def test_condition_of_two_rays_is_the_half_angle():
    for angle in (0.5, 1.9, 2.1, 40.0):
        phi = np.radians(angle)
        d = np.array([[1.0, 0, 0], [np.cos(phi), np.sin(phi), 0]])
        solution = tri.solve_rays(X - 4 * d, d, np.ones(2))
        assert solution.condition == pytest.approx(np.sin(phi / 2)**2, rel=1e-6)
        assert solution.status is (Status.OK if angle >= 2.0 else Status.PARALLEL)


def points_of(centres: np.ndarray, depth_error: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    points = centres + (X - centres) * (1.0 + depth_error)
    depths = np.linalg.norm(points - centres, axis=1)
    return points, tri.ray_covariances(points, centres, depths, np.full(len(centres), 800.0))


def test_people_between_two_facing_cameras_get_their_point_from_depth():
    centres = np.array([X + [3.0, 0, 0], X - [4.0, 0, 0]])
    points, covariances = points_of(centres)
    result = tri.triangulate(centres, rays_to(X, centres), np.ones(2), points=points, covariances=covariances)
    assert result.status is Status.PARALLEL and np.allclose(result.point, X)


def test_one_ray_gives_that_views_own_point():
    points, covariances = points_of(RING[:1], 0.1)
    result = tri.triangulate(RING[:1], rays_to(X, RING[:1]), np.ones(1), points=points, covariances=covariances)
    assert result.status is Status.SINGLE_RAY and np.allclose(result.point, points[0])


def test_a_ray_behind_its_camera_is_dropped_and_the_rest_is_ok():
    d = rays_to(X)
    d[2] = -d[2]
    d[2, 2] += 0.3
    d[2] /= np.linalg.norm(d[2])
    assert tri.solve_rays(RING, d, np.ones(4)).status is Status.BEHIND
    result = tri.triangulate(RING, d, np.ones(4))
    assert result.status is Status.OK and result.used.tolist() == [True, True, False, True]
    assert np.allclose(result.point, X)


def test_an_outlier_ray_is_dropped():
    centres = np.concatenate([RING, [[4.0, 3.0, 0.5]]])
    d = rays_to(X, centres)
    d[1] = rays_to(X + [1.2, 0.0, 0.4], centres)[1]
    result = tri.triangulate(centres, d, np.ones(5))
    assert result.used.tolist() == [True, False, True, True, True]
    assert np.linalg.norm(result.point - X) < 1e-9
    assert np.linalg.norm(tri.huber_triangulate(centres, d, np.ones(5)).point - X) < 0.2


def test_a_solution_far_from_every_views_point_is_refused():
    centres = RING[:2]
    points, covariances = points_of(centres, -0.6)
    result = tri.triangulate(centres, rays_to(X, centres), np.ones(2), points=points, covariances=covariances,
                             depth_sigmas=np.full(2, 0.3))
    assert result.status is Status.FAR_FROM_VIEWS


def test_empty_and_not_finite_input_has_a_status():
    assert tri.solve_rays(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)).status is Status.SINGLE_RAY
    d = rays_to(X)
    d[0] = np.nan
    solution = tri.solve_rays(RING, d, np.ones(4))
    assert solution.status is Status.OK and np.allclose(solution.point, X)
    assert np.isnan(tri.fuse_points(np.zeros((0, 3)), np.zeros((0, 3, 3)))[0]).all()


def test_fused_point_of_equal_covariances_is_the_mean_and_the_covariance_shrinks():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 3))
    point, covariance = tri.fuse_points(points, np.tile(0.04 * np.eye(3), (4, 1, 1)), huber=None)
    assert np.allclose(point, points.mean(axis=0)) and np.allclose(covariance, 0.01 * np.eye(3))


def test_fusion_tends_to_triangulation_when_depth_means_nothing():
    rng = np.random.default_rng(1)
    d = rays_to(X) + 0.002 * rng.normal(size=(4, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    points = RING + d * rng.uniform(4.0, 6.0, (4, 1))
    covariances = np.eye(3) * 1e-4 + 1e3 * d[:, :, None] * d[:, None, :]
    assert np.allclose(tri.fuse_points(points, covariances, huber=None)[0],
                       tri.solve_rays(RING, d, np.ones(4)).point, atol=1e-5)


def test_closed_forms_agree_with_linear_algebra():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(30, 3, 3))
    S = root @ root.transpose(0, 2, 1) + 0.01 * np.eye(3)
    offset = rng.normal(size=(30, 3))
    inverse, good = invert_symmetric(S)
    assert good.all() and np.allclose(inverse, np.linalg.inv(S))
    expected = (offset[:, None] @ np.linalg.inv(S) @ offset[..., None])[:, 0, 0]
    assert np.allclose(mahalanobis_squared(offset, S), expected)
    assert mahalanobis_squared(offset[:1], np.zeros((1, 3, 3)))[0] == np.inf


def test_without_depth_the_mahalanobis_distance_is_that_of_the_rays_in_sigmas():
    """Two lines: |l0.m1 + l1.m0| / |l0 x l1| (Pluecker), whatever the points on them."""
    rng = np.random.default_rng(4)
    for _ in range(20):
        centre = rng.uniform(-4.0, 4.0, (2, 3))
        points = rng.uniform(-1.0, 1.0, (2, 3)) + [[0.0, 0.0, 3.0]]
        line = points - centre
        line /= np.linalg.norm(line, axis=1, keepdims=True)
        moment = np.cross(centre, line)
        expected = abs(line[0] @ moment[1] + line[1] @ moment[0]) / np.linalg.norm(np.cross(*line))
        depth = np.ones(2)
        covariance = tri.ray_covariances(points, centre, depth, np.full(2, 800.0), depth_fraction=1e5)
        sigma = 3.0 / 800.0 + 0.02
        found = np.sqrt(mahalanobis_squared(points[0] - points[1], covariance.sum(axis=0)))
        np.testing.assert_allclose(found * np.sqrt(2.0) * sigma, expected, rtol=0.01, atol=1e-4)
