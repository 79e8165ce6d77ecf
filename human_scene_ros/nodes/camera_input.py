"""The camera side of a node: image, camera_info and depth subscriptions, their QoS, calibration and silence."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from human_scene_ros.errors import CalibrationError, ImageError
from human_scene_ros.nodes import qos
from human_scene_ros.nodes.diagnostics import Level, Notes
from human_scene_ros.nodes.reconstructor_config import InputConfig
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.image_codec import decode_depth_message

if TYPE_CHECKING:
    from rclpy.node import Node

# How long the first image waits for its camera_info: discovery of the two topics is not simultaneous.
FIRST_INFO_WAIT_S = 0.5
# Depth of an image may come after it by the time that a driver needs to register it.
DEPTH_WAIT_S = 0.1
LIVE_DEPTHS = 8


class CameraInput:
    """Subscribes the image and the camera_info beside it; created on activate, closed on deactivate.

    Args:
        node: Owner of the subscriptions.
        config: Transport, reliability, queue.
        on_image: Called in the executor's thread with each Image or CompressedImage.
        notes: Where problems of the calibration go.
        camera: Namespace of the topics below the node's; "" = none.
    """

    def __init__(self, node: Node, config: InputConfig, on_image: Callable[[Any], None], notes: Notes,
                 camera: str = "") -> None:
        self._node, self._config, self._on_image, self._notes = node, config, on_image, notes
        self._compressed = config.transport == "compressed"
        prefix = f"{camera}/" if camera else ""
        self.image_topic = image_topic(node, config.transport, prefix)
        self.info_topic = info_topic(node, self.image_topic, config.transport, prefix)
        base = self.image_topic.removesuffix("/compressed").rsplit("/", 1)[-1]
        self._rectified = config.rectified == "always" or (config.rectified == "auto" and "rect" in base)
        self._info: CameraInfo | None = None
        self._waited_for_info = False
        self._last_image_s = time.monotonic()
        self._reliability = qos.auto_reliability(node, self.image_topic, config.reliability)
        self._must_ask_again = False
        self._depths: OrderedDict[int, Any] = OrderedDict()  # stamp -> message, oldest first
        self._depths_kept = LIVE_DEPTHS if config.drop_policy == "latest" else config.max_pending + LIVE_DEPTHS
        self._depth_came = threading.Condition()
        self._depth_misses = 0
        self.depth_topic = node.resolve_topic_name(f"{prefix}depth")
        self._subscriptions: list[Any] = []
        self._subscribe()

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def watch(self) -> None:
        """Called regularly from the executor: asks again with less where a publisher offers less."""
        if not self._must_ask_again:
            return
        self._must_ask_again = False
        reliability = qos.auto_reliability(self._node, self.image_topic, self._config.reliability)
        if reliability != self._reliability:
            self._node.get_logger().info(f"{self.image_topic}: subscribing again as {reliability.name.lower()}")
            self._reliability = reliability
            self.close()
            self._subscribe()

    @property
    def silent_s(self) -> float:
        """Seconds since the last image (or since the subscription)."""
        return time.monotonic() - self._last_image_s

    def describe(self) -> str:
        """Topic with what was asked and offered, for diagnostics."""
        asked = qos.describe(self._profile())
        return f"{self.image_topic} (asked: {asked}; offered: {qos.offered(self._node, self.image_topic)})"

    def calibration(self, width: int, height: int) -> Calibration | None:
        """The calibration for images of this size, None if there is none or it is unusable (which is noted).

        Called from the worker. The first call waits a moment for the first camera_info.
        """
        if self._info is None and not self._waited_for_info:
            self._waited_for_info = True
            deadline = time.monotonic() + FIRST_INFO_WAIT_S
            while self._info is None and time.monotonic() < deadline:
                time.sleep(0.005)
        info = self._info
        if info is None:
            self._notes.add("calibration", Level.WARN,
                            f"no camera_info on {self.info_topic}: the network's own focal length is used")
            return None
        try:
            calibration = Calibration.from_message(info, width, height, rectified=self._rectified)
        except CalibrationError as error:
            if self._notes.add("calibration", Level.ERROR, f"{self.info_topic}: {error}; not used"):
                self._node.get_logger().error(f"{self.info_topic}: {error}; the camera counts as uncalibrated")
            return None
        if calibration is None:
            self._notes.add("calibration", Level.WARN,
                            f"{self.info_topic} says uncalibrated (K[0] = 0): the network's own focal is used")
            return None
        self._notes.remove("calibration")
        return calibration

    def depth(self, image_ns: int, width: int, height: int) -> NDArray[np.float32] | None:
        """(H, W) metres along z that belong to the image of this stamp and size; None without (which is noted).

        Called from the worker. Waits a moment for depth that comes after its image. Depth of another size but the
        same shape is resized to the nearest reading; it must be registered to the image.
        """
        if not self._config.use_depth:
            return None
        message = self._depth_near(image_ns)
        if message is None:
            self._notes.add("depth", Level.WARN, (
                f"no depth image within {self._config.depth_tolerance:g} s of the image on {self.depth_topic} "
                f"(offered: {qos.offered(self._node, self.depth_topic)}): the network's own scale is used"))
            return None
        try:
            depth_m = registered_depth(decode_depth_message(message), width, height)
        except ImageError as error:
            if self._notes.add("depth", Level.ERROR, f"{self.depth_topic}: {error}; not used"):
                self._node.get_logger().error(f"{self.depth_topic}: {error}; the image is used without depth")
            return None
        self._notes.remove("depth")
        return depth_m

    def _depth_near(self, image_ns: int) -> Any:
        tolerance_ns = int(self._config.depth_tolerance * 1e9)

        def near() -> int | None:
            best = min(self._depths, key=lambda at_ns: abs(at_ns - image_ns), default=None)
            return best if best is not None and abs(best - image_ns) <= tolerance_ns else None

        with self._depth_came:
            # The first one is waited for longer, for discovery of two topics is not simultaneous; where none
            # comes, not for ever.
            first = not self._depths and not self._depth_misses
            wait_s = FIRST_INFO_WAIT_S if first else DEPTH_WAIT_S if self._depth_misses < LIVE_DEPTHS else 0.0
            if all(at_ns <= image_ns + tolerance_ns for at_ns in self._depths):
                self._depth_came.wait_for(lambda: near() is not None, wait_s)
            found = near()
            self._depth_misses = 0 if found is not None else self._depth_misses + 1
            return None if found is None else self._depths[found]

    def _take_depth(self, message: Image) -> None:
        with self._depth_came:
            self._depths[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec] = message
            while len(self._depths) > self._depths_kept:
                self._depths.popitem(last=False)
            self._depth_came.notify_all()

    def _profile(self) -> Any:
        depth = self._config.queue if self._config.drop_policy == "latest" else self._config.max_pending
        return qos.camera_qos(self._reliability, depth)

    def _subscribe(self) -> None:
        message_class = CompressedImage if self._compressed else Image
        self._subscriptions = [
            qos.create_camera_subscription(self._node, CameraInfo, self.info_topic, self._take_info,
                                           qos.camera_qos(self._reliability, 5), self._ask_again),
            qos.create_camera_subscription(self._node, message_class, self.image_topic, self._take_image,
                                           self._profile(), self._ask_again)]
        if self._config.use_depth:
            reliability = qos.auto_reliability(self._node, self.depth_topic, self._config.reliability)
            self._subscriptions.append(qos.create_camera_subscription(
                self._node, Image, self.depth_topic, self._take_depth,
                qos.camera_qos(reliability, self._profile().depth), self._ask_again))

    def _ask_again(self) -> None:
        # Not here: this runs inside an event of the subscription that would be destroyed.
        self._must_ask_again = self._config.reliability == "auto"

    def _take_info(self, message: CameraInfo) -> None:
        self._info = message

    def _take_image(self, message: Any) -> None:
        self._last_image_s = time.monotonic()
        self._on_image(message)


def registered_depth(depth_m: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Depth at the size of the image that it is registered to: the nearest reading of each pixel.

    Raises:
        ImageError: Depth and image have different shapes, so that they cannot be registered.
    """
    if depth_m.shape == (height, width):
        return depth_m
    if abs(depth_m.shape[1] * height - depth_m.shape[0] * width) > max(width, height):
        raise ImageError(f"the depth image has {depth_m.shape[1]}x{depth_m.shape[0]} px, the image {width}x{height}; "
                         "publish depth registered to the image (of the same shape), e.g. aligned_depth_to_color")
    return cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def image_topic(node: Node, transport: str, prefix: str = "") -> str:
    """The resolved image topic below `prefix`; for compressed images the one below the (remapped) raw topic."""
    raw = node.resolve_topic_name(f"{prefix}image")
    if transport == "raw":
        return raw
    own = node.resolve_topic_name(f"{prefix}image/compressed")
    unmapped = node.resolve_topic_name(f"{prefix}image/compressed", only_expand=True)
    return own if own != unmapped else raw + "/compressed"


def info_topic(node: Node, image: str, transport: str, prefix: str = "") -> str:
    """`camera_info` below `prefix` if it is remapped, else the sibling of the image topic, as drivers publish it."""
    own = node.resolve_topic_name(f"{prefix}camera_info")
    if own != node.resolve_topic_name(f"{prefix}camera_info", only_expand=True):
        return own
    raw = image.removesuffix("/compressed") if transport == "compressed" else image
    return raw.rsplit("/", 1)[0] + "/camera_info"
