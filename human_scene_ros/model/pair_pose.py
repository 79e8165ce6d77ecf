"""Camera motion between two images, learned: local attention for matches, weighted geometry for the pose.

Cells of the earlier image look at a window of the later one (`PairPose`): descriptors of both are compared, the
attention's centre of mass is the cell's displacement, and convolutions over the comparison mend it and say how far it
can be believed. What the displacements mean for the camera is no matter of learning: with the depth of the earlier
image each of them is a line in pose and depth, and the pose follows by Gauss-Newton, weighted by what was learned, as
in two-view bundle adjustment with eliminated depth (Triggs et al. 2000, section 6), differentiably. Short baselines:
a cell sees `REACH_PX` pixels far.

Translation is in units of the scene, the median depth of the cells: a pair of pictures knows no metre.

Sources: correlation of neighbourhoods (FlowNet, arXiv 1504.06852), soft argmax (arXiv 1703.04309), pose by
differentiable weighted least squares (DROID-SLAM, arXiv 2108.10869; BANet, arXiv 1806.04807).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor, nn

from human_scene_ros.model.layers import ConvResidual, conv_bn_gelu

STRIDE_PX = 8
"""Between the cells that are matched."""
FINE_PX = 2
"""Between the places of the later image that they are compared with."""
RADIUS = 6
REACH_PX = FINE_PX * RADIUS
PATCH_PX = 16
CHANNELS = 24
ITERATIONS = 3


class PairMotion(NamedTuple):
    """Where the camera went from the first image to the second; n cells.

    Args:
        rotation: (B, 3, 3) rot_second_first.
        translation: (B, 3) t_second_first over `scale`.
        scale: (B,) median depth of the cells, metres.
        spread: (B, 2) standard deviations of the rotation (radians) and of the translation (over `scale`), per axis.
        flow_px: (B, n, 2) displacement of each cell's centre.
        flow_spread_px: (B, n) its mean absolute deviation.
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor
    spread: Tensor
    flow_px: Tensor
    flow_spread_px: Tensor


def cell_centres(size: tuple[int, int], like: Tensor) -> Tensor:
    """(n, 2) pixels (u, v) of the cells of an (H, W) image, row by row; centres of pixels are integers."""
    offset = (FINE_PX - 1) / 2
    v, u = torch.meshgrid(*(torch.arange(0, n, STRIDE_PX, device=like.device, dtype=like.dtype) + offset
                            for n in size), indexing="ij")
    return torch.stack([u, v], dim=-1).flatten(0, 1)


