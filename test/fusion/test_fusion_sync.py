"""Synchroniser: against exhaustive search, and its invariants under faults."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError
from human_scene_ros.fusion.sync import SyncConfig, SyncedSet, Synchroniser

MS = 1_000_000


def play(sync: Synchroniser[int], events: list[tuple[int, str, int]],
         poll_every: int = 10 * MS) -> list[SyncedSet[int]]:
    """Push (arrival, camera, stamp) events in order of arrival, polling in between."""
    sets, now = [], 0
    for arrival, camera, stamp in sorted(events):
        while now + poll_every < arrival:
            now += poll_every
            sets += sync.poll(now)
        now = arrival
        sets += sync.push(camera, stamp, stamp, now)
    return sets + sync.flush(now)


def exhaustive(a: list[int], b: list[int], window: int) -> set[tuple[int, int]]:
    """Pairs of the order-preserving one-to-one matching with the most pairs, then the least sum of distances."""
    best: tuple[int, int, set[tuple[int, int]]] = (0, 0, set())
    for n in range(min(len(a), len(b)) + 1):
        for left in itertools.combinations(a, n):
            for right in itertools.combinations(b, n):
                if all(abs(x - y) <= window for x, y in zip(left, right, strict=True)):
                    total = sum(abs(x - y) for x, y in zip(left, right, strict=True))
                    if n > best[0] or (n == best[0] and total < best[1]):
                        best = n, total, set(zip(left, right, strict=True))
    return best[2]


@pytest.mark.parametrize("seed", range(25))
def test_two_cameras_pair_like_an_exhaustive_search(seed: int):
    """Any phase below half a period, jitter, lost frames: the pairs are the optimal ones."""
    rng = np.random.default_rng(seed)
    period, phase = 33 * MS, int(rng.integers(-10, 11)) * MS
    stamps = {name: [int(k * period + shift + rng.integers(-2, 3) * MS) for k in range(7) if rng.random() > 0.2]
              for name, shift in (("a", 0), ("b", phase))}
    sync: Synchroniser[int] = Synchroniser(["a", "b"], SyncConfig(window_ns=16 * MS))
    events = [(s + 200 * MS + int(rng.integers(0, 20)) * MS, name, s) for name in stamps for s in stamps[name]]
    events = in_order(events)
    sets = play(sync, events)
    ours = {(s.members["a"].stamp_ns, s.members["b"].stamp_ns) for s in sets if s.complete}
    assert ours == exhaustive(stamps["a"], stamps["b"], 16 * MS)


def in_order(events: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """Arrivals of each camera in the order of its stamps, as a transport delivers them."""
    result = []
    for name in {e[1] for e in events}:
        mine = [e for e in events if e[1] == name]
        result += [(t, name, s) for t, s in zip(sorted(e[0] for e in mine), sorted(e[2] for e in mine), strict=True)]
    return sorted(result)


def test_with_half_a_period_between_cameras_the_nearer_neighbours_pair_up():
    """b is 3 ms before the next frame of a and 30 ms after the last: not the first come but the nearest."""
    sync: Synchroniser[int] = Synchroniser(["a", "b"])
    events = [(k * 33 * MS + 300 * MS, "a", k * 33 * MS) for k in range(12)]
    events += [(k * 33 * MS + 330 * MS, "b", k * 33 * MS + 30 * MS) for k in range(12)]
    pairs = [s for s in play(sync, events) if s.complete]
    assert len(pairs) >= 7
    assert all(s.spread_ns == 3 * MS for s in pairs[4:])


@pytest.mark.parametrize("seed", range(15))
def test_invariants_under_random_faults(seed: int):
    rng = np.random.default_rng(seed)
    cameras = ["a", "b", "c", "d"][:rng.integers(1, 5)]
    config = SyncConfig(capacity=6)
    sync: Synchroniser[int] = Synchroniser(cameras, config)
    sets: list[SyncedSet[int]] = []
    now, clock = 0, 0
    for _ in range(300):
        now += int(rng.integers(0, 12)) * MS
        clock += int(rng.integers(0, 12)) * MS
        if rng.random() < 0.01:
            clock = max(clock - 2000 * MS, 0)
        stamp = clock + int(rng.integers(-30, 30)) * MS
        sets += sync.push(cameras[int(rng.integers(len(cameras)))], stamp, len(sets), now)
        assert sync.pending <= (config.capacity + 1) * len(cameras)
    sets += sync.flush(now)
    counters = sync.counters
    assert counters.frames_in == 300 == counters.frames_used + counters.dropped
    assert counters.frames_used == sum(len(s.members) for s in sets)
    assert counters.sets == len(sets) and sync.pending == 0
    for s in sets:
        stamps = [m.stamp_ns for m in s.members.values()]
        assert max(stamps) - min(stamps) == s.spread_ns <= config.window_ns
    for first, second in itertools.pairwise(sets):
        assert second.segment >= first.segment
        if second.segment == first.segment:
            assert second.stamp_ns >= first.stamp_ns


def four(frames: int, *, skip=lambda name, k: False, delay=lambda name: 5 * MS) -> list[tuple[int, str, int]]:
    return [(k * 33 * MS + delay(name), name, k * 33 * MS + 2 * i * MS) for k in range(frames)
            for i, name in enumerate("abcd") if not skip(name, k)]


def test_a_dead_camera_neither_stops_nor_slows_the_others_and_may_return():
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    sets = play(sync, four(200, skip=lambda name, k: name == "c" and 50 <= k < 120))
    assert len(sets) == 200
    assert [s.complete for s in sets] == [not 50 <= k < 120 for k in range(200)]
    assert sync.counters.partial_sets == 70 and sync.counters.dropped == 0


def test_no_camera_is_waited_for_once_it_is_known_to_be_dead():
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    left = []
    for arrival, name, stamp in sorted(four(100, skip=lambda name, k: name == "c" and k >= 20)):
        left += [(arrival, s) for s in sync.push(name, stamp, 0, arrival)]
    late = [arrival - s.stamp_ns for arrival, s in left if s.stamp_ns > 2_500 * MS]
    assert late and max(late) <= 10 * MS


def test_a_camera_that_is_always_late_is_counted_and_does_not_hold_up_the_rest():
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    sets = play(sync, in_order(four(100, delay=lambda name: 300 * MS if name == "b" else 5 * MS)))
    assert sync.late_frames("b") > 80 and sync.counters.dropped_late == sync.late_frames("b")
    assert len(sets) >= 100


def test_offsets_bring_shifted_clocks_together():
    events = [(a, n, s + (50 * MS if n == "b" else 0)) for a, n, s in four(30)]
    sync: Synchroniser[int] = Synchroniser(list("abcd"), offsets_ns={"b": -50 * MS})
    assert all(s.complete and s.spread_ns == 6 * MS for s in play(sync, events))


def test_a_looped_bag_starts_a_segment_per_loop_and_mixes_no_times():
    sync: Synchroniser[int] = Synchroniser(list("ab"))
    events = []
    for loop in range(3):
        for k in range(60):
            for i, name in enumerate("ab"):
                shift = 40 * MS if name == "b" else 0  # b's last frames arrive after a has jumped
                events.append((loop * 60 * 33 * MS + k * 33 * MS + shift, name, k * 33 * MS + i * MS))
    sets = play(sync, events)
    assert sync.counters.time_jumps == 2 and sync.segment == 2
    assert sum(s.complete for s in sets) >= 3 * 56
    assert max(s.spread_ns for s in sets) <= 34 * MS
    assert sync.counters.frames_in == sync.counters.frames_used + sync.counters.dropped


def test_frames_out_of_order_are_dropped_and_counted():
    sync: Synchroniser[int] = Synchroniser(["a"])
    assert len(sync.push("a", 100 * MS, 0, 0)) == 1
    assert sync.push("a", 100 * MS, 0, 1) == [] and sync.push("a", 90 * MS, 0, 2) == []
    assert sync.counters.dropped_disorder == 2


def test_small_sets_are_dropped_when_asked():
    sync: Synchroniser[int] = Synchroniser(["a", "b"], SyncConfig(min_cameras=2))
    assert play(sync, [(5 * MS, "a", 0), (40 * MS, "a", 33 * MS)]) == []
    assert sync.counters.dropped_small_set == 2


@pytest.mark.parametrize(("cameras", "offsets"), [([], None), (["a", "a"], None), (["a"], {"b": 1})])
def test_wrong_configuration_is_refused(cameras: list[str], offsets: dict[str, int] | None):
    with pytest.raises(ConfigError):
        Synchroniser(cameras, offsets_ns=offsets)
