"""The 55 joints of the SMPL-X skeleton: names, parents, groups, and the key points made of vertices.

Order of joints, of rotations and of `BodyParameters.full_pose`: root, 21 body joints, jaw, left eye,
right eye, 15 joints of the left hand, 15 of the right hand. Left is the person's left.
Source: the public layout of the SMPL-X model file (kintree_table) and its key-point vertex list.
"""

from __future__ import annotations

import types

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")

JOINT_NAMES: tuple[str, ...] = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "jaw", "left_eye", "right_eye",
    *(f"{side}_{finger}{i}" for side in ("left", "right") for finger in _FINGERS for i in (1, 2, 3)))

PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38,
    21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53)

NUM_JOINTS = len(JOINT_NAMES)
PELVIS, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = 0, 12, 15, 22, 23, 24

# Joints that body metrics and the default network use: root and body without jaw, eyes and hands.
BODY_22: tuple[int, ...] = tuple(range(22))
LEFT_HAND: tuple[int, ...] = tuple(range(25, 40))
RIGHT_HAND: tuple[int, ...] = tuple(range(40, 55))

# The network gives 53 rotations: root, body, left hand, right hand, jaw (no eyes). Entry i is their joint.
NETWORK_53: tuple[int, ...] = (*BODY_22, *LEFT_HAND, *RIGHT_HAND, JAW)

# Joints 55..75 are posed vertices, in this order; the vertex ids are those of the SMPL-X mesh.
KEYPOINT_VERTICES: types.MappingProxyType[str, int] = types.MappingProxyType({
    "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
    "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
    "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
    "left_thumb": 5361, "left_index": 4933, "left_middle": 5058, "left_ring": 5169, "left_pinky": 5286,
    "right_thumb": 8079, "right_index": 7669, "right_middle": 7794, "right_ring": 7905, "right_pinky": 8022})

NUM_ALL_JOINTS = NUM_JOINTS + len(KEYPOINT_VERTICES) + 51  # 51 landmarks of the face close the list
