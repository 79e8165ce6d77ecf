"""The accumulated scene without people: one mean point and colour per voxel, constant memory.

Points of a frame that lie on people (with a margin), too far, too doubtful or at jumps of depth stay out. A voxel
counts once per frame and is part of the map from `min_observations` frames on, so that what was seen once (a
person the mask missed) does not stay. Points are in the world frame; another segment is another world, so it
starts an empty map.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.geometry.transform import apply
from human_scene_ros.scene import SceneEstimate, TrackingStatus

AXIS_BITS = 21  # three axes fit 63 bits of a key
AXIS_HALF = 1 << (AXIS_BITS - 1)
MAX_JUMP = 0.2  # neighbours whose depths differ by more lie on two surfaces; the pixel between them on none
MAX_WEIGHT = 200  # observations after which a voxel's mean follows slowly instead of freezing
EVICTED_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class MapConfig:
    """What enters the map and how much of it is kept.

    Args:
        voxel_m: Edge of a voxel.
        max_points: Voxels kept; beyond it a tenth is forgotten: those seen in fewest frames, oldest first.
        min_observations: Frames in which a voxel must have been seen to be part of the map.
        min_confidence: Least pointmap confidence.
        max_range_m: Farthest depth.
        people_margin_m: Distance around people that stays out.
        max_points_per_frame: Pixels of a frame that are looked at; more are thinned evenly.
    """

    voxel_m: float = 0.05
    max_points: int = 2_000_000
    min_observations: int = 2
    min_confidence: float = 1.0
    max_range_m: float = 10.0
    people_margin_m: float = 0.15
    max_points_per_frame: int = 20_000

    def __post_init__(self) -> None:
        for name, low, high in (("voxel_m", 1e-3, 100.0), ("max_points", 10, 10**9), ("min_observations", 1, 10**6),
                                ("min_confidence", 0.0, 1e9), ("max_range_m", 0.01, 1e6),
                                ("people_margin_m", 0.0, 10.0), ("max_points_per_frame", 1, 10**9)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"map.{name} = {value}: must be in [{low}, {high}]")


class VoxelMap:
    """`add` estimates, read `points`. Memory grows with the scene up to `max_points`, never beyond."""

    # Rows of the table; `_mean` is x, y, z, r, g, b. Grown together by `_reserve`.
    _keys: NDArray[np.int64]
    _mean: NDArray[np.float32]
    _weight: NDArray[np.int32]
    _seen: NDArray[np.int32]
    _hits: NDArray[np.int32]

    def __init__(self, config: MapConfig | None = None) -> None:
        self.config = config or MapConfig()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._segment: int | None = None
        self._frame = 0
        self._count = 0
        self._reserve(1024)
        self._slots = np.full(4096, -1, np.int32)

    def __len__(self) -> int:
        """Voxels kept, including those not yet seen often enough."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return sum(a.nbytes for a in (self._slots, self._keys, self._mean, self._weight, self._seen, self._hits))

    def add(self, estimate: SceneEstimate) -> int:
        """Put a frame's background into the map; returns the number of points used.

        Frames whose camera pose is not tracked are left out.
        """
        if self._segment is not None and estimate.segment != self._segment:
            self.clear()
        self._segment = estimate.segment
        if estimate.status != TrackingStatus.OK:
            return 0
        pixels = np.flatnonzero(self.background(estimate))
        step = -(-len(pixels) // self.config.max_points_per_frame) or 1
        # Another start each frame, so that thinning leaves no pixel out for ever.
        pixels = pixels[self._frame % step::step]
        points = estimate.points_camera.reshape(-1, 3).take(pixels, axis=0)
        colors = estimate.colors.reshape(-1, 3).take(pixels, axis=0)
        return self.add_points(apply(estimate.T_world_camera, points), colors)

    def background(self, estimate: SceneEstimate) -> NDArray[np.bool_]:
        """(h, w) True where a point of the frame belongs to the map."""
        c = self.config
        z = estimate.points_camera[..., 2]
        with np.errstate(invalid="ignore"):
            keep = (z > 0.0) & (z < c.max_range_m) & (estimate.confidence >= c.min_confidence)
            across = np.abs(z[:, 2:] - z[:, :-2]) < MAX_JUMP * z[:, 1:-1]
            down = np.abs(z[2:] - z[:-2]) < MAX_JUMP * z[1:-1]
        keep[:, 1:-1] &= across
        keep[1:-1] &= down
        people = estimate.person
        if people.any():
            z_people = z[people]
            z_people = z_people[np.isfinite(z_people)]
            nearest_m = np.percentile(z_people, 10) if len(z_people) else 1.0
            radius = round(c.people_margin_m * estimate.dense_camera.fx / max(float(nearest_m), 0.3))
            radius = min(max(radius, 1), max(z.shape))
            kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * radius + 1, 2 * radius + 1))
            keep &= cv2.dilate(people.astype(np.uint8), kernel) == 0
        return keep

    def add_points(self, points_world: NDArray[np.floating], colors: NDArray[np.uint8]) -> int:
        """Put (N, 3) points of one frame, metres, with (N, 3) RGB into the map; returns how many were usable."""
        check_shape("points_world", points_world, (None, 3))
        check_shape("colors", colors, (len(points_world), 3))
        self._frame += 1
        # Column by column throughout: numpy is several times slower on rows of three.
        cells = [np.floor(column.astype(np.float64) / self.config.voxel_m) for column in points_world.T]
        # False for NaN.
        usable = (np.abs(cells[0]) < AXIS_HALF) & (np.abs(cells[1]) < AXIS_HALF) & (np.abs(cells[2]) < AXIS_HALF)
        if not usable.any():
            return 0
        keys = np.zeros(int(usable.sum()), np.int64)
        for cell in cells:
            keys = (keys << AXIS_BITS) | (cell[usable].astype(np.int64) + AXIS_HALF)
        keys, voxel, counts = np.unique(keys, return_inverse=True, return_counts=True)
        means = np.empty((len(keys), 6), np.float32)
        for column, values in enumerate((*points_world.T, *colors.T)):
            means[:, column] = np.bincount(voxel, values[usable]) / counts
        self._merge(keys, means)
        if self._count > self.config.max_points:
            self._evict()
        return int(usable.sum())

    def points(self) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int32]]:
        """The map: (M, 3) metres in the world frame, (M, 3) RGB, (M,) frames in which each was seen."""
        chosen = np.flatnonzero(self._hits[:self._count] >= self.config.min_observations)
        mean = self._mean[chosen]
        return mean[:, :3], np.clip(np.rint(mean[:, 3:]), 0, 255).astype(np.uint8), self._hits[chosen]

    # --- the table: keys -> rows, open addressing with linear probing, a batch at a time ---------------------------

    def _reserve(self, rows: int) -> None:
        """Make room for rows, keeping those in use."""
        kept = self._count
        arrays = {"_keys": (np.int64, ()), "_mean": (np.float32, (6,)), "_weight": (np.int32, ()),
                  "_seen": (np.int32, ()), "_hits": (np.int32, ())}
        for name, (kind, tail) in arrays.items():
            new = np.zeros((rows, *tail), kind)
            if kept:
                new[:kept] = getattr(self, name)[:kept]
            setattr(self, name, new)

    def _hash(self, keys: NDArray[np.int64]) -> NDArray[np.intp]:
        mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
        return ((mixed >> np.uint64(32)) & np.uint64(len(self._slots) - 1)).astype(np.intp)

    def _rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of distinct keys; -1 where a key is not in the table."""
        rows = np.full(len(keys), -1, np.int32)
        open_ = np.arange(len(keys))
        slot = self._hash(keys)
        while len(open_):
            found = self._slots[slot]
            empty = found < 0
            same = ~empty & (self._keys[found] == keys[open_])
            rows[open_[same]] = found[same]
            going = ~empty & ~same
            open_, slot = open_[going], (slot[going] + 1) & (len(self._slots) - 1)
        return rows

    def _insert(self, keys: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """Enter distinct keys that are not in the table."""
        slot = self._hash(keys)
        while len(rows):
            free = self._slots[slot] < 0
            self._slots[slot[free]] = rows[free]
            # Of several that wanted one slot, the last got it; the others try the next.
            going = self._slots[slot] != rows
            rows, slot = rows[going], (slot[going] + 1) & (len(self._slots) - 1)

    def _merge(self, keys: NDArray[np.int64], means: NDArray[np.float32]) -> None:
        rows = self._rows_of(keys)
        old = rows >= 0
        known = rows[old]
        weight = self._weight[known]
        mean = self._mean.take(known, axis=0)
        mean += (means[old] - mean) / (weight + 1).astype(np.float32)[:, None]
        self._mean[known] = mean
        self._weight[known] = np.minimum(weight + 1, MAX_WEIGHT)
        self._hits[known] += 1
        self._seen[known] = self._frame
        fresh = int(np.count_nonzero(~old))
        if not fresh:
            return
        end = self._count + fresh
        if end > len(self._keys):
            self._reserve(max(end, 2 * len(self._keys)))
        new = np.arange(self._count, end, dtype=np.int32)
        self._keys[new], self._mean[new] = keys[~old], means[~old]
        self._weight[new] = self._hits[new] = 1
        self._seen[new] = self._frame
        self._count = end
        if 2 * end > len(self._slots):
            self._rebuild()
        else:
            self._insert(keys[~old], new)

    def _rebuild(self) -> None:
        """A new table of at least twice as many slots as rows."""
        size = 4096
        while size < 3 * self._count:
            size *= 2
        self._slots = np.full(size, -1, np.int32)
        self._insert(self._keys[:self._count], np.arange(self._count, dtype=np.int32))

    def _evict(self) -> None:
        """Forget down to a tenth below the limit."""
        keep = max(1, int(self.config.max_points * (1.0 - EVICTED_SHARE)))
        doubtful = self._hits[:self._count] < self.config.min_observations
        # Doubtful voxels of this very frame are new ground, not noise: age decides among equals.
        rank = np.lexsort((self._seen[:self._count], ~doubtful))
        chosen = np.sort(rank[-keep:])
        for name in ("_keys", "_mean", "_weight", "_seen", "_hits"):
            getattr(self, name)[:keep] = getattr(self, name)[chosen]
        self._count = keep
        self._rebuild()
