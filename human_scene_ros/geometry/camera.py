"""Pinhole cameras: project, unproject, resize, crop. Lens distortion is removed where images enter."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import CalibrationError
from human_scene_ros.geometry.arrays import check_shape


@dataclasses.dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of exactly one image size; pixel centres at integers, optical axes.

    Args:
        width: Image width, pixels.
        height: Image height, pixels.
        fx: Focal length along u, pixels.
        fy: Focal length along v, pixels.
        cx: Principal point u, pixels.
        cy: Principal point v, pixels.

    Raises:
        CalibrationError: A value is not finite, or a size or focal length is not positive.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        values = {"fx": self.fx, "fy": self.fy, "cx": self.cx, "cy": self.cy}
        for name, value in values.items():
            if not math.isfinite(value):
                raise CalibrationError(f"camera {name} = {value}: must be finite; check the calibration (K)")
        if self.width <= 0 or self.height <= 0 or self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                f"camera {self.width}x{self.height} px, fx = {self.fx}, fy = {self.fy}: all must be positive")

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov_deg: float) -> PinholeCamera:
        """Square pixels, principal point in the middle of the image."""
        f = 0.5 * width / math.tan(math.radians(horizontal_fov_deg) / 2.0)
        return cls(width, height, f, f, (width - 1) / 2.0, (height - 1) / 2.0)

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, points_camera: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 3) metres -> (..., 2) pixels; NaN for points that are not in front of the camera."""
        dtype = points_camera.dtype
        with np.errstate(invalid="ignore"):
            z = np.where(points_camera[..., 2:] > 1e-9, points_camera[..., 2:], dtype.type(np.nan))
            uv = points_camera[..., :2] / z
        uv *= np.array((self.fx, self.fy), dtype)
        uv += np.array((self.cx, self.cy), dtype)
        return uv

    def rays(self) -> NDArray[np.float32]:
        """(height, width, 3) ray of each pixel with z = 1."""
        u = (np.arange(self.width, dtype=np.float32) - np.float32(self.cx)) / np.float32(self.fx)
        v = (np.arange(self.height, dtype=np.float32) - np.float32(self.cy)) / np.float32(self.fy)
        rays = np.empty((self.height, self.width, 3), np.float32)
        rays[..., 0], rays[..., 1], rays[..., 2] = u[None, :], v[:, None], 1.0
        return rays

    def unproject(self, uv_px: NDArray[np.floating], depth_m: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 2) pixels and (...) metres along z -> (..., 3) points in the camera frame."""
        x = (uv_px[..., 0] - self.cx) / self.fx * depth_m
        y = (uv_px[..., 1] - self.cy) / self.fy * depth_m
        return np.stack([x, y, depth_m], axis=-1)

    def unproject_depth(self, depth_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """(height, width) metres along z, 0 or NaN = no reading -> (height, width, 3), NaN there."""
        check_shape("depth_m", depth_m, (self.height, self.width))
        return self.rays() * np.where(depth_m > 0.0, depth_m, np.nan).astype(np.float32)[..., None]

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera after resizing the image; pixel centres map as (u + 0.5) * s - 0.5."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(width, height, self.fx * sx, self.fy * sy,
                             (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)

    def cropped(self, left: int, top: int, width: int, height: int) -> PinholeCamera:
        """The camera after cutting out the box with the given corner; negative corners pad."""
        return PinholeCamera(width, height, self.fx, self.fy, self.cx - left, self.cy - top)
