"""RGB-D recordings with a camera trajectory: TUM RGB-D, Bonn RGB-D dynamic, 7-Scenes and folders like them.

TUM (Sturm et al. 2012, "A benchmark for the evaluation of RGB-D SLAM systems"): `rgb.txt`, `depth.txt` ("stamp file")
and `groundtruth.txt` ("stamp tx ty tz qx qy qz qw", colour camera in the world); depth in 1/5000 m, registered to the
colour image. Streams are joined by the nearest stamp within 20 ms, each depth and pose used once.
Bonn (Palazzolo et al. 2019, "ReFusion") has the same layout.
7-Scenes (Shotton et al. 2013): `frame-NNNNNN.{color.png,depth.png,pose.txt}`, 4x4 camera to world, depth in mm.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.datasets.sequence import (
    ONLY_CAMERA,
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    pinhole,
    read_depth_png,
    read_image,
    require,
    require_files,
    stamp_of_index,
    stamp_of_seconds,
)
from human_scene_ros.errors import CalibrationError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth
from human_scene_ros.sources.reader import START_NS

MAX_GAP_NS = 20_000_000
TUM_UNITS_PER_METRE = 5000.0

# https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: colour cameras; the images of freiburg3 are rectified.
TUM_CAMERAS = {
    "freiburg1": Calibration(PinholeCamera(640, 480, 517.3, 516.5, 318.6, 255.3), "plumb_bob",
                             (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": Calibration(PinholeCamera(640, 480, 520.9, 521.0, 325.1, 249.7), "plumb_bob",
                             (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": Calibration(PinholeCamera(640, 480, 535.4, 539.2, 320.1, 247.6)),
}
# https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset
BONN_CAMERA = Calibration(PinholeCamera(640, 480, 542.822841, 542.576870, 315.593520, 237.756098), "plumb_bob",
                          (0.039903, -0.099343, -0.000730, -0.000144, 0.0))
SEVEN_SCENES_CAMERA = Calibration(PinholeCamera(640, 480, 585.0, 585.0, 320.0, 240.0))
SEVEN_SCENES_FPS = 30.0

_Rows = list[tuple[int, list[str]]]


def read_rows(path: Path, columns: int, what: str) -> _Rows:
    """Rows of a text file of the TUM layout as (stamp_ns, other columns), sorted; lines with # are comments.

    Raises:
        SourceError: Missing, empty, or a row has too few columns.
    """
    rows = []
    for number, line in enumerate(require(path, what).read_text(encoding="utf-8").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < columns:
            raise SourceError(f"{path}:{number} has {len(words)} columns; expected {columns}: {what}")
        rows.append((stamp_of_seconds(words[0]), words[1:columns]))
    if not rows:
        raise SourceError(f"{path} holds no rows; expected {what}")
    return sorted(rows)


def read_trajectory(path: Path) -> tuple[list[int], list[NDArray[np.float64]]]:
    """Stamps and (4, 4) T_world_camera of a TUM trajectory; quaternions there are x, y, z, w."""
    rows = read_rows(path, 8, "stamp tx ty tz qx qy qz qw")
    poses = []
    for _, words in rows:
        values = np.array(words, np.float64)
        if not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-6:
            raise SourceError(f"{path} holds the pose {words}, which is no rotation and translation")
        poses.append(make_transform(Rotation.from_quat(values[3:]).as_matrix(), values[:3]))
    return [stamp for stamp, _ in rows], poses


def associate(stamps_a: list[int], stamps_b: list[int], max_gap_ns: int = MAX_GAP_NS) -> dict[int, int]:
    """Index in a -> index in b of the nearest stamp, one to one, nearest pairs first.

    Args:
        stamps_a: Sorted.
        stamps_b: Sorted.
        max_gap_ns: Pairs farther apart do not belong together.
    """
    pairs = []
    for i, stamp in enumerate(stamps_a):
        low = bisect.bisect_left(stamps_b, stamp - max_gap_ns)
        high = bisect.bisect_right(stamps_b, stamp + max_gap_ns)
        pairs += [(abs(stamps_b[j] - stamp), i, j) for j in range(low, high)]
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in matched and j not in taken:
            matched[i] = j
            taken.add(j)
    return matched


def _tum_sequence(folder: Path, options: ConvertOptions, calibration: Calibration, world: str) -> Sequence:
    colour = read_rows(folder / "rgb.txt", 2, "rows 'stamp file' of the colour images")
    depth = read_rows(folder / "depth.txt", 2, "rows 'stamp file' of the depth images")
    truth_stamps, poses = read_trajectory(folder / "groundtruth.txt")
    stamps = [stamp for stamp, _ in colour]
    to_depth = associate(stamps, [stamp for stamp, _ in depth])
    to_pose = associate(stamps, truth_stamps)
    steps = options.kept(range(len(colour)))
    _check_images(folder, [colour[i][1][0] for i in steps])

    def frames() -> Iterator[DatasetFrame]:
        for i in steps:
            stamp_ns, words = colour[i]
            depth_m = None
            if i in to_depth:
                depth_m = read_depth_png(folder / depth[to_depth[i]][1][0], TUM_UNITS_PER_METRE)
                depth_m = calibration.undistorted(depth_m, nearest=True)
            truth = None
            if i in to_pose:
                truth = FrameTruth(stamp_ns, calibration.camera, poses[to_pose[i]], (), depth_m, people_known=False)
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, read_image(folder / words[0]), calibration, truth)

    return Sequence(folder.name, len(steps), frames, world,
                    tuple(folder / n for n in ("rgb.txt", "depth.txt", "groundtruth.txt")), exact_depth=True,
                    facts={"images_without_pose": sum(i not in to_pose for i in steps),
                           "images_without_depth": sum(i not in to_depth for i in steps)})


def _check_images(folder: Path, names: list[str]) -> None:
    for name in names:
        require(folder / name, "an image that rgb.txt names")


def _sequence_folders(source: Path, marker: str, what: str) -> list[Path]:
    """`source` if it is a sequence, else its sub-folders that are."""
    if not source.is_dir():
        raise SourceError(f"{source} is no folder; expected {what}")
    if (source / marker).exists():
        return [source]
    folders = sorted(p.parent for p in source.glob(f"*/{marker}"))
    if not folders:
        raise SourceError(f"{source / marker} is missing, and no sub-folder of {source} has it; expected {what}")
    return folders


def _find_tum(source: Path, options: ConvertOptions) -> Found:
    found: Found = {}
    for folder in _sequence_folders(source.absolute(), "groundtruth.txt", "a sequence of TUM RGB-D"):
        kinect = next((name for name in TUM_CAMERAS if name in folder.name), None)
        if kinect is None:
            raise SourceError(f"{folder.name} does not say which camera it is from; expected a folder named like the "
                              f"download, with {', '.join(TUM_CAMERAS)}")
        found[folder.name] = partial(_tum_sequence, folder, options, TUM_CAMERAS[kinect],
                                     "motion capture, metres; pose of the colour camera")
    return found


def _find_bonn(source: Path, options: ConvertOptions) -> Found:
    world = ("motion capture, metres; poses as in groundtruth.txt, without the transform that the data set's page "
             "gives for its reference model")
    return {folder.name: partial(_tum_sequence, folder, options, BONN_CAMERA, world) for folder in _sequence_folders(
        source.absolute(), "groundtruth.txt", "a sequence of Bonn RGB-D dynamic")}


def _find_seven_scenes(source: Path, options: ConvertOptions) -> Found:
    source = source.absolute()
    if (source / "camera.json").exists() or (source / "groundtruth.tum").exists():
        return {source.name: partial(_plain_sequence, source, options)}
    folders = _sequence_folders(source, "frame-000000.color.png", "frame-NNNNNN.{color.png,depth.png,pose.txt} as in "
                                "7-Scenes, or rgb/, depth/, groundtruth.tum and camera.json")
    names = [f"{folder.parent.name}_{folder.name}" for folder in folders]  # every scene has a seq-01
    return {name: partial(_seven_scenes_sequence, name, folder, options)
            for name, folder in zip(names, folders, strict=True)}


_KINECT_FUSION = "of KinectFusion, metres, not level; depth camera's pose and K, colour taken as seen from there"


def _seven_scenes_sequence(name: str, folder: Path, options: ConvertOptions) -> Sequence:
    images = require_files(folder, "frame-*.color.png", "images of 7-Scenes")
    for pose in sorted(folder.glob("frame-*.pose.txt")):
        require(pose.with_name(pose.name.replace("pose.txt", "color.png")), f"the image of {pose.name}")
    steps = options.kept(range(len(images)))
    for i in steps:
        for suffix in ("depth.png", "pose.txt"):
            require(images[i].with_name(images[i].name.replace("color.png", suffix)), f"it beside {images[i].name}")

    def frames() -> Iterator[DatasetFrame]:
        for i in steps:
            image = images[i]
            number = int(re.sub(r"\D", "", image.name))
            stamp_ns = stamp_of_index(number, SEVEN_SCENES_FPS)
            pose_file = image.with_name(image.name.replace("color.png", "pose.txt"))
            T_world_camera = np.array(pose_file.read_text().split(), np.float64)
            if T_world_camera.size != 16:
                raise SourceError(f"{pose_file} holds {T_world_camera.size} numbers; expected 16 of a 4x4 matrix")
            T_world_camera = T_world_camera.reshape(4, 4)
            truth = None
            if np.isfinite(T_world_camera).all():  # tracking failed where it is not
                depth_m = read_depth_png(image.with_name(image.name.replace("color.png", "depth.png")), 1000.0)
                truth = FrameTruth(stamp_ns, SEVEN_SCENES_CAMERA.camera, T_world_camera, (), depth_m)
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, read_image(image), SEVEN_SCENES_CAMERA, truth)

    return Sequence(name, len(steps), frames, _KINECT_FUSION, (), facts={"people": "none: the scenes are empty"})


def _plain_sequence(folder: Path, options: ConvertOptions) -> Sequence:
    """rgb/*, depth/* with equal stems, groundtruth.tum with one row per image, camera.json with K."""
    images = require_files(folder / "rgb", "*", "colour images")
    stamps, poses = read_trajectory(folder / "groundtruth.tum")
    calibration = _calibration_json(folder / "camera.json")
    if len(stamps) != len(images):
        raise SourceError(f"{folder / 'groundtruth.tum'} has {len(stamps)} poses for {len(images)} images in rgb/; "
                          "expected one per image, in order")
    steps = options.kept(range(len(images)))
    for i in steps:
        require(folder / "depth" / f"{images[i].stem}.png", f"the depth image of rgb/{images[i].name}")
    shift_ns = START_NS if stamps[0] == 0 else 0

    def frames() -> Iterator[DatasetFrame]:
        for i in steps:
            stamp_ns = stamps[i] + shift_ns
            depth_m = read_depth_png(folder / "depth" / f"{images[i].stem}.png", 1000.0)
            truth = FrameTruth(stamp_ns, calibration.camera, poses[i], (),
                               calibration.undistorted(depth_m, nearest=True))
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, read_image(images[i]), calibration, truth)

    return Sequence(folder.name, len(steps), frames, _KINECT_FUSION,
                    (folder / "groundtruth.tum", folder / "camera.json"),
                    facts={"people": "none: the scenes are empty", "stamp_shift_s": shift_ns * 1e-9})


def _calibration_json(path: Path) -> Calibration:
    text = require(path, "width, height, K and dist of the camera").read_text(encoding="utf-8")
    try:
        values = json.loads(text)
        distortion = tuple(float(v) for v in values.get("dist", ()))
        return Calibration(pinhole(int(values["width"]), int(values["height"]), values["K"]), "plumb_bob",
                           distortion if any(distortion) else ())
    except (ValueError, KeyError, TypeError, IndexError, CalibrationError) as error:
        raise SourceError(f"{path} is no calibration ({error!r}); expected width, height, K (3x3) and dist") from error


DATASETS = (
    Dataset("tum", "TUM RGB-D, dynamic sequences", "CC BY 4.0", _find_tum),
    Dataset("bonn", "Bonn RGB-D dynamic", "non-commercial, see its page", _find_bonn),
    Dataset("7scenes", "7-Scenes and folders like it", "Microsoft Research licence, non-commercial",
            _find_seven_scenes),
)
