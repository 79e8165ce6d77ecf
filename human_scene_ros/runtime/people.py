"""People of one frame: from the network's arrays to bodies, and which mask pixel belongs to which body."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.convert import network_to_full_rotations
from human_scene_ros.body.model import BodyModel, chain, rest_joints
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import HEAD, PARENTS
from human_scene_ros.geometry.camera import PinholeCamera

NOBODY = 255
LIMB_RADIUS_M = 0.06
REACH_M = 0.6  # a person pixel farther than this from every bone is somebody without a body
_BONES = np.array([(PARENTS[joint], joint) for joint in range(1, 22)])


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
    # cv2 and not scipy's from_matrix, which takes five times as long on matrices that are rotations to float32 only.
    pose[turned] = np.reshape([cv2.Rodrigues(matrix)[0] for matrix in full[turned].astype(np.float64)], (-1, 3))
    people = [BodyParameters(
        global_orient=p[0], transl=t, body_pose=p[1:22].reshape(-1), jaw_pose=p[22], leye_pose=p[23], reye_pose=p[24],
        left_hand_pose=p[25:40].reshape(-1), right_hand_pose=p[40:55].reshape(-1),
        betas=b.astype(np.float32), expression=e.astype(np.float32))
        for p, t, b, e in zip(pose, transl, betas, expression, strict=True)]
    return people, joints + transl[:, None]


def label_people(person: NDArray[np.bool_], camera: PinholeCamera,
                 joints_camera: Sequence[NDArray[np.floating]]) -> NDArray[np.uint8]:
    """Give every person pixel to the body whose bones are nearest in the image.

    Args:
        person: (h, w) the network's person mask.
        camera: Intrinsics of the mask.
        joints_camera: (J >= 22, 3) of each body, at most 254 bodies.

    Returns:
        (h, w): 0 background, i + 1 = body i, 255 = a person that is no body.
    """
    labels = np.where(person, np.uint8(NOBODY), np.uint8(0))
    if not len(joints_camera) or not person.any():
        return labels
    height, width = person.shape
    seeds = np.zeros((height, width), np.uint8)
    reach_px = np.zeros(len(joints_camera) + 1, np.float32)
    far_first = sorted(range(len(joints_camera)), key=lambda i: -float(joints_camera[i][0, 2]))
    for i in far_first:
        joints = np.asarray(joints_camera[i], dtype=np.float64)
        uv = camera.project(joints)
        usable = np.isfinite(uv).all(axis=1) & (np.abs(uv) < 8 * max(width, height)).all(axis=1)
        px_per_m = camera.fx / max(float(joints[:22, 2].mean()), 0.1)
        reach_px[i + 1] = REACH_M * px_per_m
        thickness = min(max(round(2 * LIMB_RADIUS_M * px_per_m), 1), 255)
        # cv2.line wants fixed-point numbers; 3 bits keep the bones of small people apart.
        ends = np.rint(np.where(usable[:, None], uv, 0.0) * 8.0).astype(np.int32)
        drawn = _BONES[usable[_BONES].all(axis=1)]
        cv2.polylines(seeds, ends[drawn], False, i + 1, thickness, cv2.LINE_8, 3)
    if not seeds.any():
        return labels
    distance, nearest = cv2.distanceTransformWithLabels((seeds == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5,
                                                        labelType=cv2.DIST_LABEL_PIXEL)
    owner_of = np.zeros(int(nearest.max()) + 1, np.uint8)
    on_bone = seeds > 0
    owner_of[nearest[on_bone]] = seeds[on_bone]
    owner = owner_of[nearest[person]]
    labels[person] = np.where(distance[person] <= reach_px[owner], owner, NOBODY)
    return labels
