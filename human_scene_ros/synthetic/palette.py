"""Random colours and textured surfaces."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.synthetic import textures
from human_scene_ros.synthetic.shapes import MaterialTable

Rng = np.random.Generator


def random_colors(rng: Rng, n: int, mood: str = "any") -> NDArray[np.float32]:
    """(n, 3) RGB of related colours. Moods: any, pale (walls), dark, vivid, skin (look-alikes), green, sky,
    wood, neutral, denim."""
    hue = rng.random()
    rows = []
    for k in range(n):
        h = (hue + rng.normal(0, 0.06) + (rng.random() if rng.random() < 0.3 and k else 0.0)) % 1.0
        s, v = rng.beta(1.3, 2.5), rng.uniform(0.12, 0.95)
        if mood == "pale":
            s, v = rng.beta(1.0, 6.0), rng.uniform(0.6, 0.97)
        elif mood == "dark":
            s, v = rng.beta(1.3, 3.0), rng.uniform(0.05, 0.3)
        elif mood == "vivid":
            s, v = rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.95)
        elif mood == "skin":
            h, s, v = rng.uniform(0.02, 0.1), rng.uniform(0.2, 0.65), rng.uniform(0.25, 0.95)
        elif mood == "green":
            h, s, v = rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.7), rng.uniform(0.15, 0.6)
        elif mood == "wood":
            h, s, v = rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.65), rng.uniform(0.2, 0.8)
        elif mood == "neutral":
            s, v = rng.uniform(0.0, 0.18), rng.uniform(0.1, 0.95)
        elif mood == "denim":
            h, s, v = rng.uniform(0.55, 0.66), rng.uniform(0.15, 0.6), rng.uniform(0.12, 0.6)
        elif mood == "sky":
            h, s, v = rng.uniform(0.53, 0.62), rng.uniform(0.0, 0.6), rng.uniform(0.6, 1.0)
        rows.append(colorsys.hsv_to_rgb(h, s, v))
    return np.array(rows, np.float32)


def pick_layer(rng: Rng, *families: str) -> int:
    """A layer of one of the families."""
    table = textures.library()[1]
    return int(rng.choice(table[families[rng.integers(len(families))]]))


NATURAL_MOODS = ("wood", "wood", "neutral", "neutral", "neutral", "pale", "dark", "any", "denim", "vivid")
MOODS = ("any", "any", "pale", "dark", "vivid", "skin", "green")
ALL_FAMILIES = (
    "noise",
    "plain",
    "plain",
    "wood",
    "masonry",
    "tiles",
    "organic",
    "stripes",
    "fabric",
    "text",
    "picture",
)


def random_surface(
    rng: Rng,
    table: MaterialTable,
    families: tuple[str, ...],
    mood: str | None = None,
    tile_m: tuple[float, float] = (0.3, 2.5),
    floor: bool = False,
    glow: float = 0.0,
    calm: float = 0.35,
) -> int:
    """A random surface; with probability `calm` its pattern hardly differs from its base colour."""
    tile = float(np.exp(rng.uniform(*np.log(tile_m))))
    stretch = float(np.exp(rng.normal(0, 0.2)))
    quarter = rng.choice([0.0, np.pi / 2]) if rng.random() < 0.8 else rng.uniform(0, np.pi)
    colors = random_colors(rng, 3, mood or str(rng.choice(MOODS)))
    contrast, dirt = rng.uniform(0.2, 0.9), rng.uniform(0.05, 0.5)
    if rng.random() < calm:
        factor = rng.uniform(0.05, 0.35)
        colors, contrast, dirt = colors[0] + factor * (colors - colors[0]), contrast * factor, dirt * 0.4
    return table.surface(
        colors,
        pick_layer(rng, *families),
        (1 / tile, stretch / tile),
        float(quarter),
        float(contrast),
        float(dirt),
        pick_layer(rng, "dirt"),
        float(rng.choice([0.0, 0.0, 0.1, 0.3])),
        glow,
        floor,
    )
