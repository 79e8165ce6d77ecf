"""Calibration of a rig from people: exact joints give exact poses, depths that lie cost little, doubts are true."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion.calibration import (
    PeopleMemory,
    RayPose,
    _found,
    _placed,
    _rivalry,
    calibrate,
    combined,
    poses_from_scene,
    refined_by_rays,
)
from human_scene_ros.fusion.extrinsics import TORSO_JOINTS, ExtrinsicsStatus, PairExtrinsics, PeopleTracks
from human_scene_ros.fusion.ray_pairs import AXIS_JOINTS, pose_from_rays
from human_scene_ros.geometry.transform import apply, invert, make_transform, rotation_angle
from human_scene_ros.synthetic.multiview import MultiviewClip, MultiviewConfig, generate


def remembered(clip: MultiviewClip, frames: range, cameras: int = 4) -> PeopleMemory:
    memory = PeopleMemory(names_of(clip)[:cameras], 60.0)
    for k in frames:
        for v, name in enumerate(names_of(clip)[:cameras]):
            joints = [apply(invert(clip.T_world_camera_true[v]), p[k, :22]).reshape(-1) for p in clip.truth]
            memory.add(name, k / 30.0, [SimpleNamespace(track_id=f"b{p}", joints=j) for p, j in enumerate(joints)])
    return memory


def names_of(clip: MultiviewClip) -> list[str]:
    return [f"camera_{v}" for v in range(len(clip.T_world_camera_true))]


def noisy_tracks(clip: MultiviewClip, seed: int, bias: float = 0.03) -> dict[str, PeopleTracks]:
    """What networks would say: depths wrong by a lasting factor per camera and person and a wandering one; 1 cm."""
    rng = np.random.default_rng(seed)
    frames = clip.truth.shape[1]
    tracks = {}
    for v, name in enumerate(names_of(clip)):
        people = []
        for person in clip.truth:
            wander = np.zeros(frames)
            for k in range(1, frames):
                wander[k] = 0.9 * wander[k - 1] + 0.03 * np.sqrt(1.0 - 0.81) * rng.normal()
            torso = apply(invert(clip.T_world_camera_true[v]), person[:, list(TORSO_JOINTS)])
            factor = (1.0 + bias * rng.normal() + wander)[:, None, None]
            people.append(torso + (factor - 1.0) * torso[:, 3:4] + 0.01 * rng.normal(size=torso.shape))
        tracks[name] = PeopleTracks(np.arange(frames) / 30.0, np.stack(people))
    return tracks


def errors(clip: MultiviewClip, found) -> np.ndarray:
    """(V - 1, 6) position and rotation vector along the first camera's axes."""
    rows = []
    for v, camera in enumerate(found[1:], 1):
        true = invert(clip.T_world_camera_true[0]) @ clip.T_world_camera_true[v]
        turn = Rotation.from_matrix(camera.T_first_camera[:3, :3] @ true[:3, :3].T).as_rotvec()
        rows.append(np.concatenate([camera.T_first_camera[:3, 3] - true[:3, 3], turn]))
    return np.array(rows)


def test_exact_joints_give_exact_poses():
    clip = generate(MultiviewConfig("ring", 4, 2, 120, 6))
    found = calibrate(remembered(clip, range(120)).tracks(names_of(clip)))
    assert np.abs(errors(clip, found)).max() < 1e-3
    for camera in found:
        assert camera.status is ExtrinsicsStatus.OK and camera.rms_m < 1e-3 and camera.inliers > 100
        assert camera.ray_error < 1e-4 and "rms 0.0 cm" in camera.line()
    np.testing.assert_array_equal(found[0].T_first_camera, np.eye(4))
    assert not found[0].covariance.any()


def late(tracks: dict[str, PeopleTracks], name: str, offset_s: float) -> dict[str, PeopleTracks]:
    """The tracks with one camera's stamps off, so that `offset_s` is to be added to them."""
    return tracks | {name: PeopleTracks(tracks[name].stamp_s - offset_s, tracks[name].joints)}


