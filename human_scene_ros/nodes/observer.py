"""A quiet participant beside the other processes: sees status, images and bodies go by, and times them.

Commands use it to know when a graph of processes is complete, how far it is, and how long an image takes from
its arrival here to the arrival of its bodies here: a latency that no node reports about itself.

That a subscription is in the graph does not mean that its publisher has found it, and what is published before that
is lost. Only the publisher knows, so nodes tell in /diagnostics how many subscriptions they are connected to.
"""

from __future__ import annotations

import functools
import threading
import time
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage, Image

from human_scene_ros.msg import FusedPersonArray, SceneStatus, SmplxBodyArray
from human_scene_ros.nodes import qos
from human_scene_ros.sources.bag_reader import header_stamp_ns

_QUEUE = 64


class Observer:
    """Use as a context manager; everything arrives in a thread of its own.

    Args:
        domain_id: ROS domain of the processes to watch.
        name: Node name.
    """

    def __init__(self, domain_id: int, name: str = "human_scene_demo") -> None:
        self._statuses: dict[str, SceneStatus] = {}
        self._reported: dict[str, dict[str, str]] = {}
        self.latencies_s: list[float] = []
        self._lock = threading.Lock()
        self._images_s: dict[int, float] = {}
        self._bodies = self._images = 0
        self._first_image_s = self._last_bodies_s = 0.0
        self._people = 0
        self._first_people_s = self._last_people_s = 0.0
        self._stop = threading.Event()
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node(name, context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="observer", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def watch_status(self, topic: str) -> None:
        """Keep the newest status of a node, for `status`."""
        self._node.create_subscription(SceneStatus, topic, functools.partial(self._statuses.__setitem__, topic),
                                       qos.latched(10))

    def watch_diagnostics(self) -> None:
        """Keep the newest figures of all nodes, for `connected`."""
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.reliable(_QUEUE))

    def watch_bodies(self, topic: str) -> None:
        """Count body arrays and time them against their images."""
        self._node.create_subscription(SmplxBodyArray, topic, self._on_bodies, qos.reliable(_QUEUE), raw=True)

    def watch_people(self, topic: str) -> None:
        """Count the people arrays of a fusion node."""
        self._node.create_subscription(FusedPersonArray, topic, self._on_people, qos.reliable(_QUEUE), raw=True)

    def watch_images(self, topic: str) -> None:
        """Note when each image arrives. A player that waits for subscribers counts this one."""
        message_class = CompressedImage if topic.endswith("/compressed") else Image
        self._node.create_subscription(message_class, topic, self._on_image, qos.reliable(_QUEUE), raw=True)

    def status(self, topic: str) -> SceneStatus | None:
        """The newest status of a watched topic."""
        return self._statuses.get(topic)

    def subscribers(self, topic: str) -> int:
        """Subscriptions of a topic in the whole graph, as far as it is known here."""
        return int(self._node.count_subscribers(topic))

    def connected(self, node: str, line: str, output: str) -> int:
        """Subscriptions that an output of a node is connected to, as it said last in a line of /diagnostics."""
        return int(self._reported.get(f"{node.lstrip('/')}: {line}", {}).get(f"{output}_subscribers", 0))

    @property
    def images(self) -> int:
        """Images seen."""
        return self._images

    @property
    def bodies(self) -> int:
        """Body arrays seen."""
        return self._bodies

    @property
    def people(self) -> int:
        """People arrays seen."""
        return self._people

    @property
    def fusing_s(self) -> float:
        """Seconds from the first people array to the last."""
        return self._last_people_s - self._first_people_s

    @property
    def busy_s(self) -> float:
        """Seconds from the first image to the last body array."""
        return max(0.0, self._last_bodies_s - self._first_image_s)

    def _on_diagnostics(self, message: Any) -> None:
        self._reported.update({line.name: {value.key: value.value for value in line.values}
                               for line in message.status})

    def _on_image(self, data: Any) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._images += 1
            self._first_image_s = self._first_image_s or now_s
            self._images_s[header_stamp_ns(data)] = now_s

    def _on_people(self, data: Any) -> None:
        self._people += 1
        self._last_people_s = time.monotonic()
        self._first_people_s = self._first_people_s or self._last_people_s

    def _on_bodies(self, data: Any) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._bodies += 1
            self._last_bodies_s = now_s
            sent_s = self._images_s.pop(header_stamp_ns(data), None)
            if sent_s is not None:
                self.latencies_s.append(now_s - sent_s)

    def _spin(self) -> None:
        while not self._stop.is_set() and self._context.ok():
            self._executor.spin_once(timeout_sec=0.1)
