"""The world is z up, its origin under the first camera when the floor is seen."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply
from human_scene_ros.runtime.world import align_world, level_world
from human_scene_ros.scene import WorldSource

CAMERA = PinholeCamera.from_fov(64, 48, 70.0)


def view_of_floor(pitch_deg, height):
    """(48, 64, 3) points of a floor seen by a camera that looks down by `pitch_deg`."""
    down_camera = Rotation.from_euler("X", pitch_deg, degrees=True).as_matrix() @ np.array([0.0, 1.0, 0.0])
    rays = CAMERA.rays().astype(np.float64)
    with np.errstate(divide="ignore"):
        z = height / (rays @ down_camera)
    return np.where(((z > 0) & (z < 30))[..., None], rays * z[..., None], np.nan)


def test_level_camera_axes():
    world = level_world()
    assert world.source == WorldSource.LEVEL_CAMERA
    forward_right_down = apply(world.T_world_origin, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    np.testing.assert_array_equal(forward_right_down, [[1, 0, 0], [0, -1, 0], [0, 0, -1]])


def test_floor_is_zero_and_the_camera_above_it():
    points = view_of_floor(20.0, 1.5)
    world = align_world(points, np.ones(points.shape[:2], bool), [])
    assert world.source == WorldSource.FLOOR
    rotation = world.T_world_origin[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) > 0
    on_floor = apply(world.T_world_origin, points[np.isfinite(points).all(-1)])
    np.testing.assert_allclose(on_floor[:, 2], 0.0, atol=1e-6)
    np.testing.assert_allclose(world.T_world_origin[:3, 3], [0.0, 0.0, 1.5], atol=1e-6)
    ahead = rotation @ np.array([0.0, 0.0, 1.0])
    assert ahead[0] > 0.9 and abs(ahead[1]) < 1e-6 and ahead[2] < 0.0


def test_floor_far_from_all_feet_is_not_believed():
    points = view_of_floor(20.0, 1.5)
    floating = np.tile([0.0, -1.0, 3.0], (55, 1))
    world = align_world(points, np.ones(points.shape[:2], bool), [floating])
    assert world.source == WorldSource.LEVEL_CAMERA


def test_people_are_no_floor():
    points = view_of_floor(20.0, 1.5)
    world = align_world(points, np.zeros(points.shape[:2], bool), [])
    assert world.source == WorldSource.LEVEL_CAMERA
