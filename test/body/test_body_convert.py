"""Head, pelvis, transl and axes: round trips, and the network fixture's bodies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from body_cases import random_people, toy_file
from scipy.spatial.transform import Rotation

from human_scene_ros.body import convert, skeleton
from human_scene_ros.body import model as body
from human_scene_ros.body.model import BodyModel, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.transform import apply, invert, make_transform

from helpers import shared_folder


@pytest.fixture
def toy(tmp_path: Path) -> BodyModel:
    """Its pelvis is far from the origin, so that forgetting J0 shows."""
    return load_body_model(toy_file(tmp_path))


def test_pelvis_and_head_round_trips(toy: BodyModel):
    person = random_people(np.random.default_rng(0), 1)[0]
    joints = body.joints(toy, person)
    np.testing.assert_allclose(convert.pelvis_position(toy, person), joints[skeleton.PELVIS], atol=1e-5)
    np.testing.assert_allclose(convert.head_position(toy, person), joints[skeleton.HEAD], atol=1e-5)
    target = np.array([0.3, -1.2, 4.0])
    by_pelvis = convert.with_pelvis_at(toy, person, target)
    np.testing.assert_allclose(body.joints(toy, by_pelvis)[skeleton.PELVIS], target, atol=1e-5)
    by_head = convert.with_head_at(toy, by_pelvis, target)
    np.testing.assert_allclose(body.joints(toy, by_head)[skeleton.HEAD], target, atol=1e-5)
    back = convert.with_pelvis_at(toy, by_head, joints[skeleton.PELVIS])
    np.testing.assert_allclose(back.transl, person.transl, atol=1e-5)
    assert np.linalg.norm(convert.pelvis_position(toy, person) - person.transl) > 0.1


def test_a_moved_body_is_the_body_moved(toy: BodyModel):
    rng = np.random.default_rng(1)
    person = random_people(rng, 1)[0]
    T_world_camera = make_transform(Rotation.random(None, rng).as_matrix(), rng.normal(size=3))
    in_world = convert.transformed(toy, person, T_world_camera)
    vertices_camera, _ = body.vertices(toy, person)
    np.testing.assert_allclose(body.vertices(toy, in_world)[0], apply(T_world_camera, vertices_camera), atol=2e-5)
    back = convert.transformed(toy, in_world, invert(T_world_camera))
    np.testing.assert_allclose(body.joints(toy, back), body.joints(toy, person), atol=2e-5)


def test_network_rotations_and_head_come_back(toy: BodyModel):
    for person in random_people(np.random.default_rng(2), 4):
        person = convert.with_head_at(toy, person, np.array([0.1, 0.2, 3.0]))
        rotmats = convert.parameters_to_network(person)
        assert rotmats.shape == (53, 3, 3)
        back = convert.network_to_parameters(rotmats, person.betas, person.expression, np.array([0.1, 0.2, 3.0]), toy)
        for field in ("transl", "betas", "expression"):
            np.testing.assert_allclose(getattr(back, field), getattr(person, field), atol=1e-5)
        expected = body.rotation_matrices(person.full_pose())
        expected[[skeleton.LEFT_EYE, skeleton.RIGHT_EYE]] = np.eye(3)  # the network has no eyes
        np.testing.assert_allclose(body.rotation_matrices(back.full_pose()), expected, atol=1e-5)
        np.testing.assert_allclose(convert.head_position(toy, back), [0.1, 0.2, 3.0], atol=1e-5)


def test_network_order_is_body_left_hand_right_hand_jaw():
    names = [skeleton.JOINT_NAMES[i] for i in skeleton.NETWORK_53]
    assert names[0] == "pelvis" and names[15] == "head" and names[22] == "left_index1"
    assert names[37] == "right_index1" and names[52] == "jaw"
    assert set(skeleton.JOINT_NAMES) - set(names) == {"left_eye", "right_eye"}


def test_bad_network_values_are_refused(toy: BodyModel):
    eye = np.broadcast_to(np.eye(3), (53, 3, 3)).copy()
    with pytest.raises(ShapeError, match=r"rotmats has shape \(55, 3, 3\); expected \(53, 3, 3\)"):
        convert.network_to_parameters(np.zeros((55, 3, 3)), np.zeros(10), np.zeros(10), np.zeros(3), toy)
    eye[4] = np.nan
    with pytest.raises(ShapeError, match=r"NaN or infinite"):
        convert.network_to_parameters(eye, np.zeros(10), np.zeros(10), np.zeros(3), toy)


def test_body_axes_of_someone_who_faces_the_camera():
    model = load_body_model()
    # Upright and facing the camera: x_smplx (left) is camera +x, y_smplx (up) is -y, z_smplx (chest) is -z.
    turn = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0])).as_rotvec().astype(np.float32)
    person = convert.with_pelvis_at(model, BodyParameters(global_orient=turn), np.array([0.0, 0.0, 3.0]))
    T_camera_body = convert.pelvis_pose(model, person)
    np.testing.assert_allclose(T_camera_body[:3, 0], [0, 0, -1], atol=1e-6)  # out of the chest, to the camera
    np.testing.assert_allclose(T_camera_body[:3, 1], [1, 0, 0], atol=1e-6)  # the person's left is image right
    np.testing.assert_allclose(T_camera_body[:3, 2], [0, -1, 0], atol=1e-6)  # up
    np.testing.assert_allclose(T_camera_body[:3, 3], [0, 0, 3], atol=1e-6)
    joints_body = apply(invert(T_camera_body), body.joints(model, person).astype(np.float64))
    named = dict(zip(skeleton.JOINT_NAMES, joints_body, strict=True))
    assert named["head"][2] > 0.5 and named["left_wrist"][1] > 0.5 and named["left_foot"][0] > 0.05
    back = Rotation.from_rotvec(convert.orient_from_body_rotation(T_camera_body[:3, :3]))
    np.testing.assert_allclose(back.as_matrix(), np.diag([1.0, -1.0, -1.0]), atol=1e-6)


@pytest.mark.parametrize("stream", ["landscape", "portrait", "landscape_ttt3r"])
def test_bodies_of_the_network_fixture(stream: str):
    folder = shared_folder("fixtures/human3r")
    ids = json.loads((folder / "smplx_standin_vertex_ids.json").read_text())
    short = {"left_": "l", "right_": "r", "big_toe": "BigToe", "small_toe": "SmallToe", "heel": "Heel"}
    order = []
    for name in skeleton.KEYPOINT_VERTICES:
        key = name
        for long, brief in short.items():
            key = key.replace(long, brief)
        order.append(ids[key if "Toe" not in key and "Heel" not in key else key[0].upper() + key[1:]])
    model = load_body_model(folder / "smplx_standin.npz", keypoint_vertices=order)
    data = np.load(folder / f"stream_{stream}.npz")
    frames = [int(k[1:].split(".")[0]) for k in data.files if k.endswith("post.verts_cam")]
    assert frames
    for i in frames:
        outputs = [data[f"f{i}.out.smpl_{name}"][0] for name in ("rotmat", "shape", "expression", "transl")]
        vertices, joints = convert.pose_network_people(model, *outputs)
        for got, key in ((vertices, "verts_cam"), (joints, "joints_cam")):
            truth = data[f"f{i}.post.{key}"]
            assert got.shape == truth.shape
            assert np.sqrt(((got - truth) ** 2).mean() / (truth ** 2).mean()) < 1e-6
        for person in range(len(vertices)):
            parameters = convert.network_to_parameters(*(o[person] for o in outputs), model)
            np.testing.assert_allclose(body.vertices(model, parameters)[0], vertices[person], atol=2e-5)
