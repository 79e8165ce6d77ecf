"""Records chosen topics, as the bytes that came over the wire, into one rosbag2 folder with one MCAP file.

Topics are found by name or pattern as their publishers appear; each is subscribed with the QoS that its
publishers offer, and that QoS is stored, so that latched topics are latched again when played. The line
"ready: N topics matched" tells that nothing sent from now on is missed. SIGINT and SIGTERM take what has
arrived, close the recording and end with exit code 0; what was lost or refused is counted and said.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import signal
import sys
import time
from types import FrameType
from typing import Any, Literal

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Qos

from human_scene_ros.errors import ConfigError, HumanSceneError, ImageError, SourceError
from human_scene_ros.nodes.parameters import NodeParameters, option
from human_scene_ros.nodes.qos import SubscriptionEventCallbacks
from human_scene_ros.sources.bag_reader import header_stamp_ns, stamp_offset
from human_scene_ros.sources.bag_writer import SceneBagWriter, qos_profile
from human_scene_ros.sources.image_codec import decode_message, encode_jpeg
from human_scene_ros.sources.message_definitions import register_type, shared_typestore
from human_scene_ros.sources.message_fields import COMPRESSED_IMAGE, IMAGE, compressed_image_fields, stamp_ns_of

# Only recorded when named exactly: they say nothing about the scene, and a player makes its own /clock.
_NOT_BY_PATTERN = ("/rosout", "/parameter_events", "/clock")
# Lossy compression is for pictures; depth and masks are measurements.
_PICTURES = ("rgb", "bgr", "8UC3", "8UC4", "yuv", "uyvy", "yuyv", "nv12", "nv21", "bayer")


@dataclasses.dataclass(frozen=True)
class RecordConfig:
    """Parameters of `record_node`."""

    output: str = option("", "The rosbag2 folder to make.")
    overwrite: bool = option(False, "Replace a recording that is there already.")
    topics: tuple[str, ...] = option(("*",), "Topics to record; * and ? match.")
    exclude: tuple[str, ...] = option((), "Topics to leave out; * and ? match.")
    wait_for_publishers: bool = option(True, "Say that it is ready when every topic named without * and ? has a "
                                             "publisher; false = at once.")
    wait_timeout: float = option(60.0, "Seconds after which it warns about topics without a publisher and is ready.",
                                 low=0.0, high=86400.0)
    stamps: Literal["received", "header"] = option(
        "received", "Time line: the node's clock at arrival, or the stamp in the message where it has one.")
    queue: int = option(200, "Messages per topic that may wait in the middleware.", low=1, high=10000)
    jpeg: bool = option(False, "Record colour images of type Image as <topic>/compressed.")
    quality: int = option(92, "JPEG quality.", low=1, high=100)
    compress: bool = option(False, "zstd-compress the recording.")
    report: float = option(10.0, "Seconds between counts in the log; 0 = only at the end.", low=0.0, high=3600.0)


@dataclasses.dataclass
class _Channel:
    """One recorded topic."""

    msgtype: str
    subscription: Any
    reliable: bool
    qos: Qos
    stamp_at: tuple[int, bool] | None
    received: int = 0
    lost: int = 0


class RecordNode(Node):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__("human_scene_record")
        self.config = NodeParameters(self, RecordConfig).config
        if not self.config.output:
            raise ConfigError("parameter output is empty; set it to the folder to record into")
        self._store = shared_typestore()
        self._writer = SceneBagWriter(self.config.output, overwrite=self.config.overwrite,
                                      compress=self.config.compress)
        self._channels: dict[str, _Channel] = {}
        self._refused: dict[str, str] = {}
        self._held: list[tuple[str, bytes]] = []  # arrived before the time line began
        self._latest_ns = 0
        self._ready = False
        self._begun_s = self._reported_s = self._looked_s = time.monotonic()
        self._exact = [t for t in self.config.topics if not set("*?[") & set(t)]
        self.discover()

    @property
    def total(self) -> int:
        """Messages received so far."""
        return sum(channel.received for channel in self._channels.values())

    def tick(self) -> None:
        """Between messages: look for publishers, tell that it is ready, report."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= (0.25 if self._ready else 0.1):
            self._looked_s = now_s
            self.discover()
            if not self._ready:
                self._check_ready(now_s)
        if self.config.report and now_s - self._reported_s >= self.config.report:
            self._reported_s = now_s
            self.get_logger().info(f"{self.total} messages of {len(self._channels)} topics")

    def discover(self) -> None:
        """Subscribe to wanted topics whose publishers have appeared."""
        for topic, types in self.get_topic_names_and_types():
            if not self._wanted(topic) or topic in self._refused:
                continue
            offers = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)
                      if info.node_name != self.get_name() or info.node_namespace != self.get_namespace()]
            if not offers:
                continue
            reliable = all(o.reliability == ReliabilityPolicy.RELIABLE for o in offers)
            channel = self._channels.get(topic)
            if channel is not None:
                if channel.reliable and not reliable:
                    self.get_logger().warning(f"{topic}: a publisher offers only best effort; messages of {topic} may "
                                              "be lost on the way")
                    self.destroy_subscription(channel.subscription)
                    channel.subscription = self._subscribe(topic, channel.msgtype, reliable=False, latched=False)
                    channel.reliable = False
                continue
            if len(types) > 1:
                self._refuse(topic, f"has several types {types}")
                continue
            latched = all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
            try:
                register_type(self._store, types[0])
                subscription = self._subscribe(topic, types[0], reliable=reliable, latched=latched)
            except (HumanSceneError, ImportError, AttributeError) as error:
                self._refuse(topic, f"type {types[0]} is not known here: {error}")
                continue
            depth = max([o.depth for o in offers] + [1 if latched else 10])
            self._channels[topic] = _Channel(types[0], subscription, reliable,
                                             qos_profile(latched=latched, reliable=reliable, depth=depth),
                                             stamp_offset(self._store, types[0]))

    def finish(self) -> None:
        """Close the recording and say what is in it."""
        for topic, data in self._held:  # nothing had a time: now is as good as any
            self._write(topic, data, time.time_ns())
        self._held = []
        self._writer.close()
        lines = [f"{topic}: {channel.received}" + (f" (+ {channel.lost} lost on the way)" if channel.lost else "")
                 for topic, channel in sorted(self._channels.items())]
        self.get_logger().info(f"recorded {self.total} messages into {self.config.output}; " + ", ".join(lines))
        silent = [t for t in self._exact if t not in self._channels or not self._channels[t].received]
        if silent:
            self.get_logger().warning(f"no message came on {', '.join(silent)}")

    def _wanted(self, topic: str) -> bool:
        if any(fnmatch.fnmatchcase(topic, p) for p in self.config.exclude):
            return False
        if topic in self._exact:
            return True
        hidden = topic in _NOT_BY_PATTERN or any(part.startswith("_") for part in topic.split("/"))
        return not hidden and any(fnmatch.fnmatchcase(topic, p) for p in self.config.topics)

    def _refuse(self, topic: str, reason: str) -> None:
        self._refused[topic] = reason
        self.get_logger().error(f"{topic} is not recorded: {reason}")

    def _subscribe(self, topic: str, msgtype: str, *, reliable: bool, latched: bool) -> Any:
        package, _, name = msgtype.split("/")
        profile = QoSProfile(
            depth=self.config.queue,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)

        def on_lost(event: Any) -> None:
            self._channels[topic].lost += event.total_count_change

        return self.create_subscription(
            getattr(importlib.import_module(f"{package}.msg"), name), topic,
            lambda data: self._on_message(topic, data), profile, raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=on_lost))

    def _check_ready(self, now_s: float) -> None:
        missing = [t for t in self._exact if t not in self._channels and t not in self._refused]
        late = now_s - self._begun_s > self.config.wait_timeout
        if missing and self.config.wait_for_publishers and not late:
            return
        if missing and self.config.wait_for_publishers:
            self.get_logger().warning(f"no publisher within {self.config.wait_timeout:g} s: {', '.join(missing)}")
        self._ready = True
        self.get_logger().info(f"ready: {len(self._channels)} topics matched")

    def _on_message(self, topic: str, data: Any) -> None:
        channel = self._channels[topic]
        channel.received += 1
        stamp_ns = self._stamp(channel, data)
        if stamp_ns == 0:
            self._held.append((topic, data))
            return
        for held_topic, held in self._held:
            self._write(held_topic, held, stamp_ns)
        self._held = []
        self._write(topic, data, stamp_ns)

    def _stamp(self, channel: _Channel, data: bytes) -> int:
        """Where on the time line the message lies; 0 = the time line has not begun."""
        if self.config.stamps == "received":
            return int(self.get_clock().now().nanoseconds)
        if channel.stamp_at is not None:
            offset, in_sequence = channel.stamp_at
            empty = in_sequence and not any(data[4:8])
            if not empty and (stamp_ns := header_stamp_ns(data, offset)) > 0:
                self._latest_ns = stamp_ns
        # A message without a stamp belongs to the newest one that has it: no mixture of two clocks.
        return self._latest_ns

    def _write(self, topic: str, data: bytes, stamp_ns: int) -> None:
        channel = self._channels[topic]
        if self.config.jpeg and channel.msgtype == IMAGE:
            message = self._store.deserialize_cdr(data, IMAGE)
            if message.encoding.startswith(_PICTURES):  # type: ignore[attr-defined]
                try:
                    jpeg = encode_jpeg(decode_message(message), self.config.quality)
                except ImageError as error:
                    self.get_logger().warning(f"{topic}: recorded as it came: {error}", throttle_duration_sec=5.0)
                else:
                    header = message.header  # type: ignore[attr-defined]
                    self._writer.write(f"{topic}/compressed", COMPRESSED_IMAGE, compressed_image_fields(
                        stamp_ns_of(header.stamp), header.frame_id, jpeg), stamp_ns)
                    return
        self._writer.write_serialized(topic, channel.msgtype, data, stamp_ns, channel.qos)


