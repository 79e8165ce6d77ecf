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

_MANY = 32
"""From so many matrices on, arithmetic on all of them is faster than singular values one by one."""

_NEWTON_STEPS, _SURE = 16, 3e-3


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
        # Contiguous: products of strided small matrices take three times as long.
        turned = np.asarray(points, np.float64) @ np.ascontiguousarray(
            np.swapaxes(self.s[..., None, None] * self.R, -1, -2))
        turned += self.t[..., None, :]
        return turned


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
        covariance = np.ascontiguousarray(np.swapaxes(dst_c, -1, -2)) @ src_c / src.shape[-2]
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
    R, trace, degenerate = _rotations(covariance)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = trace / variance if with_scale else np.ones_like(variance)
    R = np.where(degenerate[..., None, None], np.nan, R)
    t = mean_dst - s[..., None] * (R @ mean_src[..., None])[..., 0]
    return Alignment(R, t, np.where(degenerate, np.nan, s) if with_scale else s, degenerate)


def _rotations(covariance: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """(..., 3, 3) C -> the rotations of largest tr(R^T C), these traces, and where no rotation is determined."""
    C = covariance.reshape(-1, 3, 3)
    degenerate = np.zeros(len(C), bool)
    if len(C) >= _MANY:
        R, trace, sure = _polar_rotations(C)
    else:
        R, trace, sure = np.empty_like(C), np.empty(len(C)), degenerate
    if not sure.all():
        rest = np.flatnonzero(~sure)
        U, D, Vt = np.linalg.svd(C[rest])
        S = np.ones_like(D)
        S[:, 2] = np.sign(np.linalg.det(U) * np.linalg.det(Vt))
        R[rest], trace[rest] = (U * S[:, None, :]) @ Vt, (D * S).sum(axis=-1)
        with np.errstate(invalid="ignore"):
            degenerate = degenerate.copy()
            degenerate[rest] = ~(D[:, 1] > _RANK_LIMIT * D[:, 0])
    shape = covariance.shape[:-2]
    return R.reshape(covariance.shape), trace.reshape(shape), degenerate.reshape(shape)


def _polar_rotations(C: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """(n, 3, 3) -> as `_rotations`, and where that is as exact as by singular values, which take ten times as long.

    C = R U with U symmetric. The trace of U is the largest root of a quartic with the invariants of C as coefficients,
    and Newton's method comes to it from above (Horn 1987, Theobald 2005). With the trace, U and R are polynomials of C
    and its cofactors (Hoger and Carlson 1984).
    """
    size = np.sqrt(np.einsum("nij,nij->n", C, C))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        C = C / size[:, None, None]
        cofactors = np.stack([np.cross(C[:, 1], C[:, 2]), np.cross(C[:, 2], C[:, 0]), np.cross(C[:, 0], C[:, 1])],
                             axis=1)
        third = np.einsum("ni,ni->n", C[:, 0], cofactors[:, 0])
        constant = 1.0 - 4.0 * np.einsum("nij,nij->n", cofactors, cofactors)
        trace, step = np.full(len(C), np.sqrt(3.0)), np.zeros(len(C))
        for _ in range(_NEWTON_STEPS):
            square = trace * trace
            step = ((square - 2.0) * square - 8.0 * third * trace + constant) / (
                4.0 * (square - 1.0) * trace - 8.0 * third)
            trace = trace - step
            if not (np.abs(step) > 1e-14).any():
                break
        second = 0.5 * (trace * trace - 1.0)
        product = trace * second - third  # (u1 + u2)(u1 + u3)(u2 + u3): 0 where the rotation is not determined
        M = np.swapaxes(C, -1, -2) @ C
        U = (trace * trace - second)[:, None, None] * M - M @ M
        U[:, range(3), range(3)] += (trace * third)[:, None]
        U /= product[:, None, None]
        R = (cofactors + trace[:, None, None] * C - C @ U) / second[:, None, None]
        sure = (np.abs(step) < 1e-12) & (product > _SURE) & (second > _SURE)
    return R, trace * size, sure
