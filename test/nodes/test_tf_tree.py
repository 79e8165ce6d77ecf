"""Transforms by stamp: exact, interpolated, never extrapolated; lookups that wait without blocking."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.geometry.transform import invert, make_transform
from human_scene_ros.nodes.tf_tree import (
    LookupQueue,
    TfTree,
    TransformGoneError,
    TransformNotReadyError,
    interpolate,
)

SECOND = 10**9


def turned(degrees: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return make_transform(Rotation.from_euler("z", degrees, degrees=True).as_matrix(), np.array([x, y, z]))


def robot() -> TfTree:
    """odom -> base (moving) -> {camera (static) -> optical (static), lidar (static)}"""
    tree = TfTree()
    tree.add("base", "camera", 0, turned(90, 1.0), static=True)
    tree.add("camera", "optical", 0, turned(0, z=0.5), static=True)
    tree.add("base", "lidar", 0, turned(0, -1.0), static=True)
    tree.add("odom", "base", 0, turned(0))
    tree.add("odom", "base", SECOND, turned(90, 10.0))
    return tree


def test_the_letters_of_a_lookup_meet():
    T_lidar_optical = robot().lookup("lidar", "optical", 123)
    T_base_lidar, T_base_camera, T_camera_optical = turned(0, -1.0), turned(90, 1.0), turned(0, z=0.5)
    np.testing.assert_allclose(T_lidar_optical, invert(T_base_lidar) @ T_base_camera @ T_camera_optical, atol=1e-12)


def test_between_two_stamps_it_interpolates():
    T_odom_base = robot().lookup("odom", "base", SECOND // 4)
    np.testing.assert_allclose(T_odom_base, turned(22.5, 2.5), atol=1e-12)


def test_it_never_extrapolates():
    tree = robot()
    with pytest.raises(TransformNotReadyError, match="500.0 ms older"):
        tree.lookup("odom", "optical", SECOND + SECOND // 2)
    with pytest.raises(TransformGoneError, match="before the oldest"):
        tree.lookup("odom", "optical", -1)
    np.testing.assert_allclose(tree.lookup("optical", "optical", 5 * SECOND), np.eye(4))  # needs no transform


def test_frames_of_two_trees_name_both_roots():
    tree = robot()
    tree.add("map", "beacon", 0, np.eye(4), static=True)
    with pytest.raises(TransformNotReadyError, match="'beacon' hangs under 'map', 'optical' under 'odom'"):
        tree.lookup("beacon", "optical", 0)


def test_chain_ends_at_the_root_and_survives_a_cycle():
    tree = robot()
    assert tree.chain("optical") == ("optical", "camera", "base", "odom")
    assert tree.chain("alone") == ("alone",)
    tree.add("optical", "odom", 0, np.eye(4))
    assert len(tree.chain("optical")) == 4


def test_history_is_bounded_and_unordered_arrival_is_fine():
    tree = TfTree(keep_s=2.0)
    for second in (0, 3, 1, 2, 4):
        tree.add("a", "b", second * SECOND, turned(0, float(second)))
    assert tree.lookup("a", "b", 3 * SECOND + SECOND // 2)[0, 3] == pytest.approx(3.5)
    with pytest.raises(TransformGoneError):
        tree.lookup("a", "b", SECOND)


def test_a_new_parent_forgets_the_old_history_and_clear_keeps_static():
    tree = robot()
    tree.add("map", "base", 2 * SECOND, np.eye(4))
    assert tree.parent("base") == "map"
    with pytest.raises(TransformGoneError):
        tree.lookup("map", "base", SECOND)
    tree.clear()
    assert tree.parent("base") is None and tree.parent("optical") == "camera"


def test_interpolation_takes_the_short_way_round():
    middle = interpolate(turned(170), turned(-170), 0.5)
    np.testing.assert_allclose(np.abs(Rotation.from_matrix(middle[:3, :3]).as_euler("zyx", degrees=True)[0]), 180.0)


def test_lookups_wait_for_the_transform_and_give_up_after_their_time():
    tree, found = robot(), []
    queue = LookupQueue(tree)
    queue.when_ready("odom", "base", SECOND, 10.0, found.append)
    assert len(found) == 1
    queue.when_ready("odom", "base", 2 * SECOND, 10.0, found.append)
    queue.when_ready("odom", "base", 2 * SECOND, 0.0, found.append)
    queue.when_ready("odom", "base", -5, 10.0, found.append)  # gone: waiting is of no use
    assert len(found) == 1 and queue.failed == 2
    tree.add("odom", "base", 3 * SECOND, turned(90, 30.0))
    queue.poll()
    queue.poll()
    assert len(found) == 2 and found[1][0, 3] == pytest.approx(20.0)
