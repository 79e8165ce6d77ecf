"""One synthetic world seen by several fixed cameras: the same people at the same moments, from the room's corners."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError
from human_scene_ros.synthetic.camera_paths import CameraPath, look_rotation
from human_scene_ros.synthetic.effects import CameraEffects
from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

MAX_CAMERAS = 8
_FROM_WALL_M = 0.35
_HEIGHT_M = 2.1
_AIM_HEIGHT_M = 0.9


def rig_poses(half: NDArray[np.floating], ceiling: float, cameras: int) -> NDArray[np.float64]:
    """(V, 4, 4) T_world_camera in the corners of a room, then the middles of its walls, all looking at its middle.

    Args:
        half: (2,) half extents of the floor, metres.
        ceiling: Its height, metres.
        cameras: V, up to 8.

    Raises:
        ConfigError: Too many cameras, or none.
    """
    if not 1 <= cameras <= MAX_CAMERAS:
        raise ConfigError(f"cameras = {cameras}: a room has places for 1 to {MAX_CAMERAS}")
    x, y = np.asarray(half, np.float64) - _FROM_WALL_M
    places = np.array([[x, y], [-x, -y], [-x, y], [x, -y], [x, 0.0], [-x, 0.0], [0.0, y], [0.0, -y]])[:cameras]
    height = min(_HEIGHT_M, ceiling - 0.3)
    poses = np.tile(np.eye(4), (cameras, 1, 1))
    distance = np.linalg.norm(places, axis=1)
    poses[:, :3, :3] = look_rotation(np.arctan2(-places[:, 1], -places[:, 0]),
                                     -np.arctan2(height - _AIM_HEIGHT_M, distance), np.zeros(cameras))
    poses[:, :2, 3], poses[:, 2, 3] = places, height
    return poses


def room_rig(seed: int, config: WorldConfig, cameras: int) -> list[SyntheticWorld]:
    """The world of a seed once per camera; they share room and people and differ in pose and sensor noise.

    Args:
        seed: Of the world.
        config: Its camera motion is not used.
        cameras: How many, see `rig_poses`.

    Raises:
        ConfigError: See `rig_poses`.
    """
    world = SyntheticWorld(seed, dataclasses.replace(config, camera_motion="static"))
    views = []
    for k, pose in enumerate(rig_poses(world.place.half, world.place.ceiling, cameras)):
        view = copy.copy(world)
        view.camera_path = CameraPath("static", np.tile(pose, (len(world), 1, 1)))
        view._effects = CameraEffects(np.random.default_rng([seed, k]), config.width, config.height, config.effects)
        view._poses = {}
        views.append(view)
    return views


def joints_world(world: SyntheticWorld, index: int) -> NDArray[np.float64]:
    """(P, 55, 3) true joints of everybody, metres, world frame, without rendering."""
    return np.stack([world._posed(k, index)[2] for k in range(len(world._actors))]).astype(np.float64) \
        if world._actors else np.zeros((0, 55, 3))


def horizontal_fov_deg(world: SyntheticWorld) -> float:
    """Of all its cameras."""
    return math.degrees(2.0 * math.atan(world.camera.width / (2.0 * world.camera.fx)))
