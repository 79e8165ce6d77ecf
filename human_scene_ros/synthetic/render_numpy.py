"""Software renderer in numpy: the same picture and labels as `render_gl`, slower, without any graphics library.

Triangles are clipped at the near plane, cut into row spans, resolved by depth and shaded with the formulas of the
OpenGL fragment shader. With `smooth`, pixels on edges are shaded at four sample points as multisampling does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.synthetic import textures
from human_scene_ros.synthetic.shapes import KIND_PERSON, KIND_SKY, Drawing, Lighting

NEAR_M = 0.05
_SAMPLES = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]], np.float32)

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class _Triangles:
    """Clipped triangles that face the camera: (N, 3) corners each."""

    rows: Array  # (N, 3, VERTEX_FLOATS)
    inverse_z: Array  # (N, 3)
    uv: NDArray[np.float64]  # (N, 3, 2) pixels


class NumpyRenderer:
    """Draws `Drawing`s at one image size; see `human_scene_ros.synthetic.renderer.Renderer`."""

    name = "numpy"

    def __init__(self, width: int, height: int, smooth: bool = True) -> None:
        self._width, self._height, self._smooth = width, height, smooth

    def render(
        self, drawing: Drawing, camera: PinholeCamera
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        """RGB (H, W, 3) uint8, depth (H, W) float32 metres along z (0 = sky), instance (H, W) uint8."""
        width, height = self._width, self._height
        triangles = _visible_triangles(drawing, camera)
        u, v = (a.astype(np.float32) for a in np.meshgrid(np.arange(width), np.arange(height)))
        owner = _rasterize(triangles, width, height, 0.0, 0.0)
        flat = owner.reshape(-1)
        color = np.empty((height * width, 3), np.float32)
        depth_m = np.zeros(height * width, np.float32)
        instance = np.zeros(height * width, np.uint8)
        color[:] = drawing.lighting.fog * 255.0
        hit = np.flatnonzero(flat >= 0)
        points = _interpolate(triangles, flat[hit], u.reshape(-1)[hit], v.reshape(-1)[hit])
        sky = drawing.materials[points.material, 0, 3] == KIND_SKY
        depth_m[hit] = np.where(sky, 0.0, points.depth)
        instance[hit] = np.where(sky, 0, points.instance)
        color[hit] = _shade(points, drawing, camera)
        if self._smooth:
            self._smooth_edges(triangles, drawing, camera, owner, color)
        image = np.clip(color + 0.5, 0, 255).astype(np.uint8).reshape(height, width, 3)
        return image, depth_m.reshape(height, width), instance.reshape(height, width)

    def _smooth_edges(
        self,
        triangles: _Triangles,
        drawing: Drawing,
        camera: PinholeCamera,
        owner: NDArray[np.int32],
        color: Array,
    ) -> None:
        """Average four samples where they fall on surfaces of other materials or instances than the centre's."""
        owners = np.stack(
            [_rasterize(triangles, self._width, self._height, du, dv).reshape(-1) for du, dv in _SAMPLES]
        )
        tag = (triangles.rows[:, 0, 9] * 16 + triangles.rows[:, 0, 10]).astype(np.int64)
        tag = np.append(tag, -1)  # owner -1: nothing
        center = tag[owner.reshape(-1)]
        edge = np.flatnonzero((tag[owners] != center).any(0))
        v, u = np.divmod(edge, self._width)
        total = np.zeros((len(edge), 3), np.float32)
        for k, (du, dv) in enumerate(_SAMPLES):
            part = np.tile(drawing.lighting.fog * np.float32(255), (len(edge), 1)).astype(np.float32)
            hit = np.flatnonzero(owners[k, edge] >= 0)
            points = _interpolate(triangles, owners[k, edge[hit]], u[hit] + du, v[hit] + dv)
            part[hit] = _shade(points, drawing, camera)
            total += part
        color[edge] = total / len(_SAMPLES)


