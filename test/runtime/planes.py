"""A room of textured planes with exact images and depth, for odometry tests: no renderer, no network."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform

CAMERA = PinholeCamera.from_fov(320, 240, 65.0)
PIXELS_PER_METRE = 100.0
# Origin is the first camera: y down. (normal, offset) of n.p = d.
PLANES = (((0.0, 0.0, 1.0), 5.0), ((0.0, 1.0, 0.0), 1.3), ((-1.0, 0.0, 0.0), 2.6), ((1.0, 0.0, 0.0), 2.2),
          ((0.0, -1.0, 0.0), 1.4), ((0.0, 0.0, -1.0), 4.0))


def _texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    total = np.zeros((1024, 1024), np.float32)
    for cells in (16, 64, 256):
        noise = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
        total += cv2.resize(noise, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return np.clip(128.0 + 45.0 * total, 0, 255)


# One above the other, each padded with its own first row, for it repeats.
ATLAS = np.concatenate([np.concatenate([t, t[:1]]) for t in map(_texture, range(len(PLANES)))])


def render(T_origin_camera: np.ndarray, camera: PinholeCamera = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 image and (H, W) exact depth of the room from a pose."""
    rays = camera.rays() @ T_origin_camera[:3, :3].T.astype(np.float32)
    centre = T_origin_camera[:3, 3].astype(np.float32)
    best = np.full(rays.shape[:2], np.inf, np.float32)
    nearest = np.zeros(rays.shape[:2], np.intp)
    for i, (normal, offset) in enumerate(PLANES):
        axis = int(np.flatnonzero(normal)[0])
        with np.errstate(divide="ignore"):
            z = (offset / normal[axis] - centre[axis]) / rays[..., axis]
        hit = (z > 0.05) & (z < best)
        nearest[hit], best[hit] = i, z[hit]
    points = centre + rays * best[..., None]
    axes = np.array([[i for i in range(3) if normal[i] == 0.0] for normal, _ in PLANES])[nearest]
    place = np.take_along_axis(points, axes, axis=-1) * PIXELS_PER_METRE % 1024
    sample = cv2.remap(ATLAS, place[..., 0], (place[..., 1] + nearest * 1025).astype(np.float32), cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_WRAP)
    return np.repeat(sample.round().astype(np.uint8)[..., None], 3, axis=2), best


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> np.ndarray:
    """T_origin_camera of a camera at (x, y, z) metres turned about its y (yaw) and x (pitch) axes."""
    turn = Rotation.from_euler("YX", [yaw_deg, pitch_deg], degrees=True)
    return make_transform(turn.as_matrix(), np.array([x, y, z]))
