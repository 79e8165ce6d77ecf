"""The stream over small untrained networks: shapes, frames of reference, memory, resets, robustness."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import joints, load_body_model
from human_scene_ros.body.people_mask import NOBODY
from human_scene_ros.body.scale import Sample, ScaleState
from human_scene_ros.errors import CalibrationError, ConfigError, ImageError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.runtime.world import WorldAlignment
from human_scene_ros.scene import CameraFrame, PoseHint, ScaleSource, TrackingStatus, TrackState, WorldSource
from human_scene_ros.sources.people_mask import people_mask_of

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "model")]
import planes  # noqa: E402 - lies next to this file
from tiny_network import NANO, OFFICIAL, make  # noqa: E402 - lies in test/model

BODY = load_body_model()
FRAME_NS = 100_000_000
EVERYBODY = StreamConfig(min_score=1e-3)


def stream_of(config, settings=EVERYBODY, **changes):
    """A stream over an untrained network that finds a few people in noise."""
    network = make(config, detection_threshold=0.4, **changes)
    if config is OFFICIAL:
        with torch.no_grad():  # random weights see everybody behind the camera
            network.downstream_head.deccam.last.bias += torch.tensor([0.0, 2.5, 5.0])
    return HumanSceneStream(network, BODY, settings)


def frame_of(i, width=320, height=240, camera=True, depth=None, seed=None, fov=70.0):
    rng = np.random.default_rng(i if seed is None else seed)
    image = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = np.kron(image, np.ones((8, 8, 1), np.uint8))
    image = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
    intrinsics = PinholeCamera.from_fov(width, height, fov) if camera else None
    return CameraFrame(i * FRAME_NS, image, "cam", intrinsics, depth)


def check(estimate, frame):
    """What must hold for every estimate."""
    h, w = estimate.confidence.shape
    assert (estimate.dense_camera.width, estimate.dense_camera.height) == (w, h)
    assert (estimate.camera.width, estimate.camera.height) == frame.image.shape[1::-1]
    assert estimate.points_camera.shape == (h, w, 3) and estimate.points_camera.dtype == np.float32
    assert estimate.colors.shape == (h, w, 3) and estimate.colors.dtype == np.uint8
    assert estimate.person.shape == (h, w) and estimate.person.dtype == bool
    assert (estimate.confidence >= 1.0).all()
    rotation = estimate.T_world_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.isfinite(estimate.T_world_camera).all()
    mask = people_mask_of(estimate)
    np.testing.assert_array_equal(mask > 0, estimate.person)
    assert set(mask[estimate.person]) <= {NOBODY, *range(1, len(estimate.bodies) + 1)}
    scores = [b.score for b in estimate.bodies]
    assert scores == sorted(scores, reverse=True)
    for body in estimate.bodies:
        assert np.isfinite(body.joints_camera).all() and body.joints_camera.shape == (55, 3)
        np.testing.assert_allclose(joints(BODY, body.parameters), body.joints_camera, atol=2e-3)
        assert 0.5 < body.height_m < 3.0
    assert all(ms >= 0.0 for ms in estimate.stage_ms.values())
    assert {"preprocess", "network", "bodies", "tracks"} <= set(estimate.stage_ms)


@pytest.mark.parametrize("config", [NANO, OFFICIAL], ids=["nano", "official"])
@pytest.mark.parametrize("size", [(320, 240), (480, 270), (240, 426), (96, 64), (50, 50), (641, 479)],
                         ids=lambda s: f"{s[0]}x{s[1]}")
def test_any_aspect_with_and_without_intrinsics(config, size):
    for camera in (True, False):
        stream = stream_of(config)
        for i in range(2):
            frame = frame_of(i, *size, camera=camera)
            estimate = stream.step(frame)
            check(estimate, frame)
            assert estimate.calibrated is camera
            assert estimate.segment == 0
    assert max(estimate.confidence.shape) == 96


def test_given_intrinsics_go_through_resize_and_crop():
    stream = stream_of(NANO)
    camera = PinholeCamera(640, 480, 500.0, 510.0, 300.0, 250.0)
    frame = dataclasses.replace(frame_of(0, 640, 480), camera=camera)
    estimate = stream.step(frame)
    assert estimate.camera is camera
    # 640x480 -> 96x72 -> centre crop 96x64.
    assert estimate.dense_camera == camera.resized(96, 72).cropped(0, 4, 96, 64)
    rays = estimate.points_camera / estimate.points_camera[..., 2:]
    np.testing.assert_allclose(rays, estimate.dense_camera.rays(), atol=1e-4)


def test_longer_lens_sees_the_same_picture_farther_away():
    near = stream_of(NANO).step(frame_of(0, fov=90.0)).points_camera[..., 2]
    far_frame = frame_of(0, fov=45.0)
    far = stream_of(NANO).step(far_frame).points_camera[..., 2]
    wide_frame = frame_of(0, fov=90.0)
    np.testing.assert_allclose(far / near, far_frame.camera.fx / wide_frame.camera.fx, rtol=1e-4)


def test_guessed_camera_fits_the_points():
    estimate = stream_of(NANO).step(frame_of(0, camera=False))
    rays = estimate.points_camera / estimate.points_camera[..., 2:]
    np.testing.assert_allclose(rays, estimate.dense_camera.rays(), atol=1e-4)
    back = estimate.camera.resized(96, 72).cropped(0, 4, 96, 64)
    assert back.fx == pytest.approx(estimate.dense_camera.fx)
    assert back.cx == pytest.approx(estimate.dense_camera.cx)
    assert back.cy == pytest.approx(estimate.dense_camera.cy)


@pytest.mark.parametrize("config", [NANO, OFFICIAL], ids=["nano", "official"])
def test_heads_lie_where_the_picture_shows_them(config):
    """The head in pixels and the head in space agree for the network whose camera is ours (nano)."""
    stream = stream_of(config, dataclasses.replace(EVERYBODY, max_people=5))
    found = 0
    for i in range(3):
        frame = frame_of(i)
        for body in stream.step(frame).bodies:
            if body.time_since_update_s == 0.0:
                found += 1
                assert np.isfinite(body.head_uv_px).all()
                if config is NANO:
                    np.testing.assert_allclose(frame.camera.project(body.joints_camera[15].astype(float)),
                                               body.head_uv_px, atol=0.2)
    assert found


def test_step_is_repeatable_from_a_saved_state():
    stream = stream_of(NANO)
    for i in range(3):
        stream.step(frame_of(i))
    state = stream.state()
    first = stream.step(frame_of(3))
    stream.step(frame_of(4))
    stream.load_state(state)
    again = stream.step(frame_of(3))
    np.testing.assert_array_equal(first.points_camera, again.points_camera)
    np.testing.assert_array_equal(first.T_world_camera, again.T_world_camera)
    assert [b.track_id for b in first.bodies] == [b.track_id for b in again.bodies]


def test_reset_forgets_but_never_gives_an_id_twice():
    stream, fresh = stream_of(NANO), stream_of(NANO)
    before = {b.track_id for i in range(3) for b in stream.step(frame_of(i)).bodies}
    stream.reset()
    after = stream.step(frame_of(7))
    expected = fresh.step(frame_of(7))
    assert before and after.bodies
    assert stream.segment == after.segment == 1
    np.testing.assert_array_equal(after.points_camera, expected.points_camera)
    np.testing.assert_array_equal(after.T_world_camera, expected.T_world_camera)
    assert not before & {b.track_id for b in after.bodies}
    assert {b.track_state for b in after.bodies} == {TrackState.TENTATIVE}


def test_memory_is_constant():
    """Everything that is kept between frames has the same size after many frames."""
    def size(value):
        if isinstance(value, (np.ndarray, torch.Tensor)):
            return value.nbytes
        if dataclasses.is_dataclass(value):
            return sum(size(getattr(value, f.name)) for f in dataclasses.fields(value))
        return sum(map(size, value)) if isinstance(value, (tuple, list)) else 0

    for config in (NANO, OFFICIAL):
        stream = stream_of(config, dataclasses.replace(EVERYBODY, max_people=2), track_bank_cap=8)
        sizes = []
        for i in range(24):
            stream.step(frame_of(i, 96, 64, seed=i % 5))
            sizes.append(size(stream.state()))
        assert max(sizes[16:]) <= max(sizes[6:16])


def test_official_pose_goes_through_the_world_chain():
    interval = 4
    plain = stream_of(OFFICIAL, dataclasses.replace(EVERYBODY, world="level"))
    chunked = stream_of(OFFICIAL, dataclasses.replace(EVERYBODY, world="level", reset_interval=interval))
    a = [plain.step(frame_of(i)).T_world_camera for i in range(6)]
    b = [chunked.step(frame_of(i)).T_world_camera for i in range(6)]
    np.testing.assert_array_equal(a[:interval], b[:interval])
    assert not np.allclose(a[interval], b[interval])
    # After the reset, the next frame's pose is relative to the reset frame, chained by its pose.
    relative = invert(b[interval - 1]) @ b[interval]
    assert np.isfinite(relative).all()
    assert all(e == TrackingStatus.OK for e in [chunked.step(frame_of(6)).status])


@pytest.mark.parametrize("scale_source", ["auto", "odometry"])
def test_nano_camera_moves_by_odometry(scale_source):
    """A textured room seen by a moving camera, with the room's depth in place of the network's."""
    settings = dataclasses.replace(EVERYBODY, world="level", max_people=0, scale_source=scale_source)
    stream = stream_of(NANO, settings)
    poses = [planes.pose(x=0.03 * i, yaw_deg=0.6 * i) for i in range(12)]
    estimates = []
    for i, T in enumerate(poses):
        image, depth = planes.render(T)
        estimates.append(stream.step(CameraFrame(i * FRAME_NS, image, "cam", planes.CAMERA, depth)))
    assert {e.scale_source for e in estimates} == {ScaleSource.DEPTH}
    relative = invert(estimates[0].T_world_camera) @ estimates[-1].T_world_camera
    np.testing.assert_allclose(relative, poses[-1], atol=0.03)


def test_a_guarded_camera_believes_the_robot_before_the_network():
    """In front of a blank wall the hint alone decides; without it the network's pose head does."""
    settings = dataclasses.replace(EVERYBODY, camera_pose="guarded", world="level")
    poses = [planes.pose(x=0.1 * i, yaw_deg=5.0 * i) for i in range(4)]
    moved = []
    for hints in ([PoseHint(T) for T in poses], [None] * len(poses)):
        stream, blank = stream_of(OFFICIAL, settings), np.full((240, 320, 3), 90, np.uint8)
        seen = [stream.step(dataclasses.replace(frame_of(i), image=blank, pose_hint=hint)).T_world_camera
                for i, hint in enumerate(hints)]
        moved.append(invert(seen[0]) @ seen[-1])
    np.testing.assert_allclose(moved[0], invert(poses[0]) @ poses[-1], atol=1e-6)
    assert np.abs(moved[1] - moved[0]).max() > 0.01


