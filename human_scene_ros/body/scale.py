"""Metric scale of a reconstruction from how long people look: the head-pelvis length in the image.

With the head fixed on its ray, a scene that is r times too small puts the person too near, and the projected
head-pelvis segment of the metric body is longer than the one in the image. Rescaling moves the map: apply it
to point maps, camera translations and heads, never to body vertices, which are metric.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.arrays import weighted_median

Array = NDArray[np.float64]

MIN_LENGTH_PX = 15.0


class ScaleStatus(enum.IntEnum):
    """Whether the factor means anything."""

    OK = 0
    NO_SAMPLE = 1
    FEW_SAMPLES = 2
    REJECTED = 3


@dataclasses.dataclass(frozen=True)
class ScaleSamples:
    """Per person and frame.

    Args:
        length_smpl_px: (n,) projected head-pelvis segment at the present scale.
        length_image_px: (n,) the same in the image.
        ratio: (n,) first over second; NaN where the second is 0.
        rho: (n,) factor on the head position that makes the two equal; NaN where none does.
        valid: (n,) both segments long enough.
    """

    length_smpl_px: Array
    length_image_px: Array
    ratio: Array
    rho: Array
    valid: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class ScaleEstimate:
    """A factor r on the scale of the scene.

    Args:
        factor: 1 where there is no sample or the result is out of range.
        status: Why.
        samples: Number of samples used.
    """

    factor: float
    status: ScaleStatus
    samples: int


def scale_samples(K: NDArray[np.floating], head_camera: NDArray[np.floating],
                  head_to_pelvis_camera: NDArray[np.floating], head_uv_px: NDArray[np.floating],
                  pelvis_uv_px: NDArray[np.floating]) -> ScaleSamples:
    """Compare the projected body with what the image shows.

    Args:
        K: (3, 3).
        head_camera: (n, 3) at the present scale.
        head_to_pelvis_camera: (n, 3) metric.
        head_uv_px: (n, 2) head in the image.
        pelvis_uv_px: (n, 2) pelvis in the image.
    """
    matrix, head = np.asarray(K, np.float64), np.asarray(head_camera, np.float64).reshape(-1, 3)
    delta = np.asarray(head_to_pelvis_camera, np.float64).reshape(-1, 3)
    image = np.linalg.norm(np.asarray(pelvis_uv_px, np.float64) - np.asarray(head_uv_px, np.float64), axis=-1)
    smpl = _projected_length(matrix, head, delta, np.ones(len(head)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(image > 0.0, smpl / image, np.nan)
        valid = (image >= MIN_LENGTH_PX) & (smpl >= MIN_LENGTH_PX)
    return ScaleSamples(smpl, image, ratio, _consistent_factor(matrix, head, delta, image), valid)


def estimate_scale(samples: ScaleSamples, weights: NDArray[np.floating] | None = None, *,
                   mode: Literal["median", "mean", "mean_rho", "trimmed"] = "median") -> ScaleEstimate:
    """One factor from many samples.

    Args:
        samples: Of any frames, people and views.
        weights: (n,) confidences; None = equal. Used by the median.
        mode: "median" of rho (robust, the default), "mean" of the ratios (as published), "mean_rho",
            or "trimmed": mean of rho without a fifth of the samples at each end.
    """
    values = samples.ratio if mode == "mean" else samples.rho
    used = samples.valid & np.isfinite(values)
    if weights is not None:
        used &= np.asarray(weights) > 0.0
    values = values[used]
    n = len(values)
    if not n:
        return ScaleEstimate(1.0, ScaleStatus.NO_SAMPLE, 0)
    if mode == "median":
        factor = weighted_median(values, np.ones(n) if weights is None else np.asarray(weights, np.float64)[used])
    elif mode == "trimmed":
        cut = int(0.2 * n)
        factor = float(np.sort(values)[cut:n - cut].mean())
    else:
        factor = float(values.mean())
    return ScaleEstimate(factor, ScaleStatus.OK if n >= 8 else ScaleStatus.FEW_SAMPLES, n)


def sample_weights(samples: ScaleSamples, head_camera: NDArray[np.floating],
                   head_to_pelvis_camera: NDArray[np.floating], confidence: NDArray[np.floating]) -> Array:
    """(n,) weights for robust use: 0 for near, foreshortened or uncertain people and absurd factors."""
    head, delta = np.asarray(head_camera, np.float64), np.asarray(head_to_pelvis_camera, np.float64)
    with np.errstate(invalid="ignore"):
        length = np.maximum(np.linalg.norm(delta, axis=-1), 1e-9)
        good = ((head[:, 2] > 0.3) & (head[:, 2] + delta[:, 2] > 0.3) & (np.abs(delta[:, 2]) / length < 0.8)
                & (np.asarray(confidence) >= 0.3) & (samples.rho > 0.2) & (samples.rho < 5.0) & samples.valid)
    return np.where(good, np.asarray(confidence) * np.minimum(1.0, samples.length_image_px / 40.0), 0.0)


@dataclasses.dataclass(frozen=True)
class ScaleState:
    """What `ScaleFilter.step` knows of the frames before.

    Args:
        log_rho: Logarithms of the factors seen, on the network's own geometry, newest last.
        weights: Of each.
        log_scale: Logarithm of the present scale.
        frames: Frames with samples since the start.
        jumps: Frames in a row that asked for a jump.
    """

    log_rho: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    log_scale: float = 0.0
    frames: int = 0
    jumps: int = 0

    @property
    def scale(self) -> float:
        """Factor on the network's geometry."""
        return float(np.exp(self.log_scale))


