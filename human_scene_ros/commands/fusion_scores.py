"""Scores of a rig: identities across cameras and over time, bodies of one camera against fused ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.matching import pair_association
from human_scene_ros.evaluation.tracking import TrackingAccumulator

Array = NDArray[np.float64]
Index = NDArray[np.integer]

RECOVERY_M = 0.75
"""A person's fused body is the nearest published one within this distance of the pelvis."""


class RigScores:
    """Collects moment by moment.

    Args:
        truth: (P, T, J, 3) joints of everybody in the world; NaN where unknown.
    """

    def __init__(self, truth: Array) -> None:
        self.truth = truth
        self.fused = np.full(truth.shape, np.nan)
        self._pairs = np.zeros(4)
        self._tracking = TrackingAccumulator(0.5)
        self._shown = 0

    def add_associations(self, person: Index, true_person: Index, view: Index) -> None:
        """The detections of one moment: who they were taken for, who they are (negative = nobody), which camera."""
        self._pairs += pair_association(person, true_person, view).counts

    def add_people(self, k: int, person_id: Index, joints_world: Array, truth: Array | None = None) -> None:
        """The people published for moment k.

        Args:
            k: Moment.
            person_id: (m,).
            joints_world: (m, J, 3).
            truth: (P, J, 3) at exactly the published time; None = `truth[:, k]`.
        """
        true = self.truth[:, k] if truth is None else truth
        self._tracking.add(np.arange(len(true)), true[:, 0], person_id, joints_world[:, 0])
        if not len(person_id) or not len(true):
            return
        self._shown += 1
        distance = np.linalg.norm(true[:, None, 0] - joints_world[None, :, 0], axis=2)
        nearest = distance.argmin(axis=1)
        found = distance[np.arange(len(true)), nearest] < RECOVERY_M
        # Joints are compared with the truth of moment k; what passed since then is taken out.
        moved = (self.truth[:, k] - true)[found]
        self.fused[found, k] = joints_world[nearest[found]] + moved

    def result(self, single: Array, head: int = 15) -> dict[str, Any]:
        """JSON names to numbers.

        Args:
            single: (V, P, T, J, 3) what each camera alone says, in the world; NaN where unseen.
            head: Index of the head joint.
        """
        mot = self._tracking.result()
        truth, fused = self.truth, self.fused
        P = len(truth)
        covered = np.isfinite(fused[:, :, 0, 0])
        return {
            "assoc_precision": self._pairs[0] / self._pairs[1] if self._pairs[1] else float("nan"),
            "assoc_recall": self._pairs[0] / self._pairs[2] if self._pairs[2] else float("nan"),
            "idf1": mot.idf1, "mota": mot.mota, "id_switches": mot.switches,
            "wa_mpjpe_single_mm": metrics.nanmean([_wa(single[v, p], truth[p]) for v in range(len(single))
                                                   for p in range(P)]),
            "wa_mpjpe_fused_mm": metrics.nanmean([_wa(fused[p], truth[p]) for p in range(P)]),
            "mpjpe_abs_single_mm": 1e3 * metrics.nanmean(np.linalg.norm(single - truth[None], axis=-1)),
            "mpjpe_abs_fused_mm": 1e3 * metrics.nanmean(np.linalg.norm(fused - truth, axis=-1)),
            "head_mm": 1e3 * metrics.nanmean(np.linalg.norm((fused - truth)[:, :, head], axis=-1)),
            "coverage": float(covered.mean()) if covered.size else float("nan"),
            "frames_with_people": self._shown,
        }


def _wa(ours: Array, truth: Array) -> float:
    """WA-MPJPE over chunks of 100 of the frames in which there is an estimate."""
    known = np.isfinite(ours).all(axis=(1, 2)) & np.isfinite(truth).all(axis=(1, 2))
    return metrics.nanmean(metrics.wa_mpjpe_mm(ours[known], truth[known])) if known.sum() >= 2 else float("nan")