def test_depth_sets_the_scale_and_is_optional():
    stream = stream_of(NANO)
    raw = stream.step(frame_of(0)).points_camera
    camera = frame_of(0).camera
    # A sensor that sees everything 2.5 times as far as the network, with holes and rubbish.
    depth = np.zeros((240, 320), np.float32)
    v, u = np.mgrid[0:240, 0:320]
    dense = stream.step(frame_of(0)).dense_camera
    columns = np.clip(np.rint((u - camera.cx) * dense.fx / camera.fx + dense.cx), 0, dense.width - 1).astype(int)
    rows = np.clip(np.rint((v - camera.cy) * dense.fy / camera.fy + dense.cy), 0, dense.height - 1).astype(int)
    depth[:] = 2.5 * raw[rows, columns, 2]
    depth[::3], depth[1::3, ::5] = np.nan, -1.0
    stream.reset()
    estimate = stream.step(frame_of(0, depth=depth))
    assert estimate.scale == pytest.approx(2.5, rel=0.02)
    assert estimate.scale_source == ScaleSource.DEPTH
    np.testing.assert_allclose(estimate.points_camera, raw * estimate.scale, rtol=1e-5)
    stream.reset()
    stream.config = dataclasses.replace(EVERYBODY, use_depth=False)
    assert stream.step(frame_of(0, depth=depth)).scale == 1.0


