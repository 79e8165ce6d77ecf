"""EgoHumans (Khirodkar et al. 2023): groups of people, static GoPro cameras around them, COCO joints in 3-D.

`SEQ/exo/camNN/images/NNNNN.jpg`, `SEQ/colmap/workplace/{cameras.txt,images.txt,colmap_from_aria_transforms.pkl}` and
`SEQ/processed_data/{fit_poses3d,refine_poses3d,poses3d,smpl}/NNNNN.npy`. COLMAP's poses are world to camera in its own
scale; the pickle maps aria01's metric frame, which is the world here, into COLMAP's. GoPros are fish-eyes
(OPENCV_FISHEYE = equidistant); the distortion goes into CameraInfo and readers remove it. COLMAP puts the centre of
the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.datasets.people import (
    COCO_17,
    SmplModel,
    find_body_file,
    load_smpl,
    person_of_named_joints,
    smpl_person,
)
from human_scene_ros.datasets.safe_pickle import entry, load_npy_dict, load_pickle
from human_scene_ros.datasets.sequence import (
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    missing_images,
    read_image,
    require,
    require_files,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert, make_transform, matrix_from_quat_wxyz
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth, TruePerson

FPS = 20.0
ANCHOR = "aria01"
# COLMAP model -> (number of parameters, distortion model of CameraInfo)
_MODELS = {"OPENCV_FISHEYE": (8, "equidistant"), "OPENCV": (8, "plumb_bob"), "PINHOLE": (4, "plumb_bob")}
_POSES = ("fit_poses3d", "refine_poses3d", "poses3d")  # best first


def read_colmap_cameras(path: Path) -> dict[int, Calibration]:
    """Camera number -> calibration of a COLMAP `cameras.txt`.

    Raises:
        SourceError: Missing, or a model that CameraInfo cannot say.
    """
    cameras = {}
    for line in _lines(path, "COLMAP's cameras"):
        number, model, width, height, *values = line.split()
        count, name = _MODELS.get(model, (0, ""))
        if count == 0 or len(values) != count:
            raise SourceError(f"{path}: camera {number} is {model} with {len(values)} parameters; expected one of "
                              f"{', '.join(f'{m} ({n})' for m, (n, _) in _MODELS.items())}")
        fx, fy, cx, cy, *distortion = map(float, values)
        cameras[int(number)] = Calibration(PinholeCamera(int(width), int(height), fx, fy, cx - 0.5, cy - 0.5), name,
                                           tuple(distortion) if any(distortion) else ())
    return cameras


def read_colmap_images(path: Path) -> dict[str, tuple[int, NDArray[np.float64]]]:
    """Image name -> (camera number, (4, 4) T_camera_colmap) of a COLMAP `images.txt`; quaternions are w, x, y, z."""
    images = {}
    for line in _lines(path, "COLMAP's images", step=2):
        words = line.split()
        values = np.array(words[1:8], np.float64)
        images[words[9]] = int(words[8]), make_transform(matrix_from_quat_wxyz(values[:4]), values[4:])
    return images


def _lines(path: Path, what: str, step: int = 1) -> list[str]:
    lines = [line for line in require(path, what).read_text(encoding="utf-8").splitlines()
             if not line.startswith("#")]
    return [line for line in lines[::step] if line.strip()]


def metric_pose(T_camera_colmap: NDArray[np.float64], S_colmap_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """T_camera_world in metres from a pose in COLMAP's scale and the similarity from the metric world to COLMAP.

    T_camera_colmap @ S_colmap_world = [s R | t] gives camera coordinates in COLMAP's unit; divided by s: metres.
    """
    product = T_camera_colmap @ S_colmap_world
    scale = np.cbrt(np.linalg.det(product[:3, :3]))
    squared = product[:3, :3] @ product[:3, :3].T
    if not scale > 0 or not np.allclose(squared, scale**2 * np.eye(3), atol=1e-3 * scale**2):
        raise SourceError(f"colmap_from_aria_transforms.pkl: {S_colmap_world.tolist()} is no rotation with one scale")
    u, _, vt = np.linalg.svd(product[:3, :3])
    return make_transform(u @ vt, product[:3, 3] / scale)


def _find(source: Path, options: ConvertOptions) -> Found:
    source = source.absolute()
    folders = sorted(p.parent for depth in ("", "*/", "*/*/") for p in source.glob(f"{depth}exo"))
    if not folders:
        raise SourceError(f"{source / 'exo'} is missing, also in sub-folders; expected ACTIVITY/SEQ/exo/camNN/images/, "
                          "colmap/ and processed_data/ of EgoHumans")
    return {folder.name: partial(_sequence, folder, options) for folder in folders}


def _sequence(folder: Path, options: ConvertOptions) -> Sequence:
    colmap = folder / "colmap" / "workplace"
    calibrations = read_colmap_cameras(colmap / "cameras.txt")
    placed = read_colmap_images(colmap / "images.txt")
    transforms_file = colmap / "colmap_from_aria_transforms.pkl"
    S_colmap_world = np.asarray(entry(load_pickle(transforms_file), ANCHOR, transforms_file), np.float64)
    cameras: dict[str, tuple[Calibration, NDArray[np.float64], list[Path]]] = {}
    unplaced = []
    for camera_folder in sorted((folder / "exo").glob("cam*")):
        name = camera_folder.name
        found = sorted(key for key in placed if key.split("/")[0] == name)
        if not found:
            unplaced.append(name)
            continue
        number, T_camera_colmap = placed[found[0]]
        cameras[name] = (calibrations[number], metric_pose(T_camera_colmap, S_colmap_world),
                         require_files(camera_folder / "images", "*.jpg", f"images NNNNN.jpg of {name}"))
    if not cameras:
        raise SourceError(f"{colmap / 'images.txt'} places none of the cameras in {folder / 'exo'}")
    numbers = sorted({int(p.stem) for _, _, images in cameras.values() for p in images})
    steps = [numbers[i] for i in options.kept(range(len(numbers)))]
    people = _People(folder / "processed_data", options) if options.people else None
    present = {name: len(set(steps) & {int(p.stem) for p in images}) for name, (_, _, images) in cameras.items()}

    def frames() -> Iterator[DatasetFrame]:
        for number in steps:
            stamp_ns = stamp_of_index(number - 1, FPS)  # the first image is 00001
            known = None if people is None else people.load(number)
            for name, (calibration, T_camera_world, images) in cameras.items():
                image = images[0].with_name(f"{number:05d}.jpg")
                if not image.is_file():
                    continue
                seen = [_person(k, values, T_camera_world, calibration.camera, people)
                        for k, values in enumerate(known or ())]
                truth = FrameTruth(stamp_ns, calibration.camera, invert(T_camera_world),
                                   tuple(p for p in seen if p is not None), people_known=known is not None)
                yield DatasetFrame(name, stamp_ns, read_image(image), calibration, truth)

    return Sequence(folder.name, sum(present.values()), frames,
                    f"of {ANCHOR}, metres; which way is up was not checked",
                    (colmap / "cameras.txt", colmap / "images.txt", transforms_file), tuple(cameras), static=True,
                    facts={"fps": FPS, "cameras_without_pose": unplaced,
                           "missing_images": missing_images(folder.name, present, len(steps)),
                           "people": "left out" if people is None else people.kind,
                           "people_names": [] if people is None else people.names})


class _People:
    """3-D people of one sequence: SMPL where the user gave the model, else COCO joints."""

    def __init__(self, processed: Path, options: ConvertOptions) -> None:
        self.smpl: SmplModel | None = None
        if options.body is not None and (processed / "smpl").is_dir():
            self.smpl = load_smpl(find_body_file(options.body, "SMPL", "neutral", "EgoHumans"))
            self.folder, self.kind = processed / "smpl", "smpl"
        else:
            kind = next((name for name in _POSES if (processed / name).is_dir()), None)
            if kind is None:
                raise SourceError(f"{processed / _POSES[0]} is missing, so are {_POSES[1]} and {_POSES[2]}; expected "
                                  "the 3-D poses of EgoHumans, or convert with --no-people")
            self.folder, self.kind = processed / kind, kind
        files = require_files(self.folder, "*.npy", "3-D poses of EgoHumans")
        self.names = sorted({name for name in load_npy_dict(files[0])})

    def load(self, number: int) -> list[Any] | None:
        """One entry per name, None for who is missing; None if the file is."""
        file = self.folder / f"{number:05d}.npy"
        if not file.is_file():
            return None
        content = load_npy_dict(file)
        return [content.get(name) for name in self.names]


def _person(number: int, values: Any, T_camera_world: NDArray[np.float64], camera: PinholeCamera,
            people: _People | None) -> TruePerson | None:
    if values is None or people is None:
        return None
    if people.smpl is None:
        joints = np.asarray(values, np.float64).reshape(17, -1)
        points = np.where(joints[:, 3:4] > 0, joints[:, :3], np.nan) if joints.shape[1] > 3 else joints
        return person_of_named_joints(number, COCO_17, points, T_camera_world, camera)
    file = people.folder
    pose = np.concatenate([np.asarray(entry(values, k, file), np.float64).reshape(-1)
                           for k in ("global_orient", "body_pose")])
    betas, transl = (np.asarray(entry(values, k, file), np.float64).reshape(-1) for k in ("betas", "transl"))
    return smpl_person(number, pose, betas, transl, people.smpl.joints(pose, betas, transl), "neutral",
                       T_camera_world, camera)


DATASETS = (Dataset("egohumans", "EgoHumans, exocentric cameras", "see its page, research", _find),)
