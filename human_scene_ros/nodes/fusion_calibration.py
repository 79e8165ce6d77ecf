"""Where cameras stand, from the people who walked through their shared view. No ROS import.

`PeopleMemory` keeps the torso joints of the last seconds; `calibrate` turns them into poses. The cameras must stand
still meanwhile. The first camera keeps its pose and carries the others.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.extrinsics import (
    TORSO_JOINTS,
    ExtrinsicsStatus,
    PairExtrinsics,
    PeopleTracks,
    pose_from_people,
    refined_by_rays,
    rig_from_pairs,
)
from human_scene_ros.nodes.fusion_people import CameraBodies
from human_scene_ros.sources.fusion_fields import EXTRINSICS_UNKNOWN, SOURCE_PEOPLE, CameraPlace

Array = NDArray[np.float64]
Seen = tuple[float, str, NDArray[np.float32]]
"""Stamp in seconds, track, (7, 3) torso joints in the optical frame."""

MAX_TRACKS = 4
"""Of each camera the longest; more would multiply the pairings to try."""
_SHORTEST = 15
_ADVICE = {
    ExtrinsicsStatus.LOW_MOTION: "people covered too little ground: the pose is weak; walk through the whole view",
    ExtrinsicsStatus.TOO_FEW_FRAMES: "too little was seen by two cameras at a time; walk where their views overlap",
    ExtrinsicsStatus.INCONSISTENT: "no pose explains what both saw; fewer people at a time, or a longer duration",
    ExtrinsicsStatus.DEGENERATE: "all points lie on a line",
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

    def add(self, camera: str, stamp_s: float, bodies: CameraBodies) -> None:
        """Take one message; bodies without joints do not count."""
        seen = self._seen[camera]
        for body in bodies.bodies:
            joints = np.array(body.joints, np.float32).reshape(-1, 3)
            if len(joints) > max(TORSO_JOINTS) and np.isfinite(joints).all():
                seen.append((stamp_s, str(body.track_id), joints[list(TORSO_JOINTS)]))
        while seen and seen[0][0] < stamp_s - self._keep_s:
            seen.popleft()

    def tracks(self, cameras: Sequence[str], duration_s: float) -> dict[str, PeopleTracks]:
        """The longest tracks of each camera within the last `duration_s` (0 = all that is kept)."""
        newest = max((self._seen[name][-1][0] for name in cameras if self._seen[name]), default=0.0)
        since = newest - (duration_s or math.inf)
        return {name: _tracks([s for s in list(self._seen[name]) if s[0] >= since]) for name in cameras}


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
class Calibration:
    """Result for the cameras asked for.

    Args:
        places: One per camera, in the order asked; `T_world_camera` is None where nothing was found.
        message: One line per camera.
        success: Every camera has a pose.
    """

    places: tuple[CameraPlace, ...]
    message: str
    success: bool


def calibrate(tracks: Mapping[str, PeopleTracks], T_world_first: Array, frames: Mapping[str, str]) -> Calibration:
    """Poses of all cameras of `tracks` from the first one's.

    Args:
        tracks: Camera -> people.
        T_world_first: (4, 4) pose of the first camera's optical frame, which stays.
        frames: Camera -> optical frame.
    """
    cameras = list(tracks)
    pairs: dict[tuple[str, str], PairExtrinsics] = {}
    for a, b in itertools.combinations(cameras, 2):
        if len(tracks[a].joints) and len(tracks[b].joints):
            # Stamps are believed first: searching the clocks too costs accuracy where depths are noisy.
            pairs[a, b] = pose_from_people(tracks[a], tracks[b], known_offset_s=0.0)
            if pairs[a, b].status > ExtrinsicsStatus.LOW_MOTION:
                pairs[a, b] = pose_from_people(tracks[a], tracks[b])
    poses = refined_by_rays(tracks, rig_from_pairs(pairs, cameras[0]), pairs)
    places, lines, success = [], [], True
    for name in cameras:
        mine = [pair for key, pair in pairs.items() if name in key]
        best = min(mine, key=lambda p: (p.status, -p.inliers), default=None)
        if name not in poses or best is None:
            status = best.status if best else ExtrinsicsStatus.TOO_FEW_FRAMES
            places.append(CameraPlace(name, frames[name], None, source=SOURCE_PEOPLE, status=EXTRINSICS_UNKNOWN))
            lines.append(f"{name}: no pose: {_ADVICE.get(status, 'not connected to the first camera')}")
            success = False
            continue
        place = CameraPlace(name, frames[name], T_world_first @ poses[name], _covariance(best), best.rms_m,
                            best.inliers, _offset(pairs, cameras[0], name), SOURCE_PEOPLE, int(best.status))
        places.append(place)
        lines.append(f"{name}: rms {100.0 * best.rms_m:.1f} cm over {best.inliers} person-frames"
                     + (f"; {_ADVICE[best.status]}" if best.status else ""))
    return Calibration(tuple(places), "\n".join(lines), success)


def _covariance(pair: PairExtrinsics) -> Array | None:
    return pair.covariance if np.isfinite(pair.covariance).all() else None


def _offset(pairs: Mapping[tuple[str, str], PairExtrinsics], first: str, name: str) -> float:
    """What to add to the stamps of `name` so that they fit those of the first camera; NaN unknown."""
    if name == first:
        return 0.0
    pair = pairs.get((first, name))
    known = pair is not None and pair.offset_observable and pair.status <= ExtrinsicsStatus.LOW_MOTION
    return pair.offset_s if pair is not None and known else float("nan")
