"""BEDLAM (Black et al. 2023): rendered crowds with SMPL-X, camera, depth and masks.

One folder per scene: `png/seq_SSSSSS/seq_SSSSSS_NNNN.png`, `ground_truth/camera/seq_SSSSSS_camera.csv`, optionally
`depth/seq_SSSSSS/seq_SSSSSS_NNNN_depth.exr` and `masks/seq_SSSSSS/seq_SSSSSS_NNNN_PP_{body,clothing,hair}.png`, and the
published labels `SCENE.npz` in it or beside it, one row per person and image.

Labels: the body in the camera frame is SMPL-X(pose_cam, shape) at `trans_cam + cam_ext[:3, 3]`; optical axes, metres.
The csv is Unreal's: centimetres, x forward, y right, z up, yaw to the right, pitch up, roll clockwise; its world is
turned to x forward, y left, z up. `cam_int` counts pixels from their corners, so half a pixel is taken off. Images
are numbered at 30 fps. Depth is z in centimetres.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body.model import BodyModel
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.datasets.exr import read_exr
from human_scene_ros.datasets.people import (
    ALL_PARTS,
    find_body_file,
    gender_of,
    load_smplx,
    smplx_person,
)
from human_scene_ros.datasets.sequence import (
    ONLY_CAMERA,
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    image_size,
    read_coded,
    require,
    require_files,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import ROT_WORLD_LEVEL_CAMERA, make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import VALID_EXPRESSION, FrameTruth, TruePerson

_log = logging.getLogger(__name__)

FPS = 30.0
_LABELS = ("imgname", "pose_cam", "trans_cam", "shape", "cam_int", "cam_ext", "gender", "sub")
_BODY_LAYERS = ("body", "clothing", "hair")
MAX_REPROJECTION = 0.02
"""Of the image width: joints farther from the labels' own 2-D key points mean other labels or another body model."""
MAX_DEPTH_M = 1000.0
"""Farther is sky: renderers store a huge number there."""


@dataclasses.dataclass(frozen=True)
class BedlamFrame:
    """One image of a scene.

    Args:
        number: In its file name, counted at 30 fps.
        image: Its file.
        camera: Pinhole.
        T_world_camera: (4, 4), z up, metres.
        people: Everybody in view.
    """

    number: int
    image: Path
    camera: PinholeCamera
    T_world_camera: NDArray[np.float64]
    people: tuple[TruePerson, ...]


