"""The map: exact means, people stay out, memory is bounded, and the table agrees with a dictionary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.mapping.voxel_map import MapConfig, VoxelMap
from human_scene_ros.scene import ScaleSource, SceneEstimate, TrackingStatus, WorldSource

CAMERA = PinholeCamera.from_fov(40, 30, 60.0)


def estimate_of(depth=None, mask=None, T_world_camera=None, **changes):
    depth = np.full((30, 40), 3.0, np.float32) if depth is None else depth
    estimate = SceneEstimate(
        stamp_ns=0, segment=0, T_world_camera=np.eye(4) if T_world_camera is None else T_world_camera, camera=CAMERA,
        calibrated=True, dense_camera=CAMERA, points_camera=CAMERA.rays() * depth[..., None],
        confidence=np.full((30, 40), 5.0, np.float32), colors=np.full((30, 40, 3), 90, np.uint8),
        person=np.zeros((30, 40), bool) if mask is None else mask, bodies=(), status=TrackingStatus.OK,
        scale=1.0, scale_source=ScaleSource.NETWORK, world_source=WorldSource.LEVEL_CAMERA, stage_ms={})
    return dataclasses.replace(estimate, **changes)


def test_voxel_holds_the_mean_over_frames():
    world = VoxelMap(MapConfig(voxel_m=1.0, min_observations=2))
    world.add_points(np.array([[0.2, 0.2, 0.2], [0.4, 0.4, 0.4], [5.5, 0.1, 0.1]]),
                     np.array([[10, 20, 30], [30, 40, 50], [1, 2, 3]], np.uint8))
    world.add_points(np.array([[0.9, 0.9, 0.9]]), np.array([[60, 70, 80]], np.uint8))
    points, colors, hits = world.points()
    # A frame counts once, however many of its points fall into the voxel: (0.3 + 0.9) / 2.
    np.testing.assert_allclose(points, [[0.6, 0.6, 0.6]], atol=1e-6)
    np.testing.assert_array_equal(colors, [[40, 50, 60]])
    np.testing.assert_array_equal(hits, [2])
    assert len(world) == 2


def test_table_agrees_with_a_dictionary():
    rng = np.random.default_rng(0)
    world, expected = VoxelMap(MapConfig(voxel_m=0.5, min_observations=1)), {}
    for _ in range(20):
        points = rng.uniform(-30.0, 30.0, (2000, 3)).astype(np.float32)
        frame = {}
        for p, key in zip(points, np.floor(points.astype(np.float64) / 0.5).astype(int).tolist(), strict=True):
            frame.setdefault(tuple(key), []).append(p)
        for key, seen in frame.items():
            expected.setdefault(key, []).append(sum(seen) / len(seen))
        world.add_points(points, np.zeros((2000, 3), np.uint8))
    points, _, hits = world.points()
    assert len(points) == len(expected)
    found = [expected[tuple(key)] for key in np.floor(points.astype(np.float64) / 0.5).astype(int).tolist()]
    assert [len(seen) for seen in found] == hits.tolist()
    np.testing.assert_allclose(points, [sum(seen) / len(seen) for seen in found], atol=1e-4)


def test_people_and_their_surroundings_stay_out():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 15:25] = True
    world = VoxelMap(MapConfig(people_margin_m=0.2))
    keep = world.background(estimate_of(mask=mask))
    radius = round(0.2 * CAMERA.fx / 3.0)
    expected = np.ones((30, 40), bool)
    expected[10 - radius:20 + radius, 15 - radius:25 + radius] = False
    np.testing.assert_array_equal(keep, expected)


def test_a_person_seen_once_without_mask_does_not_stay():
    world = VoxelMap(MapConfig(min_observations=3))
    ghost = np.full((30, 40), 3.0, np.float32)
    ghost[5:25, 15:25] = 1.5
    world.add(estimate_of(ghost))
    for _ in range(4):
        world.add(estimate_of())
    points, _, _ = world.points()
    assert len(points) > 100
    assert points[:, 2].min() > 2.5


@pytest.mark.parametrize("change", ["far", "doubtful", "nan", "jump"])
def test_bad_points_stay_out(change):
    depth, confidence = np.full((30, 40), 3.0, np.float32), np.full((30, 40), 5.0, np.float32)
    out = np.zeros((30, 40), bool)
    if change == "far":
        depth[:] = 20.0
        out[:] = True
    elif change == "doubtful":
        confidence[:, :10] = 1.2
        out[:, :10] = True
    elif change == "nan":
        depth[4:8] = np.nan
        out[3:9] = True  # what borders on the unknown cannot be checked for a jump
    else:
        depth[:, 20:] = 6.0
        out[:, 19:21] = True
    world = VoxelMap(MapConfig(max_range_m=15.0, min_confidence=1.5))
    keep = world.background(estimate_of(depth, confidence=confidence))
    np.testing.assert_array_equal(keep, ~out)


def test_lost_frames_are_left_out_and_another_segment_is_another_map():
    world = VoxelMap(MapConfig(min_observations=1))
    assert world.add(estimate_of(status=TrackingStatus.LOST)) == 0
    assert len(world) == 0
    assert world.add(estimate_of()) == 1200
    before = len(world)
    moved = make_transform(np.eye(3), np.array([100.0, 0.0, 0.0]))
    world.add(estimate_of(segment=1, T_world_camera=moved))
    assert len(world) == before
    assert world.points()[0][:, 0].min() > 90.0


def test_memory_is_bounded_and_the_doubtful_and_old_leave_first():
    rng = np.random.default_rng(1)
    world = VoxelMap(MapConfig(voxel_m=1.0, max_points=1000, min_observations=2))
    lasting = np.stack([np.arange(300.0), np.zeros(300), np.zeros(300)], axis=1) + 0.5
    for _ in range(2):
        world.add_points(lasting, np.zeros((300, 3), np.uint8))
    sizes = []
    for _ in range(60):
        world.add_points(rng.uniform(-500.0, 500.0, (200, 3)) - [0, 2000, 0], np.zeros((200, 3), np.uint8))
        assert len(world) <= 1000
        sizes.append(world.nbytes)
    assert len(set(sizes[20:])) == 1
    points, _, hits = world.points()
    assert (points[:, 1] > -1.0).sum() == 300
    assert hits.max() == 2


def test_thinned_frames_still_cover_everything():
    world = VoxelMap(MapConfig(voxel_m=0.01, min_observations=1, max_points_per_frame=400))
    used = [world.add(estimate_of()) for _ in range(3)]
    assert used == [400, 400, 400]
    assert len(world.points()[0]) == 1200


def test_unusable_points_are_counted_out():
    world = VoxelMap(MapConfig(min_observations=1))
    points = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1e9, 0, 0], [1.0, 1.0, 1.0]])
    assert world.add_points(points, np.zeros((4, 3), np.uint8)) == 1
    assert world.add_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8)) == 0
    assert len(world) == 1
    with pytest.raises(ShapeError, match="colors"):
        world.add_points(points, np.zeros((3, 3), np.uint8))


def test_bad_config():
    with pytest.raises(ConfigError, match="map.voxel_m = 0.0"):
        MapConfig(voxel_m=0.0)
