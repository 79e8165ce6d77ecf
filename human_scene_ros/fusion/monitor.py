"""Does every camera still stand where its pose says, and does its clock agree? Asked of the people themselves.

A view's ray to a head misses the head that the other views agree on by a little. The median miss over the last
samples says how well the pose fits; a miss that grows along the direction of walking says that the clock is off.
A camera that was bumped misses everybody in the way that one small motion of it explains; a network that sees badly
misses here so and there otherwise. How far away all views see somebody over how far away one does is the scale of its
bodies: wrong by as much as its focal length is, or as its network misjudges people's size. What rays cannot tell: of
two cameras, or of two that face each other, which one was bumped.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.types import Detections, DetectionStatus, FusedFrame

Array = NDArray[np.float64]

REACH_M = 1.0
"""A ray that nobody was tied to is compared with the nearest person of other views within this distance."""
_MIN_SAMPLES = 30
_RECENT = 300  # samples of the residual: a bump should be noticed within seconds
_CORRELATED = 10.0  # so many samples in a row share their error
_PLACE_M, _MIN_PLACES = 0.5, 6  # two lasting misses at a place; fewer places fit any motion of six unknowns too well
_TURN_ARM_M = 3.0  # a turn of 1 rad weighs as much as a shift of so many metres
_MAX_OFFSET_SIGMA_S = 0.008
_MIN_MOTION_M2_S2 = 2.0  # sum of squared speeds across the rays


@dataclasses.dataclass(frozen=True)
class ViewAgreement:
    """What the people say about one view.

    Args:
        samples: Rays behind the numbers.
        residual_m: Median distance of the rays from the heads that the other views see; NaN below 30 samples.
        time_offset_s: To be added to the view's stamps; NaN where people move too little to tell.
        distance_ratio: Distance of the people as all views see them over the view's own, median; NaN below 30 samples.
        explained: Share of the residual that one small motion of the camera would take away; NaN where people keep
            to few places, so that nobody can tell.
    """

    samples: int
    residual_m: float
    time_offset_s: float
    distance_ratio: float = float("nan")
    explained: float = float("nan")

    def moved(self, limit_m: float) -> bool:
        """Whether the camera stands elsewhere: its rays miss by more than the limit, and as a moved camera's would."""
        return self.residual_m > limit_m and self.explained > 0.5


