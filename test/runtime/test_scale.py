"""Scale of the map by the people in it: exact where bodies and map are made for each other, and through the stream."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.body.model import joints, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.scale import ScaleEstimate, ScaleState, ScaleStatus
from human_scene_ros.body.surface import HEAD_BEHIND_SURFACE_M
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.runtime.engine import make_stream
from human_scene_ros.runtime.scale import (
    SCALE_CHECK,
    SCALE_FILTER,
    people_samples,
    scale_problem,
    sensed_ratios,
    surfaces_support,
)
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.runtime.tracks import SmoothingConfig
from human_scene_ros.scene import ScaleSource
from human_scene_ros.sources.reader import open_source

from helpers import REPOSITORY

CAMERA = PinholeCamera.from_fov(320, 240, 60.0)
DENSE = CAMERA.resized(160, 120)
BODY = load_body_model()
FACING = np.array([np.pi, 0.0, 0.0])  # the body's y is up, the camera's points down
SEEN = np.ones((120, 160), bool)


def person(x, z, bend=0.0):
    """(55, 3) joints of somebody upright, or bent towards the camera."""
    return joints(BODY, BodyParameters(global_orient=FACING + [bend, 0.0, 0.0], transl=np.array([x, 0.4, z])))


def map_of(people, shrunk=1.0):
    """A map with a person's face where a head is, far away elsewhere, too small by a factor."""
    depth = np.full((120, 160), 9.0, np.float32)
    for body in people:
        u, v = np.rint(DENSE.project(body[15].astype(np.float64))).astype(int)
        depth[max(0, v - 3):v + 4, max(0, u - 3):u + 4] = body[15, 2] - HEAD_BEHIND_SURFACE_M
    return depth * np.float32(shrunk)


def measured(depth, bodies, scores, person_mask=SEEN):
    return people_samples(depth, person_mask, DENSE, CAMERA, bodies, scores)


@pytest.mark.parametrize("shrunk", [0.55, 1.0, 1.6])
def test_the_factor_undoes_what_is_wrong_with_the_map(shrunk):
    people = [person(-0.6, 3.0), person(0.7, 4.2)]
    state = ScaleState()
    for frame in range(100):
        samples, weights = measured(map_of(people, shrunk * state.scale), people, [0.8, 0.9])
        np.testing.assert_allclose(samples.rho, 1.0 / (shrunk * state.scale), rtol=1e-4)
        estimate, state = SCALE_FILTER.step(samples, weights, [3, 5], state)
        if frame == 70:
            frozen = state.log_scale
    # Measured at whatever scale the map has by then, kept as what the network's own geometry needs.
    np.testing.assert_allclose(np.exp([s.log_rho for s in state.reservoir]), 1.0 / shrunk, rtol=1e-4)
    assert abs(np.log(shrunk * state.scale)) <= 0.1 * abs(np.log(shrunk)) and state.log_scale == frozen
    assert estimate.factor == pytest.approx(1.0 / (shrunk * state.scale), rel=1e-3)
    _, state = SCALE_CHECK.step(*measured(map_of(people, shrunk), people, [0.8, 0.9]), [3, 5], ScaleState())
    assert state.scale == 1.0, "the scale is known"


def test_only_people_who_can_be_measured_count():
    good, near, bent, behind = person(0.0, 3.0), person(0.0, 0.25), person(0.0, 3.0, bend=1.4), person(0.0, -3.0)
    depth = map_of([good])

    def counts(depth, body, score=0.8, mask=SEEN):
        weights = measured(depth, [body], [score], mask)[1]
        return weights.shape == (1,) and weights[0] > 0.0

    assert counts(depth, good)
    assert not counts(map_of([near]), near) and not counts(map_of([bent]), bent)
    assert not counts(map_of([person(-0.6, 3.0)]), person(-0.6, 3.0), score=0.2), "unsure"
    assert not counts(depth, behind)
    assert not counts(depth, good, mask=~SEEN), "the map shows no person there"
    assert not counts(np.full_like(depth, np.nan), good)
    assert not counts(depth, person(4.0, 3.0)), "outside of the image"
    assert measured(depth, [], [])[1].shape == (0,)


@pytest.mark.parametrize("below_edge_px", [-2.0, 2.0])
def test_a_pelvis_outside_of_the_image_is_not_measured(below_edge_px):
    """The same body, a little higher and a little lower: its head and most of the trunk are seen in both."""
    body = person(0.0, 2.0)
    edge = (CAMERA.height - 0.5 + below_edge_px - CAMERA.cy) / CAMERA.fy * body[0, 2]
    body = body + np.array([0.0, edge - body[0, 1], 0.0], np.float32)
    samples, weights = measured(map_of([body], 0.8), [body], [0.8])
    assert samples.rho == pytest.approx(1.25, rel=1e-4)
    assert (weights > 0.0) == [below_edge_px < 0.0]


