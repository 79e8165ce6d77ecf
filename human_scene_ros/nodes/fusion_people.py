"""What the fusion node drives: body messages of one set in, people in the world frame out. No ROS import.

Messages are any objects with the fields of SmplxBodyArray. A body whose arrays do not fit is left out and counted;
bad numbers are the library's business, which marks them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.body.convert import ROT_SMPLX_BODY
from human_scene_ros.body.model import BodyModel, joints_of_people, load_body_model, rest_joints
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.fusion import Fusion
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.monitor import RigMonitor, ViewAgreement
from human_scene_ros.fusion.types import Detections, FusedFrame, FusedPeople, View
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.nodes.fusion_config import FusionNodeConfig
from human_scene_ros.scene import BodyEstimate, TrackState
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.fusion_fields import FusedBody, FusedPersonView
from human_scene_ros.sources.message_fields import BodyDescription

Array = NDArray[np.float64]

JOINTS = 22
_HAND_PARTS = (message_fields.VALID_LEFT_HAND | message_fields.VALID_RIGHT_HAND | message_fields.VALID_JAW
               | message_fields.VALID_EYES | message_fields.VALID_EXPRESSION)
_ROTATION_FLOOR_RAD = math.radians(5.0)  # views agree better than they are right
_RESIDUAL_FLOOR_M = 0.01
_SHARED_SETS = 3


@dataclasses.dataclass(frozen=True)
class CameraBodies:
    """One camera's message as arrays; frame: its optical frame.

    Args:
        message: The SmplxBodyArray.
        bodies: The messages of the rows.
        head_camera: (n, 3) metres.
        pose: (n, 22, 3) axis-angle.
        betas: (n, B).
        score: (n,).
        malformed: What was wrong with bodies that were left out.
    """

    message: Any
    bodies: tuple[Any, ...]
    head_camera: Array
    pose: Array
    betas: Array
    score: Array
    malformed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FusedSet:
    """Result of one set.

    Args:
        people: To be published, by id.
        frame: The library's result.
        cameras: Camera of each detection.
        track_ids: Track of each detection in its camera.
    """

    people: tuple[FusedBody, ...]
    frame: FusedFrame
    cameras: tuple[str, ...]
    track_ids: tuple[str, ...]


class FusionPeople:
    """Made on configure, dropped on cleanup.

    Args:
        config: Of the node.

    Raises:
        BodyModelError: The body model cannot be read.
    """

    def __init__(self, config: FusionNodeConfig) -> None:
        self.model: BodyModel = load_body_model(config.body or None)
        self.cameras = tuple(config.cameras)
        self.config = config
        self.skeleton = Skeleton.from_body_model(self.model, JOINTS)
        self.description = BodyDescription(body_model=self.model.name, is_smplx=self.model.is_smplx, joint_set=2,
                                           id_prefix=config.person.id_prefix)
        self.monitor = RigMonitor(len(self.cameras))
        self._fusion: Fusion | None = None
        self._views: dict[str, View] = {}
        self._poses = np.full((len(self.cameras), 4, 4), np.nan)
        self._place = {name: k for k, name in enumerate(self.cameras)}
        self._numbers: dict[tuple[str, str], int] = {}  # camera and track -> number
        self._counter = itertools.count()
        self._last: dict[int, tuple[float, FusedBody]] = {}  # when and how everybody was last seen
        self._shared: dict[int, int] = {}  # person -> sets in which enough cameras saw it

    def configure(self, config: FusionNodeConfig) -> None:
        """Take over dynamic parameters; people stay."""
        self.config = config
        if self._fusion is not None:
            self._fusion.config = fusion_config(config)

    def reset(self) -> None:
        """Forget everybody; ids go on counting."""
        if self._fusion is not None:
            self._fusion.reset()
        self._numbers.clear()
        self._last.clear()
        self._shared.clear()
        self.monitor.reset()

    def merge(self, keep: str, drop: str) -> bool:
        """Make two people one by their ids; False if one is unknown."""
        numbers = [_number(text, self.description.id_prefix) for text in (keep, drop)]
        if self._fusion is None or not self._fusion.merge(*numbers):
            return False
        self._last.pop(numbers[1], None)
        return True

    def agreement(self, camera: str) -> ViewAgreement:
        """What the people say about a camera's pose and clock."""
        return self.monitor.agreement(self._place[camera])

    def foreign(self, message: Any) -> str:
        """"" or which other body model the bodies are of: they keep pose and place, but their shape means nothing."""
        other = sorted({str(body.body_model) for body in message.bodies} - {self.model.name})
        return f"bodies are of the model {other}, this node fuses with '{self.model.name}': shapes are ignored; set " \
               "the parameter body to the model of the reconstructors" if other else ""

    def read(self, message: Any) -> CameraBodies:
        """The people whom a camera sees now, as arrays."""
        rows: list[tuple[Any, NDArray[np.float32], Array, Array]] = []
        malformed = []
        for body in message.bodies:
            if body.track_state >= TrackState.PREDICTED:
                continue  # not seen in this image
            try:
                pose = np.concatenate([body.global_orient, body.body_pose]).reshape(JOINTS, 3).astype(np.float64)
                joints = np.array(body.joints, np.float32).reshape(-1, 3)
                betas = np.zeros(self.model.num_betas)
                if body.body_model == self.model.name:
                    given = np.array(body.betas, np.float64)[:len(betas)]
                    betas[:len(given)] = given
                head = joints[HEAD] if len(joints) > HEAD else self._head_of(body, pose, betas)
            except ValueError as error:
                malformed.append(f"{body.track_id}: {error}")
                continue
            rows.append((body, head, pose, betas))
        n = len(rows)
        return CameraBodies(
            message, tuple(row[0] for row in rows), np.array([row[1] for row in rows], np.float64).reshape(n, 3),
            np.array([row[2] for row in rows]).reshape(n, JOINTS, 3),
            np.array([row[3] for row in rows]).reshape(n, self.model.num_betas),
            np.array([row[0].score for row in rows], np.float64), tuple(malformed))

    def _head_of(self, body: Any, pose: Array, betas: Array) -> NDArray[np.float32]:
        parameters = BodyParameters(global_orient=pose[0].astype(np.float32), transl=np.array(body.transl, np.float32),
                                    body_pose=pose[1:].astype(np.float32).reshape(-1), betas=betas.astype(np.float32))
        return np.asarray(joints_of_people(self.model, [parameters])[0, HEAD])

    # --- the route -----------------------------------------------------------------------------------------------

    def step(self, stamp_ns: int, frames: Mapping[str, tuple[int, CameraBodies]],
             T_world_camera: Mapping[str, NDArray[np.floating] | None]) -> FusedSet:
        """Fuse one set.

        Args:
            stamp_ns: Of the set.
            frames: Camera -> its stamp with the offset applied, and its bodies.
            T_world_camera: Camera -> pose of the optical frame; None = unknown.
        """
        fusion = self._ready(frames)
        for name, T in T_world_camera.items():
            place = self._place[name]
            if T is None or not np.array_equal(T, self._poses[place]):
                self._poses[place] = T if fusion.set_extrinsics(place, T) else np.nan
        cameras = tuple(name for name, (_, seen) in frames.items() for _ in seen.bodies)
        bodies = [body for _, seen in frames.values() for body in seen.bodies]
        # Times relative to the set, so that nanoseconds survive in floats.
        detections = Detections(
            np.array([self._place[name] for name in cameras], np.int64),
            np.array([stamp_ns * 1e-9 + (at_ns - stamp_ns) * 1e-9
                      for at_ns, seen in frames.values() for _ in seen.bodies]),
            _joined([seen.head_camera for _, seen in frames.values()], (0, 3)),
            _joined([seen.pose for _, seen in frames.values()], (0, JOINTS, 3)),
            _joined([seen.betas for _, seen in frames.values()], (0, self.model.num_betas)),
            _joined([seen.score for _, seen in frames.values()], (0,)),
            track_id=np.array([self._track(name, body.track_id)
                               for name, body in zip(cameras, bodies, strict=True)], np.int64))
        frame = fusion.step(stamp_ns * 1e-9, detections, [self._place[name] for name in frames])
        self.monitor.add(frame, detections, self._poses)
        seen_now = [person for person in self._bodies(frame, detections, cameras, bodies) if self._is_somebody(person)]
        return FusedSet(self._lives(stamp_ns * 1e-9, seen_now), frame, cameras,
                        tuple(str(body.track_id) for body in bodies))

    def _ready(self, frames: Mapping[str, tuple[int, CameraBodies]]) -> Fusion:
        """The fusion, which learns intrinsics from the messages."""
        if self._fusion is None:
            self._fusion = Fusion(self.skeleton, [View(name, None, 500.0) for name in self.cameras],
                                  fusion_config(self.config))
        for name, (_, seen) in frames.items():
            m = seen.message
            fx, fy, cx, cy = (float(v) for v in m.intrinsics)
            view = View(name, None, 0.5 * (fx + fy), (int(m.width), int(m.height)), (cx, cy))
            if self._views.get(name) != view:
                self._views[name] = view
                self._fusion.set_camera(self._place[name], view)
        return self._fusion

    def _track(self, camera: str, track_id: str) -> int:
        key = (camera, track_id)
        if key not in self._numbers:
            if len(self._numbers) > 8192:
                for old in list(self._numbers)[:4096]:
                    del self._numbers[old]
            self._numbers[key] = next(self._counter)
        return self._numbers[key]

    # --- from arrays to bodies -----------------------------------------------------------------------------------

    def _bodies(self, frame: FusedFrame, detections: Detections, cameras: Sequence[str],
                bodies: Sequence[Any]) -> list[FusedBody]:
        people = frame.people
        if not len(people):
            return []
        members: list[list[int]] = []
        for number in people.person_id:
            mine = np.flatnonzero(frame.detection_person == number)
            members.append(mine[np.argsort(-detections.score[mine], kind="stable")].tolist())
        parameters = [self._parameters(people, k, [bodies[i] for i in rows]) for k, rows in enumerate(members)]
        joints = joints_of_people(self.model, parameters)
        result = []
        for k, rows in enumerate(members):
            weights = detections.score[rows] / detections.score[rows].sum()
            views = tuple(FusedPersonView(cameras[i], str(bodies[i].track_id), float(w), float(frame.residual_m[i]))
                          for i, w in zip(rows, weights, strict=True))
            heights = [float(bodies[i].height) for i in rows]
            known = [h for h in heights if math.isfinite(h)]
            body = BodyEstimate(
                track_id=int(people.person_id[k]), track_state=TrackState.CONFIRMED, track_age=int(people.age[k]),
                time_since_update_s=0.0, score=float(people.score[k]), parameters=parameters[k],
                joints_camera=joints[k], head_uv_px=np.full(2, np.nan, np.float32),
                bbox_px=np.full(4, np.nan, np.float32), height_m=float(np.mean(known)) if known else float("nan"),
                velocity_world=people.velocity_world[k].astype(np.float32))
            focal = np.array([self._views[cameras[i]].focal_px for i in rows])
            pixels = frame.residual_m[rows] * focal / np.maximum(detections.head_camera[rows, 2], 0.1)
            result.append(FusedBody(body, int(people.status[k]), _covariance(people, k), views,
                                    float(np.mean(pixels)), self._confidence(frame, detections, k, rows)))
        return result

    def _parameters(self, people: FusedPeople, k: int, views: Sequence[Any]) -> BodyParameters:
        """Fused root, body and shape; hands and face of the best view that estimates them."""
        rotvecs = Rotation.from_matrix(people.rotations[k]).as_rotvec().astype(np.float32)
        betas = people.betas[k].astype(np.float32)
        parts = {}
        best = next((v for v in views if int(v.valid_parts) & _HAND_PARTS), None)
        if best is not None:
            names = ("left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose")
            parts = {name: np.array(getattr(best, name), np.float32) for name in names}
        expression = np.zeros(self.model.num_expression, np.float32)
        transl = people.joints_world[k, 0] - rest_joints(self.model, betas, expression)[0]
        return BodyParameters(global_orient=rotvecs[0], transl=transl.astype(np.float32),
                              body_pose=rotvecs[1:].reshape(-1), betas=betas, expression=expression, **parts)

    def _confidence(self, frame: FusedFrame, detections: Detections, k: int, rows: list[int]) -> float:
        """1 - own / next: how much nearer this person is to its rays than the next one."""
        others = np.delete(frame.people.head_world, k, axis=0)
        if not len(others):
            return 1.0
        T_world_camera = self._poses[detections.view[rows]]
        ray = (T_world_camera[:, :3, :3] @ detections.head_camera[rows, :, None])[..., 0]
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        offset = others - T_world_camera[:, None, :3, 3]
        beside = np.linalg.norm(offset - (offset @ ray[:, :, None]) * ray[:, None], axis=2).min(axis=1)
        # Residuals of a few millimetres are luck.
        own = np.maximum(frame.residual_m[rows], _RESIDUAL_FLOOR_M)
        return float(np.mean(1.0 - np.minimum(own / np.maximum(beside, 1e-6), 1.0)))

    def _is_somebody(self, person: FusedBody) -> bool:
        """Whether enough cameras at a time have seen the person often enough."""
        number, wanted = person.body.track_id, self.config.person.min_views
        if len(person.views) >= wanted:
            self._shared[number] = self._shared.get(number, 0) + 1
        return wanted <= 1 or self._shared.get(number, 0) >= _SHARED_SETS

    def _lives(self, now_s: float, seen: Sequence[FusedBody]) -> tuple[FusedBody, ...]:
        """Those seen now, those of a moment ago extrapolated, and a last word on those who are forgotten."""
        shown = {person.body.track_id: person for person in seen}
        for number, person in shown.items():
            self._last[number] = now_s, person
        for number, (at_s, person) in list(self._last.items()):
            gone_s = now_s - at_s
            if number in shown:
                continue
            if gone_s > self.config.person.timeout or gone_s < 0.0:
                del self._last[number]
                self._shared.pop(number, None)
                shown[number] = _moved(person, gone_s, TrackState.LOST)
            elif gone_s <= self.config.person.coast:
                shown[number] = _moved(person, gone_s, TrackState.PREDICTED)
        return tuple(shown[number] for number in sorted(shown))


