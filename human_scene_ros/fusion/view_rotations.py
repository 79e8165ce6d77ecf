"""Rotations of one person in several views where these disagree: flips, medians, and roots that are far apart.

Arrays have a row per used detection; `person` is its place among the people of this step.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.rotations import RotationStatus, average_rotation, geodesic_median
from human_scene_ros.fusion.types import PersonStatus
from human_scene_ros.geometry.transform import axis_and_angle

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def without_flips(roots: Array, weight: Array, person: Index, member: Array, views: Index, status: Index) -> Array:
    """Weights with 0 for a view that takes front for back (more than 120 degrees of yaw off the others).

    Where that would leave out half of the views or more, nobody knows who is wrong, and all count.

    Args:
        roots: (n, 9) root rotations in the world.
        weight: (n,).
        person: (n,).
        member: (people, n) 1 where the detection is the person's.
        views: (people,) how many see each.
        status: (people,) gets `VIEW_FLIPPED`.
    """
    total = ((member * weight) @ roots)[person]
    others = total - weight[:, None] * roots
    mass = np.maximum((member @ weight)[person] - weight, 1e-9)
    suspect = ((others * roots).sum(axis=1) / mass < 0.65) & (views[person] >= 3)
    if not suspect.any():
        return weight
    those = np.flatnonzero(suspect)
    of_others = (member[person[those]] * np.maximum(weight, 1e-6)).T
    of_others[those, np.arange(len(those))] = 0.0
    turn = roots[those].reshape(-1, 3, 3) @ _medians(roots, of_others, iterations=10).transpose(0, 2, 1)
    yaw = np.arctan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1])
    flipped = np.zeros(len(weight), bool)
    flipped[those] = np.abs(yaw) > math.radians(120.0)
    flipped &= (2 * (member @ flipped) < views)[person]
    status[person[flipped]] |= int(PersonStatus.VIEW_FLIPPED)
    return np.where(flipped, 0.0, weight)


def _medians(roots: Array, weights: Array, iterations: int) -> Array:
    """(n, 9) rotations and (n, m) weights -> (m, 3, 3) geodesic medians, all at once."""
    R = np.broadcast_to(roots.reshape(-1, 1, 3, 3), (*weights.shape, 3, 3))
    return geodesic_median(R, weights, iterations=iterations)


def median_rotations(rotations: Array, weight: Array, person: Index, views: Index, total: Array) -> None:
    """Sums of rotations replaced by geodesic medians for those whom three views and more see.

    Args:
        rotations: (n, J, 9).
        weight: (n,).
        person: (n,).
        views: (people,).
        total: (people, J, 9) changed in place.
    """
    for a in np.flatnonzero(views >= 3):
        mine = np.flatnonzero((person == a) & (weight > 0.0))
        if len(mine) < 3:
            continue
        R = rotations[mine].reshape(len(mine), -1, 3, 3)
        middle = geodesic_median(R, np.broadcast_to(weight[mine, None], R.shape[:2]))
        total[a] = weight[mine].sum() * middle.reshape(-1, 9)


def settle_wide(rotations: Array, weight: Array, person: Index, wide: NDArray[np.bool_], known: NDArray[np.bool_],
                before: Array, total: Array, status: Index) -> None:
    """Root rotations that disagree: the median of three and more, of two the one nearest to the last known.

    Args:
        rotations: (n, J, 9).
        weight: (n,).
        person: (n,).
        wide: (people,) whose roots disagree.
        known: (people,) who has a last rotation.
        before: (people, 3, 3) that rotation.
        total: (people, J, 9) sums; the root's is changed in place.
        status: (people,) gets `ROTATION_WIDE`, and `ROTATION_AMBIGUOUS` where the average does not exist.
    """
    status[wide] |= int(PersonStatus.ROTATION_WIDE)
    mine = (person == np.arange(len(wide))[:, None]) * weight
    many = np.flatnonzero(wide & (np.count_nonzero(mine, axis=1) >= 3))
    if len(many):
        middle = _medians(rotations[:, 0], mine[many].T, iterations=30)
        total[many, 0] = mine[many].sum(axis=1)[:, None] * middle.reshape(-1, 9)
    for a in np.flatnonzero(wide & (np.count_nonzero(mine, axis=1) < 3)):
        R, w = rotations[mine[a] > 0.0, 0].reshape(-1, 3, 3), mine[a, mine[a] > 0.0]
        if average_rotation(R, w).status is RotationStatus.AMBIGUOUS:
            status[a] |= int(PersonStatus.ROTATION_AMBIGUOUS)
        chosen = R[int(np.argmin(axis_and_angle(before[a].T @ R)[2]))] if known[a] else R[int(np.argmax(w))]
        total[a, 0] = w.sum() * chosen.reshape(9)
