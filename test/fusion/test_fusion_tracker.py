"""Trackers of one view: transport, reference behaviour, gate, death, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.fusion.tracker import (
    ReferenceTracker,
    TrackerConfig,
    ViewTrackers,
    _sinkhorn_batch,
    sinkhorn_log,
)


def test_columns_of_the_transport_sum_to_their_marginals():
    rng = np.random.default_rng(0)
    P = np.exp(sinkhorn_log(-rng.uniform(0, 20, (4, 6)), -10.0))
    assert P[:, :6].sum(axis=0) == pytest.approx(np.ones(6))
    assert P[:, 6].sum() == pytest.approx(4.0)


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4])
def test_the_batched_transport_agrees_with_the_log_domain(scale: float):
    rng = np.random.default_rng(1)
    scores = -scale * rng.uniform(0, 1, (2, 3, 5))
    ours = _sinkhorn_batch(scores, np.ones((2, 3), bool), np.ones((2, 5), bool), -10.0, 20)
    for k in range(2):
        assert ours[k] == pytest.approx(np.exp(sinkhorn_log(scores[k], -10.0)[:3, :5]), abs=1e-9)


def test_padding_changes_nothing():
    rng = np.random.default_rng(2)
    scores = -rng.uniform(0, 15, (1, 3, 2))
    wide = np.full((1, 5, 4), -np.inf)
    wide[:, :3, :2] = scores
    rows, columns = np.arange(5)[None] < 3, np.arange(4)[None] < 2
    padded = _sinkhorn_batch(wide, rows, columns, -10.0, 20)
    plain = _sinkhorn_batch(scores, rows[:, :3], columns[:, :2], -10.0, 20)
    assert padded[:, :3, :2] == pytest.approx(plain)
    assert padded[:, 3:].max() == 0.0 and padded[:, :, 2:].max() == 0.0


def test_reference_never_forgets_and_a_frame_without_people_changes_nothing():
    tracker = ReferenceTracker()
    a, b = np.zeros(8), np.full(8, 20.0)
    assert tracker.step(np.stack([a, b])) == [0, 1]
    assert tracker.step(np.zeros((0, 8))) == []
    assert tracker.step(b[None]) == [1]
    for _ in range(50):
        tracker.step(b[None])
    assert tracker.step(np.stack([b, a])) == [1, 0] and tracker.memory_size == 2


def test_the_reference_mode_of_many_views_is_one_reference_tracker_per_view():
    rng = np.random.default_rng(3)
    people = 20.0 * rng.normal(size=(4, 8))
    trackers, alone = ViewTrackers(2, TrackerConfig(mode="reference")), [ReferenceTracker(), ReferenceTracker()]
    for k in range(30):
        seen = [rng.permutation(4)[:rng.integers(0, 5)] for _ in range(2)]
        view = np.repeat([0, 1], [len(s) for s in seen])
        tokens = people[np.concatenate(seen)] + 0.3 * rng.normal(size=(len(view), 8))
        order = rng.permutation(len(view))
        ids = trackers.step(view[order], np.full(len(view), float(k)), np.zeros((len(view), 3)), tokens[order])
        for v in range(2):
            assert ids[view[order] == v].tolist() == alone[v].step(tokens[order][view[order] == v])
    assert [trackers.memory_size(v) for v in range(2)] == [t.memory_size for t in alone]
    with pytest.raises(ShapeError, match="tokens"):
        trackers.step(np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 3)), None)
    with pytest.raises(ConfigError, match="reference"):
        TrackerConfig(mode="published")


def frame(views: list[int], positions: list[float], tokens: list[float], t: float):
    position = np.array([[x, 0.0, 5.0] for x in positions]).reshape(-1, 3)
    return (np.array(views, np.int64), np.full(len(views), t), position,
            np.array([[token] * 16 for token in tokens]).reshape(-1, 16))


def test_shuffled_people_keep_their_ids_in_each_view():
    trackers = ViewTrackers(2)
    first = trackers.step(*frame([0, 1, 0], [0.0, 9.0, 2.0], [0.0, 5.0, 8.0], 0.0))
    assert first.tolist() == [0, 0, 1]
    second = trackers.step(*frame([0, 0, 1], [2.0, 0.0, 9.0], [8.0, 0.0, 5.0], 0.03))
    assert second.tolist() == [1, 0, 0]


def test_a_token_cannot_jump_across_the_room_in_robust_mode():
    trackers = ViewTrackers(1)
    trackers.step(*frame([0], [0.0], [0.0], 0.0))
    ids = trackers.step(*frame([0], [3.0], [0.0], 0.03))
    assert ids.tolist() == [1]
    ids = trackers.step(*frame([0], [0.2], [0.0], 0.06))
    assert ids.tolist() == [0]


def test_people_unseen_for_two_seconds_come_back_as_others():
    trackers = ViewTrackers(1)
    trackers.step(*frame([0], [0.0], [0.0], 0.0))
    assert trackers.step(*frame([0], [0.0], [0.0], 1.9)).tolist() == [0]
    assert trackers.step(*frame([0], [0.0], [0.0], 4.1)).tolist() == [1]


def test_memory_is_bounded_and_people_of_the_present_frame_are_never_evicted():
    trackers = ViewTrackers(1, TrackerConfig(capacity=8))
    for k in range(40):
        ids = trackers.step(*frame([0, 0], [4.0 * k, 4.0 * k + 2.0], [0.0, 8.0], 0.03 * k))
        assert len(set(ids.tolist())) == 2
        assert trackers.memory_size(0) <= 8
    crowd = list(np.arange(12) * 3.0 + 1000.0)
    ids = trackers.step(*frame([0] * 12, crowd, [0.0] * 12, 1.3))
    assert len(set(ids.tolist())) == 12
    again = trackers.step(*frame([0] * 12, crowd[::-1], [0.0] * 12, 1.33))
    assert again.tolist() == ids.tolist()[::-1]


def test_without_tokens_displacement_decides():
    trackers = ViewTrackers(1)
    view, stamp, position, _ = frame([0, 0], [0.0, 2.0], [0.0, 0.0], 0.0)
    trackers.step(view, stamp, position, None)
    assert trackers.step(view, stamp + 0.03, position[::-1] + 0.05, None).tolist() == [1, 0]


def test_an_empty_frame_is_fine():
    trackers = ViewTrackers(3)
    ids = trackers.step(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 4)))
    assert len(ids) == 0


def test_the_dustbin_score_follows_from_the_tokens():
    """Two people at 0 and at distance 30, steps of length 2: the middle between 2 and 30."""
    from human_scene_ros.fusion.token_scale import MIN_FRAMES

    trackers = ViewTrackers(1, TrackerConfig(calibrate_alpha=True))
    position = np.array([[0.0, 0.0, 3.0], [2.0, 0.0, 3.0]])
    for k in range(MIN_FRAMES + 5):
        tokens = np.zeros((2, 4))
        tokens[:, 0] = 0.0, 30.0
        tokens[:, 1] = 2.0 * (k % 2)
        ids = trackers.step(np.zeros(2, np.int64), np.full(2, k / 30.0), position, tokens)
        np.testing.assert_array_equal(ids, [0, 1])
    found = trackers.token_scale
    assert found is not None and found.discriminative
    assert (found.same, found.different, found.alpha) == (2.0, 30.0, -16.0)


def test_tokens_that_tell_nobody_apart_are_called_so():
    from human_scene_ros.fusion.token_scale import MIN_FRAMES, TokenScale

    scale, rng = TokenScale(), np.random.default_rng(0)
    assert scale.result() is None
    for _ in range(MIN_FRAMES):
        scale.add(np.zeros(3, np.int64), np.arange(3), rng.normal(size=(3, 8)))
    result = scale.result()
    assert result is not None and not result.discriminative
