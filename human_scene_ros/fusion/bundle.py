"""Poses of a rig from the pixels of points that several cameras see: bundle adjustment with a robust loss.

What people calibration leaves over is mostly depth: each camera's joints are wrong along its rays. Pixels know
nothing of that. Gauss-Newton with Levenberg's damping over poses and points together, points eliminated by the Schur
complement (Triggs et al. 1999, section 6). Scale and the first camera stay as they are given. Where points move, the
clock of each camera is one unknown more, to first order: a pixel moves by its velocity times what the clock is off
(temporal calibration by image velocity: Qin and Shen, IROS 2018).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.geometry.transform import make_transform

Array = NDArray[np.float64]

_UNSEEN = 1e-12  # of the largest eigenvalue of the normal matrix
_SETTLED = 1e-6  # of the cost; a step that gains less moves nothing by a tenth of its doubt


@dataclasses.dataclass(frozen=True)
class BundleResult:
    """Adjusted poses and points.

    Args:
        T_camera_world: (V, 4, 4).
        points_world: (N, 3); NaN where fewer than two cameras see the point.
        residual_px: (V, N) distance of the projection from the pixel; NaN where unseen.
        covariance: (V, 6, 6) of translation (m) and rotation vector (rad) of each T_camera_world in the camera's frame,
            at fixed scale and first camera, from the normal matrix and the spread of the inliers' residuals, taken
            for independent. With velocities it holds the doubt about the clocks too.
        offset_s: (V,) to be added to each camera's stamps; zeros without velocities.
        offset_variance: (V,) of it, s^2; zeros without velocities.
    """

    T_camera_world: Array
    points_world: Array
    residual_px: Array
    covariance: Array
    offset_s: Array
    offset_variance: Array

    @property
    def sigma(self) -> Array:
        """(V, 6) standard deviations: the roots of the covariances' diagonals."""
        return np.sqrt(np.maximum(np.einsum("vii->vi", self.covariance), 0.0))


def triangulated(T_camera_world: NDArray[np.floating], rays: NDArray[np.floating],
                 weights: NDArray[np.floating]) -> Array:
    """(N, 3) points nearest to their rays.

    Args:
        T_camera_world: (V, 4, 4).
        rays: (V, N, 2) normalised image coordinates x / z, y / z.
        weights: (V, N), 0 = unseen.
    """
    rows = T_camera_world[:, None, :2, :] - rays[..., None] * T_camera_world[:, None, 2:3, :]  # (V, N, 2, 4)
    rows = rows * weights[..., None, None]
    A = np.einsum("vnri,vnrj->nij", rows[..., :3], rows[..., :3])
    b = -np.einsum("vnri,vnr->ni", rows[..., :3], rows[..., 3])
    points = np.full((rays.shape[1], 3), np.nan)
    good = (weights > 0.0).sum(axis=0) >= 2
    points[good] = np.linalg.solve(A[good] + 1e-12 * np.eye(3), b[good][..., None])[..., 0]
    return points


