"""What a renderer draws: meshes of simple solids, a table of materials, lights and soft floor shadows.

Everything is in the world frame (z up, metres). Solids are closed and wound counter-clockwise seen from outside,
so that renderers may skip back faces. Every vertex is one row of `VERTEX_FLOATS` float32: position (3), normal (3),
surface coordinates (3), material number, instance number. Surface coordinates are metres along the surface for
scenery and the undeformed body's coordinates for people, so that clothes move with the body.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERTEX_FLOATS = 11
MATERIAL_TEXELS = 16  # RGBA float32 texels of one row of the material table
KIND_SURFACE, KIND_PERSON, KIND_SKY = 0, 1, 2

Array = NDArray[np.float32]
Vector = NDArray[np.floating] | tuple[float, ...]
Rows = list[NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Triangles.

    Args:
        vertices: (N, VERTEX_FLOATS) float32.
        faces: (M, 3) int32.
    """

    vertices: Array
    faces: NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Lighting:
    """Lights of a place; colours are linear factors on the material colour.

    Args:
        sun_direction: (3,) unit vector towards the light.
        sun: (3,) RGB.
        sky: (3,) RGB of light from above.
        ground: (3,) RGB of light from below.
        lamps: (2, 6) position and RGB of two lamps (at 1 m).
        fog: (3,) RGB that far surfaces fade to.
        fog_per_m: Fading rate.
        corner_shade: Darkening near the floor, in [0, 1].
        shadow: Strength of the soft shadows on the floor, in [0, 1].
    """

    sun_direction: Array
    sun: Array
    sky: Array
    ground: Array
    lamps: Array
    fog: Array
    fog_per_m: float
    corner_shade: float
    shadow: float


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One picture to render.

    Args:
        static: Scenery; the same object for all frames of a world, so that it is uploaded once.
        people: Meshes of this frame.
        materials: (M, MATERIAL_TEXELS, 4) float32; same object for all frames of a world.
        lighting: Lights.
        shadows: (S <= 12, 5) float32 segments on the floor: x0, y0, x1, y1, radius.
        T_camera_world: (4, 4).
    """

    static: Mesh
    people: tuple[Mesh, ...]
    materials: Array
    lighting: Lighting
    shadows: Array
    T_camera_world: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _Primitive:
    points: Array  # (n, 3) within [-0.5, 0.5]
    normals: Array  # (n, 3)
    along_u: Array  # (n, 3): dot with the size gives the first surface coordinate
    along_v: Array
    faces: NDArray[np.int32]

    @classmethod
    def of(cls, points: Rows, normals: Rows, along_u: Rows, along_v: Rows, faces: Rows) -> _Primitive:
        """Join lists of rows."""
        p, n, u, v = (np.concatenate(x).astype(np.float32).reshape(-1, 3) for x in (points, normals, along_u, along_v))
        return cls(p, n, u, v, np.concatenate(faces).astype(np.int32).reshape(-1, 3))


def _lathe(profile: list[tuple[float, float]], segments: int, smooth: bool) -> _Primitive:
    """Turn the (radius, z) profile, listed from bottom to top, around z."""
    points: Rows = []
    normals: Rows = []
    us: Rows = []
    vs: Rows = []
    faces: Rows = []
    angles = np.linspace(0.0, 2.0 * np.pi, segments + 1)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    profile_normals = []
    for (r0, z0), (r1, z1) in zip(profile[:-1], profile[1:], strict=True):
        n = np.array([z1 - z0, r0 - r1])
        profile_normals.append(n / (np.linalg.norm(n) + 1e-9))
    for k, ((r0, z0), (r1, z1)) in enumerate(zip(profile[:-1], profile[1:], strict=True)):
        base = len(points) * (segments + 1)
        for end, (r, z) in enumerate(((r0, z0), (r1, z1))):
            n = profile_normals[k]
            if smooth:
                other = k + (1 if end else -1)
                n = n + (profile_normals[other] if 0 <= other < len(profile_normals) else n)
                n = n / np.linalg.norm(n)
            points.append(np.column_stack([ring * r, np.full(segments + 1, z)]))
            normals.append(np.column_stack([ring * n[0], np.full(segments + 1, n[1])]))
            flat = abs(z1 - z0) < 1e-6  # caps are mapped from above
            u, v = np.zeros((segments + 1, 3)), np.zeros((segments + 1, 3))
            if flat:
                u[:, 0], v[:, 1] = ring[:, 0] * r, ring[:, 1] * r
            else:
                u[:, 0] = u[:, 1] = angles / 4.0
                v[:, 2] = z
            us.append(u)
            vs.append(v)
        a = base + np.arange(segments)
        b = a + segments + 1
        if r0 > 1e-6:
            faces.append(np.column_stack([a, a + 1, b]))
        if r1 > 1e-6:
            faces.append(np.column_stack([a + 1, b + 1, b]))
    return _Primitive.of(points, normals, us, vs, faces)


def _box() -> _Primitive:
    points: Rows = []
    normals: Rows = []
    us: Rows = []
    vs: Rows = []
    faces: Rows = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            base = len(points)
            for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                p, n, u, v = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
                p[axis], p[a], p[b], n[axis] = sign / 2, i / 2, j / 2, sign
                # Keep the second coordinate vertical on upright faces: bricks lie, wood stands.
                up, side = (b, a) if b == 2 or axis == 2 else (a, b)
                u[side], v[up] = p[side], p[up]
                for rows, row in ((points, p), (normals, n), (us, u), (vs, v)):
                    rows.append(row)
            quad = [[0, 1, 2], [0, 2, 3]] if sign > 0 else [[0, 2, 1], [0, 3, 2]]
            faces.append(base + np.array(quad))
    return _Primitive.of(points, normals, us, vs, faces)


def _torus(major: int = 14, minor: int = 6, tube: float = 0.14) -> _Primitive:
    a = np.linspace(0, 2 * np.pi, major + 1)[:, None]
    b = np.linspace(0, 2 * np.pi, minor + 1)[None, :]
    r = 0.5 - tube + tube * np.cos(b)
    points = np.stack([r * np.cos(a), r * np.sin(a), tube * np.sin(b) + 0 * a], -1).reshape(-1, 3)
    normals = np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b) + 0 * a], -1).reshape(-1, 3)
    u, v = np.zeros_like(points), np.zeros_like(points)
    u[:, 0] = u[:, 1] = (a / 4 + 0 * b).ravel()
    v[:, 0] = (b * tube + 0 * a).ravel()
    i, j = np.meshgrid(np.arange(major), np.arange(minor), indexing="ij")
    p = (i * (minor + 1) + j).ravel()
    q = p + minor + 1
    faces = np.concatenate([np.column_stack([p, q, q + 1]), np.column_stack([p, q + 1, p + 1])])
    return _Primitive.of([points], [normals], [u], [v], [faces])


@functools.cache
def primitive(name: str) -> _Primitive:
    """Unit solid: box, cylinder, cone, sphere, dome, vase or torus, axis along z, within [-0.5, 0.5]^3."""
    if name == "box":
        return _box()
    if name == "torus":
        return _torus()
    lat = np.linspace(-np.pi / 2, np.pi / 2, 8)
    profiles: dict[str, tuple[list[tuple[float, float]], int, bool]] = {
        "cylinder": ([(0.0, -0.5), (0.5, -0.5), (0.5, 0.5), (0.0, 0.5)], 12, False),
        "cone": ([(0.0, -0.5), (0.5, -0.5), (0.0, 0.5)], 12, False),
        "frustum": ([(0.0, -0.5), (0.5, -0.5), (0.3, 0.5), (0.0, 0.5)], 12, False),
        "sphere": ([(0.5 * float(np.cos(x)), 0.5 * float(np.sin(x))) for x in lat], 12, True),
        "dome": ([(0.0, -0.5), (0.5, -0.5), (0.46, -0.1), (0.33, 0.25), (0.0, 0.5)], 12, False),
        "vase": (
            [(0.0, -0.5), (0.25, -0.5), (0.5, -0.15), (0.45, 0.1), (0.15, 0.35), (0.22, 0.5), (0.0, 0.5)],
            12,
            False,
        ),
    }
    return _lathe(*profiles[name])


class MeshBuilder:
    """Collects solids and turns them into one mesh; all solids of one kind are transformed at once."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[NDArray[np.floating], ...]]] = {}
        self._materials: dict[str, list[int]] = {}

    def add(
        self,
        name: str,
        center: Vector,
        size: Vector,
        material: int,
        yaw: float = 0.0,
        rotation: NDArray[np.floating] | None = None,
    ) -> None:
        """Add the unit solid `name` scaled to `size` (3,), turned by `yaw` about z or a (3, 3) `rotation`."""
        if rotation is None:
            c, s = np.cos(yaw), np.sin(yaw)
            rotation = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        self._rows.setdefault(name, []).append((rotation, np.asarray(center), np.asarray(size)))
        self._materials.setdefault(name, []).append(material)

    def solids(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Rotations (n, 3, 3), centres (n, 3) and sizes (n, 3) of the solids of one kind (for ray casting)."""
        rows = self._rows.get(name, [])
        if not rows:
            return np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 3))
        return tuple(np.array(x, np.float64) for x in zip(*rows, strict=True))  # type: ignore[return-value]

    def build(self, instance: float = 0.0) -> Mesh:
        """One mesh of everything added so far."""
        blocks, faces, count = [], [], 0
        for name in self._rows:
            shape = primitive(name)
            rotation, center, size = self.solids(name)
            n = len(center)
            block = np.empty((n, len(shape.points), VERTEX_FLOATS), np.float32)
            block[..., 0:3] = (shape.points[None] * size[:, None]) @ rotation.transpose(0, 2, 1) + center[
                :, None
            ]
            normals = (shape.normals[None] / size[:, None]) @ rotation.transpose(0, 2, 1)
            block[..., 3:6] = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
            block[..., 6] = size @ shape.along_u.T
            block[..., 7] = size @ shape.along_v.T
            block[..., 8] = 0.0
            block[..., 9] = np.array(self._materials[name], np.float32)[:, None]
            block[..., 10] = instance
            first = count + len(shape.points) * np.arange(n, dtype=np.int32)
            faces.append((shape.faces[None] + first[:, None, None]).reshape(-1, 3))
            blocks.append(block.reshape(-1, VERTEX_FLOATS))
            count += n * len(shape.points)
        if not blocks:
            return Mesh(np.zeros((0, VERTEX_FLOATS), np.float32), np.zeros((0, 3), np.int32))
        return Mesh(np.concatenate(blocks), np.concatenate(faces).astype(np.int32))


class MaterialTable:
    """Rows of material parameters; see `surface` for the layout, `_material` in people.py for people."""

    def __init__(self) -> None:
        self._rows: list[Array] = []

    def add_row(self, row: Array) -> int:
        """Append a (MATERIAL_TEXELS, 4) row; returns its number."""
        self._rows.append(row)
        return len(self._rows) - 1

    def surface(
        self,
        colors: Array,
        layer: int,
        scale: tuple[float, float] = (1.0, 1.0),
        rotation: float = 0.0,
        contrast: float = 0.5,
        dirt: float = 0.2,
        dirt_layer: int = 0,
        gloss: float = 0.0,
        glow: float = 0.0,
        floor: bool = False,
        kind: int = KIND_SURFACE,
    ) -> int:
        """A textured surface.

        Args:
            colors: (3, 3) RGB in [0, 1]: base, pattern, second pattern.
            layer: Layer of the texture library.
            scale: Pattern tiles per metre along both surface coordinates.
            rotation: Turn of the pattern, radians.
            contrast: Strength of the layer's brightness detail.
            dirt: Strength of the slow second layer.
            dirt_layer: Its number.
            gloss: Strength of the highlight.
            glow: Light that the surface gives off by itself.
            floor: Receives the soft shadows.
            kind: KIND_SURFACE or KIND_SKY.
        """
        row = np.zeros((MATERIAL_TEXELS, 4), np.float32)
        row[0:3, :3] = colors
        row[0:3, 3] = kind, layer, contrast
        row[3] = scale[0], scale[1], rotation, dirt
        row[4] = gloss, glow, dirt_layer, float(floor)
        return self.add_row(row)

    def array(self) -> Array:
        """(M, MATERIAL_TEXELS, 4) float32."""
        return np.stack(self._rows)
