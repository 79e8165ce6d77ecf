"""Sessions of two open motion-capture tools with several fixed cameras: Pose2Sim and caliscope.

Pose2Sim (Pagnon et al. 2022): `Calib*.toml` (or `calibration/Calib*.toml`), videos (or `videos/`), optionally `*.trc`
(or `pose-3d/*.trc`). Each camera's `rotation` (Rodrigues) and `translation` map the z-up world to the camera. TRC
files hold joints in metres with y up; they are turned back: x, y, z of the world are Z, X, Y of the file.
caliscope: `camera_array.toml` with `rotation` (3x3, or Rodrigues) and `translation`, world to camera; videos
`port_N.mp4` or `cam_N.mp4`; `frame_time_history.csv` with the arrival time of every frame, where it was kept.
Calibrations are for the size in the file; smaller videos are the same view, scaled.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.datasets.people import person_of_named_joints
from human_scene_ros.datasets.safe_pickle import entry
from human_scene_ros.datasets.sequence import (
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Found,
    Sequence,
    VideoFrames,
    pinhole,
    require,
    stamp_of_index,
    stamp_of_seconds,
)
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.transform import invert, make_transform
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.message_fields import FrameTruth

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
Placed = tuple[Calibration, NDArray[np.float64]]

_SIDES = {"R": "right_", "L": "left_"}
_MARKERS = {"Hip": "hip", "Knee": "knee", "Ankle": "ankle", "BigToe": "big_toe", "SmallToe": "small_toe",
            "Heel": "heel", "Shoulder": "shoulder", "Elbow": "elbow", "Wrist": "wrist", "Eye": "eye", "Ear": "ear"}
_CENTRE = {"Neck": "neck", "Nose": "nose", "Hip": "pelvis", "CHip": "pelvis", "MidHip": "pelvis"}


def marker_name(marker: str) -> str:
    """Name of a marker of Pose2Sim's models (BODY_25B, HALPE_26, ...) among our joints; "" if it has no place."""
    if marker in _CENTRE:
        return _CENTRE[marker]
    part = _MARKERS.get(marker[1:])
    return _SIDES[marker[0]] + part if part and marker[0] in _SIDES else ""


def read_trc(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64], int]:
    """Marker names, (frames, markers, 3) metres in the z-up world, and the video frame of the first row.

    Raises:
        SourceError: Missing, not TRC, or a row has another length.
    """
    lines = require(path, "3-D joints of Pose2Sim").read_text(encoding="utf-8").splitlines()
    try:
        header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
        names = tuple(name for name in lines[3].split("\t")[2:] if name)
        factor = {"m": 1.0, "mm": 1e-3}[header["Units"].strip()]
        first = int(float(header.get("OrigDataStartFrame", 0)))
        rows = [[float(w) if w else np.nan for w in line.split("\t")[2:2 + 3 * len(names)]]
                for line in lines[5:] if line.strip()]
        values = np.array(rows, np.float64).reshape(len(rows), len(names), 3) * factor
    except (IndexError, KeyError, ValueError) as error:
        raise SourceError(f"{path} is no TRC file of joints ({error!r}); expected a header of 5 lines and rows of "
                          "frame, time and x y z per marker") from error
    return names, values[..., [2, 0, 1]], first


def _rotation(values: Any) -> NDArray[np.float64]:
    """A 3x3 matrix, or a Rodrigues vector."""
    values = np.asarray(values, np.float64)
    return Rotation.from_matrix(values).as_matrix() if values.shape == (3, 3) else Rotation.from_rotvec(
        values.reshape(3)).as_matrix()


def _placed(values: dict[str, Any], path: Path) -> Placed:
    """Calibration and T_camera_world of one table of either tool."""
    width, height = (int(v) for v in entry(values, "size", path))
    distortion = tuple(float(v) for v in entry(values, "distortions", path))
    try:
        camera = pinhole(width, height, entry(values, "matrix", path))
        T_camera_world = make_transform(_rotation(entry(values, "rotation", path)),
                                        np.asarray(entry(values, "translation", path), np.float64).reshape(3))
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
    model = "equidistant" if values.get("fisheye") else "plumb_bob"
    return Calibration(camera, model, distortion if any(distortion) else ()), T_camera_world


