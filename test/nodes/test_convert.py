"""Messages <-> arrays without a running graph. Run once more with ROS_PYTHON_CHECK_FIELDS=1 by the last test."""

from __future__ import annotations

import array
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseWithCovariance, TransformStamped  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField  # noqa: E402

from human_scene_ros.body.parameters import BodyParameters  # noqa: E402
from human_scene_ros.errors import MessageError  # noqa: E402
from human_scene_ros.geometry.camera import PinholeCamera  # noqa: E402
from human_scene_ros.geometry.transform import make_transform  # noqa: E402
from human_scene_ros.msg import SceneStatus, SmplxBody, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import convert  # noqa: E402
from human_scene_ros.nodes.diagnostics import Level, Report  # noqa: E402
from human_scene_ros.scene import (  # noqa: E402
    BodyEstimate,
    ScaleSource,
    SceneEstimate,
    TrackingStatus,
    TrackState,
    WorldSource,
)
from human_scene_ros.sources import message_fields  # noqa: E402
from human_scene_ros.sources.calibration import Calibration  # noqa: E402

pytestmark = pytest.mark.ros


def an_estimate(people: int = 2) -> SceneEstimate:
    rng = np.random.default_rng(4)
    camera = PinholeCamera.from_fov(640, 480, 60.0)
    bodies = tuple(
        BodyEstimate(track_id=3 + i, track_state=TrackState.CONFIRMED, track_age=7, time_since_update_s=0.0, score=0.9,
                     parameters=BodyParameters(
                         global_orient=rng.normal(size=3).astype(np.float32), transl=np.array([0, 0, 3], np.float32),
                         body_pose=rng.normal(size=63).astype(np.float32) * 0.1),
                     joints_camera=(rng.random((55, 3)) + [0, 0, 3]).astype(np.float32),
                     head_uv_px=np.zeros(2, np.float32), bbox_px=np.array([1, 2, 30, 40], np.float32), height_m=1.7)
        for i in range(people))
    height, width = 24, 32
    return SceneEstimate(
        stamp_ns=12 * 10**9 + 345, segment=2, T_world_camera=make_transform(np.eye(3), np.array([1.0, 2.0, 3.0])),
        camera=camera, calibrated=True, dense_camera=camera.resized(width, height),
        points_camera=(rng.random((height, width, 3)) + 1).astype(np.float32),
        confidence=np.full((height, width), 2.0, np.float32), colors=np.zeros((height, width, 3), np.uint8),
        person=np.zeros((height, width), bool), bodies=bodies, status=TrackingStatus.OK, scale=1.0,
        scale_source=ScaleSource.NETWORK, world_source=WorldSource.FLOOR, stage_ms={})


def body_array(estimate: SceneEstimate) -> SmplxBodyArray:
    return convert.fill(SmplxBodyArray(), message_fields.body_array_fields(
        estimate, message_fields.BodyDescription(), camera_frame="optical", camera_name="cam", sequence=5,
        world_frame="map", latency_s=0.1))


def test_fill_takes_the_fast_types_and_nested_messages():
    message = convert.fill(PointCloud2(), {
        "header": {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "f"}, "height": np.int64(1), "is_dense": np.True_,
        "fields": [{"name": "x", "offset": 0, "datatype": 7, "count": 1}], "data": np.arange(12, dtype=np.uint8)})
    assert isinstance(message.data, array.array) and message.data.tolist() == list(range(12))
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (1, 2, "f")
    assert isinstance(message.fields[0], PointField) and message.fields[0].name == "x"
    assert message.height == 1 and message.is_dense is True


def test_fill_converts_numbers_to_the_type_of_the_field():
    state = convert.fill(JointState(), {"name": ["a", "b"], "position": np.arange(6, dtype=np.float32)[::3]})
    assert state.position.typecode == "d" and state.position.tolist() == [0.0, 3.0] and state.name == ["a", "b"]
    image = convert.fill(Image(), {"data": b"\x01\x02"})
    assert image.data.tolist() == [1, 2]
    pose = convert.fill(PoseWithCovariance(), {"covariance": np.arange(36.0).reshape(6, 6)})
    assert pose.covariance.shape == (36,) and pose.covariance[35] == 35.0


@pytest.mark.parametrize(("fields", "text"), [
    ({"body_pose": np.zeros(62)}, r"SmplxBody.body_pose: got 62 values, expected 63"),
    ({"betas": np.zeros(301)}, r"SmplxBody.betas: got 301 values, at most 300 fit"),
    ({"trakc_id": "b1"}, r"SmplxBody has no field 'trakc_id'; it has \[.*'track_id'"),
    ({"score": "high"}, r"SmplxBody.score \(float\) does not take 'high'"),
    ({"pelvis": {"pose": {"position": {"q": 1.0}}}}, r"SmplxBody.pelvis: .*Point has no field 'q'"),
])
def test_fill_refuses_what_rclpy_would_let_pass(fields, text):
    with pytest.raises(MessageError, match=text):
        convert.fill(SmplxBody(), fields)