@pytest.mark.parametrize("offset_s", [0.02, -0.05, 0.1, 0.2])
def test_a_clock_that_is_off_costs_nothing_and_is_said(offset_s: float):
    clip = generate(MultiviewConfig("ring", 3, 2, 120, 6))
    found = calibrate(late(remembered(clip, range(120)).tracks(names_of(clip)), "camera_1", offset_s))
    error = errors(clip, found)
    assert np.linalg.norm(error[:, :3], axis=1).max() < 0.005 and np.abs(error[:, 3:]).max() < 1e-3
    assert [camera.offset_s for camera in found] == pytest.approx([0.0, offset_s, 0.0], abs=0.002)
    assert f"clock {1e3 * offset_s:+.0f} ms" in found[1].line() and "clock" not in found[2].line()


@pytest.mark.parametrize("name", ["camera_0", "camera_2"])
def test_with_noise_a_clock_that_is_off_is_found_and_moves_no_camera(name: str):
    clip = generate(MultiviewConfig("ring", 3, 2, 200, 1))
    right = noisy_tracks(clip, 1)
    found = calibrate(late(right, name, 0.1))
    expected = [0.0, -0.1, -0.1] if name == "camera_0" else [0.0, 0.0, 0.1]  # the first clock is the measure
    assert [camera.offset_s for camera in found] == pytest.approx(expected, abs=0.01)
    without = errors(clip, calibrate(right))
    assert np.linalg.norm((errors(clip, found) - without)[:, :3], axis=1).max() < 0.02


def test_nobody_moving_tells_no_clock():
    clip = generate(MultiviewConfig("ring", 2, 2, 90, 6))
    clip.truth[:] = clip.truth[:, :1]
    rng = np.random.default_rng(0)
    tracks = {name: dataclasses.replace(t, joints=t.joints + rng.normal(0.0, 0.002, t.joints.shape))
              for name, t in remembered(clip, range(90)).tracks(names_of(clip)).items()}
    camera = calibrate(late(tracks, "camera_1", 0.1))[1]
    assert camera.T_first_camera is not None and np.isnan(camera.offset_s) and "clock" not in camera.line()
    error = errors(clip, (None, camera))[0]
    assert error @ np.linalg.solve(camera.covariance, error) < 30.0


def test_a_camera_beyond_the_scan_of_clocks_is_refused_and_moves_no_other():
    clip = generate(MultiviewConfig("ring", 3, 2, 120, 1))
    tracks = noisy_tracks(clip, 1)
    found = calibrate(late(tracks, "camera_2", 2.0))
    error = errors(clip, found[:2]) - errors(clip, calibrate({n: tracks[n] for n in ("camera_0", "camera_1")}))
    assert np.linalg.norm(error[0, :3]) < 0.03
    assert found[2].T_first_camera is None and "no pose" in found[2].line()


def test_a_camera_that_saw_nobody_is_named_and_the_others_are_found():
    clip = generate(MultiviewConfig("ring", 4, 1, 120, 6))
    names = names_of(clip)
    tracks = remembered(clip, range(120), cameras=2).tracks(names[:2])
    tracks[names[2]] = PeopleMemory([names[2]], 60.0).tracks([names[2]])[names[2]]
    found = calibrate(tracks)
    assert found[1].T_first_camera is not None and found[2].T_first_camera is None
    assert found[2].line().startswith(f"{names[2]}: no pose: too little was seen by two cameras")
    assert found[2].covariance is None


def test_the_memory_keeps_the_last_seconds():
    clip = generate(MultiviewConfig("ring", 2, 1, 90, 6))
    name = names_of(clip)[0]
    memory = remembered(clip, range(90), cameras=1)
    assert memory.tracks([name])[name].joints.shape == (1, 90, 7, 3)
    assert memory.tracks([name], 1.001)[name].joints.shape == (1, 31, 7, 3)
    memory.clear()
    assert memory.tracks([name])[name].joints.shape[0] == 0


def test_the_covariance_is_that_of_the_result_and_true():
    """Over rigs: errors are as large as they are said to be (mean square of 6 normal numbers is 6)."""
    squares = []
    for seed in range(4):
        clip = generate(MultiviewConfig("ring", 3, 2, 100, seed))
        found = calibrate(noisy_tracks(clip, seed))
        for camera, error in zip(found[1:], errors(clip, found), strict=True):
            assert camera.status is ExtrinsicsStatus.OK
            squares.append(error @ np.linalg.solve(camera.covariance, error))
    assert 0.5 < np.median(squares) < 20.0


