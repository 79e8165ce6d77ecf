"""Reads back what the nodes published into a recording: one `SceneEstimate` per image, and the map.

Only what messages carry comes back: the pointmap is lifted from the depth image, colours, confidence and the
people mask are blank. Pictures and errors of a recorded run need no more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import MessageError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import (
    BodyEstimate,
    CameraFrame,
    ScaleSource,
    SceneEstimate,
    TrackingStatus,
    TrackState,
    WorldSource,
)
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.image_codec import decode_depth_message
from human_scene_ros.sources.message_fields import matrix_of_pose, points_of_cloud, stamp_ns_of
from human_scene_ros.sources.reader import open_source

_HEAD = 15


def body_from_message(body: Any) -> BodyEstimate:
    """The inverse of `smplx_body_fields`; joints that the message lacks are NaN.

    Raises:
        MessageError: The message holds no joints.
    """
    joints = np.full((55, 3), np.nan, np.float32)
    given = np.array(body.joints, np.float32).reshape(-1, 3)[:55]
    if not len(given):
        raise MessageError(f"body '{body.track_id}' has no joints; record with bodies.joint_set 1 or 2")
    joints[:len(given)] = given
    uv = np.array(body.joint_uv, np.float32).reshape(-1, 2)
    parameters = BodyParameters(**{f.name: np.array(getattr(body, f.name), np.float32)
                                   for f in dataclasses.fields(BodyParameters)})
    return BodyEstimate(
        track_id=int("".join(c for c in body.track_id if c.isdigit()) or 0), track_state=TrackState(body.track_state),
        track_age=int(body.track_age), time_since_update_s=float(body.time_since_update), score=float(body.score),
        parameters=parameters, joints_camera=joints,
        head_uv_px=uv[_HEAD] if len(uv) > _HEAD else np.full(2, np.nan, np.float32),
        bbox_px=np.array(body.bbox, np.float32), height_m=float(body.height))


def estimate_from_message(message: Any, depth_m: NDArray[np.float32] | None = None,
                          dense_camera: PinholeCamera | None = None) -> SceneEstimate:
    """From a SmplxBodyArray and, if recorded, the depth image of the same stamp with its intrinsics."""
    camera = PinholeCamera(int(message.width), int(message.height), *(float(v) for v in message.intrinsics))
    if depth_m is None or dense_camera is None:
        dense_camera = camera.resized(4, 3)
        depth_m = np.full((3, 4), np.nan, np.float32)
    shape = depth_m.shape
    return SceneEstimate(
        stamp_ns=stamp_ns_of(message.header.stamp), segment=int(message.segment),
        T_world_camera=matrix_of_pose(message.camera_pose.pose), camera=camera, calibrated=bool(message.calibrated),
        dense_camera=dense_camera, points_camera=dense_camera.unproject_depth(depth_m),
        confidence=np.full(shape, np.inf, np.float32), colors=np.full((*shape, 3), 128, np.uint8),
        person=np.zeros(shape, bool), bodies=tuple(body_from_message(b) for b in message.bodies),
        status=TrackingStatus(message.status), scale=float(message.scale), scale_source=ScaleSource.NETWORK,
        world_source=WorldSource.LEVEL_CAMERA, stage_ms={})


class RecordedRun:
    """A recording that `record_node` made of the reconstructor's topics.

    Args:
        path: The rosbag2 folder.
        image_topic: Of the input as recorded.
        info_topic: Its CameraInfo; None if there was none.
        node: Fully qualified name of the reconstructor.
    """

    def __init__(self, path: Path, image_topic: str, info_topic: str | None, node: str = "/human_scene") -> None:
        self.path, self._image_topic, self._info_topic = path, image_topic, info_topic
        self._bodies, self._depth = f"{node}/bodies", f"{node}/depth/image"
        self._depth_info, self._map = f"{node}/depth/camera_info", f"{node}/map/cloud"

    def frames(self) -> Iterator[tuple[CameraFrame, SceneEstimate]]:
        """Every processed image with its estimate, in order of the stamps.

        Raises:
            SourceError: The recording lacks images or bodies.
        """
        estimates = self.estimates()
        estimate = next(estimates, None)
        with open_source(self.path, self._image_topic, self._info_topic) as source:
            for frame in source:
                while estimate is not None and estimate.stamp_ns < frame.stamp_ns:
                    estimate = next(estimates, None)
                if estimate is not None and estimate.stamp_ns == frame.stamp_ns:
                    yield frame, estimate

    def estimates(self) -> Iterator[SceneEstimate]:
        """Every estimate, in order of the stamps; needs no images.

        Raises:
            SourceError: The recording lacks bodies.
        """
        with BagReader(self.path) as bag:
            if self._bodies not in bag.topics:
                raise SourceError(f"{self.path} has no topic {self._bodies}; it has {', '.join(sorted(bag.topics))}")
            wanted = [t for t in (self._bodies, self._depth, self._depth_info) if t in bag.topics]
            complete = len(wanted)
            pending: dict[int, dict[str, Any]] = {}  # stamp -> topic -> message
            for topic, _, data in bag.messages(wanted):
                message = bag.deserialize(topic, data)
                group = pending.setdefault(stamp_ns_of(message.header.stamp), {})
                group[topic] = message
                if len(group) == complete:
                    # What is older and incomplete stays so: a message of it was lost.
                    stamp_ns = stamp_ns_of(message.header.stamp)
                    for earlier in sorted(s for s in pending if s <= stamp_ns):
                        yield from self._estimate(pending.pop(earlier))
            for stamp_ns in sorted(pending):
                yield from self._estimate(pending[stamp_ns])

    def _estimate(self, group: dict[str, Any]) -> Iterator[SceneEstimate]:
        if self._bodies not in group:
            return
        depth_m = dense_camera = None
        if self._depth in group and self._depth_info in group:
            info = group[self._depth_info]
            depth_m = decode_depth_message(group[self._depth])
            dense_camera = PinholeCamera(int(info.width), int(info.height), float(info.k[0]), float(info.k[4]),
                                         float(info.k[2]), float(info.k[5]))
        yield estimate_from_message(group[self._bodies], depth_m, dense_camera)

    def messages(self, topic: str) -> Iterator[Any]:
        """All messages of one topic; none if it was not recorded."""
        with BagReader(self.path) as bag:
            if topic in bag.topics:
                for _, _, data in bag.messages([topic]):
                    yield bag.deserialize(topic, data)

    def map_world(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | None:
        """(N, 3) points and (N, 3) RGB of the last map; None if there is none."""
        cloud = max(self.messages(self._map), key=lambda m: stamp_ns_of(m.header.stamp), default=None)
        if cloud is None or math.prod((cloud.width, cloud.height)) == 0:
            return None
        return points_of_cloud(cloud)
