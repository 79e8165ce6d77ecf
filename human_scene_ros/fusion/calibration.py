"""Where all cameras of a rig stand, from the people who walked through their shared view.

`PeopleMemory` collects torso joints, `calibrate` turns them into poses and clock offsets: rigid fits of pairs of
cameras, or poses by rays where bodies are too poor for that (`ray_pairs`), a spanning tree and averaging over it, then
the rays of the same joints alone with every camera's clock as one unknown more (bundle adjustment), then the scale that
all depths together ask for. The cameras must stand still meanwhile. Everything is in the optical frame of the first
camera and by its clock.

`poses_from_scene` is the other way: the poses that one recurrent state gave to all cameras of a rig that stands still.

What comes out says how far it may be trusted: see `FoundCamera.status` and `FoundCamera.covariance`.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion.bundle import BundleResult, adjust
from human_scene_ros.fusion.extrinsics import (
    TORSO_JOINTS,
    ExtrinsicsStatus,
    PairExtrinsics,
    PeopleTracks,
    mean_velocity,
    offsets_from_pairs,
    pose_from_people,
    resampled,
    rig_from_pairs,
    tree_of_pairs,
)
from human_scene_ros.fusion.ray_pairs import AXIS_JOINTS, agreement, pose_from_rays
from human_scene_ros.fusion.rotations import project_to_rotations
from human_scene_ros.geometry.transform import invert, make_transform, rotation_angle

Array = NDArray[np.float64]
Pairs = Mapping[tuple[str, str], PairExtrinsics]
Seen = tuple[float, str, NDArray[np.float32]]
"""Stamp in seconds, track, (7, 3) torso joints in the optical frame."""

MAX_TRACKS = 16
"""Of each camera, the longest."""
_PAIRED_TRACKS = 4  # more would multiply the pairings to try
MAX_RAY_ERROR = 0.02
"""Median distance of rays, seen from the camera (radians), above which the people fit no pose: 8 cm at 4 m."""
MAX_WANDER_M, MAX_WANDER_RAD = 0.10, math.radians(3.0)
"""By how much the pose that a shared state gives a camera that stands still may vary."""
_SAME_PLACE_M, _SAME_PLACE_RAD = 0.05, math.radians(2.0)
MAX_SIGMA_M, MAX_SIGMA_RAD = 0.5, math.radians(10.0)
"""Doubt (root of the summed variances) beyond which a pose is not given."""
_SHORTEST = 15
_MAX_MOMENTS = 150
_MIN_RAYS = 30
_FOCAL_PX = 800.0  # rays are adjusted as pixels of such a camera
_CORRELATED_FRAMES = 20.0  # so many frames in a row, and all joints of a frame, share their error
_MAX_TURN_RAD = math.radians(15.0)
_MAX_SHIFT_M = 1.0
_MAX_SCALE = 1.3
_POOR_SLACK = 2.0  # poor bodies: how much farther the start may be off
_POOR_SCALE = 0.15  # and by how much all distances together may be wrong (4 to 19 percent, with the weights that ship)
_POOR_CLOCK_S = 0.02  # and each clock, beyond what its rays say: up to 0.04 s where 6 px are noise
_BLOCKS, _BLOCK_ITERATIONS = 10, 6
_CONTRADICTION_S, _CONTRADICTION_RAD = 0.1, math.radians(5.0)  # between what a pair and what all found
_NOISE_OF_ERROR, _RAY_ERRORS = 3.0, (5e-4, 9e-3)  # of the angle between two rays, from the errors of rays (radians)
_MAX_SCALE_DOUBT = 0.25  # of the distance from the first camera
_CLOCK_SIGMA_S = 0.05  # what the clocks may still be off after the scan of the pairs
MAX_OFFSET_SIGMA_S = 0.03
"""Doubt beyond which a clock offset is not reported."""
TOLD_OFFSET_S = 0.01
"""Clock offset from which on the line of a camera names it."""
_CLOCK_ROUNDS, _CLOCK_SETTLED_S = 3, 1e-3  # somebody walks 1 to 2 mm meanwhile
_VELOCITY_S = 0.1  # velocities are differences over twice that: noise of single frames is no motion
ADVICE = {
    ExtrinsicsStatus.LOW_MOTION: "people covered too little ground for a firm pose; walk through the whole view",
    ExtrinsicsStatus.TOO_FEW_FRAMES: "too little was seen by two cameras at a time; walk where their views overlap",
    ExtrinsicsStatus.INCONSISTENT: "no pose explains what both saw; fewer people at a time, or a longer duration; "
                                   "clocks may be 0.5 s apart at most",
    ExtrinsicsStatus.DEGENERATE: "all that both saw lies on one line; walk through the view",
}
DISPUTED = ("pairs of cameras contradict each other about its pose or clock; walk longer, with more turns, "
            "and bring the clocks into step")
SCENE_ADVICE = {
    ExtrinsicsStatus.TOO_FEW_FRAMES: "too few poses came in its messages; it needs a reconstructor with a pose head",
    ExtrinsicsStatus.INCONSISTENT: "its poses wander although it stands still, or it stands where another one does: "
                                   "are the cameras fed to one recurrent state?",
}


class PeopleMemory:
    """Torso joints of the last seconds, per camera.

    Args:
        cameras: Names.
        keep_s: How long.
    """

    def __init__(self, cameras: Sequence[str], keep_s: float) -> None:
        self._keep_s = keep_s
        self._seen: dict[str, collections.deque[Seen]] = {name: collections.deque() for name in cameras}

    def clear(self) -> None:
        """Time jumped."""
        for seen in self._seen.values():
            seen.clear()

    def add(self, camera: str, stamp_s: float, bodies: Sequence[Any]) -> None:
        """Take one moment of a camera; bodies without joints do not count.

        Args:
            camera: Which.
            stamp_s: When.
            bodies: Objects with `track_id` and flat `joints` in the optical frame, as messages have them.
        """
        seen = self._seen[camera]
        for body in bodies:
            joints = np.array(body.joints, np.float32).reshape(-1, 3)
            if len(joints) > max(TORSO_JOINTS) and np.isfinite(joints).all():
                seen.append((stamp_s, str(body.track_id), joints[list(TORSO_JOINTS)]))
        while seen and seen[0][0] < stamp_s - self._keep_s:
            seen.popleft()

    def tracks(self, cameras: Sequence[str], duration_s: float = 0.0) -> dict[str, PeopleTracks]:
        """The longest tracks of each camera within the last `duration_s` (0 = all that is kept)."""
        newest = max((self._seen[name][-1][0] for name in cameras if self._seen[name]), default=0.0)
        since = newest - (duration_s or math.inf)
        return {name: _tracks([s for s in list(self._seen[name]) if s[0] >= since]) for name in cameras}


class PoseMemory:
    """Poses that the messages of the cameras held in the last seconds.

    Args:
        cameras: Names.
        keep_s: How long.
    """

    def __init__(self, cameras: Sequence[str], keep_s: float) -> None:
        self._keep_s = keep_s
        self._seen: dict[str, collections.deque[tuple[float, Array]]] = {n: collections.deque() for n in cameras}

    def clear(self) -> None:
        """Time jumped, or the state began anew."""
        for seen in self._seen.values():
            seen.clear()

    def add(self, camera: str, stamp_s: float, T_world_camera: Array) -> None:
        """Take one pose."""
        seen = self._seen[camera]
        seen.append((stamp_s, T_world_camera))
        while seen[0][0] < stamp_s - self._keep_s:
            seen.popleft()

    def poses(self, cameras: Sequence[str], duration_s: float = 0.0) -> dict[str, Array]:
        """Camera -> (T, 4, 4) of the last `duration_s` (0 = all that is kept)."""
        newest = max((self._seen[name][-1][0] for name in cameras if self._seen[name]), default=0.0)
        since = newest - (duration_s or math.inf)
        return {name: np.array([T for at, T in list(self._seen[name]) if at >= since]).reshape(-1, 4, 4)
                for name in cameras}


def poses_from_scene(poses: Mapping[str, Array]) -> tuple[FoundCamera, ...]:
    """Where cameras stand that are fed to one recurrent state (CHROMM, arXiv 2603.12789, goes this way).

    A camera is accepted if 90 of 100 of its poses are within 0.10 m and 3 degrees of their middle. Two cameras at one
    place have each a state of their own, for every state begins at its first camera.

    Args:
        poses: Camera -> (T, 4, 4) repeated T_world_camera, all in one world; the first camera is the frame of the rest.
    """
    middles: dict[str, Array] = {}
    spread: dict[str, tuple[float, Array]] = {}
    status = dict.fromkeys(poses, ExtrinsicsStatus.OK)
    for name, all_T in poses.items():
        T = all_T[np.isfinite(all_T).all(axis=(1, 2))]
        if len(T) < _SHORTEST:
            status[name] = ExtrinsicsStatus.TOO_FEW_FRAMES
            continue
        middle = make_transform(project_to_rotations(np.mean(T[:, :3, :3], axis=0)), np.median(T[:, :3, 3], axis=0))
        shift = T[:, :3, 3] - middle[:3, 3]
        turn = Rotation.from_matrix(T[:, :3, :3] @ middle[:3, :3].T).as_rotvec()
        middles[name] = middle
        error = np.concatenate([shift, turn], axis=1)
        spread[name] = float(np.sqrt(np.mean((shift * shift).sum(axis=1)))), (
            error.T @ error / len(T) * min(_CORRELATED_FRAMES / len(T), 1.0))
        wander = np.percentile(np.linalg.norm(shift, axis=1), 90.0), np.percentile(np.linalg.norm(turn, axis=1), 90.0)
        if wander[0] > MAX_WANDER_M or wander[1] > MAX_WANDER_RAD:
            status[name] = ExtrinsicsStatus.INCONSISTENT
    for a, b in itertools.combinations(middles, 2):
        difference = invert(middles[a]) @ middles[b]
        if np.linalg.norm(difference[:3, 3]) < _SAME_PLACE_M and (
                rotation_angle(difference[:3, :3]) < _SAME_PLACE_RAD):
            status[b] = ExtrinsicsStatus.INCONSISTENT
    first = next(iter(poses))
    unknown = float("nan")
    found = []
    for name in poses:
        wrong = status[first] if status[name] is ExtrinsicsStatus.OK else status[name]
        if wrong is not ExtrinsicsStatus.OK and name != first:
            found.append(FoundCamera(name, None, None, unknown, 0, unknown, unknown, wrong, by_scene=True))
            continue
        if name == first:
            found.append(FoundCamera(name, np.eye(4), np.zeros((6, 6)), unknown, 0, 0.0, unknown, ExtrinsicsStatus.OK,
                                     by_scene=True))
            continue
        T_first_camera = invert(middles[first]) @ middles[name]
        axes = np.kron(np.eye(2), middles[first][:3, :3].T)
        covariance = axes @ (spread[first][1] + spread[name][1]) @ axes.T
        # What the first camera's turn is off moves the others on a circle.
        arm = T_first_camera[:3, 3]
        lever = np.array([[0.0, arm[2], -arm[1]], [-arm[2], 0.0, arm[0]], [arm[1], -arm[0], 0.0]])
        covariance[:3, :3] += lever @ (axes @ spread[first][1] @ axes.T)[3:, 3:] @ lever.T
        found.append(FoundCamera(name, T_first_camera, covariance, spread[name][0], len(poses[name]), unknown, unknown,
                                 ExtrinsicsStatus.OK, by_scene=True))
    return tuple(found)


def combined(people: Sequence[FoundCamera], scene: Sequence[FoundCamera]) -> tuple[FoundCamera, ...]:
    """Poses from people, and from the scene where people gave none."""
    return tuple(p if p.T_first_camera is not None else s if s.T_first_camera is not None else p
                 for p, s in zip(people, scene, strict=True))


def _tracks(seen: Sequence[Seen]) -> PeopleTracks:
    counts = collections.Counter(track for _, track, _ in seen)
    chosen = [track for track, count in counts.most_common(MAX_TRACKS) if count >= _SHORTEST]
    stamps = np.unique([stamp for stamp, _, _ in seen])
    joints = np.full((len(chosen), len(stamps), len(TORSO_JOINTS), 3), np.nan)
    for stamp, track, torso in seen:
        if track in chosen:
            joints[chosen.index(track), np.searchsorted(stamps, stamp)] = torso
    return PeopleTracks(stamps, joints)


@dataclasses.dataclass(frozen=True)
class FoundCamera:
    """One camera of a calibrated rig.

    Args:
        name: Camera.
        T_first_camera: (4, 4) its optical frame in that of the first camera; None where nothing was found.
        covariance: (6, 6) of position (m) and rotation vector (rad) along the axes of the first camera, of the last
            step that moved the pose; zeros for the first camera, None where there is no pose.
        rms_m: Of the inlying torso joints of the camera's best pair; NaN unknown.
        inliers: Person-frames behind it.
        offset_s: To be added to its stamps so that they fit the first camera's; NaN where nobody can tell to
            `MAX_OFFSET_SIGMA_S`. The covariance holds what the pose suffers from the doubt about it.
        ray_error: Median distance of its rays from the triangulated joints, radians; NaN where rays were not used.
        status: How far the pose may be trusted. INCONSISTENT with a pose is never given.
        by_scene: The pose is a shared state's; then `rms_m` and `inliers` are of its repetitions.
        disputed: Pairs of cameras contradict each other about it; the covariance holds both.
    """

    name: str
    T_first_camera: Array | None
    covariance: Array | None
    rms_m: float
    inliers: int
    offset_s: float
    ray_error: float
    status: ExtrinsicsStatus
    by_scene: bool = False
    disputed: bool = False

    def line(self) -> str:
        """What a user should know, in one line."""
        if self.T_first_camera is None:
            why = DISPUTED if self.disputed else (SCENE_ADVICE if self.by_scene else ADVICE)[self.status]
            return f"{self.name}: no pose: {why}"
        if not self.inliers:
            return f"{self.name}: keeps its pose"
        if self.by_scene:
            return f"{self.name}: by the scene, rms {100.0 * self.rms_m:.1f} cm over {self.inliers} poses"
        rays = f", rays {math.degrees(self.ray_error):.2f} deg" if math.isfinite(self.ray_error) else ""
        clock = ""
        if abs(self.offset_s) >= TOLD_OFFSET_S:
            clock = f", clock {1e3 * self.offset_s:+.0f} ms: to be added to its stamps (sync.time_offsets.{self.name})"
        return (f"{self.name}: rms {100.0 * self.rms_m:.1f} cm over {self.inliers} person-frames{rays}{clock}"
                + (f"; {ADVICE[self.status]}" if self.status else "") + (f"; {DISPUTED}" if self.disputed else ""))


def calibrate(tracks: Mapping[str, PeopleTracks]) -> tuple[FoundCamera, ...]:
    """Poses of all cameras in the frame of the first one, and what their clocks are off.

    Args:
        tracks: Camera -> people, two cameras or more.
    """
    cameras = list(tracks)
    pairs: dict[tuple[str, str], PairExtrinsics] = {}
    for a, b in itertools.combinations(cameras, 2):
        if len(tracks[a].joints) and len(tracks[b].joints):
            long_a, long_b = (PeopleTracks(t.stamp_s, t.joints[:_PAIRED_TRACKS]) for t in (tracks[a], tracks[b]))
            pairs[a, b] = pose_from_people(long_a, long_b, likely_offset_s=0.0)
    found = _placed(tracks, pairs)
    if all(camera.T_first_camera is not None for camera in found):
        return found
    # Distances or facings are too poor; what fits in spite of that is not to be believed before rays either.
    by_rays = {(a, b): pose_from_rays(tracks[a], tracks[b]) for a, b in pairs}
    good = {key: pair for key, pair in by_rays.items() if pair.status is ExtrinsicsStatus.OK}
    again = _placed(tracks, pairs | good, AXIS_JOINTS) if good else found
    return max(found, again, key=lambda rig: sum(camera.T_first_camera is not None for camera in rig))


def _placed(tracks: Mapping[str, PeopleTracks], pairs: Pairs, joints: Sequence[int] | None = None) -> tuple[
        FoundCamera, ...]:
    """The rig; a camera whose rays do not meet the others' takes no part in placing them."""
    first = next(iter(tracks))
    refused: dict[str, RayPose] = {}
    while True:
        trusted = {key: pair for key, pair in pairs.items() if not set(key) & set(refused)}
        rig = _agreed(tracks, trusted, first, joints)
        worst = max((name for name in rig if name != first and rig[name].ray_error > MAX_RAY_ERROR),
                    key=lambda name: rig[name].ray_error, default=None)
        if worst is None:
            return tuple(_found(name, first, rig | refused, pairs) for name in tracks)
        refused[worst] = rig[worst]


