"""What the nodes publish can be read back: estimates, map, and the order of both."""

from __future__ import annotations

import numpy as np
import pytest
from fake_scene import fake_frame

from human_scene_ros.errors import SourceError
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.bag_writer import SceneBagWriter
from human_scene_ros.sources.message_fields import BodyDescription
from human_scene_ros.sources.recorded_run import RecordedRun

FRAME = "camera_optical"
START_NS = 5_000_000_000


def write_run(folder, frames=4, without_depth=(), without_bodies=()):
    """What record_node leaves, from known estimates; the messages of a frame come in no particular order."""
    estimates = []
    with SceneBagWriter(folder) as bag:
        for k in range(frames):
            image, estimate, truth = fake_frame(k)
            stamp_ns = START_NS + estimate.stamp_ns
            estimates.append(estimate)
            if k not in without_bodies:
                body_array = fields_of.body_array_fields(
                    estimate, BodyDescription(), camera_frame=FRAME, camera_name="camera", sequence=k,
                    world_frame="map", latency_s=0.01)
                body_array["header"] = fields_of.header_fields(stamp_ns, FRAME)
                bag.write("/human_scene/bodies", fields_of.BODY_ARRAY, body_array, stamp_ns)
            bag.write_camera("/image", image, truth.camera, stamp_ns, FRAME)
            if k not in without_depth:
                bag.write("/human_scene/depth/camera_info", fields_of.CAMERA_INFO,
                          fields_of.camera_info_fields(stamp_ns, FRAME, estimate.dense_camera), stamp_ns)
                bag.write("/human_scene/depth/image", fields_of.IMAGE, fields_of.depth_image_fields(
                    stamp_ns, FRAME, estimate.points_camera[..., 2]), stamp_ns)
            points = np.array([[k, 1.0, 2.0], [3.0, 4.0, 5.0]], np.float32)
            colors = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
            bag.write("/human_scene/map/cloud", fields_of.POINT_CLOUD, fields_of.point_cloud_fields(
                stamp_ns, "map", points, colors), stamp_ns, latched=True)
    return estimates, RecordedRun(folder, "/image/compressed", "/camera_info")


def test_every_estimate_comes_back_with_its_image(tmp_path):
    estimates, recorded = write_run(tmp_path / "scene")
    frames = list(recorded.frames())
    assert [f.stamp_ns - START_NS for f, _ in frames] == [e.stamp_ns for e in estimates]
    for (frame, read), written in zip(frames, estimates, strict=True):
        assert read.stamp_ns == frame.stamp_ns
        assert (read.segment, read.calibrated, read.status) == (written.segment, written.calibrated, written.status)
        np.testing.assert_allclose(read.T_world_camera, written.T_world_camera, atol=1e-9)
        np.testing.assert_allclose(read.points_camera, written.points_camera, rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(read.bodies, written.bodies, strict=True):
            assert (ours.track_id, ours.track_state) == (theirs.track_id, theirs.track_state)
            np.testing.assert_allclose(ours.joints_camera, theirs.joints_camera, atol=1e-6)
            np.testing.assert_allclose(ours.parameters.full_pose(), theirs.parameters.full_pose(), atol=1e-6)
            np.testing.assert_allclose(ours.head_uv_px, theirs.head_uv_px, atol=1e-2)


def test_frames_without_bodies_are_left_out_and_without_depth_have_none(tmp_path):
    estimates, recorded = write_run(tmp_path / "scene", frames=5, without_depth=(1,), without_bodies=(2, 4))
    read = [estimate for _, estimate in recorded.frames()]
    assert [e.stamp_ns - START_NS for e in read] == [estimates[k].stamp_ns for k in (0, 1, 3)]
    assert [bool(np.isfinite(e.points_camera).any()) for e in read] == [True, False, True]


def test_the_last_map_is_the_map(tmp_path):
    _, recorded = write_run(tmp_path / "scene")
    points, colors = recorded.map_world()
    np.testing.assert_array_equal(points, [[3.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    np.testing.assert_array_equal(colors, [[10, 20, 30], [40, 50, 60]])


def test_a_recording_without_bodies_says_what_it_has(tmp_path):
    with SceneBagWriter(tmp_path / "scene") as bag:
        image, _, truth = fake_frame()
        bag.write_camera("/image", image, truth.camera, START_NS, FRAME)
    with pytest.raises(SourceError, match=r"has no topic /human_scene/bodies; it has /camera_info, /image/compressed"):
        list(RecordedRun(tmp_path / "scene", "/image/compressed", None).frames())