def _visible_triangles(drawing: Drawing, camera: PinholeCamera) -> _Triangles:
    meshes = [*drawing.people, drawing.static]
    corners = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes])  # (N, 3, F)
    R, t = drawing.T_camera_world[:3, :3], drawing.T_camera_world[:3, 3]
    points = corners[..., :3].astype(np.float64) @ R.T + t
    z = points[..., 2]
    limits = []  # outside one plane of the view: nothing to see
    for axis, f, c, size in (
        (0, camera.fx, camera.cx, camera.width),
        (1, camera.fy, camera.cy, camera.height),
    ):
        limits.append(points[..., axis] * f + (c + 0.5) * z >= 0)
        limits.append(points[..., axis] * f + (c - size + 0.5) * z <= 0)
    keep = (z > NEAR_M).any(1)
    for inside in limits:
        keep &= inside.any(1)
    normal = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    keep &= (normal * points[:, 0]).sum(1) < 0
    corners, points = _clip_near(corners[keep], points[keep])
    z = points[..., 2]
    uv = np.stack(
        [points[..., 0] / z * camera.fx + camera.cx, points[..., 1] / z * camera.fy + camera.cy], -1
    )
    return _Triangles(corners.astype(np.float32), (1.0 / z).astype(np.float64), uv)


def _clip_near(
    corners: NDArray[np.floating], points: NDArray[np.float64]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Cut triangles at z = NEAR_M; a corner behind gives two triangles, two corners behind give one."""
    behind = points[..., 2] < NEAR_M
    count = behind.sum(1)
    packed = np.concatenate([points, corners], axis=-1)
    out = [packed[count == 0]]

    def cut(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
        s = (NEAR_M - a[:, 2]) / (b[:, 2] - a[:, 2])
        middle = a + s[:, None] * (b - a)
        middle[:, 2] = NEAR_M
        return middle

    for wanted in (1, 2):
        some = packed[count == wanted]
        if not len(some):
            continue
        # Turn each triangle so that its odd corner comes first.
        odd = np.argmax(behind[count == wanted] == (wanted == 1), axis=1)
        order = (odd[:, None] + np.arange(3)) % 3
        a, b, c = np.moveaxis(np.take_along_axis(some, order[..., None], axis=1), 1, 0)
        ab, ac = cut(a, b), cut(a, c)
        if wanted == 2:  # only the first corner is in front
            out.append(np.stack([a, ab, ac], 1))
        else:
            out.append(np.stack([ab, b, c], 1))
            out.append(np.stack([ab, c, ac], 1))
    packed = np.concatenate(out)
    return packed[..., 3:], packed[..., :3]


def _planes(triangles: _Triangles) -> NDArray[np.float64]:
    """(N, 3, 3): row k gives corner k's barycentric weight in the image as a x + b y + c."""
    x, y = triangles.uv[..., 0], triangles.uv[..., 1]
    a = y[:, [1, 2, 0]] - y[:, [2, 0, 1]]
    b = x[:, [2, 0, 1]] - x[:, [1, 2, 0]]
    c = x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]]
    area = c.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = np.stack([a, b, c], -1) / area[:, None, None]
    planes[np.abs(area) < 1e-9] = np.nan
    return planes


