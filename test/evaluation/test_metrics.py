"""Metrics: invariances that define them, hand-computable values, and the reference's golden numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError
from human_scene_ros.evaluation import matching, metrics
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.golden import CHECKS, check_file, relative_rms
from human_scene_ros.evaluation.trajectory import trajectory_errors

from helpers import REPOSITORY

GOLDEN = REPOSITORY / "test" / "golden" / "metrics"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def motion(rng) -> tuple[np.ndarray, np.ndarray]:
    """(30, 22, 3) predicted and true joints of a person who walks 3 m."""
    truth = rng.normal(scale=0.3, size=(1, 22, 3)) + rng.normal(scale=0.02, size=(30, 22, 3))
    truth = truth + np.linspace(0.0, 3.0, 30)[:, None, None] * np.array([1.0, 0.0, 0.0])
    return truth + rng.normal(scale=0.03, size=truth.shape), truth


def moved(points: np.ndarray, scale: float = 1.0) -> np.ndarray:
    return scale * points @ Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix().T + [1.0, -2.0, 0.5]


# --- golden numbers

@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda p: p.stem)
def test_golden_numbers_of_the_reference_implementations(path: Path):
    comparisons = check_file(path)
    assert comparisons
    assert [c for c in comparisons if not c.passed] == []


def test_every_check_has_its_golden_file():
    assert {p.stem for p in GOLDEN.glob("*.npz")} == set(CHECKS)


@pytest.mark.parametrize("stem", sorted(CHECKS))
def test_a_spoiled_golden_file_fails(stem, tmp_path):
    """One value of one expected array is changed by 1 %: the check must notice."""
    inputs = ("src", "dst", "_w", "pred", "gt", "est", "_t", "vis", "names", "order", "view", "idx", "xyz", "2d", "z")
    with np.load(GOLDEN / f"{stem}.npz") as arrays:
        content = dict(arrays)
    name = next(k for k, v in content.items() if v.dtype == np.float64 and np.isfinite(v).all() and v.size
                and not any(part in k for part in inputs) and np.abs(v).max() > 1e-6 and f"{stem}/{k}" in {
                    c.name for c in check_file(GOLDEN / f"{stem}.npz")})
    content[name] = content[name] * 1.01
    np.savez(tmp_path / f"{stem}.npz", **content)
    assert [c.name for c in check_file(tmp_path / f"{stem}.npz") if not c.passed] == [f"{stem}/{name}"]


def test_unknown_golden_files_give_no_comparison(tmp_path):
    np.savez(tmp_path / "something_else.npz", a=np.zeros(3))
    assert check_file(tmp_path / "something_else.npz") == []


def test_relative_rms_sees_shapes_and_missing_values():
    assert relative_rms([1.0, 2.0], [1.0, 2.0, 3.0]) == float("inf")
    assert relative_rms([1.0, np.nan], [1.0, 2.0]) == float("inf")
    assert relative_rms([np.nan, 2.2], [np.nan, 2.0]) == pytest.approx(0.1)
    assert relative_rms([0.0], [0.0]) == 0.0


# --- people

def test_mpjpe_ignores_the_position_and_nothing_else(motion):
    predicted, truth = motion
    errors = metrics.mpjpe_mm(predicted, truth, (0,))
    np.testing.assert_allclose(metrics.mpjpe_mm(predicted + [5.0, 0.0, -3.0], truth, (0,)), errors, atol=1e-9)
    assert (metrics.mpjpe_mm(1.2 * predicted, truth, (0,)) > errors).all()


def test_pa_mpjpe_ignores_every_similarity(motion):
    predicted, truth = motion
    np.testing.assert_allclose(metrics.pa_mpjpe_mm(moved(predicted, 1.7), truth), metrics.pa_mpjpe_mm(predicted, truth),
                               rtol=1e-9)
    np.testing.assert_allclose(metrics.pa_mpjpe_mm(moved(truth, 0.3), truth), 0.0, atol=1e-9)


def test_one_person_and_many_are_measured_alike(motion):
    predicted, truth = (np.concatenate([x] * 40).reshape(30, 40, 22, 3) for x in motion)
    for measure in (metrics.mpjpe_mm, metrics.pa_mpjpe_mm):
        together = measure(predicted, truth)
        assert together.shape == (30, 40)
        assert measure(predicted[3, 7], truth[3, 7]) == pytest.approx(together[3, 7], rel=1e-12)
        assert measure(predicted[:0], truth[:0]).shape == (0, 40)


def test_one_joint_moved_by_a_known_amount():
    truth = np.random.default_rng(0).normal(size=(1, 22, 3))
    predicted = truth.copy()
    predicted[0, 7, 2] += 0.022
    assert metrics.mpjpe_mm(predicted, truth, (0,))[0] == pytest.approx(1.0)
    assert 1e3 * metrics.mean_distance(predicted, truth)[0] == pytest.approx(1.0)


def test_world_errors_ignore_the_world_and_wa_is_not_above_w(motion):
    predicted, truth = motion
    wa, w = metrics.wa_mpjpe_mm(predicted, truth), metrics.w_mpjpe_mm(predicted, truth)
    np.testing.assert_allclose(metrics.wa_mpjpe_mm(moved(predicted, 2.0), truth), wa, rtol=1e-8)
    np.testing.assert_allclose(metrics.w_mpjpe_mm(moved(predicted, 2.0), truth), w, rtol=1e-8)
    assert (wa**2).mean() <= (w**2).mean()


def test_drift_inside_a_chunk_counts_for_w_and_chunks_forget_it(motion):
    _, truth = motion
    drifting = truth + np.linspace(0.0, 1.0, 30)[:, None, None] * np.array([0.0, 1.0, 0.0])
    whole, halves = metrics.w_mpjpe_mm(drifting, truth), metrics.w_mpjpe_mm(drifting, truth, chunk=15)
    np.testing.assert_allclose(whole[:15], halves[:15])
    assert halves[15:].mean() < whole[15:].mean()


def test_root_error_of_a_standing_person_is_undefined():
    still = np.zeros((20, 3)) + np.random.default_rng(0).normal(scale=1e-3, size=(20, 3))
    assert np.isnan(metrics.rte_percent(still, still)).all()
    assert not np.isnan(metrics.rte_percent(still, still, min_path_m=0.0)).all()


def test_accel_windows_that_touch_an_invalid_frame_drop(motion):
    predicted, truth = motion
    valid = np.ones(30, bool)
    valid[10] = False
    expected = np.delete(metrics.accel_error_m_s2(predicted, truth), [8, 9, 10])
    np.testing.assert_array_equal(metrics.accel_error_m_s2(predicted, truth, valid), expected)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"predicted has shape \(2, 3\), truth has \(4, 3\)"):
        metrics.pa_mpjpe_mm(np.zeros((2, 3)), np.zeros((4, 3)))


# --- camera

def trajectory(rng: np.random.Generator, n: int = 40) -> np.ndarray:
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, 3] = np.cumsum(rng.normal(scale=0.05, size=(n, 3)), axis=0)
    poses[:, :3, :3] = Rotation.from_rotvec(np.cumsum(rng.normal(scale=0.02, size=(n, 3)), axis=0)).as_matrix()
    return poses


def test_ate_ignores_the_world_and_rpe_does_too(rng):
    truth = trajectory(rng)
    T_other_world = np.eye(4)
    T_other_world[:3, :3], T_other_world[:3, 3] = Rotation.from_euler("z", 1.0).as_matrix(), [3.0, 2.0, 1.0]
    errors = trajectory_errors(T_other_world @ truth, truth, kind="se3")
    assert errors.ate_rmse_m == pytest.approx(0.0, abs=1e-12)
    assert errors.rpe_trans_rmse_m == pytest.approx(0.0, abs=1e-12)
    assert errors.rpe_rot_rmse_deg == pytest.approx(0.0, abs=1e-5)
    assert trajectory_errors(T_other_world @ truth, truth, kind="none").ate_rmse_m > 1.0


def test_only_sim3_forgives_scale(rng):
    truth = trajectory(rng)
    half = truth.copy()
    half[:, :3, 3] *= 0.5
    assert trajectory_errors(half, truth, kind="sim3").ate_rmse_m == pytest.approx(0.0, abs=1e-12)
    assert trajectory_errors(half, truth, kind="se3").ate_rmse_m > 0.01


def test_a_straight_line_is_aligned_by_orientations_or_reported(rng):
    truth = trajectory(rng)
    truth[:, :3, 3] = np.linspace(0.0, 2.0, len(truth))[:, None] * np.array([1.0, 0.0, 0.0])
    errors = trajectory_errors(truth, truth, kind="se3")
    assert errors.alignment == "se3 by orientations"
    assert errors.ate_rmse_m == pytest.approx(0.0, abs=1e-12)
    assert trajectory_errors(truth, truth, kind="sim3").alignment == "degenerate"
    assert np.isnan(trajectory_errors(truth, truth, kind="sim3").ate_rmse_m)
    assert errors.path_length_m == pytest.approx(2.0)


def test_a_single_pose_has_no_relative_error():
    assert np.isnan(trajectory_errors(np.eye(4)[None], np.eye(4)[None], kind="none").rpe_rot_rmse_deg)


# --- depth

def test_median_scaling_removes_a_factor_and_metric_does_not(rng):
    truth = rng.uniform(1.0, 8.0, size=(4, 20, 30))
    assert depth_errors(0.5 * truth, truth, alignment="median").abs_rel == pytest.approx(0.0, abs=1e-12)
    assert depth_errors(0.5 * truth, truth).abs_rel == pytest.approx(0.5)


def test_the_exact_scale_has_the_least_absolute_error_and_does_not_jump(rng):
    """The reference's search holds on to one pixel: with predictions 1e-7 beside, it ends half a per cent elsewhere."""
    truth = rng.uniform(1.0, 8.0, size=(40, 50))
    predicted = truth * np.exp(rng.normal(0.0, 0.3, truth.shape))
    beside = [predicted * (1.0 + 1e-7 * rng.standard_normal(truth.shape)) for _ in range(10)]

    def scales(alignment: str) -> np.ndarray:
        return np.array([depth_errors(p, truth, alignment=alignment).scale for p in (predicted, *beside)])  # type: ignore[arg-type]

    exact, published = scales("scale_lad"), scales("scale")
    least = np.abs(exact[0] * predicted - truth).sum()
    for other in (*(exact[0] * np.linspace(0.9, 1.1, 41)[np.r_[:20, 21:41]]), published[0]):
        assert np.abs(other * predicted - truth).sum() > least
    assert np.ptp(exact) < 1e-6 < 1e-4 < np.ptp(published)
    assert depth_errors(0.5 * truth, truth, alignment="scale_lad").scale == pytest.approx(2.0, abs=1e-12)
    assert depth_errors(np.zeros((2, 2)), np.ones((2, 2)), alignment="scale_lad").abs_rel == 1.0


