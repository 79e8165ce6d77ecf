"""Rigid transforms as (4, 4) matrices; rotations by `scipy.spatial.transform.Rotation`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]

# Level camera: optical z (forward) becomes world x, optical x (right) becomes -y, optical y (down) becomes -z.
ROT_WORLD_LEVEL_CAMERA: Matrix = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def make_transform(rot_a_b: NDArray[np.floating], t_a_b: NDArray[np.floating]) -> Matrix:
    """(4, 4) T_a_b from its (3, 3) rotation and the (3,) position of b's origin in a."""
    T_a_b = np.eye(4)
    T_a_b[:3, :3] = rot_a_b
    T_a_b[:3, 3] = t_a_b
    return T_a_b


def invert(T_a_b: NDArray[np.floating]) -> Matrix:
    """T_b_a of a rigid T_a_b: the transpose of its rotation, exact to rounding.

    The transpose is the inverse of a rotation only. What a matrix lacks of being one is doubled, not mended: a pose
    that is made of its own inverse again and again must be made orthonormal at every link (`orthonormal`).
    """
    rot_b_a = np.asarray(T_a_b, dtype=np.float64)[:3, :3].T
    return make_transform(rot_b_a, -rot_b_a @ T_a_b[:3, 3])


def nearest_rotations(matrices: NDArray[np.floating]) -> Matrix:
    """(..., 3, 3) that are rotations but for rounding -> the nearest rotations, float64.

    One Newton step of the polar decomposition (Higham 1986): an error of 1e-7 becomes one of 1e-14, in a tenth of the
    time of a singular value decomposition.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    return matrices @ (1.5 * np.eye(3) - 0.5 * matrices.swapaxes(-1, -2) @ matrices)


def axis_and_angle(rotations: NDArray[np.floating]) -> tuple[Matrix, Matrix, Matrix]:
    """(..., 3, 3) rotations -> what turns and by how much.

    Returns:
        cross: (..., 3, 3) matrix of the cross product with the axis, times the sine of the angle.
        sine: (...) of the angle.
        angle: (...) radians in [0, pi]; exact near both ends.
    """
    rotations = np.asarray(rotations, dtype=np.float64)
    cross = 0.5 * (rotations - rotations.swapaxes(-1, -2))
    sine = np.sqrt(0.5 * np.square(cross).sum(axis=(-1, -2)))
    return cross, sine, np.arctan2(sine, 0.5 * (rotations.trace(axis1=-2, axis2=-1) - 1.0))


def rotation_vectors(rotations: NDArray[np.floating]) -> Matrix:
    """(..., 3, 3) rotations -> (..., 3) axis times angle, radians; scipy's, in a tenth of its time."""
    cross, sine, angle = axis_and_angle(rotations)
    vectors = cross[..., (2, 0, 1), (1, 2, 0)] * (angle / np.maximum(sine, 1e-12))[..., None]
    half_turns = angle > np.pi - 0.1  # where the sine says little about the axis
    if half_turns.any():
        vectors[half_turns] = Rotation.from_matrix(np.asarray(rotations)[half_turns]).as_rotvec()
    return vectors


def orthonormal(T_a_b: Matrix) -> Matrix:
    """The transform with the rotation that is nearest to its own; for chains of poses, see `nearest_rotations`."""
    return make_transform(nearest_rotations(T_a_b[:3, :3]), T_a_b[:3, 3])


def apply(T_a_b: NDArray[np.floating], points_b: NDArray[np.floating]) -> NDArray[np.floating]:
    """(..., 3) points in b -> the same points in a; keeps the dtype of the points."""
    rot_a_b = T_a_b[:3, :3].astype(points_b.dtype)
    return points_b @ rot_a_b.T + T_a_b[:3, 3].astype(points_b.dtype)


def quat_wxyz_from_matrix(rot_a_b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(3, 3) rotation -> (4,) unit quaternion (w, x, y, z) with w >= 0.

    Plain numbers and not scipy: every message holds several poses, and one call of scipy takes as long as ten of
    these. The largest component is found first, for it divides the others (Shepperd 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rot_a_b, dtype=np.float64).tolist()
    trace = a + e + i
    largest = max(trace, a, e, i)
    if largest == trace:
        quat = (1.0 + trace, h - f, c - g, d - b)
    elif largest == a:
        quat = (h - f, 1.0 + a - e - i, b + d, c + g)
    elif largest == e:
        quat = (c - g, b + d, 1.0 + e - a - i, f + h)
    else:
        quat = (d - b, c + g, f + h, 1.0 + i - a - e)
    norm = math.sqrt(sum(q * q for q in quat))
    return np.array(quat) / (norm if quat[0] >= 0.0 else -norm)


def matrix_from_quat_wxyz(quat_wxyz: Sequence[float] | NDArray[np.floating]) -> Matrix:
    """(4,) quaternion (w, x, y, z), any norm but 0 -> (3, 3); in plain numbers, see `quat_wxyz_from_matrix`."""
    w, x, y, z = (float(q) for q in quat_wxyz)
    norm = math.hypot(w, x, y, z)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    return np.array([[1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
                     [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
                     [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)]])


def rotation_angle(rot_a_b: NDArray[np.floating]) -> float:
    """Angle of a (3, 3) rotation, radians in [0, pi]."""
    return float(axis_and_angle(rot_a_b)[2])
