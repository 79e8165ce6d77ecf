"""Scale of the map by the people in it: exact where bodies and map are made for each other, and through the stream."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from human_scene_ros.body.model import joints, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.scale import ScaleState
from human_scene_ros.body.surface import HEAD_BEHIND_SURFACE_M
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.runtime.engine import make_stream
from human_scene_ros.runtime.scale import scale_by_people, sensed_ratios
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
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


def measured(depth, person_mask, bodies, scores, state=None):
    return scale_by_people(depth, person_mask, DENSE, CAMERA, bodies, scores, state or ScaleState())


@pytest.mark.parametrize("shrunk", [0.5, 1.0, 1.6])
def test_the_factor_undoes_what_is_wrong_with_the_map(shrunk):
    people = [person(-0.6, 3.0), person(0.7, 4.2)]
    state = ScaleState()
    for frame in range(100):
        state = measured(map_of(people, shrunk), SEEN, people, [0.8, 0.9], state)
        # Measured at whatever scale the map has by now, kept as what the network's own geometry needs.
        np.testing.assert_allclose(np.exp(state.log_rho[-2:]), 1.0 / shrunk, rtol=1e-4)
        if frame == 70:
            frozen = state.log_scale
    assert state.scale == pytest.approx(1.0 / shrunk, rel=0.05) and state.log_scale == frozen


def test_only_people_who_can_be_measured_count():
    good, near, bent, behind = person(0.0, 3.0), person(0.0, 0.25), person(0.0, 3.0, bend=1.4), person(0.0, -3.0)
    unsure = person(-0.6, 3.0)
    depth = map_of([good])
    assert len(measured(depth, SEEN, [good], [0.8]).log_rho) == 1
    for body, score in ((near, 0.8), (bent, 0.8), (unsure, 0.2)):
        assert measured(map_of([body]), SEEN, [body], [score]) == ScaleState()
    assert measured(depth, SEEN, [behind], [0.8]) == ScaleState()
    assert measured(depth, ~SEEN, [good], [0.8]) == ScaleState(), "the map shows no person there"
    assert measured(np.full_like(depth, np.nan), SEEN, [good], [0.8]) == ScaleState()
    assert measured(depth, SEEN, [], []) == ScaleState()
    assert measured(depth, SEEN, [person(4.0, 3.0)], [0.8]) == ScaleState(), "outside of the image"


class Shrunk:
    """An engine whose map is too small."""

    def __init__(self, engine, factor):
        self.engine, self.factor = engine, factor

    def step(self, *arguments, **options):
        output, state = self.engine.step(*arguments, **options)
        return dataclasses.replace(output, pts3d_in_self_view=output.pts3d_in_self_view * self.factor), state


def test_the_stream_scales_the_map_and_leaves_the_bodies():
    """The demo recording by the shipped network, and by one whose map is 20 % too small: both go to one scale."""
    shipped = make_stream(engine="torch")
    settings = StreamConfig(scale_source="people", camera_pose="static")
    right, small, plain = (HumanSceneStream(shipped.network, shipped.body_model, config, shipped.weights, engine)
                           for engine, config in ((shipped.network, settings), (Shrunk(shipped.network, 0.8), settings),
                                                  (shipped.network, StreamConfig(camera_pose="static"))))
    with open_source(str(REPOSITORY / "demo" / "recording")) as source:
        for index, frame in enumerate(source):
            if index % 12 == 0:
                a, b, c = (stream.step(frame) for stream in (right, small, plain))
            if index >= 60:
                break
    found, smaller = (np.array(stream.state().people_scale.log_rho) for stream in (right, small))
    assert len(found) > 4
    np.testing.assert_allclose(smaller, found - np.log(0.8), atol=1e-5)
    assert a.scale_source == b.scale_source == ScaleSource.BODY_HEIGHT and c.scale_source == ScaleSource.NETWORK
    assert a.scale < b.scale < a.scale / 0.8
    np.testing.assert_allclose(a.points_camera, c.points_camera * np.float32(a.scale), rtol=1e-5)
    for x, y, z in zip(a.bodies, b.bodies, c.bodies, strict=True):
        np.testing.assert_allclose(x.joints_camera, z.joints_camera, atol=1e-5)
        np.testing.assert_allclose(y.joints_camera, z.joints_camera, atol=1e-5)
    right.reset()
    assert right.state().people_scale == ScaleState()


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


def test_the_stream_puts_people_at_their_sensed_depth():
    """The demo recording with a sensor that sees all people 20 % farther away than the network does."""
    shipped = make_stream(engine="torch", config=StreamConfig(camera_pose="static"))
    with open_source(str(REPOSITORY / "demo" / "recording")) as source:
        frame = next(f for i, f in enumerate(source) if i == 24)
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
