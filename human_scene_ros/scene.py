"""The types that flow between the layers: one camera frame in, one scene estimate out."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.scale import ScaleEstimate
from human_scene_ros.geometry.camera import PinholeCamera


class TrackState(enum.IntEnum):
    """Life of a track; values equal the TRACK_* constants of SmplxBody.msg."""

    TENTATIVE = 0
    CONFIRMED = 1
    PREDICTED = 2
    LOST = 3


class TrackingStatus(enum.IntEnum):
    """Camera tracking; values equal the STATUS_* constants of SmplxBodyArray.msg."""

    OK = 0
    LOW_TEXTURE = 2
    LOST = 3


class WorldSource(enum.IntEnum):
    """Where "up" of the world comes from; values equal the WORLD_* constants of SceneStatus.msg."""

    TF = 0
    IMU = 1
    FLOOR = 2
    LEVEL_CAMERA = 3
    FILE = 4
    PEOPLE = 5
    CAMERAS = 6


class ScaleSource(enum.IntEnum):
    """Where metric scale comes from; values equal the SCALE_* constants of SceneStatus.msg."""

    NETWORK = 0
    BODY_HEIGHT = 1
    DEPTH = 2
    ODOMETRY = 3
    EXTRINSICS = 4


@dataclasses.dataclass(frozen=True)
class PoseHint:
    """Where something other than this camera's images says the camera is: wheels, an inertial unit, a network.

    Args:
        T_hint_camera: (4, 4) pose of the optical frame in any frame that does not jump (REP-105: odom). Only its change
            from image to image is used.
        rotation_noise: Standard deviation of that change, radians.
        translation_noise_m: The same, metres.
    """

    T_hint_camera: NDArray[np.float64]
    rotation_noise: float = 0.01
    translation_noise_m: float = 0.02


@dataclasses.dataclass(frozen=True)
class CameraFrame:
    """One image of one camera, lens distortion removed.

    Args:
        stamp_ns: Acquisition time.
        image: (H, W, 3) uint8 RGB.
        camera_frame: Name of the optical frame (`header.frame_id`), "" if there is none.
        camera: Intrinsics of exactly this image, None when the camera is not calibrated.
        depth_m: (H, W) float32 metres along z from a depth sensor registered to the image; None without.
        pose_hint: Expected camera motion, helps the odometry; None without.
    """

    stamp_ns: int
    image: NDArray[np.uint8]
    camera_frame: str = ""
    camera: PinholeCamera | None = None
    depth_m: NDArray[np.float32] | None = None
    pose_hint: PoseHint | None = None


@dataclasses.dataclass(frozen=True)
class BodyEstimate:
    """One person seen by one camera at one stamp. All points are in the camera (optical) frame, metres.

    Args:
        track_id: Number of the track in this camera; never reused within a run.
        track_state: See `TrackState`.
        track_age: Frames since the track began.
        time_since_update_s: 0 for a person seen in this frame.
        score: Detection confidence in [0, 1].
        parameters: SMPL-X-layout parameters; `transl` is SMPL-X's own (neither pelvis nor head).
        joints_camera: (55, 3) in SMPL-X joint order.
        head_uv_px: (2,) head joint in pixels of the input image.
        bbox_px: (4,) x, y, width, height around the projected body in the input image, clipped to it.
        height_m: Standing height that the betas imply; NaN when unknown.
        velocity_world: (3,) m/s of the pelvis in the world frame; NaN when unknown.
    """

    track_id: int
    track_state: TrackState
    track_age: int
    time_since_update_s: float
    score: float
    parameters: BodyParameters
    joints_camera: NDArray[np.float32]
    head_uv_px: NDArray[np.float32]
    bbox_px: NDArray[np.float32]
    height_m: float = float("nan")
    velocity_world: NDArray[np.float32] = dataclasses.field(
        default_factory=lambda: np.full(3, np.nan, np.float32))


@dataclasses.dataclass(frozen=True)
class SceneEstimate:
    """What one step of the stream knows. Dense arrays are at network resolution (h, w).

    Args:
        stamp_ns: Stamp of the input frame.
        segment: Rises by one at each reset; never difference across two segments.
        T_world_camera: (4, 4) pose of the optical frame in the z-up world.
        camera: Pinhole intrinsics of the input image that the numbers below assume.
        calibrated: True if `camera` came from CameraInfo, False if the focal length is a guess.
        dense_camera: Intrinsics of the (h, w) maps.
        points_camera: (h, w, 3) float32 pointmap, metres; NaN where there is no estimate.
        confidence: (h, w) float32 pointmap confidence, >= 1.
        colors: (h, w, 3) uint8 RGB of the same pixels.
        person: (h, w) bool, True on people.
        bodies: People, by falling score.
        status: Camera tracking.
        scale: Metric factor applied to the network's geometry.
        scale_source: Where it came from.
        world_source: Where "up" came from.
        stage_ms: Duration of each stage of the step, milliseconds.
        scale_by_people: The factor on `scale` that the people in the scene still ask for; None where nobody asked.
        scale_problem: What is wrong with the scale by that factor, to be read by people; "" = nothing known.
    """

    stamp_ns: int
    segment: int
    T_world_camera: NDArray[np.float64]
    camera: PinholeCamera
    calibrated: bool
    dense_camera: PinholeCamera
    points_camera: NDArray[np.float32]
    confidence: NDArray[np.float32]
    colors: NDArray[np.uint8]
    person: NDArray[np.bool_]
    bodies: tuple[BodyEstimate, ...]
    status: TrackingStatus
    scale: float
    scale_source: ScaleSource
    world_source: WorldSource
    stage_ms: dict[str, float]
    scale_by_people: ScaleEstimate | None = None
    scale_problem: str = ""
