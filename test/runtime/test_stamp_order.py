"""Frames of several cameras leave in the order of their stamps, within bounds, and every drop is counted."""

from __future__ import annotations

import dataclasses
import threading
import types

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError
from human_scene_ros.runtime import stamp_order
from human_scene_ros.runtime.stamp_order import StampOrder

MS = 1_000_000
RIG = ("a", "b", "c")


@dataclasses.dataclass(frozen=True)
class Frame:
    camera: str
    stamp_ns: int


class Clock:
    """Steady time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stamp_order, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    return clock


def frame(text: str) -> Frame:
    """"a30": camera a at 30 ms."""
    return Frame(text[0], int(text[1:]) * MS)


def put(order: StampOrder[Frame], *texts: str) -> list[bool]:
    return [order.put(frame(text)) for text in texts]


def taken(order: StampOrder[Frame]) -> list[str]:
    """All that leaves now."""
    out = []
    while (item := order.take(0.0)) is not None:
        out.append(f"{item.camera}{item.stamp_ns // MS}")
    return out


def test_the_oldest_leaves_when_every_camera_has_one(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False)
    put(order, "a20")
    assert taken(order) == [] and order.pending == 1
    put(order, "a45", "b10", "b30")
    assert taken(order) == ["b10", "a20", "b30"], "a45 waits: b may still bring one from before it"
    put(order, "b60")
    assert taken(order) == ["a45"]
    assert (order.pending, order.dropped, order.timeouts) == (1, 0, 0)


def test_equal_stamps_leave_in_the_order_of_the_cameras_whatever_came_first(clock):
    order = StampOrder[Frame](RIG, newest_only=False)
    put(order, "c0", "a0", "b0", "b100", "c100", "a100")
    assert taken(order) == ["a0", "b0", "c0", "a100", "b100", "c100"]


def test_of_equal_stamps_that_of_a_camera_which_returns_is_first(clock):
    order = StampOrder[Frame](RIG, newest_only=False, timeout_s=0.1)
    put(order, "a0", "b0", "c0", "a100", "b100")
    clock.now_s += 0.2
    assert taken(order) == ["a0", "b0", "c0", "a100", "b100"]
    put(order, "a200", "b200", "c200")
    assert taken(order) == ["c200", "a200", "b200"]


def test_a_frame_waits_for_a_silent_camera_until_the_timeout_and_then_not_for_a_dead_one(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=0.1, dead_after_s=1.0)
    put(order, "a0", "b0", "a100")
    assert taken(order) == ["a0", "b0"]
    clock.now_s += 0.09
    assert taken(order) == []
    clock.now_s += 0.02
    assert taken(order) == ["a100"] and order.timeouts == 1
    clock.now_s += 1.0
    put(order, "a200")
    assert taken(order) == ["a200"] and order.timeouts == 1, "b is dead: nobody waits, nothing is given up"
    put(order, "b300", "a300")
    assert taken(order) == ["b300", "a300"], "b is back"


def test_a_camera_that_never_came_is_waited_for_at_the_start_only(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=0.1, dead_after_s=0.3)
    clock.now_s += 100.0
    put(order, "a0")
    assert taken(order) == []
    clock.now_s += 0.35
    put(order, "a350")
    assert taken(order) == ["a0", "a350"]


def test_a_slow_camera_does_not_hold_up_a_fast_one_before_its_next_frame_is_due(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=True)
    put(order, "b0", "a0")
    assert taken(order) == ["a0", "b0"]
    put(order, "b200", "a200")
    assert taken(order) == ["a200", "b200"]
    for stamp in (233, 266, 300):
        put(order, f"a{stamp}")
        assert taken(order) == [f"a{stamp}"]
    put(order, "a333")
    assert taken(order) == [], "b is due"


def test_a_late_frame_is_next_and_none_is_lost(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=0.1)
    put(order, "a0", "b0", "a100")
    assert taken(order) == ["a0", "b0"]
    clock.now_s += 0.2
    assert taken(order) == ["a100"]
    put(order, "a200", "b90", "b190")
    assert taken(order) == ["b90", "b190", "a200"], "b's steps are 90 and 100 ms: none is due within 10 ms"
    assert order.dropped == 0


def test_a_recording_that_begins_again_is_not_mixed_with_its_end(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False)
    put(order, "a0", "b0", "a100", "b100", "a0", "a100")
    assert taken(order) == ["a0", "b0", "a100", "b100"], "b may still bring more of the first pass"
    put(order, "b200", "b0", "b100")
    assert taken(order) == ["b200", "a0", "b0", "a100", "b100"]


def test_one_clock_that_is_set_back_stops_nobody(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=0.1)
    put(order, "a5000", "b5000")
    got = taken(order)
    for k in range(1, 20):
        clock.now_s += 0.05
        put(order, f"a{50 * k}", f"b{5000 + 50 * k}")
        got += taken(order)
    assert len(got) >= 2 * 20 - 4 and order.dropped == 0 and order.pending == 2 * 20 - len(got)


def test_the_newest_of_each_camera_wins(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=True)
    assert put(order, "a0", "a10", "b5", "b8", "b12") == [True] * 5
    assert (order.pending, order.dropped) == (2, 3)
    assert taken(order) == ["a10", "b12"]


def test_a_frame_that_is_replaced_does_not_begin_to_wait_anew(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=True, timeout_s=0.1)
    put(order, "a0", "b0")
    taken(order)
    for k in range(1, 5):  # a goes on at 25 Hz, b is silent
        put(order, f"a{40 * k}")
        clock.now_s += 0.04
    assert taken(order) == ["a160"]


@pytest.mark.parametrize("phases_ms", [(0, 0, 0), (0, 1, 2), (0, 10, 20)])
def test_cameras_take_turns_where_the_worker_is_too_slow_and_stamps_never_go_back(clock, phases_ms):
    order, counts, stamps = StampOrder[Frame](RIG, newest_only=True), dict.fromkeys(RIG, 0), []
    put_in = 0
    for millisecond in range(6000):
        clock.now_s += 0.001
        for name, phase in zip(RIG, phases_ms, strict=True):
            if millisecond % 33 == phase:
                order.put(Frame(name, millisecond * MS))
                put_in += 1
        if millisecond % 100 == 99:  # ten frames per second out of ninety
            item = order.take(0.0)
            assert item is not None
            counts[item.camera] += 1
            stamps.append(item.stamp_ns)
    assert max(counts.values()) - min(counts.values()) <= 1, counts
    assert stamps == sorted(stamps)
    assert put_in == sum(counts.values()) + order.dropped + order.pending


def test_what_is_older_than_a_frame_handed_over_is_dropped_and_counted(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=True)
    put(order, "a0", "b40")
    assert order.take(0.0) == frame("a0")
    put(order, "a33")
    assert taken(order) == ["b40"] and (order.dropped, order.pending) == (1, 0)


def test_replay_refuses_only_when_full_and_counts(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=False, capacity=3)
    assert put(order, "a0", "a10", "b0", "b10") == [True, True, True, False]
    assert (order.pending, order.dropped) == (3, 1)
    assert order.clear() == 3 and (order.pending, order.dropped) == (0, 4)
    with pytest.raises(ConfigError, match="capacity = 0"):
        StampOrder(("a",), newest_only=False, capacity=0)


def test_after_clear_older_stamps_are_no_jump(clock):
    order = StampOrder[Frame](("a", "b"), newest_only=True)
    put(order, "a500", "b500")
    order.clear()
    put(order, "a0", "b0")
    assert taken(order) == ["a0", "b0"]


@pytest.mark.parametrize("seed", range(5))
def test_any_interleaving_within_the_timeout_leaves_in_order_and_complete(clock, seed):
    """Free-running cameras with jitter and transport delays; the reference is a sort."""
    rng = np.random.default_rng(seed)
    period_s, frames = 0.1, []
    for name in RIG:
        phase_s = rng.uniform(0.0, period_s)
        for k in range(40):
            stamp_s = phase_s + k * period_s + rng.uniform(-0.02, 0.02)
            frames.append((stamp_s, stamp_s + rng.uniform(0.002, 0.015), name))
    order, got, begun_s = StampOrder[Frame](RIG, newest_only=False, timeout_s=0.2), [], clock.now_s
    for stamp_s, arrival_s, name in sorted(frames, key=lambda f: f[1]):
        clock.now_s = begun_s + arrival_s
        order.put(Frame(name, round(stamp_s * 1e9)))
        got += iter(lambda: order.take(0.0), None)
    clock.now_s += 10.0
    got += iter(lambda: order.take(0.0), None)
    assert [f.stamp_ns for f in got] == sorted(round(s * 1e9) for s, _, _ in frames)
    assert order.dropped == 0 and order.pending == 0


def test_take_waits_for_another_thread():
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=30.0)
    order.put(frame("a0"))
    threading.Timer(0.05, order.put, args=[frame("b0")]).start()
    assert order.take(10.0) == frame("a0")
    assert order.take(10.0) == frame("b0")


def test_take_gives_up_waiting_by_itself():
    order = StampOrder[Frame](("a", "b"), newest_only=False, timeout_s=0.05)
    order.put(frame("a0"))
    assert order.take(10.0) == frame("a0") and order.timeouts == 1
