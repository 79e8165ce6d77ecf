"""What our messages say, as plain nested dicts: the one definition for live nodes and for recordings.

A message is a dict from field name to value. A nested message is a dict, a list of messages a list of
dicts, an array of numbers a flat contiguous numpy array of exactly the field's type, a stamp
`{"sec", "nanosec"}`. Every field of the message is present. `nodes/convert.py` fills ROS messages from
these dicts, `bag_writer` writes them; quaternions are x, y, z, w and times are split here and nowhere else.

Functions named `..._fields` return the dict of the message whose type is the constant beside them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.convert import ROT_SMPLX_BODY
from human_scene_ros.body.model import BodyModel
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import MessageError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform, matrix_from_quat_wxyz, quat_wxyz_from_matrix
from human_scene_ros.scene import BodyEstimate, SceneEstimate
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.people_mask import people_mask_of
from human_scene_ros.sources.semantic_points import semantic_columns

Fields = dict[str, Any]

BODY_ARRAY = "human_scene_ros/msg/SmplxBodyArray"
SCENE_STATUS = "human_scene_ros/msg/SceneStatus"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
POSE_WITH_COVARIANCE_STAMPED = "geometry_msgs/msg/PoseWithCovarianceStamped"
PATH = "nav_msgs/msg/Path"
ODOMETRY = "nav_msgs/msg/Odometry"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"

MODEL_SMPLX, MODEL_SMPL, MODEL_OPEN = 0, 1, 3
GENDERS = ("neutral", "female", "male")
"""`gender` of SmplxBody is the index."""

VALID_BODY, VALID_LEFT_HAND, VALID_RIGHT_HAND, VALID_JAW, VALID_EYES, VALID_EXPRESSION, VALID_SHAPE = (
    1, 2, 4, 8, 16, 32, 64)
JOINT_VISIBLE, JOINT_OCCLUDED, JOINT_OUT_OF_IMAGE = 1, 2, 4
JOINT_COUNTS = {0: 0, 1: 22, 2: 55, 3: 127}
"""`joint_set` of SmplxBody -> number of joints."""

LABEL_STATIC, LABEL_GROUND, LABEL_PERSON = 0, 1, 100
"""Values of a cloud's `label`; body i has LABEL_PERSON + i."""

_POINT_TYPES = {"<f4": 7, "<i4": 5, "<u2": 4}
_SEMANTIC_BYTES = 20  # what `semantic_columns` add to a point
# An occluder must be this much nearer than the joint: joints lie inside the body, not on its skin.
_OCCLUSION_MARGIN_M = 0.35


# --- time, poses, transforms -------------------------------------------------------------------------------------

def time_fields(stamp_ns: int) -> Fields:
    """builtin_interfaces/Time. Raises `MessageError` for times that its 32-bit seconds cannot hold."""
    sec, nanosec = divmod(int(stamp_ns), 1_000_000_000)
    if not -(2**31) <= sec < 2**31:
        raise MessageError(f"stamp {stamp_ns} ns is {sec} s; a ROS time holds seconds from -2^31 to 2^31 - 1")
    return {"sec": sec, "nanosec": nanosec}


