"""Named network configurations."""

from __future__ import annotations

import dataclasses

from human_scene_ros.errors import ConfigError
from human_scene_ros.model.network import BackboneConfig, DptConfig, NetworkConfig

VIT_S = BackboneConfig(embed_dim=384, depth=12, num_heads=6, image_px=672)
VIT_B = BackboneConfig(embed_dim=768, depth=12, num_heads=12, image_px=672)
VIT_L = BackboneConfig(embed_dim=1024, depth=24, num_heads=16, image_px=672)

PRESETS: dict[str, NetworkConfig] = {
    "nano": NetworkConfig(
        name="nano", image_width_px=160, patch_embed="stem", stem_dims=(16, 32, 64),
        enc_embed_dim=128, enc_depth=4, enc_num_heads=4,
        dec_embed_dim=128, dec_depth=2, dec_num_heads=4, state_dec_num_heads=4, state_size=32,
        head_hidden_ratio=1.0, backbone=BackboneConfig(kind="pyramid", embed_dim=96, patch_px=8),
        dpt=DptConfig(feature_dim=32, last_dim=16, layer_dims=(32, 64, 96, 96), taps="stem", output_stride=2),
        pose_memory=False, pose_head=False, world_head=False, rgb_head=False, dense="ray_depth",
        body_head="window", detection_threshold=0.2, birth_threshold=0.34,
        track_bank_cap=64, unused_keys=False),
    "human3r_672s": NetworkConfig(name="human3r_672s", backbone=VIT_S),
    "human3r_672b": NetworkConfig(name="human3r_672b", backbone=VIT_B),
    "human3r_672l": NetworkConfig(name="human3r_672l", backbone=VIT_L),
    "human3r_896l": NetworkConfig(name="human3r_896l", backbone=dataclasses.replace(VIT_L, image_px=896)),
}


def preset(name: str) -> NetworkConfig:
    """The configuration of that name.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"model.preset = {name!r}: expected one of {sorted(PRESETS)}")
    return PRESETS[name]
