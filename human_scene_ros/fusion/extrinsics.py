"""Where one camera stands relative to another, from people that both see.

Tracks are made steady first: samples that few neighbours in time agree with are left out, and local lines through the
others give joints at any time. Joints between two samples must be neither better nor worse than those of a sample, or
offsets that bring samples together (or never do) would win.

`pose_from_people` finds T_a_b and the clock offset together: at each offset of a scan a small RANSAC of
rigid fits to the torso joints of two moments, then alternating refinement of pose and offset with a
redescending weight. A speed correlation is too weak on real noise and is not used. What the data cannot tell
is said in the status: no common motion means no offset, one standing person means a weak pose.

Torso joints (SMPL): 0, 1, 2, 12, 15, 16, 17. Sign: true time of a sample of b = its stamp + `offset_s`.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.optimize import linear_sum_assignment

from human_scene_ros.fusion.rotations import project_to_rotations
from human_scene_ros.geometry.transform import invert, make_transform

Array = NDArray[np.float64]

TORSO_JOINTS = (0, 1, 2, 12, 15, 16, 17)
INLIER_M = 0.20
_MIN_FRAMES = 30
_MIN_RATIO = 0.15
_MIN_SPEED_STD_M_S = 0.1
_MIN_SPREAD_M = 0.15
_STEADY_S, _STEADY_STEPS = 0.12, 2.5  # half the window of a local line: seconds, or steps of the slower camera
_GRID_S = 0.01
_VOTERS_S, _VOTES = 0.25, 0.35  # who has a say on a sample, and the share that must agree with it
_AGREE_M, _AGREE_STEPS, _WALK_M_S = 0.3, 4.0, 2.0
_WIDE_M = (1.0, 0.7, 0.5, 0.35, 0.25, 0.2)
_SCAN_STEP_S = 0.05
_SCAN_MOMENTS = 100
_SETTLED = 4  # best offsets of the scan that are refined
_ALIKE = 1.3
_PAIRINGS = 6
_NEVER_TOGETHER, _FORBIDDEN = 1e3, 1e6  # as costs in metres
_CLEARLY = 0.9  # of the likely offset's cost is what another one may cost at most

_Start = tuple[float, float, Array, Array]
"""Cost, offset of the clock, R, t."""


class ExtrinsicsStatus(enum.IntEnum):
    """How far a pose may be trusted."""

    OK = 0
    LOW_MOTION = 1
    TOO_FEW_FRAMES = 2
    INCONSISTENT = 3
    DEGENERATE = 4


@dataclasses.dataclass(frozen=True)
class PeopleTracks:
    """Torso joints of people in one camera over time.

    Args:
        stamp_s: (T,) rising.
        joints: (P, T, J, 3) in the camera's (or its odometry's) frame, metres; NaN where unseen.
    """

    stamp_s: Array
    joints: Array


@dataclasses.dataclass(frozen=True)
class PairExtrinsics:
    """Result for two cameras.

    Args:
        T_a_b: (4, 4), p_a = T_a_b p_b; identity unless OK or LOW_MOTION.
        offset_s: Added to stamps of b; 0 when not observable.
        offset_observable: Whether people moved enough to see the offset.
        status: See `ExtrinsicsStatus`.
        inliers: Person-frames within `INLIER_M`.
        inlier_ratio: Of the person-frames that overlap in time.
        rms_m: Of the inliers' median joint errors.
        spread_m: Second singular value of the positions, rms; how well the ground is covered.
        covariance: (6, 6) of translation and rotation vector, inflated for LOW_MOTION.
        pairing: Person of b for each person of a, -1 = none.
        rival: What fits best of all, where the likely offset was kept in spite of it.
    """

    T_a_b: Array
    offset_s: float
    offset_observable: bool
    status: ExtrinsicsStatus
    inliers: int
    inlier_ratio: float
    rms_m: float
    spread_m: float
    covariance: Array
    pairing: tuple[int, ...]
    rival: PairExtrinsics | None = None

    @property
    def trusted(self) -> bool:
        """Whether there is a pose."""
        return self.status in (ExtrinsicsStatus.OK, ExtrinsicsStatus.LOW_MOTION)


def fit_rigid(source: NDArray[np.floating], target: NDArray[np.floating],
              weights: NDArray[np.floating] | None = None) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Rigid transforms that map (..., N, 3) points `source` onto `target` (Umeyama 1991, scale 1).

    Returns:
        R: (..., 3, 3); identity where degenerate (points on a line).
        t: (..., 3) between the centroids.
        good: (...) False where degenerate.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    w = np.ones(source.shape[:-1]) if weights is None else np.asarray(weights, np.float64)
    w = (w / np.maximum(w.sum(axis=-1, keepdims=True), 1e-300))[..., None]
    mean_s, mean_t = (w * source).sum(axis=-2), (w * target).sum(axis=-2)
    covariance = np.swapaxes(w * (target - mean_t[..., None, :]), -1, -2) @ (source - mean_s[..., None, :])
    U, D, Vt = np.linalg.svd(covariance)
    sign = np.where(np.linalg.det(U) * np.linalg.det(Vt) < 0.0, -1.0, 1.0)
    U = np.concatenate([U[..., :2], U[..., 2:] * sign[..., None, None]], axis=-1)
    good = D[..., 1] > 1e-9 * D[..., 0]
    R = np.where(good[..., None, None], U @ Vt, np.eye(3))
    return R, mean_t - (R @ mean_s[..., None])[..., 0], good


def pose_from_people(a: PeopleTracks, b: PeopleTracks, *, max_offset_s: float = 0.5, seed: int = 0,
                     pairing: tuple[int, ...] | None = None, likely_offset_s: float | None = None) -> PairExtrinsics:
    """T_a_b and the clock offset of b from people seen by both cameras.

    Args:
        a: First camera.
        b: Second camera; the same joints.
        max_offset_s: Half the range of the scan.
        seed: Of the RANSAC.
        pairing: Person of b for each person of a (-1 = none); None = found by comparing poses, then by trial.
        likely_offset_s: Offset that is kept unless another one explains clearly more: where depths are noisy, the best
            offset of all is noise too. The search is around it. None = search around 0 and take the best.
    """
    rng = np.random.default_rng(seed)
    samples = a, b
    a, b = _steady(a, b)
    observable = moves(a) and moves(b)
    if pairing is not None:
        candidates = [tuple(pairing)]
    elif len(a.joints) == len(b.joints) == 1:
        candidates = [(0,)]
    else:
        candidates = _likely_pairings(a, b)
    range_s, offset = max_offset_s if observable else 0.0, likely_offset_s or 0.0
    few = _thinned(a, _SCAN_MOMENTS)
    scanned = sorted(((_scan(few, b, c, range_s, offset, rng), c) for c in candidates),
                     key=lambda s: s[0][0][0] if s[0] else math.inf)
    best: PairExtrinsics | None = None
    for starts, candidate in scanned[:2]:  # the scan tells wrong pairings from right ones, unless they cost alike
        if best is not None and starts and starts[0][0] > _ALIKE * scanned[0][0][0][0]:
            break
        result = _solve(samples, a, few, b, candidate, starts, range_s, observable, offset, likely_offset_s is not None)
        if best is None or (result.trusted, result.inliers) > (best.trusted, best.inliers):
            best = result
    return best if best is not None else _failed(ExtrinsicsStatus.TOO_FEW_FRAMES, (), observable)


def _failed(status: ExtrinsicsStatus, pairing: tuple[int, ...], observable: bool, inliers: int = 0,
            ratio: float = 0.0) -> PairExtrinsics:
    return PairExtrinsics(np.eye(4), 0.0, observable, status, inliers, ratio, float("nan"), 0.0,
                          np.full((6, 6), np.nan), pairing)


def moves(tracks: PeopleTracks) -> bool:
    """Whether the filtered speed of somebody's root varies by 0.1 m/s: only then it tells the time."""
    for root in tracks.joints[:, :, 0].astype(np.float64):
        known = np.isfinite(root).all(axis=1)
        if known.sum() < 20:
            continue
        t = tracks.stamp_s[known]
        smooth = median_filter(root[known], size=(9, 1), mode="nearest")
        speed = np.linalg.norm(np.diff(smooth, axis=0), axis=1) / np.maximum(np.diff(t), 1e-3)
        window = max(int(round(0.2 / max(float(np.median(np.diff(t))), 1e-3))), 1)
        if float(uniform_filter1d(speed, window).std()) >= _MIN_SPEED_STD_M_S:
            return True
    return False


