"""Camera image -> network image, and the camera after it.

The resize and crop are those the official weights were trained with (PIL filters; OpenCV's are not identical):
the longer side becomes the network width, then a centre crop to multiples of 16 pixels. Other presets use the
same rule with their own width.
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from human_scene_ros.errors import CalibrationError, ImageError, ShapeError
from human_scene_ros.geometry.camera import PinholeCamera

PATCH_PX = 16


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the network image lies in the input image.

    Args:
        input_size: (width, height) of the input, pixels.
        resized_size: (width, height) after the resize.
        box: left, top, right, bottom of the crop in the resized image.
    """

    input_size: tuple[int, int]
    resized_size: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the network image."""
        left, top, right, bottom = self.box
        return right - left, bottom - top

    def camera(self, camera: PinholeCamera) -> PinholeCamera:
        """Intrinsics of the network image.

        Raises:
            CalibrationError: `camera` is for another image size.
        """
        if (camera.width, camera.height) != self.input_size:
            raise CalibrationError(f"camera is calibrated for {camera.width}x{camera.height} px, but the image has "
                                   f"{self.input_size[0]}x{self.input_size[1]} px")
        return camera.resized(*self.resized_size).cropped(self.box[0], self.box[1], *self.size)

    def to_input_px(self, uv_px: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 2) pixels of the network image -> pixels of the input image."""
        scale = np.divide(self.input_size, self.resized_size)
        return (np.asarray(uv_px) + self.box[:2] + 0.5) * scale - 0.5

    def to_network_px(self, uv_px: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 2) pixels of the input image -> pixels of the network image."""
        scale = np.divide(self.resized_size, self.input_size)
        return (np.asarray(uv_px) + 0.5) * scale - 0.5 - self.box[:2]


def place(width: int, height: int, network_width: int, *, whole_patches: bool = True) -> Placement:
    """The official rule for an input of width x height pixels.

    Args:
        width: Of the input image.
        height: Of the input image.
        network_width: Longer side of the network image.
        whole_patches: A square input is cropped to 4:3, which for some widths is no multiple of 16 (160x120);
            round such a height down. False: leave it, as the official loader does.

    Raises:
        ImageError: Nothing is left: the image is empty or too narrow.
    """
    if width <= 0 or height <= 0:
        raise ImageError(f"image has {width}x{height} px; both must be positive")
    longer = max(width, height)
    resized = (round(width * network_width / longer), round(height * network_width / longer))  # half to even
    centre_x, centre_y = resized[0] // 2, resized[1] // 2
    half_x = (2 * centre_x) // PATCH_PX * (PATCH_PX // 2)
    half_y = (2 * centre_y) // PATCH_PX * (PATCH_PX // 2)
    if resized[0] == resized[1]:
        half_y = int(3 * half_x / 4)
        if whole_patches:
            half_y = half_y // (PATCH_PX // 2) * (PATCH_PX // 2)
    if not half_x or not half_y:
        raise ImageError(f"image of {width}x{height} px becomes {resized[0]}x{resized[1]} px for a network of width "
                         f"{network_width}: less than one patch of {PATCH_PX} px; crop the image to a wider shape")
    box = (centre_x - half_x, centre_y - half_y, centre_x + half_x, centre_y + half_y)
    return Placement((width, height), resized, box)


def resize_and_crop(image: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB -> the network image, uint8; exactly the official pixels."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"image has shape {image.shape} and type {image.dtype}; expected (H, W, 3) uint8")
    if (image.shape[1], image.shape[0]) != placement.input_size:
        raise ShapeError(f"image has {image.shape[1]}x{image.shape[0]} px; expected "
                         f"{placement.input_size[0]}x{placement.input_size[1]} px")
    shrinking = max(placement.input_size) > max(placement.resized_size)
    resample = Image.Resampling.LANCZOS if shrinking else Image.Resampling.BICUBIC
    resized = Image.fromarray(image).resize(placement.resized_size, resample)
    return np.array(resized.crop(placement.box))


def to_tensor(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(cv2.LUT(np.ascontiguousarray(image), _values())).to(device).permute(2, 0, 1)[None]


@functools.cache
def _values() -> NDArray[np.float32]:
    """(256,) what each pixel value becomes, with the official operations and so to the last bit."""
    return torch.arange(256).float().div_(255).sub_(0.5).div_(0.5).numpy()
