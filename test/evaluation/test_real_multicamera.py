"""Triangulation and pose metrics on a real recording of four cameras, against its stored triangulation."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from human_scene_ros.evaluation import metrics
from human_scene_ros.fusion.triangulation import solve_rays

from helpers import shared_folder

FRAMES = slice(0, 100, 5)


@pytest.fixture(scope="module")
def session() -> dict[str, np.ndarray]:
    """Joints (T, 25, 3) that we triangulate with either calibration, and those that were stored."""
    folder = shared_folder("data/multicam_pose2sim_single")
    with np.load(folder / "reference.npz") as arrays:
        stored = {name: arrays[name] for name in ("openpose_2d", "tri_shipped_3d", "tri_refined_3d", "upstream_3d")}
    found = {"shipped": stored["tri_shipped_3d"][FRAMES], "refined": stored["tri_refined_3d"][FRAMES]}
    for name, file in (("ours_shipped", "calibration.json"), ("ours_refined", "calibration_refined.json")):
        cameras = list(json.loads((folder / file).read_text())["cameras"].values())
        found[name] = triangulated(cameras, stored["openpose_2d"][:, FRAMES])
    return found


def triangulated(cameras: list[dict], observed: np.ndarray) -> np.ndarray:
    """(V, T, J, 3) u, v, confidence -> (T, J, 3) metres."""
    centers, directions = [], []
    for camera, points in zip(cameras, observed, strict=True):
        K, distortion = np.array(camera["K"]), np.array(camera["dist"])
        R, t = np.array(camera["R"]), np.array(camera["t"]).reshape(3)
        uv = cv2.undistortPoints(points[..., :2].reshape(-1, 1, 2).astype(np.float64), K, distortion)[:, 0]
        rays = np.hstack([uv, np.ones((len(uv), 1))]) @ R  # rows times R = R^T applied
        directions.append((rays / np.linalg.norm(rays, axis=1, keepdims=True)).reshape(*points.shape[:2], 3))
        centers.append(-R.T @ t)
    out = np.full((*observed.shape[1:3], 3), np.nan)
    for frame, joint in np.ndindex(out.shape[:2]):
        rays = np.stack([d[frame, joint] for d in directions])
        weights = np.nan_to_num(observed[:, frame, joint, 2])
        out[frame, joint] = solve_rays(np.stack(centers), rays, weights).point
    return out


def both(session: dict[str, np.ndarray], ours: str, reference: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames in which all joints of both are known."""
    complete = np.isfinite(session[ours]).all(axis=(1, 2)) & np.isfinite(session[reference]).all(axis=(1, 2))
    assert complete.sum() >= 10
    return session[ours][complete], session[reference][complete]


@pytest.mark.parametrize("calibration", ["shipped", "refined"])
def test_our_triangulation_is_the_stored_one(session, calibration):
    """The stored one weighs pixels, ours rays: they differ by less than what the cameras disagree about."""
    ours, stored = both(session, f"ours_{calibration}", calibration)
    distance_mm = 1e3 * np.linalg.norm(ours - stored, axis=-1)
    assert np.median(distance_mm) < 10.0
    assert np.median(metrics.pa_mpjpe_mm(ours, stored)) < 10.0


def test_the_better_calibration_moves_the_body_more_than_it_bends_it(session):
    """Two calibrations of one rig: what a rigid motion explains, pose metrics forgive step by step."""
    shipped, refined = both(session, "shipped", "refined")
    absolute = 1e3 * metrics.nanmean(metrics.mean_distance(shipped, refined))
    world = metrics.nanmean(metrics.wa_mpjpe_mm(shipped, refined))
    pose = metrics.nanmean(metrics.pa_mpjpe_mm(shipped, refined))
    assert absolute > world > pose > 0.0
    assert absolute < 120.0 and pose < 40.0


def test_who_balances_on_the_spot_has_no_root_trajectory_error(session):
    shipped, refined = both(session, "shipped", "refined")
    errors = metrics.rte_percent(shipped[:, 8], refined[:, 8], min_path_m=50.0)
    assert np.isnan(errors).all()
