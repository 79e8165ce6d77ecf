"""What every data set becomes: sequences of frames with truth, and the one way they turn into recordings.

A data-set module knows files and conventions and yields `DatasetFrame`; `write_sequence` knows topics. Frames are
read one at a time, so that memory does not grow with the length of a sequence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image as PillowImage

from human_scene_ros.errors import ConfigError, HumanSceneError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.sources.bag_reader import is_recording
from human_scene_ros.sources.bag_writer import MANIFEST, SceneBagWriter
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.image_codec import RGB
from human_scene_ros.sources.message_fields import TF_MESSAGE, FrameTruth, transforms_fields
from human_scene_ros.sources.reader import START_NS

WORLD_FRAME = "gt_world"
ONLY_CAMERA = "camera"
ROT_ZUP_YUP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Turns a world with y up into one with z up, about x."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """What a user may say about a conversion.

    Args:
        body: SMPL or SMPL-X file, or the folder that holds them, for data sets that store only parameters.
        people: False: leave people out, so that no body model is needed.
        every: Keep every n-th time step.
        limit: Keep at most so many time steps; 0 = all.
        skip: Leave out so many time steps at the beginning, before `every` and `limit` count.
        only_people: Leave out images without truth of people.

    Raises:
        ConfigError: `every`, `limit` or `skip` is out of range.
    """

    body: Path | None = None
    people: bool = True
    every: int = 1
    limit: int = 0
    only_people: bool = False
    skip: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or self.limit < 0 or self.skip < 0:
            raise ConfigError(f"every = {self.every}, limit = {self.limit}, skip = {self.skip}: expected at least 1, "
                              "at least 0 and at least 0")

    def kept(self, steps: range) -> range:
        """The time steps that are kept."""
        steps = steps[self.skip::self.every]
        return steps[:self.limit] if self.limit else steps


@dataclasses.dataclass(frozen=True)
class DatasetFrame:
    """One image of one camera.

    Args:
        camera: Name of the camera in its sequence.
        stamp_ns: Acquisition time.
        image: (H, W, 3) RGB, or the bytes of a JPEG or PNG file.
        calibration: Intrinsics of the image as it is stored, with its lens distortion.
        truth: In the undistorted image; None where there is no pose of the camera.
    """

    camera: str
    stamp_ns: int
    image: RGB | bytes
    calibration: Calibration
    truth: FrameTruth | None


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One recording to be.

    Args:
        name: Name of its folder.
        frame_count: Number of images of all cameras, for the progress.
        frames: Starts a pass over all frames, by rising stamps.
        cameras: Their names; (`ONLY_CAMERA`,) for a single one.
        static: The cameras do not move: their poses go to /tf_static.
        exact_depth: Depth is not a multiple of a millimetre or goes beyond 65 m.
        world: What the axes and units of the world frame are.
        sources: Annotation files; their SHA-256 go into the manifest.
        facts: More for the manifest.
    """

    name: str
    frame_count: int
    frames: Callable[[], Iterator[DatasetFrame]]
    world: str
    sources: tuple[Path, ...]
    cameras: tuple[str, ...] = (ONLY_CAMERA,)
    static: bool = False
    exact_depth: bool = False
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


