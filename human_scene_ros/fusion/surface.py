"""Bodies against the points of the scene: labels per point, Chamfer and order in depth, alignment, head depth.

Sources: one-way Chamfer and depth order as in UniSH (paper formulas); semantic points as in HAMSt3R.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Index = NDArray[np.int64]

HEAD_BEHIND_SURFACE_M = 0.10


class SurfaceStatus(enum.IntEnum):
    """Whether an alignment was applied."""

    OK = 0
    TOO_FEW_POINTS = 1
    TOO_FEW_VERTICES = 2
    NO_GAIN = 3


@dataclasses.dataclass(frozen=True)
class SemanticPoints:
    """Which points of a cloud belong to whom, and where on the body they lie.

    Args:
        person: (N,) index of the person, -1 = nobody.
        vertex: (N,) nearest vertex, -1 = nobody's.
        distance_m: (N,) to the nearest vertex of anybody.
        canonical: (N, 3) place on the template in [0, 1]; 0 = nobody's.
        confidence: (N,) 1, or 0.5 between two people, 0 for nobody's.
    """

    person: Index
    vertex: Index
    distance_m: Array
    canonical: Array
    confidence: Array


def label_points(points: NDArray[np.floating], vertices: NDArray[np.floating],
                 template: NDArray[np.floating], radius_m: float = 0.10) -> SemanticPoints:
    """Give each point to the nearest posed vertex of all people, if it is near enough.

    Args:
        points: (N, 3) scene points; NaN belongs to nobody.
        vertices: (P, V, 3) posed, the same frame.
        template: (V, 3) rest pose; its box becomes [0, 1].
        radius_m: Largest distance.
    """
    points, vertices = np.asarray(points, np.float64).reshape(-1, 3), np.asarray(vertices, np.float64)
    n, people = len(points), len(vertices)
    distance = np.full((max(people, 1), n), np.inf)
    nearest = np.zeros((max(people, 1), n), np.int64)
    known = np.isfinite(points).all(axis=1)
    for p in range(people):
        good = np.isfinite(vertices[p]).all(axis=1)
        if not good.any() or not known.any():
            continue
        # A point outside the inflated box of a person cannot be hers; the tree is asked about the rest only.
        low, high = vertices[p][good].min(axis=0), vertices[p][good].max(axis=0)
        reach = max(0.25, 2.0 * radius_m)
        near = np.flatnonzero(known & ((points >= low - reach) & (points <= high + reach)).all(axis=1))
        if len(near):
            d, i = cKDTree(vertices[p][good]).query(points[near])
            distance[p, near], nearest[p, near] = d, np.flatnonzero(good)[i]
    person = distance.argmin(axis=0)  # the first of equals: the lower number wins
    best = distance[person, np.arange(n)]
    human = best < radius_m
    vertex = nearest[person, np.arange(n)]
    low, size = template.min(axis=0), np.ptp(template, axis=0)
    place = np.clip((np.asarray(template, np.float64) - low) / np.maximum(size, 1e-12), 0.0, 1.0)
    canonical = np.where(human[:, None], place[vertex], 0.0)
    confidence = human.astype(np.float64)
    if people > 1:
        second = np.partition(distance, 1, axis=0)[1]
        with np.errstate(invalid="ignore"):
            confidence[human & (second < 1.2 * best)] = 0.5
    return SemanticPoints(np.where(human, person, -1), np.where(human, vertex, -1), best, canonical, confidence)


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

    Minimises Huber distances to the nearest points, the order in depth, and a weak pull to no shift.
    The farthest tenth of the points in z is left out: background shines through masks.

    Args:
        vertices: (V, 3) visible vertices, optical frame; at most 400 of them are used.
        points: (N, 3) points inside the person's mask.
        ray: (3,) unit direction to the head.
    """
    vertices, points = np.asarray(vertices, np.float64), np.asarray(points, np.float64)
    vertices, points = vertices[np.isfinite(vertices).all(axis=1)], points[np.isfinite(points).all(axis=1)]
    nan = float("nan")
    if len(points) < 80:
        return SurfaceAlignment(0.0, SurfaceStatus.TOO_FEW_POINTS, nan, nan)
    if len(vertices) < 60:
        return SurfaceAlignment(0.0, SurfaceStatus.TOO_FEW_VERTICES, nan, nan)
    points = points[points[:, 2] <= np.quantile(points[:, 2], 0.9)]
    vertices = vertices[np.linspace(0, len(vertices) - 1, min(len(vertices), 400)).astype(int)]
    ray = np.asarray(ray, np.float64) / max(float(np.linalg.norm(ray)), 1e-12)
    tree = cKDTree(points)
    mean_gap = float(points[:, 2].mean() - vertices[:, 2].mean())
    before = float(tree.query(vertices)[0].mean())

    def cost(a: float) -> float:
        d = tree.query(vertices + a * ray)[0]
        huber = np.where(d < 0.05, 0.5 * d * d, 0.05 * (d - 0.025))
        return float(huber.sum() + 0.05 * max(mean_gap - a * ray[2], 0.0) + (a / 0.3)**2)

    # Nearest neighbours slide along the surface, so Gauss-Newton needs a start near the minimum.
    shift = min(np.linspace(-limit_m, limit_m, 17).tolist(), key=cost)
    for _ in range(iterations):
        distance, index = tree.query(vertices + shift * ray)
        offset = vertices + shift * ray - points[index]
        # Gauss-Newton on point-to-point distances along the ray, Huber weights as reweighting.
        weight = np.minimum(1.0, 0.05 / np.maximum(distance, 1e-9))
        gradient = float((weight * (offset @ ray)).sum())
        curvature = float(weight.sum())
        gap = mean_gap - shift * ray[2]
        if gap > 0.0:
            gradient -= 0.05 * ray[2]
        gradient += 2.0 * shift / 0.09
        curvature += 2.0 / 0.09
        shift = float(np.clip(shift - gradient / max(curvature, 1e-9), -limit_m, limit_m))
    after = float(tree.query(vertices + shift * ray)[0].mean())
    if not after <= 0.9 * before:
        return SurfaceAlignment(0.0, SurfaceStatus.NO_GAIN, before, after)
    return SurfaceAlignment(shift, SurfaceStatus.OK, before, after)


