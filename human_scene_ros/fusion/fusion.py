"""The route: detections of all views around one moment in, one set of people in the world frame out.

`Fusion.step` tracks people per view, ties the views' tracks to global people (track-anchored association),
and fuses each person: head by maximum a posteriori over the views' rays and depths, rotations by a smoothed
chordal mean, betas by a running mean. It knows nothing of ROS, topics or messages, and it never raises on
bad numbers: such detections are marked and left out.

Frames: detections are in their camera's optical frame, results in the world frame of the extrinsics.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.assignment import agglomerate, cycle_violations, gated_assignment
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.existence import (
    IN_FRONT_M,
    LEAST_EVIDENCE,
    MOST_EVIDENCE,
    evidence_of_scores,
    gain_of_moving,
    inner_bounds,
    should_be_seen,
)
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.matrices import invert_symmetric, mahalanobis_squared
from human_scene_ros.fusion.motion import PointFilters
from human_scene_ros.fusion.rotations import matrices_from_rotvecs, project_to_rotations
from human_scene_ros.fusion.tracker import ViewTrackers
from human_scene_ros.fusion.triangulation import MAX_RESIDUAL_M, ray_covariances, triangulate
from human_scene_ros.fusion.types import (
    Detections,
    DetectionStatus,
    FusedFrame,
    FusedPeople,
    PersonStatus,
    View,
)
from human_scene_ros.fusion.view_rotations import median_rotations, settle_wide, without_flips

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_COMPARED_JOINTS = 22
_LOWER_BODY = (1, 2, 4, 5, 7, 8, 10, 11)
_ON_RAY_M = 0.15
_SAME_POSE_M = 0.30
_MAX_BIAS = 0.5
_SHARP_M = 0.09
_BETAS_KEPT = 300
_POSE_MEMORY_S = 0.2  # the pose from before a longer gap says nothing about now
_SURE_DEPTH = 0.03  # a fused point so well known along the ray can teach the view its error
_BLIND_DEPTH = 1.0  # a standard deviation of all the depth leaves a ray
_HEAD_TO_PELVIS_M = 0.6  # only to decide who is cut off by the image border
_IDENTITY = np.eye(3)


@dataclasses.dataclass
class _Measured:
    """The detections of one step that can be used, in the world frame."""

    rows: Index  # of the input
    view: Index
    stamp: Array
    point: Array
    covariances: Array  # (2, N, 3, 3): where the depth is good, where it is an outlier
    rotations: Array
    betas: Array
    score: Array
    depth: Array
    focal: Array
    head_camera: Array
    lower_weight: Array  # 0 where the lower body is outside the image
    tracklet: Index

    @property
    def covariance(self) -> Array:
        return self.covariances[0]

    def distrust_depth(self, rows: Index) -> None:
        self.covariances[0, rows] = self.covariances[1, rows]


class Fusion:
    """People of a rig of cameras over time.

    Args:
        skeleton: Joints and bones that the poses belong to.
        views: The cameras, in the order of `Detections.view`.
        config: Settings.
    """

    def __init__(self, skeleton: Skeleton, views: Sequence[View], config: FusionConfig | None = None) -> None:
        self.config = config or FusionConfig()
        self.skeleton = skeleton
        self._views = list(views)
        V = len(self._views)
        self._rot, self._centre = np.tile(np.eye(3), (V, 1, 1)), np.zeros((V, 3))
        self._known = np.zeros(V, bool)
        self._focal, self._size, self._principal = np.ones(V), np.zeros((V, 2)), np.zeros((V, 2))
        self._least_px, self._inner_px = np.zeros((V, 2)), inner_bounds(self._size)
        for v, view in enumerate(views):
            self.set_camera(v, view)
            self.set_extrinsics(v, view.T_world_camera)
        self._person_count = 0
        self.reset()

    def reset(self) -> None:
        """Forget all people and all that was learned of the depths; ids go on counting."""
        V, J = len(self._views), self.skeleton.num_joints
        self._trackers = ViewTrackers(V, self.config.tracker)
        self._filters = PointFilters()
        self._ids = np.zeros(0, np.int64)
        self._bound = np.zeros((0, V), np.int64)  # tracklet of each view, -1 = none
        self._bound_seen = np.zeros((0, V))  # when that tracklet was last seen
        self._free_seen: dict[tuple[int, int], float] = {}  # view and tracklet
        self._free_before = np.zeros(0)
        self._bias = np.zeros((0, V))  # logarithm of seen over true depth
        self._evidence = np.zeros(0)  # logarithm of the odds that there is somebody
        self._covariance = np.zeros((0, 3, 3))
        self._sum = np.zeros((0, J, 9))
        self._rotation = np.zeros((0, J, 3, 3))
        self._canonical = np.zeros((0, min(J, _COMPARED_JOINTS), 3))
        self._betas = np.zeros((0, 0))
        self._betas_weight = np.zeros(0)
        self._betas_seen: dict[int, collections.deque[Array]] = {}  # person -> last detections, for the median
        self._seen = np.zeros(0)
        self._age = np.zeros(0, np.int64)
        self._confirmed = np.zeros(0, bool)
        self._pending: dict[tuple[int, int], int] = {}
        self._agreement: dict[tuple[int, int], int] = {}
        self._frames = 0
        self._depth_fraction = _BLIND_DEPTH if self.config.association == "rays" else self.config.depth_fraction
        self._depth_errors = np.zeros(300 * max(V, 1))
        self._depth_samples = 0
        self._cycle_rate = 0.0
        self._looking = np.zeros(V, bool)  # which views had an image now
        self._merged: list[tuple[int, int]] = []  # ids kept and dropped since the last step
        self._doubt: dict[int, float] = {}  # person -> evidence that somebody else claims now
        self._stamp = -math.inf

    def set_camera(self, index: int, view: View) -> None:
        """Give a view other intrinsics; its pose stays."""
        self._focal[index] = view.focal_px
        self._size[index] = view.image_size or (np.inf, np.inf)
        bounded = np.isfinite(self._size[index])
        middle = np.where(bounded, 0.5 * (self._size[index] - 1.0), 0.0)
        self._principal[index] = middle if view.principal_px is None else view.principal_px
        self._least_px[index] = np.where(bounded, 0.0, -np.inf)
        self._inner_px = inner_bounds(self._size)

    def set_extrinsics(self, view: int, T_world_camera: NDArray[np.floating] | None) -> bool:
        """Give or take away the pose of a view's optical frame; False if it is no rigid transform."""
        T = np.full((4, 4), np.nan) if T_world_camera is None else np.asarray(T_world_camera, np.float64)
        good = T.shape == (4, 4) and bool(np.isfinite(T).all())
        good = good and np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-4) and np.linalg.det(T[:3, :3]) > 0.0
        self._known[view] = good
        if good:
            self._rot[view] = project_to_rotations(T[:3, :3])
            self._centre[view] = T[:3, 3]
        return bool(good)

    def merge(self, keep: int, drop: int) -> bool:
        """Make two people one, by their ids; False if one of them is unknown (or both are the same).

        Views of `drop` that `keep` lacks are taken over; where both have one, they belong to `keep`'s.
        """
        places = [np.flatnonzero(self._ids == person) for person in (keep, drop)]
        if keep == drop or not all(len(place) for place in places):
            return False
        a, b = int(places[0][0]), int(places[1][0])
        self._take_over(a, b)
        self._bury(self._stamp, np.zeros(0, np.int64))
        return True

    # --- the route ------------------------------------------------------------------------------------------------

    def step(self, stamp_s: float, detections: Detections, looked: Collection[int] | None = None) -> FusedFrame:
        """Fuse what the views saw around `stamp_s`.

        Time must not run backwards by more than a second; then everything is forgotten, as after `reset`.

        Args:
            stamp_s: The moment.
            detections: Of all views.
            looked: The views that had an image, also those that saw nobody; None = those with detections.

        Raises:
            ShapeError: Arrays of the wrong shape (never for bad values).
        """
        started = time.perf_counter()
        detections.check(self.skeleton.num_joints)
        if stamp_s < self._stamp - 1.0:
            self.reset()
        self._stamp = stamp_s
        views = np.asarray(detections.view if looked is None else list(looked), np.int64)
        self._looking = np.zeros(len(self._views), bool)
        self._looking[views[(views >= 0) & (views < len(self._views))]] = True
        status = np.full(len(detections), int(DetectionStatus.UNASSIGNED))
        seen = self._measure(stamp_s, detections, status)
        tracked = time.perf_counter()
        owner = self._associate(stamp_s, seen)
        associated = time.perf_counter()
        self._believe(seen, owner)
        people, residual = self._fuse(stamp_s, seen, owner)
        self._frames += 1
        person = np.full(len(detections), -1)
        person[seen.rows] = np.where(owner >= 0, self._ids[owner] if len(self._ids) else -1, -1)
        status[person >= 0] = int(DetectionStatus.ASSIGNED)
        residuals = np.full(len(detections), np.nan)
        residuals[seen.rows] = residual
        merged, self._merged = tuple(self._merged), []
        fused = time.perf_counter()
        return FusedFrame(stamp_s, people, person, status, residuals, self._depth_fraction, self._cycle_rate,
                          self._ids.copy(), merged, {
                              "tracker": 1e3 * (tracked - started), "association": 1e3 * (associated - tracked),
                              "fusion": 1e3 * (fused - associated)})

    # --- stage 1: detections to world points and tracklets ----------------------------------------------------------

    def _measure(self, stamp_s: float, detections: Detections, status: Index) -> _Measured:
        d, J = detections, self.skeleton.num_joints
        view = np.asarray(d.view, np.int64)
        depth = np.asarray(d.head_camera, np.float64)[:, 2]
        inside = (view >= 0) & (view < len(self._views))
        with np.errstate(invalid="ignore"):
            # One sum per row finds every NaN and infinity of that row.
            total = (d.head_camera.sum(axis=1) + d.pose.sum(axis=(1, 2)) + d.betas.sum(axis=1) + d.score + d.stamp_s)
            if d.token is not None:
                total = total + d.token.sum(axis=1)
            valid = np.isfinite(total) & (depth > 0.05) & (d.score > 0.0) & inside
            fresh = np.abs(d.stamp_s - stamp_s) <= self.config.max_age_s
        usable = valid & fresh
        usable[usable] = self._known[view[usable]]
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
        rot, focal = self._rot[view], self._focal[view]
        point = (rot @ head[:, :, None])[:, :, 0] + self._centre[view]
        lower = self._lower_weights(view, head, rotations[:, 0])
        rotations[:, 0] = rot @ rotations[:, 0]
        sigma_px = self.config.sigma_px * np.maximum(self.config.sure_score / score, 1.0)
        fractions = np.array([[self._depth_fraction], [max(self._depth_fraction, self.config.outlier_depth_fraction)]])
        covariances = ray_covariances(point, self._centre[view], head[:, 2], focal, sigma_px=sigma_px,
                                      depth_fraction=fractions)
        stamp = np.asarray(d.stamp_s, np.float64)
        if d.track_id is not None:
            tracklet = np.asarray(d.track_id, np.int64)
        else:
            tracklet = self._trackers.step(view, stamp, point,
                                           None if d.token is None else np.asarray(d.token, np.float64))[0]
        return _Measured(rows, view, stamp, point, covariances, rotations.reshape(len(rows), J, 9), betas, score,
                         head[:, 2], focal, head, lower, tracklet)

    def _without_duplicates(self, view: Index, head: Array, score: Array, betas: Array,
                            rotations: Array) -> NDArray[np.bool_] | None:
        """Which detections to keep when one person was detected twice in a view; None = all."""
        z = head[:, 2]
        uv = head[:, :2] * (self._focal[view] / z)[:, None]
        length = self._focal[view] * 0.9 / z  # no head is farther from its pelvis than this
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
        local, canonical = self._pose_positions(rotations[involved], betas[involved])
        pelvis = head[involved] - local
        segment = pelvis[:, :2] / np.maximum(pelvis[:, 2:], 0.05) - head[involved, :2] / z[involved, None]
        pixels = np.linalg.norm(segment, axis=1) * self._focal[view[involved]]
        kept = np.ones(len(view), bool)
        place_first, place_second = place[:len(first)], place[len(first):]
        apart = np.sqrt(((canonical[place_first] - canonical[place_second])**2).sum(axis=2)).mean(axis=1)
        same = (distance < 0.25 * np.maximum(pixels[place_first], pixels[place_second])) & (apart < 0.10)
        for i, j in zip(first[same], second[same], strict=True):
            if kept[i] and kept[j]:
                kept[j if score[i] >= score[j] else i] = False
        return None if kept.all() else kept

    def _pose_positions(self, rotations: Array, betas: Array) -> tuple[Array, Array]:
        """Head relative to the pelvis in the frame of the root rotation, and the canonical joints compared."""
        turned = self.skeleton.positions(rotations.reshape(len(rotations), -1, 3, 3), self.skeleton.bones(betas))
        root = rotations.reshape(len(rotations), -1, 3, 3)[:, 0]
        return turned[:, self.skeleton.head], turned[:, :_COMPARED_JOINTS] @ root

    def _lower_weights(self, view: Index, head: Array, root_camera: Array) -> Array:
        pelvis = head - _HEAD_TO_PELVIS_M * root_camera[:, :, 1]
        uv = pelvis[:, :2] / np.maximum(pelvis[:, 2:], 0.05) * self._focal[view][:, None] + self._principal[view]
        return np.asarray(((uv >= self._least_px[view]) & (uv <= self._size[view])).all(axis=1), np.float64)

    # --- stage 2: who is who ----------------------------------------------------------------------------------------

    def _associate(self, stamp_s: float, seen: _Measured) -> Index:
        """(N,) row of the person of each detection, -1 = nobody (A to F of the specification)."""
        self._bury(stamp_s, np.zeros(0, np.int64))
        n, people = len(seen.view), len(self._ids)
        owner = np.full(n, -1)
        if people and n:
            same = (self._bound[:, seen.view] == seen.tracklet) & (seen.tracklet >= 0)
            held = same.any(axis=0)
            bound = held.nonzero()[0]
            if len(bound):
                person = same[:, bound].argmax(axis=0)
                squared = self._distances_squared(seen, bound, person)
                fits = squared.min(axis=0) < self.config.anchor_gate
                owner[bound[fits]] = person[fits]
                seen.distrust_depth(bound[fits & (squared[1] < squared[0])])
                loose = ~fits
                if loose.any():
                    self._bound[person[loose], seen.view[bound[loose]]] = -1
            self._disown(seen, owner)
        free = (owner < 0).nonzero()[0]
        canonical: Array | None = None
        if len(free):
            self._note(seen, free)
            canonical = self._pose_positions(seen.rotations[free], seen.betas[free])[1]
            if people:
                self._adopt(seen, owner, free, canonical)
                left = owner[free] < 0
                free, canonical = free[left], canonical[left]
        self._births(stamp_s, seen, owner, free, canonical)
        self._merge(owner, seen)
        self._bury(stamp_s, owner)
        return owner

    def _predicted(self, person: Index, stamp: Array) -> tuple[Array, Array]:
        """(..., 3) positions at the stamps and (...) variances that are added to them."""
        dt = np.minimum(np.maximum(stamp - self._filters.time[person], -0.5), 0.5)
        position = self._filters.position[person] + dt[..., None] * self._filters.velocity[person]
        elapsed = stamp - self._seen[person]
        return position, (0.02 + 0.5 * elapsed * elapsed)**2

    def _distances_squared(self, seen: _Measured, rows: Index, person: Index) -> Array:
        """(2, ...) to each one's person, taking the depth for good and for an outlier; the likelier one counts.

        Rows and people are broadcast against each other.
        """
        position, noise = self._predicted(person, seen.stamp[rows])
        return self._of_both(seen, rows, self._unbiased(seen, rows, person) - position,
                             self._covariance[person] + noise[..., None, None] * _IDENTITY)

    def _of_both(self, seen: _Measured, rows: Index, offset: Array, covariance: Array) -> Array:
        squared = mahalanobis_squared(offset, seen.covariances[:, rows] + covariance)
        squared[1] += self.config.outlier_penalty
        return squared

    def _disown(self, seen: _Measured, owner: Index) -> None:
        """Let go of the view that contradicts a person's others most, beyond the gate: three views and more.

        A tracklet that slips over to somebody else would drag its person along, and prediction would follow.
        """
        rows = (owner >= 0).nonzero()[0]
        person = owner[rows]
        member = (np.arange(len(self._ids))[:, None] == person).astype(np.float64)
        many = member.sum(axis=1)[person] >= 3
        if not many.any():
            return
        points = self._at_stamp(seen, rows, person)
        local = points - points[member.argmax(axis=1)][person]
        information = invert_symmetric(seen.covariance[rows])[0]
        pulled = (information @ local[..., None])[..., 0]
        others = (member @ information.reshape(-1, 9)).reshape(-1, 3, 3)[person] - information
        covariance = invert_symmetric(others)[0]
        offset = local - (covariance @ ((member @ pulled)[person] - pulled)[..., None])[..., 0]
        squared = np.where(many, self._of_both(seen, rows, offset, covariance).min(axis=0), 0.0)
        of_person = np.where(member > 0.0, squared, 0.0)
        wrong = rows[of_person.argmax(axis=1)[of_person.max(axis=1) > self.config.anchor_gate]]
        self._bound[owner[wrong], seen.view[wrong]] = -1
        owner[wrong] = -1

    def _at_stamp(self, seen: _Measured, rows: Index, person: Index) -> Array:
        """(n, 3) points at the time of this step."""
        points = self._unbiased(seen, rows, person)
        if not self.config.align_time:
            return points
        ahead = np.minimum(np.maximum(self._stamp - seen.stamp[rows], -0.05), 0.05)
        return points + ahead[:, None] * self._filters.velocity[person]

    def _unbiased(self, seen: _Measured, rows: Index, person: Index) -> Array:
        """(..., 3) points with the depth error taken out that the view keeps making about the person."""
        view = seen.view[rows]
        bias = self._bias[person, view]
        if not bias.any():
            return seen.point[rows]
        centre = self._centre[view]
        return centre + (seen.point[rows] - centre) * np.exp(-bias)[..., None]

    def _ray_fits(self, seen: _Measured, row: int, candidates: Index, canonical: Array) -> tuple[int, float]:
        """The candidate on the ray of a detection, and the logarithm of seen over true depth; -1 = none.

        A depth that is wrong beyond its gate must not make a second person of somebody whom other views see.
        """
        if not len(candidates):
            return -1, 0.0
        position, _ = self._predicted(candidates, np.full(len(candidates), seen.stamp[row]))
        own = seen.point[row] - self._centre[seen.view[row]]
        length = float(np.linalg.norm(own))
        offset = position - self._centre[seen.view[row]]
        along = offset @ (own / length)
        beside = np.sqrt(np.maximum((offset * offset).sum(axis=1) - along * along, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = np.where(along > 0.1, np.log(length / np.maximum(along, 0.1)), np.inf)
        pose = np.linalg.norm(self._canonical[candidates] - canonical, axis=2).mean(axis=1)
        beside = np.where((np.abs(bias) < _MAX_BIAS) & (pose < _SAME_POSE_M), beside, np.inf)
        best = int(np.argmin(beside))
        return (int(candidates[best]), float(bias[best])) if beside[best] < _ON_RAY_M else (-1, 0.0)

    def _adopt(self, seen: _Measured, owner: Index, free: Index, canonical: Array) -> None:
        """Unbound detections to people who lack their view, per view by gated assignment."""
        taken = np.zeros((len(self._ids), len(self._views)), bool)
        assigned = owner >= 0
        taken[owner[assigned], seen.view[assigned]] = True
        pose = _pose_distances(canonical, self._canonical)
        odd = np.zeros(pose.shape, bool)
        if self.config.association == "paper":
            cost, gate = self._paper_to_people(seen, free, canonical), self.config.paper_gate_m
        else:
            squared = self._distances_squared(seen, free[:, None], np.arange(len(self._ids)))
            odd = squared[1] < squared[0]
            cost = np.sqrt(squared.min(axis=0) + (pose / self.config.pose_sigma_m)**2)
            gate = self.config.gate
        cost = np.where(taken[:, seen.view[free]].T | self._were_two(seen, free), np.inf, cost)
        possible = (cost < gate).any(axis=1)
        for v in sorted(set(seen.view[free[possible]].tolist())):
            mine = (possible & (seen.view[free] == v)).nonzero()[0]
            for i, person in gated_assignment(cost[mine], gate):
                owner[free[mine[i]]] = person
                self._bound[person, v] = seen.tracklet[free[mine[i]]]
                if odd[mine[i], person]:
                    seen.distrust_depth(free[mine[i]])

    def _note(self, seen: _Measured, free: Index) -> None:
        """When each tracklet that is free now was free before."""
        if len(self._free_seen) > 4096:
            self._free_seen = dict(list(self._free_seen.items())[-2048:])
        self._free_before = np.full(len(seen.view), np.nan)
        for i in free:
            key = int(seen.view[i]), int(seen.tracklet[i])
            self._free_before[i] = self._free_seen.get(key, math.nan)
            self._free_seen[key] = float(seen.stamp[i])

    def _were_two(self, seen: _Measured, free: Index) -> NDArray[np.bool_]:
        """(n, people) pairs that cannot be: the view last saw this tracklet beside the one bound to the person."""
        last = self._bound_seen[:, seen.view[free]].T
        return (self._bound[:, seen.view[free]].T >= 0) & (self._free_before[free, None] == last)

    def _paper_to_people(self, seen: _Measured, free: Index, canonical: Array) -> Array:
        root = seen.rotations[free, 0].reshape(-1, 3, 3)
        head = canonical[:, self.skeleton.head, None]
        joints = seen.point[free, None] + (canonical - head) @ root.transpose(0, 2, 1)
        other_root = self._rotation[:, 0]
        offset = (self._canonical - self._canonical[:, self.skeleton.head, None]) @ other_root.transpose(0, 2, 1)
        position, _ = self._predicted(np.arange(len(self._ids)), np.full(len(self._ids), self._stamp))
        others = position[:, None] + offset
        world = np.linalg.norm(joints[:, None] - others[None], axis=3).mean(axis=2)
        pose = _pose_distances(canonical, self._canonical)
        return self.config.position_weight * world + self.config.pose_weight * pose

    def _pair_costs(self, seen: _Measured, rows: Index, canonical: Array) -> tuple[Array, float]:
        pose = _pose_distances(canonical, canonical)
        if self.config.association == "paper":
            root = seen.rotations[rows, 0].reshape(-1, 3, 3)
            head = canonical[:, self.skeleton.head, None]
            joints = seen.point[rows, None] + (canonical - head) @ root.transpose(0, 2, 1)
            world = np.linalg.norm(joints[:, None] - joints[None], axis=3).mean(axis=2)
            cost = self.config.position_weight * world + self.config.pose_weight * pose
            gate = self.config.paper_gate_m
        else:
            covariance = seen.covariance[rows]
            offset = seen.point[rows, None] - seen.point[rows][None]
            squared = mahalanobis_squared(offset, covariance[:, None] + covariance[None])
            cost, gate = np.sqrt(squared + (pose / self.config.pose_sigma_m)**2), self.config.gate
        skew = np.abs(seen.stamp[rows, None] - seen.stamp[rows][None]) > self.config.max_skew_s
        same = seen.view[rows, None] == seen.view[rows][None]
        return np.where(skew | same, np.inf, cost), gate

    def _births(self, stamp_s: float, seen: _Measured, owner: Index, free: Index, canonical: Array | None) -> None:
        pending: dict[tuple[int, int], int] = {}
        self._cycle_rate = 0.0
        if len(free) and canonical is not None:
            labels = np.arange(len(free))
            if len(free) > 1:
                cost, gate = self._pair_costs(seen, free, canonical)
                labels = agglomerate(seen.view[free], cost, gate)
                if len(free) > 2:
                    self._cycle_rate = cycle_violations(seen.view[free], cost < gate, cost, gate)[1]
            for label in range(int(labels.max()) + 1):
                group = free[labels == label]
                if len(group) == 1:
                    key = (int(seen.view[group[0]]), int(seen.tracklet[group[0]]))
                    pending[key] = self._pending.get(key, 0) + 1
                    if pending[key] >= 3 and self.config.learn_view_bias and self._explain(
                            seen, owner, int(group[0]), canonical[labels == label][0]):
                        continue
                    if pending[key] < self.config.birth_frames:
                        continue
                owner[group] = self._create(stamp_s, seen, group, canonical[labels == label])
        self._pending = pending

    def _explain(self, seen: _Measured, owner: Index, row: int, canonical: Array) -> bool:
        """Give a lonely detection to somebody on its ray whom only other views see now."""
        assigned = owner >= 0
        views = np.zeros((len(self._ids), len(self._views)), bool)
        views[owner[assigned], seen.view[assigned]] = True
        view = seen.view[row]
        candidates = np.flatnonzero(self._confirmed & (views.sum(axis=1) >= 2) & ~views[:, view])
        person, bias = self._ray_fits(seen, row, candidates, canonical)
        if person < 0:
            return False
        owner[row] = person
        self._bound[person, view] = seen.tracklet[row]
        self._bias[person, view] = bias
        return True

    def _create(self, stamp_s: float, seen: _Measured, group: Index, canonical: Array) -> int:
        information = invert_symmetric(seen.covariance[group])[0]
        covariance = invert_symmetric(information.sum(axis=0)[None])[0][0]
        point = covariance @ (information @ seen.point[group][..., None]).sum(axis=0)[:, 0]
        self._filters.add(point, covariance, stamp_s)
        bound = np.full((1, len(self._views)), -1)
        bound[0, seen.view[group]] = seen.tracklet[group]
        J, B = self.skeleton.num_joints, seen.betas.shape[1]
        if self._betas.shape[1] != B:
            self._betas = np.zeros((len(self._ids), B))

        def grown(array: NDArray[Any], row: object) -> NDArray[Any]:
            return np.concatenate([array, np.asarray(row, array.dtype)[None]])

        self._ids = grown(self._ids, self._person_count)
        self._person_count += 1
        self._bound = np.concatenate([self._bound, bound])
        self._bound_seen = grown(self._bound_seen, np.full(len(self._views), stamp_s))
        self._bias = grown(self._bias, np.zeros(len(self._views)))
        self._evidence = np.append(self._evidence, 0.0)
        self._covariance = grown(self._covariance, covariance)
        self._sum = grown(self._sum, np.zeros((J, 9)))
        self._rotation = grown(self._rotation, seen.rotations[group[0]].reshape(J, 3, 3))
        self._canonical = grown(self._canonical, canonical.mean(axis=0))
        self._betas = grown(self._betas, np.zeros(B))
        self._betas_weight = np.append(self._betas_weight, 0.0)
        self._seen = np.append(self._seen, stamp_s)
        self._age = np.append(self._age, 0)
        self._confirmed = np.append(self._confirmed, seen.score[group].mean() >= self.config.confirm_score)
        return len(self._ids) - 1

    def _merge(self, owner: Index, seen: _Measured) -> None:
        """People at one place with disjoint views become one; the older id survives."""
        n = len(self._ids)
        if n < 2:
            return
        position, _ = self._predicted(np.arange(n), np.full(n, self._stamp))
        offset = position[:, None] - position[None]
        near = (offset * offset).sum(axis=2) < 0.36
        views = np.zeros((n, len(self._views)), bool)
        views[owner[owner >= 0], seen.view[owner >= 0]] = True
        agreement: dict[tuple[int, int], int] = {}
        if self.config.learn_view_bias:
            self._move_along_rays(owner, seen, views, agreement)
        for a, b in np.argwhere(np.triu(near, 1)) if np.count_nonzero(near) > n else ():  # each one is near itself
            key = (int(self._ids[a]), int(self._ids[b]))
            squared = mahalanobis_squared(offset[a, b], self._covariance[a] + self._covariance[b])
            agrees = squared < 11.0 and not (views[a] & views[b]).any() and views[a].any() and views[b].any()
            agreement[key] = max(self._agreement.get(key, 0) + (1 if agrees else -1), 0)
            if agreement[key] >= self.config.merge_frames:
                owner[owner == b] = a
                self._take_over(a, b)
        self._agreement = agreement

    def _take_over(self, a: int, b: int) -> None:
        """Row b's views become row a's; b is buried right after."""
        self._bound[a] = np.where(self._bound[a] >= 0, self._bound[a], self._bound[b])
        self._bound[b] = -1
        self._end(a, b)

    def _end(self, a: int, b: int) -> None:
        """Row b was row a all along; it is buried next."""
        self._merged.append((int(self._ids[a]), int(self._ids[b])))
        self._seen[b] = -math.inf

    def _move_along_rays(self, owner: Index, seen: _Measured, views: NDArray[np.bool_],
                         agreement: dict[tuple[int, int], int]) -> None:
        """Detections of people whom one or two views see go to somebody on their ray whom other views see.

        Of one view: it is that person, at a wrong depth. Of two views whom others deny: one detection of that person
        may have met a wrong one of another view, which makes a ghost. Then it decides who exists (`gain_of_moving`),
        and as long as that is open, what is claimed does not speak for the ghost.
        """
        count = views.sum(axis=1)
        self._doubt = {}
        if not (count >= 2).any():
            return
        for b in ((count == 1) | (count == 2)).nonzero()[0]:
            rows = np.flatnonzero(owner == b)
            for row in rows.tolist():
                view = int(seen.view[row])
                candidates = np.flatnonzero((count >= 2) & ~views[:, view] & (self._confirmed | (count > 2)))
                a, bias = self._ray_fits(seen, row, candidates, self._canonical[b])
                if a < 0:
                    continue
                gain = self._gain_of_moving(seen, row, rows[rows != row], int(b), a, views) if len(rows) == 2 else 1.0
                key = (-1 - int(self._ids[b]) * len(self._views) - view, int(self._ids[a]))
                agreement[key] = max(self._agreement.get(key, 0) + (1 if gain > 0.0 else -1), 0)
                if agreement[key] < self.config.merge_frames:
                    continue
                owner[row] = a
                self._bound[a, view], self._bound[b, view] = self._bound[b, view], -1
                self._bias[a, view] = bias
                views[a, view], views[b, view] = True, False
                if len(rows) == 1:
                    self._end(a, int(b))
                count = views.sum(axis=1)
                break

    def _gain_of_moving(self, seen: _Measured, row: int, other: Index, b: int, a: int,
                        views: NDArray[np.bool_]) -> float:
        """Of a detection of b, whom one other view sees, to a; notes what of it does not speak for b."""
        view, miss = seen.view[row], self.config.miss_evidence
        denials = int(self._missed(views)[b].sum())
        if not denials:
            return -math.inf
        without = views.copy()
        without[b] = False
        far = np.linalg.norm(self._filters.position[[a, b]] - self._centre[view], axis=1)
        in_front = bool(far[1] < far[0] + IN_FRONT_M)
        moved, kept = evidence_of_scores(seen.score[[row, int(other[0])]])
        gain = gain_of_moving(moved, kept, denials, bool(self._missed(without)[a, view]), in_front, miss)
        if gain > 0.0:
            self._doubt[int(self._ids[b])] = moved + miss * in_front
        return gain

    def _bury(self, stamp_s: float, owner: Index) -> None:
        if not len(self._ids):
            return
        # Somebody never confirmed was most likely nobody.
        soonest = min(0.5, self.config.death_s)
        if stamp_s - self._seen.min() <= soonest:
            return
        limit = np.where(self._confirmed, self.config.death_s, soonest)
        alive = stamp_s - self._seen <= limit
        alive[owner[owner >= 0]] = True
        if alive.all():
            return
        self._filters.keep(alive)
        for name in ("_ids", "_bound", "_bound_seen", "_bias", "_evidence", "_covariance", "_sum", "_rotation",
                     "_canonical", "_betas", "_betas_weight", "_seen", "_age", "_confirmed"):
            setattr(self, name, getattr(self, name)[alive])
        renumbered = np.cumsum(alive) - 1
        owner[owner >= 0] = renumbered[owner[owner >= 0]]

    def _missed(self, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(P, V) who should be seen by a view that looks, and is not, given who is seen by which view."""
        should = should_be_seen(self._filters.position, seen, self._rot, self._centre, self._focal, self._principal,
                                self._inner_px)
        return should & ~seen & self._looking & self._known

    def _believe(self, seen: _Measured, owner: Index) -> None:
        if not len(self._ids):
            return
        used = (owner >= 0).nonzero()[0]
        gain = np.zeros((len(self._ids), len(self._views)))
        gain[owner[used], seen.view[used]] = evidence_of_scores(seen.score[used])
        hit = np.zeros(gain.shape, bool)
        hit[owner[used], seen.view[used]] = True
        change = gain.sum(axis=1) - self.config.miss_evidence * self._missed(hit).sum(axis=1)
        for person, claimed in self._doubt.items():
            change[self._ids == person] -= claimed
        self._evidence = np.minimum(np.maximum(self._evidence + change, LEAST_EVIDENCE), MOST_EVIDENCE)

    # --- stage 3: one body per person -------------------------------------------------------------------------------

    def _fuse(self, stamp_s: float, seen: _Measured, owner: Index) -> tuple[FusedPeople, Array]:
        rows = (owner >= 0).nonzero()[0]
        residual = np.full(len(owner), np.nan)
        active = np.bincount(owner[rows]).nonzero()[0]
        person = active.searchsorted(owner[rows])  # place of each used detection among the active people
        member = (np.arange(len(active))[:, None] == person).astype(np.float64)  # (people, detections)
        views = member.sum(axis=1).astype(np.int64)
        self._bound_seen[owner[rows], seen.view[rows]] = seen.stamp[rows]
        status = np.where(views == 1, int(PersonStatus.SINGLE_VIEW), 0)

        head, covariance = self._fuse_heads(seen, rows, active, person, member, views, status)
        rotation, quality = self._fuse_rotations(seen, rows, active, person, member, views, status)
        betas = self._fuse_betas(seen, rows, active, member)

        turned = self.skeleton.positions(rotation, self.skeleton.bones(betas))
        self._canonical[active] = turned[:, :_COMPARED_JOINTS] @ rotation[:, 0]
        if len(active):
            self._filters.update(active, stamp_s, head, self.config.position_correlation * covariance)
        self._covariance[active] = covariance
        self._seen[active] = stamp_s
        self._age[active] += 1
        self._confirmed[active] |= self._age[active] >= 3
        if len(rows):
            ray = seen.point[rows] - self._centre[seen.view[rows]]
            ray = ray / np.sqrt((ray * ray).sum(axis=1, keepdims=True))
            offset = head[person] - self._centre[seen.view[rows]]
            along = (offset * ray).sum(axis=1)
            residual[rows] = np.sqrt(np.maximum((offset * offset).sum(axis=1) - along * along, 0.0))
            self._learn_depth(seen, rows, active, person, views, head, covariance)
        if self.config.smooth_position and len(active):
            # Sharp points need no filter (it would only lag); blunt ones, mostly in depth, do.
            blunt = np.sqrt(covariance.reshape(-1, 9)[:, ::4].sum(axis=1))
            share = np.minimum(np.maximum((blunt - _SHARP_M) / _SHARP_M, 0.0), 1.0)[:, None]
            head = (1.0 - share) * head + share * self._filters.position[active]
        joints = turned + (head - turned[:, self.skeleton.head])[:, None]

        shown = ((views >= 2) & self._confirmed[active]) | (self._age[active] > self.config.birth_frames)
        shown &= self._evidence[active] > 0.0
        score = (member @ seen.score[rows]) / np.maximum(views, 1)
        people = FusedPeople(
            self._ids[active][shown], joints[shown], head[shown],
            self.config.covariance_inflation * covariance[shown], rotation[shown], betas[shown],
            self._filters.velocity[active][shown], score[shown], quality[shown], views[shown],
            self._age[active][shown], status[shown])
        return people, residual

    def _fuse_heads(self, seen: _Measured, rows: Index, active: Index, person: Index, member: Array, views: Index,
                    status: Index) -> tuple[Array, Array]:
        """(A, 3) heads at the stamp and (A, 3, 3) covariances."""
        A = len(active)
        if not A:
            return np.zeros((0, 3)), np.zeros((0, 3, 3))
        points = self._at_stamp(seen, rows, active[person])
        # Around one of each person's own points: world coordinates may be large.
        base = points[member.argmax(axis=1)]
        local = points - base[person]
        information = invert_symmetric(seen.covariance[rows])[0]
        pulled = (information @ local[..., None])[..., 0]
        weight = np.ones(len(rows))
        robust = (views[person] >= 3) & self.config.robust
        for k in range(5 if robust.any() else 1):
            weighted = member * weight
            total = (weighted @ information.reshape(-1, 9)).reshape(A, 3, 3)
            covariance = invert_symmetric(total)[0]
            head = (covariance @ (weighted @ pulled)[..., None])[..., 0]
            if k == 4:
                break
            offset = local - head[person]
            distance = np.sqrt(((information @ offset[..., None])[..., 0] * offset).sum(axis=1))
            before = weight
            weight = np.where(robust, np.minimum(1.0, 2.5 / np.maximum(distance, 1e-9)), 1.0)
            if (weight == before).all():  # mostly nobody is off: nothing would change any more
                break
        head = head + base
        if self.config.position != "map":
            self._other_heads(seen, rows, points, person, member, status, head)
        elif (views == 2).any():
            # Two views that look along one line: depth decides, and who reads the result should know.
            ray = seen.point[rows] - self._centre[seen.view[rows]]
            ray /= np.linalg.norm(ray, axis=1, keepdims=True)
            for a in np.flatnonzero(views == 2):
                first, second = np.flatnonzero(person == a)
                if 0.5 * (1.0 - abs(float(ray[first] @ ray[second]))) < self.config.min_condition:
                    status[a] |= int(PersonStatus.PARALLEL_RAYS)
        return head, covariance

    def _other_heads(self, seen: _Measured, rows: Index, points: Array, person: Index, member: Array, status: Index,
                     head: Array) -> None:
        for a in range(len(member)):
            mine = np.flatnonzero(person == a)
            if self.config.position == "mean":
                head[a] = np.average(points[mine], axis=0, weights=seen.score[rows[mine]])
                continue
            centre = self._centre[seen.view[rows[mine]]]
            direction = points[mine] - centre
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            result = triangulate(centre, direction, seen.score[rows[mine]] / seen.depth[rows[mine]]**2,
                                 points=points[mine], covariances=seen.covariance[rows[mine]],
                                 depth_sigmas=self._depth_fraction * seen.depth[rows[mine]],
                                 max_residual_m=MAX_RESIDUAL_M if self.config.robust else math.inf,
                                 min_condition=self.config.min_condition)
            if result.status == 1:
                status[a] |= int(PersonStatus.PARALLEL_RAYS)
            if np.isfinite(result.point).all():
                head[a] = result.point

    def _fuse_rotations(self, seen: _Measured, rows: Index, active: Index, person: Index, member: Array,
                        views: Index, status: Index) -> tuple[Array, Array]:
        """(A, J, 3, 3) rotations and (A,) agreement of the root rotations."""
        A, J = len(active), self.skeleton.num_joints
        if not A:
            return np.zeros((0, J, 3, 3)), np.zeros(0)
        rotations = seen.rotations[rows]
        weight = seen.score[rows]
        if (views >= 3).any():
            weight = without_flips(rotations[:, 0], weight, person, member, views, status)
        weighted = member * weight
        total = (weighted @ rotations.reshape(len(rows), -1)).reshape(A, J, 9)
        lower = seen.lower_weight[rows]
        if not lower.all():
            joints = np.array([j for j in _LOWER_BODY if j < J])
            seen_lower = ((member * (weight * lower)) @ rotations[:, joints].reshape(len(rows), -1)).reshape(
                A, len(joints), 9)
            visible = (member * (weight * lower)).sum(axis=1) > 0.0
            # Nobody sees the legs: what was known stays, else the guess is better than nothing.
            known = self._age[active] > 0
            total[:, joints] = np.where((visible | known)[:, None, None], seen_lower, total[:, joints])
        if self.config.pose == "median" and (views >= 3).any():
            median_rotations(rotations, weight, person, views, total)
        mass = np.maximum(weighted.sum(axis=1), 1e-9)
        share = np.minimum(self.config.smoothing * np.sqrt(4.0 / views), 0.6)
        share = np.where(self._stamp - self._seen[active] > _POSE_MEMORY_S, 0.0, share)
        before = share[:, None, None] * self._sum[active]
        # What is shown, and the root of this step alone, by which its views are judged.
        projected = project_to_rotations(np.concatenate([total + before, total[:, :1]], axis=1).reshape(A, -1, 3, 3))
        rotation = projected[:, :J]
        quality = 0.25 * (1.0 + (projected[:, J].reshape(A, 9) * total[:, 0]).sum(axis=1) / mass)
        wide = quality < 0.90
        if wide.any():
            settle_wide(rotations, weight, person, wide, self._age[active] > 0, self._rotation[active, 0], total,
                        status)
            rotation[:, 0] = project_to_rotations((total[:, 0] + before[:, 0]).reshape(A, 3, 3))
        self._sum[active] = total + before
        if self.config.smoothing == 0.0 and (views == 1).any():  # exactly what the view said, not its projection
            rotation[views == 1] = rotations[member[views == 1].argmax(axis=1)].reshape(-1, J, 3, 3)
        self._rotation[active] = rotation
        return rotation, quality

    def _fuse_betas(self, seen: _Measured, rows: Index, active: Index, member: Array) -> Array:
        if not len(active):
            return np.zeros((0, seen.betas.shape[1]))
        weighted = member * seen.score[rows]
        mass = weighted.sum(axis=1)
        total = weighted @ seen.betas[rows]
        if not self.config.average_betas:
            return np.clip(total / mass[:, None], -5.0, 5.0)
        if self.config.betas == "median":
            return self._median_betas(seen, rows, active, member, total / mass[:, None])
        before = self._betas_weight[active]
        after = before + mass
        betas = (self._betas[active] * before[:, None] + total) / after[:, None]
        self._betas[active] = betas
        self._betas_weight[active] = np.minimum(after, 300.0)
        return np.minimum(np.maximum(betas, -5.0), 5.0)

    def _median_betas(self, seen: _Measured, rows: Index, active: Index, member: Array, mean: Array) -> Array:
        for a, person in enumerate(active):
            kept = self._betas_seen.setdefault(int(self._ids[person]), collections.deque(maxlen=_BETAS_KEPT))
            kept.extend(seen.betas[rows[member[a] > 0.0]])
            now = np.median(np.stack(kept), axis=0) if len(kept) >= 5 else mean[a]
            known = self._betas_weight[person] > 0.0
            self._betas[person] = 0.95 * self._betas[person] + 0.05 * now if known else now
            self._betas_weight[person] = float(len(kept) >= 5)
        alive = set(self._ids.tolist())
        self._betas_seen = {person: kept for person, kept in self._betas_seen.items() if person in alive}
        return np.clip(self._betas[active], -5.0, 5.0)

    def _learn_depth(self, seen: _Measured, rows: Index, active: Index, person: Index, views: Index, head: Array,
                     covariance: Array) -> None:
        view = seen.view[rows]
        axis = self._rot[view][:, :, 2]
        true = np.maximum((axis * (head[person] - self._centre[view])).sum(axis=1), 0.1)
        if self.config.learn_view_bias:
            spread = np.sqrt(np.maximum((axis * (covariance[person] @ axis[..., None])[..., 0]).sum(axis=1), 0.0))
            owner = active[person]
            before = self._bias[owner, view]
            step = np.log(seen.depth[rows] / true) - before
            sure = (spread < _SURE_DEPTH * true) & (np.abs(step) < _MAX_BIAS)
            after = np.minimum(np.maximum(before + self.config.view_bias_rate * step, -_MAX_BIAS), _MAX_BIAS)
            self._bias[owner[sure], view[sure]] = after[sure]
        if not self.config.adapt_depth_fraction or self.config.association == "rays":
            return
        good = views[person] >= 3
        if good.any():
            error = np.abs(seen.depth[rows] - true)[good] / true[good]
            place = (self._depth_samples + np.arange(len(error))) % len(self._depth_errors)
            self._depth_errors[place] = error
            self._depth_samples += len(error)
        if self._depth_samples >= 100 and (self._frames < 15 or self._frames % 15 == 0):
            recent = self._depth_errors[:min(self._depth_samples, len(self._depth_errors))]
            self._depth_fraction = 1.2 * min(max(1.4826 * float(np.median(recent)), 0.02), 0.25)


def _pose_distances(first: Array, second: Array) -> Array:
    """(n, J, 3) and (m, J, 3) joints of bodies turned alike -> (n, m) mean distances of the joints."""
    offset = first[:, None] - second
    return np.asarray(np.sqrt((offset * offset).sum(axis=3)).mean(axis=2))
