"""Plays a recording, video, image folder or camera as a ROS 2 camera, with /clock.

Published: `image` (Image) or `image/compressed` (CompressedImage), `camera_info` when the recording has it
(all below `camera_name` if that is set; remap `image` and the compressed topic follows), /clock, and the
topics of the recording that `topics` names, under their own names. Everything is offered reliably, and what
was recorded latched is latched again.

`rate: 0` plays as fast as the consumers work and loses nothing: at most `max_outstanding` images are beyond
the sum of frames_processed, frames_rejected and frames_dropped of their statuses. Several cameras are played as
`topics`; without `image`, their images count instead. The process ends with exit code 0 when everything was sent and
acknowledged, with 1 and one line when the input is bad.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import ok, try_shutdown
from rosbags.interfaces import QosDurability
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from human_scene_ros.errors import HumanSceneError, SourceError
from human_scene_ros.msg import SceneStatus
from human_scene_ros.nodes.convert import fill
from human_scene_ros.nodes.parameters import NodeParameters, option
from human_scene_ros.nodes.process import end_process, run_node
from human_scene_ros.nodes.qos import create_publisher, latched, reliable
from human_scene_ros.sources.bag_reader import BagReader, BagTopic, is_recording
from human_scene_ros.sources.image_codec import decode_message, encode_jpeg
from human_scene_ros.sources.message_fields import (
    COMPRESSED_IMAGE,
    IMAGE,
    compressed_image_fields,
    image_fields,
    stamp_ns_of,
    time_fields,
)
from human_scene_ros.sources.reader import FrameSource, choose_image_topic, choose_info_topic, image_topics, open_source

# A reader that is matched late or busy still finds this many images; more than may be outstanding.
_IMAGE_DEPTH = 32
_LATCHED_MAX = 1000


@dataclasses.dataclass(frozen=True)
class BagConfig:
    """Parameters of `bag_node`."""

    input: str = option("", "Path of a rosbag2 folder, .mcap, .db3, video or image folder, or a camera index.")
    rate: float = option(1.0, "Speed; 1 = as recorded, 0 = as fast as the consumers' statuses acknowledge images.",
                         low=0.0, high=1000.0)
    loop: bool = option(False, "Begin again at the end; time jumps back then.")
    max_images: int = option(0, "Images after which to stop, over all passes; 0 = no limit.", low=0, high=10**9)
    fps: float = option(0.0, "Frames per second of an image folder (or a video with a wrong header); 0 = 30 or header.",
                        low=0.0, high=1000.0)
    image: str = option("", "Image topic of the recording; empty = the only one.")
    info: str = option("", "CameraInfo topic of the recording; empty = camera_info beside the image topic.")
    topics: tuple[str, ...] = option((), "Other topics of the recording to play under their own names; * and ? match.")
    transport: Literal["auto", "raw", "compressed"] = option(
        "auto", "How images are published; auto = as recorded, videos raw.")
    quality: int = option(95, "JPEG quality where images are compressed here.", low=1, high=100)
    camera_name: str = option("", "Namespace of image and camera_info below the node's; empty = none.")
    frame_id: str = option("", "Optical frame of the images; empty = as recorded, videos: <camera_name>_optical_frame.")
    wait_for_subscribers: int = option(0, "Subscribers that each image topic needs before playing starts.",
                                       low=0, high=100)
    wait_for_topics: tuple[str, ...] = option((), "Topics of `topics` that need a subscriber before playing starts.")
    wait_timeout: float = option(60.0, "Seconds to wait for subscribers at most.", low=0.0, high=86400.0)
    status: tuple[str, ...] = option(("human_scene/status",), "Status topics of all that take images, each once; used "
                                     "at rate 0.")
    max_outstanding: int = option(8, "Images on their way at rate 0.", low=1, high=_IMAGE_DEPTH)
    ack_timeout: float = option(120.0, "Seconds without an acknowledged image after which rate 0 gives up.",
                                low=1.0, high=86400.0)
    clock_rate: float = option(100.0, "Messages per second on /clock between images; 0 = no /clock.",
                               low=0.0, high=1000.0)


@dataclasses.dataclass(frozen=True)
class _Item:
    """One message to send: its time in the recording, what sends it, and whether it is an image."""

    stamp_ns: int
    send: Callable[[], None]
    is_image: bool


class _Window:
    """Counts images on their way: sent here, acknowledged by the statuses of the consumers.

    Args:
        topics: Of the statuses.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._changed = threading.Condition()
        self._topics = tuple(topics)
        self._done: dict[str, int] = {}  # each consumer's own counter, which may start anywhere
        self._sent = self._acknowledged = 0
        self.restarts = 0

    def on_status(self, topic: str, status: Any) -> None:
        done = int(status.frames_processed + status.frames_rejected + status.frames_dropped)
        with self._changed:
            before = self._done.get(topic)
            self._done[topic] = done
            if before is None or done < before:  # a consumer begins (anew); what was on its way to it is gone
                self._acknowledged = self._sent
                self.restarts += before is not None
            else:
                self._acknowledged = min(self._acknowledged + done - before, self._sent)
            self._changed.notify_all()

    def count_sent(self) -> None:
        """To be called before an image is sent: it may be acknowledged at once."""
        with self._changed:
            self._sent += 1

    @property
    def unknown(self) -> list[str]:
        """Topics on which no status came yet."""
        return [topic for topic in self._topics if topic not in self._done]

    @property
    def outstanding(self) -> int:
        with self._changed:
            return self._sent - self._acknowledged

    def wait_change(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait(timeout_s)


class BagNode(Node):
    """See the module's text. The route is `_play`."""

    def __init__(self) -> None:
        super().__init__("human_scene_bag")
        self.failure = ""
        self.config = NodeParameters(self, BagConfig).config
        self._stop = threading.Event()
        self._statuses = [self.resolve_topic_name(topic) for topic in self.config.status]
        self._window = _Window(self._statuses)
        self._images = self._others = self._passes = 0
        self._bag: BagReader | None = None
        self._source: FrameSource | None = None
        self._outputs: dict[str, Any] = {}
        self._counted: set[str] = set()  # topics of the images of several cameras
        self._image_publisher: Any = None
        self._rate = self.config.rate
        self._now_ns = 0
        self._clock_message = Clock()
        self._clock_period_s = 1.0 / self.config.clock_rate if self.config.clock_rate else 0.0
        self._last_clock_s = 0.0
        self._clock_publisher = create_publisher(self, Clock, "/clock", reliable(10)) if self._clock_period_s else None
        self._thread = threading.Thread(target=self._run, name="player")
        if self.config.rate == 0.0:
            for topic in self._statuses:
                self.create_subscription(SceneStatus, topic, functools.partial(self._window.on_status, topic),
                                         latched(10))

    def start(self) -> None:
        """Open the input, make the publishers, begin to play in a thread of its own."""
        try:
            self._open()
        except HumanSceneError as error:
            self.failure = str(error)
            try_shutdown()
            return
        self._thread.start()

    def destroy_node(self) -> None:
        """Stop playing, close the input."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        for opened in (self._bag, self._source):
            if opened is not None:
                opened.close()
        super().destroy_node()

    # --- what is played ---

    def _open(self) -> None:
        config = self.config
        if not config.input:
            raise SourceError("parameter input is empty; set it to a recording, video, image folder or camera index")
        if config.rate == 0.0 and not config.status:
            raise SourceError("parameter status is empty; rate 0 needs the status topic of everybody who takes images")
        if is_recording(Path(config.input)):
            self._bag = BagReader(config.input)
            self._open_bag(self._bag)
        else:
            if config.topics:
                raise SourceError(f"{config.input} is no recording, so it has no topics {list(config.topics)}")
            self._source = open_source(config.input, fps=config.fps or None)
            self._make_image_publisher(compressed=config.transport == "compressed")
            self._items = self._source_items
            self.get_logger().info(f"{self._source.name}: {self._source.frame_count or 'unknown number of'} images")

    def _open_bag(self, bag: BagReader) -> None:
        config = self.config
        others = bag.match(config.topics)
        for pattern in config.topics:
            if not bag.match([pattern]):
                raise SourceError(f"{config.input} has no topic {pattern}; it has {', '.join(sorted(bag.topics))}")
        self._image_topic = self._info_topic = None
        if config.image or not (config.topics and len(image_topics(bag)) != 1):
            self._image_topic = choose_image_topic(bag, config.image)
            self._info_topic = choose_info_topic(bag, self._image_topic, config.info)
            recorded_compressed = bag.topics[self._image_topic].msgtype == COMPRESSED_IMAGE
            self._compressed = config.transport == "compressed" or (config.transport == "auto" and recorded_compressed)
            self._recode = self._compressed != recorded_compressed
            self._make_image_publisher(compressed=self._compressed)
            if self._info_topic:
                self._outputs[self._info_topic] = create_publisher(
                    self, CameraInfo, self._camera_topic("camera_info"), reliable(_IMAGE_DEPTH))
        self._other_topics = [name for name in others if name not in (self._image_topic, self._info_topic)]
        if self._image_topic is None:
            self._counted = {n for n in self._other_topics if bag.topics[n].msgtype in (IMAGE, COMPRESSED_IMAGE)}
        for name in self._other_topics:
            topic = bag.topics[name]
            self._outputs[name] = create_publisher(self, _message_class(topic), name, _play_qos(topic))
        self._items = self._bag_items
        images = bag.topics[self._image_topic].count if self._image_topic else 0
        self.get_logger().info(f"{config.input}: {images} images of {self._image_topic}, camera_info "
                               f"{self._info_topic or 'not recorded'}, other topics {self._other_topics or 'none'}")

    def _camera_topic(self, name: str) -> str:
        return f"{self.config.camera_name}/{name}" if self.config.camera_name else name

    def _make_image_publisher(self, *, compressed: bool) -> None:
        base = self.resolve_topic_name(self._camera_topic("image"))
        self._compressed = compressed
        self._image_publisher = create_publisher(self, CompressedImage if compressed else Image,
                                                 f"{base}/compressed" if compressed else base, reliable(_IMAGE_DEPTH))

    def _bag_items(self) -> Iterator[_Item]:
        bag, publishers = self._bag, self._outputs
        assert bag is not None
        wanted = [t for t in (self._image_topic, self._info_topic) if t] + self._other_topics
        early_info_ns = None
        if self._info_topic:
            # The calibration goes ahead of the first image, wherever it was recorded.
            early_info_ns, data = bag.first(self._info_topic)
            first_ns = min(bag.first(topic)[0] for topic in wanted)
            yield _Item(first_ns, lambda d=data: self._send_info(d), False)  # type: ignore[misc]
        for topic, stamp_ns, data in bag.messages(wanted):
            if topic == self._image_topic:
                yield _Item(stamp_ns, lambda d=data: self._send_recorded(d), True)  # type: ignore[misc]
            elif topic == self._info_topic:
                if stamp_ns != early_info_ns:
                    yield _Item(stamp_ns, lambda d=data: self._send_info(d), False)  # type: ignore[misc]
            else:
                yield _Item(stamp_ns, lambda p=publishers[topic], d=data: p.publish(bytes(d)),  # type: ignore[misc]
                            topic in self._counted)

    def _send_info(self, data: bytes) -> None:
        publisher = self._outputs[self._info_topic or ""]
        if not self.config.frame_id:
            publisher.publish(bytes(data))
            return
        message = self._bag.deserialize(self._info_topic, data)  # type: ignore[union-attr,arg-type]
        names = ("height", "width", "distortion_model", "d", "k", "r", "p", "binning_x", "binning_y")
        roi = {name: getattr(message.roi, name) for name in ("x_offset", "y_offset", "height", "width", "do_rectify")}
        header = {"stamp": time_fields(stamp_ns_of(message.header.stamp)), "frame_id": self.config.frame_id}
        publisher.publish(fill(CameraInfo(), {"header": header, "roi": roi, **{n: getattr(message, n) for n in names}}))

    def _send_recorded(self, data: bytes) -> None:
        if not self._recode and not self.config.frame_id:
            self._image_publisher.publish(bytes(data))
            return
        message = self._bag.deserialize(self._image_topic, data)  # type: ignore[union-attr,arg-type]
        stamp_ns, frame_id = stamp_ns_of(message.header.stamp), self.config.frame_id or message.header.frame_id
        if self._recode:
            self._send_image(stamp_ns, frame_id, decode_message(message))
        elif self._compressed:
            self._image_publisher.publish(fill(CompressedImage(), compressed_image_fields(
                stamp_ns, frame_id, message.data, message.format)))
        else:
            names = ("height", "width", "encoding", "is_bigendian", "step", "data")
            header = {"stamp": time_fields(stamp_ns), "frame_id": frame_id}
            self._image_publisher.publish(fill(Image(), {"header": header, **{n: getattr(message, n) for n in names}}))

    def _send_image(self, stamp_ns: int, frame_id: str, image: NDArray[np.uint8]) -> None:
        if self._compressed:
            message = fill(CompressedImage(), compressed_image_fields(
                stamp_ns, frame_id, encode_jpeg(image, self.config.quality)))
        else:
            message = fill(Image(), image_fields(stamp_ns, frame_id, image, "rgb8"))
        self._image_publisher.publish(message)

    def _source_items(self) -> Iterator[_Item]:
        frame_id = self.config.frame_id or f"{self.config.camera_name or 'camera'}_optical_frame"
        for frame in self._source:  # type: ignore[union-attr]
            yield _Item(frame.stamp_ns, lambda f=frame: self._send_image(f.stamp_ns, frame_id, f.image), True)  # type: ignore[misc]

    # --- when it is played ---

    def _run(self) -> None:
        try:
            self._play()
        except HumanSceneError as error:
            self.failure = str(error)
        except Exception as error:  # the thread's last line of defence: say why and end the process
            if ok() and not self._stop.is_set():  # publishing into a context that was shut down is no failure
                self.failure = f"playing stopped: {type(error).__name__}: {error}"
        finally:
            try_shutdown()

    def _play(self) -> None:
        """Wait for the consumers, then send every item when its time has come."""
        self._wait_for_consumers()
        while not self._stop.is_set():
            before = self._images + self._others
            self._play_once()
            self._passes += 1
            if not self.config.loop or self._enough():
                break
            if self._images + self._others == before:
                raise SourceError(f"{self.config.input} gave nothing in this pass; not looping")
        if not self._stop.is_set():
            self._finish()

    def _play_once(self) -> None:
        wall_start_s, first_ns = time.monotonic(), None
        for item in self._items():
            if first_ns is None:
                first_ns = self._now_ns = item.stamp_ns
            if self._rate > 0.0:
                self._pass_time(wall_start_s, first_ns, item.stamp_ns)
            elif item.is_image and not self._window.unknown:
                self._wait_outstanding(self.config.max_outstanding - 1)
            if self._stop.is_set():
                return
            self._now_ns = max(self._now_ns, item.stamp_ns)
            self._tick(force=True)
            if item.is_image:
                self._window.count_sent()
            item.send()
            self._images += item.is_image
            self._others += not item.is_image
            if item.is_image and self._enough():
                break
        if not self._window.unknown:
            self._wait_outstanding(0)

    def _enough(self) -> bool:
        return bool(self.config.max_images) and self._images >= self.config.max_images

    def _pass_time(self, wall_start_s: float, first_ns: int, until_ns: int) -> None:
        """Sleep until the recording's time is `until_ns`, with /clock on the way."""
        due_s = wall_start_s + (until_ns - first_ns) * 1e-9 / self._rate
        while (left_s := due_s - time.monotonic()) > 0.0:
            if self._stop.wait(min(left_s, self._clock_period_s or left_s)):
                return
            elapsed_ns = int((time.monotonic() - wall_start_s) * self._rate * 1e9)
            self._now_ns = max(self._now_ns, min(first_ns + elapsed_ns, until_ns))
            if self._now_ns < until_ns:  # the message's own tick comes with it
                self._tick()

    def _tick(self, *, force: bool = False) -> None:
        if self._clock_publisher is None:
            return
        now_s = time.monotonic()
        if force or now_s - self._last_clock_s >= self._clock_period_s * 0.9:
            self._last_clock_s = now_s
            clock = self._clock_message.clock
            clock.sec, clock.nanosec = divmod(self._now_ns, 1_000_000_000)
            self._clock_publisher.publish(self._clock_message)

    def _wait_for_consumers(self) -> None:
        wanted = self.config.wait_for_subscribers
        publishers = {name: self._outputs[name] for name in self.config.wait_for_topics if name in self._outputs}
        unknown = sorted(set(self.config.wait_for_topics) - set(publishers))
        if unknown:
            raise SourceError(f"wait_for_topics {unknown}: not among the played topics {sorted(self._outputs)}")
        images = self._image_publisher
        deadline_s = time.monotonic() + self.config.wait_timeout
        while not self._stop.wait(0.02):
            missing = [name for name, publisher in publishers.items() if not publisher.get_subscription_count()]
            played = [images] if images is not None else [self._outputs[name] for name in self._counted]
            matched = min((publisher.get_subscription_count() for publisher in played), default=wanted)
            if matched >= wanted and not missing:
                break
            if time.monotonic() > deadline_s:
                raise SourceError(f"waited {self.config.wait_timeout:g} s: the image topic has {matched} of {wanted} "
                                  f"subscribers, topics without one: {missing or 'none'}")
        if self.config.rate == 0.0 and (images is not None or self._counted) and not self._stop.is_set():
            # Statuses are latched: a consumer that sends any is known a moment after it is discovered.
            begun_s = time.monotonic()
            while self._window.unknown and not self._stop.wait(0.02):
                if time.monotonic() - begun_s > (15.0 if any(map(self.count_publishers, self._statuses)) else 5.0):
                    break
            if self._window.unknown:
                # Waiting for acknowledged delivery instead would take a heartbeat, seconds, per image.
                self._rate = 1.0
                self.get_logger().warning(
                    f"rate is 0 but nobody sends {', '.join(self._window.unknown)}: playing at the recorded rate, a "
                    "slow consumer may drop images")
        self.get_logger().info("playing")

    def _wait_outstanding(self, limit: int) -> None:
        """Return once at most `limit` images are on their way."""
        last, progress_s = self._window.outstanding, time.monotonic()
        while (outstanding := self._window.outstanding) > limit and not self._stop.is_set():
            if outstanding != last:
                last, progress_s = outstanding, time.monotonic()
            elif time.monotonic() - progress_s > self.config.ack_timeout:
                raise SourceError(
                    f"no image was acknowledged on {', '.join(self._statuses)} for {self.config.ack_timeout:g} s; "
                    f"{outstanding} of {self._images} sent images are outstanding")
            self._tick()
            self._window.wait_change(self._clock_period_s or 0.05)

    def _finish(self) -> None:
        """Reliable delivery outlives the last `publish` only if the process does."""
        everything = list(self._outputs.values())
        if self._image_publisher is not None:
            everything.append(self._image_publisher)
        undelivered = [p.topic_name for p in everything if not p.wait_for_all_acked(Duration(seconds=5.0))]
        if undelivered:
            self.get_logger().warning(f"not everything was delivered on {undelivered}")
        if self._window.restarts:
            self.get_logger().warning(f"the consumer restarted {self._window.restarts} time(s) while playing")
        self.get_logger().info(f"done: {self._images} images and {self._others} other messages in {self._passes} "
                               "pass(es)")


def _message_class(topic: BagTopic) -> Any:
    package, _, name = topic.msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"topic {topic.name}: message type {topic.msgtype} is not installed here") from error


def _play_qos(topic: BagTopic) -> QoSProfile:
    """At least what was recorded: reliable serves every subscriber, and a latched topic keeps all its messages."""
    was_latched = topic.name == "/tf_static" or any(q.durability == QosDurability.TRANSIENT_LOCAL for q in topic.qos)
    depth = max([q.depth for q in topic.qos], default=0)
    if was_latched:
        # Several recorded publishers become one: its history must hold the last message of each of them.
        depth = max(depth, min(topic.count, _LATCHED_MAX)) if topic.name == "/tf_static" else max(depth, 1)
    return QoSProfile(depth=min(max(depth, 1 if was_latched else _IMAGE_DEPTH), _LATCHED_MAX),
                      reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL if was_latched else DurabilityPolicy.VOLATILE)


def main() -> None:
    """Entry point of `bag_node`."""
    end_process(run_node(BagNode))


if __name__ == "__main__":
    main()
