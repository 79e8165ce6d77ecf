"""Between the ways to say where a body is: transl, pelvis, head; SMPL-X axes and REP-155 axes.

`transl` of SMPL-X is not the pelvis: pelvis = J0(betas) + transl, and the root rotates about J0. The
network reports the head (joint 15) in the camera frame; ROS wants the pelvis with x out of the chest.

Frames: "smplx" axes are x left, y up, z forward. "body" (REP-155) axes are x out of the chest, y left,
z to the head, at the pelvis joint, which lies midway between the hips.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body import skeleton
from human_scene_ros.body.model import (
    BodyModel,
    all_joints,
    body_mesh,
    chain,
    joints,
    rest_joints,
    rotation_matrices,
    skin,
)
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.geometry.transform import Matrix, make_transform

# p_smplx = ROT_SMPLX_BODY @ p_body: x_body is z of SMPL-X, y_body is x, z_body is y.
ROT_SMPLX_BODY: Matrix = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

_HEAD_CHAIN = (0, 3, 6, 9, 12, 15)


def pelvis_position(model: BodyModel, parameters: BodyParameters) -> NDArray[np.float32]:
    """(3,) pelvis joint in the frame of the parameters, metres: J0(betas) + transl."""
    return rest_joints(model, parameters.betas, parameters.expression)[0] + parameters.transl


def head_position(model: BodyModel, parameters: BodyParameters) -> NDArray[np.float32]:
    """(3,) head joint (15) in the frame of the parameters, metres."""
    return joints(model, parameters)[skeleton.HEAD]


def with_pelvis_at(model: BodyModel, parameters: BodyParameters,
                   pelvis: NDArray[np.floating]) -> BodyParameters:
    """The same body with its pelvis joint at (3,) metres, in the frame of the parameters."""
    return _moved(parameters, np.asarray(pelvis) - pelvis_position(model, parameters))


def with_head_at(model: BodyModel, parameters: BodyParameters, head: NDArray[np.floating]) -> BodyParameters:
    """The same body with its head joint at (3,) metres, in the frame of the parameters."""
    return _moved(parameters, np.asarray(head) - head_position(model, parameters))


def _moved(parameters: BodyParameters, by: NDArray[np.floating]) -> BodyParameters:
    return dataclasses.replace(parameters, transl=(parameters.transl + by).astype(np.float32))


def transformed(model: BodyModel, parameters_b: BodyParameters, T_a_b: NDArray[np.floating]) -> BodyParameters:
    """The body given in frame b, expressed in frame a.

    Not simply the transform applied to `transl`: the root turns about J0(betas), so
    transl_a = R (J0 + transl_b) + t - J0.
    """
    root = rest_joints(model, parameters_b.betas, parameters_b.expression)[0].astype(np.float64)
    rot_a_b, t_a_b = np.asarray(T_a_b, np.float64)[:3, :3], np.asarray(T_a_b, np.float64)[:3, 3]
    orient = Rotation.from_matrix(rot_a_b) * Rotation.from_rotvec(parameters_b.global_orient.astype(np.float64))
    transl = rot_a_b @ (root + parameters_b.transl) + t_a_b - root
    return dataclasses.replace(parameters_b, global_orient=orient.as_rotvec().astype(np.float32),
                               transl=transl.astype(np.float32))


def pelvis_pose(model: BodyModel, parameters: BodyParameters) -> Matrix:
    """(4, 4) T_a_body of the REP-155 body frame, where a is the frame of the parameters (the camera)."""
    rot_a_smplx = Rotation.from_rotvec(parameters.global_orient.astype(np.float64)).as_matrix()
    return make_transform(rot_a_smplx @ ROT_SMPLX_BODY, pelvis_position(model, parameters))


def orient_from_body_rotation(rot_a_body: NDArray[np.floating]) -> NDArray[np.float32]:
    """(3, 3) rotation of a REP-155 body frame -> (3,) `global_orient` of SMPL-X, radians."""
    rot_a_smplx = np.asarray(rot_a_body, np.float64) @ ROT_SMPLX_BODY.T
    return Rotation.from_matrix(rot_a_smplx).as_rotvec().astype(np.float32)


def network_to_full_rotations(rotmats: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 53, 3, 3) in the network's order -> (..., 55, 3, 3) in skinning order; eyes look ahead."""
    check_shape("rotmats", rotmats[..., 0, 0], (*rotmats.shape[:-3], 53))
    full = np.zeros((*rotmats.shape[:-3], skeleton.NUM_JOINTS, 3, 3), np.float32)
    full[...] = np.eye(3, dtype=np.float32)
    full[..., list(skeleton.NETWORK_53), :, :] = rotmats
    return full


