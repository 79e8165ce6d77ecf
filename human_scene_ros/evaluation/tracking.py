"""Multiple object tracking scores of points in space: CLEAR MOT (Bernardin and Stiefelhagen 2008) and IDF1.

Definitions follow the usual toolkit: a correspondence that still holds is kept, the rest is assigned anew with
as many pairs as the gate allows, and a change of partner counts as a switch however long the gap was.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


@dataclasses.dataclass(frozen=True)
class TrackingScores:
    """Scores of a whole sequence; fractions of nothing are NaN.

    Args:
        idf1: Identity F1 under the best one-to-one mapping of tracks to people.
        idp: Identity precision.
        idr: Identity recall.
        mota: 1 - (misses + false positives + switches) / true positions.
        motp: Mean distance of matched pairs, metres.
        switches: Changes of the track that follows a person.
        false_positives: Published positions that match nobody.
        misses: True positions that nothing matches.
        fragmentations: Interruptions of a person's tracking.
        mostly_tracked: People followed at least 80 % of the time.
        mostly_lost: People followed less than 20 % of the time.
    """

    idf1: float
    idp: float
    idr: float
    mota: float
    motp: float
    switches: int
    false_positives: int
    misses: int
    fragmentations: int
    mostly_tracked: int
    mostly_lost: int


class TrackingAccumulator:
    """Feed frame by frame, then ask for `result()`.

    Args:
        gate_m: Pairs at a greater distance never match.
    """

    def __init__(self, gate_m: float = 0.5) -> None:
        self._gate = gate_m
        self._partner: dict[int, int] = {}
        self._history: dict[int, list[bool]] = defaultdict(list)  # per person: matched or missed
        self._together: dict[tuple[int, int], int] = defaultdict(int)
        self._distances: list[float] = []
        self._switches = self._false_positives = self._truths = self._published = 0

    def add(self, truth_id: NDArray[np.integer], truth: NDArray[np.floating], track_id: NDArray[np.integer],
            published: NDArray[np.floating]) -> None:
        """One frame.

        Args:
            truth_id: (G,).
            truth: (G, 3) metres.
            track_id: (H,).
            published: (H, 3) metres.
        """
        people, tracks = np.asarray(truth_id).tolist(), np.asarray(track_id).tolist()
        offset = np.reshape(truth, (-1, 1, 3)) - np.reshape(published, (1, -1, 3))
        distance = np.sqrt(np.einsum("ghi,ghi->gh", offset, offset))
        near = distance <= self._gate
        self._truths += len(people)
        self._published += len(tracks)
        # Plain lists: for the few people of a frame they are faster than arrays.
        close, apart = near.tolist(), distance.tolist()
        for i, j in zip(*(axis.tolist() for axis in near.nonzero()), strict=True):
            self._together[people[i], tracks[j]] += 1
        partner: dict[int, int] = {}  # row of the person -> column of the track
        place = dict(zip(tracks, range(len(tracks)), strict=True))
        taken: set[int] = set()
        for i, person in enumerate(people):
            before = self._partner.get(person)
            j = -1 if before is None else place.get(before, -1)
            if j >= 0 and close[i][j] and j not in taken:
                partner[i] = j
                taken.add(j)
        if len(partner) < len(people) and len(taken) < len(tracks):
            rows = [i for i in range(len(people)) if i not in partner]
            columns = [j for j in range(len(tracks)) if j not in taken]
            block = np.ix_(rows, columns)
            # A forbidden pair costs more than all allowed ones together: first as many pairs as possible.
            cost = np.where(near[block], distance[block], 1e3 * (1.0 + self._gate) * (1 + min(near.shape)))
            for a, b in zip(*linear_sum_assignment(cost), strict=True):
                i, j = rows[a], columns[b]
                if not close[i][j]:
                    continue
                self._switches += self._partner.get(people[i], tracks[j]) != tracks[j]
                self._partner[people[i]] = tracks[j]
                partner[i] = j
        self._distances += [apart[i][j] for i, j in partner.items()]
        for i, person in enumerate(people):
            self._history[person].append(i in partner)
        self._false_positives += len(tracks) - len(partner)

    def result(self) -> TrackingScores:
        """Scores of everything added so far."""
        matches = sum(sum(history) for history in self._history.values())
        misses = self._truths - matches
        people = sorted(self._history)
        tracks = sorted({track for _, track in self._together})
        together = np.zeros((len(people), len(tracks)))
        for (person, track), count in self._together.items():
            together[people.index(person), tracks.index(track)] = count
        identified = float(together[linear_sum_assignment(together, maximize=True)].sum()) if together.size else 0.0

        def quotient(a: float, b: float) -> float:
            return a / b if b else float("nan")

        ratios = [sum(history) / len(history) for history in self._history.values()]
        return TrackingScores(
            quotient(2.0 * identified, self._truths + self._published), quotient(identified, self._published),
            quotient(identified, self._truths),
            1.0 - quotient(misses + self._false_positives + self._switches, self._truths),
            float(np.mean(self._distances)) if self._distances else float("nan"), self._switches,
            self._false_positives, misses, sum(_interruptions(h) for h in self._history.values()),
            sum(r >= 0.8 for r in ratios), sum(r < 0.2 for r in ratios))


def _interruptions(history: list[bool]) -> int:
    if not any(history):
        return 0
    first, last = history.index(True), len(history) - 1 - history[::-1].index(True)
    return sum(history[k] and not history[k + 1] for k in range(first, last))
