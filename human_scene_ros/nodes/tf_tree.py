"""Transforms by stamp, spoken on the wire: `/tf` and `/tf_static` as tf2_msgs/TFMessage.

`TfTree` is the buffer (plain Python and numpy, no ROS); `TfListener` feeds it; `StaticTransforms` is a
latched publisher that always sends all its children, for the usual Python broadcaster loses updates of
a known child.
A lookup is at an exact stamp: interpolated between two messages, never extrapolated, never "latest".
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from human_scene_ros.errors import HumanSceneError, MessageError
from human_scene_ros.geometry.transform import invert, make_transform

if TYPE_CHECKING:
    from rclpy.node import Node

Matrix = NDArray[np.float64]


class TransformNotReadyError(HumanSceneError, LookupError):
    """The transform is not known yet; a later message may bring it."""


class TransformGoneError(HumanSceneError, LookupError):
    """The stamp is older than everything that is kept; no later message can bring the transform."""


class TfTree:
    """Transforms of a tree of frames, each with its recent history.

    Args:
        keep_s: Seconds of history per moving frame.
    """

    def __init__(self, keep_s: float = 10.0) -> None:
        self._keep_ns = int(keep_s * 1e9)
        self._static: dict[str, tuple[str, Matrix]] = {}
        self._moving: dict[str, tuple[str, list[int], list[Matrix]]] = {}
        self._lock = threading.Lock()

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: Matrix, *,
            static: bool = False) -> None:
        """Take one transform; a child that changes its parent forgets its history."""
        with self._lock:
            if static:
                self._static[child] = (parent, T_parent_child)
                return
            known = self._moving.get(child)
            if known is None or known[0] != parent:
                known = self._moving[child] = (parent, [], [])
            _, stamps, transforms = known
            at = bisect.bisect_left(stamps, stamp_ns)
            if at < len(stamps) and stamps[at] == stamp_ns:
                transforms[at] = T_parent_child
            else:
                stamps.insert(at, stamp_ns)
                transforms.insert(at, T_parent_child)
            old = bisect.bisect_left(stamps, stamps[-1] - self._keep_ns)
            del stamps[:old], transforms[:old]

    def clear(self) -> None:
        """Forget what moves; static transforms stay. For jumps of the clock."""
        with self._lock:
            self._moving.clear()

    def parent(self, frame: str) -> str | None:
        """The parent of `frame`, None if it is a root or unknown."""
        with self._lock:
            return self._parent(frame)

    def chain(self, frame: str) -> tuple[str, ...]:
        """`frame`, its parent, and so on up to the root."""
        with self._lock:
            return self._chain(frame)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """T_target_source at exactly `stamp_ns`.

        Raises:
            TransformNotReadyError: A frame is not connected yet, or the newest message is older.
            TransformGoneError: The stamp is older than the history.
        """
        with self._lock:
            up_target, up_source = self._chain(target), self._chain(source)
            common = next((f for f in up_source if f in up_target), None)
            if common is None:
                raise TransformNotReadyError(
                    f"no transform between '{target}' and '{source}': '{target}' hangs under "
                    f"'{up_target[-1]}', '{source}' under '{up_source[-1]}'")
            T_common_source = self._compose(up_source[:up_source.index(common)], stamp_ns)
            T_common_target = self._compose(up_target[:up_target.index(common)], stamp_ns)
        return invert(T_common_target) @ T_common_source

    def _parent(self, frame: str) -> str | None:
        entry = self._static.get(frame) or self._moving.get(frame)
        return entry[0] if entry else None

    def _chain(self, frame: str) -> tuple[str, ...]:
        chain = [frame]
        while (parent := self._parent(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        return tuple(chain)

    def _compose(self, frames: tuple[str, ...], stamp_ns: int) -> Matrix:
        T_top_frame = np.eye(4)
        for frame in frames:
            T_top_frame = self._at(frame, stamp_ns) @ T_top_frame
        return T_top_frame

    def _at(self, frame: str, stamp_ns: int) -> Matrix:
        if frame in self._static:
            return self._static[frame][1]
        parent, stamps, transforms = self._moving[frame]
        after = bisect.bisect_left(stamps, stamp_ns)
        if after == len(stamps):
            late_ms = (stamp_ns - stamps[-1]) / 1e6
            raise TransformNotReadyError(
                f"'{parent}' -> '{frame}': newest transform is {late_ms:.1f} ms older than asked")
        if stamps[after] == stamp_ns:
            return transforms[after]
        if after == 0:
            early_ms = (stamps[0] - stamp_ns) / 1e6
            raise TransformGoneError(
                f"'{parent}' -> '{frame}': asked {early_ms:.1f} ms before the oldest transform")
        return interpolate(transforms[after - 1], transforms[after],
                           (stamp_ns - stamps[after - 1]) / (stamps[after] - stamps[after - 1]))


def interpolate(T_a_b0: Matrix, T_a_b1: Matrix, fraction: float) -> Matrix:
    """The pose between two poses: translation linearly, rotation along the shortest arc; fraction 0 to 1."""
    rotations = Rotation.from_matrix(np.stack([T_a_b0[:3, :3], T_a_b1[:3, :3]]))
    rotation = Slerp([0.0, 1.0], rotations)(fraction).as_matrix()
    return make_transform(rotation, (1.0 - fraction) * T_a_b0[:3, 3] + fraction * T_a_b1[:3, 3])


class LookupQueue:
    """Lookups that wait for transforms to arrive, without blocking anybody.

    Args:
        tree: Where to look.
    """

    def __init__(self, tree: TfTree) -> None:
        self._tree = tree
        self._waiting: list[tuple[float, str, str, int, Callable[[Matrix], None]]] = []
        self._lock = threading.Lock()
        self.failed = 0
        """Lookups given up so far."""
        self.last_failure = ""

    def when_ready(self, target: str, source: str, stamp_ns: int, wait_s: float,
                   use: Callable[[Matrix], None]) -> None:
        """Call `use(T_target_source)` now, or from `poll` as soon as it is known; give up after `wait_s`."""
        if not self._tried(time.monotonic() + wait_s, target, source, stamp_ns, use):
            with self._lock:
                self._waiting.append((time.monotonic() + wait_s, target, source, stamp_ns, use))

    def poll(self) -> None:
        """Try all waiting lookups again; called after each message on /tf and regularly."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        still = [lookup for lookup in waiting if not self._tried(*lookup)]
        with self._lock:
            self._waiting = still + self._waiting

    def clear(self) -> None:
        """Give all up without counting them; for jumps of the clock."""
        with self._lock:
            self._waiting.clear()

    def _tried(self, deadline: float, target: str, source: str, stamp_ns: int,
               use: Callable[[Matrix], None]) -> bool:
        """True if it is settled: used, or given up."""
        try:
            T_target_source = self._tree.lookup(target, source, stamp_ns)
        except TransformNotReadyError as error:
            if time.monotonic() < deadline:
                return False
            self._give_up(error)
        except TransformGoneError as error:
            self._give_up(error)
        else:
            use(T_target_source)
        return True

    def _give_up(self, error: Exception) -> None:
        self.failed += 1
        self.last_failure = str(error)


