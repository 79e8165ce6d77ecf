"""What the fusion node knows of itself, as SceneStatus content and as lines of /diagnostics. No ROS import."""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

from human_scene_ros.fusion.sync import SyncCounters
from human_scene_ros.fusion.types import DetectionStatus
from human_scene_ros.nodes.diagnostics import Durations, Level, Notes, Rate, Report
from human_scene_ros.nodes.fusion_config import ExtrinsicsConfig
from human_scene_ros.nodes.health import State
from human_scene_ros.scene import ScaleSource, WorldSource
from human_scene_ros.sources.fusion_fields import EXTRINSICS_UNKNOWN, CameraPlace
from human_scene_ros.sources.message_fields import StatusReport

MALFORMED = "malformed"
_LEFT_OUT = {int(status): status.name.lower() for status in (
    DetectionStatus.INVALID, DetectionStatus.NO_EXTRINSICS, DetectionStatus.STALE, DetectionStatus.DUPLICATE)}
_STEPS_KEPT = 1000


@dataclasses.dataclass
class CameraHealth:
    """One camera as the node sees it.

    Args:
        rate: Messages per second.
        last_s: Steady time of the last message; None before the first.
        latency: From the stamp to the arrival here, seconds.
        alive: False after a silence that was reported.
        left_out: Why -> bodies that took no part, since the node became active.
        sequence: Of the last message; None before the first.
        lost: Messages missing from the sequence, since the node became active.
    """

    rate: Rate = dataclasses.field(default_factory=Rate)
    last_s: float | None = None
    latency: Durations = dataclasses.field(default_factory=Durations)
    alive: bool = True
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sequence: int | None = None
    lost: int = 0


