"""EgoHumans, Ego-Exo4D, Pose2Sim and caliscope: several cameras in one recording, each with its own truth."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_folders import convert, look_at, opened, save_image, save_smpl, save_video, smpl_joints
from scipy.spatial.transform import Rotation

from human_scene_ros.datasets.egohumans import metric_pose
from human_scene_ros.datasets.multicam import marker_name, read_trc
from human_scene_ros.datasets.people import COCO_17, NAMED_JOINTS
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.reader import START_NS, open_source

from helpers import shared_folder

FISHEYE = (0.05, -0.01, 0.002, -0.0004)
PEOPLE = np.random.default_rng(5).normal([0.0, 0.0, 1.0], 0.4, (2, 17, 3))
RIG = {name: look_at(np.array([0.0, 0.0, 1.0]), np.array(eye), np.array([0.0, 0.0, 1.0]))
       for name, eye in (("cam01", [4.0, 0.5, 1.8]), ("cam02", [-0.5, 4.0, 1.2]))}


def joints_of(person: fields_of.TruePerson, names: tuple[str, ...] = COCO_17) -> np.ndarray:
    return person.joints_camera[[NAMED_JOINTS[n] for n in names]].astype(np.float64)


# --- EgoHumans ---

def make_egohumans(root: Path) -> np.ndarray:
    """Two placed cameras and one without pose; (4, 4) similarity from the metric world to COLMAP."""
    sequence = root / "01_tagging" / "001_tagging"
    workplace = sequence / "colmap" / "workplace"
    workplace.mkdir(parents=True)
    scale = 0.37
    S_colmap_world = np.eye(4)
    S_colmap_world[:3, :3] = scale * Rotation.from_rotvec([0.4, -1.1, 0.3]).as_matrix()
    S_colmap_world[:3, 3] = [3.0, -2.0, 7.0]
    rows = ["# Image list with two lines of data per image:"]
    for i, (name, T_world_camera) in enumerate(RIG.items(), 1):
        unscaled = S_colmap_world.copy()
        unscaled[:3, :3] /= scale
        T_colmap_camera = unscaled @ T_world_camera
        T_colmap_camera[:3, 3] = apply(S_colmap_world, T_world_camera[:3, 3])
        T_camera_colmap = invert(T_colmap_camera)
        x, y, z, w = Rotation.from_matrix(T_camera_colmap[:3, :3]).as_quat()
        rows += [f"{i} {w} {x} {y} {z} " + " ".join(map(str, T_camera_colmap[:3, 3])) + f" {i} {name}/00001.jpg",
                 "10.0 20.0 -1"]
        for number in (1, 2):
            save_image(sequence / "exo" / name / "images" / f"{number:05d}.jpg", number)
    save_image(sequence / "exo" / "cam03" / "images" / "00001.jpg", 1)
    (workplace / "images.txt").write_text("\n".join(rows) + "\n")
    numbers = " ".join(map(str, (40.0, 41.0, 32.5, 24.5, *FISHEYE)))
    (workplace / "cameras.txt").write_text("# Camera list\n" + "".join(
        f"{i} OPENCV_FISHEYE 64 48 {numbers}\n" for i in (1, 2)))
    (workplace / "colmap_from_aria_transforms.pkl").write_bytes(
        pickle.dumps({"aria01": S_colmap_world, "aria02": np.eye(4)}))
    for folder in ("poses3d", "refine_poses3d"):
        (sequence / "processed_data" / folder).mkdir(parents=True)
    confidence = np.ones((17, 1))
    confidence[3] = 0.0  # an ear that was not triangulated
    people = {f"aria{k + 1:02d}": np.hstack([PEOPLE[k], confidence]) for k in range(2)}
    np.save(sequence / "processed_data/refine_poses3d/00001.npy", people, allow_pickle=True)
    np.save(sequence / "processed_data/poses3d/00001.npy", {"aria01": np.zeros((17, 4))}, allow_pickle=True)
    return S_colmap_world


def test_egohumans_is_metric_and_every_camera_sees_the_same_people(tmp_path: Path):
    make_egohumans(tmp_path / "data")
    (folder,) = convert("egohumans", tmp_path / "data", tmp_path / "out").values()
    for name, T_world_camera in RIG.items():
        with opened(folder, name) as bag:
            frames = list(bag)
            assert [f.stamp_ns for f in frames] == [START_NS, START_NS + 50_000_000]  # 20 fps from image 00001
            assert frames[0].camera == PinholeCamera(64, 48, 40.0, 41.0, 32.0, 24.0)  # COLMAP's half pixel
            first, second = (bag.truth_at(f.stamp_ns) for f in frames)
        np.testing.assert_allclose(first.T_world_camera, T_world_camera, atol=1e-7)
        assert not second.people_known  # no poses of the second image
        for person in first.people:
            assert (person.valid_parts, person.body_model) == (0, "")
            got = apply(first.T_world_camera, joints_of(person))
            np.testing.assert_allclose(np.delete(got, 3, 0), np.delete(PEOPLE[person.person_id], 3, 0), atol=1e-5)
            assert np.isnan(got[3]).all() and np.isnan(person.joints_camera[15]).all()
        assert [p.person_id for p in first.people] == [0, 1]
        for person in first.people:  # their heads can be looked for: the face stands in for the joint
            nose = first.camera.project(joints_of(person)[0])
            assert person.head_visible == bool(((nose >= 0) & (nose < [64, 48])).all())
    with BagReader(folder) as reader:
        assert "/cam03/image_raw/compressed" not in reader.topics
        info = reader.deserialize("/cam02/camera_info", reader.first("/cam02/camera_info")[1])
        assert info.distortion_model == "equidistant"
        np.testing.assert_allclose(info.d, FISHEYE)
        bodies = reader.deserialize("/gt/cam01/bodies", reader.first("/gt/cam01/bodies")[1])
        assert bodies.camera_name == "cam01" and bodies.bodies[0].pelvis.covariance[0] == -1
        assert bodies.bodies[0].joint_set == 3 and bodies.bodies[0].joint_confidence.sum() == 16


def test_egohumans_with_smpl_gives_parameters(tmp_path: Path):
    make_egohumans(tmp_path / "data")
    folder = tmp_path / "data/01_tagging/001_tagging/processed_data/smpl"
    folder.mkdir()
    pose, betas = np.random.default_rng(2).normal(0, 0.3, 72), np.linspace(-1, 1, 10)
    np.save(folder / "00001.npy", {"aria01": {"global_orient": pose[:3], "body_pose": pose[3:], "betas": betas,
                                              "transl": np.array([0.0, 0.0, 1.0])}}, allow_pickle=True)
    (out,) = convert("egohumans", tmp_path / "data", tmp_path / "out", body=save_smpl(tmp_path / "m")).values()
    with opened(out, "cam02") as bag:
        truth = bag.truth_at(START_NS)
    (person,) = truth.people
    np.testing.assert_allclose(apply(truth.T_world_camera, person.joints_camera[:22].astype(np.float64)),
                               smpl_joints(pose, betas, np.array([0.0, 0.0, 1.0]))[:22], atol=1e-5)
    assert person.model_type == fields_of.MODEL_SMPL


def test_a_transform_with_shear_is_no_similarity():
    with pytest.raises(SourceError, match="is no rotation with one scale"):
        metric_pose(np.eye(4), np.diag([1.0, 2.0, 1.0, 1.0]))


# --- Ego-Exo4D ---

HEADER = ("cam_uid,graph_uid,tx_world_cam,ty_world_cam,tz_world_cam,qx_world_cam,qy_world_cam,qz_world_cam,"
          "qw_world_cam,image_width,image_height,intrinsics_type," + ",".join(f"intrinsics_{i}" for i in range(8))
          + ",start_frame_idx,end_frame_idx,quality")
UID = "02715c86-e30c-4791-92b7-38b488e51aba"


def make_egoexo4d(root: Path) -> PinholeCamera:
    """Two cameras (one only down-scaled), one not localised; joints annotated in frame 2 of 4."""
    camera = PinholeCamera(3840, 2160, 1761.0, 1762.0, 1920.0, 1080.0)
    take = root / "takes" / "cmu_bike01_2"
    rows = [HEADER]
    for name, T in {**RIG, "cam03": np.eye(4)}.items():
        quat_xyzw = Rotation.from_matrix(T[:3, :3]).as_quat()
        rows.append(",".join(map(str, (name, "g", *T[:3, 3], *quat_xyzw, 3840, 2160, "KANNALABRANDTK3", camera.fx,
                                       camera.fy, camera.cx, camera.cy, *FISHEYE, -1, -1, int(name != "cam03")))))
    (take / "trajectory").mkdir(parents=True)
    (take / "trajectory/gopro_calibs.csv").write_text("\n".join(rows) + "\n")
    save_video(take / "frame_aligned_videos/cam01.mp4", 4, 192, 108)
    save_video(take / "frame_aligned_videos/downscaled/448/cam02.mp4", 4, 96, 54)
    (root / "takes.json").write_text(json.dumps([{"take_uid": UID, "take_name": "cmu_bike01_2"}]))
    annotation = root / f"annotations/ego_pose/val/body/annotation/{UID}.json"
    annotation.parent.mkdir(parents=True)
    names = [n.replace("_", "-") for n in COCO_17[:12]]  # hips to ankles of one side were not triangulated
    annotation.write_text(json.dumps({"2": [{"annotation3D": {
        n: {"x": p[0], "y": p[1], "z": p[2], "num_views_for_3d": 3} for n, p in zip(names, PEOPLE[0], strict=False)},
        "annotation2D": {}}], "3": []}))
    return camera


def test_egoexo4d_videos_calibration_and_annotated_frames(tmp_path: Path):
    camera = make_egoexo4d(tmp_path / "egoexo")
    (folder,) = convert("egoexo4d", tmp_path / "egoexo", tmp_path / "out").values()
    for name, size in (("cam01", (192, 108)), ("cam02", (96, 54))):
        with opened(folder, name) as bag:
            frames = list(bag)
            truths = [bag.truth_at(f.stamp_ns) for f in frames]
        assert len(frames) == 4 and frames[0].camera == camera.resized(*size)
        assert [t.people_known for t in truths] == [False, False, True, False]
        np.testing.assert_allclose(truths[2].T_world_camera, RIG[name], atol=1e-7)
        (person,) = truths[2].people
        got = apply(truths[2].T_world_camera, joints_of(person))
        np.testing.assert_allclose(got[:12], PEOPLE[0][:12], atol=1e-5)
        assert np.isnan(got[12:]).all()
    only = convert("egoexo4d", tmp_path / "egoexo", tmp_path / "only", only_people=True)["cmu_bike01_2"]
    with BagReader(only) as reader:
        assert reader.topics["/cam01/image_raw/compressed"].count == 1


def test_equidistant_info_undistorts_to_the_pinhole_of_the_truth(tmp_path: Path):
    """A dot drawn where the fish-eye sees a joint must lie, once a reader has undistorted, where the truth projects."""
    make_egohumans(tmp_path / "data")
    images = tmp_path / "data/01_tagging/001_tagging/exo/cam01/images"
    K = np.array([[40.0, 0, 32.0], [0, 41.0, 24.0], [0, 0, 1.0]])
    joint = np.array([1.4, 0.7, 3.0])  # far from the optical axis, in the camera frame
    people = {"aria01": np.tile(np.append(apply(RIG["cam01"], joint), 1.0), (17, 1))}
    np.save(images.parents[2] / "processed_data/refine_poses3d/00001.npy", people, allow_pickle=True)
    u, v = cv2.fisheye.distortPoints((joint[:2] / joint[2]).reshape(1, 1, 2), K, np.array(FISHEYE))[0, 0]
    assert np.hypot(u - (K @ joint)[0] / joint[2], v - (K @ joint)[1] / joint[2]) > 1.0
    grid_v, grid_u = np.mgrid[:48, :64]
    dot = 250.0 * np.exp(-((grid_u - u) ** 2 + (grid_v - v) ** 2) / 4.0)
    cv2.imwrite(str(images / "00001.jpg"), np.repeat(dot[..., None], 3, 2).astype(np.uint8),
                [cv2.IMWRITE_JPEG_QUALITY, 100])
    (folder,) = convert("egohumans", tmp_path / "data", tmp_path / "out").values()
    with opened(folder, "cam01") as bag:
        frame = next(iter(bag))
        truth = bag.truth_at(frame.stamp_ns)
    weight = np.where(frame.image[..., 0] > 20, frame.image[..., 0].astype(float), 0.0)
    centre = np.array([(weight * grid_u).sum(), (weight * grid_v).sum()]) / weight.sum()
    nose = truth.people[0].joints_camera[NAMED_JOINTS["nose"]].astype(np.float64)
    assert np.abs(centre - truth.camera.project(nose)).max() < 0.35


# --- Pose2Sim ---

def toml_of(cameras: dict[str, np.ndarray], camera: PinholeCamera, matrix: bool) -> str:
    lines = []
    for name, T_world_camera in cameras.items():
        T = invert(T_world_camera)
        rotation = T[:3, :3].tolist() if matrix else Rotation.from_matrix(T[:3, :3]).as_rotvec().tolist()
        lines += [f"[{name}]", f'name = "{name.split(".")[-1]}"', f"size = [ {camera.width}.0, {camera.height}.0]",
                  f"matrix = {camera.K.tolist()}", "distortions = [ 0.01, -0.02, 0.0, 0.0]", f"rotation = {rotation}",
                  f"translation = {T[:3, 3].tolist()}", "fisheye = false", ""]
    return "\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0"])


def trc_of(names: list[str], points: np.ndarray) -> str:
    """TRC of (frames, markers, 3) points of a z-up world: the file is y up."""
    head = ["PathFileType\t4\t(X/Y/Z)\tx.trc",
            "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
            f"60\t60\t{len(points)}\t{len(names)}\tm\t60\t1\t{len(points)}",
            "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
            "\t\t" + "\t".join(f"{a}{i + 1}" for i in range(len(names)) for a in "XYZ"), ]
    rows = [f"{i + 1}\t{i / 60}\t" + "\t".join(f"{v:.8f}" for v in p[:, [1, 2, 0]].ravel())
            for i, p in enumerate(points)]
    return "\n".join(head + rows) + "\n"


def test_pose2sim_layout_of_its_project_folder(tmp_path: Path):
    camera = PinholeCamera(192, 108, 150.0, 150.0, 95.5, 53.5)
    session = tmp_path / "S00"
    (session / "calibration").mkdir(parents=True)
    (session / "pose-3d").mkdir()
    (session / "calibration/Calib_scene.toml").write_text(toml_of({"int_cam1_img": RIG["cam01"],
                                                                   "int_cam2_img": RIG["cam02"]}, camera, False))
    for i in (1, 2):
        save_video(session / f"videos/cam{i}.mp4", 3, 96, 54, 60.0)  # half the calibrated size
    names = ["Hip", "RHip", "LWrist", "Head", "Nose"]
    points = np.random.default_rng(1).normal([0, 0, 1.0], 0.3, (2, 5, 3))
    (session / "pose-3d/S00_0-3.trc").write_text(trc_of(names, points + 1.0))
    (session / "pose-3d/S00_0-3_filt_butterworth.trc").write_text(trc_of(names, points))  # the better one
    (folder,) = convert("pose2sim", session, tmp_path / "out").values()
    with opened(folder, "cam02") as bag:
        frames = list(bag)
        truths = [bag.truth_at(f.stamp_ns) for f in frames]
    assert frames[0].camera == camera.resized(96, 54)
    assert [t.people_known for t in truths] == [False, True, True]  # the file begins at frame 1
    np.testing.assert_allclose(truths[1].T_world_camera, RIG["cam02"], atol=1e-6)
    (person,) = truths[2].people
    got = apply(truths[2].T_world_camera, joints_of(person, ("pelvis", "right_hip", "left_wrist", "nose")))
    np.testing.assert_allclose(got, points[1][[0, 1, 2, 4]], atol=1e-5)
    assert np.isfinite(person.joints_camera).all(axis=1).sum() == 4  # the top of the head is no joint of SMPL-X


@pytest.mark.parametrize(("marker", "name"), [("LBigToe", "left_big_toe"), ("RElbow", "right_elbow"), ("Head", ""),
                                              ("Neck", "neck"), ("CHip", "pelvis"), ("Lurch", ""),
                                              ("REye", "right_eye")])
def test_markers_find_their_joint(marker: str, name: str):
    assert marker_name(marker) == name and (not name or name in NAMED_JOINTS)


def test_real_pose2sim_session_falls_on_the_detections(tmp_path: Path):
    source = shared_folder("data/multicam_pose2sim_single")
    (folder,) = convert("pose2sim", source, tmp_path / "out", every=25, limit=3).values()
    reference = np.load(source / "reference.npz")
    names, points, first = read_trc(source / "upstream_pose3d.trc")
    assert first == 0 and list(names) == reference["joint_names_21"].tolist()
    np.testing.assert_allclose(points, reference["upstream_3d"], atol=1e-6)
    detected = [marker_name(str(n)) for n in reference["joint_names_25"]]
    for k, limit_px in enumerate((9.0, 6.0, 9.5, 6.5)):  # DATA.md: 14.6, 8.5, 18.2, 10.3 px at twice the size
        with opened(folder, f"cam{k + 1:02d}") as bag:
            errors = []
            for i, frame in enumerate(bag):
                truth = bag.truth_at(frame.stamp_ns)
                (person,) = truth.people
                for j, name in enumerate(detected):
                    joint = person.joints_camera[NAMED_JOINTS[name]] if name else np.full(3, np.nan)
                    uv = truth.camera.project(joint.astype(np.float64))
                    errors.append(np.linalg.norm(uv - reference["openpose_2d"][k, 25 * i, j, :2]))
        assert np.isfinite(errors).sum() >= 54 and np.nanmedian(errors) < limit_px


def test_pose2sim_names_what_is_missing(tmp_path: Path):
    (tmp_path / "S").mkdir()
    with pytest.raises(SourceError, match=r"Calib_\*\.toml is missing, also in calibration/"):
        convert("pose2sim", tmp_path / "S", tmp_path / "out")
    camera = PinholeCamera(96, 54, 80.0, 80.0, 48.0, 27.0)
    (tmp_path / "S/Calib_a.toml").write_text(toml_of({"cam_01": RIG["cam01"], "cam_02": RIG["cam02"]}, camera, False))
    save_video(tmp_path / "S/cam01.mp4", 1, 96, 54)
    with pytest.raises(SourceError, match=r"has no video of camera cam_02 .*number 2 last in its name, found cam01"):
        convert("pose2sim", tmp_path / "S", tmp_path / "out")
    (tmp_path / "S/cam02.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"cam02\.mp4 is no video that can be decoded"):
        convert("pose2sim", tmp_path / "S", tmp_path / "out")


# --- caliscope ---

def test_real_caliscope_session_triangulates_its_board(tmp_path: Path):
    """Stamps are the arrival times; corners of the board, undistorted, meet within millimetres in the common world."""
    source = shared_folder("data/multicam_caliscope_a")
    reference = np.load(source / "reference.npz")
    session = tmp_path / "session"
    session.mkdir()
    for path in source.iterdir():
        if path.suffix in (".mp4", ".toml"):
            (session / path.name).symlink_to(path)
    with (session / "frame_time_history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sync_index", "port", "frame_index", "frame_time"])
        for (port, k), time_s in np.ndenumerate(reference["frame_time_s"]):
            writer.writerow([k, port, 3 * k + port, f"{time_s:.9f}"])
    (folder,) = convert("caliscope", session, tmp_path / "out", every=37, limit=2).values()
    rays, poses, cameras = {}, {}, {}
    for port in range(4):
        with open_source(folder, f"/cam{port:02d}/image_raw") as bag:
            frames = list(bag)
            truth = bag.truth_at(frames[0].stamp_ns)
        np.testing.assert_array_equal([f.stamp_ns for f in frames],
                                      np.rint(reference["frame_time_s"][port, :38:37] * 1e9).astype(np.int64))
        assert frames[0].image.shape == (360, 640, 3) and not truth.people_known
        poses[port], cameras[port] = truth.T_world_camera, frames[0].camera
    with BagReader(folder) as reader:
        for port in range(4):
            info = reader.deserialize(f"/cam{port:02d}/camera_info", reader.first(f"/cam{port:02d}/camera_info")[1])
            for k in range(0, 111, 5):
                uv = reference["charuco_2d"][port, k].astype(np.float64)
                seen = np.isfinite(uv).all(axis=1)
                if seen.any():
                    xy = cv2.undistortPoints(uv[seen].reshape(-1, 1, 2), cameras[port].K, info.d)[:, 0]
                    rays[port, k] = seen, xy
    errors = []
    for (port, k), (seen, xy) in rays.items():
        points = reference["charuco_3d"][k][seen].astype(np.float64)
        camera_points = apply(invert(poses[port]), points)
        errors += list(np.linalg.norm(camera_points[:, :2] / camera_points[:, 2:] - xy, axis=1))
    errors = [e for e in errors if np.isfinite(e)]
    assert len(errors) > 300 and np.median(errors) < 0.004  # about two pixels


def test_caliscope_layouts_and_what_is_missing(tmp_path: Path):
    camera = PinholeCamera(96, 54, 80.0, 80.0, 48.0, 27.0)
    text = toml_of({"cameras.0": RIG["cam01"], "cameras.1": RIG["cam02"]}, camera, True)
    (tmp_path / "camera_array.toml").write_text(text)
    session = tmp_path / "recording_1"  # recordings lie below the calibration
    save_video(session / "port_0.mp4", 2, 96, 54, 6.0)
    with pytest.raises(SourceError, match=r"port_1\.mp4 \(or cam_1\.mp4\) is missing; camera_array\.toml has camera 1"):
        convert("caliscope", session, tmp_path / "out")
    save_video(session / "port_1.mp4", 2, 96, 54, 6.0)
    (folder,) = convert("caliscope", session, tmp_path / "out").values()
    with opened(folder, "cam01") as bag:
        stamps = [f.stamp_ns for f in bag]
        np.testing.assert_allclose(bag.truth_at(stamps[0]).T_world_camera, RIG["cam02"], atol=1e-7)
    assert stamps == [START_NS, START_NS + round(1e9 / 6)]
    (tmp_path / "camera_array.toml").write_text(text + "\n[")
    with pytest.raises(SourceError, match=r"camera_array\.toml is no TOML"):
        convert("caliscope", session, tmp_path / "other")


@pytest.mark.parametrize(("name", "missing", "complaint"), [
    ("egohumans", "01_tagging/001_tagging/colmap/workplace/cameras.txt", r"cameras\.txt is missing; expected COLMAP"),
    ("egohumans", "01_tagging/001_tagging/colmap/workplace/colmap_from_aria_transforms.pkl", "_transforms.pkl is miss"),
    ("egoexo4d", "takes.json", r"takes\.json is missing"),
    ("egoexo4d", "takes/cmu_bike01_2/trajectory/gopro_calibs.csv", r"gopro_calibs\.csv is missing"),
    ("egoexo4d", f"annotations/ego_pose/val/body/annotation/{UID}.json", rf"{UID}\.json is missing \(take cmu_bike"),
])
def test_the_missing_file_of_a_rig_is_named(tmp_path: Path, name: str, missing: str, complaint: str):
    {"egohumans": make_egohumans, "egoexo4d": make_egoexo4d}[name](tmp_path / "data")
    (tmp_path / "data" / missing).unlink()
    with pytest.raises(SourceError, match=complaint):
        convert(name, tmp_path / "data", tmp_path / "out")