class TfListener:
    """Fills a `TfTree` from `/tf` and `/tf_static`; ignores what the node itself sends.

    Args:
        node: Owner of the two subscriptions.
        tree: Filled from the executor's thread.
        on_news: Called after each message.
    """

    def __init__(self, node: Node, tree: TfTree, on_news: Callable[[], None] = lambda: None) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from tf2_msgs.msg import TFMessage

        from human_scene_ros.nodes import qos

        self._node, self._tree, self._on_news = node, tree, on_news
        self._own: dict[tuple[str, str, int], None] = {}
        self._own_lock = threading.Lock()
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_moving,
                                     QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, qos.latched(100))]

    def ignore(self, parent: str, child: str, stamp_ns: int) -> None:
        """Say, before sending it, that a transform is our own; others for that child are foreign."""
        with self._own_lock:
            self._own[(parent, child, stamp_ns)] = None
            while len(self._own) > 1000:
                del self._own[next(iter(self._own))]

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_moving(self, message: Any) -> None:
        self._take(message, static=False)

    def _on_static(self, message: Any) -> None:
        self._take(message, static=True)

    def _take(self, message: Any, *, static: bool) -> None:
        from human_scene_ros.nodes import convert

        for transform in message.transforms:
            try:
                parent, child, stamp_ns, T_parent_child = convert.from_transform(transform)
            except MessageError as error:
                self._node.get_logger().warning(f"/tf: {error}; ignored", throttle_duration_sec=10.0)
                continue
            with self._own_lock:
                own = (parent, child, stamp_ns) in self._own
            if not own and np.isfinite(T_parent_child).all() and parent != child:
                self._tree.add(parent, child, stamp_ns, T_parent_child, static=static)
        self._on_news()


class StaticTransforms:
    """Own latched publisher on `/tf_static`: each change sends all children again, so that late and present
    listeners always hold the newest of each.

    Args:
        node: Owner of the publisher.
    """

    def __init__(self, node: Node) -> None:
        from tf2_msgs.msg import TFMessage

        from human_scene_ros.nodes import qos

        self._publisher = node.create_publisher(TFMessage, "/tf_static", qos.latched(1))
        self._transforms: dict[str, tuple[str, int, Matrix]] = {}

    def set(self, parent: str, child: str, stamp_ns: int, T_parent_child: Matrix) -> None:
        """Add or replace the transform of `child` and send all."""
        from human_scene_ros.nodes import convert

        self._transforms[child] = (parent, stamp_ns, T_parent_child)
        self._publisher.publish(convert.to_tf_message(
            [(p, c, stamp, T) for c, (p, stamp, T) in self._transforms.items()]))
