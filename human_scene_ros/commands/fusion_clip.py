"""A clip of the fusion benchmark as the messages that reconstructors would send, and its skeleton as a body model.

The benchmark has its own skeleton of 24 joints; the messages hold the 22 of them that SMPL-X has too. With
`write_body` as the node's body model, both mean the same joints.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.model import BodyModel, joints_of_people, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.fusion.tracker import ViewTrackers
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import BodyEstimate, ScaleSource, SceneEstimate, TrackingStatus, TrackState, WorldSource
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import BodyDescription
from human_scene_ros.synthetic.multiview import ARMS, BONES, HEAD, IMAGE_SIZE, LEGS, MultiviewClip

BODY_JOINTS = 22
START_NS = 1_000_000_000_000
WORLD_FRAME = "map"


@dataclasses.dataclass(frozen=True)
class ClipMessage:
    """One message of one camera.

    Args:
        stamp_ns: Its stamp.
        camera: "camera_0" and so on.
        rows: (n,) detections of the clip, in the order of the bodies.
        track_ids: Track of each body.
        fields: Of the SmplxBodyArray.
    """

    stamp_ns: int
    camera: str
    rows: NDArray[np.int64]
    track_ids: tuple[str, ...]
    fields: dict[str, Any]


def camera_names(clip: MultiviewClip) -> list[str]:
    """Names of the clip's cameras."""
    return [f"camera_{v}" for v in range(len(clip.T_world_camera_given))]


def write_body(path: Path) -> None:
    """The benchmark's skeleton in the layout of a body model: one vertex per joint.

    Joints beyond the 22 lie on their parents. The lengths of bones are linear in the betas here; in the benchmark they
    are products, which differ by less than a millimetre.
    """
    bones = np.zeros((len(PARENTS), 3))
    bones[:BODY_JOINTS] = BONES[:BODY_JOINTS]
    change = np.zeros((len(PARENTS), 3, 10))
    change[..., 0] = 0.03 * bones
    for b, joints in ((1, LEGS), (2, ARMS)):
        rows = [j for j in joints if j < BODY_JOINTS]
        change[rows, :, b] = 0.015 * bones[rows]
    template, directions = bones.copy(), change.copy()
    for j in range(1, len(PARENTS)):
        template[j] += template[PARENTS[j]]
        directions[j] += directions[PARENTS[j]]
    identity = np.eye(len(PARENTS))
    np.savez(path, v_template=template, f=np.array([[0, 1, 2]]), shapedirs=directions, weights=identity,
             J_regressor=identity, kintree_table=np.array([PARENTS, range(len(PARENTS))]), num_betas=10,
             model_name="benchmark", not_smplx=True)


def clip_messages(clip: MultiviewClip, body_path: Path, start_ns: int = START_NS) -> list[ClipMessage]:
    """All messages of all cameras, by stamp; frames in which a camera sees nobody are messages without bodies.

    Args:
        clip: Detections; each camera tracks its own, as a reconstructor does.
        body_path: From `write_body`.
        start_ns: Stamp of time 0.
    """
    model = load_body_model(body_path)
    views, frames = len(clip.T_world_camera_given), clip.truth.shape[1]
    tracks = _tracks(clip, views, frames)
    camera = PinholeCamera(*IMAGE_SIZE, float(clip.K[0, 0]), float(clip.K[1, 1]), float(clip.K[0, 2]),
                           float(clip.K[1, 2]))
    messages = []
    for v, name in enumerate(camera_names(clip)):
        mine = np.flatnonzero(clip.view == v)
        bodies = _bodies(clip, mine, tracks[mine], model)
        by_frame: dict[int, list[int]] = {}
        for i in range(len(mine)):
            by_frame.setdefault(int(clip.frame[mine[i]]), []).append(i)
        usual = float(np.median(clip.stamp_s[mine] - clip.frame[mine] / 30.0)) if len(mine) else 0.0
        last = max(by_frame, default=-1) if clip.truth.shape[0] else frames - 1
        for k in range(last + 1):
            here = by_frame.get(k, [])
            stamp_s = float(clip.stamp_s[mine[here[0]]]) if here else k / 30.0 + usual
            stamp_ns = start_ns + round(1e9 * stamp_s)
            estimate = SceneEstimate(
                stamp_ns, 0, clip.T_world_camera_given[v], camera, True, camera.resized(4, 3),
                np.full((3, 4, 3), np.nan, np.float32), np.ones((3, 4), np.float32), np.zeros((3, 4, 3), np.uint8),
                np.zeros((3, 4), np.uint8), tuple(bodies[i] for i in here), TrackingStatus.OK, 1.0,
                ScaleSource.NETWORK, WorldSource.TF, {})
            fields = message_fields.body_array_fields(
                estimate, BodyDescription(body_model=model.name), camera_frame=f"{name}_optical", camera_name=name,
                sequence=k, world_frame=WORLD_FRAME)
            messages.append(ClipMessage(stamp_ns, name, mine[here], tuple(f["track_id"] for f in fields["bodies"]),
                                        fields))
    return sorted(messages, key=lambda m: m.stamp_ns)


def _tracks(clip: MultiviewClip, views: int, frames: int) -> NDArray[np.int64]:
    """(N,) track of every detection in its camera, by the library's own tracker."""
    trackers, tracks = ViewTrackers(views), np.zeros(len(clip.view), np.int64)
    bounds = np.searchsorted(clip.frame, np.arange(frames + 1))
    for k in range(frames):
        rows = slice(bounds[k], bounds[k + 1])
        if bounds[k + 1] > bounds[k]:
            tracks[rows] = trackers.step(clip.view[rows].astype(np.int64), clip.stamp_s[rows], clip.head_camera[rows],
                                         clip.token[rows])
    return tracks


def _bodies(clip: MultiviewClip, rows: NDArray[np.int64], tracks: NDArray[np.int64],
            model: BodyModel) -> list[BodyEstimate]:
    parameters = [BodyParameters(
        global_orient=clip.pose[i, 0].astype(np.float32), body_pose=clip.pose[i, 1:BODY_JOINTS].astype(
            np.float32).reshape(-1), betas=clip.betas[i].astype(np.float32), expression=np.zeros(0, np.float32))
        for i in rows]
    joints = joints_of_people(model, parameters)
    bodies = []
    for i, track, p, at in zip(rows, tracks, parameters, joints, strict=True):
        transl = (clip.head_camera[i] - at[HEAD]).astype(np.float32)
        bodies.append(BodyEstimate(
            track_id=int(track), track_state=TrackState.CONFIRMED, track_age=1, time_since_update_s=0.0,
            score=float(clip.score[i]), parameters=dataclasses.replace(p, transl=transl), joints_camera=at + transl,
            head_uv_px=np.zeros(2, np.float32), bbox_px=np.full(4, np.nan, np.float32)))
    return bodies
