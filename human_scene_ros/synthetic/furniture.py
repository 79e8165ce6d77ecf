"""What stands in synthetic places: furniture, clutter, plants, cars, and things that look like people but are none.

`furnish` fills a place when it is known where people and the camera move. Each maker builds one thing around the
origin of its group: x is its front, floor z = 0, metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.synthetic.motions import rotation_matrices
from human_scene_ros.synthetic.palette import MOODS, Rng, pick_layer, random_colors, random_surface
from human_scene_ros.synthetic.places import Place


class _Group:
    """Places solids relative to an origin on the floor and a heading."""

    def __init__(self, place: Place, rng: Rng, x: float, y: float, yaw: float) -> None:
        self.place, self.rng, self.x, self.y, self.yaw = place, rng, x, y, yaw
        self.c, self.s = float(np.cos(yaw)), float(np.sin(yaw))

    def mat(self) -> int:
        return self.place.any_material(self.rng)

    def add(
        self,
        name: str,
        at: tuple[float, float, float],
        size: tuple[float, ...] | NDArray[np.floating],
        material: int,
        turn: float = 0.0,
    ) -> None:
        x, y = self.x + self.c * at[0] - self.s * at[1], self.y + self.s * at[0] + self.c * at[1]
        self.place.builder.add(name, (x, y, at[2]), size, material, yaw=self.yaw + turn)

    def legs(self, w: float, d: float, h: float, material: int, thick: float = 0.05) -> None:
        for i in (-1, 1):
            for j in (-1, 1):
                self.add(
                    "box", (i * (w / 2 - thick), j * (d / 2 - thick), h / 2), (thick, thick, h), material
                )

    def printed(self) -> int:
        """Material of paper: pages, covers, packets."""
        rng = self.rng
        colors = random_colors(rng, 3, str(rng.choice(MOODS)))
        return self.place.table.surface(colors, pick_layer(rng, "picture", "text", "plain"), (3.0, 3.0))

    def paper(self, w: float, d: float, z: float, count: int) -> None:
        """Sheets and books that lie, and covers, packets and frames that stand, on a top of w x d at height z."""
        rng = self.rng
        for _ in range(count):
            x, y, turn = rng.uniform(-0.4, 0.4) * w, rng.uniform(-0.4, 0.4) * d, rng.uniform(0, 3)
            long, short, thin = rng.uniform(0.15, 0.35), rng.uniform(0.1, 0.22), rng.uniform(0.004, 0.06)
            if rng.random() < 0.5:
                self.add("box", (x, y, z + thin / 2), (long, short, thin), self.printed(), turn)
            else:
                self.add("box", (x, y, z + long / 2), (short, thin, long), self.printed(), turn)

    def clutter(self, w: float, d: float, z: float, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            s = rng.uniform(0.05, 0.3)
            name = str(
                rng.choice(
                    ["box", "cylinder", "vase", "sphere", "frustum", "dome", "torus"],
                    p=[0.3, 0.2, 0.1, 0.15, 0.1, 0.1, 0.05],
                )
            )
            size = np.array([s, s, s]) * rng.uniform(0.4, 1.3, 3)
            if name in ("sphere", "torus"):
                size = np.array([s, s, s * (1 if name == "sphere" else 1)])
            self.add(
                name,
                (
                    rng.uniform(-0.4, 0.4) * w,
                    rng.uniform(-0.4, 0.4) * d,
                    z + size[2] / 2 * (0.3 if name == "torus" else 1),
                ),
                size,
                self.mat(),
                rng.uniform(0, 3),
            )


def _table(g: _Group) -> None:
    r, m = g.rng, g.mat()
    w, d, h = r.uniform(0.7, 1.8), r.uniform(0.5, 0.95), r.uniform(0.45, 1.05)
    g.add("box", (0, 0, h), (w, d, 0.05), m)
    if r.random() < 0.7:
        g.legs(w, d, h, g.mat())
    else:
        g.add("cylinder", (0, 0, h / 2), (0.1, 0.1, h), g.mat())
    g.clutter(w, d, h + 0.025, int(r.integers(0, 6)))
    g.paper(w, d, h + 0.025, int(r.integers(0, 4)))


def _worktop(g: _Group) -> None:
    """A kitchen along the wall: base units with doors, a crowded top, tiles and notes behind it, wall cupboards."""
    r, doors, top = g.rng, g.mat(), g.mat()
    w, d, h = r.uniform(1.2, 3.0), r.uniform(0.55, 0.7), r.uniform(0.85, 0.95)
    g.add("box", (0, 0, h / 2 + 0.05), (d - 0.04, w, h - 0.1), doors)
    g.add("box", (0, 0, h), (d, w, 0.04), top)
    units = int(r.integers(2, 6))
    for k in range(units):
        y = (k + 0.5) / units * w - w / 2
        g.add("box", (d / 2, y, h * 0.53), (0.03, w / units - 0.02, h * 0.8), doors)
        g.add("box", (d / 2 + 0.03, y, h * 0.82), (0.02, w / units * r.uniform(0.2, 0.6), 0.02), top)
    g.clutter(d, w, h + 0.02, int(r.integers(1, 8)))
    g.paper(d, w, h + 0.02, int(r.integers(0, 6)))
    if r.random() < 0.7:
        tiles = g.place.table.surface(random_colors(r, 3, "pale"), pick_layer(r, "tiles"), (2.0, 1.0))
        g.add("box", (-d / 2, 0, h + 0.3), (0.02, w, 0.6), tiles)
    for _ in range(int(r.integers(0, 6))):
        y, z = r.uniform(-0.45, 0.45) * w, h + r.uniform(0.2, 0.6)
        g.add("box", (-d / 2 + 0.02, y, z), (0.01, r.uniform(0.1, 0.25), r.uniform(0.1, 0.3)), g.printed())
    if r.random() < 0.6:
        g.add("box", (-d / 4, 0, h + 0.95), (d / 2, w, 0.6), doors)


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
        g.add("box", (0, r.uniform(-0.3, 0.3) * w, 0.55), (0.12, 0.4, 0.35), g.mat(), r.normal(0, 0.3))


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
                books = g.place.table.surface(
                    random_colors(r, 3, "vivid"),
                    pick_layer(r, "text", "stripes"),
                    (2.0, 1.0),
                    np.pi / 2 if r.random() < 0.5 else 0.0,
                )
                g.add(
                    "box",
                    (0, r.uniform(-0.1, 0.1) * w, z + tall / 2),
                    (d * 0.7, w * r.uniform(0.4, 0.9), tall),
                    books,
                )
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
    g.add(
        str(r.choice(["frustum", "sphere", "cylinder", "dome"])),
        (0, 0, h),
        r.uniform(0.2, 0.5) * np.ones(3),
        g.mat(),
    )


def _plant(g: _Group) -> None:
    r = g.rng
    pot, h = r.uniform(0.2, 0.45), r.uniform(0.3, 1.4)
    g.add("frustum", (0, 0, pot / 2), (pot, pot, pot), g.mat())
    g.add("cylinder", (0, 0, pot + h / 4), (0.04, 0.04, h / 2), g.mat())
    leaf = g.place.table.surface(random_colors(r, 3, "green"), pick_layer(r, "organic", "noise"), (2.0, 2.0))
    for _ in range(int(r.integers(2, 8))):
        tilt = r.normal(0, 0.7, 3)
        at = np.array([r.normal(0, 0.15), r.normal(0, 0.15), pot + h * r.uniform(0.4, 1.0)])
        g.place.builder.add(
            "sphere",
            (g.x + at[0], g.y + at[1], at[2]),
            (r.uniform(0.08, 0.3), r.uniform(0.03, 0.3), r.uniform(0.2, 0.6)),
            leaf,
            rotation=rotation_matrices(tilt),
        )


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
    g.add(
        str(r.choice(["sphere", "box", "cylinder"])),
        (0, 0, h + 0.1),
        r.uniform(0.16, 0.3) * np.array([1, 1, 1.2]),
        g.mat(),
    )
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
    g.add(
        str(r.choice(["box", "cylinder", "cone", "torus"])),
        (0, 0, 1.56 * k),
        np.array([0.2, 0.2, 0.24]) * k,
        m3,
    )


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
        g.add(
            str(r.choice(["frustum", "box", "cone"])),
            (r.normal(0, 0.1), r.normal(0, 0.12), r.uniform(1.0, 1.3)),
            (r.uniform(0.15, 0.3), r.uniform(0.25, 0.5), r.uniform(0.5, 1.0)),
            g.mat(),
            r.uniform(0, 3),
        )
    if r.random() < 0.4:
        g.add("dome", (0, 0, 1.72), (0.25, 0.28, 0.15), g.mat())


def _panel(g: _Group) -> None:
    """Room divider, cardboard cut-out, roll-up poster, whiteboard on wheels."""
    r = g.rng
    w, h = r.uniform(0.5, 1.6), r.uniform(0.9, 2.0)
    m = g.place.table.surface(
        random_colors(r, 3, str(r.choice(MOODS))),
        pick_layer(r, "picture", "text", "fabric", "plain"),
        (1 / w, 1 / h),
        0.0,
        0.5,
        0.1,
        pick_layer(r, "dirt"),
    )
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
    body, glass = (
        g.mat(),
        g.place.table.surface(random_colors(g.rng, 3, "dark"), pick_layer(g.rng, "plain"), gloss=0.3),
    )
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
        g.add(
            str(r.choice(["sphere", "cone"])),
            (r.normal(0, 0.3), r.normal(0, 0.3), h + r.uniform(-0.5, 0.4)),
            r.uniform(0.8, 2.2, 3),
            leaf,
        )


def _animal(g: _Group) -> None:
    """Four legs, trunk, neck, head: dog to pony."""
    r, k = g.rng, g.rng.uniform(0.4, 1.3)
    mood = str(r.choice(["wood", "neutral", "skin", "dark"]))
    m = g.place.table.surface(random_colors(r, 3, mood), pick_layer(r, "organic", "noise", "plain"), (2.0, 2.0))
    for i in (-0.32, 0.32):
        for j in (-0.1, 0.1):
            g.add("cylinder", (i * k, j * k, 0.22 * k), (0.08 * k, 0.08 * k, 0.44 * k), m)
    g.add("sphere", (0, 0, 0.55 * k), (0.95 * k, 0.34 * k, 0.38 * k), m)
    g.add("sphere", (0.42 * k, 0, 0.75 * k), (0.2 * k, 0.17 * k, 0.45 * k), m)
    g.add("sphere", (0.55 * k, 0, 0.92 * k), (0.34 * k, 0.17 * k, 0.19 * k), m)
    for j in (-0.05, 0.05):
        g.add("cone", (0.45 * k, j * k, 1.02 * k), (0.06 * k, 0.06 * k, 0.12 * k), m)
    g.add("sphere", (-0.52 * k, 0, 0.6 * k), (0.25 * k, 0.06 * k, 0.08 * k), m)


def _two_wheeler(g: _Group) -> None:
    """Two wheels, a frame, handlebars, sometimes a tank and a seat: bicycle or motorcycle."""
    r, k = g.rng, g.rng.uniform(0.8, 1.1)
    upright = np.array([[g.c, 0.0, g.s], [g.s, 0.0, -g.c], [0.0, 1.0, 0.0]])  # axis of the wheels across
    tyre, frame, body = g.mat(), g.mat(), g.mat()
    for i in (-0.55, 0.55):
        x, y = g.x + g.c * i * k, g.y + g.s * i * k
        g.place.builder.add("torus", (x, y, 0.34 * k), (0.68 * k, 0.68 * k, 0.5 * k), tyre, rotation=upright)
    g.add("box", (0, 0, 0.6 * k), (0.9 * k, 0.05, 0.06), frame)
    g.add("cylinder", (0.5 * k, 0, 0.7 * k), (0.05, 0.05, 0.75 * k), frame)
    g.add("box", (0.5 * k, 0, 1.05 * k), (0.05, 0.6 * k, 0.04), frame)
    g.add("box", (-0.3 * k, 0, 0.85 * k), (0.3 * k, 0.16, 0.08), body)
    if r.random() < 0.5:
        g.add("sphere", (0.1 * k, 0, 0.75 * k), (0.6 * k, 0.3 * k, 0.35 * k), body)
        g.add("box", (0.0, 0, 0.45 * k), (0.4 * k, 0.25 * k, 0.3 * k), frame)


def close_objects(rng: Rng, place: Place, T_world_camera: NDArray[np.float64], fov: float) -> None:
    """A still life right before the camera: cups, balls, boxes, blobs that fill a good part of the picture."""
    eye, forward, right = T_world_camera[:3, 3], T_world_camera[:3, 2], T_world_camera[:3, 0]
    distance = float(np.exp(rng.uniform(np.log(0.45), np.log(1.8))))
    reach = distance * np.tan(fov / 2)
    for _ in range(int(rng.integers(1, 5))):
        at = eye + distance * rng.uniform(0.9, 1.4) * forward + rng.uniform(-0.8, 0.8) * reach * right
        at[2] += rng.uniform(-0.4, 0.3) * reach
        size = reach * rng.uniform(0.15, 1.0) * rng.uniform(0.5, 1.2, 3)
        inside = (np.abs(at[:2]) + size[0] / 2 < place.half).all()
        if at[2] < 0.0 or not (inside or place.kind == "outdoor"):
            continue
        name = str(rng.choice(["sphere", "cylinder", "vase", "torus", "box", "frustum", "dome", "cone"]))
        if name == "torus":
            size[:] = size.mean()
        rotation = rotation_matrices(rng.normal(0, 0.3 if rng.random() < 0.6 else 1.5, 3))
        place.builder.add(name, at, size, place.any_material(rng), rotation=rotation)
        bottom = float(at[2] - size[2] / 2)
        if bottom > 0.1 and rng.random() < 0.6:  # it stands on something
            wide = size[0] * rng.uniform(1.2, 4.0)
            place.builder.add("box", (at[0], at[1], bottom / 2), (wide, wide, bottom), place.any_material(rng))


Item = tuple[
    Callable[[_Group], None], float, float, float
]  # maker, footprint radius m, weight indoors, outdoors
_ITEMS: tuple[Item, ...] = (
    (_table, 0.85, 3, 1),
    (_chair, 0.35, 4, 1),
    (_sofa, 1.0, 1.5, 0),
    (_bed, 1.15, 0.7, 0),
    (_shelf, 0.6, 2, 0),
    (_cabinet, 0.6, 2.5, 0.3),
    (_worktop, 1.1, 1.5, 0),
    (_floor_lamp, 0.25, 1, 0.5),
    (_plant, 0.3, 1.5, 1),
    (_stack, 0.45, 1.5, 1),
    (_round, 0.4, 2, 2),
    (_pole_with_head, 0.25, 1.2, 1.2),
    (_block_statue, 0.4, 1.0, 1.0),
    (_bust, 0.35, 0.8, 0.6),
    (_coat_rack, 0.35, 0.8, 0.2),
    (_panel, 0.6, 1.0, 0.7),
    (_suitcase, 0.3, 0.8, 0.5),
    (_bench, 0.9, 0.3, 1.5),
    (_column, 0.35, 0.7, 0.3),
    (_animal, 0.5, 0.9, 1.2),
    (_two_wheeler, 0.6, 0.5, 1.2),
    (_car, 2.4, 0, 1.0),
    (_tree, 0.4, 0, 2.0),
)


def furnish(rng: Rng, place: Place, keep_clear: NDArray[np.float64]) -> None:
    """Fill the place with things whose footprints stay off the discs `keep_clear` (n, 3): x, y, radius."""
    outdoor = place.kind == "outdoor"
    weights = np.array([item[3] if outdoor else item[2] for item in _ITEMS])
    area = 4 * place.half[0] * place.half[1]
    count = int(rng.integers(2, 6 + min(16, area / 3)))
    taken = [tuple(row) for row in keep_clear]
    for _ in range(count):
        maker, radius, _, _ = _ITEMS[rng.choice(len(_ITEMS), p=weights / weights.sum())]
        for _ in range(10):
            at_wall = not outdoor and rng.random() < 0.7
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
        m = random_surface(
            rng,
            place.table,
            ("fabric", "organic", "stripes", "picture", "noise"),
            None,
            (0.5, 2.5),
            floor=True,
        )
        x, y = rng.uniform(-0.5, 0.5, 2) * place.half
        size = np.minimum(rng.uniform(0.8, 2.5, 2), 1.2 * place.half)
        place.builder.add("box", (x, y, 0.005), (size[0], size[1], 0.01), m)
