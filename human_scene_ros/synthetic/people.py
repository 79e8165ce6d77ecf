"""Clothed people: a body with random shape, clothes, hair and things it carries, ready to be posed.

Clothes are regions of the undeformed body (T-pose, SMPL-X axes) that the renderers colour by surface coordinates;
here their vertices are pushed out along the normal, so silhouettes vary while joints stay exact. Hats, hair, bags
and skirts are extra solids with their own skin weights.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from human_scene_ros.body.model import BodyModel, body_mesh, load_body_model
from human_scene_ros.synthetic.motions import HEAD, L_HIP, L_WRIST, PELVIS, R_HIP, R_WRIST, SPINE2, SPINE3
from human_scene_ros.synthetic.palette import pick_layer, random_colors
from human_scene_ros.synthetic.shapes import (
    KIND_PERSON,
    MATERIAL_TEXELS,
    VERTEX_FLOATS,
    MaterialTable,
    Mesh,
    MeshBuilder,
)

Array = NDArray[np.float32]
Rng = np.random.Generator

# Builder solids stand along z; people stand along y.
_ROT_BODY_BUILDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

# RGB from dark to light; a person's skin lies between two neighbours, with a little noise.
_SKIN_TONES = np.array(
    [
        [0.20, 0.12, 0.08],
        [0.36, 0.22, 0.14],
        [0.55, 0.36, 0.25],
        [0.72, 0.52, 0.38],
        [0.85, 0.66, 0.52],
        [0.95, 0.80, 0.69],
    ]
)
_HAIR_TONES = np.array(
    [
        [0.03, 0.03, 0.03],
        [0.10, 0.07, 0.05],
        [0.25, 0.15, 0.08],
        [0.45, 0.30, 0.15],
        [0.70, 0.55, 0.30],
        [0.55, 0.53, 0.50],
        [0.85, 0.84, 0.82],
        [0.40, 0.15, 0.06],
    ]
)


@functools.cache
def open_body() -> BodyModel:
    """The body model of all synthetic people."""
    return load_body_model()


@dataclasses.dataclass(frozen=True)
class _Template:
    points: Array  # (V, 3)
    normals: Array  # (V, 3)
    faces: NDArray[np.int32]
    directions: Array  # (V * 3, 10)
    weights: sparse.csr_array


@functools.cache
def template(lod: int) -> _Template:
    """Undeformed mesh of a level of detail with smooth normals."""
    model = open_body()
    mesh = body_mesh(model, lod)
    points = mesh.template
    normals = np.zeros_like(points)
    corners = points[mesh.faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normals, mesh.faces[:, k], face_normals)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    directions = np.ascontiguousarray(mesh.directions[:, : model.num_betas])
    return _Template(points, normals, mesh.faces.astype(np.int32), directions, mesh.skin)


@dataclasses.dataclass(frozen=True)
class DressedPerson:
    """A person in the T-pose, ready to be posed.

    Args:
        betas: (10,) shape of the open body.
        rest_joints: (55, 3).
        points: (V, 3) shaped and clothed vertices, body first.
        normals: (V, 3).
        weights: (V, 55) sparse skin weights.
        body_vertices: Number of vertices of the body itself.
        fixed: (V, VERTEX_FLOATS) vertex rows; position and normal are overwritten by posing.
        faces: (F, 3).
        head_vertices: Indices of body vertices of the head.
        height_m: Standing height without hat.
    """

    betas: Array
    rest_joints: Array
    points: Array
    normals: Array
    weights: sparse.csr_array
    body_vertices: int
    fixed: Array
    faces: NDArray[np.int32]
    head_vertices: NDArray[np.int64]
    height_m: float

    def posed(self, rotation: NDArray[np.floating], joints: NDArray[np.floating]) -> Array:
        """Vertex rows of the posed person.

        Args:
            rotation: (55, 3, 3) rotation of each joint, T-pose axes -> world.
            joints: (55, 3) joints in the world frame.
        """
        transform = np.empty((55, 12), np.float32)
        transform[:, :9] = rotation.reshape(55, 9)
        transform[:, 9:] = joints - (rotation @ self.rest_joints[..., None])[..., 0]
        blended = self.weights @ transform
        linear = blended[:, :9].reshape(-1, 3, 3)
        rows = self.fixed.copy()
        rows[:, 0:3] = np.einsum("vij,vj->vi", linear, self.points) + blended[:, 9:]
        rows[:, 3:6] = np.einsum("vij,vj->vi", linear, self.normals)
        return rows


@dataclasses.dataclass(frozen=True)
class _Outfit:
    """Limits between the regions of the undeformed body (metres, template coordinates)."""

    sleeve_x: float
    cuff_y: float
    belt_y: float
    collar_y: float
    head_x: float
    hair_front_y: float
    hair_back_y: float
    hair_z: float
    shoe_y: float
    sock_y: float


def _outfit(rng: Rng, bald: bool, long_hair: bool) -> _Outfit:
    sleeve = rng.choice([0.21, 0.33, 0.45, 0.66], p=[0.1, 0.35, 0.1, 0.45])
    cuff = rng.choice([-0.83, -0.62, -0.38, -0.2], p=[0.68, 0.08, 0.18, 0.06])
    return _Outfit(
        sleeve_x=float(sleeve + rng.uniform(-0.03, 0.02)),
        cuff_y=float(cuff + rng.uniform(-0.05, 0.03)),
        belt_y=float(rng.uniform(-0.12, 0.1)),
        collar_y=float(rng.uniform(0.48, 0.55)),
        head_x=0.13,
        hair_front_y=9.0 if bald else float(rng.uniform(0.73, 0.765)),
        hair_back_y=9.0 if bald else float(rng.uniform(0.56, 0.60) if long_hair else rng.uniform(0.60, 0.68)),
        hair_z=float(rng.uniform(0.02, 0.06)),
        shoe_y=float(rng.uniform(-0.9, -0.85) if rng.random() < 0.8 else -0.72),
        sock_y=float(rng.choice([-0.86, -0.75, -0.55])),
    )


def _material(rng: Rng, table: MaterialTable, o: _Outfit, skin: Array, hair: Array) -> int:
    row = np.zeros((MATERIAL_TEXELS, 4), np.float32)
    cloth = ("plain", "plain", "fabric", "stripes", "noise", "organic", "text")
    shirt = random_colors(
        rng, 3, str(rng.choice(["any", "any", "dark", "pale", "vivid", "neutral", "denim"]))
    )
    trousers = random_colors(
        rng, 3, str(rng.choice(["any", "dark", "dark", "denim", "denim", "neutral", "wood", "pale"]))
    )
    for colors in (shirt, trousers):  # half of all clothes are nearly of one colour
        if rng.random() < 0.5:
            colors[1:] = colors[0] + rng.uniform(0.05, 0.4) * (colors[1:] - colors[0])
    if rng.random() < 0.12:  # overall: one cloth for all
        trousers = shirt
    eye = open_body().joint_template[23]
    row[0] = *skin, KIND_PERSON
    row[1] = *hair, o.hair_front_y
    row[2] = *shirt[0], pick_layer(rng, *cloth)
    row[3] = *shirt[1], np.exp(rng.uniform(np.log(0.7), np.log(5.0)))
    row[4] = *shirt[2], rng.choice([0.0, np.pi / 2, np.pi / 4], p=[0.5, 0.4, 0.1])
    row[5] = *trousers[0], pick_layer(rng, "plain", "plain", "plain", "fabric", "noise", "stripes")
    row[6] = *trousers[1], np.exp(rng.uniform(np.log(0.7), np.log(5.0)))
    row[7] = *random_colors(rng, 1, str(rng.choice(["dark", "any", "pale"])))[0], o.shoe_y
    row[8] = o.sleeve_x, o.cuff_y, o.belt_y, o.collar_y
    row[9] = o.hair_back_y, o.hair_z, 0.69, float(rng.random() < 0.06)
    row[10] = *random_colors(rng, 1)[0], o.sock_y
    row[11] = abs(eye[0]), eye[1], eye[2] - 0.03, rng.uniform(0.6, 1.0)
    row[12] = (
        eye[1] - 0.075,
        rng.uniform(0.4, 1.0) if rng.random() < 0.25 else 0.0,
        rng.uniform(0.2, 0.9),
        float(rng.random() < 0.2),
    )
    row[13] = *trousers[2], rng.uniform(0.2, 0.6)
    row[14] = 0.0, o.head_x, 0.0, pick_layer(rng, "organic")
    row[15, :3] = random_colors(rng, 1, str(rng.choice(["dark", "vivid", "pale"])))[0]
    return table.add_row(row)


def _swelling(rng: Rng, o: _Outfit, rest: Array, thick_hair: float) -> Array:
    """(V,) metres that each vertex is pushed out along its normal by hair and clothes."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    coat = rng.random() < 0.25
    shirt = rng.uniform(0.02, 0.045) if coat else rng.uniform(0.003, 0.02)
    trousers = rng.uniform(0.003, 0.03)
    push = np.zeros(len(rest), np.float32)
    head = (y > o.collar_y) & (x < o.head_x)
    hair = head & ((y > o.hair_front_y) | ((z < o.hair_z) & (y > o.hair_back_y)))
    push[hair] = thick_hair
    torso = ~head & (y > o.belt_y) & (x <= o.sleeve_x)
    push[torso] = shirt
    flare = np.clip((x[torso] - 0.2) / 0.4, 0, 1) * rng.uniform(-0.3, 0.8)  # wide or narrow sleeve ends
    push[torso] *= 1 + flare
    legs = ~head & (y <= o.belt_y) & (y > o.cuff_y)
    push[legs] = trousers * (1 + np.clip(-y[legs] / 0.8, 0, 1) * rng.uniform(-0.5, 1.0))
    push[y < o.shoe_y] = 0.008
    return push


