"""Skinning in numpy: closed-form truths, file errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from body_cases import random_people, toy_file
from scipy.spatial.transform import Rotation

from human_scene_ros.body import model as body
from human_scene_ros.body import skeleton
from human_scene_ros.body.model import BodyModel, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import BodyModelError

from helpers import shared_folder

INDEX = skeleton.JOINT_NAMES.index


@pytest.fixture(scope="module")
def open_body() -> BodyModel:
    return load_body_model()


@pytest.fixture
def toy(tmp_path: Path) -> BodyModel:
    return load_body_model(toy_file(tmp_path), keypoint_vertices=range(21))


def test_zero_pose_is_the_template(toy: BodyModel, open_body: BodyModel):
    for model in (toy, open_body):
        vertices, faces = body.vertices(model, BodyParameters())
        np.testing.assert_allclose(vertices, model.v_template, atol=1e-6)
        np.testing.assert_array_equal(faces, model.faces)
        expected = model.J_regressor @ model.v_template
        np.testing.assert_allclose(body.joints(model, BodyParameters()), expected, atol=1e-5)


def test_shape_and_expression_take_their_own_columns(tmp_path: Path):
    path = toy_file(tmp_path)
    directions = np.load(path)["shapedirs"]
    model = load_body_model(path)
    for field, column, first in (("betas", 3, 0), ("expression", 7, 300)):
        one = np.zeros(10, np.float32)
        one[column] = 1.5
        moved = body.vertices(model, dataclasses.replace(BodyParameters(), **{field: one}))[0]
        np.testing.assert_allclose(moved - model.v_template, 1.5 * directions[:, :, first + column], atol=1e-6)


def test_root_turns_about_the_pelvis_and_transl_adds(toy: BodyModel):
    rng = np.random.default_rng(0)
    person = random_people(rng, 1)[0]
    still = dataclasses.replace(person, global_orient=np.zeros(3, np.float32), transl=np.zeros(3, np.float32))
    vertices, _ = body.vertices(toy, still)
    pelvis = body.joints(toy, still)[0]
    assert np.linalg.norm(pelvis) > 0.1  # else this test could not see the centre of the rotation
    rotation = Rotation.from_rotvec(person.global_orient).as_matrix()
    np.testing.assert_allclose(body.vertices(toy, person)[0],
                               (vertices - pelvis) @ rotation.T + pelvis + person.transl, atol=1e-5)


def test_an_elbow_carries_the_forearm_and_nothing_else(open_body: BodyModel):
    elbow, wrist = INDEX("left_elbow"), INDEX("left_wrist")
    pose = np.zeros((55, 3), np.float32)
    pose[elbow] = (0.0, -np.pi / 2, 0.0)  # turns +x (along the arm) to +z (forward)
    rest = body.joints(open_body, BodyParameters())
    posed = body.joints(open_body, BodyParameters(body_pose=pose[1:22].ravel()))
    forearm = rest[wrist] - rest[elbow]
    np.testing.assert_allclose(posed[wrist], rest[elbow] + [-forearm[2], forearm[1], forearm[0]], atol=1e-6)
    assert posed[wrist, 2] > 0.2
    moved = np.linalg.norm(posed - rest, axis=1) > 1e-6
    assert set(np.flatnonzero(moved)) == {wrist, *skeleton.LEFT_HAND}


def test_kinematic_chain_by_hand(toy: BodyModel):
    rng = np.random.default_rng(1)
    rotation = Rotation.random(55, rng).as_matrix().astype(np.float32)
    rest = rng.normal(size=(55, 3)).astype(np.float32)
    expected = np.zeros((55, 4, 4))
    for joint in range(55):  # T_parent_joint: turn about the joint, which hangs off its parent by a bone
        parent = skeleton.PARENTS[joint]
        local = np.eye(4)
        local[:3, :3] = rotation[joint]
        local[:3, 3] = rest[joint] - (rest[parent] if parent >= 0 else 0.0)
        expected[joint] = local if parent < 0 else expected[parent] @ local
    turned, posed = body.chain(rotation, rest)
    np.testing.assert_allclose(posed, expected[:, :3, 3], atol=1e-5)
    np.testing.assert_allclose(turned, expected[:, :3, :3], atol=1e-5)


def test_pose_correctives_follow_the_rotations(tmp_path: Path):
    path = toy_file(tmp_path)
    correctives = np.load(path)["posedirs"]
    with_them = load_body_model(path)
    without = load_body_model(toy_file(tmp_path, drop="posedirs"))
    assert without.posedirs is None
    pose = np.zeros((55, 3), np.float32)
    pose[54] = (0.0, 0.0, 0.5)  # the last joint: its nine numbers are the last nine columns
    change = Rotation.from_rotvec(pose[54]).as_matrix() - np.eye(3)
    shift = correctives[:, :, 477:] @ change.reshape(9)
    expected, _ = body.skin(dataclasses.replace(without.meshes[0], template=shift.astype(np.float32)),
                            body.rotation_matrices(pose), without.joint_template,
                            (without.v_template + shift).astype(np.float32), np.zeros(3, np.float32))
    zeros = np.zeros(3, np.float32)
    got, _ = body.pose_vertices(with_them, pose, np.zeros(10), zeros)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_joints_alone_equal_joints_with_vertices_and_batches_equal_single_people(toy: BodyModel,
                                                                                open_body: BodyModel):
    people = random_people(np.random.default_rng(5), 3)
    for model in (toy, open_body):
        batch = body.joints_of_people(model, people)
        vertices, _ = body.vertices_of_people(model, people)
        for i, p in enumerate(people):
            one, joints = body.pose_vertices(model, p.full_pose(), p.betas, p.transl, p.expression)
            np.testing.assert_allclose(batch[i], joints, atol=1e-5)
            np.testing.assert_allclose(body.joints(model, p), joints, atol=1e-5)
            np.testing.assert_allclose(vertices[i], one, atol=1e-6)
    assert body.joints_of_people(toy, []).shape == (0, 55, 3)
    assert body.vertices_of_people(toy, [])[0].shape == (0, 60, 3)


def test_levels_of_detail_are_the_full_mesh_at_fewer_vertices(open_body: BodyModel):
    person = random_people(np.random.default_rng(6), 1)[0]
    full, _ = body.vertices(open_body, person)
    for level, most in ((1, 2600), (2, 950)):
        reduced, faces = body.vertices(open_body, person, lod=level)
        assert len(reduced) <= most
        np.testing.assert_allclose(reduced, full[open_body.lods[level][0]], atol=1e-6)
        assert faces.max() == len(reduced) - 1
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "the reduced mesh has holes"


def test_a_file_without_levels_of_detail_gives_its_full_mesh(toy: BodyModel):
    assert len(body.vertices(toy, BodyParameters(), lod=2)[0]) == 60
    with pytest.raises(BodyModelError, match=r"level of detail -1; expected 0"):
        body.vertices(toy, BodyParameters(), lod=-1)


def test_the_127_joints_are_joints_vertices_and_face_points(toy: BodyModel):
    person = random_people(np.random.default_rng(7), 1)[0]
    vertices, joints = body.pose_vertices(toy, person.full_pose(), person.betas, person.transl)
    everything = body.all_joints(toy, vertices, joints)
    assert everything.shape == (127, 3)
    assert skeleton.NUM_ALL_JOINTS == 127
    np.testing.assert_array_equal(everything[:55], joints)
    np.testing.assert_array_equal(everything[55:76], vertices[:21])
    np.testing.assert_allclose(everything[80], vertices[toy.landmark_faces[4]].mean(axis=0), atol=1e-6)


def test_fewer_coefficients_are_padded_and_more_are_refused(toy: BodyModel):
    short = np.array([1.0, -1.0], np.float32)
    np.testing.assert_array_equal(body.rest_joints(toy, short), body.rest_joints(toy, np.pad(short, (0, 8))))
    with pytest.raises(BodyModelError, match=r"11 betas given, but body model 'smplx' was loaded with 10"):
        body.rest_joints(toy, np.zeros(11))


@pytest.mark.parametrize("key", ["v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table"])
def test_a_missing_key_is_named(tmp_path: Path, key: str):
    with pytest.raises(BodyModelError, match=rf"toy.npz lacks the key '{key}'; it has .*expected"):
        load_body_model(toy_file(tmp_path, drop=key))


def test_wrong_files_say_what_is_wrong(tmp_path: Path):
    with pytest.raises(BodyModelError, match=r"nowhere.npz does not exist; expected an SMPL-X .npz file"):
        load_body_model(tmp_path / "nowhere.npz")
    whole = toy_file(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BodyModelError, match=r"cut.npz cannot be read .*complete .npz"):
        load_body_model(tmp_path / "cut.npz")
    with pytest.raises(BodyModelError, match=r"weights has shape \(60, 24\); expected \(60, 55\)"):
        load_body_model(toy_file(tmp_path, weights=np.zeros((60, 24))))
    with pytest.raises(BodyModelError, match=r"v_template holds 180 value\(s\) that are NaN"):
        load_body_model(toy_file(tmp_path, v_template=np.full((60, 3), np.nan)))
    with pytest.raises(BodyModelError, match=r"f names vertices up to 60, but there are 60"):
        load_body_model(toy_file(tmp_path, f=np.array([[0, 1, 60]])))
    tree = np.stack([np.array([-1, *range(54)]), np.arange(55)])
    with pytest.raises(BodyModelError, match=r"kintree_table is not the tree of SMPL-X"):
        load_body_model(toy_file(tmp_path, kintree_table=tree))


def test_a_pickled_array_is_refused(tmp_path: Path):
    with pytest.raises(BodyModelError, match=r"cannot be read"):
        load_body_model(toy_file(tmp_path, weights=np.array([{"a": 1}], dtype=object)))
    extra = toy_file(tmp_path, part2num=np.array({"head": 15}, dtype=object))  # official files carry such extras
    assert len(load_body_model(extra).v_template) == 60


def test_the_open_body_is_a_person(open_body: BodyModel):
    joints = {name: open_body.joint_template[i] for i, name in enumerate(skeleton.JOINT_NAMES)}
    assert not open_body.is_smplx and open_body.name == "open_body"
    assert open_body.shapedirs.shape == (13718, 3, 20)
    assert 1.6 < body.standing_height(open_body, np.zeros(10)) < 1.85
    heights = [body.standing_height(open_body, np.array([beta])) for beta in (-2, -1, 0, 1, 2)]
    assert np.all(np.diff(heights) > 0.1) and heights[0] > 1.3 and heights[-1] < 2.2
    assert np.abs(joints["pelvis"]).max() < 2e-3
    assert joints["left_wrist"][0] > joints["left_elbow"][0] > joints["left_shoulder"][0] > 0.1
    assert joints["head"][1] > joints["neck"][1] > joints["spine3"][1] > joints["spine1"][1] > 0.05
    assert joints["left_ankle"][1] < joints["left_knee"][1] - 0.3 < -0.6
    assert joints["left_foot"][2] > joints["left_ankle"][2] + 0.08, "feet point forward (+z)"
    keypoints = body.all_joints(open_body, open_body.v_template, open_body.joint_template)[55:76]
    named = dict(zip(skeleton.KEYPOINT_VERTICES, keypoints, strict=True))
    assert named["nose"][2] == max(p[2] for n, p in named.items() if "toe" not in n)
    for side, sign in (("left", 1), ("right", -1)):
        assert sign * named[f"{side}_ear"][0] > 0.06 and sign * named[f"{side}_big_toe"][0] > 0.05
        assert named[f"{side}_big_toe"][2] > named[f"{side}_heel"][2] + 0.18
        for finger in ("thumb", "index", "middle", "ring", "pinky"):
            last = joints[f"{side}_{finger}3"]
            assert 0.005 < np.linalg.norm(named[f"{side}_{finger}"] - last) < 0.05
    np.testing.assert_allclose(open_body.weights.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(open_body.J_regressor.sum(axis=1), 1.0, atol=1e-5)


def test_the_open_body_is_nearly_mirror_symmetric(open_body: BodyModel):
    left = [i for i, name in enumerate(skeleton.JOINT_NAMES) if name.startswith("left_")]
    right = [INDEX(skeleton.JOINT_NAMES[i].replace("left_", "right_")) for i in left]
    mirrored = open_body.joint_template[right] * [-1.0, 1.0, 1.0]
    np.testing.assert_allclose(open_body.joint_template[left], mirrored, atol=3e-3)


def test_small_file_says_what_it_is():
    assert body.OPEN_BODY_PATH.stat().st_size <= 3_000_000
    with np.load(body.OPEN_BODY_PATH) as file:
        assert bool(file["not_smplx"]) and "CC0-1.0" in str(file["licence"])


def test_the_stand_in_of_the_fixtures_loads():
    model = load_body_model(shared_folder("fixtures/human3r") / "smplx_standin.npz")
    assert model.is_smplx and model.shapedirs.shape == (80, 3, 20) and model.posedirs is not None
