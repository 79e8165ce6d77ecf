"""The weights in the package: there, small enough, of the nano preset, and usable."""

from __future__ import annotations

import torch
from tiny_network import images

from human_scene_ros.model.checkpoint import SHIPPED, load_network
from human_scene_ros.model.network import PRODUCT_OUTPUTS
from human_scene_ros.model.presets import PRESETS


def test_nano_ships_with_the_package():
    file = SHIPPED / "nano.safetensors"
    assert file.stat().st_size <= 20e6
    network, info = load_network("nano", expect_preset="nano")
    assert info.path == file
    assert info.note, "the card says in one line what the weights are worth"
    assert network.config.image_width_px == PRESETS["nano"].image_width_px
    assert all(torch.isfinite(v).all() for v in network.state_dict().values())
    output, state = network.step(images(1, 112, 160), None, outputs=PRODUCT_OUTPUTS)
    depth = output.pts3d_in_self_view[..., 2]
    assert torch.isfinite(depth).all()
    assert ((depth > 0.05) & (depth < 500)).all()
    assert torch.isfinite(state.tokens).all()