def _steady(a: PeopleTracks, b: PeopleTracks) -> tuple[PeopleTracks, PeopleTracks]:
    """Steady tracks: a at its own stamps, b densely, both by the same window so that its bias is the same too."""
    steps = [np.median(np.diff(tracks.stamp_s)) for tracks in (a, b) if len(tracks.stamp_s) > 1]
    window_s = max(_STEADY_S, *(_STEADY_STEPS * float(step) for step in steps))
    dense = np.arange(b.stamp_s[0], b.stamp_s[-1] + _GRID_S, _GRID_S) if len(b.stamp_s) else b.stamp_s
    return (PeopleTracks(a.stamp_s, _local_lines(a, a.stamp_s, window_s)),
            PeopleTracks(dense, _local_lines(b, dense, window_s)))


def _local_lines(tracks: PeopleTracks, at: Array, window_s: float) -> Array:
    """(P, T', J, 3) joints at other times: lines through the samples around, with tricube weights (Cleveland, J. Amer.
    Statist. Assoc. 74, 1979); NaN where a side has none."""
    out = np.full((len(tracks.joints), len(at), *tracks.joints.shape[2:]), np.nan)
    for person, joints in enumerate(np.asarray(tracks.joints, np.float64)):
        kept = _agreed(tracks.stamp_s, joints)
        stamp, value = tracks.stamp_s[kept], joints[kept].reshape(len(kept), math.prod(joints.shape[1:]))
        first, last = np.searchsorted(stamp, at - window_s), np.searchsorted(stamp, at + window_s)
        moment, sides = np.zeros((3, len(at))), np.zeros((2, len(at)), bool)
        sums = np.zeros((2, len(at), value.shape[1]))
        for k in range(int((last - first).max(initial=0))):
            inside = first + k < last
            row = np.where(inside, first + k, 0)
            away = (stamp[row] - at) / window_s
            weight = np.where(inside, np.maximum(1.0 - np.abs(away)**3, 0.0)**3, 0.0)
            moment += weight * away**np.arange(3)[:, None]
            sums += (weight * away**np.arange(2)[:, None])[:, :, None] * value[row]
            sides |= np.stack([away < 1e-6, away > -1e-6]) & (weight > 0.05)
        determinant = moment[0] * moment[2] - moment[1]**2
        known = sides.all(axis=0) & (determinant > 1e-3 * moment[0]**2)
        line = (moment[2][known, None] * sums[0][known] - moment[1][known, None] * sums[1][known])
        out[person, known] = (line / determinant[known, None]).reshape(-1, *joints.shape[1:])
    return out


