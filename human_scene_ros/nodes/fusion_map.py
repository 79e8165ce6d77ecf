"""The maps of a rig's reconstructors as one: each is in a world of its own, the cameras say how these worlds lie.

A reconstructor's world is tied to its camera by `camera_pose`, and the camera to the rig's world by its extrinsics, so
T_world_own = T_world_camera T_own_camera^-1. No ROS import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import MessageError
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.mapping.voxel_map import MapConfig, VoxelMap
from human_scene_ros.nodes.fusion_config import FusionMapConfig
from human_scene_ros.sources import message_fields

Matrix = NDArray[np.float64]
Points = tuple[NDArray[np.float32], NDArray[np.uint8]]


class MergedMap:
    """The newest map of every camera, and where its world lies.

    Args:
        cameras: Names.
        config: Edge of a voxel and limits.
    """

    def __init__(self, cameras: Sequence[str], config: FusionMapConfig) -> None:
        self._config = MapConfig(voxel_m=config.voxel, max_points=config.max_points, min_observations=1)
        self._maps: dict[str, Points | None] = dict.fromkeys(cameras)
        self._T_world_own: dict[str, Matrix] = {}
        self.changed = False

    def clear(self) -> None:
        """Time jumped: the reconstructors begin anew."""
        self._maps = dict.fromkeys(self._maps)
        self._T_world_own.clear()

    def take(self, camera: str, cloud: Any) -> None:
        """A camera's map.

        Raises:
            MessageError: The cloud has no x, y, z.
        """
        self._maps[camera] = message_fields.points_of_cloud(cloud)
        self.changed = True

    def place(self, camera: str, message: Any, T_world_camera: Matrix | None) -> None:
        """Learn where the camera's own world lies, from a body message and the extrinsics at its stamp.

        Raises:
            MessageError: camera_pose of the message is no pose; what was known stays.
        """
        if T_world_camera is None or message.camera_pose.covariance[0] == -1.0:
            return
        own = message_fields.matrix_of_pose(message.camera_pose.pose)
        if not np.isfinite(own).all():
            raise MessageError(f"position of camera_pose is {own[:3, 3].tolist()}; expected finite metres")
        self._T_world_own[camera] = T_world_camera @ invert(own)

    def merged(self) -> Points:
        """(N, 3) points in the rig's world, metres, and (N, 3) RGB, of all cameras whose world is known."""
        scene = VoxelMap(self._config)
        for camera, cloud in self._maps.items():
            if cloud is not None and camera in self._T_world_own:
                scene.add_points(apply(self._T_world_own[camera], cloud[0]), cloud[1])
        self.changed = False
        points, colors, _ = scene.points()
        return points, colors