def run(argv: list[str] | None = None) -> int:
    """Record until a signal comes; the exit code."""
    stop: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.append(number)

    # rclpy's own handlers would shut the context down in the middle of a write; these only leave a note.
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    rclpy.init(args=sys.argv if argv is None else argv, signal_handler_options=SignalHandlerOptions.NO)
    node, code = None, 0
    try:
        node = RecordNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stop:
            executor.spin_once(timeout_sec=0.05)
            node.tick()
        _drain(node, executor)
    except SourceError as error:
        print(f"[human_scene_record] {error}", file=sys.stderr, flush=True)
        code = 1
    except HumanSceneError as error:
        print(f"[human_scene_record] {error}", file=sys.stderr, flush=True)
        code = 2
    except OSError as error:  # the disk is full or gone
        print(f"[human_scene_record] recording stopped: {error}", file=sys.stderr, flush=True)
        code = 1
    finally:
        if node is not None:
            try:
                node.finish()
            except OSError as error:
                print(f"[human_scene_record] the recording cannot be closed: {error}", file=sys.stderr, flush=True)
                code = 1
            node.destroy_node()
        rclpy.try_shutdown()
    return code


def _drain(node: RecordNode, executor: SingleThreadedExecutor) -> None:
    """Take what has arrived but not been handled; a stream that never pauses must not keep us for ever."""
    deadline_s = time.monotonic() + 3.0
    before = -1
    while node.total != before and time.monotonic() < deadline_s:
        before = node.total
        for _ in range(20):
            executor.spin_once(timeout_sec=0.01)


def main() -> None:
    """Entry point of `record_node`."""
    raise SystemExit(run())


if __name__ == "__main__":
    main()
