"""One training step's forward pass: the network's own parts, placed by true heads instead of detections.

Teacher forcing keeps the batch dense: every frame of every clip is encoded at once, only the small recurrent
decoder walks through time. Heads and depths of the teacher are jittered by about the network's own errors, so
that the body head learns to mend them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor

from human_scene_ros.body.skeleton import HEAD, PELVIS
from human_scene_ros.body.torch_model import TorchBody, axis_angle_to_matrix
from human_scene_ros.model.formulas import take_cells, to_square_px
from human_scene_ros.model.network import BODY_JOINTS, HumanSceneNetwork
from human_scene_ros.model.types import Bodies, DecoderTaps, SceneTokens, StreamState
from human_scene_ros.training import losses, pair
from human_scene_ros.training.config import TrainConfig
from human_scene_ros.training.data import Batch
from human_scene_ros.training.surface import SurfaceHead

MIN_VISIBLE_FRACTION = 0.2  # a body that is hidden more than this cannot be learned from its pixels


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Truth of B * T frames with P people each, as the losses need it.

    Attributes:
        detectable: (N, P) bool: head visible and the person tall enough.
        fitted: (N, P) bool: detectable and visible enough for a pose.
        uv_px: (N, P, 2) true heads.
        jittered_uv_px: (N, P, 2) heads that place prompts and windows.
        depth_m: (N, P) true head depth.
        jittered_depth_m: (N, P).
    """

    detectable: Tensor
    fitted: Tensor
    uv_px: Tensor
    jittered_uv_px: Tensor
    depth_m: Tensor
    jittered_depth_m: Tensor


def make_teacher(batch: Batch, config: TrainConfig) -> Teacher:
    """Select and jitter; frames are flattened to N = B * T."""
    height, width = batch.images.shape[-2:]
    uv = batch.head_uv_px.flatten(0, 1)
    depth = batch.joints_camera[..., HEAD, 2].flatten(0, 1)
    detectable = (batch.present & batch.head_visible & (batch.height_px >= config.min_person_px)).flatten(0, 1)
    detectable = detectable & (depth > 0.2) & torch.isfinite(uv).all(-1)
    fitted = detectable & (batch.visible_fraction.flatten(0, 1) >= MIN_VISIBLE_FRACTION)
    uv = torch.where(detectable[..., None], uv, uv.new_tensor([width / 2, height / 2]))
    depth = torch.where(detectable, depth, depth.new_tensor(3.0))
    limit = uv.new_tensor([width - 1, height - 1])
    jittered = (uv + config.head_jitter_px * torch.randn_like(uv)).clamp_min(0).minimum(limit)
    return Teacher(detectable, fitted, uv, jittered, depth,
                   depth * torch.exp(config.depth_jitter * torch.randn_like(depth)))


def frame_of(scene: SceneTokens, clips: int, index: int) -> SceneTokens:
    """The scene tokens of frame `index` of every clip, out of (clips * frames) flattened ones; no pyramid."""
    def pick(x: Tensor) -> Tensor:
        return x.unflatten(0, (clips, -1))[:, index]

    return SceneTokens(pick(scene.tokens), pick(scene.positions), scene.grid, None)


def triangular_wave(step: int, frames: int) -> int:
    """0, 1, ..., frames - 1, frames - 2, ..., 0, 1, ...: a clip watched forwards and backwards."""
    if frames == 1:
        return 0
    phase = step % (2 * frames - 2)
    return phase if phase < frames else 2 * frames - 2 - phase


def decode_clips(network: HumanSceneNetwork, scene: SceneTokens, prompts: Tensor, positions: Tensor, valid: Tensor,
                 clips: int, burn_in: int) -> DecoderTaps:
    """Unroll the recurrent decoder over the frames; taps come back flattened to (clips * frames).

    The state first lives through `burn_in` frames without gradients, so that it is trained to stay useful
    for longer than a clip.
    """
    frames = len(scene.tokens) // clips

    def pick(x: Tensor, index: int) -> Tensor:
        return x.unflatten(0, (clips, frames))[:, index]

    def advance(state: StreamState, index: int) -> tuple[DecoderTaps, StreamState]:
        taps = network.decode(frame_of(scene, clips, index), pick(prompts, index), pick(positions, index), state,
                              valid=pick(valid, index))
        return taps, network.next_state(state, taps)

    state = network.initial_state(clips)
    if burn_in:
        with torch.no_grad():
            for step in range(burn_in, 0, -1):
                state = advance(state, triangular_wave(step, frames))[1]
        state = state.detached()
    collected = []
    for index in range(frames):
        taps, state = advance(state, index)
        collected.append(taps)

    def join(name: str) -> Tensor:
        return torch.stack([getattr(t, name) for t in collected], dim=1).flatten(0, 1)

    return dataclasses.replace(collected[-1], half=join("half"), three_quarter=join("three_quarter"),
                               final=join("final"), pose_query=join("pose_query"))


