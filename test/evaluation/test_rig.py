"""Metrics of a rig: closed forms of every alignment, who is who without a common world, degenerate rigs as statuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ConfigError
from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.rig import People, RigEvaluation, RigMoment, SeenPeople, match_in_images
from human_scene_ros.evaluation.values import Metric
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, make_transform

CAMERA = PinholeCamera.from_fov(640, 480, 70.0)
ROT = Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()
ELSEWHERE = make_transform(ROT, np.array([3.0, -2.0, 1.0]))


def looking_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, 4) optical frame at `position`, z towards `target`, x level."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    return make_transform(np.stack([x, np.cross(z, x), z], axis=1), position)


def ring(count: int) -> dict[str, np.ndarray]:
    """Cameras around the origin, at different heights."""
    angles = 2.0 * np.pi * np.arange(count) / count
    return {f"cam{k}": looking_at(np.array([4.0 * np.cos(a), 4.0 * np.sin(a), 1.5 + 0.3 * (k % 2)]),
                                  np.array([0.0, 0.0, 1.0])) for k, a in enumerate(angles)}


def people(k: int, count: int = 2) -> People:
    """People who walk side by side, a body's length of joints each."""
    rng = np.random.default_rng(4)
    pose = rng.normal(scale=0.25, size=(count, 22, 3)) + [0.0, 0.0, 1.0]
    place = np.stack([np.array([0.9 * i - 0.5, 0.05 * k, 0.0]) for i in range(count)])
    return People(np.arange(count) + 3, pose + place[:, None])


def moment(k: int = 0, cameras: int = 4, *, points: Callable[[np.ndarray], np.ndarray] = lambda x: x,
           poses: Callable[[np.ndarray], np.ndarray] = lambda T: T) -> RigMoment:
    """A time step whose estimate is the truth with other `points` and `poses`."""
    rig, truth = ring(cameras), people(k)
    return RigMoment(1_000_000_000 + k * 50_000_000, dict.fromkeys(rig, CAMERA), rig,
                     {name: poses(T) for name, T in rig.items()}, truth,
                     People(truth.number + 70, points(truth.joints_world)))


def evaluated(frames: int = 4, **changes) -> dict[str, Metric]:
    evaluation = RigEvaluation()
    for k in range(frames):
        evaluation.add(moment(k, **changes))
    return evaluation.finish().metrics


def test_a_perfect_rig_is_perfect():
    for name, metric in evaluated().items():
        if metric.status != "ok":
            assert name == "rte_pct", name  # 15 cm of path
        elif metric.pooling == "sum":
            assert metric.value == 0.0, name
        elif "rra" in name or "cca" in name or name.startswith(("person_", "coverage", "id", "mota")):
            assert metric.value == 1.0, name
        else:
            assert metric.value == pytest.approx(0.0, abs=1e-5), name


def test_another_world_changes_nothing():
    there = evaluated(points=lambda x: apply(ELSEWHERE, x), poses=lambda T: ELSEWHERE @ T)
    for name, metric in evaluated().items():
        assert there[name].value == (None if metric.value is None else pytest.approx(metric.value, abs=1e-5)), name


def grown(T: np.ndarray) -> np.ndarray:
    T = T.copy()
    T[:3, 3] *= 1.25
    return T


def test_a_rig_that_is_too_large_is_wrong_where_no_scale_is_fitted():
    values = evaluated(points=lambda x: 1.25 * x, poses=grown)
    centres = np.stack([T[:3, 3] for T in ring(4).values()])
    te_m = np.linalg.norm(0.25 * (centres - centres.mean(axis=0)), axis=1).mean()
    assert values["rig_te_m"].value == pytest.approx(te_m)
    scale_m = np.linalg.norm(centres - centres.mean(axis=0), axis=1).max()
    assert values["rig_cca_15pct"].value == float((0.25 * scale_m) < 0.15 * scale_m) == 0.0
    for name in ("rig_s_te_m", "rig_ae_deg", "rig_ga_mpjpe_m", "rig_pa_mpjpe_m"):
        assert values[name].value == pytest.approx(0.0, abs=1e-5), name
    assert values["rig_s_cca_10pct"].value == values["rig_rra_10deg"].value == 1.0
    # About the middle of the cameras, which SE(3) keeps, everything is a quarter too far out.
    true = people(0).joints_world - centres.mean(axis=0)
    assert evaluated(1, points=lambda x: 1.25 * x, poses=grown)["rig_w_mpjpe_m"].value == pytest.approx(
        0.25 * np.linalg.norm(true, axis=-1).mean())


