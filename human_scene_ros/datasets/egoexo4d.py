"""Ego-Exo4D (Grauman et al. 2024): one person, four or five static GoPros, 17 COCO joints in 3-D where annotated.

`takes.json`, `takes/TAKE/frame_aligned_videos/camNN.mp4` (or `downscaled/448/camNN.mp4` below it),
`takes/TAKE/trajectory/gopro_calibs.csv` and `annotations/ego_pose/SPLIT/body/annotation/TAKE_UID.json`. The csv holds
T_world_camera (translation, quaternion x y z w) and the fish-eye model KANNALA_BRANDT_K3, which equals OpenCV's
equidistant one: it goes into CameraInfo and readers remove the distortion. The world is Aria's: metres, z up.
The glasses' own cameras are left out: their distortion (FISHEYE624) has no name in CameraInfo.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.datasets.people import person_of_named_joints
from human_scene_ros.datasets.safe_pickle import entry
from human_scene_ros.datasets.sequence import (
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    VideoFrames,
    require,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert, make_transform, matrix_from_quat_wxyz
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth, TruePerson

FPS = 30.0
Cameras = dict[str, tuple[Calibration, NDArray[np.float64]]]


def read_gopro_calibrations(path: Path) -> Cameras:
    """Camera -> (calibration of its full-size images, (4, 4) T_world_camera); cameras that were not localised are out.

    Raises:
        SourceError: Missing, a column is missing, another camera model, or no camera was localised.
    """
    cameras: Cameras = {}
    with require(path, "the calibration of the GoPros").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                if float(row["quality"]) != 1.0:
                    continue
                model = row["intrinsics_type"].strip().upper().replace("_", "")
                if model != "KANNALABRANDTK3":
                    raise SourceError(f"{path}: camera model '{row['intrinsics_type']}'; expected KANNALABRANDTK3")
                fx, fy, cx, cy, *distortion = (float(row[f"intrinsics_{i}"]) for i in range(8))
                place = [float(row[f"{axis}_world_cam"]) for axis in ("tx", "ty", "tz")]
                quat_wxyz = np.array([float(row[f"{axis}_world_cam"]) for axis in ("qw", "qx", "qy", "qz")])
                size = int(row["image_width"]), int(row["image_height"])
            except (KeyError, TypeError, ValueError) as error:
                raise SourceError(f"{path}: row '{row.get('cam_uid')}' lacks or breaks {error}") from error
            cameras[row["cam_uid"].strip()] = (
                Calibration(PinholeCamera(*size, fx, fy, cx, cy), "equidistant", tuple(distortion)),
                make_transform(matrix_from_quat_wxyz(quat_wxyz), np.array(place)))
    if not cameras:
        raise SourceError(f"{path} holds no camera of quality 1 (localised)")
    return cameras


def _find(source: Path, options: ConvertOptions) -> Found:
    takes_file = source / "takes.json"
    takes = {str(entry(t, "take_name", takes_file)): str(entry(t, "take_uid", takes_file)) for t in json.loads(
        require(takes_file, "the list of takes of Ego-Exo4D").read_text(encoding="utf-8"))}
    folders = sorted(p for p in require(source / "takes", "takes/TAKE/ of Ego-Exo4D").iterdir() if p.is_dir())
    if not folders:
        raise SourceError(f"{source / 'takes'} holds no take")
    unknown = [folder.name for folder in folders if folder.name not in takes]
    if unknown:
        raise SourceError(f"{takes_file} does not name the take {unknown[0]}")
    return {folder.name: partial(_sequence, source, folder, takes[folder.name], options) for folder in folders}


def _annotation(source: Path, uid: str, take: str) -> Path:
    files = sorted(source.glob(f"annotations/ego_pose/*/body/annotation/{uid}.json"))
    if not files:
        raise SourceError(f"{source}/annotations/ego_pose/SPLIT/body/annotation/{uid}.json is missing (take {take}); "
                          "fetch the part 'annotations' of the benchmark body_pose, or convert with --no-people")
    return files[0]


def _videos(folder: Path, names: list[str]) -> dict[str, Path]:
    videos = folder / "frame_aligned_videos"
    found = {}
    for name in names:
        for path in (videos / f"{name}.mp4", videos / "downscaled" / "448" / f"{name}.mp4"):
            if path.is_file():
                found[name] = path
                break
    if not found:
        raise SourceError(f"{videos / (names[0] + '.mp4')} is missing, so are the videos of {', '.join(names[1:])}")
    return found


def _sequence(source: Path, folder: Path, uid: str, options: ConvertOptions) -> Sequence:
    calibration_file = folder / "trajectory" / "gopro_calibs.csv"
    cameras = read_gopro_calibrations(calibration_file)
    videos = _videos(folder, list(cameras))
    sources, annotated = [calibration_file], {}
    if options.people:
        sources.append(_annotation(source, uid, folder.name))
        annotated = _joints(sources[-1])
    count = 0
    for name, path in videos.items():
        video = VideoFrames(path)
        calibration, T_world_camera = cameras[name]
        cameras[name] = (Calibration(calibration.camera.resized(*video.size), calibration.model,
                                     calibration.distortion), T_world_camera)
        count = max(count, video.count)
        video.close()
    steps = options.kept(range(count))

    def frames() -> Iterator[DatasetFrame]:
        opened = {name: VideoFrames(path) for name, path in videos.items()}
        try:
            for i in steps:
                for name, video in opened.items():
                    image = video.at(i)
                    if image is None:
                        continue
                    calibration, T_world_camera = cameras[name]
                    stamp_ns = stamp_of_index(i, FPS)
                    people: tuple[TruePerson, ...] = ()
                    if i in annotated:
                        person = person_of_named_joints(0, *annotated[i], invert(T_world_camera), calibration.camera)
                        people = () if person is None else (person,)
                    truth = FrameTruth(stamp_ns, calibration.camera, T_world_camera, people,
                                       people_known=i in annotated)
                    yield DatasetFrame(name, stamp_ns, image, calibration, truth)
        finally:
            for video in opened.values():
                video.close()

    return Sequence(folder.name, len(steps) * len(videos), frames, "Aria's, metres, z up", tuple(sources),
                    tuple(videos), static=True, facts={"take_uid": uid, "fps": FPS, "annotated_frames": len(annotated)})


def _joints(path: Path) -> dict[int, tuple[tuple[str, ...], NDArray[np.float64]]]:
    """Frame number -> names and (N, 3) world points of the annotated joints."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    frames = {}
    for number, entries in content.items():
        points = entry(entries[0], "annotation3D", path) if entries else {}
        if points:
            names = tuple(name.replace("-", "_") for name in points)
            frames[int(number)] = names, np.array([[p["x"], p["y"], p["z"]] for p in points.values()], np.float64)
    return frames


DATASETS = (Dataset("egoexo4d", "Ego-Exo4D, exocentric cameras", "Ego-Exo4D licence agreement", _find),)