def _agreed(stamp: Array, joints: Array) -> NDArray[np.int64]:
    """Samples that enough of their neighbours in time agree with: nobody jumps there and back."""
    known = np.flatnonzero(np.isfinite(joints).all(axis=(1, 2)))
    at, place = stamp[known], joints[known].mean(axis=1)
    if len(known) < 3:
        return known
    near_m = max(_AGREE_M, _AGREE_STEPS * float(np.quantile(np.linalg.norm(np.diff(place, axis=0), axis=1), 0.25)))
    votes, voters = np.zeros(len(known)), np.zeros(len(known))
    reach = max(int(round(_VOTERS_S / max(float(np.median(np.diff(at))), 1e-3))), 2)
    for k in range(1, min(reach, len(known) - 1) + 1):
        apart_s = at[k:] - at[:-k]
        asked = apart_s < 2.0 * _VOTERS_S
        yes = asked & (np.linalg.norm(place[k:] - place[:-k], axis=1) < near_m + _WALK_M_S * apart_s)
        for ends in (slice(k, None), slice(None, -k)):
            voters[ends] += asked
            votes[ends] += yes
    return known[votes >= _VOTES * voters]


def _thinned(tracks: PeopleTracks, moments: int) -> PeopleTracks:
    """At most so many moments of each person: frames in a row are wrong alike, and tell little more than one."""
    step = max(len(tracks.stamp_s) // moments, 1)
    return PeopleTracks(tracks.stamp_s[::step], tracks.joints[:, ::step])


def _likely_pairings(a: PeopleTracks, b: PeopleTracks) -> list[tuple[int, ...]]:
    """The likeliest pairings of people, best first: by the mean distance of their torsos, each laid upon the other.

    Torsos of adults differ little, so that half a dozen are handed on; the motion decides between them.
    """
    cost = np.zeros((len(a.joints), len(b.joints)))
    for i, j in itertools.product(range(len(a.joints)), range(len(b.joints))):
        moved = resampled(b.stamp_s, b.joints[j], a.stamp_s)
        both = np.isfinite(a.joints[i]).all(axis=(1, 2)) & np.isfinite(moved).all(axis=(1, 2))
        if not both.any():
            cost[i, j] = _NEVER_TOGETHER
            continue
        x, y = a.joints[i][both].astype(np.float64), moved[both]
        R, t, _ = fit_rigid(y, x)
        cost[i, j] = np.linalg.norm(y @ np.swapaxes(R, -1, -2) + t[:, None] - x, axis=-1).mean()
    return _cheapest(cost, _PAIRINGS)


def _cheapest(cost: Array, count: int) -> list[tuple[int, ...]]:
    """The assignments of least cost, best first (Murty, Operations Research 16(3), 1968); column of each row or -1."""
    def solved(forbidden: NDArray[np.bool_]) -> tuple[float, tuple[int, ...], NDArray[np.bool_]]:
        rows, columns = linear_sum_assignment(np.where(forbidden, _FORBIDDEN, cost))
        chosen = np.full(len(cost), -1)
        chosen[rows] = columns
        return float(np.where(forbidden, _FORBIDDEN, cost)[rows, columns].sum()), tuple(chosen.tolist()), forbidden

    found: list[tuple[int, ...]] = []
    waiting = [solved(np.zeros(cost.shape, bool))]
    while waiting and len(found) < count:
        waiting.sort(key=lambda s: s[:2])
        value, pairing, forbidden = waiting.pop(0)
        if value >= _FORBIDDEN:
            break
        found.append(pairing)
        # What is left, in disjoint parts: the first pairs stay, the next one does not.
        stays = forbidden.copy()
        for i, j in enumerate(pairing):
            if j >= 0:
                without = stays.copy()
                without[i, j] = True
                waiting.append(solved(without))
                kept = stays[i, j]
                stays[i], stays[:, j] = True, True
                stays[i, j] = kept
    return found


def resampled(stamp: Array, joints: NDArray[np.floating], at: Array) -> Array:
    """(T', J, 3) joints at other times, linear; NaN outside and across gaps."""
    joints = np.asarray(joints, np.float64)
    if len(stamp) < 2:
        return np.full((len(at), *joints.shape[1:]), np.nan)
    k = np.clip(np.searchsorted(stamp, at) - 1, 0, len(stamp) - 2)
    step = stamp[k + 1] - stamp[k]
    f = (at - stamp[k]) / np.maximum(step, 1e-9)
    out = joints[k] * (1.0 - f)[:, None, None] + joints[k + 1] * f[:, None, None]
    out[(at < stamp[0] - 1e-9) | (at > stamp[-1] + 1e-9) | (step > 0.5)] = np.nan
    return out


def mean_velocity(before: Array, now: Array, after: Array, step_s: float) -> Array:
    """Central differences; one-sided where a side is NaN, 0 where both are."""
    sides = np.stack([now - before, after - now])
    known = np.isfinite(sides)
    return np.asarray(np.where(known, sides, 0.0).sum(axis=0) / (step_s * np.maximum(known.sum(axis=0), 1)))


def _matched(a: PeopleTracks, b: PeopleTracks, pairing: tuple[int, ...], offset: float) -> tuple[Array, Array]:
    """(n, J, 3) twice: joints of the same person at the same time in a and b."""
    xs, ys = [], []
    for i, j in enumerate(pairing):
        if j < 0:
            continue
        y = resampled(b.stamp_s + offset, b.joints[j], a.stamp_s)
        x = np.asarray(a.joints[i], np.float64)
        both = np.isfinite(x).all(axis=(1, 2)) & np.isfinite(y).all(axis=(1, 2))
        xs.append(x[both])
        ys.append(y[both])
    shape = (0, a.joints.shape[2], 3)
    return np.concatenate([*xs, np.zeros(shape)]), np.concatenate([*ys, np.zeros(shape)])


def _frame_errors(R: Array, t: Array, x: Array, y: Array) -> Array:
    """Median joint error of each frame, metres; batched over leading axes of R."""
    moved = y @ np.swapaxes(R, -1, -2)[..., None, :, :] + t[..., None, None, :]
    return np.median(np.sqrt(((moved - x)**2).sum(axis=-1)), axis=-1)


def _ransac(x: Array, y: Array, tries: int, rng: np.random.Generator) -> tuple[float, Array, Array]:
    """Cost (mean of errors cut at 0.5 m) and the best rigid fit to two random frames."""
    n = len(x)
    pick = rng.integers(0, n, size=(tries, 2))
    R, t, _ = fit_rigid(y[pick].reshape(tries, -1, 3), x[pick].reshape(tries, -1, 3))
    # A third of the frames ranks the tries; the scan needs no more.
    some = np.arange(0, n, max(n // 120, 1))
    cost = np.minimum(_frame_errors(R, t, x[some], y[some]), 0.5).mean(axis=1)
    best = int(np.argmin(cost))
    return float(cost[best]), R[best], t[best]


def _refine(x: Array, y: Array, R: Array, t: Array, steps: int,
            widths: tuple[float, ...] = ()) -> tuple[Array, Array, bool]:
    """Iteratively reweighted fit with weights 1 / (1 + (f / s)^2)^2 of the frames' errors f.

    Args:
        x: (n, J, 3) in a.
        y: (n, J, 3) in b.
        R: Start.
        t: Start.
        steps: With s = 0.15 m.
        widths: Larger s, metres, of the steps before: a start that is far off must not choose who is an outlier.

    Returns:
        R, t, and False where all points lie on a line.
    """
    good = np.array(True)
    for width in (*widths, *[0.15] * steps):
        f = _frame_errors(R, t, x, y)
        w = np.repeat(1.0 / (1.0 + (f / width)**2)**2, x.shape[1])
        R, t, good = fit_rigid(y.reshape(-1, 3), x.reshape(-1, 3), w)
        if not good:
            break
    return R, t, bool(good)


def _robust_cost(f: Array) -> float:
    return float((f**2 / (f**2 + 0.15**2)).mean())


def _scan(a: PeopleTracks, b: PeopleTracks, pairing: tuple[int, ...], range_s: float, around_s: float,
          rng: np.random.Generator) -> list[_Start]:
    """The best rigid fit at each offset of the scan, cheapest first."""
    starts = []
    steps = int(round(range_s / _SCAN_STEP_S))
    for dt in (around_s + _SCAN_STEP_S * k for k in range(-steps, steps + 1)):
        x, y = _matched(a, b, pairing, dt)
        if len(x) >= _MIN_FRAMES:
            cost, R, t = _ransac(x, y, 40 if range_s > 0.0 else 300, rng)
            starts.append((cost, dt, R, t))
    return sorted(starts, key=lambda s: s[0])


def _solve(samples: tuple[PeopleTracks, PeopleTracks], a: PeopleTracks, few: PeopleTracks, b: PeopleTracks,
           pairing: tuple[int, ...], starts: list[_Start], range_s: float, observable: bool, around_s: float,
           around_is_likely: bool) -> PairExtrinsics:
    if not starts:
        return _failed(ExtrinsicsStatus.TOO_FEW_FRAMES, pairing, observable)
    best = min((_settled(few, b, pairing, start, range_s, around_s) for start in starts[:_SETTLED]), key=lambda s: s[0])
    likely = next((start for start in starts if start[1] == around_s), None) if around_is_likely else None

    def judged(settled: _Start) -> PairExtrinsics:
        _, dt, R, t = settled
        x, y = _matched(a, b, pairing, dt)
        R, t, good = _refine(x, y, R, t, 10)
        if not good:
            return _failed(ExtrinsicsStatus.DEGENERATE, pairing, observable)
        return _judge(*_matched(*samples, pairing, dt), R, t, dt, observable, pairing)  # steady tracks flatter

    if likely is not None and range_s > 0.0:
        likely = _settled(few, b, pairing, likely, 0.0, around_s)
        if best[0] > _CLEARLY * likely[0] - 1e-9:
            return dataclasses.replace(judged(likely), rival=judged(best))
    return judged(best)


def _settled(a: PeopleTracks, b: PeopleTracks, pairing: tuple[int, ...], start: _Start, range_s: float,
             around_s: float) -> _Start:
    """Pose and offset refined by turns."""
    _, dt, R, t = start
    x, y = _matched(a, b, pairing, dt)
    R, t, _ = _refine(x, y, R, t, 6, _WIDE_M)
    cost = _robust_cost(_frame_errors(R, t, x, y))
    for step in (0.1, 0.04, 0.01, 0.003) if range_s > 0.0 else ():
        improved = True
        while improved:
            improved = False
            for candidate in (dt - step, dt + step):
                if abs(candidate - around_s) > range_s + 0.05:
                    continue
                x, y = _matched(a, b, pairing, candidate)
                if len(x) < _MIN_FRAMES:
                    continue
                R2, t2, _ = _refine(x, y, R, t, 4)
                value = _robust_cost(_frame_errors(R2, t2, x, y))
                if value < cost - 1e-9:
                    cost, dt, R, t, improved = value, candidate, R2, t2, True
    return cost, dt, R, t


def _judge(x: Array, y: Array, R: Array, t: Array, offset: float, observable: bool,
           pairing: tuple[int, ...]) -> PairExtrinsics:
    f = _frame_errors(R, t, x, y)
    inlier = f < INLIER_M
    count, ratio = int(inlier.sum()), float(inlier.mean())
    if count < _MIN_FRAMES or ratio < _MIN_RATIO:
        status = ExtrinsicsStatus.TOO_FEW_FRAMES if len(f) < _MIN_FRAMES else ExtrinsicsStatus.INCONSISTENT
        return _failed(status, pairing, observable, count, ratio)
    rms = float(np.sqrt(np.mean(f[inlier]**2)))
    roots = x[inlier, 0] - x[inlier, 0].mean(axis=0)
    spread = float(np.linalg.svd(roots, compute_uv=False)[1] / math.sqrt(count))
    status = ExtrinsicsStatus.OK if spread >= _MIN_SPREAD_M else ExtrinsicsStatus.LOW_MOTION
    # Errors last for about ten frames, so that many count as one.
    points = x[inlier].reshape(-1, 3)
    normal = np.zeros((6, 6))
    arms = points - t
    skew = np.zeros((len(arms), 3, 3))
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -arms[:, 2], arms[:, 1], -arms[:, 0]
    skew -= skew.transpose(0, 2, 1)
    jacobian = np.concatenate([np.tile(np.eye(3), (len(arms), 1, 1)), -skew], axis=2)
    normal = np.einsum("nki,nkj->ij", jacobian, jacobian)
    covariance = np.linalg.pinv(normal, hermitian=True) * rms**2 * 10.0 * x.shape[1]
    if status is ExtrinsicsStatus.LOW_MOTION:
        covariance = covariance * 10.0
    return PairExtrinsics(make_transform(project_to_rotations(R), t), offset, observable, status, count, ratio, rms,
                          spread, covariance, pairing)


def tree_of_pairs(pairs: Mapping[tuple[str, str], PairExtrinsics], root: str) -> list[tuple[str, str, bool]]:
    """Edges (a, b, whether b is the new one) of the spanning tree of the best pairs (inliers / rms^2) from the root."""
    known, edges = {root}, []
    while border := [(_weight(pair), key) for key, pair in pairs.items() if (key[0] in known) != (key[1] in known)]:
        a, b = max(border)[1]
        edges.append((a, b, a in known))
        known |= {a, b}
    return edges


def _weight(pair: PairExtrinsics) -> float:
    return pair.inliers / max(pair.rms_m, 1e-3)**2


def offsets_from_pairs(pairs: Mapping[tuple[str, str], PairExtrinsics], root: str) -> dict[str, float]:
    """Seconds to be added to the stamps of every camera whose clock trusted pairs compare with that of `root`.

    Args:
        pairs: (a, b) -> result.
        root: Camera whose clock is right.
    """
    seen = {key: pair for key, pair in pairs.items() if pair.trusted and pair.offset_observable}
    offsets = {root: 0.0}
    for a, b, forth in tree_of_pairs(seen, root):
        if forth:
            offsets[b] = offsets[a] + seen[a, b].offset_s
        else:
            offsets[a] = offsets[b] - seen[a, b].offset_s
    return offsets


def rig_from_pairs(pairs: Mapping[tuple[str, str], PairExtrinsics], root: str) -> dict[str, Array]:
    """T_root_camera of every camera that trusted pairs connect to `root`.

    A spanning tree of the best edges (inliers / rms^2) gives the start; then all poses are averaged over the
    edges until they rest. An edge that contradicts its cycle by more than 5 degrees or 0.3 m is left out.

    Args:
        pairs: (a, b) -> result with T_a_b.
        root: Camera whose frame is the result's.
    """
    edges = {key: pair for key, pair in pairs.items() if pair.trusted}
    weight = {key: _weight(pair) for key, pair in edges.items()}
    poses: dict[str, Array] = {root: np.eye(4)}
    for a, b, forth in tree_of_pairs(edges, root):
        if forth:
            poses[b] = poses[a] @ edges[a, b].T_a_b
        else:
            poses[a] = poses[b] @ invert(edges[a, b].T_a_b)
    usable = {}
    for (a, b), pair in edges.items():
        if a in poses and b in poses:
            difference = invert(poses[a] @ pair.T_a_b) @ poses[b]
            angle = math.acos(max(-1.0, min(1.0, (np.trace(difference[:3, :3]) - 1.0) / 2.0)))
            if math.degrees(angle) < 5.0 and np.linalg.norm(difference[:3, 3]) < 0.3:
                usable[a, b] = pair
    for _ in range(50):
        for name in poses:
            if name == root:
                continue
            votes = [(weight[key], poses[key[0]] @ pair.T_a_b) for key, pair in usable.items() if key[1] == name]
            votes += [(weight[key], poses[key[1]] @ invert(pair.T_a_b)) for key, pair in usable.items()
                      if key[0] == name]
            if votes:
                w = np.array([v for v, _ in votes])
                T = np.stack([pose for _, pose in votes])
                mean = np.einsum("n,nij->ij", w / w.sum(), T)
                poses[name] = make_transform(project_to_rotations(mean[:3, :3]), mean[:3, 3])
    return poses
