"""`ros2 run human_scene_ros reconstructor_node`: images in; bodies, camera pose, cloud and map out.

The route of an image is `ReconstructorNode._process`. Callbacks only store messages; one worker thread owns the
network. In live mode the newest image wins, in replay (`input.drop_policy: all`) none is left out; either way
every image is counted. With `cameras` it serves several: their images reach the one network in the order of their
stamps, and each camera has inputs and results of its own. One bad image is rejected and reported; a dying worker ends
the process with exit code 1.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from human_scene_ros.errors import HumanSceneError
from human_scene_ros.msg import SceneStatus
from human_scene_ros.nodes import convert, qos
from human_scene_ros.nodes.camera_input import CameraInput
from human_scene_ros.nodes.diagnostics import Level, Throttle
from human_scene_ros.nodes.health import Health
from human_scene_ros.nodes.parameters import NodeParameters
from human_scene_ros.nodes.process import end_process, run_node
from human_scene_ros.nodes.publishers import ResultPublishers
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.runtime.latest import BoundedQueue, LatestSlot, Worker
from human_scene_ros.runtime.stamp_order import StampOrder
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.image_codec import decode_message
from human_scene_ros.srv import SaveMap

if TYPE_CHECKING:
    from human_scene_ros.nodes.reconstruction import Reconstruction

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

# So many images in a row that fail for no known reason mean that the fault is ours, not the images'.
FAILURES_IN_A_ROW = 10
WATCH_PERIOD_S = 0.1


@dataclasses.dataclass(frozen=True)
class Arrival:
    """One image message of a camera, its stamp, and when it came, steady seconds."""

    camera: str
    message: Any
    stamp_ns: int
    at_s: float


@dataclasses.dataclass
class View:
    """One camera of the node: what comes, what goes, how often, and the stamp of the last image in this segment."""

    input: CameraInput | None = None
    results: ResultPublishers | None = None
    last_stamp_ns: int | None = None
    map_points: int = 0
    map_due: Throttle = dataclasses.field(default_factory=Throttle)
    rate_due: Throttle = dataclasses.field(default_factory=Throttle)


class ReconstructorNode(LifecycleNode):
    """Lifecycle: configure loads weights, activate subscribes, deactivate keeps the memory, cleanup drops it."""

    def __init__(self) -> None:
        super().__init__("human_scene")
        self.failure = ""
        self.config: ReconstructorConfig = ReconstructorConfig()
        self._reconstruction: Reconstruction | None = None
        self._settings = NodeParameters(self, ReconstructorConfig, self._on_config)
        self.config = self._settings.config
        self._views = {name: View() for name in self.config.views}
        self._health = Health(self.get_fully_qualified_name().lstrip("/"), self.config.views)
        self._mailbox: Any = None
        self._drops_lock, self._drops_counted = threading.Lock(), 0
        self._worker: Worker[Arrival] | None = None
        self._lock = threading.Lock()  # held during a step; whoever changes the stream takes it
        self._paused = False
        self._were_silent: set[str] = set()
        self._failures_in_a_row = 0
        # Plain publishers made here: managed ones are mute while inactive, when errors matter most.
        self._status_publisher = qos.create_publisher(self, SceneStatus, "~/status", qos.latched(1))
        self._diagnostics_publisher = qos.create_publisher(self, DiagnosticArray, "/diagnostics", qos.reliable(10))
        self._offered_services = [self.create_service(Trigger, "~/reset", self._on_reset),
                          self.create_service(SetBool, "~/pause", self._on_pause),
                          self.create_service(SaveMap, "~/save_map", self._on_save_map)]
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # ROS time stands still while a bag is paused
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self.create_timer(self.config.diagnostics.period, self._report, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._on_time_jump)

    # --- the route ----------------------------------------------------------------------------------------

    def _process(self, arrival: Arrival) -> None:
        """One image from message to results. Raises what makes this image unusable."""
        camera, view = arrival.camera, self._views[arrival.camera]
        assert view.input is not None and self._reconstruction is not None and view.results is not None, "active"
        header, health = arrival.message.header, self._health
        with health.stage("decode"):
            image = decode_message(arrival.message)
        with health.stage("undistort"):
            calibration = view.input.calibration(image.shape[1], image.shape[0])
            depth_m = view.input.depth(arrival.stamp_ns, image.shape[1], image.shape[0])
            frame = convert.to_camera_frame(header, image, calibration, depth_m)
        with health.stage("hint"):
            frame = dataclasses.replace(frame, pose_hint=view.results.hints.at(frame.camera_frame, frame.stamp_ns))
        with health.stage("step"):
            estimate = self._reconstruction.step(camera, frame)
        with health.stage("map"):
            self._reconstruction.add_to_map(camera, estimate)
        with health.stage("publish"):
            latency_s = self._latency_s(frame.stamp_ns)
            view.results.publish(estimate, frame.camera_frame, latency_s)
            if view.map_due.due(frame.stamp_ns, self.config.map.rate):
                view.map_points = view.results.publish_map(frame.stamp_ns, *self._reconstruction.map_points(camera))
                health.map_points = sum(v.map_points for v in self._views.values())
        health.processed(estimate, latency_s, time.monotonic() - arrival.at_s)

    # --- the worker: one image at a time -------------------------------------------------------------------------

    def _on_item(self, arrival: Arrival) -> None:
        """Decide whether an image is processed, and count what became of it."""
        self._count_drops()
        config, health = self.config.input, self._health
        stamp_ns, view = arrival.stamp_ns, self._views[arrival.camera]
        live = config.drop_policy == "latest"
        too_old = live and config.max_age > 0.0 and time.monotonic() - arrival.at_s > config.max_age
        too_soon = live and config.max_rate > 0.0 and not view.rate_due.due(stamp_ns, config.max_rate)
        if self._paused or too_old or too_soon:
            health.counter.dropped()
            return
        try:
            with self._lock:
                self._follow_time(arrival.camera, stamp_ns)
                self._process(arrival)
            self._failures_in_a_row = 0
        except HumanSceneError as error:
            self._reject(arrival.camera, f"image {stamp_ns / 1e9:.3f} s: {type(error).__name__}: {error}")
        except Exception as error:
            if not self.context.ok():
                return  # shut down in the middle of this image
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= FAILURES_IN_A_ROW:
                raise
            self.get_logger().error(traceback.format_exc())
            self._reject(arrival.camera, f"image {stamp_ns / 1e9:.3f} s: internal {type(error).__name__}: {error}")
        if not live and self.context.ok():
            self._publish_status()  # a player without a clock waits for the counters

    def _follow_time(self, camera: str, stamp_ns: int) -> None:
        """Stamps of a camera that go back, or a gap in those of all, start a new segment."""
        last_ns = self._views[camera].last_stamp_ns
        known_ns = [v.last_stamp_ns for v in self._views.values() if v.last_stamp_ns is not None]
        step_s, gap_s = (stamp_ns - max(known_ns, default=stamp_ns)) / 1e9, self.config.input.max_gap
        if last_ns is not None and stamp_ns < last_ns:
            self._reset(f"stamps went back by {(last_ns - stamp_ns) / 1e9:.3f} s")
        elif gap_s > 0.0 and step_s > gap_s:
            self._reset(f"{step_s:.1f} s without images (input.max_gap is {gap_s:g} s)")
        elif step_s < 0.0:
            self._health.cameras[camera].notes.add("order", Level.WARN, (
                f"images of {camera} come after newer ones of other cameras are processed; raise sync.timeout, or "
                "correct its clock"))
        self._views[camera].last_stamp_ns = stamp_ns

    def _forget_stamps(self) -> None:
        for view in self._views.values():
            view.last_stamp_ns = None

    def _reset(self, reason: str) -> None:
        """Forget tracks, map and memory; the caller holds the lock."""
        assert self._reconstruction is not None
        self._reconstruction.reset()
        self._forget_stamps()
        self._health.segment = self._reconstruction.segment
        self.get_logger().info(f"segment {self._health.segment}: {reason}")

    def _reject(self, camera: str, text: str) -> None:
        self._health.counter.rejected()
        if self._health.cameras[camera].notes.add("rejected", Level.ERROR, text):
            self.get_logger().error(f"rejected {self._named(camera)}{text}")

    def _named(self, camera: str) -> str:
        """Start of a log line that concerns one camera of several."""
        return f"{camera}: " if self.config.cameras else ""

    def _on_worker_failure(self, error: BaseException) -> None:
        """Runs in the dying worker: the process must end, loudly."""
        self.failure = f"worker died: {type(error).__name__}: {error}"
        self.get_logger().fatal(self.failure)
        rclpy.try_shutdown(context=self.context)

    def _latency_s(self, stamp_ns: int) -> float:
        """Stamp to now; NaN where the stamps are not of this clock (a replay without /clock)."""
        latency_s = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9
        return latency_s if 0.0 <= latency_s < 60.0 else float("nan")

    # --- callbacks: all in the executor's thread -----------------------------------------------------------------

    def _on_image(self, camera: str, message: Any) -> None:
        self._health.arrived(camera)
        if self._paused:
            self._health.counter.dropped()
            return
        accepted = self._mailbox.put(Arrival(camera, message, convert.stamp_ns(message.header.stamp), time.monotonic()))
        self._count_drops()
        if not accepted:
            self._health.cameras[camera].notes.add("backlog", Level.ERROR, (
                f"{self.config.input.max_pending} images wait already (input.max_pending), new ones are dropped: "
                "play slower or with bag_node rate 0"))

    def _on_time_jump(self, jump: Any) -> None:
        """The clock went back: what waits and moves belongs to another time."""
        for results in self._active_results():
            results.tree.clear()
            results.lookups.clear()
        if self._mailbox is None or self.config.input.drop_policy == "all":
            return  # in replay the stamps themselves tell, in order and without losing what waits
        self._mailbox.clear()
        self._count_drops()

    def _count_drops(self) -> None:
        """What the mailbox dropped since the last call; it drops when something comes and when something leaves."""
        with self._drops_lock:
            dropped = self._mailbox.dropped
            self._health.counter.dropped(dropped - self._drops_counted)
            self._drops_counted = dropped

    def _on_config(self, config: ReconstructorConfig) -> None:
        self.config = config
        for results in self._active_results():
            results.config = config
        if self._reconstruction is not None:
            with self._lock:
                self._reconstruction.configure(config)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._reconstruction is None:
            return convert.fill(response, {"success": False, "message": "not configured: nothing to reset"})
        with self._lock:
            self._reset("asked by service")
        return convert.fill(response, {"success": True, "message": f"segment {self._health.segment}"})

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            self._paused = bool(request.data)
            self._forget_stamps()  # the pause itself is no gap: the memory is kept
        self._publish_status()
        return convert.fill(response, {"success": True, "message": "paused" if self._paused else "running"})

    def _on_save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        if self._reconstruction is None:
            return convert.fill(response, {"success": False, "message": "not configured: there is no map"})
        try:
            with self._lock:  # a copy; writing it does not hold up the worker
                cloud = self._reconstruction.map_copy(bool(request.include_people), float(request.voxel))
            path, points, size = self._reconstruction.save(cloud, request.path, int(request.format))
        except (HumanSceneError, OSError) as error:
            return convert.fill(response, {"success": False, "message": str(error)})
        return convert.fill(response, {"success": True, "message": path, "points": points, "bytes": size})

    def _watch(self) -> None:
        for camera in self._inputs().values():
            camera.watch()
        for results in self._active_results():
            results.lookups.poll()

    def _inputs(self) -> dict[str, CameraInput]:
        return {name: view.input for name, view in self._views.items() if view.input is not None}

    def _active_results(self) -> list[ResultPublishers]:
        return [view.results for view in self._views.values() if view.results is not None]

    # --- reports -------------------------------------------------------------------------------------------------

    def _silences(self) -> dict[str, str]:
        """Which topics are silent for how long; empty while images come."""
        limit_s = self.config.input.silence_warning
        return {name: f"no image for {camera.silent_s:.0f} s on {camera.describe()}"
                for name, camera in self._inputs().items() if not self._paused and camera.silent_s >= limit_s}

    def _publish_status(self) -> Any:
        silences = self._silences()
        _, problems = self._health.problems()
        state = self._health.state(configured=self._reconstruction is not None, paused=self._paused,
                                   silent=len(silences))
        memory_mib = self._reconstruction.gpu_memory_mib() if self._reconstruction is not None else 0.0
        placing = [] if self._reconstruction is None or self._reconstruction.placed else [self._health.placing]
        timeouts = self._mailbox.timeouts if isinstance(self._mailbox, StampOrder) else 0
        report = self._health.status(state, [*silences.values(), *problems, *placing], memory_mib, timeouts)
        self._status_publisher.publish(convert.fill(SceneStatus(), message_fields.scene_status_fields(
            self.get_clock().now().nanoseconds, self.config.tf.world_frame, report)))
        return report

    def _report(self) -> None:
        """Status and diagnostics, on a steady timer."""
        report, silences = self._publish_status(), self._silences()
        for name, text in silences.items():
            if name not in self._were_silent:
                self.get_logger().warning(text)
        self._were_silent = set(silences)
        results = self._active_results()
        self._diagnostics_publisher.publish(convert.to_diagnostics(
            self.get_clock().now().nanoseconds, self._health.reports(
                report, silences=silences, inputs={name: i.describe() for name, i in self._inputs().items()},
                listeners={name: v.results.listeners for name, v in self._views.items() if v.results is not None},
                tf_problem="; ".join(r.problem for r in results if r.problem),
                tf_failed=sum(r.lookups.failed for r in results),
                hints_missed=sum(r.hints.missed for r in results))))

    # --- lifecycle -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Configure and activate if `autostart`; a failure leaves the node unconfigured and says why."""
        if self.config.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load weights and body model, make publishers."""
        begun = time.monotonic()
        try:
            # Here and not above: it loads torch, and wrong parameters should be told before that.
            from human_scene_ros.nodes.reconstruction import Reconstruction

            self._reconstruction = Reconstruction.load(self.config)
            for name, view in self._views.items():
                view.results = ResultPublishers(
                    self, self.config, self._reconstruction.description, self._reconstruction.body_model,
                    self._health.cameras[name].notes, name)
        except Exception as error:  # rclpy would swallow it
            known = isinstance(error, HumanSceneError)
            self._health.configure_error = f"configure failed: {type(error).__name__}: {error}"
            self.get_logger().error(self._health.configure_error)
            if not known:
                self.get_logger().error(traceback.format_exc())
            self._reconstruction = None
            self._report()
            return FAILURE
        self._health.configure_error = ""
        self._health.weights, self._health.placing = self._reconstruction.weights, self._reconstruction.placing
        self._health.device = f"{self._reconstruction.device} by {self._reconstruction.engine}"
        self.get_logger().info(f"configured in {time.monotonic() - begun:.1f} s: {self._health.weights} on "
                               f"{self._health.device}; {self._reconstruction.note}")
        if self._health.placing:
            self.get_logger().info(f"cameras {', '.join(self.config.cameras)}: {self._health.placing}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        self._health.restart()
        self._forget_stamps()
        config = self.config.input
        self._mailbox, self._drops_counted = self._new_mailbox(), 0
        self._worker = Worker(self._mailbox, self._on_item, on_failure=self._on_worker_failure, name="reconstruct")
        self._worker.start()
        for name, view in self._views.items():
            view.input = CameraInput(self, config, functools.partial(self._on_image, name),
                                     self._health.cameras[name].notes, name if self.config.cameras else "")
        result = super().on_activate(state)
        self._publish_status()
        topics = "; ".join(camera.describe() for camera in self._inputs().values())
        self.get_logger().info(f"ready: {topics}, drop_policy {config.drop_policy}")
        return result

    def _new_mailbox(self) -> Any:
        live, capacity = self.config.input.drop_policy == "latest", self.config.input.max_pending
        sync = self.config.sync
        if self.config.cameras:
            return StampOrder[Arrival](self.config.cameras, newest_only=live, capacity=capacity,
                                       timeout_s=sync.timeout, dead_after_s=sync.dead_after)
        return LatestSlot[Arrival]() if live else BoundedQueue[Arrival](capacity)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker; the stream keeps its memory."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop weights, memory and publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything."""
        self._stop()
        self._release()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop the worker first: it uses the publishers."""
        self._stop()
        super().destroy_node()

    def _stop(self) -> None:
        for camera in self._inputs().values():
            camera.close()
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning("the worker did not end in time; it is left behind")
        self._worker = None
        for view in self._views.values():
            view.input = None
        if self._mailbox is not None:
            self._mailbox.clear()
            self._count_drops()
            self._mailbox = None

    def _release(self) -> None:
        for view in self._views.values():
            if view.results is not None:
                view.results.close()
                view.results = None
        self._reconstruction = None
        self._health.weights = self._health.device = self._health.placing = ""


def main() -> None:
    """Entry point of the executable `reconstructor_node`."""
    end_process(run_node(ReconstructorNode))
