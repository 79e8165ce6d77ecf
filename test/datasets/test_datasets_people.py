"""EMDB, 3DPW and RICH: bodies land where the data set's own joints are, whichever way its matrices point."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_folders import (
    convert,
    look_at,
    opened,
    save_image,
    save_smpl,
    smpl_arrays,
    smpl_joints,
)
from scipy import sparse
from scipy.spatial.transform import Rotation

from human_scene_ros.body.model import OPEN_BODY_PATH, joints, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.datasets.people import find_body_file, gender_of, hand_bases, load_smpl
from human_scene_ros.datasets.rich import _parameters, _world, read_calibration
from human_scene_ros.datasets.safe_pickle import load_npy_dict, load_pickle
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.bag_reader import BagReader

CAMERA = PinholeCamera(96, 128, 90.0, 91.0, 47.0, 63.0)
BETAS = np.linspace(-1.0, 1.0, 10)
ZUP_YUP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def smpl_motion(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (n, 72), translations (n, 3) and joints (n, 24, 3) in a world with y up."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0.0, 0.4, (frames, 72))
    transl = rng.uniform(-0.3, 0.3, (frames, 3)) + [0.0, 1.0, 0.0]
    return pose, transl, np.stack([smpl_joints(p, BETAS, t) for p, t in zip(pose, transl, strict=True)])


def yup_cameras(frames: int) -> np.ndarray:
    """(n, 4, 4) T_world_camera around a person at the origin; y up."""
    return np.stack([look_at(np.array([0.0, 1.0, 0.0]), np.array([3.5 * np.sin(0.2 * i), 1.4, -3.5]),
                             np.array([0.0, 1.0, 0.0])) for i in range(frames)])


# --- pickles ---

class Evil:
    def __reduce__(self):
        return os.system, ("echo executed > /tmp/should_not_exist",)


def test_pickles_that_would_run_code_are_refused(tmp_path: Path):
    evil = tmp_path / "evil.pkl"
    for content in (Evil(), {"a": [Evil()]}, {"poses": np.array([Evil()], object)}):
        evil.write_bytes(pickle.dumps(content))
        with pytest.raises(SourceError, match=r"names (posix|nt)\.system; loading that could run code, so nothing was"):
            load_pickle(evil)
    evil.write_bytes(b"cbuiltins\neval\n(S'1+1'\ntR.")
    with pytest.raises(SourceError, match=r"names builtins\.eval"):
        load_pickle(evil)
    np.save(tmp_path / "evil.npy", {"aria01": Evil()}, allow_pickle=True)
    with pytest.raises(SourceError, match=r"system; loading that could run code"):
        load_npy_dict(tmp_path / "evil.npy")
    assert not Path("/tmp/should_not_exist").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_arrays_come_back(tmp_path: Path, protocol: int):
    content = {"a": np.arange(6.0).reshape(2, 3), "b": [np.float64(1.5), "text", b"\xff"], "c": np.array([True, False]),
               "d": {"e": np.array(["x", "yz"])}, "f": np.asfortranarray(np.arange(4.0).reshape(2, 2))}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    back = load_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(back["a"], content["a"])
    np.testing.assert_array_equal(back["f"], content["f"])
    np.testing.assert_array_equal(back["d"]["e"], content["d"]["e"])
    assert back["b"] == content["b"] and back["c"].tolist() == [True, False]
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    np.testing.assert_array_equal(load_npy_dict(tmp_path / "a.npy")["a"], content["a"])


def test_damaged_pickles_are_named(tmp_path: Path):
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(np.arange(100.0))[:60])
    with pytest.raises(SourceError, match=r"cut\.pkl cannot be read as a pickle of arrays"):
        load_pickle(tmp_path / "cut.pkl")
    np.save(tmp_path / "plain.npy", np.arange(3.0))
    with pytest.raises(SourceError, match=r"holds an array \(3,\) of float64; expected a dict"):
        load_npy_dict(tmp_path / "plain.npy")


@pytest.mark.parametrize("protocol", [0, 2])  # as Python 2 wrote them: copy_reg, and NEWOBJ
def test_official_smpl_pickles_of_chumpy_and_scipy_load_without_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                     protocol: int):
    """The file wraps arrays in chumpy's class and the regressor in a sparse matrix; neither may be needed."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = type("Ch", (), {"__module__": "chumpy.ch", "__init__": lambda self, x: setattr(self, "x", x)})
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    arrays = smpl_arrays()
    content = arrays | {"shapedirs": module.Ch(arrays["shapedirs"]), "v_template": module.Ch(arrays["v_template"]),
                        "J_regressor": sparse.csc_matrix(arrays["J_regressor"])}
    file = tmp_path / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    model = load_smpl(find_body_file(tmp_path, "SMPL", "neutral", "a test"))
    pose, transl, joints_world = smpl_motion(1)
    np.testing.assert_allclose(model.joints(pose[0], BETAS, transl[0]), joints_world[0], atol=1e-9)


