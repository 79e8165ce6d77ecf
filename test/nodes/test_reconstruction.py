"""What several cameras share in one reconstructor, and which settings cannot be; without ROS."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.body.model import load_body_model
from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.nodes.parameters import config_from_flat
from human_scene_ros.nodes.reconstruction import Reconstruction, stream_config
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.runtime.stream import HumanSceneStream
from human_scene_ros.scene import CameraFrame

sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
from tiny_network import NANO, OFFICIAL, make  # noqa: E402 - lies in test/model

BODY = load_body_model()
RIG = {"cameras": ["left", "right"]}


def reconstruction(network, **parameters) -> Reconstruction:
    config = config_from_flat(ReconstructorConfig, {key.replace("__", "."): v for key, v in parameters.items()})
    return Reconstruction(HumanSceneStream(make(network), BODY, stream_config(config)), config)


def frame_of(k: int) -> CameraFrame:
    image = np.kron(np.random.default_rng(k).integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    return CameraFrame((k + 1) * 50_000_000, image, "optical", PinholeCamera.from_fov(160, 120, 70.0))


def test_a_pose_head_places_all_cameras_in_one_world():
    rig, plain = reconstruction(OFFICIAL, **RIG), reconstruction(OFFICIAL)
    assert rig.placed and "in one world" in rig.placing and plain.placing == ""
    for k in range(4):
        estimate = rig.step(("left", "right")[k % 2], frame_of(k))
        np.testing.assert_allclose(estimate.T_world_camera, plain.step("camera", frame_of(k)).T_world_camera, atol=1e-6)


@pytest.mark.parametrize(("network", "camera_pose", "why"), [
    (NANO, "static", "'tiny_nano' has no pose head"), (NANO, "auto", "'tiny_nano' has no pose head"),
    (OFFICIAL, "static", "camera_pose is 'static'")])
def test_without_it_every_camera_is_alone_and_that_is_said(network, camera_pose, why):
    rig = reconstruction(network, **RIG, camera_pose=camera_pose)
    alone = reconstruction(network, camera_pose=camera_pose)
    assert not rig.placed and rig.placing.startswith("no extrinsics from one recurrent state") and why in rig.placing
    rig.step("left", frame_of(0))
    estimate, expected = rig.step("right", frame_of(1)), alone.step("camera", frame_of(1))
    np.testing.assert_array_equal(estimate.points_camera, expected.points_camera)
    np.testing.assert_array_equal(estimate.T_world_camera, expected.T_world_camera)


def test_maps_are_kept_apart_and_none_of_them_is_saved_for_another():
    rig = reconstruction(NANO, **RIG, camera_pose="static", cloud__min_confidence=0.0, cloud__max_range=1000.0)
    estimate = rig.step("left", frame_of(0))
    wall_m = estimate.dense_camera.unproject_depth(np.full(estimate.person.shape, 2.0, np.float32))
    estimate = dataclasses.replace(estimate, bodies=(), person=np.zeros_like(estimate.person),
                                   points_camera=wall_m)
    for k in range(5):
        rig.add_to_map("left", dataclasses.replace(estimate, stamp_ns=k * 10**9))
    assert len(rig.map_points("left")[0]) > 0 and len(rig.map_points("right")[0]) == 0
    with pytest.raises(ConfigError, match=r"\['left', 'right'\] has a map of its own.*fusion_node"):
        rig.map_copy(include_people=False, voxel_m=0.0)
    rig.reset()
    assert len(rig.map_points("left")[0]) == 0 and rig.segment == 1


def test_semantic_points_want_the_points_of_people():
    with pytest.raises(ConfigError, match="cloud.people: remove.*set cloud.people to keep or only"):
        config_from_flat(ReconstructorConfig, {"cloud.semantic": True})
    assert config_from_flat(ReconstructorConfig, {"cloud.semantic": True, "cloud.people": "only"}).cloud.semantic


@pytest.mark.parametrize(("wrong", "text"), [
    ({"cameras": ["left", "left"]}, "a name is given twice"), ({"cameras": ["left/eye"]}, r"\['left/eye'\] cannot be"),
    ({**RIG, "tf.mode": "camera"}, "tf.mode: camera with cameras"),
    ({**RIG, "tf.base_frame": "base_link", "odometry.hint_frame": "odom"}, "tf.base_frame, odometry.hint_frame with")])
def test_settings_that_do_not_fit_several_cameras_are_refused(wrong, text):
    with pytest.raises(ConfigError, match=text):
        config_from_flat(ReconstructorConfig, wrong)
