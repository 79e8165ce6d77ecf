"""A rig of cameras and the people it sees against their truth: the metrics of HSfM's protocol, scene by scene.

Prediction and truth may be in different worlds and of different scale; every metric brings its own alignment. The
protocol gives the identities of people. Here they are found: a fused person is compared with a true one by where both
appear in the images, each seen through the cameras of its own world. That needs no alignment, so a rig that is wrong as
a whole still knows who is who.

Values of a scene are means over its time steps, each the mean over what that step measures; scenes are averaged
plainly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from human_scene_ros.body.skeleton import HEAD, NECK
from human_scene_ros.errors import ConfigError
from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.alignment import umeyama
from human_scene_ros.evaluation.matching import match_nearest, pair_association, precision_recall_f1
from human_scene_ros.evaluation.sequence import JOINTS, Rows, SequenceResult, frame_rate
from human_scene_ros.evaluation.synthetic import MATCH_LIMIT
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.evaluation.values import DEGENERATE, NO_MATCH, NO_TRUTH, TOO_SHORT, Metric
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert

Array = NDArray[np.float64]

_SHOULDERS = (16, 17)
_ANGLES_DEG = (10.0, 15.0)  # of RRA: HAMSt3R prints 10, HSfM 15
_SHARES_PCT = (10.0, 15.0)  # of CCA, of the scene's scale

_PEOPLE = {"rig_w_mpjpe_m": "se3 on the camera centres", "rig_w_mpjpe_pose_m": "se3 on centres and axes of the cameras",
           "rig_ga_mpjpe_m": "sim3 on all people of a time step", "rig_pa_mpjpe_m": "sim3 per person and time step"}
_CAMERAS = {"rig_te_m": "se3 on the camera centres", "rig_s_te_m": "sim3 on the camera centres",
            "rig_ae_deg": "between pairs of cameras",
            **{f"rig_rra_{k:.0f}deg": "between pairs of cameras" for k in _ANGLES_DEG},
            **{f"rig_cca_{k:.0f}pct": "se3 on the camera centres" for k in _SHARES_PCT},
            **{f"rig_s_cca_{k:.0f}pct": "sim3 on the camera centres" for k in _SHARES_PCT}}


@dataclasses.dataclass(frozen=True)
class People:
    """People of one moment.

    Args:
        number: (N,) who they are.
        joints_world: (N, 22, 3) metres; NaN where unknown.
    """

    number: NDArray[np.int64]
    joints_world: Array


@dataclasses.dataclass(frozen=True)
class SeenPeople:
    """The detections of all cameras around one moment.

    Args:
        camera: (D,) names.
        head_uv_px: (D, 2) in the images.
        number: (D,) fused person that each was taken for; -1 = nobody.
    """

    camera: tuple[str, ...]
    head_uv_px: Array
    number: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class RigMoment:
    """One time step.

    Args:
        stamp_ns: Of the truth.
        cameras: Intrinsics by name.
        T_world_true: Camera -> (4, 4) in the true world.
        T_world_estimate: Camera -> (4, 4) in the estimate's world; cameras whose pose is not known are left out.
        truth: Everybody who is there.
        estimate: Everybody who was found; not who is only extrapolated.
        seen: What each camera saw and for whom it was taken; None = nobody tells.
    """

    stamp_ns: int
    cameras: Mapping[str, PinholeCamera]
    T_world_true: Mapping[str, Array]
    T_world_estimate: Mapping[str, Array]
    truth: People
    estimate: People
    seen: SeenPeople | None = None


@dataclasses.dataclass
class _Found:
    """One person over time: rows of true and estimated joints, (22, 3) each."""

    frames: list[int] = dataclasses.field(default_factory=list)
    true: list[Array] = dataclasses.field(default_factory=list)
    estimate: list[Array] = dataclasses.field(default_factory=list)


class RigEvaluation:
    """Accumulates one scene, moment by moment.

    Args:
        chunk: Frames per alignment of W-MPJPE and WA-MPJPE over time.
        gate_m: Pelvises farther apart never match in the tracking scores.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(self, chunk: int = 100, gate_m: float = 0.5) -> None:
        if chunk < 2 or gate_m <= 0:
            raise ConfigError(f"rig evaluation: chunk = {chunk}, gate_m = {gate_m}: expected at least 2, above 0")
        self._chunk, self._gate = chunk, gate_m
        self._frames: Rows = {name: [] for name in (
            "frame", "stamp_ns", "people_true", "detections", "matched", *_PEOPLE, *_CAMERAS)}
        self._people: Rows = {name: [] for name in (
            "frame", "stamp_ns", "person_id", "track_id", "rig_w_mpjpe_m", "rig_pa_mpjpe_m", "true_x_m", "true_y_m",
            "estimate_x_m", "estimate_y_m")}
        self._tracking = TrackingAccumulator(gate_m)
        self._tracked = 0
        self._found: dict[int, _Found] = {}
        self._cameras: set[str] = set()
        self._counts = np.zeros(3, int)  # right, false, missed
        self._joint_errors: list[tuple[Array, Array]] = []
        self._pairs: NDArray[np.int64] | None = None  # of detections: right, taken for one, are one, all

    @property
    def frame_count(self) -> int:
        """Moments so far."""
        return len(self._frames["frame"])

    def badness(self) -> float:
        """How bad the last moment was, for choosing what to show: millimetres per person, 400 for a missed one."""
        matched = self._frames["matched"][-1]
        missed = self._frames["people_true"][-1] - matched
        error_mm = min(1e3 * self._frames["rig_w_mpjpe_pose_m"][-1], 400.0) if matched else 0.0
        error_mm = error_mm if math.isfinite(error_mm) else 0.0
        return float((400.0 * missed + error_mm * matched) / max(1, missed + matched))

    def add(self, moment: RigMoment) -> None:
        """One time step."""
        frame = self.frame_count
        names = [name for name in moment.cameras if name in moment.T_world_true and name in moment.T_world_estimate]
        self._cameras |= set(names)
        visible = visible_people(moment)
        truth = People(moment.truth.number[visible], moment.truth.joints_world[visible])
        pairs = match_in_images(moment, truth)
        row: dict[str, Any] = dict.fromkeys((*_PEOPLE, *_CAMERAS), math.nan)
        row.update(frame=frame, stamp_ns=moment.stamp_ns, people_true=len(truth.number),
                   detections=len(moment.estimate.number), matched=len(pairs))
        self._counts += (len(pairs), len(moment.estimate.number) - len(pairs), len(truth.number) - len(pairs))
        if moment.seen is not None:
            counts = np.array(_pair_counts(moment, moment.seen), np.int64)
            self._pairs = counts if self._pairs is None else self._pairs + counts
        true_poses, poses = (np.array([side[name] for name in names], np.float64).reshape(-1, 4, 4)
                             for side in (moment.T_world_true, moment.T_world_estimate))
        if len(names) >= 2:
            row.update(_camera_values(poses, true_poses))
        to_truth = umeyama(metrics.camera_axis_tips(poses), metrics.camera_axis_tips(true_poses), with_scale=False) \
            if names else None
        errors = self._person_errors(moment, truth, pairs, poses, true_poses)
        row.update({f"rig_{key}_m": metrics.nanmean(value) for key, value in errors.items()})
        self._add_people(frame, moment, truth, pairs, errors, to_truth)
        for name, value in row.items():
            self._frames[name].append(value)

    def _person_errors(self, moment: RigMoment, truth: People, pairs: Sequence[tuple[int, int]], poses: Array,
                       true_poses: Array) -> dict[str, Array]:
        """Metric -> (P, J) metres over the joints that are known of all matched people; empty if that is too little."""
        ours = moment.estimate.joints_world[[i for i, _ in pairs]]
        true = truth.joints_world[[j for _, j in pairs]]
        known = np.asarray(np.isfinite(true).all(axis=(0, 2)))
        if not pairs or known.sum() < 3 or not len(poses):
            return {}
        ours, true = ours[:, known], true[:, known]
        errors = metrics.multiview_pose_errors_m(ours, true, poses[:, :3, 3], true_poses[:, :3, 3])
        errors["w_mpjpe_pose"] = metrics.w_mpjpe_pose_m(ours, true, poses, true_poses)
        if known.all():
            self._joint_errors.append((errors["ga_mpjpe"], errors["pa_mpjpe"]))
        return errors

    def _add_people(self, frame: int, moment: RigMoment, truth: People, pairs: Sequence[tuple[int, int]],
                    errors: Mapping[str, Array], to_truth: Any) -> None:
        partner = {j: i for i, j in pairs}
        order = {j: k for k, (_, j) in enumerate(pairs)}
        roots = [_root(joints) for joints in truth.joints_world]
        ours = moment.estimate.joints_world[:, 0]
        moved = np.full((len(ours), 3), np.nan)
        if to_truth is not None and len(ours):
            moved = to_truth.apply(ours)
        for j, number in enumerate(truth.number.tolist()):
            values: dict[str, Any] = {"frame": frame, "stamp_ns": moment.stamp_ns, "person_id": number,
                                      "track_id": None, "true_x_m": float(roots[j][0]), "true_y_m": float(roots[j][1])}
            if j in partner:
                i = partner[j]
                values.update(track_id=int(moment.estimate.number[i]), estimate_x_m=float(moved[i, 0]),
                              estimate_y_m=float(moved[i, 1]))
                for key, name in (("rig_w_mpjpe_m", "w_mpjpe"), ("rig_pa_mpjpe_m", "pa_mpjpe")):
                    if name in errors:
                        values[key] = metrics.nanmean(errors[name][order[j]])
                found = self._found.setdefault(number, _Found())
                found.frames.append(frame)
                found.true.append(truth.joints_world[j])
                found.estimate.append(moment.estimate.joints_world[i])
            for name, column in self._people.items():
                column.append(values.get(name, math.nan))
        if to_truth is not None and np.isfinite(moved).all():
            self._tracked += 1
            usable = [j for j, root in enumerate(roots) if np.isfinite(root).all()]
            self._tracking.add(truth.number[usable], np.array([roots[j] for j in usable]).reshape(-1, 3),
                               moment.estimate.number, moved)

    # --- the whole scene

    def finish(self) -> SequenceResult:
        """All metrics; call once, after the last moment."""
        values: dict[str, Metric] = {}
        right, false, missed = (int(v) for v in self._counts)
        truths = right + missed
        for name, score, weight in zip(("precision", "recall", "f1"), precision_recall_f1(right, false, missed),
                                       (right + false, truths, right + 0.5 * (false + missed)), strict=True):
            values[f"person_{name}"] = Metric.of(score, "matching: heads in all images", weight,
                                                 undefined=NO_MATCH if truths else NO_TRUTH)
        values["coverage"] = Metric.of(right / truths if truths else math.nan, "matching: heads in all images", truths)
        for name, how in {**_PEOPLE, **_CAMERAS}.items():
            column = np.array(self._frames[name], np.float64)
            reason = NO_TRUTH if not truths and name in _PEOPLE else NO_MATCH if name in _PEOPLE and not right \
                else DEGENERATE if len(self._cameras) >= 2 else NO_MATCH
            values[name] = Metric.of(metrics.nanmean(column), how, int(np.isfinite(column).sum()), "sequences", reason)
        self._finish_association(values)
        self._finish_tracking(values, truths)
        self._finish_motion(values, NO_TRUTH if not truths else NO_MATCH)
        counts: dict[str, int | float] = {
            "frames": self.frame_count, "frames_with_truth": sum(n > 0 for n in self._frames["people_true"]),
            "people_true": truths, "people_matched": right, "persons": len(set(self._people["person_id"])),
            "segments": 1, "cameras": len(self._cameras), "fps": frame_rate(self._frames["stamp_ns"])}
        return SequenceResult(values, {}, self._frames, self._people, self._joints(),
                              {"from_m": [], "to_m": [], "abs_rel": [], "count": []}, counts)

    def _finish_tracking(self, values: dict[str, Metric], truths: int) -> None:
        scores = self._tracking.result()
        how = f"gate {self._gate:g} m after se3 on centres and axes of the cameras"
        reason = NO_TRUTH if not truths else DEGENERATE
        for name in ("idf1", "idp", "idr", "mota"):
            values[name] = Metric.of(getattr(scores, name) if self._tracked else math.nan, how, truths,
                                     undefined=reason)
        values["motp_m"] = Metric.of(scores.motp, how, max(truths - scores.misses, 0), undefined=NO_MATCH)
        for name in ("switches", "fragmentations"):
            values[f"track_{name}"] = Metric(float(getattr(scores, name)), "none", 1.0, "sum")

    def _finish_association(self, values: dict[str, Metric]) -> None:
        """Over all pairs of detections of different cameras, as CHROMM counts them."""
        if self._pairs is None:
            return
        right, positive, same, pairs = (int(v) for v in self._pairs)
        precision, recall, _ = precision_recall_f1(right, positive - right, same - right)
        accuracy = (pairs - positive - same + 2 * right) / pairs if pairs else math.nan
        for name, value, weight in (("precision", precision, positive), ("recall", recall, same),
                                    ("accuracy", accuracy, pairs)):
            values[f"association_{name}"] = Metric.of(value, "pairs of detections of two cameras", weight,
                                                      undefined=NO_MATCH)

    def _finish_motion(self, values: dict[str, Metric], undefined: str) -> None:
        """Motion of every person in the world: the best match of each moment."""
        measured: dict[str, list[Array]] = {"wa_mpjpe_mm": [], "w_mpjpe_mm": [], "rte_pct": []}
        for person in self._found.values():
            true, ours = np.stack(person.true), np.stack(person.estimate)
            known = np.asarray(np.isfinite(true).all(axis=(0, 2)))
            if known.sum() < 3:
                continue
            measured["wa_mpjpe_mm"].append(metrics.wa_mpjpe_mm(ours[:, known], true[:, known], self._chunk))
            measured["w_mpjpe_mm"].append(metrics.w_mpjpe_mm(ours[:, known], true[:, known], self._chunk))
            if known[0]:
                measured["rte_pct"].append(metrics.rte_percent(ours[:, 0], true[:, 0]))
        for name, how in (("wa_mpjpe_mm", f"sim3 per {self._chunk} frames"),
                          ("w_mpjpe_mm", f"sim3 on 2 frames per {self._chunk}"),
                          ("rte_pct", "se3 per person, of the path length")):
            errors = np.concatenate([np.empty(0), *measured[name]])
            known_errors = errors[np.isfinite(errors)]
            short = TOO_SHORT if name == "rte_pct" and measured[name] else undefined
            values[name] = Metric.of(metrics.nanmean(known_errors), how, len(known_errors), undefined=short)

    def _joints(self) -> Rows:
        rows: Rows = {"joint": list(JOINTS), "ga_mpjpe_mm": [math.nan] * 22, "pa_mpjpe_mm": [math.nan] * 22,
                      "count": [0] * 22}
        if self._joint_errors:
            together, alone = (np.concatenate([e[k] for e in self._joint_errors]) for k in (0, 1))
            rows["ga_mpjpe_mm"] = [1e3 * metrics.nanmean(together[:, j]) for j in range(22)]
            rows["pa_mpjpe_mm"] = [1e3 * metrics.nanmean(alone[:, j]) for j in range(22)]
            rows["count"] = [len(alone)] * 22
        return rows


