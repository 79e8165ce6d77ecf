"""Where a person's head is, from rays and from points with covariance; every ambiguity is a status.

`solve_rays` is the plain least-squares solution with its status; `triangulate` drops rays behind cameras and
outliers and falls back to `fuse_points`, the maximum-a-posteriori mean of the views' own points.
"""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.matrices import invert_symmetric

Array = NDArray[np.float64]

MIN_CONDITION = math.sin(math.radians(1.0))**2
"""Least eigenvalue over the sum of weights for two equal rays with 2 degrees of parallax."""

MAX_RESIDUAL_M = 0.15
"""A ray that misses the point by more is an outlier among three and more."""

_IDENTITY = np.eye(3)


class TriangulationStatus(enum.IntEnum):
    """How a point came about."""

    OK = 0
    PARALLEL = 1
    SINGLE_RAY = 2
    BEHIND = 3
    FAR_FROM_VIEWS = 4
    EMPTY = 5


@dataclasses.dataclass(frozen=True)
class RaySolution:
    """The raw least-squares point.

    Args:
        point: (3,) NaN where nothing could be solved.
        status: OK, PARALLEL, SINGLE_RAY or BEHIND, tested in the order single, parallel, behind.
        condition: Least eigenvalue of the normal matrix over the sum of weights.
        depths: (V,) distance along each ray.
        residuals: (V,) distance of the point from each ray.
    """

    point: Array
    status: TriangulationStatus
    condition: float
    depths: Array
    residuals: Array


@dataclasses.dataclass(frozen=True)
class FusedPoint:
    """A point of `triangulate`.

    Args:
        point: (3,) NaN when EMPTY.
        covariance: (3, 3).
        status: OK if the rays decided; anything else says why the views' own points did.
        used: (V,) rays that took part.
    """

    point: Array
    covariance: Array
    status: TriangulationStatus
    used: NDArray[np.bool_]


def solve_rays(centers: NDArray[np.floating], directions: NDArray[np.floating], weights: NDArray[np.floating],
               min_condition: float = MIN_CONDITION) -> RaySolution:
    """The point with the least weighted sum of squared distances from rays.

    Args:
        centers: (V, 3) camera centres.
        directions: (V, 3) unit directions, the same frame.
        weights: (V,) non-negative; elements that are not finite count as weight 0.
        min_condition: Rays are parallel below it; see `RaySolution.condition`.
    """
    C, d, w = _clean(centers, directions, weights)
    nothing = np.full(len(w), np.nan)
    if not (w > 0.0).any():
        return RaySolution(np.full(3, np.nan), TriangulationStatus.SINGLE_RAY, 0.0, nothing, nothing)
    projectors = w[:, None, None] * (np.eye(3) - d[:, :, None] * d[:, None, :])
    A = projectors.sum(axis=0)
    origin = (w[:, None] * C).sum(axis=0) / w.sum()  # large world coordinates must not cost digits
    b = (projectors @ (C - origin)[:, :, None]).sum(axis=0)[:, 0]
    condition = float(np.linalg.eigvalsh(A)[0] / w.sum())
    point = origin + np.linalg.lstsq(A, b, rcond=None)[0]
    offset = point - C
    depths = (d * offset).sum(axis=1)
    residuals = np.linalg.norm(offset - depths[:, None] * d, axis=1)
    if np.count_nonzero(w) < 2:
        status = TriangulationStatus.SINGLE_RAY
    elif condition < min_condition:
        status = TriangulationStatus.PARALLEL
    elif (depths[w > 0.0] <= 0.0).any():
        status = TriangulationStatus.BEHIND
    else:
        status = TriangulationStatus.OK
    return RaySolution(point, status, condition, depths, residuals)


