"""How far apart are tokens of one person, and of two? The tracker's dustbin score follows from it.

The published score (-10) belongs to one network's tokens. From tokens of tracks in consecutive frames (same person) and
of different tracks in one frame (different people) comes the score for any other: minus the middle between the medians.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_FRAMES = 200


@dataclasses.dataclass(frozen=True)
class TokenScaleResult:
    """What the tokens of a network are worth.

    Args:
        alpha: Score of being unmatched.
        same: Median distance of one person's tokens in consecutive frames.
        different: Median distance of two people's tokens in one frame.
        discriminative: Nearly all distances of one person are below nearly all of two (95th below 5th percentile);
            where not, rely on the tracker's displacement gate.
    """

    alpha: float
    same: float
    different: float
    discriminative: bool


class TokenScale:
    """Collects distances while a tracker runs.

    Args:
        keep: Distances of each kind that are kept, the newest.
    """

    def __init__(self, keep: int = 4000) -> None:
        self._keep = keep
        self._frames = 0
        self._last: dict[tuple[int, int], Array] = {}
        self._same: list[float] = []
        self._different: list[float] = []

    def add(self, view: NDArray[np.integer], ids: NDArray[np.integer], tokens: NDArray[np.floating]) -> None:
        """(N,) views and tracks of one frame of every view, and their (N, D) tokens."""
        self._frames += 1
        now = {}
        for v, track, token in zip(view.tolist(), ids.tolist(), np.asarray(tokens, np.float64), strict=True):
            now[v, track] = token
            if (v, track) in self._last:
                self._same.append(float(np.linalg.norm(token - self._last[v, track])))
        for v in np.unique(view):
            mine = np.asarray(tokens, np.float64)[view == v]
            first, second = np.triu_indices(len(mine), 1)
            self._different.extend(np.linalg.norm(mine[first] - mine[second], axis=1).tolist())
        self._last = now
        del self._same[:-self._keep], self._different[:-self._keep]

    def result(self) -> TokenScaleResult | None:
        """None before `MIN_FRAMES` frames, or while one kind of distance was never seen."""
        if self._frames < MIN_FRAMES or not self._same or not self._different:
            return None
        same, different = float(np.median(self._same)), float(np.median(self._different))
        return TokenScaleResult(-0.5 * (same + different), same, different, bool(
            np.percentile(self._same, 95.0) < np.percentile(self._different, 5.0)))