class _Extras:
    """Rigid or smoothly weighted additions to one person."""

    def __init__(self, rest_joints: Array, scale: float) -> None:
        self.joints, self.scale = rest_joints, scale
        self._parts: list[tuple[MeshBuilder, int]] = []
        self._cloths: list[tuple[Mesh, Array]] = []

    def part(self, joint: int) -> MeshBuilder:
        """A builder whose solids move with the joint."""
        builder = MeshBuilder()
        self._parts.append((builder, joint))
        return builder

    def put(
        self,
        builder: MeshBuilder,
        name: str,
        joint: int,
        offset: tuple[float, float, float],
        size: tuple[float, ...] | NDArray[np.floating],
        material: int,
        rotation: NDArray[np.floating] | None = None,
    ) -> None:
        """Add a solid at `offset` (x left, y up, z front) from the joint; size is (x, z, y): solids stand along y."""
        R = _ROT_BODY_BUILDER if rotation is None else rotation @ _ROT_BODY_BUILDER
        builder.add(
            name,
            self.joints[joint] + self.scale * np.asarray(offset),
            self.scale * np.asarray(size),
            material,
            rotation=R,
        )

    def add_cloth(self, mesh: Mesh, weights: Array) -> None:
        """Add a mesh with (V, 55) weights of its own."""
        self._cloths.append((mesh, weights))

    def meshes(self) -> list[tuple[Mesh, Array]]:
        """Meshes with their (V, 55) weights."""
        out = list(self._cloths)
        for builder, joint in self._parts:
            mesh = builder.build()
            weights = np.zeros((len(mesh.vertices), 55), np.float32)
            weights[:, joint] = 1.0
            out.append((mesh, weights))
        return out


