"""Identities over time: a bank of person descriptors, matched by optimal transport with dustbins.

The matching is that of SuperGlue (arXiv 1911.11763, section 3.2): log-domain Sinkhorn on a score matrix with
an extra row and column for "no partner". Plain numpy; a frame has few people and the bank is capped.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

DUSTBIN_SCORE = -10.0
SINKHORN_ITERATIONS = 20
MATCH_THRESHOLD = 0.2


@dataclasses.dataclass(frozen=True)
class TrackBank:
    """What is remembered of people; a value, never changed in place.

    Args:
        descriptors: (K, D) float32; most recently seen first.
        ids: (K,) int64.
        next_id: The number the next new person gets.
    """

    descriptors: NDArray[np.float32]
    ids: NDArray[np.int64]
    next_id: int = 0

    @classmethod
    def empty(cls, dim: int) -> TrackBank:
        """A bank that has seen nobody."""
        return cls(np.zeros((0, dim), np.float32), np.zeros(0, np.int64))


def log_transport(scores: NDArray[np.floating], alpha: float = DUSTBIN_SCORE,
                  iterations: int = SINKHORN_ITERATIONS) -> NDArray[np.float64]:
    """(m, n) scores -> (m + 1, n + 1) log assignment; last row and column are the dustbins."""
    m, n = scores.shape
    couplings = np.full((m + 1, n + 1), alpha, dtype=np.float64)
    couplings[:m, :n] = scores
    norm = -math.log(m + n)
    mu, nu = np.full(m + 1, norm), np.full(n + 1, norm)
    mu[m] += math.log(n)
    nu[n] += math.log(m)
    u, v = np.zeros(m + 1), np.zeros(n + 1)
    for _ in range(iterations):
        u = mu - _logsumexp(couplings + v[None, :], axis=1)
        v = nu - _logsumexp(couplings + u[:, None], axis=0)
    return couplings + u[:, None] + v[None, :] - norm


def _logsumexp(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    top = x.max(axis=axis, keepdims=True)
    return (np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top).squeeze(axis)


def assign_ids(bank: TrackBank, descriptors: NDArray[np.float32],
               cap: int) -> tuple[NDArray[np.int64], TrackBank]:
    """Give each detection the id of its mutual best match in the bank, or a new one.

    Args:
        bank: Before this frame.
        descriptors: (P, D) of this frame's detections.
        cap: Most entries the new bank may hold; those unseen for longest are forgotten.

    Returns:
        ids (P,) and the new bank: this frame's detections, then the unmatched old entries in their order.
    """
    m, n = len(bank.ids), len(descriptors)
    if n == 0:
        return np.zeros(0, np.int64), bank
    ids = np.full(n, -1, np.int64)
    unmatched = np.ones(m, dtype=bool)
    if m:
        difference = bank.descriptors[:, None].astype(np.float64) - descriptors[None]
        log_p = log_transport(-np.sqrt((difference**2).sum(-1)))[:m, :n]
        partner, best_row = log_p.argmax(axis=1), log_p.argmax(axis=0)
        for row in range(m):
            column = partner[row]
            if best_row[column] == row and math.exp(log_p[row, column]) > MATCH_THRESHOLD:
                ids[column] = bank.ids[row]
                unmatched[row] = False
    new = ids < 0
    ids[new] = bank.next_id + np.arange(np.count_nonzero(new))
    kept = max(cap, n)
    return ids, TrackBank(
        descriptors=np.concatenate([descriptors, bank.descriptors[unmatched]])[:kept].astype(np.float32),
        ids=np.concatenate([ids, bank.ids[unmatched]])[:kept],
        next_id=bank.next_id + int(np.count_nonzero(new)))
