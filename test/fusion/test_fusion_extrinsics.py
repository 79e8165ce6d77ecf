"""Camera poses and clock offsets from people: recovered exactly, and honest where the data cannot tell."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.fusion import extrinsics as ext
from human_scene_ros.fusion.calibration import calibrate
from human_scene_ros.fusion.extrinsics import ExtrinsicsStatus, PeopleTracks
from human_scene_ros.fusion.ray_pairs import pose_from_rays
from human_scene_ros.geometry.transform import apply, invert, make_transform

TORSO = np.array([[0, 0, 0], [0.1, 0.1, 0], [-0.1, 0.1, 0], [0, -0.45, 0.02], [0, -0.6, 0.05], [0.18, -0.4, 0],
                  [-0.18, -0.4, 0.0]])
T_A_B = make_transform(Rotation.from_rotvec([0.1, 2.2, -0.05]).as_matrix(), np.array([3.0, 0.2, 5.0]))


def walk(t: np.ndarray, person: int, moving: float = 1.0) -> np.ndarray:
    """(T, 7, 3) torso of somebody in the frame of a."""
    phase = 0.9 * person
    root = np.stack([1.2 * np.sin(0.9 * t + phase) + 0.5 * np.sin(2.3 * t), 0.05 * np.sin(9 * t),
                     5.0 + 1.4 * np.sin(0.7 * t + 2 * phase)], axis=1) * moving + (1 - moving) * np.array([0, 0, 5.0])
    turn = Rotation.from_rotvec(np.outer((0.8 * t + person) * moving, [0.0, 1.0, 0.0]))
    return root[:, None] + np.stack([turn.apply(p) for p in TORSO * (1 + 0.1 * person)], axis=1)


def pair(people: int, offset: float = 0.0, noise: float = 0.0, moving: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    t = np.arange(0, 6, 1 / 20)
    a = np.stack([walk(t, p, moving) for p in range(people)])
    b = np.stack([apply(invert(T_A_B), walk(t + offset, p, moving)) for p in range(people)])
    return (PeopleTracks(t, a + noise * rng.normal(size=a.shape)),
            PeopleTracks(t, b + noise * rng.normal(size=b.shape)))


def errors(T: np.ndarray) -> tuple[float, float]:
    difference = invert(T_A_B) @ T
    return (float(np.degrees(Rotation.from_matrix(difference[:3, :3]).magnitude())),
            float(np.linalg.norm(T[:3, 3] - T_A_B[:3, 3])))


@pytest.mark.parametrize("offset", [-0.31, 0.0, 0.17])
def test_pose_and_offset_of_one_walker_are_found(offset: float):
    result = ext.pose_from_people(*pair(1, offset, noise=0.02))
    angle, distance = errors(result.T_a_b)
    assert result.status is ExtrinsicsStatus.OK and result.offset_observable
    assert angle < 0.5 and distance < 0.05 and result.offset_s == pytest.approx(offset, abs=0.021)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8])
def test_the_offset_is_found_wherever_it_lies_between_two_frames(part: float):
    """Of a walker whose place is 5 cm off in each frame, and metres off in three of ten."""
    errors_s = []
    for seed in range(4):
        offset = (3.0 + part) / 20
        a, b = pair(1, offset, noise=0.005, seed=seed)
        rng = np.random.default_rng(seed + 10)
        frames = b.joints.shape[1]
        shift = 0.05 * rng.normal(size=(2, frames, 1, 3))
        shift[1] += np.where(rng.random(frames) < 0.3, 1.5, 0.0)[:, None, None] * rng.normal(size=(frames, 1, 3))
        result = ext.pose_from_people(PeopleTracks(a.stamp_s, a.joints + shift[0]),
                                      PeopleTracks(b.stamp_s, b.joints + shift[1]))
        errors_s.append(result.offset_s - offset)
    assert np.abs(errors_s).max() < 0.03 and abs(np.mean(errors_s)) < 0.01


def test_people_in_another_order_are_paired_by_trial():
    a, b = pair(3, 0.1, noise=0.01)
    result = ext.pose_from_people(a, dataclasses.replace(b, joints=b.joints[[2, 0, 1]]))
    assert result.pairing == (1, 2, 0) and errors(result.T_a_b)[1] < 0.05


def test_outliers_and_gaps_do_not_matter():
    a, b = pair(1, noise=0.02)
    joints = b.joints.copy()
    rng = np.random.default_rng(1)
    joints[0, rng.choice(120, 35, replace=False)] += rng.normal(0, 1.0, (35, 1, 3))
    joints[0, 60:70] = np.nan
    result = ext.pose_from_people(a, PeopleTracks(b.stamp_s, joints))
    assert errors(result.T_a_b)[0] < 1.0 and errors(result.T_a_b)[1] < 0.08 and result.inlier_ratio < 0.9


def test_somebody_who_stands_still_tells_no_offset_and_a_weak_pose():
    moving = ext.pose_from_people(*pair(1, noise=0.005))
    still = ext.pose_from_people(*pair(1, 0.2, noise=0.005, moving=0.0))
    assert not still.offset_observable and still.offset_s == 0.0
    assert still.status is ExtrinsicsStatus.LOW_MOTION
    assert np.trace(still.covariance) > 10.0 * np.trace(moving.covariance)


def test_different_people_or_nobody_give_no_pose():
    a, b = pair(1)
    rng = np.random.default_rng(2)
    stranger = PeopleTracks(b.stamp_s, b.joints + np.cumsum(rng.normal(0, 0.5, (1, 120, 1, 3)), axis=1))
    result = ext.pose_from_people(a, stranger)
    assert result.status is ExtrinsicsStatus.INCONSISTENT and (result.T_a_b == np.eye(4)).all()
    empty = PeopleTracks(a.stamp_s, np.full_like(a.joints, np.nan))
    assert ext.pose_from_people(a, empty).status is ExtrinsicsStatus.TOO_FEW_FRAMES
    never = PeopleTracks(np.zeros(0), np.zeros((1, 0, 7, 3)))
    assert ext.pose_from_people(never, a).status is ExtrinsicsStatus.TOO_FEW_FRAMES
    nobody = PeopleTracks(a.stamp_s, np.zeros((0, len(a.stamp_s), 7, 3)))
    assert ext.pose_from_people(nobody, a).status is ExtrinsicsStatus.TOO_FEW_FRAMES


def test_pairings_come_in_the_order_of_their_cost():
    rng = np.random.default_rng(5)
    for shape in ((3, 3), (4, 4), (2, 4), (4, 2)):
        cost = rng.uniform(0.0, 1.0, shape)
        padded = np.zeros((max(shape), max(shape)))
        padded[:shape[0], :shape[1]] = cost
        every = {}
        for permutation in itertools.permutations(range(max(shape))):
            pairing = tuple(j if j < shape[1] else -1 for j in permutation[:shape[0]])
            every[pairing] = sum(cost[i, j] for i, j in enumerate(pairing) if j >= 0)
        assert ext._cheapest(cost, 6) == sorted(every, key=every.__getitem__)[:6]


def test_a_likely_clock_is_kept_unless_another_explains_clearly_more():
    noisy = pair(1, 0.01, noise=0.1)
    assert ext.pose_from_people(*noisy).offset_s != 0.0
    kept = ext.pose_from_people(*noisy, likely_offset_s=0.0)
    assert kept.offset_observable and kept.offset_s == 0.0 and errors(kept.T_a_b)[1] < 0.1
    moved = ext.pose_from_people(*pair(1, 0.15, noise=0.02), likely_offset_s=0.0)
    assert moved.offset_s == pytest.approx(0.15, abs=0.021) and errors(moved.T_a_b)[1] < 0.05


def test_points_on_one_line_are_degenerate():
    a, b = pair(1, moving=0.0)
    line = TORSO * [0.0, 1.0, 0.0] + [0.0, 0.0, 5.0]
    a = dataclasses.replace(a, joints=np.broadcast_to(line, a.joints.shape))
    T_b_a = make_transform(Rotation.from_rotvec([0.0, 0.4, 0.0]).as_matrix(), np.array([-2.0, 0.0, 0.5]))
    b = dataclasses.replace(b, joints=np.broadcast_to(apply(T_b_a, line), b.joints.shape))
    result = ext.pose_from_people(a, b)
    assert result.status is ExtrinsicsStatus.DEGENERATE and (result.T_a_b == np.eye(4)).all()
    assert pose_from_rays(a, b).status is ExtrinsicsStatus.DEGENERATE
    camera = calibrate({"a": a, "b": b})[1]
    assert camera.status is ExtrinsicsStatus.DEGENERATE and "on one line" in camera.line()


def test_clocks_of_a_rig_go_along_its_best_pairs():
    def clock(offset_s: float, inliers: int = 100, **other) -> ext.PairExtrinsics:
        return dataclasses.replace(edge(np.eye(4), inliers), offset_s=offset_s, **other)

    offsets = ext.offsets_from_pairs({
        ("a", "b"): clock(0.1), ("c", "b"): clock(0.3), ("a", "c"): clock(0.9, 10),
        ("a", "d"): clock(0.5, offset_observable=False),
        ("a", "e"): clock(0.5, status=ExtrinsicsStatus.INCONSISTENT)}, "a")
    assert offsets == pytest.approx({"a": 0.0, "b": 0.1, "c": -0.2})


def test_rigid_fit_is_exact_and_marks_lines():
    rng = np.random.default_rng(3)
    source = rng.normal(size=(5, 8, 3))
    target = source @ T_A_B[:3, :3].T + T_A_B[:3, 3]
    R, t, good = ext.fit_rigid(source, target)
    assert good.all() and np.allclose(R, T_A_B[:3, :3]) and np.allclose(t, T_A_B[:3, 3])
    line = np.linspace(0, 1, 8)[:, None] * np.ones(3)
    R, t, good = ext.fit_rigid(line, line + 2.0)
    assert not good and (np.eye(3) == R).all() and np.allclose(t, 2.0)


def edge(T: np.ndarray, inliers: int = 100, rms: float = 0.05) -> ext.PairExtrinsics:
    return ext.PairExtrinsics(T, 0.0, True, ExtrinsicsStatus.OK, inliers, 1.0, rms, 1.0, np.eye(6), (0,))


def test_a_rig_from_pairs_leaves_out_the_edge_that_contradicts_its_cycle():
    rng = np.random.default_rng(4)
    poses = {name: make_transform(Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)) for name in "abcd"}

    def between(x: str, y: str) -> np.ndarray:
        return invert(poses[x]) @ poses[y]

    wrong = between("a", "c") @ make_transform(Rotation.from_rotvec([0, 0.5, 0]).as_matrix(), np.array([0.5, 0, 0]))
    rig = ext.rig_from_pairs({("a", "b"): edge(between("a", "b")), ("b", "c"): edge(between("b", "c")),
                              ("d", "c"): edge(between("d", "c")), ("a", "c"): edge(wrong, 30, 0.15)}, "a")
    for name in "abcd":
        assert np.allclose(rig[name], between("a", name), atol=1e-6)


def test_cameras_without_trusted_edges_have_no_pose():
    failed = dataclasses.replace(edge(np.eye(4)), status=ExtrinsicsStatus.INCONSISTENT)
    assert set(ext.rig_from_pairs({("a", "b"): failed}, "a")) == {"a"}