def stamp_ns_of(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time (any object with `sec` and `nanosec`)."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header_fields(stamp_ns: int, frame_id: str) -> Fields:
    """std_msgs/Header."""
    return {"stamp": time_fields(stamp_ns), "frame_id": frame_id}


def pose_fields(T_frame_body: NDArray[np.floating]) -> Fields:
    """geometry_msgs/Pose of a (4, 4) transform."""
    _check_finite("pose", T_frame_body)
    t_frame_body = T_frame_body[:3, 3]
    return {"position": _xyz(t_frame_body), "orientation": _quat_xyzw(T_frame_body[:3, :3])}


def pose_with_covariance_fields(T_frame_body: NDArray[np.floating] | None,
                                covariance: NDArray[np.floating] | None = None) -> Fields:
    """geometry_msgs/PoseWithCovariance.

    Args:
        T_frame_body: (4, 4); None = not estimated: identity with covariance[0] = -1 (the idiom of REP-145).
        covariance: (6, 6) of x, y, z, rotX, rotY, rotZ; None = unknown, all 0.
    """
    values = np.zeros(36) if covariance is None else _flat("covariance", covariance, np.float64, 36)
    if T_frame_body is None:
        values = _not_reported()
        T_frame_body = np.eye(4)
    return {"pose": pose_fields(T_frame_body), "covariance": values}


def pose_with_covariance_stamped_fields(stamp_ns: int, frame_id: str, T_frame_body: NDArray[np.floating],
                                        covariance: NDArray[np.floating] | None = None) -> Fields:
    """`POSE_WITH_COVARIANCE_STAMPED`; for `~/camera_pose` the body is the optical frame, the frame the world."""
    return {"header": header_fields(stamp_ns, frame_id),
            "pose": pose_with_covariance_fields(T_frame_body, covariance)}


def path_fields(stamp_ns: int, frame_id: str, poses: Iterable[tuple[int, NDArray[np.floating]]]) -> Fields:
    """`PATH` from (stamp_ns, (4, 4) T_frame_camera) pairs."""
    return {"header": header_fields(stamp_ns, frame_id),
            "poses": [{"header": header_fields(t, frame_id), "pose": pose_fields(T)} for t, T in poses]}


def odometry_fields(stamp_ns: int, odom_frame: str, base_frame: str, T_odom_base: NDArray[np.floating],
                    linear_base: NDArray[np.floating] | None = None,
                    angular_base: NDArray[np.floating] | None = None) -> Fields:
    """`ODOMETRY`; velocities (3,) m/s and rad/s along the axes of the base, None = not reported."""
    known = linear_base is not None and angular_base is not None
    return {"header": header_fields(stamp_ns, odom_frame), "child_frame_id": base_frame,
            "pose": pose_with_covariance_fields(T_odom_base),
            "twist": _twist(linear_base if known else None, angular_base if known else None)}


def transforms_fields(transforms: Iterable[tuple[int, str, str, NDArray[np.floating]]]) -> Fields:
    """`TF_MESSAGE` from (stamp_ns, parent frame, child frame, (4, 4) T_parent_child)."""
    return {"transforms": [_transform(*values) for values in transforms]}


def matrix_of_pose(pose: Any) -> NDArray[np.float64]:
    """(4, 4) of a geometry_msgs/Pose or geometry_msgs/Transform (any object with their fields)."""
    t = pose.position if hasattr(pose, "position") else pose.translation
    q = pose.orientation if hasattr(pose, "orientation") else pose.rotation
    if not 1e-6 <= math.hypot(q.x, q.y, q.z, q.w) < math.inf:  # NaN fails too
        raise MessageError(f"quaternion (x, y, z, w) = {[q.x, q.y, q.z, q.w]} is no rotation")
    return make_transform(matrix_from_quat_wxyz((q.w, q.x, q.y, q.z)), np.array([t.x, t.y, t.z], np.float64))


# --- images and cameras ------------------------------------------------------------------------------------------

def image_fields(stamp_ns: int, frame_id: str, image: NDArray[Any], encoding: str) -> Fields:
    """`IMAGE` of an (H, W) or (H, W, C) array whose dtype and channels are those of `encoding`."""
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image)
    return {"header": header_fields(stamp_ns, frame_id), "height": height, "width": width, "encoding": encoding,
            "is_bigendian": 0, "step": data.nbytes // max(height, 1), "data": data.reshape(-1).view(np.uint8)}


def depth_image_fields(stamp_ns: int, frame_id: str, depth_m: NDArray[np.floating]) -> Fields:
    """`IMAGE` of REP-118: 32FC1 metres along z, NaN where there is no reading (0 or not finite in `depth_m`)."""
    depth = np.asarray(depth_m, np.float32)
    valid = np.isfinite(depth) & (depth > 0.0)
    return image_fields(stamp_ns, frame_id, np.where(valid, depth, np.float32(np.nan)), "32FC1")


def compressed_image_fields(stamp_ns: int, frame_id: str, data: bytes, format_text: str = "jpeg") -> Fields:
    """`COMPRESSED_IMAGE` of bytes that are compressed already."""
    return {"header": header_fields(stamp_ns, frame_id), "format": format_text,
            "data": np.frombuffer(data, np.uint8)}


def camera_info_fields(stamp_ns: int, frame_id: str, camera: PinholeCamera | Calibration) -> Fields:
    """`CAMERA_INFO`: P = [K | 0]; plumb_bob with five zeros for an image without distortion."""
    model, distortion = "plumb_bob", np.zeros(5)
    if isinstance(camera, Calibration):
        if camera.distortion:
            model, distortion = camera.model, np.array(camera.distortion, np.float64)
        camera = camera.camera
    K = camera.K
    return {"header": header_fields(stamp_ns, frame_id), "height": camera.height, "width": camera.width,
            "distortion_model": model, "d": distortion, "k": K.reshape(-1), "r": np.eye(3).reshape(-1),
            "p": np.hstack([K, np.zeros((3, 1))]).reshape(-1), "binning_x": 0, "binning_y": 0,
            "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}}


def stride_for(height: int, width: int, bytes_per_pixel: int, max_bytes: int) -> int:
    """Smallest step through rows and columns with which a dense map fits into `max_bytes`."""
    stride = 1
    while -(-height // stride) * -(-width // stride) * bytes_per_pixel > max_bytes and stride < max(height, width):
        stride += 1
    return stride


def strided_camera(camera: PinholeCamera, stride: int) -> PinholeCamera:
    """Intrinsics of `image[::stride, ::stride]`: pixel (i, j) of it is pixel (i * stride, j * stride)."""
    return PinholeCamera(-(-camera.width // stride), -(-camera.height // stride), camera.fx / stride,
                         camera.fy / stride, camera.cx / stride, camera.cy / stride)


# --- point clouds ------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class CloudOptions:
    """Which points of an estimate go into a cloud.

    Args:
        max_bytes: Upper limit of the message's data; rows and columns are strided to fit.
        people: Points on people: "keep", "remove" or "only" those.
        min_confidence: Points below are left out.
        max_range_m: Points farther along z are left out.
        organized: Keep the image grid with NaN instead of leaving points out.
        confidence: Add the field `confidence`.
        label: Add the field `label` (see LABEL_*).
    """

    max_bytes: int = 450_000
    people: Literal["keep", "remove", "only"] = "remove"
    min_confidence: float = 1.0
    max_range_m: float = 10.0
    organized: bool = False
    confidence: bool = False
    label: bool = False


def point_cloud_fields(stamp_ns: int, frame_id: str, points: NDArray[np.floating], colors: NDArray[np.uint8] | None,
                       columns: Mapping[str, NDArray] | None = None) -> Fields:
    """`POINT_CLOUD`: x, y, z at 0, 4, 8 and packed rgb at 12, then the columns, four bytes each.

    Args:
        stamp_ns: Acquisition time.
        frame_id: Frame of the points.
        points: (N, 3) metres, or (H, W, 3) for an organized cloud, NaN = no point.
        colors: The same shape, RGB; None = white.
        columns: Further fields by name, (N,) or (H, W), float32, int32 or uint16.

    Raises:
        MessageError: Shapes do not belong together, or a column has another type.
    """
    columns = columns or {}
    if points.ndim not in (2, 3) or points.shape[-1] != 3:
        raise MessageError(f"points has shape {points.shape}; expected (N, 3) or (H, W, 3)")
    shape = points.shape[:-1]
    for name, array, expected in (("colors", colors, points.shape), *((n, c, shape) for n, c in columns.items())):
        if array is not None and array.shape != expected:
            raise MessageError(f"{name} has shape {array.shape}; points of shape {points.shape} need {expected}")
    types = {name: column.dtype.newbyteorder("<").str for name, column in columns.items()}
    if unknown := {name: kind for name, kind in types.items() if kind not in _POINT_TYPES}:
        raise MessageError(f"columns {unknown} have types that no cloud here holds; expected {list(_POINT_TYPES)}")
    point_step = 16 + 4 * len(columns)
    # Words and bytes of one buffer; a structured array with named fields copies each field three times slower.
    words = np.empty((*shape, point_step // 4), np.float32)
    octets = words.view(np.uint8).reshape(*shape, point_step)
    for axis in range(3):  # a whole column at a time is faster than rows of three
        words[..., axis] = points[..., axis]
    if colors is None:
        octets[..., 12:15] = 255
    else:
        octets[..., 14], octets[..., 13], octets[..., 12] = colors[..., 0], colors[..., 1], colors[..., 2]
    octets[..., 15] = 0
    for i, (name, column) in enumerate(columns.items()):
        words.view("<u4" if types[name] == "<u2" else types[name])[..., 4 + i] = column
    height, width = shape if len(shape) == 2 else (1, shape[0])
    fields = [(name, 4 * i, 7, 1) for i, name in enumerate(("x", "y", "z", "rgb"))]
    fields += [(name, 16 + 4 * i, _POINT_TYPES[kind], 1) for i, (name, kind) in enumerate(types.items())]
    return {"header": header_fields(stamp_ns, frame_id), "height": height, "width": width,
            "fields": [{"name": n, "offset": o, "datatype": t, "count": c} for n, o, t, c in fields],
            "is_bigendian": False, "point_step": point_step, "row_step": point_step * width,
            "data": octets.reshape(-1), "is_dense": len(shape) == 1}


def points_of_cloud(cloud: Any) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(N, 3) finite points of a PointCloud2 in its own frame, and their (N, 3) RGB, white where there is none.

    Raises:
        MessageError: x, y, z are missing or no float32, or the data is shorter than it says.
    """
    offsets = {f.name: int(f.offset) for f in cloud.fields if int(f.datatype) == 7 or f.name == "rgb"}
    count, step = int(cloud.width) * int(cloud.height), int(cloud.point_step)
    if not {"x", "y", "z"} <= set(offsets) or cloud.is_bigendian:
        raise MessageError(f"cloud has the fields {[f.name for f in cloud.fields]}; expected little-endian float32 x, "
                           "y, z")
    data = np.frombuffer(bytes(cloud.data), np.uint8)
    if len(data) < count * step:
        raise MessageError(f"cloud has {len(data)} bytes; expected {count} points of {step} bytes")
    rows = data[:count * step].reshape(count, step)

    def column(name: str) -> NDArray[np.uint8]:
        return np.ascontiguousarray(rows[:, offsets[name]:offsets[name] + 4])

    points = np.column_stack([column(axis).view(np.float32)[:, 0] for axis in "xyz"])
    colors = column("rgb")[:, 2::-1] if "rgb" in offsets else np.full((count, 3), 255, np.uint8)
    known = np.isfinite(points).all(axis=1)
    return points[known], colors[known].copy()


def scene_cloud_fields(estimate: SceneEstimate, frame_id: str, options: CloudOptions,
                       body_model: BodyModel | None = None) -> Fields:
    """`POINT_CLOUD` of one estimate in its camera frame, thinned to the byte budget.

    Args:
        estimate: Whose points.
        frame_id: Its camera frame.
        options: Which of them.
        body_model: Adds the fields of `semantic_columns`, `confidence` then being theirs; None = without them.
    """
    height, width = estimate.confidence.shape
    semantic_bytes = 0 if body_model is None else _SEMANTIC_BYTES
    stride = stride_for(height, width, 16 + 4 * (options.confidence + options.label) + semantic_bytes,
                        options.max_bytes)
    points = estimate.points_camera[::stride, ::stride]
    colors = estimate.colors[::stride, ::stride]
    person = estimate.person[::stride, ::stride]
    columns: dict[str, NDArray] = {"confidence": estimate.confidence[::stride, ::stride]}
    x, y, z = (points[..., i] for i in range(3))
    with np.errstate(invalid="ignore"):
        keep = (columns["confidence"] >= options.min_confidence) & (z <= options.max_range_m) & np.isfinite(x + y + z)
    if options.people != "keep":
        keep &= person == (options.people == "only")
    if not options.confidence:
        columns.clear()
    if options.label:
        people = people_mask_of(estimate)[::stride, ::stride].astype(np.uint16)
        columns["label"] = np.where(person, LABEL_PERSON - 1 + people, LABEL_STATIC).astype(np.uint16)
    if options.organized:
        points = np.where(keep[..., None], points, np.float32(np.nan))
    else:
        # By number, not by mask: numpy is seven times faster at taking rows of three.
        chosen = np.flatnonzero(keep)
        points, colors = points.reshape(-1, 3).take(chosen, axis=0), colors.reshape(-1, 3).take(chosen, axis=0)
        person, columns = person[keep], {name: column[keep] for name, column in columns.items()}
    if body_model is not None:
        semantic = semantic_columns(estimate, body_model, points.reshape(-1, 3), person.reshape(-1))
        columns |= {name: column.reshape(person.shape) for name, column in semantic.items()}
    return point_cloud_fields(estimate.stamp_ns, frame_id, points, colors, columns)


# --- people ------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class BodyDescription:
    """What the numbers of every body of a run mean.

    Args:
        body_model: Name of the body model file.
        is_smplx: True if that file is an official SMPL-X file, so that betas are SMPL-X betas.
        valid_parts: Bits VALID_* of the parts that the network estimates.
        joint_set: Key of `JOINT_COUNTS`; joints beyond the 55 do not exist here.
        id_prefix: Start of every track id.
    """

    body_model: str = "open_body"
    is_smplx: bool = False
    valid_parts: int = VALID_BODY | VALID_SHAPE
    joint_set: int = 2
    id_prefix: str = "b"

    def __post_init__(self) -> None:
        if self.joint_set not in (0, 1, 2):
            raise MessageError(f"joint_set = {self.joint_set}: expected 0 (none), 1 (22 joints) or 2 (55 joints)")
        if not self.id_prefix[:1].isalpha():
            raise MessageError(f"track id prefix '{self.id_prefix}': must start with a letter, for ids are used in "
                               "frame and topic names")


def smplx_body_fields(body: BodyEstimate, joint_uv_px: NDArray[np.floating] | None, description: BodyDescription,
                      rot_camera_world: NDArray[np.floating], joint_flags: NDArray[np.uint8] | None = None,
                      person_id: str = "") -> Fields:
    """human_scene_ros/SmplxBody, in the camera frame (or in the world, for a person of several cameras).

    Args:
        body: The person; parameters and joints are in that frame.
        joint_uv_px: (55, 2) where the joints are seen; None = there is no such image.
        description: See there.
        rot_camera_world: (3, 3), turns the world velocity into the camera's axes.
        joint_flags: (55,) bits JOINT_*; None = not available.
        person_id: Identity over cameras, "" until a fusion sets it.

    Raises:
        MessageError: A length is wrong or a value that must be known is NaN.
    """
    count = JOINT_COUNTS[description.joint_set]
    joints = np.asarray(body.joints_camera, np.float32)
    if joints.shape != (55, 3):
        raise MessageError(f"joints_camera has shape {joints.shape}; expected (55, 3)")
    _check_finite("joints_camera", joints)
    p = body.parameters
    for name, values, limit in (("betas", p.betas, 300), ("expression", p.expression, 100)):
        if len(values) > limit:
            raise MessageError(f"{name} has {len(values)} values; the message holds at most {limit}")
    # cv2.Rodrigues: scipy's conversions of single rotations cost ten times as much.
    rot_camera_pelvis = cv2.Rodrigues(np.asarray(p.global_orient, np.float64))[0] @ ROT_SMPLX_BODY
    flags = np.zeros(0, np.uint8) if joint_flags is None else _flat("joint_flags", joint_flags, np.uint8, 55)
    known_velocity = bool(np.isfinite(body.velocity_world).all())
    return {
        "track_id": f"{description.id_prefix}{body.track_id:04d}", "person_id": person_id,
        "track_state": int(body.track_state), "track_age": int(body.track_age),
        "time_since_update": float(body.time_since_update_s), "score": float(body.score),
        "occlusion": 1.0 - np.count_nonzero(flags & JOINT_VISIBLE) / flags.size if flags.size else float("nan"),
        "pelvis": pose_with_covariance_fields(make_transform(rot_camera_pelvis, joints[0])),
        "velocity": _twist(rot_camera_world @ body.velocity_world if known_velocity else None, None),
        "model_type": MODEL_SMPLX if description.is_smplx else MODEL_OPEN, "body_model": description.body_model,
        "gender": 0, "valid_parts": description.valid_parts,
        **_parameter_fields(p),
        "height": float(body.height_m), "joint_set": description.joint_set,
        "joints": joints[:count].reshape(-1).copy(),
        "joint_confidence": np.zeros(0, np.float32), "joint_covariance": np.zeros(0, np.float32),
        "joint_uv": np.zeros(0, np.float32) if joint_uv_px is None else
        joint_uv_px[:count].astype(np.float32).reshape(-1),
        "joint_flags": flags[:count].copy(),
        "bbox": _flat("bbox_px", body.bbox_px, np.float32, 4, finite=False),
    }


def body_array_fields(estimate: SceneEstimate, description: BodyDescription, *, camera_frame: str, camera_name: str,
                      sequence: int, world_frame: str, latency_s: float = float("nan"),
                      scale_stddev: float = float("nan")) -> Fields:
    """`BODY_ARRAY` of one estimate; an estimate without people gives an empty `bodies`.

    Raises:
        MessageError: See `smplx_body_fields`.
    """
    rot_camera_world = estimate.T_world_camera[:3, :3].T
    joint_uv_px, flags = joints_in_view(estimate)
    return _body_array(
        estimate.stamp_ns, camera_frame, camera_name, sequence, estimate.segment, int(estimate.status),
        estimate.calibrated, world_frame, estimate.T_world_camera, estimate.scale, scale_stddev, estimate.camera,
        latency_s, [smplx_body_fields(body, joint_uv_px[i], description, rot_camera_world, flags[i])
                    for i, body in enumerate(estimate.bodies)])


def joints_in_view(estimate: SceneEstimate) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    """(people, 55, 2) where the joints are seen, px, NaN behind the camera, and (people, 55) bits JOINT_*: outside the
    image, hidden by a nearer surface of the pointmap, else visible."""
    if not estimate.bodies:
        return np.zeros((0, 55, 2)), np.zeros((0, 55), np.uint8)
    joints = np.stack([body.joints_camera for body in estimate.bodies]).astype(np.float64)
    uv, camera = estimate.camera.project(joints), estimate.camera
    with np.errstate(invalid="ignore"):
        inside = ((uv >= -0.5) & (uv < [camera.width - 0.5, camera.height - 0.5])).all(axis=-1)
    dense_uv = np.nan_to_num(estimate.dense_camera.project(joints))
    height, width = estimate.confidence.shape
    column = np.clip(np.rint(dense_uv[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(dense_uv[..., 1]), 0, height - 1).astype(int)
    surface_z = estimate.points_camera[row, column, 2]
    with np.errstate(invalid="ignore"):
        hidden = surface_z < joints[..., 2] - _OCCLUSION_MARGIN_M
    flags = np.where(hidden, JOINT_OCCLUDED, JOINT_VISIBLE)
    return uv, np.where(inside, flags, JOINT_OUT_OF_IMAGE).astype(np.uint8)


# --- status ------------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class StatusReport:
    """Content of SceneStatus.msg, whose comments say what each value means; NaN = nothing measured yet."""

    state: int = 0
    segment: int = 0
    scale_source: int = 0
    scale: float = 1.0
    world_source: int = 3
    weights: str = ""
    frames_in: int = 0
    frames_processed: int = 0
    frames_dropped: int = 0
    frames_rejected: int = 0
    frames_pending: int = 0
    sync_partial: int = 0
    sync_timeouts: int = 0
    map_points: int = 0
    people: int = 0
    input_rate: float = 0.0
    output_rate: float = 0.0
    latency_mean: float = float("nan")
    latency_p95: float = float("nan")
    inference_mean: float = float("nan")
    gpu_memory: float = 0.0
    message: str = ""


def scene_status_fields(stamp_ns: int, world_frame: str, report: StatusReport) -> Fields:
    """`SCENE_STATUS`."""
    return {"header": header_fields(stamp_ns, world_frame), **dataclasses.asdict(report)}


# --- truth of recordings -----------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class TruePerson:
    """One person of a recording with truth; the same attributes as a synthetic world's person.

    Args:
        person_id: Number that stays with the person.
        parameters: In the camera frame; what betas mean follows from `model_type`.
        joints_camera: (55, 3) metres, or (127, 3) with the landmarks of SMPL-X; NaN for joints without truth.
        head_visible: The head is inside the image and not hidden, as far as the truth tells.
        visible_fraction: Part of the body's pixels that can be seen, 0..1; NaN unknown.
        bbox_px: (4,) x, y, width, height in the image.
        model_type: MODEL_*. With MODEL_SMPL the first triplet of each hand pose is SMPL's hand joint (22, 23).
        body_model: Name of the model file that `parameters` belong to; "" without parameters.
        gender: Index into `GENDERS`.
        valid_parts: Bits VALID_* of the parameters that are truth; 0: only joints are known.
    """

    person_id: int
    parameters: BodyParameters
    joints_camera: NDArray[np.float32]
    head_visible: bool
    visible_fraction: float
    bbox_px: NDArray[np.float32]
    model_type: int = MODEL_OPEN
    body_model: str = "open_body"
    gender: int = 0
    valid_parts: int = VALID_BODY | VALID_SHAPE


@dataclasses.dataclass(frozen=True)
class FrameTruth:
    """The truth of one image.

    Args:
        stamp_ns: Stamp of the image.
        camera: Its intrinsics once lens distortion is removed.
        T_world_camera: (4, 4) pose of the optical frame in the world of the recording, z up where it says so.
        people: Everybody in view.
        depth_m: (H, W) metres along z, 0 = none; None where the recording has no depth.
        people_known: False: nobody has looked for people; `people` is empty and says nothing.
    """

    stamp_ns: int
    camera: PinholeCamera
    T_world_camera: NDArray[np.float64]
    people: tuple[TruePerson, ...]
    depth_m: NDArray[np.float32] | None = None
    people_known: bool = True

    @property
    def joints_camera(self) -> NDArray[np.float32]:
        """(people, 55, 3) metres, NaN where there is no truth."""
        if not self.people:
            return np.zeros((0, 55, 3), np.float32)
        return np.stack([person.joints_camera[:55] for person in self.people])


def truth_fields(truth: FrameTruth, *, camera_frame: str, world_frame: str, sequence: int,
                 camera_name: str = "truth") -> Fields:
    """`BODY_ARRAY` that holds a truth: score 1, confirmed, visibility of the head in its joint flag.

    Joints without truth are NaN, with confidence 0 and no flag.
    """
    rot_camera_world = truth.T_world_camera[:3, :3].T
    bodies = [_truth_body(person, truth.camera, rot_camera_world, sequence) for person in truth.people]
    return _body_array(truth.stamp_ns, camera_frame, camera_name, sequence, 0, 0, True, world_frame,
                       truth.T_world_camera, 1.0, 0.0, truth.camera, 0.0, bodies)


def _truth_body(person: TruePerson, camera: PinholeCamera, rot_camera_world: NDArray[np.floating],
                sequence: int) -> Fields:
    joints = np.asarray(person.joints_camera, np.float32)
    joint_set = next((key for key, count in JOINT_COUNTS.items() if joints.shape == (count, 3)), 0)
    if joint_set not in (2, 3):
        raise MessageError(f"truth joints_camera has shape {joints.shape}; expected (55, 3) or (127, 3)")
    known = np.asarray(np.isfinite(joints).all(axis=1))
    body = BodyEstimate(
        track_id=person.person_id, track_state=1, track_age=sequence, time_since_update_s=0.0, score=1.0,  # type: ignore[arg-type]
        parameters=person.parameters, joints_camera=np.where(known[:55, None], joints[:55], np.float32(0.0)),
        head_uv_px=np.zeros(2, np.float32), bbox_px=person.bbox_px)
    flags = np.where(known, JOINT_VISIBLE, 0).astype(np.uint8)
    if person.head_visible:
        flags[15] = JOINT_VISIBLE  # also where only the face is known, not the joint
    elif known[15]:
        flags[15] = JOINT_OCCLUDED
    description = BodyDescription(person.body_model, person.model_type == MODEL_SMPLX, person.valid_parts, 2, "p")
    uv_px = camera.project(joints.astype(np.float64))
    fields = smplx_body_fields(body, uv_px, description, rot_camera_world, flags[:55], f"p{person.person_id:04d}")
    fields |= {
        "occlusion": 1.0 - float(person.visible_fraction), "model_type": person.model_type, "gender": person.gender,
        "joint_set": joint_set, "joints": np.where(known[:, None], joints, np.float32(np.nan)).reshape(-1),
        "joint_uv": uv_px.astype(np.float32).reshape(-1), "joint_flags": flags,
        "joint_confidence": np.zeros(0, np.float32) if known.all() else known.astype(np.float32)}
    if not (known[0] and person.valid_parts & VALID_BODY):
        fields["pelvis"] = pose_with_covariance_fields(None)
    return fields


def truth_from_message(message: Any, depth_m: NDArray[np.float32] | None = None) -> FrameTruth:
    """The inverse of `truth_fields` from a SmplxBodyArray (any object with its fields)."""
    camera = PinholeCamera(int(message.width), int(message.height), *(float(v) for v in message.intrinsics))
    people = []
    for body in message.bodies:
        joints = np.array(body.joints, np.float32).reshape(-1, 3)
        if len(joints) not in (55, 127):
            raise MessageError(f"truth body '{body.track_id}' has {len(joints)} joints; expected 55 or 127")
        parameters = BodyParameters(**{f.name: np.array(getattr(body, f.name), np.float32)
                                       for f in dataclasses.fields(BodyParameters)})
        number = int("".join(c for c in body.track_id if c.isdigit()) or 0)
        people.append(TruePerson(number, parameters, joints, bool(int(body.joint_flags[15]) & JOINT_VISIBLE),
                                 1.0 - float(body.occlusion), np.array(body.bbox, np.float32), int(body.model_type),
                                 str(body.body_model), int(body.gender), int(body.valid_parts)))
    return FrameTruth(stamp_ns_of(message.header.stamp), camera, matrix_of_pose(message.camera_pose.pose),
                      tuple(people), depth_m)


# --- parts -------------------------------------------------------------------------------------------------------

def _body_array(stamp_ns: int, camera_frame: str, camera_name: str, sequence: int, segment: int, status: int,
                calibrated: bool, world_frame: str, T_world_camera: NDArray[np.floating], scale: float,
                scale_stddev: float, camera: PinholeCamera, latency_s: float, bodies: Sequence[Fields]) -> Fields:
    return {"header": header_fields(stamp_ns, camera_frame), "camera_name": camera_name, "sequence": int(sequence),
            "segment": int(segment), "status": status, "calibrated": bool(calibrated), "world_frame": world_frame,
            "camera_pose": pose_with_covariance_fields(T_world_camera), "scale": float(scale),
            "scale_stddev": float(scale_stddev),
            "intrinsics": np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32),
            "width": camera.width, "height": camera.height, "latency": float(latency_s), "bodies": list(bodies)}


def _xyz(vector: Any) -> Fields:
    return {"x": float(vector[0]), "y": float(vector[1]), "z": float(vector[2])}


def _quat_xyzw(rot_a_b: NDArray[np.floating]) -> Fields:
    w, x, y, z = (float(v) for v in quat_wxyz_from_matrix(rot_a_b))
    return {"x": x, "y": y, "z": z, "w": w}


def _transform(stamp_ns: int, parent: str, child: str, T_parent_child: NDArray[np.floating]) -> Fields:
    _check_finite(f"transform {parent} <- {child}", T_parent_child)
    return {"header": header_fields(stamp_ns, parent), "child_frame_id": child,
            "transform": {"translation": _xyz(T_parent_child[:3, 3]), "rotation": _quat_xyzw(T_parent_child[:3, :3])}}


def _not_reported() -> NDArray[np.float64]:
    values = np.zeros(36)
    values[0] = -1.0
    return values


def _parameter_fields(parameters: BodyParameters) -> Fields:
    values = {name: np.array(value, np.float32) for name, value in vars(parameters).items()}
    if not np.isfinite(np.concatenate(list(values.values()))).all():
        for name, value in values.items():
            _check_finite(name, value)
    return values


def _twist(linear: NDArray[np.floating] | None, angular: NDArray[np.floating] | None) -> Fields:
    zero = np.zeros(3)
    return {"twist": {"linear": _xyz(zero if linear is None else linear),
                      "angular": _xyz(zero if angular is None else angular)},
            "covariance": _not_reported() if linear is None else np.zeros(36)}


def _flat(name: str, values: Any, dtype: Any, length: int | None, finite: bool = True) -> NDArray[Any]:
    flat = np.array(values, dtype).reshape(-1)
    if length is not None and flat.size != length:
        raise MessageError(f"{name} has {flat.size} values; the message holds {length}")
    if finite:
        _check_finite(name, flat)
    return flat


def _check_finite(name: str, values: Any) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise MessageError(f"{name} holds {np.sum(~finite)} value(s) that are NaN or infinite; expected finite numbers")
