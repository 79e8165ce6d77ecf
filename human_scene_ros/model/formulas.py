"""The network's formulas: raw numbers -> points, poses, rotations, rays and windows. No parameters here.

Batch first; pixels are (u, v) = (column, row) with centres at integers; cameras are (B, 3, 3) matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor

WINDOW_HEAD_FRACTION = 0.18  # a person's window begins this part of its height above the head


def soft_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid kept 1e-6 away from 0 and 1."""
    return torch.sigmoid(logits) * (1 - 2e-6) + 1e-6


def vector(values: tuple[int, ...], like: Tensor) -> Tensor:
    """(n,) of the type of `like`. Unlike `new_tensor` it keeps sizes variable while a graph is traced."""
    return torch.stack([torch.as_tensor(v, device=like.device) for v in values]).to(like.dtype)


def take_cells(tokens: Tensor, cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rows of (B, nh * nw, C) at integer (row, column) cells (B, P, 2) -> (B, P, C)."""
    index = cells[..., 0] * grid[1] + cells[..., 1]
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def pad_to_square(images: Tensor, side: int) -> Tensor:
    """Network images (B, 3, H, W) fitted into (B, 3, side, side), bilinear; the rest is black (-1)."""
    height, width = images.shape[-2:]
    scale = min(side / height, side / width)
    inner = (int(height * scale), int(width * scale))
    resized = F.interpolate(images, size=inner, mode="bilinear", align_corners=False)
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    return F.pad(resized, (left, side - inner[1] - left, top, side - inner[0] - top), value=-1.0)


def from_square_px(uv: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(..., 2) pixels of the padded square -> pixels of the (H, W) image, clamped into it."""
    height, width = size
    longer = max(height, width)
    padding = uv.new_tensor([(longer - width) // 2, (longer - height) // 2])
    return (uv * (longer / side) - padding).clamp(min=0).minimum(uv.new_tensor([width - 1, height - 1]))


def to_square_px(uv: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(..., 2) pixels of the (H, W) image -> pixels of the padded square; the inverse of `from_square_px`."""
    height, width = size
    longer = max(height, width)
    return (uv + uv.new_tensor([(longer - width) // 2, (longer - height) // 2])) * (side / longer)


def crop_from_square(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, side, side) of the padded square -> (B, H, W): nearest resize, centre crop."""
    height, width = size
    longer = max(height, width)
    top, left = (longer - height) // 2, (longer - width) // 2
    # torch indexes by a float32 ratio, which at exact multiples may fall one short of floor(i * side / longer)
    square = F.interpolate(mask[:, None], size=(longer, longer), mode="nearest")[:, 0]
    return square[:, top:top + height, left:left + width]


def exp_map(raw: Tensor) -> Tensor:
    """(..., 3) -> the same direction with length e^|raw| - 1."""
    length = raw.norm(dim=-1, keepdim=True)
    return raw / length.clamp_min(1e-8) * torch.expm1(length)


def decode_points(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 4, H, W) raw -> points (B, H, W, 3) and confidence (B, H, W) >= 1."""
    return exp_map(raw[:, :3].permute(0, 2, 3, 1)), 1 + raw[:, 3].exp()


def decode_rgb(raw: Tensor) -> Tensor:
    """(B, 3, H, W) raw -> (B, H, W, 3) in [-1, 1]."""
    return 2 * (soft_sigmoid(raw) - 0.5).permute(0, 2, 3, 1)


def decode_pose(raw: Tensor) -> Tensor:
    """(..., 7) raw -> t and unit quaternion wxyz with w >= 0."""
    quat_wxyz = F.normalize(raw[..., 3:], dim=-1, eps=1e-8)
    quat_wxyz = torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)
    return torch.cat([exp_map(raw[..., :3]), quat_wxyz], dim=-1)


def rotations_from_6d(pose6d: Tensor) -> Tensor:
    """(..., 6) read as (3, 2): first column a, second b -> (..., 3, 3) by Gram-Schmidt (arXiv 1812.07035)."""
    a, b = pose6d.unflatten(-1, (3, 2)).unbind(-1)
    x = a / a.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    y = b - (x * b).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def pixel_rays(camera_K: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) with z = 1 through the pixel centres (integers)."""
    height, width = size
    u = (torch.arange(width, device=camera_K.device) - camera_K[:, 0, 2, None]) / camera_K[:, 0, 0, None]
    v = (torch.arange(height, device=camera_K.device) - camera_K[:, 1, 2, None]) / camera_K[:, 1, 1, None]
    u, v = torch.broadcast_tensors(u[:, None, :], v[:, :, None])
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def rays_through(uv: Tensor, camera_K: Tensor) -> Tensor:
    """(B, P, 2) pixels -> (B, P, 3) rays with z = 1 (K without skew)."""
    K = camera_K[:, None]
    xy = (uv - K[..., :2, 2]) / torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def turn_to_ray(ray: Tensor) -> Tensor:
    """(..., 3) with z > 0 -> (..., 3, 3): the smallest rotation that takes the optical axis to the ray."""
    x, y, z = F.normalize(ray, dim=-1).unbind(-1)
    k = 1 / (1 + z)
    return torch.stack([1 - k * x * x, -k * x * y, x,
                        -k * x * y, 1 - k * y * y, y,
                        -x, -y, z], dim=-1).unflatten(-1, (3, 3))


def window_places(size: tuple[int, int], like: Tensor) -> Tensor:
    """(rows * columns, 2) float32: centres of the cells of a (columns, rows) window, from the head, in its widths."""
    columns, rows = size
    across = (torch.arange(columns, device=like.device) + 0.5) / columns - 0.5
    down = ((torch.arange(rows, device=like.device) + 0.5) / rows - WINDOW_HEAD_FRACTION) * rows / columns
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).flatten(0, 1)


def cut_windows(channels: Tensor, uv: Tensor, width_px: Tensor, height_px: Tensor,
                size: tuple[int, int]) -> Tensor:
    """Resample one window per row; the head lies at (1/2, WINDOW_HEAD_FRACTION) of it, outside is zero.

    Args:
        channels: (R, C, H, W).
        uv: (R, 2) head, pixel centres at integers.
        width_px: (R,) extent of the window in the image.
        height_px: (R,).
        size: (width, height) of the result.
    """
    height, width = channels.shape[-2:]
    across = (torch.arange(size[0], device=uv.device, dtype=uv.dtype) + 0.5) / size[0] - 0.5
    down = (torch.arange(size[1], device=uv.device, dtype=uv.dtype) + 0.5) / size[1] - WINDOW_HEAD_FRACTION
    u = (uv[:, :1] + across * width_px[:, None] + 0.5) / width * 2 - 1
    v = (uv[:, 1:] + down * height_px[:, None] + 0.5) / height * 2 - 1
    u, v = torch.broadcast_tensors(u[:, None, :], v[:, :, None])
    return F.grid_sample(channels, torch.stack([u, v], dim=-1), mode="bilinear", padding_mode="zeros",
                         align_corners=False)
