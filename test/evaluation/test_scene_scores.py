"""Scores of estimates against exact truth: perfect is perfect, each known error shows where it should."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from fake_scene import fake_frame
from scipy.spatial.transform import Rotation

from human_scene_ros.commands.evaluate import KEYS_AND_UNITS
from human_scene_ros.evaluation.synthetic import SceneScores, depth_pairs, root_angle_deg
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import TrackState


def score(frames, **changes) -> dict:
    scores = SceneScores()
    scores.begin_sequence()
    for _, estimate, truth in frames:
        scores.add(dataclasses.replace(estimate, **changes), truth)
    return scores.result()


def test_a_perfect_estimate_scores_perfectly():
    result = score([fake_frame(k) for k in range(6)])
    assert list(result) == list(KEYS_AND_UNITS)
    assert (result["head_recall"], result["head_precision"], result["frames"]) == (1.0, 1.0, 6)
    for name in ("pa_mpjpe_mm", "mpjpe_mm", "pelvis_rel_error", "depth_absrel", "depth_absrel_median", "ate_rel"):
        assert result[name] == pytest.approx(0.0, abs=1e-4), name
    assert result["rpe_rot_deg"] == pytest.approx(0.0, abs=1e-5)
    assert result["root_rot_median_deg"] == pytest.approx(0.0, abs=0.1)  # arccos near 1: float32 joints


def test_root_angle_is_the_angle_that_a_body_is_turned_by():
    _, estimate, _ = fake_frame()
    joints = np.asarray(estimate.bodies[0].joints_camera, np.float64)
    for degrees in (0.5, 30.0, 90.0, 179.0):
        turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.0, 0.6, 0.8])).as_matrix()
        turned = (joints - joints[0]) @ turn.T + [1.0, 2.0, 3.0]
        assert root_angle_deg(turned, joints) == pytest.approx(degrees, abs=1e-4)


def test_people_half_a_metre_too_far_change_distances_and_not_poses():
    result = score([fake_frame(k, error_m=0.5) for k in range(3)])
    assert result["mpjpe_mm"] == pytest.approx(0.0, abs=1e-3)
    assert 0.08 < result["pelvis_rel_error"] < 0.2
    assert 0.05 < result["depth_absrel"] < 0.3
    assert result["depth_absrel_median"] < result["depth_absrel"]


def test_heads_beyond_five_percent_of_the_width_are_missed_and_false():
    _, estimate, truth = fake_frame()
    near, far = (dataclasses.replace(b, head_uv_px=b.head_uv_px + np.float32([shift, 0.0]))
                 for b, shift in zip(estimate.bodies, (0.049 * 320, 0.051 * 320), strict=True))
    result = score([(None, estimate, truth)], bodies=(near, far))
    assert (result["head_recall"], result["head_precision"]) == (0.5, 0.5)


def test_coasting_tracks_are_not_detections():
    _, estimate, truth = fake_frame()
    ghost = dataclasses.replace(estimate.bodies[0], track_state=TrackState.PREDICTED,
                                head_uv_px=np.zeros(2, np.float32))
    result = score([(None, estimate, truth)], bodies=(*estimate.bodies, ghost))
    assert result["head_precision"] == 1.0


def test_hidden_and_tiny_people_need_not_be_found():
    _, estimate, truth = fake_frame(people=3)
    hidden = dataclasses.replace(truth.people[1], head_visible=False)
    tiny = dataclasses.replace(truth.people[2], bbox_px=np.array([5.0, 5.0, 6.0, 11.9]))
    truth = dataclasses.replace(truth, people=(truth.people[0], hidden, tiny))
    result = score([(None, estimate, truth)], bodies=estimate.bodies[:1])
    assert (result["head_recall"], result["head_precision"]) == (1.0, 1.0)


def test_undefined_values_are_null_in_json():
    _, estimate, truth = fake_frame(people=0)
    result = score([(None, estimate, truth)] * 3)
    assert [k for k, v in result.items() if v is None] == [
        "head_recall", "head_precision", "pa_mpjpe_mm", "mpjpe_mm", "pelvis_rel_error", "root_rot_median_deg",
        "root_rot_mean_deg", "ate_rel"]
    assert "NaN" not in json.dumps(result)


def test_each_world_is_aligned_on_its_own():
    """Two sequences, each perfect up to its own choice of world, must not be aligned together."""
    scores = SceneScores()
    for shift in (0.0, 5.0):
        scores.begin_sequence()
        for k in range(6):
            _, estimate, truth = fake_frame(k)
            T_world_camera = estimate.T_world_camera.copy()
            T_world_camera[0, 3] += shift
            scores.add(dataclasses.replace(estimate, T_world_camera=T_world_camera), truth)
    assert scores.result()["ate_rel"] == pytest.approx(0.0, abs=1e-9)


def test_the_camera_error_is_relative_to_the_path():
    frames = [fake_frame(k) for k in range(10)]
    rng = np.random.default_rng(0)
    spoiled = []
    for image, estimate, truth in frames:
        T_world_camera = estimate.T_world_camera.copy()
        T_world_camera[:3, 3] += rng.normal(scale=0.01, size=3)
        spoiled.append((image, dataclasses.replace(estimate, T_world_camera=T_world_camera), truth))
    scores = SceneScores()
    for _, estimate, truth in spoiled:
        scores.add(estimate, truth)
    details = scores.details()
    assert scores.result()["ate_rel"] == pytest.approx(details["ate_m"] / details["path_length_m"])
    assert 0.003 < details["ate_m"] < 0.03


def test_world_motion_is_reported_with_its_coverage():
    scores = SceneScores()
    for k in range(10):
        _, estimate, truth = fake_frame(k)
        bodies = estimate.bodies if k < 5 else tuple(
            dataclasses.replace(b, track_id=b.track_id + 100) for b in estimate.bodies)
        scores.add(dataclasses.replace(estimate, bodies=bodies), truth)
    assert scores.details()["wa_coverage"] == pytest.approx(0.5)
    assert scores.details()["wa_mpjpe_mm"] == pytest.approx(0.0, abs=1e-3)


def test_depth_truth_may_have_another_size_than_the_image():
    _, estimate, truth = fake_frame()
    large = np.repeat(np.repeat(truth.depth_m, 3, axis=0), 3, axis=1)
    same, tripled = depth_pairs(estimate, truth.depth_m), depth_pairs(estimate, large)
    assert len(same[0]) > 3000
    np.testing.assert_array_equal(same, tripled)


def test_a_cropped_dense_map_is_compared_with_the_right_pixels():
    _, estimate, truth = fake_frame()
    cropped = dataclasses.replace(
        estimate, dense_camera=estimate.dense_camera.cropped(20, 10, 100, 80),
        points_camera=estimate.points_camera[10:90, 20:120])
    predicted, true = depth_pairs(cropped, truth.depth_m)
    assert np.mean(np.abs(predicted - true) / true) < 0.01


def test_an_uncalibrated_stream_is_compared_with_the_same_pixels():
    _, estimate, truth = fake_frame(calibrated=False)
    assert isinstance(estimate.camera, PinholeCamera) and not estimate.calibrated
    predicted, true = depth_pairs(estimate, truth.depth_m)
    assert np.mean(np.abs(predicted - true) / true) < 1e-3