def _agreed(tracks: Mapping[str, PeopleTracks], pairs: Pairs, first: str, joints: Sequence[int] | None) -> dict[
        str, RayPose]:
    """The rig on whom the rays of most detections agree, where pairs contradict what became of them.

    A wrong pair brings its own rays together, and those of a rig that is built upon it at a wrong place and time. So
    the pairs of a contradicted tree are left out by turns. All rigs that come out share the belief by their likelihood
    (Bayesian model averaging, Hoeting et al., Statistical Science 14(4), 1999): the covariance holds them all.
    """
    def placed(kept: Pairs, blocks: bool = True) -> dict[str, RayPose]:
        return refined_by_rays(tracks, rig_from_pairs(kept, first), kept, joints=joints, blocks=blocks)

    def without_one(kept: Pairs, rig: Mapping[str, RayPose]) -> list[Pairs]:
        if not any(_contradicts(pair, rig[a], rig[b]) for (a, b), pair in kept.items() if {a, b} <= set(rig)):
            return []
        tree = tree_of_pairs({key: pair for key, pair in kept.items() if pair.trusted}, first)
        rest = [{key: pair for key, pair in kept.items() if key != (a, b)} for a, b, _ in tree]
        return [r for r in rest if rig_from_pairs(r, first).keys() == rig.keys()]

    rigs, kept = [placed(pairs)], pairs
    worth: list[Array] = []
    tolerance, best = 0.0, 0
    rest = without_one(pairs, rigs[0])
    unbelieved = {key: pair.rival for key, pair in pairs.items() if pair.rival is not None and pair.trusted
                  and pair.rival.trusted and abs(pair.rival.offset_s - pair.offset_s) > _CONTRADICTION_S}
    if rest and unbelieved:  # no pair alone could tell that stamps are wrong; all together may
        rest.append({**pairs, **unbelieved})
    while rest:
        new = [placed(r, blocks=False) for r in rest]
        rigs += new
        if not worth:
            errors = [np.median([pose.ray_error for pose in rig.values()]) for rig in rigs]
            tolerance = _NOISE_OF_ERROR * float(np.clip(np.nan_to_num(errors, nan=math.inf).min(), *_RAY_ERRORS))
            worth = [_worth_of(tracks, rigs[0], tolerance)]
        worth += [_worth_of(tracks, rig, tolerance) for rig in new]
        now = int(np.argmax([w.sum() for w in worth]))
        if now < len(rigs) - len(new):
            break
        best, kept = now, rest[now - len(rigs)]
        rest = without_one(kept, rigs[best])
    if len(rigs) == 1:
        return rigs[0]
    doubt = _rivalry(rigs, worth, best)
    chosen = rigs[0] if best == 0 else placed(kept)
    return {name: dataclasses.replace(pose, rivalry=doubt[name][0],
                                      offset_s=pose.offset_s if doubt[name][1] <= MAX_OFFSET_SIGMA_S else float("nan"))
            for name, pose in chosen.items()}


