"""Coloured point clouds on disk: PLY, PCD and NPZ, written completely or not at all.

PLY 1.0, binary_little_endian: float x, y, z; uchar red, green, blue. PCD 0.7, binary: float x, y, z and "rgb", the
packed float of PCL. NPZ: "points" (N, 3) float32 and "colors" (N, 3) uint8. All in metres, world frame.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.geometry.arrays import check_finite, check_shape

Format = Literal["ply", "pcd", "npz"]
FORMATS: tuple[str, ...] = get_args(Format)


def save_points(path: str | Path, points: NDArray[np.floating], colors: NDArray[np.uint8],
                form: Format | None = None) -> Path:
    """Write a cloud; an existing file is replaced only when the new one is complete.

    Args:
        path: Where to; its folder must exist. Without a suffix that of the format is added.
        points: (N, 3) metres, finite.
        colors: (N, 3) uint8 RGB.
        form: None: what the suffix says.

    Returns:
        The file written.

    Raises:
        ConfigError: The format is unknown.
        SourceError: The file cannot be written there.
        ShapeError: The arrays do not fit each other.
    """
    path = Path(path).expanduser()
    chosen = form or path.suffix.lstrip(".").lower()
    if chosen not in FORMATS:
        raise ConfigError(f"cannot save a map as {chosen!r} ({path}): expected one of {list(FORMATS)}, as the "
                          f"file's suffix or as the format")
    if not path.suffix:
        path = path.with_suffix(f".{chosen}")
    check_shape("points", points, (None, 3))
    check_shape("colors", colors, (len(points), 3))
    check_finite("points", points)
    content = {"ply": _ply, "pcd": _pcd, "npz": _npz}[chosen](
        np.ascontiguousarray(points, "<f4"), np.ascontiguousarray(colors, np.uint8))
    _write(path, content)
    return path


def _ply(points: NDArray[np.float32], colors: NDArray[np.uint8]) -> bytes:
    rows = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colors
    header = ("ply\nformat binary_little_endian 1.0\ncomment metres, z up\n"
              f"element vertex {len(points)}\n"
              "property float x\nproperty float y\nproperty float z\n"
              "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n")
    return header.encode("ascii") + rows.tobytes()


def _pcd(points: NDArray[np.float32], colors: NDArray[np.uint8]) -> bytes:
    rows = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "<u4")])
    rows["xyz"] = points
    red, green, blue = (colors[:, i].astype("<u4") for i in range(3))
    rows["rgb"] = (red << 16) | (green << 8) | blue  # the bits of the "float" that PCL stores
    header = ("# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\n"
              f"COUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\n"
              "DATA binary\n")
    return header.encode("ascii") + rows.tobytes()


def _npz(points: NDArray[np.float32], colors: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, points=points, colors=colors)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    if path.is_dir():
        raise SourceError(f"cannot write the map to {path}: it is a folder; give a file name in it")
    if not path.parent.is_dir():
        raise SourceError(f"cannot write the map to {path}: the folder {path.parent} does not exist")
    part = ""
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)  # as if opened by name; mkstemp keeps files private
        os.replace(part, path)
    except OSError as error:
        if part and os.path.exists(part):
            os.unlink(part)
        raise SourceError(f"cannot write the map to {path}: {error.strerror or error}") from error
