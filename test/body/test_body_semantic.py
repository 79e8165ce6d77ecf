"""Semantic points: exact at the vertices, by hand where two people or clothes are near, and on rendered people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.body import semantic
from human_scene_ros.body.model import body_mesh, load_body_model, vertices
from human_scene_ros.body.parameters import BodyParameters

MODEL = load_body_model()


def at(*places: tuple[float, float, float]) -> np.ndarray:
    """(P, 4, 3): four vertices of each person, 1 cm apart along z."""
    return np.array(places, float)[:, None] + np.array([[0, 0, 0.01 * k] for k in range(4)])


PLACES = np.array([[0, 0, 0], [0.25, 0.5, 1], [1, 0, 0], [1, 1, 1]], float)


def test_points_belong_to_the_nearest_body_and_to_nobody_far_away():
    people = at((0, 0, 4), (1.5, 0, 4))
    points = np.concatenate([people[1] + [0.001, 0, 0], [[5.0, 0, 4]], [[np.nan, 0, 0]]])
    labels = semantic.label_points(points, people, PLACES)
    assert labels.person.tolist() == [1] * 4 + [-1, -1] and labels.vertex.tolist() == [0, 1, 2, 3, -1, -1]
    np.testing.assert_allclose(labels.canonical, np.concatenate([PLACES, np.zeros((2, 3))]))
    np.testing.assert_allclose(labels.distance_m, [0.001] * 4 + [np.inf] * 2)
    assert labels.confidence.tolist() == [1.0] * 4 + [0.0] * 2


def test_of_equally_near_people_the_first_wins_with_half_the_confidence():
    labels = semantic.label_points(np.array([[0.01, 0, 4], [-0.01, 0, 4]]), at((0, 0, 4), (0, 0, 4)), PLACES)
    assert (labels.person == 0).all() and (labels.confidence == 0.5).all()


@pytest.mark.parametrize(("ratio", "confidence"), [(1.1, 0.5), (1.19, 0.5), (1.21, 1.0)])
def test_a_second_person_makes_a_point_doubtful_if_less_than_a_fifth_farther(ratio: float, confidence: float):
    people = at((-0.09, 0, 4), (0.09 * ratio, 0, 4))  # the second may lie beyond the radius
    labels = semantic.label_points(np.array([[0.0, 0, 4]]), people, PLACES)
    assert labels.person.tolist() == [0] and labels.confidence.tolist() == [confidence]


def test_clothes_reach_farther_but_only_inside_the_mask():
    points = np.array([[0.09, 0, 4], [0.11, 0, 4], [0.11, 0, 4], [0.24, 0, 4], [0.26, 0, 4], [-9, 0, 4]])
    inside = np.array([False, False, True, True, True, True])
    labels = semantic.label_points(points, at((0, 0, 4)), PLACES, silhouette=inside)
    assert labels.person.tolist() == [0, -1, 0, 0, -1, -1]


def test_points_without_people_and_people_without_points():
    assert (semantic.label_points(np.ones((3, 3)), np.zeros((0, 4, 3)), PLACES).person == -1).all()
    assert len(semantic.label_points(np.zeros((0, 3)), np.zeros((1, 4, 3)), PLACES).person) == 0
    assert (semantic.label_points(np.ones((3, 3)), np.full((1, 4, 3), np.nan), PLACES).person == -1).all()


def test_the_vertices_of_a_posed_body_lie_where_they_are_on_the_template():
    pose = np.random.default_rng(0).normal(0, 0.3, 63).astype(np.float32)
    person = BodyParameters(body_pose=pose, transl=np.array([0.3, 0.2, 3.0], np.float32))
    sample, places = semantic.sampled_people(MODEL, [person])
    assert sample.shape[1] <= len(MODEL.v_template) / 4 and places.shape == sample.shape[1:]
    labels = semantic.label_points(sample[0], sample, places)
    assert (labels.person == 0).all()
    np.testing.assert_allclose(labels.canonical, places, atol=1e-12)
    everywhere = semantic.template_places(MODEL.v_template)
    assert everywhere.min(axis=0).tolist() == [0, 0, 0] and everywhere.max(axis=0).tolist() == [1, 1, 1]
    # Every vertex of the full mesh, by a quarter of them: its place is that of a neighbour on the skin.
    full, _ = vertices(MODEL, person)
    labels = semantic.label_points(full, sample, places)
    off_m = np.linalg.norm((labels.canonical - everywhere) * np.ptp(MODEL.v_template, axis=0), axis=1)
    assert (labels.person == 0).all() and np.median(off_m) < 0.015 and np.quantile(off_m, 0.99) < 0.05


def test_a_model_without_levels_of_detail_is_thinned_to_one_vertex_in_four():
    bare = dataclasses.replace(MODEL, lods={})
    sample, places = semantic.sampled_people(bare, [BodyParameters()])
    np.testing.assert_array_equal(sample[0], vertices(bare, BodyParameters())[0][::4])
    np.testing.assert_array_equal(places, semantic.template_places(MODEL.v_template)[::4])
    assert len(body_mesh(MODEL, 1).vertex_index) < len(sample[0])


def test_rendered_people_get_their_own_points():
    """True bodies and true depth of rendered rooms: the mask of who is drawn where is the truth."""
    from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

    found = missed = wrong = 0
    for seed in (3, 5, 8):
        frame = SyntheticWorld(seed, WorldConfig(width=160, height=120, num_frames=2, place="room", max_people=3,
                                                 empty_fraction=0.0, effects=0.0, renderer="numpy")).frame(1)
        people, places = semantic.sampled_people(MODEL, [p.parameters for p in frame.people])
        points = frame.camera.unproject_depth(frame.depth_m).reshape(-1, 3)
        truth = frame.instance.reshape(-1).astype(int) - 1
        labels = semantic.label_points(points, people, places, silhouette=truth >= 0)
        human = truth >= 0
        found += int(((labels.person == truth) & human).sum())
        missed += int(((labels.person < 0) & human).sum())
        wrong += int(((labels.person >= 0) & (labels.person != truth) & human).sum())
        assert ((labels.person >= 0) & ~human).sum() < 0.02 * (~human).sum()  # the floor under feet
    assert found > 1000 and missed < 0.05 * found and wrong < 0.01 * found