def _contradicts(pair: PairExtrinsics, a: RayPose, b: RayPose) -> bool:
    """Whether what a pair found by itself is far from what became of it."""
    if not pair.trusted:
        return False
    T_a_b = invert(a.T_root_camera) @ b.T_root_camera
    late = pair.offset_observable and abs(b.clock_s - a.clock_s - pair.offset_s) > _CONTRADICTION_S
    return bool(late or rotation_angle(T_a_b[:3, :3] @ pair.T_a_b[:3, :3].T) > _CONTRADICTION_RAD)


def _worth_of(tracks: Mapping[str, PeopleTracks], rig: Mapping[str, RayPose], tolerance_rad: float) -> Array:
    """(10,) how well rays agree on whom they see, of all pairs of cameras, in tenths of the time."""
    stamps, worth = [np.zeros(0)], [np.zeros(0)]
    for a, b in itertools.combinations(rig, 2):
        at, value = agreement(tracks[a], tracks[b], invert(rig[a].T_root_camera) @ rig[b].T_root_camera,
                              rig[b].clock_s - rig[a].clock_s, tolerance_rad)
        stamps.append(at)
        worth.append(value)
    all_s = np.concatenate([tracks[name].stamp_s for name in rig])
    return np.histogram(np.concatenate(stamps), np.linspace(all_s.min(), all_s.max(), _BLOCKS + 1),
                        weights=np.concatenate(worth))[0]


