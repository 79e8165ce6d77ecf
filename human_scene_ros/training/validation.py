"""Losses and signs of life on fixed worlds that no training sees, while a run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from human_scene_ros.body.torch_model import TorchBody
from human_scene_ros.model.formulas import soft_sigmoid
from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.types import DecoderTaps
from human_scene_ros.synthetic.dataset import list_shards, open_shard, write_shards
from human_scene_ros.synthetic.world import WorldConfig
from human_scene_ros.training.config import TrainConfig
from human_scene_ros.training.data import Batch, load_clips
from human_scene_ros.training.teacher import clip_losses, make_teacher

SEED = 910_000
"""First world of the validation; `human-scene synthesize` must be given other seeds."""

CLIPS_PER_BATCH = 4
SPREAD_FLOOR = 0.05
"""A head whose results vary by less than this part of what the truth varies has collapsed to its mean."""


def validation_batches(folder: Path, config: TrainConfig, size: tuple[int, int]) -> list[Batch]:
    """The fixed clips of (height, width) pixels, rendered into `folder` at the first call of a run."""
    if not list_shards(folder):
        write_shards(folder, SEED, config.validation_clips, config.clip_frames,
                     WorldConfig(width=size[1], height=size[0]))
    batches = []
    for path in list_shards(folder):
        shard = open_shard(path)
        clips, frames = shard["images"].shape[:2]
        for first in range(0, clips, CLIPS_PER_BATCH):
            batches.append(load_clips(shard, np.arange(first, min(first + CLIPS_PER_BATCH, clips)),
                                      np.arange(min(frames, config.clip_frames))))
    return batches


@torch.no_grad()
def validate(network: HumanSceneNetwork, body: TorchBody, batches: list[Batch], config: TrainConfig,
             device: str) -> dict[str, float | list[str]]:
    """Mean of each loss term, the weighted `loss`, and `warnings` about collapsed heads.

    The same draws of jitter each time, and the caller's random state and the network's mode are as before.
    """
    was_training = network.training
    network.eval()
    sums: dict[str, list[float]] = {}
    signs: list[dict[str, float]] = []
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(0)
        for batch in batches:
            batch = batch.to(device)
            for name, value in clip_losses(network, body, batch, config, np.random.default_rng(0), 0).items():
                sums.setdefault(name, []).append(float(value))
            signs.append(signs_of_life(network, batch, config))
    network.train(was_training)
    terms: dict[str, float | list[str]] = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
    terms["loss"] = round(sum(getattr(config.weights, n) * float(np.mean(v)) for n, v in sums.items()), 4)
    mean = {name: float(np.nanmean([s[name] for s in signs if name in s])) for name in {n for s in signs for n in s}}
    terms["warnings"] = collapsed(mean)  # type: ignore[assignment]
    return terms


def signs_of_life(network: HumanSceneNetwork, batch: Batch, config: TrainConfig) -> dict[str, float]:
    """How much the heads that this stage trains do, and what the truth asks for; NaN where a batch cannot tell."""
    images = batch.images.flatten(0, 1)
    frames = batch.images.shape[1]
    camera_K = batch.camera_K[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
    teacher = make_teacher(batch, config)
    signs: dict[str, float] = {}
    if config.stage in ("scene", "all"):
        scene = network.encode(images)
        human, grid = network.human_tokens(images, scene)
        fired = network.head_scores(human, grid)[1] >= network.config.detection_threshold
        signs |= {"heads": float(fired.sum()) / len(images),
                  "true_heads": float(teacher.detectable.sum()) / len(images)}
        mask = soft_sigmoid(network.mask_logits(human, grid)) > 0.5
        signs |= {"mask": float(mask.float().mean()), "true_mask": float(batch.person.float().mean())}
        depth = torch.cat([network.step(image[None], None, camera_K=K)[0].pts3d_in_self_view[..., 2]
                           for image, K in zip(images[::frames], camera_K[::frames], strict=True)])
        true = batch.depth_m[:, 0]
        signs |= {"depth": float(depth.clamp_min(1e-3).log().flatten(1).std(dim=1).mean()),
                  "true_depth": float(torch.where(true > 0, true, true.amax()).log().flatten(1).std(dim=1).mean())}
    if config.stage in ("bodies", "all") and int(teacher.fitted.sum()) > 2:
        people = teacher.fitted.shape[1]
        taps = DecoderTaps.only_people(images.new_zeros(len(images), people, network.config.dec_embed_dim))
        fit = network.bodies(taps, taps.human_out, images=images, mask=batch.person.flatten(0, 1).float(),
                             loc=teacher.uv_px, camera_K=camera_K, depth_m=teacher.depth_m,
                             valid=teacher.fitted).window
        assert fit is not None, "these stages are for window heads"
        true_z = batch.joints_camera.flatten(0, 1)[..., :22, 2] - teacher.depth_m[..., None]
        signs |= {"joints": float(fit.joints_behind_head_m[teacher.fitted].std(dim=0).mean()),
                  "true_joints": float(true_z[teacher.fitted].std(dim=0).mean())}
    return signs


def collapsed(signs: dict[str, float]) -> list[str]:
    """What has gone wrong, in words; nothing for a healthy network.

    Args:
        signs: Means of `signs_of_life`: each name with its `true_` counterpart.
    """
    told = []
    if "heads" in signs and signs["true_heads"] > 0:
        if signs["heads"] < 0.05 * signs["true_heads"]:
            told.append(f"the detector fires nowhere: {signs['heads']:.2f} heads a frame of {signs['true_heads']:.2f}; "
                        "normal in the first minutes, else raise weights.detection or lower the learning rate")
        elif signs["heads"] > 8.0 * signs["true_heads"] + 2.0:
            told.append(f"the detector fires everywhere: {signs['heads']:.1f} heads a frame of "
                        f"{signs['true_heads']:.2f}; more worlds without people, or a lower learning rate")
    if "mask" in signs and signs["true_mask"] > 0 and not 0.02 < signs["mask"] / signs["true_mask"] < 20.0:
        told.append(f"the person mask covers {100 * signs['mask']:.1f} % of the pixels, people "
                    f"{100 * signs['true_mask']:.1f} %: nobody or everything is a person")
    for name, text in (("depth", "depth is one value per image"), ("joints", "joints stand still at their mean")):
        if name in signs and signs[name] < SPREAD_FLOOR * signs[f"true_{name}"]:
            told.append(f"{text}: spread {signs[name]:.3f} of {signs[f'true_{name}']:.3f}; a lower learning rate, or "
                        f"look at the data")
    return told