def test_genders_and_missing_models_are_told(tmp_path: Path):
    assert [gender_of(g) for g in ("m", b"f", "female", "neutral", "Male")] == [
        "male", "female", "female", "neutral", "male"]
    with pytest.raises(SourceError, match="gender 'x' is not known; expected one of neutral, female, male"):
        gender_of("x")
    with pytest.raises(SourceError, match=r"EMDB stores SMPL parameters; .*--body .*or leave people out with --no-pe"):
        find_body_file(None, "SMPL", "male", "EMDB")
    with pytest.raises(SourceError, match=r"holds no SMPLX_MALE\.npz"):
        find_body_file(tmp_path, "SMPL-X", "male", "RICH")


# --- EMDB ---

def make_emdb(root: Path, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(n, 24, 3) joints and (n, 4, 4) T_world_camera, both with y up."""
    folder = root / "P0" / "09_outdoor_walk"
    pose, transl, joints_world = smpl_motion(frames)
    T_world_camera = yup_cameras(frames)
    for i in range(frames):
        save_image(folder / "images" / f"{i:05d}.jpg", i, CAMERA.width, CAMERA.height)
    kp2d = np.stack([CAMERA.project(apply(invert(T), j)) for T, j in zip(T_world_camera, joints_world, strict=True)])
    content = {
        "gender": "male", "name": "P0_09_outdoor_walk", "emdb1": True, "emdb2": False, "n_frames": frames,
        "good_frames_mask": np.array([i != 2 for i in range(frames)]),
        "camera": {"intrinsics": CAMERA.K, "extrinsics": np.stack([invert(T) for T in T_world_camera]),
                   "width": CAMERA.width, "height": CAMERA.height},
        "smpl": {"poses_root": pose[:, :3], "poses_body": pose[:, 3:], "trans": transl, "betas": BETAS},
        "kp2d": kp2d, "bboxes": {"bboxes": np.zeros((frames, 4)), "invalid_idxs": np.array([2])}}
    (folder / "P0_09_outdoor_walk_data.pkl").write_bytes(pickle.dumps(content))
    return joints_world, T_world_camera


def test_emdb_joints_cameras_and_parameters(tmp_path: Path):
    joints_world, T_world_camera = make_emdb(tmp_path / "EMDB")
    body = save_smpl(tmp_path / "m", "MALE")
    (name, folder), = convert("emdb", tmp_path / "EMDB", tmp_path / "out", body=body).items()
    assert name == "P0_09_outdoor_walk"
    model = load_smpl(tmp_path / "m" / "SMPL_MALE.npz")
    with opened(folder) as bag:
        for i, frame in enumerate(bag):
            truth = bag.truth_at(frame.stamp_ns)
            assert frame.camera == CAMERA
            expected = np.eye(4)
            expected[:3, :3], expected[:3, 3] = ZUP_YUP @ T_world_camera[i][:3, :3], ZUP_YUP @ T_world_camera[i][:3, 3]
            np.testing.assert_allclose(truth.T_world_camera, expected, atol=1e-7)
            assert truth.people_known == (i != 2)  # a bad frame says nothing about people
            if i == 2:
                continue
            (person,) = truth.people
            joints = apply(truth.T_world_camera, person.joints_camera[:22].astype(np.float64))
            np.testing.assert_allclose(joints, joints_world[i][:22] @ ZUP_YUP.T, atol=1e-5)
            assert np.isnan(person.joints_camera[22:]).all()
            assert (person.model_type, person.gender, person.body_model) == (fields_of.MODEL_SMPL, 2, "smpl")
            # The parameters, posed by SMPL in the camera frame, give the same joints.
            p = person.parameters
            pose = np.concatenate([p.global_orient, p.body_pose, p.left_hand_pose[:3], p.right_hand_pose[:3]])
            np.testing.assert_allclose(model.joints(pose, p.betas, p.transl)[:22], person.joints_camera[:22], atol=1e-5)


def test_emdb_refuses_a_model_that_does_not_fall_on_its_keypoints(tmp_path: Path):
    make_emdb(tmp_path / "EMDB")
    folder = save_smpl(tmp_path / "m", "MALE")
    wrong = smpl_arrays() | {"v_template": 2.0 * smpl_arrays()["v_template"]}
    np.savez(folder / "SMPL_MALE.npz", **wrong)
    with pytest.raises(SourceError, match=r"fall \d+\.\d px \(median\) beside the file's own kp2d; is this the SMPL"):
        convert("emdb", tmp_path / "EMDB", tmp_path / "out", body=folder)


def test_emdb_without_a_body_model(tmp_path: Path):
    _, T_world_camera = make_emdb(tmp_path / "EMDB")
    with pytest.raises(SourceError, match=r"EMDB stores SMPL parameters"):
        convert("emdb", tmp_path / "EMDB", tmp_path / "out")
    (folder,) = convert("emdb", tmp_path / "EMDB", tmp_path / "out", people=False, every=2).values()
    with opened(folder) as bag:
        truths = [bag.truth_at(f.stamp_ns) for f in bag]
    assert len(truths) == 2 and not any(t.people_known for t in truths)
    assert np.linalg.norm(truths[1].T_world_camera[:3, 3]) == pytest.approx(np.linalg.norm(T_world_camera[2][:3, 3]))


def test_emdb_names_what_is_missing(tmp_path: Path):
    with pytest.raises(SourceError, match=r"holds no P\*_data\.pkl"):
        convert("emdb", tmp_path, tmp_path / "out")
    make_emdb(tmp_path / "EMDB")
    (tmp_path / "EMDB/P0/09_outdoor_walk/images/00003.jpg").unlink()
    with pytest.raises(SourceError, match=r"images holds 3 images; P0_09_outdoor_walk_data\.pkl says 4"):
        convert("emdb", tmp_path / "EMDB", tmp_path / "out", people=False)
    file = tmp_path / "EMDB/P0/09_outdoor_walk/P0_09_outdoor_walk_data.pkl"
    file.write_bytes(pickle.dumps({"name": "x", "n_frames": 4}))
    with pytest.raises(SourceError, match=r"lacks 'camera'; it holds name, n_frames"):
        convert("emdb", tmp_path / "EMDB", tmp_path / "out", people=False)


# --- 3DPW ---

def make_3dpw(root: Path, frames: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    T_world_camera = yup_cameras(frames)
    people = [smpl_motion(frames, seed) for seed in (1, 2)]
    for i in range(frames):
        save_image(root / "imageFiles/downtown_arguing_00" / f"image_{i:05d}.jpg", i, CAMERA.width, CAMERA.height)
    content = {
        "sequence": "downtown_arguing_00", "genders": ["m", "f"], "betas": [BETAS, np.pad(BETAS, (0, 290))],
        "poses": [p[0] for p in people], "trans": [p[1] for p in people],
        "jointPositions": [p[2].reshape(frames, 72) for p in people], "poses2d": [np.zeros((frames, 3, 18))] * 2,
        "cam_poses": np.stack([invert(T) for T in T_world_camera]), "cam_intrinsics": CAMERA.K,
        "campose_valid": [np.array([1, 1, 0]), np.array([1, 0, 0])]}
    file = root / "sequenceFiles/test/downtown_arguing_00.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(content, 2))
    return [p[2] for p in people], T_world_camera


def test_3dpw_people_need_no_body_model(tmp_path: Path):
    joints_world, T_world_camera = make_3dpw(tmp_path / "3DPW")
    (folder,) = convert("3dpw", tmp_path / "3DPW", tmp_path / "out").values()
    with opened(folder) as bag:
        truths = [bag.truth_at(f.stamp_ns) for f in bag]
    assert truths[2] is None  # its camera pose was not aligned
    for i, ids in ((0, [0, 1]), (1, [0])):
        np.testing.assert_allclose(truths[i].T_world_camera, T_world_camera[i], atol=1e-7)
        assert [p.person_id for p in truths[i].people] == ids and truths[i].people_known
        for person in truths[i].people:
            np.testing.assert_allclose(
                apply(truths[i].T_world_camera, person.joints_camera[:22].astype(np.float64)),
                joints_world[person.person_id][i][:22], atol=1e-5)
            assert person.gender == (2, 1)[person.person_id] and len(person.parameters.betas) == 10
            p = person.parameters
            model = load_smpl(save_smpl(tmp_path / "m") / "SMPL_NEUTRAL.npz")
            pose = np.concatenate([p.global_orient, p.body_pose, p.left_hand_pose[:3], p.right_hand_pose[:3]])
            np.testing.assert_allclose(model.joints(pose, p.betas, p.transl)[:22], person.joints_camera[:22], atol=1e-5)


def test_3dpw_names_what_is_missing(tmp_path: Path):
    make_3dpw(tmp_path / "3DPW")
    (tmp_path / "3DPW/imageFiles").rename(tmp_path / "3DPW/images")
    with pytest.raises(SourceError, match=r"imageFiles is missing beside .*expected imageFiles/downtown_arguing_00/"):
        convert("3dpw", tmp_path / "3DPW", tmp_path / "out")
    with pytest.raises(SourceError, match=r"sequenceFiles holds no SPLIT/SEQ\.pkl"):
        convert("3dpw", tmp_path / "3DPW/images", tmp_path / "out")


# --- RICH ---

FULL = PinholeCamera(4112, 3008, 3200.0, 3210.0, 2060.0, 1500.0)


def opencv_xml(T_camera_world: np.ndarray, distortion: tuple[float, ...] = (0.0,) * 5) -> str:
    def node(name: str, rows: int, columns: int, values: np.ndarray) -> str:
        return (f'<{name} type_id="opencv-matrix"><rows>{rows}</rows><cols>{columns}</cols><dt>d</dt><data>'
                f'{" ".join(f"{v:.12e}" for v in np.ravel(values))}</data></{name}>')

    return ('<?xml version="1.0"?><opencv_storage>' + node("CameraMatrix", 3, 4, T_camera_world[:3])
            + node("Intrinsics", 3, 3, FULL.K) + node("Distortion", len(distortion), 1, np.array(distortion))
            + "</opencv_storage>")


def make_rich(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two cameras, two frames, one person; SMPL-X joints (55, 3), T_multicam_camera of camera 1, T_world_multicam."""
    model, hands = load_body_model(num_betas=10), hand_bases(OPEN_BODY_PATH)
    person = BodyParameters(
        left_hand_pose=hands["hands_meanl"].astype(np.float32), right_hand_pose=hands["hands_meanr"].astype(np.float32),
        global_orient=np.array([3.0, 0.2, 0.1], np.float32),
                            transl=np.array([0.1, 0.4, 4.0], np.float32),
                            body_pose=np.random.default_rng(3).normal(0, 0.2, 63).astype(np.float32),
                            betas=np.linspace(-0.5, 0.5, 10).astype(np.float32))
    T_multicam_camera1 = look_at(np.array([0.0, 0.4, 4.0]), np.array([4.0, 0.0, 4.0]), np.array([0.0, -1.0, 0.0]))
    for camera, T in enumerate((np.eye(4), T_multicam_camera1)):
        path = root / "scan_calibration/BBQ/calibration" / f"{camera:03d}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(opencv_xml(invert(T), (0.01, -0.02, 0.001, 0.002, 0.0) if camera else (0.0,) * 5))
        for number in (5, 6):
            suffix = "jpeg" if camera else "bmp"
            save_image(root / f"images/test/BBQ_001_guitar/cam_{camera:02d}/{number:05d}_{camera:02d}.{suffix}",
                       number, 257, 188)
    for number in (5, 6):
        path = root / f"bodies/test/BBQ_001_guitar/{number:05d}/001.pkl"
        path.parent.mkdir(parents=True)
        content = {name: getattr(person, name)[None] for name in (
            "global_orient", "transl", "body_pose", "betas", "expression", "jaw_pose", "leye_pose", "reye_pose")}
        content |= {"left_hand_pose": np.zeros((1, 12), np.float32), "right_hand_pose": np.zeros((1, 12), np.float32)}
        path.write_bytes(pickle.dumps(content))
    R = Rotation.from_rotvec([1.5, 0.1, 0.0]).as_matrix()
    (root / "multicam2world").mkdir()
    (root / "multicam2world/BBQ_multicam2world.json").write_text(
        json.dumps({"R": R.tolist(), "t": [0.5, 1.0, 2.0], "c": 1.25}))
    (root / "resource").mkdir()
    (root / "resource/gender.json").write_text(json.dumps({"1": "male"}))
    T_world_multicam = np.eye(4)
    T_world_multicam[:3, :3], T_world_multicam[:3, 3] = R.T, np.array([0.5, 1.0, 2.0]) / 1.25
    return joints(model, person), T_multicam_camera1, T_world_multicam


def test_rich_cameras_bodies_and_level_world(tmp_path: Path):
    expected, T_multicam_camera1, T_world_multicam = make_rich(tmp_path / "RICH")
    body = tmp_path / "smplx"
    body.mkdir()
    (body / "SMPLX_MALE.npz").symlink_to(OPEN_BODY_PATH)
    (folder,) = convert("rich", tmp_path / "RICH", tmp_path / "out", body=body).values()
    for camera, T_multicam_camera in (("cam00", np.eye(4)), ("cam01", T_multicam_camera1)):
        with opened(folder, camera) as bag:
            frames = list(bag)
            assert len(frames) == 2
            assert frames[0].camera == FULL.resized(257, 188)  # the calibration is for the full sensor
            truth = bag.truth_at(frames[1].stamp_ns)
        np.testing.assert_allclose(truth.T_world_camera, T_world_multicam @ T_multicam_camera, atol=1e-7)
        (person,) = truth.people
        assert (person.person_id, person.gender) == (1, 2)
        got = apply(T_multicam_camera, person.joints_camera.astype(np.float64))
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert person.valid_parts & fields_of.VALID_LEFT_HAND
    with BagReader(folder) as reader:
        assert reader.topics["/tf_static"].count == 1
        tf = reader.deserialize("/tf_static", reader.first("/tf_static")[1])
        assert [t.child_frame_id for t in tf.transforms] == ["gt_cam00_optical", "gt_cam01_optical"]
        info = reader.deserialize("/cam01/camera_info", reader.first("/cam01/camera_info")[1])
        np.testing.assert_allclose(info.d, [0.01, -0.02, 0.001, 0.002, 0.0])


def test_an_image_that_one_camera_lacks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One camera of several may lack an image: the others are converted, but nobody should have to find out."""
    make_rich(tmp_path / "RICH")
    next((tmp_path / "RICH" / "images").rglob("cam_01/00005_01.jpeg")).unlink()
    (tmp_path / "SMPLX").mkdir()
    (tmp_path / "SMPLX" / "SMPLX_MALE.npz").symlink_to(OPEN_BODY_PATH)
    (folder,) = convert("rich", tmp_path / "RICH", tmp_path / "out", body=tmp_path / "SMPLX").values()
    assert yaml.safe_load((folder / "manifest.yaml").read_text())["missing_images"] == {"cam01": 1}
    assert "1 of cam01 lack an image; was a download interrupted?" in caplog.text


def test_rich_hands_are_components_around_the_mean():
    rng = np.random.default_rng(0)
    bases = {"hands_componentsl": rng.normal(size=(45, 45)), "hands_componentsr": rng.normal(size=(45, 45)),
             "hands_meanl": rng.normal(size=45), "hands_meanr": rng.normal(size=45)}
    person = BodyParameters()
    content = {name: getattr(person, name)[None] for name in (
        "global_orient", "transl", "body_pose", "betas", "expression", "jaw_pose", "leye_pose", "reye_pose")}
    weights = rng.normal(size=12)
    parameters, parts = _parameters(content | {"left_hand_pose": weights[None], "right_hand_pose": np.zeros((1, 12))},
                                    Path("x.pkl"), bases)
    left = bases["hands_meanl"] + weights @ bases["hands_componentsl"][:12]
    np.testing.assert_allclose(parameters.left_hand_pose, left, rtol=1e-5)
    np.testing.assert_allclose(parameters.right_hand_pose, bases["hands_meanr"], rtol=1e-6)
    assert parts & fields_of.VALID_LEFT_HAND and parts & fields_of.VALID_RIGHT_HAND
    _, parts = _parameters(content | {"left_hand_pose": weights[None], "right_hand_pose": np.zeros((1, 45))},
                           Path("x.pkl"), {})  # a model without components: only full rotations mean something
    assert not parts & fields_of.VALID_LEFT_HAND and parts & fields_of.VALID_RIGHT_HAND


@pytest.mark.parametrize(("missing", "complaint"), [
    ("scan_calibration/BBQ/calibration/001.xml", r"001\.xml is missing; expected the calibration of a RICH camera"),
    ("multicam2world/BBQ_multicam2world.json", r"BBQ_multicam2world\.json is missing"),
    ("resource/gender.json", r"gender\.json is missing; copy it from the RICH toolkit"),
])
def test_rich_names_what_is_missing(tmp_path: Path, missing: str, complaint: str):
    make_rich(tmp_path / "RICH")
    (tmp_path / "RICH" / missing).unlink()
    with pytest.raises(SourceError, match=complaint):
        convert("rich", tmp_path / "RICH", tmp_path / "out")


@pytest.mark.parametrize(("sequence", "variant"), [("LectureHall_003_wipingchairs1", "_chair"),
                                                   ("LectureHall_009_021_reparingprojector1", "_chair"),
                                                   ("LectureHall_018_yoga1", "_yoga"), ("ParkingLot2_009", "")])
def test_the_lecture_hall_was_scanned_twice(tmp_path: Path, sequence: str, variant: str):
    scene = sequence.split("_")[0]
    (tmp_path / "multicam2world").mkdir()
    with pytest.raises(SourceError, match=rf"{scene}{variant}_multicam2world\.json is missing"):
        _world(tmp_path, scene, sequence)


def test_rich_needs_the_model_of_the_gender(tmp_path: Path):
    make_rich(tmp_path / "RICH")
    with pytest.raises(SourceError, match=r"RICH stores SMPL-X parameters; joints need the SMPL-X model \(male\)"):
        convert("rich", tmp_path / "RICH", tmp_path / "out")
    (tmp_path / "cut.xml").write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(SourceError, match=r"has 0 numbers in CameraMatrix/data; expected 12"):
        read_calibration(tmp_path / "cut.xml")
