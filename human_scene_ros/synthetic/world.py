"""A synthetic world: a place with clothed moving people and a moving camera, and the exact truth of every frame.

World frame: z up, floor z = 0, metres. Everything is a function of seed and configuration: two worlds of one seed
and one renderer give the same pictures. Bodies are the open body (`human_scene_ros.body`), in SMPL-X layout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body.model import chain
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert
from human_scene_ros.synthetic import camera_paths, motions
from human_scene_ros.synthetic.effects import CameraEffects
from human_scene_ros.synthetic.furniture import close_objects, furnish
from human_scene_ros.synthetic.people import DressedPerson, dress
from human_scene_ros.synthetic.places import KINDS, make_place
from human_scene_ros.synthetic.renderer import make_renderer
from human_scene_ros.synthetic.shapes import Drawing, Mesh

MAX_PEOPLE = 8
_PEOPLE_WEIGHTS = (0.35, 0.28, 0.17, 0.1, 0.06, 0.04, 0.03, 0.02)  # of 1..8 people
_CHUNK = 64  # frames whose poses are computed at once
_LYING = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # T-pose axes laid on the back


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """Size and difficulty of a world.

    Args:
        width: Image width, pixels.
        height: Image height, pixels.
        num_frames: Frames of the world.
        fps: Frames per second.
        min_people: Fewest people in a world that is not empty.
        max_people: Most people in a world.
        min_walkers: At least so many of them walk.
        empty_fraction: Fraction of worlds without people.
        free_pose_fraction: Fraction of people with random limb poses.
        motions: Kinds of motion to draw from, of `motions.KINDS`; empty: all, with random offsets of arms and head.
        fov_deg: Range of the horizontal field of view.
        body_lod: Level of detail of the bodies: 0 full, 1 about 2,500, 2 about 900 vertices.
        smooth: Several samples per pixel: smooth edges.
        effects: Strength of noise and switch (0) of all camera effects.
        camera_motion: One of `camera_paths.KINDS`, "" draws one.
        place: room, corridor, hall or outdoor; "" draws one.
        renderer: auto, gl or numpy.

    Raises:
        ConfigError: A value is out of range.
    """

    width: int = 160
    height: int = 112
    num_frames: int = 30
    fps: float = 10.0
    min_people: int = 1
    max_people: int = MAX_PEOPLE
    min_walkers: int = 0
    empty_fraction: float = 0.2
    free_pose_fraction: float = 0.25
    motions: tuple[str, ...] = ()
    fov_deg: tuple[float, float] = (45.0, 90.0)
    body_lod: int = 2
    smooth: bool = True
    effects: float = 1.0
    camera_motion: str = ""
    place: str = ""
    renderer: str = "auto"

    def __post_init__(self) -> None:
        if not (16 <= self.width <= 4096 and 16 <= self.height <= 4096):
            raise ConfigError(f"world: {self.width}x{self.height} px; expected 16 to 4096 each")
        if self.num_frames < 1 or not self.fps > 0:
            raise ConfigError(
                f"world: num_frames = {self.num_frames}, fps = {self.fps}: both must be positive"
            )
        if not 0 <= self.min_people <= self.max_people <= MAX_PEOPLE:
            raise ConfigError(
                f"world: min_people = {self.min_people}, max_people = {self.max_people}; "
                f"expected 0 <= min <= max <= {MAX_PEOPLE}"
            )
        if self.camera_motion and self.camera_motion not in camera_paths.KINDS:
            raise ConfigError(
                f"world.camera_motion = {self.camera_motion!r}; expected one of {camera_paths.KINDS} or ''"
            )
        unknown = sorted(set(self.motions) - set(motions.KINDS))
        if unknown:
            raise ConfigError(f"world.motions: {unknown} unknown; expected some of {motions.KINDS}")
        if self.place and self.place not in KINDS:
            raise ConfigError(f"world.place = {self.place!r}; expected one of {KINDS} or ''")
        if not 10.0 <= self.fov_deg[0] <= self.fov_deg[1] <= 150.0:
            raise ConfigError(f"world.fov_deg = {self.fov_deg}; expected 10 <= low <= high <= 150")


# What evaluations draw from. "rooms": a furnished room, up to three people, everyday motions, a usual lens.
# "varied": all that training randomises - other places, crowds, free limb poses, empty worlds full of things
# that look like people. The others are the worlds of the test set (`testset.py`) from any seed.
SUITES: dict[str, WorldConfig] = {
    "rooms": WorldConfig(place="room", max_people=3, empty_fraction=0.07, fov_deg=(50.0, 80.0),
                         motions=("walk", "stand", "turn", "sit", "reach", "wave")),
    "varied": WorldConfig(),
    "indoor": WorldConfig(place="room", max_people=3, empty_fraction=0.0, fov_deg=(50.0, 80.0),
                          motions=("walk", "stand", "turn", "sit", "reach", "wave")),
    "outdoor": WorldConfig(place="outdoor", max_people=4, empty_fraction=0.0, fov_deg=(50.0, 80.0)),
    "crowd": WorldConfig(place="hall", min_people=5, min_walkers=3, empty_fraction=0.0, fov_deg=(50.0, 80.0)),
}


@dataclasses.dataclass(frozen=True)
class SyntheticPerson:
    """Truth of one person in one frame; frame of all points: camera (optical), metres.

    Args:
        person_id: Index in the world; `instance` holds person_id + 1.
        parameters: Open-body parameters.
        joints_camera: (55, 3).
        head_uv_px: (2,) projection of the head joint; NaN behind the camera.
        head_visible: The head joint lies in the image and at least a third of the head's surface that faces
            the camera's side of the body is drawn, not hidden by things, people or the border.
        visible_fraction: Fraction of the body's vertices whose pixel shows this person.
        bbox_px: (4,) x, y, width, height around the projected body, clipped to the image; 0 if outside.
    """

    person_id: int
    parameters: BodyParameters
    joints_camera: NDArray[np.float32]
    head_uv_px: NDArray[np.float32]
    head_visible: bool
    visible_fraction: float
    bbox_px: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class SyntheticFrame:
    """One picture and its truth.

    Args:
        stamp_ns: Time since the world began.
        image: (H, W, 3) uint8 RGB.
        depth_m: (H, W) float32 along z at pixel centres; 0 = sky.
        instance: (H, W) uint8; 0 background, person_id + 1 on people (clothes and what they carry included).
        camera: Intrinsics.
        T_world_camera: (4, 4).
        people: All people of the world, seen or not.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    instance: NDArray[np.uint8]
    camera: PinholeCamera
    T_world_camera: NDArray[np.float64]
    people: tuple[SyntheticPerson, ...]


