"""Rigid transforms: letters that meet, bijections, quaternions against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.geometry.transform import (
    ROT_WORLD_LEVEL_CAMERA,
    apply,
    invert,
    make_transform,
    matrix_from_quat_wxyz,
    orthonormal,
    quat_wxyz_from_matrix,
    rotation_angle,
    rotation_vectors,
)

ROTATIONS = Rotation.random(50, random_state=0).as_matrix()


def random_transform(seed: int) -> np.ndarray:
    return make_transform(ROTATIONS[seed], np.random.default_rng(seed).normal(size=3))


def test_products_chain_and_inverses_undo():
    T_world_rig, T_rig_camera = random_transform(1), random_transform(2)
    points_camera = np.random.default_rng(0).normal(size=(7, 3))
    points_world = apply(T_world_rig @ T_rig_camera, points_camera)
    np.testing.assert_allclose(points_world, apply(T_world_rig, apply(T_rig_camera, points_camera)), atol=1e-12)
    np.testing.assert_allclose(apply(invert(T_world_rig @ T_rig_camera), points_world), points_camera, atol=1e-12)
    assert apply(T_world_rig, points_camera.astype(np.float32)).dtype == np.float32


def test_a_level_camera_looks_along_world_x_with_the_sky_above():
    right, down, forward = ROT_WORLD_LEVEL_CAMERA.T
    np.testing.assert_array_equal([right, down, forward], [[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    assert np.linalg.det(ROT_WORLD_LEVEL_CAMERA) == pytest.approx(1.0)


def test_quaternions_are_those_of_scipy():
    for rot in ROTATIONS:
        expected = Rotation.from_matrix(rot).as_quat(canonical=True)[[3, 0, 1, 2]]
        np.testing.assert_allclose(quat_wxyz_from_matrix(rot), expected, atol=1e-12)
        np.testing.assert_allclose(matrix_from_quat_wxyz(expected), rot, atol=1e-12)


@pytest.mark.parametrize("rotvec", [
    (0, 0, 0), (np.pi, 0, 0), (0, np.pi, 0), (0, 0, np.pi), (1e-9, 0, 0), (0, np.pi - 1e-7, 0),
    (np.pi / np.sqrt(3),) * 3, (0, np.pi / np.sqrt(2), -np.pi / np.sqrt(2))])
def test_quaternions_at_half_turns_and_at_rest(rotvec):
    rot = Rotation.from_rotvec(rotvec).as_matrix()
    quat_wxyz = quat_wxyz_from_matrix(rot)
    assert np.linalg.norm(quat_wxyz) == pytest.approx(1.0) and quat_wxyz[0] >= 0.0
    np.testing.assert_allclose(matrix_from_quat_wxyz(quat_wxyz), rot, atol=1e-12)


def test_rounding_of_a_long_product_is_forgiven():
    rot = ROTATIONS[0].astype(np.float32) * np.float32(1.0 + 1e-6)
    np.testing.assert_allclose(quat_wxyz_from_matrix(rot), quat_wxyz_from_matrix(ROTATIONS[0]), atol=1e-6)


def test_rotation_angle_is_in_radians():
    assert rotation_angle(Rotation.from_rotvec([0, 0, 2.0]).as_matrix()) == pytest.approx(2.0)


def test_a_chain_of_inverses_stays_rigid_only_when_mended():
    """x -> (x^-1 x) x: the transpose doubles what is wrong, so a chain without mending explodes."""
    T = make_transform(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix(), np.array([1.0, 2.0, 3.0]))
    T[0, 0] += 1e-7
    chained = mended = T
    for _ in range(16):
        chained = chained @ (invert(chained) @ chained)
        mended = orthonormal(mended @ (invert(mended) @ mended))
    assert not np.allclose(chained[:3, :3] @ chained[:3, :3].T, np.eye(3), atol=1e-3)
    np.testing.assert_allclose(mended[:3, :3] @ mended[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(orthonormal(T), T, atol=1e-7)


def test_rotation_vectors_are_those_of_scipy():
    """Small turns, half turns and all between, as float32 as the network gives them."""
    rng = np.random.default_rng(4)
    axis = rng.normal(size=(200, 3))
    angle = np.concatenate([[0.0, 1e-5, 1e-3, np.pi - 0.1, np.pi - 1e-3, np.pi], rng.uniform(0.0, np.pi, 194)])
    rotations = Rotation.from_rotvec(axis * (angle / np.linalg.norm(axis, axis=1))[:, None]).as_matrix()
    vectors = rotation_vectors(rotations.astype(np.float32).reshape(4, 50, 3, 3)).reshape(-1, 3)
    np.testing.assert_allclose(Rotation.from_rotvec(vectors).as_matrix(), rotations, atol=2e-6)
    assert (np.linalg.norm(vectors, axis=1) < np.pi + 1e-6).all()
