"""Camera frames from wherever they are: recordings, videos, image folders, cameras.

    with open_source("walk.mp4") as source:
        for frame in source:
            estimate = stream.step(frame)
            truth = source.truth_at(frame.stamp_ns)

Every frame is `CameraFrame`: RGB, lens distortion removed, in order of its stamps. Videos and folders
have no clock: frame i is stamped START_NS + i / fps.
"""

from __future__ import annotations

import abc
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import CalibrationError, HumanSceneError, ImageError, SourceError
from human_scene_ros.scene import CameraFrame
from human_scene_ros.sources.bag_reader import BagReader, header_stamp_ns, is_recording
from human_scene_ros.sources.bag_writer import TRUTH_BODIES, TRUTH_DEPTH, TRUTH_POSE, truth_topic
from human_scene_ros.sources.calibration import Calibration, is_rectified_topic
from human_scene_ros.sources.image_codec import decode_compressed, decode_depth_message, decode_message
from human_scene_ros.sources.message_fields import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    FrameTruth,
    matrix_of_pose,
    stamp_ns_of,
    truth_from_message,
)

START_NS = 1_000_000_000
"""Stamp of the first frame of a video: one second, because 0 means "unset" in ROS."""

DEFAULT_FPS = 30.0
_STAMP_END = 12  # bytes of a serialized message up to the end of its header's stamp
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

_log = logging.getLogger(__name__)


class FrameSource(abc.ABC):
    """Frames of one camera; iterate it (again for another pass), close it after use.

    Attributes:
        name: What is read, for reports.
        frame_count: Number of frames as far as the source tells; None for a live camera.
        has_truth: True if `truth_at` knows something.
        on_rejected: Called with the error of each frame that cannot be decoded, and the iteration goes on; None
            (the default): such an error ends the iteration.
    """

    name: str = ""
    frame_count: int | None = None
    has_truth: bool = False
    on_rejected: Callable[[HumanSceneError], None] | None = None

    @abc.abstractmethod
    def __iter__(self) -> Iterator[CameraFrame]:
        """All frames from the first one."""

    def _rejected(self, error: HumanSceneError) -> None:
        if self.on_rejected is None:
            raise error
        self.on_rejected(error)

    def truth_at(self, stamp_ns: int) -> FrameTruth | None:
        """Truth of the frame with exactly this stamp; None where there is none."""
        return None

    def close(self) -> None:  # noqa: B027 (sources without a handle have nothing to close)
        """Release files and devices."""

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def open_source(source: str | Path | int, image_topic: str | None = None, info_topic: str | None = None, *,
                fps: float | None = None) -> FrameSource:
    """Open a recording, video, image folder or camera.

    Args:
        source: Path of a rosbag2 folder, .mcap, .db3, video file or image folder, or a camera index
            (an integer, also as text when no such file exists).
        image_topic: Image topic of a recording; None or "" = the only one there is.
        info_topic: CameraInfo topic; None or "" = `camera_info` beside the image topic.
        fps: Frames per second of an image folder or of a video with a wrong header.

    Raises:
        SourceError: Missing, empty or unreadable; or the topics are not there (names those that are).
    """
    path = Path(str(source))
    if isinstance(source, int) or (str(source).isdigit() and not path.exists()):
        return CameraSource(int(str(source)))
    if not path.exists():
        raise SourceError(f"{path} does not exist; expected a rosbag2 folder, .mcap, .db3, video, image folder or "
                          "camera index")
    if is_recording(path):
        return BagSource(path, image_topic, info_topic)
    if path.is_dir():
        return FolderSource(path, fps or DEFAULT_FPS)
    return VideoSource(path, fps)