def triangulate(centers: NDArray[np.floating], directions: NDArray[np.floating], weights: NDArray[np.floating], *,
                points: NDArray[np.floating] | None = None, covariances: NDArray[np.floating] | None = None,
                depth_sigmas: NDArray[np.floating] | None = None, max_residual_m: float = MAX_RESIDUAL_M,
                min_condition: float = MIN_CONDITION) -> FusedPoint:
    """Robust ray triangulation with the views' own points as the way out.

    Rays behind their camera are dropped one by one, then outliers (three views and more): residual above
    max(`max_residual_m`, 3 robust sigmas), at most V - 2 of them.

    Args:
        centers: (V, 3).
        directions: (V, 3) unit.
        weights: (V,).
        points: (V, 3) the views' own points; None = no way out, then the point of a failed solve is NaN.
        covariances: (V, 3, 3) of `points`.
        depth_sigmas: (V,) standard deviations of the views' depths: a solution farther than three of them
            from every view's own point is rejected (FAR_FROM_VIEWS).
        max_residual_m: See above; infinite = no ray is an outlier.
        min_condition: See `solve_rays`.
    """
    C, d, w = _clean(centers, directions, weights)
    solution = solve_rays(C, d, w, min_condition)
    failed = solution.status
    for _ in range(len(w)):
        active = w > 0.0
        if solution.status is TriangulationStatus.BEHIND:
            worst = int(np.argmin(np.where(active, solution.depths, np.inf)))
            if np.count_nonzero(active) <= 2:
                break
        elif solution.status is TriangulationStatus.OK and np.count_nonzero(active) >= 3:
            residuals = np.where(active, solution.residuals, -np.inf)
            typical = solution.residuals[active]
            spread = 1.4826 * float(np.median(np.abs(typical - np.median(typical))))
            worst = int(np.argmax(residuals))
            if residuals[worst] <= max(max_residual_m, 3.0 * spread):
                # With few rays one outlier carries all of them along; leaving it out shows it.
                worst = _best_left_out(C, d, w, solution, max_residual_m, min_condition)
                if worst < 0:
                    break
        else:
            break
        w = w.copy()
        w[worst] = 0.0
        solution = solve_rays(C, d, w, min_condition)
        failed = solution.status
    used = w > 0.0
    if solution.status is TriangulationStatus.OK:
        if points is None or depth_sigmas is None:
            return FusedPoint(solution.point, np.full((3, 3), np.nan), TriangulationStatus.OK, used)
        distance = np.linalg.norm(solution.point - np.asarray(points, np.float64), axis=1)
        if not (distance[used] > 3.0 * np.asarray(depth_sigmas, np.float64)[used]).all():
            return FusedPoint(solution.point, np.full((3, 3), np.nan), TriangulationStatus.OK, used)
        failed = TriangulationStatus.FAR_FROM_VIEWS
    if points is None or covariances is None:
        return FusedPoint(np.full(3, np.nan), np.full((3, 3), np.nan), failed, used)
    point, covariance = fuse_points(points, covariances, np.asarray(weights, np.float64) > 0.0)
    if not np.isfinite(point).all():
        failed = TriangulationStatus.EMPTY
    return FusedPoint(point, covariance, failed, used)


def _best_left_out(C: Array, d: Array, w: Array, solution: RaySolution, max_residual_m: float,
                   min_condition: float) -> int:
    """Ray without which all others agree although together they do not; -1 if there is none."""
    active = np.flatnonzero(w > 0.0)
    if len(active) < 4 or solution.residuals[active].max() <= max_residual_m / 3.0:
        return -1
    best, best_residual = -1, math.inf
    for i in active:
        reduced = w.copy()
        reduced[i] = 0.0
        without = solve_rays(C, d, reduced, min_condition)
        residual = float(without.residuals[reduced > 0.0].max())
        if without.status is TriangulationStatus.OK and residual < best_residual and (
                without.residuals[i] > max_residual_m):
            best, best_residual = int(i), residual
    return best if best_residual < solution.residuals[active].max() / 3.0 else -1


def huber_triangulate(centers: NDArray[np.floating], directions: NDArray[np.floating],
                      weights: NDArray[np.floating], *, delta_m: float = 0.05, iterations: int = 10) -> RaySolution:
    """Least squares with Huber weights on the distances from the rays, reweighted `iterations` times."""
    _, _, w = _clean(centers, directions, weights)
    solution = solve_rays(centers, directions, w)
    for _ in range(iterations):
        residuals = np.where(np.isfinite(solution.residuals), solution.residuals, 0.0)
        solution = solve_rays(centers, directions, w * np.minimum(1.0, delta_m / np.maximum(residuals, 1e-12)))
    return solution


