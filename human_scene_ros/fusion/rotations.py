"""Averages of rotations: chordal (Markley), geodesic median and mean, with ambiguity as a status.

All functions take matrices with the views on the first axis and never raise on degenerate input.
Sources: F. L. Markley et al., "Averaging quaternions", JGCD 2007 (the chordal mean, for the projected sum of
matrices and the dominant eigenvector of the sum of q q^T agree); R. Hartley et al., "L1 rotation averaging
using the Weiszfeld algorithm", CVPR 2011; Y. Vardi and C.-H. Zhang, PNAS 2000 (the test at data points).
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion.matrices import cofactors
from human_scene_ros.geometry.transform import axis_and_angle, rotation_vectors

Array = NDArray[np.float64]

AMBIGUITY_LIMIT = 1e-6
"""Gap of the two largest eigenvalues over the sum of weights below which the mean is not determined."""

# Of a row-major matrix of 9 rows, where the components of a vector go in its cross product matrix.
_PLUS, _MINUS = np.array([7, 2, 3]), np.array([5, 6, 1])


class RotationStatus(enum.IntEnum):
    """What became of an average."""

    OK = 0
    AMBIGUOUS = 1
    EMPTY = 2
    WIDE_SPREAD = 3


@dataclasses.dataclass(frozen=True)
class RotationAverage:
    """One averaged rotation.

    Args:
        rotation: (3, 3); identity when EMPTY, the heaviest view's when AMBIGUOUS.
        status: OK, AMBIGUOUS (several rotations are equally good), EMPTY (no weight).
        quality: Largest eigenvalue over the sum of weights; 1 = all equal, NaN when EMPTY.
        eigenvalues: (4,) falling, over the sum of weights.
    """

    rotation: Array
    status: RotationStatus
    quality: float
    eigenvalues: Array


def matrices_from_rotvecs(rotvecs: NDArray[np.floating]) -> Array:
    """(..., 3) axis-angle, radians -> (..., 3, 3). Rodrigues' formula."""
    shape = np.shape(rotvecs)
    v = np.array(np.reshape(rotvecs, (-1, 3)).T, np.float64, order="C")
    square = (v * v).sum(axis=0)
    # So small an angle is as good as zero in the two ratios that follow.
    angle = np.sqrt(np.maximum(square, 1e-12))
    half = 0.5 * angle
    ratio = np.sin(half) / half
    b = 0.5 * ratio * ratio
    out = ((b * v)[:, None] * v).reshape(9, -1)
    out[::4] += 1.0 - b * square
    v *= ratio * np.cos(half)
    out[_PLUS] += v
    out[_MINUS] -= v
    return out.T.reshape(*shape[:-1], 3, 3)


def project_to_rotations(matrices: NDArray[np.floating], iterations: int = 12) -> Array:
    """(..., 3, 3) -> the nearest rotations (Frobenius).

    Newton's iteration of the polar decomposition (Higham 1986), all matrices at once; what is not clearly
    a positive matrix times a rotation goes through the SVD with the sign of the last direction mended.
    """
    shape = np.shape(matrices)
    M = np.asarray(matrices, np.float64).reshape(-1, 9)
    X = np.array(M.T, order="C")
    cofactor, determinant = cofactors(X)
    # A rotation has determinant 1 and norm sqrt(3); far below that ratio Newton would need many steps.
    square = (X * X).sum(axis=0)
    regular = determinant > (0.02 / 5.2) * square * np.sqrt(square)
    some_odd = not regular.all()
    if some_odd:
        X[:, ~regular] = np.eye(3).reshape(9, 1)
        cofactor, determinant = cofactors(X)
    size = np.cbrt(determinant)
    X, cofactor, excess = X / size, cofactor / (size * size), np.inf
    determinant = np.ones(len(size))
    for _ in range(iterations):
        X = 0.5 * (X + cofactor / determinant)
        if excess < 1e-7:
            break
        cofactor, determinant = cofactors(X)
        # No singular value is below 1 after a step, so none is above the determinant, and the next step squares that.
        excess = determinant.max(initial=1.0) - 1.0
    result = X.T.reshape(-1, 9)
    if some_odd:
        result[~regular] = _project_by_svd(M[~regular].reshape(-1, 3, 3)).reshape(-1, 9)
    return result.reshape(shape)


def _project_by_svd(matrices: Array) -> Array:
    finite = np.isfinite(matrices).all(axis=(-2, -1), keepdims=True)
    U, _, Vt = np.linalg.svd(np.where(finite, matrices, np.eye(3)))
    U[..., :, 2] *= np.where(np.linalg.det(U @ Vt) < 0.0, -1.0, 1.0)[..., None]
    return U @ Vt