def _rivalry(rigs: Sequence[Mapping[str, RayPose]], worth: Sequence[Array], best: int) -> dict[
        str, tuple[Array, float]]:
    """What the other rigs add to the best one's doubt: (6, 6) covariance of each pose and sigma of each clock.

    Args:
        rigs: All that were tried.
        worth: (10,) of each, in tenths of the time.
        best: Which one is best.
    """
    # Frames in a row share their error; and a tenth of the time does not decide alone: what it says most is left out.
    gain = (worth[best] - np.array(worth)) * 2.0 / _CORRELATED_FRAMES
    probability = np.exp(-np.maximum(gain.sum(axis=1) - np.maximum(gain.max(axis=1), 0.0), 0.0))
    probability /= probability.sum()
    doubt = {}
    for name, pose in rigs[best].items():
        T = np.array([rig[name].T_root_camera for rig in rigs])
        turn = Rotation.from_matrix(T[:, :3, :3] @ pose.T_root_camera[:3, :3].T).as_rotvec()
        error = np.concatenate([T[:, :3, 3] - pose.T_root_camera[:3, 3], turn], axis=1)
        clock_s = np.array([rig[name].clock_s for rig in rigs]) - pose.clock_s
        doubt[name] = np.einsum("k,ki,kj->ij", probability, error, error), math.sqrt(float(probability @ clock_s**2))
    return doubt


