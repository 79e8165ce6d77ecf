"""Where synthetic people live: rooms, corridors, halls and open ground with furniture, clutter and look-alikes.

`make_place` draws the empty place; `furnish` fills it later, when it is known where people and the camera move.
World frame: z up, floor z = 0, metres.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.synthetic import textures
from human_scene_ros.synthetic.motions import rotation_matrices
from human_scene_ros.synthetic.shapes import KIND_SKY, Lighting, MaterialTable, MeshBuilder

Rng = np.random.Generator


@dataclasses.dataclass
class Place:
    """A place while it is being built.

    Attributes:
        kind: room, corridor, hall or outdoor.
        half: (2,) half extents of the floor that people and camera use, metres.
        ceiling: Height of the ceiling; large outdoors.
        builder: Collects the scenery.
        table: Collects materials.
        pool: Material numbers for furniture.
        lighting: Lights.
        natural: Colours that one expects in such a place; otherwise anything goes.
        shadows: Floor shadows of furniture, rows x0, y0, x1, y1, radius.
    """

    kind: str
    half: NDArray[np.float64]
    ceiling: float
    builder: MeshBuilder
    table: MaterialTable
    pool: list[int]
    lighting: Lighting
    natural: bool = False
    shadows: list[tuple[float, ...]] = dataclasses.field(default_factory=list)


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


_NATURAL_MOODS = ("wood", "wood", "neutral", "neutral", "neutral", "pale", "dark", "any", "denim", "vivid")
_MOODS = ("any", "any", "pale", "dark", "vivid", "skin", "green")
_ALL = ("noise", "plain", "plain", "wood", "masonry", "tiles", "organic", "stripes", "fabric", "text", "picture")


def _surface(rng: Rng, table: MaterialTable, families: tuple[str, ...], mood: str | None = None,
             tile_m: tuple[float, float] = (0.3, 2.5), floor: bool = False, glow: float = 0.0,
             calm: float = 0.35) -> int:
    """A random surface; with probability `calm` its pattern hardly differs from its base colour."""
    tile = float(np.exp(rng.uniform(*np.log(tile_m))))
    stretch = float(np.exp(rng.normal(0, 0.2)))
    quarter = rng.choice([0.0, np.pi / 2]) if rng.random() < 0.8 else rng.uniform(0, np.pi)
    colors = random_colors(rng, 3, mood or str(rng.choice(_MOODS)))
    contrast, dirt = rng.uniform(0.2, 0.9), rng.uniform(0.05, 0.5)
    if rng.random() < calm:
        factor = rng.uniform(0.05, 0.35)
        colors, contrast, dirt = colors[0] + factor * (colors - colors[0]), contrast * factor, dirt * 0.4
    return table.surface(
        colors, pick_layer(rng, *families), (1 / tile, stretch / tile), float(quarter), float(contrast), float(dirt),
        pick_layer(rng, "dirt"), float(rng.choice([0.0, 0.0, 0.1, 0.3])), glow, floor)


def _lighting(rng: Rng, kind: str, half: NDArray[np.float64], ceiling: float) -> Lighting:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.4)
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])

    def tint(strength: float, spread: float) -> NDArray[np.float64]:
        warm = rng.normal(0, spread)
        return strength * np.array([1 + warm, 1.0, 1 - warm])

    outdoor = kind == "outdoor"
    lamps = np.zeros((2, 6))
    lamps[:, :2] = rng.uniform(-1, 1, (2, 2)) * half * 0.8
    lamps[:, 2] = rng.uniform(0.6, 0.95, 2) * min(ceiling, 4.0)
    if not outdoor:
        for k in range(2):
            lamps[k, 3:] = tint(rng.uniform(0.0, 1.6), 0.08)
    ambient = rng.uniform(0.4, 0.85)
    return Lighting(
        sun.astype(np.float32), tint(rng.uniform(0.2, 0.9) if outdoor else rng.uniform(0.0, 0.6), 0.06).astype(np.float32),
        tint(ambient, 0.05).astype(np.float32), tint(ambient * rng.uniform(0.4, 0.9), 0.05).astype(np.float32),
        lamps.astype(np.float32), random_colors(rng, 1, "sky" if outdoor else "pale")[0],
        float(rng.uniform(0.002, 0.02)) if outdoor else float(rng.choice([0.0, 0.0, 0.02])),
        float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.2, 0.7)))


KINDS = ("room", "corridor", "hall", "outdoor")


def make_place(rng: Rng, kind: str = "") -> Place:
    """Floor, walls and sky of a random place; `kind` "" draws one of `KINDS`."""
    kind = kind or str(rng.choice(KINDS, p=[0.56, 0.12, 0.14, 0.18]))
    if kind == "room":
        half, ceiling = rng.uniform(1.7, 4.2, 2), rng.uniform(2.3, 3.3)
    elif kind == "corridor":
        half, ceiling = np.array([rng.uniform(4, 9), rng.uniform(0.8, 1.5)]), rng.uniform(2.3, 3.0)
    elif kind == "hall":
        half, ceiling = rng.uniform(4.5, 11, 2), rng.uniform(3.0, 6.5)
    else:
        half, ceiling = rng.uniform(5, 9, 2), 60.0
    table = MaterialTable()
    place = Place(kind, half, float(ceiling), MeshBuilder(), table, [], _lighting(rng, kind, half, float(ceiling)),
                  bool(rng.random() < 0.55))
    for _ in range(12):
        if place.natural:
            families = ("plain", "plain", "wood", "noise", "fabric", "organic")
            mood = str(rng.choice(_NATURAL_MOODS))
            place.pool.append(_surface(rng, table, families, mood, (0.15, 1.5), calm=0.6))
        else:
            place.pool.append(_surface(rng, table, _ALL, tile_m=(0.15, 1.5)))
    if kind == "outdoor":
        _open_ground(rng, place)
    else:
        _walls(rng, place)
    return place


def _walls(rng: Rng, place: Place) -> None:
    (hx, hy), h, b, t = place.half, place.ceiling, place.builder, place.table
    if place.natural:
        floor = _surface(rng, t, ("wood", "wood", "tiles", "fabric", "plain", "noise"),
                         str(rng.choice(["wood", "wood", "neutral"])), floor=True, tile_m=(0.8, 3.0), calm=0.5)
    else:
        floor = _surface(rng, t, ("wood", "tiles", "noise", "plain", "masonry", "fabric", "organic"), floor=True, tile_m=(0.6, 3.5), calm=0.5)
    busy = not place.natural and rng.random() < 0.5
    families = _ALL if busy else ("plain", "plain", "noise", "masonry", "wood")
    mood = None if busy else str(rng.choice(["pale", "pale", "neutral" if place.natural else "any"]))
    first = _surface(rng, t, families, mood, (0.5, 4.0), calm=0.1 if busy else 0.8)
    walls = [first] * 4
    if rng.random() < 0.4:
        walls[int(rng.integers(4))] = _surface(rng, t, families if place.natural else _ALL, None, (0.5, 4.0))
    top = _surface(rng, t, ("plain", "plain", "tiles", "noise", "wood"), "pale", (0.6, 3.0), calm=0.8)
    b.add("box", (0, 0, -0.1), (2 * hx + 0.4, 2 * hy + 0.4, 0.2), floor)
    b.add("box", (0, 0, h + 0.1), (2 * hx + 0.4, 2 * hy + 0.4, 0.2), top)
    b.add("box", (hx + 0.1, 0, h / 2), (0.2, 2 * hy, h), walls[0])
    b.add("box", (-hx - 0.1, 0, h / 2), (0.2, 2 * hy, h), walls[1])
    b.add("box", (0, hy + 0.1, h / 2), (2 * hx, 0.2, h), walls[2])
    b.add("box", (0, -hy - 0.1, h / 2), (2 * hx, 0.2, h), walls[3])
    if rng.random() < 0.5:  # skirting board
        m, s = place.pool[0], rng.uniform(0.06, 0.15)
        for x, y, sx, sy in ((hx, 0, 0.03, 2 * hy), (-hx, 0, 0.03, 2 * hy), (0, hy, 2 * hx, 0.03), (0, -hy, 2 * hx, 0.03)):
            b.add("box", (x, y, s / 2), (sx, sy, s), m)
    _wall_items(rng, place)
    lamp = t.surface(np.ones((3, 3), np.float32), pick_layer(rng, "plain"), glow=1.0)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.8, 0.8, 2) * place.half
        if rng.random() < 0.5:
            b.add("box", (x, y, h - 0.02), rng.uniform(0.2, 1.2, 3) * (1, 1, 0.03), lamp)
        else:
            drop = rng.uniform(0.2, 0.8)
            b.add("cylinder", (x, y, h - drop / 2), (0.02, 0.02, drop), place.pool[2])
            b.add(str(rng.choice(["sphere", "dome", "cone"])), (x, y, h - drop), rng.uniform(0.15, 0.45) * np.ones(3),
                  lamp if rng.random() < 0.6 else place.pool[3])


def _wall_items(rng: Rng, place: Place) -> None:
    """Pictures (also of people), windows, doors, boards, clocks, shelves, curtains."""
    (hx, hy), h, b, t = place.half, place.ceiling, place.builder, place.table
    for _ in range(int(rng.integers(1, 9 if place.kind != "hall" else 14))):
        axis, side = int(rng.integers(2)), rng.choice([-1.0, 1.0])
        reach = hx if axis else hy
        along = rng.uniform(-0.9, 0.9) * reach
        kind = rng.choice(["picture", "poster", "window", "door", "board", "clock", "shelf", "curtain"],
                          p=[0.28, 0.14, 0.16, 0.14, 0.07, 0.06, 0.08, 0.07])
        # Depths differ so that no two fronts lie in one plane.
        w, d, tall, z = rng.uniform(0.3, 1.6), rng.uniform(0.03, 0.07), rng.uniform(0.3, 1.2), rng.uniform(1.2, 1.9)
        shape, glow, families = "box", 0.0, ("picture",)
        if kind == "poster":
            families = ("picture", "text", "fabric", "noise", "organic")
        elif kind == "window":
            w, tall, z, glow, families = rng.uniform(0.6, 2.0), rng.uniform(0.8, 1.5), 1.5, rng.uniform(0.3, 1.0), ("picture", "noise", "facade", "plain")
        elif kind == "door":
            w, tall, families = rng.uniform(0.75, 1.0), min(rng.uniform(1.95, 2.1), h - 0.1), ("plain", "wood")
            z = tall / 2
        elif kind == "board":
            w, families = rng.uniform(1.0, 2.4), ("text", "plain")
        elif kind == "clock":
            w = tall = rng.uniform(0.2, 0.4)
            families = ("plain",)
            z = rng.uniform(1.6, 2.2)
        elif kind == "shelf":
            d, tall, families = rng.uniform(0.15, 0.3), 0.04, ("wood", "plain")
        elif kind == "curtain":
            tall, d, families = min(2.2, h - 0.1), 0.12, ("stripes", "fabric", "organic")
            z = tall / 2 + 0.05
        z = min(z, h - tall / 2 - 0.05)
        tile = max(w, tall) * (1.0 if kind in ("picture", "poster", "window") else 0.6)
        material = t.surface(
            random_colors(rng, 3, str(rng.choice(_MOODS + ("sky",)))), pick_layer(rng, *families), (1 / tile, 1 / tile),
            0.0 if kind != "curtain" else np.pi / 2, 0.5, 0.1, pick_layer(rng, "dirt"), 0.2, float(glow))
        if kind == "window" or rng.random() < 0.5:  # frame
            frame = place.pool[int(rng.integers(len(place.pool)))]
        else:
            frame = -1

        def put(name: str, width: float, depth: float, height: float, m: int, lift: float = 0.0,
                axis: int = axis, side: float = side, along: float = along, z: float = z) -> None:
            x, y = (along, side * hy) if axis else (side * hx, along)
            size = (width, depth, height) if axis else (depth, width, height)
            b.add(name, (x, y, z + lift), size, m)

        if kind == "clock":
            rotation = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) if axis else np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
            x, y = (along, side * hy) if axis else (side * hx, along)
            b.add("cylinder", (x, y, z), (w, w, 0.08), material, rotation=rotation)
        else:
            put(shape, w, d, tall, material)
            if frame >= 0:
                put(shape, w + 0.1, d * 0.7, tall + 0.1, frame)
            if kind == "shelf":
                for x in np.arange(-w / 2, w / 2, 0.12):
                    if rng.random() < 0.7:
                        s = rng.uniform(0.05, 0.25)
                        xx, yy = (along + x, side * (hy - 0.05)) if axis else (side * (hx - 0.05), along + x)
                        b.add(str(rng.choice(["box", "vase", "sphere"])), (xx, yy, z + s / 2), (0.08, 0.08, s),
                              place.pool[int(rng.integers(len(place.pool)))])


def _open_ground(rng: Rng, place: Place) -> None:
    b, t = place.builder, place.table
    moods = ["green", "neutral", "wood"] if place.natural else ["green", "any", "pale"]
    ground = _surface(rng, t, ("organic", "noise", "masonry", "tiles", "plain"), str(rng.choice(moods)), (0.8, 5.0),
                      floor=True)
    b.add("box", (0, 0, -0.1), (300, 300, 0.2), ground)
    sky = t.surface(random_colors(rng, 3, "sky"), pick_layer(rng, "cloud"), (1 / 300, 1 / 200), contrast=0.1,
                    dirt=0.1, dirt_layer=pick_layer(rng, "cloud"), kind=KIND_SKY)
    # Seen from inside: mirrored through the centre, so that the faces that look inwards are the front faces.
    b.add("box", (0, 0, 0), (-320, -320, -320), sky)
    for _ in range(int(rng.integers(2, 9))):  # buildings, walls and hedges far away
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(14, 60)
        size = (rng.uniform(4, 20), rng.uniform(4, 12), rng.uniform(2, 18))
        families = ("facade", "masonry", "plain") if rng.random() < 0.7 else ("organic", "noise")
        tile = rng.uniform(3, 9)
        m = t.surface(random_colors(rng, 3, str(rng.choice(["any", "pale", "green"]))), pick_layer(rng, *families),
                      (1 / tile, 1 / tile), 0.0, 0.5, 0.2, pick_layer(rng, "dirt"))
        reach = distance + max(size[:2])
        b.add("box", (reach * np.cos(angle), reach * np.sin(angle), size[2] / 2), size, m, yaw=rng.uniform(0, np.pi))
    leaf = _surface(rng, t, ("organic", "noise"), "green", (0.5, 1.5))
    bark = _surface(rng, t, ("wood", "noise"), "dark", (0.3, 1.0))
    for _ in range(int(rng.integers(0, 10))):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(max(place.half) + 2, 40)
        x, y, tall = distance * np.cos(angle), distance * np.sin(angle), rng.uniform(2, 7)
        b.add("cylinder", (x, y, tall / 3), (0.3, 0.3, tall / 1.5), bark)
        for _ in range(int(rng.integers(1, 4))):
            b.add(str(rng.choice(["sphere", "sphere", "cone"])), (x + rng.normal(0, 0.5), y + rng.normal(0, 0.5), tall * rng.uniform(0.6, 1.0)),
                  rng.uniform(1.0, 3.0, 3), leaf)


class _Group:
    """Places solids relative to an origin on the floor and a heading."""

    def __init__(self, place: Place, rng: Rng, x: float, y: float, yaw: float) -> None:
        self.place, self.rng, self.x, self.y, self.yaw = place, rng, x, y, yaw
        self.c, self.s = float(np.cos(yaw)), float(np.sin(yaw))

    def mat(self) -> int:
        return self.place.pool[int(self.rng.integers(len(self.place.pool)))]

    def add(self, name: str, at: tuple[float, float, float], size: tuple[float, ...] | NDArray[np.floating], material: int,
            turn: float = 0.0) -> None:
        x, y = self.x + self.c * at[0] - self.s * at[1], self.y + self.s * at[0] + self.c * at[1]
        self.place.builder.add(name, (x, y, at[2]), size, material, yaw=self.yaw + turn)

    def legs(self, w: float, d: float, h: float, material: int, thick: float = 0.05) -> None:
        for i in (-1, 1):
            for j in (-1, 1):
                self.add("box", (i * (w / 2 - thick), j * (d / 2 - thick), h / 2), (thick, thick, h), material)

    def clutter(self, w: float, d: float, z: float, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            s = rng.uniform(0.05, 0.3)
            name = str(rng.choice(["box", "cylinder", "vase", "sphere", "frustum", "dome", "torus"], p=[.3, .2, .1, .15, .1, .1, .05]))
            size = np.array([s, s, s]) * rng.uniform(0.4, 1.3, 3)
            if name in ("sphere", "torus"):
                size = np.array([s, s, s * (1 if name == "sphere" else 1)])
            self.add(name, (rng.uniform(-.4, .4) * w, rng.uniform(-.4, .4) * d, z + size[2] / 2 * (0.3 if name == "torus" else 1)),
                     size, self.mat(), rng.uniform(0, 3))


def _table(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w, d, h = r.uniform(0.7, 1.8), r.uniform(0.5, 0.95), r.uniform(0.45, 1.05)
    g.add("box", (0, 0, h), (w, d, 0.05), m)
    if r.random() < 0.7:
        g.legs(w, d, h, g.mat())
    else:
        g.add("cylinder", (0, 0, h / 2), (0.1, 0.1, h), g.mat())
    g.clutter(w, d, h + 0.025, int(r.integers(0, 6)))


def _chair(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w, h = r.uniform(0.4, 0.55), r.uniform(0.4, 0.5)
    g.add("box", (0, 0, h), (w, w, 0.06), m)
    g.add("box", (-w / 2, 0, h + 0.28), (0.05, w, r.uniform(0.4, 0.6)), m)
    g.legs(w, w, h, g.mat(), 0.04)


def _sofa(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w, d = r.uniform(1.0, 2.2), r.uniform(0.75, 0.95)
    g.add("box", (0, 0, 0.22), (d, w, 0.42), m)
    g.add("box", (-d / 2 + 0.1, 0, 0.6), (0.22, w, 0.5), m)
    for s in (-1, 1):
        g.add("box", (0, s * w / 2, 0.33), (d, 0.18, 0.6), m)
    if r.random() < 0.6:
        g.add("box", (0, r.uniform(-.3, .3) * w, 0.55), (0.12, 0.4, 0.35), g.mat(), r.normal(0, 0.3))


def _bed(g: _Group) -> None:
    r = g.rng
    w = r.uniform(0.9, 1.7)
    g.add("box", (0, 0, 0.2), (2.0, w, 0.4), g.mat())
    g.add("box", (0, 0, 0.45), (1.95, w - 0.04, 0.12), g.mat())
    g.add("box", (-0.8, 0, 0.56), (0.35, 0.6, 0.12), g.mat())


def _shelf(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w, d, h, n = r.uniform(0.6, 1.4), r.uniform(0.25, 0.4), r.uniform(0.8, 2.1), int(r.integers(2, 6))
    for s in (-1, 1):
        g.add("box", (0, s * w / 2, h / 2), (d, 0.03, h), m)
    g.add("box", (-d / 2, 0, h / 2), (0.02, w, h), g.mat())
    for k in range(n + 1):
        z = h * k / n
        g.add("box", (0, 0, z), (d, w, 0.03), m)
        if k < n:
            tall = h / n * r.uniform(0.4, 0.85)
            if r.random() < 0.6:
                books = g.place.table.surface(random_colors(r, 3, "vivid"), pick_layer(r, "text", "stripes"), (2.0, 1.0), np.pi / 2 if r.random() < 0.5 else 0.0)
                g.add("box", (0, r.uniform(-.1, .1) * w, z + tall / 2), (d * 0.7, w * r.uniform(0.4, 0.9), tall), books)
            else:
                g.clutter(d, w, z + 0.015, 2)


def _cabinet(g: _Group) -> None:
    r = g.rng
    w, d, h = r.uniform(0.4, 1.4), r.uniform(0.35, 0.7), r.uniform(0.5, 2.1)
    g.add("box", (0, 0, h / 2), (d, w, h), g.mat())
    for s in (-0.25, 0.25):
        g.add("box", (d / 2, s * w, h / 2), (0.02, w * 0.42, h * 0.9), g.mat())
    if h < 1.3:
        g.clutter(d, w, h, int(r.integers(0, 5)))


def _floor_lamp(g: _Group) -> None:
    r, h = g.rng, g.rng.uniform(1.2, 1.9)
    g.add("cylinder", (0, 0, 0.015), (0.3, 0.3, 0.03), g.mat())
    g.add("cylinder", (0, 0, h / 2), (0.03, 0.03, h), g.mat())
    g.add(str(r.choice(["frustum", "sphere", "cylinder", "dome"])), (0, 0, h), r.uniform(0.2, 0.5) * np.ones(3), g.mat())


def _plant(g: _Group) -> None:
    r = g.rng
    pot, h = r.uniform(0.2, 0.45), r.uniform(0.3, 1.4)
    g.add("frustum", (0, 0, pot / 2), (pot, pot, pot), g.mat())
    g.add("cylinder", (0, 0, pot + h / 4), (0.04, 0.04, h / 2), g.mat())
    leaf = g.place.table.surface(random_colors(r, 3, "green"), pick_layer(r, "organic", "noise"), (2.0, 2.0))
    for _ in range(int(r.integers(2, 8))):
        tilt = r.normal(0, 0.7, 3)
        at = np.array([r.normal(0, 0.15), r.normal(0, 0.15), pot + h * r.uniform(0.4, 1.0)])
        g.place.builder.add("sphere", (g.x + at[0], g.y + at[1], at[2]), (r.uniform(0.08, 0.3), r.uniform(0.03, 0.3), r.uniform(0.2, 0.6)),
                            leaf, rotation=rotation_matrices(tilt))


def _stack(g: _Group) -> None:
    r, z = g.rng, 0.0
    for _ in range(int(r.integers(1, 5))):
        s = r.uniform(0.2, 0.7, 3) * (1, 1, 0.8)
        g.add("box", (r.normal(0, 0.05), r.normal(0, 0.05), z + s[2] / 2), s, g.mat(), r.uniform(0, 3))
        z += s[2]


def _round(g: _Group) -> None:
    r, s = g.rng, g.rng.uniform(0.2, 0.9)
    name = str(r.choice(["sphere", "cylinder", "cone", "vase", "torus", "dome"]))
    size = np.array([s, s, s if name in ("sphere", "torus") else s * r.uniform(0.6, 2.0)])
    g.add(name, (0, 0, size[2] / 2 * (0.28 if name == "torus" else 1)), size, g.mat())


def _pole_with_head(g: _Group) -> None:
    """Head-sized ball on a stand at head height: lamp, mannequin head, sign."""
    r, h = g.rng, g.rng.uniform(1.2, 1.85)
    width = r.choice([0.04, 0.12, 0.3])
    g.add("cylinder", (0, 0, h / 2), (width, width, h), g.mat())
    g.add(str(r.choice(["sphere", "box", "cylinder"])), (0, 0, h + 0.1), r.uniform(0.16, 0.3) * np.array([1, 1, 1.2]), g.mat())
    if r.random() < 0.4:
        g.add("box", (0, 0, h * 0.8), (0.1, r.uniform(0.3, 0.6), 0.06), g.mat())


def _block_statue(g: _Group) -> None:
    """Boxes and cylinders piled up like a person."""
    r, k = g.rng, g.rng.uniform(0.8, 1.2)
    solid = str(r.choice(["box", "cylinder", "sphere"]))
    m1, m2, m3 = g.mat(), g.mat(), g.mat()
    for s in (-1, 1):
        g.add(solid, (0, s * 0.1 * k, 0.42 * k), (0.15 * k, 0.14 * k, 0.84 * k), m1)
        if r.random() < 0.7:
            g.add(solid, (0, s * 0.28 * k, 1.1 * k), (0.1 * k, 0.09 * k, 0.6 * k), m2)
    g.add(solid, (0, 0, 1.12 * k), (0.22 * k, 0.42 * k, 0.6 * k), m2)
    g.add(str(r.choice(["box", "cylinder", "cone", "torus"])), (0, 0, 1.56 * k), np.array([0.2, 0.2, 0.24]) * k, m3)


def _bust(g: _Group) -> None:
    """Round shoulders and something like a head on a pedestal."""
    r, h = g.rng, g.rng.uniform(0.4, 1.2)
    m = g.mat()
    g.add("box", (0, 0, h / 2), (0.35, 0.35, h), g.mat())
    g.add("box", (0, 0, h + 0.14), (0.22, 0.45, 0.28), m)
    g.add(str(r.choice(["box", "cylinder", "vase"])), (0, 0, h + 0.42), (0.18, 0.17, 0.26), m)


def _coat_rack(g: _Group) -> None:
    r = g.rng
    g.add("cylinder", (0, 0, 0.85), (0.04, 0.04, 1.7), g.mat())
    for _ in range(int(r.integers(1, 4))):
        g.add(str(r.choice(["frustum", "box", "cone"])), (r.normal(0, 0.1), r.normal(0, 0.12), r.uniform(1.0, 1.3)),
              (r.uniform(0.15, 0.3), r.uniform(0.25, 0.5), r.uniform(0.5, 1.0)), g.mat(), r.uniform(0, 3))
    if r.random() < 0.4:
        g.add("dome", (0, 0, 1.72), (0.25, 0.28, 0.15), g.mat())


def _panel(g: _Group) -> None:
    """Room divider, cardboard cut-out, roll-up poster, whiteboard on wheels."""
    r = g.rng
    w, h = r.uniform(0.5, 1.6), r.uniform(0.9, 2.0)
    m = g.place.table.surface(random_colors(r, 3, str(r.choice(_MOODS))), pick_layer(r, "picture", "text", "fabric", "plain"),
                              (1 / w, 1 / h), 0.0, 0.5, 0.1, pick_layer(r, "dirt"))
    g.add("box", (0, 0, h / 2 + 0.05), (0.04, w, h), m)
    for s in (-1, 1):
        g.add("box", (0, s * w * 0.4, 0.03), (0.4, 0.05, 0.06), g.mat())


def _suitcase(g: _Group) -> None:
    r = g.rng
    h = r.uniform(0.4, 0.75)
    g.add("box", (0, 0, h / 2 + 0.04), (0.25, h * 0.65, h), g.mat())
    g.add("box", (0, 0, h + 0.2), (0.03, 0.2, 0.03), g.mat())


def _bench(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w = r.uniform(1.0, 2.0)
    g.add("box", (0, 0, 0.45), (0.45, w, 0.06), m)
    g.add("box", (-0.22, 0, 0.75), (0.05, w, 0.35), m)
    for s in (-1, 1):
        g.add("box", (0, s * w * 0.4, 0.22), (0.4, 0.08, 0.44), g.mat())


def _column(g: _Group) -> None:
    h, w = min(g.place.ceiling, 5.0), g.rng.uniform(0.15, 0.55)
    g.add(str(g.rng.choice(["cylinder", "box"])), (0, 0, h / 2), (w, w, h), g.mat())


def _car(g: _Group) -> None:
    body, glass = g.mat(), g.place.table.surface(random_colors(g.rng, 3, "dark"), pick_layer(g.rng, "plain"), gloss=0.3)
    tyre = g.place.table.surface(random_colors(g.rng, 3, "dark"), pick_layer(g.rng, "plain"))
    g.add("box", (0, 0, 0.65), (4.2, 1.75, 0.7), body)
    g.add("box", (-0.2, 0, 1.2), (2.2, 1.6, 0.5), glass)
    g.add("box", (-0.2, 0, 1.47), (2.0, 1.55, 0.06), body)
    for i in (-1.35, 1.35):
        for j in (-1, 1):
            g.add("sphere", (i, 0.82 * j, 0.32), (0.66, 0.25, 0.66), tyre)


def _tree(g: _Group) -> None:
    r, h = g.rng, g.rng.uniform(1.5, 4.0)
    leaf = g.place.table.surface(random_colors(r, 3, "green"), pick_layer(r, "organic", "noise"), (1.0, 1.0))
    g.add("cylinder", (0, 0, h / 2), (0.2, 0.2, h), g.mat())
    for _ in range(int(r.integers(1, 4))):
        g.add(str(r.choice(["sphere", "cone"])), (r.normal(0, 0.3), r.normal(0, 0.3), h + r.uniform(-0.5, 0.4)), r.uniform(0.8, 2.2, 3), leaf)


Item = tuple[Callable[[_Group], None], float, float, float]  # maker, footprint radius m, weight indoors, outdoors
_ITEMS: tuple[Item, ...] = (
    (_table, 0.85, 3, 1), (_chair, 0.35, 4, 1), (_sofa, 1.0, 1.5, 0), (_bed, 1.15, 0.7, 0), (_shelf, 0.6, 2, 0),
    (_cabinet, 0.6, 2.5, 0.3), (_floor_lamp, 0.25, 1, 0.5), (_plant, 0.3, 1.5, 1), (_stack, 0.45, 1.5, 1),
    (_round, 0.4, 2, 2), (_pole_with_head, 0.25, 1.2, 1.2), (_block_statue, 0.4, 1.0, 1.0), (_bust, 0.35, 0.8, 0.6),
    (_coat_rack, 0.35, 0.8, 0.2), (_panel, 0.6, 1.0, 0.7), (_suitcase, 0.3, 0.8, 0.5), (_bench, 0.9, 0.3, 1.5),
    (_column, 0.35, 0.7, 0.3), (_car, 2.4, 0, 1.0), (_tree, 0.4, 0, 2.0))


def furnish(rng: Rng, place: Place, keep_clear: NDArray[np.float64]) -> None:
    """Fill the place with things whose footprints stay off the discs `keep_clear` (n, 3): x, y, radius."""
    outdoor = place.kind == "outdoor"
    weights = np.array([item[3] if outdoor else item[2] for item in _ITEMS])
    area = 4 * place.half[0] * place.half[1]
    count = int(rng.integers(2, 6 + min(16, area / 3)))
    taken = [tuple(row) for row in keep_clear]
    for _ in range(count):
        maker, radius, _, _ = _ITEMS[rng.choice(len(_ITEMS), p=weights / weights.sum())]
        for _ in range(6):
            at_wall = not outdoor and rng.random() < 0.6
            room = place.half - min(radius, 0.45) if not outdoor else place.half * 1.8
            if (room <= 0).any():
                continue
            x, y = rng.uniform(-1, 1, 2) * room
            yaw = rng.uniform(0, 2 * np.pi)
            if at_wall:  # back to the nearest wall
                if rng.random() < 0.5:
                    x = np.copysign(room[0], x)
                    yaw = np.pi if x > 0 else 0.0
                else:
                    y = np.copysign(room[1], y)
                    yaw = -np.pi / 2 if y > 0 else np.pi / 2
            discs = np.array(taken).reshape(-1, 3)
            if (np.hypot(discs[:, 0] - x, discs[:, 1] - y) > discs[:, 2] + radius * 0.9).all():
                maker(_Group(place, rng, float(x), float(y), float(yaw)))
                taken.append((float(x), float(y), radius))
                place.shadows.append((float(x), float(y), float(x), float(y), 0.9 * radius))
                break
    if not outdoor and rng.random() < 0.4:  # rug
        m = _surface(rng, place.table, ("fabric", "organic", "stripes", "picture", "noise"), None, (0.5, 2.5), floor=True)
        x, y = rng.uniform(-0.5, 0.5, 2) * place.half
        size = np.minimum(rng.uniform(0.8, 2.5, 2), 1.2 * place.half)
        place.builder.add("box", (x, y, 0.005), (size[0], size[1], 0.01), m)
