"""`ros2 run human_scene_ros fusion_node`: bodies of N cameras in, every person once out, in the world frame.

The route of a set is `FusionNode._process`. Messages go into the synchroniser, which groups them by stamp; a set that
is complete, or whose time is up, is fused at once, in the executor's thread (milliseconds). Calibration, which takes
seconds, has a thread of its own. A dead camera makes sets smaller, never fewer.
"""

from __future__ import annotations

import collections
import functools
import math
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from human_scene_ros.errors import ConfigError, HumanSceneError
from human_scene_ros.fusion.calibration import (
    FoundCamera,
    PeopleMemory,
    PoseMemory,
    calibrate,
    combined,
    poses_from_scene,
)
from human_scene_ros.fusion.sync import SyncConfig, SyncCounters, SyncedSet, Synchroniser
from human_scene_ros.msg import (
    CameraExtrinsicsArray,
    FusedPersonArray,
    FusionAssociations,
    SceneStatus,
    SmplxBodyArray,
)
from human_scene_ros.nodes import convert, qos
from human_scene_ros.nodes.diagnostics import Level, Throttle
from human_scene_ros.nodes.fusion_config import FusionNodeConfig, camera_config, config_for, time_offset_s
from human_scene_ros.nodes.fusion_health import FusionHealth
from human_scene_ros.nodes.fusion_map import MergedMap
from human_scene_ros.nodes.fusion_people import CameraBodies, FusedSet, FusionPeople, pelvis_pose
from human_scene_ros.nodes.fusion_rig import Matrix, Rig, places_of
from human_scene_ros.nodes.parameters import NodeParameters
from human_scene_ros.nodes.process import end_process, run_node
from human_scene_ros.nodes.tf_tree import StaticTransforms, TfListener, TfTree
from human_scene_ros.scene import TrackState, WorldSource
from human_scene_ros.sources import fusion_fields, message_fields
from human_scene_ros.sources.fusion_fields import CameraPlace, FusedBody, person_id_text
from human_scene_ros.sources.rig_file import write_rig
from human_scene_ros.srv import CalibrateExtrinsics, MergeIds

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

POLL_PERIOD_S = 0.02
STATUS_PERIOD_S = 0.05
ALIASES_KEPT = 100
Set = SyncedSet[CameraBodies]


