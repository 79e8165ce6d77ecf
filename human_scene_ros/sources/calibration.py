"""CameraInfo -> a pinhole camera, and images freed from lens distortion to match it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import CalibrationError
from human_scene_ros.geometry.camera import PinholeCamera

# distortion_model -> allowed numbers of coefficients
_MODELS = {"plumb_bob": (4, 5), "rational_polynomial": (5, 8, 12, 14), "thin_prism": (12, 14),
           "equidistant": (4,), "fisheye": (4,), "kannala_brandt4": (4,)}
_FISHEYE = ("equidistant", "fisheye", "kannala_brandt4")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Intrinsics of one image stream.

    Args:
        camera: Pinhole part, of exactly the images that are delivered.
        model: Name of the distortion model of sensor_msgs/CameraInfo.
        distortion: Its coefficients; empty = the image is undistorted already.
    """

    camera: PinholeCamera
    model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()

    @classmethod
    def from_message(cls, info: Any, width: int, height: int, *, rectified: bool = False) -> Calibration | None:
        """Read sensor_msgs/CameraInfo (any object with its fields) for images of `width` x `height`.

        K belongs to the raw image and P to the rectified one. Binning and region of interest are applied
        unless the message's size is the image's size already (many drivers fill them in and do not mean it).

        Args:
            info: The message.
            width: Width of the images, pixels.
            height: Height of the images, pixels.
            rectified: The images are rectified: use P, remove no distortion.

        Returns:
            None for an uncalibrated camera, which sends K[0] = 0.

        Raises:
            CalibrationError: Another image size, values that are not finite, unknown distortion model.
        """
        matrix = np.asarray(info.p, np.float64).reshape(3, 4) if rectified else np.asarray(
            info.k, np.float64).reshape(3, 3)
        if matrix[0, 0] == 0.0:
            return None
        fx, fy, cx, cy = (float(matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        full = PinholeCamera(int(info.width) or width, int(info.height) or height, fx, fy, cx, cy)
        camera = full if (full.width, full.height) == (width, height) else _windowed(full, info)
        if (camera.width, camera.height) != (width, height):
            raise CalibrationError(f"camera_info is for {full.width}x{full.height} px, the image is {width}x{height}; "
                                   "calibrate this size or publish both at the same size")
        distortion = () if rectified else tuple(float(v) for v in np.asarray(info.d).reshape(-1))
        if not np.isfinite(distortion).all():
            raise CalibrationError(f"camera_info distortion {list(distortion)}: must be finite")
        if not any(distortion):
            return cls(camera)
        allowed = _MODELS.get(info.distortion_model)
        if allowed is None:
            raise CalibrationError(f"camera_info distortion_model '{info.distortion_model}' is not known; known: "
                                   f"{', '.join(_MODELS)}")
        if len(distortion) not in allowed:
            raise CalibrationError(f"camera_info distortion '{info.distortion_model}' has {len(distortion)} "
                                   f"coefficients; expected {' or '.join(map(str, allowed))}")
        return cls(camera, info.distortion_model, distortion)

    def undistorted(self, image: NDArray[Any], *, nearest: bool = False) -> NDArray[Any]:
        """`image` as the pinhole `camera` would have seen it; `image` itself when there is no distortion.

        Args:
            image: (H, W) or (H, W, C) of the camera's size.
            nearest: No interpolation, for depth and labels.
        """
        if image.shape[:2] != (self.camera.height, self.camera.width):
            raise CalibrationError(f"image is {image.shape[1]}x{image.shape[0]} px, the calibration is for "
                                   f"{self.camera.width}x{self.camera.height}")
        if not self.distortion:
            return image
        map_xy, map_fraction = _maps(self)
        if nearest:
            return cv2.remap(image, map_xy, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
        return cv2.remap(image, map_xy, map_fraction, cv2.INTER_LINEAR)


def is_rectified_topic(image_topic: str) -> bool:
    """True if the name says so: `image_rect`, `image_rect_color` and their compressed forms (image_pipeline)."""
    return image_topic.removesuffix("/compressed").rsplit("/", 1)[-1].startswith(("image_rect", "rect"))


@functools.lru_cache(maxsize=8)
def _maps(calibration: Calibration) -> tuple[NDArray[Any], NDArray[Any]]:
    camera, distortion = calibration.camera, np.array(calibration.distortion)
    size = (camera.width, camera.height)
    if calibration.model in _FISHEYE:
        return cv2.fisheye.initUndistortRectifyMap(camera.K, distortion, np.eye(3), camera.K, size, cv2.CV_16SC2)
    return cv2.initUndistortRectifyMap(camera.K, distortion, np.eye(3), camera.K, size, cv2.CV_16SC2)


def _windowed(full: PinholeCamera, info: Any) -> PinholeCamera:
    roi, bin_x, bin_y = info.roi, max(int(info.binning_x), 1), max(int(info.binning_y), 1)
    width, height = int(roi.width) or full.width, int(roi.height) or full.height
    cut = full.cropped(int(roi.x_offset), int(roi.y_offset), width, height)
    return cut if bin_x == bin_y == 1 else cut.resized(max(width // bin_x, 1), max(height // bin_y, 1))
