"""Bodies brought to the surface of the person: rendered truth through the function, the shipped network through the
stream."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from human_scene_ros.body.model import load_body_model, rotation_matrices, vertices
from human_scene_ros.runtime.engine import make_stream
from human_scene_ros.runtime.stream import StreamConfig
from human_scene_ros.runtime.surface import surface_ratios
from human_scene_ros.runtime.tracks import Observation
from human_scene_ros.sources.reader import open_source
from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

from helpers import REPOSITORY

BODY = load_body_model()


def observed(person, ratio):
    """The true body, its head at `ratio` of its distance."""
    joints = person.joints_camera + person.joints_camera[15] * np.float32(ratio - 1.0)
    p = person.parameters
    return Observation(rotation_matrices(p.full_pose()), p.betas, p.expression, joints, 0.9, person.head_uv_px)


@pytest.fixture(scope="module")
def rooms():
    """People in trousers: what a wide skirt shows lies far from the body."""
    return [SyntheticWorld(seed, WorldConfig(width=160, height=120, num_frames=2, place="room", max_people=3,
                                             empty_fraction=0.0, effects=0.0, renderer="numpy")).frame(1)
            for seed in (2, 3, 8)]


@pytest.mark.parametrize("ratio", [0.93, 1.0, 1.07])
def test_bodies_of_rendered_rooms_return_to_their_distance(rooms, ratio):
    for room in rooms:
        points = room.camera.unproject_depth(room.depth_m)
        people = [p for p in room.people if p.visible_fraction > 0.3]
        ratios = surface_ratios(BODY, points, room.instance > 0, room.camera, [observed(p, ratio) for p in people])
        assert len(people) >= 1
        np.testing.assert_allclose(np.array(ratios) * ratio, 1.0, atol=0.03)  # clothes are a few centimetres


def test_nobody_moves_without_points(rooms):
    for room in rooms:
        points, person = room.camera.unproject_depth(room.depth_m), room.instance > 0
        bodies = [observed(p, 0.93) for p in room.people]
        for seen, mask in ((np.full_like(points, np.nan), person), (points, np.zeros_like(person))):
            assert surface_ratios(BODY, seen, mask, room.camera, bodies) == [1.0] * len(bodies)
        assert surface_ratios(BODY, points, person, room.camera, []) == []


def test_the_stream_moves_people_to_the_depth_of_their_bodies():
    """The demo recording with a depth sensor that sees all bodies 15 cm farther away, and no head at all."""
    plain, aligned = (make_stream(engine="torch", config=StreamConfig(camera_pose="static", align_to_surface=on))
                      for on in (False, True))
    with open_source(str(REPOSITORY / "demo" / "recording")) as source:
        frame = next(f for i, f in enumerate(source) if i == 24)
    bodies = plain.step(frame).bodies
    depth = np.full(frame.image.shape[:2], 6.0, np.float32)
    for body in sorted(bodies, key=lambda b: -b.joints_camera[15, 2]):
        head = body.joints_camera[15].astype(np.float64)
        posed, faces = vertices(BODY, body.parameters, 2)
        posed = posed + 0.15 * head / np.linalg.norm(head)
        corners = np.rint(frame.camera.project(posed)).astype(np.int32)[faces]
        for face in np.argsort(-posed[faces, 2].mean(axis=1)):  # far ones first
            cv2.fillConvexPoly(depth, corners[face], float(posed[faces[face], 2].mean()))
    for body in bodies:
        u, v = np.rint(frame.camera.project(body.joints_camera[15].astype(np.float64))).astype(int)
        depth[max(0, v - 12):v + 13, max(0, u - 12):u + 13] = 0.0
    plain.reset()
    frame = dataclasses.replace(frame, depth_m=depth)
    unmoved, moved = plain.step(frame), aligned.step(frame)
    shifts_m = [np.linalg.norm(b.joints_camera[15]) - np.linalg.norm(a.joints_camera[15])
                for a, b in zip(unmoved.bodies, moved.bodies, strict=True)]
    assert "surface" in moved.stage_ms and "surface" not in unmoved.stage_ms
    assert len(shifts_m) >= 2 and np.count_nonzero(np.abs(np.array(shifts_m) - 0.15) < 0.05) >= 2, shifts_m
    for a, b in zip(unmoved.bodies, moved.bodies, strict=True):
        np.testing.assert_allclose(b.head_uv_px, a.head_uv_px, atol=1e-3)  # along the ray
