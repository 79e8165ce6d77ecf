"""Least-squares alignment of two point sets, batched, with degenerate cases marked instead of guessed.

S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ShapeError

Array = NDArray[np.float64]

_RANK_LIMIT = 1e-9
"""Second over first singular value of the covariance; below it the rotation is not determined."""


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Similarity `p_dst = s * R @ p_src + t`, batched over the leading axes.

    Args:
        R: (..., 3, 3) rotation (never a reflection); NaN where degenerate.
        t: (..., 3); NaN where degenerate.
        s: (...) scale, 1 for a rigid alignment.
        degenerate: (...) True where the points are collinear, coincident or fewer than three directions matter.
    """

    R: Array
    t: Array
    s: Array
    degenerate: NDArray[np.bool_]

    def apply(self, points: NDArray[np.floating]) -> Array:
        """(..., N, 3) source points -> the same in the destination frame; NaN where degenerate."""
        rotated = np.asarray(points, np.float64) @ np.swapaxes(self.R, -1, -2)
        return self.s[..., None, None] * rotated + self.t[..., None, :]


def umeyama(src: NDArray[np.floating], dst: NDArray[np.floating], *, with_scale: bool = True,
            weights: NDArray[np.floating] | None = None) -> Alignment:
    """Sim(3) (or SE(3)) that maps `src` onto `dst` with the least squared error.

    Args:
        src: (..., N, 3) points.
        dst: (..., N, 3) the same points in the destination frame.
        with_scale: False fixes the scale at 1.
        weights: (..., N) non-negative weights; None = equal.

    Raises:
        ShapeError: The shapes differ or are not (..., N, 3).
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if src.shape != dst.shape or src.ndim < 2 or src.shape[-1] != 3 or src.shape[-2] < 1:
        raise ShapeError(f"src has shape {src.shape}, dst has {dst.shape}; expected the same (..., N, 3)")
    if weights is None:
        mean_src, mean_dst = (np.einsum("...ni->...i", points) / points.shape[-2] for points in (src, dst))
        src_c, dst_c = src - mean_src[..., None, :], dst - mean_dst[..., None, :]
        covariance = np.swapaxes(dst_c, -1, -2) @ src_c / src.shape[-2]
        variance = np.einsum("...ni,...ni->...", src_c, src_c) / src.shape[-2]
    else:
        weight = np.asarray(weights, np.float64)
        if weight.shape != src.shape[:-1]:
            raise ShapeError(f"weights has shape {weight.shape}; expected {src.shape[:-1]}")
        weight = (weight / weight.sum(axis=-1, keepdims=True))[..., None]
        mean_src, mean_dst = (weight * src).sum(axis=-2), (weight * dst).sum(axis=-2)
        src_c, dst_c = src - mean_src[..., None, :], dst - mean_dst[..., None, :]
        covariance = np.swapaxes(weight * dst_c, -1, -2) @ src_c
        variance = (weight[..., 0] * (src_c**2).sum(axis=-1)).sum(axis=-1)
    U, D, Vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(U) * np.linalg.det(Vt))
    S = np.ones_like(D)
    S[..., 2] = sign
    R = (U * S[..., None, :]) @ Vt
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (D * S).sum(axis=-1) / variance if with_scale else np.ones_like(variance)
        degenerate = ~(D[..., 1] > _RANK_LIMIT * D[..., 0])
    R = np.where(degenerate[..., None, None], np.nan, R)
    t = mean_dst - s[..., None] * (R @ mean_src[..., None])[..., 0]
    return Alignment(R, t, np.where(degenerate, np.nan, s) if with_scale else s, degenerate)
