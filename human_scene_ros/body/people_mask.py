"""Which body a person's pixel belongs to: the one whose bones are nearest in the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.geometry.camera import PinholeCamera

NOBODY = 255
LIMB_RADIUS_M = 0.06
REACH_M = 0.6  # a person pixel farther than this from every bone is somebody without a body
_BONES = np.array([(PARENTS[joint], joint) for joint in range(1, 22)])


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
