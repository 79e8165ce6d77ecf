"""Odometry against exact geometry: textured planes with known poses and depth."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert, make_transform, rotation_angle
from human_scene_ros.runtime.odometry import KeyframeOdometry, OdometryConfig, solve_pose
from human_scene_ros.scene import PoseHint, TrackingStatus

sys.path.insert(0, str(Path(__file__).parent))
from planes import CAMERA, pose, render  # noqa: E402 - lies next to this file

FRAME_NS = 66_666_667
SHARP = OdometryConfig(depth_noise=0.02)


def follow(poses, odometry=None, change=lambda i, image, depth: (image, depth, None), camera=CAMERA, trust=False):
    """Run the odometry over rendered views of the room; returns the results and the last state."""
    odometry = odometry or KeyframeOdometry(SHARP)
    state, results = None, []
    for i, T in enumerate(poses):
        image, depth, people = change(i, *render(T, camera))
        result, state = odometry.step(image, camera, i * FRAME_NS, depth, camera, people, state,
                                      trust_depth_scale=trust, compare_depth=True)
        results.append(result)
    return results, state


def errors(results, poses):
    """Largest position error in metres and rotation error in degrees."""
    off = [invert(T) @ r.T_origin_camera for r, T in zip(results, poses, strict=True)]
    return max(np.linalg.norm(o[:3, 3]) for o in off), max(np.degrees(rotation_angle(o[:3, :3])) for o in off)


def walk(n):
    return [pose(0.8 * np.sin(0.06 * i), 0.05 * np.sin(0.3 * i), 0.02 * i, 14.0 * np.sin(0.08 * i),
                 4.0 * np.sin(0.11 * i)) for i in range(n)]


def test_static_camera_stays_exactly_still_under_noise():
    rng = np.random.default_rng(0)

    def noisy(i, image, depth):
        image = np.clip(image + rng.normal(0.0, 3.0, image.shape), 0, 255).astype(np.uint8)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
        return jpeg, depth * (1.0 + 0.1 * np.sin(i)), None

    results, _ = follow([np.eye(4)] * 20, KeyframeOdometry(), noisy)
    for result in results:
        np.testing.assert_array_equal(result.T_origin_camera, np.eye(4))
        assert result.status == TrackingStatus.OK
    assert [r.moved for r in results[1:]] == [False] * 19


def test_known_motion_with_true_depth():
    poses = walk(70)
    results, _ = follow(poses)
    position_m, rotation_deg = errors(results, poses)
    assert all(r.status == TrackingStatus.OK for r in results)
    assert position_m < 0.04  # of a path of 3.6 m
    assert rotation_deg < 0.5
    assert sum(r.new_keyframe for r in results) < 12


def test_changing_exposure_is_no_motion():
    """Brightness swings by 30 % as with an automatic exposure; the room stays."""
    def exposed(i, image, depth):
        return np.clip(image * (1.0 + 0.3 * np.sin(0.5 * i)), 0, 255).astype(np.uint8), depth, None

    poses = walk(70)
    results, _ = follow(poses, change=exposed)
    position_m, rotation_deg = errors(results, poses)
    assert all(r.status == TrackingStatus.OK for r in results)
    assert position_m < 0.04 and rotation_deg < 0.5  # of a path of 3.6 m; 0.10 m and 1.4 degrees by plain brightness


def test_slow_creep_is_not_taken_for_standing_still():
    poses = [pose(x=0.0005 * i) for i in range(80)]
    results, _ = follow(poses)
    assert errors(results, poses)[0] < 0.006


def test_full_turn_comes_back_to_where_it_began():
    poses = [pose(yaw_deg=4.0 * i) for i in range(91)]
    results, _ = follow(poses)
    position_m, rotation_deg = errors(results, poses)
    assert position_m < 0.06
    assert rotation_deg < 1.0


@pytest.mark.parametrize("yaw_deg", [4.0, 8.0, 16.0])
def test_a_jerk_that_nothing_announced_is_followed(yaw_deg):
    poses = [pose()] * 5 + [pose(yaw_deg=yaw_deg)] * 3
    results, _ = follow(poses, KeyframeOdometry())
    assert all(r.status == TrackingStatus.OK for r in results)
    position_m, rotation_deg = errors(results, poses)
    assert position_m < 0.02
    assert rotation_deg < 0.1


def test_returning_to_an_old_view_uses_its_keyframe():
    poses = [pose(yaw_deg=45.0 * np.sin(0.1 * i)) for i in range(127)]
    results, state = follow(poses)
    made_first, made_again = (sum(r.new_keyframe for r in part) for part in (results[:64], results[64:]))
    assert made_first >= 3
    assert made_again < made_first
    assert errors(results, poses)[1] < 0.6
    assert len(state.keyframes) <= SHARP.max_keyframes


@pytest.mark.parametrize("seed", range(4))
def test_doubtful_depth_costs_little(seed):
    rng = np.random.default_rng(seed)
    poses = [pose(x=0.015 * i, yaw_deg=0.4 * i) for i in range(40)]

    def rough(i, image, depth):
        cells = rng.normal(0.0, 0.2, (12, 16)).astype(np.float32)
        return image, depth * np.exp(cv2.resize(cells, (320, 240), interpolation=cv2.INTER_CUBIC)), None

    results, _ = follow(poses, KeyframeOdometry(OdometryConfig()), rough)
    position_m, rotation_deg = errors(results, poses)
    assert position_m < 0.06  # of 0.59 m; 0.45 m when the depths are not estimated along
    assert rotation_deg < 0.5


def test_scale_is_carried_from_keyframe_to_keyframe():
    """Depth that is right at first and half as large from frame 10 on must not shorten the way."""
    poses = [pose(yaw_deg=2.0 * i, x=0.01 * i) for i in range(50)]

    def shrinking(i, image, depth):
        return image, depth * (1.0 if i < 10 else 0.5), None

    carried, state = follow(poses, KeyframeOdometry(dataclasses.replace(SHARP, carry_scale=1.0)), shrinking)
    assert state.keyframes_made > 1
    assert state.keyframes[0].scale == pytest.approx(2.0, rel=0.03)
    assert carried[-1].depth_ratio == pytest.approx(2.0, rel=0.05)
    assert errors(carried, poses)[0] < 0.05
    fresh, state = follow(poses, KeyframeOdometry(SHARP), shrinking, trust=True)
    assert state.keyframes[0].scale == 1.0
    assert np.linalg.norm(fresh[-1].T_origin_camera[:3, 3]) < 0.9 * np.linalg.norm(poses[-1][:3, 3])


@pytest.mark.parametrize("masked", [True, False])
def test_moving_person_does_not_pull_the_camera(masked):
    rng = np.random.default_rng(2)
    person = cv2.resize(rng.integers(0, 255, (30, 12), dtype=np.uint8), (84, 210), interpolation=cv2.INTER_CUBIC)

    def with_person(i, image, depth):
        image, depth = image.copy(), depth.copy()
        left = 20 + 4 * i
        image[20:230, left:left + 84] = person[..., None]
        depth[20:230, left:left + 84] = 2.0
        people = np.zeros(depth.shape, bool)
        people[15:235, max(0, left - 5):left + 89] = True
        return image, depth, people if masked else None

    results, _ = follow([np.eye(4)] * 40, KeyframeOdometry(), with_person)
    position_m, rotation_deg = errors(results, [np.eye(4)] * 40)
    assert position_m < 0.02
    assert rotation_deg < 0.5


def test_blank_images_hold_the_pose_and_say_so():
    poses = [pose(x=0.02 * min(i, 12)) for i in range(30)]

    def dark(i, image, depth):
        return (np.zeros_like(image) if 6 <= i < 12 else image), depth, None

    results, state = follow(poses, change=dark)
    status = [r.status for r in results]
    assert set(status[6:12]) <= {TrackingStatus.LOW_TEXTURE, TrackingStatus.LOST}
    assert status[13:] == [TrackingStatus.OK] * 17
    # Constant velocity bridged the gap, and the keyframe seen again afterwards corrected it.
    assert errors(results, poses)[0] < 0.05
    assert errors(results[13:], poses[13:])[0] < 0.01


def test_blank_from_the_beginning_then_starts():
    results, _ = follow([np.eye(4)] * 4, change=lambda i, image, depth: (image * (i > 1), depth, None))
    assert [r.status for r in results[:2]] == [TrackingStatus.LOW_TEXTURE] * 2
    assert results[3].status == TrackingStatus.OK


def test_unknown_depth_gives_no_corners():
    results, _ = follow([np.eye(4)] * 2, change=lambda i, image, depth: (image, np.full_like(depth, np.nan), None))
    assert results[1].status == TrackingStatus.LOW_TEXTURE
    np.testing.assert_array_equal(results[1].T_origin_camera, np.eye(4))


def test_another_image_size_goes_on_from_the_same_pose():
    odometry, state, results = KeyframeOdometry(SHARP), None, []
    other = CAMERA.resized(640, 480).cropped(0, 60, 640, 360)
    poses = [pose(x=0.02 * i) for i in range(20)]
    for i, T in enumerate(poses):
        camera = CAMERA if i < 10 else other
        image, depth = render(T, camera)
        result, state = odometry.step(image, camera, i * FRAME_NS, depth, camera, None, state)
        results.append(result)
    assert results[10].new_keyframe
    assert errors(results, poses)[0] < 0.02


def test_depth_of_another_size_and_crop_is_looked_up_through_the_cameras():
    small = CAMERA.resized(160, 120).cropped(0, 4, 160, 112)
    poses = [pose(x=0.02 * i, yaw_deg=0.5 * i) for i in range(15)]
    odometry, state, results = KeyframeOdometry(SHARP), None, []
    for i, T in enumerate(poses):
        result, state = odometry.step(render(T)[0], CAMERA, i * FRAME_NS, render(T, small)[1], small, None, state)
        results.append(result)
    position_m, rotation_deg = errors(results, poses)
    assert position_m < 0.01
    assert rotation_deg < 0.2


def test_poses_stay_rigid_over_many_keyframes():
    """Inverting by the transpose must not let rounding grow along the chain of keyframes."""
    results, state = follow([pose(yaw_deg=5.0 * i) for i in range(73)])
    assert state.keyframes_made > 8
    for result in results:
        rotation = result.T_origin_camera[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_step_changes_nothing_it_was_given():
    poses = walk(12)
    odometry = KeyframeOdometry(SHARP)
    _, state = follow(poses[:11], odometry)
    image, depth = render(poses[11])
    first, _ = odometry.step(image, CAMERA, 11 * FRAME_NS, depth, CAMERA, None, state)
    again, _ = odometry.step(image, CAMERA, 11 * FRAME_NS, depth, CAMERA, None, state)
    np.testing.assert_array_equal(first.T_origin_camera, again.T_origin_camera)


def test_solve_pose_is_exact_without_noise_and_survives_a_bad_start():
    rng = np.random.default_rng(3)
    uv = rng.uniform((0, 0), (319, 239), (80, 2))
    points = CAMERA.unproject(uv, rng.uniform(1.0, 6.0, 80))
    T = make_transform(Rotation.from_rotvec([0.05, -0.5, 0.1]).as_matrix(), np.array([0.4, -0.1, 0.3]))
    seen = CAMERA.project(apply(T, points))
    seen[:20] += rng.uniform(15.0, 60.0, (20, 2))
    found, agree = solve_pose(points, seen, CAMERA, np.eye(4), 0.5, 0.1)
    # The 20 wrong tracks keep a vanishing, not zero weight.
    np.testing.assert_allclose(found, T, atol=2e-4)
    assert agree[20:].all()
    assert agree[:20].sum() <= 2


def test_errors_name_both_values():
    with pytest.raises(ConfigError, match=r"odometry.carry_scale = 1.5: must be in \[0.0, 1.0\]"):
        OdometryConfig(carry_scale=1.5)
    image, depth = render(np.eye(4))
    with pytest.raises(ShapeError, match=r"depth_m has shape \(240, 320\); expected \(48, 64\)"):
        KeyframeOdometry().step(image, CAMERA, 0, depth, CAMERA.resized(64, 48))


def test_kitchen_with_sensor_depth():
    """Real hand-held RGB-D; its depth is not registered to the colour image, so centimetres are all it gives."""
    from helpers import shared_folder

    folder = shared_folder() / "data" / "rgbd_kitchen_a"
    if not folder.is_dir():
        pytest.skip(f"no recording at {folder}")
    truth = np.loadtxt(folder / "groundtruth.tum")
    colour, sensor = PinholeCamera(640, 480, 525, 525, 320, 240), PinholeCamera(640, 480, 585, 585, 320, 240)
    odometry, state, estimate = KeyframeOdometry(), None, []
    names = zip(sorted((folder / "rgb").iterdir()), sorted((folder / "depth").iterdir()), strict=True)
    for row, (rgb, depth) in zip(truth, names, strict=True):
        z = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000.0
        result, state = odometry.step(cv2.imread(str(rgb)), colour, int(row[0] * 1e9), np.where(z < 10.0, z, 0.0),
                                      sensor, None, state, trust_depth_scale=True)
        assert result.status == TrackingStatus.OK
        estimate.append(result.T_origin_camera[:3, 3])
    error_m = _ate(np.array(estimate), truth[:, 1:4])
    assert error_m < 0.06, f"ATE {error_m:.3f} m"


def _ate(estimate, truth):
    centred, target = estimate - estimate.mean(0), truth - truth.mean(0)
    rotation, _ = Rotation.align_vectors(target, centred)
    return float(np.sqrt(np.mean(np.sum((rotation.apply(centred) - target) ** 2, axis=1))))


def test_a_hint_carries_the_pose_where_there_is_nothing_to_see():
    """Five images are blank: constant velocity overshoots a turn that the hint knows."""
    poses = [pose(0.02 * i, yaw_deg=2.0 * min(i, 12)) for i in range(22)]
    T_odom_origin = pose(3.0, 1.0, -2.0, 70.0)

    def last(hinted):
        odometry, state = KeyframeOdometry(SHARP), None
        for i, T in enumerate(poses):
            image, depth = render(T)
            if 11 <= i < 16:
                image = np.zeros_like(image)
            hint = PoseHint(T_odom_origin @ T) if hinted else None
            result, state = odometry.step(image, CAMERA, i * FRAME_NS, depth, CAMERA, None, state, hint=hint)
            if 11 <= i < 16:
                assert result.status in (TrackingStatus.LOST, TrackingStatus.LOW_TEXTURE)
                if hinted:
                    np.testing.assert_allclose(invert(T) @ result.T_origin_camera, np.eye(4), atol=0.02)
        return np.linalg.norm((invert(poses[-1]) @ result.T_origin_camera)[:3, 3])

    assert last(hinted=True) < 0.02


def test_a_wrong_hint_does_not_beat_what_is_seen():
    poses = walk(25)
    odometry, state, rng = KeyframeOdometry(SHARP), None, np.random.default_rng(1)
    for i, T in enumerate(poses):
        image, depth = render(T)
        noisy = T @ pose(*rng.normal(0.0, 0.03, 3), *rng.normal(0.0, 1.0, 2))
        result, state = odometry.step(image, CAMERA, i * FRAME_NS, depth, CAMERA, None, state,
                                      hint=PoseHint(noisy, 0.03, 0.05))
        off = invert(T) @ result.T_origin_camera
        assert np.linalg.norm(off[:3, 3]) < 0.02 and np.degrees(rotation_angle(off[:3, :3])) < 0.3


def test_a_wrong_velocity_fades():
    """A frame that was misplaced must not be repeated by the frames after it, where they cannot tell."""
    odometry = KeyframeOdometry()
    _, state = follow([np.eye(4)] * 2)
    state = dataclasses.replace(state, velocity=np.array([1.0, 0.0, 0.0]), keyframes=())
    dark = np.zeros((240, 320, 3), np.uint8)
    result, _ = odometry.step(dark, CAMERA, 2 * FRAME_NS, np.ones((240, 320)), CAMERA, None, state)
    expected = odometry.config.velocity_kept * FRAME_NS * 1e-9
    np.testing.assert_allclose(result.T_origin_camera[:3, 3], [expected, 0.0, 0.0], atol=1e-9)
