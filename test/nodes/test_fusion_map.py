"""Maps of several reconstructors, each in its own world, as one in the world of the rig."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import MessageError
from human_scene_ros.geometry.transform import apply, invert, make_transform
from human_scene_ros.nodes.fusion_config import FusionMapConfig
from human_scene_ros.nodes.fusion_map import MergedMap
from human_scene_ros.sources.message_fields import point_cloud_fields, points_of_cloud, pose_with_covariance_fields


def pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return make_transform(Rotation.random(random_state=seed).as_matrix(), rng.uniform(-3.0, 3.0, 3))


def as_message(fields: dict) -> SimpleNamespace:
    """Nested dicts as objects."""
    def value(v):
        return as_message(v) if isinstance(v, dict) else [value(x) for x in v] if isinstance(v, list) else v

    return SimpleNamespace(**{k: value(v) for k, v in fields.items()})


def cloud(points: np.ndarray, colors: np.ndarray) -> SimpleNamespace:
    return as_message(point_cloud_fields(0, "map", points.astype(np.float32), colors))


def test_points_and_colours_survive_the_message():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    points[7] = np.nan
    colors = rng.integers(0, 256, (50, 3)).astype(np.uint8)
    back, rgb = points_of_cloud(cloud(points, colors))
    np.testing.assert_array_equal(back, np.delete(points, 7, axis=0))
    np.testing.assert_array_equal(rgb, np.delete(colors, 7, axis=0))
    broken = cloud(points, colors)
    broken.fields = broken.fields[1:]
    with pytest.raises(MessageError, match="expected little-endian float32 x, y, z"):
        points_of_cloud(broken)


def test_the_same_wall_in_two_worlds_is_one_wall():
    """Two cameras saw the same points; their reconstructors' worlds lie anywhere; a third camera has no pose."""
    merged = MergedMap(["a", "b", "c"], FusionMapConfig(voxel=0.1))
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(15), [0]), axis=-1).reshape(-1, 3) * 0.1 + 0.05
    for k, name in enumerate("abc"):
        T_world_camera, T_own_camera = pose(k), pose(10 + k)
        T_own_world = T_own_camera @ invert(T_world_camera)
        merged.take(name, cloud(apply(T_own_world, grid), np.full((len(grid), 3), 40 * k, np.uint8)))
        camera_pose = as_message(pose_with_covariance_fields(T_own_camera, None))
        merged.place(name, SimpleNamespace(camera_pose=camera_pose), T_world_camera if name != "c" else None)
    assert merged.changed
    points, colors = merged.merged()
    assert len(points) == len(grid) and not merged.changed
    order = np.lexsort(np.round(points, 2).T)
    np.testing.assert_allclose(points[order], grid[np.lexsort(np.round(grid, 2).T)], atol=1e-4)
    assert set(colors.reshape(-1)) == {20}, "the mean of both cameras"
    # What is no pose is refused, and what was known stays.
    for k, part in enumerate(("orientation", "position")):
        camera_pose = as_message(pose_with_covariance_fields(pose(k), None))
        getattr(camera_pose.pose, part).x = float("nan")
        with pytest.raises(MessageError, match="is no rotation" if k == 0 else "expected finite metres"):
            merged.place("a", SimpleNamespace(camera_pose=camera_pose), pose(0))
    np.testing.assert_array_equal(merged.merged()[0], points)
    merged.clear()
    assert not len(merged.merged()[0])
