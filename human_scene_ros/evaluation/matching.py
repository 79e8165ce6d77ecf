"""Who is who: detections against true people in one image, and pairs of detections across views."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.arrays import check_shape


def match_nearest(predicted_uv_px: NDArray[np.floating], truth_uv_px: NDArray[np.floating],
                  max_distance_px: float) -> list[tuple[int, int]]:
    """Greedy one-to-one matching by image distance, nearest pair first.

    Args:
        predicted_uv_px: (P, 2).
        truth_uv_px: (G, 2).
        max_distance_px: Pairs farther apart are never matched.

    Returns:
        (predicted index, true index) by rising distance.
    """
    check_shape("predicted_uv_px", predicted_uv_px, (None, 2))
    check_shape("truth_uv_px", truth_uv_px, (None, 2))
    distance = np.linalg.norm(predicted_uv_px[:, None].astype(np.float64) - truth_uv_px[None], axis=-1)
    pairs: list[tuple[int, int]] = []
    order = np.argsort(distance, axis=None, kind="stable")
    for i, j in zip(*np.unravel_index(order, distance.shape), strict=True):
        if not distance[i, j] <= max_distance_px:  # sorted, and NaN comes last
            break
        if all(i != a and j != b for a, b in pairs):
            pairs.append((int(i), int(j)))
    return pairs


@dataclasses.dataclass(frozen=True)
class DetectionMatch:
    """Result for one image.

    Args:
        pairs: (predicted, true) indices.
        false_positives: Predicted indices of people who do not exist.
        misses: True indices that nobody found.
    """

    pairs: tuple[tuple[int, int], ...]
    false_positives: tuple[int, ...]
    misses: tuple[int, ...]


def match_keypoints(predicted_uv_px: NDArray[np.floating], truth_uv_px: NDArray[np.floating], *,
                    min_iou: float = 0.05, optimal: bool = False) -> DetectionMatch:
    """The matching of ROMP and Human3R by 2-D joints.

    Pairs are taken by rising spectral norm of their (J, 2) difference (the largest singular value, as the
    reference computes it) if the boxes around the joints overlap by `min_iou` (sizes count one more pixel).
    The greedy reference counts every candidate below that limit as a false positive found and stops when pairs
    and those reach the number of predictions, so that in crowds valid pairs can be lost; `optimal` solves the
    assignment instead.

    Args:
        predicted_uv_px: (P, J, 2).
        truth_uv_px: (G, J, 2).
        min_iou: Least intersection over union of the boxes.
        optimal: Hungarian instead of greedy.
    """
    predicted, truth = np.asarray(predicted_uv_px, np.float64), np.asarray(truth_uv_px, np.float64)
    if predicted.ndim != 3 or truth.ndim != 3 or predicted.shape[1:] != truth.shape[1:] or predicted.shape[-1] != 2:
        raise ShapeError(f"2-D joints have shapes {predicted.shape} and {truth.shape}; "
                         "expected (P, J, 2) and (G, J, 2)")
    cost = np.linalg.norm(predicted[:, None] - truth[None], ord=2, axis=(-2, -1))
    iou = _box_iou(predicted, truth)
    pairs: list[tuple[int, int]] = []
    if optimal:
        # A pair below the limit costs more than leaving everybody out could.
        rows, columns = linear_sum_assignment(np.where(iou >= min_iou, cost, 1e9 + cost))
        pairs = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if iou[i, j] >= min_iou]
    else:
        rejected = 0
        order = np.argsort(cost, axis=None, kind="stable")
        for i, j in zip(*(axis.tolist() for axis in np.unravel_index(order, cost.shape)), strict=True):
            if any(i == a or j == b for a, b in pairs):
                continue
            if iou[i, j] >= min_iou:
                pairs.append((i, j))
            else:
                rejected += 1
            if len(pairs) + rejected >= len(predicted):
                break
    used = {i for i, _ in pairs}
    found = {j for _, j in pairs}
    return DetectionMatch(tuple(pairs), tuple(i for i in range(len(predicted)) if i not in used),
                          tuple(j for j in range(len(truth)) if j not in found))


def _box_iou(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    low_p, high_p = predicted.min(axis=1)[:, None], predicted.max(axis=1)[:, None]
    low_g, high_g = truth.min(axis=1)[None], truth.max(axis=1)[None]
    size = np.clip(np.minimum(high_p, high_g) - np.maximum(low_p, low_g) + 1.0, 0.0, None)
    overlap = size.prod(axis=-1)
    area_p, area_g = (high_p - low_p + 1.0).prod(axis=-1), (high_g - low_g + 1.0).prod(axis=-1)
    return overlap / (area_p + area_g - overlap)


def precision_recall_f1(true_positives: int, false_positives: int, misses: int) -> tuple[float, float, float]:
    """Fractions; NaN where nothing was predicted, nothing was there, or both."""
    def quotient(a: float, b: float) -> float:
        return a / b if b else float("nan")

    return (quotient(true_positives, true_positives + false_positives),
            quotient(true_positives, true_positives + misses),
            quotient(true_positives, true_positives + 0.5 * (false_positives + misses)))


@dataclasses.dataclass(frozen=True)
class PairAssociation:
    """How well identities were assigned across views, over all pairs of detections of different views.

    Args:
        precision: Right pairs / pairs given the same identity; NaN without any.
        recall: Right pairs / pairs that are the same person; NaN without any.
        f1: Their harmonic mean.
        accuracy: Fraction of all pairs decided right.
        counts: Right pairs, predicted same, truly same, all.
    """

    precision: float
    recall: float
    f1: float
    accuracy: float
    counts: tuple[int, int, int, int]


def pair_association(predicted_id: NDArray[np.integer], truth_id: NDArray[np.integer],
                     view: NDArray[np.integer]) -> PairAssociation:
    """Score the identities of the detections of one time step; negative = nobody (false positive, unassigned)."""
    predicted_id, truth_id, view = (np.asarray(a) for a in (predicted_id, truth_id, view))
    i, j = np.triu_indices(len(view), 1)
    i, j = i[view[i] != view[j]], j[view[i] != view[j]]
    same_predicted = (predicted_id[i] == predicted_id[j]) & (predicted_id[i] >= 0)
    same_truth = (truth_id[i] == truth_id[j]) & (truth_id[i] >= 0)
    right, positive, true = int((same_predicted & same_truth).sum()), int(same_predicted.sum()), int(same_truth.sum())
    precision, recall, f1 = precision_recall_f1(right, positive - right, true - right)
    accuracy = float((same_predicted == same_truth).mean()) if len(i) else float("nan")
    return PairAssociation(precision, recall, f1, accuracy, (right, positive, true, len(i)))
