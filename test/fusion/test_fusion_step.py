"""The whole route: exact truths without noise, bad input as statuses, and the benchmark's scenarios."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.commands.bench_fusion import detections_of, fusion_for, run_clip
from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.fusion import Fusion
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.types import Detections, DetectionStatus, FusedFrame, PersonStatus, View
from human_scene_ros.synthetic.multiview import FPS, HEAD, MultiviewConfig, generate

PLAIN = FusionConfig(smoothing=0.0, smooth_position=False, align_time=False, average_betas=False,
                     learn_view_bias=False)


def frames_of(clip, count=None):
    detections = detections_of(clip)
    for k in range(count or clip.truth.shape[1]):
        rows = np.flatnonzero(clip.frame == k)
        yield k, rows, detections.take(rows)


def test_joints_of_the_open_body_agree_with_the_body_model():
    from human_scene_ros.body.model import joints
    model = load_body_model()
    rng = np.random.default_rng(0)
    pose = 0.4 * rng.normal(size=(22, 3)).astype(np.float32)
    betas = rng.normal(size=model.num_betas).astype(np.float32)
    expected = joints(model, BodyParameters(global_orient=pose[0], body_pose=pose[1:].ravel(), betas=betas))[:22]
    skeleton = Skeleton.from_body_model(model)
    from human_scene_ros.fusion.rotations import matrices_from_rotvecs
    ours = skeleton.positions(matrices_from_rotvecs(pose)[None], skeleton.bones(betas[None]))[0]
    assert np.abs(ours - (expected - expected[0])).max() < 1e-5


def test_a_tree_with_children_before_parents_is_refused():
    with pytest.raises(ShapeError):
        Skeleton((-1, 2, 0), np.zeros((3, 3)))


def test_one_view_in_is_that_view_out():
    clip = generate(MultiviewConfig("ring", 1, 2, 40, 3))
    fusion = fusion_for(clip, PLAIN)
    compared = 0
    for k, rows, detections in frames_of(clip):
        result = fusion.step(k / FPS, detections)
        for i, person in enumerate(result.people.person_id):
            (row,) = rows[result.detection_person == person]
            T = clip.T_world_camera_given[0]
            head = T[:3, :3] @ clip.head_camera[row] + T[:3, 3]
            assert np.abs(result.people.joints_world[i, HEAD] - head).max() < 1e-9
            assert result.people.status[i] == PersonStatus.SINGLE_VIEW
            bones = fusion.skeleton.bones(clip.betas[row][None])
            from human_scene_ros.fusion.rotations import matrices_from_rotvecs
            R = matrices_from_rotvecs(clip.pose[row][None])
            local = fusion.skeleton.positions(R, bones)[0] @ T[:3, :3].T
            assert np.abs(result.people.joints_world[i] - (local - local[HEAD] + head)).max() < 1e-9
            compared += 1
    assert compared > 40


def exact_clip(views: int = 4, frames: int = 30):
    """Three people, no noise at all: what every view says is made from the truth of one pose."""
    clip = generate(MultiviewConfig("ring", views, 3, frames, 1))
    good = np.flatnonzero(clip.person >= 0)
    pose, betas = clip.pose[good].copy(), np.zeros((len(good), 10))
    pose[:, 1:] = 0.2
    head = np.empty((len(good), 3))
    from scipy.spatial.transform import Rotation
    for n, i in enumerate(good):
        T = clip.T_world_camera_true[clip.view[i]]
        head[n] = T[:3, :3].T @ (clip.truth[clip.person[i], clip.frame[i], HEAD] - T[:3, 3])
        root = Rotation.from_matrix(T[:3, :3].T) * Rotation.from_euler("x", 90, degrees=True)
        pose[n, 0] = root.as_rotvec()
    return dataclasses.replace(
        clip, T_world_camera_given=clip.T_world_camera_true, frame=clip.frame[good], view=clip.view[good],
        stamp_s=clip.frame[good] / FPS, person=clip.person[good], score=np.full(len(good), 0.9), head_camera=head,
        pose=pose, betas=betas, token=clip.token[good])


def test_without_noise_heads_are_exact_and_everybody_is_one_person():
    clip = exact_clip()
    fusion = fusion_for(clip, FusionConfig(smooth_position=False))
    owners: dict[int, set[int]] = {}
    for k, rows, detections in frames_of(clip):
        result = fusion.step(k / FPS, detections)
        for row, person in zip(rows, result.detection_person, strict=True):
            owners.setdefault(int(clip.person[row]), set()).add(int(person))
        for head, person in zip(result.people.head_world, result.people.person_id, strict=True):
            (truth,) = [p for p, ids in owners.items() if person in ids]
            assert np.linalg.norm(head - clip.truth[truth, k, HEAD]) < 1e-6
    assert all(len(ids) == 1 for ids in owners.values()) and len(owners) == 3


def test_rows_in_any_order_give_the_same_people():
    clip = generate(MultiviewConfig("ring", 3, 3, 15, 2))
    rng = np.random.default_rng(0)
    first, second = fusion_for(clip), fusion_for(clip)
    for k, _, detections in frames_of(clip):
        order = rng.permutation(len(detections))
        a, b = first.step(k / FPS, detections), second.step(k / FPS, detections.take(order))
        assert len(a.people) == len(b.people)
        if len(a.people):
            distance = np.linalg.norm(a.people.head_world[:, None] - b.people.head_world, axis=2)
            assert distance.min(axis=1).max() < 1e-9


def test_moving_the_world_moves_the_people():
    clip = generate(MultiviewConfig("ring", 3, 2, 12, 4))
    shift = np.array([120.0, -40.0, 3.0])
    moved = clip.T_world_camera_given.copy()
    moved[:, :3, 3] += shift
    a, b = fusion_for(clip), fusion_for(dataclasses.replace(clip, T_world_camera_given=moved))
    for k, _, detections in frames_of(clip):
        x, y = a.step(k / FPS, detections), b.step(k / FPS, detections)
        assert (x.detection_person == y.detection_person).all()
        assert np.abs(x.people.joints_world + shift - y.people.joints_world).max(initial=0.0) < 1e-7


def test_bad_numbers_are_marked_and_hurt_nobody_else():
    clip = exact_clip(frames=10)
    clean, dirty = fusion_for(clip), fusion_for(clip)
    for k, _, detections in frames_of(clip):
        expected = clean.step(k / FPS, detections)
        bad = Detections.concatenate([detections] * 2).take(np.arange(len(detections) + 5))
        n = len(detections)
        bad.head_camera[n] = np.nan
        bad.pose[n + 1, 3, 1] = np.inf
        bad.score[n + 2] = np.nan
        bad.view[n + 3] = 17
        bad.stamp_s[n + 4] += 5.0
        result = dirty.step(k / FPS, bad)
        assert result.detection_status[n:].tolist() == [DetectionStatus.INVALID] * 4 + [DetectionStatus.STALE]
        assert np.allclose(result.people.joints_world, expected.people.joints_world)


@pytest.mark.parametrize("broken", [None, np.full((4, 4), np.nan), np.diag([1.0, 1.0, -1.0, 1.0]), np.eye(3)])
def test_a_view_without_usable_extrinsics_is_left_out(broken):
    clip = exact_clip(frames=5)
    fusion = fusion_for(clip)
    assert fusion.set_extrinsics(2, broken) is False
    for k, rows, detections in frames_of(clip):
        result = fusion.step(k / FPS, detections)
        without = clip.view[rows] == 2
        assert (result.detection_status[without] == DetectionStatus.NO_EXTRINSICS).all()
        assert (result.detection_status[~without] == DetectionStatus.ASSIGNED).all()
    assert fusion.set_extrinsics(2, clip.T_world_camera_given[2]) is True


def nobody() -> Detections:
    return Detections(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 24, 3)), np.zeros((0, 10)),
                      np.zeros(0), np.zeros((0, 32)))


def test_nobody_ever_and_nobody_for_a_while():
    clip = exact_clip(frames=10)
    fusion = fusion_for(clip)
    assert len(fusion.step(-0.1, nobody()).people) == 0
    for k, _, detections in frames_of(clip):
        before = fusion.step(k / FPS, detections)
    for k in range(10, 40):
        assert len(fusion.step(k / FPS, nobody()).people) == 0
    _, _, detections = next(iter(frames_of(clip)))
    later = dataclasses.replace(detections, stamp_s=np.full(len(detections), 12.0))
    after = fusion.step(12.0, later)
    assert not set(after.detection_person.tolist()) & set(before.people.person_id.tolist())


def test_time_that_jumps_back_forgets_everybody_but_never_reuses_ids():
    clip = exact_clip(frames=20)
    fusion = fusion_for(clip)
    ids = []
    for _ in range(2):
        seen = set()
        for k, _, detections in frames_of(clip):
            seen |= set(fusion.step(10.0 + k / FPS, dataclasses.replace(
                detections, stamp_s=detections.stamp_s + 10.0)).people.person_id.tolist())
        ids.append(seen)
        fusion.step(0.0, nobody())
    assert len(ids[0]) == len(ids[1]) == 3 and not ids[0] & ids[1]


def test_a_view_that_takes_front_for_back_is_left_out():
    clip = exact_clip(frames=8)
    clean, flipped = fusion_for(clip), fusion_for(clip)
    from scipy.spatial.transform import Rotation
    for k, _, detections in frames_of(clip):
        expected = clean.step(k / FPS, detections)
        pose = detections.pose.copy()
        wrong = detections.view == 1
        turn = Rotation.from_rotvec(pose[wrong, 0]) * Rotation.from_euler("y", 180, degrees=True)
        pose[wrong, 0] = turn.as_rotvec()
        result = flipped.step(k / FPS, dataclasses.replace(detections, pose=pose))
        crowded = result.people.num_views >= 3
        assert (result.people.status[crowded] & PersonStatus.VIEW_FLIPPED).all()
        assert np.abs(result.people.rotations - expected.people.rotations)[crowded].max(initial=0.0) < 1e-6


def test_two_views_on_one_line_are_marked_and_depth_decides():
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    facing = [np.array([[0.0, 0, 1, -3], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]),
              np.array([[0.0, 0, -1, 3], [1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]])]
    fusion = Fusion(skeleton, [View(str(v), T, 800.0) for v, T in enumerate(facing)], FusionConfig(pair_frames=1))
    detections = Detections(np.array([0, 1]), np.zeros(2), np.array([[0.0, 0, 3.2], [0.0, 0, 3.2]]),
                            np.zeros((2, 16, 3)), np.zeros((2, 10)), np.ones(2), np.zeros((2, 8)))
    result = fusion.step(0.0, detections)
    assert (result.people.status & PersonStatus.PARALLEL_RAYS).all() and len(result.people) == 1
    assert np.allclose(result.people.head_world[0], [0.0, 0.0, 1.0], atol=1e-6)


def one_step(views: list[np.ndarray], heads_camera: np.ndarray, **settings: object) -> FusedFrame:
    """One person seen once by cameras at (4, 4) poses, head at (V, 3) metres in each."""
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    fusion = Fusion(skeleton, [View(str(v), T, 800.0) for v, T in enumerate(views)],
                    FusionConfig(smooth_position=False, gate=100.0, pair_frames=1, **settings))
    n = len(views)
    return fusion.step(0.0, Detections(np.arange(n), np.zeros(n), heads_camera, np.zeros((n, 16, 3)), np.zeros((n, 10)),
                                       np.ones(n), np.zeros((n, 8))))


def looking_at(target: np.ndarray, centre: np.ndarray) -> np.ndarray:
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.stack([right, np.cross(forward, right), forward], axis=1), centre
    return T


def test_rays_that_cross_by_less_than_min_angle_are_not_triangulated():
    """Both distances are 10 % too far: the rays know where the head is, if they are asked."""
    head, phi = np.array([0.0, 0.0, 1.0]), np.radians(4.0)
    views = [looking_at(head, head + 4.0 * np.array([np.cos(a), np.sin(a), 0.0])) for a in (0.0, phi)]
    heads_camera = np.array([[0.0, 0.0, 4.4]] * 2)
    asked = one_step(views, heads_camera, position="rays", min_angle_deg=3.0).people
    np.testing.assert_allclose(asked.head_world[0], head, atol=1e-6)
    assert not asked.status[0] & PersonStatus.PARALLEL_RAYS
    refused = one_step(views, heads_camera, position="rays", min_angle_deg=5.0).people
    assert refused.status[0] & PersonStatus.PARALLEL_RAYS
    assert np.linalg.norm(refused.head_world[0] - head) > 0.3


@pytest.mark.parametrize(("position", "share"), [("map", 0.9), ("rays", 0.01)])
def test_a_view_that_contradicts_three_others_counts_less_only_where_robust(position, share):
    head = np.array([0.0, 0.0, 1.0])
    views = [looking_at(head, head + 4.0 * np.array([np.cos(a), np.sin(a), 0.0])) for a in (0.1, 1.6, 3.3, 4.9)]
    heads_camera = np.array([[0.0, 0.0, 4.0]] * 4)
    heads_camera[0, 0] = 0.4
    error = {robust: np.linalg.norm(one_step(views, heads_camera, position=position, robust=robust, anchor_gate=1e6,
                                             outlier_penalty=float("inf")).people.head_world[0] - head)
             for robust in (True, False)}
    assert error[False] > 0.08 and error[True] < share * error[False]


def ring_of(count: int, head: np.ndarray) -> list[np.ndarray]:
    angles = 0.1 + 2.0 * np.pi * np.arange(count) / count
    return [looking_at(head, head + 4.0 * np.array([np.cos(a), np.sin(a), 0.0])) for a in angles]


def seen_facing(fusion: Fusion, views: list[np.ndarray], stamp_s: float, yaws_deg: list[float],
                knee: float) -> FusedFrame:
    """One person in the middle of the images, whose root turns as each view says, in the world; joint 4 is bent."""
    from scipy.spatial.transform import Rotation
    n = len(views)
    pose = np.zeros((n, 16, 3))
    for v, (T, yaw) in enumerate(zip(views, yaws_deg, strict=True)):
        upright = Rotation.from_euler("xz", [90, yaw], degrees=True)
        pose[v, 0] = (Rotation.from_matrix(T[:3, :3].T) * upright).as_rotvec()
    pose[:, 4, 0] = knee
    heads = np.tile([0.0, 0.0, 4.0], (n, 1))
    return fusion.step(stamp_s, Detections(np.arange(n), np.full(n, stamp_s), heads, pose, np.zeros((n, 10)),
                                           np.ones(n), np.zeros((n, 8))))


@pytest.mark.parametrize("smoothing", [0.0, 0.4])
def test_legs_that_nobody_sees_stay_as_they_were_last_seen(smoothing):
    """Also after a gap, and for as long as it lasts; before anybody has seen them, the guess is all there is."""
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    head = np.array([0.0, 0.0, 1.0])
    views = ring_of(3, head)
    fusion = Fusion(skeleton, [View(str(v), T, 800.0, (1280, 960)) for v, T in enumerate(views)],
                    FusionConfig(smoothing=smoothing, death_s=10.0))
    for k in range(3):
        result = seen_facing(fusion, views, 0.5 * k, [0.0] * 3, knee=1.0)
        assert not result.people.status[0] & PersonStatus.STALE_LIMBS
    for v, T in enumerate(views):  # images that end between the heads and the pelvises
        fusion.set_camera(v, View(str(v), T, 800.0, (1280, 550), (639.5, 479.5)))
    for k in range(3, 60):
        result = seen_facing(fusion, views, 1.0 + 0.1 * k, [0.0] * 3, knee=0.0)
        assert result.people.status[0] & PersonStatus.STALE_LIMBS
        np.testing.assert_allclose(result.people.rotations[0, 4, 2, 1], np.sin(1.0), atol=1e-9)
    assert result.people.rotations[0, 3] == pytest.approx(np.eye(3), abs=1e-9)


def test_views_that_all_contradict_each_other_are_not_all_left_out():
    """Three facings 125 degrees apart: nobody knows who took front for back."""
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    views = ring_of(3, np.array([0.0, 0.0, 1.0]))
    fusion = Fusion(skeleton, [View(str(v), T, 800.0) for v, T in enumerate(views)])
    result = seen_facing(fusion, views, 0.0, [0.0, 125.0, 250.0], knee=1.0)
    assert result.people.status[0] & PersonStatus.ROTATION_WIDE
    assert not result.people.status[0] & PersonStatus.VIEW_FLIPPED
    np.testing.assert_allclose(result.people.rotations[0, 4, 2, 1], np.sin(1.0), atol=1e-9)
    up = result.people.rotations[0, 0] @ [0.0, 1.0, 0.0]  # everybody says that the person stands
    np.testing.assert_allclose(up, [0.0, 0.0, 1.0], atol=1e-6)


def test_two_bodies_of_one_view_with_one_track_number_are_one_person_seen_once():
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    view = ring_of(1, np.array([0.0, 0.0, 1.0]))[0]
    fusion = Fusion(skeleton, [View("0", view, 800.0)], FusionConfig(birth_frames=1))
    for k in range(8):
        heads = np.array([[0.0, 0.0, 4.0], [0.3, 0.0, 4.0]])
        same = np.zeros(2, np.int64)
        result = fusion.step(k / FPS, Detections(same, np.full(2, k / FPS), heads, np.zeros((2, 16, 3)),
                                                 np.zeros((2, 10)), np.array([0.9, 0.6]), None, same))
    first = int(result.detection_person[0])
    assert first >= 0 and int(result.detection_person[1]) != first
    place = result.people.person_id.tolist().index(first)
    assert result.people.num_views[place] == 1 and result.people.status[place] & PersonStatus.SINGLE_VIEW


def test_rays_that_meet_behind_a_camera_are_marked():
    """The two cameras look away from each other: their rays meet only where nobody looks."""
    eyes = [np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0])]
    views = [looking_at(eye + np.array([side, 4.0, 0.0]), eye) for eye, side in zip(eyes, (-1.0, 1.0), strict=True)]
    people = one_step(views, np.array([[0.0, 0.0, 0.4]] * 2), position="rays", depth_fraction=2.0).people
    assert people.status[0] & PersonStatus.RAYS_REJECTED and np.isfinite(people.head_world).all()


def test_ids_of_an_upstream_tracker_are_used_when_given():
    clip = exact_clip(frames=6)
    fusion = fusion_for(clip)
    for k, rows, detections in frames_of(clip):
        result = fusion.step(k / FPS, dataclasses.replace(detections, token=None, track_id=clip.person[rows] + 40))
    for p in range(3):
        assert len(set(result.detection_person[clip.person[rows] == p].tolist())) == 1


@pytest.mark.parametrize("change", [{"association": "paper"}, {"position": "rays"}, {"position": "mean"},
                                    {"pose": "median"}, {"smooth_position": False}, {"learn_view_bias": False}])
def test_every_mode_follows_people(change: dict):
    scores = run_clip(generate(MultiviewConfig("ring", 4, 3, 60, 5)), FusionConfig(**change)).scores
    assert scores["assoc_precision"] > 0.97 and scores["assoc_recall"] > 0.93 and scores["id_switches"] == 0
    assert scores["wa_mpjpe_fused_mm"] < 0.6 * scores["wa_mpjpe_single_mm"]


@pytest.mark.parametrize("scenario", ["ring", "room", "uniform", "idswap", "clock"])
def test_scenarios_reach_the_acceptance_figures(scenario):
    scores = run_clip(generate(MultiviewConfig(scenario, 4, 3, 150, 11))).scores
    assert scores["assoc_precision"] >= 0.99 and scores["assoc_recall"] >= 0.95
    assert scores["id_switches"] == 0 and scores["mota"] > 0.97
    assert scores["wa_mpjpe_fused_mm"] <= min(85.0, 0.4 * scores["wa_mpjpe_single_mm"])


def test_the_loss_of_a_camera_changes_no_identity_and_leaves_no_gap():
    result = run_clip(generate(MultiviewConfig("camera_loss", 4, 3, 120, 7)))
    assert result.scores["id_switches"] == 0 and result.scores["coverage"] > 0.98
    seen = [set(f.people.person_id.tolist()) for f in result.frames[60:]]
    assert set().union(*seen) == set(result.frames[59].people.person_id.tolist())


@pytest.mark.parametrize("pair_frames", [1, 3])
def test_new_tracks_of_two_views_wait_for_companions_that_were_missed_at_first(pair_frames: int):
    """Two people 0.7 m apart, one behind the other; in the first image of each camera another one is missing."""
    skeleton = Skeleton((-1, *range(15)), np.tile([0.0, 0.1, 0.0], (16, 1)))
    people = np.array([[-0.35, 0.0, 1.0], [0.35, 0.0, 1.0]])
    views = [looking_at(np.array([0.0, 0.0, 1.0]), np.array([x, 0.3, 1.6])) for x in (-5.0, 5.0)]
    config = FusionConfig(pair_frames=pair_frames)
    fusion = Fusion(skeleton, [View(str(v), T, 800.0) for v, T in enumerate(views)], config)
    ids: list[set[int]] = [set(), set()]
    for k in range(6):
        rows = [(0, 0), (1, 1)] if k == 0 else [(0, 0), (0, 1), (1, 0), (1, 1)]  # view and person
        heads = [views[v][:3, :3].T @ (people[p] - views[v][:3, 3]) for v, p in rows]
        n = len(rows)
        result = fusion.step(k / FPS, Detections(
            np.array([v for v, _ in rows]), np.full(n, k / FPS), np.array(heads), np.zeros((n, 16, 3)),
            np.zeros((n, 10)), np.ones(n), None, np.array([p for _, p in rows])))
        for (_, p), number in zip(rows, result.detection_person.tolist(), strict=True):
            ids[p] |= {number} - {-1}
    assert (sorted(map(sorted, ids)) == [[0], [1]]) == (pair_frames == 3), ids


@pytest.mark.parametrize("seed", [9, 18])
def test_two_opposed_cameras_find_out_that_they_paired_two_people_the_wrong_way(seed):
    """Two people within half a metre of each other whom not both cameras saw at first: else recall is 0.87 and 0.60."""
    scores = run_clip(generate(MultiviewConfig("opposed", 2, 3, 300, seed))).scores
    assert scores["assoc_recall"] > 0.94 and scores["mota"] > 0.94


@pytest.mark.parametrize(("scenario", "views", "people", "mota"), [
    ("ring", 8, 10, 0.99), ("depth_hard", 4, 3, 0.95), ("depth_hard", 8, 10, 0.93)])
def test_many_people_and_wrong_distances(scenario, views, people, mota):
    scores = run_clip(generate(MultiviewConfig(scenario, views, people, 90, 3))).scores
    assert scores["assoc_precision"] >= 0.99 and scores["assoc_recall"] >= 0.97 and scores["mota"] >= mota
    assert scores["wa_mpjpe_fused_mm"] <= 0.33 * scores["wa_mpjpe_single_mm"]


def test_thirty_people_in_eight_views_stay_within_bounds():
    result = run_clip(generate(MultiviewConfig("ring", 8, 30, 12, 0)))
    assert len(result.frames[-1].people) >= 25
    assert np.isfinite(result.frames[-1].people.joints_world).all()


@pytest.mark.parametrize("values", [{"smoothing": 1.0}, {"gate": 0.0}, {"depth_fraction": float("nan")},
                                    {"min_angle_deg": -1.0}])
def test_senseless_settings_are_refused(values: dict):
    with pytest.raises(ConfigError):
        FusionConfig(**values)


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError):
        fusion_for(exact_clip(frames=1)).step(0.0, dataclasses.replace(nobody(), pose=np.zeros((0, 22, 3))))


def test_after_a_gap_the_old_pose_is_forgotten():
    clip = exact_clip(frames=6)
    fusion = fusion_for(clip)
    for k, _, detections in frames_of(clip):
        before = fusion.step(k / FPS, detections)
    pose = detections.pose.copy()
    pose[:, 1:] = -0.3
    after = fusion.step(1.0, dataclasses.replace(detections, pose=pose, stamp_s=np.full(len(pose), 1.0)))
    assert set(after.people.person_id) <= set(before.people.person_id) and len(after.people)
    from human_scene_ros.fusion.rotations import matrices_from_rotvecs
    assert np.allclose(after.people.rotations[:, 1:], matrices_from_rotvecs(np.full(3, -0.3)), atol=1e-6)


def test_rays_tell_who_is_who_where_no_depth_can_be_believed():
    """Every view misjudges all depths by its own factor, up to 1.6."""
    clip = generate(MultiviewConfig("ring", 4, 3, 60, 1))
    factor = np.array([0.65, 1.5, 1.0, 1.6])
    people = {}
    for association in ("mahalanobis", "rays"):
        # Everybody counts: what association splits must not be hidden by asking who exists.
        fusion = fusion_for(clip, FusionConfig(association=association, miss_evidence=0.0))  # type: ignore[arg-type]
        counts = []
        for k, _, detections in frames_of(clip):
            wrong = dataclasses.replace(detections, head_camera=detections.head_camera * factor[
                detections.view][:, None])
            result = fusion.step(k / FPS, wrong)
            counts.append(len(result.people))
            if association == "rays" and k > 10:
                truth = clip.truth[:, k, HEAD]
                several = result.people.head_world[result.people.num_views >= 2]
                assert np.linalg.norm(several[:, None] - truth[None], axis=2).min(axis=1).max() < 0.2
        people[association] = float(np.mean(counts[10:]))
    assert people["rays"] == pytest.approx(3.0, abs=0.1) and people["mahalanobis"] > 3.5


def test_the_median_of_betas_ignores_what_is_wrong_now_and_then():
    """One view of four says 4 every third frame; the mean follows it, the median does not."""
    clip = generate(MultiviewConfig("ring", 4, 1, 40, 2))
    found = {}
    for betas in ("mean", "median"):
        fusion = fusion_for(clip, FusionConfig(betas=betas))  # type: ignore[arg-type]
        for k, _, detections in frames_of(clip):
            given = np.full_like(detections.betas, 0.5)
            given[(detections.view == 0) & (k % 3 == 0)] = 4.0
            result = fusion.step(k / FPS, dataclasses.replace(detections, betas=given))
        found[betas] = float(np.abs(result.people.betas - 0.5).max())
    assert found["median"] < 1e-6 < 0.1 < found["mean"]


def seen_from(cameras: dict[int, tuple[float, float, float]], scores: dict[int, float], stamp_s: float) -> Detections:
    """One detection per view, of a head at a place in that view's optical frame."""
    n = len(cameras)
    return Detections(np.array(list(cameras), np.int64), np.full(n, stamp_s), np.array(list(cameras.values()), float),
                      np.zeros((n, 22, 3)), np.zeros((n, 10)), np.array([scores[v] for v in cameras]),
                      track_id=np.array(list(cameras), np.int64))


