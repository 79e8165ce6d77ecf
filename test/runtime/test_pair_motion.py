"""The pair head followed from image to image: what it must do whatever its weights, and in a textured room."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.geometry.transform import invert, rotation_angle
from human_scene_ros.model.pair_pose import PairPose
from human_scene_ros.runtime.pair_motion import follow
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.scene import CameraFrame, TrackingStatus

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "model")]
import planes  # noqa: E402 - lies next to this file
from tiny_network import NANO, make  # noqa: E402 - lies in test/model

CAMERA = planes.CAMERA.resized(160, 120).cropped(0, 4, 160, 112)
NOBODY = np.zeros((112, 160), bool)


@pytest.fixture(scope="module")
def head() -> PairPose:
    """Untrained: its descriptors are the cosine patterns, and nothing mends what they say."""
    torch.manual_seed(0)
    head = PairPose().eval()
    with torch.no_grad():
        head.out.weight.zero_()
    return head


def seen(T: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    image, depth = planes.render(T, CAMERA)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1, depth


def test_the_first_image_is_the_origin_and_knows_no_motion(head):
    image, depth = seen(planes.pose())
    state = follow(head, image, CAMERA, depth, NOBODY, None)
    np.testing.assert_array_equal(state.hint.T_hint_camera, np.eye(4))
    assert np.isinf([state.hint.rotation_noise, state.hint.translation_noise_m]).all()


def test_the_same_image_again_is_no_motion(head):
    image, depth = seen(planes.pose())
    state = follow(head, image, CAMERA, depth, NOBODY, follow(head, image, CAMERA, depth, NOBODY, None))
    assert rotation_angle(state.hint.T_hint_camera[:3, :3]) < np.radians(0.1)
    assert np.linalg.norm(state.hint.T_hint_camera[:3, 3]) < 0.01
    assert 0 < state.hint.rotation_noise < 10


def test_turns_in_a_textured_room_add_up(head):
    state = None
    poses = [planes.pose(yaw_deg=0.8 * i, pitch_deg=-0.3 * i) for i in range(6)]
    for T in poses:
        image, depth = seen(T)
        state = follow(head, image, CAMERA, depth, NOBODY, state)
    away = np.linalg.inv(poses[-1]) @ state.hint.T_hint_camera
    assert np.degrees(rotation_angle(away[:3, :3])) < 2.0  # of 4: untrained matches lean to the middle of their windows
    np.testing.assert_allclose(state.hint.T_hint_camera[:3, :3] @ state.hint.T_hint_camera[:3, :3].T, np.eye(3),
                               atol=1e-9)


def test_another_camera_keeps_the_pose_and_says_that_it_knows_nothing(head):
    image, depth = seen(planes.pose())
    state = follow(head, image, CAMERA, depth, NOBODY, None)
    image, depth = seen(planes.pose(x=0.05))
    state = follow(head, image, CAMERA, depth, NOBODY, state)
    other = dataclasses.replace(CAMERA, fx=1.5 * CAMERA.fx)
    after = follow(head, image, other, depth, NOBODY, state)
    np.testing.assert_array_equal(after.hint.T_hint_camera, state.hint.T_hint_camera)
    assert np.isinf(after.hint.translation_noise_m)


def test_depth_that_is_nowhere_known_does_no_harm(head):
    image, _ = seen(planes.pose())
    nowhere = np.full((112, 160), np.nan)
    state = follow(head, image, CAMERA, nowhere, NOBODY, follow(head, image, CAMERA, nowhere, NOBODY, None))
    assert np.isfinite(state.hint.T_hint_camera).all()


@pytest.mark.parametrize("way", ["network", "guarded"])
def test_a_stream_takes_its_motion_from_the_pair_head(head, way):
    """By the head alone and as what the odometry expects; the same again from a saved state, and a fresh start."""
    network = make(NANO, pair_pose=True)
    network.pair_pose = head
    with torch.no_grad():
        network.downstream_head.mlp_msk.last.bias -= 20  # random weights see people everywhere
    stream = HumanSceneStream(network, load_body_model(),
                              StreamConfig(camera_pose=way, world="level", max_people=0))
    frames = [CameraFrame(i * 100_000_000, planes.render(planes.pose(yaw_deg=0.8 * i))[0], "cam", planes.CAMERA)
              for i in range(5)]
    estimates = [stream.step(frame) for frame in frames[:4]]
    saved = stream.state()
    estimates.append(stream.step(frames[4]))
    assert {e.status for e in estimates} == {TrackingStatus.OK}
    assert (stream.state().odometry is None) == (way == "network")
    moved = invert(estimates[0].T_world_camera) @ estimates[-1].T_world_camera
    assert np.degrees(rotation_angle(moved[:3, :3] @ planes.pose(yaw_deg=3.2)[:3, :3].T)) < 1.6
    stream.load_state(saved)
    np.testing.assert_array_equal(stream.step(frames[4]).T_world_camera, estimates[-1].T_world_camera)
    stream.reset()
    np.testing.assert_array_equal(stream.step(frames[4]).T_world_camera, estimates[0].T_world_camera)


def test_without_being_asked_the_odometry_goes_on_alone():
    stream = HumanSceneStream(make(NANO, pair_pose=True), load_body_model(), StreamConfig(world="level"))
    stream.step(CameraFrame(0, planes.render(planes.pose())[0], "cam", planes.CAMERA))
    assert stream.state().pair is None and stream.state().odometry is not None
