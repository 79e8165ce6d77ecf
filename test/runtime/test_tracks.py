"""Tracks on exact bodies: ids survive crossing, absence and camera motion; noise in depth is smoothed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from human_scene_ros.body.convert import full_to_network_rotations, pelvis_position, transformed, with_pelvis_at
from human_scene_ros.body.model import joints, load_body_model, rotation_matrices
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.transform import apply, invert, make_transform
from human_scene_ros.runtime.people import people_from_network
from human_scene_ros.runtime.tracks import (
    Observation,
    SmoothingConfig,
    TrackConfig,
    Tracker,
    TrackerState,
)
from human_scene_ros.scene import TrackState

MODEL = load_body_model()
# The world of these tests is z up; the camera is level at the origin and looks along x.
LEVEL = make_transform(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3))
FRAME_NS = 100_000_000
RAW = SmoothingConfig(min_cutoff_hz=0.0)


def standing_at(x, y, yaw=0.0, **more):
    """Parameters in the world frame of a person standing at (x, y), pelvis 0.1 m below the camera."""
    upright = Rotation.from_euler("Z", yaw) * Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    body = BodyParameters(global_orient=upright.as_rotvec().astype(np.float32), **more)
    return with_pelvis_at(MODEL, body, np.array([x, y, -0.1]))


def seen(body_world, T_world_camera=LEVEL, score=0.9, identity=None):
    return observed(transformed(MODEL, body_world, invert(T_world_camera)), score, identity)


def observed(body, score=0.9, identity=None):
    return Observation(rotation_matrices(body.full_pose()), body.betas, body.expression, joints(MODEL, body), score,
                       np.array([1.0, 2.0], np.float32), identity)


def run(frames, tracker=None, poses=None):
    """Step through lists of observations; returns the bodies of each frame and the last state."""
    tracker = tracker or Tracker(MODEL, smoothing=RAW)
    state, out = TrackerState(), []
    for i, observations in enumerate(frames):
        T = LEVEL if poses is None else poses[i]
        bodies, state = tracker.step(observations, T, i * FRAME_NS, state)
        out.append(bodies)
    return out, state


def test_crossing_people_keep_their_ids():
    """They pass each other 0.4 m apart, walking at 1 m/s: only their velocities tell them apart."""
    frames = [[seen(standing_at(3.0, -1.5 + 0.1 * i)), seen(standing_at(3.4, 1.5 - 0.1 * i))] for i in range(31)]
    out, state = run([f if i % 2 else f[::-1] for i, f in enumerate(frames)])
    assert state.next_id == 2
    first = {b.track.track_id: b.track.mean[1] for b in out[2]}
    last = {b.track.track_id: b.track.mean[1] for b in out[-1]}
    for track_id, y in first.items():
        assert np.sign(last[track_id]) == -np.sign(y)
    for body in out[-1]:
        np.testing.assert_allclose(np.abs(body.velocity_world), [0.0, 1.0, 0.0], atol=0.1)


def test_states_from_tentative_to_lost():
    person = [seen(standing_at(3.0, 0.0))]
    out, state = run([person] * 4 + [[]] * 13)
    states = [[b.track.state for b in bodies] for bodies in out]
    assert states[:4] == [[TrackState.TENTATIVE]] * 2 + [[TrackState.CONFIRMED]] * 2
    assert states[4:14] == [[TrackState.PREDICTED]] * 10
    assert states[14] == [TrackState.LOST]
    assert states[15:] == [[], []]
    assert out[13][0].time_since_update_s == pytest.approx(1.0)
    assert [bodies[0].track.age for bodies in out[:15]] == list(range(15))
    assert not state.tracks


def test_one_glimpse_is_lost_at_once():
    out, _ = run([[seen(standing_at(3.0, 0.0))], [], []])
    assert [[b.track.state for b in bodies] for bodies in out] == [[TrackState.TENTATIVE], [TrackState.LOST], []]


def test_leaving_and_returning_gets_a_new_id_and_the_old_is_never_given_again():
    here, there = [seen(standing_at(3.0, 0.0))], [seen(standing_at(5.0, 2.0))]
    out, state = run([here] * 5 + [[]] * 15 + [here] * 3 + [[]] * 15 + [there] * 3)
    assert out[4][0].track.track_id == 0
    assert out[22][0].track.track_id == 1
    assert out[-1][0].track.track_id == 2
    assert state.next_id == 3


def test_a_network_that_re_identifies_gives_the_old_id_back():
    def person(y, identity):
        return seen(standing_at(3.0, y), identity=identity)

    out, state = run([[person(0.0, 7), person(1.5, 8)]] * 4 + [[]] * 15 + [[person(1.0, 8)]] * 2 + [[person(-1.0, 9)]])
    ids = {b.track.identity: b.track.track_id for b in out[3]}
    assert [b.track.track_id for b in out[20]] == [ids[8]]
    assert {b.track.track_id for b in out[-1]} == {ids[8], 2}
    assert state.next_id == 3


def test_identities_lead_where_geometry_misleads():
    """Two people change places between two frames: impossible for geometry, known by appearance."""
    a, b = standing_at(3.0, 0.0), standing_at(3.0, 0.8)
    out, _ = run([[seen(a, identity=0), seen(b, identity=1)]] * 3 + [[seen(b, identity=0), seen(a, identity=1)]])
    before = {x.track.identity: x.track.track_id for x in out[2]}
    assert {x.track.identity: x.track.track_id for x in out[3]} == before


def test_short_absence_is_coasted_along_the_way():
    walking = [[seen(standing_at(3.0, -1.0 + 0.1 * i))] for i in range(20)]
    out, state = run(walking[:10] + [[]] * 5 + walking[15:])
    assert state.next_id == 1
    predicted = [apply(LEVEL, b[0].joints_camera[:1])[0, 1] for b in out[10:15]]
    np.testing.assert_allclose(predicted, [0.0, 0.1, 0.2, 0.3, 0.4], atol=0.12)
    assert np.all(np.diff(predicted) > 0.05)
    assert [b[0].track.state for b in out[15:]] == [TrackState.CONFIRMED] * 5


def test_camera_motion_is_not_the_peoples():
    """The camera turns by 60 degrees and moves; the person stands still in the world."""
    poses = [make_transform(Rotation.from_euler("Z", 0.05 * i).as_matrix() @ LEVEL[:3, :3],
                            np.array([0.05 * i, 0.0, 0.0])) for i in range(21)]
    person = standing_at(4.0, 1.0)
    out, _ = run([[seen(person, T)] for T in poses[:15]] + [[]] * 6, poses=poses)
    assert {b[0].track.track_id for b in out} == {0}
    np.testing.assert_allclose(out[-1][0].velocity_world, 0.0, atol=1e-3)
    # The predicted body is seen from the present camera.
    expected = joints(MODEL, transformed(MODEL, person, invert(poses[-1])))
    np.testing.assert_allclose(out[-1][0].joints_camera, expected, atol=2e-3)


def test_without_smoothing_the_body_is_what_was_seen():
    rng = np.random.default_rng(0)
    frames = [[seen(standing_at(3.0, 0.02 * i, body_pose=rng.normal(0.0, 0.2, 63).astype(np.float32),
                                betas=rng.normal(0.0, 1.0, 10).astype(np.float32)))] for i in range(5)]
    out, _ = run(frames)
    for bodies, observations in zip(out, frames, strict=True):
        np.testing.assert_allclose(bodies[0].joints_camera, observations[0].joints_camera, atol=1e-5)
        np.testing.assert_allclose(joints(MODEL, bodies[0].parameters), observations[0].joints_camera, atol=1e-5)


def test_smoothing_steadies_distance_shape_and_pose_but_leaves_the_head_on_its_ray():
    rng = np.random.default_rng(1)
    truth = transformed(MODEL, standing_at(4.0, 0.5), invert(LEVEL))
    true_joints = joints(MODEL, truth)
    frames = []
    for _ in range(60):
        noisy = BodyParameters(
            global_orient=(Rotation.from_rotvec(rng.normal(0.0, 0.15, 3)) * Rotation.from_rotvec(
                truth.global_orient)).as_rotvec().astype(np.float32),
            betas=rng.normal(0.0, 0.5, 10).astype(np.float32), body_pose=rng.normal(0.0, 0.15, 63).astype(np.float32))
        points = joints(MODEL, noisy)
        head = true_joints[15] * np.exp(rng.normal(0.0, 0.1))
        transl = (head - points[15]).astype(np.float32)
        noisy = BodyParameters(global_orient=noisy.global_orient, betas=noisy.betas, body_pose=noisy.body_pose,
                               transl=transl)
        frames.append([observed(noisy)])
    out, _ = run(frames, Tracker(MODEL))

    def spread(bodies):
        return np.mean([np.linalg.norm(b - true_joints, axis=1).mean() for b in bodies[20:]])

    raw, smooth = spread([f[0].joints_camera for f in frames]), spread([b[0].joints_camera for b in out])
    assert smooth < 0.7 * raw
    ray = true_joints[15] / true_joints[15, 2]
    for bodies in out:
        head = bodies[0].joints_camera[15]
        np.testing.assert_allclose(head / head[2], ray, atol=1e-4)
        np.testing.assert_allclose(pelvis_position(MODEL, bodies[0].parameters), bodies[0].joints_camera[0], atol=1e-4)
        np.testing.assert_allclose(joints(MODEL, bodies[0].parameters), bodies[0].joints_camera, atol=1e-4)
    assert np.abs(out[-1][0].parameters.betas).mean() < 0.15


def test_a_smoothed_rotation_lies_on_the_shortest_way_to_the_seen_one():
    """Against the geodesic of scipy, for small and large turns; after half a turn, which has two, the seen one."""
    rng = np.random.default_rng(2)
    start, turn = Rotation.random(50, rng), rng.normal(size=(50, 3))
    angle = np.concatenate([[0.0, 1e-9, 1e-4, np.pi - 1e-3, np.pi], rng.uniform(0.0, np.pi, 45)])
    turn *= (angle / np.linalg.norm(turn, axis=1))[:, None]
    seen, dt_s = start * Rotation.from_rotvec(turn), np.full(50, 0.1)
    followed = Tracker(MODEL)._followed(start.as_matrix(), seen.as_matrix(), dt_s)
    share = 1.0 / (1.0 + 1.0 / (2.0 * np.pi * (1.0 + 0.05 * angle / 0.1) * 0.1))
    expected = start * Rotation.from_rotvec(share[:, None] * turn)
    between = angle < np.pi
    np.testing.assert_allclose(followed[between], expected.as_matrix()[between], atol=1e-9)
    np.testing.assert_allclose(followed[~between], seen.as_matrix()[~between], atol=1e-9)


def test_rotations_of_half_precision_are_mended():
    """bfloat16 keeps eight bits: its matrices are scaled and sheared by up to 0.4 %, joints must not be."""
    exact = Rotation.random(2 * 53, np.random.default_rng(5)).as_matrix().reshape(2, 53, 3, 3)
    given = torch.from_numpy(exact).to(torch.bfloat16).float().numpy()
    assert np.abs(given @ given.swapaxes(-1, -2) - np.eye(3)).max() > 2e-3
    rotations, _ = people_from_network(MODEL, given, np.zeros((2, 10)), np.zeros((2, 10)), np.ones((2, 3)))
    np.testing.assert_allclose(rotations @ rotations.swapaxes(-1, -2), np.tile(np.eye(3), (2, 55, 1, 1)), atol=5e-5)
    np.testing.assert_allclose(full_to_network_rotations(rotations), exact, atol=4e-3)


def test_hundreds_of_smoothed_frames_stay_rotations():
    rng = np.random.default_rng(3)
    bodies = [BodyParameters(transl=np.array([0.0, 0.0, 4.0], np.float32), global_orient=rng.normal(0.0, 1.0, 3).astype(
        np.float32), body_pose=rng.normal(0.0, 0.3, 63).astype(np.float32)) for _ in range(5)]
    tracker, state = Tracker(MODEL), TrackerState()
    for i in range(500):
        _, state = tracker.step([observed(bodies[i % 5])], LEVEL, i * FRAME_NS, state)
    (track,) = state.tracks
    squares = track.rotations @ track.rotations.swapaxes(-1, -2)
    np.testing.assert_allclose(squares, np.tile(np.eye(3), (55, 1, 1)), atol=1e-6)


def test_far_jump_is_another_person():
    out, state = run([[seen(standing_at(3.0, 0.0))]] * 3 + [[seen(standing_at(3.0, 2.0))]])
    assert state.next_id == 2
    assert sorted(b.track.state for b in out[-1]) == [TrackState.TENTATIVE, TrackState.PREDICTED]


def test_order_is_by_score_and_input_is_not_changed():
    tracker = Tracker(MODEL)
    bodies, state = tracker.step([seen(standing_at(3.0, 0.0), score=0.4), seen(standing_at(3.0, 2.0), score=0.8)],
                                 LEVEL, 0, TrackerState())
    assert [b.track.score for b in bodies] == [0.8, 0.4]
    again, other = tracker.step([seen(standing_at(3.0, 0.1))], LEVEL, FRAME_NS, state)
    twice, _ = tracker.step([seen(standing_at(3.0, 0.1))], LEVEL, FRAME_NS, state)
    assert len(state.tracks) == 2
    np.testing.assert_array_equal(again[0].joints_camera, twice[0].joints_camera)
    assert other.next_id == state.next_id


def test_two_frames_with_the_same_stamp_do_not_divide_by_zero():
    tracker, state = Tracker(MODEL), TrackerState()
    for _ in range(3):
        bodies, state = tracker.step([seen(standing_at(3.0, 0.0))], LEVEL, 5, state)
    assert np.isfinite(bodies[0].joints_camera).all()
    assert np.isfinite(bodies[0].velocity_world).all()


def test_bad_config():
    with pytest.raises(ConfigError, match=r"track.confirm_hits = 0: must be in \[1, 1000\]"):
        TrackConfig(confirm_hits=0)
    with pytest.raises(ConfigError, match="smoothing.beta = -1.0"):
        SmoothingConfig(beta=-1.0)