def look_at(place: np.ndarray, T_world_camera: np.ndarray, stretch: float = 1.0) -> tuple[float, float, float]:
    x, y, z = stretch * (T_world_camera[:3, :3].T @ (place - T_world_camera[:3, 3]))
    return float(x), float(y), float(z)


def views_around(*angles: float) -> list[View]:
    """Around the origin at 4 m, all looking at it."""
    views = []
    for k, angle in enumerate(angles):
        z = -np.array([np.cos(angle), np.sin(angle), 0.0])
        T = np.eye(4)
        T[:3, :3] = np.stack([np.cross([0.0, 0.0, -1.0], z), [0.0, 0.0, -1.0], z], axis=1)
        T[:3, 3] = -4.0 * z
        views.append(View(f"v{k}", T, 500.0, (640, 480)))
    return views


def test_a_depth_that_is_an_outlier_costs_neither_the_detection_nor_the_place():
    views, place = views_around(0.0, 2.1, 4.2), np.array([0.1, 0.2, 0.3])
    fusion = Fusion(Skeleton.from_body_model(load_body_model()), views,
                    FusionConfig(learn_view_bias=False, adapt_depth_fraction=False, smooth_position=False))
    for k in range(20):
        stretch = [1.0, 1.0, 1.45 if k == 15 else 1.0]
        result = fusion.step(k / 30.0, seen_from(
            {v: look_at(place, views[v].T_world_camera, stretch[v]) for v in range(3)}, dict.fromkeys(range(3), 0.9),
            k / 30.0))
        assert (result.detection_person == 0).all()
        assert np.linalg.norm(result.people.head_world[0] - place) < (0.01 if k == 15 else 1e-9)


