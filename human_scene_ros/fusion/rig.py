"""The cameras of a rig as arrays, one row per view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.existence import inner_bounds, should_be_seen
from human_scene_ros.fusion.rotations import project_to_rotations
from human_scene_ros.fusion.types import View

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Rig:
    """What the fusion knows of V cameras.

    Args:
        views: In the order of `Detections.view`.

    Attributes:
        rot_world_camera: (V, 3, 3).
        centre: (V, 3) world.
        known: (V,) views with a pose.
        looking: (V,) views with an image now.
        focal_px: (V,).
        principal_px: (V, 2).
        least_px: (V, 2) the first pixel; minus infinity where the size is unknown.
        size_px: (V, 2) width and height; infinite where unknown.
    """

    def __init__(self, views: Sequence[View]) -> None:
        V = len(views)
        self.rot_world_camera, self.centre = np.tile(np.eye(3), (V, 1, 1)), np.zeros((V, 3))
        self.known, self.looking = np.zeros(V, bool), np.zeros(V, bool)
        self.focal_px, self.principal_px = np.ones(V), np.zeros((V, 2))
        self.least_px, self.size_px = np.zeros((V, 2)), np.zeros((V, 2))
        self._inner_px = inner_bounds(self.size_px)
        for v, view in enumerate(views):
            self.set_camera(v, view)
            self.set_extrinsics(v, view.T_world_camera)

    def __len__(self) -> int:
        return len(self.known)

    def set_camera(self, index: int, view: View) -> None:
        """Give a view other intrinsics; its pose stays."""
        self.focal_px[index] = view.focal_px
        self.size_px[index] = view.image_size or (np.inf, np.inf)
        bounded = np.isfinite(self.size_px[index])
        middle = np.where(bounded, 0.5 * (self.size_px[index] - 1.0), 0.0)
        self.principal_px[index] = middle if view.principal_px is None else view.principal_px
        self.least_px[index] = np.where(bounded, 0.0, -np.inf)
        self._inner_px = inner_bounds(self.size_px)

    def set_extrinsics(self, view: int, T_world_camera: NDArray[np.floating] | None) -> bool:
        """Give or take away the pose of a view's optical frame; False if it is no rigid transform."""
        T = np.full((4, 4), np.nan) if T_world_camera is None else np.asarray(T_world_camera, np.float64)
        good = T.shape == (4, 4) and bool(np.isfinite(T).all())
        good = good and np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-4) and np.linalg.det(T[:3, :3]) > 0.0
        self.known[view] = good
        if good:
            self.rot_world_camera[view] = project_to_rotations(T[:3, :3])
            self.centre[view] = T[:3, 3]
        return bool(good)

    def look(self, views: Index) -> None:
        """Note which views have an image now; numbers of no view are passed over."""
        self.looking = np.zeros(len(self), bool)
        self.looking[views[(views >= 0) & (views < len(self))]] = True

    def missed(self, heads_world: Array, seen: Flags) -> Flags:
        """(P, V) whose head should be seen by a view that looks, and is not, given (P, V) who is seen by which view."""
        should = should_be_seen(heads_world, seen, self.rot_world_camera, self.centre, self.focal_px, self.principal_px,
                                self._inner_px)
        return should & ~seen & self.looking & self.known