def full_to_network_rotations(rotmats: NDArray[np.floating]) -> NDArray[np.floating]:
    """(..., 55, 3, 3) in skinning order -> (..., 53, 3, 3) in the network's order (without eyes)."""
    check_shape("rotmats", rotmats[..., 0, 0], (*rotmats.shape[:-3], skeleton.NUM_JOINTS))
    return rotmats[..., list(skeleton.NETWORK_53), :, :]


def network_to_parameters(rotmats: NDArray[np.floating], betas: NDArray[np.floating],
                          expression: NDArray[np.floating], head_camera: NDArray[np.floating],
                          model: BodyModel) -> BodyParameters:
    """One person as the network gives it -> SMPL-X parameters in the camera frame.

    Args:
        rotmats: (53, 3, 3) root, 21 body, 15 left hand, 15 right hand, jaw; root: SMPL-X axes -> camera.
        betas: (b,).
        expression: (e,).
        head_camera: (3,) head joint in the camera frame, metres (the network's `smpl_transl`).
        model: Gives the way from head to pelvis.

    Raises:
        ShapeError: A shape is wrong or a rotation holds values that are not finite.
    """
    check_shape("rotmats", rotmats, (53, 3, 3))
    check_shape("head_camera", head_camera, (3,))
    full = network_to_full_rotations(np.asarray(rotmats))
    if not np.isfinite(full).all():
        raise ShapeError("rotmats of a person hold NaN or infinite values; expected 53 rotation matrices")
    # Only the chain from pelvis to head decides where the pelvis is.
    rest = rest_joints(model, betas, expression).astype(np.float64)
    head, rotation = rest[0].copy(), np.eye(3)
    for parent, child in zip(_HEAD_CHAIN[:-1], _HEAD_CHAIN[1:], strict=True):
        rotation = rotation @ full[parent]
        head += rotation @ (rest[child] - rest[parent])
    pose = Rotation.from_matrix(full.astype(np.float64)).as_rotvec().astype(np.float32)
    return BodyParameters(
        global_orient=pose[0], transl=(np.asarray(head_camera, np.float64) - head).astype(np.float32),
        body_pose=pose[1:22].reshape(-1), jaw_pose=pose[skeleton.JAW], leye_pose=pose[skeleton.LEFT_EYE],
        reye_pose=pose[skeleton.RIGHT_EYE], left_hand_pose=pose[25:40].reshape(-1),
        right_hand_pose=pose[40:55].reshape(-1), betas=np.asarray(betas, np.float32),
        expression=np.asarray(expression, np.float32))


def parameters_to_network(parameters: BodyParameters) -> NDArray[np.float32]:
    """(53, 3, 3) rotations in the network's order; the eyes are lost."""
    return full_to_network_rotations(rotation_matrices(parameters.full_pose()))


def pose_network_people(model: BodyModel, rotmats: NDArray[np.floating], betas: NDArray[np.floating],
                        expression: NDArray[np.floating], head_camera: NDArray[np.floating],
                        lod: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vertices and joints of the P people of one frame, straight from the network's outputs.

    Args:
        model: What to pose.
        rotmats: (P, 53, 3, 3).
        betas: (P, b).
        expression: (P, e).
        head_camera: (P, 3) metres.
        lod: Level of detail; 0 also gives the key points and landmarks.

    Returns:
        vertices_camera (P, V', 3) and joints_camera (P, 127 at lod 0 else 55, 3), metres.
    """
    mesh = body_mesh(model, lod)
    coefficients = model.coefficients(betas, expression)
    full = network_to_full_rotations(np.asarray(rotmats))
    rest = rest_joints(model, betas, expression)
    shaped = mesh.template + (coefficients @ mesh.directions.T).reshape(len(full), -1, 3)
    transl = np.asarray(head_camera, np.float32) - chain(full, rest)[1][..., skeleton.HEAD, :]
    vertices_camera, joints_camera = skin(mesh, full, rest, shaped, transl)
    if lod == 0:
        joints_camera = all_joints(model, vertices_camera, joints_camera)
    return vertices_camera, joints_camera
