"""`human-scene run`: a video, folder, camera or recording through the stream to results on disk, without ROS.

Writes `bodies.jsonl` (one line per frame), `scene/` (a rosbag2 recording: input as JPEG, bodies, camera pose, TF,
clouds, map, status), `map.ply`, `summary.json` and `overview.png`. A frame that cannot be used is counted as
rejected and the run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from human_scene_ros.errors import ConfigError, HumanSceneError, SourceError
from human_scene_ros.scene import CameraFrame, SceneEstimate, TrackState

if TYPE_CHECKING:
    from human_scene_ros.mapping.voxel_map import VoxelMap
    from human_scene_ros.runtime.stream import HumanSceneStream
    from human_scene_ros.sources.bag_writer import SceneBagWriter
    from human_scene_ros.sources.message_fields import BodyDescription
    from human_scene_ros.sources.reader import FrameSource

logger = logging.getLogger(__name__)

# Topics and frames are those of the demo, so that whatever reads the one reads the other.
IMAGE, NODE, WORLD_FRAME, CAMERA_FRAME, CAMERA_NAME = "/image", "/human_scene", "map", "camera_optical", "camera"
OUTPUTS = ("bodies.jsonl", "scene", "map.ply", "summary.json", "overview.png")
CLOUDS_PER_S = 4.0
MAPS_PER_S = 0.5
MAP_BYTES = 450_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("input", help="rosbag2 folder, .mcap, .db3, video, image folder or camera index")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; made if missing")
    parser.add_argument("--image", default="", help="image topic of a recording (default: the only one)")
    parser.add_argument("--info", default="", help="its CameraInfo topic (default: camera_info beside the image)")
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees, for input without CameraInfo")
    parser.add_argument("--max-frames", type=int, default=0, help="stop after so many frames (default: all)")
    parser.add_argument("--preset", default="nano", help="network preset (default nano)")
    parser.add_argument("--checkpoint", default="", help="weights (default: those that ship with the preset)")
    parser.add_argument("--body", default="", help="SMPL-X .npz (default: the open body that ships)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the network (default 1)")
    parser.add_argument("--engine", choices=("auto", "torch", "onnx"), default="auto",
                        help="what runs the network (default auto: the faster on this machine)")
    parser.add_argument("--reset-interval", type=int, default=0,
                        help="frames between resets of the recurrent state (default 0: never)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the summary")


def run(arguments: argparse.Namespace) -> int:
    """Run the stream over the input and write the results."""
    summary = run_to_folder(arguments)
    if arguments.json:
        print(json.dumps(summary))
        return 0
    from human_scene_ros.commands import summary as reporting

    print(f"\n{reporting.table(summary)}\n")
    for name, meaning in (("overview.png", "the picture"), ("bodies.jsonl", "people, one line per frame"),
                          ("map.ply", "the scene without people"), ("summary.json", "these numbers"),
                          ("scene", "the recording: Foxglove opens it, 'ros2 bag play' feeds RViz")):
        print(f"  {arguments.out / name}  {meaning}")
    return 0


def run_to_folder(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole run; returns what is in summary.json.

    Raises:
        SourceError: The input cannot be read, no frame of it can be used, or the folder holds something else.
        CheckpointError: The weights are missing or damaged.
    """
    from human_scene_ros.mapping.save import save_points
    from human_scene_ros.runtime.engine import make_stream
    from human_scene_ros.runtime.stream import StreamConfig
    from human_scene_ros.sources.bag_writer import SceneBagWriter
    from human_scene_ros.sources.reader import open_source
    from human_scene_ros.viewer.overview import save_overview

    if arguments.max_frames < 0:
        raise ConfigError(f"--max-frames {arguments.max_frames}: must be 0 (all) or positive")
    if arguments.fov is not None and not 5.0 <= arguments.fov <= 170.0:
        raise ConfigError(f"--fov {arguments.fov}: must be in [5, 170] degrees")
    with open_source(arguments.input, arguments.image or None, arguments.info or None) as source:
        stream = make_stream(arguments.preset, arguments.checkpoint or None, arguments.body or None, arguments.device,
                             arguments.threads, StreamConfig(reset_interval=arguments.reset_interval),
                             arguments.engine)
        out = _prepared(arguments.out)
        with SceneBagWriter(out / "scene", overwrite=True, compress=True) as bag, (
                out / "bodies.jsonl").open("w", encoding="utf-8") as lines:
            job = _Run(stream, source, bag, arguments)
            for line in job.frames():
                lines.write(line + "\n")
            job.finish_bag()
        if not job.latencies_ms:
            raise SourceError(f"no frame of {source.name} could be used: {job.rejected} of {job.frames_in} rejected; "
                              f"the last reason: {job.last_error or 'there was no frame'}")
        summary = job.summary()
    points, colors, _ = job.map.points()
    save_points(out / "map.ply", points, colors)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    from human_scene_ros.commands import summary as reporting

    overview = job.collector.overview(subtitle=reporting.subtitle(summary), facts=reporting.facts(summary),
                                      map_world=(points, colors) if stream.segment == 0 else None)
    assert overview is not None  # there was a frame
    save_overview(out / "overview.png", overview, stream.body_model)
    return summary


