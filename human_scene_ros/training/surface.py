"""Dense targets that rendering gives for free: which part of the body each cell of a window shows, and where on it.

A cell's pixel and its depth are a point in the camera frame. The nearest vertex of the true body says which part it
belongs to and where it lies on the body at rest (dense correspondence, arXiv 1802.00434). Left and right, front and
back are different places there, so that features which can tell them know which way somebody faces. The head that
predicts them teaches the window head and is thrown away after training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor, nn

from human_scene_ros.body.model import BodyModel
from human_scene_ros.body.torch_model import TorchBody
from human_scene_ros.model.formulas import window_places
from human_scene_ros.training.losses import masked_mean

PARTS: tuple[tuple[int, ...], ...] = (
    (0, 3, 6, 9, 13, 14), (12, 15, 22, 23, 24), (16,), (17,), (18, 20, *range(25, 40)), (19, 21, *range(40, 55)),
    (1,), (2,), (4, 7, 10), (5, 8, 11))
"""Joints whose skin makes up the torso, the head, and left and right upper arm, forearm, thigh and shank."""

ON_BODY_M, OFF_BODY_M = 0.1, 0.4
"""Points nearer to the body are its surface under clothes, those farther away are not; between are hats and bags."""


class SurfaceHead(nn.Module):
    """A linear layer on the window head's fine features and the truth for it.

    Args:
        channels: Of the features.
        model: Whose surface is meant; its coarsest level of detail is used.
    """

    part_of_vertex: Tensor

    def __init__(self, channels: int, model: BodyModel) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, 1 + len(PARTS) + 3, 1)
        self.body = TorchBody(model, lod=max(model.meshes))
        joint = self.body.weights.argmax(dim=1)
        part_of_joint = torch.zeros(55, dtype=torch.long)
        for part, joints in enumerate(PARTS, start=1):
            part_of_joint[list(joints)] = part
        self.register_buffer("part_of_vertex", part_of_joint[joint], persistent=False)

    def terms(self, features: Tensor, uv_px: Tensor, width_px: Tensor, depth_m: Tensor, person: Tensor,
              camera_K: Tensor, rotations: Tensor, betas: Tensor, pelvis_camera: Tensor) -> dict[str, Tensor]:
        """The losses "parts" and "surface" of R windows.

        Args:
            features: (R, C, h, w) of the window head.
            uv_px: (R, 2) heads that placed the windows.
            width_px: (R,) widths of the windows in the image.
            depth_m: (R, H, W) true depth of their images; 0 = none.
            person: (R, H, W) True on people.
            camera_K: (R, 3, 3).
            rotations: (R, 55, 3, 3) of the true bodies, root: SMPL-X axes -> camera.
            betas: (R, b).
            pelvis_camera: (R, 3) metres.
        """
        cells = window_places((features.shape[3], features.shape[2]), features)
        scores = self.maps(features).float().flatten(2).transpose(1, 2)
        uv = uv_px[:, None] + cells * width_px[:, None, None]
        part, place, counts = self.truth(uv, depth_m, person, camera_K, rotations, betas, pelvis_camera)
        logits, predicted = scores[..., :1 + len(PARTS)], scores[..., 1 + len(PARTS):]
        entropy = F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="none").view(part.shape)
        return {"parts": masked_mean(entropy, counts),
                "surface": masked_mean((predicted - place).abs().sum(-1), counts & (part > 0))}

    @torch.no_grad()
    def truth(self, uv_px: Tensor, depth_m: Tensor, person: Tensor, camera_K: Tensor, rotations: Tensor, betas: Tensor,
              pelvis_camera: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (R, K, 2) pixels: (R, K) part, 0 = not this body; (R, K, 3) place on the body at rest, metres; (R, K) bool
        whether that can be said. Other arguments as in `terms`."""
        height, width = depth_m.shape[-2:]
        column, row = uv_px.round().long().unbind(-1)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        window = torch.arange(len(uv_px), device=uv_px.device)[:, None]
        column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
        z = depth_m[window, row, column]
        seen = inside & person[window, row, column] & (z > 0)
        focal, centre = camera_K[:, None, (0, 1), (0, 1)], camera_K[:, None, :2, 2]
        points = torch.cat([(uv_px - centre) / focal, torch.ones_like(uv_px[..., :1])], dim=-1) * z[..., None]
        joints, vertices = self.body(rotations, betas)
        vertices = vertices + (pelvis_camera - joints[:, 0])[:, None]

        part = torch.zeros_like(column)
        place = torch.zeros_like(points)
        counts = inside.clone()
        for index in range(len(uv_px)):
            at = seen[index].nonzero()[:, 0]
            distance, nearest = torch.cdist(points[index, at], vertices[index]).min(dim=1)
            part[index, at] = torch.where(distance < ON_BODY_M, self.part_of_vertex[nearest], 0)
            place[index, at] = self.body.template[nearest]
            counts[index, at] = (distance < ON_BODY_M) | (distance > OFF_BODY_M)
        return part, place, counts