def test_a_pose_that_nobody_can_know_is_not_given():
    """Somebody who stands still, far off, seen blurred: fits are many, so none is given."""
    clip = generate(MultiviewConfig("ring", 2, 1, 60, 3))
    clip.truth[:] = clip.truth[:, :1]
    rng = np.random.default_rng(1)
    tracks = {name: dataclasses.replace(t, joints=t.joints + rng.normal(0.0, 0.12, t.joints.shape))
              for name, t in noisy_tracks(clip, 1).items()}
    camera = calibrate(tracks)[1]
    assert camera.T_first_camera is None and camera.status > ExtrinsicsStatus.OK and "no pose" in camera.line()


def test_people_who_are_nowhere_the_same_give_no_pose_and_say_so():
    clip = generate(MultiviewConfig("ring", 3, 1, 120, 2))
    rng = np.random.default_rng(0)
    tracks = {name: PeopleTracks(np.arange(120) / 30.0, np.cumsum(rng.normal(0.0, 0.3, (1, 120, 1, 3)), axis=1)
                                 + rng.normal(0.0, 0.3, (1, 120, 7, 3)) + [0.0, 0.0, 6.0]) for name in names_of(clip)}
    found = calibrate(tracks)
    assert all(camera.T_first_camera is None for camera in found[1:])
    assert {camera.status for camera in found[1:]} <= {ExtrinsicsStatus.INCONSISTENT, ExtrinsicsStatus.TOO_FEW_FRAMES}
    assert "no pose explains" in found[1].line() or "too little" in found[1].line()


@pytest.mark.parametrize(("people", "degrees", "metres"), [(1, 1.5, 0.5), (2, 1.0, 0.35)])
def test_noise_costs_little_of_ten_metres(people: int, degrees: float, metres: float):
    clip = generate(MultiviewConfig("room", 4, people, 200, 5))
    error = errors(clip, calibrate(noisy_tracks(clip, 5)))
    assert np.degrees(np.linalg.norm(error[:, 3:], axis=1)).max() < degrees
    assert np.linalg.norm(error[:, :3], axis=1).max() < metres


def repeated(T: np.ndarray, count: int, metres: float, degrees: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.tile(T, (count, 1, 1))
    out[:, :3, :3] = Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=(count, 3))).as_matrix() @ T[:3, :3]
    out[:, :3, 3] += metres * rng.normal(size=(count, 3))
    return out


def test_poses_of_one_state_are_averaged_and_those_that_wander_are_refused():
    clip = generate(MultiviewConfig("ring", 4, 1, 30, 6))
    names = names_of(clip)
    noise = {names[0]: (0.01, 0.3), names[1]: (0.02, 0.5), names[2]: (0.2, 0.5), names[3]: (0.02, 5.0)}
    poses = {n: repeated(clip.T_world_camera_true[v], 60, *noise[n], seed=v) for v, n in enumerate(names)}
    poses[names[1]][3] = np.nan
    found = poses_from_scene(poses)
    np.testing.assert_array_equal(found[0].T_first_camera, np.eye(4))
    error = errors(clip, found[:2])[0]
    assert np.linalg.norm(error[:3]) < 0.06 and np.degrees(np.linalg.norm(error[3:])) < 0.3
    assert error @ np.linalg.solve(found[1].covariance, error) < 30.0
    assert found[1].status is ExtrinsicsStatus.OK and "by the scene" in found[1].line()
    for camera in found[2:]:
        assert camera.T_first_camera is None and camera.status is ExtrinsicsStatus.INCONSISTENT
        assert "fed to one recurrent state" in camera.line()


def test_states_of_their_own_are_told_from_a_shared_one_and_missing_poses_are_named():
    """Every stream begins at its own first camera: all at one place."""
    own = {name: repeated(np.eye(4), 40, 0.005, 0.1, k) for k, name in enumerate(("a", "b"))}
    assert poses_from_scene(own)[1].status is ExtrinsicsStatus.INCONSISTENT
    none = poses_from_scene({"a": own["a"], "b": np.zeros((0, 4, 4))})[1]
    assert none.status is ExtrinsicsStatus.TOO_FEW_FRAMES and "pose head" in none.line()