def at_cells(values: Tensor) -> Tensor:
    """(B, H, W) -> (B, n): the pixel at the upper left of each cell's centre."""
    return values[:, FINE_PX // 2 - 1::STRIDE_PX, FINE_PX // 2 - 1::STRIDE_PX].flatten(1)


def cosine_patterns() -> Tensor:
    """(CHANNELS, PATCH_PX, PATCH_PX): the slowest cosine transform patterns of a patch, without the constant one."""
    index = torch.arange(PATCH_PX)
    waves = torch.cos(torch.pi * index[:, None] * (index + 0.5) / PATCH_PX)
    waves = waves / waves.norm(dim=1, keepdim=True)
    slowest = (index[:, None].square() + index.square()).flatten().argsort(stable=True)[1:CHANNELS + 1]
    return waves[slowest // PATCH_PX][:, :, None] * waves[slowest % PATCH_PX][:, None]


def compare(first: Tensor, second: Tensor) -> Tensor:
    """Descriptors (B, C, H / 2, W / 2) of both images -> (B, taps, n): likeness of cells and their windows' places."""
    skip = STRIDE_PX // FINE_PX
    asked = first[:, :, ::skip, ::skip]
    taps = 2 * RADIUS + 1
    rows = F.pad(second, (RADIUS,) * 4).unfold(2, taps, skip)
    # Each cell with whole rows of the other image is one matrix product; the window is a band of it.
    alike = torch.einsum("bcyx,bcykr->byrxk", asked, rows)
    band = skip * torch.arange(asked.shape[3], device=first.device)[:, None] + torch.arange(taps, device=first.device)
    alike = alike.gather(-1, band.expand(*alike.shape[:3], -1, -1))
    return alike.permute(0, 2, 4, 1, 3).flatten(1, 2).flatten(2)


def window_px(like: Tensor) -> Tensor:
    """(taps, 2) displacement (u, v) of the places of a window, pixels."""
    steps = torch.arange(-RADIUS, RADIUS + 1, device=like.device).to(like.dtype) * FINE_PX
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([u, v], dim=-1).flatten(0, 1)


class PairPose(nn.Module):
    """See the module docstring. It has a stem of its own: other weights of the scene leave it as it is."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, CHANNELS, PATCH_PX, FINE_PX, bias=False)
        self.log_sharpness = nn.Parameter(torch.tensor(3.8))
        taps = (2 * RADIUS + 1) ** 2
        # Besides the comparison: the displacement it implies, log depth, person, and where the cell is (x, y).
        self.mend = nn.Sequential(conv_bn_gelu(taps + 6, hidden), ConvResidual(hidden))
        self.out = nn.Conv2d(hidden, 4, 1)  # displacement (2), its log spread, log spread of the depth
        self.prior = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 2))
        self.doubt = nn.Sequential(nn.Linear(hidden + 8, hidden), nn.GELU(), nn.Linear(hidden, 2))
        with torch.no_grad():
            self.patches.weight.copy_(cosine_patterns()[:, None])
            self.out.weight.mul_(0.1)
            self.out.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.6]))
            self.prior[2].bias.fill_(-3.0)
            self.doubt[2].bias.fill_(-4.0)

    def describe(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> descriptors (B, CHANNELS, H / 2, W / 2) of the patches around; flat ones are short."""
        around = (PATCH_PX - FINE_PX) // 2
        x = self.patches(F.pad(images.mean(dim=1, keepdim=True), (around,) * 4, mode="replicate"))
        return x / (x.norm(dim=1, keepdim=True) + 0.15)

    def forward(self, first: Tensor, second: Tensor, depth_m: Tensor, person: Tensor, camera_K: Tensor) -> PairMotion:
        """Motion of the camera from the first image to the second.

        Args:
            first: Its descriptors, from `describe`.
            second: The same of the second image.
            depth_m: (B, H, W) of the first, along z, positive.
            person: (B, H, W) probability of people, who move, in the first.
            camera_K: (B, 3, 3) intrinsics of both.
        """
        size = (depth_m.shape[1], depth_m.shape[2])
        grid = (size[0] // STRIDE_PX, size[1] // STRIDE_PX)
        alike = compare(first, second) * self.log_sharpness.exp()
        flow = torch.einsum("bkn,kd->bnd", alike.softmax(dim=1), window_px(alike))

        depth = at_cells(depth_m)
        scale = depth.median(dim=1).values
        person = at_cells(person)
        uv = cell_centres(size, depth)
        rays = (uv - camera_K[:, None, :2, 2]) / torch.stack([camera_K[:, 0, 0], camera_K[:, 1, 1]], -1)[:, None]
        z = depth / scale[:, None]
        known = torch.cat([alike.transpose(1, 2), flow / FINE_PX, z.log()[..., None], person[..., None], rays], dim=-1)
        x = self.mend(known.transpose(1, 2).unflatten(2, grid))
        raw = self.out(x).flatten(2).transpose(1, 2)
        flow = flow + raw[..., :2]
        spread_px = raw[..., 2].clamp(-4.0, 4.0).exp()

        focal = torch.stack([camera_K[:, 0, 0], camera_K[:, 1, 1]], -1)[:, None]
        noise = spread_px[..., None] / focal
        weight = (1 - person) ** 2
        depth_noise = raw[..., 3].clamp(-5.0, 1.0).exp()
        pooled = x.mean(dim=(2, 3))
        prior = self.prior(pooled).clamp(-8.0, 1.0)
        # Cells are not independent of each other: a tenth of their information is meant.
        rotation, translation, information = solve_motion(rays, z, rays + flow / focal, noise, 0.1 * weight,
                                                          depth_noise, prior.exp())
        certain = 0.5 * information.diagonal(dim1=-2, dim2=-1).log()
        spread = self.doubt(torch.cat([pooled, certain, prior], dim=1)).clamp(-9.0, 1.0).exp()
        return PairMotion(rotation, translation, scale, spread, flow, spread_px)


def solve_motion(rays: Tensor, z: Tensor, seen: Tensor, noise: Tensor, weight: Tensor, depth_noise: Tensor,
                 prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Newton over the pose, the depth of each point eliminated.

    Args:
        rays: (B, n, 2) points of the first view at z = 1.
        z: (B, n) their depth.
        seen: (B, n, 2) where they are in the second view, at z = 1.
        noise: (B, n, 2) standard deviation of `seen`.
        weight: (B, n) of each point.
        depth_noise: (B, n) relative standard deviation of `z`.
        prior: (B, 2) standard deviations of rotation and translation about none.

    Returns:
        rot_second_first (B, 3, 3), t_second_first (B, 3), information (B, 6, 6) of (rotation, translation).
    """
    batch = len(rays)
    points = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * z[..., None]
    rotation = torch.eye(3, device=rays.device, dtype=rays.dtype).expand(batch, 3, 3)
    translation = rays.new_zeros(batch, 3)
    twist = rays.new_zeros(batch, 6)
    prior_information = prior.pow(-2).repeat_interleave(3, dim=1)
    normal = torch.diag_embed(prior_information)
    for _ in range(ITERATIONS):
        turned = torch.einsum("bij,bnj->bni", rotation, points)
        px, py, pz = (turned + translation[:, None]).unbind(-1)
        zi = 1.0 / pz.clamp_min(0.05)
        x, y = px * zi, py * zi
        residual = torch.stack([x, y], dim=-1) - seen
        # The derivative of a projection by the logarithm of the depth; it is zero without translation.
        s = depth_noise[..., None] * zi[..., None] * (turned[..., :2] - torch.stack([x, y], -1) * turned[..., 2:])
        zero = torch.zeros_like(x)
        rows = torch.stack([
            torch.stack([-x * y, 1 + x * x, -y, zi, zero, -x * zi], dim=-1),
            torch.stack([-1 - y * y, x * y, x, zero, zi, -y * zi], dim=-1)], dim=-2)  # (B, n, 2, 6)
        # Inverse of diag(noise^2) + s s^T (Sherman-Morrison).
        inverse = noise.pow(-2)
        scaled = s * inverse
        shrink = 1.0 / (1.0 + (s * scaled).sum(-1))
        whitened_rows = rows * inverse[..., None] - scaled[..., None] * (
            (scaled[..., None] * rows).sum(-2, keepdim=True) * shrink[..., None, None])
        distance = (residual.square() * inverse).sum(-1) - (scaled * residual).sum(-1).square() * shrink
        robust = weight * (9.0 / (9.0 + distance)).square().detach()
        whitened_rows = whitened_rows * robust[..., None, None]
        normal = torch.einsum("bnki,bnkj->bij", whitened_rows, rows) + torch.diag_embed(prior_information)
        gradient = torch.einsum("bnki,bnk->bi", whitened_rows, residual) + prior_information * twist
        step = -torch.linalg.solve(normal, gradient)
        step = step / (step.abs().amax(dim=1, keepdim=True) / 0.5).clamp_min(1.0)
        turn = rotation_matrix(step[:, :3])
        rotation = turn @ rotation
        translation = torch.einsum("bij,bj->bi", turn, translation) + step[:, 3:]
        twist = twist + step
    return rotation, translation, normal


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3), Rodrigues; smooth at zero."""
    square = axis_angle.square().sum(-1)[..., None, None]
    angle = (square + 1e-12).sqrt()
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, device=axis_angle.device, dtype=axis_angle.dtype)
    return eye + torch.sinc(angle / torch.pi) * cross + 0.5 * torch.sinc(angle / (2 * torch.pi)).square() * (
        cross @ cross)
