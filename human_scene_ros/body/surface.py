"""Bodies against the surface of the scene: Chamfer and order in depth, alignment along the ray, a head's depth.

Sources: one-way Chamfer and depth order as in UniSH (paper formulas).
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

HEAD_BEHIND_SURFACE_M = 0.10  # a depth map ends at the skin, the head joint lies behind it
MAX_RESIDUAL_M = 0.5
PATCH_PX = 2  # half the side of the patch that is read at a head
MIN_PATCH_PX = 5
MIN_VALID = 0.4  # share of the patch that must have a reading

MIN_POINTS, MIN_VERTICES, MAX_USED = 80, 60, 400
FARTHEST = 0.1  # share of the points, along z, that is left out: background shines through masks
HUBER_M = 0.05
ORDER_WEIGHT = 1.0
SHIFT_SIGMA_M = 0.3
STARTS = 9
SETTLED_M = 1e-3
GAIN = 0.9


class SurfaceStatus(enum.IntEnum):
    """Whether an alignment was applied."""

    OK = 0
    TOO_FEW_POINTS = 1
    TOO_FEW_VERTICES = 2
    NO_GAIN = 3


def one_way_chamfer(vertices: NDArray[np.floating], points: NDArray[np.floating]) -> float:
    """Mean distance from (V, 3) visible vertices to the nearest of (N, 3) points, metres; NaN without either."""
    if not len(vertices) or not len(points):
        return float("nan")
    return float(cKDTree(points).query(vertices)[0].mean())


def depth_order(vertices: NDArray[np.floating], points: NDArray[np.floating]) -> float:
    """How far, on average, the points lie behind the visible vertices along z; 0 if in front; NaN without either."""
    if not len(vertices) or not len(points):
        return float("nan")
    return max(float(np.mean(points[:, 2]) - np.mean(vertices[:, 2])), 0.0)


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Array:
    """(V, 3) outward normals, not of unit length: sums over the faces around, weighted by their areas."""
    at = np.asarray(vertices, np.float64)[faces]
    (ax, ay, az), (bx, by, bz) = (at[:, 1] - at[:, 0]).T, (at[:, 2] - at[:, 0]).T
    of_faces = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)  # np.cross takes four times as long
    return np.stack([np.bincount(faces.reshape(-1), np.repeat(n, 3), len(vertices)) for n in of_faces], axis=1)


def visible_vertices(vertices: NDArray[np.floating], normals: NDArray[np.floating], cells: int = 64,
                     slack_m: float = 0.05) -> NDArray[np.bool_]:
    """(V,) vertices that face the camera and are not hidden by the body itself (z-buffer of `cells` squared)."""
    v = np.asarray(vertices, np.float64)
    front = (np.asarray(normals) * v).sum(axis=1) < 0.0
    usable = v[:, 2] > 1e-6
    uv = v[:, :2] / np.where(usable, v[:, 2], 1.0)[:, None]
    low, size = uv[usable].min(axis=0, initial=np.inf), np.ptp(uv[usable], axis=0) if usable.any() else np.ones(2)
    cell = np.clip(((uv - low) / np.maximum(size, 1e-12) * cells).astype(int), 0, cells - 1)
    buffer = np.full((cells, cells), np.inf)
    np.minimum.at(buffer, (cell[usable, 0], cell[usable, 1]), v[usable, 2])
    return usable & front & (v[:, 2] <= buffer[cell[:, 0], cell[:, 1]] + slack_m)


@dataclasses.dataclass(frozen=True)
class SurfaceAlignment:
    """Result of `align_to_surface`.

    Args:
        shift_m: Along the ray, away from the camera; 0 unless OK.
        status: Why.
        chamfer_before_m: Of the visible vertices.
        chamfer_after_m: The same after the shift.
    """

    shift_m: float
    status: SurfaceStatus
    chamfer_before_m: float
    chamfer_after_m: float


def align_to_surface(vertices: NDArray[np.floating], points: NDArray[np.floating], ray: NDArray[np.floating], *,
                     iterations: int = 5, limit_m: float = 0.4) -> SurfaceAlignment:
    """Shift a body along its ray until its visible side meets the person's points.

    Minimises the sum over the vertices of Huber distances to the nearest points, the order in depth (points do not lie
    behind the skin) and a weak pull to no shift, by Gauss-Newton steps. Fewer vertices than 400 count as if they were
    400, so that the pull is the same for people who are far away. The scale of the scene is another unknown, with
    another estimator: `body.scale`.

    Args:
        vertices: (V, 3) visible vertices, optical frame; 400 of them are used at most.
        points: (N, 3) points inside the person's mask; the farthest tenth is left out, 400 are used at most.
        ray: (3,) direction to the head.
        iterations: Gauss-Newton steps at most.
        limit_m: Largest shift.
    """
    vertices, points = np.asarray(vertices, np.float64), np.asarray(points, np.float64)
    vertices, points = vertices[np.isfinite(vertices).all(axis=1)], points[np.isfinite(points).all(axis=1)]
    nan = float("nan")
    if len(points) < MIN_POINTS:
        return SurfaceAlignment(0.0, SurfaceStatus.TOO_FEW_POINTS, nan, nan)
    if len(vertices) < MIN_VERTICES:
        return SurfaceAlignment(0.0, SurfaceStatus.TOO_FEW_VERTICES, nan, nan)
    points = points[points[:, 2] <= np.quantile(points[:, 2], 1.0 - FARTHEST)]
    vertices, points = (x[np.linspace(0, len(x) - 1, min(len(x), MAX_USED)).astype(int)] for x in (vertices, points))
    ray = np.asarray(ray, np.float64) / max(float(np.linalg.norm(ray)), 1e-12)
    tree = cKDTree(points)
    mean_gap = float(points[:, 2].mean() - vertices[:, 2].mean())
    before = float(tree.query(vertices)[0].mean())

    def cost(a: float, some: NDArray[np.floating]) -> float:
        d = tree.query(some + a * ray)[0]
        huber = np.where(d < HUBER_M, 0.5 * d * d, HUBER_M * (d - 0.5 * HUBER_M))
        return float(MAX_USED * huber.mean() + ORDER_WEIGHT * max(mean_gap - a * ray[2], 0.0) + (a / SHIFT_SIGMA_M)**2)

    # Nearest neighbours slide along the surface, so Gauss-Newton needs a start near the minimum; a few vertices tell.
    few = vertices[::4]
    starts = np.linspace(-limit_m, limit_m, STARTS)
    shift = float(min(starts.tolist(), key=lambda a: cost(a, few)))
    for _ in range(iterations):
        moved = vertices + shift * ray
        distance, index = tree.query(moved)
        weight = np.minimum(1.0, HUBER_M / np.maximum(distance, 1e-9)) * MAX_USED / len(vertices)  # Huber's
        gradient = float(weight @ ((moved - points[index]) @ ray)) + 2.0 * shift / SHIFT_SIGMA_M**2
        curvature = float(weight.sum()) + 2.0 / SHIFT_SIGMA_M**2
        if mean_gap > shift * ray[2]:
            gradient -= ORDER_WEIGHT * ray[2]
        last, shift = shift, float(np.clip(shift - gradient / curvature, -limit_m, limit_m))
        if abs(shift - last) < SETTLED_M:
            break
    after = float(tree.query(vertices + shift * ray)[0].mean())
    if not after <= GAIN * before:
        return SurfaceAlignment(0.0, SurfaceStatus.NO_GAIN, before, after)
    return SurfaceAlignment(shift, SurfaceStatus.OK, before, after)


def surface_depth(depth_m: NDArray[np.floating], uv_px: NDArray[np.floating],
                  mask: NDArray[np.bool_] | None = None) -> float:
    """Median depth in the 5x5 pixels around a place; NaN where too few of them have a reading.

    Args:
        depth_m: (H, W) along z; 0, NaN = no reading.
        uv_px: (2,).
        mask: (H, W) pixels of the person, the only ones that count; None = all.
    """
    if not np.isfinite(uv_px).all() or (np.abs(uv_px) > 1e6).any():
        return float("nan")
    column, row = np.rint(uv_px).astype(int)
    patch = tuple(slice(max(0, c - PATCH_PX), max(0, c + PATCH_PX + 1)) for c in (row, column))
    values = np.asarray(depth_m[patch] if mask is None else depth_m[patch][mask[patch]], np.float64).ravel()
    valid = values[np.isfinite(values) & (values > 0.0)]
    enough = len(valid) >= max(MIN_PATCH_PX, MIN_VALID * len(values))
    return float(np.median(valid)) if enough else float("nan")


def head_from_depth(depth_m: NDArray[np.floating], K: NDArray[np.floating], head_uv_px: NDArray[np.floating], *,
                    mask: NDArray[np.bool_] | None = None, network_depth_m: float = float("nan"),
                    residual_m: float = HEAD_BEHIND_SURFACE_M) -> tuple[Array, bool]:
    """Head joint from a depth image: the surface at the head plus a residual, back-projected.

    Args:
        depth_m: (H, W) along z; 0, NaN = no reading.
        K: (3, 3) of the same image.
        head_uv_px: (2,).
        mask: (H, W) pixels of the person; None = all.
        network_depth_m: Of the joint, used where the depth image tells nothing, see `surface_depth`.
        residual_m: How far the joint lies behind the surface; beyond 0.5 m it is not believed.

    Returns:
        head_camera: (3,), NaN if neither depth is there.
        measured: True if the depth image decided.
    """
    surface_z = surface_depth(depth_m, head_uv_px, mask)
    measured = bool(np.isfinite(surface_z))
    residual = residual_m if abs(residual_m) <= MAX_RESIDUAL_M else HEAD_BEHIND_SURFACE_M
    z = surface_z + residual if measured else network_depth_m
    if not (np.isfinite(head_uv_px).all() and np.isfinite(z) and z > 0.0):
        return np.full(3, np.nan), False
    return z * np.linalg.solve(np.asarray(K, np.float64), np.append(head_uv_px, 1.0)), measured
