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
    flipped = np.zeros(len(weight), bool)
    for i in np.flatnonzero(suspect):
        rest = np.flatnonzero((person == person[i]) & (np.arange(len(person)) != i))
        middle = geodesic_median(roots[rest].reshape(-1, 3, 3), np.maximum(weight[rest], 1e-6), iterations=10)
        turn = roots[i].reshape(3, 3) @ middle.T
        yaw = math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])
        flipped[i] = abs(yaw) > math.radians(120.0)
    flipped &= (2 * (member @ flipped) < views)[person]
    status[person[flipped]] |= int(PersonStatus.VIEW_FLIPPED)
    return np.where(flipped, 0.0, weight)


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
    for a in np.flatnonzero(wide):
        mine = np.flatnonzero((person == a) & (weight > 0.0))
        status[a] |= int(PersonStatus.ROTATION_WIDE)
        if not len(mine):
            continue
        R, w = rotations[mine, 0].reshape(-1, 3, 3), weight[mine]
        if len(mine) >= 3:
            chosen = geodesic_median(R, w, iterations=30 if len(mine) <= 4 else 5)
        else:
            if average_rotation(R, w).status is RotationStatus.AMBIGUOUS:
                status[a] |= int(PersonStatus.ROTATION_AMBIGUOUS)
            chosen = R[int(np.argmin(axis_and_angle(before[a].T @ R)[2]))] if known[a] else R[int(np.argmax(w))]
        total[a, 0] = w.sum() * chosen.reshape(9)