@pytest.mark.parametrize("others_could", [True, False])
def test_somebody_whom_other_views_deny_is_not_published(others_could: bool):
    """One view sees a head; the two others should too, or their images end before it."""
    place = np.array([0.0, 0.6, 0.0])
    views = views_around(0.0, 2.1, 4.2)
    if not others_could:
        views[1:] = [dataclasses.replace(view, principal_px=(-2000.0, 240.0)) for view in views[1:]]
    fusion = Fusion(Skeleton.from_body_model(load_body_model()), views)
    for k in range(30):
        result = fusion.step(k / 30.0, seen_from({0: look_at(place, views[0].T_world_camera)}, {0: 0.6}, k / 30.0),
                             looked=(0, 1, 2))
    assert result.detection_person.tolist() == [0]
    assert len(result.people) == int(not others_could)


def test_views_without_an_image_deny_nobody():
    views, place = views_around(0.0, 2.1, 4.2), np.array([0.0, 0.6, 0.0])
    fusion = Fusion(Skeleton.from_body_model(load_body_model()), views)
    for k in range(30):
        result = fusion.step(k / 30.0, seen_from({0: look_at(place, views[0].T_world_camera)}, {0: 0.6}, k / 30.0),
                             looked=(0,))
    assert len(result.people) == 1