def _expand(
    first: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the range and value for all values of the ranges [first, first + count)."""
    index = np.repeat(np.arange(len(first)), count)
    start = np.cumsum(count) - count
    return index, np.arange(len(index)) - start[index] + first[index]


def _rasterize(triangles: _Triangles, width: int, height: int, du: float, dv: float) -> NDArray[np.int32]:
    """(H, W) number of the nearest triangle at pixel centres shifted by (du, dv); -1 = none."""
    planes = _planes(triangles)
    y = triangles.uv[..., 1] - dv
    top = np.clip(np.ceil(y.min(1)), 0, height).astype(np.int64)
    bottom = np.clip(np.floor(y.max(1)), -1, height - 1).astype(np.int64)
    usable = np.isfinite(planes).all((1, 2))
    count = np.where(usable, np.maximum(bottom - top + 1, 0), 0)
    triangle, row = _expand(top, count)
    # In one row each weight is a line in x: where it is positive bounds the span from one side.
    a = planes[triangle, :, 0]
    rest = planes[triangle, :, 1] * (row + dv)[:, None] + planes[triangle, :, 2] + a * du
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -rest / a
    low = np.where(a > 0, root, -np.inf).max(1)
    high = np.where(a < 0, root, np.inf).min(1)
    outside = ((a == 0) & (rest < 0)).any(1)
    left = np.clip(np.ceil(low - 1e-9), 0, width).astype(np.int64)
    right = np.clip(np.floor(high + 1e-9), -1, width - 1).astype(np.int64)
    spans = np.where(outside, 0, np.maximum(right - left + 1, 0))
    span, column = _expand(left, spans)
    owner_of_span, row_of_span = triangle[span], row[span]
    depth_plane = np.einsum("nk,nkc->nc", triangles.inverse_z, planes)
    coefficients = depth_plane[owner_of_span]
    inverse_z = (
        coefficients[:, 0] * (column + du) + coefficients[:, 1] * (row_of_span + dv) + coefficients[:, 2]
    )
    pixel = row_of_span * width + column
    nearest = np.full(width * height, 0.0)
    np.maximum.at(nearest, pixel, inverse_z)
    owner = np.full(width * height, -1, np.int32)
    won = inverse_z == nearest[pixel]
    owner[pixel[won]] = owner_of_span[won]
    return owner.reshape(height, width)


@dataclasses.dataclass(frozen=True)
class _Points:
    """Surface points to shade: (N, ...) each."""

    position: Array
    normal: Array
    surface: Array
    depth: Array
    material: NDArray[np.int64]
    instance: NDArray[np.int64]


def _interpolate(
    triangles: _Triangles, owner: NDArray[np.integer], u: NDArray[np.floating], v: NDArray[np.floating]
) -> _Points:
    used, index = np.unique(owner, return_inverse=True)
    some = _Triangles(triangles.rows[used], triangles.inverse_z[used], triangles.uv[used])
    planes = _planes(some)[index]
    weights = planes[..., 0] * u[:, None] + planes[..., 1] * v[:, None] + planes[..., 2]
    weights *= some.inverse_z[index]
    total = weights.sum(1)
    weights = (weights / total[:, None]).astype(np.float32)
    rows = np.einsum("nk,nkf->nf", weights, some.rows[index][..., :9])
    normal = rows[:, 3:6] / (np.linalg.norm(rows[:, 3:6], axis=1, keepdims=True) + 1e-12)
    ids = (some.rows[index, 0, 9:11] + 0.5).astype(np.int64)
    return _Points(rows[:, 0:3], normal, rows[:, 6:9], (1.0 / total).astype(np.float32), ids[:, 0], ids[:, 1])


def _sample(uv: Array, layer: NDArray[np.integer], level: NDArray[np.floating]) -> Array:
    """(N, 4) pattern values, bilinear in the nearest mip level."""
    pyramid = textures.mip_pyramid()
    level = np.clip(np.round(level), 0, len(pyramid) - 1).astype(np.int64)
    out = np.empty((len(uv), 4), np.float32)
    for number in np.unique(level):
        at = np.flatnonzero(level == number)
        image, size = pyramid[number], pyramid[number].shape[1]
        x, y = (uv[at, 0] * size - 0.5), (uv[at, 1] * size - 0.5)
        x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
        x0, y0, x1, y1, which = x0 % size, y0 % size, (x0 + 1) % size, (y0 + 1) % size, layer[at]
        upper = image[which, y0, x0] * (1 - fx) + image[which, y0, x1] * fx
        lower = image[which, y1, x0] * (1 - fx) + image[which, y1, x1] * fx
        out[at] = upper * (1 - fy) + lower * fy
    return out


def _painted(t: Array, c0: Array, c1: Array, c2: Array, contrast: Array | float) -> Array:
    mixed = c0 + (c1 - c0) * t[:, 0:1]
    mixed = mixed + (c2 - mixed) * t[:, 1:2]
    return mixed * (1 + np.reshape(contrast, (-1, 1)) * (2 * t[:, 2:3] - 1))


def _turned(uv: Array, angle: Array) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * uv[:, 0] - s * uv[:, 1], s * uv[:, 0] + c * uv[:, 1]], 1)


def _smoothstep(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _shade(points: _Points, drawing: Drawing, camera: PinholeCamera) -> Array:
    """(N, 3) RGB in [0, 255], not clipped."""
    light, m = drawing.lighting, drawing.materials
    R, t = drawing.T_camera_world[:3, :3], drawing.T_camera_world[:3, 3]
    to_eye = (-R.T @ t).astype(np.float32) - points.position
    to_eye /= np.linalg.norm(to_eye, axis=1, keepdims=True) + 1e-9
    facing = np.abs((to_eye * points.normal).sum(1))
    footprint = (
        points.depth / np.float32(camera.fx) / np.maximum(facing, 0.08) * textures.SIZE
    )  # texels at one tile per metre
    kind = m[points.material, 0, 3]
    color = np.zeros((len(kind), 3), np.float32)
    gloss, glow, floor = (np.zeros(len(kind), np.float32) for _ in range(3))
    plain = np.flatnonzero(kind != KIND_PERSON)
    if len(plain):
        which = points.material[plain]
        r3, r4 = m[which, 3], m[which, 4]
        uv = _turned(points.surface[plain, :2], r3[:, 2])
        level = np.log2(np.maximum(footprint[plain] * r3[:, :2].max(1), 1e-6))
        pattern = _sample(uv * r3[:, :2], m[which, 1, 3].astype(np.int64), level)
        base = _painted(pattern, m[which, 0, :3], m[which, 1, :3], m[which, 2, :3], m[which, 2, 3])
        dirt = _sample(
            uv * 0.17 + 0.3, r4[:, 2].astype(np.int64), np.log2(np.maximum(footprint[plain] * 0.17, 1e-6))
        )
        color[plain] = base * (1 + r3[:, 3:4] * (2 * dirt[:, 2:3] - 1))
        gloss[plain], glow[plain], floor[plain] = r4[:, 0], r4[:, 1], r4[:, 3]
    people = np.flatnonzero(kind == KIND_PERSON)
    if len(people):
        color[people], gloss[people] = _person(
            points.surface[people], m[points.material[people]], footprint[people]
        )
    lit = color * _light(points, light, drawing.shadows, floor) + glow[:, None]
    half = light.sun_direction + to_eye
    half /= np.linalg.norm(half, axis=1, keepdims=True) + 1e-9
    highlight = np.maximum((points.normal * half).sum(1), 0) ** 24 * light.sun.mean()
    lit += (gloss * highlight)[:, None]
    clear = np.exp(-light.fog_per_m * points.depth)[:, None]
    lit = light.fog + (lit - light.fog) * clear
    sky = kind == KIND_SKY
    lit[sky] = color[sky]
    return np.clip(lit, 0, 1) * 255.0


def _light(points: _Points, light: Lighting, shadows: Array, floor: Array) -> Array:
    """(N, 3) light that arrives, shadows included."""
    n = points.normal
    total = light.ground + (light.sky - light.ground) * (0.5 + 0.5 * n[:, 2:3])
    total = total + light.sun * np.maximum(n @ light.sun_direction, 0)[:, None]
    for lamp in light.lamps:
        d = lamp[:3] - points.position
        r2 = (d * d).sum(1) + 0.05
        strength = (0.15 + 0.85 * np.maximum((n * d).sum(1) / np.sqrt(r2), 0)) / (1 + r2)
        total = total + lamp[3:] * strength[:, None]
    dark = light.corner_shade * np.exp(-3.0 * np.maximum(points.position[:, 2], 0))
    on_floor = np.flatnonzero(floor > 0.5)
    if len(on_floor):
        p, clear = points.position[on_floor, :2], np.ones(len(on_floor), np.float32)
        for x0, y0, x1, y1, radius in shadows:
            b = np.array([x1 - x0, y1 - y0], np.float32)
            q = p - np.array([x0, y0], np.float32)
            s = np.clip(q @ b / (b @ b + 1e-6), 0, 1)
            r2 = ((q - s[:, None] * b) ** 2).sum(1) / radius**2
            clear *= 1 - (1 - 0.6 * s) * np.exp(-1.5 * r2)
        dark[on_floor] = light.shadow * (1 - clear)
    return (total * (1 - dark)[:, None]).astype(np.float32)


def _person(r: Array, m: Array, footprint: Array) -> tuple[Array, Array]:
    """Colour (N, 3) and gloss (N,) of people at undeformed coordinates r (N, 3); m (N, MATERIAL_TEXELS, 4)."""
    x, y, z = np.abs(r[:, 0]), r[:, 1], r[:, 2]
    color, gloss = m[:, 0, :3].copy(), np.full(len(r), 0.05, np.float32)
    sleeve, cuff, belt, collar = m[:, 8].T
    head = (y > collar) & (x < m[:, 14, 1])
    hair = head & ((y > m[:, 1, 3]) | ((z < m[:, 9, 1]) & (y > m[:, 9, 0])))
    arm = ~head & (x > sleeve)
    shirt = ~head & ~arm & (y > belt)
    trousers = ~head & ~arm & ~shirt & (y > cuff)
    leg = ~head & ~arm & ~shirt & ~trousers
    cloth = np.stack([r[:, 0] + 0.6 * z, y + 0.15 * z], 1)

    def level(at: NDArray[np.bool_], scale: Array | float) -> NDArray[np.floating]:
        return np.log2(np.maximum(footprint[at] * scale, 1e-6))

    a, b, c = m[shirt, 2], m[shirt, 3], m[shirt, 4]
    pattern = _sample(
        _turned(cloth[shirt], c[:, 3]) * b[:, 3:4], a[:, 3].astype(np.int64), level(shirt, b[:, 3])
    )
    color[shirt] = _painted(pattern, a[:, :3], b[:, :3], c[:, :3], 0.5)
    a, b, c = m[trousers, 5], m[trousers, 6], m[trousers, 13]
    pattern = _sample(cloth[trousers] * b[:, 3:4], a[:, 3].astype(np.int64), level(trousers, b[:, 3]))
    color[trousers] = _painted(pattern, a[:, :3], b[:, :3], c[:, :3], c[:, 3])
    gloves = arm & (m[:, 9, 3] > 0.5) & (x > m[:, 9, 2])
    color[gloves] = m[gloves, 15, :3]
    shoes = leg & (y < m[:, 7, 3])
    socks = leg & ~shoes & (y < m[:, 10, 3])
    color[shoes], gloss[shoes] = m[shoes, 7, :3], 0.2
    color[socks] = m[socks, 10, :3]
    strand_uv = np.stack([r[hair, 0] * 6.0, y[hair] * 1.5 + z[hair]], 1)
    strand = _sample(strand_uv, m[hair, 14, 3].astype(np.int64), level(hair, 6.0))[:, 2:3]
    color[hair], gloss[hair] = m[hair, 1, :3] * (0.7 + 0.6 * strand), 0.15
    face = np.flatnonzero(head & ~hair & (z > m[:, 11, 2]))
    color[face] = _face(r[face], m[face], color[face])
    return color, gloss


def _face(r: Array, m: Array, c: Array) -> Array:
    eye_x, eye_y, _, strength = m[:, 11].T
    mouth_y, beard_strength, brow_strength, glasses = m[:, 12].T
    hair = m[:, 1, :3]
    dx, dy, dm = np.abs(r[:, 0]) - eye_x, r[:, 1] - eye_y, r[:, 1] - mouth_y
    eyes = 1 - _smoothstep(0.6, 1.2, np.hypot(dx / 0.014, dy / 0.008))
    brows = 1 - _smoothstep(0.7, 1.2, np.hypot(dx / 0.022, (dy - 0.022) / 0.005))
    mouth = 1 - _smoothstep(0.7, 1.3, np.hypot(r[:, 0] / 0.024, dm / 0.007))
    beard = np.clip(_smoothstep(0.012, -0.008, dm - 0.018) * beard_strength, 0, 1)
    frame = (1 - _smoothstep(0.003, 0.006, np.abs(np.hypot(dx, dy * 1.2) - 0.024))) * glasses

    def blend(a: Array, b: Array | float, weight: Array) -> Array:
        return a + (b - a) * weight[:, None]

    c = blend(c, c * np.array([0.8, 0.45, 0.42], np.float32), mouth * strength)
    c = blend(c, hair, beard)
    c = blend(c, hair * 0.6, brows * brow_strength)
    c = blend(c, np.array([0.06, 0.05, 0.05], np.float32), eyes * strength)
    return blend(c, 0.04, frame)
