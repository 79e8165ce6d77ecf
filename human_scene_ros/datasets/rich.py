"""RICH (Huang et al. 2022): people in scanned scenes, several static cameras, SMPL-X per frame.

The layout of its toolkit: `images/SPLIT/SEQ/cam_CC/NNNNN_CC.{jpeg,jpg,png,bmp}`, `bodies/SPLIT/SEQ/NNNNN/SUBJECT.pkl`,
`scan_calibration/SCENE/calibration/CCC.xml` (OpenCV; CameraMatrix is world to camera), `multicam2world/` and
`resource/gender.json`. Bodies live in the frame of camera 0; `multicam2world` turns it so that the ground is level.
Hands are 12 principal components around the model's mean; they become absolute rotations here.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.datasets.people import (
    ALL_PARTS,
    find_body_file,
    gender_of,
    hand_bases,
    load_smplx,
    smplx_person,
)
from human_scene_ros.datasets.safe_pickle import entry, load_pickle
from human_scene_ros.datasets.sequence import (
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    image_size,
    missing_images,
    pinhole,
    read_image,
    require,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert, make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import VALID_LEFT_HAND, VALID_RIGHT_HAND, FrameTruth, TruePerson

FPS = 30.0
SENSOR_PX = (4112, 3008)  # what the calibration is for; smaller images are the same view, scaled
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp")


def _find(source: Path, options: ConvertOptions) -> Found:
    images = _part(source, "images")
    splits = [p for p in sorted(images.iterdir()) if p.is_dir()]
    folders = [folder for split in splits for folder in sorted(split.iterdir()) if any(folder.glob("cam_*"))]
    if not folders:
        raise SourceError(f"{images} holds no SPLIT/SEQ/cam_CC; expected images/test/SEQ/cam_00/00001_00.jpeg ...")
    return {folder.name: partial(_sequence, source, folder, options) for folder in folders}


def _part(source: Path, name: str) -> Path:
    for root in (source, source / "data"):
        if (root / name).is_dir():
            return root / name
    return require(source / name, "images/, bodies/, scan_calibration/ and multicam2world/ of the RICH toolkit")


def read_calibration(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, ...]]:
    """(3, 3) K, (4, 4) T_camera_multicam and plumb_bob coefficients of an OpenCV XML file.

    Raises:
        SourceError: Missing, no XML, or an entry is missing or of another length.
    """
    text = require(path, "the calibration of a RICH camera").read_text(encoding="utf-8")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise SourceError(f"{path} is no XML: {error}") from error

    def numbers(name: str, length: int | None) -> NDArray[np.float64]:
        node = tree.find(f"./{name}/data")
        words = (node.text or "").split() if node is not None else []
        if not words or (length is not None and len(words) != length):
            raise SourceError(f"{path} has {len(words)} numbers in {name}/data; expected {length or 'some'}")
        return np.array(words, np.float64)

    extrinsic = numbers("CameraMatrix", 12).reshape(3, 4)
    distortion = numbers("Distortion", None)[:5]
    return (numbers("Intrinsics", 9).reshape(3, 3), make_transform(extrinsic[:, :3], extrinsic[:, 3]),
            tuple(distortion.tolist()) if distortion.any() else ())


def _world(source: Path, scene: str, sequence: str) -> tuple[NDArray[np.float64], Path]:
    """T_world_multicam without the scale of the file, so that bodies stay metric: x_world / c = R^T x + t / c."""
    variant = ""
    if scene == "LectureHall":
        variant = "_chair" if any(w in sequence for w in ("chair", "projector")) else "_yoga"
    path = _part(source, "multicam2world") / f"{scene}{variant}_multicam2world.json"
    values = json.loads(require(path, f"R, t and c of scene {scene}").read_text(encoding="utf-8"))
    rotation = np.asarray(entry(values, "R", path), np.float64).T
    u, _, vt = np.linalg.svd(rotation)  # some files round R to three decimals
    offset = np.asarray(entry(values, "t", path), np.float64).reshape(3)
    return make_transform(u @ vt, offset / float(entry(values, "c", path))), path


def _genders(source: Path) -> dict[str, str]:
    for name in ("resource/gender.json", "gender.json", "data/gender.json"):
        if (source / name).is_file():
            return {str(int(k)): gender_of(v) for k, v in json.loads((source / name).read_text()).items()}
    raise SourceError(f"{source / 'resource' / 'gender.json'} is missing; copy it from the RICH toolkit: bodies are "
                      "posed with the model of the subject's gender")


class _Bodies:
    """Bodies of one sequence."""

    def __init__(self, source: Path, sequence: Path, options: ConvertOptions) -> None:
        self.folder = require(_part(source, "bodies") / sequence.parent.name / sequence.name,
                              f"NNNNN/SUBJECT.pkl of {sequence.name}")
        self.genders, self.body = _genders(source), options.body

    def load(self, frame: int) -> list[tuple[int, BodyParameters, str, Any, int]]:
        people = []
        for file in sorted((self.folder / f"{frame:05d}").glob("*.pkl")):
            subject = str(int(file.stem))
            if subject not in self.genders:
                raise SourceError(f"{file}: subject {subject} has no gender in gender.json")
            gender = self.genders[subject]
            model_file = find_body_file(self.body, "SMPL-X", gender, "RICH")
            parameters, parts = _parameters(load_pickle(file), file, hand_bases(model_file))
            people.append((int(subject), parameters, gender, load_smplx(model_file), parts))
        return people


def _parameters(content: Any, file: Path, bases: dict[str, NDArray[np.float64]]) -> tuple[BodyParameters, int]:
    def value(key: str) -> NDArray[np.float32]:
        return np.asarray(entry(content, key, file), np.float32).reshape(-1)

    hands, parts = {}, ALL_PARTS
    for side in ("left", "right"):
        given = value(f"{side}_hand_pose").astype(np.float64)
        if given.size != 45 and not bases:
            hands[side] = np.zeros(45)
            parts &= ~(VALID_LEFT_HAND if side == "left" else VALID_RIGHT_HAND)
        elif given.size == 45:
            hands[side] = given
        else:
            hands[side] = bases[f"hands_mean{side[0]}"] + given @ bases[f"hands_components{side[0]}"][:given.size]
    return BodyParameters(
        global_orient=value("global_orient"), transl=value("transl"), body_pose=value("body_pose"),
        left_hand_pose=hands["left"].astype(np.float32), right_hand_pose=hands["right"].astype(np.float32),
        jaw_pose=value("jaw_pose"), leye_pose=value("leye_pose"), reye_pose=value("reye_pose"),
        betas=value("betas"), expression=value("expression")), parts


def _sequence(source: Path, folder: Path, options: ConvertOptions) -> Sequence:
    scene = folder.name.split("_")[0]
    T_world_multicam, world_file = _world(source, scene, folder.name)
    images: dict[str, dict[int, Path]] = {}
    calibrations: dict[str, tuple[Calibration, NDArray[np.float64]]] = {}
    sources = [world_file]
    for camera_folder in sorted(folder.glob("cam_*")):
        files = {int(p.stem.split("_")[0]): p for p in camera_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
        if not files:
            raise SourceError(f"{camera_folder} holds no NNNNN_CC.jpeg (or .png, .bmp)")
        name = camera_folder.name.replace("_", "")
        xml = _part(source, "scan_calibration") / scene / "calibration" / f"{int(camera_folder.name[4:]):03d}.xml"
        K, T_camera_multicam, distortion = read_calibration(xml)
        images[name] = files
        calibrations[name] = (Calibration(_scaled(K, next(iter(files.values()))), "plumb_bob", distortion),
                              T_camera_multicam)
        sources.append(xml)
    steps = sorted({number for files in images.values() for number in files})
    steps = [steps[i] for i in options.kept(range(len(steps)))]
    bodies = _Bodies(source, folder, options) if options.people else None
    if bodies is not None:
        bodies.load(steps[0])  # a missing model is found before hours of work

    def frames() -> Iterator[DatasetFrame]:
        for number in steps:
            stamp_ns = stamp_of_index(number, FPS)
            posed = None if bodies is None else bodies.load(number)
            for name, files in images.items():
                if number not in files:
                    continue
                calibration, T_camera_multicam = calibrations[name]
                truth = FrameTruth(stamp_ns, calibration.camera, T_world_multicam @ invert(T_camera_multicam),
                                   _people(posed or [], T_camera_multicam, calibration.camera),
                                   people_known=bool(posed))
                yield DatasetFrame(name, stamp_ns, read_image(files[number]), calibration, truth)

    present = {name: sum(number in files for number in steps) for name, files in images.items()}
    count = sum(present.values())
    return Sequence(folder.name, count, frames, "RICH's scan, metres, ground level", tuple(sources), tuple(images),
                    static=True, facts={"split": folder.parent.name, "fps": FPS, "stamps": "frame number / fps",
                                        "missing_images": missing_images(folder.name, present, len(steps))})


def _scaled(K: NDArray[np.float64], image: Path) -> PinholeCamera:
    pixels = read_image(image)
    if isinstance(pixels, bytes):
        width, height = image_size(pixels, image)
    else:
        height, width = pixels.shape[:2]
    full = SENSOR_PX if width >= height else SENSOR_PX[::-1]
    if abs(width * full[1] - height * full[0]) > 2 * max(full):
        raise SourceError(f"{image} is {width}x{height} px; RICH's calibration is for {full[0]}x{full[1]}, also scaled")
    return pinhole(*full, K).resized(width, height)


def _people(posed: list[tuple[int, BodyParameters, str, Any, int]], T_camera_multicam: NDArray[np.float64],
            camera: PinholeCamera) -> tuple[TruePerson, ...]:
    people = [smplx_person(number, parameters, model, gender, parts, T_camera_multicam, camera)
              for number, parameters, gender, model, parts in posed]
    return tuple(p for p in people if p is not None)


DATASETS = (Dataset("rich", "RICH, humans in real scenes", "MPI, non-commercial research", _find),)
