"""Walking people seen by a rig of noisy cameras: detections with known truth, no images.

This is the generator of the fusion benchmark. World z up, metres, 30 frames per second, cameras of 1280x960
pixels on a ring or along the walls of a room, all looking at (0, 0, 1). People are skeletons of 24 joints
(SMPL topology, x left, y up, z forward). Detections carry the noise of a monocular network: wrong depth that
lasts, rotations, misses, occlusions, false positives, duplicates, clocks and extrinsics that are a little off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.transform import invert, make_transform

Array = NDArray[np.float64]
Index = NDArray[np.int64]

Scenario = Literal["ring", "room", "uniform", "idswap", "depth_hard", "opposed", "camera_loss", "clock"]
SCENARIOS: tuple[Scenario, ...] = ("ring", "room", "uniform", "idswap", "depth_hard", "opposed", "camera_loss",
                                   "clock")

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
BONES: Array = np.array([
    [0.0, 0.0, 0.0], [0.09, -0.08, 0.0], [-0.09, -0.08, 0.0], [0.0, 0.11, -0.02], [0.01, -0.4, 0.0],
    [-0.01, -0.4, 0.0], [0.0, 0.13, 0.01], [0.0, -0.41, -0.03], [0.0, -0.41, -0.03], [0.0, 0.06, 0.01],
    [0.02, -0.06, 0.12], [-0.02, -0.06, 0.12], [0.0, 0.21, -0.03], [0.08, 0.12, -0.02], [-0.08, 0.12, -0.02],
    [0.0, 0.08, 0.05], [0.1, 0.03, -0.01], [-0.1, 0.03, -0.01], [0.26, -0.01, -0.02], [-0.26, -0.01, -0.02],
    [0.25, 0.01, 0.0], [-0.25, 0.01, 0.0], [0.08, -0.01, -0.01], [-0.08, -0.01, -0.01]])
LEGS, ARMS = (4, 5, 7, 8, 10, 11), tuple(range(18, 24))
HEAD = 15
FPS = 30.0
K: Array = np.array([[800.0, 0.0, 640.0], [0.0, 800.0, 480.0], [0.0, 0.0, 1.0]])
IMAGE_SIZE = (1280, 960)

NOBODY, DUPLICATE = -1, -2


@dataclasses.dataclass(frozen=True)
class MultiviewClip:
    """One recording of a rig: detections in rows ordered by frame and view, and the truth.

    Args:
        K: (3, 3) of all cameras.
        T_world_camera_true: (V, 4, 4).
        T_world_camera_given: (V, 4, 4) what the system is told.
        truth: (P, T, 24, 3) joints at frame / 30 s.
        frame: (N,).
        view: (N,).
        stamp_s: (N,) true acquisition time.
        person: (N,) who it is; -1 false positive, -2 duplicate.
        score: (N,).
        head_camera: (N, 3).
        pose: (N, 24, 3) axis-angle, the root's in the optical frame.
        betas: (N, 10).
        token: (N, D).
        parents: Tree of the skeleton.
        bones: (24, 3) of the mean shape.
    """

    K: Array
    T_world_camera_true: Array
    T_world_camera_given: Array
    truth: Array
    frame: Index
    view: Index
    stamp_s: Array
    person: Index
    score: Array
    head_camera: Array
    pose: Array
    betas: Array
    token: Array
    parents: tuple[int, ...] = PARENTS
    bones: Array = dataclasses.field(default_factory=lambda: BONES)


@dataclasses.dataclass(frozen=True)
class MultiviewConfig:
    """A scenario of the benchmark.

    Args:
        scenario: "ring", "room", "uniform" (tokens hardly tell people apart), "idswap" (tokens swap ten times as
            often), "depth_hard" (8 % bias, 6 % drift), "opposed" (two cameras face each other), "camera_loss"
            (the first camera dies half way), "clock" (the second camera's frames are 50 ms late).
        views: V; "opposed" always has two.
        people: P.
        frames: T.
        seed: Of everything.
    """

    scenario: Scenario = "ring"
    views: int = 4
    people: int = 3
    frames: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ConfigError(f"scenario = {self.scenario!r}: expected one of {list(SCENARIOS)}")
        for name, low in (("views", 1), ("people", 0), ("frames", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} = {getattr(self, name)}: expected at least {low}")


def clip_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> MultiviewClip:
    """A clip from the arrays of a recorded end-to-end fixture (`det_*`, `gt_joints`, `cams_*`, `bench_*`)."""
    pose = np.concatenate([arrays["det_root_rotvec_cam"][:, None], arrays["det_body_rotvec"]], axis=1)
    return MultiviewClip(
        arrays["K"], arrays["cams_true_c2w"], arrays["cams_est_c2w"], arrays["gt_joints"].astype(np.float64),
        arrays["det_frame"], arrays["det_view"], arrays["det_stamp"], arrays["det_gt"],
        arrays["det_score"].astype(np.float64), arrays["det_head_cam"].astype(np.float64), pose.astype(np.float64),
        arrays["det_betas"].astype(np.float64), arrays["det_token"].astype(np.float64),
        tuple(arrays["bench_parents"].tolist()), arrays["bench_offsets"])


def bones_of(betas: NDArray[np.floating], bones: NDArray[np.floating] = BONES) -> Array:
    """(N, B) -> (N, 24, 3): the first three betas scale everything, legs and arms."""
    b = np.asarray(betas, np.float64)
    factor = np.repeat(1.0 + 0.03 * b[:, :1], len(bones), axis=1)
    factor[:, LEGS] *= 1.0 + 0.015 * b[:, 1:2]
    factor[:, ARMS] *= 1.0 + 0.015 * b[:, 2:3]
    return factor[:, :, None] * bones


class _Walker:
    """One person: a Lissajous path and a gait, at any time."""

    def __init__(self, rng: np.random.Generator, crowd: bool) -> None:
        self.centre = rng.uniform(-1.0, 1.0, 2) * (1.8 if crowd else 0.9)
        self.radii = 0.75 * (3.0 if crowd else 2.2) * rng.uniform(0.7, 1.0, 2)
        self.rate = rng.uniform(0.45, 0.8) * rng.choice([-1.0, 1.0])
        self.ratio = rng.choice([1.0, 1.5, 0.75])
        self.phases = rng.uniform(0.0, 2.0 * np.pi, 3)
        self.swing = rng.uniform(0.35, 0.6)
        self.betas = 0.8 * rng.normal(size=10)
        self.wrong = np.radians(6.0) * rng.normal(size=(24, 3)) / np.sqrt(3.0)  # what every view gets wrong alike
        self.wrong[0] = 0.0
        self.identity = rng.normal(size=32)

    def ground(self, t: Array) -> Array:
        """(T,) -> (T, 2)."""
        angles = np.stack([self.rate * t + self.phases[0], self.ratio * self.rate * t + self.phases[1]], axis=-1)
        return self.centre + self.radii * np.sin(angles)

    def velocity(self, t: Array) -> Array:
        """(T,) -> (T, 2)."""
        return (self.ground(t + 1e-4) - self.ground(t - 1e-4)) / 2e-4

    def pose(self, t: Array) -> tuple[Array, Array]:
        """(T,) -> rotation vectors (T, 24, 3) with the root's in the world, and joints (T, 24, 3)."""
        local = np.zeros((len(t), 24, 3))
        phi = 2.0 * np.pi * 1.6 * t + self.phases[2]
        local[:, 1, 0], local[:, 2, 0] = -self.swing * np.sin(phi), self.swing * np.sin(phi)
        local[:, 4, 0] = 0.15 + 0.45 * np.maximum(0.0, np.sin(phi + 1.2))
        local[:, 5, 0] = 0.15 + 0.45 * np.maximum(0.0, np.sin(phi + np.pi + 1.2))
        for joint, side in ((16, -1.0), (17, 1.0)):
            swing = np.zeros((len(t), 3))
            swing[:, 0] = -side * 0.5 * np.sin(phi)
            hang = Rotation.from_rotvec([0.0, 0.0, side * 1.2])
            local[:, joint] = (Rotation.from_rotvec(swing) * hang).as_rotvec()
        velocity = self.velocity(t)
        yaw = np.arctan2(velocity[:, 1], velocity[:, 0]) + np.pi / 2.0
        root = Rotation.from_euler("z", yaw[:, None]) * Rotation.from_euler("x", np.pi / 2.0)
        local[:, 0] = root.as_rotvec()
        joints = _joints(local, bones_of(np.repeat(self.betas[None], len(t), axis=0)))
        joints[:, :, :2] += self.ground(t)[:, None]
        joints[:, :, 2] += (0.02 - joints[:, (7, 8, 10, 11), 2].min(axis=1))[:, None]
        return local, joints


def _joints(rotvecs: Array, bones: Array) -> Array:
    """(N, 24, 3) axis-angle and bones -> joints with the root at 0."""
    R = Rotation.from_rotvec(rotvecs.reshape(-1, 3)).as_matrix().reshape(*rotvecs.shape[:2], 3, 3)
    joints = np.zeros(rotvecs.shape)
    turned = [R[:, 0]]
    for j in range(1, len(PARENTS)):
        above = PARENTS[j]
        joints[:, j] = joints[:, above] + (turned[above] @ bones[:, j, :, None])[..., 0]
        turned.append(turned[above] @ R[:, j])
    return joints


def _walkers(rng: np.random.Generator, people: int, frames: int) -> list[_Walker]:
    """People who never stand still and never pass nearer than 0.3 m."""
    t = np.arange(-5, frames + 5) / FPS
    found: list[_Walker] = []
    paths: list[Array] = []
    nearest, slowest = 0.3, 0.3
    for attempt in range(400 * max(people, 1)):
        if len(found) == people:
            break
        if attempt and attempt % 400 == 0:
            nearest, slowest = 0.9 * nearest, 0.9 * slowest  # a crowd that does not fit
        walker = _Walker(rng, people > 4)
        path = walker.ground(t)
        if np.linalg.norm(walker.velocity(t), axis=1).min() < slowest:
            continue
        if any(np.linalg.norm(path - other, axis=1).min() < nearest for other in paths):
            continue
        found.append(walker)
        paths.append(path)
    while len(found) < people:
        found.append(_Walker(rng, True))
    return found


def rig(config: MultiviewConfig) -> Array:
    """(V, 4, 4) true T_world_camera."""
    views = 2 if config.scenario == "opposed" else config.views
    if config.scenario == "room":
        places = np.array([[4.5, 3.5], [-4.5, 3.5], [-4.5, -3.5], [4.5, -3.5], [4.5, 0.0], [0.0, 3.5], [-4.5, 0.0],
                           [0.0, -3.5]])
        turns = np.arange(views) // len(places)
        places = places[np.arange(views) % len(places)] * (1.0 - 0.1 * turns[:, None])
    else:
        angle = 2.0 * np.pi * np.arange(views) / views + 0.3
        radius = 7.0 if config.people > 4 else 6.0
        places = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    poses = []
    for x, y in places:
        eye = np.array([x, y, 2.4])
        forward = np.array([0.0, 0.0, 1.0]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        poses.append(make_transform(np.stack([right, np.cross(forward, right), forward], axis=1), eye))
    return np.stack(poses)


def generate(config: MultiviewConfig) -> MultiviewClip:
    """One clip; the same configuration gives the same clip."""
    rng = np.random.default_rng([config.seed, 20263])
    T = config.frames
    cameras = rig(config)
    P = config.people
    given = np.stack([make_transform(
        Rotation.from_rotvec(np.radians(0.3) * rng.normal(size=3) / np.sqrt(3.0)).as_matrix() @ c[:3, :3],
        c[:3, 3] + 0.010 * rng.normal(size=3) / np.sqrt(3.0)) for c in cameras])
    walkers = _walkers(rng, P, T)
    spread = 1.9 * (0.42 if config.scenario == "uniform" else 1.0)
    swap_rate = 0.02 if config.scenario == "idswap" else 0.002
    bias, drift = (0.08, 0.06) if config.scenario == "depth_hard" else (0.03, 0.03)
    truth = np.stack([w.pose(np.arange(T) / FPS)[1] for w in walkers]) if P else np.zeros((0, T, 24, 3))
    parts: list[dict[str, Any]] = []
    for v, T_world_camera in enumerate(cameras):
        late = 0.050 if config.scenario == "clock" and v == 1 else 0.0
        t = np.arange(T) / FPS + rng.uniform(-0.010, 0.010) + 0.003 * rng.normal(size=T) + late
        working = rng.random(T) >= 0.01
        if config.scenario == "camera_loss" and v == 0:
            working[T // 2:] = False
        parts.append(_view(rng, v, T_world_camera, t, working, walkers, spread, swap_rate, bias, drift))
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.lexsort((rng.random(len(joined["frame"])), joined["view"], joined["frame"]))
    return MultiviewClip(K, cameras, given, truth, **{key: value[order] for key, value in joined.items()})


def _view(rng: np.random.Generator, v: int, T_world_camera: Array, t: Array, working: NDArray[np.bool_],
          walkers: list[_Walker], spread: float, swap_rate: float, bias: float, drift: float) -> dict[str, Any]:
    """Rows of one camera."""
    T, P = len(t), len(walkers)
    T_camera_world = invert(T_world_camera)
    poses = [w.pose(t) for w in walkers]
    heads = np.stack([joints[:, HEAD] for _, joints in poses], axis=1) if P else np.zeros((T, 0, 3))
    heads = heads @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]  # (T, P, 3) in the camera
    rays = heads / np.linalg.norm(heads, axis=2, keepdims=True)
    along = np.einsum("tpk,tqk->tpq", rays, heads)
    beside = np.sqrt(np.maximum((heads**2).sum(axis=2)[:, None] - along**2, 0.0))
    nearer = np.linalg.norm(heads, axis=2)[:, :, None] - np.linalg.norm(heads, axis=2)[:, None]
    hidden = ((nearer > 0.15) & (beside < 0.25)).any(axis=2)
    uv = (heads @ K.T)[..., :2] / heads[..., 2:] + 2.0 * rng.normal(size=(T, P, 2))
    inside = ((uv >= 0.0) & (uv < IMAGE_SIZE)).all(axis=2) & (heads[..., 2] > 0.2)
    missed = rng.random((T, P)) < np.where(hidden, 0.85, 0.05)
    seen = inside & ~missed & working[:, None]
    wander = np.zeros((T, P))
    noise = drift * rng.normal(size=(T, P))
    for k in range(T):
        wander[k] = noise[k] if k == 0 else 0.9 * wander[k - 1] + np.sqrt(1.0 - 0.81) * noise[k]
    factor = 1.0 + bias * rng.normal(size=P) + wander
    odd = rng.random((T, P)) < 0.01
    factor = np.where(odd, rng.choice([0.6, 1.6], size=(T, P)), factor)
    z = heads[..., 2] * np.maximum(factor, 0.05)
    to_camera = Rotation.from_matrix(T_camera_world[:3, :3])

    columns: dict[str, list[Any]] = {key: [] for key in ("frame", "person", "score", "uv", "z", "pose", "betas",
                                                         "token")}
    for p, walker in enumerate(walkers):
        rows = np.flatnonzero(seen[:, p])
        local = poses[p][0][rows]
        n = len(rows)
        error = np.radians(8.0) * rng.normal(size=(n, 24, 3)) / np.sqrt(3.0)
        error[:, 0] *= 6.0 / 8.0
        true = Rotation.from_rotvec(local.reshape(-1, 3))
        noisy = true * Rotation.from_rotvec(np.tile(walker.wrong, (n, 1))) * Rotation.from_rotvec(error.reshape(-1, 3))
        pose = noisy.as_rotvec().reshape(n, 24, 3)
        if n:
            pose[:, 0] = (to_camera * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
        columns["frame"].append(rows)
        columns["person"].append(np.full(n, p))
        columns["score"].append(np.clip(np.where(hidden[rows, p], 0.42, 0.9) + 0.05 * rng.normal(size=n), 0.05, 1.0))
        columns["uv"].append(uv[rows, p])
        columns["z"].append(z[rows, p])
        columns["pose"].append(pose)
        columns["betas"].append(walker.betas + 0.5 * rng.normal(size=(n, 10)))
        columns["token"].append(spread * walker.identity + 0.5 * rng.normal(size=(n, 32)))
    _add_strangers(rng, columns, working, P, to_camera, spread)
    table: dict[str, Any] = {key: np.concatenate(value) for key, value in columns.items()}
    _swap_tokens(rng, table, T, swap_rate)
    twice = np.flatnonzero((table["person"] >= 0) & (rng.random(len(table["person"])) < 0.01))
    if len(twice):
        again = {key: value[twice].copy() for key, value in table.items()}
        angle = rng.uniform(0.0, 2.0 * np.pi, len(twice))
        again["uv"] += rng.uniform(5.0, 15.0, (len(twice), 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        again["token"] += np.sqrt(0.5) * 0.5 * rng.normal(size=again["token"].shape)
        again["score"] = rng.uniform(0.50, 0.58, len(twice))
        again["person"] = np.full(len(twice), DUPLICATE)
        table = {key: np.concatenate([table[key], again[key]]) for key in table}
    uv_all = table.pop("uv")
    z_all = table.pop("z")
    direction = np.column_stack([uv_all, np.ones(len(uv_all))]) @ np.linalg.inv(K).T
    return table | {"view": np.full(len(z_all), v), "stamp_s": t[table["frame"]],
                   "head_camera": z_all[:, None] * direction}


def _add_strangers(rng: np.random.Generator, columns: dict[str, list[Any]], working: NDArray[np.bool_], people: int,
                   to_camera: Rotation, spread: float) -> None:
    """False positives: upright, anywhere in the image, 2 to 9 m away."""
    count = rng.binomial(1, min(0.02 * people, 1.0), size=len(working)) * working
    frames = np.flatnonzero(count)
    n = len(frames)
    pose = 0.3 * rng.normal(size=(n, 24, 3))
    if n:
        yaw = Rotation.from_euler("z", rng.uniform(0.0, 2.0 * np.pi, (n, 1)))
        pose[:, 0] = (to_camera * yaw * Rotation.from_euler("x", np.pi / 2.0)).as_rotvec()
    columns["frame"].append(frames)
    columns["person"].append(np.full(n, NOBODY))
    columns["score"].append(rng.uniform(0.31, 0.60, n))
    columns["uv"].append(rng.uniform(0.0, 1.0, (n, 2)) * IMAGE_SIZE)
    columns["z"].append(rng.uniform(2.0, 9.0, n))
    columns["pose"].append(pose)
    columns["betas"].append(0.8 * rng.normal(size=(n, 10)))
    columns["token"].append(spread * rng.normal(size=(n, 32)))


def _swap_tokens(rng: np.random.Generator, rows: dict[str, Any], frames: int, rate: float) -> None:
    for k in np.flatnonzero(rng.random(frames) < rate):
        mine = np.flatnonzero((rows["frame"] == k) & (rows["person"] >= 0))
        if len(mine) >= 2:
            a, b = rng.choice(mine, 2, replace=False)
            rows["token"][[a, b]] = rows["token"][[b, a]]
