"""People of one frame: from the network's arrays to bodies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body.convert import network_to_full_rotations
from human_scene_ros.body.model import BodyModel, chain, rest_joints
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import HEAD


def people_from_network(model: BodyModel, rotmats: NDArray[np.floating], betas: NDArray[np.floating],
                        expression: NDArray[np.floating], head_camera: NDArray[np.floating],
                        ) -> tuple[list[BodyParameters], NDArray[np.float32]]:
    """The P people of a frame at once: `body.convert.network_to_parameters` and their joints.

    Args:
        model: Gives the way from head to pelvis.
        rotmats: (P, 53, 3, 3) finite; root: SMPL-X axes -> camera.
        betas: (P, b).
        expression: (P, e).
        head_camera: (P, 3) head joint in the camera frame, metres.

    Returns:
        Parameters in the camera frame, and (P, 55, 3) joints, metres.
    """
    if not len(rotmats):
        return [], np.zeros((0, 55, 3), np.float32)
    full = network_to_full_rotations(np.asarray(rotmats))
    _, joints = chain(full, rest_joints(model, betas, expression))
    transl = (head_camera - joints[:, HEAD]).astype(np.float32)
    turned = (full != np.eye(3, dtype=np.float32)).any(axis=(-1, -2))  # a small network leaves hands and face alone
    pose = np.zeros((*turned.shape, 3), np.float32)
    rotation = full[turned].astype(np.float64)
    # A Newton step towards the nearest rotation (Higham 1986): scipy would decompose each matrix that is a rotation to
    # float32 only, which takes three times as long.
    rotation = rotation @ (1.5 * np.eye(3) - 0.5 * rotation.transpose(0, 2, 1) @ rotation)
    pose[turned] = Rotation.from_matrix(rotation).as_rotvec()
    people = [BodyParameters(
        global_orient=p[0], transl=t, body_pose=p[1:22].reshape(-1), jaw_pose=p[22], leye_pose=p[23], reye_pose=p[24],
        left_hand_pose=p[25:40].reshape(-1), right_hand_pose=p[40:55].reshape(-1),
        betas=b.astype(np.float32), expression=e.astype(np.float32))
        for p, t, b, e in zip(pose, transl, betas, expression, strict=True)]
    return people, joints + transl[:, None]