class ScaleFilter:
    """The scale over time: a reservoir of samples, slow steps, and a freeze after the warm-up.

    Consumers of TF cannot follow a scale that breathes, so it stands still after `freeze_after` frames with samples.
    """

    def __init__(self, *, rate: float = 0.05, capacity: int = 600, freeze_after: int = 60) -> None:
        self._rate, self._capacity, self._freeze_after = rate, capacity, freeze_after

    def frozen(self, state: ScaleState) -> bool:
        """True once the warm-up is over."""
        return state.frames >= self._freeze_after

    def step(self, samples: ScaleSamples, weights: NDArray[np.floating],
             state: ScaleState) -> tuple[ScaleEstimate, ScaleState]:
        """Take one frame's samples, measured at the present scale, and move the scale a little.

        Returns:
            What is still missing from the present scale, and the state with the scale to use.
        """
        good = (np.asarray(weights) > 0.0) & np.isfinite(samples.rho)
        # Stored as absolute scales: the present one changes between frames.
        log_rho = (*state.log_rho, *(np.log(samples.rho[good]) + state.log_scale).tolist())[-self._capacity:]
        kept = (*state.weights, *np.asarray(weights, np.float64)[good].tolist())[-self._capacity:]
        state = dataclasses.replace(state, log_rho=log_rho, weights=kept)
        n = len(log_rho)
        if not n:
            return ScaleEstimate(1.0, ScaleStatus.NO_SAMPLE, 0), state
        wanted = weighted_median(np.array(log_rho), np.array(kept)) - state.log_scale
        if n < 8:
            wanted *= n / (n + 8.0)
        factor = float(np.exp(wanted))
        if not 0.5 <= factor <= 2.0 and n < 30:
            return ScaleEstimate(1.0, ScaleStatus.REJECTED, n), state
        if self.frozen(state):
            return ScaleEstimate(factor, ScaleStatus.OK, n), state  # a health signal only
        jumps = state.jumps + 1 if abs(wanted) > 0.1 else 0
        moves = abs(wanted) >= 0.01 and (abs(wanted) <= 0.1 or jumps >= 3)
        state = dataclasses.replace(state, frames=state.frames + 1, jumps=jumps,
                                    log_scale=state.log_scale + (self._rate * wanted if moves else 0.0))
        return ScaleEstimate(factor, ScaleStatus.OK if n >= 8 else ScaleStatus.FEW_SAMPLES, n), state


def _projected_length(K: Array, head: Array, delta: Array, rho: Array) -> Array:
    a = rho[:, None] * head
    b = a + delta
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(((a[:, 2] > 1e-6) & (b[:, 2] > 1e-6))[:, None],
                              b[:, :2] / b[:, 2:] - a[:, :2] / a[:, 2:], np.nan)
    return np.hypot(K[0, 0] * difference[:, 0] + K[0, 1] * difference[:, 1], K[1, 1] * difference[:, 1])


def _consistent_factor(K: Array, head: Array, delta: Array, wanted_px: Array, low: float = 0.05,
                       high: float = 20.0) -> Array:
    """rho with projected length = wanted, the root nearest 1; NaN without one. All samples at once."""
    n = len(head)
    if not n:
        return np.zeros(0)
    grid = np.exp(np.linspace(np.log(low), np.log(high), 241))
    error = np.stack([_projected_length(K, head, delta, np.full(n, r)) - wanted_px for r in grid])
    with np.errstate(invalid="ignore"):
        crossing = (np.sign(error[:-1]) * np.sign(error[1:]) <= 0.0) & np.isfinite(error[:-1] + error[1:])
    middle = 0.5 * (np.log(grid[:-1]) + np.log(grid[1:]))
    distance = np.where(crossing, np.abs(middle)[:, None], np.inf)
    cell = distance.argmin(axis=0)
    found = np.isfinite(distance[cell, np.arange(n)])
    a, b = np.log(grid[cell]), np.log(grid[cell + 1])
    sign = np.sign(error[cell, np.arange(n)])
    for _ in range(60):
        half = 0.5 * (a + b)
        with np.errstate(invalid="ignore"):
            left = np.sign(_projected_length(K, head, delta, np.exp(half)) - wanted_px) * sign > 0.0
        a, b = np.where(left, half, a), np.where(left, b, half)
    return np.where(found, np.exp(0.5 * (a + b)), np.nan)
