"""Averages of rotations: exact truths, invariances, and degenerate sets as statuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion import rotations as r
from human_scene_ros.geometry.transform import rotation_angle


def test_rodrigues_agrees_with_scipy_from_tiny_to_full_turns():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 3))
    lengths = np.concatenate([np.zeros(3), np.logspace(-12, 0.8, 57)])
    vectors *= (lengths / np.linalg.norm(vectors, axis=1))[:, None]
    expected = Rotation.from_rotvec(vectors).as_matrix()
    assert np.abs(r.matrices_from_rotvecs(vectors) - expected).max() < 1e-12


def test_projection_finds_the_nearest_rotation_also_of_reflections_and_flat_matrices():
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(200, 3, 3))
    matrices[0] = np.diag([1.0, 1.0, 0.0])
    matrices[1] = 1e-6 * Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()
    projected = r.project_to_rotations(matrices)
    assert np.abs(projected @ projected.transpose(0, 2, 1) - np.eye(3)).max() < 1e-10
    assert np.linalg.det(projected) == pytest.approx(1.0)
    U, _, Vt = np.linalg.svd(matrices)
    best = U @ np.diag([1.0, 1.0, 1.0]) @ Vt
    flip = np.linalg.det(best) < 0
    U[flip, :, 2] *= -1
    assert np.abs(projected - U @ Vt)[1:].max() < 1e-8


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_projected_or_converted_stays_as_it_was(count: int):
    rng = np.random.default_rng(2)
    matrices, vectors = rng.normal(size=(count, 3, 3)) + 2.0 * np.eye(3), rng.normal(size=(count, 3))
    before = matrices.copy(), vectors.copy()
    r.project_to_rotations(matrices), r.matrices_from_rotvecs(vectors)
    assert (matrices == before[0]).all() and (vectors == before[1]).all()
    mirrored = matrices * [1.0, 1.0, -1.0]
    assert np.linalg.det(r.project_to_rotations(mirrored)) == pytest.approx(1.0)
    assert r.project_to_rotations(mirrored[:1]) == pytest.approx(r.project_to_rotations(mirrored)[:1])


def test_projection_of_nothing_and_of_nan_does_not_raise():
    assert r.project_to_rotations(np.zeros((0, 3, 3))).shape == (0, 3, 3)
    with np.errstate(invalid="ignore"):
        assert np.isfinite(r.project_to_rotations(np.full((1, 3, 3), np.nan))).all()


def test_average_of_one_is_that_one_exactly():
    R = Rotation.from_rotvec([[1.0, 2.0, 0.5]]).as_matrix()
    average = r.average_rotation(R, np.array([0.3]))
    assert (average.rotation == R[0]).all() and average.quality == pytest.approx(1.0)


def test_two_equal_weights_average_to_the_middle_and_quality_tells_their_angle():
    angle = 1.2
    R = Rotation.from_rotvec([[0.0, 0.0, 0.0], [0.0, 0.0, angle]]).as_matrix()
    average = r.average_rotation(R, np.ones(2))
    assert Rotation.from_matrix(average.rotation).as_rotvec() == pytest.approx([0.0, 0.0, angle / 2])
    assert average.quality == pytest.approx((1.0 + np.cos(angle / 2)) / 2)


def test_opposite_rotations_are_ambiguous_and_the_heavier_is_returned():
    R = Rotation.from_rotvec([[0.0, 0.0, 0.0], [0.0, 0.0, np.pi]]).as_matrix()
    average = r.average_rotation(R, np.ones(2))
    assert average.status is r.RotationStatus.AMBIGUOUS
    heavier = r.average_rotation(R, np.array([1.0, 1.0 + 1e-7]))
    assert heavier.status is r.RotationStatus.AMBIGUOUS and np.allclose(heavier.rotation, R[1])


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [np.nan, -1.0]])
def test_without_weight_the_average_is_empty(weights: list[float]):
    assert r.average_rotation(np.tile(np.eye(3), (len(weights), 1, 1)), np.array(weights)).status is (
        r.RotationStatus.EMPTY)


def test_mean_turns_with_its_inputs():
    rng = np.random.default_rng(2)
    R, w = Rotation.random(5, rng=rng).as_matrix(), rng.uniform(0.1, 1.0, 5)
    turn = Rotation.random(rng=rng).as_matrix()
    assert np.allclose(turn @ r.average_rotation(R, w).rotation, r.average_rotation(turn @ R, w).rotation)


def test_median_stays_with_the_majority_and_the_batched_one_comes_near():
    base = Rotation.from_rotvec([0.3, -0.2, 0.1])
    noise = Rotation.from_rotvec(0.02 * np.random.default_rng(3).normal(size=(4, 3)))
    R = np.concatenate([(base * noise).as_matrix(), (base * Rotation.from_rotvec([0, 0, 2.0])).as_matrix()[None]])
    exact = r.exact_geodesic_median(R, np.ones(5))
    assert rotation_angle(exact.T @ base.as_matrix()) < 0.04
    quick = r.geodesic_median(R[:, None], np.ones((5, 1)), iterations=30)[0]
    assert rotation_angle(exact.T @ quick) < 0.02
    mean = r.average_rotation(R, np.ones(5)).rotation
    assert rotation_angle(mean.T @ base.as_matrix()) > 0.1


def test_median_at_a_data_point_is_that_point():
    R = Rotation.from_rotvec([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]).as_matrix()
    assert np.allclose(r.exact_geodesic_median(R, np.array([3.0, 1.0, 1.0])), np.eye(3), atol=1e-12)
