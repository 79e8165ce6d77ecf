"""The floor is found exactly, tables and walls are not floors, and doubt gives none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.mapping.ground import fit_ground

UP = np.array([0.0, -1.0, 0.0])


def floor_points(rng, n=2000, height=1.4, noise=0.0):
    points = np.stack([rng.uniform(-3, 3, n), np.full(n, height), rng.uniform(0.5, 8, n)], axis=1)
    return points + rng.normal(0.0, noise, points.shape) if noise else points


def test_exact_plane_under_a_tilted_camera():
    tilt = Rotation.from_euler("XZ", [-15.0, 6.0], degrees=True).as_matrix()
    plane = fit_ground(floor_points(np.random.default_rng(0)) @ tilt.T, UP)
    np.testing.assert_allclose(plane.normal, tilt @ UP, atol=1e-9)
    assert plane.offset == pytest.approx(1.4, abs=1e-9)
    assert plane.inlier_fraction == 1.0
    np.testing.assert_allclose(plane.height(np.zeros((1, 3))), [1.4], atol=1e-9)


def test_floor_with_noise_walls_and_a_table():
    rng = np.random.default_rng(1)
    floor = floor_points(rng, 1500, noise=0.02)
    wall = np.stack([rng.uniform(-3, 3, 800), rng.uniform(-1.5, 1.4, 800), np.full(800, 8.0)], axis=1)
    table = np.stack([rng.uniform(-1, 1, 1200), np.full(1200, 0.6), rng.uniform(1, 3, 1200)], axis=1)
    nothing = np.full((300, 3), np.nan)
    plane = fit_ground(np.concatenate([table, wall, nothing, floor]), UP)
    assert plane.offset == pytest.approx(1.4, abs=0.03)
    assert np.degrees(np.arccos(plane.normal @ UP)) < 1.0


@pytest.mark.parametrize("points", [
    np.zeros((0, 3)), np.full((100, 3), np.nan),
    np.random.default_rng(2).uniform((-3, -2, 1), (3, 2, 8), (3000, 3)),  # a cloud without any plane
    np.random.default_rng(3).uniform((-3, -2, 5), (3, 2, 5.001), (3000, 3)),  # only a wall
], ids=["empty", "nan", "cloud", "wall"])
def test_no_floor(points):
    assert fit_ground(points, UP) is None