class BagSource(FrameSource):
    """Frames of one image topic of a recording, with its truth under /gt/ (see `SceneBagWriter.write_truth`)."""

    def __init__(self, path: Path, image_topic: str | None = None, info_topic: str | None = None) -> None:
        self._bag = BagReader(path)
        try:
            self.image_topic = choose_image_topic(self._bag, image_topic)
            self.info_topic = choose_info_topic(self._bag, self.image_topic, info_topic)
            self.frame_count = self._bag.topics[self.image_topic].count
            self.name = f"{path} {self.image_topic}"
            self._camera = self.image_topic.strip("/").split("/")[0]
            self._several = truth_topic(TRUTH_POSE, self._camera) in self._bag.topics
            self._truth, self._pose = (self._index(self._truth_topic(t)) for t in (TRUTH_BODIES, TRUTH_POSE))
            depth_topic = self._truth_topic(TRUTH_DEPTH)
            self._depth = _Cursor(path, depth_topic) if depth_topic in self._bag.topics else None
            self._infos = self._index(self.info_topic) if self._pose and self.info_topic else {}
        except BaseException:
            self._bag.close()
            raise
        self.has_truth = bool(self._truth or (self._pose and self._infos))

    def __iter__(self) -> Iterator[CameraFrame]:
        topics = [self.image_topic] + ([self.info_topic] if self.info_topic else [])
        info, info_data = None, b""
        if self.info_topic:
            # The first calibration may be recorded after the first image.
            info_data = self._bag.first(self.info_topic)[1]
            info = self._bag.deserialize(self.info_topic, info_data)
        rectified = is_rectified_topic(self.image_topic)
        calibration, calibrated_size = None, (0, 0)
        for topic, recorded_ns, data in self._bag.messages(topics):
            if topic == self.info_topic:
                if data[_STAMP_END:] != info_data[_STAMP_END:]:  # most cameras repeat one calibration for ever
                    info, info_data, calibrated_size = self._bag.deserialize(topic, data), data, (0, 0)
                continue
            message = self._bag.deserialize(topic, data)
            try:
                image = decode_message(message)
                size = (image.shape[1], image.shape[0])
                if info is not None and size != calibrated_size:
                    calibration = Calibration.from_message(info, *size, rectified=rectified)
                    calibrated_size = size
                if calibration is not None:
                    image = calibration.undistorted(image)
            except (ImageError, CalibrationError) as error:
                self._rejected(error)
                continue
            yield CameraFrame(stamp_ns_of(message.header.stamp) or recorded_ns, image, message.header.frame_id,
                              None if calibration is None else calibration.camera)

    def truth_at(self, stamp_ns: int) -> FrameTruth | None:
        depth = None if self._depth is None else self._depth.at(stamp_ns)
        depth_m = None if depth is None else decode_depth_message(self._message(TRUTH_DEPTH, depth))
        if stamp_ns in self._truth:
            return truth_from_message(self._message(TRUTH_BODIES, self._truth[stamp_ns]), depth_m)
        if stamp_ns not in self._pose or stamp_ns not in self._infos or self.info_topic is None:
            return None
        info = self._bag.deserialize(self.info_topic, self._infos[stamp_ns])
        calibration = Calibration.from_message(info, int(info.width), int(info.height),
                                               rectified=is_rectified_topic(self.image_topic))
        if calibration is None:
            return None
        pose = self._message(TRUTH_POSE, self._pose[stamp_ns]).pose.pose
        return FrameTruth(stamp_ns, calibration.camera, matrix_of_pose(pose), (), depth_m, people_known=False)

    def _truth_topic(self, topic: str) -> str:
        return truth_topic(topic, self._camera if self._several else "")

    def _message(self, topic: str, data: bytes) -> Any:
        return self._bag.deserialize(self._truth_topic(topic), data)

    def close(self) -> None:
        self._bag.close()
        if self._depth is not None:
            self._depth.close()

    def _index(self, topic: str) -> dict[int, bytes]:
        if topic not in self._bag.topics:
            return {}
        return {header_stamp_ns(data): data for _, _, data in self._bag.messages([topic])}