class FusionHealth:
    """Collects in the executor's thread.

    Args:
        node_name: Start of every diagnostics name, with the namespace.
        cameras: Names.
    """

    def __init__(self, node_name: str, cameras: Sequence[str]) -> None:
        self.notes = Notes()
        self.configure_error = ""
        self.segment = self.processed = self.rejected = self.people = 0
        self.cameras = {name: CameraHealth() for name in cameras}
        self._name = node_name
        self._sets, self._messages = Rate(), Rate()
        self._latency, self._step = Durations(), Durations(_STEPS_KEPT)
        self._stages: dict[str, Durations] = {}
        self._begun_s = time.monotonic()

    def restart(self) -> None:
        """Begin counting anew, when the node becomes active."""
        self.processed = self.rejected = 0
        self._begun_s = time.monotonic()
        for camera in self.cameras.values():
            camera.last_s, camera.alive = None, True
            camera.sequence, camera.lost = None, 0
            camera.left_out.clear()

    def arrived(self, camera: str, sequence: int, latency_s: float) -> bool:
        """A message came; True if the camera had been reported silent."""
        state = self.cameras[camera]
        if state.sequence is not None and sequence > state.sequence + 1:  # a sender that begins anew has lost nothing
            state.lost += sequence - state.sequence - 1
            self.notes.add(f"lost {camera}", Level.WARN, f"{camera}: messages were lost on their way: this node does "
                           "not keep up with them, or the network does not")
        state.sequence = sequence
        returned, state.alive = not state.alive, True
        state.last_s = time.monotonic()
        state.rate.tick()
        if math.isfinite(latency_s):
            state.latency.add(latency_s)
        self._messages.tick()
        return returned

    def fused(self, frames: int, people: int, latency_s: float, step_s: float, stage_ms: Mapping[str, float]) -> None:
        """A set went through."""
        self.processed += frames
        self.people = people
        self._sets.tick()
        self._step.add(step_s)
        if math.isfinite(latency_s):
            self._latency.add(latency_s)
        for name, value in stage_ms.items():
            self._stages.setdefault(name, Durations()).add(value)

    def malformed(self, camera: str, problems: Sequence[str]) -> None:
        """Bodies whose arrays do not fit were left out."""
        self.cameras[camera].left_out[MALFORMED] += len(problems)
        for problem in problems:
            self.notes.add(f"body {camera}", Level.ERROR, f"{camera}: body left out: {problem}")

    def detections(self, cameras: Sequence[str], statuses: Sequence[int]) -> None:
        """What became of the bodies of a set; those that took no part are counted by camera and reason."""
        for camera, status in zip(cameras, statuses, strict=True):
            if (reason := _LEFT_OUT.get(status)) is None:
                continue
            self.cameras[camera].left_out[reason] += 1
            if status == DetectionStatus.INVALID:
                self.notes.add(f"invalid {camera}", Level.WARN, f"{camera}: body left out: a number that is not "
                               "finite, a head that is not in front of the camera, or score 0")

    def silent_s(self, camera: str) -> float:
        """Seconds since the camera's last message, or since the node became active."""
        last_s = self.cameras[camera].last_s
        return time.monotonic() - (self._begun_s if last_s is None else last_s)

    def newly_silent(self, limit_s: float) -> list[str]:
        """Cameras whose silence has just become worth a warning; each is named once per silence."""
        found = [name for name, camera in self.cameras.items() if camera.alive and self.silent_s(name) > limit_s]
        for name in found:
            self.cameras[name].alive = False
        return found

    def state(self, configured: bool) -> State:
        """The one word of the status."""
        if not configured:
            return State.UNCONFIGURED
        if not any(camera.alive for camera in self.cameras.values()):
            return State.LOST
        if not self.processed:
            return State.INITIALIZING
        degraded = self.notes.worst()[0] > Level.OK or not all(camera.alive for camera in self.cameras.values())
        return State.DEGRADED if degraded else State.TRACKING

    def status(self, state: State, world: WorldSource, counters: SyncCounters,
               problems: Sequence[str]) -> StatusReport:
        """Content of SceneStatus; frames are body messages."""
        frames_in = counters.frames_in + self.rejected
        known = self.processed > 0
        return StatusReport(
            state=int(state), segment=self.segment, scale_source=int(ScaleSource.EXTRINSICS),
            world_source=int(world),
            frames_in=frames_in, frames_processed=self.processed, frames_dropped=counters.dropped,
            frames_rejected=self.rejected,
            frames_pending=frames_in - self.processed - counters.dropped - self.rejected,
            sync_partial=counters.partial_sets, sync_timeouts=counters.timeouts, people=self.people,
            input_rate=self._messages.per_second(), output_rate=self._sets.per_second(),
            latency_mean=self._latency.mean() if known else math.nan,
            latency_p95=self._latency.percentile(95.0) if known else math.nan,
            inference_mean=self._step.mean() if known else math.nan, message="; ".join(problems))

    def reports(self, status: StatusReport, counters: SyncCounters, places: Sequence[CameraPlace],
                problems: Mapping[str, str], late: Mapping[str, int], away_s: Mapping[str, float],
                silence: Mapping[str, str], limits: ExtrinsicsConfig, listeners: int) -> list[Report]:
        """All lines of /diagnostics.

        Args:
            status: From `status`.
            counters: Of the synchroniser.
            places: Of the cameras.
            problems: Camera -> why its pose is unknown, "" if it is known.
            late: Camera -> frames that came after their moment.
            away_s: Camera -> how far its stamps are ahead of the rig's, 0 if they fit.
            silence: Camera -> topic and QoS if it is silent, "" else.
            limits: What is warned of.
            listeners: Subscriptions that are connected to `people`.
        """
        level, texts = self.notes.worst()
        if self.configure_error:
            level, texts = Level.ERROR, [self.configure_error, *texts]
        # A wrong clock pulls at the other cameras' people too; only the worst one is named.
        offsets = {p.camera_name: abs(p.time_offset_s) for p in places if math.isfinite(p.time_offset_s)}
        worst = max(offsets, key=lambda name: offsets[name], default="")
        dropped = {f.name: str(getattr(counters, f.name)) for f in dataclasses.fields(counters)}
        state = f"{State(status.state).name.lower()}, {status.output_rate:.1f} sets per second"
        sync = Report(f"{self._name}: Sync", level, "; ".join(texts) or state,
                      {**dropped, "output_rate_hz": f"{status.output_rate:.2f}", "segment": str(self.segment),
                       "people": str(self.people), "people_subscribers": str(listeners),
                       "latency_p95_ms": f"{1e3 * status.latency_p95:.1f}",
                       "step_mean_ms": f"{1e3 * status.inference_mean:.2f}",
                       "step_p50_ms": f"{1e3 * self._step.percentile(50.0):.2f}",
                       **{f"{name}_ms": f"{value.mean():.2f}" for name, value in sorted(self._stages.items())}})
        return [sync, *(self._camera_report(place, problems[place.camera_name], late.get(place.camera_name, 0),
                                            away_s.get(place.camera_name, 0.0), silence[place.camera_name],
                                            limits, place.camera_name == worst)
                        for place in places)]

    def _camera_report(self, place: CameraPlace, problem: str, late: int, away_s: float, silence: str,
                       limits: ExtrinsicsConfig, worst_clock: bool) -> Report:
        name = place.camera_name
        camera, level, texts = self.cameras[name], Level.OK, []
        if silence:
            level, texts = Level.WARN, [silence]
        elif problem:
            level, texts = Level.WARN, [f"no pose, so the camera takes no part: {problem}"]
        if away_s:
            level = max(level, Level.WARN)
            texts.append(f"its stamps are {away_s:+.1f} s from the other cameras', so it takes no part: set its clock, "
                         f"or sync.time_offsets.{name}")
        if place.drifted:
            level = max(level, Level.WARN)
            texts.append(f"its rays miss the people that other cameras see by {place.rms_residual_m:.2f} m: was it "
                         "bumped? Calibrate again")
        elif place.rms_residual_m > limits.drift_warn:
            level = max(level, Level.WARN)
            texts.append(f"what it sees differs from the other cameras by {place.rms_residual_m:.2f} m, but not as if "
                         "it had moved: bodies are poor")
        if abs(place.distance_ratio - 1.0) > limits.distance_warn:
            level = max(level, Level.WARN)
            texts.append(f"people are {place.distance_ratio:.2f} times as far away as it sees them: check its "
                         "intrinsics; if they are right, its network misjudges people's size")
        if worst_clock and abs(place.time_offset_s) > limits.offset_warn:
            level = max(level, Level.WARN)
            texts.append(f"its stamps seem {1e3 * -place.time_offset_s:+.0f} ms off: set sync.time_offsets.{name} "
                         f"(now measured against it: {place.time_offset_s:+.3f} s)")
        if late > 10:
            level = max(level, Level.WARN)
            texts.append(f"{late} messages came after their moment had left: raise sync.timeout")
        return Report(f"{self._name}: Camera {name}", level, "; ".join(texts) or f"{camera.rate.per_second():.1f} Hz", {
            "last_seen_s": f"{self.silent_s(name):.2f}", "rate_hz": f"{camera.rate.per_second():.2f}",
            "arrival_latency_ms": f"{1e3 * camera.latency.mean():.1f}", "late": str(late), "lost": str(camera.lost),
            **{f"bodies_{reason}": str(camera.left_out[reason]) for reason in (MALFORMED, *_LEFT_OUT.values())},
            "residual_m": f"{place.rms_residual_m:.3f}", "samples": str(place.samples),
            "time_offset_s": f"{place.time_offset_s:.4f}", "distance_ratio": f"{place.distance_ratio:.3f}",
            "drifted": str(place.drifted).lower(),
            "pose": "unknown" if place.T_world_camera is None or place.status == EXTRINSICS_UNKNOWN else "known"}, name)
