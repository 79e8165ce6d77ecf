"""People of data sets -> `TruePerson`: SMPL and SMPL-X parameters, and joints by name.

Parameters of SMPL keep their meaning (`model_type` MODEL_SMPL): the first 22 joints of SMPL and SMPL-X share names,
order and tree, though not exact places. Named joints (COCO, BODY_25, HALPE) go to the joint or landmark of the
SMPL-X list with the same meaning; what a data set does not have stays NaN.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body import model as body_model
from human_scene_ros.body import skeleton
from human_scene_ros.body.convert import transformed
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.datasets.safe_pickle import entry, load_pickle, plain_array
from human_scene_ros.errors import SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply
from human_scene_ros.sources.message_fields import (
    GENDERS,
    MODEL_OPEN,
    MODEL_SMPL,
    MODEL_SMPLX,
    VALID_BODY,
    VALID_EXPRESSION,
    VALID_EYES,
    VALID_JAW,
    VALID_LEFT_HAND,
    VALID_RIGHT_HAND,
    VALID_SHAPE,
    TruePerson,
)

Array = NDArray[np.float64]

_SMPL_PARENTS = (*skeleton.PARENTS[:22], 20, 21)  # SMPL adds one joint per hand
_NEAREST_M = 0.05  # nearer points do not project

COCO_17 = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
           "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
           "left_ankle", "right_ankle")


def _joint_index() -> dict[str, int]:
    body = {name: i for i, name in enumerate(skeleton.JOINT_NAMES[:22]) if name != "head"}
    landmarks = {name: 55 + i for i, name in enumerate(skeleton.KEYPOINT_VERTICES) if "thumb" not in name}
    return body | {n: i for n, i in landmarks.items() if i < 66}


NAMED_JOINTS = _joint_index()
"""Name -> index among the 127 joints of SMPL-X: body joints, and nose, eyes, ears, toes and heels of its surface.
The head is left out: other data sets mean the top or the middle of it, SMPL-X the joint at the base of the skull."""


def in_view(joints_camera: Array, camera: PinholeCamera) -> bool:
    """True if at least one known joint projects into the image."""
    uv = _projected(joints_camera, camera)
    with np.errstate(invalid="ignore"):
        return bool(((uv >= -0.5) & (uv < [camera.width - 0.5, camera.height - 0.5])).all(axis=1).any())


def box_around(joints_camera: Array, camera: PinholeCamera) -> NDArray[np.float32]:
    """(4,) x, y, width, height around the projected known joints, clipped to the image; NaN if there are none."""
    uv = _projected(joints_camera, camera)
    uv = uv[np.isfinite(uv).all(axis=1)]
    if not len(uv):
        return np.full(4, np.nan, np.float32)
    low, high = (np.clip(v, 0, [camera.width - 1, camera.height - 1]) for v in (uv.min(axis=0), uv.max(axis=0)))
    return np.concatenate([low, high - low]).astype(np.float32)


def _projected(joints_camera: Array, camera: PinholeCamera) -> Array:
    near = ~(joints_camera[:, 2] > _NEAREST_M)
    return np.where(near[:, None], np.nan, camera.project(joints_camera))


def person(number: int, joints_camera: Array, camera: PinholeCamera, parameters: BodyParameters | None = None,
           **meaning: Any) -> TruePerson | None:
    """A person with (55 or 127, 3) joints; None if nobody could see them in the image.

    The head counts as visible when joint 15 lies in the image, or the face or else the neck where that joint is not
    known: data sets do not tell what hides it.
    """
    joints_camera = np.asarray(joints_camera, np.float64)
    if not in_view(joints_camera, camera):
        return None
    if parameters is None:
        parameters, meaning = BodyParameters(), {"model_type": MODEL_OPEN, "body_model": "", "valid_parts": 0}
    parts = (joints_camera[[skeleton.HEAD]], joints_camera[55:60], joints_camera[[skeleton.NECK]])
    known = (part[np.isfinite(part).all(axis=1)] for part in parts)
    head = in_view(next((part for part in known if len(part)), parts[0]), camera)
    return TruePerson(number, parameters, joints_camera.astype(np.float32), head, float("nan"),
                      box_around(joints_camera, camera), **meaning)


def person_of_named_joints(number: int, names: tuple[str, ...], points_world: Array, T_camera_world: Array,
                           camera: PinholeCamera) -> TruePerson | None:
    """A person of whom only joints are known.

    Args:
        number: Of the person.
        names: Of the rows; names without a place among the SMPL-X joints are left out.
        points_world: (N, 3) metres, NaN = unknown.
        T_camera_world: (4, 4).
        camera: Of the image.
    """
    joints = np.full((127, 3), np.nan)
    for name, point in zip(names, apply(T_camera_world, np.asarray(points_world, np.float64)), strict=True):
        if name in NAMED_JOINTS:
            joints[NAMED_JOINTS[name]] = point
    return person(number, joints, camera)


# --- SMPL --------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class SmplModel:
    """What joints of SMPL need: (24, 3) of the template, (24, 3, B) per coefficient, and the regressor (24, V)."""

    name: str
    joint_template: Array
    joint_shapedirs: Array
    regressor: Array

    def joints(self, pose: Array, betas: Array, transl: Array) -> Array:
        """(24, 3) joints in the frame of `transl`.

        Args:
            pose: (72,) axis-angle, root first.
            betas: (b,) with b at most the model's.
            transl: (3,) metres: pelvis = J0(betas) + transl.
        """
        betas = np.asarray(betas, np.float64).reshape(-1)
        if betas.size > self.joint_shapedirs.shape[-1]:
            raise SourceError(f"{betas.size} betas, but {self.name} has {self.joint_shapedirs.shape[-1]}; "
                              "use the model with as many")
        rest = self.joint_template + self.joint_shapedirs[..., :betas.size] @ betas
        rotation = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(24, 3)).as_matrix()
        posed = rest.copy()
        for joint in range(1, 24):
            parent = _SMPL_PARENTS[joint]
            posed[joint] = posed[parent] + rotation[parent] @ (rest[joint] - rest[parent])
            rotation[joint] = rotation[parent] @ rotation[joint]
        return posed + np.asarray(transl, np.float64)


@functools.lru_cache(maxsize=4)
def load_smpl(path: Path) -> SmplModel:
    """Read an SMPL model: the official .pkl (never executed) or an .npz with the same keys.

    Raises:
        SourceError: Missing, not SMPL, or a key is missing.
    """
    keys = ("v_template", "shapedirs", "J_regressor", "kintree_table")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                content = {key: file[key] for key in file.files}
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be read as an SMPL .npz: {error}") from error
    else:
        content = load_pickle(path)
    template, shapedirs, regressor, tree = (plain_array(entry(content, key, path)) for key in keys)
    if regressor.shape != (24, len(template)) or tree.shape != (2, 24) or shapedirs.shape[:2] != template.shape:
        raise SourceError(f"{path} is no SMPL model: J_regressor {regressor.shape}, v_template {template.shape}, "
                          f"shapedirs {shapedirs.shape}; expected (24, V), (V, 3), (V, 3, B)")
    return SmplModel(path.name, regressor @ template, np.einsum("jv,vcb->jcb", regressor, shapedirs), regressor)


_SMPL_NAMES = {"neutral": ("SMPL_NEUTRAL.npz", "SMPL_NEUTRAL.pkl", "basicmodel_neutral*.pkl"),
               "female": ("SMPL_FEMALE.npz", "SMPL_FEMALE.pkl", "basicmodel_f*.pkl"),
               "male": ("SMPL_MALE.npz", "SMPL_MALE.pkl", "basicmodel_m*.pkl")}


def find_body_file(body: Path | None, kind: str, gender: str, why: str) -> Path:
    """The SMPL or SMPL-X file of a gender in the file or folder that the user gave.

    Args:
        body: `ConvertOptions.body`.
        kind: "SMPL" or "SMPL-X".
        gender: "neutral", "female" or "male".
        why: Data set, for the message.

    Raises:
        SourceError: None given, or not there.
    """
    site = "https://smpl.is.tue.mpg.de" if kind == "SMPL" else "https://smpl-x.is.tue.mpg.de"
    names = _SMPL_NAMES.get(gender, ()) if kind == "SMPL" else (f"SMPLX_{gender.upper()}.npz",)
    if body is None:
        raise SourceError(f"{why} stores {kind} parameters; joints need the {kind} model ({gender}): give its folder "
                          f"with --body (register at {site}), or leave people out with --no-people")
    if body.is_file():
        return body
    for name in names:
        for file in sorted(body.rglob(name)):
            return file
    raise SourceError(f"{body} holds no {names[0] if names else kind}; expected the {kind} model for gender "
                      f"'{gender}' ({site})")


def gender_of(text: Any) -> str:
    """"m", b"female", "neutral", ... -> a name of `GENDERS`."""
    word = text.decode("latin1") if isinstance(text, bytes) else str(text)
    for name in GENDERS:
        if word and name.startswith(word.strip().lower()):
            return name
    raise SourceError(f"gender '{word}' is not known; expected one of {', '.join(GENDERS)}")


def smpl_person(number: int, pose: Array, betas: Array, transl_world: Array, joints_world: Array, gender: str,
                T_camera_world: Array, camera: PinholeCamera) -> TruePerson | None:
    """A person with SMPL parameters.

    Args:
        number: Of the person.
        pose: (72,) axis-angle, the root's in the world.
        betas: (b,).
        transl_world: (3,) metres; pelvis = J0(betas) + transl.
        joints_world: (24, 3) metres; only the first 22 have a place among the SMPL-X joints.
        gender: Name of `GENDERS`.
        T_camera_world: (4, 4).
        camera: Of the image.
    """
    joints_world = np.asarray(joints_world, np.float64)
    root = joints_world[0] - transl_world  # J0(betas): the root turns about it
    rot_camera_world = T_camera_world[:3, :3]
    pose = np.asarray(pose, np.float64).reshape(24, 3)
    orient = (Rotation.from_matrix(rot_camera_world) * Rotation.from_rotvec(pose[0])).as_rotvec()
    hands = np.zeros((2, 45), np.float32)
    hands[:, :3] = pose[22:24]
    parameters = BodyParameters(
        global_orient=orient.astype(np.float32),
        transl=(apply(T_camera_world, joints_world[0]) - root).astype(np.float32),
        body_pose=pose[1:22].reshape(-1).astype(np.float32), left_hand_pose=hands[0], right_hand_pose=hands[1],
        betas=np.asarray(betas, np.float32).reshape(-1))
    joints = np.full((55, 3), np.nan)
    joints[:22] = apply(T_camera_world, joints_world[:22])
    return person(number, joints, camera, parameters, model_type=MODEL_SMPL, body_model="smpl",
                  gender=GENDERS.index(gender), valid_parts=VALID_BODY | VALID_SHAPE)


# --- SMPL-X ------------------------------------------------------------------------------------------------------

ALL_PARTS = (VALID_BODY | VALID_LEFT_HAND | VALID_RIGHT_HAND | VALID_JAW | VALID_EYES | VALID_EXPRESSION | VALID_SHAPE)


@functools.lru_cache(maxsize=4)
def load_smplx(path: Path) -> body_model.BodyModel:
    """An SMPL-X file with up to 16 betas, kept for the next frame."""
    return body_model.load_body_model(path, num_betas=16)


@functools.lru_cache(maxsize=4)
def hand_bases(path: Path) -> dict[str, Array]:
    """(45, 45) principal components and (45,) mean of each hand in an SMPL-X file, by key; empty if it has none."""
    keys = ("hands_componentsl", "hands_componentsr", "hands_meanl", "hands_meanr")
    with np.load(path, allow_pickle=False) as file:
        return {key: np.asarray(file[key], np.float64) for key in keys} if set(keys) <= set(file.files) else {}


def smplx_person(number: int, parameters: BodyParameters, model: body_model.BodyModel, gender: str, valid_parts: int,
                 T_camera_source: Array, camera: PinholeCamera) -> TruePerson | None:
    """A person with SMPL-X parameters in any frame that `T_camera_source` maps to the camera."""
    in_camera = transformed(model, parameters, T_camera_source)
    return person(number, body_model.joints(model, in_camera).astype(np.float64), camera, in_camera,
                  model_type=MODEL_SMPLX if model.is_smplx else MODEL_OPEN, body_model=model.name,
                  gender=GENDERS.index(gender), valid_parts=valid_parts)