def average_rotation(rotations: NDArray[np.floating], weights: NDArray[np.floating]) -> RotationAverage:
    """Weighted chordal mean of (V, 3, 3) rotations with the eigenvalues that tell how well it is determined.

    Args:
        rotations: (V, 3, 3); views that are not finite are left out.
        weights: (V,) non-negative.
    """
    R, w = np.asarray(rotations, np.float64).reshape(-1, 3, 3), np.asarray(weights, np.float64).reshape(-1)
    usable = np.isfinite(R).all(axis=(1, 2)) & np.isfinite(w) & (w > 0.0)
    R, w = R[usable], w[usable]
    if not len(w):
        return RotationAverage(np.eye(3), RotationStatus.EMPTY, float("nan"), np.full(4, np.nan))
    q = Rotation.from_matrix(R).as_quat()
    values, vectors = np.linalg.eigh(np.einsum("v,vi,vj->ij", w, q, q))
    eigenvalues = values[::-1] / w.sum()
    quality = float(eigenvalues[0])
    if eigenvalues[0] - eigenvalues[1] < AMBIGUITY_LIMIT:
        return RotationAverage(R[int(np.argmax(w))], RotationStatus.AMBIGUOUS, quality, eigenvalues)
    if len(w) == 1:
        return RotationAverage(R[0], RotationStatus.OK, quality, eigenvalues)
    return RotationAverage(Rotation.from_quat(vectors[:, -1]).as_matrix(), RotationStatus.OK, quality, eigenvalues)


def karcher_mean(rotations: NDArray[np.floating], weights: NDArray[np.floating], iterations: int = 100) -> Array:
    """(V, 3, 3), (V,) -> the rotation with the least weighted sum of squared angles, from the chordal mean on."""
    R, w = np.asarray(rotations, np.float64), np.asarray(weights, np.float64)
    mean = average_rotation(R, w).rotation
    for _ in range(iterations):
        logs = rotation_vectors(mean.T @ R)
        step = (w[:, None] * logs).sum(axis=0) / max(w.sum(), 1e-300)
        mean = mean @ matrices_from_rotvecs(step)
        if np.linalg.norm(step) < 1e-14:
            break
    return mean


def geodesic_median(rotations: NDArray[np.floating], weights: NDArray[np.floating], *, iterations: int = 5,
                    epsilon: float = 1e-3) -> Array:
    """(V, ..., 3, 3), (V, ...) -> rotations near the least weighted sum of angles (Weiszfeld, chordal start).

    Fast and batched: at most `iterations` steps with weights w / (angle + epsilon). For the exact median of one
    set see `exact_geodesic_median`.
    """
    R = np.asarray(rotations, np.float64)
    w = np.broadcast_to(np.asarray(weights, np.float64), R.shape[:-2])
    median = project_to_rotations((w[..., None, None] * R).sum(axis=0))
    for _ in range(iterations):
        logs = rotation_vectors(np.swapaxes(median, -1, -2)[None] @ R)
        share = w / (np.sqrt((logs * logs).sum(axis=-1)) + epsilon)
        total = np.maximum(share.sum(axis=0), 1e-300)
        step = (share[..., None] * logs).sum(axis=0) / total[..., None]
        median = median @ matrices_from_rotvecs(step)
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    return median


def exact_geodesic_median(rotations: NDArray[np.floating], weights: NDArray[np.floating],
                          iterations: int = 2000) -> Array:
    """(V, 3, 3), (V,) -> the converged median of angles.

    Weiszfeld from the chordal mean and from the best data point; at a data point the test of Vardi and Zhang
    decides whether to stay (the pull of the others is weaker than the point's own weight) or how far to leave.
    """
    R, w = np.asarray(rotations, np.float64), np.asarray(weights, np.float64)
    R, w = R[w > 0.0], w[w > 0.0]
    if not len(w):
        return np.eye(3)

    def cost(rotation: Array) -> float:
        return float(w @ axis_and_angle(rotation.T @ R)[2])

    starts = [average_rotation(R, w).rotation, R[int(np.argmin([cost(r) for r in R]))]]
    return min((_weiszfeld(R, w, start, iterations) for start in starts), key=cost)


def _weiszfeld(R: Array, w: Array, median: Array, iterations: int) -> Array:
    for _ in range(iterations):
        logs = rotation_vectors(median.T @ R)
        angles = np.linalg.norm(logs, axis=-1)
        here = angles < 1e-9
        away = ~here
        if not away.any():
            return median
        share = w[away] / angles[away]
        pull = (share[:, None] * logs[away]).sum(axis=0)
        step = pull / share.sum()
        if here.any():
            strength, own = float(np.linalg.norm(pull)), float(w[here].sum())
            if strength <= own:
                return R[int(np.argmax(here))]
            step *= 1.0 - own / strength
        median = median @ matrices_from_rotvecs(step)
        if np.linalg.norm(step) < 1e-13:
            break
    return median


def mean_betas(betas: NDArray[np.floating], weights: NDArray[np.floating], limit: float = 5.0) -> Array:
    """(V, B), (V,) -> (B,) weighted mean, clipped; zeros without any weight."""
    total = float(np.sum(weights))
    if not total > 0.0:
        return np.zeros(np.shape(betas)[-1])
    return np.clip(np.asarray(weights, np.float64) @ np.asarray(betas, np.float64) / total, -limit, limit)
