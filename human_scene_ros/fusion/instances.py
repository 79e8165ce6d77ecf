"""One number for each person over several views, or over time, from instance masks alone.

For input without bodies, whose tracks would tell who is who. The human points of a view are projected into another and
vote for the instances they fall on; instances whose votes overlap enough are one person. After HAMSt3R
(arXiv 2508.16433), with a gated assignment between two views and the grouping of detections for more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.assignment import gated_assignment, group_detections
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert

Array = NDArray[np.float64]
Index = NDArray[np.int64]

NOBODY = -1
GATE = 0.7  # of 1 - IoU
HIDDEN_M = 0.25  # a point so far behind what a view sees there is hidden from it
STATIC_M = 0.10  # two views, or two times, show one point if they put it within so much


@dataclasses.dataclass(frozen=True)
class InstanceView:
    """What one camera shows at one time.

    Args:
        points_world: (h, w, 3) map in a frame that all views share, metres; NaN where unknown.
        instance: (h, w) numbers of people, each view's own; -1 = nobody.
        camera: Intrinsics of both.
        T_world_camera: (4, 4).
    """

    points_world: NDArray[np.floating]
    instance: NDArray[np.integer]
    camera: PinholeCamera
    T_world_camera: NDArray[np.floating]

    @property
    def ids(self) -> Index:
        """Numbers in this view, rising."""
        found = np.unique(self.instance).astype(np.int64)
        return found[found != NOBODY]


def vote_iou(a: InstanceView, b: InstanceView) -> Array:
    """(n, m) overlap of `a.ids` and `b.ids` by the votes of each view's human points in the other.

    Votes are points, from either view, that the other one sees: V of both instances, over those of one or the other.
    NaN where neither instance has a vote: the views tell nothing about them.
    """
    of_a: list[NDArray[np.integer]] = []
    of_b: list[NDArray[np.integer]] = []
    for x, y, first, second in ((a, b, of_a, of_b), (b, a, of_b, of_a)):
        own, other, gap_m = _seen(x, y)
        votes = (x.instance.reshape(-1)[own] != NOBODY) & ~(gap_m > HIDDEN_M)
        first.append(x.instance.reshape(-1)[own[votes]])
        second.append(y.instance.reshape(-1)[other[votes]])
    voted_a, voted_b = np.concatenate(of_a), np.concatenate(of_b)
    by_a, by_b = (ids[:, None] == voted for ids, voted in ((a.ids, voted_a), (b.ids, voted_b)))
    common = by_a.astype(np.float64) @ by_b.T
    union = by_a.sum(axis=1)[:, None] + by_b.sum(axis=1) - common
    return np.divide(common, union, out=np.full(common.shape, np.nan), where=union > 0)


def match_instances(a: InstanceView, b: InstanceView, gate: float = GATE) -> Index:
    """(k, 2) numbers in a and in b of the same people: gated assignment on 1 - `vote_iou`."""
    pairs = gated_assignment(1.0 - vote_iou(a, b), gate)
    return np.stack([a.ids[pairs[:, 0]], b.ids[pairs[:, 1]]], axis=1)


def group_instances(views: Sequence[InstanceView], gate: float = GATE) -> list[dict[int, int]]:
    """Of each view, its numbers -> numbers 0, 1, ... that are the same for one person in all views."""
    of_view = np.concatenate([np.full(len(v.ids), k) for k, v in enumerate(views)] or [np.zeros(0, int)])
    cost = np.full((len(of_view), len(of_view)), np.inf)
    for i, a in enumerate(views):
        for j, b in enumerate(views[:i]):
            # What two views cannot compare speaks neither for nor against one person: a pair at the gate gains nothing.
            pair = np.nan_to_num(1.0 - vote_iou(a, b), nan=gate)
            cost[np.ix_(of_view == i, of_view == j)] = pair
            cost[np.ix_(of_view == j, of_view == i)] = pair.T
    labels = group_detections(of_view, cost, gate) if len(of_view) else np.zeros(0, np.int64)
    return [dict(zip(v.ids.tolist(), labels[of_view == k].tolist(), strict=True)) for k, v in enumerate(views)]


def follow_instances(before: InstanceView, now: InstanceView, next_id: int,
                     gate: float = GATE) -> tuple[dict[int, int], int]:
    """Numbers of `now` -> those that `before` has for the same people, or new ones from `next_id` on; the next free."""
    same = {int(new): int(old) for old, new in match_instances(before, now, gate)}
    for number in now.ids.tolist():
        if number not in same:
            same[number], next_id = next_id, next_id + 1
    return same, next_id


def renumbered(view: InstanceView, numbers: dict[int, int]) -> InstanceView:
    """The view with other numbers; those that are not named become nobody."""
    instance = np.full(view.instance.shape, NOBODY, np.int64)
    for old, new in numbers.items():
        instance[view.instance == old] = new
    return dataclasses.replace(view, instance=instance)


def id_consistency(a: InstanceView, b: InstanceView, tolerance_m: float = STATIC_M) -> float:
    """Share of equal numbers among the points that both views show at one place and at least one gives to a person.

    What moved between two times is not at one place and does not count. NaN without such points.
    """
    own, other, _ = _seen(a, b)
    apart = a.points_world.reshape(-1, 3)[own] - b.points_world.reshape(-1, 3)[other]
    in_a, in_b = a.instance.reshape(-1)[own], b.instance.reshape(-1)[other]
    counts = (np.linalg.norm(apart, axis=1) < tolerance_m) & ((in_a != NOBODY) | (in_b != NOBODY))
    return float((in_a == in_b)[counts].mean()) if counts.any() else float("nan")


def _seen(a: InstanceView, b: InstanceView) -> tuple[Index, Index, Array]:
    """Pixels of a whose points lie in the image of b, pixels of b where they lie, and how far they lie behind what b
    sees there, metres along its optical axis; NaN where b sees nothing. Pixels count along the rows."""
    T_b_world = invert(b.T_world_camera)
    in_b = apply(T_b_world, np.asarray(a.points_world, np.float64).reshape(-1, 3))
    uv = np.rint(b.camera.project(in_b))
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv < [b.camera.width, b.camera.height])).all(axis=1)
    own = np.flatnonzero(inside)
    column, row = uv[own].astype(np.int64).T
    other = row * b.camera.width + column
    z_b = apply(T_b_world, np.asarray(b.points_world, np.float64).reshape(-1, 3)[other])[:, 2]
    return own, other, in_b[own, 2] - z_b
