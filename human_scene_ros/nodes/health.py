"""What a reconstructor knows of itself, as SceneStatus content and as lines of /diagnostics. No ROS import."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import time
from collections.abc import Iterator, Mapping, Sequence

from human_scene_ros.nodes.diagnostics import Durations, FrameCounter, Level, Notes, Rate, Report
from human_scene_ros.scene import SceneEstimate, TrackingStatus
from human_scene_ros.sources.message_fields import StatusReport


class State(enum.IntEnum):
    """Values equal the STATE_* constants of SceneStatus.msg."""

    UNCONFIGURED = 0
    INITIALIZING = 1
    TRACKING = 2
    DEGRADED = 3
    LOST = 4
    PAUSED = 5


@dataclasses.dataclass(frozen=True)
class CameraHealth:
    """What happens to the images of one camera."""

    notes: Notes = dataclasses.field(default_factory=Notes)
    rate: Rate = dataclasses.field(default_factory=Rate)


class Health:
    """Collects from the executor and the worker; thread-safe.

    Args:
        node_name: Start of every diagnostics name; with the namespace, for a robot has one node per camera.
        cameras: Names.
    """

    def __init__(self, node_name: str, cameras: Sequence[str]) -> None:
        self.counter = FrameCounter()
        self.cameras = {name: CameraHealth() for name in cameras}
        self.placing = ""
        """What a network for several cameras says of where they stand."""
        self.weights = ""
        self.device = ""
        self.configure_error = ""
        self.map_points = 0
        self._node_name = node_name
        self._output_rate = Rate()
        self._latency, self._inside = Durations(), Durations()
        self._stages: dict[str, Durations] = {}
        self._newest: SceneEstimate | None = None
        self.segment = 0

    def restart(self) -> None:
        """Begin counting anew, when the node becomes active."""
        self.counter = FrameCounter()
        self._newest = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage of the route; failed ones are not measured."""
        begun = time.perf_counter()
        yield
        self._stage(name).add(time.perf_counter() - begun)

    def arrived(self, camera: str) -> None:
        """An image came."""
        self.counter.arrived()
        self.cameras[camera].rate.tick()

    def processed(self, estimate: SceneEstimate, latency_s: float, inside_s: float) -> None:
        """An image went through.

        Args:
            estimate: What it gave.
            latency_s: Stamp to publishing on the node's clock; NaN if the clocks do not fit.
            inside_s: Arrival to publishing, steady.
        """
        for name, milliseconds in estimate.stage_ms.items():
            self._stage(f"step.{name}").add(milliseconds / 1000.0)
        if math.isfinite(latency_s):
            self._latency.add(latency_s)
        self._inside.add(inside_s)
        self._newest, self.segment = estimate, estimate.segment
        self._output_rate.tick()
        self.counter.processed()

    def state(self, *, configured: bool, paused: bool, silent: int) -> State:
        """The one word of the status; `silent` cameras send nothing."""
        if not configured:
            return State.UNCONFIGURED
        if paused:
            return State.PAUSED
        if self._newest is None:
            return State.INITIALIZING
        if silent == len(self.cameras) or self._newest.status == TrackingStatus.LOST:
            return State.LOST
        degraded = silent or self._worst()[0] > Level.OK or self._newest.status != TrackingStatus.OK
        return State.DEGRADED if degraded else State.TRACKING

    def status(self, state: State, problems: Sequence[str], gpu_memory_mib: float, sync_timeouts: int) -> StatusReport:
        """Content of SceneStatus."""
        counts, newest = self.counter.counts(), self._newest
        latency = self._latency if self._latency.mean() else self._inside
        known = counts.processed > 0
        return StatusReport(
            state=int(state), segment=self.segment,
            scale_source=int(newest.scale_source) if newest else 0, scale=newest.scale if newest else 1.0,
            world_source=int(newest.world_source) if newest else 3, weights=self.weights,
            frames_in=counts.frames_in, frames_processed=counts.processed, frames_dropped=counts.dropped,
            frames_rejected=counts.rejected, frames_pending=counts.pending,
            sync_timeouts=sync_timeouts, map_points=self.map_points,
            people=len(newest.bodies) if newest else 0,
            input_rate=sum(camera.rate.per_second() for camera in self.cameras.values()),
            output_rate=self._output_rate.per_second(),
            latency_mean=latency.mean() if known else math.nan,
            latency_p95=latency.percentile(95.0) if known else math.nan,
            inference_mean=self._stage("step").mean() if known else math.nan,
            gpu_memory=gpu_memory_mib, message="; ".join(problems))

    def problems(self) -> tuple[Level, list[str]]:
        """The worst level and all texts of the last seconds."""
        level, texts = self._worst()
        if self.configure_error:
            return Level.ERROR, [self.configure_error, *texts]
        return level, texts

    def _worst(self) -> tuple[Level, list[str]]:
        worst = [camera.notes.worst() for camera in self.cameras.values()]
        return max(level for level, _ in worst), [text for _, texts in worst for text in texts]

    def reports(self, status: StatusReport, *, silences: Mapping[str, str], inputs: Mapping[str, str],
                listeners: Mapping[str, int], tf_problem: str, tf_failed: int, hints_missed: int) -> list[Report]:
        """All lines of /diagnostics.

        Args:
            status: From `status`.
            silences: Of cameras that are silent: for how long, with topics and QoS.
            inputs: Topic, asked and offered QoS of the cameras that are subscribed.
            listeners: Subscriptions that are connected to the bodies of each camera.
            tf_problem: "" or why no camera transform is sent.
            tf_failed: Transform lookups that were given up.
            hints_missed: Images that went on without the hint that `odometry.hint_frame` asks for.
        """
        inference = Report(
            f"{self._node_name}: Inference", Level.ERROR if self.configure_error else Level.OK,
            self.configure_error or f"{State(status.state).name.lower()}, {status.output_rate:.1f} Hz",
            {"weights": status.weights, "frames_in": str(status.frames_in),
             "frames_processed": str(status.frames_processed), "frames_dropped": str(status.frames_dropped),
             "frames_rejected": str(status.frames_rejected), "frames_pending": str(status.frames_pending),
             "output_rate_hz": f"{status.output_rate:.2f}", "latency_mean_ms": f"{status.latency_mean * 1e3:.1f}",
             "latency_p95_ms": f"{status.latency_p95 * 1e3:.1f}", "gpu_memory_mib": f"{status.gpu_memory:.0f}",
             **self.stage_means()}, self.device)
        cameras = []
        for name, camera in self.cameras.items():
            level, texts = camera.notes.worst()
            if name in silences:
                level, texts = max(level, Level.WARN), [silences[name], *texts]
            rate = camera.rate.per_second()
            cameras.append(Report(
                f"{self._node_name}: Input {name}", Level.OK if self.configure_error else level,
                "; ".join(texts) or f"{rate:.1f} Hz",
                {"input": inputs.get(name, "not subscribed"), "input_rate_hz": f"{rate:.2f}",
                 "bodies_subscribers": str(listeners.get(name, 0))}, name))
        lost = status.state == State.LOST and not silences
        by_people = self._newest.scale_by_people if self._newest else None
        scale_problem = self._newest.scale_problem if self._newest else ""
        tracking = Report(
            f"{self._node_name}: Tracking",
            Level.ERROR if tf_problem else Level.WARN if lost or scale_problem else Level.OK,
            tf_problem or ("camera tracking lost" if lost else scale_problem or State(status.state).name.lower()),
            {"segment": str(status.segment), "people": str(status.people), "scale": f"{status.scale:.3f}",
             **({"scale_by_people": f"{by_people.factor:.3f}",
                 "scale_by_people_status": f"{by_people.status.name.lower()}, {by_people.samples} samples"}
                if by_people else {}),
             "tf_lookups_failed": str(tf_failed), "hints_missed": str(hints_missed),
             **({"placing": self.placing, "sync_timeouts": str(status.sync_timeouts)} if self.placing else {})},
            ", ".join(self.cameras))
        world_map = Report(f"{self._node_name}: Map", Level.OK, f"{status.map_points} points",
                           {"points": str(status.map_points)})
        return [inference, *cameras, tracking, world_map]

    def stage_means(self) -> dict[str, str]:
        """Mean milliseconds of each stage of the route."""
        return {f"{name}_ms": f"{durations.mean() * 1e3:.2f}" for name, durations in sorted(self._stages.items())}

    def _stage(self, name: str) -> Durations:
        durations = self._stages.get(name)
        if durations is None:
            durations = self._stages[name] = Durations()
        return durations
