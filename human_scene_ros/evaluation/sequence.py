"""One recorded sequence against its truth: every metric with alignment, count and status, and rows to look at.

Feed `SequenceEvaluation` frame by frame, in order; `finish` aligns what needs all frames. People are matched in
the image (by their heads, or as Human3R does), because that is what all published protocols do; world-frame motion
is reported for the best single track and for the best match of each frame, always with its coverage.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body.skeleton import BODY_22, JOINT_NAMES, PARENTS
from human_scene_ros.errors import ConfigError
from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.alignment import umeyama
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.matching import match_keypoints, precision_recall_f1
from human_scene_ros.evaluation.synthetic import (
    MIN_PATH_M,
    FrameTruth,
    PersonTruth,
    SceneScores,
    countable_people,
    depth_samples,
    detections,
    match_heads,
)
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.evaluation.trajectory import align_trajectory, trajectory_errors
from human_scene_ros.evaluation.values import DEGENERATE, NO_MATCH, NO_TRUTH, TOO_SHORT, Metric
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply
from human_scene_ros.scene import BodyEstimate, SceneEstimate

Array = NDArray[np.float64]
Rows = dict[str, list[Any]]

JOINTS = tuple(JOINT_NAMES[i] for i in BODY_22)
_FEET = (7, 10, 8, 11)
_ROTATED = (0, 1, 2, 4, 5, 16, 17, 18, 19)  # joints of MPJAE
_NEAR_PERSON_M = 0.25
DISTANCE_EDGES_M = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 70.0)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a sequence is judged.

    Args:
        matching: "heads": nearest heads within 5 % of the image width; "human3r": greedy by 2-D joints as in
            Human3R and ROMP; "optimal": the same costs, Hungarian.
        chunk: Frames per alignment of W-MPJPE and WA-MPJPE.
        gate_m: Pelvises farther apart never match in the tracking scores.
        max_depth_m: Truth beyond it does not count.
        fps: Frames per second for jitter and acceleration; 0 = from the stamps.

    Raises:
        ConfigError: A value is out of range.
    """

    matching: Literal["heads", "human3r", "optimal"] = "heads"
    chunk: int = 100
    gate_m: float = 0.5
    max_depth_m: float = 70.0
    fps: float = 0.0

    def __post_init__(self) -> None:
        if self.matching not in ("heads", "human3r", "optimal"):
            raise ConfigError(f"evaluation.matching = {self.matching!r}: expected heads, human3r or optimal")
        if self.chunk < 2 or self.gate_m <= 0 or self.max_depth_m <= 0 or self.fps < 0:
            raise ConfigError(f"evaluation: chunk = {self.chunk}, gate_m = {self.gate_m}, max_depth_m = "
                              f"{self.max_depth_m}, fps = {self.fps}: expected chunk >= 2, the others positive "
                              "(fps 0: from the stamps)")


@dataclasses.dataclass(frozen=True)
class SequenceResult:
    """What came of one sequence.

    Args:
        metrics: Key with unit -> value.
        scene: The ten keys of `human-scene evaluate synthetic`.
        frames: Column -> one value per frame.
        people: Column -> one value per true person that must be found and frame; undetected ones have no errors.
        joints: "joint", "mpjpe_mm", "pa_mpjpe_mm", "count": errors per joint, after hip and Sim(3) alignment.
        depth_by_distance: "from_m", "to_m", "abs_rel", "count": metric depth in bins of true depth.
        counts: Frames and people.
    """

    metrics: dict[str, Metric]
    scene: dict[str, float | int | None]
    frames: Rows
    people: Rows
    joints: Rows
    depth_by_distance: Rows
    counts: dict[str, int | float]


@dataclasses.dataclass
class _Match:
    """One person found in one frame; joints are (22, 3) of the camera frame, truth NaN where unknown."""

    frame: int
    person: int
    track: int
    predicted: Array
    true: Array
    rotations: tuple[Array, Array] | None
    row: int