@pytest.mark.parametrize("depth", [np.full((240, 320), np.nan, np.float32), np.zeros((240, 320), np.float32),
                                   np.full((240, 320), np.inf, np.float32)], ids=["nan", "zero", "inf"])
def test_useless_depth_changes_nothing(depth):
    with_depth, without = stream_of(NANO), stream_of(NANO)
    for i in range(3):
        a, b = with_depth.step(frame_of(i, depth=depth)), without.step(frame_of(i))
        np.testing.assert_array_equal(a.points_camera, b.points_camera)
        assert a.scale_source == ScaleSource.NETWORK


@pytest.mark.parametrize("image, text", [
    (np.zeros((1, 1, 3), np.uint8), "image has 1x1 px; both sides must have at least 16 px"),
    (np.zeros((0, 0, 3), np.uint8), "image has 0x0 px"),
    (np.zeros((240, 15, 3), np.uint8), "image has 15x240 px"),
    (np.zeros((2000, 17, 3), np.uint8), "less than one patch"),
    (np.zeros((240, 320), np.uint8), r"shape \(240, 320\) and type uint8"),
    (np.zeros((240, 320, 3), np.float32), "type float32"),
], ids=["one pixel", "empty", "narrow", "strip", "grey", "float"])
def test_bad_images_are_refused_and_leave_the_stream_as_it_was(image, text):
    stream = stream_of(NANO)
    stream.step(frame_of(0))
    before = stream.state()
    with pytest.raises(ImageError, match=text):
        stream.step(CameraFrame(FRAME_NS, image))
    assert stream.state() is before
    check(stream.step(frame_of(1)), frame_of(1))


def test_camera_and_depth_of_another_size_are_refused_with_both_sizes():
    stream = stream_of(NANO)
    frame = dataclasses.replace(frame_of(0), camera=PinholeCamera.from_fov(640, 480, 60.0))
    with pytest.raises(CalibrationError, match=r"640x480.*320x240"):
        stream.step(frame)
    with pytest.raises(ImageError, match=r"depth image has shape \(10, 10\); expected .* \(240, 320\)"):
        stream.step(frame_of(0, depth=np.zeros((10, 10), np.float32)))


