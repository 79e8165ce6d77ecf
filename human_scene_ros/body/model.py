"""Skinned body models of the SMPL-X file layout, in numpy: load a file, pose it.

Zero pose is a T-pose that faces +z with the left hand at +x (axes x left, y up, z forward, metres).
`load_body_model()` gives the open body that ships with this package: its pose parameters mean what
SMPL-X's mean, its betas and vertex order do not. The same loader reads the official SMPL-X file.

Joints: J = J_regressor @ (v_template + shapedirs @ coefficients); rotations go down the kinematic chain
about these joints; vertices follow by linear blend skinning, with SMPL's pose correctives
(Loper et al. 2015, SMPL, eq. 2-10; Pavlakos et al. 2019, SMPL-X) where the file has them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from human_scene_ros.body import skeleton
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import BodyModelError, ShapeError
from human_scene_ros.geometry.arrays import check_finite, check_shape

Array = NDArray[np.float32]
Index = NDArray[np.int64]

OPEN_BODY_PATH = Path(__file__).parent / "data" / "open_body.npz"
_REQUIRED = ("v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table")
_OPTIONAL = ("posedirs", "lmk_faces_idx", "lmk_bary_coords", "num_betas", "model_name", "not_smplx",
             "lod1_vertices", "lod1_faces", "lod2_vertices", "lod2_faces")
_FIRST_EXPRESSION = 300  # column of the official file's 400 where expressions begin
_POSE_FEATURES = 9 * (skeleton.NUM_JOINTS - 1)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """One level of detail of a body, with everything that posing it needs laid out for speed.

    Args:
        vertex_index: (V',) vertices of the full mesh.
        faces: (F', 3) indices into `vertex_index`.
        template: (V', 3) metres.
        directions: (V' * 3, B + E) metres per coefficient.
        skin: (V', 55) sparse weights.
        pose_directions: (V' * 3, 486) correctives, or None.
    """

    vertex_index: Index
    faces: Index
    template: Array
    directions: Array
    skin: sparse.csr_array
    pose_directions: Array | None


@dataclasses.dataclass(frozen=True, eq=False)
class BodyModel:
    """A body model in memory; make one with `load_body_model`. All in SMPL-X axes, metres.

    Args:
        name: "open_body", "smplx" or what the file says.
        is_smplx: Betas and vertex order are those of SMPL-X (false for the open body).
        v_template: (V, 3).
        faces: (F, 3).
        shapedirs: (V, 3, B + E) first `num_betas` columns of shape, then `num_expression` of expression.
        num_betas: B.
        num_expression: E.
        posedirs: (V, 3, 486), or None where the file has none.
        J_regressor: (55, V).
        weights: (V, 55), rows sum to 1.
        parents: 55 joint indices, -1 for the root.
        joint_template: (55, 3) joints of the template.
        joint_shapedirs: (55, 3, B + E) how joints move with the coefficients.
        keypoint_vertices: (21,) vertices of joints 55..75, in the order of `skeleton.KEYPOINT_VERTICES`.
        landmark_faces: (51, 3) vertices of the faces that carry joints 76..126.
        landmark_weights: (51, 3) barycentric.
        lods: level -> (vertex_index (V',), faces (F', 3)) of reduced meshes; level 0 is the full mesh.
    """

    name: str
    is_smplx: bool
    v_template: Array
    faces: Index
    shapedirs: Array
    num_betas: int
    num_expression: int
    posedirs: Array | None
    J_regressor: Array
    weights: Array
    parents: tuple[int, ...]
    joint_template: Array
    joint_shapedirs: Array
    keypoint_vertices: Index
    landmark_faces: Index
    landmark_weights: Array
    lods: dict[int, tuple[Index, Index]]

    @functools.cached_property
    def meshes(self) -> dict[int, Mesh]:
        """Level of detail -> arrays for posing it; made once, at first use."""
        everything = np.arange(len(self.v_template))
        levels = {0: (everything, self.faces), **self.lods}
        return {level: self._mesh(level, index, faces) for level, (index, faces) in levels.items()}

    def _mesh(self, level: int, index: Index, faces: Index) -> Mesh:
        take = slice(None) if level == 0 else index  # the full mesh shares memory with the model
        n = len(index)
        return Mesh(index, faces, self.v_template[take], self.shapedirs[take].reshape(3 * n, -1),
                    sparse.csr_array(self.weights[take]),
                    None if self.posedirs is None else self.posedirs[take].reshape(3 * n, -1))

    def coefficients(self, betas: NDArray[np.floating],
                     expression: NDArray[np.floating] | None = None) -> Array:
        """(..., b <= B) betas and (..., e <= E) expression -> (..., B + E), zeros where none is given.

        Raises:
            BodyModelError: More coefficients than the model has.
        """
        betas = np.asarray(betas, np.float32)
        self.check_count("betas", betas.shape[-1])
        out = np.zeros((*betas.shape[:-1], self.num_betas + self.num_expression), np.float32)
        out[..., :betas.shape[-1]] = betas
        if expression is not None:
            expression = np.asarray(expression, np.float32)
            self.check_count("expression", expression.shape[-1])
            out[..., self.num_betas:self.num_betas + expression.shape[-1]] = expression
        return out

    def check_count(self, what: Literal["betas", "expression"], given: int) -> None:
        """Raise `BodyModelError` if the model has fewer coefficients than `given`."""
        known = self.num_betas if what == "betas" else self.num_expression
        if given > known:
            raise BodyModelError(f"{given} {what} given, but body model '{self.name}' was loaded with {known}; "
                                 f"leave the rest out or load more columns")


def load_body_model(path: str | Path | None = None, *, num_betas: int = 10, num_expression: int = 10,
                    keypoint_vertices: Sequence[int] | None = None) -> BodyModel:
    """Read an `.npz` of the SMPL-X layout.

    Args:
        path: File; None = the open body of this package.
        num_betas: Columns of shape to keep (fewer if the file has fewer).
        num_expression: Columns of expression to keep (from column 300 on in files with 400).
        keypoint_vertices: The 21 vertices of joints 55..75; None = those of the SMPL-X mesh.

    Raises:
        BodyModelError: The file is missing, unreadable, lacks a key or holds a wrong shape.
    """
    path = OPEN_BODY_PATH if path is None else Path(path)
    return _build(path, _read(path), num_betas, num_expression, keypoint_vertices)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise BodyModelError(f"body model {path} does not exist; expected an SMPL-X .npz file (register at "
                             f"https://smpl-x.is.tue.mpg.de), or leave the path empty for the open body")
    data: dict[str, NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            # Only what is used: official files also carry pickled extras, which are never unpickled.
            data.update({key: file[key] for key in file.files if key in (*_REQUIRED, *_OPTIONAL)})
    except Exception as error:
        raise BodyModelError(f"body model {path} cannot be read ({type(error).__name__}: {error}); "
                             f"expected a complete .npz of the SMPL-X layout") from error
    for key in _REQUIRED:
        if key not in data:
            raise BodyModelError(f"body model {path} lacks the key '{key}'; it has {sorted(data)}, expected "
                                 f"{list(_REQUIRED)}: use the SMPL-X .npz (not SMPL, SMPL-H or a .pkl)")
    return data


def _build(path: Path, data: dict[str, NDArray[Any]], num_betas: int, num_expression: int,
           keypoint_vertices: Sequence[int] | None) -> BodyModel:
    _check_content(path, data)
    template = data["v_template"].astype(np.float32)
    faces = data["f"].astype(np.int64)
    columns = data["shapedirs"].shape[-1]
    # Official files: 300 shape columns, then 100 of expression. Short ones: 10 of each.
    split = int(data["num_betas"]) if "num_betas" in data else min(_FIRST_EXPRESSION, max(columns - 10, 0))
    num_betas, num_expression = min(num_betas, split), min(num_expression, columns - split)
    keep = [*range(num_betas), *range(split, split + num_expression)]
    shapedirs = np.ascontiguousarray(data["shapedirs"][:, :, keep], np.float32)
    posedirs = data["posedirs"].astype(np.float32) if "posedirs" in data and data["posedirs"].any() else None
    if keypoint_vertices is None:  # a small stand-in has no such vertices: its key points mean nothing
        keypoint_vertices = [min(v, len(template) - 1) for v in skeleton.KEYPOINT_VERTICES.values()]
    landmark_index = data.get("lmk_faces_idx", np.zeros(51)).astype(np.int64)
    regressor = data["J_regressor"].astype(np.float64)  # sums of thousands of terms: do them in float64 once
    return BodyModel(
        name=str(data.get("model_name", "smplx")), is_smplx=not bool(data.get("not_smplx", False)),
        v_template=template, faces=faces, shapedirs=shapedirs, num_betas=num_betas,
        num_expression=num_expression, posedirs=posedirs, J_regressor=regressor.astype(np.float32),
        weights=data["weights"].astype(np.float32), parents=skeleton.PARENTS,
        joint_template=(regressor @ template).astype(np.float32),
        joint_shapedirs=np.einsum("jv,vck->jck", regressor, shapedirs).astype(np.float32),
        keypoint_vertices=np.asarray(keypoint_vertices, np.int64), landmark_faces=faces[landmark_index],
        landmark_weights=data.get("lmk_bary_coords", np.full((51, 3), 1 / 3)).astype(np.float32),
        lods={level: (data[f"lod{level}_vertices"].astype(np.int64), data[f"lod{level}_faces"].astype(np.int64))
              for level in (1, 2) if f"lod{level}_vertices" in data})


def _check_content(path: Path, data: dict[str, NDArray[Any]]) -> None:
    n = len(data["v_template"])
    expected: dict[str, tuple[int | None, ...]] = {
        "v_template": (n, 3), "f": (None, 3), "shapedirs": (n, 3, None), "weights": (n, 55),
        "J_regressor": (55, n), "kintree_table": (2, 55), "posedirs": (n, 3, _POSE_FEATURES)}
    for key, shape in expected.items():
        if key not in data:
            continue
        try:
            check_shape(key, data[key], shape)
            check_finite(key, data[key])
        except ShapeError as error:
            raise BodyModelError(f"body model {path}: {error}; is this a complete SMPL-X file?") from None
    parents = tuple(int(p) if 0 <= p < 55 else -1 for p in data["kintree_table"][0])  # 4294967295 = no parent
    if parents != skeleton.PARENTS:
        raise BodyModelError(f"body model {path}: kintree_table is not the tree of SMPL-X; "
                             f"got parents {parents}, expected {skeleton.PARENTS}")
    if len(data["f"]) == 0 or int(data["f"].max()) >= n:
        raise BodyModelError(f"body model {path}: f names vertices up to {int(data['f'].max(initial=-1))}, "
                             f"but there are {n}")


def rotation_matrices(axis_angle: NDArray[np.floating]) -> Array:
    """(..., 3) radians -> (..., 3, 3)."""
    axis_angle = np.asarray(axis_angle, np.float32)
    flat = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_matrix()
    return flat.astype(np.float32).reshape(*axis_angle.shape[:-1], 3, 3)


def rest_joints(model: BodyModel, betas: NDArray[np.floating],
                expression: NDArray[np.floating] | None = None) -> Array:
    """(..., 55, 3) joints of the zero pose, for coefficients (..., b) and (..., e)."""
    return model.joint_template + np.einsum(
        "jck,...k->...jc", model.joint_shapedirs, model.coefficients(betas, expression)).astype(np.float32)


def chain(rotmats: NDArray[np.floating], joints: Array) -> tuple[Array, Array]:
    """Forward kinematics about the pelvis.

    Args:
        rotmats: (..., 55, 3, 3) rotation of each joint relative to its parent, root first.
        joints: (..., 55, 3) rest joints.

    Returns:
        rotation of each joint in the body frame (..., 55, 3, 3), posed joints (..., 55, 3).
    """
    # Of each joint relative to its parent, then to the body.
    transforms = np.zeros((*rotmats.shape[:-2], 4, 4), np.float32)
    transforms[..., :3, :3], transforms[..., :3, 3], transforms[..., 3, 3] = rotmats, joints, 1.0
    transforms[..., 1:, :3, 3] -= joints[..., list(skeleton.PARENTS[1:]), :]
    for children, parents in _levels():
        transforms[..., children, :, :] = transforms[..., parents, :, :] @ transforms[..., children, :, :]
    return transforms[..., :3, :3], transforms[..., :3, 3]


@functools.cache
def _levels() -> tuple[tuple[Index, Index], ...]:
    """Joints grouped by depth in the tree, with their parents: a level is computed at once."""
    depth = [0] * skeleton.NUM_JOINTS
    for joint in range(1, skeleton.NUM_JOINTS):
        depth[joint] = depth[skeleton.PARENTS[joint]] + 1
    parents = np.array(skeleton.PARENTS)
    groups = [np.flatnonzero(np.array(depth) == d) for d in range(1, max(depth) + 1)]
    return tuple((children, parents[children]) for children in groups)


def pose_joints(model: BodyModel, full_pose: NDArray[np.floating], betas: NDArray[np.floating],
                transl: NDArray[np.floating], expression: NDArray[np.floating] | None = None) -> Array:
    """Joints of people without their vertices.

    Args:
        full_pose: (..., 55, 3) axis-angle, radians, joint order of `skeleton`.
        betas: (..., b).
        transl: (..., 3) metres, SMPL-X's `transl`.
        expression: (..., e) or None.

    Returns:
        (..., 55, 3) metres, in the frame of `transl`.
    """
    _, posed = chain(rotation_matrices(full_pose), rest_joints(model, betas, expression))
    return posed + np.asarray(transl, np.float32)[..., None, :]


def pose_vertices(model: BodyModel, full_pose: NDArray[np.floating], betas: NDArray[np.floating],
                  transl: NDArray[np.floating], expression: NDArray[np.floating] | None = None,
                  lod: int = 0) -> tuple[Array, Array]:
    """Skin people; arguments as in `pose_joints`, with at most one leading dimension.

    Returns:
        vertices (..., V', 3) and joints (..., 55, 3), metres, in the frame of `transl`; V' is that of `lod`.
    """
    mesh = body_mesh(model, lod)
    coefficients = model.coefficients(betas, expression)
    rest = model.joint_template + (coefficients @ model.joint_shapedirs.reshape(165, -1).T).reshape(
        *coefficients.shape[:-1], 55, 3)
    shaped = (coefficients @ mesh.directions.T).reshape(*coefficients.shape[:-1], -1, 3) + mesh.template
    return skin(mesh, rotation_matrices(full_pose), rest, shaped, np.asarray(transl, np.float32))


def skin(mesh: Mesh, rotmats: Array, rest: Array, shaped: Array, transl: Array) -> tuple[Array, Array]:
    """Pose vertices that already have their shape; use it to pose one person many times.

    Args:
        mesh: Level of detail.
        rotmats: (..., 55, 3, 3), with at most one leading dimension.
        rest: (..., 55, 3) joints of the zero pose.
        shaped: (..., V', 3) vertices of the zero pose.
        transl: (..., 3) metres.

    Returns:
        vertices (..., V', 3) and joints (..., 55, 3).
    """
    if rotmats.ndim == 3 + 1:
        return _skin_people(mesh, rotmats, rest, shaped, transl)
    if mesh.pose_directions is not None:
        feature = (rotmats[1:] - np.eye(3, dtype=np.float32)).reshape(-1)
        shaped = shaped + (mesh.pose_directions @ feature).reshape(-1, 3)
    rotation, posed = chain(rotmats, rest)
    posed = posed + transl
    transform = np.empty((55, 12), np.float32)  # the three columns of the rotation, then the offset
    transform[:, :9] = rotation.transpose(0, 2, 1).reshape(55, 9)
    transform[:, 9:] = posed - (rotation @ rest[..., None])[..., 0]
    blended = mesh.skin @ transform
    vertices = blended[:, 9:12]
    for axis in range(3):
        vertices = vertices + blended[:, 3 * axis:3 * axis + 3] * shaped[:, axis, None]
    return vertices, posed


def _skin_people(mesh: Mesh, rotmats: Array, rest: Array, shaped: Array, transl: Array) -> tuple[Array, Array]:
    """`skin` person by person: at a few thousand vertices each, one person's arrays stay in the cache."""
    count = len(rotmats)
    rest, shaped = (np.broadcast_to(a, (count, *a.shape[-2:])) for a in (rest, shaped))
    transl = np.broadcast_to(transl, (count, 3))
    vertices = np.empty((count, len(mesh.vertex_index), 3), np.float32)
    joints = np.empty((count, skeleton.NUM_JOINTS, 3), np.float32)
    for i in range(count):
        vertices[i], joints[i] = skin(mesh, rotmats[i], rest[i], shaped[i], transl[i])
    return vertices, joints


def body_mesh(model: BodyModel, lod: int) -> Mesh:
    """The mesh of a level of detail, or of the coarsest level the model has below it (official files: 0).

    Raises:
        BodyModelError: `lod` is negative.
    """
    if lod < 0:
        raise BodyModelError(f"level of detail {lod}; expected 0 (full mesh), 1 or 2")
    return model.meshes[max(level for level in model.meshes if level <= lod)]


def all_joints(model: BodyModel, vertices: NDArray[np.floating], joints: NDArray[np.floating]) -> Array:
    """(..., V, 3) posed full mesh and (..., 55, 3) joints -> the (..., 127, 3) joints of SMPL-X tools.

    Joints 55..75 are vertices (`skeleton.KEYPOINT_VERTICES`), 76..126 landmarks of the face.
    """
    corners = vertices[..., model.landmark_faces, :]
    landmarks = np.einsum("...lkc,lk->...lc", corners, model.landmark_weights)
    keypoints = vertices[..., model.keypoint_vertices, :]
    return np.concatenate([joints, keypoints, landmarks], axis=-2).astype(np.float32)


def joints(model: BodyModel, parameters: BodyParameters) -> Array:
    """(55, 3) joints in the frame of the parameters, metres; vertices are not computed."""
    p = parameters
    return pose_joints(model, p.full_pose(), p.betas, p.transl, p.expression)


def vertices(model: BodyModel, parameters: BodyParameters, lod: int = 0) -> tuple[Array, Index]:
    """(V', 3) vertices in the frame of the parameters, metres, and (F', 3) faces."""
    p = parameters
    posed, _ = pose_vertices(model, p.full_pose(), p.betas, p.transl, p.expression, lod)
    return posed, body_mesh(model, lod).faces


def joints_of_people(model: BodyModel, people: Sequence[BodyParameters]) -> Array:
    """(P, 55, 3) joints of P people with equally many coefficients."""
    if not people:
        return np.zeros((0, 55, 3), np.float32)
    return pose_joints(model, *_stack(people))


def vertices_of_people(model: BodyModel, people: Sequence[BodyParameters],
                       lod: int = 0) -> tuple[Array, Index]:
    """(P, V', 3) vertices of P people with equally many coefficients, and (F', 3) faces."""
    mesh = body_mesh(model, lod)
    if not people:
        return np.zeros((0, len(mesh.vertex_index), 3), np.float32), mesh.faces
    return pose_vertices(model, *_stack(people), lod)[0], mesh.faces


def _stack(people: Sequence[BodyParameters]) -> tuple[Array, Array, Array, Array]:
    return (np.stack([p.full_pose() for p in people]), np.stack([p.betas for p in people]),
            np.stack([p.transl for p in people]), np.stack([p.expression for p in people]))


def standing_height(model: BodyModel, betas: NDArray[np.floating]) -> Array:
    """Stature in metres: extent along y of the zero pose with these betas (..., b) -> (...)."""
    mesh = model.meshes[max(model.meshes)]
    y = mesh.template[:, 1] + model.coefficients(betas) @ mesh.directions[1::3].T
    return y.max(axis=-1) - y.min(axis=-1)