Found = dict[str, Callable[[], Sequence]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set that can be converted.

    Args:
        name: As on the command line.
        title: In words.
        licence: In a phrase; the data set's own page decides.
        find: Finds the sequences of a folder, by name; each opens when its function is called. Both steps raise
            `SourceError` naming the file that is missing.
    """

    name: str
    title: str
    licence: str
    find: Callable[[Path, ConvertOptions], Found]


def open_sequences(dataset: Dataset, source: Path, options: ConvertOptions, chosen: list[str] | None = None
                   ) -> list[Sequence]:
    """The sequences of a folder; with `chosen`, only those are opened.

    Raises:
        SourceError: A file is missing or not what the data set has; or a chosen sequence is not there.
    """
    with foreign_content(dataset.name, source):
        found = dataset.find(source, options)
        unknown = sorted(set(chosen or ()) - set(found))
        if unknown:
            raise SourceError(f"{source} has no sequence {', '.join(unknown)}; it has {', '.join(found)}")
        return [make() for name, make in found.items() if not chosen or name in chosen]


@contextlib.contextmanager
def foreign_content(name: str, source: Path) -> Iterator[None]:
    """Turns what broken files of others provoke in parsers and arrays into one `SourceError`."""
    try:
        yield
    except HumanSceneError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, ZeroDivisionError) as error:
        raise SourceError(f"{source}: its content is not that of {name} ({type(error).__name__}: {error})") from error


def write_sequence(dataset: Dataset, sequence: Sequence, out: Path, options: ConvertOptions, *,
                   overwrite: bool = False, on_frame: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Write one sequence as the rosbag2 folder `out / sequence.name`, which appears only when it is complete.

    One camera: `/camera/image/compressed`, `/camera/camera_info` and truth under /gt/. Several:
    `/CAMERA/image_raw/compressed`, `/CAMERA/camera_info`, `/gt/CAMERA/...`. Poses also go to /tf or /tf_static
    as `gt_world` -> `gt_CAMERA_optical`.

    Returns:
        sequence, folder, images, with_truth, with_people, bytes, skipped (True: was complete before).

    Raises:
        SourceError: The folder exists and is no recording, or no frame could be read.
    """
    folder = out / sequence.name
    report: dict[str, Any] = {"sequence": sequence.name, "folder": str(folder), "skipped": True}
    if folder.exists():
        if not is_recording(folder):
            raise SourceError(f"{folder} exists and is no recording; choose another output folder")
        if not overwrite:
            return report
    partial = out / f".{sequence.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    try:
        counts = _write(partial, dataset, sequence, options, on_frame)
        if not counts["images"]:
            raise SourceError(f"{dataset.name} {sequence.name}: no image is left to write; check --skip, --every, "
                              "--limit and --only-people")
        manifest = {"dataset": dataset.name, "sequence": sequence.name, "licence": dataset.licence,
                    "redistribution": "none: this recording contains the data set's images; keep it to yourself",
                    "world_frame": f"{WORLD_FRAME}: {sequence.world}", "cameras": list(sequence.cameras),
                    "every": options.every, "skip": options.skip, **counts, **sequence.facts,
                    "sha256": {path.name: _sha256(path) for path in sequence.sources}}
        (partial / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(p.stat().st_size for p in folder.iterdir())
    return {**report, **counts, "bytes": size, "skipped": False}


def _write(folder: Path, dataset: Dataset, sequence: Sequence, options: ConvertOptions, on_frame: Callable[[], object]
           ) -> dict[str, int]:
    counts = {"images": 0, "with_truth": 0, "with_people": 0}
    several = len(sequence.cameras) > 1
    placed: dict[str, tuple[int, str, str, NDArray[np.float64]]] = {}  # static camera -> its transform
    with SceneBagWriter(folder, compress=True) as writer:
        frames = sequence.frames()
        while True:
            with foreign_content(dataset.name, Path(sequence.name)):
                frame = next(frames, None)
            if frame is None:
                break
            on_frame()
            truth = frame.truth
            if options.only_people and (truth is None or not truth.people_known):
                continue
            optical = f"{frame.camera}_optical"
            writer.write_camera(f"/{frame.camera}/{'image_raw' if several else 'image'}", frame.image,
                                frame.calibration, frame.stamp_ns, optical)
            counts["images"] += 1
            if truth is None:
                continue
            transform = (frame.stamp_ns, WORLD_FRAME, f"gt_{optical}", truth.T_world_camera)
            if not sequence.static:
                writer.write("/tf", TF_MESSAGE, transforms_fields([transform]), frame.stamp_ns)
            elif frame.camera not in placed:
                placed[frame.camera] = transform
                if len(placed) == len(sequence.cameras):  # latched: the last message must hold them all
                    writer.write("/tf_static", TF_MESSAGE, transforms_fields(placed.values()), frame.stamp_ns,
                                 latched=True)
            writer.write_truth(truth, camera_frame=optical, world_frame=WORLD_FRAME,
                               camera=frame.camera if several else "", exact_depth=sequence.exact_depth)
            counts["with_truth"] += 1
            counts["with_people"] += truth.people_known
        if sequence.static and len(placed) < len(sequence.cameras) and placed:
            writer.write("/tf_static", TF_MESSAGE, transforms_fields(placed.values()),
                         max(t[0] for t in placed.values()), latched=True)
    return counts


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- what readers of data sets share -----------------------------------------------------------------------------

def require(path: Path, what: str) -> Path:
    """`path` if it exists.

    Raises:
        SourceError: It does not; says what it should have held.
    """
    if not path.exists():
        raise SourceError(f"{path} is missing; expected {what}")
    return path


def require_files(folder: Path, pattern: str, what: str) -> list[Path]:
    """Files of a folder that match, sorted by name.

    Raises:
        SourceError: The folder is missing or holds none.
    """
    files = sorted(p for p in require(folder, what).glob(pattern) if not p.name.startswith("."))
    if not files:
        raise SourceError(f"{folder} holds no {pattern}; expected {what}")
    return files


def missing_images(sequence: str, present: Mapping[str, int], expected: int) -> dict[str, int]:
    """Camera -> images that it lacks of those that the others have; also said in the log, for nothing else would."""
    missing = {name: expected - count for name, count in present.items() if count < expected}
    if missing:
        _log.warning("%s: of %d time steps, %s lack an image; was a download interrupted?", sequence, expected,
                     ", ".join(f"{count} of {name}" for name, count in missing.items()))
    return missing


def stamp_of_seconds(text: str) -> int:
    """Decimal seconds, as written in a text file -> nanoseconds, exact.

    Raises:
        SourceError: Not a number.
    """
    try:
        return int((Decimal(text) * 1_000_000_000).to_integral_value())
    except InvalidOperation as error:
        raise SourceError(f"'{text}' is no time in seconds") from error


def stamp_of_index(index: int, fps: float) -> int:
    """Stamp of a frame of a data set without a clock: `START_NS` + index / fps."""
    return START_NS + round(index * 1e9 / fps)


def image_size(image: bytes, path: Path) -> tuple[int, int]:
    """(width, height) of a coded image.

    Raises:
        SourceError: It cannot be decoded.
    """
    try:
        with PillowImage.open(io.BytesIO(image)) as header:  # pixels are not decoded
            return header.size
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceError(f"{path} cannot be decoded as an image") from error


_BEGIN_AND_END = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"))  # JPEG, PNG


def read_coded(path: Path) -> bytes:
    """Bytes of an image file, complete if it is a JPEG or PNG.

    Raises:
        SourceError: Missing or cut off.
    """
    data = require(path, "an image").read_bytes()
    for begin, end in _BEGIN_AND_END:
        # Decoders make a half grey picture of such a file and say nothing. A thumbnail inside ends early.
        if data.startswith(begin) and end not in data[len(data) // 2:]:
            raise SourceError(f"{path} is cut off after {len(data)} bytes; was its download interrupted?")
    return data


def read_image(path: Path) -> bytes | RGB:
    """Bytes of a JPEG or PNG file as they are; pixels of any other kind.

    Raises:
        SourceError: Missing, cut off or not an image.
    """
    data = read_coded(path)
    if data.startswith(tuple(begin for begin, _ in _BEGIN_AND_END)):
        return data
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) \
        if data else None
    if decoded is None:
        raise SourceError(f"{path} cannot be decoded as an image")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def read_depth_png(path: Path, units_per_metre: float) -> NDArray[np.float32]:
    """16-bit depth image -> metres; 0 where it holds 0 or 65535, the two ways to say "no reading".

    Raises:
        SourceError: Missing or not a 16-bit image.
    """
    values = cv2.imread(str(require(path, "a 16-bit depth image")), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype != np.uint16:
        got = "nothing that can be decoded" if values is None else f"{values.dtype} {values.shape}"
        raise SourceError(f"{path} holds {got}; expected a 16-bit grey depth image")
    return np.where(values == 65535, 0.0, values / units_per_metre).astype(np.float32)


class VideoFrames:
    """Frames of a video by rising index, decoded one at a time; those in between are skipped without decoding.

    Raises:
        SourceError: Missing, or not a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = require(path, "a video")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(f"{path} is no video that can be decoded")
        self._next = 0
        self.count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.size = (int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                     int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))

    def at(self, index: int) -> RGB | None:
        """(H, W, 3) RGB of a frame not before the last one asked for; None after the end."""
        while self._next <= index:
            if not self._capture.grab():
                return None
            self._next += 1
        done, image = self._capture.retrieve()
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8) if done else None

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


def pinhole(width: int, height: int, K: NDArray[np.floating] | list[list[float]]) -> PinholeCamera:
    """A camera from its (3, 3) matrix."""
    K = np.asarray(K, np.float64)
    return PinholeCamera(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
