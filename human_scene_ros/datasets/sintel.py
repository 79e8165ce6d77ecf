"""MPI Sintel (Butler et al. 2012) with its depth and camera data: trajectory and depth truth of an animated film.

`training/{final,clean}/SEQ/frame_NNNN.png`, `training/depth/SEQ/frame_NNNN.dpt`,
`training/camdata_left/SEQ/frame_NNNN.cam`. A .dpt holds a float32 tag 202021.25, int32 width and height and float32
depths; a .cam the tag, a float64 3x3 K and a float64 3x4 world-to-camera matrix; all little-endian. Film units, not
metres; optical axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    require,
    require_files,
    stamp_of_index,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.transform import invert, make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth

FPS = 24.0
TAG = 202021.25


def read_dpt(path: Path) -> NDArray[np.float32]:
    """(H, W) depths of a .dpt file.

    Raises:
        SourceError: Missing, another tag, or cut.
    """
    data = _tagged(path)
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist() if len(data) >= 12 else (0, 0)
    if width <= 0 or height <= 0 or len(data) != 12 + 4 * width * height:
        raise SourceError(f"{path} declares {width}x{height} depths in {len(data)} bytes; it was cut or is no .dpt")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float32)


def read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3, 3) K and (4, 4) T_camera_world of a .cam file.

    Raises:
        SourceError: Missing, another tag, or cut.
    """
    data = _tagged(path)
    if len(data) != 4 + 8 * 21:
        raise SourceError(f"{path} has {len(data)} bytes; a .cam has {4 + 8 * 21}")
    values = np.frombuffer(data, "<f8", offset=4)
    extrinsic = values[9:].reshape(3, 4)
    return values[:9].reshape(3, 3), make_transform(extrinsic[:, :3], extrinsic[:, 3])


def _tagged(path: Path) -> bytes:
    data = require(path, "a file of Sintel's depth training data").read_bytes()
    if len(data) < 4 or np.frombuffer(data, "<f4", 1)[0] != np.float32(TAG):
        raise SourceError(f"{path} does not begin with the tag {TAG}; it is no file of Sintel")
    return data


def _find(source: Path, options: ConvertOptions) -> Found:
    root = source / "training" if (source / "training").is_dir() else source
    image_root = root / "final" if (root / "final").is_dir() else root / "clean"
    folders = sorted(p for p in require(image_root, "training/final (or clean) of MPI Sintel").iterdir() if p.is_dir())
    if not folders:
        raise SourceError(f"{image_root} holds no sequence folders")
    return {folder.name: partial(_sequence, root, folder, options) for folder in folders}


def _sequence(root: Path, folder: Path, options: ConvertOptions) -> Sequence:
    images = require_files(folder, "frame_*.png", "images of MPI Sintel")
    for cam in sorted((root / "camdata_left" / folder.name).glob("frame_*.cam")):
        require(folder / f"{cam.stem}.png", f"the image of {cam.name}")
    steps = options.kept(range(len(images)))
    cams = [root / "camdata_left" / folder.name / f"{images[i].stem}.cam" for i in steps]
    depths = [root / "depth" / folder.name / f"{images[i].stem}.dpt" for i in steps]
    for path in (*cams, *depths):
        require(path, "Sintel's depth training data (MPI-Sintel-depth-training)")

    def frames() -> Iterator[DatasetFrame]:
        for i, cam, dpt in zip(steps, cams, depths, strict=True):
            data = read_coded(images[i])
            K, T_camera_world = read_cam(cam)
            calibration = Calibration(pinhole(*image_size(data, images[i]), K))
            stamp_ns = stamp_of_index(i, FPS)
            truth = FrameTruth(stamp_ns, calibration.camera, invert(T_camera_world), (), read_dpt(dpt),
                               people_known=False)
            yield DatasetFrame(ONLY_CAMERA, stamp_ns, data, calibration, truth)

    return Sequence(folder.name, len(steps), frames, "of the film, in its own units (not metres)", (),
                    exact_depth=True, facts={"images": folder.parent.name, "fps": FPS})


DATASETS = (Dataset("sintel", "MPI Sintel with depth and cameras", "film CC BY 3.0, see its page", _find),)