# --- parts -------------------------------------------------------------------------------------------------------

def visible_people(moment: RigMoment) -> NDArray[np.bool_]:
    """(G,) True for people whose head (see `_anchors`) is inside the image of a camera; walls are not asked."""
    seen = np.zeros(len(moment.truth.number), bool)
    for name, camera in moment.cameras.items():
        if name in moment.T_world_true:
            uv = _seen_at(camera, moment.T_world_true[name], _anchors(moment.truth.joints_world)[0])
            with np.errstate(invalid="ignore"):
                seen |= ((uv >= 0.0) & (uv <= (camera.width - 1, camera.height - 1))).all(axis=1)
    return seen


def match_in_images(moment: RigMoment, truth: People) -> list[tuple[int, int]]:
    """(estimate, true) pairs: Hungarian by the median over the cameras of the distance of their heads in the image.

    A camera takes part for a true person whose head is inside its image; pairs farther apart than `MATCH_LIMIT` of the
    width never match.
    """
    ours = moment.estimate.joints_world
    if not len(ours) or not len(truth.number):
        return []
    anchors, joints = _anchors(truth.joints_world)
    own = np.stack([ours[:, part].mean(axis=1) for part in joints], axis=1)  # (M, G, 3): the same joints
    distances = []
    for name, camera in moment.cameras.items():
        if name not in moment.T_world_true or name not in moment.T_world_estimate:
            continue
        true_uv = _seen_at(camera, moment.T_world_true[name], anchors)
        with np.errstate(invalid="ignore"):
            inside = np.asarray(((true_uv >= 0.0) & (true_uv <= (camera.width - 1, camera.height - 1))).all(axis=1))
        uv = _seen_at(camera, moment.T_world_estimate[name], own.reshape(-1, 3)).reshape(*own.shape[:2], 2)
        apart = np.linalg.norm(uv - true_uv[None], axis=-1) / camera.width
        apart = np.where(np.isfinite(apart), apart, np.inf)  # behind the camera
        distances.append(np.where(inside[None], apart, np.nan))
    if not distances:
        return []
    stacked = np.stack(distances)
    # The median without its warning for people whom no camera has inside.
    cost = np.array([[np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else np.inf
                      for column in row.T] for row in stacked.transpose(1, 0, 2)])
    near = cost <= MATCH_LIMIT
    # A forbidden pair costs more than all allowed ones together: first as many pairs as possible.
    rows, columns = linear_sum_assignment(np.where(near, cost, 10.0 * (1 + min(cost.shape))))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if near[i, j]]


