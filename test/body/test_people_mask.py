"""Which body a pixel belongs to: the nearest bones in the picture, within reach."""

from __future__ import annotations

import numpy as np

from human_scene_ros.body.people_mask import NOBODY, REACH_M, label_people
from human_scene_ros.geometry.camera import PinholeCamera

CAMERA = PinholeCamera(160, 120, 100.0, 100.0, 80.0, 60.0)
EVERYWHERE = np.ones((120, 160), bool)


def post(x: float, z: float, half_m: float = 0.2) -> np.ndarray:
    """(55, 3) joints of a body that is a vertical line at x, z metres: its bones are a column of the image."""
    joints = np.zeros((55, 3), np.float32)
    joints[:, 0], joints[:, 2] = x, z
    joints[:, 1] = np.linspace(-half_m, half_m, 55)
    joints[1:22, 1] = np.linspace(-half_m, half_m, 21)
    return joints


def test_a_pixel_goes_to_the_nearest_bones_within_reach():
    labels = label_people(EVERYWHERE, CAMERA, [post(-0.6, 2.0), post(0.4, 2.0)])
    columns = np.arange(160)  # of the row through the middle of both: they stand in columns 50 and 100
    to_first, to_second = np.abs(columns - 50), np.abs(columns - 100)
    limb_px = 4  # half the width that a bone is drawn with, and a pixel for the distance transform's metric
    reach_px = REACH_M * 100.0 / 2.0
    row = labels[60]
    sure = (np.abs(to_first - to_second) > 1) & (np.abs(np.minimum(to_first, to_second) - reach_px) > limb_px)
    near = np.where(to_first < to_second, 1, 2)
    expected = np.where(np.minimum(to_first, to_second) < reach_px, near, NOBODY)
    np.testing.assert_array_equal(row[sure], expected[sure])
    assert sure.sum() > 140 and {1, 2, NOBODY} == set(row)


def test_only_person_pixels_are_labelled():
    person = np.zeros((120, 160), bool)
    person[50:70, 40:60] = True
    labels = label_people(person, CAMERA, [post(-0.6, 2.0)])
    np.testing.assert_array_equal(labels > 0, person)
    assert set(labels[person]) == {1}


def test_the_nearer_body_hides_the_one_behind_it():
    behind, before = post(0.0, 4.0), post(0.0, 2.0)
    assert set(label_people(EVERYWHERE, CAMERA, [behind, before])[60, 78:83]) == {2}
    assert set(label_people(EVERYWHERE, CAMERA, [before, behind])[60, 78:83]) == {1}


def test_without_bodies_in_view_a_person_is_nobody():
    person = EVERYWHERE.copy()
    person[:10] = False
    for bodies in ([], [post(0.0, -2.0)], [post(50.0, 2.0)]):
        labels = label_people(person, CAMERA, bodies)
        assert set(labels[person]) == {NOBODY} and not labels[~person].any()
    assert not label_people(np.zeros_like(person), CAMERA, [post(0.0, 2.0)]).any()
