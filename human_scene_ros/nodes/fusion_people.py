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

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.convert import ROT_SMPLX_BODY
from human_scene_ros.body.model import BodyModel, joints_of_people, load_body_model, pose_joints
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import HEAD, NUM_JOINTS
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.fusion import Fusion
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.monitor import RigMonitor, ViewAgreement
from human_scene_ros.fusion.types import Detections, FusedFrame, FusedPeople, View
from human_scene_ros.geometry.transform import make_transform, rotation_vectors
from human_scene_ros.nodes.fusion_config import FusionNodeConfig
from human_scene_ros.scene import BodyEstimate, TrackState
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.fusion_fields import FusedBody, FusedPersonView, person_id_text
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
        merged: (kept, dropped) numbers of published people who became one; the dropped one is LOST in this set.
    """

    people: tuple[FusedBody, ...]
    frame: FusedFrame
    cameras: tuple[str, ...]
    track_ids: tuple[str, ...]
    merged: tuple[tuple[int, int], ...]


@dataclasses.dataclass
class _Life:
    """A published person: as last published, when that was, and when a camera last saw somebody there."""

    person: FusedBody
    shown_s: float
    noticed_s: float

    def later(self, now_s: float, state: TrackState) -> FusedBody:
        """The person now, at constant velocity, seen by nobody."""
        body, unseen_s = self.person.body, max(now_s - self.noticed_s, 0.0)
        step = (np.clip(now_s - self.shown_s, 0.0, 1.0) * np.nan_to_num(body.velocity_world)).astype(np.float32)
        parameters = dataclasses.replace(body.parameters, transl=body.parameters.transl + step)
        moved = dataclasses.replace(body, track_state=state, time_since_update_s=unseen_s, parameters=parameters,
                                    joints_camera=body.joints_camera + step)
        return dataclasses.replace(self.person, body=moved, views=(), reprojection_px=math.nan, last_seen_s=unseen_s,
                                   association_confidence=0.0)


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
        self._published: dict[int, _Life] = {}  # of everybody who was published and has not ended
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
        self._published.clear()
        self._shared.clear()
        self.monitor.reset()

    def merge(self, keep: str, drop: str) -> bool:
        """Make two people one by their ids; False if one is unknown."""
        numbers = [_number(text, self.description.id_prefix) for text in (keep, drop)]
        return self._fusion is not None and self._fusion.merge(*numbers)

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
        for kept, dropped in frame.merged:
            self._shared[kept] = self._shared.get(kept, 0) + self._shared.get(dropped, 0)
        merged = tuple((kept, dropped) for kept, dropped in frame.merged if dropped in self._published)
        seen_now = [person for person in self._bodies(frame, detections, cameras, bodies) if self._is_somebody(person)]
        return FusedSet(self._lives(stamp_ns * 1e-9, seen_now, frame), frame, cameras,
                        tuple(str(body.track_id) for body in bodies), merged)

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
        parameters, joints = self._posed(people, [[bodies[i] for i in rows] for rows in members])
        focal = np.array([self._views[name].focal_px for name in cameras])
        pixels = frame.residual_m * focal / np.maximum(detections.head_camera[:, 2], 0.1)
        confidence, covariance = self._confidence(frame, detections, members), _covariances(people)
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
                bbox_px=np.full(4, np.nan, np.float32), height_m=sum(known) / len(known) if known else math.nan,
                velocity_world=people.velocity_world[k].astype(np.float32))
            result.append(FusedBody(body, int(people.status[k]), covariance[k], views,
                                    float(pixels[rows].sum()) / len(rows), float(confidence[k])))
        return result

    def _posed(self, people: FusedPeople,
               views: Sequence[Sequence[Any]]) -> tuple[list[BodyParameters], NDArray[np.float32]]:
        """Parameters and (P, 55, 3) joints: fused root, body, shape; hands and face of the best view that has them."""
        P = len(people)
        pose = np.zeros((P, NUM_JOINTS, 3), np.float32)  # in the order of `BodyParameters.full_pose`
        pose[:, :JOINTS] = rotation_vectors(people.rotations)
        for k, seen in enumerate(views):
            pose[k, JOINTS:] = next((parts for view in seen if (parts := _hands_and_face(view)) is not None), 0.0)
        betas, expression = people.betas.astype(np.float32), np.zeros((P, self.model.num_expression), np.float32)
        joints = pose_joints(self.model, pose, betas, np.zeros((P, 3)), expression)
        transl = (people.joints_world[:, 0] - joints[:, 0]).astype(np.float32)
        parameters = [BodyParameters(
            global_orient=p[0], transl=at, body_pose=p[1:22].reshape(-1), jaw_pose=p[22], leye_pose=p[23],
            reye_pose=p[24], left_hand_pose=p[25:40].reshape(-1), right_hand_pose=p[40:].reshape(-1), betas=b,
            expression=e) for p, at, b, e in zip(pose, transl, betas, expression, strict=True)]
        return parameters, joints + transl[:, None]

    def _confidence(self, frame: FusedFrame, detections: Detections, members: Sequence[Sequence[int]]) -> Array:
        """(P,) mean over the views of 1 - own / next: how much nearer a person is to its rays than the next one."""
        rows = np.concatenate(members)
        person = np.repeat(np.arange(len(members)), [len(mine) for mine in members])
        T_world_camera = self._poses[detections.view[rows]]
        ray = (T_world_camera[:, :3, :3] @ detections.head_camera[rows, :, None])[..., 0]
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        offset = frame.people.head_world - T_world_camera[:, None, :3, 3]
        beside = np.linalg.norm(offset - (offset @ ray[:, :, None]) * ray[:, None], axis=2)
        beside[np.arange(len(rows)), person] = np.inf
        # Residuals of a few millimetres are luck.
        own = np.maximum(frame.residual_m[rows], _RESIDUAL_FLOOR_M)
        share = np.minimum(own / np.maximum(beside.min(axis=1), 1e-6), 1.0)
        return np.asarray(1.0 - np.bincount(person, share) / np.bincount(person))

    def _is_somebody(self, person: FusedBody) -> bool:
        """Whether enough cameras at a time have seen the person often enough."""
        number, wanted = person.body.track_id, self.config.person.min_views
        if len(person.views) >= wanted:
            self._shared[number] = self._shared.get(number, 0) + 1
        return wanted <= 1 or self._shared.get(number, 0) >= _SHARED_SETS

    def _lives(self, now_s: float, seen: Sequence[FusedBody], frame: FusedFrame) -> tuple[FusedBody, ...]:
        """Those seen now, those of a moment ago extrapolated, and a last word on those whose id has ended.

        Of somebody whom a camera sees but in whom the fusion does not believe now, nothing is said.
        """
        shown = {person.body.track_id: person for person in seen}
        held, noticed = set(frame.alive.tolist()), set(frame.detection_person.tolist())
        for number, person in shown.items():
            self._published[number] = _Life(person, now_s, now_s)
        for number, life in list(self._published.items()):
            if number in noticed:
                life.noticed_s = now_s
            if number not in held:
                del self._published[number]
                shown[number] = life.later(now_s, TrackState.LOST)
            elif number not in noticed and now_s - life.shown_s <= self.config.person.coast:
                shown[number] = life.later(now_s, TrackState.PREDICTED)
        self._shared = {number: sets for number, sets in self._shared.items() if number in held}
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


def _hands_and_face(view: Any) -> NDArray[np.float32] | None:
    """(33, 3) jaw, eyes and hands of a view; None if it has not estimated any, or not well."""
    if not int(view.valid_parts) & _HAND_PARTS:
        return None
    parts = np.concatenate([view.jaw_pose, view.leye_pose, view.reye_pose, view.left_hand_pose, view.right_hand_pose],
                           dtype=np.float32)
    return parts.reshape(-1, 3) if np.isfinite(parts).all() else None


def _covariances(people: FusedPeople) -> Array:
    """(P, 6, 6) of the pelvis: position as the head's, facing from how far the views differ."""
    spread = np.maximum(4.0 * (1.0 - people.quality), _ROTATION_FLOOR_RAD**2)
    covariance = np.zeros((len(people), 6, 6))
    covariance[:, :3, :3] = people.covariance
    covariance[:, 3:, 3:] = spread[:, None, None] * np.eye(3)
    return covariance


def _number(text: str, prefix: str) -> int:
    """The number of a person whose id is exactly this text; -1 = no such id."""
    digits = text.removeprefix(prefix)
    number = int(digits) if digits.isdecimal() and digits.isascii() else -1
    return number if person_id_text(prefix, number) == text else -1


def pelvis_pose(person: FusedBody) -> Array:
    """(4, 4) T_world_person: origin at the pelvis, axes of REP-155 (x forward, y left, z up)."""
    # cv2.Rodrigues: scipy's conversions of single rotations cost ten times as much.
    rotation = cv2.Rodrigues(person.body.parameters.global_orient.astype(np.float64))[0] @ ROT_SMPLX_BODY
    return np.asarray(make_transform(rotation, person.body.joints_camera[0]))
