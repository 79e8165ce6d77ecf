"""Where one camera stands relative to another, from bodies whose distances and facings are poor but rays good.

Only joints on the body's axis count, for a wrong facing does not move them: pelvis, neck, head. A rigid fit to a few
moments of one track of each camera is a hypothesis; what decides is how well the rays of all detections of all moments
meet, where they meet being only roughly where both cameras say (LO-RANSAC, Chum, Matas and Kittler 2003, with the
epipolar angle of Lee and Civera 2020 as the error). Nobody has to know who is who; the best hypothesis tells. What the
clocks are off is scanned with the hypotheses and refined with the pose.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.bundle import adjust
from human_scene_ros.fusion.extrinsics import (
    ExtrinsicsStatus,
    PairExtrinsics,
    PeopleTracks,
    fit_rigid,
    mean_velocity,
    moves,
    resampled,
)
from human_scene_ros.geometry.transform import apply, invert, make_transform, rotation_angle

Array = NDArray[np.float64]
Index = NDArray[np.int64]

AXIS_JOINTS = (0, 3, 4)
"""Of `TORSO_JOINTS`: pelvis, neck, head."""
_RAY_RAD = math.radians(1.5)
_DEPTH_SIGMA = 0.6  # of the logarithm of a distance
_MAX_LOG_DEPTH = 0.6
_WORST = 4.0  # a pair of detections costs no more
_MATCHED = 2.5
_MOMENTS = 4
_TRIES = 400
_SCAN_STEP_S, _SCAN_TRIES = 0.1, 60  # somebody who walks meets the rays of that moment within the tolerance
_DOUBTED_CLOCK = 0.02  # of the worth
_VELOCITY_S = 0.1  # velocities are differences over twice that
_OFFSET_INFORMATION = 2e4  # 20 moments that are wrong alike by 3 px, against clocks 0.1 s apart
_REFINED, _ROUNDS, _ITERATIONS = 4, 3, 6
_FEW = 60  # moments that rank the hypotheses
_MAX_POINTS = 200
_SHORTEST = 8
_MIN_MATCHES = 60
_MIN_SHARE = 0.5  # of the detections that could have a partner
_MAX_RIVAL = 0.85  # the next best pose over the best: people who stand still, and ghosts, fit many
_OTHER_RAD = math.radians(30.0)
_MIN_SPREAD_M = 0.3
_FOCAL_PX = 800.0
_SIGMA_SHARE, _SIGMA_RAD = 0.15, math.radians(5.0)  # of the baseline, measured with the weights that ship


@dataclasses.dataclass(frozen=True)
class _Meetings:
    """Every detection of a beside every one of b at the same moment.

    Args:
        x: (n, 3, 3) axis joints in a.
        y: (n, 3, 3) in b.
        y_velocity: (n, 3, 2) of x / z and y / z in b, per second; 0 where unknown.
        track: (n, 2) tracks of a and b.
        of_a: (n,) number of the detection of a.
        of_b: (n,).
        time: (n,) index of the moment.
    """

    x: Array
    y: Array
    y_velocity: Array
    track: Index
    of_a: Index
    of_b: Index
    time: Index

    def take(self, rows: NDArray[np.bool_]) -> _Meetings:
        """The chosen rows."""
        return _Meetings(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class _Settled:
    """A hypothesis after refinement.

    Args:
        worth: How many detections find a partner.
        T_b_a: (4, 4).
        offset_s: Of the clock of b.
        meetings: At that offset.
        matched: Those of mutual best partners.
        points: (n, 3) pelvises in a, where rays meet.
    """

    worth: float
    T_b_a: Array
    offset_s: float
    meetings: _Meetings
    matched: Index
    points: Array


def pose_from_rays(a: PeopleTracks, b: PeopleTracks, *, max_offset_s: float = 0.5, seed: int = 0) -> PairExtrinsics:
    """T_a_b and the clock offset of b from people seen by both cameras.

    Args:
        a: First camera, torso joints; many short tracks are welcome.
        b: Second camera.
        max_offset_s: Half the range of the scan.
        seed: Of the RANSAC.

    Returns:
        As `pose_from_people`; the length of its translation is as good as the distances are.
    """
    rng = np.random.default_rng(seed)
    observable = moves(a) and moves(b)
    steps = int(round(max_offset_s / _SCAN_STEP_S)) if observable else 0
    starts: list[tuple[float, float, Array]] = []
    for offset_s in (_SCAN_STEP_S * k for k in range(-steps, steps + 1)):
        meetings = _meetings(a, b, offset_s)
        moments = np.unique(meetings.time)
        few = meetings.take(np.isin(meetings.time, moments[::max(len(moments) // _FEW, 1)]))
        tried, degenerate = _hypotheses(meetings, _TRIES if not steps else _SCAN_TRIES, rng)
        if degenerate:
            return _failed(ExtrinsicsStatus.DEGENERATE, len(a.joints))
        starts += [(_score(T, few, 2.0 * _RAY_RAD)[0], offset_s, T) for T in tried]
    if not starts:
        return _failed(ExtrinsicsStatus.TOO_FEW_FRAMES, len(a.joints))
    starts.sort(key=lambda start: -start[0])
    in_step = next((start for start in starts if start[1] == 0.0), starts[0])
    chosen = [in_step, *[start for start in starts if start is not in_step][:_REFINED - 1]]
    settled = [_settled(a, b, T, offset_s, observable, rng) for _, offset_s, T in chosen]
    # Poor bodies fit many clocks almost alike, each with a pose of its own: stamps are believed until that is clear.
    best = max(settled, key=lambda s: s.worth * (1.0 if abs(s.offset_s) <= _SCAN_STEP_S else 1.0 - _DOUBTED_CLOCK))
    T_b_a, meetings, matched, points = best.T_b_a, best.meetings, best.matched, best.points
    others = [start for start in starts if _turn(start[2], T_b_a) > _OTHER_RAD][:_REFINED]
    rivals = (_settled(a, b, T, offset_s, observable, rng) for _, offset_s, T in others)
    rival = max((other.worth for other in rivals if _turn(other.T_b_a, T_b_a) > _OTHER_RAD), default=0.0)
    possible = min(len(np.unique(meetings.of_a)), len(np.unique(meetings.of_b)))
    share, T_a_b = len(matched) / possible, invert(T_b_a)
    pelvis = points[np.isfinite(points).all(axis=1)]
    spread = 0.0
    if len(pelvis) > 3:
        spread = float(np.linalg.svd(pelvis - pelvis.mean(axis=0), compute_uv=False)[1]) / math.sqrt(len(pelvis))
    if len(matched) < _MIN_MATCHES:
        return _failed(ExtrinsicsStatus.TOO_FEW_FRAMES, len(a.joints))
    if share < _MIN_SHARE or rival > _MAX_RIVAL * best.worth or spread < _MIN_SPREAD_M:
        return _failed(ExtrinsicsStatus.INCONSISTENT, len(a.joints))
    there, here = meetings.y[matched].reshape(-1, 3), meetings.x[matched].reshape(-1, 3)
    distance = np.linalg.norm(apply(T_a_b, there) - here, axis=1)
    sigma = np.repeat([_SIGMA_SHARE * float(np.linalg.norm(T_a_b[:3, 3])), _SIGMA_RAD], 3)
    votes = np.zeros((len(a.joints), len(b.joints)), np.int64)
    np.add.at(votes, tuple(meetings.track[matched].T), 1)
    pairing = tuple(int(row.argmax()) if row.max() >= _SHORTEST and votes[:, row.argmax()].argmax() == i else -1
                    for i, row in enumerate(votes))
    return PairExtrinsics(T_a_b, best.offset_s, observable, ExtrinsicsStatus.OK, len(matched), share,
                          float(np.sqrt(np.mean(distance**2))), spread, np.diag(sigma**2), pairing)


def agreement(a: PeopleTracks, b: PeopleTracks, T_a_b: Array, offset_s: float, tolerance_rad: float) -> tuple[
        Array, Array]:
    """How well the rays of two cameras agree on whom they see, whoever that is.

    Args:
        a: First camera.
        b: Second camera.
        T_a_b: (4, 4).
        offset_s: Added to stamps of b.
        tolerance_rad: Noise of the angle between two rays and a plane.

    Returns:
        Stamps (by the clock of a) and worth, between 0 and 1, of the detections that find a partner.
    """
    meetings = _meetings(a, b, offset_s)
    worth, matched = _worth(invert(T_a_b), meetings, tolerance_rad)
    return a.stamp_s[meetings.time[matched]], worth


def _failed(status: ExtrinsicsStatus, people: int) -> PairExtrinsics:
    return PairExtrinsics(np.eye(4), 0.0, False, status, 0, 0.0, float("nan"), 0.0, np.full((6, 6), np.nan),
                          (-1,) * people)


def _meetings(a: PeopleTracks, b: PeopleTracks, offset_s: float) -> _Meetings:
    axis = list(AXIS_JOINTS)
    x = np.asarray(a.joints, np.float64)[:, :, axis]
    all_b = np.swapaxes(b.joints[:, :, axis], 0, 1).reshape(len(b.stamp_s), -1, 3)  # all tracks at once
    y, earlier, later = (np.swapaxes(resampled(b.stamp_s + offset_s, all_b, a.stamp_s + by).reshape(
        len(a.stamp_s), -1, len(axis), 3), 0, 1) for by in (0.0, -_VELOCITY_S, _VELOCITY_S))
    in_a, in_b = (np.asarray(np.isfinite(p).all(axis=(2, 3)) & (p[..., 2] > 0.3).all(axis=2)) for p in (x, y))
    i, j, t = np.nonzero(in_a[:, None] & in_b[None])
    before, now, after = (p[j, t, :, :2] / np.maximum(p[j, t, :, 2:], 0.1) for p in (earlier, y, later))
    velocity = mean_velocity(before, now, after, _VELOCITY_S)
    return _Meetings(x[i, t], y[j, t], velocity, np.stack([i, j], axis=1), i * len(a.stamp_s) + t,
                     j * len(a.stamp_s) + t, t)


def _hypotheses(meetings: _Meetings, tries: int, rng: np.random.Generator) -> tuple[Array, bool]:
    """(n, 4, 4) T_b_a by rigid fits to a few moments of one pair of tracks; True where all points lie on lines."""
    _, which, count = np.unique(meetings.track, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    members = [np.flatnonzero(which == k) for k in np.flatnonzero(count >= _SHORTEST)]
    if not members:
        return np.zeros((0, 4, 4)), False
    size = np.array([len(m) for m in members], np.float64)
    chosen = rng.choice(len(members), tries, p=size / size.sum())
    picks = np.array([rng.choice(members[k], _MOMENTS, replace=False) for k in chosen])
    R, t, good = fit_rigid(meetings.x[picks].reshape(tries, -1, 3), meetings.y[picks].reshape(tries, -1, 3))
    apart = good & (np.linalg.norm(t, axis=1) > 0.3)
    return np.array([make_transform(R[k], t[k]) for k in np.flatnonzero(apart)]).reshape(-1, 4, 4), not good.any()


def _score(T_b_a: Array, meetings: _Meetings, tolerance_rad: float) -> tuple[float, Index]:
    """How many detections find a partner (each between 0 and 1), and the meetings of mutual best partners."""
    worth, matched = _worth(T_b_a, meetings, tolerance_rad)
    return float(worth.sum()), matched


def _worth(T_b_a: Array, meetings: _Meetings, tolerance_rad: float) -> tuple[Array, Index]:
    """Worth, between 0 and 1, of the meetings of mutual best partners, and which they are."""
    R, t = T_b_a[:3, :3], T_b_a[:3, 3]
    far = [np.linalg.norm(p, axis=-1) for p in (meetings.x, meetings.y)]
    ray_a, ray_b = (meetings.x / far[0][..., None]) @ R.T, meetings.y / far[1][..., None]
    angle = np.zeros(far[0].shape)
    for one, other in ((ray_a, ray_b), (ray_b, ray_a)):
        normal = np.cross(t, one)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        angle = np.maximum(angle, np.abs((normal * other).sum(axis=-1)))
    cosine, at, bt = (ray_a * ray_b).sum(axis=-1), ray_a @ t, ray_b @ t
    sine = np.maximum(1.0 - cosine**2, 1e-4)
    along = [(cosine * bt - at) / sine, (bt - cosine * at) / sine]
    ahead = (along[0] > 0.2) & (along[1] > 0.2)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_a, log_b = (np.abs(np.log(f / s)) for f, s in zip(far, along, strict=True))
        near = ahead & (log_a < _MAX_LOG_DEPTH) & (log_b < _MAX_LOG_DEPTH)
        cost = (angle / tolerance_rad)**2 + (log_a / _DEPTH_SIGMA)**2 + (log_b / _DEPTH_SIGMA)**2
    cost = np.minimum(np.where(near, cost, _WORST), _WORST).mean(axis=1)
    best = []
    for group in (meetings.of_a, meetings.of_b):
        least = np.full(int(group.max(initial=-1)) + 1, _WORST)
        np.minimum.at(least, group, cost)
        best.append(least)
    matched = np.flatnonzero((cost <= best[0][meetings.of_a]) & (cost <= best[1][meetings.of_b]) & (cost < _MATCHED))
    return 1.0 - cost[matched] / _WORST, matched


def _turn(T: Array, other: Array) -> float:
    return rotation_angle(T[:3, :3] @ other[:3, :3].T)


def _settled(a: PeopleTracks, b: PeopleTracks, T_b_a: Array, offset_s: float, clock_unknown: bool,
             rng: np.random.Generator) -> _Settled:
    """The pose and the clock that bring the rays of matched detections together."""
    points, meetings = np.zeros((0, 3)), _meetings(a, b, offset_s)
    for _ in range(_ROUNDS):
        matched = _score(T_b_a, meetings, 2.0 * _RAY_RAD)[1]
        if len(matched) < _MIN_MATCHES // 2:
            break
        if len(matched) > _MAX_POINTS:
            matched = rng.choice(matched, _MAX_POINTS, replace=False)
        uv = np.stack([p[matched][..., :2] / p[matched][..., 2:] for p in (meetings.x, meetings.y)]) * _FOCAL_PX
        uv = uv.reshape(2, -1, 2)
        velocity = np.stack([np.zeros_like(uv[1]), _FOCAL_PX * meetings.y_velocity[matched].reshape(-1, 2)])
        result = adjust(np.stack([np.eye(4), T_b_a]), uv, np.full((2, 2), _FOCAL_PX), np.zeros((2, 2)),
                        np.ones(uv.shape[:2]), huber_px=8.0, iterations=_ITERATIONS,
                        velocity_px_s=velocity if clock_unknown else None, offset_information=_OFFSET_INFORMATION)
        T_b_a, points = result.T_camera_world[1], result.points_world[::len(AXIS_JOINTS)]
        if clock_unknown:
            offset_s += float(result.offset_s[1])
            meetings = _meetings(a, b, offset_s)
    worth, matched = _score(T_b_a, meetings, _RAY_RAD)
    return _Settled(worth, T_b_a, offset_s, meetings, matched, points)