def head_from_depth(depth_m: NDArray[np.floating], K: NDArray[np.floating], head_uv_px: NDArray[np.floating], *,
                    mask: NDArray[np.bool_] | None = None, network_depth_m: float = float("nan"),
                    residual_m: float = HEAD_BEHIND_SURFACE_M) -> tuple[Array, bool]:
    """Head joint from a depth image: the surface at the head plus a residual, back-projected.

    Args:
        depth_m: (H, W) along z; 0, NaN = no reading.
        K: (3, 3) of the same image.
        head_uv_px: (2,).
        mask: (H, W) pixels of the person; None = all.
        network_depth_m: Used when fewer than 40 % of the 5x5 pixels around the head have a reading.
        residual_m: How far the joint lies behind the surface; beyond 0.5 m it is not believed.

    Returns:
        head_camera: (3,), NaN if neither depth is there.
        measured: True if the depth image decided.
    """
    uv = np.asarray(head_uv_px, np.float64)
    if not np.isfinite(uv).all():
        return np.full(3, np.nan), False
    column, row = (int(x) for x in np.rint(uv))
    rows, columns = np.arange(row - 2, row + 3), np.arange(column - 2, column + 3)
    rows = rows[(rows >= 0) & (rows < depth_m.shape[0])]
    columns = columns[(columns >= 0) & (columns < depth_m.shape[1])]
    window = np.asarray(depth_m, np.float64)[np.ix_(rows, columns)]
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(window) & (window > 0.0)
    if mask is not None:
        valid &= mask[np.ix_(rows, columns)]
    measured = bool(valid.sum() >= 10)  # 40 % of 25
    if measured:
        residual = residual_m if abs(residual_m) <= 0.5 else HEAD_BEHIND_SURFACE_M
        z = float(np.median(window[valid])) + residual
    else:
        z = network_depth_m
    if not (np.isfinite(z) and z > 0.0):
        return np.full(3, np.nan), False
    return z * np.linalg.solve(np.asarray(K, np.float64), np.append(uv, 1.0)), measured