def _tables(path: Path, what: str) -> dict[str, Any]:
    try:
        import tomllib  # new in Python 3.11; everything else of the package runs with 3.10
    except ModuleNotFoundError as error:
        raise SourceError(f"reading {path} needs Python 3.11 or newer") from error
    try:
        return tomllib.loads(require(path, what).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{path} is no TOML: {error}") from error


def _number(text: str) -> int:
    """The last number in a name; -1 if there is none."""
    return int((re.findall(r"\d+", text) or [-1])[-1])


class _Session:
    """Calibrated videos that run in step."""

    def __init__(self, videos: dict[str, Path], placed: dict[str, Placed], options: ConvertOptions) -> None:
        self.videos, self.placed = videos, {}
        self.count, self.fps = 0, 0.0
        for name, path in videos.items():
            video = VideoFrames(path)
            calibration, T_camera_world = placed[name]
            self.placed[name] = Calibration(calibration.camera.resized(*video.size), calibration.model,
                                            calibration.distortion), T_camera_world
            self.count, self.fps = max(self.count, video.count), video.fps
            video.close()
        self.steps = options.kept(range(self.count))

    def images(self) -> Iterator[tuple[int, str, Any, Calibration, NDArray[np.float64]]]:
        """(step, camera, image, calibration, T_camera_world), step by step."""
        opened = {name: VideoFrames(path) for name, path in self.videos.items()}
        try:
            for i in self.steps:
                for name, video in opened.items():
                    image = video.at(i)
                    if image is not None:
                        yield i, name, image, *self.placed[name]
        finally:
            for video in opened.values():
                video.close()


# --- Pose2Sim ----------------------------------------------------------------------------------------------------

def _find_pose2sim(source: Path, options: ConvertOptions) -> Found:
    source = source.absolute()
    return {source.name: partial(_pose2sim_sequence, source, options)}


def _pose2sim_sequence(source: Path, options: ConvertOptions) -> Sequence:
    if not source.is_dir():
        raise SourceError(f"{source} is no folder; expected a session of Pose2Sim")
    files = sorted(source.glob("Calib*.toml")) or sorted(source.glob("calibration/Calib*.toml")) or sorted(
        source.parent.glob("calibration/Calib*.toml"))
    if not files:
        raise SourceError(f"{source / 'Calib_*.toml'} is missing, also in calibration/; run Pose2Sim.calibration()")
    tables = {k: v for k, v in _tables(files[0], "").items() if isinstance(v, dict) and "matrix" in v}
    folder = source / "videos" if (source / "videos").is_dir() else source
    found = {_number(p.stem): p for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES}
    videos, placed = {}, {}
    for name, table in tables.items():
        key = _number(str(table.get("name", name)))
        if key not in found:
            raise SourceError(f"{folder} has no video of camera {name} in {files[0].name}; expected a file with the "
                              f"number {key} last in its name, found {', '.join(p.name for p in found.values())}")
        camera = f"cam{key:02d}"
        videos[camera], placed[camera] = found[key], _placed(table, files[0])
    trc = (sorted(source.glob("pose-3d/*.trc")) or sorted(source.glob("*.trc"))) if options.people else []
    people = [read_trc(path) for path in _best_trc(trc)]
    session = _Session(videos, placed, options)

    def frames() -> Iterator[DatasetFrame]:
        for i, name, image, calibration, T_camera_world in session.images():
            stamp_ns = stamp_of_index(i, session.fps)
            seen = [person_of_named_joints(k, tuple(marker_name(n) for n in names), points[i - first], T_camera_world,
                                           calibration.camera)
                    for k, (names, points, first) in enumerate(people) if 0 <= i - first < len(points)]
            truth = FrameTruth(stamp_ns, calibration.camera, invert(T_camera_world),
                               tuple(p for p in seen if p is not None), people_known=bool(seen))
            yield DatasetFrame(name, stamp_ns, image, calibration, truth)

    return Sequence(source.name, len(session.steps) * len(videos), frames, "of the calibration, metres, z up",
                    (files[0], *_best_trc(trc)), tuple(videos), static=True,
                    facts={"fps": session.fps, "people": f"{len(people)} triangulated from 2-D detections"})


def _best_trc(files: list[Path]) -> list[Path]:
    """One file per person: the filtered version where there is one."""
    chosen: dict[str, Path] = {}
    for path in files:  # sorted: the filtered name is the raw one with an ending
        chosen[re.sub(r"_(filt|LSTM).*$", "", path.stem)] = path
    return list(chosen.values())


# --- caliscope ---------------------------------------------------------------------------------------------------

def _find_caliscope(source: Path, options: ConvertOptions) -> Found:
    source = source.absolute()
    return {source.name: partial(_caliscope_sequence, source, options)}


def _caliscope_sequence(source: Path, options: ConvertOptions) -> Sequence:
    array_file = source / "camera_array.toml"
    if not array_file.exists() and (source.parent / "camera_array.toml").exists():
        array_file = source.parent / "camera_array.toml"  # recordings lie one folder below the calibration
    tables = _tables(array_file, "the calibrated cameras of a caliscope session")
    tables = entry(tables, "cameras", array_file) if "cameras" in tables else {
        k.removeprefix("cam_"): v for k, v in tables.items() if k.startswith("cam_")}
    videos, placed = {}, {}
    for number, table in tables.items():
        if table.get("ignore") or "rotation" not in table or "translation" not in table:
            continue
        names = [f"{stem}_{number}{suffix}" for stem in ("port", "cam") for suffix in VIDEO_SUFFIXES]
        video = next((source / n for n in names if (source / n).is_file()), None)
        if video is None:
            raise SourceError(f"{source / names[0]} (or cam_{number}.mp4) is missing; {array_file.name} has camera "
                              f"{number}")
        videos[f"cam{int(number):02d}"], placed[f"cam{int(number):02d}"] = video, _placed(table, array_file)
    if not videos:
        raise SourceError(f"{array_file} holds no camera with rotation and translation; calibrate the array first")
    session = _Session(videos, placed, options)
    times_file = source / "frame_time_history.csv"
    times = read_frame_times(times_file) if times_file.exists() else {}

    def frames() -> Iterator[DatasetFrame]:
        pending: list[DatasetFrame] = []  # cameras of one step, in the order of their stamps
        step = -1
        for i, name, image, calibration, T_camera_world in session.images():
            if i != step:
                yield from sorted(pending, key=lambda frame: frame.stamp_ns)
                pending, step = [], i
            stamp_ns = times.get((name, i)) if times else stamp_of_index(i, session.fps)
            if stamp_ns is None:
                raise SourceError(f"{times_file} has no time of frame {i} of {name}")
            truth = FrameTruth(stamp_ns, calibration.camera, invert(T_camera_world), (), people_known=False)
            pending.append(DatasetFrame(name, stamp_ns, image, calibration, truth))
        yield from sorted(pending, key=lambda frame: frame.stamp_ns)

    sources = (array_file, times_file) if times else (array_file,)
    return Sequence(source.name, len(session.steps) * len(videos), frames,
                    "of the calibration, metres, axes as they came out", sources, tuple(videos), static=True,
                    facts={"stamps": "arrival on the recording host" if times else "frame / fps of the video",
                           "fps": session.fps})


def read_frame_times(path: Path) -> dict[tuple[str, int], int]:
    """(camera, frame of its video) -> stamp_ns, from `sync_index, port, frame_index, frame_time`.

    Raises:
        SourceError: A column is missing or no number.
    """
    times: dict[tuple[str, int], int] = {}
    seen: dict[str, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                camera, stamp_ns = f"cam{int(row['port']):02d}", stamp_of_seconds(row["frame_time"])
            except (KeyError, TypeError, ValueError) as error:
                raise SourceError(f"{path}: a row lacks or breaks {error}; expected sync_index, port, frame_index, "
                                  "frame_time") from error
            times[camera, seen.setdefault(camera, 0)] = stamp_ns  # rows of a port are in the order of its video
            seen[camera] += 1
    return times


DATASETS = (
    Dataset("pose2sim", "Pose2Sim session", "your own, or BSD-3 for its demos", _find_pose2sim),
    Dataset("caliscope", "caliscope session", "your own", _find_caliscope),
)
