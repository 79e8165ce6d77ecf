"""Errors of a camera trajectory: ATE and RPE, with the alignment that was applied in the result; TUM files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError, SourceError
from human_scene_ros.evaluation.alignment import umeyama
from human_scene_ros.evaluation.metrics import path_length

Kind = Literal["sim3", "se3", "scale_only", "none"]


@dataclasses.dataclass(frozen=True)
class TrajectoryErrors:
    """Errors after alignment; NaN where undefined.

    Args:
        alignment: What was applied: "sim3", "se3", "scale_only", "none", "se3 by orientations" (positions on a
            line leave the turn about it open), or "degenerate" (nothing could be, all values are NaN).
        ate_rmse_m: RMSE of the positions.
        rpe_trans_rmse_m: RMSE of the translation of relative poses.
        rpe_rot_rmse_deg: RMSE of their rotation.
        path_length_m: Length of the true path.
    """

    alignment: str
    ate_rmse_m: float
    rpe_trans_rmse_m: float
    rpe_rot_rmse_deg: float
    path_length_m: float


def trajectory_errors(T_world_estimate: NDArray[np.floating], T_world_truth: NDArray[np.floating], *,
                      kind: Kind = "sim3", delta: int = 1, use_orientations: bool = True) -> TrajectoryErrors:
    """ATE and RPE of associated poses.

    Args:
        T_world_estimate: (N, 4, 4) estimated poses in their own world.
        T_world_truth: (N, 4, 4) true poses of the same frames.
        kind: Alignment of the whole trajectory; "scale_only" takes the scale of Sim(3), no rotation, no shift.
        delta: Frames between the poses of a relative pose; all pairs are used.
        use_orientations: For positions on a line, fit the rotation to the orientations instead of giving up.

    Raises:
        ShapeError: The shapes differ, are not (N, 4, 4), or N is 0.
    """
    estimate, truth = np.asarray(T_world_estimate, np.float64), np.asarray(T_world_truth, np.float64)
    if estimate.shape != truth.shape or estimate.ndim != 3 or estimate.shape[1:] != (4, 4) or not len(truth):
        raise ShapeError(f"trajectories have shapes {estimate.shape} and {truth.shape}; expected the same (N, 4, 4)")
    length = path_length(truth[:, :3, 3])
    aligned, applied = align_trajectory(estimate, truth, kind, use_orientations)
    if aligned is None:
        return TrajectoryErrors(applied, np.nan, np.nan, np.nan, length)
    ate = np.sqrt(np.mean(np.sum((aligned[:, :3, 3] - truth[:, :3, 3]) ** 2, axis=-1)))
    if len(truth) <= delta:
        return TrajectoryErrors(applied, float(ate), np.nan, np.nan, length)
    error = _inverse(_inverse(truth[:-delta]) @ truth[delta:]) @ (_inverse(aligned[:-delta]) @ aligned[delta:])
    translation = np.sqrt(np.mean(np.sum(error[:, :3, 3] ** 2, axis=-1)))
    angles = np.degrees(Rotation.from_matrix(error[:, :3, :3]).magnitude())
    return TrajectoryErrors(applied, float(ate), float(translation), float(np.sqrt(np.mean(angles**2))), length)


def align_trajectory(estimate: NDArray[np.float64], truth: NDArray[np.float64], kind: Kind,
                     use_orientations: bool = True) -> tuple[NDArray[np.float64] | None, str]:
    """(N, 4, 4) poses moved into the world of the true ones, and what was applied (see `TrajectoryErrors`)."""
    if kind == "none":
        return estimate, "none"
    source, target = estimate[:, :3, 3], truth[:, :3, 3]
    fit = umeyama(source, target, with_scale=kind != "se3")
    aligned = estimate.copy()
    if fit.degenerate:
        if kind != "se3" or not use_orientations:
            return None, "degenerate"
        R = Rotation.from_matrix(truth[:, :3, :3] @ np.swapaxes(estimate[:, :3, :3], -1, -2)).mean().as_matrix()
        aligned[:, :3, :3] = R @ estimate[:, :3, :3]
        aligned[:, :3, 3] = (source - source.mean(axis=0)) @ R.T + target.mean(axis=0)
        return aligned, "se3 by orientations"
    if kind == "scale_only":
        aligned[:, :3, 3] = fit.s * source
        return aligned, kind
    aligned[:, :3, :3] = fit.R @ estimate[:, :3, :3]
    aligned[:, :3, 3] = fit.apply(source)
    return aligned, kind


def read_tum(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) stamps in seconds and (N, 4, 4) T_world_camera of a file with lines "t tx ty tz qx qy qz qw".

    Lines that begin with # are comments; the stamps come back in rising order.

    Raises:
        SourceError: Missing, empty, or a line is something else (says which).
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as a TUM trajectory: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 8 or not np.isfinite(row).all() or np.linalg.norm(row[4:]) < 1e-6:
            raise SourceError(f"{path} line {number}: {line[:60]!r} is no pose; expected 't tx ty tz qx qy qz qw'")
        rows.append(row)
    if not rows:
        raise SourceError(f"{path} holds no pose; expected lines 't tx ty tz qx qy qz qw'")
    values = np.array(sorted(rows))
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(values[:, 4:]).as_matrix()
    poses[:, :3, 3] = values[:, 1:4]
    return values[:, 0], poses


def associate(stamps_s: NDArray[np.floating], truth_stamps_s: NDArray[np.floating],
              max_difference_s: float = 0.01) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of pairs of nearest stamps, each used once, in order; the side with fewer stamps chooses.

    Args:
        stamps_s: (N,) rising.
        truth_stamps_s: (M,) rising.
        max_difference_s: Pairs farther apart are left out.
    """
    first, second = np.asarray(stamps_s, np.float64), np.asarray(truth_stamps_s, np.float64)
    if len(first) > len(second):
        theirs, ours = associate(second, first, max_difference_s)
        return ours, theirs
    if not len(first):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    right = np.clip(np.searchsorted(second, first), 0, len(second) - 1)
    left = np.clip(right - 1, 0, len(second) - 1)
    nearest = np.where(np.abs(second[left] - first) <= np.abs(second[right] - first), left, right)
    near = np.flatnonzero(np.abs(second[nearest] - first) <= max_difference_s)
    _, once = np.unique(nearest[near], return_index=True)
    return near[once], nearest[near][once]


def _inverse(T: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.zeros_like(T)
    rotation = np.swapaxes(T[:, :3, :3], -1, -2)
    inverse[:, :3, :3] = rotation
    inverse[:, :3, 3] = -(rotation @ T[:, :3, 3:])[..., 0]
    inverse[:, 3, 3] = 1.0
    return inverse