class BedlamScene:
    """One scene folder.

    Args:
        folder: With png/ in it.
        body: Folder of SMPLX_{NEUTRAL,FEMALE,MALE}.npz; None: people are left out.

    Raises:
        SourceError: A file is missing (named), or the labels lack an array.
    """

    def __init__(self, folder: Path, body: Path | None) -> None:
        if "closeup" in folder.name:
            raise SourceError(f"{folder.name}: the images of close-up scenes are stored turned by 90 degrees; they are "
                              "not converted")
        self.folder, self._body = folder, body
        self.sequences = [p.name for p in sorted(require(folder / "png", "png/seq_SSSSSS/").iterdir()) if p.is_dir()]
        if not self.sequences:
            raise SourceError(f"{folder / 'png'} holds no seq_SSSSSS")
        for name in self.sequences:
            require(self._camera_file(name), "the camera of the sequence (download 'ground truth')")
        self.sources: tuple[Path, ...] = ()
        self._labels: dict[str, NDArray] = {}
        self._rows: dict[str, list[int]] = {}
        self._numbers: list[int] = []  # person of each row, counted per sequence
        self._keypoints: NDArray | None = None
        if body is not None:
            self._read_labels()

    def _read_labels(self) -> None:
        name = f"{self.folder.name}.npz"
        file = next((p for p in (self.folder / name, self.folder.parent / name) if p.is_file()), None)
        if file is None:
            raise SourceError(f"{self.folder / name} is missing, also beside the folder; expected the published labels "
                              "of the scene, or convert with --no-people")
        try:
            with np.load(file, allow_pickle=False) as content:
                missing = [key for key in _LABELS if key not in content.files]
                if missing:
                    raise SourceError(f"{file} lacks {missing}; it holds {sorted(content.files)}")
                self._labels = {key: content[key] for key in _LABELS}
                self._keypoints = content["gtkps"] if "gtkps" in content.files else None
        except (OSError, ValueError) as error:
            raise SourceError(f"{file} cannot be read as labels of BEDLAM: {error}") from error
        identities: dict[str, dict[tuple[str, int], int]] = {}
        for row, (image, subject) in enumerate(zip(self._labels["imgname"], self._labels["sub"], strict=True)):
            image_name = Path(str(image)).name
            rows = self._rows.setdefault(image_name, [])
            copies = sum(self._labels["sub"][other] == subject for other in rows)  # one subject may be there twice
            sequence = image_name.rpartition("_")[0]
            mine = identities.setdefault(sequence, {})
            self._numbers.append(mine.setdefault((str(subject), copies), len(mine)))
            rows.append(row)
        self.sources = (file,)

    def _camera_file(self, sequence: str) -> Path:
        return self.folder / "ground_truth" / "camera" / f"{sequence}_camera.csv"

    def images(self, sequence: str) -> list[Path]:
        """Images of a sequence in order."""
        return require_files(self.folder / "png" / sequence, "seq_*.png", f"images of {sequence}")

    def frames(self, sequence: str, images: list[Path]) -> Iterator[BedlamFrame]:
        """The given images of a sequence with their truth; pixels are not read."""
        poses = read_camera_csv(self._camera_file(sequence))
        for image in images:
            if image.name not in poses:
                raise SourceError(f"{self._camera_file(sequence)} has no row of {image.name}")
            T_world_camera, relative_focal = poses[image.name]
            width, height = image_size(image.read_bytes(), image)
            focal = relative_focal * width
            camera = PinholeCamera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
            rows = self._rows.get(image.name, [])
            if rows:
                K = self._labels["cam_int"][rows[0]]
                camera = PinholeCamera(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]) - 0.5,
                                       float(K[1, 2]) - 0.5)
            people = (self._person(row, camera) for row in rows)
            yield BedlamFrame(int(re.findall(r"\d+", image.stem)[-1]), image, camera, T_world_camera,
                              tuple(p for p in people if p is not None))

    def _person(self, row: int, camera: PinholeCamera) -> TruePerson | None:
        labels = {key: self._labels[key][row] for key in _LABELS}
        gender = gender_of(labels["gender"])
        model: BodyModel = load_smplx(find_body_file(self._body, "SMPL-X", gender, "BEDLAM"))
        pose = np.asarray(labels["pose_cam"], np.float32).reshape(-1)
        if pose.size != 165:
            raise SourceError(f"{self.sources[0]}: pose_cam has {pose.size} values per person; expected 165 of SMPL-X "
                              "(the labels of SMPL are another download)")
        parameters = BodyParameters(
            global_orient=pose[:3], body_pose=pose[3:66], jaw_pose=pose[66:69], leye_pose=pose[69:72],
            reye_pose=pose[72:75], left_hand_pose=pose[75:120], right_hand_pose=pose[120:],
            transl=(labels["trans_cam"] + labels["cam_ext"][:3, 3]).astype(np.float32),
            betas=np.asarray(labels["shape"], np.float32)[:model.num_betas])
        return smplx_person(self._numbers[row], parameters, model, gender, ALL_PARTS & ~VALID_EXPRESSION, np.eye(4),
                            camera)

    def check_keypoints(self, image: Path) -> float:
        """Median distance (px) of the projected body joints of an image from the labels' own; NaN without either.

        Warns where it is large: the labels are made with other joints in later releases, so it is no error.
        """
        (frame,) = self.frames(image.parent.name, [image])
        errors = []
        for row in self._rows.get(image.name, []) if self._keypoints is not None else []:
            person = next((p for p in frame.people if p.person_id == self._numbers[row]), None)
            if person is not None and len(self._keypoints[row]) >= 22:  # type: ignore[index]
                uv = frame.camera.project(person.joints_camera[:22].astype(np.float64))
                errors.append(np.linalg.norm(uv + 0.5 - self._keypoints[row][:22, :2], axis=1))  # type: ignore[index]
        error_px = float(np.nanmedian(errors)) if errors else float("nan")
        if error_px > MAX_REPROJECTION * frame.camera.width:
            _log.warning("%s: body joints fall %.1f px (median) beside gtkps of the labels; are these the SMPL-X "
                         "labels of BEDLAM, and is the body model SMPL-X of that gender?", image.name, error_px)
        return error_px

    def pixels(self, image: Path) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
        if pixels is None:
            raise SourceError(f"{image} cannot be decoded as an image")
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)

    def depth(self, image: Path) -> NDArray[np.float32] | None:
        """(H, W) metres along z, 0 = sky; None if the scene has no depth/.

        Raises:
            SourceError: The scene has depth/ but not of this image.
        """
        folder = self.folder / "depth"
        if not folder.is_dir():
            return None
        channels = read_exr(folder / image.parent.name / f"{image.stem}_depth.exr")
        depth_m = next(iter(channels.values())) / np.float32(100.0)
        with np.errstate(invalid="ignore"):
            return np.where((depth_m > 0) & (depth_m < MAX_DEPTH_M), depth_m, np.float32(0.0))

    def masks(self, image: Path) -> list[NDArray[np.bool_]]:
        """(H, W) pixels of each person with their clothes and hair; in the renderer's order, not that of the labels.

        Raises:
            SourceError: There is no mask of the image.
        """
        folder = self.folder / "masks" / image.parent.name
        layers: dict[str, NDArray[np.bool_]] = {}
        for file in require_files(folder, f"{image.stem}_*.png", f"masks of {image.name}"):
            match = re.fullmatch(rf"{image.stem}_(\d+)_({'|'.join(_BODY_LAYERS)})", file.stem)
            if match is None:
                continue  # the environment
            pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if pixels is None:
                raise SourceError(f"{file} cannot be decoded as an image")
            layers[match[1]] = layers.get(match[1], np.zeros(pixels.shape, bool)) | (pixels > 127)
        return [layers[key] for key in sorted(layers)]


