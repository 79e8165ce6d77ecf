"""Writes test/golden/network/tiny_stream.npz from this code; run it only after the reference fixtures pass."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[2])]

from tiny_network import OFFICIAL, images, make, with_people  # noqa: E402

SIZE, PEOPLE = (64, 96), (2, 3, 1, 2)
NAMES = ("pts3d_in_self_view", "camera_pose", "pts3d_in_other_view", "smpl_transl", "smpl_rotmat", "smpl_id")


def main() -> None:
    """Four frames: people come and go, frame 1 does not update, frame 2 resets."""
    torch.set_num_threads(1)
    network, state, arrays = make(OFFICIAL), None, {}
    for i, image in enumerate(images(4, *SIZE)):
        with_people(network, image[None], PEOPLE[i])
        output, state = network.step(image[None], state, update=i != 1, reset=i == 2)
        arrays[f"f{i}.threshold"] = np.float64(network.config.detection_threshold)
        for name in NAMES:
            value = getattr(output, name).numpy()
            arrays[f"f{i}.{name}"] = value[:, ::4, ::4] if name.startswith("pts3d") else value
    np.savez_compressed(HERE.parents[1] / "golden" / "network" / "tiny_stream.npz", **arrays)


if __name__ == "__main__":
    main()