class FusionNode(LifecycleNode):
    """Lifecycle: configure loads the body model, activate subscribes, deactivate keeps people, cleanup drops them."""

    def __init__(self) -> None:
        super().__init__("human_scene_fusion")
        self.failure = ""
        self._settings = NodeParameters(self, config_for(self._named_cameras()), self._on_config)
        self.config: FusionNodeConfig = self._settings.config
        self.cameras = self.config.cameras
        self._tree = TfTree()
        self._people: FusionPeople | None = None
        self._rig: Rig | None = None
        self._memory = PeopleMemory(self.cameras, self.config.extrinsics.keep)
        self._map = MergedMap(self.cameras, self.config.map) if self.config.map.enabled else None
        self._scene = PoseMemory(self.cameras, self.config.extrinsics.keep)
        self._health = FusionHealth(self.get_fully_qualified_name().lstrip("/"), self.cameras)
        self._sync: Synchroniser[CameraBodies] | None = None
        self._counters = SyncCounters()
        self._waiting: collections.deque[tuple[float, Set]] = collections.deque()  # for /tf, until when
        self._segment: int | None = None  # of the synchroniser, which counts from 0 whenever it is made
        self._ended: dict[int, FusedBody] = {}  # whose last word waits for the next array, with output_rate
        self._aliases: dict[str, Any] = {}  # dropped person_id -> publisher
        self._newest_ns = 0
        self._status_s = 0.0  # when the last status was sent
        self._output_due = Throttle()
        self._calibrating: Future | None = None
        self._inputs: list[Any] = []
        self._static = StaticTransforms(self)
        self._listener = TfListener(self, self._tree, self._drain)
        self._people_publisher = qos.create_publisher(self, FusedPersonArray, "people", qos.reliable(10))
        self._extrinsics_publisher = qos.create_publisher(self, CameraExtrinsicsArray, "extrinsics", qos.latched(1))
        self._associations_publisher = qos.create_publisher(self, FusionAssociations, "~/associations",
                                                            qos.reliable(10))
        self._map_publisher = qos.create_publisher(self, PointCloud2, "map/cloud", qos.latched(1)) if (
            self._map is not None) else None
        self._status_publisher = qos.create_publisher(self, SceneStatus, "~/status", qos.latched(1))
        self._diagnostics_publisher = qos.create_publisher(self, DiagnosticArray, "/diagnostics", qos.reliable(10))
        self._tf_publisher = qos.create_publisher(self, TFMessage, "/tf", qos.reliable(100))
        self._offered_services = [
            # A group of its own: the others must run while it waits for its thread.
            self.create_service(CalibrateExtrinsics, "~/calibrate_extrinsics", self._on_calibrate,
                                callback_group=MutuallyExclusiveCallbackGroup()),
            self.create_service(Trigger, "~/reset_ids", self._on_reset_ids),
            self.create_service(MergeIds, "~/merge_ids", self._on_merge_ids)]
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # ROS time stands still while a bag is paused
        self.create_timer(POLL_PERIOD_S, self._poll, clock=steady)
        self.create_timer(self.config.diagnostics.period, self._report, clock=steady)
        if self._map is not None:
            self.create_timer(1.0 / self.config.map.rate, self._publish_map, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=lambda jump: self._tree.clear())

    def _named_cameras(self) -> tuple[str, ...]:
        """The parameter `cameras`, which decides what other parameters there are; checked with them."""
        given = self._parameter_overrides.get("cameras")
        value = given.value if given is not None else None
        return tuple(v for v in value if isinstance(v, str)) if isinstance(value, (list, tuple)) else ()

    # --- the route -----------------------------------------------------------------------------------------------

    def _on_bodies(self, camera: str, message: SmplxBodyArray) -> None:
        """One camera's bodies into the synchroniser, and every set that is ready through the fusion."""
        assert self._people is not None and self._sync is not None, "active"
        stamp_ns = convert.stamp_ns(message.header.stamp)
        if self._health.arrived(camera, int(message.sequence), self._latency_s(stamp_ns)):
            self.get_logger().info(f"camera {camera} is back")
        foreign = self._people.foreign(message)
        if foreign and self._health.notes.add(f"model {camera}", Level.WARN, f"{camera}: {foreign}"):
            self.get_logger().warning(f"{camera}: {foreign}")
        bodies = self._people.read(message)
        self._health.malformed(camera, bodies.malformed)
        self._take(self._sync.push(camera, stamp_ns, bodies, time.monotonic_ns()))

    def _process(self, moment: Set, poses: dict[str, Matrix | None]) -> None:
        """One set from bodies to people."""
        assert self._people is not None and self._rig is not None
        begun_s = time.perf_counter()
        if self._jumped(moment):
            self._forget("time jumped")
        self._segment = moment.segment
        self._newest_ns = moment.stamp_ns
        frames = {name: (frame.stamp_ns, frame.item) for name, frame in moment.members.items()}
        for name, (stamp_ns, bodies) in frames.items():
            self._memory.add(name, stamp_ns * 1e-9, bodies.bodies)
            self._place_map(name, bodies.message, poses[name])
            T_world_camera = self._rig.pose_in_message(bodies.message)[0]
            if T_world_camera is not None:
                self._scene.add(name, stamp_ns * 1e-9, T_world_camera)
        fused = self._people.step(moment.stamp_ns, frames, poses)
        step_s = time.perf_counter() - begun_s
        latency_s = self._latency_s(moment.stamp_ns)
        for kept, dropped in fused.merged:
            self._publish_alias(self._person_id(kept), self._person_id(dropped))
        self._ended.update({p.body.track_id: p for p in fused.people if p.body.track_state == TrackState.LOST})
        if self.config.output_rate == 0.0 or self._output_due.due(moment.stamp_ns, self.config.output_rate):
            self._publish(moment, fused, [name for name in frames if poses[name] is not None], latency_s)
        self._health.detections(fused.cameras, fused.frame.detection_status.tolist())
        living = sum(p.body.track_state != TrackState.LOST for p in fused.people)
        self._health.fused(len(frames), living, latency_s, step_s, fused.frame.stage_ms)
        if time.monotonic() - self._status_s > STATUS_PERIOD_S:  # a player without a clock waits for the counters
            self._publish_status()

    def _publish(self, moment: Set, fused: FusedSet, used: list[str], latency_s: float) -> None:
        assert self._people is not None
        stamp_ns, world = moment.stamp_ns, self.config.world_frame
        living = [p for p in fused.people if p.body.track_state != TrackState.LOST]
        people = sorted([*living, *self._ended.values()], key=lambda p: p.body.track_id)
        self._ended.clear()
        self._people_publisher.publish(convert.fill(FusedPersonArray(), fusion_fields.fused_array_fields(
            stamp_ns, world, self._health.segment, self.cameras, used, moment.spread_ns * 1e-9, latency_s, people,
            self._people.description)))
        if self.config.tf.people == "root" and living:
            transforms = [(world, f"person_{self._person_id(p.body.track_id)}", stamp_ns, pelvis_pose(p))
                          for p in living]
            for parent, child, _, _ in transforms:
                self._listener.ignore(parent, child, stamp_ns)
            self._tf_publisher.publish(convert.to_tf_message(transforms))
        if self._associations_publisher.get_subscription_count():
            frame = fused.frame
            ids = ["" if n < 0 else self._person_id(n) for n in frame.detection_person.tolist()]
            self._associations_publisher.publish(convert.fill(FusionAssociations(), fusion_fields.associations_fields(
                stamp_ns, world, fused.cameras, fused.track_ids, ids, frame.detection_status, frame.residual_m,
                frame.depth_fraction, frame.cycle_violation_rate)))

    def _person_id(self, number: int) -> str:
        return person_id_text(self.config.person.id_prefix, number)

    def _publish_alias(self, keep: str, drop: str) -> None:
        """REP-155: the topic of an id that was found to be another one says which, latched."""
        if drop in self._aliases:
            return
        if len(self._aliases) >= ALIASES_KEPT:
            self.destroy_publisher(self._aliases.pop(next(iter(self._aliases))))
        self._aliases[drop] = self.create_publisher(String, f"/humans/persons/{drop}/alias", qos.latched(1))
        self._aliases[drop].publish(String(data=keep))

    def _on_map(self, camera: str, message: PointCloud2) -> None:
        assert self._map is not None
        try:
            self._map.take(camera, message)
        except HumanSceneError as error:
            self._map_left_out(camera, error)

    def _place_map(self, camera: str, message: SmplxBodyArray, T_world_camera: Matrix | None) -> None:
        try:
            if self._map is not None:
                self._map.place(camera, message, T_world_camera)
        except HumanSceneError as error:
            self._map_left_out(camera, error)

    def _map_left_out(self, camera: str, error: HumanSceneError) -> None:
        if self._health.notes.add(f"map {camera}", Level.ERROR, f"{camera}: map left out: {error}"):
            self.get_logger().error(f"{camera}: map left out: {error}")

    def _publish_map(self) -> None:
        if self._map is None or self._map_publisher is None or not self._map.changed:
            return
        points, colors = self._map.merged()
        step = message_fields.stride_for(len(points), 1, 16, self.config.map.max_bytes)
        self._map_publisher.publish(convert.fill(PointCloud2(), message_fields.point_cloud_fields(
            self._newest_ns, self.config.world_frame, points[::step], colors[::step])))

    # --- sets that wait for /tf ----------------------------------------------------------------------------------

    def _take(self, moments: list[Set]) -> None:
        for moment in moments:
            self._waiting.append((time.monotonic() + self.config.extrinsics.wait, moment))
        self._drain()

    def _drain(self) -> None:
        """Fuse, in order, the sets whose camera poses are known or will not become known any more."""
        while self._waiting and self._rig is not None and self._sync is not None:
            deadline_s, moment = self._waiting[0]
            found = {name: self._rig.pose(name, frame.item.message, convert.stamp_ns(frame.item.message.header.stamp))
                     for name, frame in moment.members.items()}
            if any(pose.T_world_camera is None and pose.soon for pose in found.values()) and (
                    time.monotonic() < deadline_s):
                return
            self._waiting.popleft()
            try:
                self._process(moment, {name: pose.T_world_camera for name, pose in found.items()})
            except Exception as error:  # one bad set must not end the others
                if not self.context.ok():
                    return
                self._health.processed += len(moment.members)
                text = f"set {moment.stamp_ns / 1e9:.3f} s: {type(error).__name__}: {error}"
                if self._health.notes.add("set", Level.ERROR, text):
                    self.get_logger().error(f"{text}\n{traceback.format_exc()}")

    def _poll(self) -> None:
        if self._sync is None:
            return
        self._take(self._sync.poll(time.monotonic_ns()))
        for name in self._health.newly_silent(self.config.diagnostics.silence_warning):
            self.get_logger().warning(self._silence(name))

    def _jumped(self, moment: Set) -> bool:
        """Whether what is known of people is of another time than this set."""
        assert self._sync is not None
        if self._segment is None:  # the first set since the node became active: people may have been kept
            return moment.stamp_ns < self._newest_ns - self._sync.config.jump_ns
        return moment.segment != self._segment

    def _forget(self, reason: str) -> None:
        """A new segment: people and what was learned from them are of the past; ids and segments go on counting."""
        assert self._people is not None
        self._health.segment += 1
        self._people.reset()
        self._ended.clear()
        self._memory.clear()
        self._scene.clear()
        if self._map is not None:
            self._map.clear()
        self.get_logger().info(f"people forgotten: {reason}")

    def _latency_s(self, stamp_ns: int) -> float:
        """Stamp to now; NaN where the stamps are not of this clock (a replay without /clock)."""
        latency_s = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        return latency_s if 0.0 <= latency_s < 60.0 else math.nan

    # --- services ------------------------------------------------------------------------------------------------

    def _on_config(self, config: FusionNodeConfig) -> None:
        self.config = config
        if self._people is not None:
            self._people.configure(config)
        if self._sync is not None:
            self._sync.config = _sync_config(config)
            for name in self.cameras:
                self._sync.set_offset(name, _offset_ns(config, name))

    def _on_reset_ids(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._people is None:
            return convert.fill(response, {"success": False, "message": "not configured: nobody to forget"})
        self._forget("asked by service")
        return convert.fill(response, {"success": True, "message": "ids go on counting"})

    def _on_merge_ids(self, request: MergeIds.Request, response: MergeIds.Response) -> MergeIds.Response:
        done = self._people is not None and self._people.merge(request.keep, request.drop)
        if done:
            self._publish_alias(request.keep, request.drop)
        return convert.fill(response, {"success": done, "message": "" if done else (
            f"'{request.keep}' and '{request.drop}' are not two people known now")})

    async def _on_calibrate(self, request: CalibrateExtrinsics.Request,
                            response: CalibrateExtrinsics.Response) -> CalibrateExtrinsics.Response:
        """Find poses in a thread, answer when they are found; messages keep being fused meanwhile."""
        try:
            rig = self._rig
            result = await self._start_calibration(request)
            if isinstance(result, BaseException):
                raise result
            lines = [camera.line() for camera in result]
            assert rig is not None, "else it had not started"
            first = rig.newest(result[0].name)
            places = places_of(result, np.eye(4) if first is None else first, rig.frames)
            if request.save_path:
                lines.append(self._save(request.save_path, places))
            if request.apply:
                lines.append(self._apply(places))
        except HumanSceneError as error:
            return convert.fill(response, {"success": False, "message": str(error)})
        except OSError as error:
            return convert.fill(response, {"success": False, "message": f"{request.save_path}: {error}"})
        world = self.config.world_frame
        return convert.fill(response, {
            "success": all(place.T_world_camera is not None for place in places), "message": "\n".join(lines),
            "extrinsics": [fusion_fields.camera_extrinsics_fields(place, world) for place in places]})

    def _start_calibration(self, request: CalibrateExtrinsics.Request) -> Future:
        names = [str(name) for name in request.cameras] or list(self.cameras)
        unknown = sorted(set(names) - set(self.cameras))
        if self._rig is None:
            raise ConfigError("not configured: nothing was seen yet")
        if unknown or len(names) < 2 or len(set(names)) != len(names):
            raise ConfigError(f"cameras = {names}: expected two or more of {list(self.cameras)}, each once")
        method, methods = int(request.method), CalibrateExtrinsics.Request
        if method not in (methods.METHOD_PEOPLE, methods.METHOD_SCENE, methods.METHOD_BOTH):
            raise ConfigError(f"method = {method}: expected METHOD_PEOPLE (0), METHOD_SCENE (1) or METHOD_BOTH (2)")
        if not math.isfinite(request.duration) or request.duration < 0.0:
            raise ConfigError(f"duration = {request.duration} s: expected 0 (all that is kept) or more")
        if self._calibrating is not None and not self._calibrating.done():
            raise ConfigError("a calibration is running; ask again when it has answered")
        tracks, poses = self._memory.tracks(names, request.duration), self._scene.poses(names, request.duration)
        future = self._calibrating = Future(executor=self.executor)

        def find() -> tuple[FoundCamera, ...]:
            if method == methods.METHOD_SCENE:
                return poses_from_scene(poses)
            people = calibrate(tracks)
            return combined(people, poses_from_scene(poses)) if method == methods.METHOD_BOTH else people

        def work() -> None:
            try:
                future.set_result(find())
            except Exception as error:
                future.set_result(error)

        threading.Thread(target=work, name="calibrate", daemon=True).start()
        return future

    def _save(self, path: str, places: Sequence[CameraPlace]) -> str:
        return "written: " + " and ".join(str(file) for file in write_rig(path, self.config.world_frame, places))

    def _apply(self, places: Sequence[CameraPlace]) -> str:
        """Use the poses, and tell everybody on /tf_static unless a frame would get a second parent."""
        assert self._rig is not None and self._people is not None
        world, lines = self.config.world_frame, []
        for place in places:
            if place.T_world_camera is None:
                continue
            self._rig.calibrate(place)
            self._people.monitor.reset(self.cameras.index(place.camera_name))
            try:
                root, T_root_camera = self._rig.root_to_camera(place.camera_name)
            except HumanSceneError as error:
                lines.append(f"{place.camera_name}: not sent on /tf_static: {error}")
                continue
            if root == world:
                lines.append(f"{place.camera_name}: used here, but '{place.frame}' hangs under '{world}' already: "
                             "change the transform where it comes from")
                continue
            stamp_ns = self.get_clock().now().nanoseconds
            self._listener.ignore(world, root, stamp_ns)
            self._static.set(world, root, stamp_ns, place.T_world_camera @ np.linalg.inv(T_root_camera))
            lines.append(f"{place.camera_name}: '{world}' -> '{root}' on /tf_static")
        self._report()
        return "\n".join(lines)

    # --- reports -------------------------------------------------------------------------------------------------

    def _topic(self, camera: str) -> str:
        return self.resolve_topic_name(camera_config(self.config, camera).bodies_topic or
                                       f"{camera}/human_scene/bodies")

    def _map_topic(self, camera: str) -> str:
        beside = self._topic(camera).rsplit("/", 1)[0] + "/map/cloud"
        return self.resolve_topic_name(camera_config(self.config, camera).map_topic or beside)

    def _silence(self, camera: str) -> str:
        return (f"no bodies of camera {camera} for {self._health.silent_s(camera):.0f} s on {self._topic(camera)} "
                f"(offered: {qos.offered(self, self._topic(camera))})")

    def _places(self) -> list[CameraPlace]:
        """Poses, with what the people say about them."""
        if self._rig is None or self._people is None:
            return [CameraPlace(name, "", None) for name in self.cameras]
        places = []
        for name in self.cameras:
            place, agreement = self._rig.place(name), self._people.agreement(name)
            places.append(CameraPlace(
                name, place.frame, place.T_world_camera, place.covariance, agreement.residual_m, agreement.samples,
                agreement.time_offset_s, place.source, place.status,
                agreement.moved(self.config.extrinsics.drift_warn), agreement.distance_ratio))
        return places

    def _silences(self) -> dict[str, str]:
        """Camera -> since when and on which topic it is silent, "" while it is not."""
        return {name: "" if camera.alive or self._sync is None else self._silence(name)
                for name, camera in self._health.cameras.items()}

    def _problems(self) -> dict[str, str]:
        """Camera -> why its pose is unknown, "" if it is known."""
        return self._rig.problems if self._rig is not None else dict.fromkeys(self.cameras, "not configured")

    def _publish_status(self) -> Any:
        self._status_s = time.monotonic()
        health, silences = self._health, self._silences()
        texts = [t for t in (health.configure_error, *silences.values(), *health.notes.worst()[1]) if t]
        texts += [f"{name}: {text}" for name, text in self._problems().items()
                  if text and self._sync is not None and not silences[name]]
        world = self._rig.world_source() if self._rig is not None else WorldSource.TF
        report = health.status(health.state(self._people is not None), world, self._sync_counters(), texts)
        self._status_publisher.publish(convert.fill(SceneStatus(), message_fields.scene_status_fields(
            self.get_clock().now().nanoseconds, self.config.world_frame, report)))
        return report

    def _sync_counters(self) -> SyncCounters:
        return self._counters if self._sync is None else self._sync.counters

    def _report(self) -> None:
        """Status, extrinsics and diagnostics, on a steady timer."""
        now_ns, health = self.get_clock().now().nanoseconds, self._health
        places = self._places()
        for place in places:
            text = f"camera {place.camera_name} does not stand where its pose says (bumped?)"
            if place.drifted and health.notes.add(f"drift {place.camera_name}", Level.WARN, text):
                self.get_logger().warning(f"{text}: rays miss by {place.rms_residual_m:.2f} m")
        report = self._publish_status()
        self._extrinsics_publisher.publish(convert.fill(CameraExtrinsicsArray(), fusion_fields.extrinsics_array_fields(
            self._newest_ns or now_ns, self.config.world_frame, places)))
        late, away_s = {}, {}
        if self._sync is not None:
            late = {name: self._sync.late_frames(name) for name in self.cameras}
            away_s = {name: self._sync.away_s(name) for name in self.cameras}
        self._diagnostics_publisher.publish(convert.to_diagnostics(now_ns, health.reports(
            report, self._sync_counters(), places, self._problems(), late, away_s, self._silences(),
            self.config.extrinsics, self._people_publisher.get_subscription_count())))

    # --- lifecycle -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and activate if `autostart`; a failure leaves the node unconfigured and says why."""
        if self.config.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the body model and the extrinsics file."""
        try:
            if not self.cameras:
                raise ConfigError("parameter cameras is empty; name the cameras, for instance cameras: [front, left]")
            self._rig = Rig(self.config, self._tree)
            self._people = FusionPeople(self.config)
        except HumanSceneError as error:  # rclpy would swallow it
            self._health.configure_error = f"configure failed: {type(error).__name__}: {error}"
            self.get_logger().error(self._health.configure_error)
            self._rig = self._people = None
            self._report()
            return FAILURE
        self._health.configure_error = ""
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to every camera."""
        self._health.restart()
        self._sync = Synchroniser(self.cameras, _sync_config(self.config),
                                  {name: _offset_ns(self.config, name) for name in self.cameras})
        self._segment = None
        self._inputs = [
            self.create_subscription(SmplxBodyArray, self._topic(name), functools.partial(self._on_bodies, name),
                                     qos.reliable(50)) for name in self.cameras]
        if self._map is not None:
            self._inputs += [
                self.create_subscription(PointCloud2, self._map_topic(name), functools.partial(self._on_map, name),
                                         qos.latched(1)) for name in self.cameras]
        result = super().on_activate(state)
        self._report()
        self.get_logger().info(f"ready: {', '.join(self._topic(name) for name in self.cameras)}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; people, ids and calibrations stay."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget people and calibrations."""
        self._stop()
        if self._people is not None:
            self._forget("cleaned up")
        self._people = self._rig = None
        self._newest_ns = 0
        for publisher in self._aliases.values():  # ids begin anew
            self.destroy_publisher(publisher)
        self._aliases.clear()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything."""
        self._stop()
        return super().on_shutdown(state)

    def _stop(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._waiting.clear()
        if self._sync is not None:
            self._counters, self._sync = self._sync.counters, None


def _sync_config(config: FusionNodeConfig) -> SyncConfig:
    sync = config.sync
    return SyncConfig(window_ns=round(sync.window * 1e9), timeout_ns=round(sync.timeout * 1e9),
                      dead_after_ns=round(sync.dead_after * 1e9), min_cameras=sync.min_cameras)


def _offset_ns(config: FusionNodeConfig, camera: str) -> int:
    return round(time_offset_s(config, camera) * 1e9)


def main() -> None:
    """Entry point of the executable `fusion_node`."""
    end_process(run_node(FusionNode))
