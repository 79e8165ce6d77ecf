"""A small scene with exact truth and a perfect (or spoiled) estimate of it, for evaluation and viewer tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.model import BodyModel, joints, load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import ROT_WORLD_LEVEL_CAMERA, invert, make_transform
from human_scene_ros.scene import (
    BodyEstimate,
    ScaleSource,
    SceneEstimate,
    TrackingStatus,
    TrackState,
    WorldSource,
)
from human_scene_ros.sources.message_fields import FrameTruth, TruePerson

IMAGE_CAMERA = PinholeCamera(320, 240, 280.0, 280.0, 159.5, 119.5)
DENSE_CAMERA = IMAGE_CAMERA.resized(160, 120)


def camera_pose(k: int) -> NDArray[np.float64]:
    """A level camera 1.4 m above the floor that walks forward and swings a little."""
    angle = 0.15 * np.sin(0.3 * k)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return make_transform(turn @ ROT_WORLD_LEVEL_CAMERA, np.array([0.04 * k, 0.3 * np.sin(0.2 * k), 1.4]))


def standing_person(model: BodyModel, x_m: float, z_m: float, arm_rad: float) -> BodyParameters:
    """A person facing the camera of frame 0, feet on the floor, arms lowered by `arm_rad`."""
    pose = np.zeros((21, 3), np.float32)
    pose[15, 2], pose[16, 2] = -arm_rad, arm_rad  # the shoulders, joints 16 and 17
    return BodyParameters(global_orient=np.array([np.pi, 0.0, 0.0], np.float32), body_pose=pose.reshape(-1),
                          transl=np.array([x_m, 0.35, z_m], np.float32), betas=np.zeros(model.num_betas, np.float32))


def room_depth(camera: PinholeCamera, T_world_camera: NDArray[np.float64]) -> NDArray[np.float32]:
    """Depth along z of a floor at z = 0, a wall at x = 7 m and walls at y = -3 m and 3 m of the world."""
    rays_world = camera.rays().astype(np.float64) @ T_world_camera[:3, :3].T
    origin = T_world_camera[:3, 3]
    with np.errstate(divide="ignore"):
        hits = [np.where((t := (level - origin[axis]) / rays_world[..., axis]) > 0, t, np.inf)
                for axis, level in ((2, 0.0), (0, 7.0), (1, -3.0), (1, 3.0))]
    return np.min(hits, axis=0).astype(np.float32)


@functools.cache
def fake_frame(k: int = 0, people: int = 2, *, error_m: float = 0.0, calibrated: bool = True,
               ) -> tuple[NDArray[np.uint8], SceneEstimate, FrameTruth]:
    """Image, estimate and truth of frame k; `error_m` moves every estimated joint and the depth away.

    People stand still in the world, so that their camera coordinates change with the camera. Many tests share what
    this returns: its arrays cannot be written to.
    """
    model = load_body_model()
    T_world_camera = camera_pose(k)
    T_camera_first = invert(T_world_camera) @ camera_pose(0)
    depth_m = room_depth(IMAGE_CAMERA, T_world_camera)
    row, column = np.mgrid[0:240, 0:320]
    shade = np.clip(230 - 22 * depth_m, 40, 255)
    image = np.stack([shade, shade * 0.96, shade * 0.9], axis=-1).astype(np.uint8)
    bodies, truth = [], []
    mask = np.zeros((240, 320), bool)
    for i in range(people):
        parameters = standing_person(model, (-0.9, 0.7, 1.6, -1.8)[i], (3.0, 4.2, 5.5, 6.0)[i], (1.2, 0.4, 0.9, 1.0)[i])
        joints_first = joints(model, parameters)
        joints_camera = (joints_first @ T_camera_first[:3, :3].T + T_camera_first[:3, 3]).astype(np.float32)
        in_camera = dataclasses.replace(parameters, **_in_camera(model, parameters, T_camera_first))
        uv = IMAGE_CAMERA.project(joints_camera)
        low, high = uv.min(axis=0), uv.max(axis=0)
        box = np.array([low[0], low[1], high[0] - low[0], high[1] - low[1]], np.float32)
        inside = (abs(column - uv[:22, 0].mean()) < 0.25 * box[2]) & (row > low[1]) & (row < high[1])
        mask[inside], depth_m[inside] = True, joints_camera[0, 2]
        image[inside] = ((70, 100, 160), (150, 80, 70), (80, 130, 80), (120, 90, 140))[i]
        head_visible = bool(0 <= uv[15, 0] < 320 and 0 <= uv[15, 1] < 240)
        truth.append(TruePerson(i, in_camera, joints_camera, head_visible, 1.0, box))
        moved = joints_camera + np.float32(error_m) * np.array([0.0, 0.0, 1.0], np.float32)
        bodies.append(BodyEstimate(
            track_id=i + 1, track_state=TrackState.CONFIRMED, track_age=k + 1, time_since_update_s=0.0, score=0.9,
            parameters=in_camera, joints_camera=moved, head_uv_px=uv[15].astype(np.float32), bbox_px=box, height_m=1.7))
    dense_depth = depth_m[::2, ::2] + np.float32(error_m)
    camera = IMAGE_CAMERA if calibrated else PinholeCamera.from_fov(320, 240, 60.0)
    estimate = SceneEstimate(
        stamp_ns=k * 33_333_333, segment=0, T_world_camera=T_world_camera, camera=camera, calibrated=calibrated,
        dense_camera=camera.resized(160, 120), points_camera=DENSE_CAMERA.unproject_depth(dense_depth),
        confidence=np.full((120, 160), 3.0, np.float32), colors=image[::2, ::2], person=mask[::2, ::2],
        bodies=tuple(bodies), status=TrackingStatus.OK, scale=1.0, scale_source=ScaleSource.NETWORK,
        world_source=WorldSource.LEVEL_CAMERA, stage_ms={"network": 30.0})
    frame = image, estimate, FrameTruth(estimate.stamp_ns, IMAGE_CAMERA, T_world_camera, tuple(truth), depth_m)
    _freeze(frame)
    return frame


def _freeze(value: Any) -> None:
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, tuple):
        for part in value:
            _freeze(part)
    elif dataclasses.is_dataclass(value):
        _freeze(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))


def _in_camera(model: BodyModel, parameters: BodyParameters, T_camera_first: NDArray[np.float64]) -> dict[str, object]:
    """`global_orient` and `transl` of the same body after a rigid motion (it turns about the pelvis)."""
    from scipy.spatial.transform import Rotation

    pelvis = joints(model, parameters)[0]
    rest = pelvis - parameters.transl
    turned = Rotation.from_matrix(T_camera_first[:3, :3]) * Rotation.from_rotvec(parameters.global_orient)
    return {"global_orient": turned.as_rotvec().astype(np.float32),
            "transl": (T_camera_first[:3, :3] @ pelvis + T_camera_first[:3, 3] - rest).astype(np.float32)}
