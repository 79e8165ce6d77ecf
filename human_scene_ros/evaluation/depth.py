"""Errors of depth maps: one alignment for a whole sequence, then the usual eight numbers.

The reference protocol is the video-depth evaluation of MonST3R, CUT3R and Human3R, with the difference that
no valid pixel gives NaN here, not 0.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.arrays import weighted_median

DepthAlignment = Literal["metric", "median", "scale", "scale_lad", "scale_shift_lstsq", "scale_shift_lad2"]


@dataclasses.dataclass(frozen=True)
class DepthErrors:
    """Errors over the valid pixels; NaN when there are none.

    Args:
        abs_rel: Mean of |p - g| / g.
        sq_rel: Mean of (p - g)^2 / g, metres.
        rmse_m: Root of the mean of (p - g)^2.
        log_rmse: The same of the logarithms, p at least 1e-5.
        delta1: Fraction with max(p / g, g / p) < 1.25, p at least 1e-5.
        delta2: The same below 1.25^2.
        delta3: The same below 1.25^3.
        valid_pixels: Their count.
        scale: Factor applied to the prediction.
        shift_m: Offset added to it.
    """

    abs_rel: float
    sq_rel: float
    rmse_m: float
    log_rmse: float
    delta1: float
    delta2: float
    delta3: float
    valid_pixels: int
    scale: float
    shift_m: float


def depth_errors(predicted_m: NDArray[np.floating], truth_m: NDArray[np.floating], *,
                 alignment: DepthAlignment = "metric", max_depth_m: float | None = 70.0,
                 clip_max_m: float | None = None) -> DepthErrors:
    """Compare the depth of a whole sequence (any shape, the same for both).

    Args:
        predicted_m: Metres along z, finite wherever the truth is valid (leave pixels out by truth 0).
        truth_m: Metres along z; 0 or not finite = no truth.
        alignment: "metric" none; "median" ratio of (lower) medians; "scale" the reference's search for the least
            absolute error in scale, which stops early; "scale_lad" the exact one; "scale_shift_lstsq" exact least
            squares; "scale_shift_lad2" the reference's Adam, which stops early.
        max_depth_m: Truth beyond it is not counted; None = no limit.
        clip_max_m: Aligned predictions are cut to it (Sintel: 70); None = not.

    Raises:
        ShapeError: The shapes differ.
    """
    predicted, truth = np.asarray(predicted_m, np.float64), np.asarray(truth_m, np.float64)
    if predicted.shape != truth.shape:
        raise ShapeError(f"predicted depth has shape {predicted.shape}; the truth has {truth.shape}")
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(truth) & (truth > 0) & ((truth < max_depth_m) if max_depth_m is not None else True)
    p, g = predicted[valid], truth[valid]
    if not g.size:
        nan = float("nan")
        return DepthErrors(nan, nan, nan, nan, nan, nan, nan, 0, nan, nan)
    scale, shift = _fit(p, g, alignment)
    p = scale * p + shift
    if clip_max_m is not None:
        p = np.minimum(p, clip_max_m)
    positive = np.maximum(p, 1e-5)
    ratio = np.maximum(positive / g, g / positive)
    delta1, delta2, delta3 = (float((ratio < 1.25**k).mean()) for k in (1, 2, 3))
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(p - g) / g)), sq_rel=float(np.mean((p - g) ** 2 / g)),
        rmse_m=float(np.sqrt(np.mean((p - g) ** 2))),
        log_rmse=float(np.sqrt(np.mean((np.log(positive) - np.log(g)) ** 2))),
        delta1=delta1, delta2=delta2, delta3=delta3, valid_pixels=int(g.size), scale=float(scale), shift_m=float(shift))


def _lower_median(values: NDArray[np.float64]) -> float:
    """The median, the lower of the two middle values for an even count (as torch does)."""
    k = (values.size - 1) // 2
    return float(np.partition(values, k)[k])


def _fit(p: NDArray[np.float64], g: NDArray[np.float64], alignment: DepthAlignment) -> tuple[float, float]:
    if alignment == "metric":
        return 1.0, 0.0
    if alignment == "median":
        return _lower_median(g) / _lower_median(p), 0.0
    if alignment == "scale":
        return _weiszfeld_scale(p, g), 0.0
    if alignment == "scale_lad":
        return _least_absolute_scale(p, g), 0.0
    if alignment == "scale_shift_lstsq":
        scale, shift = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), g, rcond=None)[0]
        return float(scale), float(shift)
    return _adam_scale_shift(p, g)


def _weiszfeld_scale(p: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    """The reference's scale by ten reweighted least-squares steps.

    A pixel whose residual comes near zero gets a weight of up to 1e8 and holds the scale from then on: which one that
    is, rounding decides. Predictions that differ by 1e-7 differ by half a per cent here.
    """
    scale = g.mean() / p.mean()
    for _ in range(10):
        weight = 1.0 / (np.abs(scale * p - g) + 1e-8)
        scale = (weight * p * g).sum() / (weight * p * p).sum()
    return float(max(scale, 1e-3))


def _least_absolute_scale(p: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    """The scale of least sum |s p - g|, exact: the median of g / p, every pixel weighing |p|."""
    known = p != 0
    return weighted_median(g[known] / p[known], np.abs(p[known])) if known.any() else 1.0


def _adam_scale_shift(p: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shift of least summed absolute error by Adam from the median ratio; stops before it converged."""
    x = np.array([_lower_median(g) / _lower_median(p), 0.0])
    mean, square, before = np.zeros(2), np.zeros(2), None
    for step in range(1, 1001):
        residual = x[0] * p + x[1] - g
        loss = np.abs(residual).sum()
        sign = np.sign(residual)
        gradient = np.array([(sign * p).sum(), sign.sum()])
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        x = x - 1e-4 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        if before is not None and abs(before - loss) < 1e-6:
            break
        before = loss
    return float(x[0]), float(x[1])
