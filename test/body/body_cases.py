"""Bodies and model files that several tests of this folder use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body import skeleton
from human_scene_ros.body.parameters import BodyParameters


def toy_file(folder: Path, drop: str = "", **changes: NDArray) -> Path:
    """A file of the SMPL-X layout with 60 random vertices and joints away from the origin."""
    rng = np.random.default_rng(3)
    n = 60
    regressor = rng.random((55, n))
    weights = rng.random((n, 55)) ** 8
    data = {
        "v_template": rng.normal(0.3, 0.5, (n, 3)), "f": rng.integers(0, n, (90, 3)).astype(np.uint32),
        "shapedirs": rng.normal(0, 0.02, (n, 3, 400)), "posedirs": rng.normal(0, 0.01, (n, 3, 486)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.stack([np.array(skeleton.PARENTS) % 2**32, np.arange(55)]).astype(np.uint32),
        "lmk_faces_idx": rng.integers(0, 90, 51), "lmk_bary_coords": np.full((51, 3), 1 / 3)}
    data.update(changes)
    data.pop(drop, None)
    path = folder / "toy.npz"
    np.savez(path, **data)
    return path


def random_people(rng: np.random.Generator, count: int) -> list[BodyParameters]:
    def draw(n: int, scale: float = 0.4) -> NDArray[np.float32]:
        return rng.normal(0, scale, n).astype(np.float32)

    return [BodyParameters(draw(3, 1.0), draw(3, 2.0), draw(63), draw(45), draw(45), draw(3), draw(3), draw(3),
                           draw(10, 1.0), draw(10, 1.0)) for _ in range(count)]