def _found(name: str, first: str, rig: Mapping[str, RayPose], pairs: Pairs) -> FoundCamera:
    mine = {key: pair for key, pair in pairs.items() if name in key}
    key = min((k for k in mine if set(k) <= set(rig)), key=lambda k: (mine[k].status, -mine[k].inliers), default=None)
    if name == first and key is None:  # it stands where it stands
        return FoundCamera(name, np.eye(4), np.zeros((6, 6)), float("nan"), 0, 0.0, float("nan"), ExtrinsicsStatus.OK)
    if key is None or (name != first and rig[name].ray_error > MAX_RAY_ERROR):
        return FoundCamera(name, None, None, float("nan"), 0, float("nan"), float("nan"),
                           _reason(name, rig, mine))
    best, place = mine[key], rig[name]
    covariance = np.zeros((6, 6)) if name == first else place.covariance
    if covariance is None:  # the pair's is along the axes of its first camera
        axes = np.kron(np.eye(2), rig[key[0]].T_root_camera[:3, :3])
        covariance = axes @ best.covariance @ axes.T
    disputed = False
    if place.rivalry is not None:
        disputed = any(np.trace(place.rivalry[k:k + 3, k:k + 3]) > np.trace(covariance[k:k + 3, k:k + 3])
                       for k in (0, 3))
        covariance = covariance + place.rivalry
    # A rig that is too large or small as a whole still brings rays together: doubt along the baseline weighs less.
    baseline = float(np.linalg.norm(place.T_root_camera[:3, 3]))
    along = place.T_root_camera[:3, 3] / max(baseline, 1e-9)
    lengthwise = float(along @ covariance[:3, :3] @ along)
    across = float(np.trace(covariance[:3, :3])) - lengthwise
    if lengthwise > max(MAX_SIGMA_M, _MAX_SCALE_DOUBT * baseline)**2 or across > MAX_SIGMA_M**2 or (
            np.trace(covariance[3:, 3:]) > MAX_SIGMA_RAD**2):
        status = ExtrinsicsStatus.INCONSISTENT if disputed else ExtrinsicsStatus.LOW_MOTION
        return FoundCamera(name, None, None, best.rms_m, best.inliers, float("nan"), place.ray_error, status,
                           disputed=disputed)
    return FoundCamera(name, place.T_root_camera, covariance, best.rms_m, best.inliers, place.offset_s,
                       place.ray_error, best.status, disputed=disputed)


