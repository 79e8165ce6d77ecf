"""What the reconstructor node drives: streams, their maps, and what the numbers mean. No ROS import."""

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
from human_scene_ros.runtime.shared_state import CameraStreams, SharedStateStream, why_not_shared
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.runtime.tracks import SmoothingConfig, TrackConfig
from human_scene_ros.scene import CameraFrame, SceneEstimate
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import BodyDescription

Points = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""(N, 3) metres in the world frame and (N, 3) RGB."""

# Parts that a network estimates; those of the nano's window head end at the wrists.
_NANO_PARTS = message_fields.VALID_BODY | message_fields.VALID_SHAPE
_FULL_PARTS = (_NANO_PARTS | message_fields.VALID_LEFT_HAND | message_fields.VALID_RIGHT_HAND
               | message_fields.VALID_JAW | message_fields.VALID_EXPRESSION)


@dataclasses.dataclass
class _View:
    """One camera's map and the last estimate of this segment; `map_due` keeps to the rate of the map."""

    map: VoxelMap
    newest: SceneEstimate | None = None
    map_due: Throttle = dataclasses.field(default_factory=Throttle)


class Reconstruction:
    """Made on configure, dropped on cleanup. Whoever calls it holds the node's lock.

    Several cameras share one recurrent state, and so one world, where the network can place them and `camera_pose`
    lets it; else each has a memory and a world of its own (`placing` says why).

    Args:
        stream: With its weights.
        config: Cameras, map and what the bodies hold.
    """

    def __init__(self, stream: HumanSceneStream, config: ReconstructorConfig) -> None:
        info, body = stream.weights, stream.body_model
        self._stream = stream
        obstacle = why_not_shared(stream) if config.cameras else ""
        self._streams = (SharedStateStream if config.cameras and not obstacle else CameraStreams)(stream, config.views)
        self.placed = not obstacle
        """False: several cameras that the network does not place."""
        self.placing = "" if not config.cameras else (
            f"no extrinsics from one recurrent state: {obstacle}" if obstacle else
            "camera_pose of all cameras is in one world, from one recurrent state")
        """The same in words; "" for one camera."""
        parts = _NANO_PARTS if stream.network.config.body_head == "window" else _FULL_PARTS
        self.description = BodyDescription(body_model=body.name, is_smplx=body.is_smplx, valid_parts=parts,
                                           joint_set=config.bodies.joint_set, id_prefix=config.track.id_prefix)
        """What the numbers of the bodies mean."""
        self.body_model = body
        """What turns them into vertices."""
        self.weights = f"{info.name} {info.sha256[:12]}" if info else ""
        """Name and short SHA-256, for the status."""
        self.note = info.note if info else ""
        """What the weights are worth."""
        self.device, self.engine = stream.device, stream.engine_name
        self._views = {name: _View(VoxelMap(map_config(config))) for name in config.views}
        self._map = config.map

    @classmethod
    def load(cls, config: ReconstructorConfig) -> Reconstruction:
        """Load weights and body model as configured.

        Raises:
            CheckpointError, BodyModelError, ConfigError: With what to do.
        """
        model = config.model
        stream = make_stream(model.preset, model.checkpoint or None, model.body or None, model.device, model.threads,
                             stream_config(config), model.engine)
        return cls(stream, config)

    @property
    def segment(self) -> int:
        """Resets so far."""
        return self._streams.segment

    def configure(self, config: ReconstructorConfig) -> None:
        """Take over dynamic parameters; the memory stays."""
        self._stream.config = stream_config(config)
        self._map = config.map
        for view in self._views.values():
            view.map.config = map_config(config)

    def reset(self) -> None:
        """Forget tracks, poses and maps."""
        self._streams.reset()
        for view in self._views.values():
            view.map.clear()
            view.newest = None

    def step(self, camera: str, frame: CameraFrame) -> SceneEstimate:
        """One frame of one camera; raises as `HumanSceneStream.step`."""
        return self._streams.step(camera, frame)

    def gpu_memory_mib(self) -> float:
        """Peak on the GPU, 0 on a CPU."""
        return gpu_memory_mib(self.device)

    def add_to_map(self, camera: str, estimate: SceneEstimate) -> None:
        """Let the camera's map grow by what is not a person."""
        view = self._views[camera]
        view.newest = estimate
        if self._map.enabled and view.map_due.due(estimate.stamp_ns, self._map.update_rate):
            view.map.add(estimate)

    def map_points(self, camera: str) -> Points:
        """A camera's map without people: world frame and RGB."""
        points_world, colors, _ = self._views[camera].map.points()
        return points_world, colors

    def map_copy(self, include_people: bool, voxel_m: float) -> Points:
        """The map to be saved.

        Args:
            include_people: Add the points on people of the newest estimate.
            voxel_m: Edge of the cells that thin it; 0 = as mapped.

        Raises:
            ConfigError: There are several maps, or `voxel_m` is negative or not finite.
        """
        if len(self._views) > 1:
            raise ConfigError(f"each of the cameras {list(self._views)} has a map of its own; record their "
                              "human_scene/map/cloud, or let fusion_node merge them (map.enabled)")
        (camera, view), = self._views.items()
        points_world, colors = self.map_points(camera)
        newest = view.newest
        if include_people and newest is not None:
            people = newest.person & np.isfinite(newest.points_camera).all(axis=-1)
            seen_world = apply(newest.T_world_camera, newest.points_camera[people])
            points_world = np.concatenate([points_world, seen_world])
            colors = np.concatenate([colors, newest.colors[people]])
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
        use_depth=config.input.use_depth, align_to_surface=config.bodies.align_to_surface,
        scale_source=config.scale.source, depth_scale_ema=config.scale.ema,
        people_tolerance=config.scale.people_tolerance,
        track=TrackConfig(max_distance_m=config.track.max_distance, timeout_s=config.track.timeout,
                          confirm_hits=config.track.confirm_hits),
        smoothing=SmoothingConfig(min_cutoff_hz=config.smoothing.min_cutoff, beta=config.smoothing.beta))


def map_config(config: ReconstructorConfig) -> MapConfig:
    """The part of the parameters that the map understands."""
    return MapConfig(voxel_m=config.map.voxel, max_points=config.map.max_points,
                     people_margin_m=config.map.people_margin, min_confidence=config.cloud.min_confidence,
                     max_range_m=config.cloud.max_range)
