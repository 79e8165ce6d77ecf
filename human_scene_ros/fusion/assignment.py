"""Assignments with a gate: between two sets, and into groups with at most one member per view.

Costs that are NaN or infinite forbid a pair. Nothing here raises on empty input.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def gated_assignment(cost: NDArray[np.floating], gate: float) -> Index:
    """Partial matching with the largest sum of (gate - cost).

    The gate is part of the optimum: solving on raw costs and dropping dear pairs afterwards is not the same.

    Args:
        cost: (n, m).
        gate: Pairs at or above it are never made.

    Returns:
        (k, 2) row and column, by row.
    """
    cost = np.asarray(cost, np.float64)
    if cost.size == 0:
        return np.zeros((0, 2), np.int64)
    clipped = np.minimum(np.where(np.isfinite(cost), cost, gate), gate)
    if len(cost) == 1 or cost.shape[1] == 1:
        best = int(np.argmin(clipped))
        rows, columns = np.array([best if cost.shape[1] == 1 else 0]), np.array([0 if cost.shape[1] == 1 else best])
    else:
        rows, columns = linear_sum_assignment(clipped)
    kept = clipped[rows, columns] < gate
    return np.array([rows[kept], columns[kept]], np.int64).T


def group_objective(labels: NDArray[np.integer], cost: NDArray[np.floating], gate: float) -> float:
    """Sum of (gate - cost) over all pairs with the same label."""
    i, j = np.triu_indices(len(labels), 1)
    same = np.asarray(labels)[i] == np.asarray(labels)[j]
    return float((gate - _penalised(cost, gate)[i, j][same]).sum())


def agglomerate(view: NDArray[np.integer], cost: NDArray[np.floating], gate: float,
                widest: float = 1.5) -> Index:
    """Complete-linkage groups with at most one member per view.

    Pairs below the gate are taken by rising cost; two groups merge if they share no view and every cross pair
    costs less than `widest` gates.

    Args:
        view: (n,).
        cost: (n, n) symmetric.
        gate: Only cheaper pairs start a merge.
        widest: Limit of any pair of a group, in gates.

    Returns:
        (n,) labels 0..k-1 in the order of their first members.
    """
    view, cost = np.asarray(view), np.asarray(cost, np.float64)
    n = len(view)
    i, j = ((view[:, None] != view) & (cost < gate) & (np.arange(n)[:, None] < np.arange(n))).nonzero()
    if not len(i):
        return np.arange(n)
    groups: list[list[int]] = [[i] for i in range(n)]
    owner = list(range(n))
    for k in np.argsort(cost[i, j], kind="stable"):
        a, b = owner[i[k]], owner[j[k]]
        if a == b or {int(view[m]) for m in groups[a]} & {int(view[m]) for m in groups[b]}:
            continue
        if not (cost[np.ix_(groups[a], groups[b])] < widest * gate).all():
            continue
        groups[a] += groups[b]
        for m in groups[b]:
            owner[m] = a
        groups[b] = []
    return _relabelled(np.array(owner, np.int64))


def group_detections(view: NDArray[np.integer], cost: NDArray[np.floating], gate: float) -> Index:
    """Groups with (nearly always) the largest `group_objective`: the best of local moves from several starts.

    Starts: agglomeration, everybody alone, and the views one after the other, beginning with each, forth and back.
    Moves, until none gains: one member to another group or to a group of its own; two members of one view exchanged;
    two groups merged. For offline use; cost grows with the cube of the number of detections.
    """
    view = np.asarray(view)
    gain = gate - _penalised(cost, gate)
    np.fill_diagonal(gain, 0.0)
    views = np.unique(view)
    orders = [np.roll(way, k) for k in range(len(views)) for way in (views, views[::-1])]
    best: Index | None = None
    best_value = -np.inf
    for start in (agglomerate(view, cost, gate), np.arange(len(view)), *(_chained(view, gain, o) for o in orders)):
        labels = _local_moves(view, gain, start.copy())
        value = group_objective(labels, cost, gate)
        if value > best_value + 1e-12:
            best, best_value = labels, value
    assert best is not None
    return _relabelled(best)


def _chained(view: NDArray[np.integer], gain: Array, order: NDArray[np.integer]) -> Index:
    """Labels from one view after the other, each assigned to the groups so far by what the members gain together."""
    labels = np.full(len(view), -1)
    for v in order:
        rows, groups = np.flatnonzero(view == v), int(labels.max()) + 1
        together = np.zeros((len(rows), groups))
        for group in range(groups):
            together[:, group] = gain[rows][:, labels == group].sum(axis=1)
        for row, group in gated_assignment(-together, 0.0):
            labels[rows[row]] = group
        alone = rows[labels[rows] < 0]
        labels[alone] = groups + np.arange(len(alone))
    return labels


def _local_moves(view: NDArray[np.integer], gain: Array, labels: Index) -> Index:
    n = len(view)
    for _ in range(20 * n + 20):  # every pass gains; the bound only guards against rounding
        improved = False
        for i in range(n):
            current = gain[i, labels == labels[i]].sum()
            best_label, best = -1, current + 1e-12
            for label in (*np.unique(labels), labels.max() + 1):
                members = (labels == label) & (np.arange(n) != i)
                if label == labels[i] or (view[members] == view[i]).any():
                    continue
                value = gain[i, members].sum()
                if value > best:
                    best_label, best = int(label), value
            if best_label >= 0:
                labels[i] = best_label
                improved = True
        for i, j in itertools.combinations(range(n), 2):
            if labels[i] == labels[j]:
                continue
            in_i, in_j = labels == labels[i], labels == labels[j]
            if view[i] == view[j]:
                in_i[i] = in_j[j] = False
                before = gain[i, in_i].sum() + gain[j, in_j].sum()
                if gain[i, in_j].sum() + gain[j, in_i].sum() > before + 1e-12:
                    labels[i], labels[j] = labels[j], labels[i]
                    improved = True
            elif (not set(view[in_i].tolist()) & set(view[in_j].tolist())
                    and gain[np.ix_(in_i, in_j)].sum() > 1e-12):
                labels[in_j] = labels[i]
                improved = True
        if not improved:
            break
    return labels


def pair_matches(view: NDArray[np.integer], cost: NDArray[np.floating], gate: float) -> NDArray[np.bool_]:
    """(n,) views and (n, n) costs -> (n, n) symmetric matches, one to one between two views by `gated_assignment`."""
    view, cost = np.asarray(view), np.asarray(cost, np.float64)
    matched = np.zeros(cost.shape, bool)
    for a, b in itertools.combinations(np.unique(view).tolist(), 2):
        rows, columns = np.flatnonzero(view == a), np.flatnonzero(view == b)
        between = cost[np.ix_(rows, columns)]
        if not (between < gate).any():
            continue
        pairs = gated_assignment(between, gate)
        matched[rows[pairs[:, 0]], columns[pairs[:, 1]]] = True
    return matched | matched.T


def cycle_violations(view: NDArray[np.integer], matched: NDArray[np.bool_], cost: NDArray[np.floating],
                     gate: float, widest: float = 1.5) -> tuple[NDArray[np.bool_], float]:
    """Split triangles whose third side contradicts the two others, at the weaker of the two.

    Args:
        view: (n,) view of each detection.
        matched: (n, n) symmetric pairwise matches of different views.
        cost: (n, n) symmetric.
        gate: Gate of the matching; the third side contradicts above `widest` gates.

    Returns:
        mended: (n, n) matches without the weakest edges of violated triangles.
        rate: Violated triangles over triangles with two matched sides; 0 without any.
    """
    mended = np.array(matched, bool)
    cost = np.asarray(cost, np.float64)
    triangles = violated = 0
    for middle in np.flatnonzero(np.sum(matched, axis=1) >= 2).tolist():
        partners = np.flatnonzero(matched[middle])
        for a, c in itertools.combinations(partners.tolist(), 2):
            triangles += 1
            same_view = view[a] == view[c]
            if matched[a, c] or (not same_view and cost[a, c] <= widest * gate):
                continue
            violated += 1
            weak = a if cost[a, middle] > cost[c, middle] else c
            mended[weak, middle] = mended[middle, weak] = False
    return mended, violated / triangles if triangles else 0.0


def _penalised(cost: NDArray[np.floating], gate: float) -> Array:
    cost = np.asarray(cost, np.float64)
    return np.where(np.isfinite(cost), cost, 1e6 * max(abs(gate), 1.0))


def _relabelled(labels: Index) -> Index:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return order[inverse].astype(np.int64)