def _pair_counts(moment: RigMoment, seen: SeenPeople) -> tuple[int, int, int, int]:
    """Counts of `pair_association`; who a detection is, its head in the image says."""
    joints = moment.truth.joints_world
    # Data sets of named joints have no head; the neck or the middle of the shoulders is near enough for the limit.
    heads = np.where(np.isnan(joints[:, HEAD]), np.where(np.isnan(joints[:, NECK]), joints[:, list(_SHOULDERS)].mean(
        axis=1), joints[:, NECK]), joints[:, HEAD])
    names = list(moment.cameras)
    true = np.full(len(seen.camera), -1)
    for name in names:
        rows = [k for k, camera in enumerate(seen.camera) if camera == name]
        if not rows or name not in moment.T_world_true:
            continue
        uv = _seen_at(moment.cameras[name], moment.T_world_true[name], heads)
        for i, j in match_nearest(seen.head_uv_px[rows], uv, MATCH_LIMIT * moment.cameras[name].width):
            true[rows[i]] = moment.truth.number[j]
    view = np.array([names.index(camera) for camera in seen.camera], np.int64)
    return pair_association(seen.number, true, view).counts


def _anchors(joints: Array) -> tuple[Array, list[list[int]]]:
    """(G, 3) point of each person that is looked for, and the joints it is the mean of: the head, else all known."""
    chosen = []
    for person in joints:
        known = np.flatnonzero(np.isfinite(person).all(axis=1)).tolist()
        chosen.append([HEAD] if HEAD in known else known or [0])
    return np.array([person[part].mean(axis=0) for person, part in zip(joints, chosen, strict=True)]).reshape(
        -1, 3), chosen


