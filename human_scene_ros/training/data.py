"""Shards of synthetic clips -> augmented batches of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from numpy.typing import NDArray
from torch import Tensor

from human_scene_ros.body.skeleton import JOINT_NAMES
from human_scene_ros.errors import SourceError
from human_scene_ros.synthetic.dataset import ClipShard, list_shards, open_shard


@dataclasses.dataclass
class Batch:
    """B clips of T frames at one image size; people are padded to P rows.

    Attributes:
        images: (B, T, 3, H, W) float32 in [-1, 1].
        depth_m: (B, T, H, W) along z; 0 where there is no truth.
        person: (B, T, H, W) bool.
        camera_K: (B, 3, 3) intrinsics of the images.
        T_world_camera: (B, T, 4, 4).
        present: (B, T, P) bool: the row is a person of the world.
        head_visible: (B, T, P) bool: the head is in the image and not hidden.
        height_px: (B, T, P) height of the person's box, pixels.
        visible_fraction: (B, T, P) in [0, 1].
        head_uv_px: (B, T, P, 2).
        joints_camera: (B, T, P, 55, 3) metres.
        pose: (B, T, P, 55, 3) axis-angle in skinning order; the root maps SMPL-X axes to the camera.
        betas: (B, T, P, 10).
    """

    images: Tensor
    depth_m: Tensor
    person: Tensor
    camera_K: Tensor
    T_world_camera: Tensor
    present: Tensor
    head_visible: Tensor
    height_px: Tensor
    visible_fraction: Tensor
    head_uv_px: Tensor
    joints_camera: Tensor
    pose: Tensor
    betas: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})


def _mirror_order() -> NDArray[np.int64]:
    names = list(JOINT_NAMES)
    swapped = [n.replace("left_", "\0").replace("right_", "left_").replace("\0", "right_") for n in names]
    return np.array([names.index(n) for n in swapped])


MIRROR = _mirror_order()


def mirrored(batch: Batch) -> Batch:
    """The same clips seen in a mirror: left and right swap, x changes sign, rotations R -> S R S.

    Exact for the pose; for the shape it assumes that betas describe bodies symmetric in left and right.
    """
    width = batch.images.shape[-1]
    camera_K = batch.camera_K.clone()
    camera_K[:, 0, 2] = width - 1 - camera_K[:, 0, 2]
    head_uv_px = batch.head_uv_px.clone()
    head_uv_px[..., 0] = width - 1 - head_uv_px[..., 0]
    signs = torch.tensor([-1.0, 1.0, 1.0])
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    return dataclasses.replace(
        batch, images=batch.images.flip(-1), depth_m=batch.depth_m.flip(-1), person=batch.person.flip(-1),
        camera_K=camera_K, T_world_camera=flip @ batch.T_world_camera @ flip, head_uv_px=head_uv_px,
        joints_camera=batch.joints_camera[..., MIRROR, :] * signs,
        pose=batch.pose[..., MIRROR, :] * -signs)


def zoomed(batch: Batch, zoom: float, left_px: float, top_px: float) -> Batch:
    """Cut out the window of 1/zoom the size at (left, top) and enlarge it to the same image size."""
    height, width = batch.images.shape[-2:]
    us = (torch.arange(width, dtype=torch.float32) + 0.5) / zoom + left_px - 0.5
    vs = (torch.arange(height, dtype=torch.float32) + 0.5) / zoom + top_px - 0.5
    grid = torch.stack(torch.meshgrid((us + 0.5) / width * 2 - 1, (vs + 0.5) / height * 2 - 1, indexing="xy"), -1)
    b, t = batch.images.shape[:2]
    grid = grid[None].expand(b * t, -1, -1, -1)
    images = F.grid_sample(batch.images.flatten(0, 1), grid, mode="bilinear", padding_mode="border",
                           align_corners=False).unflatten(0, (b, t))
    rows = vs.round().long().clamp(0, height - 1)
    columns = us.round().long().clamp(0, width - 1)
    camera_K = batch.camera_K.clone()
    camera_K[:, 0, 0] *= zoom
    camera_K[:, 1, 1] *= zoom
    shift = torch.tensor([left_px, top_px])
    camera_K[:, :2, 2] = (camera_K[:, :2, 2] + 0.5 - shift) * zoom - 0.5
    head_uv_px = (batch.head_uv_px + 0.5 - shift) * zoom - 0.5
    limit = torch.tensor([width, height], dtype=torch.float32)
    inside = ((head_uv_px > -0.5) & (head_uv_px < limit - 0.5)).all(-1)
    return dataclasses.replace(
        batch, images=images, depth_m=batch.depth_m[..., rows, :][..., columns],
        person=batch.person[..., rows, :][..., columns], camera_K=camera_K, head_uv_px=head_uv_px,
        head_visible=batch.head_visible & inside, height_px=batch.height_px * zoom)


def recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Photometric jitter, one draw per clip: gain, colour balance, gamma, grey, noise, an erased box."""
    b, t, _, height, width = images.shape
    x = (images * 0.5 + 0.5).clamp(0, 1)

    def per_clip(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (b, 1, channels, 1, 1)).astype(np.float32))

    x = x.clamp_min(1e-3) ** per_clip(0.75, 1.35) * per_clip(0.75, 1.25) * per_clip(0.88, 1.12, 3)
    mean = x.mean(dim=(-1, -2), keepdim=True)
    x = (x - mean) * per_clip(0.75, 1.3) + mean + per_clip(-0.06, 0.06)
    grey = torch.from_numpy((rng.random((b, 1, 1, 1, 1)) < 0.08).astype(np.float32))
    x = x + grey * (x.mean(dim=2, keepdim=True) - x)
    x = x + torch.randn_like(x) * per_clip(0.0, 0.03)
    for clip in np.flatnonzero(rng.random(b) < 0.15):
        h, w = int(rng.integers(8, height // 3)), int(rng.integers(8, width // 3))
        top, left = int(rng.integers(0, height - h)), int(rng.integers(0, width - w))
        x[clip, :, :, top:top + h, left:left + w] = torch.from_numpy(rng.random((3, 1, 1)).astype(np.float32))
    return x.clamp(0, 1) * 2 - 1


def load_clips(shard: ClipShard, clips: NDArray[np.int64], frames: NDArray[np.int64]) -> Batch:
    """Copy the given frames of the given clips out of one memory-mapped shard."""
    rows, columns = np.sort(clips)[:, None], np.sort(frames)[None]

    def take(name: str, dtype: type = np.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(shard[name][rows, columns], dtype=dtype))

    images = take("images", np.uint8).permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1.0)
    bbox = take("bbox_px")
    return Batch(
        images=images, depth_m=take("depth_m"), person=take("instance", np.uint8) > 0,
        camera_K=torch.from_numpy(np.array(shard["K"][rows[:, 0]], dtype=np.float32)),
        T_world_camera=take("T_world_camera"),
        present=take("valid", np.bool_), head_visible=take("head_visible", np.bool_),
        height_px=bbox[..., 3], visible_fraction=take("visible_fraction"),
        head_uv_px=take("head_uv"), joints_camera=take("joints_camera"), pose=take("full_pose"),
        betas=take("betas"))


def batches(folder: Path, clips_per_batch: int, frames: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Endless stream of augmented batches; the folder is listed again for each batch, so it may grow.

    Raises:
        SourceError: The folder holds no shard.
    """
    opened: dict[Path, ClipShard] = {}
    while True:
        paths = list_shards(folder)
        if not paths:
            raise SourceError(f"{folder} holds no shards; make some with 'human-scene synthesize {folder}'")
        path = paths[int(rng.integers(len(paths)))]
        shard = opened.setdefault(path, open_shard(path))
        total, length = shard["images"].shape[:2]
        clips = rng.choice(total, size=min(clips_per_batch, total), replace=False)
        batch = load_clips(shard, clips, rng.choice(length, size=min(frames, length), replace=False))
        if rng.random() < 0.5:
            batch = mirrored(batch)
        if rng.random() < 0.5:
            zoom = float(rng.uniform(1.0, 1.4))
            height, width = batch.images.shape[-2:]
            batch = zoomed(batch, zoom, float(rng.uniform(0, width * (1 - 1 / zoom))),
                           float(rng.uniform(0, height * (1 - 1 / zoom))))
        batch.images = recoloured(batch.images, rng)
        yield batch