class _Cursor:
    """Messages of a topic by stamp, read along with who asks, so that a long recording needs no more memory.

    Stamps must rise in the recording, as `SceneBagWriter.write_truth` writes them. Asking for rising stamps takes
    one pass in all; an earlier stamp starts over.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path, self._topic = path, topic
        self._bag: BagReader | None = None
        self._messages: Iterator[tuple[str, int, bytes]] = iter(())
        self._previous_ns: float = math.inf  # stamps of the message before the one that is held, and of that one
        self._held_ns: float = math.inf
        self._data = b""

    def at(self, stamp_ns: int) -> bytes | None:
        """The message with exactly this stamp."""
        if stamp_ns <= self._previous_ns:
            self.close()
            self._bag = BagReader(self._path)
            self._messages = self._bag.messages([self._topic])
            self._previous_ns = self._held_ns = -math.inf
        while self._held_ns < stamp_ns:
            self._previous_ns = self._held_ns
            _, _, self._data = next(self._messages, ("", 0, b""))
            self._held_ns = header_stamp_ns(self._data) if self._data else math.inf
        return self._data if self._held_ns == stamp_ns else None

    def close(self) -> None:
        if self._bag is not None:
            self._bag.close()


class VideoSource(FrameSource):
    """Frames of a video file."""

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self.name, self._path = str(path), path
        if path.stat().st_size == 0:
            raise SourceError(f"{path} is empty (0 bytes)")
        capture = self._capture()
        declared = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (declared if np.isfinite(declared) and 0.1 <= declared <= 1000.0 else DEFAULT_FPS)
        self.frame_count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) or None
        readable = capture.grab()
        capture.release()
        if not readable:
            raise SourceError(f"{path} opens as a video but has no frame that can be decoded")

    def __iter__(self) -> Iterator[CameraFrame]:
        capture, index = self._capture(), 0
        try:
            while True:
                done, image = capture.read()
                if not done:
                    break
                yield CameraFrame(START_NS + round(index * 1e9 / self.fps), _rgb(image))
                index += 1
        finally:
            capture.release()
        if self.frame_count is not None and index < self.frame_count:
            _log.warning("%s: %d frames decoded, its header says %d", self.name, index, self.frame_count)

    def _capture(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(f"{self._path} is neither a recording nor a video that can be decoded")
        return capture


class FolderSource(FrameSource):
    """Frames of a folder of images in the natural order of their names (2 before 10)."""

    def __init__(self, path: Path, fps: float) -> None:
        self.name, self.fps = str(path), fps
        files = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
        if not files:
            raise SourceError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}) and no recording")
        self._files = sorted(files, key=lambda p: [
            (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", p.name)])
        self.frame_count = len(files)

    def __iter__(self) -> Iterator[CameraFrame]:
        for index, file in enumerate(self._files):
            try:
                image = decode_compressed(file.suffix, file.read_bytes())
            except ImageError as error:
                self._rejected(SourceError(f"{file}: {error}"))
                continue
            yield CameraFrame(START_NS + round(index * 1e9 / self.fps), image)


class CameraSource(FrameSource):
    """Frames of a camera of this machine, stamped with the system time of their arrival."""

    def __init__(self, index: int) -> None:
        self.name = f"camera {index}"
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise SourceError(f"camera {index} cannot be opened; is it connected, and may this user read "
                              f"/dev/video{index}?")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def __iter__(self) -> Iterator[CameraFrame]:
        while True:
            done, image = self._capture.read()
            if not done:
                raise SourceError(f"{self.name} stopped delivering images")
            yield CameraFrame(time.time_ns(), _rgb(image))

    def close(self) -> None:
        self._capture.release()


def _rgb(bgr: Any) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def image_topics(bag: BagReader) -> list[str]:
    """Colour image topics of a recording: raw or compressed, neither truth nor depth by their names."""
    return [t.name for t in bag.topics.values() if t.msgtype in (IMAGE, COMPRESSED_IMAGE) and t.count
            and not t.name.startswith("/gt/") and "depth" not in t.name.lower()]


def choose_image_topic(bag: BagReader, asked: str | None) -> str:
    """The topic asked for, or the only camera's; raw before compressed.

    Raises:
        SourceError: Not there, no image, or several cameras to choose from.
    """
    found = image_topics(bag)
    if asked:
        for name in (asked, f"{asked}/compressed"):
            if name in bag.topics and bag.topics[name].msgtype in (IMAGE, COMPRESSED_IMAGE) and bag.topics[name].count:
                return name
        got = f"is {bag.topics[asked].msgtype}" if asked in bag.topics else "is not in it"
        raise SourceError(f"{bag.path}: image topic {asked} {got}; image topics: {', '.join(found) or 'none'}")
    cameras: dict[str, list[str]] = {}
    for name in found:
        cameras.setdefault(name.removesuffix("/compressed"), []).append(name)
    if not cameras:
        raise SourceError(f"{bag.path} has no image topic; topics: "
                          f"{', '.join(f'{t.name} ({t.msgtype})' for t in bag.topics.values())}")
    if len(cameras) > 1:
        raise SourceError(f"{bag.path} has several image topics; choose one: {', '.join(sorted(found))}")
    return min(next(iter(cameras.values())), key=len)


def choose_info_topic(bag: BagReader, image_topic: str, asked: str | None) -> str | None:
    """The CameraInfo topic asked for, or the sibling of the image topic; None without one.

    Raises:
        SourceError: The topic asked for is not there or no CameraInfo.
    """
    infos = [t.name for t in bag.topics.values() if t.msgtype == CAMERA_INFO and t.count]
    if asked:
        if asked not in infos:
            raise SourceError(f"{bag.path}: camera_info topic {asked} is not in it; camera_info topics: "
                              f"{', '.join(sorted(infos)) or 'none'}")
        return asked
    sibling = image_topic.removesuffix("/compressed").rsplit("/", 1)[0] + "/camera_info"
    return sibling if sibling in infos else None
