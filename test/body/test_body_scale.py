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
    # By definition: with the head moved along its ray by rho the projected segment is as long as in the image.
    moved = scale.scale_samples(K, head * samples.rho[:, None], delta, head_uv, pelvis_uv)
    np.testing.assert_allclose(moved.length_smpl_px, samples.length_image_px, rtol=1e-9)


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


def measured(true: float, rng: np.random.Generator, n: int = 3):
    """One frame's samples and weights."""
    head, delta, head_uv, pelvis_uv = people(n, true, rng)
    samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
    return samples, scale.sample_weights(samples, head, delta, np.ones(n), np.ones(n, bool))


NOBODY = scale.scale_samples(K, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)), np.zeros((0, 2))), np.zeros(0)


def test_weights_are_confidence_by_length_and_zero_outside_of_each_gate():
    """Upright 0.5 m in front of a camera of 600 px: the length is 300 px over the distance."""
    z = np.array([3.0, 15.0, 3.0, 3.0, 21.0, 3.0, 3.0])
    head = np.column_stack([np.zeros(7), np.zeros(7), z])
    delta = np.tile([0.0, 0.5, 0.0], (7, 1))
    delta[5] = [0.0, 0.3, -0.5]  # bent towards the camera by more than 0.8 of its length
    uv = (np.stack([head, head + delta]) @ K.T)
    uv = uv[..., :2] / uv[..., 2:]
    uv[1, 6] = uv[0, 6] + [0.0, 100.0 * 5.1]  # rho near 1 / 5.1
    samples = scale.scale_samples(K, head, delta, uv[0], uv[1])
    confidence = np.array([0.8, 0.8, 0.29, 0.8, 0.8, 0.8, 0.8])
    inside = np.array([True, True, True, False, True, True, True])
    weights = scale.sample_weights(samples, head, delta, confidence, inside)
    np.testing.assert_allclose(weights, [0.8, 0.8 * 20.0 / 40.0, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_one_sample_of_a_person_in_five_frames():
    rng, scale_filter, state = np.random.default_rng(4), ScaleFilter(), ScaleState()
    frames = {1: (7, 8), 2: (7, 8), 4: (9,), 5: (7,), 6: (7, 9), 10: (7, 8), 11: (7,)}
    for frame in range(1, 12):
        ids = frames.get(frame, ())
        samples, weights = measured(1.1, rng, len(ids)) if ids else NOBODY
        _, state = scale_filter.step(samples, weights, ids, state)
    assert [(s.frame, s.person) for s in state.reservoir] == [(1, 7), (1, 8), (4, 9), (6, 7), (10, 8), (11, 7)]
    assert state.frame == 11 and state.warm_up == len(frames)
    small = ScaleFilter(capacity=2).step(*measured(1.1, rng, 4), (1, 2, 3, 4), ScaleState())[1]
    assert [s.person for s in small.reservoir] == [3, 4], "the newest stay"


def test_few_samples_are_believed_in_part():
    """log r shrinks by n / (n + 8) below eight samples."""
    rng = np.random.default_rng(5)
    for n, status in ((1, ScaleStatus.FEW_SAMPLES), (7, ScaleStatus.FEW_SAMPLES), (8, ScaleStatus.OK)):
        estimate, state = ScaleFilter().step(*measured(1.09, rng, n), range(n), ScaleState())
        shrunk = n / (n + 8.0) if n < 8 else 1.0
        assert estimate.status is status and estimate.samples == n
        assert np.log(estimate.factor) == pytest.approx(np.log(1.09) * shrunk, rel=1e-6)
        # One step: a twentieth of what is missing, nothing below one per cent.
        step = 0.05 * np.log(1.09) * shrunk
        assert state.log_scale == pytest.approx(step if step >= 0.05 * 0.01 else 0.0, rel=1e-6)


def test_a_jump_waits_until_three_windows_agree():
    rng, scale_filter, state = np.random.default_rng(6), ScaleFilter(), ScaleState()
    moved = []
    for _ in range(16):
        _, state = scale_filter.step(*measured(1.5 / state.scale, rng, 8), range(8), state)
        moved.append(state.log_scale > 0.0)
    assert moved.index(True) == 10, "samples of the frames 1, 6 and 11"
    assert state.log_scale == pytest.approx(np.log(1.5) * (1.0 - 0.95 ** 6), rel=1e-6)
    # Two windows of three ask for more, the middle one for less: the median may, the jump does not come.
    state = ScaleState()
    for frame in range(15):
        true, n = (0.7, 4) if 5 <= frame < 10 else (1.5, 8)
        estimate, state = scale_filter.step(*measured(true, rng, n), range(n), state)
    assert estimate.factor == pytest.approx(1.5)
    assert state.log_scale == 0.0


def test_a_factor_out_of_range_is_rejected_until_something_else_supports_it():
    rng, scale_filter, state = np.random.default_rng(7), ScaleFilter(), ScaleState()
    for true in (2.5, 0.4):
        state = ScaleState()
        for _ in range(200):
            estimate, state = scale_filter.step(*measured(true, rng), range(3), state)
            assert estimate.status is ScaleStatus.REJECTED and estimate.factor == pytest.approx(true)
        assert state.log_scale == 0.0 and not scale_filter.frozen(state), "it may still be found"
    asked = []
    for _ in range(100):
        estimate, state = scale_filter.step(*measured(0.4 / state.scale, rng), range(3), state,
                                            lambda factor: not asked.append(factor))
    assert state.scale == pytest.approx(0.4, rel=0.1) and asked and max(asked) < 0.5, "asked only where in doubt"


def test_the_filter_finds_the_scale_then_stands_still():
    rng, scale_filter, state = np.random.default_rng(2), ScaleFilter(rate=0.2), ScaleState()
    for k in range(90):
        samples, weights = measured(1.4 / state.scale, rng)
        assert (weights > 0).all()
        estimate, state = scale_filter.step(samples, weights, range(3), state)
        if k == 60:
            assert scale_filter.frozen(state)
            settled = state.scale
    assert settled == pytest.approx(1.4, rel=0.03) and state.scale == settled
    for _ in range(400):  # what changes afterwards is told, not followed
        estimate, state = scale_filter.step(*measured(1.2, rng, 8), range(8), state)
    assert state.scale == settled and estimate.factor == pytest.approx(1.2, rel=1e-6)
    assert len(state.reservoir) == 600


def test_a_scale_that_is_known_is_only_watched():
    rng, watch, state = np.random.default_rng(8), ScaleFilter(freeze_after=0), ScaleState()
    for _ in range(30):
        estimate, state = watch.step(*measured(1.3, rng), range(3), state)
    assert state.scale == 1.0 and estimate == scale.ScaleEstimate(pytest.approx(1.3), ScaleStatus.OK, 18)


def test_weighted_median_ignores_weightless_samples():
    head, delta, head_uv, pelvis_uv = people(9, 1.1, np.random.default_rng(3))
    pelvis_uv[:5] += 40.0
    samples = scale.scale_samples(K, head, delta, head_uv, pelvis_uv)
    weights = np.where(np.arange(9) < 5, 0.0, 1.0)
    assert scale.estimate_scale(samples, weights).factor == pytest.approx(1.1)
