"""Procedural texture library: tileable patterns that every synthetic material is painted with.

One layer is (SIZE, SIZE, 4) uint8: red mixes colour 0 into colour 1, green mixes in colour 2, blue is a
brightness detail around 0.5, alpha is unused. The library is a fixed function of nothing (its own seed), so a
world is determined by its seed alone; variety comes from the pairing of layers with colours and scales.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 128
_SEED = 20

Layer = NDArray[np.float32]
Value = NDArray[np.floating] | NDArray[np.bool_] | float


def _stretch(x: NDArray[np.floating], clip: float = 2.0) -> Layer:
    """Zero-mean field to [0, 1], `clip` standard deviations either way."""
    x = (x - x.mean()) / (x.std() + 1e-9)
    return np.clip(x / (2.0 * clip) + 0.5, 0.0, 1.0).astype(np.float32)


def noise(rng: np.random.Generator, exponent: float, aspect: float = 1.0, size: int = SIZE) -> Layer:
    """Tileable noise whose amplitude spectrum falls with frequency^-exponent (natural pictures: about 1)."""
    fy = np.fft.fftfreq(size)[:, None] * aspect
    fx = np.fft.rfftfreq(size)[None, :]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * radius**-exponent
    spectrum[0, 0] = 0.0
    return _stretch(np.fft.irfft2(spectrum, (size, size)))


def _grid() -> tuple[Layer, Layer]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    return x, y


def _smooth_step(edge: float, width: float, x: Layer) -> Layer:
    t = np.clip((x - edge) / width + 0.5, 0.0, 1.0)
    return (t * t * (3.0 - 2.0 * t)).astype(np.float32)


def _wrapped(x: Layer) -> Layer:
    """Shortest difference on the unit torus."""
    return (x + 0.5) % 1.0 - 0.5


def _bricks(
    rng: np.random.Generator, rows: int, columns: int, joint: float, shift: float
) -> tuple[Layer, ...]:
    x, y = _grid()
    row = np.floor(y * rows)
    u = (x * columns + row * shift) % columns
    v = y * rows - row
    across = u - np.floor(u)
    edge = np.minimum(np.minimum(across, 1 - across) / columns, np.minimum(v, 1 - v) / rows)
    mortar = 1.0 - _smooth_step(joint, joint, edge)
    shade = rng.random((rows, columns)).astype(np.float32)
    return shade[row.astype(int) % rows, np.floor(u).astype(int) % columns], mortar


def _cells(rng: np.random.Generator, count: int) -> tuple[Layer, Layer, NDArray[np.int64]]:
    """Distances to the nearest and second nearest of `count` points on the torus, and the nearest one."""
    x, y = _grid()
    points = rng.random((count, 2)).astype(np.float32)
    distance = np.hypot(_wrapped(x[..., None] - points[:, 0]), _wrapped(y[..., None] - points[:, 1]))
    two = np.partition(distance, 1, axis=-1)
    return two[..., 0], two[..., 1], distance.argmin(-1)


def _strokes(
    rng: np.random.Generator, count: int, length: float, thickness: int, angle: float, spread: float
) -> Layer:
    """Random line strokes drawn on a 3x3 tiling so that they wrap."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    start = rng.random((count, 2)) * SIZE
    direction = angle + spread * rng.standard_normal(count)
    reach = length * SIZE * rng.uniform(0.4, 1.0, count)
    end = start + reach[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    values = rng.integers(60, 256, count)
    for a, b, value in zip(start, end, values, strict=True):
        for dx in (-SIZE, 0, SIZE):
            for dy in (-SIZE, 0, SIZE):
                p, q = (a + (dx, dy)).astype(int), (b + (dx, dy)).astype(int)
                cv2.line(canvas, p.tolist(), q.tolist(), int(value), thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255.0


def _shapes(rng: np.random.Generator, count: int, kinds: tuple[str, ...], size: tuple[float, float]) -> Layer:
    """A collage of filled shapes with random grey values (posters, pictures, mosaics)."""
    canvas = np.full((SIZE, SIZE), int(rng.integers(0, 120)), np.uint8)
    for _ in range(count):
        x, y = rng.random(2) * SIZE
        a, b = rng.uniform(*size, 2) * SIZE / 2
        angle, value, kind = rng.uniform(0, 360), int(rng.integers(0, 256)), kinds[rng.integers(len(kinds))]
        for dx in (-SIZE, 0, SIZE):
            for dy in (-SIZE, 0, SIZE):
                centre = (float(x + dx), float(y + dy))
                if kind == "ellipse":
                    cv2.ellipse(canvas, (centre, (2 * a, 2 * b), angle), value, -1, cv2.LINE_AA)
                elif kind == "box":
                    corners = cv2.boxPoints((centre, (2 * a, 2 * b), angle if rng.random() < 0.3 else 0.0))
                    cv2.fillPoly(canvas, [corners.astype(np.int32)], value, cv2.LINE_AA)
                else:  # a head on shoulders: what pictures of people look like from afar
                    r = int(max(2.0, 0.5 * a))
                    p = (int(centre[0]), int(centre[1]))
                    cv2.ellipse(
                        canvas, (p[0], p[1] + 3 * r), (2 * r, 2 * r), 0, 180, 360, value, -1, cv2.LINE_AA
                    )
                    cv2.circle(canvas, p, r, min(255, value + 60), -1, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255.0


def _text(rng: np.random.Generator, lines: int) -> Layer:
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    pitch = SIZE // lines
    for k in range(lines):
        x = int(rng.integers(2, 14))
        while x < SIZE - 6:
            w = int(rng.integers(1, max(3, pitch // 2)))
            top = k * pitch + int(rng.integers(0, max(1, pitch // 4))) + 1
            canvas[top : k * pitch + int(0.7 * pitch) + 1, x : x + w] = 255
            x += w + int(rng.integers(1, 4)) + (int(rng.integers(4, 9)) if rng.random() < 0.2 else 0)
    return cv2.GaussianBlur(canvas, (3, 3), 0.5).astype(np.float32) / 255.0


# Families by use; each makes (red, green, blue) as described above. Numbers are repeats per tile.
def _make_layers() -> tuple[list[NDArray[np.uint8]], dict[str, list[int]]]:
    rng = np.random.default_rng(_SEED)
    layers: list[NDArray[np.uint8]] = []
    families: dict[str, list[int]] = {}

    def add(family: str, red: Value, green: Value = 0.0, blue: Value = 0.5) -> None:
        layer = np.zeros((SIZE, SIZE, 4), np.float32)
        layer[..., 0], layer[..., 1], layer[..., 2] = red, green, blue
        families.setdefault(family, []).append(len(layers))
        layers.append((np.clip(layer, 0, 1) * 255 + 0.5).astype(np.uint8))

    x, y = _grid()
    for exponent in (0.0, 0.5, 0.8, 1.0, 1.0, 1.2, 1.5, 2.0):  # white, carpet-like, natural, clouds
        add(
            "noise", noise(rng, exponent), 0.5 * _smooth_step(0.7, 0.2, noise(rng, exponent)), noise(rng, 0.9)
        )
    for exponent in (0.6, 1.0, 1.6):  # one plain colour with a little life
        add("plain", 0.25 * noise(rng, exponent), 0.0, 0.5 + 0.15 * (noise(rng, 0.7) - 0.5))
    add("plain", 0.0)
    for aspect in (6.0, 12.0, 24.0):  # wood
        grain = noise(rng, 1.1, 1.0 / aspect)
        add("wood", grain, 0.3 * _smooth_step(0.75, 0.2, noise(rng, 1.0, 1.0 / aspect)), 0.3 + 0.4 * grain)
    for boards in (4, 6):
        shade, gap = _bricks(rng, boards, 2, 0.004, 0.5)
        grain = noise(rng, 1.1, 1 / 14)
        add("wood", 0.5 * grain + 0.5 * shade, gap, 0.25 + 0.5 * grain)
    for rows, columns, joint in ((8, 4, 0.008), (12, 5, 0.006), (6, 3, 0.01)):
        shade, mortar = _bricks(rng, rows, columns, joint, 0.5)
        add("masonry", shade, mortar, 0.3 + 0.4 * noise(rng, 0.8))
    for n, joint in ((2, 0.01), (4, 0.008), (8, 0.008)):
        shade, mortar = _bricks(rng, n, n, joint, 0.0)
        add("tiles", 0.4 * shade, mortar, 0.4 + 0.2 * noise(rng, 1.2))
    for n in (2, 4, 8):
        check = ((np.floor(x * n) + np.floor(y * n)) % 2).astype(np.float32)
        add("tiles", check, 0.0, 0.35 + 0.3 * noise(rng, 1.0))
    for count in (20, 60):
        near, second, index = _cells(rng, count)
        shade = rng.random(count).astype(np.float32)[index]
        add("masonry", shade, 1.0 - _smooth_step(0.015, 0.012, second - near), 0.3 + 0.4 * noise(rng, 0.8))
    near, _, _ = _cells(rng, 40)
    add("organic", _stretch(near), 0.0, noise(rng, 0.8))
    add("organic", np.abs(2 * noise(rng, 1.2) - 1) ** 0.5, 0.0, noise(rng, 0.6))  # marble veins
    add("organic", np.sin(25 * noise(rng, 1.8)) * 0.5 + 0.5, 0.0, 0.5)
    for count, length, thickness in ((500, 0.08, 1), (260, 0.15, 2)):  # grass, straw, fur
        add(
            "organic",
            _strokes(rng, count, length, thickness, 1.5, 0.5),
            0.4 * _strokes(rng, 120, length, 1, 1.5, 0.8),
            noise(rng, 0.5),
        )
    add(
        "organic",
        _strokes(rng, 220, 0.07, 4, 0.0, 3.0),
        _strokes(rng, 80, 0.05, 5, 0.0, 3.0),
        noise(rng, 0.7),
    )
    for n in (2, 4, 8, 16):  # stripes: red along v, so clothes get hoops; turned by the material's rotation
        add("stripes", _smooth_step(0.5, 0.1, 0.5 + 0.5 * np.sin(2 * np.pi * n * y)))
    widths = np.repeat(rng.random(40), rng.integers(1, 7, 40))[:SIZE]
    bars = np.resize(widths, SIZE).astype(np.float32)
    add(
        "stripes",
        np.broadcast_to(bars[:, None], (SIZE, SIZE)),
        np.broadcast_to(np.roll(bars, 17)[:, None] > 0.8, (SIZE, SIZE)),
    )
    bars = np.resize(np.repeat(rng.random(30) > 0.5, rng.integers(2, 9, 30)).astype(np.float32), SIZE)
    add("stripes", np.broadcast_to(bars[:, None], (SIZE, SIZE)))
    for n in (3, 6):  # tartan
        a = _smooth_step(0.3, 0.2, np.sin(2 * np.pi * n * x))
        b = _smooth_step(0.3, 0.2, np.sin(2 * np.pi * n * y))
        thin = _smooth_step(0.9, 0.08, np.maximum(np.cos(2 * np.pi * n * x), np.cos(2 * np.pi * n * y)))
        add("fabric", 0.5 * a + 0.5 * b, thin, 0.45 + 0.1 * noise(rng, 0.2))
    for n, radius in ((4, 0.3), (8, 0.25), (12, 0.35)):
        r = np.hypot((x * n) % 1 - 0.5, (y * n + 0.5 * np.floor(x * n)) % 1 - 0.5)
        add("fabric", 1.0 - _smooth_step(radius, 0.1, r))
    zigzag = np.abs(((x * 8) % 1) - 0.5)
    add("fabric", _smooth_step(0.5, 0.15, 0.5 + 0.5 * np.sin(2 * np.pi * (y * 8 + zigzag))))
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * 32 * x) * np.sin(2 * np.pi * 32 * y)
    add("fabric", 0.5 * noise(rng, 0.9), 0.0, weave)
    add(
        "fabric",
        _smooth_step(0.5, 0.15, noise(rng, 1.3)),
        _smooth_step(0.62, 0.1, noise(rng, 1.3)),
        noise(rng, 0.5),
    )
    add(
        "fabric",
        _shapes(rng, 40, ("ellipse", "box"), (0.05, 0.2)),
        _smooth_step(0.7, 0.1, noise(rng, 1.5)),
        0.5,
    )
    for k in range(10):  # pictures, posters, mixed collages
        kinds = (("ellipse", "box"), ("person",), ("box",), ("ellipse",), ("person", "ellipse", "box"))[k % 5]
        add(
            "picture",
            _shapes(rng, int(rng.integers(6, 30)), kinds, (0.06, 0.5)),
            0.8 * _shapes(rng, int(rng.integers(3, 12)), kinds, (0.1, 0.5)) ** 2,
            noise(rng, 1.0),
        )
    for k in range(4):  # landscape-like: natural noise over a horizon
        horizon = _smooth_step(
            rng.uniform(0.35, 0.7), rng.uniform(0.02, 0.2), y + 0.3 * (noise(rng, 1.4) - 0.5)
        )
        add(
            "picture",
            horizon * (0.5 + 0.5 * noise(rng, 1.0)),
            _smooth_step(0.6, 0.3, noise(rng, 1.2)) * (k % 2),
            noise(rng, 1.0),
        )
    for lines in (6, 10, 16, 24):
        add("text", 0.1 * noise(rng, 1.0), _text(rng, lines))
    for count in (14, 26):  # rows of books, boxes on shelves, facades with windows
        widths = np.resize(np.repeat(np.arange(count), rng.integers(3, 10, count)), SIZE)
        shade, tint = rng.random(count).astype(np.float32), (rng.random(count) > 0.6).astype(np.float32)
        edge = (np.diff(widths, prepend=widths[:1]) != 0).astype(np.float32)
        add(
            "text",
            np.broadcast_to(shade[widths], (SIZE, SIZE)),
            np.broadcast_to(tint[widths] * 0.8, (SIZE, SIZE)),
            0.5 - 0.4 * np.broadcast_to(edge, (SIZE, SIZE)),
        )
    for columns, rows in ((4, 4), (6, 5), (3, 6)):
        u, v = (x * columns) % 1, (y * rows) % 1
        window = ((np.abs(u - 0.5) < 0.3) & (np.abs(v - 0.5) < 0.33)).astype(np.float32)
        lit = rng.random((rows, columns))[np.floor(y * rows).astype(int), np.floor(x * columns).astype(int)]
        add(
            "facade",
            window * (0.6 + 0.4 * (lit > 0.6)),
            window * (lit > 0.8) * 0.7,
            0.35 + 0.3 * noise(rng, 0.9),
        )
    for k in range(6):  # skin-like and dirt-like mottling at several scales, used as the second detail layer
        add("dirt", noise(rng, 1.0 + 0.2 * k), 0.0, noise(rng, 1.0 + 0.2 * k))
    for exponent in (2.0, 2.5, 3.0):  # smooth at the scale of one texel: skies
        cover = noise(rng, exponent)
        add("cloud", cover, _smooth_step(0.6, 0.5, noise(rng, exponent)), 0.5)
    return layers, families


@functools.cache
def library() -> tuple[NDArray[np.uint8], dict[str, tuple[int, ...]]]:
    """(L, SIZE, SIZE, 4) uint8 layers, and the layer numbers of each family; about 0.3 s once per process."""
    layers, families = _make_layers()
    return np.stack(layers), {name: tuple(numbers) for name, numbers in families.items()}


@functools.cache
def mip_pyramid() -> tuple[NDArray[np.float32], ...]:
    """Box-filtered levels of the library in [0, 1] for software sampling, finest first."""
    levels = [library()[0].astype(np.float32) / 255.0]
    while levels[-1].shape[1] > 1:
        a = levels[-1]
        levels.append((a[:, ::2, ::2] + a[:, 1::2, ::2] + a[:, ::2, 1::2] + a[:, 1::2, 1::2]) / 4.0)
    return tuple(levels)
