"""Synchroniser: what it guarantees, beside an exhaustive search; strays, jumps and other faults."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

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


def in_order(events: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """Arrivals of each camera in the order of its stamps, as a transport delivers them."""
    result = []
    for name in {e[1] for e in events}:
        mine = [e for e in events if e[1] == name]
        result += [(t, name, s) for t, s in zip(sorted(e[0] for e in mine), sorted(e[2] for e in mine), strict=True)]
    return sorted(result)


Moment = dict[str, int]
"""Camera to stamp."""


def exhaustive(stamps: dict[str, list[int]], window: int) -> tuple[int, int, tuple[Moment, ...]]:
    """The most complete sets that keep every camera's order, of these the least total spread (negative), and the sets.

    Every way to leave frames out is tried. (Sets that cross can be uncrossed: neither number nor window gets worse.)
    """
    cameras = list(stamps)

    @functools.lru_cache(None)
    def best(firsts: tuple[int, ...]) -> tuple[int, int, tuple[Moment, ...]]:
        if any(first == len(stamps[c]) for c, first in zip(cameras, firsts, strict=True)):
            return 0, 0, ()
        found = [best(tuple(first + (k == left_out) for k, first in enumerate(firsts)))
                 for left_out in range(len(cameras))]
        moment = {c: stamps[c][first] for c, first in zip(cameras, firsts, strict=True)}
        spread = max(moment.values()) - min(moment.values())
        if spread <= window:
            number, total, rest = best(tuple(first + 1 for first in firsts))
            found.append((number + 1, total - spread, (moment, *rest)))
        return max(found, key=lambda f: f[:2])

    return best((0,) * len(cameras))


class RandomRig:
    """Two to four cameras of 30 Hz (33 ms): phases, jitter, lost frames, arrivals that overtake one another.

    Args:
        seed: Of everything.
        within: All frames of one moment, as a share of the shortest step between two frames of a camera.
        loss: Share of lost frames.
        whole: So many moments lose nothing at the beginning.
        moments: Number of moments.
        jitter_ms: Greatest, at most 2.
    """

    def __init__(self, seed: int, within: float, loss: float = 0.0, whole: int = 0, moments: int = 8,
                 jitter_ms: int = 2) -> None:
        rng = np.random.default_rng(seed)
        self.cameras = list("abcd"[:rng.integers(2, 5)])
        jitter = int(rng.integers(0, jitter_ms + 1))
        self.step = (33 - 2 * jitter) * MS  # the shortest
        phases = rng.integers(0, max(int(within * self.step / MS) - 2 * jitter, 0) + 1, len(self.cameras))
        self.within = (int(np.ptp(phases)) + 2 * jitter) * MS
        kept = rng.random((moments, len(self.cameras))) >= loss
        kept[:whole] = True
        stamp = 33 * np.arange(moments)[:, None] + phases + rng.integers(-jitter, jitter + 1, kept.shape)
        rows = [{c: int(stamp[k, i]) * MS for i, c in enumerate(self.cameras) if kept[k, i]} for k in range(moments)]
        self.moments = [row for row in rows if row]
        self.stamps = {c: [row[c] for row in rows if c in row] for c in self.cameras}
        self.rng = rng

    def sets(self, window: int) -> list[Moment]:
        """What the synchroniser makes of it; transport takes up to 60 ms, nearly two periods."""
        sync: Synchroniser[int] = Synchroniser(self.cameras, SyncConfig(window_ns=window))
        sets = play(sync, in_order([(s + 200 * MS + int(self.rng.integers(0, 60)) * MS, c, s)
                                    for c, stamps in self.stamps.items() for s in stamps]))
        assert sync.counters.dropped == 0 and sync.pending == 0
        assert all(s.complete == (len(s.members) == len(self.cameras)) for s in sets)
        return [{c: m.stamp_ns for c, m in s.members.items()} for s in sets]

    def complete(self, moments: Iterable[Moment]) -> list[Moment]:
        return [m for m in moments if len(m) == len(self.cameras)]


@pytest.mark.parametrize("seed", range(40))
def test_moments_that_no_window_mixes_come_out_exactly_and_that_is_the_optimum(seed: int):
    """Whatever is lost: if frames of two moments are never within the window, sets are the moments. The window may
    well be longer than half a period."""
    rig = RandomRig(seed, within=0.45, loss=0.25)
    window = int(rig.rng.integers(rig.within, rig.step - rig.within))
    sets = rig.sets(window)
    assert sets == rig.moments
    number, _, best = exhaustive(rig.stamps, window)
    assert rig.complete(sets) == list(best) and number == len(best)


@pytest.mark.parametrize("seed", range(40))
def test_without_losses_moments_come_out_exactly_and_that_is_the_optimum(seed: int):
    """Frames of a moment within 0.6 of the period: whatever the window above that, up to two periods."""
    rig = RandomRig(seed, within=0.6)
    window = int(rig.rng.integers(rig.within, 66 * MS))
    sets = rig.sets(window)
    assert sets == rig.moments
    assert exhaustive(rig.stamps, window)[0] == len(sets)


def test_a_window_that_mixes_moments_still_gives_every_whole_moment_though_fewer_sets_than_the_optimum():
    """Frames of a moment within 0.4 of the period, windows up to one and a half, a fifth of the frames lost: a moment
    that lost nothing comes out whole. An optimum that fills sets from different moments has more complete ones."""
    ours = optimum = longer = 0
    for seed in range(25):
        rig = RandomRig(seed, within=0.39, loss=0.2, whole=4)
        window = int(rig.rng.integers(rig.within, 50 * MS))
        sets = rig.sets(window)
        assert all(max(s.values()) - min(s.values()) <= window for s in sets)
        assert all(moment in sets for moment in rig.complete(rig.moments))
        number = exhaustive(rig.stamps, window)[0]
        assert len(rig.complete(rig.moments)) <= len(rig.complete(sets)) <= number
        ours, optimum = ours + len(rig.complete(sets)), optimum + number
        longer += window > rig.step // 2
    assert longer > 12 and 0.9 * optimum < ours < optimum


def test_at_any_phases_one_moment_at_most_is_lost_until_its_cut_is_found():
    """Phases anywhere in the period, jitter of 1 ms: the sets may begin at another camera than the moments do, once."""
    for seed in range(40):
        rig = RandomRig(seed, within=1.0, moments=12, jitter_ms=1)
        assert len(rig.complete(rig.sets(34 * MS))) >= 11


def test_with_half_a_period_between_cameras_the_nearer_neighbours_pair_up():
    """b is 3 ms before the next frame of a and 30 ms after the last: not the first come but the nearest."""
    sync: Synchroniser[int] = Synchroniser(["a", "b"])
    events = [(k * 33 * MS + 300 * MS, "a", k * 33 * MS) for k in range(12)]
    events += [(k * 33 * MS + 330 * MS, "b", k * 33 * MS + 30 * MS) for k in range(12)]
    pairs = [s for s in play(sync, events) if s.complete]
    assert len(pairs) >= 7
    assert all(s.spread_ns == 3 * MS for s in pairs[4:])


@pytest.mark.parametrize("seed", range(20))
def test_invariants_under_random_faults_and_recovery_from_them(seed: int):
    """Jumps, wrong stamps, silences, changed offsets, no order: nothing is lost uncounted, memory stays bounded, and
    when good frames come, whatever their time is now, all sets are complete again after three seconds."""
    rng = np.random.default_rng(seed)
    cameras = ["a", "b", "c", "d"][:rng.integers(1, 5)]
    config = SyncConfig(capacity=6)
    sync: Synchroniser[int] = Synchroniser(cameras, config)
    sets: list[SyncedSet[int]] = []
    now, clock = 0, 10_000 * MS
    for _ in range(300):
        now += int(rng.integers(0, 12)) * MS
        clock += int(rng.integers(0, 12)) * MS
        if rng.random() < 0.01:
            clock += int(rng.integers(-9_000, 9_000)) * MS
        if rng.random() < 0.01:
            now += int(rng.integers(0, 3_000)) * MS
        if rng.random() < 0.01:
            sync.set_offset(cameras[int(rng.integers(len(cameras)))], int(rng.integers(-900, 900)) * MS)
        wrong = int(rng.integers(-4_000_000, 4_000_000)) * MS * (rng.random() < 0.05)
        stamp = clock + int(rng.integers(-30, 30)) * MS + wrong
        sets += sync.push(cameras[int(rng.integers(len(cameras)))], stamp, len(sets), now)
        assert sync.pending <= (config.capacity + 1) * len(cameras)
    for camera in cameras:
        sync.set_offset(camera, 0)
    clock += [0, 3_600_000, -3_600_000][seed % 3] * MS
    for k in range(120):
        for i, camera in enumerate(cameras):
            sets += sync.push(camera, clock + (33 * k + i) * MS, 0, now + (33 * k + i) * MS)
    sets += sync.flush(now + 4_000 * MS)
    assert [s.stamp_ns >= clock and s.complete for s in sets[-29:]] == [True] * 29
    counters = sync.counters
    assert counters.frames_in == 300 + 120 * len(cameras) == counters.frames_used + counters.dropped
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
    assert [s.complete for s in sets].count(True) >= 3 * 60 - 2
    assert max(s.spread_ns for s in sets) <= 34 * MS
    assert sync.counters.frames_in == sync.counters.frames_used + sync.counters.dropped


def test_a_looped_bag_of_slow_cameras_loses_nothing():
    """Slower than the timeout, and slower than a jump: steps of 0.8 s, played in real time and ten times as fast."""
    for speed in (1, 10):
        sync: Synchroniser[int] = Synchroniser(list("abc"))
        events = [((loop * 20 + k) * 800 * MS // speed + i * MS, name, k * 800 * MS + 5 * i * MS)
                  for loop in range(3) for k in range(20) for i, name in enumerate("abc")]
        sets = play(sync, events)
        assert [s.complete for s in sets] == [True] * 60
        assert [s.segment for s in sets] == [0] * 20 + [1] * 20 + [2] * 20


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("lives", [True, False])
def test_one_wrong_stamp_costs_its_own_frame_and_nothing_else(seed: int, lives: bool):
    """An hour or a second ahead or behind, of a camera that goes on or dies then; also of cameras slower than the
    timeout."""
    rng = np.random.default_rng(seed)
    period = [33, 200, 450][seed % 3] * MS
    wrong = [3_600_000, -3_600_000, 1_000, -1_000][seed % 4] * MS
    at = int(rng.integers(3, 40))
    events = [(k * period + int(rng.integers(0, 15)) * MS, name, k * period + 3 * i * MS)
              for k in range(60) for i, name in enumerate("abcd") if lives or name != "b" or k <= at]
    one = ("b", at * period + 3 * MS)
    good = [e for e in events if e[1:] != one]
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    sets = play(sync, [(t, name, stamp + wrong * ((name, stamp) == one)) for t, name, stamp in events])
    members = [{c: m.stamp_ns for c, m in s.members.items()} for s in sets]
    assert members == [{c: s for _, c, s in good if s // period == k} for k in range(60)]
    assert sync.segment == 0 and sync.counters.dropped == sync.counters.dropped_stray == 1


@pytest.mark.parametrize("wrong", [3_600_000 * MS, -3_600_000 * MS])
def test_one_wrong_stamp_of_a_lone_camera_costs_its_own_frame(wrong: int):
    sync: Synchroniser[int] = Synchroniser(["a"])
    sets = play(sync, [(k * 33 * MS, "a", k * 33 * MS + wrong * (k == 20)) for k in range(50)])
    assert [s.stamp_ns for s in sets] == [k * 33 * MS for k in range(50) if k != 20]
    assert sync.segment == 0 and sync.counters.dropped_stray == 1


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("cameras", ["ab", "abcd"])
def test_a_wrong_stamp_of_the_very_first_frame_is_got_over(cameras: str, lives: bool):
    """Nobody can know that it is wrong: the others hold back until they are the majority, or it is silent."""
    sync: Synchroniser[int] = Synchroniser(list(cameras))
    events = [(k * 33 * MS + i * MS, name, k * 33 * MS + (3_600_000 * MS if (k, i) == (0, 0) else 0))
              for k in range(90) for i, name in enumerate(cameras) if lives or i or k == 0]
    sets = play(sync, events)
    silent = 1_000 if (cameras, lives) == ("ab", False) else 0
    assert sum(len(s.members) == len(cameras) - (not lives) and s.stamp_ns < 3_000 * MS for s in sets) >= (
        88 - silent // 33)
    assert sync.segment == 1


def test_a_camera_that_jumps_alone_is_left_out_and_used_again_when_it_is_back():
    """One of four begins again at 2 s, is not waited for, and is in time again when its clock is set at 4 s."""
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    events = [(t, name, s - (60_000 * MS if name == "c" and 2_000 * MS <= s < 4_000 * MS else 0))
              for t, name, s in four(200)]
    left = []
    for arrival, name, stamp in sorted(events):
        left += [(arrival, s) for s in sync.push(name, stamp, 0, arrival)]
    left += [(events[-1][0], s) for s in sync.flush(events[-1][0])]
    alone = range(-(-1_996 // 33), -(-3_996 // 33))
    assert [s.complete for _, s in left] == [k not in alone for k in range(200)]
    assert sync.segment == 0 and sync.counters.dropped == sync.counters.dropped_stray == len(alone)
    assert max(arrival - s.stamp_ns for arrival, s in left if 2_100 * MS < s.stamp_ns < 3_900 * MS) <= 10 * MS
    assert sync.pending == 0


def test_the_majority_takes_the_rig_along_and_frames_from_before_are_counted():
    """Three of four begin again; the fourth follows after 0.6 s."""
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    shift = 90_000 * MS
    events = [(t, name, s + (shift if s < (2_600 if name == "b" else 2_000) * MS else 0)) for t, name, s in four(150)]
    sets = play(sync, events)
    first = -(-2_000 // 33)
    old = sum(2_000 <= 33 * k + 2 < 2_600 for k in range(first, 150))
    assert sync.segment == sync.counters.time_jumps == 1 and sync.counters.dropped_stray == 0
    assert sync.counters.dropped_reset == 1 and sync.counters.dropped_old_time == sync.counters.dropped - 1 == old - 1
    assert [s.complete for s in sets if s.segment == 1] == [False] * old + [True] * (150 - first - old)


def test_of_two_cameras_neither_can_outvote_the_other_until_one_is_silent():
    sync: Synchroniser[int] = Synchroniser(list("ab"))
    events = [(k * 33 * MS + i * MS, name, k * 33 * MS - (60_000 * MS if name == "b" and k >= 30 else 0))
              for k in range(150) for i, name in enumerate("ab") if name == "b" or k < 90]
    sets = play(sync, events)
    assert [len(s.members) for s in sets if s.segment == 0] == [2] * 30 + [1] * 60
    last = [s for s in sets if s.segment == 1]
    assert sync.segment == 1 and len(last) >= 58 - 1_000 // 33 and all(set(s.members) == {"b"} for s in last)


def test_a_gap_in_all_stamps_costs_nothing_and_starts_no_segment():
    """A recording with an hour cut out, played without the pause; one camera comes back 0.3 s after the others."""
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    events = [(t, name, s + (3_600_000 * MS if s >= 2_000 * MS else 0)) for t, name, s in four(
        120, skip=lambda name, k: name == "d" and 61 <= k < 70)]
    sets = play(sync, events)
    assert [s.complete for s in sets] == [not 61 <= k < 70 for k in range(120)]
    assert sync.segment == 0 and sync.counters.dropped == 0


@pytest.mark.parametrize("offset_ms", [-600, -50, 50, 600])
@pytest.mark.parametrize("cameras", ["a", "abcd"])
def test_an_offset_that_is_changed_while_frames_come_is_no_jump(cameras: str, offset_ms: int):
    """Set at 2 s and taken back at 4 s: early frames wait or are strays, late ones are counted, then all is well."""
    sync: Synchroniser[int] = Synchroniser(list(cameras), SyncConfig(timeout_ns=300 * MS))
    sets: list[SyncedSet[int]] = []
    for arrival, name, stamp in sorted(e for e in four(240) if e[1] in cameras):
        if stamp in (61 * 33 * MS, 122 * 33 * MS) and name == "a":
            sync.set_offset("a", offset_ms * MS if stamp < 3_000 * MS else 0)
        sets += sync.push(name, stamp, stamp, arrival)
    sets += sync.flush(8_000 * MS)
    counters = sync.counters
    assert sync.segment == counters.time_jumps == counters.dropped_old_time == counters.dropped_reset == 0
    assert counters.frames_in == counters.frames_used + counters.dropped
    assert (counters.dropped_stray > 0) == (cameras == "abcd" and offset_ms == 600)
    assert all(first.stamp_ns <= second.stamp_ns for first, second in itertools.pairwise(sets))
    assert [s.complete for s in sets[-90:]] == [True] * 90


@pytest.mark.parametrize("offset_ms", [-9_000, 9_000])
def test_a_wrong_offset_silences_its_own_camera_alone(offset_ms: int):
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    sets: list[SyncedSet[int]] = []
    for arrival, name, stamp in sorted(four(180)):
        if (name, stamp // MS) in (("b", 60 * 33 + 2), ("b", 120 * 33 + 2)):
            sync.set_offset("b", offset_ms * MS if stamp < 3_000 * MS else 0)
        sets += sync.push(name, stamp, stamp, arrival)
    assert [s.complete for s in sets] == [not 60 <= k < 120 for k in range(180)]
    assert sync.segment == 0 and sync.counters.dropped == sync.counters.dropped_stray == 60


def test_a_corrected_offset_brings_an_unusable_camera_in():
    """b's clock is 0.8 s ahead, so its frames are dropped as strays until somebody says so."""
    sync: Synchroniser[int] = Synchroniser(list("abcd"))
    sets: list[SyncedSet[int]] = []
    for arrival, name, stamp in sorted(four(120)):
        if (name, stamp) == ("a", 60 * 33 * MS):
            assert sync.counters.dropped == sync.counters.dropped_stray >= 40
            assert 0.7 < sync.away_s("b") < 0.9 and sync.away_s("a") == 0.0
            sync.set_offset("b", -800 * MS)
        sets += sync.push(name, stamp + (800 * MS if name == "b" else 0), 0, arrival)
    assert [s.complete for s in sets] == [k >= 60 for k in range(120)] and sync.segment == 0
    assert sync.away_s("b") == 0.0


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