def test_blank_frames_are_low_texture_not_errors():
    stream = stream_of(NANO)
    for value in (0, 255, 128):
        frame = CameraFrame(value * FRAME_NS, np.full((240, 320, 3), value, np.uint8))
        estimate = stream.step(frame)
        check(estimate, frame)
        assert estimate.status == TrackingStatus.LOW_TEXTURE


@pytest.mark.parametrize("config", [NANO, OFFICIAL], ids=["nano", "official"])
def test_image_size_may_change_in_the_stream(config):
    stream = stream_of(config)
    sizes = [(320, 240)] * 2 + [(240, 320)] * 2 + [(640, 360)] * 2
    poses = []
    for i, size in enumerate(sizes):
        frame = frame_of(i, *size, seed=5)
        estimate = stream.step(frame)
        check(estimate, frame)
        poses.append(estimate.T_world_camera)
    if config is NANO:
        np.testing.assert_array_equal(poses[0], poses[1])
        assert estimate.segment == 0


def test_stamps_that_do_not_rise_do_no_harm():
    stream = stream_of(NANO)
    for stamp in (10 * FRAME_NS, 10 * FRAME_NS, 3 * FRAME_NS, 0):
        frame = dataclasses.replace(frame_of(1), stamp_ns=stamp)
        check(stream.step(frame), frame)


def test_poisoned_memory_starts_afresh():
    stream = stream_of(NANO)
    stream.step(frame_of(0))
    memory = stream.state()
    poisoned = dataclasses.replace(memory.network, tokens=torch.full_like(memory.network.tokens, float("nan")))
    stream.load_state(dataclasses.replace(memory, network=poisoned))
    stream.step(frame_of(1))
    frame = frame_of(2)
    estimate = stream.step(frame)
    check(estimate, frame)
    assert np.isfinite(estimate.points_camera).all()


def test_people_are_limited_and_scored():
    stream = stream_of(NANO, dataclasses.replace(EVERYBODY, max_people=2))
    everybody = stream_of(NANO).step(frame_of(0)).bodies
    two = stream.step(frame_of(0)).bodies
    assert len(everybody) > 2
    assert [b.score for b in two] == [b.score for b in everybody[:2]]
    stream.reset()
    stream.config = StreamConfig(min_score=1.0)
    assert stream.step(frame_of(0)).bodies == ()


def test_world_from_outside():
    stream = stream_of(NANO)
    given = WorldAlignment(planes.pose(1.0, 2.0, 3.0, 90.0), WorldSource.TF)
    stream.set_world(given)
    estimate = stream.step(frame_of(0))
    np.testing.assert_array_equal(estimate.T_world_camera, given.T_world_origin)
    assert estimate.world_source == WorldSource.TF


def test_config_is_checked():
    with pytest.raises(ConfigError, match=r"stream.min_score = 2: must be in \[0.0, 1.0\]"):
        StreamConfig(min_score=2)
    with pytest.raises(ConfigError, match="'tiny_nano' has no pose head"):
        stream_of(NANO, StreamConfig(camera_pose="network"))


def test_scale_by_people_moves_map_camera_and_heads_and_leaves_bodies_their_size():
    """A network whose heads are where its map says; one whose bodies tell their own distance: `test_scale.py`."""
    settings = StreamConfig(min_score=1e-3, world="level", duplicate_distance_m=0.0, scale_source="people")
    found = ScaleState((Sample(0, 0, np.log(1.5), 1.0),) * 8, np.log(1.5), warm_up=60)
    plain, scaled = (stream_of(OFFICIAL, settings) for _ in range(2))
    scaled.load_state(dataclasses.replace(scaled.state(), people_scale=found))
    a, b = plain.step(frame_of(0)), scaled.step(frame_of(0))
    assert (a.scale, b.scale) == (1.0, pytest.approx(1.5)) and b.scale_source == ScaleSource.BODY_HEIGHT
    np.testing.assert_allclose(b.points_camera, 1.5 * a.points_camera, rtol=1e-5)
    np.testing.assert_allclose(b.T_world_camera[:3, 3], 1.5 * a.T_world_camera[:3, 3], atol=1e-6)
    assert np.linalg.norm(a.T_world_camera[:3, 3]) > 0.1 and len(a.bodies) == len(b.bodies) > 0
    for x, y in zip(a.bodies, b.bodies, strict=True):
        x, y = x.joints_camera, y.joints_camera
        np.testing.assert_allclose(y[15], 1.5 * x[15], rtol=1e-4)
        np.testing.assert_allclose(y - y[15], x - x[15], atol=1e-4)