def test_bodies_come_back_as_they_went_out():
    estimate = an_estimate()
    message = body_array(estimate)
    assert (message.segment, message.calibrated, message.world_frame, len(message.bodies)) == (2, True, "map", 2)
    for body, sent in zip(message.bodies, estimate.bodies, strict=True):
        np.testing.assert_array_equal(np.asarray(body.joints).reshape(55, 3), sent.joints_camera)
        np.testing.assert_array_equal(convert.parameters_from_message(body).full_pose(), sent.parameters.full_pose())
    views = convert.bodies_from_message(message)
    assert [v.track_id for v in views] == ["b0003", "b0004"] and not views[0].predicted
    np.testing.assert_allclose(convert.pelvis_world(message, views)[0], estimate.bodies[0].joints_camera[0] + [1, 2, 3],
                               rtol=1e-6)


def test_no_people_is_an_empty_array_with_status_ok():
    message = body_array(an_estimate(people=0))
    assert len(message.bodies) == 0 and message.status == SmplxBodyArray.STATUS_OK
    assert convert.pelvis_world(message, convert.bodies_from_message(message)).shape == (0, 3)


def test_enums_equal_the_constants_of_the_messages():
    from human_scene_ros.nodes.health import State

    for state in State:
        assert getattr(SceneStatus, f"STATE_{state.name}") == state
    for source in ScaleSource:
        assert getattr(SceneStatus, f"SCALE_{source.name}") == source
    for source in WorldSource:
        assert getattr(SceneStatus, f"WORLD_{source.name}") == source
    for state in TrackState:
        assert getattr(SmplxBody, f"TRACK_{state.name}") == state
    for name, value in (("OK", 0), ("LOW_TEXTURE", 2), ("LOST", 3)):
        assert getattr(SmplxBodyArray, f"STATUS_{name}") == value == TrackingStatus[name]


def test_transforms_go_out_and_come_back():
    rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    T_map_camera = make_transform(rotation, np.array([1.0, -2.0, 0.5]))
    message = convert.to_tf_message([("map", "camera", 3_000_000_001, T_map_camera)])
    sent = message.transforms[0]
    assert (sent.header.frame_id, sent.child_frame_id, sent.header.stamp.sec, sent.header.stamp.nanosec) == (
        "map", "camera", 3, 1)
    assert sent.transform.rotation.z == pytest.approx(np.sqrt(0.5)) and sent.transform.rotation.w > 0
    parent, child, at_ns, T_back = convert.from_transform(sent)
    assert (parent, child, at_ns) == ("map", "camera", 3_000_000_001)
    np.testing.assert_allclose(T_back, T_map_camera, atol=1e-12)


def test_a_zero_quaternion_is_no_transform():
    broken = TransformStamped()
    broken.transform.rotation.w = 0.0
    with pytest.raises(MessageError, match="is no rotation"):
        convert.from_transform(broken)


def test_camera_frames_lose_their_distortion_and_keep_stamp_and_frame():
    camera = PinholeCamera.from_fov(64, 48, 60.0)
    fields = message_fields.camera_info_fields(0, "f", camera)
    info = convert.fill(CameraInfo(), {**fields, "d": np.array([-0.3, 0.1, 0.0, 0.0, 0.0])})
    header = convert.fill(Image(), {"header": message_fields.header_fields(5, "/optical")}).header
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    frame = convert.to_camera_frame(header, image, Calibration.from_message(info, 64, 48))
    assert (frame.stamp_ns, frame.camera_frame) == (5, "optical")
    assert frame.camera.fx == pytest.approx(camera.fx) and not np.array_equal(frame.image, image)
    assert convert.to_camera_frame(header, image, None).camera is None


def test_diagnostics_carry_level_and_values():
    message = convert.to_diagnostics(7, [Report("n: Input", Level.WARN, "silent", {"rate": "0"}, "cam")])
    assert message.status[0].level == b"\x01" and message.status[0].values[0].key == "rate"
    assert message.header.stamp.nanosec == 7


@pytest.mark.skipif("ROS_PYTHON_CHECK_FIELDS" in os.environ, reason="this is the inner run")
def test_everything_again_with_the_checks_of_rclpy_on():
    environment = {**os.environ, "ROS_PYTHON_CHECK_FIELDS": "1"}
    names = ["test_convert.py", "test_markers.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         *(str(Path(__file__).parent / name) for name in names)],
        env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
