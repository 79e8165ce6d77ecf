"""Bundle adjustment: exact on exact pixels, honest about its errors, unmoved by outliers; and real rigs."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion.bundle import adjust, triangulated
from human_scene_ros.fusion.calibration import calibrate
from human_scene_ros.fusion.extrinsics import ExtrinsicsStatus, PeopleTracks, pose_from_people, rig_from_pairs
from human_scene_ros.geometry.transform import invert, make_transform
from human_scene_ros.synthetic.multiview import MultiviewConfig, rig

from helpers import shared_folder


def scene(noise_px: float, outliers: float, seed: int = 0):
    """True poses, a start that is 3 degrees and 10 cm off, and pixels."""
    rng = np.random.default_rng(seed)
    T = np.stack([invert(pose) for pose in rig(MultiviewConfig("ring", 4, 3))])
    points = rng.uniform([-2.0, -2.0, 0.0], [2.0, 2.0, 1.8], (300, 3))
    local = np.einsum("vij,nj->vni", T[:, :3, :3], points) + T[:, None, :3, 3]
    focal, principal = np.full((4, 2), 800.0), np.tile([640.0, 480.0], (4, 1))
    uv = local[..., :2] / local[..., 2:] * 800.0 + principal[:, None]
    uv = uv + noise_px * rng.normal(size=uv.shape)
    uv[rng.random(uv.shape[:2]) < outliers] += 60.0
    start = T.copy()
    for v in range(1, 4):
        turn = Rotation.from_rotvec(np.radians(3.0) * rng.normal(size=3) / np.sqrt(3.0)).as_matrix()
        start[v] = make_transform(turn, 0.1 * rng.normal(size=3) / np.sqrt(3.0)) @ T[v]
    return T, start, uv, focal, principal, points


def errors(T, found):
    """Largest angle in degrees and distance of centres in metres, with the scale of the first baseline."""
    centres = [-np.einsum("vji,vj->vi", P[:, :3, :3], P[:, :3, 3]) for P in (T, found)]
    lengths = [np.linalg.norm(c[1] - c[0]) for c in centres]
    shift = (centres[0] - centres[0][0]) - lengths[0] / lengths[1] * (centres[1] - centres[1][0])
    angles = [np.degrees(Rotation.from_matrix(a[:3, :3] @ b[:3, :3].T).magnitude()) for a, b in
              zip(T, found, strict=True)]
    return max(angles), float(np.linalg.norm(shift, axis=1).max())


def test_exact_pixels_give_exact_poses_and_points():
    T, start, uv, focal, principal, points = scene(0.0, 0.0)
    result = adjust(start, uv, focal, principal, np.ones(uv.shape[:2]))
    angle, distance = errors(T, result.T_camera_world)
    assert angle < 1e-6 and distance < 1e-7 and np.nanmax(result.residual_px) < 1e-6
    rays = (uv - principal[:, None]) / focal[:, None]
    np.testing.assert_allclose(triangulated(T, rays, np.ones(uv.shape[:2])), points, atol=1e-8)


def test_outliers_do_not_pull_and_sigma_is_honest():
    T, start, uv, focal, principal, _ = scene(1.0, 0.05)
    weight = np.ones(uv.shape[:2])
    uv[2, :50] = np.nan
    weight[1:, 50:60] = 0.0  # seen by one camera: no point
    result = adjust(start, uv, focal, principal, weight)
    angle, distance = errors(T, result.T_camera_world)
    assert angle < 0.2 and distance < 0.02
    assert not result.sigma[0].any() and 0.001 < result.sigma[1:, :3].max() < 0.02
    assert np.isnan(result.points_world[50:60]).all() and np.isnan(result.residual_px[2, :50]).all()


@pytest.mark.parametrize("noise_px", [0.0, 1.0])
def test_clocks_are_found_with_the_poses(noise_px: float):
    """Points that move, seen by cameras whose clocks are off by up to 40 ms."""
    T, start, uv, focal, principal, _ = scene(noise_px, 0.0)
    rng, offset = np.random.default_rng(1), np.array([0.0, 0.02, -0.04, 0.01])
    velocity = 300.0 * rng.normal(size=uv.shape)
    late = uv + offset[:, None, None] * velocity
    result = adjust(start, late, focal, principal, np.ones(uv.shape[:2]), velocity_px_s=velocity)
    angle, distance = errors(T, result.T_camera_world)
    assert angle < 1e-5 + 0.2 * noise_px and distance < 1e-6 + 0.02 * noise_px
    assert np.abs(result.offset_s - offset).max() < 1e-6 + 1e-3 * noise_px
    if noise_px:
        deviations = (result.offset_s - offset)[1:] / np.sqrt(result.offset_variance[1:])
        assert 0.1 < np.sqrt(np.mean(deviations**2)) < 3.0
    without = adjust(start, late, focal, principal, np.ones(uv.shape[:2]))
    assert errors(T, without.T_camera_world)[1] > 5.0 * distance and not without.offset_s.any()


def test_where_nothing_moves_clocks_stay_in_step_and_in_doubt():
    _, start, uv, focal, principal, _ = scene(1.0, 0.0)
    result = adjust(start, uv, focal, principal, np.ones(uv.shape[:2]), velocity_px_s=np.zeros(uv.shape),
                    offset_information=(1.0 / 0.05)**2)
    assert np.abs(result.offset_s).max() < 1e-12
    np.testing.assert_allclose(np.sqrt(result.offset_variance[1:]), 0.05, rtol=0.3)


def real_rig():
    """Undistorted pixels (4, 100, 25, 2), confidence, K, T_camera_world (refined), 3-D joints and times."""
    import cv2

    single = shared_folder("data/multicam_pose2sim_single")
    reference = np.load(single / "reference.npz", allow_pickle=False)
    cameras = json.loads((single / "calibration_refined.json").read_text())["cameras"]
    entries = [cameras[name] for name in sorted(cameras)]
    K = np.array([entry["K"] for entry in entries])
    seen = reference["openpose_2d"].astype(np.float64)
    uv = np.stack([cv2.undistortPoints(s[..., :2].reshape(-1, 1, 2), k, np.array(e["dist"]), P=k) for s, k, e in zip(
        seen, K, entries, strict=True)]).reshape(*seen.shape[:3], 2)
    T = np.stack([make_transform(np.array(e["R"]), np.ravel(e["t"])) for e in entries])
    names = [str(n) for n in reference["joint_names_25"]]
    return uv, seen[..., 2], K, T, reference["tri_refined_3d"].astype(np.float64), reference["time_s"], names


def body_in_camera(uv, confidence, K, joints):
    """(T, 25, 3) the body as one camera sees it: its shape is given, its place is not (each time in a random frame)."""
    import cv2

    rng = np.random.default_rng(0)
    out = np.full(joints.shape, np.nan)
    for k, body in enumerate(joints):
        known = (confidence[k] > 0.4) & np.isfinite(body).all(axis=1)
        if known.sum() < 8:
            continue
        body = (body - np.nanmean(body, axis=0)) @ Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix()
        _, turn, shift = cv2.solvePnP(body[known], uv[k][known], K, None, flags=cv2.SOLVEPNP_EPNP)
        _, turn, shift = cv2.solvePnP(body[known], uv[k][known], K, None, turn, shift, True,
                                      flags=cv2.SOLVEPNP_ITERATIVE)
        out[k] = body @ cv2.Rodrigues(turn)[0].T + shift.ravel()
    return out


def against(found, reference):
    """Degrees and centimetres of each camera's pose in the first camera, (3, 2)."""
    rows = []
    for v in range(1, len(reference)):
        true, ours = reference[0] @ invert(reference[v]), found[0] @ invert(found[v])
        rows.append((np.degrees(Rotation.from_matrix(true[:3, :3].T @ ours[:3, :3]).magnitude()),
                     100.0 * np.linalg.norm(ours[:3, 3] - true[:3, 3])))
    return np.array(rows)


