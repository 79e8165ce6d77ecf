"""Where the stream's origin lies in the z-up world: decided once, at the first frame after a reset.

Order: a pose from outside (TF, IMU) if one was given, the floor if it can be seen, else a level camera. With a
floor, z = 0 is the floor and the world's origin is below the first camera; with a level camera it is that camera's
optical centre. In both, x points where the first camera looks.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.transform import ROT_WORLD_LEVEL_CAMERA, Matrix, make_transform
from human_scene_ros.mapping.ground import GroundPlane, fit_ground
from human_scene_ros.scene import WorldSource

LEVEL_UP_CAMERA = np.array([0.0, -1.0, 0.0])
FEET = (10, 11)  # foot joints (balls of the feet) in SMPL-X order
MAX_FEET_ERROR_M = 0.5


@dataclasses.dataclass(frozen=True)
class WorldAlignment:
    """T_world_origin and where "up" came from."""

    T_world_origin: Matrix
    source: WorldSource


def level_world() -> WorldAlignment:
    """The first camera is level; the world's origin is its optical centre."""
    return WorldAlignment(make_transform(ROT_WORLD_LEVEL_CAMERA, np.zeros(3)), WorldSource.LEVEL_CAMERA)


def world_on(plane: GroundPlane) -> WorldAlignment:
    """z = 0 on the plane (given in the first camera's frame), origin below the camera, x where it looks."""
    up = plane.normal
    # A camera that looks straight down has no heading; then its image-up is taken.
    ahead = np.array([0.0, 0.0, 1.0]) if abs(up[2]) < 0.99 else np.array([0.0, -1.0, 0.0])
    x = ahead - up * (ahead @ up)
    x /= np.linalg.norm(x)
    rot_world_origin = np.stack([x, np.cross(up, x), up])
    return WorldAlignment(make_transform(rot_world_origin, np.array([0.0, 0.0, plane.offset])), WorldSource.FLOOR)


def align_world(points_camera: NDArray[np.floating], background: NDArray[np.bool_],
                joints_camera: list[NDArray[np.floating]]) -> WorldAlignment:
    """Decide from the first frame.

    Args:
        points_camera: (h, w, 3) metres, NaN where unknown.
        background: (h, w) True where there is no person.
        joints_camera: (55, 3) of each person; a floor far from all feet is not believed.
    """
    plane = fit_ground(points_camera[background], LEVEL_UP_CAMERA)
    if plane is None:
        return level_world()
    if joints_camera:
        feet = np.array([min(plane.height(np.asarray(j, np.float64)[list(FEET)])) for j in joints_camera])
        if np.abs(feet).min() > MAX_FEET_ERROR_M:
            return level_world()
    return world_on(plane)
