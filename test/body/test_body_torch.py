"""Skinning in torch equals skinning in numpy, and has gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from human_scene_ros.body import model as body
from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.torch_model import TorchBody, axis_angle_to_matrix
from human_scene_ros.errors import BodyModelError


def random_inputs(count: int = 3) -> tuple[torch.Tensor, ...]:
    """Pose (count, 55, 3), betas, expression, transl."""
    g = torch.Generator().manual_seed(2)
    return (0.5 * torch.randn(count, 55, 3, generator=g), torch.randn(count, 10, generator=g),
            torch.randn(count, 10, generator=g), torch.randn(count, 3, generator=g))


@pytest.mark.parametrize("lod", [0, 2])
def test_torch_equals_numpy(lod: int):
    model = load_body_model()
    posed = TorchBody(model, lod)
    pose, betas, expression, transl = random_inputs()
    joints, vertices = posed(axis_angle_to_matrix(pose), betas, expression, transl)
    expected_vertices, expected_joints = body.pose_vertices(
        model, pose.numpy(), betas.numpy(), transl.numpy(), expression.numpy(), lod)
    np.testing.assert_allclose(joints, expected_joints, atol=5e-6)
    np.testing.assert_allclose(vertices, expected_vertices, atol=5e-6)
    np.testing.assert_array_equal(posed.faces, body.body_mesh(model, lod).faces)
    if lod == 0:
        everything = body.all_joints(model, expected_vertices, expected_joints)
        np.testing.assert_allclose(posed.all_joints(joints, vertices), everything, atol=5e-6)
    else:
        with pytest.raises(BodyModelError, match=r"127 joints need the full mesh; got 9\d\d vertices"):
            posed.all_joints(joints, vertices)


def test_any_leading_dimensions_and_joints_alone():
    posed = TorchBody(load_body_model(), lod=2)
    pose, betas, expression, transl = random_inputs(6)
    rotmats = axis_angle_to_matrix(pose)
    joints, vertices = posed(rotmats, betas, expression, transl)
    shaped = posed(rotmats.unflatten(0, (2, 3)), betas.unflatten(0, (2, 3)), expression.unflatten(0, (2, 3)),
                   transl.unflatten(0, (2, 3)))
    torch.testing.assert_close(shaped[0].flatten(0, 1), joints)
    torch.testing.assert_close(shaped[1].flatten(0, 1), vertices)
    torch.testing.assert_close(posed.joints(rotmats, betas, expression, transl), joints)
    torch.testing.assert_close(posed.joints(rotmats[:, :22], betas, expression, transl), joints[:, :22])
    assert posed(rotmats[:0], betas[:0])[1].shape[0] == 0


def test_gradients_equal_finite_differences():
    posed = TorchBody(load_body_model(), lod=2).double()
    pose, betas, expression, _ = (x[:1].double().requires_grad_() for x in random_inputs())

    def some_numbers(pose: torch.Tensor, betas: torch.Tensor, expression: torch.Tensor) -> torch.Tensor:
        joints, vertices = posed(axis_angle_to_matrix(pose), betas, expression)
        return torch.cat([joints[0, ::9].flatten(), vertices[0, ::150].flatten()])

    assert torch.autograd.gradcheck(some_numbers, (pose, betas, expression), fast_mode=True)


def test_gradients_are_finite_at_the_zero_pose():
    posed = TorchBody(load_body_model(), lod=2)
    pose = torch.zeros(1, 55, 3, requires_grad=True)
    joints, vertices = posed(axis_angle_to_matrix(pose), torch.zeros(1, 10))
    (joints.square().sum() + vertices.square().sum()).backward()
    assert torch.isfinite(pose.grad).all() and pose.grad.abs().max() > 0


def test_axis_angle_equals_scipy_at_small_and_large_angles():
    direction = torch.nn.functional.normalize(torch.randn(9, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    angles = torch.tensor([0.0, 1e-8, 1e-4, 9e-4, 1.1e-3, 0.1, 1.0, 3.1, 6.0])[:, None]
    expected = body.rotation_matrices((direction * angles).numpy())
    np.testing.assert_allclose(axis_angle_to_matrix(direction * angles), expected, atol=2e-6)


def test_more_coefficients_than_the_model_has_are_refused():
    posed = TorchBody(load_body_model(), lod=2)
    with pytest.raises(BodyModelError, match=r"12 expression given, but body model 'open_body'"):
        posed.rest_joints(torch.zeros(1, 10), torch.zeros(1, 12))