def test_a_track_that_slips_to_somebody_else_is_let_go():
    """Slowly, so that prediction alone would follow; the other views know better."""
    views, place = views_around(0.0, 2.1, 4.2), np.array([0.1, 0.2, 0.3])
    fusion = Fusion(Skeleton.from_body_model(load_body_model()), views, FusionConfig(learn_view_bias=False))
    let_go = []
    for k in range(60):
        slipped = place + [0.0, 0.0, 0.02 * max(k - 10, 0)]
        result = fusion.step(k / 30.0, seen_from(
            {v: look_at(slipped if v == 2 else place, views[v].T_world_camera) for v in range(3)},
            dict.fromkeys(range(3), 0.9), k / 30.0))
        assert (result.detection_person[:2] == 0).all()
        let_go.append(result.detection_person[2] != 0)
    assert not any(let_go[:10]) and all(let_go[-10:])
    assert np.linalg.norm(result.people.head_world[0] - place) < 0.02


@pytest.mark.parametrize("others_could", [True, False])
def test_a_wrong_depth_that_met_a_ghost_finds_its_person(others_could: bool):
    """View 3 takes somebody for a quarter nearer than he is; just there view 2 sees somebody, who may exist or not.

    Whether views 0 and 1, which see nobody there, have that place in their images decides who it is.
    """
    views = views_around(1.3, -1.3, 2.5, 0.0)
    person, ghost = np.zeros(3), np.array([1.0, 0.0, 0.0])
    if not others_could:
        views[:2] = [dataclasses.replace(view, image_size=(200, 480)) for view in views[:2]]
    fusion = Fusion(Skeleton.from_body_model(load_body_model()), views)
    assert np.allclose(look_at(person, views[3].T_world_camera, 0.75), look_at(ghost, views[3].T_world_camera))
    shown = []
    for k in range(30):
        places = [look_at(person, views[v].T_world_camera) for v in (0, 1, 2)]
        places += [look_at(ghost, views[v].T_world_camera) for v in (2, 3)]
        result = fusion.step(k / 30.0, Detections(
            np.array([0, 1, 2, 2, 3]), np.full(5, k / 30.0), np.array(places), np.zeros((5, 22, 3)), np.zeros((5, 10)),
            np.full(5, 0.6), track_id=np.arange(5)), looked=range(4))
        shown.append(len(result.people))
        assert len(set(result.detection_person[:3])) == 1 and result.detection_person[3] != result.detection_person[0]
    assert (result.detection_person[4] == result.detection_person[0]) == others_could
    assert max(shown) == (1 if others_could else 2) == shown[-1]
    head = result.people.head_world[result.people.person_id == result.detection_person[0]]
    np.testing.assert_allclose(head, [person], atol=1e-6)
