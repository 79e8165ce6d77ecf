"""Detections of one moment in the world frame: what can be used, of whom each view keeps track, how sure it is."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.rig import Rig
from human_scene_ros.fusion.rotations import matrices_from_rotvecs
from human_scene_ros.fusion.tracker import ViewTrackers
from human_scene_ros.fusion.triangulation import ray_covariances
from human_scene_ros.fusion.types import Detections, DetectionStatus

Array = NDArray[np.float64]
Index = NDArray[np.int64]

COMPARED_JOINTS = 22
_HEAD_TO_PELVIS_M = 0.6  # only to decide who is cut off by the image border


@dataclasses.dataclass
class Measured:
    """The detections of one step that can be used.

    Args:
        rows: (N,) of the input.
        view: (N,).
        stamp: (N,) seconds.
        centre: (N, 3) of the camera, world.
        point: (N, 3) head, world.
        covariances: (2, N, 3, 3) of the head: if the depth is good, if it is an outlier.
        rotations: (N, J, 9); the root's turns body axes into the world.
        betas: (N, B).
        score: (N,).
        depth: (N,) of the head along the optical axis, metres.
        lower_weight: (N,) 0 where the lower body is outside the image.
        tracklet: (N,) number in its view, -1 = unknown.
    """

    rows: Index
    view: Index
    stamp: Array
    centre: Array
    point: Array
    covariances: Array
    rotations: Array
    betas: Array
    score: Array
    depth: Array
    lower_weight: Array
    tracklet: Index

    def __len__(self) -> int:
        return len(self.view)

    @property
    def covariance(self) -> Array:
        """(N, 3, 3) in use."""
        return self.covariances[0]

    def distrust_depth(self, rows: Index) -> None:
        """Count these depths as outliers."""
        self.covariances[0, rows] = self.covariances[1, rows]


def pose_positions(skeleton: Skeleton, rotations: Array, betas: Array) -> tuple[Array, Array]:
    """Of (n, J, 9) rotations and (n, B) betas: (n, 3) head relative to the pelvis in the frame that the root leads to,
    and (n, C, 3) joints in body axes."""
    R = rotations.reshape(len(rotations), -1, 3, 3)
    turned = skeleton.positions(R, skeleton.bones(betas))
    return turned[:, skeleton.head], turned[:, :COMPARED_JOINTS] @ R[:, 0]


class Measurement:
    """Detections to `Measured`; keeps the trackers of the views for those that come without track numbers."""

    def __init__(self, skeleton: Skeleton, rig: Rig, config: FusionConfig) -> None:
        self.config = config
        self._skeleton, self._rig = skeleton, rig
        self._trackers = ViewTrackers(len(rig), config.tracker)

    def step(self, stamp_s: float, detections: Detections, depth_fraction: float, status: Index) -> Measured:
        """Those detections that can be used.

        Args:
            stamp_s: The moment.
            detections: Of all views.
            depth_fraction: Standard deviation of depth over depth.
            status: (N,) gets why a detection is left out.
        """
        d, J = detections, self._skeleton.num_joints
        view = np.asarray(d.view, np.int64)
        depth = np.asarray(d.head_camera, np.float64)[:, 2]
        inside = (view >= 0) & (view < len(self._rig))
        with np.errstate(invalid="ignore"):
            # One sum per row finds every NaN and infinity of that row.
            total = (d.head_camera.sum(axis=1) + d.pose.sum(axis=(1, 2)) + d.betas.sum(axis=1) + d.score + d.stamp_s)
            if d.token is not None:
                total = total + d.token.sum(axis=1)
            valid = np.isfinite(total) & (depth > 0.05) & (d.score > 0.0) & inside
            fresh = np.abs(d.stamp_s - stamp_s) <= self.config.max_age_s
        usable = valid & fresh
        usable[usable] = self._rig.known[view[usable]]
        if not usable.all():
            status[valid & fresh] = int(DetectionStatus.NO_EXTRINSICS)
            status[valid & ~fresh] = int(DetectionStatus.STALE)
            status[~valid] = int(DetectionStatus.INVALID)
            status[usable] = int(DetectionStatus.UNASSIGNED)
            d = d.take(usable)
        rows = usable.nonzero()[0]
        view, head = view[rows], np.asarray(d.head_camera, np.float64)
        rotations = matrices_from_rotvecs(d.pose)
        score, betas = np.asarray(d.score, np.float64), np.asarray(d.betas, np.float64)
        kept = self._without_duplicates(view, head, score, betas, rotations)
        if kept is not None:
            status[rows[~kept]] = int(DetectionStatus.DUPLICATE)
            d, rows, view, head = d.take(kept), rows[kept], view[kept], head[kept]
            rotations, score, betas = rotations[kept], score[kept], betas[kept]
        rot, centre, focal = self._rig.rot_world_camera[view], self._rig.centre[view], self._rig.focal_px[view]
        point = (rot @ head[:, :, None])[:, :, 0] + centre
        lower = self._lower_weights(view, head, rotations[:, 0])
        rotations[:, 0] = rot @ rotations[:, 0]
        sigma_px = self.config.sigma_px * np.maximum(self.config.sure_score / score, 1.0)
        fractions = np.array([[depth_fraction], [max(depth_fraction, self.config.outlier_depth_fraction)]])
        covariances = ray_covariances(point, centre, head[:, 2], focal, sigma_px=sigma_px,
                                      depth_fraction=fractions)
        stamp = np.asarray(d.stamp_s, np.float64)
        if d.track_id is not None:
            tracklet = np.asarray(d.track_id, np.int64)
        else:
            tracklet = self._trackers.step(view, stamp, point,
                                           None if d.token is None else np.asarray(d.token, np.float64))
        return Measured(rows, view, stamp, centre, point, covariances, rotations.reshape(len(rows), J, 9), betas, score,
                        head[:, 2], lower, tracklet)

    def _without_duplicates(self, view: Index, head: Array, score: Array, betas: Array,
                            rotations: Array) -> NDArray[np.bool_] | None:
        """Which detections to keep when one person was detected twice in a view; None = all."""
        z = head[:, 2]
        uv = head[:, :2] * (self._rig.focal_px[view] / z)[:, None]
        length = self._rig.focal_px[view] * 0.9 / z  # no head is farther from its pelvis than this
        order = np.arange(len(view))
        first, second = ((view[:, None] == view) & (order[:, None] < order)).nonzero()
        offset = uv[first] - uv[second]
        square = (offset * offset).sum(axis=1)
        near = (square < (0.25 * length[first])**2) & (
            np.abs(z[first] - z[second]) < 0.1 * np.maximum(z[first], z[second]))
        if not near.any():
            return None
        first, second, distance = first[near], second[near], np.sqrt(square[near])
        involved, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        local, canonical = pose_positions(self._skeleton, rotations[involved], betas[involved])
        pelvis = head[involved] - local
        segment = pelvis[:, :2] / np.maximum(pelvis[:, 2:], 0.05) - head[involved, :2] / z[involved, None]
        pixels = np.linalg.norm(segment, axis=1) * self._rig.focal_px[view[involved]]
        kept = np.ones(len(view), bool)
        place_first, place_second = place[:len(first)], place[len(first):]
        apart = np.sqrt(((canonical[place_first] - canonical[place_second])**2).sum(axis=2)).mean(axis=1)
        same = (distance < 0.25 * np.maximum(pixels[place_first], pixels[place_second])) & (apart < 0.10)
        for i, j in zip(first[same], second[same], strict=True):
            if kept[i] and kept[j]:
                kept[j if score[i] >= score[j] else i] = False
        return None if kept.all() else kept

    def _lower_weights(self, view: Index, head: Array, root_camera: Array) -> Array:
        pelvis = head - _HEAD_TO_PELVIS_M * root_camera[:, :, 1]
        rig = self._rig
        uv = pelvis[:, :2] / np.maximum(pelvis[:, 2:], 0.05) * rig.focal_px[view][:, None] + rig.principal_px[view]
        return np.asarray(((uv >= rig.least_px[view]) & (uv <= rig.size_px[view])).all(axis=1), np.float64)