def _hair_and_hat(
    rng: Rng, table: MaterialTable, extras: _Extras, hair: Array, bald: bool, long_hair: bool
) -> None:
    layer = pick_layer(rng, "organic")
    colors = np.stack([hair * 0.7, hair, np.minimum(hair * 1.4, 1)])
    material = table.surface(colors, layer, (4.0, 1.0), gloss=0.1)
    if long_hair and not bald:
        b = extras.part(HEAD)
        length = rng.uniform(0.15, 0.4)
        style = rng.choice(["open", "tail", "bun"])
        if style == "open":
            extras.put(
                b, "sphere", HEAD, (0, 0.09 - length / 2, -0.05), (0.19, 0.12, length + 0.12), material
            )
        elif style == "tail":
            extras.put(b, "sphere", HEAD, (0, 0.06 - length / 2, -0.12), (0.06, 0.06, length), material)
        else:
            extras.put(b, "sphere", HEAD, (0, rng.uniform(0.05, 0.14), -0.1), (0.1, 0.1, 0.1), material)
    elif not bald and rng.random() < 0.15:  # big curls
        b = extras.part(HEAD)
        s = rng.uniform(0.24, 0.34)
        extras.put(b, "sphere", HEAD, (0, 0.1, -0.05), (s, s, s * 0.9), material)
    if rng.random() < 0.2:
        hat = table.surface(
            random_colors(rng, 3), pick_layer(rng, "plain", "fabric", "noise", "stripes"), (3.0, 3.0)
        )
        b = extras.part(HEAD)
        kind = rng.choice(["cap", "beanie", "brim", "helmet", "hood"])
        if kind in ("cap", "beanie", "brim"):
            extras.put(
                b, "dome", HEAD, (0, 0.115, -0.015), (0.2, 0.24, 0.13 if kind != "beanie" else 0.17), hat
            )
        if kind == "cap":
            extras.put(b, "box", HEAD, (0, 0.065, 0.12), (0.15, 0.12, 0.015), hat)
        elif kind == "brim":
            extras.put(b, "cylinder", HEAD, (0, 0.07, -0.01), (0.38, 0.42, 0.015), hat)
        elif kind == "helmet":
            extras.put(b, "sphere", HEAD, (0, 0.095, -0.02), (0.26, 0.3, 0.2), hat)
        elif kind == "hood":
            extras.put(b, "sphere", HEAD, (0, 0.04, -0.05), (0.24, 0.2, 0.3), hat)


