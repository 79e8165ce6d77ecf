"""The same body models in torch: differentiable, any leading dimensions, joints without vertices.

`TorchBody` computes what `body.model` computes, to float rounding (tested). Rotations come as matrices,
because that is what networks give and what gradients like.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import Tensor, nn

from human_scene_ros.body import skeleton
from human_scene_ros.body.model import BodyModel, body_mesh
from human_scene_ros.errors import BodyModelError


class TorchBody(nn.Module):
    """A body model as constant buffers; it has no parameters. SMPL-X axes, metres.

    Args:
        model: What to pose.
        lod: Level of detail of the vertices that `forward` returns; joints never depend on it.
    """

    faces: Tensor
    template: Tensor
    directions: Tensor
    weights: Tensor
    pose_directions: Tensor | None
    joint_template: Tensor
    joint_directions: Tensor
    keypoint_vertices: Tensor
    landmark_faces: Tensor
    landmark_weights: Tensor

    def __init__(self, model: BodyModel, lod: int = 0) -> None:
        super().__init__()
        mesh = body_mesh(model, lod)
        self._model = model
        self._full_mesh = len(mesh.vertex_index) == len(model.v_template)
        constants = {
            "faces": mesh.faces, "template": mesh.template, "directions": mesh.directions.T,
            "weights": mesh.skin.toarray(),
            "pose_directions": None if mesh.pose_directions is None else mesh.pose_directions.T,
            "joint_template": model.joint_template, "joint_directions": model.joint_shapedirs.reshape(165, -1).T,
            "keypoint_vertices": model.keypoint_vertices, "landmark_faces": model.landmark_faces,
            "landmark_weights": model.landmark_weights}
        for name, array in constants.items():  # not part of checkpoints: the model file is their source
            tensor = None if array is None else torch.from_numpy(np.array(array, order="C"))
            self.register_buffer(name, tensor, persistent=False)

    def rest_joints(self, betas: Tensor, expression: Tensor | None = None) -> Tensor:
        """(..., b) betas and (..., e) expression -> (..., 55, 3) joints of the zero pose."""
        moved = self._coefficients(betas, expression) @ self.joint_directions
        return self.joint_template + moved.unflatten(-1, (55, 3))

    def joints(self, rotmats: Tensor, betas: Tensor, expression: Tensor | None = None,
               transl: Tensor | None = None) -> Tensor:
        """Joints without vertices.

        Args:
            rotmats: (..., J, 3, 3) rotation of each joint relative to its parent, root first; J is 55, or fewer
                to get only the first J joints (22 = the body without jaw, eyes and hands).
            betas: (..., b), b <= number of the model's.
            expression: (..., e) or None.
            transl: (..., 3) metres, SMPL-X's `transl`, or None = 0.

        Returns:
            (..., J, 3) metres.
        """
        rest = self.rest_joints(betas, expression)[..., :rotmats.shape[-3], :]
        posed = forward_kinematics(rotmats, rest)[1]
        return posed if transl is None else posed + transl[..., None, :]

    def forward(self, rotmats: Tensor, betas: Tensor, expression: Tensor | None = None,
                transl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Joints (..., 55, 3) and vertices (..., V', 3); arguments as in `joints`, with all 55 rotations."""
        rest = self.rest_joints(betas, expression)
        rotation, joints = forward_kinematics(rotmats, rest)
        if transl is not None:
            joints = joints + transl[..., None, :]
        moved = self._coefficients(betas, expression) @ self.directions
        shaped = self.template + moved.unflatten(-1, (-1, 3))
        if self.pose_directions is not None:
            identity = torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
            feature = (rotmats[..., 1:, :, :] - identity).flatten(-3)
            shaped = shaped + (feature @ self.pose_directions).unflatten(-1, (-1, 3))
        offset = joints - (rotation @ rest[..., None])[..., 0]
        transform = torch.cat([rotation.flatten(-2), offset], dim=-1)
        blended = self.weights @ transform
        vertices = (blended[..., :9].unflatten(-1, (3, 3)) @ shaped[..., None])[..., 0] + blended[..., 9:]
        return joints, vertices

    def _coefficients(self, betas: Tensor, expression: Tensor | None) -> Tensor:
        """(..., B + E), zeros where the caller gave none."""
        if expression is None:
            expression = betas.new_zeros(*betas.shape[:-1], 0)
        self._model.check_count("betas", betas.shape[-1])
        self._model.check_count("expression", expression.shape[-1])
        missing = (self._model.num_betas - betas.shape[-1], self._model.num_expression - expression.shape[-1])
        return torch.cat([nn.functional.pad(betas, (0, missing[0])),
                          nn.functional.pad(expression, (0, missing[1]))], dim=-1)

    def all_joints(self, joints: Tensor, vertices: Tensor) -> Tensor:
        """The (..., 127, 3) joints of SMPL-X tools from what `forward` returns; needs level of detail 0.

        Raises:
            BodyModelError: The vertices are those of a reduced mesh.
        """
        if not self._full_mesh:
            raise BodyModelError(f"the 127 joints need the full mesh; got {vertices.shape[-2]} vertices of a "
                                 f"reduced one: make TorchBody with lod=0")
        landmarks = (vertices[..., self.landmark_faces, :] * self.landmark_weights[..., None]).sum(dim=-2)
        return torch.cat([joints, vertices[..., self.keypoint_vertices, :], landmarks], dim=-2)


