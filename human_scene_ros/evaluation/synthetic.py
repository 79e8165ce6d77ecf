"""Scores of a stream of estimates against exact truth, with constant-size state per frame.

The definitions are those of `human-scene evaluate synthetic`; the demo scores its recording with the same
class, so its numbers and the evaluation's can be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.skeleton import BODY_22, HEAD, NECK
from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.matching import match_nearest
from human_scene_ros.evaluation.trajectory import trajectory_errors
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply
from human_scene_ros.scene import BodyEstimate, SceneEstimate, TrackState

MATCH_LIMIT = 0.05
"""A predicted head farther than this fraction of the image width from a true one does not match it."""

MIN_PERSON_HEIGHT_PX = 12.0
MIN_PATH_M = 0.1
"""Cameras that move less have no relative trajectory error: the quotient would be noise over nothing."""

_DEPTH_PIXELS_PER_FRAME = 5000


class PersonTruth(Protocol):
    """One true person; `synthetic.world.SyntheticPerson` and `message_fields.TruePerson` both fit."""

    @property
    def person_id(self) -> int:
        """The same for the whole sequence."""

    @property
    def joints_camera(self) -> NDArray[np.floating]:
        """(55, 3) metres in SMPL-X order, optical frame."""

    @property
    def head_visible(self) -> bool:
        """True if the head is inside the image and not hidden."""

    @property
    def bbox_px(self) -> NDArray[np.floating] | Sequence[float]:
        """x, y, width, height of the visible person in the image."""


class FrameTruth(Protocol):
    """The truth of one image."""

    @property
    def camera(self) -> PinholeCamera:
        """Intrinsics of the image that was given to the stream."""

    @property
    def depth_m(self) -> NDArray[np.floating] | None:
        """(H, W) metres along z at any resolution that covers the image; 0 = none. None = no depth truth."""

    @property
    def T_world_camera(self) -> NDArray[np.floating]:
        """(4, 4) true pose."""

    @property
    def people(self) -> Sequence[PersonTruth]:
        """Everybody in the scene, visible or not."""


@dataclasses.dataclass
class _Sequence:
    """What must be kept until a sequence ends, because its alignment needs all frames."""

    poses: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = dataclasses.field(default_factory=list)
    depth: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = dataclasses.field(default_factory=list)
    joints_world: dict[tuple[int, int], list[tuple[NDArray[np.floating], NDArray[np.floating]]]] = dataclasses.field(
        default_factory=dict)
    frames_of_person: dict[int, int] = dataclasses.field(default_factory=dict)


class SceneScores:
    """Accumulates errors frame by frame; sequences must not be mixed (`begin_sequence`)."""

    def __init__(self) -> None:
        self._frames = 0
        self._matched = self._predicted = self._truth = 0
        self._pa_mm: list[float] = []
        self._mpjpe_mm: list[float] = []
        self._pelvis_rel: list[float] = []
        self._root_deg: list[float] = []
        self._finished: dict[str, list[tuple[float, float]]] = {}  # name -> (value, weight) per sequence
        self._current = _Sequence()

    def begin_sequence(self) -> None:
        """Call before the first frame of each recording or world; alignments never span two of them."""
        self._finish()

    def add(self, estimate: SceneEstimate, truth: FrameTruth) -> None:
        """Score one frame.

        Heads: detections of this frame (coasting tracks are not detections) against people whose head is
        visible and whose box is at least `MIN_PERSON_HEIGHT_PX` tall; greedy by image distance.
        """
        self._frames += 1
        if getattr(truth, "people_known", True):  # else every detection would count as false
            self._add_people(estimate, truth)
        self._current.poses.append((estimate.segment, np.asarray(estimate.T_world_camera, np.float64),
                                    np.asarray(truth.T_world_camera, np.float64)))
        if truth.depth_m is not None:
            self._current.depth.append(depth_pairs(estimate, truth.depth_m))

    def result(self) -> dict[str, float | int | None]:
        """The keys of `human-scene evaluate synthetic`; None where a value is undefined.

        `head_recall`, `head_precision`: fractions. `pa_mpjpe_mm` (one Sim(3) per person), `mpjpe_mm` (pelvis joint
        at the origin): mean over matched people, 22 joints. `pelvis_rel_error`: mean of |distance error| /
        distance. `root_rot_median_deg`, `root_rot_mean_deg`: angle between predicted and true pelvis
        (`root_angle_deg`). `depth_absrel`: mean over pixels, `depth_absrel_median`: after one median scale per
        sequence. `ate_rel`: ATE RMSE after SE(3) alignment / path length, mean over sequences that move at least
        `MIN_PATH_M`. `rpe_rot_deg`: RMSE between neighbouring frames, mean over sequences. `frames`: count.
        """
        self._finish()
        values: dict[str, float | int | None] = {
            "head_recall": self._matched / self._truth if self._truth else None,
            "head_precision": self._matched / self._predicted if self._predicted else None,
            "pa_mpjpe_mm": _number(metrics.nanmean(self._pa_mm)),
            "mpjpe_mm": _number(metrics.nanmean(self._mpjpe_mm)),
            "pelvis_rel_error": _number(metrics.nanmean(self._pelvis_rel)),
            "root_rot_median_deg": _number(float(np.median(self._root_deg))) if self._root_deg else None,
            "root_rot_mean_deg": _number(metrics.nanmean(self._root_deg)),
        }
        for name in ("depth_absrel", "depth_absrel_median", "ate_rel", "rpe_rot_deg"):
            values[name] = self._mean(name)
        values["frames"] = self._frames
        return values

    def details(self) -> dict[str, float | int | None]:
        """More numbers, for reports: metric trajectory and world-frame human motion with its coverage.

        `ate_m` (RMSE after SE(3)), `path_length_m`: means over sequences. `wa_mpjpe_mm`: one Sim(3) per 100 frames
        of each person's best-covering track, `wa_coverage`: fraction of the person's countable frames in it.
        """
        self._finish()
        return {name: self._mean(name) for name in ("ate_m", "path_length_m", "wa_mpjpe_mm", "wa_coverage")}

    # --- one frame

    def _add_people(self, estimate: SceneEstimate, truth: FrameTruth) -> None:
        if not getattr(truth, "people_known", True):
            return
        found, people = detections(estimate), countable_people(truth)
        self._predicted += len(found)
        self._truth += len(people)
        for person in people:
            frames = self._current.frames_of_person
            frames[person.person_id] = frames.get(person.person_id, 0) + 1
        pairs = match_heads(found, people, truth.camera)
        self._matched += len(pairs)
        for i, j in pairs:
            predicted = np.asarray(found[i].joints_camera, np.float64)[list(BODY_22)]
            true = np.asarray(people[j].joints_camera, np.float64)[list(BODY_22)]
            known = np.asarray(np.isfinite(true).all(axis=1))
            if not known[0]:
                continue
            self._pa_mm.append(float(metrics.pa_mpjpe_mm(predicted[known], true[known])))
            self._mpjpe_mm.append(float(metrics.mpjpe_mm(predicted[known], true[known], pelvis_joints=(0,))))
            distance = np.linalg.norm(true[0])
            if np.isfinite(true[:4]).all() and np.isfinite(predicted[:4]).all():
                self._root_deg.append(root_angle_deg(predicted, true))
            self._pelvis_rel.append(float(abs(np.linalg.norm(predicted[0]) - distance) / distance))
            if not known.all():
                continue
            track = self._current.joints_world.setdefault((people[j].person_id, found[i].track_id), [])
            track.append((apply(np.asarray(estimate.T_world_camera, np.float64), predicted),
                          apply(np.asarray(truth.T_world_camera, np.float64), true)))

    # --- one sequence

    def _finish(self) -> None:
        sequence, self._current = self._current, _Sequence()
        if not sequence.poses:
            return
        self._finish_trajectory(sequence)
        self._finish_people(sequence)
        if sequence.depth:
            predicted, true = (np.concatenate(arrays) for arrays in zip(*sequence.depth, strict=True))
            for name, alignment in (("depth_absrel", "metric"), ("depth_absrel_median", "median")):
                errors = depth_errors(predicted, true, alignment=alignment)  # type: ignore[arg-type]
                self._record(name, errors.abs_rel, errors.valid_pixels)

    def _finish_trajectory(self, sequence: _Sequence) -> None:
        for segment in sorted({s for s, _, _ in sequence.poses}):
            estimate = np.stack([e for s, e, _ in sequence.poses if s == segment])
            truth = np.stack([t for s, _, t in sequence.poses if s == segment])
            errors = trajectory_errors(estimate, truth, kind="se3")
            self._record("rpe_rot_deg", errors.rpe_rot_rmse_deg)
            self._record("ate_m", errors.ate_rmse_m)
            self._record("path_length_m", errors.path_length_m)
            if errors.path_length_m >= MIN_PATH_M:
                self._record("ate_rel", errors.ate_rmse_m / errors.path_length_m)

    def _finish_people(self, sequence: _Sequence) -> None:
        for person, frames in sequence.frames_of_person.items():
            tracks = [joints for (p, _), joints in sequence.joints_world.items() if p == person]
            best = max(tracks, key=len, default=[])
            self._record("wa_coverage", len(best) / frames, frames)
            if best:
                predicted, true = (np.stack(arrays) for arrays in zip(*best, strict=True))
                self._record("wa_mpjpe_mm", metrics.nanmean(metrics.wa_mpjpe_mm(predicted, true)), len(best))

    def _record(self, name: str, value: float, weight: float = 1.0) -> None:
        if math.isfinite(value):
            self._finished.setdefault(name, []).append((value, weight))

    def _mean(self, name: str) -> float | None:
        pairs = self._finished.get(name, [])
        total = sum(weight for _, weight in pairs)
        return sum(value * weight for value, weight in pairs) / total if total else None


def detections(estimate: SceneEstimate) -> list[BodyEstimate]:
    """People that were seen in this frame; tracks that only coast are not among them."""
    return [b for b in estimate.bodies if b.track_state not in (TrackState.PREDICTED, TrackState.LOST)]


def countable_people(truth: FrameTruth) -> list[PersonTruth]:
    """People who must be found: head visible, box at least `MIN_PERSON_HEIGHT_PX` tall."""
    return [p for p in truth.people
            if p.head_visible and np.asarray(p.bbox_px, np.float64)[3] >= MIN_PERSON_HEIGHT_PX]


def match_heads(found: Sequence[BodyEstimate], people: Sequence[PersonTruth],
                camera: PinholeCamera) -> list[tuple[int, int]]:
    """(detection, person) pairs, greedily by the distance of their heads in the image, within `MATCH_LIMIT`."""
    if not found or not people:
        return []
    predicted_uv = np.stack([b.head_uv_px for b in found])
    truth_uv = np.stack([camera.project(_head_point(p)) for p in people])
    return match_nearest(predicted_uv, truth_uv, MATCH_LIMIT * camera.width)


def _head_point(person: PersonTruth) -> NDArray[np.float64]:
    """(3,) head joint; where a truth lacks it, the middle of nose, eyes and ears, else the neck."""
    joints = np.asarray(person.joints_camera, np.float64)
    for part in (joints[[HEAD]], joints[55:60]):
        known = part[np.isfinite(part).all(axis=1)]
        if len(known):
            return known.mean(axis=0)
    return joints[NECK]


def root_angle_deg(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    """Angle between two pelvises, degrees in [0, 180], from (J >= 4, 3) joints in SMPL-X order.

    Hips and first spine joint are rigid with the root, so the rotation that takes their offsets from the pelvis onto
    each other is that of the root, up to what shapes differ. No pose parameters are needed.
    """
    offsets = [np.asarray(joints, np.float64)[1:4] - np.asarray(joints, np.float64)[0] for joints in (predicted, true)]
    u, _, vt = np.linalg.svd(offsets[0].T @ offsets[1])
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0))))


def depth_pairs(estimate: SceneEstimate,
                truth_depth_m: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N,) estimated and true depth, metres along z, where both exist; nearest pixel, thinned evenly.

    Args:
        estimate: Its dense maps may be at another resolution or crop than the input image.
        truth_depth_m: (H, W) of any resolution that covers the same view as the input image.
    """
    return depth_samples(estimate, truth_depth_m)[:2]


