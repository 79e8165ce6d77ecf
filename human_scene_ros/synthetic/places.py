"""Where synthetic people live: rooms, corridors, halls and open ground, without the furniture (`furniture.py`).

World frame: z up, floor z = 0, metres.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.synthetic.palette import (
    ALL_FAMILIES,
    MOODS,
    NATURAL_MOODS,
    pick_layer,
    random_colors,
    random_surface,
)
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

    def any_material(self, rng: Rng) -> int:
        """A material of the pool."""
        return self.pool[int(rng.integers(len(self.pool)))]


def _lighting(rng: Rng, kind: str, half: NDArray[np.float64], ceiling: float) -> Lighting:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.4)
    sun = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )

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
        sun.astype(np.float32),
        tint(rng.uniform(0.2, 0.9) if outdoor else rng.uniform(0.0, 0.6), 0.06).astype(np.float32),
        tint(ambient, 0.05).astype(np.float32),
        tint(ambient * rng.uniform(0.4, 0.9), 0.05).astype(np.float32),
        lamps.astype(np.float32),
        random_colors(rng, 1, "sky" if outdoor else "pale")[0],
        float(rng.uniform(0.002, 0.02)) if outdoor else float(rng.choice([0.0, 0.0, 0.02])),
        float(rng.uniform(0.1, 0.5)),
        float(rng.uniform(0.2, 0.7)),
    )


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
    place = Place(
        kind,
        half,
        float(ceiling),
        MeshBuilder(),
        table,
        [],
        _lighting(rng, kind, half, float(ceiling)),
        bool(rng.random() < 0.55),
    )
    for _ in range(12):
        if place.natural:
            families = ("plain", "plain", "wood", "noise", "fabric", "organic")
            mood = str(rng.choice(NATURAL_MOODS))
            place.pool.append(random_surface(rng, table, families, mood, (0.15, 1.5), calm=0.6))
        else:
            place.pool.append(random_surface(rng, table, ALL_FAMILIES, tile_m=(0.15, 1.5)))
    if kind == "outdoor":
        _open_ground(rng, place)
    else:
        _walls(rng, place)
    return place


def _walls(rng: Rng, place: Place) -> None:
    (hx, hy), h, b, t = place.half, place.ceiling, place.builder, place.table
    if place.natural:
        floor = random_surface(
            rng,
            t,
            ("wood", "wood", "tiles", "fabric", "plain", "noise"),
            str(rng.choice(["wood", "wood", "neutral"])),
            floor=True,
            tile_m=(0.8, 3.0),
            calm=0.5,
        )
    else:
        floor = random_surface(
            rng,
            t,
            ("wood", "tiles", "noise", "plain", "masonry", "fabric", "organic"),
            floor=True,
            tile_m=(0.6, 3.5),
            calm=0.5,
        )
    busy = not place.natural and rng.random() < 0.5
    families = ALL_FAMILIES if busy else ("plain", "plain", "noise", "masonry", "wood")
    mood = None if busy else str(rng.choice(["pale", "pale", "neutral" if place.natural else "any"]))
    first = random_surface(rng, t, families, mood, (0.5, 4.0), calm=0.1 if busy else 0.8)
    walls = [first] * 4
    if rng.random() < 0.4:
        other = families if place.natural else ALL_FAMILIES
        walls[int(rng.integers(4))] = random_surface(rng, t, other, None, (0.5, 4.0))
    top = random_surface(rng, t, ("plain", "plain", "tiles", "noise", "wood"), "pale", (0.6, 3.0), calm=0.8)
    b.add("box", (0, 0, -0.1), (2 * hx + 0.4, 2 * hy + 0.4, 0.2), floor)
    b.add("box", (0, 0, h + 0.1), (2 * hx + 0.4, 2 * hy + 0.4, 0.2), top)
    b.add("box", (hx + 0.1, 0, h / 2), (0.2, 2 * hy, h), walls[0])
    b.add("box", (-hx - 0.1, 0, h / 2), (0.2, 2 * hy, h), walls[1])
    b.add("box", (0, hy + 0.1, h / 2), (2 * hx, 0.2, h), walls[2])
    b.add("box", (0, -hy - 0.1, h / 2), (2 * hx, 0.2, h), walls[3])
    if rng.random() < 0.5:  # skirting board
        m, s = place.pool[0], rng.uniform(0.06, 0.15)
        for x, y, sx, sy in (
            (hx, 0, 0.03, 2 * hy),
            (-hx, 0, 0.03, 2 * hy),
            (0, hy, 2 * hx, 0.03),
            (0, -hy, 2 * hx, 0.03),
        ):
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
            b.add(
                str(rng.choice(["sphere", "dome", "cone"])),
                (x, y, h - drop),
                rng.uniform(0.15, 0.45) * np.ones(3),
                lamp if rng.random() < 0.6 else place.pool[3],
            )


# Kind -> weight, width, depth, height, height of the centre (None: stands on the floor), pattern families.
Range = tuple[float, float]
_WALL_ITEMS: dict[str, tuple[float, Range, Range, Range, Range | None, tuple[str, ...]]] = {
    "picture": (0.28, (0.3, 1.6), (0.03, 0.07), (0.3, 1.2), (1.2, 1.9), ("picture",)),
    "poster": (0.14, (0.3, 1.6), (0.01, 0.03), (0.3, 1.2), (1.2, 1.9),
               ("picture", "text", "fabric", "noise", "organic")),
    "window": (0.16, (0.6, 2.0), (0.03, 0.07), (0.8, 1.5), (1.4, 1.6), ("picture", "noise", "facade", "plain")),
    "door": (0.14, (0.75, 1.0), (0.03, 0.07), (1.95, 2.1), None, ("plain", "wood")),
    "board": (0.07, (1.0, 2.4), (0.03, 0.07), (0.6, 1.2), (1.3, 1.7), ("text", "plain")),
    "clock": (0.06, (0.2, 0.4), (0.05, 0.1), (0.2, 0.4), (1.6, 2.2), ("plain",)),
    "shelf": (0.08, (0.4, 1.6), (0.15, 0.3), (0.03, 0.05), (1.0, 1.8), ("wood", "plain")),
    "curtain": (0.07, (0.3, 1.6), (0.1, 0.15), (2.0, 2.3), None, ("stripes", "fabric", "organic")),
}


def _wall_items(rng: Rng, place: Place) -> None:
    """Pictures (also of people), windows, doors, boards, clocks, shelves, curtains.

    Depths are random so that no two fronts lie in one plane.
    """
    (hx, hy), h, b = place.half, place.ceiling, place.builder
    kinds = list(_WALL_ITEMS)
    weights = np.array([row[0] for row in _WALL_ITEMS.values()])
    for _ in range(int(rng.integers(2, 11 if place.kind != "hall" else 20))):
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        _, width, depth, height, center, families = _WALL_ITEMS[kind]
        w, d, tall = rng.uniform(*width), rng.uniform(*depth), min(rng.uniform(*height), h - 0.1)
        z = min(rng.uniform(*center) if center else tall / 2 + 0.01, h - tall / 2 - 0.05)
        if kind == "clock":
            tall = w
        along_x, side = bool(rng.integers(2)), rng.choice([-1.0, 1.0])
        along = rng.uniform(-0.9, 0.9) * (hx if along_x else hy)
        tile = max(w, tall) * (1.0 if kind in ("picture", "poster", "window") else 0.6)
        material = place.table.surface(
            random_colors(rng, 3, str(rng.choice((*MOODS, "sky")))), pick_layer(rng, *families), (1 / tile, 1 / tile),
            np.pi / 2 if kind == "curtain" else 0.0, 0.5, 0.1, pick_layer(rng, "dirt"), 0.2,
            float(rng.uniform(0.3, 1.0)) if kind == "window" else 0.0)

        def put(name: str, shift: float, inward: float, size: tuple[float, float, float], up: float, m: int,
                along_x: bool = along_x, side: float = side, along: float = along) -> None:
            """Add a solid of (width, depth, height) whose centre is `inward` of the wall."""
            x, y = (along + shift, side * (hy - inward)) if along_x else (side * (hx - inward), along + shift)
            solid = size if along_x else (size[1], size[0], size[2])
            if name == "disc":
                R = [[1.0, 0, 0], [0, 0, -1], [0, 1, 0]] if along_x else [[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]
                b.add("cylinder", (x, y, up), (size[0], size[2], 2 * size[1]), m, rotation=np.array(R))
            else:
                b.add(name, (x, y, up), solid, m)

        put("disc" if kind == "clock" else "box", 0.0, 0.0, (w, d, tall), z, material)
        if kind == "window" or (kind in ("picture", "door", "board") and rng.random() < 0.6):  # frame
            put("box", 0.0, 0.0, (w + 0.1, d * 0.7, tall + 0.1), z, place.any_material(rng))
        if kind == "shelf":
            for shift in np.arange(-w / 2 + 0.06, w / 2, 0.12):
                if rng.random() < 0.7:
                    s = rng.uniform(0.05, 0.25)
                    put(str(rng.choice(["box", "vase", "sphere"])), float(shift), 0.05, (0.08, 0.08, s),
                        z + tall / 2 + s / 2, place.any_material(rng))


def _open_ground(rng: Rng, place: Place) -> None:
    b, t = place.builder, place.table
    moods = ["green", "neutral", "wood"] if place.natural else ["green", "any", "pale"]
    ground = random_surface(
        rng,
        t,
        ("organic", "noise", "masonry", "tiles", "plain"),
        str(rng.choice(moods)),
        (0.8, 5.0),
        floor=True,
    )
    b.add("box", (0, 0, -0.1), (300, 300, 0.2), ground)
    sky = t.surface(
        random_colors(rng, 3, "sky"),
        pick_layer(rng, "cloud"),
        (1 / 300, 1 / 200),
        contrast=0.1,
        dirt=0.1,
        dirt_layer=pick_layer(rng, "cloud"),
        kind=KIND_SKY,
    )
    # Seen from inside: mirrored through the centre, so that the faces that look inwards are the front faces.
    b.add("box", (0, 0, 0), (-320, -320, -320), sky)
    for _ in range(int(rng.integers(2, 9))):  # buildings, walls and hedges far away
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(14, 60)
        size = (rng.uniform(4, 20), rng.uniform(4, 12), rng.uniform(2, 18))
        families = ("facade", "masonry", "plain") if rng.random() < 0.7 else ("organic", "noise")
        tile = rng.uniform(3, 9)
        m = t.surface(
            random_colors(rng, 3, str(rng.choice(["any", "pale", "green"]))),
            pick_layer(rng, *families),
            (1 / tile, 1 / tile),
            0.0,
            0.5,
            0.2,
            pick_layer(rng, "dirt"),
        )
        reach = distance + max(size[:2])
        b.add(
            "box",
            (reach * np.cos(angle), reach * np.sin(angle), size[2] / 2),
            size,
            m,
            yaw=rng.uniform(0, np.pi),
        )
    leaf = random_surface(rng, t, ("organic", "noise"), "green", (0.5, 1.5))
    bark = random_surface(rng, t, ("wood", "noise"), "dark", (0.3, 1.0))
    for _ in range(int(rng.integers(0, 10))):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(max(place.half) + 2, 40)
        x, y, tall = distance * np.cos(angle), distance * np.sin(angle), rng.uniform(2, 7)
        b.add("cylinder", (x, y, tall / 3), (0.3, 0.3, tall / 1.5), bark)
        for _ in range(int(rng.integers(1, 4))):
            b.add(
                str(rng.choice(["sphere", "sphere", "cone"])),
                (x + rng.normal(0, 0.5), y + rng.normal(0, 0.5), tall * rng.uniform(0.6, 1.0)),
                rng.uniform(1.0, 3.0, 3),
                leaf,
            )