def forward_kinematics(rotmats: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Turn relative rotations (..., J, 3, 3) and rest joints (..., J, 3) into those of the body frame.

    J is 55, or fewer: every joint's parent comes before it, so the first J form a tree of their own.

    Returns:
        rotations (..., J, 3, 3), posed joints (..., J, 3); the pelvis stays where it is.
    """
    count = rotmats.shape[-3]
    # Of numpy: that of torch imports its compiler and sympy, which takes seconds.
    batch = np.broadcast_shapes(rotmats.shape[:-3], rest.shape[:-2])
    rotmats, rest = rotmats.expand(*batch, count, 3, 3), rest.expand(*batch, count, 3)
    levels, parents, order = _levels(count, rotmats.device)
    bones = rest - rest.index_select(-2, parents)
    rotation, posed = [rotmats[..., :1, :, :]], [rest[..., :1, :]]
    for children, place in levels:  # all joints of one depth at once; `place` is the parent within its level
        parent_rotation = rotation[-1].index_select(-3, place)
        bone = bones.index_select(-2, children)[..., None]
        posed.append(posed[-1].index_select(-2, place) + (parent_rotation @ bone)[..., 0])
        rotation.append(parent_rotation @ rotmats.index_select(-3, children))
    return torch.cat(rotation, dim=-3).index_select(-3, order), torch.cat(posed, dim=-2).index_select(-2, order)


@functools.cache
def _levels(count: int, device: torch.device) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Tree of the first `count` joints: (joints, parent's place in the level above) per depth, parents, order."""
    rows = [[0]]
    while sum(map(len, rows)) < count:
        rows.append([j for j in range(1, count) if skeleton.PARENTS[j] in rows[-1]])
    levels = [(torch.tensor(row, device=device),
               torch.tensor([above.index(skeleton.PARENTS[j]) for j in row], device=device))
              for above, row in itertools.pairwise(rows)]
    parents = torch.tensor([max(skeleton.PARENTS[j], 0) for j in range(count)], device=device)
    flat = [j for row in rows for j in row]
    return levels, parents, torch.tensor([flat.index(j) for j in range(count)], device=device)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3); gradients are finite at zero too (Rodrigues' formula)."""
    square = (axis_angle * axis_angle).sum(dim=-1)[..., None, None]
    small = square < 1e-6
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    sine = torch.where(small, 1.0 - square / 6.0, torch.sin(angle) / angle)
    cosine = torch.where(small, 0.5 - square / 24.0, (1.0 - torch.cos(angle)) / safe)
    x, y, z = axis_angle.unbind(dim=-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device) + sine * skew + cosine * (skew @ skew)