def test_the_scene_places_whom_people_do_not():
    clip = generate(MultiviewConfig("ring", 3, 1, 120, 6))
    names = names_of(clip)
    memory = remembered(clip, range(120), cameras=2)
    tracks = memory.tracks(names[:2]) | {names[2]: PeopleMemory([names[2]], 60.0).tracks([names[2]])[names[2]]}
    scene = poses_from_scene({n: repeated(clip.T_world_camera_true[v], 60, 0.01, 0.2, v) for v, n in enumerate(names)})
    found = combined(calibrate(tracks), scene)
    assert [camera.by_scene for camera in found] == [False, False, True]
    assert np.abs(errors(clip, found)).max() < 0.05


def poor_tracks(clip: MultiviewClip, seed: int, pixels: float = 0.0) -> dict[str, PeopleTracks]:
    """Bodies that face anywhere, at distances of which nobody's is right, in tracks that break every second."""
    rng = np.random.default_rng(seed)
    frames = clip.truth.shape[1]
    tracks = {}
    for v, name in enumerate(names_of(clip)):
        pieces = np.full((len(clip.truth) * (frames // 30), frames, len(TORSO_JOINTS), 3), np.nan)
        for p, person in enumerate(clip.truth):
            torso = apply(invert(clip.T_world_camera_true[v]), person[:, list(TORSO_JOINTS)])
            torso[:, [1, 2, 5, 6]] += 0.2 * rng.normal(size=(frames, 4, 3))  # hips and shoulders
            torso[..., :2] += pixels / 800.0 * torso[..., 2:] * rng.normal(size=(*torso.shape[:2], 2))
            torso *= np.exp(-0.1 + 0.15 * rng.normal() + 0.08 * rng.normal(size=(frames, 1, 1)))
            for k in range(frames // 30):
                pieces[p * (frames // 30) + k, 30 * k:30 * k + 30] = torso[30 * k:30 * k + 30]
        tracks[name] = PeopleTracks(np.arange(frames) / 30.0, pieces)
    return tracks


def test_rays_of_poor_bodies_place_the_second_camera_up_to_scale():
    clip = generate(MultiviewConfig("ring", 2, 2, 150, 6))
    a, b = poor_tracks(clip, 0).values()
    pair = pose_from_rays(a, b)
    assert pair.status is ExtrinsicsStatus.OK
    true = invert(clip.T_world_camera_true[0]) @ clip.T_world_camera_true[1]
    assert np.degrees(rotation_angle(pair.T_a_b[:3, :3] @ true[:3, :3].T)) < 0.01
    ours, theirs = (T[:3, 3] / np.linalg.norm(T[:3, 3]) for T in (pair.T_a_b, true))
    assert np.degrees(np.arccos(min(float(ours @ theirs), 1.0))) < 0.01
    assert 0.7 < np.linalg.norm(pair.T_a_b[:3, 3]) / np.linalg.norm(true[:3, 3]) < 1.2


@pytest.mark.parametrize("offset_s", [-0.2, 0.1])
def test_rays_of_poor_bodies_find_the_clock(offset_s: float):
    clip = generate(MultiviewConfig("ring", 2, 2, 150, 6))
    tracks = late(poor_tracks(clip, 0), "camera_1", offset_s)
    pair = pose_from_rays(*tracks.values())
    true = invert(clip.T_world_camera_true[0]) @ clip.T_world_camera_true[1]
    assert pair.status is ExtrinsicsStatus.OK and pair.offset_observable
    assert pair.offset_s == pytest.approx(offset_s, abs=0.01)
    assert np.degrees(rotation_angle(pair.T_a_b[:3, :3] @ true[:3, :3].T)) < 0.3


def test_poor_bodies_place_a_rig_and_say_that_its_size_is_in_doubt():
    clip = generate(MultiviewConfig("ring", 3, 2, 240, 6))
    found = calibrate(poor_tracks(clip, 1, pixels=6.0))
    for camera, error in zip(found[1:], errors(clip, found), strict=True):
        assert camera.T_first_camera is not None and camera.covariance is not None
        distance = np.linalg.norm(camera.T_first_camera[:3, 3])
        assert np.degrees(np.linalg.norm(error[3:])) < 3.0 and np.linalg.norm(error[:3]) < 0.3 * distance
        assert np.sqrt(np.trace(camera.covariance[:3, :3])) > 0.14 * distance
        assert np.linalg.norm(error[3:]) < 2.0 * np.sqrt(np.trace(camera.covariance[3:, 3:]))


def pairs_of(clip: MultiviewClip, offset_s: dict[str, float]) -> dict[tuple[str, str], PairExtrinsics]:
    """What every two cameras would find if nothing were wrong; person k of one is person k of the other."""
    poses, count = dict(zip(names_of(clip), clip.T_world_camera_true, strict=True)), len(clip.truth)
    people = tuple(range(count * (clip.truth.shape[1] // 30)))
    return {(a, b): PairExtrinsics(invert(poses[a]) @ poses[b], offset_s.get(b, 0.0) - offset_s.get(a, 0.0), True,
                                   ExtrinsicsStatus.OK, 300, 1.0, 0.5, 1.0, np.eye(6), people)
            for a, b in itertools.combinations(poses, 2)}


def test_a_pair_that_contradicts_the_others_by_pose_and_clock_is_outvoted_by_the_rays():
    """It says to be the best of all, so that the first rig stands on it."""
    clip = generate(MultiviewConfig("ring", 3, 2, 240, 6))
    tracks = late(poor_tracks(clip, 1, pixels=6.0), "camera_1", 0.2)
    pairs = pairs_of(clip, {"camera_1": 0.2})
    wrong = pairs["camera_0", "camera_2"]
    turned = wrong.T_a_b @ make_transform(Rotation.from_rotvec([0.0, np.radians(15.0), 0.0]).as_matrix(), np.zeros(3))
    pairs["camera_0", "camera_2"] = dataclasses.replace(wrong, T_a_b=turned, offset_s=-0.3, rms_m=0.1)
    found = _placed(tracks, pairs, AXIS_JOINTS)
    for camera, error in zip(found[1:], errors(clip, found), strict=True):
        assert np.degrees(np.linalg.norm(error[3:])) < 1.5
        assert np.linalg.norm(error[3:]) < 3.0 * np.sqrt(np.trace(camera.covariance[3:, 3:]))
    assert found[1].offset_s == pytest.approx(0.2, abs=0.03)


def test_rigs_that_explain_as_much_share_the_belief():
    """Exact: two rigs 0.2 rad and 0.4 s apart, alike for nine tenths of the time, leave half the square as doubt."""
    other = np.eye(4)
    other[:3, :3] = Rotation.from_rotvec([0.0, 0.2, 0.0]).as_matrix()
    rigs = [{"a": RayPose(np.eye(4)), "b": RayPose(T, clock_s=clock_s)} for T, clock_s in ((np.eye(4), 0.0),
                                                                                           (other, 0.4))]
    worth = np.full(10, 100.0)
    doubt = _rivalry(rigs, [worth, worth - 90.0 * (np.arange(10) == 3)], 0)
    assert not doubt["a"][0].any() and doubt["a"][1] == 0.0
    np.testing.assert_allclose(doubt["b"][0], np.diag([0.0, 0.0, 0.0, 0.0, 0.5 * 0.04, 0.0]), atol=1e-12)
    assert doubt["b"][1] == pytest.approx(np.sqrt(0.5) * 0.4)
    clear = _rivalry(rigs, [worth, worth - 20.0], 0)["b"][0]
    assert np.trace(clear) == pytest.approx(0.04 / (1.0 + np.exp(9 * 20.0 * 2.0 / 20.0)))


def test_a_camera_about_whom_pairs_contradict_each_other_says_so():
    pairs = pairs_of(generate(MultiviewConfig("ring", 2, 1, 60, 6)), {})
    T = pairs["camera_0", "camera_1"].T_a_b
    for radians, status in ((0.06, ExtrinsicsStatus.OK), (0.3, ExtrinsicsStatus.INCONSISTENT)):
        place = RayPose(T, 1e-4 * np.eye(6), 0.001, rivalry=np.diag([0.0, 0.0, 0.0, 0.0, radians**2, 0.0]))
        camera = _found("camera_1", "camera_0", {"camera_0": RayPose(np.eye(4)), "camera_1": place}, pairs)
        assert camera.status is status and camera.disputed and "contradict each other" in camera.line()
        assert (camera.T_first_camera is None) == (status is ExtrinsicsStatus.INCONSISTENT)
    np.testing.assert_allclose(_found("camera_1", "camera_0", {
        "camera_0": RayPose(np.eye(4)), "camera_1": dataclasses.replace(place, rivalry=None)}, pairs).covariance,
        1e-4 * np.eye(6))


def test_bodies_that_are_wrong_for_seconds_leave_as_much_doubt_as_error():
    """Every two seconds all joints of a camera are off by another 8 px, which rays of so short a time hardly show."""
    clip = generate(MultiviewConfig("ring", 2, 1, 480, 6))
    T_true = invert(clip.T_world_camera_true[0]) @ clip.T_world_camera_true[1]
    pair = PairExtrinsics(T_true, 0.0, False, ExtrinsicsStatus.OK, 480, 1.0, 0.1, 1.0, np.eye(6), (0,))
    squared, turned, sigma = [], [], []
    for seed in range(10):
        rng, tracks = np.random.default_rng(seed), {}
        for v in range(2):
            torso = apply(invert(clip.T_world_camera_true[v]), clip.truth[0][:, list(TORSO_JOINTS)])
            off_px = np.repeat(8.0 * rng.normal(size=(8, 1, 2)), 60, axis=0) + rng.normal(size=(480, 7, 2))
            torso[..., :2] += off_px / 800.0 * torso[..., 2:]
            tracks[f"camera_{v}"] = PeopleTracks(np.arange(480) / 30.0, torso[None])
        found = refined_by_rays(tracks, {"camera_0": np.eye(4), "camera_1": T_true}, {("camera_0", "camera_1"): pair},
                                joints=AXIS_JOINTS)["camera_1"]
        turn = Rotation.from_matrix(found.T_root_camera[:3, :3] @ T_true[:3, :3].T).as_rotvec()
        squared.append(float(turn @ np.linalg.solve(found.covariance[3:, 3:], turn)))
        turned.append(np.linalg.norm(turn))
        sigma.append(np.sqrt(np.trace(found.covariance[3:, 3:])))
    # Three degrees of freedom whose covariance is known from ten blocks: Hotelling's mean is 5.4.
    assert 1.0 < np.mean(squared) < 10.0
    assert 0.7 < np.sqrt(np.mean(np.square(sigma)) / np.mean(np.square(turned))) < 1.6


def test_rays_of_somebody_who_stands_place_nothing():
    clip = generate(MultiviewConfig("ring", 2, 1, 150, 6))
    still = dataclasses.replace(clip, truth=np.repeat(clip.truth[:, :1], 150, axis=1))
    a, b = poor_tracks(still, 0, pixels=6.0).values()
    assert pose_from_rays(a, b).status is ExtrinsicsStatus.INCONSISTENT


def test_rays_of_different_people_place_nothing():
    a, _ = poor_tracks(generate(MultiviewConfig("ring", 2, 2, 150, 6)), 0, pixels=6.0).values()
    _, b = poor_tracks(generate(MultiviewConfig("ring", 2, 2, 150, 7)), 0, pixels=6.0).values()
    assert pose_from_rays(a, b).status > ExtrinsicsStatus.LOW_MOTION


def test_nobody_in_common_is_too_few_frames():
    nobody = PeopleTracks(np.arange(10) / 30.0, np.zeros((0, 10, len(TORSO_JOINTS), 3)))
    a, _ = poor_tracks(generate(MultiviewConfig("ring", 2, 1, 60, 6)), 0).values()
    for one, other in ((nobody, nobody), (a, nobody), (nobody, a)):
        assert pose_from_rays(one, other).status is ExtrinsicsStatus.TOO_FEW_FRAMES