def _skirt(
    rng: Rng, extras: _Extras, material: int, bottom_y: float, top_y: float, points: Array, rest: Array
) -> None:
    """A cone of cloth from the belt to `bottom_y` (template coordinates) that follows both thighs."""
    segments, rows = 16, 6
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    waist = np.abs(rest[:, 1] - top_y) < 0.06
    waist &= np.abs(rest[:, 0]) < 0.25
    center = points[waist].mean(0)
    rx = float(np.abs(points[waist, 0]).max()) + 0.015
    rz = float(np.abs(points[waist, 2] - center[2]).max()) + 0.015
    flare = rng.uniform(1.15, 1.9)
    y = np.linspace(top_y, bottom_y, rows) * extras.scale
    vertices = np.zeros((rows * segments, VERTEX_FLOATS), np.float32)
    weights = np.zeros((rows * segments, 55), np.float32)
    for k in range(rows):
        f = k / (rows - 1)
        s = 1 + (flare - 1) * f
        at = slice(k * segments, (k + 1) * segments)
        # The first rows must clear the hips.
        x, z = (rx + 0.03 * min(2 * f, 1)) * s * np.cos(angles), (rz + 0.02) * s * np.sin(angles)
        vertices[at, 0], vertices[at, 1], vertices[at, 2] = x, y[k], center[2] + z
        vertices[at, 3], vertices[at, 4], vertices[at, 5] = np.cos(angles), 0.2, np.sin(angles)
        vertices[at, 6], vertices[at, 7] = angles * 0.16, y[k]
        side = np.clip(0.5 + x / 0.16, 0, 1)
        legs = min(1.0, 1.4 * f)
        weights[at, PELVIS] = 1 - legs
        weights[at, L_HIP], weights[at, R_HIP] = legs * side, legs * (1 - side)
    vertices[:, 9] = material
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(segments), indexing="ij")
    a, b = (i * segments + j).ravel(), (i * segments + (j + 1) % segments).ravel()
    c, d = a + segments, b + segments
    outside = np.concatenate([np.column_stack([a, b, c]), np.column_stack([b, d, c])])
    faces = np.concatenate([outside, outside[:, ::-1]]).astype(np.int32)  # seen from below too
    extras.add_cloth(Mesh(vertices, faces), weights)