def adjust(T_camera_world: NDArray[np.floating], uv_px: NDArray[np.floating], focal_px: NDArray[np.floating],
           principal_px: NDArray[np.floating], confidence: NDArray[np.floating], *, huber_px: float = 3.0,
           iterations: int = 50, velocity_px_s: NDArray[np.floating] | None = None,
           offset_information: float = 1.0) -> BundleResult:
    """Refine the poses of all cameras but the first, and their clocks.

    Args:
        T_camera_world: (V, 4, 4) a start within some degrees and decimetres.
        uv_px: (V, N, 2) pixels without distortion; the same N points in every camera.
        focal_px: (V, 2).
        principal_px: (V, 2).
        confidence: (V, N) weights, 0 = unseen; NaN pixels count as unseen.
        huber_px: Residuals beyond it count linearly.
        iterations: At most.
        velocity_px_s: (V, N, 2) of the pixels; None = all clocks agree.
        offset_information: px^2 / s^2 in favour of clocks that agree: (noise of a pixel / expected offset)^2. It
            decides only where nothing moves.
    """
    V, N = uv_px.shape[:2]
    check_shape("uv_px", uv_px, (V, N, 2))
    check_shape("confidence", confidence, (V, N))
    if velocity_px_s is not None:
        check_shape("velocity_px_s", velocity_px_s, (V, N, 2))
    T = np.array(T_camera_world, np.float64)
    focal = np.asarray(focal_px, np.float64)
    seen = np.isfinite(uv_px).all(axis=2) & (confidence > 0.0)
    shared = np.flatnonzero(seen.sum(axis=0) >= 2)  # the others say nothing, and may be many
    seen = seen[:, shared]
    uv = np.where(seen[..., None], uv_px[:, shared], 0.0)
    rays: Array = np.where(seen[..., None], (uv - np.asarray(principal_px)[:, None]) / focal[:, None], 0.0)
    speed = None
    if velocity_px_s is not None:
        speed = np.where(seen[..., None], np.nan_to_num(velocity_px_s[:, shared]), 0.0)
    seen_by = _Seen(rays, focal, np.where(seen, confidence[:, shared], 0.0).astype(np.float64), huber_px, speed,
                    offset_information)
    # The baseline of the first two cameras fixes the scale.
    baseline = float(np.linalg.norm(_centres(T)[1] - _centres(T)[0]))
    points = triangulated(T, rays, seen_by.weight)
    offset, damping = np.zeros(V), 1e-3
    cost = _cost(T, points, offset, seen_by)
    for _ in range(iterations):
        step_cameras, step_points = _step(T, points, offset, seen_by, damping)
        tried = _moved(T, step_cameras), points + step_points, (
            offset if speed is None else offset + step_cameras[:, 6])
        tried_cost = _cost(*tried, seen_by)
        if tried_cost < cost:
            done = cost - tried_cost < _SETTLED * cost
            (T, points, offset), cost, damping = tried, tried_cost, max(0.3 * damping, 1e-9)
            if done:
                break
        else:
            damping *= 10.0
            if damping > 1e6:
                break
    factor = baseline / max(float(np.linalg.norm(_centres(T)[1] - _centres(T)[0])), 1e-9)
    origin = _centres(T)[0]
    points = origin + factor * (points - origin)
    for v in range(1, V):
        T[v, :3, 3] = -T[v, :3, :3] @ (origin + factor * (_centres(T)[v] - origin))
    residual, _, _ = _residuals(T, points, offset, seen_by)
    distance = np.full((V, N), np.nan)
    distance[:, shared] = np.where(seen, np.linalg.norm(residual, axis=2), np.nan)
    covariance = _covariance(T, points, offset, seen_by, distance)
    points_world = np.full((N, 3), np.nan)
    points_world[shared] = points
    return BundleResult(T, points_world, distance, covariance[:, :6, :6], offset,
                        np.zeros(V) if speed is None else covariance[:, 6, 6])


@dataclasses.dataclass(frozen=True)
class _Seen:
    """The measurements.

    Args:
        rays: (V, N, 2) normalised image coordinates.
        focal: (V, 2) pixels.
        weight: (V, N), 0 = unseen.
        huber: Pixels.
        speed: (V, N, 2) pixels per second, or None: clocks are no unknowns.
        offset_information: Of each clock.
    """

    rays: Array
    focal: Array
    weight: Array
    huber: float
    speed: Array | None
    offset_information: float


def _centres(T_camera_world: Array) -> Array:
    return -np.einsum("vji,vj->vi", T_camera_world[:, :3, :3], T_camera_world[:, :3, 3])


def _moved(T: Array, step: Array) -> Array:
    """Poses after steps of translation and rotation vector in the camera's frame, (V, 6 or more)."""
    moved = T.copy()
    for v in range(len(T)):
        moved[v] = make_transform(Rotation.from_rotvec(step[v, 3:6]).as_matrix(), step[v, :3]) @ T[v]
    return moved


def _residuals(T: Array, points: Array, offset: Array, seen: _Seen) -> tuple[Array, Array, Array]:
    """(V, N, 2) pixels, (V, N, 3) points in the cameras, (V, N, 2, 3) their derivative."""
    focal = seen.focal
    local = points @ np.swapaxes(T[:, :3, :3], 1, 2) + T[:, None, :3, 3]
    z = np.where(np.abs(local[..., 2]) < 1e-3, 1e-3, local[..., 2])
    residual = (local[..., :2] / z[..., None] - seen.rays) * focal[:, None]
    if seen.speed is not None:  # what is stamped too early was seen where the point has been
        residual = residual + offset[:, None, None] * seen.speed
    derivative = np.zeros((*local.shape[:2], 2, 3))
    derivative[..., 0, 0] = focal[:, None, 0] / z
    derivative[..., 1, 1] = focal[:, None, 1] / z
    derivative[..., :, 2] = -focal[:, None] * local[..., :2] / (z * z)[..., None]
    return residual, local, derivative


def _cost(T: Array, points: Array, offset: Array, seen: _Seen) -> float:
    residual, local, _ = _residuals(T, points, offset, seen)
    size = np.linalg.norm(residual, axis=2)
    loss = np.where(size < seen.huber, 0.5 * size**2, seen.huber * (size - 0.5 * seen.huber))
    behind = 1e6 * ((local[..., 2] < 0.1) & (seen.weight > 0.0)).sum()
    return float((seen.weight * loss).sum() + behind + 0.5 * seen.offset_information * (offset**2).sum())


