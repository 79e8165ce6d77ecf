"""Scale from head-pelvis lengths, labels of points, alignment to surfaces, head from depth."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.body import scale
from human_scene_ros.body.scale import ScaleFilter, ScaleState, ScaleStatus
from human_scene_ros.fusion import surface
from human_scene_ros.fusion.surface import SurfaceStatus

K = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1.0]])


def people(n: int, true_scale: float, rng: np.random.Generator):
    """Samples of a scene that must grow by `true_scale`."""
    head = np.column_stack([rng.uniform(-1, 1, n), rng.uniform(-1, 0, n), rng.uniform(3, 6, n)])
    delta = np.column_stack([rng.normal(0, 0.05, n), np.full(n, 0.6), rng.normal(0, 0.15, n)])

    def uv(p):
        return (p @ K.T)[:, :2] / p[:, 2:]

    return head / true_scale, delta, uv(head), uv(head + delta)


@pytest.mark.parametrize("true", [0.6, 1.0, 1.7])
def test_the_consistent_factor_is_exact_also_for_leaning_people(true: float):
    head, delta, head_uv, pelvis_uv = people(20, true, np.random.default_rng(0))
    samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
    assert samples.rho[samples.valid] == pytest.approx(true, rel=1e-9)
    assert scale.estimate_scale(samples).factor == pytest.approx(true)


def test_bad_pelvises_move_the_mean_but_not_the_median():
    rng = np.random.default_rng(1)
    head, delta, head_uv, pelvis_uv = people(50, 1.25, rng)
    pelvis_uv[:10] = head_uv[:10] + rng.uniform(16, 30, (10, 2))
    samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
    assert scale.estimate_scale(samples).factor == pytest.approx(1.25, rel=0.02)
    assert scale.estimate_scale(samples, mode="mean").factor > 1.5


def test_no_sample_means_one():
    empty = scale.scale_samples(K, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2)))
    assert scale.estimate_scale(empty) == scale.ScaleEstimate(1.0, ScaleStatus.NO_SAMPLE, 0)
    behind = scale.scale_samples(K, np.array([[0.0, 0, -2]]), np.array([[0.0, 0.6, 0]]), np.zeros((1, 2)),
                                 np.ones((1, 2)) * 50)
    assert scale.estimate_scale(behind).status is ScaleStatus.NO_SAMPLE


def test_the_filter_finds_the_scale_then_stands_still():
    rng = np.random.default_rng(2)
    scale_filter, state = ScaleFilter(rate=0.2), ScaleState()
    for k in range(90):
        head, delta, head_uv, pelvis_uv = people(3, 1.4 / state.scale, rng)
        samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
        weights = scale.sample_weights(samples, head, delta, np.ones(3))
        assert (weights > 0).all()
        _, state = scale_filter.step(samples, weights, state)
        if k == 60:
            assert scale_filter.frozen(state)
            settled = state.scale
    assert settled == pytest.approx(1.4, rel=0.03) and state.scale == settled


def test_weighted_median_ignores_weightless_samples():
    head, delta, head_uv, pelvis_uv = people(9, 1.1, np.random.default_rng(3))
    pelvis_uv[:5] += 40.0
    samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
    weights = np.where(np.arange(9) < 5, 0.0, 1.0)
    assert scale.estimate_scale(samples, weights).factor == pytest.approx(1.1)


def body(n: int = 300, at: tuple[float, float, float] = (0.0, 0.0, 4.0)) -> np.ndarray:
    """Points on an upright ellipsoid, half of them turned to the camera."""
    rng = np.random.default_rng(4)
    d = rng.normal(size=(n, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    return d * [0.25, 0.8, 0.2] + at


def test_points_belong_to_the_nearest_body_and_to_nobody_far_away():
    vertices = np.stack([body(), body(at=(1.5, 0.0, 4.0))])
    points = np.concatenate([vertices[1][:5] + 0.001, [[5.0, 0, 4]], [[np.nan, 0, 0]]])
    labels = surface.label_points(points, vertices, vertices[0])
    assert labels.person.tolist() == [1] * 5 + [-1, -1] and labels.vertex[:5].tolist() == list(range(5))
    assert (labels.canonical[5:] == 0).all() and ((labels.canonical >= 0) & (labels.canonical <= 1)).all()


def test_of_equally_near_people_the_lower_number_wins_with_half_the_confidence():
    vertices = np.stack([body(), body()])
    labels = surface.label_points(vertices[0][:4] + 0.01, vertices, vertices[0])
    assert (labels.person == 0).all() and (labels.confidence == 0.5).all()


def test_points_without_people_and_people_without_points():
    assert (surface.label_points(np.ones((3, 3)), np.zeros((0, 4, 3)), np.zeros((4, 3))).person == -1).all()
    assert len(surface.label_points(np.zeros((0, 3)), np.zeros((1, 4, 3)), np.zeros((4, 3))).person) == 0
    assert np.isnan(surface.one_way_chamfer(np.zeros((0, 3)), np.ones((2, 3))))


def test_the_side_turned_to_the_camera_is_visible():
    v = body(2000)
    visible = surface.visible_vertices(v, (v - [0, 0, 4.0]) / np.array([0.25, 0.8, 0.2])**2)
    assert (v[visible, 2] < 4.02).all() and visible.sum() > 0.3 * len(v)


@pytest.mark.parametrize("shift", [-0.25, 0.15, 0.3])
def test_a_body_at_the_wrong_depth_moves_to_its_points(shift: float):
    v = body(1200)
    front = v[v[:, 2] < 3.98]
    ray = np.array([0.0, 0.0, 1.0])
    result = surface.align_to_surface(front, front + shift * ray, ray, iterations=12)
    assert result.status is SurfaceStatus.OK and result.shift_m == pytest.approx(shift, abs=0.06)
    assert result.chamfer_after_m < 0.5 * result.chamfer_before_m


def test_alignment_refuses_too_little_and_what_gains_nothing():
    v = body(1200)
    front = v[v[:, 2] < 3.98]
    ray = np.array([0.0, 0.0, 1.0])
    assert surface.align_to_surface(front, front[:50], ray).status is SurfaceStatus.TOO_FEW_POINTS
    assert surface.align_to_surface(front[:30], front, ray).status is SurfaceStatus.TOO_FEW_VERTICES
    same = surface.align_to_surface(front, front, ray)
    assert same.shift_m == 0.0 and same.status is SurfaceStatus.NO_GAIN


def test_head_from_depth_is_behind_the_surface_on_the_ray():
    depth = np.full((480, 640), 3.0)
    depth[:, :300] = np.nan
    head, measured = surface.head_from_depth(depth, K, np.array([400.0, 100.0]))
    assert measured and head == pytest.approx(3.1 * np.array([80 / 600, -140 / 600, 1.0]))
    head, measured = surface.head_from_depth(depth, K, np.array([100.0, 100.0]), network_depth_m=2.0)
    assert not measured and head[2] == 2.0
    assert np.isnan(surface.head_from_depth(depth, K, np.array([-90.0, 9000.0]))[0]).all()
    mask = np.zeros(depth.shape, bool)
    assert not surface.head_from_depth(depth, K, np.array([400.0, 100.0]), mask=mask)[1]
