"""Joint positions of many people at once from rotations and bone vectors; a tree, in products of doubling length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body import skeleton
from human_scene_ros.body.model import BodyModel
from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.arrays import check_shape

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_IDENTITY = np.eye(3)


class Skeleton:
    """A kinematic tree whose bone vectors depend linearly on betas.

    Args:
        parents: J indices, -1 for the root, which comes first; parents precede their children.
        template: (J, 3) bone vectors from the parent's joint in the rest pose, metres; the root's is not used.
        directions: (J, 3, B) change of the bone vectors per beta, or None.
        head: Index of the head joint.
    """

    def __init__(self, parents: Sequence[int], template: NDArray[np.floating],
                 directions: NDArray[np.floating] | None = None, head: int = skeleton.HEAD) -> None:
        if not len(parents) or parents[0] != -1 or any(not 0 <= p < j for j, p in enumerate(parents) if j):
            raise ShapeError(f"parents {list(parents)} is not a tree with the root first and parents before children")
        check_shape("template", template, (len(parents), 3))
        self.parents = tuple(int(p) for p in parents)
        self.head = head
        self._template = np.asarray(template, np.float64)
        self._directions = None if directions is None else np.asarray(directions, np.float64)
        # positions = ancestry @ turned bone vectors: one product instead of a walk
        self._ancestry = np.zeros((len(parents), len(parents)))
        for j in range(len(parents)):
            k = j
            while k > 0:
                self._ancestry[j, k] = 1.0
                k = self.parents[k]
        # Joints without children never turn anything. Of the others each product of rotations down from the root is
        # found by doubling: of 1, 2, 4, ... joints at once. Place `nobody` stands for what is above the root.
        inner = sorted({p for p in self.parents if p >= 0} | {0})
        place, nobody = {joint: i for i, joint in enumerate(inner)}, len(inner)
        self._inner_and_nobody = np.array([*inner, 0])
        self._turned_by = np.array([place[max(p, 0)] for p in self.parents])
        above = np.array([place.get(self.parents[j], nobody) for j in inner] + [nobody])
        self._doublings: list[Index] = []
        while (above != nobody).any():
            self._doublings.append(above)
            above = above[above]

    @classmethod
    def from_body_model(cls, model: BodyModel, joints: int = 22) -> Skeleton:
        """The first joints (22 = the body without jaw, eyes and hands) of a skinned body model."""
        parents = np.array(model.parents[:joints])
        above = np.maximum(parents, 0)
        template = np.asarray(model.joint_template[:joints], np.float64)
        directions = np.asarray(model.joint_shapedirs[:joints, :, :model.num_betas], np.float64)
        return cls(parents.tolist(), template - template[above], directions - directions[above])

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)

    def bones(self, betas: NDArray[np.floating]) -> Array:
        """(N, b) betas, b up to B -> (N, J, 3) bone vectors, metres."""
        n = len(betas)
        if self._directions is None:
            return np.broadcast_to(self._template, (n, *self._template.shape))
        b = min(np.shape(betas)[1], self._directions.shape[2])
        return self._template + np.tensordot(np.asarray(betas, np.float64)[:, :b], self._directions[:, :, :b],
                                             axes=(1, 2))

    def positions(self, rotations: NDArray[np.floating], bones: NDArray[np.floating]) -> Array:
        """Joints relative to the root joint.

        Args:
            rotations: (N, J, 3, 3); the first is the root's, the others are relative to their parents.
            bones: (N, J, 3).

        Returns:
            (N, J, 3) in the frame that the root rotation leads to; the root is at 0.
        """
        world = np.asarray(rotations, np.float64).take(self._inner_and_nobody, axis=1)
        world[:, -1] = _IDENTITY
        for above in self._doublings:
            world = world.take(above, axis=1) @ world
        turned = (world.take(self._turned_by, axis=1) @ np.asarray(bones, np.float64)[..., None])[..., 0]
        return self._ancestry @ turned
