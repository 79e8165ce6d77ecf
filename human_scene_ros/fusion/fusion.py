"""The route: detections of all views around one moment in, one set of people in the world frame out.

`Fusion.step` tracks people per view, ties the views' tracks to global people (track-anchored association),
and fuses each person: head by maximum a posteriori over the views' rays and depths, rotations by a smoothed
chordal mean, betas by a running mean. It knows nothing of ROS, topics or messages, and it never raises on
bad numbers: such detections are marked and left out.

Frames: detections are in their camera's optical frame, results in the world frame of the extrinsics.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.association import MAX_BIAS, Association
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.existence import LEAST_EVIDENCE, MOST_EVIDENCE, evidence_of_scores
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.matrices import invert_symmetric
from human_scene_ros.fusion.measure import COMPARED_JOINTS, Measured, Measurement
from human_scene_ros.fusion.people import People
from human_scene_ros.fusion.rig import Rig
from human_scene_ros.fusion.rotations import project_to_rotations
from human_scene_ros.fusion.triangulation import MAX_RESIDUAL_M, TriangulationStatus, triangulate
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

_LOWER_BODY = (1, 2, 4, 5, 7, 8, 10, 11)
_SHARP_M = 0.09
_BETAS_KEPT = 300
_POSE_MEMORY_S = 0.2  # the pose from before a longer gap says nothing about now
_SURE_DEPTH = 0.03  # a fused point so well known along the ray can teach the view its error
_BLIND_DEPTH = 1.0  # a standard deviation of all the depth leaves a ray


class Fusion:
    """People of a rig of cameras over time.

    Args:
        skeleton: Joints and bones that the poses belong to.
        views: The cameras, in the order of `Detections.view`.
        config: Settings.
    """

    def __init__(self, skeleton: Skeleton, views: Sequence[View], config: FusionConfig | None = None) -> None:
        self._config = config or FusionConfig()
        self.skeleton = skeleton
        self._rig = Rig(views)
        self._next_id = 0
        self.reset()

    @property
    def config(self) -> FusionConfig:
        """Settings; new ones hold from the next step on, people stay."""
        return self._config

    @config.setter
    def config(self, config: FusionConfig) -> None:
        self._config = self._measurement.config = self._association.config = config

    def reset(self) -> None:
        """Forget all people and all that was learned of the depths; ids go on counting."""
        self._people = People(len(self._rig), self.skeleton.num_joints)
        self._measurement = Measurement(self.skeleton, self._rig, self.config)
        self._association = Association(self.skeleton, self._rig, self._people, self.config, self._next_id)
        self._betas_seen: dict[int, collections.deque[Array]] = {}  # person -> last detections, for the median
        self._frames = 0
        self._depth_fraction = _BLIND_DEPTH if self.config.association == "rays" else self.config.depth_fraction
        self._depth_errors = np.zeros(300 * max(len(self._rig), 1))
        self._depth_samples = 0
        self._stamp_s = -math.inf

    def set_camera(self, index: int, view: View) -> None:
        """Give a view other intrinsics; its pose stays."""
        self._rig.set_camera(index, view)

    def set_extrinsics(self, view: int, T_world_camera: NDArray[np.floating] | None) -> bool:
        """Give or take away the pose of a view's optical frame; False if it is no rigid transform."""
        return self._rig.set_extrinsics(view, T_world_camera)

    def merge(self, keep: int, drop: int) -> bool:
        """Make two people one, by their ids; False if one of them is unknown (or both are the same).

        Views of `drop` that `keep` lacks are taken over; where both have one, they belong to `keep`'s.
        """
        places = [np.flatnonzero(self._people.ids == person) for person in (keep, drop)]
        if keep == drop or not all(len(place) for place in places):
            return False
        self._association.merge(int(places[0][0]), int(places[1][0]))
        self._association.bury(self._stamp_s, np.zeros(0, np.int64))
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
        if stamp_s < self._stamp_s - 1.0:
            self.reset()
        self._stamp_s = stamp_s
        self._rig.look(np.asarray(detections.view if looked is None else list(looked), np.int64))
        status = np.full(len(detections), int(DetectionStatus.UNASSIGNED))
        seen = self._measurement.step(stamp_s, detections, self._depth_fraction, status)
        tracked = time.perf_counter()
        owner = self._association.step(stamp_s, seen)
        self._next_id = self._association.next_id
        associated = time.perf_counter()
        self._believe(seen, owner)
        people, residual = self._fuse(stamp_s, seen, owner)
        self._frames += 1
        person = np.full(len(detections), -1)
        person[seen.rows] = np.where(owner >= 0, self._people.ids[owner] if len(self._people) else -1, -1)
        status[person >= 0] = int(DetectionStatus.ASSIGNED)
        residuals = np.full(len(detections), np.nan)
        residuals[seen.rows] = residual
        fused = time.perf_counter()
        return FusedFrame(stamp_s, people, person, status, residuals, self._depth_fraction,
                          self._association.cycle_rate, self._people.ids.copy(), self._association.take_merged(), {
                              "tracker": 1e3 * (tracked - started), "association": 1e3 * (associated - tracked),
                              "fusion": 1e3 * (fused - associated)})

    # --- one body per person ----------------------------------------------------------------------------------------

    def _believe(self, seen: Measured, owner: Index) -> None:
        people = self._people
        if not len(people):
            return
        used = (owner >= 0).nonzero()[0]
        gain = np.zeros((len(people), len(self._rig)))
        gain[owner[used], seen.view[used]] = evidence_of_scores(seen.score[used])
        hit = np.zeros(gain.shape, bool)
        hit[owner[used], seen.view[used]] = True
        denials = self._rig.missed(people.filters.position, hit).sum(axis=1)
        change = gain.sum(axis=1) - self.config.miss_evidence * denials
        for person, claimed in self._association.doubt.items():
            change[people.ids == person] -= claimed
        people.evidence = np.minimum(np.maximum(people.evidence + change, LEAST_EVIDENCE), MOST_EVIDENCE)

    def _fuse(self, stamp_s: float, seen: Measured, owner: Index) -> tuple[FusedPeople, Array]:
        people = self._people
        rows = (owner >= 0).nonzero()[0]
        residual = np.full(len(owner), np.nan)
        active = np.bincount(owner[rows]).nonzero()[0]
        person = active.searchsorted(owner[rows])  # place of each used detection among the active people
        member = (np.arange(len(active))[:, None] == person).astype(np.float64)  # (people, detections)
        views = member.sum(axis=1).astype(np.int64)
        people.bound_seen[owner[rows], seen.view[rows]] = seen.stamp[rows]
        status = np.where(views == 1, int(PersonStatus.SINGLE_VIEW), 0)

        head, covariance = self._fuse_heads(seen, rows, active, person, member, views, status)
        rotation, quality = self._fuse_rotations(seen, rows, active, person, member, views, status)
        betas = self._fuse_betas(seen, rows, active, member)

        turned = self.skeleton.positions(rotation, self.skeleton.bones(betas))
        people.canonical[active] = turned[:, :COMPARED_JOINTS] @ rotation[:, 0]
        if len(active):
            people.filters.update(active, stamp_s, head, self.config.position_correlation * covariance)
        people.covariance[active] = covariance
        people.seen[active] = stamp_s
        people.age[active] += 1
        people.confirmed[active] |= people.age[active] >= 3
        if len(rows):
            ray = seen.point[rows] - seen.centre[rows]
            ray = ray / np.sqrt((ray * ray).sum(axis=1, keepdims=True))
            offset = head[person] - seen.centre[rows]
            along = (offset * ray).sum(axis=1)
            residual[rows] = np.sqrt(np.maximum((offset * offset).sum(axis=1) - along * along, 0.0))
            self._learn_depth(seen, rows, active, person, views, head, covariance)
        if self.config.smooth_position and len(active):
            # Sharp points need no filter (it would only lag); blunt ones, mostly in depth, do.
            blunt = np.sqrt(covariance.reshape(-1, 9)[:, ::4].sum(axis=1))
            share = np.minimum(np.maximum((blunt - _SHARP_M) / _SHARP_M, 0.0), 1.0)[:, None]
            head = (1.0 - share) * head + share * people.filters.position[active]
        joints = turned + (head - turned[:, self.skeleton.head])[:, None]

        shown = ((views >= 2) & people.confirmed[active]) | (people.age[active] > self.config.birth_frames)
        shown &= people.evidence[active] > 0.0
        score = (member @ seen.score[rows]) / np.maximum(views, 1)
        result = FusedPeople(
            people.ids[active][shown], joints[shown], head[shown],
            self.config.covariance_inflation * covariance[shown], rotation[shown], betas[shown],
            people.filters.velocity[active][shown], score[shown], quality[shown], views[shown],
            people.age[active][shown], status[shown])
        return result, residual

    def _fuse_heads(self, seen: Measured, rows: Index, active: Index, person: Index, member: Array, views: Index,
                    status: Index) -> tuple[Array, Array]:
        """(A, 3) heads at the stamp and (A, 3, 3) covariances."""
        A = len(active)
        if not A:
            return np.zeros((0, 3)), np.zeros((0, 3, 3))
        points = self._association.points(seen, rows, active[person])
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
        else:
            # Views that look along one line: depth decides, and who reads the result should know.
            ray = points - seen.centre[rows]
            ray /= np.sqrt((ray * ray).sum(axis=1, keepdims=True))
            first = ray[member.argmax(axis=1)][person]
            alike = (member @ (ray * first).sum(axis=1)**2) / views
            for a in ((views >= 2) & (1.0 - alike < 2 * (1 + views) * self.config.min_condition)).nonzero()[0]:
                mine = ray[person == a]
                if 1.0 - np.linalg.eigvalsh(mine.T @ mine)[2] / len(mine) < self.config.min_condition:
                    status[a] |= int(PersonStatus.PARALLEL_RAYS)
        return head, covariance

    def _other_heads(self, seen: Measured, rows: Index, points: Array, person: Index, member: Array, status: Index,
                     head: Array) -> None:
        for a in range(len(member)):
            mine = np.flatnonzero(person == a)
            if self.config.position == "mean":
                head[a] = np.average(points[mine], axis=0, weights=seen.score[rows[mine]])
                continue
            centre = seen.centre[rows[mine]]
            direction = points[mine] - centre
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            result = triangulate(centre, direction, seen.score[rows[mine]] / seen.depth[rows[mine]]**2,
                                 points=points[mine], covariances=seen.covariance[rows[mine]],
                                 depth_sigmas=self._depth_fraction * seen.depth[rows[mine]],
                                 max_residual_m=MAX_RESIDUAL_M if self.config.robust else math.inf,
                                 min_condition=self.config.min_condition)
            if result.status is TriangulationStatus.PARALLEL:
                status[a] |= int(PersonStatus.PARALLEL_RAYS)
            elif result.status in (TriangulationStatus.BEHIND, TriangulationStatus.FAR_FROM_VIEWS):
                status[a] |= int(PersonStatus.RAYS_REJECTED)
            if np.isfinite(result.point).all():
                head[a] = result.point

    def _fuse_rotations(self, seen: Measured, rows: Index, active: Index, person: Index, member: Array,
                        views: Index, status: Index) -> tuple[Array, Array]:
        """(A, J, 3, 3) rotations and (A,) agreement of the root rotations."""
        people = self._people
        A, J = len(active), self.skeleton.num_joints
        if not A:
            return np.zeros((0, J, 3, 3)), np.zeros(0)
        rotations = seen.rotations[rows]
        weight = seen.score[rows]
        if (views >= 3).any():
            weight = without_flips(rotations[:, 0], weight, person, member, views, status)
        weighted = member * weight
        total = (weighted @ rotations.reshape(len(rows), -1)).reshape(A, J, 9)
        share = np.minimum(self.config.smoothing * np.sqrt(4.0 / views), 0.6)
        share = np.where(self._stamp_s - people.seen[active] > _POSE_MEMORY_S, 0.0, share)
        before = share[:, None, None] * people.rotation_sum[active]
        lower = seen.lower_weight[rows]
        if not lower.all():
            joints = np.array([j for j in _LOWER_BODY if j < J])
            seen_lower = ((member * (weight * lower)) @ rotations[:, joints].reshape(len(rows), -1)).reshape(
                A, len(joints), 9)
            visible = (member * (weight * lower)).sum(axis=1) > 0.0
            # Nobody sees the legs: what was known stays, else the guess is better than nothing.
            stale = ~visible & (people.age[active] > 0)
            total[:, joints] = np.where((visible | stale)[:, None, None], seen_lower, total[:, joints])
            before[np.ix_(stale, joints)] = people.rotation_sum[active[stale]][:, joints]
            status[stale] |= int(PersonStatus.STALE_LIMBS)
        if self.config.pose == "median" and (views >= 3).any():
            median_rotations(rotations, weight, person, views, total)
        mass = np.maximum(weighted.sum(axis=1), 1e-9)
        # What is shown, and the root of this step alone, by which its views are judged.
        projected = project_to_rotations(np.concatenate([total + before, total[:, :1]], axis=1).reshape(A, -1, 3, 3))
        rotation = projected[:, :J]
        quality = 0.25 * (1.0 + (projected[:, J].reshape(A, 9) * total[:, 0]).sum(axis=1) / mass)
        wide = quality < 0.90
        if wide.any():
            settle_wide(rotations, weight, person, wide, people.age[active] > 0, people.rotation[active, 0], total,
                        status)
            rotation[:, 0] = project_to_rotations((total[:, 0] + before[:, 0]).reshape(A, 3, 3))
        people.rotation_sum[active] = total + before
        if self.config.smoothing == 0.0 and (views == 1).any():  # exactly what the view said, not its projection
            rotation[views == 1] = rotations[member[views == 1].argmax(axis=1)].reshape(-1, J, 3, 3)
        people.rotation[active] = rotation
        return rotation, quality

    def _fuse_betas(self, seen: Measured, rows: Index, active: Index, member: Array) -> Array:
        people = self._people
        if not len(active):
            return np.zeros((0, seen.betas.shape[1]))
        weighted = member * seen.score[rows]
        mass = weighted.sum(axis=1)
        total = weighted @ seen.betas[rows]
        if not self.config.average_betas:
            return np.clip(total / mass[:, None], -5.0, 5.0)
        if self.config.betas == "median":
            return self._median_betas(seen, rows, active, member, total / mass[:, None])
        before = people.betas_weight[active]
        after = before + mass
        betas = (people.betas[active] * before[:, None] + total) / after[:, None]
        people.betas[active] = betas
        people.betas_weight[active] = np.minimum(after, 300.0)
        return np.minimum(np.maximum(betas, -5.0), 5.0)

    def _median_betas(self, seen: Measured, rows: Index, active: Index, member: Array, mean: Array) -> Array:
        people = self._people
        for a, person in enumerate(active):
            kept = self._betas_seen.setdefault(int(people.ids[person]), collections.deque(maxlen=_BETAS_KEPT))
            kept.extend(seen.betas[rows[member[a] > 0.0]])
            now = np.median(np.stack(kept), axis=0) if len(kept) >= 5 else mean[a]
            known = people.betas_weight[person] > 0.0
            people.betas[person] = 0.95 * people.betas[person] + 0.05 * now if known else now
            people.betas_weight[person] = float(len(kept) >= 5)
        alive = set(people.ids.tolist())
        self._betas_seen = {person: kept for person, kept in self._betas_seen.items() if person in alive}
        return np.clip(people.betas[active], -5.0, 5.0)

    def _learn_depth(self, seen: Measured, rows: Index, active: Index, person: Index, views: Index, head: Array,
                     covariance: Array) -> None:
        view = seen.view[rows]
        axis = self._rig.rot_world_camera[view][:, :, 2]
        true = np.maximum((axis * (head[person] - seen.centre[rows])).sum(axis=1), 0.1)
        if self.config.learn_view_bias:
            spread = np.sqrt(np.maximum((axis * (covariance[person] @ axis[..., None])[..., 0]).sum(axis=1), 0.0))
            owner = active[person]
            before = self._people.bias[owner, view]
            step = np.log(seen.depth[rows] / true) - before
            sure = (spread < _SURE_DEPTH * true) & (np.abs(step) < MAX_BIAS)
            after = np.minimum(np.maximum(before + self.config.view_bias_rate * step, -MAX_BIAS), MAX_BIAS)
            self._people.bias[owner[sure], view[sure]] = after[sure]
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
