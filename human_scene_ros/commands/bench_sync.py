"""`human-scene bench sync`: our synchroniser beside `message_filters` where that is importable.

Both get the same frames at the same simulated times of arrival, without DDS: what differs is only what they make of
them. Four cameras of 30 Hz, stamps that jitter, transport that takes 2 to 15 ms. `message_filters` is the Python
`ApproximateTimeSynchronizer` of ROS 2, used as its documentation shows it. Latency is from the arrival of the first
frame of a set to its callback, in simulated time; CPU is this process's, per frame.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from human_scene_ros.errors import ConfigError
from human_scene_ros.fusion.sync import SyncConfig, Synchroniser

PERIOD_NS = 33_333_333
POLL_NS = 20_000_000
QUEUE = 16
START_NS = 1_000_000_000_000
Frame = tuple[int, int, int]
"""Arrival, stamp (both ns) and camera."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--frames", type=int, default=300, help="frames of each camera (default 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.cameras < 2 or arguments.frames < 30:
        raise ConfigError(f"--cameras {arguments.cameras} --frames {arguments.frames}: expected at least 2 and 30")
    result = bench(arguments.cameras, arguments.frames, arguments.seed)
    if arguments.json:
        print(json.dumps(result))
        return 0
    if not result["message_filters"]:
        print("message_filters is not importable here: only ours is measured")
    print(f"{'case':18s} {'who':16s} {'sets':>6s} {'of':>6s} {'full':>6s} {'latency p50 / p95 ms':>22s} "
          f"{'us/frame':>9s}")
    for name, rows in result["cases"].items():
        for who in ("ours", "message_filters"):
            if who in rows:
                r = rows[who]
                print(f"{name:18s} {who:16s} {r['sets']:6d} {rows['moments']:6d} {r['complete_sets']:6d} "
                      f"{r['latency_p50_ms']:11.1f} /{r['latency_p95_ms']:8.1f} {r['cpu_us_per_frame']:9.1f}")
    return 0


def bench(cameras: int = 4, frames: int = 300, seed: int = 0) -> dict[str, Any]:
    """All cases; `moments` is how many sets there are to be found."""
    peer = importlib.util.find_spec("message_filters") is not None
    cases: dict[str, Any] = {}
    for name, make in CASES.items():
        arrivals, moments = make(cameras, frames, np.random.default_rng(seed))
        rows: dict[str, Any] = {"moments": moments, "ours": _measured(arrivals, _ours(cameras, arrivals))}
        if peer:
            rows["message_filters"] = _measured(arrivals, _theirs(cameras, arrivals))
            rows["ratios"] = {key: round(rows["ours"][key] / rows["message_filters"][key], 3)
                              if rows["message_filters"][key] else None for key in rows["ours"]}
        cases[name] = rows
    return {"cameras": cameras, "frames": frames, "message_filters": peer, "cases": cases}


# --- what arrives --------------------------------------------------------------------------------------------------

def _stream(cameras: Sequence[int], frames: range, rng: np.random.Generator, jitter_ms: float = 3.0,
            shift_ns: int = 0) -> list[Frame]:
    """Frames of free-running cameras: constant phases, jitter, transport of 2 to 15 ms; by arrival."""
    phase = rng.uniform(-10.0, 10.0, max(cameras) + 1) * (jitter_ms > 0.0)
    found = []
    for camera in cameras:
        for k in frames:
            stamp = START_NS + k * PERIOD_NS + round(1e6 * (phase[camera] + jitter_ms * rng.normal()))
            found.append((stamp + shift_ns + round(1e6 * rng.uniform(2.0, 15.0)), stamp, camera))
    return sorted(found)


def _jitter(cameras: int, frames: int, rng: np.random.Generator) -> tuple[list[Frame], int]:
    return _stream(range(cameras), range(frames), rng), frames


def _equal_stamps(cameras: int, frames: int, rng: np.random.Generator) -> tuple[list[Frame], int]:
    return _stream(range(cameras), range(frames), rng, jitter_ms=0.0), frames


