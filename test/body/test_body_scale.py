"""Scale from head-pelvis lengths in the image."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.body import scale
from human_scene_ros.body.scale import ScaleFilter, ScaleState, ScaleStatus

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