class RigMonitor:
    """Keeps the last misses of every view.

    Args:
        views: V.
        window: Samples kept per view; a person seen at 30 Hz gives 1800 a minute.
    """

    def __init__(self, views: int, window: int = 3000) -> None:
        self._samples = np.full((views, window, 4, 3), np.nan)  # ray, miss, velocity across the ray, arm
        self._ratios = np.full((views, window), np.nan)
        self._count = np.zeros(views, np.int64)

    def reset(self, view: int | None = None) -> None:
        """Forget one view's samples (it was calibrated), or all."""
        chosen = slice(None) if view is None else slice(view, view + 1)
        self._count[chosen] = 0

    def add(self, frame: FusedFrame, detections: Detections, T_world_camera: NDArray[np.floating]) -> None:
        """Take one step of the fusion.

        Args:
            frame: Its result.
            detections: Its input.
            T_world_camera: (V, 4, 4) the poses used; NaN where unknown.
        """
        people = frame.people
        asked = np.flatnonzero((frame.detection_status == int(DetectionStatus.ASSIGNED))
                               | (frame.detection_status == int(DetectionStatus.UNASSIGNED)))
        if not len(people) or not len(asked):
            return
        view = detections.view[asked]
        ray = (T_world_camera[view, :3, :3] @ detections.head_camera[asked, :, None])[..., 0]
        ray = ray / np.linalg.norm(ray, axis=1, keepdims=True)
        ahead = (detections.stamp_s[asked] - frame.stamp_s)[:, None, None] * people.velocity_world[None]
        offset = T_world_camera[view, :3, 3][:, None] - (people.head_world[None] + ahead)  # (n, P, 3)
        miss = offset - (offset @ ray[:, :, None]) * ray[:, None]
        distance = np.linalg.norm(miss, axis=2)

        own = frame.detection_person[asked][:, None] == people.person_id[None]
        has_view = np.zeros((len(T_world_camera), len(people)), bool)
        row, person = np.nonzero(own)
        has_view[view[row], person] = True
        # Tied to somebody on whom two others agree: that is the one. Two rays alone nearly meet wherever one of them
        # was turned sideways, so they say something only where there are no more cameras.
        working = int(np.isfinite(T_world_camera[:, 0, 0]).sum())
        shared = own & (people.num_views[None] >= min(3, working))
        reachable = ~has_view[view] & (people.num_views[None] >= 2) & (distance < REACH_M)
        reachable &= ~shared.any(axis=1, keepdims=True)
        choice = np.where(shared, -1.0, np.where(reachable, distance, np.inf))
        used = np.flatnonzero(np.isfinite(choice.min(axis=1)))
        best = choice[used].argmin(axis=1)
        # The view itself pulled the head towards its ray: what the others say is farther away by n / (n - 1).
        factor = np.where(shared[used, best], people.num_views[best] / np.maximum(people.num_views[best] - 1.0, 1.0),
                          1.0)
        velocity = people.velocity_world[best]
        velocity = velocity - (velocity * ray[used]).sum(axis=1, keepdims=True) * ray[used]
        arm = people.head_world[best] - T_world_camera[view[used], :3, 3]
        mine = view[used]
        before = np.tril(mine[:, None] == mine, -1).sum(axis=1)  # samples of the same view in this step
        place = (self._count[mine] + before) % self._samples.shape[1]
        self._samples[mine, place] = np.stack([ray[used], factor[:, None] * miss[used, best], velocity, arm], axis=1)
        self._ratios[mine, place] = (arm * ray[used]).sum(axis=1) / np.linalg.norm(
            detections.head_camera[asked[used]], axis=1)
        self._count += np.bincount(mine, minlength=len(self._count))

    def agreement(self, view: int) -> ViewAgreement:
        """What the last samples of a view say."""
        known = self._samples[view][:min(int(self._count[view]), self._samples.shape[1])]
        if len(known) < _MIN_SAMPLES:
            return ViewAgreement(len(known), float("nan"), float("nan"))
        ray, miss, velocity, arm = known.transpose(1, 0, 2)
        newest = np.arange(self._count[view] - min(len(known), _RECENT), self._count[view]) % self._samples.shape[1]
        residual = float(np.median(np.linalg.norm(miss[newest], axis=1)))
        return ViewAgreement(len(known), residual, self._time_offset(ray, miss, velocity),
                             float(np.median(self._ratios[view][newest])),
                             self._explained(ray[newest], miss[newest], arm[newest]))

    @staticmethod
    def _explained(ray: Array, miss: Array, arm: Array) -> float:
        """miss = (shift + turn x arm) across the ray, by least absolute distances."""
        places, visits = np.unique(np.round(arm / _PLACE_M), axis=0, return_counts=True)
        if len(places[visits >= 3]) < _MIN_PLACES:
            return float("nan")
        across = np.eye(3) - ray[:, :, None] * ray[:, None]
        lever = np.zeros((len(arm), 3, 3))  # turn x arm = lever turn
        lever[:, 0, 1], lever[:, 0, 2], lever[:, 1, 2] = arm[:, 2], -arm[:, 1], arm[:, 0]
        lever -= lever.transpose(0, 2, 1)
        motion = np.concatenate([across, across @ lever / _TURN_ARM_M], axis=2)
        distance = np.linalg.norm(miss, axis=1)
        left = distance
        for _ in range(8):
            weighted = motion / np.maximum(left, 0.02)[:, None, None]
            normal = np.einsum("nki,nkj->ij", weighted, motion) + 1e-3 * np.eye(6)
            solution = np.linalg.solve(normal, np.einsum("nki,nk->i", weighted, miss))
            left = np.linalg.norm(miss - motion @ solution, axis=1)
        return 1.0 - float(np.median(left)) / max(float(np.median(distance)), 1e-9)

    @staticmethod
    def _time_offset(ray: Array, miss: Array, velocity: Array) -> float:
        """miss = shift across the ray + velocity x offset, by least squares: a wrong pose is no wrong clock."""
        across = np.eye(3) - ray[:, :, None] * ray[:, None]
        normal = np.zeros((4, 4))
        normal[:3, :3] = across.sum(axis=0)
        normal[:3, 3] = normal[3, :3] = velocity.sum(axis=0)
        normal[3, 3] = (velocity * velocity).sum()
        right = np.append(miss.sum(axis=0), (miss * velocity).sum())
        if normal[3, 3] < _MIN_MOTION_M2_S2:
            return float("nan")
        covariance = np.linalg.pinv(normal, hermitian=True)
        solution = covariance @ right
        left = miss - across @ solution[:3] - solution[3] * velocity
        sigma = np.sqrt(covariance[3, 3] * _CORRELATED * (left * left).sum() / (2.0 * len(miss)))
        return float(solution[3]) if sigma < _MAX_OFFSET_SIGMA_S else float("nan")
