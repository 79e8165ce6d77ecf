"""TUM, Bonn, 7-Scenes, plain RGB-D folders and Sintel: poses, depth scales, stamps, and files that are missing."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_folders import camera_pose, convert, opened, picture, save_depth, save_image, wall_depth, wall_error
from scipy.spatial.transform import Rotation

from human_scene_ros.datasets import rgbd
from human_scene_ros.datasets.sintel import read_cam, read_dpt
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.image_codec import decode_depth_message
from human_scene_ros.sources.reader import START_NS

from helpers import shared_folder

SECOND = 1_000_000_000


def tum_row(stamp: str, T_world_camera: np.ndarray) -> str:
    quat_xyzw = Rotation.from_matrix(T_world_camera[:3, :3]).as_quat()
    return f"{stamp} " + " ".join(f"{v:.9f}" for v in (*T_world_camera[:3, 3], *quat_xyzw))


def make_tum(folder: Path, camera: PinholeCamera, frames: int = 4) -> list[str]:
    """Depth 8 ms after each colour image; the last one 25 ms after, which is too late; poses at 100 Hz."""
    stamps = [f"{1341846647.734 + 0.033334 * i:.6f}" for i in range(frames)]
    rgb, depth, truth = ["# color images"], ["# depth maps"], ["# timestamp tx ty tz qx qy qz qw"]
    for i, stamp in enumerate(stamps):
        save_image(folder / "rgb" / f"{stamp}.png", i, 640, 480)
        rgb.append(f"{stamp} rgb/{stamp}.png")
        late = f"{float(stamp) + (0.025 if i == frames - 1 else 0.008):.6f}"
        save_depth(folder / "depth" / f"{late}.png", wall_depth(camera, camera_pose(i)), 5000.0)
        depth.append(f"{late} depth/{late}.png")
        truth += [tum_row(f"{float(stamp) + 0.01 * k + 0.002:.4f}", camera_pose(i)) for k in (-1, 0, 1)]
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return stamps


def test_streams_are_joined_one_to_one_nearest_first_within_the_gap():
    ms = 1_000_000
    assert rgbd.associate([0, 30 * ms], [5 * ms, 29 * ms]) == {0: 0, 1: 1}
    assert rgbd.associate([0, 10 * ms], [9 * ms]) == {1: 0}  # both are near, the nearer one gets it
    assert rgbd.associate([0], [20 * ms]) == {0: 0}
    assert rgbd.associate([0], [20 * ms + 1]) == {}


def test_tum_depth_pose_and_intrinsics_belong_together(tmp_path: Path):
    source = tmp_path / "rgbd_dataset_freiburg3_walking_xyz"
    stamps = make_tum(source, rgbd.TUM_CAMERAS["freiburg3"].camera)
    (folder,) = convert("tum", source, tmp_path / "out").values()
    with opened(folder) as bag:
        frames = list(bag)
        assert [f.stamp_ns for f in frames] == [round(float(s[:10])) * SECOND + int(s[11:]) * 1000 for s in stamps]
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(i, 640, 480))  # PNG files are kept as they are
            truth = bag.truth_at(frame.stamp_ns)
            assert truth is not None and not truth.people_known and truth.camera == frame.camera
            np.testing.assert_allclose(truth.T_world_camera, camera_pose(i), atol=1e-7)
            if i == 3:
                assert truth.depth_m is None
            else:
                assert wall_error(truth.depth_m, truth.camera, truth.T_world_camera) < 2e-4  # 1/5000 m, not 1 mm
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    assert manifest["dataset"] == "tum" and manifest["images_without_depth"] == 1 and manifest["with_people"] == 0
    with BagReader(folder) as reader:
        assert {"/gt/bodies", "/tf_static"}.isdisjoint(reader.topics) and reader.topics["/tf"].count == 4


def test_an_image_without_pose_has_no_truth(tmp_path: Path):
    source = tmp_path / "rgbd_dataset_freiburg3_sitting"
    make_tum(source, rgbd.TUM_CAMERAS["freiburg3"].camera, 2)
    lines = (source / "groundtruth.txt").read_text().splitlines()
    (source / "groundtruth.txt").write_text("\n".join(lines[:4]))  # poses of the first image alone
    (folder,) = convert("tum", source, tmp_path / "out").values()
    with opened(folder) as bag:
        first, second = (f.stamp_ns for f in bag)
        assert bag.truth_at(first) is not None and bag.truth_at(second) is None


def test_bonn_images_are_undistorted_and_so_is_its_depth(tmp_path: Path):
    source = tmp_path / "rgbd_bonn_balloon2"
    make_tum(source, rgbd.BONN_CAMERA.camera, 2)
    (folder,) = convert("bonn", source, tmp_path / "out").values()
    with BagReader(folder) as reader:
        info = reader.deserialize("/camera/camera_info", reader.first("/camera/camera_info")[1])
        assert info.distortion_model == "plumb_bob"
        np.testing.assert_allclose(info.d, [0.039903, -0.099343, -0.00073, -0.000144, 0.0])
        depth = decode_depth_message(reader.deserialize("/gt/depth", reader.first("/gt/depth")[1]))
    stored = wall_depth(rgbd.BONN_CAMERA.camera, camera_pose(0)).astype(np.float32)
    np.testing.assert_allclose(depth, rgbd.BONN_CAMERA.undistorted(stored, nearest=True), atol=2e-4)
    with opened(folder) as bag:
        frame = next(iter(bag))
        assert frame.camera == rgbd.BONN_CAMERA.camera and bag.truth_at(frame.stamp_ns).camera == frame.camera


def test_seven_scenes_names_an_image_that_is_missing_between_others(tmp_path: Path):
    for k in range(3):
        stem = tmp_path / "seq-01" / f"frame-{k:06d}"
        if k != 1:
            save_image(Path(f"{stem}.color.png"), k)
        Path(f"{stem}.depth.png").touch()
        Path(f"{stem}.pose.txt").touch()
    with pytest.raises(SourceError, match=r"frame-000001\.color\.png is missing; .*the image of frame-000001\.pose"):
        convert("7scenes", tmp_path, tmp_path / "out")


def test_seven_scenes_holes_are_holes_and_failed_poses_have_no_truth(tmp_path: Path):
    source = tmp_path / "chess" / "seq-01"
    camera = rgbd.SEVEN_SCENES_CAMERA.camera
    for i in range(3):
        stem = source / f"frame-{i:06d}"
        save_image(Path(f"{stem}.color.png"), i, 640, 480)
        depth_m = wall_depth(camera, camera_pose(i))
        depth_m[:10] = 65.535
        depth_m[10:20] = 0.0
        save_depth(Path(f"{stem}.depth.png"), depth_m, 1000.0)
        pose = camera_pose(i) if i < 2 else np.full((4, 4), np.nan)
        Path(f"{stem}.pose.txt").write_text("\n".join("\t".join(f"{v:.9e}" for v in row) for row in pose))
    (name, folder), = convert("7scenes", source, tmp_path / "out").items()
    assert name == "chess_seq-01"
    with opened(folder) as bag:
        frames = list(bag)
        assert [f.stamp_ns for f in frames] == [START_NS + round(i * SECOND / 30) for i in range(3)]
        for i in range(2):
            truth = bag.truth_at(frames[i].stamp_ns)
            assert truth.people_known and truth.people == ()  # the scenes are empty: every detection is false
            assert not truth.depth_m[:20].any() and truth.depth_m[20:].all()
            assert wall_error(truth.depth_m, truth.camera, truth.T_world_camera) < 6e-4
        assert bag.truth_at(frames[2].stamp_ns) is None


def test_real_rgbd_folder(tmp_path: Path):
    source = shared_folder("data/rgbd_kitchen_a")
    (folder,) = convert("7scenes", source, tmp_path / "out", every=10).values()
    rows = np.loadtxt(source / "groundtruth.tum")[::10]
    with opened(folder) as bag:
        frames = list(bag)
        truths = [bag.truth_at(f.stamp_ns) for f in frames]
    assert len(frames) == len(rows)
    np.testing.assert_allclose([(f.stamp_ns - START_NS) * 1e-9 for f in frames], rows[:, 0], atol=1e-9)
    np.testing.assert_allclose([t.T_world_camera[:3, 3] for t in truths], rows[:, 1:4], atol=1e-9)
    np.testing.assert_allclose([Rotation.from_matrix(t.T_world_camera[:3, :3]).as_quat(canonical=True) for t in truths],
                               Rotation.from_quat(rows[:, 4:]).as_quat(canonical=True), atol=1e-7)
    assert frames[0].camera == PinholeCamera(640, 480, 585.0, 585.0, 320.0, 240.0)
    # Points of one image fall on the surface that another image measured: pose direction, K and depth scale at once.
    first, other = truths[0], truths[1]
    points = first.camera.unproject_depth(first.depth_m)[::8, ::8].reshape(-1, 3).astype(np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    T_other_first = invert(other.T_world_camera) @ first.T_world_camera
    points = points @ T_other_first[:3, :3].T + T_other_first[:3, 3]
    uv = np.rint(other.camera.project(points))
    inside = ((uv >= 0) & (uv < [640, 480])).all(axis=1)
    measured = other.depth_m[uv[inside, 1].astype(int), uv[inside, 0].astype(int)]
    gaps = np.abs(measured - points[inside, 2])[measured > 0]
    assert len(gaps) > 500 and np.median(gaps) < 0.03


def make_sintel(root: Path, name: str = "alley_2", frames: int = 2) -> PinholeCamera:
    camera = PinholeCamera(96, 64, 110.0, 110.0, 47.5, 31.5)
    for i in range(frames):
        stem = f"frame_{i + 1:04d}"
        save_image(root / "training/final" / name / f"{stem}.png", i, 96, 64)
        depth = wall_depth(camera, camera_pose(i)).astype("<f4")
        path = root / "training/depth" / name / f"{stem}.dpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<fii", 202021.25, 96, 64) + depth.tobytes())
        path = root / "training/camdata_left" / name / f"{stem}.cam"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<f", 202021.25) + camera.K.astype("<f8").tobytes()
                         + invert(camera_pose(i))[:3].astype("<f8").tobytes())
    return camera


def test_sintel_cameras_map_world_to_camera_and_depth_is_exact(tmp_path: Path):
    camera = make_sintel(tmp_path / "MPI-Sintel")
    (folder,) = convert("sintel", tmp_path / "MPI-Sintel", tmp_path / "out").values()
    with opened(folder) as bag:
        for i, frame in enumerate(bag):
            truth = bag.truth_at(frame.stamp_ns)
            assert truth.camera == camera and not truth.people_known
            np.testing.assert_allclose(truth.T_world_camera, camera_pose(i), atol=1e-12)
            assert wall_error(truth.depth_m, camera, truth.T_world_camera) < 1e-5


def test_depth_beyond_65_metres_survives(tmp_path: Path):
    make_sintel(tmp_path, frames=1)
    path = tmp_path / "training/depth/alley_2/frame_0001.dpt"
    path.write_bytes(struct.pack("<fii", 202021.25, 96, 64) + np.full((64, 96), 69.25, "<f4").tobytes())
    (folder,) = convert("sintel", tmp_path, tmp_path / "out").values()
    with opened(folder) as bag:
        assert (bag.truth_at(next(iter(bag)).stamp_ns).depth_m == np.float32(69.25)).all()


@pytest.mark.parametrize(("name", "missing", "complaint"), [
    ("tum", "depth.txt", r"depth\.txt is missing; expected rows 'stamp file' of the depth"),
    ("tum", "groundtruth.txt", r"groundtruth\.txt is missing"),
    ("sintel", "training/camdata_left/alley_2/frame_0002.cam", r"frame_0002\.cam is missing; .*MPI-Sintel-depth"),
    ("sintel", "training/depth/alley_2/frame_0001.dpt", r"frame_0001\.dpt is missing"),
    ("sintel", "training/final/alley_2/frame_0001.png", r"frame_0001\.png is missing; .*the image of frame_0001\.cam"),
])
def test_the_missing_file_is_named_before_anything_is_written(tmp_path: Path, name: str, missing: str, complaint: str):
    source = tmp_path / "rgbd_dataset_freiburg3_x"
    if name == "tum":
        make_tum(source, rgbd.TUM_CAMERAS["freiburg3"].camera, 1)
    else:
        make_sintel(source)
    (source / missing).unlink()
    with pytest.raises(SourceError, match=complaint):
        convert(name, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_lie_are_refused(tmp_path: Path):
    make_sintel(tmp_path, frames=1)
    cam, dpt = tmp_path / "training/camdata_left/alley_2/frame_0001.cam", tmp_path / "cut.dpt"
    dpt.write_bytes(struct.pack("<fii", 202021.25, 96, 64) + b"1234")
    with pytest.raises(SourceError, match="declares 96x64 depths in 16 bytes"):
        read_dpt(dpt)
    cam.write_bytes(b"\0" * 172)
    with pytest.raises(SourceError, match="does not begin with the tag 202021.25"):
        read_cam(cam)
    other = tmp_path / "rgbd_dataset_somewhere"
    make_tum(other, rgbd.TUM_CAMERAS["freiburg3"].camera, 1)
    with pytest.raises(SourceError, match="does not say which camera it is from; .*freiburg1, freiburg2, freiburg3"):
        convert("tum", other, tmp_path / "out")
    (other / "groundtruth.txt").write_text("1.0 0 0 0 0 0 0 0\n")
    with pytest.raises(SourceError, match="which is no rotation and translation"):
        convert("bonn", other, tmp_path / "out")
    plain = tmp_path / "plain"
    save_image(plain / "rgb" / "000000.jpg", 0)
    (plain / "camera.json").write_text(json.dumps({"width": 64}))
    (plain / "groundtruth.tum").write_text("0.0 0 0 0 0 0 0 1\n")
    with pytest.raises(SourceError, match=r"camera\.json is no calibration .*expected width, height, K"):
        convert("7scenes", plain, tmp_path / "out")