def test_people_in_the_wrong_place_are_right_in_themselves():
    values = evaluated(points=lambda x: x + np.array([[[0.2, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]))
    assert values["rig_w_mpjpe_m"].value == pytest.approx(0.1)
    assert values["rig_w_mpjpe_pose_m"].value == pytest.approx(0.1)
    assert 0.01 < values["rig_ga_mpjpe_m"].value < 0.1
    assert values["rig_pa_mpjpe_m"].value == pytest.approx(0.0, abs=1e-9)


def test_a_turned_camera_is_an_angle_of_its_pairs():
    turn = make_transform(Rotation.from_rotvec([0.0, np.radians(12.0), 0.0]).as_matrix(), np.zeros(3))
    first = next(iter(ring(4).values()))
    values = evaluated(poses=lambda T: T @ turn if np.array_equal(T, first) else T)
    assert values["rig_ae_deg"].value == pytest.approx(6.0)  # three of six pairs by 12 degrees
    assert (values["rig_rra_10deg"].value, values["rig_rra_15deg"].value) == (0.5, 1.0)
    assert values["rig_te_m"].value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("cameras", [1, 2])
def test_few_cameras_are_degenerate_and_their_axes_help(cameras: int):
    values = evaluated(cameras=cameras)
    assert values["rig_w_mpjpe_m"].status == "degenerate" if cameras == 2 else values["rig_w_mpjpe_m"].value is None
    assert values["rig_te_m"].value is None and values["rig_cca_10pct"].value is None
    assert values["rig_w_mpjpe_pose_m"].value == pytest.approx(0.0, abs=1e-6)
    assert values["rig_pa_mpjpe_m"].value == pytest.approx(0.0, abs=1e-9)
    assert (values["rig_ae_deg"].value is None) == (cameras == 1)


def test_axis_tips_are_a_metre_from_their_centre():
    tips = metrics.camera_axis_tips(np.stack(list(ring(3).values()))).reshape(3, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(tips[:, 1:] - tips[:, :1], axis=-1), 1.0)
    np.testing.assert_allclose(tips[1, 3] - tips[1, 0], list(ring(3).values())[1][:3, 2])


def test_missed_and_invented_people_count_and_errors_do_not():
    evaluation = RigEvaluation()
    full = moment()
    stranger = People(np.array([1, 2]), np.stack([full.truth.joints_world[0], full.truth.joints_world[0] + 2.0]))
    evaluation.add(dataclasses.replace(full, estimate=stranger))
    evaluation.add(dataclasses.replace(full, estimate=People(np.zeros(0, np.int64), np.zeros((0, 22, 3)))))
    values = evaluation.finish().metrics
    assert values["person_recall"].value == values["coverage"].value == 0.25
    assert values["person_precision"].value == 0.5
    assert values["rig_w_mpjpe_m"].value == pytest.approx(0.0, abs=1e-9)


def test_a_swap_of_names_is_a_switch():
    evaluation = RigEvaluation()
    for k in range(6):
        step = moment(k)
        names = step.estimate.number[::-1].copy() if k >= 3 else step.estimate.number
        evaluation.add(dataclasses.replace(step, estimate=People(names, step.estimate.joints_world)))
    values = evaluation.finish().metrics
    assert values["track_switches"].value == 2.0 and values["idf1"].value == 0.5


def test_detections_taken_for_one_person_are_compared_pair_by_pair():
    """Two people in three cameras; one detection is of nobody, one person is mixed up in the last camera."""
    step = moment(cameras=3)
    heads = {name: CAMERA.project(apply(np.linalg.inv(T), step.truth.joints_world[:, 15]))
             for name, T in step.T_world_true.items()}
    camera = ("cam0", "cam0", "cam0", "cam1", "cam1", "cam2", "cam2")
    uv = np.stack([*heads["cam0"], [5.0, 470.0], *heads["cam1"], *heads["cam2"]])
    seen = SeenPeople(camera, uv, np.array([7, 8, -1, 7, 8, 8, 7]))
    shoulders = step.truth.joints_world.copy()  # without a head, with a neck where the head was
    shoulders[:, 12], shoulders[:, 15] = shoulders[:, 15], np.nan
    evaluation = RigEvaluation()
    evaluation.add(dataclasses.replace(step, seen=seen))
    evaluation.add(dataclasses.replace(step, seen=seen, truth=People(step.truth.number, shoulders)))
    values = evaluation.finish().metrics
    # 16 pairs across cameras; 6 are one person, 6 were taken for one, 2 of these rightly.
    assert values["association_precision"].value == values["association_recall"].value == pytest.approx(1 / 3)
    assert values["association_accuracy"].value == pytest.approx((16 - 6 - 6 + 2 * 2) / 16)
    assert "association_accuracy" not in evaluated()


def test_people_behind_every_camera_need_not_be_found():
    evaluation = RigEvaluation()
    step = moment()
    far = People(np.array([0]), step.truth.joints_world[:1] + [0.0, 0.0, 30.0])
    evaluation.add(dataclasses.replace(step, truth=far))
    values = evaluation.finish().metrics
    assert values["person_recall"].status == "no truth" and values["person_precision"].value == 0.0


def test_people_without_a_known_head_are_found_by_their_other_joints():
    step = moment()
    joints = step.truth.joints_world.copy()
    joints[:, [9, 12, 15]] = np.nan
    truth = People(step.truth.number, joints)
    assert match_in_images(step, truth) == [(0, 0), (1, 1)]
    evaluation = RigEvaluation()
    evaluation.add(dataclasses.replace(step, truth=truth))
    assert evaluation.finish().metrics["rig_ga_mpjpe_m"].value == pytest.approx(0.0, abs=1e-9)


def test_a_camera_that_nobody_placed_takes_no_part():
    step = moment(cameras=5)
    evaluation = RigEvaluation()
    evaluation.add(dataclasses.replace(step, T_world_estimate={
        name: T for name, T in step.T_world_estimate.items() if name != "cam2"}))
    result = evaluation.finish()
    assert result.counts["cameras"] == 4 and result.metrics["rig_te_m"].value == pytest.approx(0.0, abs=1e-9)


def test_a_wrong_config_is_refused():
    with pytest.raises(ConfigError, match="chunk = 1, gate_m = 0.5: expected at least 2, above 0"):
        RigEvaluation(chunk=1)