class _Run:
    """One pass over a source: steps, writes, counts."""

    def __init__(self, stream: HumanSceneStream, source: FrameSource, bag: SceneBagWriter,
                 arguments: argparse.Namespace) -> None:
        from human_scene_ros.evaluation.synthetic import SceneScores
        from human_scene_ros.mapping.voxel_map import VoxelMap
        from human_scene_ros.viewer.collect import OverviewCollector

        self.stream, self.source = stream, source
        self.frames_in = self.rejected = 0
        self.latencies_ms: list[float] = []
        self.last_error = ""
        self.map: VoxelMap = VoxelMap()
        self.collector = OverviewCollector()
        self._fov, self._limit, self._quiet = arguments.fov, arguments.max_frames, arguments.json
        self._writer = _SceneWriter(bag, describe_bodies(stream))
        self._scores = SceneScores()
        self._scores.begin_sequence()
        self._people = 0
        self._tracks: set[tuple[int, int]] = set()
        self._truths = 0
        self._elapsed_s = 0.0

    def frames(self) -> Iterator[str]:
        """Process every frame; yields its line of bodies.jsonl."""
        from tqdm import tqdm

        expected = self.source.frame_count
        if expected and self._limit:
            expected = min(expected, self._limit)
        self.source.on_rejected = self._count_undecodable
        began = time.perf_counter()
        with tqdm(total=expected, unit="frame", desc="run", disable=self._quiet or None, file=sys.stderr) as bar:
            for frame in self.source:
                self.frames_in += 1
                line = self._process(frame)
                if line is not None:
                    yield line
                bar.update()
                if self._limit and self.frames_in >= self._limit:
                    break
        self._elapsed_s = time.perf_counter() - began

    def _process(self, frame: CameraFrame) -> str | None:
        from human_scene_ros.geometry.camera import PinholeCamera

        if frame.camera is None and self._fov is not None:
            height, width = frame.image.shape[:2]
            frame = dataclasses.replace(frame, camera=PinholeCamera.from_fov(width, height, self._fov))
        began = time.perf_counter()
        try:
            estimate = self.stream.step(frame)
        except HumanSceneError as error:
            self._reject(error)
            return None
        self.map.add(estimate)
        latency_ms = (time.perf_counter() - began) * 1e3
        self.latencies_ms.append(latency_ms)
        truth = self.source.truth_at(frame.stamp_ns) if self.source.has_truth else None
        if truth is not None:
            self._truths += 1
            self._scores.add(estimate, truth)
        self.collector.add(frame.image, estimate, None if truth is None else truth.T_world_camera)
        confirmed = [b.track_id for b in estimate.bodies if b.track_state == TrackState.CONFIRMED]
        self._people = max(self._people, len(confirmed))
        self._tracks.update((estimate.segment, i) for i in confirmed)
        self._writer.write(frame, estimate, latency_ms * 1e-3, self.map)
        return bodies_line(estimate)

    def _count_undecodable(self, error: HumanSceneError) -> None:
        self.frames_in += 1
        self._reject(error)

    def _reject(self, error: HumanSceneError) -> None:
        self.rejected += 1
        self.last_error = str(error)
        logger.warning("frame %d rejected: %s", self.frames_in - 1, error)

    def finish_bag(self) -> None:
        """The last map and the counts, for who opens the recording."""
        from human_scene_ros.sources.message_fields import StatusReport

        info = self.stream.weights
        self._writer.finish(self.map, StatusReport(
            state=2, segment=self.stream.segment, weights=f"{info.name} {info.sha256[:12]}" if info else "",
            frames_in=self.frames_in, frames_processed=len(self.latencies_ms), frames_rejected=self.rejected,
            map_points=len(self.map), people=self._people))

    def summary(self) -> dict[str, Any]:
        """Counts, speed, weights, errors against the truth (None without one)."""
        info = self.stream.weights
        latency_ms = np.array(self.latencies_ms)
        return {
            "input": self.source.name, "frames_in": self.frames_in, "frames_processed": len(latency_ms),
            "frames_dropped": 0, "frames_rejected": self.rejected,
            "fps": round(len(latency_ms) / self._elapsed_s, 2) if self._elapsed_s else 0.0,
            "latency_p50_ms": round(float(np.percentile(latency_ms, 50)), 2),
            "latency_p95_ms": round(float(np.percentile(latency_ms, 95)), 2),
            "people": self._people, "tracks": len(self._tracks), "segments": self.stream.segment + 1,
            "map_points": len(self.map.points()[0]),
            "weights": {"name": info.name if info else "custom", "sha256": info.sha256 if info else "",
                        "note": info.note if info else ""},
            "errors": {**self._scores.result(), **self._scores.details()} if self._truths else None}