def _reason(name: str, rig: Mapping[str, RayPose], mine: Pairs) -> ExtrinsicsStatus:
    """Why there is no pose: rays that do not meet, or what keeps the camera apart from those that have one."""
    if name in rig:
        return ExtrinsicsStatus.INCONSISTENT
    tried = [pair for key, pair in mine.items() if set(key) - {name} <= set(rig)]
    return max(tried, key=lambda pair: pair.inliers).status if tried else ExtrinsicsStatus.TOO_FEW_FRAMES


# --- rays ----------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class RayPose:
    """A pose after `refined_by_rays`.

    Args:
        T_root_camera: (4, 4).
        covariance: (6, 6) of position and rotation vector along the root's axes; None where the rays did not move it.
        ray_error: Median distance of the camera's rays from the triangulated joints, radians; NaN without any.
        offset_s: To be added to the camera's stamps so that they fit the root's; NaN where nobody can tell.
        clock_s: What was added to them, known or not.
        rivalry: (6, 6) like the covariance and to be added to it: what other rigs say that explain about as much.
    """

    T_root_camera: Array
    covariance: Array | None = None
    ray_error: float = float("nan")
    offset_s: float = float("nan")
    clock_s: float = 0.0
    rivalry: Array | None = None


@dataclasses.dataclass(frozen=True)
class _Rays:
    """The same joints in all cameras; column n of every array is one joint of one person at one time.

    Args:
        uv_px: (V, N, 2) of a camera with focal length `_FOCAL_PX`.
        velocity_px_s: (V, N, 2) of them; 0 where unknown.
        depth: (V, N) that the camera itself says.
        weight: (V, N) 0 = unseen.
        person: (N,).
        stamp_s: (N,).
        share: Of the frames, after thinning.
    """

    uv_px: Array
    velocity_px_s: Array
    depth: Array
    weight: Array
    person: NDArray[np.int64]
    stamp_s: Array
    share: float

    def take(self, columns: NDArray[np.bool_]) -> _Rays:
        """The chosen columns."""
        return _Rays(self.uv_px[:, columns], self.velocity_px_s[:, columns], self.depth[:, columns],
                     self.weight[:, columns], self.person[columns], self.stamp_s[columns], self.share)

    def adjusted(self, T_camera_world: Array, offset_information: float, iterations: int = 50) -> BundleResult:
        """Poses and clocks that bring the rays together."""
        V = len(T_camera_world)
        return adjust(T_camera_world, self.uv_px, np.full((V, 2), _FOCAL_PX), np.zeros((V, 2)), self.weight,
                      iterations=iterations, velocity_px_s=self.velocity_px_s, offset_information=offset_information)


