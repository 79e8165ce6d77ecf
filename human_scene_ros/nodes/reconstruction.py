"""What the reconstructor node drives: a stream, its map, and what the numbers mean. No ROS import."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.transform import apply
from human_scene_ros.mapping.save import FORMATS, save_points
from human_scene_ros.mapping.voxel_map import MapConfig, VoxelMap
from human_scene_ros.nodes.diagnostics import Throttle
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.runtime.engine import gpu_memory_mib, make_stream
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.runtime.tracks import SmoothingConfig, TrackConfig
from human_scene_ros.scene import SceneEstimate
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import BodyDescription

Points = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""(N, 3) metres in the world frame and (N, 3) RGB."""

# Parts that a network estimates; those of the nano's window head end at the wrists.
_NANO_PARTS = message_fields.VALID_BODY | message_fields.VALID_SHAPE
_FULL_PARTS = (_NANO_PARTS | message_fields.VALID_LEFT_HAND | message_fields.VALID_RIGHT_HAND
               | message_fields.VALID_JAW | message_fields.VALID_EXPRESSION)


@dataclasses.dataclass
class Reconstruction:
    """Made on configure, dropped on cleanup. Whoever calls it holds the node's lock.

    Args:
        stream: One frame in, one estimate out.
        description: What the numbers of the bodies mean.
        weights: Name and short SHA-256, for the status.
        note: What the weights are worth.
        device: Where the network runs.
        engine: What runs it.
        map: Grows with each estimate, without people.
        map_enabled: Whether it does.
        map_update_rate: Estimates per second of stamps that enter it, at most.
        newest: The last estimate of this segment.
        map_due: Keeps to that rate.
    """

    stream: HumanSceneStream
    description: BodyDescription
    weights: str
    note: str
    device: str
    engine: str
    map: VoxelMap
    map_enabled: bool = True
    map_update_rate: float = 5.0
    newest: SceneEstimate | None = None
    map_due: Throttle = dataclasses.field(default_factory=Throttle)

    @classmethod
    def load(cls, config: ReconstructorConfig) -> Reconstruction:
        """Load weights and body model as configured.

        Raises:
            CheckpointError, BodyModelError, ConfigError: With what to do.
        """
        model = config.model
        stream = make_stream(model.preset, model.checkpoint or None, model.body or None, model.device, model.threads,
                             stream_config(config), model.engine)
        info, body = stream.weights, stream.body_model
        assert info is not None  # `make_stream` always loads weights
        parts = _NANO_PARTS if stream.network.config.body_head == "window" else _FULL_PARTS
        description = BodyDescription(body_model=body.name, is_smplx=body.is_smplx, valid_parts=parts,
                                      joint_set=config.bodies.joint_set, id_prefix=config.track.id_prefix)
        return cls(stream, description, f"{info.name} {info.sha256[:12]}", info.note, stream.device, stream.engine_name,
                   VoxelMap(map_config(config)), config.map.enabled, config.map.update_rate)

    def configure(self, config: ReconstructorConfig) -> None:
        """Take over dynamic parameters; the memory stays."""
        self.stream.config = stream_config(config)
        self.map.config, self.map_enabled = map_config(config), config.map.enabled
        self.map_update_rate = config.map.update_rate

    def reset(self) -> None:
        """Forget tracks, poses and map."""
        self.stream.reset()
        self.map.clear()
        self.newest = None

    def gpu_memory_mib(self) -> float:
        """Peak on the GPU, 0 on a CPU."""
        return gpu_memory_mib(self.device)

    def add_to_map(self, estimate: SceneEstimate) -> None:
        """Let the map grow by what is not a person."""
        self.newest = estimate
        if self.map_enabled and self.map_due.due(estimate.stamp_ns, self.map_update_rate):
            self.map.add(estimate)

    def map_points(self) -> Points:
        """The map without people: world frame and RGB."""
        points_world, colors, _ = self.map.points()
        return points_world, colors

    def map_copy(self, include_people: bool, voxel_m: float) -> Points:
        """The map to be saved.

        Args:
            include_people: Add the points on people of the newest estimate.
            voxel_m: Edge of the cells that thin it; 0 = as mapped.

        Raises:
            ConfigError: `voxel_m` is negative or not finite.
        """
        points_world, colors = self.map_points()
        if include_people and self.newest is not None:
            people = (self.newest.people_mask > 0) & np.isfinite(self.newest.points_camera).all(axis=-1)
            seen_world = apply(self.newest.T_world_camera, self.newest.points_camera[people])
            points_world = np.concatenate([points_world, seen_world])
            colors = np.concatenate([colors, self.newest.colors[people]])
        if voxel_m == 0.0:
            return points_world, colors
        thinned = VoxelMap(MapConfig(voxel_m=voxel_m, min_observations=1, max_points=len(points_world) + 10))
        thinned.add_points(points_world, colors)
        return thinned.points()[:2]

    @staticmethod
    def save(cloud: Points, path: str, form: int) -> tuple[str, int, int]:
        """Write a cloud; returns the file, its points and bytes.

        Args:
            cloud: From `map_copy`.
            path: Where to; its folder must exist.
            form: FORMAT_* of SaveMap.srv: 0 PLY, 1 PCD, 2 NPZ.

        Raises:
            ConfigError, SourceError: Unknown format; the file cannot be written.
        """
        if not path:
            raise ConfigError("path is empty; give the file to write")
        if not 0 <= form < len(FORMATS):
            raise ConfigError(f"format = {form}: expected 0 ({FORMATS[0]}), 1 ({FORMATS[1]}) or 2 ({FORMATS[2]})")
        written = save_points(path, *cloud, FORMATS[form])  # type: ignore[arg-type]
        return str(written), len(cloud[0]), written.stat().st_size


def stream_config(config: ReconstructorConfig) -> StreamConfig:
    """The part of the parameters that the stream understands."""
    return StreamConfig(
        min_score=config.bodies.min_score, max_people=config.bodies.max_people, camera_pose=config.camera_pose,
        reset_interval=config.model.reset_interval, precision=config.model.precision,
        use_depth=config.input.use_depth, scale_source=config.scale.source, depth_scale_ema=config.scale.ema,
        track=TrackConfig(max_distance_m=config.track.max_distance, timeout_s=config.track.timeout,
                          confirm_hits=config.track.confirm_hits),
        smoothing=SmoothingConfig(min_cutoff_hz=config.smoothing.min_cutoff, beta=config.smoothing.beta))


def map_config(config: ReconstructorConfig) -> MapConfig:
    """The part of the parameters that the map understands."""
    return MapConfig(voxel_m=config.map.voxel, max_points=config.map.max_points,
                     people_margin_m=config.map.people_margin, min_confidence=config.cloud.min_confidence,
                     max_range_m=config.cloud.max_range)
