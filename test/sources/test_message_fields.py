"""What messages say, against values packed one by one, and the lengths that must not pass."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest
from fake_scene import fake_frame
from scipy.spatial.transform import Rotation

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.semantic import sampled_people
from human_scene_ros.errors import MessageError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import ROT_WORLD_LEVEL_CAMERA, make_transform
from human_scene_ros.scene import BodyEstimate, ScaleSource, SceneEstimate, TrackingStatus, TrackState, WorldSource
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.message_fields import BodyDescription, CloudOptions
from human_scene_ros.sources.people_mask import people_mask_of

CAMERA = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.0)


def an_estimate(seed: int = 0, people: int = 1, height: int = 24, width: int = 32) -> SceneEstimate:
    rng = np.random.default_rng(seed)
    bodies = tuple(BodyEstimate(
        track_id=7 + i, track_state=TrackState.CONFIRMED, track_age=3, time_since_update_s=0.0, score=0.8,
        parameters=BodyParameters(global_orient=rng.normal(size=3).astype(np.float32)),
        joints_camera=(rng.uniform(-0.4, 0.4, (55, 3)) + [0, 0, 3 + i]).astype(np.float32),
        head_uv_px=np.zeros(2, np.float32), bbox_px=np.array([1, 2, 3, 4], np.float32), height_m=1.7,
        velocity_world=np.array([1.0, 0.0, 0.0], np.float32)) for i in range(people))
    return SceneEstimate(
        stamp_ns=5_000_000_007, segment=2,
        T_world_camera=make_transform(ROT_WORLD_LEVEL_CAMERA, np.array([1.0, 2.0, 1.5])),
        camera=CAMERA, calibrated=True, dense_camera=CAMERA.resized(width, height),
        points_camera=rng.uniform(1.0, 8.0, (height, width, 3)).astype(np.float32),
        confidence=rng.uniform(1.0, 4.0, (height, width)).astype(np.float32),
        colors=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        person=rng.integers(0, 2, (height, width)) > 0, bodies=bodies, status=TrackingStatus.OK,
        scale=1.1, scale_source=ScaleSource.NETWORK, world_source=WorldSource.LEVEL_CAMERA, stage_ms={})


def body_array(estimate: SceneEstimate, description: BodyDescription | None = None) -> dict:
    return fields_of.body_array_fields(estimate, description or BodyDescription(), camera_frame="cam_optical",
                                       camera_name="cam", sequence=4, world_frame="map")


# --- clouds ---

@pytest.mark.parametrize("with_confidence", [False, True])
@pytest.mark.parametrize("with_label", [False, True])
def test_cloud_equals_points_packed_one_by_one(with_confidence: bool, with_label: bool) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(9, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (9, 3), dtype=np.uint8)
    confidence = rng.random(9).astype(np.float32) if with_confidence else None
    label = rng.integers(0, 65536, 9).astype(np.uint16) if with_label else None
    columns = {"confidence": confidence, "label": label}
    cloud = fields_of.point_cloud_fields(12, "cam", points, colors,
                                         {name: column for name, column in columns.items() if column is not None})
    packed = b""
    for i in range(9):
        r, g, b = (int(c) for c in colors[i])
        packed += struct.pack("<fffI", *points[i], r << 16 | g << 8 | b)
        packed += struct.pack("<f", confidence[i]) if confidence is not None else b""
        packed += struct.pack("<Hxx", int(label[i])) if label is not None else b""
    assert cloud["data"].tobytes() == packed
    assert (cloud["height"], cloud["width"], cloud["is_dense"]) == (1, 9, True)
    assert cloud["point_step"] == len(packed) // 9 and cloud["row_step"] == len(packed)
    described = {f["name"]: (f["offset"], f["datatype"]) for f in cloud["fields"]}
    assert {n: described[n] for n in "xyz"} == {"x": (0, 7), "y": (4, 7), "z": (8, 7)} and described["rgb"] == (12, 7)
    assert ("confidence" in described) == with_confidence and ("label" in described) == with_label
    if with_label:
        assert described["label"] == (20 if with_confidence else 16, 4)


def read_cloud(cloud: dict) -> np.ndarray:
    types = {7: "<f4", 5: "<i4", 4: "<u2"}
    dtype = np.dtype({"names": [f["name"] for f in cloud["fields"]], "offsets": [f["offset"] for f in cloud["fields"]],
                      "formats": [types[f["datatype"]] for f in cloud["fields"]], "itemsize": cloud["point_step"]})
    return np.frombuffer(cloud["data"].tobytes(), dtype)


def test_scene_cloud_obeys_its_options() -> None:
    estimate = an_estimate()
    for people in ("keep", "remove", "only"):
        options = CloudOptions(people=people, min_confidence=2.0, max_range_m=5.0, confidence=True, label=True)  # type: ignore[arg-type]
        cloud = read_cloud(fields_of.scene_cloud_fields(estimate, "cam", options))
        mask = people_mask_of(estimate)
        expected = [(*estimate.points_camera[y, x], 99 + int(mask[y, x]) if estimate.person[y, x] else 0)
                    for y in range(24) for x in range(32)
                    if estimate.confidence[y, x] >= 2.0 and estimate.points_camera[y, x, 2] <= 5.0
                    and (people == "keep" or bool(estimate.person[y, x]) == (people == "only"))]
        assert [(p["x"], p["y"], p["z"], p["label"]) for p in cloud] == expected
        assert (cloud["confidence"] >= 2.0).all()


def test_points_that_are_not_finite_stay_out() -> None:
    points = an_estimate().points_camera.copy()
    points[3, 4, 1], points[5, 6, 2] = np.nan, np.inf
    estimate = dataclasses.replace(an_estimate(), points_camera=points)
    options = CloudOptions(people="keep", min_confidence=0.0, max_range_m=1000.0)
    assert len(read_cloud(fields_of.scene_cloud_fields(estimate, "cam", options))) == 24 * 32 - 2
    organized = fields_of.scene_cloud_fields(estimate, "cam", dataclasses.replace(options, organized=True))
    assert (organized["height"], organized["width"], organized["is_dense"]) == (24, 32, False)
    nan = np.isnan(read_cloud(organized)["x"]).reshape(24, 32)
    assert nan[3, 4] and nan[5, 6] and nan.sum() == 2


@pytest.mark.parametrize("max_bytes", [24 * 32 * 16, 24 * 32 * 16 - 1, 3000, 1600])
def test_cloud_stays_within_its_bytes_with_the_smallest_stride(max_bytes: int) -> None:
    estimate = an_estimate()
    options = CloudOptions(max_bytes=max_bytes, people="keep", min_confidence=0.0, max_range_m=1000.0)
    cloud = fields_of.scene_cloud_fields(estimate, "cam", options)
    stride = fields_of.stride_for(24, 32, 16, max_bytes)
    assert len(cloud["data"]) <= max_bytes
    assert stride == 1 or -(-24 // (stride - 1)) * -(-32 // (stride - 1)) * 16 > max_bytes
    np.testing.assert_array_equal(read_cloud(cloud)["x"], estimate.points_camera[::stride, ::stride, 0].reshape(-1))


@pytest.mark.parametrize("organized", [False, True])
def test_semantic_fields_say_whose_every_point_is_and_where_on_the_body(organized: bool) -> None:
    _, estimate, _ = fake_frame(people=2)
    model = load_body_model()
    people = [b.parameters for b in estimate.bodies]
    vertices, places = sampled_people(model, people)
    # The map shows vertices of the two bodies, and a far wall: one row of points each.
    points = np.full(estimate.points_camera.shape, 9.0, np.float32)
    person = np.zeros(estimate.person.shape, bool)
    width = person.shape[1]
    for row in (0, 1):
        points[row], person[row] = vertices[row, :width], True
    # The better score comes first, but the tracks' numbers are what the cloud says.
    estimate = dataclasses.replace(estimate, points_camera=points, person=person, bodies=estimate.bodies[::-1])
    options = CloudOptions(people="keep", max_range_m=100.0, organized=organized)
    fields = fields_of.scene_cloud_fields(estimate, "cam", options, model)
    assert [f["name"] for f in fields["fields"]][4:] == ["instance_id", "body_u", "body_v", "body_w", "confidence"]
    assert [f["datatype"] for f in fields["fields"]][4:] == [5, 7, 7, 7, 7] and fields["point_step"] == 36
    stride = fields_of.stride_for(*person.shape, 36, options.max_bytes)
    cloud, shown = read_cloud(fields), -(-width // stride)
    assert stride == 2 and len(fields["data"]) <= options.max_bytes  # so that only the first of the two rows is shown
    assert cloud["instance_id"].tolist() == [1] * shown + [-1] * (len(cloud) - shown)
    np.testing.assert_allclose(np.stack([cloud[f"body_{a}"][:shown] for a in "uvw"], axis=1), places[:width:stride],
                               atol=1e-6)
    assert (cloud["confidence"][:shown] == 1).all() and (cloud["confidence"][shown:] == 0).all()
    lost = dataclasses.replace(estimate, bodies=tuple(
        dataclasses.replace(b, track_state=TrackState.LOST) for b in estimate.bodies))
    assert (read_cloud(fields_of.scene_cloud_fields(lost, "cam", options, model))["instance_id"] == -1).all()


def test_columns_of_other_types_are_refused() -> None:
    with pytest.raises(MessageError, match=r"columns \{'age': '<f8'\} have types.*'<f4', '<i4', '<u2'"):
        fields_of.point_cloud_fields(0, "c", np.zeros((5, 3)), None, {"age": np.zeros(5)})
    with pytest.raises(MessageError, match=r"age has shape \(4,\)"):
        fields_of.point_cloud_fields(0, "c", np.zeros((5, 3)), None, {"age": np.zeros(4, np.float32)})


def test_cloud_shapes_must_belong_together() -> None:
    with pytest.raises(MessageError, match=r"colors has shape \(4, 3\); points of shape \(5, 3\) need \(5, 3\)"):
        fields_of.point_cloud_fields(0, "c", np.zeros((5, 3)), np.zeros((4, 3), np.uint8))
    with pytest.raises(MessageError, match=r"points has shape \(5, 2\)"):
        fields_of.point_cloud_fields(0, "c", np.zeros((5, 2)), None)


# --- images, cameras ---

def test_strided_camera_sees_the_same_rays() -> None:
    for stride in (1, 2, 3, 5):
        strided = fields_of.strided_camera(CAMERA, stride)
        np.testing.assert_allclose(strided.rays(), CAMERA.rays()[::stride, ::stride], atol=1e-6)


def test_depth_image_is_rep_118() -> None:
    image = fields_of.depth_image_fields(0, "c", np.array([[0.0, 2.5, np.nan], [np.inf, -1.0, 3.0]]))
    assert image["encoding"] == "32FC1" and image["step"] == 12
    np.testing.assert_array_equal(np.frombuffer(image["data"].tobytes(), "<f4").reshape(2, 3),
                                  np.array([[np.nan, 2.5, np.nan], [np.nan, np.nan, 3.0]], np.float32))


def test_camera_info_holds_the_intrinsics() -> None:
    info = fields_of.camera_info_fields(0, "c", CAMERA)
    assert info["k"].tolist() == [60.0, 0.0, 31.0, 0.0, 62.0, 24.0, 0.0, 0.0, 1.0]
    assert info["p"].tolist() == [60.0, 0.0, 31.0, 0.0, 0.0, 62.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert (info["width"], info["height"]) == (64, 48) and not info["d"].any()


# --- bodies ---

def test_pelvis_axes_are_those_of_rep_155() -> None:
    """A person who faces a level camera: x out of the chest = towards the camera, z up = -y of the camera."""
    body = dataclasses.replace(an_estimate().bodies[0], parameters=BodyParameters(
        global_orient=np.array([np.pi, 0.0, 0.0], np.float32)))
    estimate = dataclasses.replace(an_estimate(), bodies=(body,))
    pelvis = body_array(estimate)["bodies"][0]["pelvis"]["pose"]
    q = pelvis["orientation"]
    rot = Rotation.from_quat([q["x"], q["y"], q["z"], q["w"]]).as_matrix()
    np.testing.assert_allclose(rot @ [1, 0, 0], [0, 0, -1], atol=1e-6)  # chest towards the camera
    np.testing.assert_allclose(rot @ [0, 0, 1], [0, -1, 0], atol=1e-6)  # head up
    np.testing.assert_allclose(rot @ [0, 1, 0], [1, 0, 0], atol=1e-6)  # the person's left is right in the image
    np.testing.assert_allclose([pelvis["position"][a] for a in "xyz"], body.joints_camera[0], rtol=1e-6)


def test_body_array_says_what_the_estimate_says() -> None:
    estimate = an_estimate(people=2)
    message = body_array(estimate)
    assert message["header"] == {"stamp": {"sec": 5, "nanosec": 7}, "frame_id": "cam_optical"}
    assert (message["sequence"], message["segment"], message["status"], message["calibrated"]) == (4, 2, 0, True)
    np.testing.assert_allclose(message["intrinsics"], [60.0, 62.0, 31.0, 24.0])
    assert [b["track_id"] for b in message["bodies"]] == ["b0007", "b0008"]
    body = message["bodies"][0]
    assert body["model_type"] == 3 and body["body_model"] == "open_body"  # betas are not SMPL-X betas
    np.testing.assert_array_equal(body["joints"].reshape(55, 3), estimate.bodies[0].joints_camera)
    np.testing.assert_allclose(body["joint_uv"].reshape(55, 2), CAMERA.project(estimate.bodies[0].joints_camera),
                               atol=1e-3)
    # 1 m/s along world x is forward, z, of this camera
    linear = body["velocity"]["twist"]["linear"]
    np.testing.assert_allclose([linear[a] for a in "xyz"], [0.0, 0.0, 1.0], atol=1e-6)
    assert body["velocity"]["covariance"][0] == 0.0
    assert body_array(dataclasses.replace(estimate, bodies=()))["bodies"] == []


def test_unknown_velocity_is_marked() -> None:
    body = dataclasses.replace(an_estimate().bodies[0], velocity_world=np.full(3, np.nan, np.float32))
    message = body_array(dataclasses.replace(an_estimate(), bodies=(body,)))["bodies"][0]
    assert message["velocity"]["covariance"][0] == -1.0
    assert message["velocity"]["twist"]["linear"] == {"x": 0.0, "y": 0.0, "z": 0.0}


@pytest.mark.parametrize(("joint_set", "count"), [(0, 0), (1, 22), (2, 55)])
def test_joint_sets(joint_set: int, count: int) -> None:
    body = body_array(an_estimate(), BodyDescription(joint_set=joint_set))["bodies"][0]
    assert [len(body[n]) for n in ("joints", "joint_uv", "joint_flags")] == [3 * count, 2 * count, count]
    with pytest.raises(MessageError, match="joint_set = 3"):
        BodyDescription(joint_set=3)


def test_joint_flags_tell_hidden_from_outside() -> None:
    joints = np.tile(np.array([0.0, 0.0, 3.0], np.float32), (55, 1))
    joints[1] = [3.0, 0.0, 3.0]  # right of the image
    joints[2] = [0.0, 0.0, -1.0]  # behind the camera
    joints[3] = [-0.9, 0.0, 3.0]  # behind the surface at the left
    points = an_estimate().points_camera.copy()
    points[..., 2] = 3.1
    points[:, :10, 2] = 1.0
    body = dataclasses.replace(an_estimate().bodies[0], joints_camera=joints)
    _, flags = fields_of.joints_in_view(dataclasses.replace(an_estimate(), bodies=(body,), points_camera=points))
    assert flags[0, :4].tolist() == [fields_of.JOINT_VISIBLE, fields_of.JOINT_OUT_OF_IMAGE,
                                     fields_of.JOINT_OUT_OF_IMAGE, fields_of.JOINT_OCCLUDED]


@pytest.mark.parametrize(("change", "text"), [
    ({"joints_camera": np.zeros((54, 3), np.float32)}, r"joints_camera has shape \(54, 3\); expected \(55, 3\)"),
    ({"joints_camera": np.full((55, 3), np.nan, np.float32)}, r"joints_camera holds 165 value\(s\) that are NaN"),
    ({"parameters": BodyParameters(betas=np.zeros(301, np.float32))}, "betas has 301 values; .* at most 300"),
    ({"parameters": BodyParameters(expression=np.zeros(101, np.float32))}, "expression has 101 values"),
    ({"parameters": BodyParameters(jaw_pose=np.full(3, np.inf, np.float32))}, r"jaw_pose holds 3 value\(s\)"),
    ({"bbox_px": np.zeros(3, np.float32)}, "bbox_px has 3 values; the message holds 4"),
])
def test_wrong_lengths_and_nan_do_not_pass(change: dict, text: str) -> None:
    body = dataclasses.replace(an_estimate().bodies[0], **change)
    with pytest.raises(MessageError, match=text):
        body_array(dataclasses.replace(an_estimate(), bodies=(body,)))


# --- transforms ---

def test_pose_survives_the_way_through_a_message() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        T = make_transform(Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))
        pose = fields_of.pose_fields(T)
        back = fields_of.matrix_of_pose(as_object(pose))
        np.testing.assert_allclose(back, T, atol=1e-12)
        q = pose["orientation"]  # x, y, z, w: the real part is w
        angle = Rotation.from_matrix(T[:3, :3]).magnitude()
        np.testing.assert_allclose(abs(q["w"]), np.cos(angle / 2), atol=1e-9)


def as_object(fields: dict) -> object:
    return type("Message", (), {k: as_object(v) if isinstance(v, dict) else v for k, v in fields.items()})


def test_a_quaternion_of_zeros_is_no_rotation() -> None:
    zero = {"position": {"x": 0.0, "y": 0.0, "z": 0.0}, "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 0.0}}
    with pytest.raises(MessageError, match="is no rotation"):
        fields_of.matrix_of_pose(as_object(zero))


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_are_exact(stamp_ns: int) -> None:
    assert fields_of.stamp_ns_of(as_object(fields_of.time_fields(stamp_ns))) == stamp_ns


def test_a_stamp_beyond_2038_is_refused() -> None:
    with pytest.raises(MessageError, match="a ROS time holds seconds"):
        fields_of.time_fields(2**31 * 10**9)
