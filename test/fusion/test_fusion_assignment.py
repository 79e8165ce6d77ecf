"""Gated assignment and groups against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from human_scene_ros.fusion import assignment as a


def exhaustive_gain(cost: np.ndarray, gate: float) -> float:
    """Best sum of (gate - cost) over all partial matchings."""
    n, m = cost.shape
    wide = np.maximum(gate - np.where(np.isfinite(cost), cost, np.inf), 0.0)
    if n > m:
        wide = wide.T
    return max(sum(wide[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(max(n, m)), min(n, m)))


@pytest.mark.parametrize("seed", range(12))
def test_gated_assignment_is_optimal(seed: int):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0.0, 1.0, rng.integers(1, 6, 2))
    cost[rng.random(cost.shape) < 0.1] = np.nan
    pairs = a.gated_assignment(cost, 0.5)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert (cost[pairs[:, 0], pairs[:, 1]] < 0.5).all()
    assert (0.5 - cost[pairs[:, 0], pairs[:, 1]]).sum() == pytest.approx(exhaustive_gain(cost, 0.5))


def test_the_gate_is_part_of_the_optimum():
    """Least raw cost would take the diagonal and lose both pairs to the gate."""
    cost = np.array([[0.65, 0.1], [9.0, 0.62]])
    assert a.gated_assignment(cost, 0.6).tolist() == [[0, 1]]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_nothing_is_assigned_to_nobody(shape: tuple[int, int]):
    assert a.gated_assignment(np.zeros(shape), 1.0).shape == (0, 2)


def partitions(items: list[int]):
    if not items:
        yield []
        return
    head, *rest = items
    for smaller in partitions(rest):
        yield [[head], *smaller]
        for k, group in enumerate(smaller):
            yield [*smaller[:k], [head, *group], *smaller[k + 1:]]


@pytest.mark.parametrize("seed", range(10))
def test_groups_reach_the_exhaustive_optimum(seed: int):
    rng = np.random.default_rng(seed)
    view = np.array([0, 0, 1, 1, 2, 2, 2])[:rng.integers(4, 8)]
    n = len(view)
    place = rng.normal(size=(n, 2))
    cost = np.linalg.norm(place[:, None] - place, axis=2)
    best = 0.0
    for groups in partitions(list(range(n))):
        if any(len({view[i] for i in g}) < len(g) for g in groups):
            continue
        best = max(best, sum(1.2 - cost[i, j] for g in groups for i, j in itertools.combinations(g, 2)))
    labels = a.group_detections(view, cost, 1.2)
    assert a.group_objective(labels, cost, 1.2) == pytest.approx(best)
    for label in np.unique(labels):
        assert len(set(view[labels == label])) == (labels == label).sum()


def test_groups_of_people_who_stand_close_reach_the_exhaustive_optimum():
    """Three people within half a metre, each in three views with 20 cm of noise."""
    rng = np.random.default_rng(3)
    view = np.repeat(np.arange(3), 3)
    for _ in range(40):
        place = np.tile(0.4 * rng.normal(size=(3, 3)), (3, 1)) + 0.2 * rng.normal(size=(9, 3))
        gain = 0.6 - np.linalg.norm(place[:, None] - place, axis=2)

        def best(i: int, groups: tuple[tuple[int, ...], ...], gain: np.ndarray = gain) -> float:
            if i == len(view):
                return 0.0
            joined = [best(i + 1, (*groups[:k], (*g, i), *groups[k + 1:])) + gain[i, list(g)].sum()
                      for k, g in enumerate(groups) if view[i] not in view[list(g)]]
            return max([best(i + 1, (*groups, (i,))), *joined])

        labels = a.group_detections(view, 0.6 - gain, 0.6)
        assert a.group_objective(labels, 0.6 - gain, 0.6) == pytest.approx(best(0, ()))


def test_complete_linkage_keeps_apart_what_contradicts():
    view = np.array([0, 1, 2])
    cost = np.array([[0.0, 0.2, 2.0], [0.2, 0.0, 0.3], [2.0, 0.3, 0.0]])
    assert a.agglomerate(view, cost, 1.0).tolist() == [0, 0, 1]


def test_two_people_at_one_place_stay_two():
    view = np.array([0, 0, 1, 1])
    labels = a.group_detections(view, np.full((4, 4), 0.01), 0.6)
    assert len(np.unique(labels)) == 2 and all(len(set(view[labels == k])) == 2 for k in (0, 1))


def test_a_violated_triangle_splits_at_its_weaker_side():
    view = np.array([0, 1, 2])
    cost = np.array([[0.0, 0.2, 3.0], [0.2, 0.0, 0.4], [3.0, 0.4, 0.0]])
    matched = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    mended, rate = a.cycle_violations(view, matched, cost, 1.0)
    assert rate == 1.0 and mended[0, 1] and not mended[1, 2]
    cost[0, 2] = cost[2, 0] = 1.2
    mended, rate = a.cycle_violations(view, matched, cost, 1.0)
    assert rate == 0.0 and (mended == matched).all()
