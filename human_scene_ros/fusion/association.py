"""Who is who: detections of all views to people, anchored on the views' tracks (A to F of the specification).

Detections keep the person that their track is bound to; the others go to people who lack their view, then form new
people; people who turn out to be one become one, and who is not seen any more is forgotten.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.assignment import agglomerate, cycle_violations, gated_assignment, pair_matches
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.existence import IN_FRONT_M, evidence_of_scores, gain_of_moving
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.matrices import invert_symmetric, mahalanobis_squared
from human_scene_ros.fusion.measure import Measured, pose_positions
from human_scene_ros.fusion.people import People
from human_scene_ros.fusion.rig import Rig

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MAX_BIAS = 0.5
"""Limit of the logarithm of a view's depth error."""

_HOPELESS = 2.0  # times the gate: nothing dearer is looked at any more
_ON_RAY_M = 0.15
_SAME_POSE_M = 0.30
_IDENTITY = np.eye(3)


class Association:
    """The state of the assignment besides the people themselves.

    Args:
        skeleton: Of the poses.
        rig: Cameras.
        people: Read and changed.
        config: Settings.
        next_id: Of the first new person.

    Attributes:
        cycle_rate: Contradictions among the fresh matches of three views in the last step.
        doubt: Id of a person -> evidence in the last step that somebody else claims.
    """

    def __init__(self, skeleton: Skeleton, rig: Rig, people: People, config: FusionConfig, next_id: int) -> None:
        self.config = config
        self.people = people
        self.cycle_rate = 0.0
        self.doubt: dict[int, float] = {}
        self._skeleton, self._rig = skeleton, rig
        self._next_id = next_id
        self._stamp_s = -math.inf
        self._free_seen: dict[tuple[int, int], tuple[int, float]] = {}  # view and tracklet -> first step, last stamp
        self._frames = 0
        self._free_before = np.zeros(0)
        self._pending: dict[tuple[int, int], int] = {}
        self._agreement: dict[tuple[int, int], int] = {}
        self._likelier: dict[tuple[int, int], float] = {}
        self._merged: list[tuple[int, int]] = []

    @property
    def next_id(self) -> int:
        """Of the next new person."""
        return self._next_id

    def take_merged(self) -> tuple[tuple[int, int], ...]:
        """(kept, dropped) ids of those who became one since the last call."""
        merged, self._merged = tuple(self._merged), []
        return merged

    def points(self, seen: Measured, rows: Index, person: Index) -> Array:
        """(n, 3) where detections see their people, at the time of this step."""
        if self.config.align_time:
            return self.people.at_stamp(seen, rows, person, self._stamp_s)
        return self.people.unbiased(seen, rows, person)

    def step(self, stamp_s: float, seen: Measured) -> Index:
        """(N,) row of the person of each detection, -1 = nobody."""
        self._stamp_s = stamp_s
        self._frames += 1
        self.bury(stamp_s, np.zeros(0, np.int64))
        n, people = len(seen), len(self.people)
        owner = np.full(n, -1)
        if people and n:
            same = (self.people.bound[:, seen.view] == seen.tracklet) & (seen.tracklet >= 0)
            held = same.any(axis=0)
            bound = held.nonzero()[0]
            if len(bound):
                person = same[:, bound].argmax(axis=0)
                squared = self._distances_squared(seen, bound, person)
                fits = squared.min(axis=0) < self.config.anchor_gate
                fits &= _first_of_each(person * len(self._rig) + seen.view[bound], seen.score[bound], fits)
                owner[bound[fits]] = person[fits]
                seen.distrust_depth(bound[fits & (squared[1] < squared[0])])
                loose = squared.min(axis=0) >= self.config.anchor_gate
                if loose.any():
                    self.people.bound[person[loose], seen.view[bound[loose]]] = -1
            self._disown(seen, owner)
        free = (owner < 0).nonzero()[0]
        if len(free):
            self._note(seen, free)
            if people:
                self._adopt(seen, owner, free)
        self._births(stamp_s, seen, owner, free[owner[free] < 0])
        self._exchange(seen, owner)
        self._merge_people(owner, seen)
        self.bury(stamp_s, owner)
        return owner

    def _distances_squared(self, seen: Measured, rows: Index, person: Index) -> Array:
        """(2, ...) to each one's person, taking the depth for good and for an outlier; the likelier one counts.

        Rows and people are broadcast against each other.
        """
        position, noise = self.people.predicted(person, seen.stamp[rows])
        return self._of_both(seen, rows, self.people.unbiased(seen, rows, person) - position,
                             self.people.covariance[person] + noise[..., None, None] * _IDENTITY)

    def _of_both(self, seen: Measured, rows: Index, offset: Array, covariance: Array) -> Array:
        squared = mahalanobis_squared(offset, seen.covariances[:, rows] + covariance)
        squared[1] += self.config.outlier_penalty
        return squared

    def _disown(self, seen: Measured, owner: Index) -> None:
        """Let go of the view that contradicts a person's others most, beyond the gate: three views and more.

        A tracklet that slips over to somebody else would drag its person along, and prediction would follow.
        """
        rows = (owner >= 0).nonzero()[0]
        person = owner[rows]
        member = (np.arange(len(self.people))[:, None] == person).astype(np.float64)
        many = member.sum(axis=1)[person] >= 3
        if not many.any():
            return
        points = self.points(seen, rows, person)
        local = points - points[member.argmax(axis=1)][person]
        information = invert_symmetric(seen.covariance[rows])[0]
        pulled = (information @ local[..., None])[..., 0]
        others = (member @ information.reshape(-1, 9)).reshape(-1, 3, 3)[person] - information
        covariance = invert_symmetric(others)[0]
        offset = local - (covariance @ ((member @ pulled)[person] - pulled)[..., None])[..., 0]
        squared = np.where(many, self._of_both(seen, rows, offset, covariance).min(axis=0), 0.0)
        of_person = np.where(member > 0.0, squared, 0.0)
        wrong = rows[of_person.argmax(axis=1)[of_person.max(axis=1) > self.config.anchor_gate]]
        self.people.bound[owner[wrong], seen.view[wrong]] = -1
        owner[wrong] = -1

    def _ray_fits(self, seen: Measured, row: int, candidates: Index, canonical: Array) -> tuple[int, float]:
        """The candidate on the ray of a detection, and the logarithm of seen over true depth; -1 = none.

        A depth that is wrong beyond its gate must not make a second person of somebody whom other views see.
        """
        if not len(candidates):
            return -1, 0.0
        position, _ = self.people.predicted(candidates, float(seen.stamp[row]))
        own = seen.point[row] - seen.centre[row]
        length = float(np.linalg.norm(own))
        offset = position - seen.centre[row]
        along = offset @ (own / length)
        beside = np.sqrt(np.maximum((offset * offset).sum(axis=1) - along * along, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = np.where(along > 0.1, np.log(length / np.maximum(along, 0.1)), np.inf)
        pose = pose_distances(self.people.canonical[candidates], canonical[None])[:, 0]
        beside = np.where((np.abs(bias) < MAX_BIAS) & (pose < _SAME_POSE_M), beside, np.inf)
        best = int(np.argmin(beside))
        return (int(candidates[best]), float(bias[best])) if beside[best] < _ON_RAY_M else (-1, 0.0)

    def _canonical(self, seen: Measured, rows: Index) -> Array:
        """(n, C, 3) joints in body axes; whoever can be told apart by place is told apart without them."""
        return pose_positions(self._skeleton, seen.rotations[rows], seen.betas[rows])[1]

    def _adopt(self, seen: Measured, owner: Index, free: Index) -> None:
        """Unbound detections to people who lack their view, per view by gated assignment."""
        taken = np.zeros((len(self.people), len(self._rig)), bool)
        assigned = owner >= 0
        taken[owner[assigned], seen.view[assigned]] = True
        forbidden = taken[:, seen.view[free]].T | self._were_two(seen, free)
        odd = np.zeros(forbidden.shape, bool)
        if self.config.association == "paper":
            cost, gate = self._paper_to_people(seen, free), self.config.paper_gate_m
        else:
            gate = self.config.gate
            squared = self._distances_squared(seen, free[:, None], np.arange(len(self.people)))
            odd = squared[1] < squared[0]
            total = squared.min(axis=0)
            near = ((total < gate * gate) & ~forbidden).any(axis=1)
            if not near.any():
                return
            pose = pose_distances(self._canonical(seen, free[near]), self.people.canonical)
            total[near] += (pose / self.config.pose_sigma_m)**2
            cost = np.sqrt(total)
        cost = np.where(forbidden, np.inf, cost)
        possible = (cost < gate).any(axis=1)
        for v in sorted(set(seen.view[free[possible]].tolist())):
            mine = (possible & (seen.view[free] == v)).nonzero()[0]
            for i, person in gated_assignment(cost[mine], gate):
                owner[free[mine[i]]] = person
                self.people.bind(person, v, int(seen.tracklet[free[mine[i]]]), self._stamp_s)
                if odd[mine[i], person]:
                    seen.distrust_depth(free[mine[i]])

    def _note(self, seen: Measured, free: Index) -> None:
        """When each tracklet that is free now was free before."""
        if len(self._free_seen) > 4096:
            self._free_seen = dict(list(self._free_seen.items())[-2048:])
        self._free_before = np.full(len(seen), np.nan)
        for i in free:
            key = int(seen.view[i]), int(seen.tracklet[i])
            first, self._free_before[i] = self._free_seen.get(key, (self._frames, math.nan))
            self._free_seen[key] = first, float(seen.stamp[i])

    def _were_two(self, seen: Measured, free: Index) -> NDArray[np.bool_]:
        """(n, people) pairs that cannot be: the view last saw this tracklet beside the one bound to the person."""
        last = self.people.bound_seen[:, seen.view[free]].T
        return (self.people.bound[:, seen.view[free]].T >= 0) & (self._free_before[free, None] == last)

    def _world_joints(self, seen: Measured, rows: Index, canonical: Array) -> Array:
        root = seen.rotations[rows, 0].reshape(-1, 3, 3)
        return seen.point[rows, None] + (canonical - canonical[:, self._skeleton.head, None]) @ root.transpose(0, 2, 1)

    def _paper_to_people(self, seen: Measured, free: Index) -> Array:
        people, canonical = self.people, self._canonical(seen, free)
        offset = people.canonical - people.canonical[:, self._skeleton.head, None]
        position, _ = people.predicted(np.arange(len(people)), self._stamp_s)
        others = position[:, None] + offset @ people.rotation[:, 0].transpose(0, 2, 1)
        world = pose_distances(self._world_joints(seen, free, canonical), others)
        return self.config.position_weight * world + self.config.pose_weight * pose_distances(
            canonical, people.canonical)

    def _exchange(self, seen: Measured, owner: Index) -> None:
        """Pair the detections of two people whom the same two views see the other way, where that fits far better.

        Two views cannot outvote each other, and learned depth errors make any two rays of one plane meet. So both ways
        are compared by what the detections say alone, over some frames; then the tracks of the view that was bound last
        change their people.
        """
        likelier: dict[tuple[int, int], float] = {}
        rows = (owner >= 0).nonzero()[0]
        count = np.bincount(owner[rows], minlength=1)
        both = rows[count[owner[rows]] == 2]
        if len(both) >= 4:
            both = both[np.lexsort((seen.view[both], owner[both]))].reshape(-1, 2)
            cost, gate = self._pair_costs(seen, both.ravel())
            cost = np.minimum(cost / gate, _HOPELESS)**2
            for i, j in itertools.combinations(range(len(both)), 2):
                if (seen.view[both[i]] != seen.view[both[j]]).any():
                    continue
                a, b = owner[both[i, 0]], owner[both[j, 0]]
                key = int(self.people.ids[a]), int(self.people.ids[b])
                gain = cost[2 * i, 2 * i + 1] + cost[2 * j, 2 * j + 1] - cost[2 * i, 2 * j + 1] - cost[2 * j, 2 * i + 1]
                likelier[key] = max(self._likelier.get(key, 0.0) + min(max(gain, -1.0), 1.0), 0.0)
                if likelier[key] >= self.config.merge_frames:
                    late = int(self.people.bound_since[[a, b]][:, seen.view[both[i]]].max(axis=0).argmax())
                    self._swap(seen, owner, int(both[i, late]), int(both[j, late]))
                    del likelier[key]
        self._likelier = likelier

    def _swap(self, seen: Measured, owner: Index, first: int, second: int) -> None:
        """Two detections of one view and their tracks change people; what was learned by them is forgotten."""
        pair = owner[[first, second]]
        owner[[first, second]] = pair[::-1]
        for row in (first, second):
            self.people.bind(int(owner[row]), int(seen.view[row]), int(seen.tracklet[row]), self._stamp_s)
        self.people.bias[pair] = 0.0
        self.people.filters.restart(pair)

    def _pair_costs(self, seen: Measured, rows: Index) -> tuple[Array, float]:
        """(n, n) costs of being one person, exact up to `_HOPELESS` gates, and the gate."""
        skew = np.abs(seen.stamp[rows, None] - seen.stamp[rows][None]) > self.config.max_skew_s
        forbidden = skew | (seen.view[rows, None] == seen.view[rows][None])
        if self.config.association == "paper":
            gate, canonical = self.config.paper_gate_m, self._canonical(seen, rows)
            joints = self._world_joints(seen, rows, canonical)
            cost = (self.config.position_weight * pose_distances(joints, joints)
                    + self.config.pose_weight * pose_distances(canonical, canonical))
        else:
            gate, covariance = self.config.gate, seen.covariance[rows]
            offset = seen.point[rows, None] - seen.point[rows][None]
            squared = mahalanobis_squared(offset, covariance[:, None] + covariance[None])
            near = ((squared < (_HOPELESS * gate)**2) & ~forbidden).any(axis=1).nonzero()[0]
            if len(near):
                canonical = self._canonical(seen, rows[near])
                squared[near[:, None], near] += (pose_distances(canonical, canonical) / self.config.pose_sigma_m)**2
            cost = np.sqrt(squared)
        return np.where(forbidden, np.inf, cost), gate

    def _births(self, stamp_s: float, seen: Measured, owner: Index, free: Index) -> None:
        pending: dict[tuple[int, int], int] = {}
        self.cycle_rate = 0.0
        wait = self.config.pair_frames - 1 if np.count_nonzero(self._rig.looking & self._rig.known) == 2 else 0
        if len(free):
            labels = np.arange(len(free))
            if len(free) > 1:
                cost, gate = self._pair_costs(seen, free)
                if len(free) > 2 and (cost < gate).any():
                    # Only counted: complete linkage never joins two that contradict, and its cheapest edges win.
                    matched = pair_matches(seen.view[free], cost, gate)
                    self.cycle_rate = cycle_violations(seen.view[free], matched, cost, gate)[1]
                labels = agglomerate(seen.view[free], cost, gate)
            for label in range(int(labels.max()) + 1):
                group = free[labels == label]
                if len(group) == 1:
                    key = (int(seen.view[group[0]]), int(seen.tracklet[group[0]]))
                    pending[key] = self._pending.get(key, 0) + 1
                    if pending[key] >= 3 and self.config.learn_view_bias and self._explain(
                            seen, owner, int(group[0]), self._canonical(seen, group)[0]):
                        continue
                    if pending[key] < self.config.birth_frames:
                        continue
                if len(group) == 2 and wait and self._frames - max(
                        self._free_seen[int(seen.view[r]), int(seen.tracklet[r])][0] for r in group) < wait:
                    continue
                owner[group] = self._create(stamp_s, seen, group, self._canonical(seen, group))
        self._pending = pending

    def _explain(self, seen: Measured, owner: Index, row: int, canonical: Array) -> bool:
        """Give a lonely detection to somebody on its ray whom only other views see now."""
        assigned = owner >= 0
        views = np.zeros((len(self.people), len(self._rig)), bool)
        views[owner[assigned], seen.view[assigned]] = True
        view = seen.view[row]
        candidates = np.flatnonzero(self.people.confirmed & (views.sum(axis=1) >= 2) & ~views[:, view])
        person, bias = self._ray_fits(seen, row, candidates, canonical)
        if person < 0:
            return False
        owner[row] = person
        self.people.bind(person, int(view), int(seen.tracklet[row]), self._stamp_s)
        self.people.bias[person, view] = bias
        return True

    def _create(self, stamp_s: float, seen: Measured, group: Index, canonical: Array) -> int:
        information = invert_symmetric(seen.covariance[group])[0]
        covariance = invert_symmetric(information.sum(axis=0)[None])[0][0]
        point = covariance @ (information @ seen.point[group][..., None]).sum(axis=0)[:, 0]
        bound = np.full(len(self._rig), -1)
        bound[seen.view[group]] = seen.tracklet[group]
        person_id, self._next_id = self._next_id, self._next_id + 1
        return self.people.add(person_id, stamp_s, point, covariance, bound, seen.rotations[group[0]].reshape(-1, 3, 3),
                               canonical.mean(axis=0), seen.betas.shape[1],
                               bool(seen.score[group].mean() >= self.config.confirm_score))

    def merge(self, a: int, b: int) -> None:
        """Row b was row a all along: views that only b has become a's, and b is buried next."""
        self.people.take_over(a, b)
        self._end(a, b)

    def _end(self, a: int, b: int) -> None:
        self._merged.append((int(self.people.ids[a]), int(self.people.ids[b])))
        self.people.seen[b] = -math.inf

    def _merge_people(self, owner: Index, seen: Measured) -> None:
        """People at one place with disjoint views become one; the older id survives."""
        n = len(self.people)
        if n < 2:
            return
        position, _ = self.people.predicted(np.arange(n), self._stamp_s)
        offset = position[:, None] - position[None]
        near = (offset * offset).sum(axis=2) < 0.36
        views = np.zeros((n, len(self._rig)), bool)
        views[owner[owner >= 0], seen.view[owner >= 0]] = True
        agreement: dict[tuple[int, int], int] = {}
        if self.config.learn_view_bias:
            self._move_along_rays(owner, seen, views, agreement)
        for a, b in np.argwhere(np.triu(near, 1)) if np.count_nonzero(near) > n else ():  # each one is near itself
            key = (int(self.people.ids[a]), int(self.people.ids[b]))
            squared = mahalanobis_squared(offset[a, b], self.people.covariance[a] + self.people.covariance[b])
            agrees = squared < 11.0 and not (views[a] & views[b]).any() and views[a].any() and views[b].any()
            agreement[key] = max(self._agreement.get(key, 0) + (1 if agrees else -1), 0)
            if agreement[key] >= self.config.merge_frames:
                owner[owner == b] = a
                self.merge(int(a), int(b))
        self._agreement = agreement

    def _move_along_rays(self, owner: Index, seen: Measured, views: NDArray[np.bool_],
                         agreement: dict[tuple[int, int], int]) -> None:
        """Detections of people whom one or two views see go to somebody on their ray whom other views see.

        Of one view: it is that person, at a wrong depth. Of two views whom others deny: one detection of that person
        may have met a wrong one of another view, which makes a ghost. Then it decides who exists (`gain_of_moving`),
        and as long as that is open, what is claimed does not speak for the ghost.
        """
        count = views.sum(axis=1)
        self.doubt = {}
        if not (count >= 2).any():
            return
        for b in ((count == 1) | (count == 2)).nonzero()[0]:
            rows = np.flatnonzero(owner == b)
            for row in rows.tolist():
                view = int(seen.view[row])
                candidates = np.flatnonzero((count >= 2) & ~views[:, view] & (self.people.confirmed | (count > 2)))
                a, bias = self._ray_fits(seen, row, candidates, self.people.canonical[b])
                if a < 0:
                    continue
                gain = self._gain_of_moving(seen, row, rows[rows != row], int(b), a, views) if len(rows) == 2 else 1.0
                key = (-1 - int(self.people.ids[b]) * len(self._rig) - view, int(self.people.ids[a]))
                agreement[key] = max(self._agreement.get(key, 0) + (1 if gain > 0.0 else -1), 0)
                if agreement[key] < self.config.merge_frames:
                    continue
                owner[row] = a
                self.people.bind(a, view, int(self.people.bound[b, view]), self._stamp_s)
                self.people.bind(int(b), view, -1, self._stamp_s)
                self.people.bias[a, view] = bias
                views[a, view], views[b, view] = True, False
                if len(rows) == 1:
                    self._end(a, int(b))
                count = views.sum(axis=1)
                break

    def _gain_of_moving(self, seen: Measured, row: int, other: Index, b: int, a: int,
                        views: NDArray[np.bool_]) -> float:
        """Of a detection of b, whom one other view sees, to a; notes what of it does not speak for b."""
        view, miss, heads = seen.view[row], self.config.miss_evidence, self.people.filters.position
        denials = int(self._rig.missed(heads, views)[b].sum())
        if not denials:
            return -math.inf
        without = views.copy()
        without[b] = False
        lacking = bool(self._rig.missed(heads, without)[a, view])
        far = np.linalg.norm(heads[[a, b]] - seen.centre[row], axis=1)
        in_front = bool(far[1] < far[0] + IN_FRONT_M)
        moved, kept = evidence_of_scores(seen.score[[row, int(other[0])]])
        gain = gain_of_moving(moved, kept, denials, lacking, in_front, miss)
        if gain > 0.0:
            self.doubt[int(self.people.ids[b])] = moved + miss * in_front
        return gain

    def bury(self, stamp_s: float, owner: Index) -> None:
        """Forget who has not been seen for long; owners are renumbered."""
        if not len(self.people):
            return
        # Somebody never confirmed was most likely nobody.
        soonest = min(0.5, self.config.death_s)
        if stamp_s - self.people.seen.min() <= soonest:
            return
        limit = np.where(self.people.confirmed, self.config.death_s, soonest)
        alive = stamp_s - self.people.seen <= limit
        alive[owner[owner >= 0]] = True
        if alive.all():
            return
        self.people.keep(alive)
        renumbered = np.cumsum(alive) - 1
        owner[owner >= 0] = renumbered[owner[owner >= 0]]


def pose_distances(first: Array, second: Array) -> Array:
    """(n, J, 3) and (m, J, 3) joints -> (n, m) mean distances."""
    offset = first[:, None] - second
    return np.asarray(np.sqrt((offset * offset).sum(axis=3)).mean(axis=2))


def _first_of_each(keys: Index, score: Array, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) usable entries with the highest score among those with their key."""
    if np.bincount(keys[usable], minlength=1).max() <= 1:
        return usable
    order = np.lexsort((-score, ~usable))  # usable ones first, by falling score
    first = np.zeros(len(keys), bool)
    first[order[np.unique(keys[order], return_index=True)[1]]] = True
    return first & usable