def _clean(centers: NDArray[np.floating], directions: NDArray[np.floating],
           weights: NDArray[np.floating]) -> tuple[Array, Array, Array]:
    C, d = np.asarray(centers, np.float64).reshape(-1, 3), np.asarray(directions, np.float64).reshape(-1, 3)
    w = np.asarray(weights, np.float64).reshape(-1)
    good = np.isfinite(C).all(axis=1) & np.isfinite(d).all(axis=1) & np.isfinite(w) & (w > 0.0)
    return np.where(good[:, None], C, 0.0), np.where(good[:, None], d, 0.0), np.where(good, w, 0.0)


def ray_covariances(points: NDArray[np.floating], origins: NDArray[np.floating], depths: NDArray[np.floating],
                    focals_px: NDArray[np.floating], *, sigma_px: float | NDArray[np.floating] = 3.0,
                    depth_fraction: float | NDArray[np.floating] = 0.09) -> Array:
    """(N, 3, 3) covariance of points measured by a camera: thin across the ray, long along it.

    Args:
        points: (N, 3) in the world frame.
        origins: (N, 3) camera centres.
        depths: (N,) distance along the optical axis, metres.
        focals_px: (N,) focal lengths.
        sigma_px: Pixel error of the rays, or (N,) of each; 2 cm are added for what "the head" means.
        depth_fraction: Standard deviation of depth over depth; (K, 1) gives (K, N, 3, 3).
    """
    lateral = sigma_px * depths / focals_px + 0.02
    along = np.maximum(lateral, depth_fraction * depths)
    ray = points - origins
    ray = ray / np.maximum(np.sqrt((ray * ray).sum(axis=-1, keepdims=True)), 1e-12)
    l2 = (lateral * lateral)[..., None, None]
    a2 = (along * along)[..., None, None]
    return l2 * _IDENTITY + (a2 - l2) * (ray[..., :, None] * ray[..., None, :])


def fuse_points(points: NDArray[np.floating], covariances: NDArray[np.floating],
                used: NDArray[np.bool_] | None = None, *, huber: float | None = 2.5,
                steps: int = 4) -> tuple[Array, Array]:
    """Maximum-a-posteriori mean of (V, 3) points with (V, 3, 3) covariances.

    Args:
        points: (V, 3).
        covariances: (V, 3, 3).
        used: (V,) views that take part; None = all that are finite.
        huber: Mahalanobis distance from which a view loses weight; None = plain mean. Two views never do.
        steps: Reweightings.

    Returns:
        point: (3,), NaN without any view.
        covariance: (3, 3) of the weighted mean.
    """
    x, cov = np.asarray(points, np.float64).reshape(-1, 3), np.asarray(covariances, np.float64).reshape(-1, 3, 3)
    good = np.isfinite(x).all(axis=1) & np.isfinite(cov).all(axis=(1, 2))
    if used is not None:
        good = good & used
    information, invertible = invert_symmetric(cov[good])
    x, information = x[good][invertible], information[invertible]
    if not len(x):
        return np.full(3, np.nan), np.full((3, 3), np.nan)
    weight = np.ones(len(x))
    for _ in range(1 + (steps if huber is not None and len(x) >= 3 else 0)):
        total = (weight[:, None, None] * information).sum(axis=0)
        covariance = invert_symmetric(total[None])[0][0]
        # Relative to the first point: world coordinates may be large.
        pulled = (weight[:, None, None] * information) @ (x - x[0])[:, :, None]
        point = x[0] + covariance @ pulled.sum(axis=0)[:, 0]
        offset = x - point
        distance = np.sqrt(np.maximum(np.einsum("vi,vij,vj->v", offset, information, offset), 0.0))
        if huber is not None:
            weight = np.minimum(1.0, huber / np.maximum(distance, 1e-12))
    return point, covariance
