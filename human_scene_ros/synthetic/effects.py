"""What a camera does to a picture after the light came in: exposure, colour, vignette, blur, noise, JPEG.

Per-world settings are drawn once; noise differs per frame but depends only on seed and frame number.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_NOISE_SIZE = 512


@functools.cache
def _noise_field() -> NDArray[np.float32]:
    """Standard normal noise, shared by all worlds and shifted at random per frame."""
    return np.random.default_rng(5).standard_normal((_NOISE_SIZE, _NOISE_SIZE, 3)).astype(np.float32)


class CameraEffects:
    """One camera's look; `strength` 0 leaves pictures as rendered."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, strength: float = 1.0) -> None:
        self._seed = int(rng.integers(2**31))
        self._size = (width, height)
        self.strength = strength
        self._target = float(rng.uniform(0.32, 0.6))
        self._gamma = float(np.exp(rng.normal(0, 0.18)))
        self._balance = np.exp(rng.normal(0, 0.07, 3))
        self._gain: float | None = None
        self._saturation = float(rng.choice([1.0, rng.uniform(0.3, 1.4), 0.0], p=[0.5, 0.44, 0.06]))
        self._blur_px = float(abs(rng.normal(0, 0.0025)) * width) if rng.random() < 0.7 else 0.0
        self._noise = float(abs(rng.normal(0, 5.0)))
        self._chroma = rng.random() < 0.6
        self._quality = int(rng.uniform(25, 95)) if rng.random() < 0.6 else 0
        self._exposure_s = float(rng.uniform(0.002, 0.03))
        self._sharpen = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.2 else 0.0
        self._vignette: NDArray[np.float32] | None = None
        if rng.random() < 0.4:
            y, x = np.mgrid[0:height, 0:width].astype(np.float32)
            r2 = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
            self._vignette = (1 - float(rng.uniform(0.1, 0.5)) * r2)[..., None].astype(np.float32)

    @property
    def metered(self) -> bool:
        """The exposure has been set."""
        return self._gain is not None

    def meter(self, image: Image) -> None:
        """Set the exposure by a rendered picture and lock it, like most robot cameras."""
        # A target instead of a random gain keeps dark rooms from becoming black pictures.
        self._gain = float(np.clip(self._target * 255 / max(float(image.mean()), 8.0), 0.5, 3.0))

    def apply(self, image: Image, frame: int, drift_px_s: tuple[float, float]) -> Image:
        """The picture as the camera delivers it.

        Args:
            image: (H, W, 3) uint8 RGB as rendered.
            frame: Number of the frame; seeds the noise.
            drift_px_s: Image motion of the background (u, v) in pixels per second, for motion blur.
        """
        if self.strength <= 0:
            return image
        length = float(np.hypot(*drift_px_s)) * self._exposure_s
        if length > 1.5:
            image = self._motion_blur(image, drift_px_s, min(length, 15.0))
        if self._blur_px > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self._blur_px)
        if self._sharpen:
            image = cv2.addWeighted(
                image, 1 + self._sharpen, cv2.GaussianBlur(image, (0, 0), 1.0), -self._sharpen, 0
            )
        image = self._expose(image)
        if self._saturation != 1.0:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, self._saturation, grey, 1 - self._saturation, 0)
        if self._noise > 0.5 or self._vignette is not None:
            values = image.astype(np.float32)
            if self._vignette is not None:
                values *= self._vignette
            values += self._noise * self.strength * self._noise_at(frame)
            image = np.clip(values, 0, 255).astype(np.uint8)
        if self._quality:
            code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
            image = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
        return image

    def _expose(self, image: Image) -> Image:
        levels = np.arange(256) / 255.0
        tables = [
            np.clip(255 * np.clip(levels * (self._gain or 1.0) * b, 0, 1) ** self._gamma, 0, 255)
            for b in self._balance
        ]
        return cv2.LUT(image, np.stack(tables, 1).astype(np.uint8)[None])

    def _noise_at(self, frame: int) -> NDArray[np.float32]:
        width, height = self._size
        rng = np.random.default_rng((self._seed, frame))
        rows = (np.arange(height) + rng.integers(_NOISE_SIZE)) % _NOISE_SIZE
        columns = (np.arange(width) + rng.integers(_NOISE_SIZE)) % _NOISE_SIZE
        field = _noise_field()[rows[:, None], columns[None, :]]
        return field if self._chroma else field[..., :1]

    @staticmethod
    def _motion_blur(image: Image, direction: tuple[float, float], length: float) -> Image:
        size = 2 * int(np.ceil(length / 2)) + 1
        kernel = np.zeros((size, size), np.float32)
        unit = np.array(direction) / np.hypot(*direction) * length / 2
        middle = size // 2
        cv2.line(
            kernel,
            (round(middle - unit[0]), round(middle - unit[1])),
            (round(middle + unit[0]), round(middle + unit[1])),
            1.0,
            1,
            cv2.LINE_AA,
        )
        return cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6), borderType=cv2.BORDER_REPLICATE)
