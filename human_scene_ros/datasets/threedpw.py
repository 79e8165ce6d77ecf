"""3DPW (von Marcard et al. 2018): up to two people, moving phone camera, SMPL from IMUs and video.

`sequenceFiles/SPLIT/SEQ.pkl` (Python 2, latin1) and `imageFiles/SEQ/image_NNNNN.jpg`. `cam_poses` map world to
camera. `jointPositions` are the 24 SMPL joints in the world, so no body model is needed: the rest position of the
pelvis is their first minus `trans`. A person is left out
of frames where its `campose_valid` is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from human_scene_ros.datasets.people import gender_of, smpl_person
from human_scene_ros.datasets.safe_pickle import entry, load_pickle
from human_scene_ros.datasets.sequence import (
    ONLY_CAMERA,
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    image_size,
    pinhole,
    read_coded,
    require_files,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.transform import invert
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth

FPS = 30.0


def _find(source: Path, options: ConvertOptions) -> Found:
    files = sorted(p for part in ("sequenceFiles/*/*.pkl", "*/*.pkl", "*.pkl") for p in source.glob(part))
    if not files:
        raise SourceError(f"{source / 'sequenceFiles'} holds no SPLIT/SEQ.pkl; expected sequenceFiles/ and "
                          "imageFiles/ of 3DPW side by side")
    return {file.stem: partial(_sequence, file, options) for file in files}


def _image_folder(file: Path) -> Path:
    for parent in list(file.parents)[:4]:
        if (parent / "imageFiles").is_dir():
            return parent / "imageFiles" / file.stem
    raise SourceError(f"imageFiles is missing beside {file}; expected imageFiles/{file.stem}/image_00000.jpg")


def _sequence(file: Path, options: ConvertOptions) -> Sequence:
    data = load_pickle(file)
    cam_poses = np.asarray(entry(data, "cam_poses", file), np.float64)
    count = len(cam_poses)
    poses, transl, joints = ([np.asarray(v, np.float64) for v in entry(data, key, file)]
                             for key in ("poses", "trans", "jointPositions"))
    betas = [np.asarray(v, np.float64).reshape(-1)[:10] for v in entry(data, "betas", file)]
    valid = np.asarray(entry(data, "campose_valid", file), bool).reshape(len(poses), -1)
    genders = [gender_of(g) for g in entry(data, "genders", file)]
    K = np.asarray(entry(data, "cam_intrinsics", file), np.float64)
    for k, (pose, place, joint) in enumerate(zip(poses, transl, joints, strict=True)):
        if pose.shape != (count, 72) or place.shape != (count, 3) or joint.reshape(count, -1).shape != (count, 72):
            raise SourceError(f"{file}: person {k} has poses {pose.shape}, trans {place.shape}, jointPositions "
                              f"{joint.shape} for {count} camera poses; expected {count} rows of 72, 3 and 72")
    images = require_files(_image_folder(file), "image_*.jpg", f"{count} images of {file.stem}")
    if len(images) != count:
        raise SourceError(f"{images[0].parent} holds {len(images)} images; {file.name} says {count}")
    steps = options.kept(range(count))

    def frames() -> Iterator[DatasetFrame]:
        for i in steps:
            image = read_coded(images[i])
            camera = pinhole(*image_size(image, images[i]), K)
            stamp_ns = stamp_of_index(i, FPS)
            people = [smpl_person(k, poses[k][i], betas[k], transl[k][i], joints[k][i].reshape(24, 3), genders[k],
                                  cam_poses[i], camera)
                      for k in range(len(poses)) if options.people and valid[k, i]]
            truth = None
            if valid[:, i].any():  # else the camera pose was not aligned to the image either
                truth = FrameTruth(stamp_ns, camera, invert(cam_poses[i]), tuple(p for p in people if p is not None),
                                   people_known=options.people)
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, image, Calibration(camera), truth)

    return Sequence(file.stem, len(steps), frames, "3DPW's, metres; which way is up was not checked", (file,),
                    facts={"split": file.parent.name, "people": len(poses), "fps": FPS,
                           "frames_without_camera": int((~valid.any(axis=0)).sum())})


DATASETS = (Dataset("3dpw", "3D Poses in the Wild", "MPI, non-commercial research", _find),)