def test_a_map_far_too_small_is_supported_by_whole_surfaces_not_by_a_face():
    rng = np.random.default_rng(0)
    body = np.column_stack([rng.uniform(-0.25, 0.25, 300), rng.uniform(-0.8, 0.8, 300), np.full(300, 3.0)])
    assert surfaces_support(2.5, [(body, body / 2.5)]) and surfaces_support(0.4, [(body, body / 0.4)])
    assert not surfaces_support(2.5, [(body, body)])
    # Something in front of the face alone: only 30 of 300 points are too near.
    face = np.where(np.arange(300)[:, None] < 30, body / 2.5, body)
    assert not surfaces_support(2.5, [(body, face)])
    assert not surfaces_support(2.5, [(body, body[:20] / 2.5)]) and not surfaces_support(2.5, []), "too few to tell"


def test_what_is_wrong_with_the_scale_is_said():
    many = ScaleEstimate(1.2, ScaleStatus.OK, 40)
    assert "1.20 times the depth sensor's" in scale_problem(many, ScaleSource.DEPTH, 0.05)
    assert scale_problem(many, ScaleSource.DEPTH, 0.25) == scale_problem(many, ScaleSource.BODY_HEIGHT, 0.05) == ""
    assert scale_problem(dataclasses.replace(many, factor=0.9), ScaleSource.DEPTH, 0.05)
    assert scale_problem(None, ScaleSource.DEPTH, 0.05) == ""
    assert scale_problem(ScaleEstimate(1.2, ScaleStatus.FEW_SAMPLES, 3), ScaleSource.DEPTH, 0.05) == ""
    rejected = ScaleEstimate(3.0, ScaleStatus.REJECTED, 40)
    assert "3.00 times the scale of the map" in scale_problem(rejected, ScaleSource.NETWORK, 0.05)
    assert "3.00 times the depth sensor's" in scale_problem(rejected, ScaleSource.DEPTH, 0.05)


class Shrunk:
    """An engine whose map is too small."""

    def __init__(self, engine, factor):
        self.engine, self.factor = engine, factor

    def step(self, *arguments, **options):
        output, state = self.engine.step(*arguments, **options)
        return dataclasses.replace(output, pts3d_in_self_view=output.pts3d_in_self_view * self.factor), state


@pytest.fixture(scope="module")
def shipped():
    return make_stream(engine="torch")


def some_frames(step, stop):
    """Of the demo recording."""
    with open_source(str(REPOSITORY / "demo" / "recording")) as source:
        return [frame for index, frame in enumerate(source) if index % step == 0 and index < stop]


def test_the_stream_scales_the_map_and_leaves_the_bodies(shipped):
    """The demo recording by the shipped network, and by one whose map is 20 % too small: both go to one scale."""
    settings = StreamConfig(scale_source="people", camera_pose="static")
    right, small, plain = (HumanSceneStream(shipped.network, shipped.body_model, config, shipped.weights, engine)
                           for engine, config in ((shipped.network, settings), (Shrunk(shipped.network, 0.8), settings),
                                                  (shipped.network, StreamConfig(camera_pose="static"))))
    for index, frame in enumerate(some_frames(5, 90)):
        a, b, c = (stream.step(frame) for stream in (right, small, plain))
        if index == 0:
            assert a.scale_source == ScaleSource.NETWORK and a.scale == 1.0, "nobody was measured before"
    found, smaller = (stream.state().people_scale.reservoir for stream in (right, small))
    assert len(found) > 4 and max(s.frame for s in found) - min(s.frame for s in found) >= 10
    assert [(s.frame, s.person) for s in found] == [(s.frame, s.person) for s in smaller]
    for person_id in {s.person for s in found}:
        assert (np.diff([s.frame for s in found if s.person == person_id]) >= 5).all()
    log_found, log_smaller = (np.array([s.log_rho for s in reservoir]) for reservoir in (found, smaller))
    np.testing.assert_allclose(log_smaller, log_found - np.log(0.8), atol=1e-5)
    assert a.scale_source == b.scale_source == ScaleSource.BODY_HEIGHT and c.scale_source == ScaleSource.NETWORK
    assert a.scale_by_people.samples == len(found) and c.scale_by_people is None
    assert a.scale < b.scale < a.scale / 0.8
    np.testing.assert_allclose(a.points_camera, c.points_camera * np.float32(a.scale), rtol=1e-5)
    for x, y, z in zip(a.bodies, b.bodies, c.bodies, strict=True):
        np.testing.assert_allclose(x.joints_camera, z.joints_camera, atol=1e-5)
        np.testing.assert_allclose(y.joints_camera, z.joints_camera, atol=1e-5)
    right.reset()
    assert right.state().people_scale == ScaleState()


@pytest.mark.parametrize("supported", [True, False])
def test_a_map_at_a_third_of_its_size_is_found_where_surfaces_support_it(shipped, supported, monkeypatch):
    """The cross-check on the network's own maps, which are rough, and what is said when it does not hold."""
    if not supported:
        monkeypatch.setattr("human_scene_ros.runtime.scale.MIN_POINTS", 10**6)
    stream = HumanSceneStream(shipped.network, shipped.body_model,
                              StreamConfig(scale_source="people", camera_pose="static"), shipped.weights,
                              Shrunk(shipped.network, 1.0 / 3.0))
    for frame in some_frames(2, 60):
        estimate = stream.step(frame)
    rejected = estimate.scale_by_people.status == ScaleStatus.REJECTED
    assert rejected == (not supported) == bool(estimate.scale_problem)
    assert estimate.scale > 1.4 if supported else estimate.scale == 1.0