def dress(rng: Rng, table: MaterialTable, instance: int, lod: int, motion_name: str) -> DressedPerson:
    """A random person whose vertices carry instance number `instance` (person index + 1)."""
    model, base = open_body(), template(lod)
    betas = np.clip(rng.normal(0, 1, 10), -2.2, 2.2).astype(np.float32)
    if rng.random() < 0.1:  # the first coefficient is mostly stature: children
        betas[0] = rng.uniform(-4.5, -2.2)
    rest_joints = model.joint_template + model.joint_shapedirs[:, :, :10] @ betas
    shaped = base.points + (base.directions @ betas).reshape(-1, 3)
    height = float(shaped[:, 1].max() - shaped[:, 1].min())
    scale = height / float(base.points[:, 1].max() - base.points[:, 1].min())

    t = rng.uniform(0, len(_SKIN_TONES) - 1.001)
    skin = _SKIN_TONES[int(t)] * (1 - t % 1) + _SKIN_TONES[int(t) + 1] * (t % 1)
    skin = np.clip(skin * rng.normal(1, 0.04, 3), 0, 1).astype(np.float32)
    hair = np.clip(_HAIR_TONES[rng.integers(len(_HAIR_TONES))] * rng.normal(1, 0.1, 3), 0, 1).astype(
        np.float32
    )
    if rng.random() < 0.06:
        hair = random_colors(rng, 1, "vivid")[0]
    bald, long_hair = rng.random() < 0.08, rng.random() < 0.4
    outfit = _outfit(rng, bald, long_hair)
    material = _material(rng, table, outfit, skin, hair)
    thick_hair = float(rng.uniform(0.008, 0.035))
    points = shaped + base.normals * (scale * _swelling(rng, outfit, base.points, thick_hair))[:, None]

    n = len(points)
    body_rows = np.zeros((n, VERTEX_FLOATS), np.float32)
    body_rows[:, 6:9], body_rows[:, 9] = base.points, material
    extras = _Extras(rest_joints, scale)
    _hair_and_hat(rng, table, extras, hair, bald, long_hair)
    cloth = table.surface(
        random_colors(rng, 3),
        pick_layer(rng, "plain", "plain", "fabric", "stripes", "noise"),
        (2.0, 2.0),
        contrast=0.4,
    )
    if motion_name not in ("lie",) and rng.random() < 0.16:
        _skirt(rng, extras, cloth, float(rng.uniform(-0.6, -0.2)), outfit.belt_y + 0.04, points, base.points)
    if rng.random() < 0.1:  # backpack
        b = extras.part(SPINE3)
        extras.put(
            b,
            "box",
            SPINE3,
            (0, 0.0, -0.2),
            (rng.uniform(0.25, 0.35), rng.uniform(0.1, 0.2), rng.uniform(0.35, 0.5)),
            cloth,
        )
    if rng.random() < 0.08:  # bag at the hip
        b = extras.part(PELVIS)
        extras.put(b, "box", PELVIS, (rng.choice([-1, 1]) * 0.25, -0.05, 0.0), (0.1, 0.3, 0.25), cloth)
    if rng.random() < 0.08:  # something in the hand
        side = rng.choice([L_WRIST, R_WRIST])
        b = extras.part(int(side))
        s = 1 if side == L_WRIST else -1
        extras.put(
            b,
            str(rng.choice(["box", "cylinder", "sphere"])),
            int(side),
            (s * 0.12, -0.04, 0.03),
            rng.uniform(0.05, 0.25, 3),
            cloth,
        )
    if motion_name == "carry":
        b = extras.part(SPINE2)
        extras.put(
            b,
            "box",
            SPINE2,
            (0, 0.05, 0.38),
            (rng.uniform(0.25, 0.45), rng.uniform(0.2, 0.35), rng.uniform(0.15, 0.35)),
            cloth,
        )

    rows, weights, faces, all_points, all_normals = (
        [body_rows],
        [base.weights],
        [base.faces],
        [points],
        [base.normals],
    )
    count = n
    for mesh, w in extras.meshes():
        rows.append(mesh.vertices)
        weights.append(sparse.csr_array(w))
        faces.append(mesh.faces + count)
        all_points.append(mesh.vertices[:, 0:3])
        all_normals.append(mesh.vertices[:, 3:6])
        count += len(mesh.vertices)
    fixed = np.concatenate(rows)
    fixed[:, 10] = instance
    head = np.flatnonzero((base.points[:, 1] > 0.6) & (np.abs(base.points[:, 0]) < 0.13))
    return DressedPerson(
        betas,
        rest_joints.astype(np.float32),
        np.concatenate(all_points).astype(np.float32),
        np.concatenate(all_normals).astype(np.float32),
        sparse.csr_array(sparse.vstack(weights)).astype(np.float32),
        n,
        fixed,
        np.concatenate(faces).astype(np.int32),
        head,
        height,
    )
