"""SMPL-X-layout parameters of one person, as plain arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.arrays import check_shape

Vector = NDArray[np.float32]


def _zeros(n: int) -> Any:
    return dataclasses.field(default_factory=lambda: np.zeros(n, np.float32))


@dataclasses.dataclass(frozen=True)
class BodyParameters:
    """Axis-angle rotations (radians) in SMPL-X order, hands absolute (`flat_hand_mean=True`, no PCA).

    Args:
        global_orient: (3,) SMPL-X axes -> the frame of the parameters (camera unless a name says otherwise).
        transl: (3,) metres; SMPL-X's `transl`: pelvis = J0(betas) + transl.
        body_pose: (63,) joints 1..21.
        left_hand_pose: (45,) 15 joints.
        right_hand_pose: (45,) 15 joints.
        jaw_pose: (3,).
        leye_pose: (3,).
        reye_pose: (3,).
        betas: (B,) shape coefficients, at least one.
        expression: (E,) expression coefficients.
    """

    global_orient: Vector = _zeros(3)
    transl: Vector = _zeros(3)
    body_pose: Vector = _zeros(63)
    left_hand_pose: Vector = _zeros(45)
    right_hand_pose: Vector = _zeros(45)
    jaw_pose: Vector = _zeros(3)
    leye_pose: Vector = _zeros(3)
    reye_pose: Vector = _zeros(3)
    betas: Vector = _zeros(10)
    expression: Vector = _zeros(10)

    def __post_init__(self) -> None:
        for name, n in (("global_orient", 3), ("transl", 3), ("body_pose", 63), ("left_hand_pose", 45),
                        ("right_hand_pose", 45), ("jaw_pose", 3), ("leye_pose", 3), ("reye_pose", 3),
                        ("betas", None), ("expression", None)):
            check_shape(name, getattr(self, name), (n,))

    def full_pose(self) -> NDArray[np.float32]:
        """(55, 3) axis-angle in skinning order: root, 21 body, jaw, eyes, left hand, right hand."""
        return np.concatenate([
            self.global_orient, self.body_pose, self.jaw_pose, self.leye_pose, self.reye_pose,
            self.left_hand_pose, self.right_hand_pose]).reshape(55, 3)
