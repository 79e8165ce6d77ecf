"""What the reconstructor says: one publisher per topic, heavy messages only for those who listen.

`ResultPublishers.publish` takes one estimate and sends everything that is due. Nothing here knows where estimates
come from. Rates go by the stamps of the data.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from human_scene_ros.body.model import BodyModel
from human_scene_ros.msg import SmplxBodyArray
from human_scene_ros.nodes import convert, qos
from human_scene_ros.nodes.diagnostics import Notes, Throttle
from human_scene_ros.nodes.pose_hint import PoseHints
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.nodes.tf_tree import LookupQueue, TfListener, TfTree
from human_scene_ros.scene import SceneEstimate
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import BodyDescription, CloudOptions
from human_scene_ros.sources.people_mask import people_mask_of

if TYPE_CHECKING:
    from rclpy.node import Node


class ResultPublishers:
    """Created on configure, closed on cleanup.

    Args:
        node: Owner.
        config: Names of frames, rates, limits.
        description: What the numbers of the bodies mean.
        body_model: Poses them, for semantic points.
        notes: Where problems with /tf go.
        camera: Whose results these are; with several cameras its topics lie in its namespace.
    """

    def __init__(self, node: Node, config: ReconstructorConfig, description: BodyDescription, body_model: BodyModel,
                 notes: Notes, camera: str) -> None:
        self.config = config
        self._camera = camera
        self._prefix = f"{camera}/{node.get_name()}" if config.cameras else "~"
        self._node, self._description, self._body_model = node, description, body_model
        self._bodies = self._make(SmplxBodyArray, "bodies", 10)
        self._camera_pose = self._make(PoseWithCovarianceStamped, "camera_pose", 10)
        self._odom = self._make(Odometry, "odom", 10) if config.tf.base_frame else None
        self._path = self._make(Path, "path", 1)
        self._depth = self._make(Image, "depth/image", 1)
        self._depth_info = self._make(CameraInfo, "depth/camera_info", 1)
        self._confidence = self._make(Image, "confidence/image", 1)
        self._people_mask = self._make(Image, "people_mask", 1)
        self._cloud = self._make(PointCloud2, "cloud", 1)
        self._map = qos.create_publisher(node, PointCloud2, f"{self._prefix}/map/cloud", qos.latched(1))
        self._tf = qos.create_publisher(node, TFMessage, "/tf", qos.reliable(100))
        self._all = [p for p in (
            self._bodies, self._camera_pose, self._odom, self._path, self._depth, self._depth_info,
            self._confidence, self._people_mask, self._cloud, self._map, self._tf) if p is not None]
        self._cloud_due, self._path_due = Throttle(), Throttle()
        self._poses: collections.deque[tuple[int, NDArray[np.float64]]] = collections.deque(
            maxlen=config.path.max_poses)
        self.problem = ""
        """Why no camera transform is sent; empty while all is well."""
        self._segment = -1
        self._sequence = 0
        needs_tf = config.tf.mode == "camera" or config.tf.base_frame or config.odometry.hint_frame
        self.tree = TfTree()
        self.lookups = LookupQueue(self.tree)
        self.hints = PoseHints(self.tree, config.odometry, notes)
        self._listener = TfListener(node, self.tree, self._on_transforms) if needs_tf else None

    def close(self) -> None:
        """Destroy all publishers and subscriptions."""
        for publisher in self._all:
            self._node.destroy_publisher(publisher)
        if self._listener is not None:
            self._listener.close()

    @property
    def listeners(self) -> int:
        """Subscriptions that are connected to the bodies."""
        return int(self._bodies.get_subscription_count())

    def _on_transforms(self) -> None:
        self.hints.told()
        self.lookups.poll()

    def publish(self, estimate: SceneEstimate, camera_frame: str, latency_s: float) -> None:
        """Send what one estimate gives, the light and always wanted first."""
        if estimate.segment != self._segment:
            self._segment = estimate.segment
            self._poses.clear()
        bodies = self._publish_bodies(estimate, camera_frame, latency_s)
        self._publish_pose(estimate)
        self._publish_transforms(estimate, camera_frame, bodies)
        self._publish_maps(estimate, camera_frame)
        self._publish_cloud(estimate, camera_frame)
        self._sequence += 1

    def publish_map(self, stamp_ns: int, points_world: NDArray[np.float32], colors: NDArray[np.uint8]) -> int:
        """(N, 3) people-free points in the world frame and their (N, 3) RGB as the latched map; returns N."""
        step = message_fields.stride_for(len(points_world), 1, 16, self.config.map.max_bytes)
        self._send(self._map, PointCloud2, message_fields.point_cloud_fields(
            stamp_ns, self.config.tf.world_frame, points_world[::step], colors[::step]))
        return len(points_world)

    def _publish_bodies(self, estimate: SceneEstimate, camera_frame: str, latency_s: float) -> dict[str, Any]:
        fields = message_fields.body_array_fields(
            estimate, self._description, camera_frame=camera_frame, camera_name=self._camera,
            sequence=self._sequence, world_frame=self.config.tf.world_frame, latency_s=latency_s)
        self._send(self._bodies, SmplxBodyArray, fields)
        return fields

    def _publish_pose(self, estimate: SceneEstimate) -> None:
        world = self.config.tf.world_frame
        self._send(self._camera_pose, PoseWithCovarianceStamped, message_fields.pose_with_covariance_stamped_fields(
            estimate.stamp_ns, world, estimate.T_world_camera))
        self._poses.append((estimate.stamp_ns, estimate.T_world_camera))
        if self._path_due.due(estimate.stamp_ns, self.config.path.rate) and _wanted(self._path):
            self._send(self._path, Path, message_fields.path_fields(estimate.stamp_ns, world, self._poses))

    def _publish_transforms(self, estimate: SceneEstimate, camera_frame: str, bodies: dict[str, Any]) -> None:
        config, stamp_ns = self.config.tf, estimate.stamp_ns
        sent_ns = stamp_ns + round(config.time_offset * 1e9)
        if config.bodies == "root" and bodies["bodies"] and not self.config.cameras:
            header = message_fields.header_fields(sent_ns, camera_frame)
            self._send(self._tf, TFMessage, {"transforms": [
                {"header": header, "child_frame_id": f"body_{body['track_id']}",
                 "transform": {"translation": body["pelvis"]["pose"]["position"],
                               "rotation": body["pelvis"]["pose"]["orientation"]}} for body in bodies["bodies"]]})
        if config.base_frame:
            self.lookups.when_ready(camera_frame, config.base_frame, stamp_ns, config.wait, lambda T_camera_base:
                self._send(self._odom, Odometry, message_fields.odometry_fields(
                    stamp_ns, config.odom_frame, config.base_frame, estimate.T_world_camera @ T_camera_base)))
        if config.mode == "camera":
            self._send_camera_root(estimate, camera_frame, sent_ns)

    def _send_camera_root(self, estimate: SceneEstimate, camera_frame: str, sent_ns: int) -> None:
        """world -> root of the camera's own tree, so that no frame gets a second parent."""
        config = self.config.tf
        chain = self.tree.chain(camera_frame)
        if config.world_frame in chain:
            below = chain[chain.index(config.world_frame) - 1] if len(chain) > 1 else camera_frame
            self.problem = (f"tf.mode camera: '{below}' already has the parent '{config.world_frame}' "
                            f"(chain {' <- '.join(chain)}); use tf.mode none or another tf.world_frame")
            self._node.get_logger().error(self.problem, throttle_duration_sec=10.0)
            return
        self.problem = ""
        root = chain[-1]

        def send(T_camera_root: NDArray[np.float64]) -> None:
            assert self._listener is not None  # mode camera always listens
            self._listener.ignore(config.world_frame, root, sent_ns)
            self._send(self._tf, TFMessage, message_fields.transforms_fields(
                [(sent_ns, config.world_frame, root, estimate.T_world_camera @ T_camera_root)]))

        self.lookups.when_ready(camera_frame, root, estimate.stamp_ns, config.wait, send)

    def _publish_maps(self, estimate: SceneEstimate, camera_frame: str) -> None:
        """Depth, confidence and people at network resolution, strided to the byte budget."""
        stamp_ns, limit = estimate.stamp_ns, self.config.cloud.max_bytes
        height, width = estimate.confidence.shape
        stride = message_fields.stride_for(height, width, 4, limit)
        if _wanted(self._depth) or _wanted(self._depth_info):
            self._send(self._depth, Image, message_fields.depth_image_fields(
                stamp_ns, camera_frame, estimate.points_camera[::stride, ::stride, 2]))
            self._send(self._depth_info, CameraInfo, message_fields.camera_info_fields(
                stamp_ns, camera_frame, message_fields.strided_camera(estimate.dense_camera, stride)))
        if _wanted(self._confidence):
            self._send(self._confidence, Image, message_fields.image_fields(
                stamp_ns, camera_frame, estimate.confidence[::stride, ::stride].astype(np.float32), "32FC1"))
        if _wanted(self._people_mask):
            self._send(self._people_mask, Image, message_fields.image_fields(
                stamp_ns, camera_frame, people_mask_of(estimate), "mono8"))

    def _publish_cloud(self, estimate: SceneEstimate, camera_frame: str) -> None:
        config = self.config.cloud
        if _wanted(self._cloud) and self._cloud_due.due(estimate.stamp_ns, config.rate):
            options = CloudOptions(config.max_bytes, config.people, config.min_confidence, config.max_range)
            self._send(self._cloud, PointCloud2, message_fields.scene_cloud_fields(
                estimate, camera_frame, options, self._body_model if config.semantic else None))

    def _make(self, message_class: type, topic: str, depth: int) -> Any:
        return qos.create_publisher(self._node, message_class, f"{self._prefix}/{topic}", qos.reliable(depth))

    @staticmethod
    def _send(publisher: Any, message_class: type, fields: dict[str, Any]) -> None:
        publisher.publish(convert.fill(message_class(), fields))


def _wanted(publisher: Any) -> bool:
    return publisher.get_subscription_count() > 0