def shrunk(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`image` at another size, each pixel the mean of what it covers."""
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def read_camera_csv(path: Path) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Image name -> ((4, 4) T_world_camera with z up in metres, focal length / image width).

    Raises:
        SourceError: Missing, or a column is missing or no number.
    """
    poses = {}
    with require(path, "the camera of a BEDLAM sequence").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                x, y, z, yaw, pitch, roll, focal, sensor = (float(row[key]) for key in (
                    "x", "y", "z", "yaw", "pitch", "roll", "focal_length", "sensor_width"))
                poses[row["name"]] = pose_from_unreal(x, y, z, yaw, pitch, roll), focal / sensor
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise SourceError(f"{path}: row '{row.get('name')}' lacks or breaks {error}") from error
    return poses


def pose_from_unreal(x_cm: float, y_cm: float, z_cm: float, yaw_deg: float, pitch_deg: float,
                     roll_deg: float) -> NDArray[np.float64]:
    """T_world_camera (optical axes; world x forward, y left, z up, metres) of an Unreal camera.

    Source: unreal_coordinate_system.md of bedlam_render. Unreal's y points right, so y and yaw change sign; pitching
    up and a positive rotation about y, which points left here, are opposite too.
    """
    rot_world_mount = Rotation.from_euler("ZYX", [-yaw_deg, -pitch_deg, roll_deg], degrees=True).as_matrix()
    return make_transform(rot_world_mount @ ROT_WORLD_LEVEL_CAMERA, np.array([x_cm, -y_cm, z_cm]) / 100.0)


def scene_folders(source: Path) -> list[Path]:
    """Scene folders: `source` itself or those in it.

    Raises:
        SourceError: None.
    """
    source = source.absolute()
    folders = [source] if (source / "png").is_dir() else sorted(p.parent for p in source.glob("*/png"))
    if not folders:
        raise SourceError(f"{source / 'png'} is missing, also in sub-folders; expected SCENE/png/seq_SSSSSS/ of BEDLAM")
    return folders


def body_folder(options: ConvertOptions) -> Path | None:
    """Where SMPL-X is; None if people are left out. Raises `SourceError` if it is needed and not given."""
    if not options.people:
        return None
    find_body_file(options.body, "SMPL-X", "neutral", "BEDLAM")
    return options.body


def _find(source: Path, options: ConvertOptions) -> Found:
    body = body_folder(options)
    scenes = [BedlamScene(folder, body) for folder in scene_folders(source)]
    return {f"{scene.folder.name}_{name}": partial(_sequence, scene, name, options)
            for scene in scenes for name in scene.sequences}


def _sequence(scene: BedlamScene, name: str, options: ConvertOptions) -> Sequence:
    images = scene.images(name)
    images = [images[i] for i in options.kept(range(len(images)))]

    facts: dict[str, object] = {"depth": (scene.folder / "depth").is_dir()}
    if options.people and images:
        facts["keypoint_error_px"] = scene.check_keypoints(images[0])

    def frames() -> Iterator[DatasetFrame]:
        for frame in scene.frames(name, images):
            stamp_ns = stamp_of_index(frame.number, FPS)
            truth = FrameTruth(stamp_ns, frame.camera, frame.T_world_camera, frame.people, scene.depth(frame.image),
                               people_known=options.people)
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, read_coded(frame.image), Calibration(frame.camera), truth)

    return Sequence(f"{scene.folder.name}_{name}", len(images), frames, "Unreal's, turned to x forward, y left, z up; "
                    "metres", (*scene.sources, scene.folder / "ground_truth" / "camera" / f"{name}_camera.csv"),
                    exact_depth=True, facts=facts)


DATASETS = (Dataset("bedlam", "BEDLAM", "MPI, non-commercial research", _find),)
