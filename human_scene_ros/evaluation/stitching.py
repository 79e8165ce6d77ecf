"""Pieces of a recording that were reconstructed one by one, each in a world and a scale of its own, put into one world.

CHROMM (arXiv 2603.12789) evaluates RICH with several cameras like this: 25 frames at a time, stitched to 100 by the
Sim(3) between camera poses. What two pieces have in common is a camera that does not move, or, of one that does, the
frames in which the pieces overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError
from human_scene_ros.evaluation.alignment import Alignment
from human_scene_ros.evaluation.values import DEGENERATE, NO_MATCH, OK
from human_scene_ros.geometry.transform import make_transform

Array = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

_SAME_PLACE = 1e-9
"""Spread of the centres over their distance from the origin; below it they differ by rounding only."""

_AGREEMENT = 0.5
"""Cosine between the two sets of centres, once turned; below it they say nothing of a common scale."""


@dataclasses.dataclass(frozen=True)
class Stitch:
    """How one piece comes into the common world.

    Args:
        alignment: `p_common = s * R @ p_piece + t`; NaN unless the status is "ok".
        shared: Poses that it was found from; of the piece that the common world is the world of, all of its own.
        rms: Of the distances between the shared centres afterwards, in units of the common world; NaN without any.
        status: "ok", "no match" (fewer than two poses in common with the pieces before), or "degenerate" (a camera
            that stands still, or centres that contradict each other: there is no scale in them).
    """

    alignment: Alignment
    shared: int
    rms: float
    status: str


def align_poses(T_src_camera: NDArray[np.floating], T_dst_camera: NDArray[np.floating]) -> Alignment:
    """Sim(3) that maps poses of cameras onto the poses of the same cameras in another world.

    The rotation is the mean of what each camera says (chordal, R. Hartley et al., "Rotation averaging", IJCV 2013),
    scale and shift are then those of least squares on the centres. Unlike centres alone, this is determined by two
    cameras, and by cameras on a line.

    Args:
        T_src_camera: (N, 4, 4).
        T_dst_camera: (N, 4, 4).

    Returns:
        Marked degenerate where the centres tell no scale.

    Raises:
        ShapeError: The shapes differ or are not (N, 4, 4).
    """
    src, dst = np.asarray(T_src_camera, np.float64), np.asarray(T_dst_camera, np.float64)
    if src.shape != dst.shape or src.ndim != 3 or src.shape[1:] != (4, 4):
        raise ShapeError(f"poses have shapes {src.shape} and {dst.shape}; expected the same (N, 4, 4)")
    if len(src) < 2:
        return _NONE
    R = np.asarray(Rotation.from_matrix(dst[:, :3, :3] @ np.swapaxes(src[:, :3, :3], -1, -2)).mean().as_matrix())
    centres = [T[:, :3, 3] for T in (src, dst)]
    middles = [c.mean(axis=0) for c in centres]
    spread = [c - m for c, m in zip(centres, middles, strict=True)]
    sizes = [float(np.linalg.norm(a)) for a in spread]
    together = float(np.sum(spread[0] @ R.T * spread[1]))
    apart = all(size > _SAME_PLACE * np.linalg.norm(c) for size, c in zip(sizes, centres, strict=True))
    if not apart or together < _AGREEMENT * sizes[0] * sizes[1]:
        return _NONE
    s = together / sizes[0] ** 2
    return Alignment(R, middles[1] - s * R @ middles[0], np.array(s), np.array(False))


def moved_pose(alignment: Alignment, T_piece_camera: NDArray[np.floating]) -> Array:
    """(4, 4) pose of a camera in the other world: its centre is scaled with everything else, it is not."""
    T = np.asarray(T_piece_camera, np.float64)
    return make_transform(alignment.R @ T[:3, :3], alignment.apply(T[None, :3, 3])[0])


def stitch(pieces: Sequence[Mapping[Name, Array]]) -> list[Stitch]:
    """Sim(3) of every piece into the world of the first one that can be stitched to at all.

    Args:
        pieces: In order of time: what names a pose -> (4, 4) pose in the world of the piece. Of a camera that stands,
            its name; of one that moves, name and stamp. A pose counts as it was in the latest piece that has it.

    Returns:
        One per piece. A piece that cannot be stitched is passed over; those after it are stitched to those before.
    """
    known: dict[Name, Array] = {}
    result = []
    for poses in pieces:
        # A piece that could not even be stitched to itself would keep all others out.
        reference = known or {name: np.asarray(T, np.float64) for name, T in poses.items()}
        names = [name for name in poses if name in reference]
        ours, theirs = (np.array([side[name] for name in names], np.float64).reshape(-1, 4, 4)
                        for side in (poses, reference))
        alignment = align_poses(ours, theirs) if known else _EYE if not align_poses(ours, ours).degenerate else _NONE
        rms = float("nan")
        if not alignment.degenerate:
            known |= {name: moved_pose(alignment, T) for name, T in poses.items()}
            away = alignment.apply(ours[:, :3, 3]) - theirs[:, :3, 3]
            rms = float(np.sqrt(np.mean(np.sum(away**2, axis=-1))))
        status = OK if not alignment.degenerate else NO_MATCH if len(names) < 2 else DEGENERATE
        result.append(Stitch(alignment, len(names), rms, status))
    return result


_NONE = Alignment(np.full((3, 3), np.nan), np.full(3, np.nan), np.array(np.nan), np.array(True))
_EYE = Alignment(np.eye(3), np.zeros(3), np.array(1.0), np.array(False))
