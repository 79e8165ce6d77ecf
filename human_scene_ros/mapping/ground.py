"""The floor: one robust plane through the scene points that lie lowest."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.arrays import check_shape


@dataclasses.dataclass(frozen=True)
class GroundPlane:
    """The plane normal . p + offset = 0, in the frame of the points.

    Args:
        normal: (3,) unit vector, up.
        offset: Height of the frame's origin above the plane, metres.
        inlier_fraction: Share of the candidate points (those below the origin) that lie on the plane.
        rms_m: Root mean square distance of these.
    """

    normal: NDArray[np.float64]
    offset: float
    inlier_fraction: float
    rms_m: float

    def height(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 3) points -> (...) metres above the plane."""
        return points @ self.normal.astype(points.dtype) + self.offset


def fit_ground(points: NDArray[np.floating], up: NDArray[np.floating], *, max_tilt_deg: float = 25.0,
               tolerance: float = 0.03, min_inlier_fraction: float = 0.25,
               height_range_m: tuple[float, float] = (0.1, 5.0),
               max_points: int = 1500, samples: int = 200, seed: int = 0) -> GroundPlane | None:
    """Find the floor by RANSAC with a rough idea of "up", then refine it.

    A floor has the scene above it: points under a candidate count against it, so that a table does not win.

    Args:
        points: (N, 3) metres; rows that are not finite are ignored.
        up: (3,) rough up direction in the frame of the points.
        max_tilt_deg: Largest angle between the normal and `up`.
        tolerance: Distance of an inlier as a fraction of its distance from the origin (depth errors grow), and
            not below 1 cm.
        min_inlier_fraction: Least share of the points below the origin.
        height_range_m: Least and largest height of the origin above the floor.
        max_points: Points used; more are thinned evenly.
        samples: Planes tried.
        seed: Of the random choice: the same input gives the same plane.

    Returns:
        The floor, or None if no plane is convincing.
    """
    check_shape("points", points, (None, 3))
    up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
    p = np.asarray(points, dtype=np.float64)
    p = p[np.isfinite(p).all(axis=1)]
    p = p[p @ up < -height_range_m[0]]
    if len(p) < 50:
        return None
    p = p[:: -(-len(p) // max_points)]
    slack = np.maximum(0.01, tolerance * np.linalg.norm(p, axis=1))

    rng = np.random.default_rng(seed)
    a, b, c = p[rng.integers(0, len(p), (3, samples))]
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1)
    valid = length > 1e-6
    normal = normal[valid] / length[valid, None]
    normal *= np.where(normal @ up < 0.0, -1.0, 1.0)[:, None]
    offset = -np.einsum("ni,ni->n", normal, a[valid])
    fits = (normal @ up >= np.cos(np.radians(max_tilt_deg)))
    fits &= (offset >= height_range_m[0]) & (offset <= height_range_m[1])
    normal, offset = normal[fits], offset[fits]
    if not len(normal):
        return None
    above = normal @ p.T + offset[:, None]
    score = (np.abs(above) < slack).sum(axis=1) - 2.0 * (above < -2.0 * slack).sum(axis=1)
    best = int(np.argmax(score))
    n, d = normal[best], float(offset[best])
    for _ in range(3):
        inlier = np.abs(p @ n + d) < slack
        if int(inlier.sum()) < 3:
            return None
        weight = 1.0 / slack[inlier] ** 2
        centre = np.average(p[inlier], axis=0, weights=weight)
        q = (p[inlier] - centre) * np.sqrt(weight)[:, None]
        n = np.linalg.eigh(q.T @ q)[1][:, 0]
        n = n if n @ up > 0.0 else -n
        d = float(-n @ centre)
    distance = p @ n + d
    inlier = np.abs(distance) < slack
    share = float(inlier.mean())
    if (share < min_inlier_fraction or n @ up < np.cos(np.radians(max_tilt_deg))
            or not height_range_m[0] <= d <= height_range_m[1]):
        return None
    return GroundPlane(n, d, share, float(np.sqrt(np.mean(distance[inlier] ** 2))))