def bodies_line(estimate: SceneEstimate) -> str:
    """One line of bodies.jsonl: 55 joints in SMPL-X order, metres, optical frame; the pose row-major."""
    bodies = [{
        "track_id": body.track_id, "track_state": body.track_state.name.lower(), "score": round(body.score, 4),
        "head_uv_px": _rounded(body.head_uv_px, 2), "head_camera_m": _rounded(body.joints_camera[15], 4),
        "joints_camera_m": _rounded(body.joints_camera, 4), "height_m": _rounded(body.height_m, 3),
        "velocity_world": _rounded(body.velocity_world, 3), "betas": _rounded(body.parameters.betas, 4),
    } for body in estimate.bodies if body.track_state != TrackState.LOST]
    return json.dumps({
        "stamp_ns": estimate.stamp_ns, "segment": estimate.segment, "status": estimate.status.name,
        "T_world_camera": _rounded(estimate.T_world_camera, 6), "calibrated": estimate.calibrated,
        "K": _rounded(estimate.camera.K, 3), "bodies": bodies})


def describe_bodies(stream: HumanSceneStream) -> BodyDescription:
    """What the numbers of the stream's bodies mean; a window head's bodies end at the wrists."""
    from human_scene_ros.sources import message_fields as m

    parts = m.VALID_BODY | m.VALID_SHAPE
    if stream.network.config.body_head == "token":
        parts |= m.VALID_LEFT_HAND | m.VALID_RIGHT_HAND | m.VALID_JAW | m.VALID_EXPRESSION
    body = stream.body_model
    return m.BodyDescription(body_model=body.name, is_smplx=body.is_smplx, valid_parts=parts)


