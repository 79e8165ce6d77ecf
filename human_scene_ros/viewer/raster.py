"""A small software renderer: triangles, points and lines through a pinhole camera, with one depth buffer.

Everything is drawn at the resolution of the given camera; draw larger and shrink for smooth edges. Colours are
float RGB in [0, 1], points are in the optical frame of the camera that draws them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.camera import PinholeCamera

Color = tuple[float, float, float]
Floats = NDArray[np.float32]

_NEAR_M = 0.05
_SUBPIXEL_BITS = 4
_LARGEST_SPLAT_PX = 24


class Canvas:
    """An image with a depth buffer.

    Args:
        camera: Intrinsics of the picture; its size is the size of the picture.
        background: (H, W, 3) or a colour.
    """

    def __init__(self, camera: PinholeCamera, background: NDArray[np.floating] | Color = (1.0, 1.0, 1.0)) -> None:
        self.camera = camera
        self.color: Floats = np.empty((camera.height, camera.width, 3), np.float32)
        self.color[:] = background
        self.depth: Floats = np.full((camera.height, camera.width), np.inf, np.float32)

    def points(self, points_camera: NDArray[np.floating], colors: NDArray[np.floating], size_px: int = 1, *,
               size_m: float = 0.0, bias_m: float = 0.0) -> None:
        """Square splats of (N, 3) points; nearer ones win.

        Args:
            points_camera: (N, 3) metres.
            colors: (N, 3) or (3,).
            size_px: Least edge of the square.
            size_m: Edge of the square in the scene: near points are drawn larger.
            bias_m: Moves the points towards the eye in the depth test, for lines on surfaces.
        """
        z = points_camera[:, 2]
        front = np.isfinite(points_camera).all(axis=1) & (z > _NEAR_M)
        points, z = points_camera[front], z[front].astype(np.float32)
        colors = np.broadcast_to(np.asarray(colors, np.float32), points_camera.shape)[front]
        order = np.argsort(-z, kind="stable")  # far to near: the last write is the nearest
        points, z, colors = points[order], z[order], colors[order]
        uv = np.rint(self.camera.project(points)).astype(np.int64)
        edge = np.maximum(size_px, np.minimum(np.rint(size_m * self.camera.fx / z), _LARGEST_SPLAT_PX)).astype(int)
        z = z - np.float32(bias_m)
        for size in np.unique(edge):
            chosen = edge == size
            low = -((size - 1) // 2)
            for dv in range(low, low + size):
                for du in range(low, low + size):
                    self._write(uv[chosen, 0] + du, uv[chosen, 1] + dv, z[chosen], colors[chosen])

    def _write(self, u: NDArray[np.int64], v: NDArray[np.int64], z: Floats, colors: Floats) -> None:
        height, width = self.depth.shape
        keep = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        keep[keep] = z[keep] < self.depth[v[keep], u[keep]]
        self.depth[v[keep], u[keep]] = z[keep]
        self.color[v[keep], u[keep]] = colors[keep]

    def line(self, points_camera: NDArray[np.floating], color: NDArray[np.floating] | Color, width_px: int = 2,
             bias_m: float = 0.02) -> None:
        """A polyline through (N, 3) points, hidden where something is nearer; one colour or (N, 3)."""
        colors = np.broadcast_to(np.asarray(color, np.float32), points_camera.shape)
        samples, tints = [], []
        for a, b, ca, cb in zip(points_camera[:-1], points_camera[1:], colors[:-1], colors[1:], strict=True):
            clipped = _clip_near(np.asarray(a, np.float64), np.asarray(b, np.float64))
            if clipped is None:
                continue
            ends = self.camera.project(np.stack(clipped))
            length_px = float(np.linalg.norm(ends[1] - ends[0]))
            count = int(min(max(length_px / max(width_px * 0.5, 0.5), 1.0), 4000.0)) + 1
            # Even steps on screen are uneven in space: interpolate the inverse depth.
            t = np.linspace(0.0, 1.0, count)
            za, zb = clipped[0][2], clipped[1][2]
            s = (t / zb) / ((1 - t) / za + t / zb)
            samples.append(clipped[0] + s[:, None] * (clipped[1] - clipped[0]))
            tints.append(ca + s[:, None].astype(np.float32) * (cb - ca))
        if samples:
            self.points(np.concatenate(samples), np.concatenate(tints), width_px, bias_m=bias_m)

    def mesh(self, vertices_camera: NDArray[np.floating], faces: NDArray[np.integer], color: Color, *,
             alpha: float = 1.0) -> None:
        """A lit triangle mesh; `alpha` < 1 lets what is behind shine through (its depth is kept)."""
        shade, depth = shaded_mesh(vertices_camera, faces, color, self.camera)
        hit = depth < self.depth
        self.color[hit] = alpha * shade[hit] + (1.0 - alpha) * self.color[hit]
        if alpha == 1.0:
            self.depth[hit] = depth[hit]

    def to_image(self, shrink: int = 1) -> NDArray[np.uint8]:
        """(H / shrink, W / shrink, 3) uint8 RGB."""
        image = np.clip(255.0 * self.color + 0.5, 0.0, 255.0).astype(np.uint8)
        if shrink == 1:
            return image
        size = (self.camera.width // shrink, self.camera.height // shrink)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def shaded_mesh(vertices_camera: NDArray[np.floating], faces: NDArray[np.integer], color: Color,
                camera: PinholeCamera) -> tuple[Floats, Floats]:
    """Colour (H, W, 3) and depth (H, W) of a closed mesh, infinity where it is not.

    Triangles are painted from far to near, each with the light of its smoothed normal: a lamp at the upper
    left of the eye and a weak one from the right, so that shapes read without shadows.
    """
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    shade = np.zeros((camera.height, camera.width, 3), np.float32)
    corners = np.asarray(vertices_camera, np.float64)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    vertex_normal = np.zeros((len(vertices_camera), 3))
    for corner in range(3):
        np.add.at(vertex_normal, faces[:, corner], normal)
    # Outward normals face the eye: dot with the direction to the triangle is negative.
    visible = (corners[..., 2] > _NEAR_M).all(axis=1) & (np.einsum("fi,fi->f", normal, corners[:, 0]) < 0.0)
    if not visible.any():
        return shade, depth
    smooth = vertex_normal[faces[visible]].sum(axis=1)
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
    light = 0.50 + 0.48 * np.clip(smooth @ _unit(-0.45, -0.75, -0.55), 0, 1) + 0.16 * np.clip(
        smooth @ _unit(0.9, -0.1, -0.35), 0, 1)
    tint = np.clip(light[:, None] * np.asarray(color), 0.0, 1.0).astype(np.float32)
    z = corners[visible, :, 2].mean(axis=1)
    scale = 1 << _SUBPIXEL_BITS
    uv = camera.project(corners[visible])
    inside = ((uv[..., 0].max(axis=1) >= 0) & (uv[..., 0].min(axis=1) < camera.width)
              & (uv[..., 1].max(axis=1) >= 0) & (uv[..., 1].min(axis=1) < camera.height)
              & (np.abs(uv).max(axis=(1, 2)) < 16000))
    pixels = np.rint(uv * scale).astype(np.int32)
    index = np.full((camera.height, camera.width), -1, np.float32)  # exact up to 2^24 triangles
    for face in np.argsort(-z, kind="stable"):
        if inside[face]:
            cv2.fillConvexPoly(index, pixels[face], float(face), cv2.LINE_8, _SUBPIXEL_BITS)
    hit = index >= 0
    number = index[hit].astype(np.int64)
    depth[hit], shade[hit] = z[number], tint[number]
    return shade, depth


def _clip_near(a: NDArray[np.float64],
               b: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The part of the segment in front of the eye."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or max(a[2], b[2]) <= _NEAR_M:
        return None
    if a[2] <= _NEAR_M:
        a = b + (a - b) * (b[2] - 1.01 * _NEAR_M) / (b[2] - a[2])
    elif b[2] <= _NEAR_M:
        b = a + (b - a) * (a[2] - 1.01 * _NEAR_M) / (a[2] - b[2])
    return a, b


def _unit(x: float, y: float, z: float) -> NDArray[np.float64]:
    vector = np.array([x, y, z])
    return vector / np.linalg.norm(vector)
