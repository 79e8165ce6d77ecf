"""One recurrent state for several cameras: the same as one stream that sees all frames, with tracks kept apart."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.body.model import load_body_model
from human_scene_ros.errors import ConfigError, ImageError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.runtime.shared_state import CameraStreams, SharedStateStream
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.scene import CameraFrame

sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
from tiny_network import NANO, OFFICIAL, make  # noqa: E402 - lies in test/model

BODY = load_body_model()
EVERYBODY = StreamConfig(min_score=1e-6, max_people=3, world="level")


def stream_of(config=OFFICIAL, stream_config: StreamConfig = EVERYBODY) -> HumanSceneStream:
    return HumanSceneStream(make(config), BODY, stream_config)


def frame_of(k: int, width: int = 160, height: int = 120) -> CameraFrame:
    rng = np.random.default_rng(k)
    image = np.kron(rng.integers(0, 255, (height // 20, width // 20, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    return CameraFrame((k + 1) * 50_000_000, image, "optical", PinholeCamera.from_fov(width, height, 70.0))


def test_poses_are_those_of_one_stream_that_sees_all_frames_in_order():
    shared, plain = SharedStateStream(stream_of(), ["left", "right"]), stream_of()
    poses = []
    for k in range(6):
        estimate = shared.step(("left", "right")[k % 2], frame_of(k))
        expected = plain.step(frame_of(k))
        np.testing.assert_allclose(estimate.T_world_camera, expected.T_world_camera, atol=1e-6)
        np.testing.assert_allclose(estimate.points_camera, expected.points_camera, atol=1e-5)
        poses.append(estimate.T_world_camera)
    assert max(np.abs(a - b).max() for a, b in zip(poses[1:], poses[:-1], strict=True)) > 1e-6, "the pose head speaks"


def test_what_one_camera_saw_is_remembered_when_the_other_looks():
    together = SharedStateStream(stream_of(), ["left", "right"])
    together.step("left", frame_of(0))
    alone = SharedStateStream(stream_of(), ["left", "right"])
    first, second = together.step("right", frame_of(1)), alone.step("right", frame_of(1))
    assert np.nanmax(np.abs(first.points_camera - second.points_camera)) > 1e-6


def test_cameras_of_different_size_and_a_bad_frame_between_them():
    shared, clean = (SharedStateStream(stream_of(), ["left", "right"]) for _ in range(2))
    for k in range(4):
        frame = frame_of(k) if k % 2 else frame_of(k, 120, 200)
        name = ("left", "right")[k % 2]
        with pytest.raises(ImageError):
            shared.step(name, dataclasses.replace(frame, image=frame.image[..., 0]))
        np.testing.assert_array_equal(shared.step(name, frame).T_world_camera, clean.step(name, frame).T_world_camera)


@pytest.mark.parametrize("config", [NANO, OFFICIAL], ids=lambda c: c.name)
def test_cameras_with_memories_of_their_own_are_as_many_streams(config):
    together = CameraStreams(stream_of(config), ["left", "right"])
    alone = {"left": stream_of(config), "right": stream_of(config)}
    for k in range(6):
        name = ("left", "right", "left")[k % 3]
        estimate, expected = together.step(name, frame_of(k)), alone[name].step(frame_of(k))
        np.testing.assert_array_equal(estimate.T_world_camera, expected.T_world_camera)
        np.testing.assert_array_equal(estimate.points_camera, expected.points_camera)
        assert [b.track_id for b in estimate.bodies] == [b.track_id for b in expected.bodies]
    together.reset()
    for name in ("left", "right"):
        alone[name].reset()
        estimate, expected = together.step(name, frame_of(9)), alone[name].step(frame_of(9))
        assert estimate.segment == expected.segment == together.segment == 1
        assert [b.track_id for b in estimate.bodies] == [b.track_id for b in expected.bodies]


def test_a_reset_starts_a_new_world_for_all():
    shared = SharedStateStream(stream_of(), ["left", "right"])
    first = shared.step("left", frame_of(0))
    shared.step("right", frame_of(1))
    shared.reset()
    again = shared.step("left", frame_of(0))
    assert (first.segment, again.segment, shared.segment) == (0, 1, 1)
    np.testing.assert_array_equal(first.T_world_camera, again.T_world_camera)


def test_what_cannot_work_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="'tiny_nano' has no pose head.*human-scene calibrate"):
        SharedStateStream(stream_of(NANO), ["left"])
    with pytest.raises(ConfigError, match="needs 'network'.*cannot place"):
        SharedStateStream(stream_of(stream_config=StreamConfig(camera_pose="static")), ["left"])
    with pytest.raises(ConfigError, match="each once"):
        SharedStateStream(stream_of(), ["left", "left"])
    with pytest.raises(ConfigError, match="'middle' is unknown"):
        SharedStateStream(stream_of(), ["left"]).step("middle", frame_of(0))
