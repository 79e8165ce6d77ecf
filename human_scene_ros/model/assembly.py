"""From per-frame outputs to one world: chained chunks, resets at intervals, the focal length of a pointmap.

The network forgets its world at a reset. A reset frame is therefore fed twice: once to end the old chunk, once to
begin the new one, whose origin is then that very camera. Poses of the new chunk are chained by the old chunk's
pose of the reset frame; scale is not re-aligned. Source: the official demo's description.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.geometry.transform import make_transform, orthonormal
from human_scene_ros.model.network import ALL_OUTPUTS
from human_scene_ros.model.types import NetworkOutput, StreamState


def pose_matrix(camera_pose: NDArray[np.floating]) -> NDArray[np.float64]:
    """(7,) t and quaternion wxyz -> (4, 4) T_chunk_camera."""
    check_shape("camera_pose", camera_pose, (7,))
    pose = np.asarray(camera_pose, dtype=np.float64)
    return make_transform(Rotation.from_quat(pose[[4, 5, 6, 3]]).as_matrix(), pose[:3])


@dataclasses.dataclass(frozen=True)
class WorldChain:
    """Where the current chunk lies in the world (the first camera).

    Args:
        T_world_chunk: (4, 4).
        frames: Frames processed so far, the second feeding of reset frames not counted.
    """

    T_world_chunk: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.eye(4))
    frames: int = 0

    def advance(self, T_chunk_camera: NDArray[np.floating],
                reset: bool) -> tuple[NDArray[np.float64], WorldChain]:
        """T_world_camera of a frame and the chain after it; `reset`: the frame ends its chunk."""
        T_world_camera = self.T_world_chunk @ T_chunk_camera
        base = orthonormal(T_world_camera) if reset else self.T_world_chunk
        return T_world_camera, WorldChain(base, self.frames + 1)


class RecurrentStep(Protocol):
    """What runs one frame: `HumanSceneNetwork`, or another engine with the same `step`."""

    def step(self, image: Tensor, state: StreamState | None, *, update: bool = True, reset: bool = False,
             camera_K: NDArray[np.floating] | None = None, outputs: frozenset[str] = ALL_OUTPUTS,
             ) -> tuple[NetworkOutput, StreamState]:
        """See `HumanSceneNetwork.step`."""


def step_in_chunks(network: RecurrentStep, image: Tensor, state: StreamState | None, chain: WorldChain, *,
                   reset_interval: int = 0, update: bool = True, camera_K: NDArray[np.floating] | None = None,
                   outputs: frozenset[str] = ALL_OUTPUTS,
                   ) -> tuple[NetworkOutput, NDArray[np.float64] | None, StreamState, WorldChain]:
    """`HumanSceneNetwork.step` with a reset every `reset_interval` frames (0: never).

    Returns:
        The output, T_world_camera (None for a network without pose head), the next state and the next chain.
    """
    if reset_interval < 0:
        raise ConfigError(f"reset_interval = {reset_interval}: expected 0 (never) or a positive number of frames")
    reset = reset_interval > 0 and (chain.frames + 1) % reset_interval == 0
    output, state = network.step(image, state, update=update, reset=reset, camera_K=camera_K, outputs=outputs)
    T_chunk_camera = np.eye(4) if output.camera_pose is None else pose_matrix(output.camera_pose[0].cpu().numpy())
    T_world_camera, chain = chain.advance(T_chunk_camera, reset)
    if reset:
        _, state = network.step(image, state, camera_K=camera_K, outputs=frozenset())
    return output, None if output.camera_pose is None else T_world_camera, state, chain


def estimate_focal(points_camera: Tensor, iterations: int = 10) -> float:
    """Focal length in pixels of a pointmap (H, W, 3) whose principal point is (W // 2, H // 2).

    Iteratively re-weighted least squares of the L1 reprojection error (Weiszfeld), in float32. Points whose
    x / z or y / z is not finite do not count. 0 when the points say nothing.
    """
    check_shape("points_camera", points_camera, (None, None, 3))
    height, width = points_camera.shape[:2]
    points = points_camera.float().reshape(-1, 3)
    rows, columns = torch.meshgrid(torch.arange(height, device=points.device),
                                   torch.arange(width, device=points.device), indexing="ij")
    pixels = torch.stack([columns - width // 2, rows - height // 2], dim=-1).reshape(-1, 2).float()
    slopes = torch.nan_to_num(points[:, :2] / points[:, 2:], nan=0.0, posinf=0.0, neginf=0.0)
    along, square = (slopes * pixels).sum(-1), (slopes * slopes).sum(-1)
    focal = along.mean() / square.mean()
    for _ in range(iterations):
        weight = 1 / (pixels - focal * slopes).norm(dim=-1).clamp_min(1e-8)
        focal = (weight * along).mean() / (weight * square).mean()
    return max(0.0, float(torch.nan_to_num(focal)))