def test_pixels_without_truth_do_not_count(rng):
    truth = rng.uniform(1.0, 8.0, size=(20, 30))
    truth[:10] = 0.0
    predicted = np.where(truth > 0, truth, 1e6)
    errors = depth_errors(predicted, truth)
    assert (errors.abs_rel, errors.valid_pixels) == (0.0, 300)


def test_no_valid_pixel_is_not_a_perfect_score():
    errors = depth_errors(np.ones((3, 3)), np.zeros((3, 3)))
    assert np.isnan(errors.abs_rel) and errors.valid_pixels == 0


# --- matching

def test_nearest_pairs_go_first_and_each_is_used_once():
    predicted = np.array([[0.0, 0.0], [3.0, 0.0], [50.0, 0.0]])
    truth = np.array([[2.0, 0.0], [4.0, 0.0]])
    assert matching.match_nearest(predicted, truth, 5.0) == [(1, 0), (0, 1)]


def test_pairs_beyond_the_limit_and_nan_are_never_matched():
    predicted = np.array([[np.nan, np.nan], [10.0, 0.0]])
    assert matching.match_nearest(predicted, np.array([[0.0, 0.0]]), 9.9) == []
    assert matching.match_nearest(predicted, np.array([[0.0, 0.0]]), 10.0) == [(1, 0)]


def test_optimal_matching_keeps_the_pair_that_the_reference_drops(rng):
    """A false positive between two people stops the greedy reference before the last valid pair."""
    person = rng.uniform(0.0, 1.0, size=(24, 2)) * [100.0, 300.0]
    other, third = person + [300.0, 0.0], person + [520.0, 0.0]
    ghost = other + [110.0, 0.0]  # overlaps nobody, and is nearer to two people than the last detection to its own
    predicted = np.stack([person, ghost, other + [0.0, 200.0]])
    truth = np.stack([person, other, third])
    assert matching.match_keypoints(predicted, truth).pairs == ((0, 0),)
    optimal = matching.match_keypoints(predicted, truth, optimal=True)
    assert set(optimal.pairs) == {(0, 0), (2, 1)}
    assert (optimal.false_positives, optimal.misses) == ((1,), (2,))


def test_precision_of_nothing_is_undefined():
    assert np.isnan(matching.precision_recall_f1(0, 0, 3)[0])
    assert matching.precision_recall_f1(1, 1, 1) == (0.5, 0.5, 0.5)
