"""Numbers of people over views and over time from masks alone: boxes that every camera sees exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.fusion.instances import (
    InstanceView,
    follow_instances,
    group_instances,
    id_consistency,
    match_instances,
    renumbered,
    vote_iou,
)
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, make_transform

CAMERA = PinholeCamera(160, 120, 140.0, 140.0, 79.5, 59.5)
PEOPLE = ((-0.8, 3.0), (0.0, 3.4), (0.9, 2.8))  # x and z of flat figures that face the cameras, in front of a wall
WALL_M = 5.0


def view(camera_x: float = 0.0, people=PEOPLE, numbers=(0, 1, 2)) -> InstanceView:
    """What a camera at x, looking along z, shows: each figure is 0.5 m wide and 1.6 m high; its number is given."""
    rays = CAMERA.rays().astype(np.float64)
    depth, instance = np.full(rays.shape[:2], WALL_M), np.full(rays.shape[:2], -1)
    for (x, z), number in sorted(zip(people, numbers, strict=True), key=lambda p: -p[0][1]):
        at = rays * z + [camera_x, 0.0, 0.0]
        hit = (np.abs(at[..., 0] - x) < 0.25) & (np.abs(at[..., 1]) < 0.8)
        depth[hit], instance[hit] = z, number
    T_world_camera = make_transform(np.eye(3), np.array([camera_x, 0.0, 0.0]))
    return InstanceView(apply(T_world_camera, rays * depth[..., None]), instance, CAMERA, T_world_camera)


def test_a_view_agrees_with_itself_and_the_overlap_is_that_of_the_pixels():
    a = view()
    np.testing.assert_array_equal(vote_iou(a, a), np.eye(3))
    assert id_consistency(a, a) == 1.0
    half = a.instance.copy()
    rows = np.flatnonzero((half == 1).any(axis=1))
    half[(np.arange(120)[:, None] >= rows[len(rows) // 2]) & (half == 1)] = -1  # the lower half is missed
    b = dataclasses.replace(a, instance=half)
    pixels_a, pixels_b = int((a.instance == 1).sum()), int((half == 1).sum())
    # Votes of a: all its pixels; of b: those it has. Both agree on the pixels of b.
    assert vote_iou(a, b)[1, 1] == 2 * pixels_b / (pixels_a + pixels_b)
    human = int((a.instance >= 0).sum())
    assert id_consistency(a, b) == (human - pixels_a + pixels_b) / human


def test_two_views_find_the_same_people_whatever_their_numbers():
    a, b = view(-0.3), view(0.3, numbers=(7, 5, 6))
    assert sorted(match_instances(a, b).tolist()) == [[0, 7], [1, 5], [2, 6]]
    assert id_consistency(a, b) < 0.05
    same = renumbered(b, {int(new): int(old) for old, new in match_instances(a, b)})
    assert id_consistency(a, same) > 0.95  # all but the pixels at outlines


def test_the_gate_counts_and_one_person_is_matched_once():
    a = view()
    few = np.flatnonzero((a.instance == 0).any(axis=0))
    quarter = np.where((a.instance == 0) & (np.arange(160) >= few[len(few) // 6]), -1, a.instance)
    b = dataclasses.replace(a, instance=quarter)
    overlap = vote_iou(a, b)[0, 0]
    assert 0.2 < overlap < 0.3 and [0, 0] not in match_instances(a, b).tolist()
    assert [0, 0] in match_instances(a, b, gate=0.85).tolist()
    split = np.where((a.instance == 1) & (np.arange(160) >= 80), 9, a.instance)  # one person in two pieces
    pairs = match_instances(a, dataclasses.replace(a, instance=split))
    assert len(pairs) == 3 and sorted(pairs[:, 0].tolist()) == [0, 1, 2]


def test_whoever_is_hidden_does_not_vote_for_the_one_in_front():
    behind, front = (0.0, 4.0), (0.0, 2.5)
    a = view(-1.2, people=(behind, front), numbers=(0, 1))  # sees both side by side
    b = view(0.0, people=(behind, front), numbers=(0, 1))  # sees the one in front only
    assert b.ids.tolist() == [1]
    assert vote_iou(a, b)[0, 0] == 0.0 and match_instances(a, b).tolist() == [[1, 1]]


def test_many_views_get_one_number_for_each_person():
    names = [(0, 1, 2), (12, 10, 11), (5, 3, 4), (8, 9, 7)]
    views = [view(x, numbers=n) for x, n in zip((-0.6, -0.2, 0.2, 0.6), names, strict=True)]
    numbers = group_instances(views)
    for person in range(3):
        assert len({numbers[k][names[k][person]] for k in range(4)}) == 1
    assert {n for mapping in numbers for n in mapping.values()} == {0, 1, 2}
    common = [renumbered(v, n) for v, n in zip(views, numbers, strict=True)]
    assert min(id_consistency(common[0], other) for other in common[1:]) > 0.9


def test_views_that_see_nothing_in_common_join_through_a_third():
    one, two = view(-1.0, people=[(0.0, 3.0)], numbers=[1]), view(1.0, people=[(0.0, 3.0)], numbers=[2])
    middle = view(0.0, people=[(0.0, 3.0)], numbers=[3])
    # The outer two are told nothing about each other: their own points are unknown.
    one, two = (dataclasses.replace(v, points_world=np.full_like(v.points_world, np.nan)) for v in (one, two))
    assert np.isnan(vote_iou(one, two)).all()
    assert group_instances([one, middle, two]) == [{1: 0}, {3: 0}, {2: 0}]
    assert group_instances([one, two]) == [{1: 0}, {2: 1}]


def test_over_time_people_keep_their_numbers_and_newcomers_get_new_ones():
    before = view(people=PEOPLE[:2], numbers=(20, 21))
    moved = ((PEOPLE[1][0] + 0.05, PEOPLE[1][1]), (PEOPLE[0][0] - 0.05, PEOPLE[0][1]), PEOPLE[2])
    now = view(0.02, people=moved, numbers=(0, 1, 2))  # another order, one more, and the camera moves
    assert follow_instances(before, now, next_id=30) == ({0: 21, 1: 20, 2: 30}, 31)
    assert follow_instances(view(people=(), numbers=()), now, next_id=5) == ({0: 5, 1: 6, 2: 7}, 8)


@pytest.mark.parametrize("function", [vote_iou, match_instances])
def test_nobody_and_unknown_points_are_no_error(function):
    empty, some = view(people=(), numbers=()), view()
    unknown = dataclasses.replace(some, points_world=np.full_like(some.points_world, np.nan))
    assert function(empty, empty).size == 0 and function(empty, some).size == 0
    assert np.isnan(vote_iou(unknown, unknown)).all() and len(match_instances(unknown, unknown)) == 0
    assert np.isnan(id_consistency(empty, empty)) and np.isnan(id_consistency(unknown, some))
    assert group_instances([]) == [] and group_instances([empty, empty]) == [{}, {}]
