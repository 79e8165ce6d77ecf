"""Training of the pair head (`model.pair_pose`): frames of a clip in twos, near ones first."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor

from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.pair_pose import REACH_PX, PairMotion, PairPose, at_cells, cell_centres
from human_scene_ros.training.config import TrainConfig
from human_scene_ros.training.data import Batch
from human_scene_ros.training.losses import masked_mean

SKY_M = 100.0
MIN_CELLS = 0.4
"""Pairs of which a smaller part of the cells stays in reach teach no pose."""


def choose_pairs(clips: int, frames: int, largest_gap: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Indices of first and second frames, out of (clips * frames) flattened ones, in both orders.

    As many of each clip as it has neighbours, drawn from all that are at most `largest_gap` frames apart.
    """
    within = np.array([(i, j) for i in range(frames) for j in range(frames) if 0 < abs(i - j) <= largest_gap])
    pairs = np.concatenate([k * frames + rng.permutation(within)[:2 * (frames - 1)] for k in range(clips)])
    first, second = torch.from_numpy(pairs).T
    return first, second


def rough_depth(depth_m: Tensor) -> Tensor:
    """True depth (N, H, W) made as wrong as a small network's: blurred, bent, and of another scale."""
    log_depth = torch.where(depth_m > 0, depth_m, SKY_M).log()[:, None]
    log_depth = F.avg_pool2d(log_depth, 7, stride=1, padding=3, count_include_pad=False)
    bend = F.interpolate(0.2 * torch.randn(len(depth_m), 1, 4, 5, device=depth_m.device), depth_m.shape[-2:],
                         mode="bicubic", align_corners=False)
    return (log_depth + bend + 0.15 * torch.randn(len(depth_m), 1, 1, 1, device=depth_m.device)).exp()[:, 0]


