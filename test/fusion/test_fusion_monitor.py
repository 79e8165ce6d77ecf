"""The monitor of a rig: exact misses, a bumped camera, a clock that is off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.commands.bench_fusion import detections_of, fusion_for
from human_scene_ros.fusion.monitor import RigMonitor
from human_scene_ros.fusion.types import Detections, FusedFrame, FusedPeople
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.synthetic.multiview import MultiviewConfig, generate


def moment(head, velocity, views: int, person: list[int], residual=0.0) -> FusedFrame:
    one = np.ones(1)
    people = FusedPeople(np.array([7]), np.zeros((1, 22, 3)), np.array([head], float), np.zeros((1, 3, 3)),
                         np.tile(np.eye(3), (1, 22, 1, 1)), np.zeros((1, 10)), np.array([velocity], float), one, one,
                         np.array([views]), np.array([9]), np.array([0]))
    return FusedFrame(0.0, people, np.array(person), np.zeros(len(person), int), np.full(len(person), residual), 0.1,
                      0.0, np.array([7]), (), {})


def seen(heads, view) -> Detections:
    n = len(heads)
    return Detections(np.array(view), np.zeros(n), np.array(heads, float), np.zeros((n, 22, 3)), np.zeros((n, 10)),
                      np.ones(n))


def test_the_miss_is_what_the_other_views_say():
    """Two cameras at one place; one ray misses by 3 cm, and pulled the head half way."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    monitor = RigMonitor(2)
    for _ in range(40):
        monitor.add(moment((0.015, 0.0, 4.0), (0.0, 0.0, 0.0), 2, [7, 7]),
                    seen([(0.03, 0.0, 4.0), (0.015, 0.0, 4.0)], [0, 1]), poses)
    assert monitor.agreement(0).residual_m == pytest.approx(0.03, rel=1e-3)
    assert monitor.agreement(1).residual_m == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(monitor.agreement(0).time_offset_s), "nobody moves"
    monitor.reset(0)
    assert monitor.agreement(0).samples == 0 and np.isnan(monitor.agreement(0).residual_m)


def test_a_ray_that_nobody_was_tied_to_is_compared_with_the_nearest_person():
    poses = np.tile(np.eye(4), (3, 1, 1))
    monitor = RigMonitor(3)
    for _ in range(40):
        monitor.add(moment((0.0, 0.0, 5.0), (0.0, 0.0, 0.0), 2, [7, 7, -1]),
                    seen([(0.0, 0.0, 5.0), (0.0, 0.0, 5.0), (0.4, 0.0, 5.0)], [0, 1, 2]), poses)
    assert monitor.agreement(2).residual_m == pytest.approx(0.4 * 5.0 / np.hypot(5.0, 0.4), rel=1e-6)


def test_the_scale_of_each_view_is_found():
    """Exact rays; one view sees everybody at 0.8 of the distance."""
    clip = generate(MultiviewConfig("ring", 4, 3, 60, 3))
    poses, monitor = clip.T_world_camera_true, RigMonitor(4)
    for frame in range(60):
        for p in range(3):
            head = clip.truth[p, frame, 15]
            in_view = [apply(invert(T), head) for T in poses]
            detections = seen([0.8 * x if v == 2 else x for v, x in enumerate(in_view)], range(4))
            monitor.add(moment(head, (0.0, 0.0, 0.0), 4, [7] * 4), detections, poses)
    ratios = [monitor.agreement(v).distance_ratio for v in range(4)]
    assert ratios == pytest.approx([1.0, 1.0, 1.25, 1.0], rel=1e-9)
    assert np.isnan(RigMonitor(4).agreement(0).distance_ratio)


@pytest.mark.parametrize("offset_s", [0.05, -0.03])
def test_a_clock_that_is_off_is_found_and_the_others_are_not_blamed(offset_s: float):
    clip = generate(MultiviewConfig("ring", 4, 3, 240, 3))
    monitor = run(clip, clip.T_world_camera_given, {1: offset_s})
    agreements = [monitor.agreement(v) for v in range(4)]
    assert agreements[1].time_offset_s == pytest.approx(-offset_s, abs=0.02)
    found = [a.time_offset_s for v, a in enumerate(agreements) if v != 1 and np.isfinite(a.time_offset_s)]
    assert all(abs(t) < 0.6 * abs(offset_s) for t in found)


def test_a_bumped_camera_is_found_and_the_others_are_not_blamed():
    clip = generate(MultiviewConfig("ring", 5, 2, 150, 3))
    bumped = clip.T_world_camera_given.copy()
    turn = np.radians(4.0)
    bumped[2, :3, :3] = bumped[2, :3, :3] @ np.array(
        [[np.cos(turn), 0.0, np.sin(turn)], [0.0, 1.0, 0.0], [-np.sin(turn), 0.0, np.cos(turn)]])
    monitor = run(clip, bumped, {})
    residuals = [monitor.agreement(v).residual_m for v in range(5)]
    assert residuals[2] > 0.2 and np.nanmax(residuals[:2] + residuals[3:]) < 0.15
    assert [monitor.agreement(v).moved(0.15) for v in range(5)] == [False, False, True, False, False]
    assert monitor.agreement(2).explained > 0.7


def test_bodies_that_are_wrong_do_not_make_a_sound_camera_a_bumped_one():
    """One camera's network is off by 30 cm and more, each person for half a second in one direction, then another."""
    clip = generate(MultiviewConfig("ring", 4, 2, 200, 3))
    rng = np.random.default_rng(0)
    wrong = clip.head_camera.copy()
    shift = 0.4 * rng.normal(size=(14, 2, 3))
    rows = np.flatnonzero((clip.view == 1) & (clip.person >= 0))
    wrong[rows] += shift[clip.frame[rows] // 15, clip.person[rows]]
    monitor = run(dataclasses.replace(clip, head_camera=wrong), clip.T_world_camera_given, {})
    agreements = [monitor.agreement(v) for v in range(4)]
    assert agreements[1].residual_m > 0.15 and agreements[1].explained < 0.4
    assert not any(a.moved(0.15) for a in agreements)


def test_one_person_at_one_place_proves_nothing():
    poses = np.tile(np.eye(4), (3, 1, 1))
    monitor = RigMonitor(3)
    for _ in range(40):
        monitor.add(moment((0.0, 0.0, 5.0), (0.0, 0.0, 0.0), 3, [7, 7, 7]),
                    seen([(0.0, 0.0, 5.0), (0.0, 0.0, 5.0), (0.4, 0.0, 5.0)], [0, 1, 2]), poses)
    agreement = monitor.agreement(2)
    assert agreement.residual_m > 0.15 and np.isnan(agreement.explained) and not agreement.moved(0.15)


def run(clip, poses, offsets):
    """The monitor after a clip of the benchmark with wrong poses or clocks."""
    fusion = fusion_for(clip)
    for v, pose in enumerate(poses):
        fusion.set_extrinsics(v, pose)
    monitor, everything = RigMonitor(len(poses)), detections_of(clip)
    for v, offset in offsets.items():
        everything.stamp_s[everything.view == v] += offset
    bounds = np.searchsorted(clip.frame, np.arange(clip.truth.shape[1] + 1))
    for k in range(clip.truth.shape[1]):
        part = everything.take(np.arange(bounds[k], bounds[k + 1]))
        monitor.add(fusion.step(k / 30.0, part), part, poses)
    return monitor