def refined_by_rays(tracks: Mapping[str, PeopleTracks], T_root_camera: Mapping[str, Array], pairs: Pairs, *,
                    max_moments: int = _MAX_MOMENTS, joints: Sequence[int] | None = None,
                    blocks: bool = True) -> dict[str, RayPose]:
    """The poses of `rig_from_pairs`, adjusted to the rays of the joints alone, at the scale that all depths ask for.

    Depths of a monocular network are wrong along the rays and bias every pair; rays of the same joint at the same time
    meet. What rays cannot see is the scale: it is the middle of what every camera says about every person. Cameras
    whose adjusted pose is far from where it began, or whose rays do not meet better there, keep it.

    Args:
        tracks: Camera -> people.
        T_root_camera: Camera -> (4, 4), root first.
        pairs: Who is who between two cameras, and the offset of their clocks.
        max_moments: Moments of each person that take part.
        joints: Which of the tracks' joints, of bodies whose others are too poor; None = all, and bodies are good.
        blocks: Whether the covariance of poor bodies holds what leaving out tenths of the time changes.
    """
    names = list(T_root_camera)
    if joints is not None:
        tracks = {name: PeopleTracks(t.stamp_s, t.joints[:, :, list(joints)]) for name, t in tracks.items()}
    clocks = offsets_from_pairs(pairs, names[0])
    offset = np.array([clocks.get(name, 0.0) for name in names])
    people = _people_of(tracks, names, pairs)
    rays = _common_rays(tracks, names, people, offset, max_moments)
    if rays is None:
        return {name: RayPose(T, offset_s=clocks.get(name, float("nan")), clock_s=clocks.get(name, 0.0))
                for name, T in T_root_camera.items()}
    # As many measurements as are independent, not as many as there are pixels.
    count = max(_CORRELATED_FRAMES * rays.share, 1.0) * tracks[names[0]].joints.shape[2]
    start = np.stack([invert(T_root_camera[name]) for name in names])
    before = rays.adjusted(start, 0.0, iterations=0)
    information = count * (float(np.nanmedian(before.residual_px)) / 1.177 / _CLOCK_SIGMA_S)**2
    after = rays.adjusted(start, information)
    offset = offset + after.offset_s
    for _ in range(_CLOCK_ROUNDS):  # pixels move along a line for a moment only
        if np.abs(after.offset_s).max() < _CLOCK_SETTLED_S:
            break
        moved = _common_rays(tracks, names, people, offset, max_moments)
        if moved is None:
            break
        rays, after = moved, moved.adjusted(after.T_camera_world, information)
        offset = offset + after.offset_s
    scale, scale_variance = _scale_of_depths(after.T_camera_world, after.points_world, rays)
    low_motion = all(p.status is ExtrinsicsStatus.LOW_MOTION for p in pairs.values() if p.trusted)
    slack, disagreement = 1.0, np.zeros((len(names), 7, 7))
    if joints is not None:
        slack, scale_variance = _POOR_SLACK, scale_variance + _POOR_SCALE**2
        if blocks:
            disagreement = _disagreement(after.T_camera_world, rays, information)
    refined = {}
    for v, name in enumerate(names):
        T = invert(after.T_camera_world[v])
        T[:3, 3] *= scale
        difference = invert(T_root_camera[name]) @ T
        errors = [r.residual_px[v][np.isfinite(r.residual_px[v])] / _FOCAL_PX for r in (before, after)]
        near = rotation_angle(difference[:3, :3]) < slack * _MAX_TURN_RAD and (
            np.linalg.norm(difference[:3, 3]) < slack * _MAX_SHIFT_M)
        if not near or len(errors[1]) < _MIN_RAYS or np.median(errors[1]) > np.median(errors[0]):
            kept = float(np.median(errors[0])) if len(errors[0]) >= _MIN_RAYS else float("nan")
            refined[name] = RayPose(T_root_camera[name], None, kept, clocks.get(name, float("nan")),
                                    clocks.get(name, 0.0))
            continue
        # The steps are in the camera's frame and move the world: the camera itself moves the other way.
        axes = np.kron(np.eye(2), T[:3, :3])
        covariance = count * (axes @ after.covariance[v] @ axes.T) * (10.0 if low_motion else 1.0)
        covariance[:3, :3] = scale**2 * covariance[:3, :3] + scale_variance * np.outer(T[:3, 3], T[:3, 3])
        covariance[:3, 3:] *= scale
        covariance[3:, :3] *= scale
        sigma_s = math.sqrt(count * after.offset_variance[v] + disagreement[v, 6, 6])
        known = name in clocks and sigma_s <= MAX_OFFSET_SIGMA_S
        if joints is not None and v:
            known &= abs(offset[v]) > 2.0 * math.hypot(sigma_s, _POOR_CLOCK_S)
        refined[name] = RayPose(T, covariance + disagreement[v, :6, :6], float(np.median(errors[1])),
                                float(offset[v]) if known else float("nan"), float(offset[v]))
    return refined


def _disagreement(T_camera_world: Array, rays: _Rays, offset_information: float) -> Array:
    """(V, 7, 7) covariances of position, rotation vector (along the root's axes) and clock by the jackknife of blocks.

    A tenth of the time is left out at a time (Kunsch, Annals of Statistics 17(3), 1989). Unlike residuals, it notices
    bodies that are wrong in the same way for seconds: rays may meet well at a pose that one short walk alone supports.
    """
    seen = (rays.weight > 0.0).sum(axis=0) >= 2
    ends = np.quantile(rays.stamp_s[seen], np.linspace(0.0, 1.0, _BLOCKS + 1)[1:-1])
    block = np.searchsorted(ends, rays.stamp_s, side="right")
    V = len(T_camera_world)
    found, clocks = [], []
    for k in range(_BLOCKS):
        kept = rays.take(block != k)
        result = kept.adjusted(T_camera_world, offset_information, _BLOCK_ITERATIONS)
        T = np.array([invert(T) for T in result.T_camera_world])
        T[:, :3, 3] *= _scale_of_depths(result.T_camera_world, result.points_world, kept)[0]
        found.append(T)
        clocks.append(result.offset_s)
    poses, offsets = np.array(found), np.array(clocks)  # (blocks, V, 4, 4), (blocks, V)
    middle = project_to_rotations(poses[..., :3, :3].mean(axis=0))
    turn = Rotation.from_matrix((poses[..., :3, :3] @ np.swapaxes(middle, -1, -2)).reshape(-1, 3, 3)).as_rotvec()
    shift = poses[..., :3, 3] - poses[..., :3, 3].mean(axis=0)
    error = np.concatenate([shift, turn.reshape(_BLOCKS, V, 3), (offsets - offsets.mean(axis=0))[..., None]], axis=2)
    return (_BLOCKS - 1) / _BLOCKS * np.einsum("kvi,kvj->vij", error, error)