def _normal(T: Array, points: Array, offset: Array, seen: _Seen) -> tuple[Array, Array, Array, Array, Array]:
    """Blocks of the normal equations: cameras (6 unknowns, 7 with clocks), cameras x points, points; right sides."""
    residual, local, derivative = _residuals(T, points, offset, seen)
    V, N = residual.shape[:2]
    size = np.linalg.norm(residual, axis=2)
    w = seen.weight * np.minimum(1.0, seen.huber / np.maximum(size, 1e-9))
    cross = np.zeros((*local.shape, 3))  # d local / d rotation vector = -[local]x
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = local[..., 2], -local[..., 1], local[..., 0]
    cross -= np.swapaxes(cross, -1, -2)
    to_camera = [derivative, derivative @ cross, *([] if seen.speed is None else [seen.speed[..., None]])]
    to_unknowns = np.concatenate(to_camera, axis=3)  # (V, N, 2, D)
    to_point = derivative @ T[:, None, :3, :3]
    weighted = w[..., None, None] * to_unknowns
    rows = weighted.reshape(V, 2 * N, -1)
    A = np.swapaxes(rows, 1, 2) @ to_unknowns.reshape(V, 2 * N, -1)
    B = np.swapaxes(weighted, -1, -2) @ to_point
    of_point = to_point.swapaxes(0, 1).reshape(N, 2 * V, 3)
    weighted_point = np.swapaxes((w[..., None, None] * to_point).swapaxes(0, 1).reshape(N, 2 * V, 3), 1, 2)
    C = weighted_point @ of_point
    a = -(residual.reshape(V, 1, 2 * N) @ rows)[:, 0]
    c = -(weighted_point @ residual.swapaxes(0, 1).reshape(N, 2 * V, 1))[..., 0]
    if seen.speed is not None:
        A[:, 6, 6] += seen.offset_information
        a[:, 6] -= seen.offset_information * offset
    return A, B, C, a, c


def _reduced(A: Array, B: Array, C: Array) -> tuple[Array, Array]:
    """The cameras' system once the points are eliminated, without the first camera; and C^-1."""
    V, D = A.shape[:2]
    inverse = np.linalg.inv(C + 1e-9 * np.eye(3))
    left = np.swapaxes(B @ inverse, 1, 2).reshape(D * V, -1)  # rows: cameras' parameters; columns: points
    S = -(left @ np.swapaxes(B, 1, 2).reshape(D * V, -1).T).reshape(V, D, V, D)
    for v in range(V):
        S[v, :, v] += A[v]
    return S[1:, :, 1:].reshape(D * (V - 1), D * (V - 1)), np.asarray(inverse, np.float64)


def _step(T: Array, points: Array, offset: Array, seen: _Seen, damping: float) -> tuple[Array, Array]:
    A, B, C, a, c = _normal(T, points, offset, seen)
    A = A + damping * np.einsum("vii->vi", A)[:, :, None] * np.eye(A.shape[1])
    C = C + damping * np.einsum("nii->ni", C)[:, :, None] * np.eye(3)
    S, inverse = _reduced(A, B, C)
    right = a - (B @ (inverse @ c[..., None])).sum(axis=1)[..., 0]
    cameras = np.zeros(a.shape)
    cameras[1:] = np.linalg.lstsq(S, right[1:].reshape(-1), rcond=1e-14)[0].reshape(-1, a.shape[1])
    moved_by_cameras = (np.swapaxes(B, -1, -2) @ cameras[:, None, :, None]).sum(axis=0)
    move = (inverse @ (c[..., None] - moved_by_cameras))[..., 0]
    return cameras, move


def _covariance(T: Array, points: Array, offset: Array, seen: _Seen, distance: Array) -> Array:
    """(V, D, D) of the cameras' unknowns."""
    A, B, C, _, _ = _normal(T, points, offset, seen)
    V, D = A.shape[:2]
    S, _ = _reduced(A, B, C + 1e-6 * np.eye(3))
    spread = float(np.nanmedian(distance)) / 1.177  # median of a Rayleigh distribution
    # The scale about the first camera's centre is no unknown: its direction is taken out.
    centres = _centres(T)
    scaling = np.zeros((V, D))
    scaling[:, :3] = -np.einsum("vij,vj->vi", T[:, :3, :3], centres - centres[0])
    free = np.linalg.svd(scaling[1:].reshape(1, -1))[2][1:].T
    eigenvalues, eigenvectors = np.linalg.eigh(free.T @ S @ free)
    # What no ray tells has a vast variance; left to rounding, its eigenvalue may be anything near zero.
    eigenvalues = np.maximum(eigenvalues, _UNSEEN * eigenvalues[-1])
    axes = free @ eigenvectors
    joint = (axes / eigenvalues) @ axes.T * spread**2 * float(np.mean(seen.weight[seen.weight > 0.0]))
    covariance = np.zeros((V, D, D))
    for v in range(1, V):
        covariance[v] = joint[D * v - D:D * v, D * v - D:D * v]
    return covariance