class _SceneWriter:
    """Writes what the nodes would publish into a recording."""

    def __init__(self, bag: SceneBagWriter, description: BodyDescription) -> None:
        self._bag, self._description = bag, description
        self._sequence = 0
        self._cloud_ns = self._map_ns = self._stamp_ns = -(10**18)

    def write(self, frame: CameraFrame, estimate: SceneEstimate, latency_s: float, scene: VoxelMap) -> None:
        """One frame."""
        from human_scene_ros.sources import message_fields as m

        stamp_ns = self._stamp_ns = estimate.stamp_ns
        camera_frame = frame.camera_frame or CAMERA_FRAME
        self._bag.write_camera(IMAGE, frame.image, frame.camera, stamp_ns, camera_frame)
        bodies = m.body_array_fields(estimate, self._description, camera_frame=camera_frame, camera_name=CAMERA_NAME,
                                     sequence=self._sequence, world_frame=WORLD_FRAME, latency_s=latency_s)
        self._bag.write(f"{NODE}/bodies", m.BODY_ARRAY, bodies, stamp_ns)
        self._bag.write(f"{NODE}/camera_pose", m.POSE_WITH_COVARIANCE_STAMPED, m.pose_with_covariance_stamped_fields(
            stamp_ns, WORLD_FRAME, estimate.T_world_camera), stamp_ns)
        self._bag.write("/tf", m.TF_MESSAGE, m.transforms_fields(
            [(stamp_ns, WORLD_FRAME, camera_frame, estimate.T_world_camera)]), stamp_ns)
        self._bag.write(f"{NODE}/depth/image", m.IMAGE, m.depth_image_fields(
            stamp_ns, camera_frame, estimate.points_camera[..., 2]), stamp_ns)
        self._bag.write(f"{NODE}/depth/camera_info", m.CAMERA_INFO, m.camera_info_fields(
            stamp_ns, camera_frame, estimate.dense_camera), stamp_ns)
        if not 0 <= stamp_ns - self._cloud_ns < 1e9 / CLOUDS_PER_S:
            self._cloud_ns = stamp_ns
            self._bag.write(f"{NODE}/cloud", m.POINT_CLOUD, m.scene_cloud_fields(
                estimate, camera_frame, m.CloudOptions()), stamp_ns)
        if not 0 <= stamp_ns - self._map_ns < 1e9 / MAPS_PER_S:
            self._map_ns = stamp_ns
            self._write_map(scene)
        self._sequence += 1

    def finish(self, scene: VoxelMap, report: Any) -> None:
        """The final map and status, if there was any frame."""
        from human_scene_ros.sources import message_fields as m

        if not self._sequence:
            return
        self._write_map(scene)
        self._bag.write(f"{NODE}/status", m.SCENE_STATUS, m.scene_status_fields(self._stamp_ns, WORLD_FRAME, report),
                        self._stamp_ns, latched=True)

    def _write_map(self, scene: VoxelMap) -> None:
        from human_scene_ros.sources import message_fields as m

        points, colors, _ = scene.points()
        step = m.stride_for(len(points), 1, 16, MAP_BYTES)
        self._bag.write(f"{NODE}/map/cloud", m.POINT_CLOUD, m.point_cloud_fields(
            self._stamp_ns, WORLD_FRAME, points[::step], colors[::step]), self._stamp_ns, latched=True)


def _prepared(out: Path) -> Path:
    """The output folder without the results of an earlier run; anything else in it stays."""
    if out.exists() and not out.is_dir():
        raise SourceError(f"{out} is a file; --out needs a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in OUTPUTS:
            if (out / name).is_file():
                (out / name).unlink()
    except OSError as error:
        raise SourceError(f"cannot write results to {out}: {error.strerror}") from error
    return out


def _rounded(values: Any, digits: int) -> Any:
    """Nested lists of floats; what is unknown (NaN) becomes null, which JSON can say."""
    array = np.asarray(values, dtype=np.float64)
    listed = np.where(np.isfinite(array), np.round(array, digits), np.nan).tolist()

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if value != value else value

    return plain(listed)