def clip_losses(network: HumanSceneNetwork, body: TorchBody, batch: Batch, config: TrainConfig,
                rng: np.random.Generator, burn_in: int, progress: float = 1.0,
                surface: SurfaceHead | None = None) -> dict[str, Tensor]:
    """All loss terms of a batch of clips, by the names of `LossWeights`; `progress` is the part of the budget spent,
    `surface` gives dense terms to a window head."""
    if config.stage == "pose":
        return pair.clip_pair_losses(network, batch, config, rng, progress)
    clips, frames = batch.images.shape[:2]
    size = (batch.images.shape[-2], batch.images.shape[-1])
    images = batch.images.flatten(0, 1)
    camera_K = batch.camera_K[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
    teacher = make_teacher(batch, config)
    if config.stage == "prompt":
        return prompt_losses(network, body, batch, teacher, images, camera_K, burn_in)
    if config.stage == "bodies":
        predicted_mask = rng.random() < config.predicted_masks
        return _window_losses(network, body, batch, teacher, images, camera_K, predicted_mask, surface)

    scene = network.encode(images)
    human, grid = network.human_tokens(images, scene)
    patch = network.config.backbone.patch_px
    limit = torch.tensor([grid[0] - 1, grid[1] - 1], device=images.device)
    cells = ((teacher.jittered_uv_px + 0.5) / patch).floor().long().flip(-1).clamp_min(0).minimum(limit)
    human_cells = take_cells(human, cells, grid)
    patches = network.scene_patches(teacher.jittered_uv_px, size)
    prompts = network.prompts(human_cells, take_cells(scene.tokens, patches, scene.grid))
    taps = decode_clips(network, scene, prompts, patches, teacher.detectable, clips, burn_in)

    dense = network.dense(scene, taps, camera_K, frozenset())
    mask_logits = network.mask_logits(human, grid)
    logits = network.detect(human, grid).logits.transpose(1, 2).unflatten(2, grid).squeeze(1)
    loc = network.head_locations(human_cells, cells)

    target_depth = batch.depth_m.flatten(0, 1)
    log_depth = dense.points[..., 2].clamp_min(1e-3).log()
    terms = {"depth": losses.log_depth(log_depth, dense.confidence, target_depth),
             "depth_gradient": losses.depth_gradient(log_depth, target_depth),
             "mask": losses.person_mask(mask_logits, batch.person.flatten(0, 1)),
             "detection": _detection(logits, batch, teacher, patch),
             "offset": losses.masked_mean((loc - teacher.uv_px).abs().mean(-1) / patch, teacher.detectable),
             "head_depth": losses.masked_mean(
                 (network.head_depth(taps, camera_K) / teacher.depth_m).log().abs(), teacher.detectable)}
    if config.stage == "scene":
        return terms
    bodies = network.bodies(taps, human_cells, images=images, mask=mask_logits.sigmoid(),
                            loc=teacher.jittered_uv_px, camera_K=camera_K, depth_m=teacher.jittered_depth_m,
                            valid=teacher.detectable)
    return terms | _body_terms(body, bodies, batch, teacher, camera_K) | _surface_terms(
        surface, bodies, batch, teacher, camera_K)


def prompt_losses(network: HumanSceneNetwork, body: TorchBody, batch: Batch, teacher: Teacher, images: Tensor,
                  camera_K: Tensor, burn_in: int) -> dict[str, Tensor]:
    """Terms of prompt tuning: bodies of a token head at true heads, and the person mask.

    The human image is the padded square of the official human branch; the head lies in the token of its true place.
    """
    size, clips = (images.shape[2], images.shape[3]), len(batch.images)
    patch = network.config.backbone.patch_px
    with torch.no_grad():  # all of this is frozen
        scene = network.encode(images)
        human, grid = network.human_tokens(images, scene)
    uv_square = to_square_px(teacher.jittered_uv_px, network.config.backbone.image_px, size)
    limit = torch.tensor([grid[0] - 1, grid[1] - 1], device=images.device)
    cells = (uv_square / patch).floor().long().flip(-1).clamp_min(0).minimum(limit)
    human_cells = take_cells(human, cells, grid)
    patches = network.scene_patches(uv_square, size)
    prompts = network.prompts(human_cells, take_cells(scene.tokens, patches, scene.grid))
    taps = decode_clips(network, scene, prompts, patches, teacher.detectable, clips, burn_in)
    bodies = network.bodies(taps, human_cells)

    rotations = axis_angle_to_matrix(batch.pose.flatten(0, 1)[..., :BODY_JOINTS, :])
    truth = batch.joints_camera.flatten(0, 1)[..., :BODY_JOINTS, :]
    predicted = bodies.rotmat[..., :BODY_JOINTS, :, :]
    others = torch.eye(3, device=predicted.device).expand(*predicted.shape[:2], 55 - BODY_JOINTS, 3, 3)
    joints = body.joints(torch.cat([predicted, others], dim=2), bodies.shape, bodies.expression)[..., :BODY_JOINTS, :]
    joints = joints - joints[..., HEAD:HEAD + 1, :] + bodies.transl[..., None, :]
    error = (joints - joints[..., :1, :]) - (truth - truth[..., :1, :])
    per_joint, fitted = losses.rotation(predicted, rotations), teacher.fitted

    def pixels(points: Tensor) -> Tensor:
        seen = torch.einsum("nij,npkj->npki", camera_K, points)
        return seen[..., :2] / seen[..., 2:].clamp_min(0.1)

    error_uv = (pixels(joints) - pixels(truth)).abs().mean(-1) / size[1]
    mask_logits = network.mask_in_network(network.mask_logits(human, grid), size)
    return {
        "mask": losses.person_mask(mask_logits, batch.person.flatten(0, 1)),
        "head_depth": losses.masked_mean(
            (bodies.transl[..., 2].clamp_min(0.1) / teacher.depth_m).log().abs(), teacher.detectable),
        "root_rotation": losses.masked_mean(per_joint[..., 0], fitted),
        "rotation": losses.masked_mean(per_joint[..., 1:].mean(-1), fitted),
        "joints": losses.masked_mean(error.abs().sum(-1).mean(-1), fitted),
        "image_joints": losses.masked_mean(error_uv.clamp_max(1.0), fitted[..., None] & (truth[..., 2] > 0.1)),
        "betas": losses.masked_mean((bodies.shape - batch.betas.flatten(0, 1)).abs().mean(-1), fitted),
    }


def _window_losses(network: HumanSceneNetwork, body: TorchBody, batch: Batch, teacher: Teacher, images: Tensor,
                   camera_K: Tensor, predicted_mask: bool, surface: SurfaceHead | None) -> dict[str, Tensor]:
    """The window head alone: no tokens, and for a mask the truth, roughened, or what a trained scene predicts."""
    frames, people = teacher.detectable.shape
    taps = DecoderTaps.only_people(images.new_zeros(frames, people, network.config.dec_embed_dim))
    mask = _predicted_mask(network, images) if predicted_mask else _rough_mask(batch.person.flatten(0, 1))
    bodies = network.bodies(taps, taps.human_out, images=images, mask=mask, loc=teacher.jittered_uv_px,
                            camera_K=camera_K, depth_m=teacher.jittered_depth_m, valid=teacher.fitted)
    return _body_terms(body, bodies, batch, teacher, camera_K) | _surface_terms(
        surface, bodies, batch, teacher, camera_K)


def _surface_terms(surface: SurfaceHead | None, bodies: Bodies, batch: Batch, teacher: Teacher,
                   camera_K: Tensor) -> dict[str, Tensor]:
    fit = bodies.window
    if surface is None or fit is None:
        return {}
    known = teacher.fitted[fit.rows, fit.slots]
    rows, slots = fit.rows[known], fit.slots[known]
    return surface.terms(
        fit.features[known], teacher.jittered_uv_px[rows, slots], fit.width_px[rows, slots],
        batch.depth_m.flatten(0, 1)[rows], batch.person.flatten(0, 1)[rows], camera_K[rows],
        axis_angle_to_matrix(batch.pose.flatten(0, 1)[rows, slots]), batch.betas.flatten(0, 1)[rows, slots],
        batch.joints_camera.flatten(0, 1)[rows, slots, PELVIS])


def _rough_mask(person: Tensor) -> Tensor:
    mask = F.avg_pool2d(person.float()[:, None], 5, stride=1, padding=2)[:, 0]
    return (mask + 0.15 * torch.randn_like(mask)).clamp(0, 1) * (torch.rand(len(mask), 1, 1, device=mask.device) > 0.1)


@torch.no_grad()
def _predicted_mask(network: HumanSceneNetwork, images: Tensor) -> Tensor:
    network.patch_embed.eval()  # the scene is not being trained; neither are its batch statistics
    network.backbone.eval()
    return network.mask_logits(*network.human_tokens(images, network.encode(images))).sigmoid()


def _detection(logits: Tensor, batch: Batch, teacher: Teacher, patch: int) -> Tensor:
    height, width = logits.shape[-2:]
    target = losses.heat_map((teacher.uv_px + 0.5) / patch, teacher.detectable, height, width)
    # People whose head is hidden or who are too small are neither right nor wrong.
    undecided = batch.present.flatten(0, 1) & ~teacher.detectable
    uv = torch.nan_to_num(batch.head_uv_px.flatten(0, 1), nan=-1e4)
    ignore = losses.heat_map((uv + 0.5) / patch, undecided, height, width) > 0.2
    return losses.detection(logits, target, ignore & (target < 0.999))


def _body_terms(body: TorchBody, bodies: Bodies, batch: Batch, teacher: Teacher, camera_K: Tensor) -> dict[str, Tensor]:
    fit, fitted = bodies.window, teacher.fitted
    assert fit is not None, "these terms are for the window body head"
    rotations = axis_angle_to_matrix(batch.pose.flatten(0, 1)[..., :BODY_JOINTS, :])
    betas = batch.betas.flatten(0, 1)
    truth = batch.joints_camera.flatten(0, 1)[..., :BODY_JOINTS, :]

    predicted = bodies.rotmat[..., :BODY_JOINTS, :, :]
    others = torch.eye(3, device=predicted.device).expand(*predicted.shape[:2], 55 - BODY_JOINTS, 3, 3)
    upright = torch.cat([others[:, :, :1], predicted[:, :, 1:], others], dim=2)
    joints_body = body.joints(upright, bodies.shape, bodies.expression)[..., :BODY_JOINTS, :]
    joints_body = joints_body - joints_body[..., :1, :]
    truth_camera = truth - truth[..., :1, :]
    # As the body itself sees its limbs: a doubt about which way it faces must not fold them onto the middle.
    error_body = joints_body - torch.einsum("npji,npkj->npki", rotations[..., 0, :, :], truth_camera)
    error_camera = torch.einsum("npij,npkj->npki", predicted[:, :, 0], joints_body) - truth_camera

    height, width = batch.images.shape[-2:]
    homogeneous = torch.einsum("nij,npkj->npki", camera_K, truth)
    truth_uv = homogeneous[..., :2] / homogeneous[..., 2:].clamp_min(0.1)
    # Joints outside the picture are guesses; they teach the rotations, but not where to look.
    limit = truth_uv.new_tensor([width, height]) - 0.5
    inside = (truth[..., 2] > 0.1) & ((truth_uv > -0.5) & (truth_uv < limit)).all(-1)
    error_uv = ((fit.joints_uv_px - truth_uv) / fit.width_px[..., None, None]).abs().clamp_max(2.0).mean(-1)
    error_z = (fit.joints_behind_head_m - (truth[..., 2] - teacher.depth_m[..., None])).abs().clamp_max(1.0)

    per_joint = losses.rotation(predicted, rotations)
    uv_error = ((fit.refined_uv_px - teacher.uv_px) / fit.width_px[..., None]).abs().mean(-1)
    depth_error = (fit.refined_depth_m / teacher.depth_m).log().abs()
    return {
        "refine": losses.masked_mean(4.0 * uv_error + depth_error, fitted),
        "root_rotation": losses.masked_mean(per_joint[..., 0], fitted),
        "rotation": losses.masked_mean(per_joint[..., 1:].mean(-1), fitted),
        "joints": losses.masked_mean(error_camera.abs().sum(-1).mean(-1), fitted),
        "body_joints": losses.masked_mean(error_body.abs().sum(-1).mean(-1), fitted),
        "image_joints": losses.masked_mean(error_uv + 0.5 * error_z, fitted[..., None] & inside),
        "betas": losses.masked_mean((bodies.shape - betas).abs().mean(-1), fitted),
    }
