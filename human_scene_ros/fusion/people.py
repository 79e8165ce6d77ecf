"""Everybody whom the fusion holds: a table with a row per person, and what it says about detections."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.measure import COMPARED_JOINTS, Measured
from human_scene_ros.fusion.motion import PointFilters

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_COLUMNS = ("ids", "bound", "bound_since", "bound_seen", "bias", "evidence", "covariance", "rotation_sum", "rotation",
            "canonical", "betas", "betas_weight", "seen", "age", "confirmed")


class People:
    """N people seen by V views.

    Args:
        views: V.
        joints: J.

    Attributes:
        filters: Head positions and velocities.
        ids: (N,) never used again.
        bound: (N, V) tracklet of each view, -1 = none.
        bound_since: (N, V) when that tracklet was bound, seconds.
        bound_seen: (N, V) when it was last seen.
        bias: (N, V) logarithm of seen over true depth.
        evidence: (N,) logarithm of the odds that there is somebody.
        covariance: (N, 3, 3) of the head when last seen.
        rotation_sum: (N, J, 9) weighted rotations of now and, fading, of before.
        rotation: (N, J, 3, 3) last published; the root's turns body axes into the world.
        canonical: (N, C, 3) joints relative to the pelvis, in body axes.
        betas: (N, B).
        betas_weight: (N,) of that mean.
        seen: (N,) when last seen, seconds; minus infinity: to be forgotten.
        age: (N,) steps in which the person was seen.
        confirmed: (N,) seen well enough to be shown.
    """

    def __init__(self, views: int, joints: int) -> None:
        self.filters = PointFilters()
        self.ids = np.zeros(0, np.int64)
        self.bound = np.zeros((0, views), np.int64)
        self.bound_since, self.bound_seen = np.zeros((0, views)), np.zeros((0, views))
        self.bias = np.zeros((0, views))
        self.evidence = np.zeros(0)
        self.covariance = np.zeros((0, 3, 3))
        self.rotation_sum = np.zeros((0, joints, 9))
        self.rotation = np.zeros((0, joints, 3, 3))
        self.canonical = np.zeros((0, min(joints, COMPARED_JOINTS), 3))
        self.betas = np.zeros((0, 0))
        self.betas_weight = np.zeros(0)
        self.seen = np.zeros(0)
        self.age = np.zeros(0, np.int64)
        self.confirmed = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, person_id: int, stamp_s: float, point: Array, covariance: Array, bound: Index, rotation: Array,
            canonical: Array, num_betas: int, confirmed: bool) -> int:
        """One more person, with (V,) tracklets, (J, 3, 3) rotations and (C, 3) canonical joints; the row."""
        views, joints = self.bound.shape[1], self.rotation.shape[1]
        if self.betas.shape[1] != num_betas:
            self.betas = np.zeros((len(self), num_betas))
        self.filters.add(point, covariance, stamp_s)
        row = {"ids": person_id, "bound": bound, "bound_since": np.full(views, stamp_s),
               "bound_seen": np.full(views, stamp_s), "bias": np.zeros(views),
               "evidence": 0.0, "covariance": covariance, "rotation_sum": np.zeros((joints, 9)), "rotation": rotation,
               "canonical": canonical, "betas": np.zeros(num_betas), "betas_weight": 0.0, "seen": stamp_s, "age": 0,
               "confirmed": confirmed}
        for name in _COLUMNS:
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.asarray(row[name], column.dtype)[None]]))
        return len(self) - 1

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Remove all other rows."""
        self.filters.keep(rows)
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[rows])

    def bind(self, person: int, view: int, tracklet: int, stamp_s: float) -> None:
        """From now on this is the person's track in the view; -1 = none."""
        self.bound[person, view], self.bound_since[person, view] = tracklet, stamp_s

    def take_over(self, a: int, b: int) -> None:
        """Views of row b that row a lacks become a's."""
        self.bound[a] = np.where(self.bound[a] >= 0, self.bound[a], self.bound[b])
        self.bound[b] = -1

    def predicted(self, person: Index, stamp_s: Array | float) -> tuple[Array, Array]:
        """(..., 3) positions at the stamps and (...) variances that are added to them."""
        dt = np.minimum(np.maximum(stamp_s - self.filters.time[person], -0.5), 0.5)
        position = self.filters.position[person] + dt[..., None] * self.filters.velocity[person]
        elapsed = stamp_s - self.seen[person]
        return position, (0.02 + 0.5 * elapsed * elapsed)**2

    def unbiased(self, seen: Measured, rows: Index, person: Index) -> Array:
        """(..., 3) points with the depth error taken out that the view keeps making about the person."""
        bias = self.bias[person, seen.view[rows]]
        if not bias.any():
            return seen.point[rows]
        centre = seen.centre[rows]
        return centre + (seen.point[rows] - centre) * np.exp(-bias)[..., None]

    def at_stamp(self, seen: Measured, rows: Index, person: Index, stamp_s: float) -> Array:
        """(n, 3) of `unbiased`, moved from their own stamps to another by the people's velocities."""
        ahead = np.minimum(np.maximum(stamp_s - seen.stamp[rows], -0.05), 0.05)
        return self.unbiased(seen, rows, person) + ahead[:, None] * self.filters.velocity[person]
