"""Writes one rosbag2 folder with one MCAP file, without ROS: our messages, standard ones, or raw bytes.

The folder opens in Foxglove, `ros2 bag play` and `rosbags`: definitions are embedded and the offered QoS
of every topic is stored, so that latched topics are latched again when the recording is played.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import (
    Connection,
    Nodetype,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys.store import Typestore

from human_scene_ros.errors import MessageError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.image_codec import RGB, encode_depth_png, encode_jpeg
from human_scene_ros.sources.message_definitions import register_type, shared_typestore
from human_scene_ros.sources.message_fields import Fields, FrameTruth

TRUTH_BODIES, TRUTH_POSE, TRUTH_DEPTH = "/gt/bodies", "/gt/camera_pose", "/gt/depth"
MANIFEST = "manifest.yaml"
"""Says where a converted recording comes from; lies beside its metadata.yaml."""

_PNG = b"\x89PNG"
_FOREVER = QosTime(9223372036, 854775807)  # how rosbag2 writes "no deadline"


def qos_profile(*, latched: bool = False, reliable: bool = True, depth: int = 10) -> Qos:
    """The QoS that a topic offered, as stored in a recording."""
    return Qos(QosHistory.KEEP_LAST, depth,
               QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
               QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
               _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, avoid_ros_namespace_conventions=False)


def truth_topic(topic: str, camera: str = "") -> str:
    """`TRUTH_...` of one of several cameras: "/gt/cam01/bodies" for "cam01"; the plain topic for ""."""
    return topic.replace("/gt/", f"/gt/{camera}/") if camera else topic


def build_message(store: Typestore, msgtype: str, fields: Fields, where: str = "") -> Any:
    """A `rosbags` message from a nested dict (see `message_fields`).

    Raises:
        MessageError: A field is missing or unknown, or has the wrong length or type; names the field.
    """
    where = where or msgtype
    definition = dict(store.fielddefs[msgtype][1])
    definition.pop("structure_needs_at_least_one_member", None)
    if definition.keys() != fields.keys():
        missing, unknown = sorted(definition.keys() - fields.keys()), sorted(fields.keys() - definition.keys())
        raise MessageError(f"{where}: missing field(s) {missing}, unknown field(s) {unknown}")
    values = {name: _value(store, kind, fields[name], f"{where}.{name}") for name, kind in definition.items()}
    return store.types[msgtype](**values)


class SceneBagWriter:
    """One recording; use as a context manager. What was written is kept even when the block raises.

    Args:
        folder: The rosbag2 folder to make.
        overwrite: Replace a recording that is there already (never any other folder).
        compress: zstd-compress the chunks: clouds shrink, JPEG does not; costs some 4 ms per MB.

    Raises:
        SourceError: The folder exists and is not to be replaced, or cannot be made.
    """

    def __init__(self, folder: str | Path, *, overwrite: bool = False, compress: bool = False) -> None:
        self.folder = Path(folder)
        self._store = shared_typestore()
        self._connections: dict[str, Connection] = {}
        self.counts: dict[str, int] = {}
        if self.folder.exists():
            _remove_recording(self.folder, overwrite)
        try:
            self._writer = Writer(self.folder, version=9, storage_plugin=StoragePlugin.MCAP)
            if compress:
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except (OSError, WriterError) as error:
            raise SourceError(f"cannot write a recording to {self.folder}: {error}") from error
        self._open = True

    def write(self, topic: str, msgtype: str, fields: Fields, stamp_ns: int, *, latched: bool = False) -> None:
        """Write one message given as a nested dict.

        Args:
            topic: Absolute name.
            msgtype: "package/msg/Name"; the constants of `message_fields`.
            fields: From the functions of `message_fields`.
            stamp_ns: Time line of the recording.
            latched: Store the topic as transient local; decided by the first message of a topic.

        Raises:
            MessageError: The fields do not fit the type.
        """
        register_type(self._store, msgtype)
        data = self._store.serialize_cdr(build_message(self._store, msgtype, fields), msgtype)
        self.write_serialized(topic, msgtype, data, stamp_ns, qos_profile(latched=latched, depth=1 if latched else 10))

    def write_serialized(self, topic: str, msgtype: str, data: bytes | memoryview, stamp_ns: int,
                         qos: Qos | None = None) -> None:
        """Write one message given as CDR bytes, as they came over the wire."""
        connection = self._connections.get(topic)
        if connection is None:
            register_type(self._store, msgtype)
            connection = self._writer.add_connection(topic, msgtype, typestore=self._store,
                                                     offered_qos_profiles=[qos or qos_profile()])
            self._connections[topic] = connection
            self.counts[topic] = 0
        elif connection.msgtype != msgtype:
            raise MessageError(f"topic {topic} holds {connection.msgtype}; cannot also hold {msgtype}")
        self._writer.write(connection, max(int(stamp_ns), 0), data)
        self.counts[topic] += 1

    def write_camera(self, topic: str, image: RGB | bytes, camera: PinholeCamera | Calibration | None, stamp_ns: int,
                     camera_frame: str, *, quality: int = 92) -> None:
        """One input image as `<topic>/compressed` and, if calibrated, `camera_info` beside the topic.

        Args:
            topic: Base name of the image, for instance "/camera/image".
            image: (H, W, 3) RGB, written as JPEG; or the bytes of a JPEG or PNG file, written as they are.
            camera: Intrinsics of the image, with its distortion if it has any; None = not calibrated.
            stamp_ns: Acquisition time.
            camera_frame: Name of the optical frame.
            quality: Of the JPEG, 1..100.
        """
        data = image if isinstance(image, bytes) else encode_jpeg(image, quality)
        self.write(f"{topic}/compressed", fields_of.COMPRESSED_IMAGE,
                   fields_of.compressed_image_fields(stamp_ns, camera_frame, data,
                                                     "png" if data.startswith(_PNG) else "jpeg"), stamp_ns)
        if camera is not None:
            self.write(topic.rsplit("/", 1)[0] + "/camera_info", fields_of.CAMERA_INFO,
                       fields_of.camera_info_fields(stamp_ns, camera_frame, camera), stamp_ns)

    def write_truth(self, truth: FrameTruth, *, camera_frame: str, world_frame: str = "map", camera: str = "",
                    exact_depth: bool = False) -> None:
        """The truth of one image under /gt/: bodies with camera pose and intrinsics, the pose, the depth.

        `FrameSource.truth_at` reads it back. Where people are not known, no bodies are written.

        Args:
            truth: Any object with the attributes of `FrameTruth`, such as a frame of a synthetic world.
            camera_frame: Name of the optical frame.
            world_frame: Name of the world frame.
            camera: Which of several cameras, by the first part of its image topic; see `truth_topic`.
            exact_depth: Store depth as 32-bit metres instead of 16-bit millimetres, which end at 65.5 m.
        """
        stamp_ns = truth.stamp_ns
        if truth.people_known:
            topic = truth_topic(TRUTH_BODIES, camera)
            self.write(topic, fields_of.BODY_ARRAY, fields_of.truth_fields(
                truth, camera_frame=camera_frame, world_frame=world_frame, sequence=self.counts.get(topic, 0),
                camera_name=camera or "truth"), stamp_ns)
        self.write(truth_topic(TRUTH_POSE, camera), fields_of.POSE_WITH_COVARIANCE_STAMPED,
                   fields_of.pose_with_covariance_stamped_fields(stamp_ns, world_frame, truth.T_world_camera), stamp_ns)
        if truth.depth_m is None:
            return
        topic = truth_topic(TRUTH_DEPTH, camera)
        if exact_depth:
            self.write(topic, fields_of.IMAGE, fields_of.depth_image_fields(stamp_ns, camera_frame, truth.depth_m),
                       stamp_ns)
        else:
            self.write(topic, fields_of.COMPRESSED_IMAGE, fields_of.compressed_image_fields(
                stamp_ns, camera_frame, encode_depth_png(truth.depth_m), "16UC1; png compressed"), stamp_ns)

    def close(self) -> None:
        """Write the index and metadata.yaml; twice does no harm."""
        if self._open:
            self._open = False
            self._writer.close()

    def __enter__(self) -> SceneBagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _remove_recording(folder: Path, overwrite: bool) -> None:
    content = list(folder.iterdir()) if folder.is_dir() else None
    is_recording = content is not None and all(p.name in ("metadata.yaml", MANIFEST) or p.suffix in (".mcap", ".db3")
                                               for p in content)
    if not is_recording:
        raise SourceError(f"{folder} exists and is no recording; choose another folder")
    if content and not overwrite:
        raise SourceError(f"{folder} holds a recording already; choose another folder or allow overwriting")
    shutil.rmtree(folder)


_RANGES = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")}
_DTYPES = {name: np.dtype(name) for name in ("bool", "float32", "float64", *_RANGES)}
_RANGES |= {"byte": (0, 255), "char": (0, 255)}
_DTYPES |= {"byte": np.dtype(np.uint8), "char": np.dtype(np.uint8)}


def _value(store: Typestore, kind: Any, value: Any, where: str) -> Any:
    node, detail = kind
    if node == Nodetype.NAME:
        if not isinstance(value, dict):
            raise MessageError(f"{where} is {type(value).__name__}; expected a dict for {detail}")
        return build_message(store, detail, value, where)
    if node == Nodetype.BASE:
        return _scalar(detail[0], value, where)
    element, limit = detail
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__"):
        raise MessageError(f"{where} is {type(value).__name__}; expected an array")
    if (node == Nodetype.ARRAY and len(value) != limit) or (node == Nodetype.SEQUENCE and limit and len(value) > limit):
        at_most = "" if node == Nodetype.ARRAY else "at most "
        raise MessageError(f"{where} has {len(value)} values; the message holds {at_most}{limit}")
    if element[0] == Nodetype.NAME or element[1][0] == "string":
        return [_value(store, element, item, f"{where}[{i}]") for i, item in enumerate(value)]
    dtype = _DTYPES[element[1][0]]
    if isinstance(value, np.ndarray) and (value.dtype != dtype or value.ndim != 1):
        raise MessageError(f"{where} is {value.dtype} of shape {value.shape}; expected a flat array of {dtype}")
    return np.ascontiguousarray(value, dtype)


def _scalar(base: str, value: Any, where: str) -> Any:
    if base == "string":
        if not isinstance(value, str):
            raise MessageError(f"{where} is {type(value).__name__}; expected text")
        return value
    if base == "bool":
        return bool(value)
    if base in _RANGES:
        low, high = _RANGES[base]
        if not isinstance(value, (int, np.integer)) or not low <= int(value) <= high:
            raise MessageError(f"{where} = {value!r}: expected an integer from {low} to {high}")
        return int(value)
    if not isinstance(value, (int, float, np.floating, np.integer)):
        raise MessageError(f"{where} is {type(value).__name__}; expected a number")
    return float(value)