def test_people_tell_whether_a_depth_sensor_is_right(shipped):
    """Two sensors on the demo recording, the second says 40 % more: so does what people ask for, less."""
    streams = [HumanSceneStream(shipped.network, shipped.body_model,
                                StreamConfig(camera_pose="static", people_tolerance=0.25,
                                             smoothing=SmoothingConfig(min_cutoff_hz=0.0)), shipped.weights)
               for _ in range(3)]
    for frame in some_frames(5, 80):
        plain = streams[2].step(frame)
        depth = np.full(frame.image.shape[:2], 6.0, np.float32)
        for body in sorted(plain.bodies, key=lambda b: -b.joints_camera[15, 2]):
            if body.time_since_update_s == 0.0:
                u, v = np.rint(frame.camera.project(body.joints_camera[15].astype(np.float64))).astype(int)
                z = body.joints_camera[15, 2] - HEAD_BEHIND_SURFACE_M
                depth[max(0, v - 20):v + 21, max(0, u - 20):u + 21] = z
        right, wrong = (stream.step(dataclasses.replace(frame, depth_m=depth * np.float32(k)))
                        for stream, k in zip(streams, (1.0, 1.4), strict=False))
    assert plain.scale_by_people is None
    assert right.scale_source == wrong.scale_source == ScaleSource.DEPTH
    assert right.scale_by_people.status == wrong.scale_by_people.status == ScaleStatus.OK
    assert right.scale_by_people.factor == pytest.approx(1.0, abs=0.1) and not right.scale_problem
    assert wrong.scale_by_people.factor == pytest.approx(right.scale_by_people.factor / 1.4, rel=0.02)
    assert f"{wrong.scale_by_people.factor:.2f} times" in wrong.scale_problem
    gone = streams[1].step(dataclasses.replace(frame, stamp_ns=frame.stamp_ns + 10**8))
    assert gone.scale_by_people.samples == wrong.scale_by_people.samples, "no depth image, nothing new"


def test_people_stand_where_a_depth_sensor_sees_their_heads():
    people = [person(-0.6, 3.0), person(0.7, 4.2), person(0.0, -2.0)]
    seen = map_of(people[:2])
    nearer = [body * np.float32(0.8) for body in people[:2]]  # on the same rays
    np.testing.assert_allclose(sensed_ratios(seen, SEEN, DENSE, nearer), 1.0 / 0.8, rtol=1e-5)
    holes = seen.copy()
    holes[::3], holes[1::3, ::3] = 0.0, np.nan
    np.testing.assert_allclose(sensed_ratios(holes, SEEN, DENSE, nearer), 1.0 / 0.8, rtol=1e-5)
    holes[::2] = 0.0
    assert sensed_ratios(holes, SEEN, DENSE, nearer) == [1.0, 1.0], "fewer than 40 % of the readings"
    assert sensed_ratios(seen, SEEN, DENSE, [people[2]]) == [1.0], "behind the camera"
    assert sensed_ratios(seen, ~SEEN, DENSE, nearer) == [1.0, 1.0], "no person's pixels"
    assert sensed_ratios(0.3 * seen, SEEN, DENSE, nearer) == [1.0, 1.0], "something in front of them"
    assert sensed_ratios(0.0 * seen, SEEN, DENSE, nearer) == [1.0, 1.0], "no reading"


def test_the_stream_puts_people_at_their_sensed_depth(shipped):
    """The demo recording with a sensor that sees all people 20 % farther away than the network does."""
    shipped = HumanSceneStream(shipped.network, shipped.body_model, StreamConfig(camera_pose="static"), shipped.weights)
    frame = some_frames(24, 25)[1]
    plain = shipped.step(frame)
    depth = np.full(frame.image.shape[:2], 6.0, np.float32)
    nearest_last = sorted(plain.bodies, key=lambda b: -b.joints_camera[15, 2])
    for body in nearest_last:
        u, v = np.rint(frame.camera.project(body.joints_camera[15].astype(np.float64))).astype(int)
        depth[max(0, v - 20):v + 21, max(0, u - 20):u + 21] = 1.2 * body.joints_camera[15, 2] - HEAD_BEHIND_SURFACE_M
    shipped.reset()
    sensed = shipped.step(dataclasses.replace(frame, depth_m=depth))
    assert sensed.scale_source == ScaleSource.DEPTH
    ratios = [b.joints_camera[15, 2] / a.joints_camera[15, 2]
              for a, b in zip(plain.bodies, sensed.bodies, strict=True)]
    assert len(ratios) >= 2 and np.count_nonzero(np.isclose(ratios, 1.2, rtol=0.01)) >= 2
    # Nobody follows the scale of the map, which is another thing.
    assert all(np.isclose(r, 1.0, atol=1e-3) or np.isclose(r, 1.2, rtol=0.01) for r in ratios)