def _common_rays(tracks: Mapping[str, PeopleTracks], names: list[str], people: list[dict[str, int]], offset_s: Array,
                 max_moments: int) -> _Rays | None:
    """What all cameras saw at the same times by the root's clock; None without anybody seen by two."""
    uv, velocities, depths, weights, persons, times, all_moments, kept_moments = [], [], [], [], [], [], 0, 0
    offset = dict(zip(names, offset_s, strict=True))
    for number, person in enumerate(people):
        first = next(name for name in names if name in person)
        stamps = tracks[first].stamp_s + offset[first]
        all_moments += len(stamps)
        stamps = stamps[np.linspace(0, len(stamps) - 1, min(len(stamps), max_moments)).astype(int)]
        kept_moments += len(stamps)
        seen = np.full((3, len(names), len(stamps), *tracks[first].joints.shape[2:]), np.nan)
        for v, name in enumerate(names):
            if name in person:
                joints = tracks[name].joints[person[name]]
                for shifted, by in zip(seen, (0.0, -_VELOCITY_S, _VELOCITY_S), strict=True):
                    shifted[v] = resampled(tracks[name].stamp_s + offset[name], joints, stamps + by)
        with np.errstate(divide="ignore", invalid="ignore"):
            at, earlier, later = _FOCAL_PX * (seen[..., :2] / seen[..., 2:]).reshape(3, len(names), -1, 2)
        velocities.append(mean_velocity(earlier, at, later, _VELOCITY_S))
        uv.append(at)
        depths.append(seen[0, ..., 2].reshape(len(names), -1))
        visible = np.isfinite(seen[0]).all(axis=-1) & (seen[0, ..., 2] > 0.1)
        weights.append(visible.reshape(len(names), -1).astype(float))
        persons.append(np.full(depths[-1].shape[1], number))
        times.append(np.repeat(stamps, seen.shape[3]))
    if not uv or not any((w > 0.0).sum(axis=0).max(initial=0) >= 2 for w in weights):
        return None
    return _Rays(np.concatenate(uv, axis=1), np.concatenate(velocities, axis=1), np.concatenate(depths, axis=1),
                 np.concatenate(weights, axis=1), np.concatenate(persons), np.concatenate(times),
                 kept_moments / max(all_moments, 1))


def _scale_of_depths(T_camera_world: Array, points: Array, rays: _Rays) -> tuple[float, float]:
    """Factor from the adjusted rig to metres, and the variance of its logarithm.

    Each camera's depths of each person are wrong by a factor of their own; these factors are averaged.
    """
    depth = np.einsum("vj,nj->vn", T_camera_world[:, 2, :3], points) + T_camera_world[:, 2, 3, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((rays.weight > 0.0) & (depth > 0.1), np.log(rays.depth / depth), np.nan)
    groups = [ratio[v, rays.person == p] for v in range(len(ratio)) for p in np.unique(rays.person)]
    medians = np.array([np.nanmedian(g) for g in groups if np.isfinite(g).sum() >= _MIN_RAYS])
    if not len(medians):
        return 1.0, 1.0
    # The mean of those that are no outliers: a median of so few would waste a third of what they know.
    deviation = np.abs(medians - np.median(medians))
    sane = medians[deviation <= max(3.0 * 1.4826 * float(np.median(deviation)), 0.02)]
    middle = float(sane.mean())
    scale = math.exp(middle) if abs(middle) < math.log(_MAX_SCALE) else 1.0
    return scale, max(float(sane.std()), 0.01)**2 / max(len(sane) - 1, 1)


def _people_of(tracks: Mapping[str, PeopleTracks], names: list[str], pairs: Pairs) -> list[dict[str, int]]:
    """Groups of tracks that trusted pairs connect, as camera -> row; the best pairs first, one track per camera."""
    group = {(name, i): {name: i} for name in names for i in range(len(tracks[name].joints))}
    trusted = [(key, pair) for key, pair in pairs.items() if pair.trusted and set(key) <= set(names)]
    for (a, b), pair in sorted(trusted, key=lambda item: -item[1].inliers):
        for i, j in enumerate(pair.pairing):
            if j >= 0 and group[a, i] is not group[b, j] and not set(group[a, i]) & set(group[b, j]):
                group[a, i].update(group[b, j])
                for name, row in group[b, j].items():
                    group[name, row] = group[a, i]
    found: list[dict[str, int]] = []
    for members in group.values():
        if len(members) >= 2 and all(members is not other for other in found):
            found.append(members)
    return found