def relative_poses(T_world_camera: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(N, 4, 4) poses -> T_second_first of each pair."""
    return torch.linalg.solve(T_world_camera[second], T_world_camera[first])


def true_flow(depth_first: Tensor, depth_second: Tensor, camera_K: Tensor,
              T_second_first: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n, 2) displacement of the cells of a still scene, and (B, n) where it is known and in reach."""
    size = (depth_first.shape[1], depth_first.shape[2])
    uv = cell_centres(size, depth_first)
    z = at_cells(depth_first)
    z = torch.where(z > 0, z, 1e3)
    focal, centre = camera_K[:, None, [0, 1], [0, 1]], camera_K[:, None, :2, 2]
    points = torch.cat([(uv - centre) / focal, torch.ones_like(z)[..., None]], dim=-1) * z[..., None]
    there = points @ T_second_first[:, :3, :3].transpose(1, 2) + T_second_first[:, None, :3, 3]
    uv_there = there[..., :2] / there[..., 2:].clamp_min(0.05) * focal + centre
    flow = uv_there - uv
    limit = uv.new_tensor([size[1], size[0]])
    place = (uv_there + 0.5) / limit * 2 - 1
    seen = F.grid_sample(torch.where(depth_second > 0, depth_second, 1e3)[:, None], place[:, None], mode="nearest",
                         align_corners=False)[:, 0, 0]
    hidden = seen < 0.9 * there[..., 2]
    known = (there[..., 2] > 0.1) & (place.abs() < 1).all(-1) & ~hidden & (flow.abs() < REACH_PX).all(-1)
    return flow, known


def motion_errors(motion: PairMotion, T_second_first: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) angle of the rotation error, radians, and length of the translation error over the scene's scale."""
    turned = motion.rotation @ T_second_first[:, :3, :3].transpose(1, 2)
    away = torch.stack([turned[:, 2, 1] - turned[:, 1, 2], turned[:, 0, 2] - turned[:, 2, 0],
                        turned[:, 1, 0] - turned[:, 0, 1]], dim=-1) / 2
    # Errors are small: the sine is the angle, and it has a gradient at zero.
    step = motion.translation - T_second_first[:, :3, 3] / motion.scale[:, None]
    return (away.square().sum(-1) + 1e-12).sqrt(), (step.square().sum(-1) + 1e-12).sqrt()


def clip_pair_losses(network: HumanSceneNetwork, batch: Batch, config: TrainConfig, rng: np.random.Generator,
                     progress: float) -> dict[str, Tensor]:
    """`pair_losses` with predicted or roughened depth; pairs lengthen until four fifths of the budget are spent."""
    frames = batch.images.shape[1]
    if rng.random() < config.predicted_masks:
        depth_m, person = predicted_scene(network, batch)
    else:
        depth_m, person = rough_depth(batch.depth_m.flatten(0, 1)), batch.person.flatten(0, 1).float()
    largest_gap = 1 + min(frames - 2, int((frames - 1) * progress / 0.8))
    return pair_losses(network.pair_pose, batch, depth_m, person, largest_gap, rng)


@torch.no_grad()
def predicted_scene(network: HumanSceneNetwork, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N, H, W) depth and person probability of all frames, each as if it were the first of a stream."""
    was_training, frames = network.training, batch.images.shape[1]
    network.eval()  # the scene is not being trained; neither are its batch statistics
    images = batch.images.flatten(0, 1)
    camera_K = batch.camera_K[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
    scene = network.encode(images)
    nobody = scene.tokens.new_zeros(len(images), 0, network.config.dec_embed_dim)
    taps = network.decode(scene, nobody, scene.positions[:, :0], network.initial_state(len(images)))
    depth_m = network.dense(scene, taps, camera_K, frozenset()).points[..., 2].clamp_min(1e-2)
    mask = network.mask_in_network(network.mask_logits(*network.human_tokens(images, scene)).sigmoid(),
                                   (images.shape[2], images.shape[3]))
    network.train(was_training)
    return depth_m, mask


def pair_losses(head: PairPose, batch: Batch, depth_m: Tensor, person: Tensor, largest_gap: int,
                rng: np.random.Generator) -> dict[str, Tensor]:
    """Terms of pairs of frames at most `largest_gap` apart, by the names of `LossWeights`.

    Args:
        head: In training mode.
        batch: Clips.
        depth_m: (N, H, W) depth as the head will get it, frames flattened.
        person: (N, H, W) probability of people.
        largest_gap: Frames between the two of a pair.
    """
    clips, frames = batch.images.shape[:2]
    first, second = (index.to(batch.images.device) for index in choose_pairs(clips, frames, largest_gap, rng))
    images, true_depth = batch.images.flatten(0, 1), batch.depth_m.flatten(0, 1)
    camera_K = batch.camera_K[:, None].expand(-1, frames, -1, -1).flatten(0, 1)[first]
    described = head.describe(images)
    motion = head(described[first], described[second], depth_m[first], person[first], camera_K)
    T_second_first = relative_poses(batch.T_world_camera.flatten(0, 1), first, second)
    flow, known = true_flow(true_depth[first], true_depth[second], camera_K, T_second_first)
    known &= ~at_cells(batch.person.flatten(0, 1))[first]
    miss = (motion.flow_px - flow).abs().sum(-1).clamp_max(8.0)
    teaches = known.float().mean(dim=1) > MIN_CELLS
    # Over the true scale of the scene: that of the depth given is not the pose's to mend.
    true_scale = at_cells(torch.where(true_depth > 0, true_depth, SKY_M))[first].median(dim=1).values
    T_scaled = T_second_first.clone()
    T_scaled[:, :3, 3] *= (motion.scale / true_scale)[:, None]
    turn, step = motion_errors(motion, T_scaled)
    spread = (turn.detach().square() / (2 * motion.spread[:, 0].square()) + 3 * motion.spread[:, 0].log()
              + step.detach().square() / (2 * motion.spread[:, 1].square()) + 3 * motion.spread[:, 1].log())
    return {"pair_flow": masked_mean(miss / motion.flow_spread_px + 2 * motion.flow_spread_px.log(), known),
            "pair_rotation": masked_mean(turn.clamp_max(0.2), teaches),
            "pair_translation": masked_mean(step.clamp_max(0.5), teaches),
            "pair_spread": masked_mean(spread, teaches)}
