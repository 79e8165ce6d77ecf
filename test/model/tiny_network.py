"""Small networks with weights that depend on names and a seed only, for tests of the network."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch

from human_scene_ros.model.network import BackboneConfig, DptConfig, HumanSceneNetwork, NetworkConfig

# Official structure, every part on; widths are small and unlike each other, so that mixed-up ones do not fit.
OFFICIAL = NetworkConfig(
    name="tiny", image_width_px=96, enc_embed_dim=24, enc_depth=2, enc_num_heads=2, dec_embed_dim=16, dec_depth=4,
    dec_num_heads=4, state_dec_num_heads=2, state_size=10, local_mem_size=6,
    backbone=BackboneConfig(embed_dim=20, depth=2, num_heads=2, image_px=112, table_side=6),
    dpt=DptConfig(feature_dim=8, last_dim=4, layer_dims=(4, 6, 8, 10)))
# The nano structure, narrower.
NANO = NetworkConfig(
    name="tiny_nano", image_width_px=96, patch_embed="stem", stem_dims=(4, 6, 8), enc_embed_dim=16, enc_depth=1,
    enc_num_heads=2, dec_embed_dim=24, dec_depth=2, dec_num_heads=2, state_dec_num_heads=3, state_size=6,
    head_hidden_ratio=1.0, backbone=BackboneConfig(kind="pyramid", embed_dim=12, patch_px=8),
    dpt=DptConfig(feature_dim=6, last_dim=4, layer_dims=(4, 6, 8, 10), taps="stem", output_stride=2),
    pose_memory=False, pose_head=False, world_head=False, rgb_head=False, dense="ray_depth", body_head="window",
    unused_keys=False)


def make(config: NetworkConfig, seed: int = 0, **changes: object) -> HumanSceneNetwork:
    """A network in eval mode; every tensor is drawn by numpy from its own name, stable over torch versions."""
    network = HumanSceneNetwork(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            rng = np.random.default_rng([seed, zlib.crc32(name.replace("layer_rn.0", "layer1_rn").encode())])
            fan_in = value[0].numel() if value.ndim > 1 else 16
            noise = torch.from_numpy(rng.normal(0, fan_in**-0.5, tuple(value.shape)).astype(np.float32))
            if name.endswith("init_body_pose"):
                continue
            is_gain = value.ndim == 1 and name.endswith(("weight", "gamma", "running_var"))
            value.copy_(noise.abs() + 0.7 if is_gain else noise)
    return network.eval().requires_grad_(False)


def images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(count, 3, height, width) smooth random images in [-1, 1]."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, 1, (count, 3, height // 8, width // 8)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(-1, 1)


def with_people(network: HumanSceneNetwork, image: torch.Tensor, count: int) -> HumanSceneNetwork:
    """Set the detection threshold so that `count` people are found in the image; returns the network."""
    with torch.no_grad():
        human, grid = network.human_tokens(image, network.encode(image))
        found = network.detect(human, grid)
    scores = found.scores.flatten().sort(descending=True).values
    assert scores[count] < scores[count - 1], "two equal scores: take another seed"
    threshold = float((scores[count - 1] + scores[count]) / 2)
    network.config = dataclasses.replace(network.config, detection_threshold=threshold)
    return network
