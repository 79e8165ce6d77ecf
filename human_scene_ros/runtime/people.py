"""People of one frame: from the network's arrays to bodies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.convert import network_to_full_rotations
from human_scene_ros.body.model import BodyModel, chain, rest_joints
from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.geometry.transform import nearest_rotations


def people_from_network(model: BodyModel, rotmats: NDArray[np.floating], betas: NDArray[np.floating],
                        expression: NDArray[np.floating], head_camera: NDArray[np.floating],
                        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rotations and joints of the P people of a frame at once.

    Args:
        model: Gives the way from head to pelvis.
        rotmats: (P, 53, 3, 3) finite; root: SMPL-X axes -> camera.
        betas: (P, b).
        expression: (P, e).
        head_camera: (P, 3) head joint in the camera frame, metres.

    Returns:
        (P, 55, 3, 3) rotations in skinning order, each relative to its parent, and (P, 55, 3) joints in the camera
        frame, metres.
    """
    # Half precision leaves of a rotation only three digits; joints and smoothing need it whole.
    rotations = network_to_full_rotations(nearest_rotations(rotmats))
    _, joints = chain(rotations, rest_joints(model, betas, expression))
    transl = (head_camera - joints[:, HEAD]).astype(np.float32)
    return rotations, joints + transl[:, None]
