"""`ros2 run human_scene_ros markers_node`: people as RViz markers, meshes and an overlay on the image.

Keeps the reconstructor lean: whatever only eyes need is made here, and only for those who look. Subscribes
`human_scene/bodies`, and `image` (or `image/compressed`) while somebody subscribes to `~/overlay`; with
`source: people` the `people` of a fusion node instead, which have no image.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, Literal

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import Marker, MarkerArray

from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.errors import HumanSceneError
from human_scene_ros.msg import FusedPerson, FusedPersonArray, SmplxBodyArray
from human_scene_ros.nodes import convert, markers, qos
from human_scene_ros.nodes.camera_input import image_topic
from human_scene_ros.nodes.overlay import draw_people
from human_scene_ros.nodes.parameters import NodeParameters, option
from human_scene_ros.nodes.process import end_process, run_node
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.image_codec import decode_message

IMAGES_KEPT = 30
"""Images that wait for their bodies; a CPU network may be a second behind a 30 Hz camera."""


@dataclasses.dataclass(frozen=True)
class MarkersConfig:
    """Parameters of `markers_node`."""

    source: Literal["bodies", "people"] = option(
        "bodies", "bodies: of one camera, human_scene/bodies; people: of a fusion node, people.")
    meshes: bool = option(False, "Publish ~/meshes (about 180 kB per person) for those who subscribe.", dynamic=True)
    mesh_lod: int = option(2, "Level of detail of the meshes; 0 = all vertices of the body model.", low=0, high=2)
    body: str = option("", "Body model (.npz) of the meshes; empty = the shipped open body.")
    trail: int = option(60, "Positions kept per person for ~/trails; 0 = no trails.", low=0, high=10000, dynamic=True)
    transport: Literal["raw", "compressed"] = option("raw", "Image under ~/overlay: topic image or image/compressed.")


class MarkersNode(Node):
    """One callback per body array; `_on_bodies` is the route."""

    def __init__(self) -> None:
        super().__init__("human_scene_markers")
        self._settings = NodeParameters(self, MarkersConfig)
        self._body_model: Any = None
        self._shown: dict[str, set[tuple[str, int]]] = {}
        self._trails: dict[str, collections.deque[Any]] = {}
        self._segment: int | None = None
        self._images: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._image_subscription: Any = None
        self._marker_publishers = {name: qos.create_publisher(self, MarkerArray, f"~/{name}", qos.reliable(10))
                            for name in ("skeletons", "capsules", "trails", "meshes")}
        self._overlay = qos.create_publisher(self, Image, "~/overlay", qos.reliable(1))
        if self._settings.config.source == "people":
            self._bodies = self.create_subscription(FusedPersonArray, "people", self._on_people, qos.reliable(50))
        else:
            self._bodies = self.create_subscription(SmplxBodyArray, "human_scene/bodies", self._on_bodies,
                                                    qos.reliable(50))
        self.create_timer(0.2, self._watch_overlay)

    def start(self) -> None:
        """Say that the node is ready."""
        self.get_logger().info(f"ready: {self._bodies.topic_name}")

    def _on_bodies(self, message: SmplxBodyArray) -> None:
        """Bodies of one image -> markers of every kind that somebody looks at."""
        if message.segment != self._segment:
            self._segment = message.segment
            self._trails.clear()
        header = {"stamp": message.header.stamp, "frame_id": message.header.frame_id}
        world = {"stamp": message.header.stamp, "frame_id": message.world_frame}
        bodies = convert.bodies_from_message(message)
        self._extend_trails(message, bodies)
        self._show("skeletons", header, lambda: [m for b in bodies for m in
                                                 markers.skeleton_markers(b, PARENTS, header)])
        self._show("capsules", header, lambda: [m for b in bodies for m in markers.capsule_markers(b, header)])
        self._show("trails", world, lambda: [markers.trail_marker(track, convert.stacked(points), world)
                                             for track, points in self._trails.items() if len(points) > 1])
        if self._settings.config.meshes:
            self._show("meshes", header, lambda: [
                markers.mesh_marker(body.track_id, *self._mesh(body), header) for body in message.bodies])
        image = self._images.pop(convert.stamp_ns(message.header.stamp), None)
        if image is not None and self._overlay.get_subscription_count():
            self._publish_overlay(image, bodies)

    def _on_people(self, message: FusedPersonArray) -> None:
        """People of several cameras: bodies whose camera is the world."""
        self._on_bodies(SmplxBodyArray(header=message.header, world_frame=message.header.frame_id,
                                       segment=message.segment, bodies=[
                                           person.body for person in message.people
                                           if person.state != FusedPerson.STATE_LOST]))

    def _show(self, kind: str, header: dict[str, Any], make: Any) -> None:
        """Publish the markers of one kind and erase those of people who left."""
        publisher = self._marker_publishers[kind]
        if not publisher.get_subscription_count():
            return
        shown = make()
        keys = {(m["ns"], m["id"]) for m in shown}
        gone = self._shown.get(kind, set()) - keys
        self._shown[kind] = keys
        shown += [markers.erase_marker(namespace, number, header) for namespace, number in sorted(gone)]
        publisher.publish(convert.fill(MarkerArray(), {"markers": [convert.fill(Marker(), m) for m in shown]}))

    def _extend_trails(self, message: SmplxBodyArray, bodies: list[markers.BodyView]) -> None:
        length = self._settings.config.trail
        positions = convert.pelvis_world(message, bodies)
        present = {body.track_id for body in bodies} if length else set()
        self._trails = {track: points for track, points in self._trails.items() if track in present}
        for body, position in zip(bodies, positions, strict=True):
            if length:
                old = self._trails.get(body.track_id, ())
                self._trails[body.track_id] = collections.deque([*old, position], maxlen=length)

    def _mesh(self, body: Any) -> tuple[Any, Any]:
        from human_scene_ros.body.model import load_body_model, vertices

        if self._body_model is None:
            self._body_model = load_body_model(self._settings.config.body or None)
        return vertices(self._body_model, convert.parameters_from_message(body), lod=self._settings.config.mesh_lod)

    def _watch_overlay(self) -> None:
        """Subscribe to the image only while somebody looks at the overlay."""
        wanted = self._overlay.get_subscription_count() > 0
        if wanted and self._image_subscription is None:
            transport = self._settings.config.transport
            topic = image_topic(self, transport)
            message_class = Image if transport == "raw" else CompressedImage
            profile = qos.camera_qos(qos.auto_reliability(self, topic, "auto"), IMAGES_KEPT)
            self._image_subscription = qos.create_camera_subscription(
                self, message_class, topic, self._on_image, profile)
        elif not wanted and self._image_subscription is not None:
            self.destroy_subscription(self._image_subscription)
            self._image_subscription = None
            self._images.clear()

    def _on_image(self, message: Any) -> None:
        self._images[convert.stamp_ns(message.header.stamp)] = message
        while len(self._images) > IMAGES_KEPT:
            self._images.popitem(last=False)

    def _publish_overlay(self, message: Any, bodies: list[markers.BodyView]) -> None:
        try:
            image = decode_message(message)
        except HumanSceneError as error:
            self.get_logger().warning(f"overlay: {error}", throttle_duration_sec=10.0)
            return
        self._overlay.publish(convert.fill(Image(), message_fields.image_fields(
            convert.stamp_ns(message.header.stamp), message.header.frame_id, draw_people(image, bodies, PARENTS),
            "rgb8")))


def main() -> None:
    """Entry point of the executable `markers_node`."""
    end_process(run_node(MarkersNode))