def test_a_real_rig_is_found_from_the_person_alone():
    """One person balancing on a treadmill, four cameras; the reference is a 2-D detector's, good to 2 to 5 cm."""
    uv, confidence, K, T, joints, time_s, names = real_rig()
    torso = [names.index(n) for n in ("RHip", "LHip", "RShoulder", "LShoulder", "Nose", "RKnee", "LKnee")]
    cameras = [f"cam0{v + 1}" for v in range(4)]
    tracks = {name: PeopleTracks(time_s, body_in_camera(uv[v], confidence[v], K[v], joints)[None][:, :, torso])
              for v, name in enumerate(cameras)}
    pairs = {(a, b): pose_from_people(tracks[a], tracks[b]) for a, b in itertools.combinations(cameras, 2)}
    assert {pair.status for pair in pairs.values()} == {ExtrinsicsStatus.LOW_MOTION}, "it stays on the treadmill"
    assert all(abs(pair.offset_s) <= 0.02 for pair in pairs.values()), "the clocks are in step"
    poses = rig_from_pairs(pairs, cameras[0])
    start = np.stack([invert(poses[name]) for name in cameras])
    people = against(start, T)
    assert people[:, 0].max() < 4.0 and people[:, 1].max() < 20.0

    ours = calibrate(tracks)  # all steps together, as the service does them
    found = np.stack([invert(camera.T_first_camera) for camera in ours])
    assert {camera.status for camera in ours} == {ExtrinsicsStatus.LOW_MOTION}
    rig = against(found, T)
    assert rig[:, 0].max() < 3.0 and rig[:, 1].max() < 15.0

    weight = np.where(confidence > 0.3, confidence, 0.0).reshape(4, -1)
    focal, principal = K[:, (0, 1), (0, 1)], K[:, :2, 2]
    result = adjust(start, uv.reshape(4, -1, 2), focal, principal, weight)
    bundle = against(result.T_camera_world, T)
    assert bundle[:, 0].max() < 1.5 and bundle[:, 1].max() < 8.0
    assert (np.nanmedian(result.residual_px, axis=1) < 4.0).all()
