"""EMDB (Kaufmann et al. 2023): one person outdoors and indoors, moving hand-held camera, SMPL in the world.

`P*/SEQ/{images/NNNNN.jpg, P*_SEQ_data.pkl}`. The pickle holds `camera.extrinsics`, world to camera, and SMPL in a world
with y up, which is turned to z up here. Frames outside `good_frames_mask` show nobody who could be judged: they have
a camera pose and no statement about people.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.datasets.people import (
    SmplModel,
    find_body_file,
    gender_of,
    load_smpl,
    smpl_person,
)
from human_scene_ros.datasets.safe_pickle import entry, load_pickle
from human_scene_ros.datasets.sequence import (
    ONLY_CAMERA,
    ROT_ZUP_YUP,
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    pinhole,
    read_image,
    require,
    require_files,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert, make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth, TruePerson

FPS = 30.0
MAX_REPROJECTION = 0.02
"""Of the image width: joints farther from the data set's own `kp2d` mean a wrong model or another convention."""


def _find(source: Path, options: ConvertOptions) -> Found:
    files = sorted(p for depth in ("", "*/", "*/*/") for p in source.glob(f"{depth}P*_data.pkl"))
    if not files:
        raise SourceError(f"{source} holds no P*_data.pkl, nor do its sub-folders; expected P0/SEQ/P0_SEQ_data.pkl "
                          "and P0/SEQ/images/ as EMDB unpacks")
    return {file.stem.removesuffix("_data"): partial(_sequence, file, options) for file in files}


def _sequence(file: Path, options: ConvertOptions) -> Sequence:
    data = load_pickle(file)
    camera_data, count = entry(data, "camera", file), int(entry(data, "n_frames", file))
    name = file.stem.removesuffix("_data")
    size = int(entry(camera_data, "width", file)), int(entry(camera_data, "height", file))
    camera = pinhole(*size, entry(camera_data, "intrinsics", file))
    T_camera_world = np.asarray(entry(camera_data, "extrinsics", file), np.float64)
    if T_camera_world.shape != (count, 4, 4):
        raise SourceError(f"{file}: camera.extrinsics has shape {T_camera_world.shape}; expected ({count}, 4, 4)")
    images = require_files(file.parent / "images", "*.jpg", f"{count} images NNNNN.jpg of {name}")
    if len(images) != count:
        raise SourceError(f"{file.parent / 'images'} holds {len(images)} images; {file.name} says {count}")
    good = np.asarray(entry(data, "good_frames_mask", file), bool)
    steps = options.kept(range(count))
    joints_world = model = None
    if options.people:
        gender = gender_of(entry(data, "gender", file))
        model = load_smpl(find_body_file(options.body, "SMPL", gender, "EMDB"))
        joints_world = _Smpl(entry(data, "smpl", file), model, gender, file)
        _check_reprojection(joints_world, camera, T_camera_world, np.asarray(entry(data, "kp2d", file)), good, file)
    T_zup_yup = make_transform(ROT_ZUP_YUP, np.zeros(3))

    def frames() -> Iterator[DatasetFrame]:
        for i in steps:
            stamp_ns = stamp_of_index(i, FPS)
            people: tuple[TruePerson, ...] = ()
            if joints_world is not None and good[i]:
                person = joints_world.person(i, T_camera_world[i], camera)
                people = () if person is None else (person,)
            truth = FrameTruth(stamp_ns, camera, T_zup_yup @ invert(T_camera_world[i]), people,
                               people_known=joints_world is not None and bool(good[i]))
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, read_image(require(images[i], "an image of EMDB")),
                               Calibration(camera), truth)

    return Sequence(name, len(steps), frames, "EMDB's, metres, turned from y up to z up", (file,),
                    facts={"emdb1": bool(data.get("emdb1", False)), "emdb2": bool(data.get("emdb2", False)),
                           "bad_frames": int((~good).sum()), "fps": FPS,
                           "body": None if model is None else model.name})


class _Smpl:
    """SMPL parameters of one sequence, posed frame by frame."""

    def __init__(self, values: dict[str, Any], model: SmplModel, gender: str, file: Path) -> None:
        self.pose = np.hstack([np.asarray(entry(values, key, file), np.float64)
                               for key in ("poses_root", "poses_body")])
        self.transl = np.asarray(entry(values, "trans", file), np.float64)
        self.betas = np.asarray(entry(values, "betas", file), np.float64).reshape(-1)
        if self.pose.shape[1:] != (72,) or self.transl.shape != (len(self.pose), 3):
            raise SourceError(f"{file}: SMPL poses {self.pose.shape} and trans {self.transl.shape}; expected "
                              "(n, 3 + 69) and (n, 3)")
        self.model, self.gender = model, gender

    def joints(self, i: int) -> NDArray[np.float64]:
        return self.model.joints(self.pose[i], self.betas, self.transl[i])

    def person(self, i: int, T_camera_world: NDArray[np.float64], camera: PinholeCamera
               ) -> TruePerson | None:
        return smpl_person(0, self.pose[i], self.betas, self.transl[i], self.joints(i), self.gender, T_camera_world,
                           camera)


def _check_reprojection(smpl: _Smpl, camera: PinholeCamera, T_camera_world: NDArray[np.float64],
                        kp2d: NDArray[np.float64], good: NDArray[np.bool_], file: Path) -> None:
    """The pickle holds the projected joints too: what is computed here must fall on them."""
    chosen = np.flatnonzero(good)[:: max(int(good.sum()) // 5, 1)]
    errors = [np.linalg.norm(camera.project(apply(T_camera_world[i], smpl.joints(i))) - kp2d[i], axis=1)
              for i in chosen]
    error_px = float(np.median(errors)) if errors else 0.0
    if not error_px <= MAX_REPROJECTION * camera.width:
        raise SourceError(f"{file}: joints of {smpl.model.name} fall {error_px:.1f} px (median) beside the file's own "
                          f"kp2d; is this the SMPL model for gender '{smpl.gender}'?")


DATASETS = (Dataset("emdb", "EMDB, electromagnetic body poses", "ETH Zurich, non-commercial research", _find),)
