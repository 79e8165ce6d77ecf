"""What the reconstructor node drives: a stream, its map, and what the numbers mean. No ROS import."""

from __future__ import annotations

import dataclasses

import numpy as np

from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.runtime.engine import gpu_memory_mib, make_stream
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.runtime.tracks import SmoothingConfig, TrackConfig
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import BodyDescription

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
    """

    stream: HumanSceneStream
    description: BodyDescription
    weights: str
    note: str
    device: str

    @classmethod
    def load(cls, config: ReconstructorConfig) -> Reconstruction:
        """Load weights and body model as configured.

        Raises:
            CheckpointError, BodyModelError, ConfigError: With what to do.
        """
        model = config.model
        stream = make_stream(model.preset, model.checkpoint or None, model.body or None, model.device, model.threads,
                             stream_config(config))
        info, body = stream.weights, stream.body_model
        assert info is not None  # `make_stream` always loads weights
        parts = _NANO_PARTS if stream.network.config.body_head == "window" else _FULL_PARTS
        description = BodyDescription(body_model=body.name, is_smplx=body.is_smplx, valid_parts=parts,
                                      joint_set=config.bodies.joint_set, id_prefix=config.track.id_prefix)
        device = next(stream.network.parameters()).device
        return cls(stream, description, f"{info.name} {info.sha256[:12]}", info.note, str(device))

    def configure(self, config: ReconstructorConfig) -> None:
        """Take over dynamic parameters; the memory stays."""
        self.stream.config = stream_config(config)

    def reset(self) -> None:
        """Forget tracks, poses and map."""
        self.stream.reset()

    def gpu_memory_mib(self) -> float:
        """Peak on the GPU, 0 on a CPU."""
        return gpu_memory_mib(self.device)

    def add_to_map(self, estimate): pass
    def map_points(self): return np.zeros((0,3),np.float32), np.zeros((0,3),np.uint8)


def stream_config(config: ReconstructorConfig) -> StreamConfig:
    """The part of the parameters that the stream understands."""
    return StreamConfig(
        min_score=config.bodies.min_score, max_people=config.bodies.max_people, camera_pose=config.camera_pose,
        reset_interval=config.model.reset_interval, precision=config.model.precision,
        track=TrackConfig(max_distance_m=config.track.max_distance, timeout_s=config.track.timeout,
                          confirm_hits=config.track.confirm_hits),
        smoothing=SmoothingConfig(min_cutoff_hz=config.smoothing.min_cutoff, beta=config.smoothing.beta))