def depth_samples(estimate: SceneEstimate, truth_depth_m: NDArray[np.floating]) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """`depth_pairs` and (N, 2) where they are, pixels of the input image."""
    height, width = truth_depth_m.shape
    dense, image = estimate.dense_camera, estimate.camera
    stride = max(1, math.isqrt(math.ceil(dense.width * dense.height / _DEPTH_PIXELS_PER_FRAME)))
    columns, rows = np.arange(0, dense.width, stride), np.arange(0, dense.height, stride)
    # Dense pixel -> input image (the same ray in both cameras) -> truth image (the same view, other size).
    image_u = (columns - dense.cx) / dense.fx * image.fx + image.cx
    image_v = (rows - dense.cy) / dense.fy * image.fy + image.cy
    u = (image_u + 0.5) * width / image.width - 0.5
    v = (image_v + 0.5) * height / image.height - 0.5
    u_px, v_px = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = ((v_px >= 0) & (v_px < height))[:, None] & ((u_px >= 0) & (u_px < width))[None]
    true = np.asarray(truth_depth_m, np.float32)[np.clip(v_px, 0, height - 1)[:, None],
                                                 np.clip(u_px, 0, width - 1)[None]]
    predicted = estimate.points_camera[rows[:, None], columns[None], 2]
    valid = inside & np.isfinite(predicted) & np.isfinite(true) & (true > 0)
    uv_px = np.stack(np.broadcast_arrays(image_u[None], image_v[:, None]), axis=-1)
    return predicted[valid], true[valid], uv_px[valid]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