def _one_dead(cameras: int, frames: int, rng: np.random.Generator) -> tuple[list[Frame], int]:
    """The last camera dies half way."""
    dead = START_NS + (frames // 2) * PERIOD_NS
    return [f for f in _stream(range(cameras), range(frames), rng) if f[2] != cameras - 1 or f[1] < dead], frames


def _three_loops(cameras: int, frames: int, rng: np.random.Generator) -> tuple[list[Frame], int]:
    """A recording that is played three times: stamps begin again. Its first camera ran on for 20 frames."""
    once = sorted(_stream(range(cameras), range(frames // 3), rng)
                  + _stream([0], range(frames // 3, frames // 3 + 20), rng))
    length = (frames // 3 + 23) * PERIOD_NS
    return [(arrival + loop * length, stamp, camera) for loop in range(3) for arrival, stamp, camera in once], (
        3 * (frames // 3))


CASES: dict[str, Callable[[int, int, np.random.Generator], tuple[list[Frame], int]]] = {
    "jitter": _jitter, "equal_stamps": _equal_stamps, "one_camera_dead": _one_dead, "three_loops": _three_loops}


# --- who groups it -------------------------------------------------------------------------------------------------

Made = list[tuple[int, list[tuple[int, int]]]]
"""When, and camera and stamp of every member, of every set."""


def _ours(cameras: int, arrivals: Sequence[Frame]) -> Callable[[], Made]:
    def group() -> Made:
        made: Made = []
        sync: Synchroniser[None] = Synchroniser([str(c) for c in range(cameras)], SyncConfig(capacity=QUEUE))
        poll_ns = arrivals[0][0]

        def take(sets: list[Any], now_ns: int) -> None:
            made.extend((now_ns, [(int(name), frame.stamp_ns) for name, frame in s.members.items()]) for s in sets)

        for arrival, stamp, camera in arrivals:
            while poll_ns < arrival:
                take(sync.poll(poll_ns), poll_ns)
                poll_ns += POLL_NS
            take(sync.push(str(camera), stamp, None, arrival), arrival)
        while sync.pending:
            take(sync.poll(poll_ns), poll_ns)
            poll_ns += POLL_NS
        return made

    return group


def _theirs(cameras: int, arrivals: Sequence[Frame]) -> Callable[[], Made]:
    filters = importlib.import_module("message_filters")
    stamp_type = importlib.import_module("builtin_interfaces.msg").Time

    def group() -> Made:
        made: Made = []
        now = [0]
        inputs = [filters.SimpleFilter() for _ in range(cameras)]
        sync = filters.ApproximateTimeSynchronizer(inputs, QUEUE, SyncConfig().window_ns * 1e-9)
        sync.registerCallback(lambda *messages: made.append(
            (now[0], [(camera, message.stamp_ns) for camera, message in enumerate(messages)])))
        for arrival, stamp, camera in arrivals:
            now[0] = arrival
            header = SimpleNamespace(stamp=stamp_type(sec=stamp // 10**9, nanosec=stamp % 10**9))
            inputs[camera].signalMessage(SimpleNamespace(header=header, stamp_ns=stamp))
        return made

    return group


def _measured(arrivals: Sequence[Frame], group: Callable[[], Made]) -> dict[str, Any]:
    started = time.process_time()
    made = group()
    cpu_s = time.process_time() - started
    cameras = len({camera for _, _, camera in arrivals})
    came: dict[tuple[int, int], list[int]] = {}
    for arrival, stamp, camera in arrivals:
        came.setdefault((camera, stamp), []).append(arrival)
    # Stamps come again in a loop: the last arrival counts.
    latency = [now - min(max(a for a in came[member] if a <= now) for member in members) for now, members in made]
    return {"sets": len(made), "complete_sets": sum(len(members) == cameras for _, members in made),
            "latency_p50_ms": round(1e-6 * float(np.percentile(latency, 50)), 2) if made else 0.0,
            "latency_p95_ms": round(1e-6 * float(np.percentile(latency, 95)), 2) if made else 0.0,
            "cpu_us_per_frame": round(1e6 * cpu_s / len(arrivals), 2)}