@dataclasses.dataclass
class _Actor:
    """A person with its motion and its path over all frames."""

    motion: motions.Motion
    person: DressedPerson
    phase_s: float
    position: NDArray[np.float64]  # (T, 2)
    heading: NDArray[np.float64]  # (T,)
    base_z: float = 0.0


class SyntheticWorld:
    """The world of one seed. `frame(i)` may be called in any order.

    Args:
        seed: Any non-negative integer.
        config: Size and difficulty.

    Raises:
        ConfigError: The seed is negative.
    """

    def __init__(self, seed: int, config: WorldConfig | None = None) -> None:
        self.seed, self.config = int(seed), config or WorldConfig()
        if self.seed < 0:
            raise ConfigError(f"world: seed {self.seed}; expected 0 or more")
        place_rng, people_rng, camera_rng, things_rng, effects_rng = (
            np.random.default_rng(s) for s in np.random.SeedSequence(self.seed).spawn(5)
        )
        config = self.config
        self._times = np.arange(config.num_frames) / config.fps
        fov = math.radians(camera_rng.uniform(*config.fov_deg))
        self.camera = PinholeCamera.from_fov(config.width, config.height, math.degrees(fov))
        self.place = make_place(place_rng, config.place)
        self._actors = self._cast(people_rng)
        paths = np.array([a.position for a in self._actors]).reshape(-1, config.num_frames, 2)
        aims = np.array([self._aim_height(a, camera_rng) for a in self._actors])
        vertical = 2 * math.atan(config.height / (2 * self.camera.fy))
        self.camera_path = camera_paths.plan(
            camera_rng,
            self._times,
            (fov, vertical),
            self.place.half,
            self.place.ceiling,
            self.place.kind == "outdoor",
            paths,
            aims,
            config.camera_motion or None,
        )
        self._sit_down(things_rng)
        furnish(things_rng, self.place, self._keep_clear(things_rng, paths))
        if things_rng.random() < (0.08 if self._actors else 0.45):
            close_objects(things_rng, self.place, self.camera_path.T_world_camera[0], fov)
        self._static = self.place.builder.build()
        self._materials = self.place.table.array()
        self._effects = CameraEffects(effects_rng, config.width, config.height, config.effects)
        self._poses: dict[int, tuple[NDArray[np.float32], ...]] = {}

    def __len__(self) -> int:
        return self.config.num_frames

    def frame(self, index: int) -> SyntheticFrame:
        """Render frame `index`.

        Raises:
            IndexError: Not in [0, num_frames).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index}: this world has {len(self)} frames")
        posed = [self._posed(k, index) for k in range(len(self._actors))]
        image, depth_m, instance = self._draw(index, posed)
        T_world_camera = self.camera_path.T_world_camera[index]
        T_camera_world = invert(T_world_camera)
        people = tuple(
            self._truth(k, rows, rotation, joints, T_camera_world, depth_m, instance)
            for k, (rows, rotation, joints) in enumerate(posed)
        )
        if not self._effects.metered:
            first = (
                image
                if index == 0
                else self._draw(0, [self._posed(k, 0) for k in range(len(self._actors))])[0]
            )
            self._effects.meter(first)
        image = self._effects.apply(image, index, self._image_drift(index))
        stamp_ns = int(round(index * 1e9 / self.config.fps))
        return SyntheticFrame(stamp_ns, image, depth_m, instance, self.camera, T_world_camera.copy(), people)

    def _draw(
        self, index: int, posed: Sequence[tuple[NDArray[np.float32], ...]]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        config = self.config
        meshes = tuple(
            Mesh(rows, a.person.faces) for (rows, _, _), a in zip(posed, self._actors, strict=True)
        )
        drawing = Drawing(
            self._static,
            meshes,
            self._materials,
            self.place.lighting,
            self._shadows([joints for _, _, joints in posed]),
            invert(self.camera_path.T_world_camera[index]),
        )
        return make_renderer(config.width, config.height, config.smooth, config.renderer).render(
            drawing, self.camera
        )

    def _cast(self, rng: np.random.Generator) -> list[_Actor]:
        config = self.config
        if rng.random() < config.empty_fraction or config.max_people == 0:
            return []
        weights = np.array(_PEOPLE_WEIGHTS[: config.max_people])
        count = max(config.min_people, 1 + int(rng.choice(len(weights), p=weights / weights.sum())))
        actors: list[_Actor] = []
        for k in range(count):
            walks = k < config.min_walkers
            motion = motions.walk(rng) if walks else motions.sample(rng, config.free_pose_fraction, config.motions)
            person = dress(rng, self.place.table, len(actors) + 1, config.body_lod, motion.name)
            for _ in range(8):
                position, heading = self._path(rng, motion, [a.position for a in actors])
                if all((np.linalg.norm(position - a.position, axis=1) > 0.6).all() for a in actors):
                    actors.append(_Actor(motion, person, float(rng.uniform(0, 10)), position, heading))
                    break
        return actors

    def _path(
        self, rng: np.random.Generator, motion: motions.Motion, others: list[NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions (T, 2) and headings (T,): an ellipse inside the floor for walkers, one spot for others."""
        t = self._times
        room = np.maximum(self.place.half - 0.5, 0.15)
        if motion.speed == 0.0:
            spot = rng.uniform(-1, 1, 2) * room
            if others and rng.random() < 0.4:  # groups and crowds
                spot = np.clip(others[-1][0] + rng.normal(0, 0.9, 2), -room, room)
            heading = rng.uniform(-np.pi, np.pi) + motion.turn_rate * t
            return np.tile(spot, (len(t), 1)), heading
        axes = room * rng.uniform(0.35, 1.0, 2)
        center = rng.uniform(-1, 1, 2) * (room - axes)
        phi = np.linspace(0, 2 * np.pi, 181)
        ellipse = center + axes * np.stack([np.cos(phi), np.sin(phi)], 1)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(ellipse, axis=0), axis=1))])
        s = (rng.uniform(0, length[-1]) + motion.speed * t) % length[-1]
        angle = np.interp(s, length, phi)
        position = center + axes * np.stack([np.cos(angle), np.sin(angle)], 1)
        heading = np.arctan2(axes[1] * np.cos(angle), -axes[0] * np.sin(angle))
        if rng.random() < 0.5:  # the other way round
            position[:, 1] = 2 * center[1] - position[:, 1]
            heading = -heading
        return position, np.unwrap(heading)

    @staticmethod
    def _aim_height(actor: _Actor, rng: np.random.Generator) -> float:
        top = actor.person.height_m
        if actor.motion.lies:
            return 0.4
        return float(rng.uniform(0.55, 1.0) * top * (0.7 if actor.motion.seat else 1.0))

    def _sit_down(self, rng: np.random.Generator) -> None:
        """Give sitting people something to sit on (and sometimes a table), lying ones sometimes a bed."""
        place, builder = self.place, self.place.builder
        for k, actor in enumerate(self._actors):
            x, y = actor.position[0]
            yaw = float(actor.heading[0])
            front = np.array([math.cos(yaw), math.sin(yaw)])

            def mat() -> int:
                return place.any_material(rng)

            if actor.motion.lies and rng.random() < 0.6:
                actor.base_z = float(rng.uniform(0.3, 0.6))
                builder.add("box", (x, y, actor.base_z / 2), (2.2, 1.2, actor.base_z), mat(), yaw=yaw)
            if not actor.motion.seat:
                continue
            self._poses = {}
            rows, _, joints = self._posed(k, 0)
            hips = np.asarray(actor.person.weights[: actor.person.body_vertices, [0]].todense())[:, 0] > 0.5
            top = float(max(rows[: actor.person.body_vertices][hips, 2].min() + 0.02, 0.1))
            width = rng.uniform(0.35, 0.55)
            cx, cy = joints[0, :2] - 0.03 * front
            kind = rng.choice(["stool", "block", "chair", "bench"], p=[0.2, 0.2, 0.45, 0.15])
            if kind == "stool":
                builder.add("cylinder", (cx, cy, top - 0.03), (width, width, 0.06), mat())
                builder.add("cylinder", (cx, cy, top / 2), (0.08, 0.08, top), mat())
            elif kind == "block":
                builder.add("box", (cx, cy, top / 2), (width, width, top), mat(), yaw=yaw)
            else:
                wide = width if kind == "chair" else rng.uniform(1.0, 1.8)
                m = mat()
                builder.add("box", (cx, cy, top - 0.03), (width, wide, 0.06), m, yaw=yaw)
                bx, by = joints[0, :2] - (width / 2 + 0.06) * front
                builder.add("box", (bx, by, top + 0.25), (0.05, wide, 0.5), m, yaw=yaw)
                for s in (-1, 1):
                    side = s * (wide / 2 - 0.05) * np.array([-front[1], front[0]])
                    builder.add(
                        "box", (cx + side[0], cy + side[1], top / 2), (width * 0.9, 0.05, top), m, yaw=yaw
                    )
            if rng.random() < 0.35:
                tx, ty = joints[0, :2] + rng.uniform(0.62, 0.8) * front
                h = rng.uniform(top + 0.2, top + 0.32)
                m = mat()
                builder.add("box", (tx, ty, h), (0.6, rng.uniform(0.7, 1.6), 0.05), m, yaw=yaw)
                builder.add("box", (tx, ty, h / 2), (0.08, 0.08, h), m, yaw=yaw)
        self._poses = {}

    def _keep_clear(self, rng: np.random.Generator, paths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Discs (n, 3) that furniture must not cover: people, camera and, mostly, the view between them."""
        step = max(1, len(self._times) // 24)
        camera = self.camera_path.T_world_camera[::step, :2, 3]
        discs = [np.column_stack([camera, np.full(len(camera), 0.45)])]
        for actor, path in zip(self._actors, paths, strict=True):
            radius = 1.2 if actor.motion.lies else 0.75 if actor.motion.seat else 0.42
            points = path[::step] if actor.motion.speed else path[:1]
            discs.append(np.column_stack([points, np.full(len(points), radius)]))
            if rng.random() < 0.65:
                along = np.linspace(0.08, 0.92, 10)[:, None]
                line = camera[0] * (1 - along) + path[0] * along
                discs.append(np.column_stack([line, np.full(10, 0.22)]))
        return np.concatenate(discs)

    def _chunk(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """Local rotations, world rotations and joints (pelvis at its rest height) of a chunk: (P, n, 55, ...)."""
        number = index // _CHUNK
        if number not in self._poses:
            frames = np.arange(number * _CHUNK, min((number + 1) * _CHUNK, len(self)))
            local = np.stack(
                [
                    motions.rotation_matrices(a.motion.angles(self._times[frames] + a.phase_s))
                    for a in self._actors
                ]
            )
            for k, actor in enumerate(self._actors):
                yaw = actor.heading[frames]
                c, s, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
                # Columns: where left, up and front of the body point in the world.
                rot_world_body = np.stack(
                    [
                        np.stack([-s, zero, c], -1),
                        np.stack([c, zero, s], -1),
                        np.stack([zero, one, zero], -1),
                    ],
                    -2,
                )
                if actor.motion.lies:
                    rot_world_body = rot_world_body @ _LYING.T
                local[k, :, 0] = rot_world_body @ local[k, :, 0]
            rest = np.stack([a.person.rest_joints for a in self._actors])[:, None]
            rest = np.broadcast_to(rest, (*local.shape[:2], 55, 3))
            rotation, joints = chain(local.astype(np.float32), rest)
            joints -= joints[:, :, :1]
            for k, actor in enumerate(self._actors):
                joints[k, :, :, :2] += actor.position[frames][:, None].astype(np.float32)
            self._poses = {number: (local.astype(np.float32), rotation, joints)}  # one chunk is kept
        return self._poses[number]

    def _posed(
        self, k: int, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Vertex rows, local rotations (55, 3, 3) and joints (55, 3) in the world; the lowest vertex touches."""
        local, rotation, joints = (a[k, index % _CHUNK] for a in self._chunk(index))
        actor = self._actors[k]
        rows = actor.person.posed(rotation, joints)
        lift = actor.base_z - float(rows[: actor.person.body_vertices, 2].min())
        rows[:, 2] += lift
        joints = joints + np.array([0.0, 0.0, lift], np.float32)
        return rows, local, joints

    def _shadows(self, joints: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        sun = self.place.lighting.sun_direction
        rows = []
        for j in joints:
            feet, head = j[[7, 8], :2].mean(0), j[15]
            reach = -sun[:2] / max(float(sun[2]), 0.3) * head[2]
            reach *= min(1.0, 1.5 / (float(np.hypot(*reach)) + 1e-6))
            rows.append((*feet, *(head[:2] + reach), 0.3))
        rows += self.place.shadows[: 12 - len(rows)]
        return np.array(rows, np.float32).reshape(-1, 5)

    def _image_drift(self, index: int) -> tuple[float, float]:
        """Image motion (pixels per second) of far points by the camera's rotation at this frame."""
        T = self.camera_path.T_world_camera
        a, b = max(index - 1, 0), min(index + 1, len(T) - 1)
        if a == b:
            return 0.0, 0.0
        turn = Rotation.from_matrix(T[a, :3, :3].T @ T[b, :3, :3]).as_rotvec() * self.config.fps / (b - a)
        return float(-turn[1] * self.camera.fx), float(turn[0] * self.camera.fy)

    def _truth(
        self,
        k: int,
        rows: NDArray[np.float32],
        local: NDArray[np.float32],
        joints: NDArray[np.float32],
        T_camera_world: NDArray[np.float64],
        depth_m: NDArray[np.float32],
        instance: NDArray[np.uint8],
    ) -> SyntheticPerson:
        person = self._actors[k].person
        R, t = T_camera_world[:3, :3], T_camera_world[:3, 3]
        joints_camera = joints @ R.T + t
        local = local.astype(np.float64)
        local[0] = R @ local[0]
        pose = Rotation.from_matrix(local).as_rotvec().astype(np.float32)
        parameters = BodyParameters(
            global_orient=pose[0],
            transl=(joints_camera[0] - person.rest_joints[0]).astype(np.float32),
            body_pose=pose[1:22].reshape(-1),
            jaw_pose=pose[22],
            leye_pose=pose[23],
            reye_pose=pose[24],
            left_hand_pose=pose[25:40].reshape(-1),
            right_hand_pose=pose[40:55].reshape(-1),
            betas=person.betas,
        )
        camera, (height, width) = self.camera, depth_m.shape
        points = rows[: person.body_vertices, :3] @ R.T.astype(np.float32) + t.astype(np.float32)
        front = points[:, 2] > 0.05
        z = np.where(front, points[:, 2], 1.0)
        u = points[:, 0] / z * np.float32(camera.fx) + np.float32(camera.cx)
        v = points[:, 1] / z * np.float32(camera.fy) + np.float32(camera.cy)
        inside = front & (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
        shown = np.zeros(len(points), bool)
        column, line = (u[inside] + 0.5).astype(np.int64), (v[inside] + 0.5).astype(np.int64)
        shown[inside] = instance[line, column] == k + 1
        head = person.head_vertices
        # What stands before the head may be the person's own arm: its depth tells.
        drawn_head = shown[head]
        at = np.flatnonzero(drawn_head)
        drawn_head[at] = (
            np.abs(
                depth_m[(v[head[at]] + 0.5).astype(np.int64), (u[head[at]] + 0.5).astype(np.int64)]
                - joints_camera[15, 2]
            )
            < 0.3
        )
        head_uv = camera.project(joints_camera[15].astype(np.float64))
        in_image = bool(-0.5 < head_uv[0] < width - 0.5 and -0.5 < head_uv[1] < height - 0.5)
        bbox = np.zeros(4, np.float32)
        if front.any():
            left, right = np.clip([u[front].min(), u[front].max()], -0.5, width - 0.5)
            top, bottom = np.clip([v[front].min(), v[front].max()], -0.5, height - 0.5)
            if right > left and bottom > top:
                bbox[:] = left, top, right - left, bottom - top
        return SyntheticPerson(
            k,
            parameters,
            joints_camera.astype(np.float32),
            head_uv.astype(np.float32),
            in_image and float(drawn_head.mean()) >= 1 / 3,
            float(shown.mean()),
            bbox,
        )
