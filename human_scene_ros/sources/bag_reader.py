"""Reads recordings without ROS: rosbag2 folders, single .mcap and .db3 files, types from the recording itself.

Thin over `rosbags`: it adds clear errors, the two-part type names of the first ROS 2 releases, and types
that are decoded only when a message of theirs is, so that one exotic topic does not spoil a recording.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat, Nodetype, Qos
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError
from rosbags.typesys.store import Typestore

from human_scene_ros.errors import MessageError, SourceError
from human_scene_ros.sources.message_definitions import new_typestore, register_type

STORAGE_SUFFIXES = (".mcap", ".db3")


@dataclasses.dataclass(frozen=True)
class BagTopic:
    """One topic of a recording: name, type ("package/msg/Name"), number of messages, offered QoS profiles."""

    name: str
    msgtype: str
    count: int
    qos: tuple[Qos, ...]


class BagReader:
    """One recording, open for reading; use as a context manager.

    Args:
        path: A rosbag2 folder (also one that lost its metadata.yaml), or a .mcap or .db3 file.

    Raises:
        SourceError: Missing, empty, cut or otherwise unreadable; says which and what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = _opened(_storage(self.path))
        self._connections = list(self._reader.connections)
        if self._reader.message_count == 0:
            self._reader.close()
            raise SourceError(f"{self.path} holds no messages")
        self.topics: dict[str, BagTopic] = {}
        for connection in self._connections:
            seen = self.topics.get(connection.topic)
            self.topics[connection.topic] = BagTopic(
                connection.topic, _three_parts(connection.msgtype),
                connection.msgcount + (seen.count if seen else 0),
                (*(seen.qos if seen else ()), *connection.ext.offered_qos_profiles))  # type: ignore[union-attr]
        self.start_ns: int = self._reader.start_time
        self.end_ns: int = self._reader.end_time
        self._stores: dict[str, Typestore] = {}
        self._fallback: Typestore | None = None

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time of recording in ns, CDR bytes) in time order; of all topics or of those named.

        Raises:
            SourceError: The file is damaged here.
        """
        wanted = None if topics is None else set(topics)
        connections = [c for c in self._connections if wanted is None or c.topic in wanted]
        if not connections:
            return
        expected, read = sum(c.msgcount for c in connections), 0
        try:
            for connection, stamp_ns, data in self._reader.messages(connections):
                read += 1
                yield connection.topic, stamp_ns, data
        except Exception as error:  # each decompressor has its own family of errors
            raise SourceError(f"{self.path} is damaged: {error}") from error
        if read < expected:  # damage need not break the container: the index tells what should be there
            raise SourceError(f"{self.path} is damaged: {read} of {expected} messages could be read")

    def first(self, topic: str) -> tuple[int, bytes]:
        """(time of recording in ns, CDR bytes) of the first message of a topic."""
        for _, stamp_ns, data in self.messages([topic]):
            return stamp_ns, data
        raise SourceError(f"{self.path} has no message of {topic}")

    def deserialize(self, topic: str, data: bytes) -> Any:
        """The message as an object with the fields of its type; arrays are read-only views.

        Raises:
            SourceError: The bytes do not fit the type, or its definition is unknown.
        """
        msgtype = self.topics[topic].msgtype
        try:
            return self._store(topic, msgtype).deserialize_cdr(data, msgtype)
        except (SerdeError, TypesysError, MessageError, KeyError) as error:
            raise SourceError(f"{self.path}: message of {topic} ({msgtype}) cannot be decoded: {error}") from error

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Names of the topics that match any of the patterns (`*` and `?` as in a shell)."""
        return [name for name in sorted(self.topics) if any(fnmatch.fnmatchcase(name, p) for p in patterns)]

    def close(self) -> None:
        """Close the file; twice does no harm."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _store(self, topic: str, msgtype: str) -> Typestore:
        store = self._stores.get(msgtype)
        if store is None:
            connection = next(c for c in self._connections if c.topic == topic)
            store = self._stores[msgtype] = self._make_store(connection, msgtype)
        return store

    def _make_store(self, connection: Connection, msgtype: str) -> Typestore:
        definition = connection.msgdef
        if definition.format == MessageDefinitionFormat.NONE:
            if self._fallback is None:
                self._fallback = new_typestore()
            register_type(self._fallback, msgtype)
            return self._fallback
        return _store_of(definition.format, definition.data, msgtype)


@functools.lru_cache(maxsize=64)
def _store_of(kind: MessageDefinitionFormat, text: str, msgtype: str) -> Typestore:
    """One store per definition and process: making one takes as long as decoding a hundred images."""
    store = get_typestore(Stores.EMPTY)
    if kind == MessageDefinitionFormat.MSG:
        store.register(get_types_from_msg(text, msgtype))
        return store
    separator = "=" * 80 + "\n"
    for part in text.split(separator) if separator in text else [text]:
        definition = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
        if definition.strip():
            store.register(get_types_from_idl(definition))
    return store


def header_stamp_ns(data: bytes | memoryview, offset: int = 4) -> int:
    """Stamp of a serialized message whose first field is a std_msgs/Header or builtin_interfaces/Time.

    Args:
        data: CDR with its 4-byte encapsulation header.
        offset: Where the seconds begin.
    """
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, offset)
    return int(sec) * 1_000_000_000 + int(nanosec)


def stamp_offset(store: Typestore, msgtype: str) -> tuple[int, bool] | None:
    """Where serialized messages of a type carry their stamp, for `header_stamp_ns`.

    Returns:
        (offset, False) for types that begin with a header or time, (offset, True) for types that are a
        sequence of such messages (TFMessage, MarkerArray: the stamp of the first; its length is at 4),
        None for others.
    """
    fields = store.fielddefs[msgtype][1]
    node, detail = fields[0][1]
    if node == Nodetype.NAME and detail in ("std_msgs/msg/Header", "builtin_interfaces/msg/Time"):
        return 4, False
    if node == Nodetype.SEQUENCE and len(fields) == 1:
        element, name = detail[0]  # type: ignore[misc,str-unpack]
        if element == Nodetype.NAME and stamp_offset(store, str(name)) == (4, False):
            return 8, True
    return None


def is_recording(path: Path) -> bool:
    """True for a rosbag2 folder or a single storage file, whether it is readable or not."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or any(True for s in STORAGE_SUFFIXES for _ in path.glob("*" + s))
    return path.suffix in (*STORAGE_SUFFIXES, ".bag")


def _storage(path: Path) -> Path:
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if path.suffix == ".bag":
        raise SourceError(f"{path} is a ROS 1 bag; convert it with `rosbags-convert --src {path} --dst FOLDER`")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(p for s in STORAGE_SUFFIXES for p in path.glob("*" + s))
        if len(files) != 1:
            raise SourceError(f"{path} has no metadata.yaml and {len(files)} storage files "
                              f"({', '.join(STORAGE_SUFFIXES)}); run `ros2 bag reindex` on it")
        return files[0]
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    return path


def _opened(path: Path) -> Reader:
    try:
        reader = Reader(path)
        reader.open()
    except FileNotFoundError as error:
        raise SourceError(f"{path}: {error}") from error
    except (ReaderError, OSError, struct.error, ValueError, KeyError, TypeError, EOFError) as error:
        hint = "it was cut (a recorder that was killed?); `mcap recover` may save it" if (
            "end magic" in str(error) or "runcated" in str(error)) else "it is no readable rosbag2 recording"
        raise SourceError(f"{path}: {hint} [{error}]") from error
    return reader


def _three_parts(msgtype: str) -> str:
    parts = msgtype.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else msgtype