class SequenceEvaluation:
    """Accumulates one sequence.

    Args:
        config: How to judge.
        rotations: False: the estimates hold joints only, so that angles of joints are not measured.
    """

    def __init__(self, config: EvaluationConfig | None = None, *, rotations: bool = True) -> None:
        self.config = config or EvaluationConfig()
        self._rotations = rotations
        self._scores = SceneScores()
        self._scores.begin_sequence()
        self._tracking = TrackingAccumulator(self.config.gate_m)
        self._frames: Rows = {name: [] for name in (
            "frame", "stamp_ns", "segment", "people_true", "detections", "matched", "mpjpe_mm", "pa_mpjpe_mm",
            "root_error_mm", "depth_absrel", "latency_ms")}
        self._people: Rows = {name: [] for name in (
            "frame", "stamp_ns", "person_id", "track_id", "distance_m", "visible_fraction", "bbox_height_px",
            "root_error_mm", "root_depth_error_mm", "mpjpe_mm", "pa_mpjpe_mm")}
        self._poses: list[tuple[int, int, Array, Array]] = []  # frame, segment, estimate, truth
        self._matches: list[_Match] = []
        self._depth: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]] = []
        self._greedy = np.zeros(3, int)  # true positives, false positives, misses of Human3R's matching
        self._optimal = np.zeros(3, int)
        self._found = np.zeros(3, int)  # the same of the matching that is used
        self._order: list[tuple[float, int]] = []  # PCDR and its pairs per frame
        self._stage_ms: dict[str, list[float]] = {}

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return len(self._frames["frame"])

    def badness(self) -> float:
        """How bad the last frame was, for choosing what to show: millimetres per person, 400 for a missed one.

        0 where nobody is there and nobody was seen: a picture of it would show nothing.
        """
        missed = self._frames["people_true"][-1] - self._frames["matched"][-1]
        matched, false = self._frames["matched"][-1], self._frames["detections"][-1] - self._frames["matched"][-1]
        error = self._frames["mpjpe_mm"][-1]
        total = 400.0 * missed + 100.0 * false + (min(error, 400.0) * matched if math.isfinite(error) else 0.0)
        return float(total / max(1, missed + matched))

    def add(self, estimate: SceneEstimate | None, truth: FrameTruth | None, *, stamp_ns: int = 0,
            latency_ms: float = math.nan) -> None:
        """One frame.

        Args:
            estimate: None = there is no result for this frame: everybody in it is missed.
            truth: None = nobody knows; the frame counts for nothing but the latency.
            stamp_ns: Stamp of the frame if there is no estimate.
            latency_ms: From the image to the result.
        """
        frame = self.frame_count
        row = {"frame": frame, "stamp_ns": stamp_ns if estimate is None else estimate.stamp_ns,
               "segment": -1 if estimate is None else estimate.segment, "people_true": 0, "detections": 0,
               "matched": 0, "mpjpe_mm": math.nan, "pa_mpjpe_mm": math.nan, "root_error_mm": math.nan,
               "depth_absrel": math.nan, "latency_ms": latency_ms}
        if estimate is not None:
            for name, milliseconds in estimate.stage_ms.items():
                self._stage_ms.setdefault(name, []).append(milliseconds)
        if truth is not None:
            if estimate is not None:
                self._scores.add(estimate, truth)
                self._poses.append((frame, estimate.segment, np.asarray(estimate.T_world_camera, np.float64),
                                    np.asarray(truth.T_world_camera, np.float64)))
                if truth.depth_m is not None:
                    row["depth_absrel"] = self._add_depth(estimate, truth)
            if getattr(truth, "people_known", True):
                self._add_people(row, estimate, truth)
        for name, value in row.items():
            self._frames[name].append(value)

    # --- one frame

    def _add_people(self, row: dict[str, Any], estimate: SceneEstimate | None, truth: FrameTruth) -> None:
        people = countable_people(truth)
        found = [] if estimate is None else detections(estimate)
        pairs = self._pairs(estimate, found, people, truth.camera)
        row.update(people_true=len(people), detections=len(found), matched=len(pairs))
        self._found += (len(pairs), len(found) - len(pairs), len(people) - len(pairs))
        partner = {j: i for i, j in pairs}
        errors = []
        for j, person in enumerate(people):
            body = found[partner[j]] if j in partner else None
            errors.append(self._add_person(row["frame"], row["stamp_ns"], person, body))
        known = [e for e in errors if e is not None]
        if known:
            row["mpjpe_mm"], row["pa_mpjpe_mm"], row["root_error_mm"] = (
                metrics.nanmean([e[k] for e in known]) for k in range(3))
        true_roots = [_root(_joints(p)) for p in people]
        known_people = [k for k, root in enumerate(true_roots) if np.isfinite(root).all()]
        self._tracking.add(
            np.array([people[k].person_id for k in known_people], np.int64),
            np.array([true_roots[k] for k in known_people]).reshape(-1, 3),
            np.array([b.track_id for b in found], np.int64),
            np.array([b.joints_camera[0] for b in found], np.float64).reshape(-1, 3))
        z = [(found[i].joints_camera[0, 2], true_roots[j][2]) for i, j in pairs if np.isfinite(true_roots[j]).all()]
        if len(z) > 1:
            predicted_z, true_z = (np.array(values, np.float64) for values in zip(*z, strict=True))
            self._order.append((metrics.pcdr(predicted_z, true_z), len(z) * (len(z) - 1) // 2))

    def _pairs(self, estimate: SceneEstimate | None, found: Sequence[BodyEstimate], people: Sequence[PersonTruth],
               camera: PinholeCamera) -> list[tuple[int, int]]:
        """(detection, person) by the chosen matching; counts detections by Human3R's as well."""
        by_joints = {}
        if estimate is not None and found and people:
            true = np.stack([_joints(p) for p in people])
            known = np.isfinite(true).all(axis=(0, 2))
            if known.sum() >= 2:
                predicted_uv = _project(estimate.camera, np.stack([b.joints_camera[:22] for b in found])[:, known])
                true_uv = _project(camera, true[:, known])
                by_joints = {optimal: match_keypoints(predicted_uv, true_uv, optimal=optimal)
                             for optimal in (False, True)}
        for optimal, counts in ((False, self._greedy), (True, self._optimal)):
            right = len(by_joints[optimal].pairs) if by_joints else 0
            counts += (right, len(found) - right, len(people) - right)
        if self.config.matching == "heads":
            return match_heads(found, people, camera)
        return list(by_joints[self.config.matching == "optimal"].pairs) if by_joints else []

    def _add_person(self, frame: int, stamp_ns: int, person: PersonTruth,
                    body: BodyEstimate | None) -> tuple[float, float, float] | None:
        """One true person; returns MPJPE, PA-MPJPE and root error (mm) if it was found."""
        true = _joints(person)
        root = _root(true)
        values: dict[str, Any] = {
            "frame": frame, "stamp_ns": stamp_ns, "person_id": person.person_id,
            "track_id": None if body is None else body.track_id, "distance_m": float(np.linalg.norm(root)),
            "visible_fraction": float(getattr(person, "visible_fraction", math.nan)),
            "bbox_height_px": float(np.asarray(person.bbox_px, np.float64)[3])}
        errors = None
        if body is not None:
            predicted = np.asarray(body.joints_camera, np.float64)[:22]
            errors = _person_errors(predicted, true)
            values.update(mpjpe_mm=errors[0], pa_mpjpe_mm=errors[1], root_error_mm=errors[2],
                          root_depth_error_mm=1e3 * float(predicted[0, 2] - root[2]))
            self._matches.append(_Match(frame, person.person_id, body.track_id, predicted, true,
                                        self._pose_rotations(body, person), len(self._people["frame"])))
        for name, column in self._people.items():
            column.append(values.get(name, math.nan))
        return errors

    def _pose_rotations(self, body: BodyEstimate, person: PersonTruth) -> tuple[Array, Array] | None:
        """(22, 3) rotation vectors of estimate and truth where both hold a pose."""
        parameters = getattr(person, "parameters", None)
        if not self._rotations or parameters is None or not getattr(person, "valid_parts", 1) & 1:
            return None
        return (body.parameters.full_pose()[:22].astype(np.float64), parameters.full_pose()[:22].astype(np.float64))

    def _add_depth(self, estimate: SceneEstimate, truth: FrameTruth) -> float:
        assert truth.depth_m is not None
        predicted, true, uv_px = depth_samples(estimate, truth.depth_m)
        points = truth.camera.unproject(uv_px, true.astype(np.float64))
        self._depth.append((predicted, true, near_people(points, [_joints(p) for p in truth.people])))
        return depth_errors(predicted, true, max_depth_m=self.config.max_depth_m).abs_rel

    # --- the whole sequence

    def finish(self) -> SequenceResult:
        """All metrics; call once, after the last frame."""
        fps = self.config.fps or frame_rate(self._frames["stamp_ns"])
        values: dict[str, Metric] = {}
        self._finish_detection(values)
        self._finish_people(values)
        self._finish_motion(values, fps)
        self._finish_camera(values)
        self._finish_depth(values)
        self._finish_system(values)
        scene = self._scores.result()
        counts: dict[str, int | float] = {
            "frames": self.frame_count, "frames_with_truth": len(self._poses), "people_true": int(
                sum(self._frames["people_true"])), "people_matched": len(self._matches),
            "persons": len(set(self._people["person_id"])), "segments": len({s for _, s, _, _ in self._poses}),
            "fps": fps}
        return SequenceResult(values, scene, self._frames, self._people, self._joint_errors(),
                              self._depth_by_distance(), counts)

    def _finish_detection(self, values: dict[str, Metric]) -> None:
        for prefix, counts, how in (("head", self._found, f"matching: {self.config.matching}"),
                                    ("detection", self._greedy, "matching: human3r"),
                                    ("detection_optimal", self._optimal, "matching: optimal")):
            right, false, missed = (int(v) for v in counts)
            scores = precision_recall_f1(right, false, missed)
            weights = (right + false, right + missed, right + 0.5 * (false + missed))
            for name, score, weight in zip(("precision", "recall", "f1"), scores, weights, strict=True):
                values[f"{prefix}_{name}"] = Metric.of(score, how, weight)
        tracking = self._tracking.result()
        truths, published = int(self._found[[0, 2]].sum()), int(self._found[:2].sum())
        for name, weight in (("idf1", truths + published), ("idp", published), ("idr", truths), ("mota", truths),
                             ("motp_m", len(self._matches))):
            value = getattr(tracking, name.removesuffix("_m"))
            values[name] = Metric.of(value, f"gate {self.config.gate_m:g} m", weight)
        for name in ("switches", "fragmentations"):
            values[f"track_{name}"] = Metric(float(getattr(tracking, name)), "none", 1.0, "sum")

    def _finish_people(self, values: dict[str, Metric]) -> None:
        undefined = NO_TRUTH if not self._people["frame"] else NO_MATCH
        for name, how in (("mpjpe_mm", "hip midpoint at the origin"), ("pa_mpjpe_mm", "sim3 per person and frame"),
                          ("root_error_mm", "none")):
            column = np.array([self._people[name][m.row] for m in self._matches], np.float64)
            values[name] = Metric.of(metrics.nanmean(column), how, int(np.isfinite(column).sum()), undefined=undefined)
        complete = [m for m in self._matches if np.isfinite(m.true).all()]
        if complete:
            predicted, true = (np.stack([getattr(m, side) for m in complete]) for side in ("predicted", "true"))
            count = len(complete)
            values["mpjpe_root_mm"] = Metric.of(
                metrics.nanmean(metrics.mpjpe_mm(predicted, true, (0,))), "pelvis joint at the origin", count)
            values["metric_mpjpe_mm"] = Metric.of(1e3 * metrics.nanmean(metrics.mean_distance(predicted, true)),
                                                  "none", count)
            for limit in (50, 100, 150):
                values[f"pck_{limit}mm"] = Metric.of(metrics.pck(predicted, true, limit),
                                                     "pelvis joint at the origin", count)
            values["pck_auc_150mm"] = Metric.of(metrics.pck_auc(predicted, true), "pelvis joint at the origin", count)
            distance = np.linalg.norm(true[:, 0], axis=-1)
            relative = np.abs(np.linalg.norm(predicted[:, 0], axis=-1) - distance) / distance
            values["pelvis_rel_error"] = Metric.of(metrics.nanmean(relative), "none", count)
            self._finish_angles(values, complete)
        pairs = sum(n for _, n in self._order)
        order = sum(v * n for v, n in self._order) / pairs if pairs else math.nan
        values["pcdr_200mm"] = Metric.of(order, "none", pairs, undefined=undefined)

    def _finish_angles(self, values: dict[str, Metric], matches: list[_Match]) -> None:
        posed = [m for m in matches if m.rotations is not None]
        if not posed:
            return
        predicted, true = (global_rotations(np.stack([m.rotations[k] for m in posed])) for k in (0, 1))  # type: ignore[index]
        angles = metrics.mpjae_deg(predicted[:, list(_ROTATED)], true)
        values["mpjae_deg"] = Metric.of(metrics.nanmean(angles.mean(axis=1)), "none", len(posed))
        fit = umeyama(np.stack([m.predicted for m in posed]), np.stack([m.true for m in posed]))
        angles = metrics.mpjae_deg((fit.R[:, None] @ predicted[:, list(_ROTATED)])[~fit.degenerate],
                                   true[~fit.degenerate])
        values["mpjae_pa_deg"] = Metric.of(metrics.nanmean(angles.mean(axis=1)), "sim3 per person and frame",
                                           len(angles))

    # World-frame motion.

    def _finish_motion(self, values: dict[str, Metric], fps: float) -> None:
        poses = {frame: (segment, estimate, truth) for frame, segment, estimate, truth in self._poses}
        of_person: dict[int, list[_Match]] = {}
        for match in self._matches:
            if match.frame in poses:
                of_person.setdefault(match.person, []).append(match)
        frames_of = {p: self._people["person_id"].count(p) for p in set(self._people["person_id"])}
        pieces: dict[str, list[_Motion]] = {"track": [], "oracle": []}
        covered = {"track": 0, "oracle": 0}
        for person in sorted(frames_of):
            matches = of_person.get(person, [])
            tracks: dict[int, list[_Match]] = {}
            for match in matches:
                tracks.setdefault(match.track, []).append(match)
            best = max(tracks.values(), key=len, default=[])  # the first of the longest
            for kind, chosen in (("track", best), ("oracle", matches)):
                covered[kind] += len(chosen)
                for segment in sorted({poses[m.frame][0] for m in chosen}):
                    motion = _motion([m for m in chosen if poses[m.frame][0] == segment], poses)
                    if motion is not None:
                        pieces[kind].append(motion)
        total = sum(frames_of.values())
        undefined = NO_TRUTH if not total else NO_MATCH
        rate = f"at {fps:.4g} fps"
        chunk = self.config.chunk
        for kind, suffix in (("track", ""), ("oracle", "_oracle")):
            values[f"coverage{suffix}"] = Metric.of(covered[kind] / total if total else math.nan,
                                                    f"matching: {kind}", total)
            motions = pieces[kind]

            def add(name: str, how: str, measure: Callable[[_Motion], Array], undefined: str = undefined,
                    suffix: str = suffix, motions: list[_Motion] = motions) -> None:
                errors = np.concatenate([np.empty(0), *(np.ravel(measure(m)) for m in motions)])
                known = errors[np.isfinite(errors)]
                key = name.replace("_mm", f"{suffix}_mm").replace("_pct", f"{suffix}_pct") if suffix else name
                values[key] = Metric.of(metrics.nanmean(known), how, len(known), undefined=undefined)

            add("wa_mpjpe_mm", f"sim3 per {chunk} frames", lambda m: metrics.wa_mpjpe_mm(m.predicted, m.true, chunk))
            add("w_mpjpe_mm", f"sim3 on 2 frames per {chunk}", lambda m: metrics.w_mpjpe_mm(m.predicted, m.true, chunk))
            add("rte_pct", "se3 per track, of the path length",
                lambda m: metrics.rte_percent(m.predicted[:, 0], m.true[:, 0]), TOO_SHORT if motions else undefined)
            if suffix:
                continue
            add("rte_scaled_pct", "sim3 per track, of the path length",
                lambda m: metrics.rte_percent(m.predicted[:, 0], m.true[:, 0], with_scale=True),
                TOO_SHORT if motions else undefined)
            short = TOO_SHORT if motions else undefined
            add("jitter_10m_s3", rate, lambda m: metrics.jitter_10m_s3(m.dense(m.predicted), fps), short)
            add("jitter_truth_10m_s3", rate, lambda m: metrics.jitter_10m_s3(m.dense(m.true), fps), short)
            add("foot_sliding_joints_mm", f"none, contact below 10 mm per frame, {rate}",
                lambda m: metrics.foot_sliding_mm(m.dense(m.predicted_feet), m.dense(m.true_feet)), short)
            add("accel_error_m_s2", f"pelvis joint at the origin, camera frame, {rate}",
                lambda m: metrics.accel_error_m_s2(_rooted(m.dense(m.predicted_camera)),
                                                   _rooted(m.dense(m.true_camera)), fps=fps), short)

    def _finish_camera(self, values: dict[str, Metric]) -> None:
        segments = sorted({segment for _, segment, _, _ in self._poses})
        collected: dict[str, list[tuple[float, str, str]]] = {}
        for name in ("camera_error_mm", "camera_rotation_error_deg", "true_x_m", "true_y_m", "true_z_m",
                     "estimate_x_m", "estimate_y_m", "estimate_z_m"):
            self._frames[name] = [math.nan] * self.frame_count
        for name in ("true_x_m", "true_y_m", "estimate_x_m", "estimate_y_m"):
            self._people[name] = [math.nan] * len(self._people["frame"])
        for segment in segments:
            rows = [(frame, e, t) for frame, s, e, t in self._poses if s == segment]
            frames, estimate, truth = [r[0] for r in rows], np.stack([r[1] for r in rows]), np.stack(
                [r[2] for r in rows])
            for kind in ("se3", "sim3"):
                errors = trajectory_errors(estimate, truth, kind=kind)  # type: ignore[arg-type]
                bad = DEGENERATE if errors.alignment == "degenerate" else TOO_SHORT
                collected.setdefault(f"ate_{kind}_m", []).append((errors.ate_rmse_m, errors.alignment, bad))
                if kind == "sim3":
                    collected.setdefault("rpe_trans_sim3_m", []).append(
                        (errors.rpe_trans_rmse_m, errors.alignment, bad))
                    continue
                collected.setdefault("rpe_trans_m", []).append((errors.rpe_trans_rmse_m, errors.alignment, bad))
                collected.setdefault("rpe_rot_deg", []).append((errors.rpe_rot_rmse_deg, errors.alignment, bad))
                collected.setdefault("path_length_m", []).append((errors.path_length_m, "none", bad))
                moves = errors.path_length_m >= MIN_PATH_M
                collected.setdefault("ate_rel", []).append(
                    (errors.ate_rmse_m / errors.path_length_m if moves else math.nan, errors.alignment, TOO_SHORT))
            self._align_rows(frames, estimate, truth)
        for key in ("ate_se3_m", "ate_sim3_m", "ate_rel", "rpe_trans_m", "rpe_trans_sim3_m", "rpe_rot_deg",
                    "path_length_m"):
            found = collected.get(key, [])
            known = [(value, how) for value, how, _ in found if math.isfinite(value)]
            if known:
                values[key] = Metric(float(np.mean([v for v, _ in known])), " / ".join(sorted({h for _, h in known})),
                                     1.0, "sequences")
            else:
                values[key] = Metric(None, "none", 0.0, "sequences", found[0][2] if found else NO_TRUTH)

    def _align_rows(self, frames: list[int], estimate: Array, truth: Array) -> None:
        """Positions and errors per frame and person, with the estimated world moved onto the true one (SE3)."""
        aligned, _ = align_trajectory(estimate, truth, "se3")
        if aligned is None:
            return
        angle = np.degrees(Rotation.from_matrix(
            np.swapaxes(truth[:, :3, :3], -1, -2) @ aligned[:, :3, :3]).magnitude())
        moved = dict(zip(frames, zip(aligned, truth, angle, strict=True), strict=True))
        for frame, (ours, true, degrees) in moved.items():
            self._frames["camera_error_mm"][frame] = 1e3 * float(np.linalg.norm(ours[:3, 3] - true[:3, 3]))
            self._frames["camera_rotation_error_deg"][frame] = float(degrees)
            for axis, name in enumerate("xyz"):
                self._frames[f"true_{name}_m"][frame] = float(true[axis, 3])
                self._frames[f"estimate_{name}_m"][frame] = float(ours[axis, 3])
        for match in self._matches:
            if match.frame in moved:
                ours, true, _ = moved[match.frame]
                for side, T, joints in (("estimate", ours, match.predicted), ("true", true, match.true)):
                    position = apply(T, _root(joints))
                    self._people[f"{side}_x_m"][match.row] = float(position[0])
                    self._people[f"{side}_y_m"][match.row] = float(position[1])

    def _finish_depth(self, values: dict[str, Metric]) -> None:
        if not self._depth:
            values["depth_absrel"] = Metric(None, "metric", 0.0, status=NO_TRUTH)
            return
        predicted, true, person = (np.concatenate(arrays) for arrays in zip(*self._depth, strict=True))
        for suffix, alignment in (("", "metric"), ("_median", "median"), ("_scale", "scale"),
                                  ("_scale_lad", "scale_lad"), ("_scale_shift", "scale_shift_lstsq")):
            errors = depth_errors(predicted, true, alignment=alignment, max_depth_m=self.config.max_depth_m)  # type: ignore[arg-type]
            for name, value in (("absrel", errors.abs_rel), ("sqrel", errors.sq_rel), ("rmse_m", errors.rmse_m),
                                ("log_rmse", errors.log_rmse), ("delta1", errors.delta1), ("delta2", errors.delta2),
                                ("delta3", errors.delta3)):
                if suffix and name not in ("absrel", "rmse_m", "delta1"):
                    continue
                base, unit = (name[:-2], "_m") if name.endswith("_m") else (name, "")
                values[f"depth_{base}{suffix}{unit}"] = Metric.of(value, alignment, errors.valid_pixels)
        errors = depth_errors(predicted[person], true[person], max_depth_m=self.config.max_depth_m)
        values["depth_people_absrel"] = Metric.of(errors.abs_rel, "metric", errors.valid_pixels, undefined=NO_MATCH)

    def _depth_by_distance(self) -> Rows:
        rows: Rows = {"from_m": [], "to_m": [], "abs_rel": [], "count": []}
        if not self._depth:
            return rows
        predicted, true = (np.concatenate([d[k] for d in self._depth]).astype(np.float64) for k in (0, 1))
        relative = np.abs(predicted - true) / true
        for low, high in zip(DISTANCE_EDGES_M[:-1], DISTANCE_EDGES_M[1:], strict=True):
            inside = (true >= low) & (true < high)
            if inside.any():
                for name, value in (("from_m", low), ("to_m", high), ("abs_rel", float(relative[inside].mean())),
                                    ("count", int(inside.sum()))):
                    rows[name].append(value)
        return rows

    def _finish_system(self, values: dict[str, Metric]) -> None:
        latency = np.array(self._frames["latency_ms"], np.float64)
        latency = latency[np.isfinite(latency)]
        if not latency.size:
            return
        for percent in (50, 95, 99):
            values[f"latency_p{percent}_ms"] = Metric(float(np.percentile(latency, percent)), "none", len(latency))
        for name, milliseconds in self._stage_ms.items():
            values[f"stage_{name}_mean_ms"] = Metric(float(np.mean(milliseconds)), "none", len(milliseconds))

    def _joint_errors(self) -> Rows:
        rows: Rows = {"joint": list(JOINTS), "mpjpe_mm": [math.nan] * 22, "pa_mpjpe_mm": [math.nan] * 22,
                      "count": [0] * 22}
        complete = [m for m in self._matches if np.isfinite(m.true).all()]
        if complete:
            predicted, true = (np.stack([getattr(m, side) for m in complete]) for side in ("predicted", "true"))
            hips = [metrics.pelvis_of(x, (1, 2))[:, None] for x in (predicted, true)]
            rooted = 1e3 * np.linalg.norm((predicted - hips[0]) - (true - hips[1]), axis=-1)
            fitted = 1e3 * np.linalg.norm(umeyama(predicted, true).apply(predicted) - true, axis=-1)
            rows["mpjpe_mm"], rows["pa_mpjpe_mm"] = rooted.mean(axis=0).tolist(), np.nanmean(fitted, axis=0).tolist()
            rows["count"] = [len(complete)] * 22
        return rows


# --- parts -------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class _Motion:
    """One person in one segment: (n, J, 3) joints that are known in all n matched frames, in the worlds and the camera.

    The first joint is the root; feet are (n, 4, 3), or (n, 0, 3) without a truth.
    """

    frames: NDArray[np.int64]
    predicted: Array
    true: Array
    predicted_camera: Array
    true_camera: Array
    predicted_feet: Array
    true_feet: Array

    def dense(self, joints: Array) -> Array:
        """(T, J, 3) over all frames from the first to the last, NaN in gaps, so that differences never span one."""
        out = np.full((int(self.frames[-1] - self.frames[0]) + 1, *joints.shape[1:]), np.nan)
        out[self.frames - self.frames[0]] = joints
        return out


def _motion(matches: list[_Match], poses: dict[int, tuple[int, Array, Array]]) -> _Motion | None:
    """None where the root has no truth: such a sequence is measured frame by frame only."""
    cameras = [np.stack([getattr(m, side) for m in matches]) for side in ("predicted", "true")]
    known = np.isfinite(cameras[1]).all(axis=(0, 2))
    if not known[0]:
        return None
    worlds = []
    for k, joints in enumerate(cameras, start=1):
        T = np.stack([poses[m.frame][k] for m in matches])
        worlds.append(joints @ np.swapaxes(T[:, :3, :3], -1, -2) + T[:, None, :3, 3])
    feet = [foot for foot in _FEET if known[list(_FEET)].all()]
    return _Motion(np.array([m.frame for m in matches]), *(x[:, known] for x in (*worlds, *cameras)),
                   *(x[:, feet] for x in worlds))


def _joints(person: PersonTruth) -> Array:
    """(22, 3) true joints, camera frame, NaN where unknown."""
    return np.asarray(person.joints_camera, np.float64)[list(BODY_22)]


def _root(joints: Array) -> Array:
    """(3,) pelvis; where it is unknown the middle of the hips, else of all joints that are known."""
    if np.isfinite(joints[0]).all():
        return joints[0]
    part = joints[[1, 2]] if np.isfinite(joints[[1, 2]]).all() else joints[np.isfinite(joints).all(axis=1)]
    return part.mean(axis=0) if len(part) else np.full(3, np.nan)


def _rooted(joints: Array) -> Array:
    return joints - joints[:, :1]


def _project(camera: PinholeCamera, joints: NDArray[np.floating]) -> Array:
    """(..., 3) -> (..., 2) pixels, always finite: what is behind the camera is put just before it."""
    points = np.array(joints, np.float64)
    points[..., 2] = np.maximum(points[..., 2], 0.05)
    return np.asarray(camera.project(points), np.float64)


def _person_errors(predicted: Array, true: Array) -> tuple[float, float, float]:
    """MPJPE (hips), PA-MPJPE and root error, mm, over the joints that have a truth."""
    known = np.asarray(np.isfinite(true).all(axis=1))
    hips = bool(known[1] and known[2])
    if known.all():
        mpjpe = float(metrics.mpjpe_mm(predicted, true))
    elif hips:
        shift = metrics.pelvis_of(predicted, (1, 2)) - metrics.pelvis_of(true, (1, 2))
        mpjpe = 1e3 * float(np.linalg.norm(predicted[known] - shift - true[known], axis=-1).mean())
    else:
        mpjpe = math.nan
    pa = float(metrics.pa_mpjpe_mm(predicted[known], true[known])) if known.sum() >= 3 else math.nan
    root = float(metrics.root_error_mm(predicted, true)) if hips else math.nan
    return mpjpe, pa, root


def frame_rate(stamps_ns: Sequence[int]) -> float:
    """Frames per second by the median step of the stamps; the references' 30 where there is no step."""
    steps = np.diff(np.asarray(stamps_ns, np.int64))
    steps = steps[steps > 0]
    return 1e9 / float(np.median(steps)) if steps.size else metrics.REFERENCE_FPS


def global_rotations(pose: NDArray[np.floating]) -> Array:
    """(N, 22, 3) axis-angles relative to the parent -> (N, 22, 3, 3) in the frame of the root."""
    rotations = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)).as_matrix().reshape(-1, 22, 3, 3)
    for joint in range(1, 22):
        rotations[:, joint] = rotations[:, PARENTS[joint]] @ rotations[:, joint]
    return rotations


def near_people(points: NDArray[np.floating], people: Sequence[Array],
                radius_m: float = _NEAR_PERSON_M) -> NDArray[np.bool_]:
    """(N, 3) points -> (N,) True within `radius_m` of a bone of one of the people ((22, 3) joints, same frame)."""
    near = np.zeros(len(points), bool)
    for joints in people:
        low, high = np.nanmin(joints, axis=0) - radius_m, np.nanmax(joints, axis=0) + radius_m
        inside = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1) & ~near)
        for child in range(1, 22):
            start, end = joints[PARENTS[child]], joints[child]
            if not len(inside) or not np.isfinite(start + end).all():
                continue
            bone = end - start
            along = np.clip((points[inside] - start) @ bone / max(float(bone @ bone), 1e-12), 0.0, 1.0)
            close = np.linalg.norm(points[inside] - start - along[:, None] * bone, axis=1) <= radius_m
            near[inside[close]] = True
            inside = inside[~close]
    return near