def fusion_config(config: FusionNodeConfig) -> FusionConfig:
    """The part of the parameters that the library understands."""
    # Detections older than a set can be are left out by the synchroniser already.
    return FusionConfig(
        association=config.assoc.cost, gate=config.assoc.gate, depth_fraction=config.assoc.depth_noise,
        sure_score=config.assoc.sure_score,
        position_weight=config.assoc.position_weight, pose_weight=config.assoc.pose_weight,
        paper_gate_m=config.assoc.max_cost, position=config.fuse.position, min_angle_deg=config.fuse.min_angle,
        robust=config.fuse.robust, pose=config.fuse.pose,
        betas=config.fuse.betas, smoothing=config.fuse.smoothing, death_s=config.person.timeout,
        max_age_s=max(0.1, 2.0 * config.sync.window), max_skew_s=max(0.04, config.sync.window))


def _joined(parts: Sequence[Array], empty: tuple[int, ...]) -> Array:
    return np.concatenate([np.zeros(empty), *parts])


def _covariance(people: FusedPeople, k: int) -> Array:
    """(6, 6) of the pelvis: position as the head's, facing from how far the views differ."""
    spread = max(4.0 * (1.0 - float(people.quality[k])), _ROTATION_FLOOR_RAD**2)
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = people.covariance[k]
    covariance[3:, 3:] = spread * np.eye(3)
    return covariance


def _moved(person: FusedBody, ahead_s: float, state: TrackState) -> FusedBody:
    """The person later, at constant velocity."""
    body = person.body
    step = np.clip(ahead_s, 0.0, 1.0) * np.nan_to_num(body.velocity_world).astype(np.float32)
    parameters = dataclasses.replace(body.parameters, transl=body.parameters.transl + step)
    moved = dataclasses.replace(body, track_state=state, time_since_update_s=ahead_s, parameters=parameters,
                                joints_camera=body.joints_camera + step)
    return dataclasses.replace(person, body=moved, views=(), reprojection_px=float("nan"), last_seen_s=ahead_s,
                               association_confidence=0.0)


def _number(text: str, prefix: str) -> int:
    digits = text.removeprefix(prefix)
    return int(digits) if digits.isdigit() else -1


def pelvis_pose(person: FusedBody) -> Array:
    """(4, 4) T_world_person: origin at the pelvis, axes of REP-155 (x forward, y left, z up)."""
    rotation = Rotation.from_rotvec(person.body.parameters.global_orient).as_matrix() @ ROT_SMPLX_BODY
    return np.asarray(make_transform(rotation, person.body.joints_camera[0]))