def _seen_at(camera: PinholeCamera, T_world_camera: Array, points: Array) -> Array:
    """(N, 3) world -> (N, 2) pixels; NaN behind the camera."""
    return np.asarray(camera.project(apply(invert(T_world_camera), points)), np.float64)


def _camera_values(poses: Array, true: Array) -> dict[str, float]:
    """What one moment says about the cameras; NaN where the alignment is degenerate."""
    errors = metrics.camera_rig_errors(poses, true)
    values = {"rig_te_m": metrics.nanmean(errors["te_m"]), "rig_s_te_m": metrics.nanmean(errors["s_te_m"]),
              "rig_ae_deg": float(errors["ae_deg"].mean())}
    values |= {f"rig_rra_{k:.0f}deg": float((errors["ae_deg"] < k).mean()) for k in _ANGLES_DEG}
    for name, key in (("cca", "te_m"), ("s_cca", "s_te_m")):
        known = bool(np.isfinite(errors[key]).all())
        for k in _SHARES_PCT:
            share = float((errors[key] < k / 100.0 * errors["scene_scale_m"]).mean())
            values[f"rig_{name}_{k:.0f}pct"] = share if known else math.nan
    return values


def _root(joints: Array) -> Array:
    """(3,) pelvis; where it is unknown the mean of the hips; NaN without these."""
    return joints[0] if np.isfinite(joints[0]).all() else np.asarray(joints[[1, 2]].mean(axis=0))
