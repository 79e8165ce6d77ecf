"""Prompt tuning: which parts of an official checkpoint learn.

As in Human3R (arXiv 2510.06219, section 3): CUT3R's encoder, decoder and scene heads and the human backbone with its
detector stay bit for bit as they are; what learns is the projection of human prompts, the body heads and the mask.
"""

from __future__ import annotations

from human_scene_ros.errors import ConfigError
from human_scene_ros.model.network import HumanSceneNetwork

TUNED = ("mlp_fuse", "decpose", "decshape", "decexpression", "deccam", "mlp_msk")


def freeze_all_but_prompts(network: HumanSceneNetwork) -> list[str]:
    """Leave gradients only to the parts in `TUNED`; returns the names of their parameters.

    Raises:
        ConfigError: The network has no token body head to tune.
    """
    if network.config.body_head != "token":
        raise ConfigError(f"prompt tuning is for networks with a token body head; '{network.config.name}' has a "
                          f"'{network.config.body_head}' head: train it with the presets nano-*")
    tuned = tuple(f"downstream_head.{part}." for part in TUNED)
    names = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(tuned))
        if parameter.requires_grad:
            names.append(name)
    return names
