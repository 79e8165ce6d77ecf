"""Counters that add up, throttles that follow the data's time, notes that fade."""

from __future__ import annotations

import threading

import pytest

from human_scene_ros.nodes.diagnostics import Durations, FrameCounter, Level, Notes, Rate, Throttle


def test_counts_add_up_at_every_moment_under_threads():
    counter, wrong, stop = FrameCounter(), [], threading.Event()

    def work(end):
        for _ in range(2000):
            counter.arrived()
            end()

    def watch():
        while not stop.is_set():
            if not 0 <= counter.counts().pending <= 3:
                wrong.append(counter.counts())

    threads = [threading.Thread(target=work, args=(end,)) for end in
               (counter.processed, counter.dropped, counter.rejected)]
    watcher = threading.Thread(target=watch)
    for thread in (watcher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()
    counts = counter.counts()
    assert not wrong
    assert (counts.frames_in, counts.processed, counts.dropped, counts.rejected, counts.pending) == (
        6000, 2000, 2000, 2000, 0)


def test_throttle_goes_by_stamps_and_begins_anew_when_they_go_back():
    throttle = Throttle()
    stamps_ns = [round(i * 1e9 / 30) for i in range(30)]
    assert sum(throttle.due(s, 10.0) for s in stamps_ns) == 10
    assert throttle.due(0, 10.0)  # the bag looped
    assert not throttle.due(10, 10.0)
    assert not Throttle().due(0, 0.0)
    every = Throttle()
    assert all(every.due(s, 30.0) for s in stamps_ns)  # rounding must not lose frames


def test_rate_and_durations():
    rate = Rate(window_s=5.0)
    for i in range(11):
        rate.tick(100.0 + i / 10)
    assert rate.per_second(101.0) == pytest.approx(10.0)
    assert rate.per_second(200.0) == 0.0
    durations = Durations(keep=3)
    assert durations.mean() == durations.percentile(95) == 0.0
    for seconds in (9.0, 1.0, 2.0, 3.0):
        durations.add(seconds)
    assert durations.mean() == pytest.approx(2.0) and durations.percentile(50) == pytest.approx(2.0)


def test_notes_count_repeats_and_fade():
    notes = Notes(keep_s=10.0)
    assert notes.add("image", Level.ERROR, "bad step", now_s=0.0)
    assert not notes.add("image", Level.ERROR, "bad step", now_s=1.0)
    assert notes.add("calibration", Level.WARN, "no camera_info", now_s=1.0)
    assert notes.worst(now_s=2.0) == (Level.ERROR, ["bad step (2 times)", "no camera_info"])
    notes.remove("image")
    assert notes.worst(now_s=2.0) == (Level.WARN, ["no camera_info"])
    assert notes.worst(now_s=20.0) == (Level.OK, [])
