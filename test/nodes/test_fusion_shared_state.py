"""Extrinsics from one recurrent state: one reconstructor fed by two cameras, and the fusion, through real topics.

The network has the official structure with narrow layers and random weights. A pose head of random weights places the
cameras somewhere, but always at the same places once its state has settled; that is all that is needed here.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ros_graph import graph, image_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from human_scene_ros.fusion.calibration import poses_from_scene  # noqa: E402
from human_scene_ros.geometry.transform import invert  # noqa: E402
from human_scene_ros.model.checkpoint import save_checkpoint  # noqa: E402
from human_scene_ros.msg import CameraExtrinsicsArray, FusedPersonArray, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.nodes.parameters import config_from_flat  # noqa: E402
from human_scene_ros.nodes.reconstruction import stream_config  # noqa: E402
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig  # noqa: E402
from human_scene_ros.runtime.engine import make_stream  # noqa: E402
from human_scene_ros.runtime.shared_state import SharedStateStream  # noqa: E402
from human_scene_ros.scene import CameraFrame  # noqa: E402
from human_scene_ros.sources import message_fields  # noqa: E402
from human_scene_ros.sources.reader import open_source  # noqa: E402
from human_scene_ros.sources.rig_file import read_rig  # noqa: E402
from human_scene_ros.srv import CalibrateExtrinsics  # noqa: E402

from helpers import REPOSITORY  # noqa: E402

sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
from tiny_network import OFFICIAL, make  # noqa: E402 - lies in test/model

pytestmark = pytest.mark.ros
DOMAIN = 48
PRESET = "human3r_672s"
RECORDED = {"front": "camera_0", "left": "camera_1"}
BEHIND_NS = {"front": 0, "left": 20_000_000}
START_NS, PERIOD_NS, FRAMES = 1_000_000_000, 100_000_000, 20


def test_one_state_places_two_cameras_in_one_world(tmp_path: Path):
    weights = save_checkpoint(tmp_path / "tiny.safetensors", make(dataclasses.replace(OFFICIAL, name=PRESET)),
                              {"note": "untrained"})
    parameters = {"model.preset": PRESET, "model.checkpoint": str(weights), "model.engine": "torch",
                  "camera_pose": "network", "map.enabled": False}
    views = {}
    for name, recorded in RECORDED.items():
        with open_source(REPOSITORY / "demo" / "recording_multi", f"/{recorded}/image/compressed") as source:
            views[name] = next(iter(source))

    def stamp_ns(name: str, k: int) -> int:
        return START_NS + k * PERIOD_NS + BEHIND_NS[name]

    with graph(DOMAIN, tmp_path) as g:
        bodies = {name: g.collect(SmplxBodyArray, f"{name}/human_scene/bodies") for name in RECORDED}
        people = g.collect(FusedPersonArray, "/people")
        extrinsics = g.collect(CameraExtrinsicsArray, "/extrinsics", qos.latched())
        publishers = {name: (g.publisher(Image, f"{name}/image"), g.publisher(CameraInfo, f"{name}/camera_info"))
                      for name in RECORDED}
        fusion = g.start("fusion_node", {"cameras": list(RECORDED), "diagnostics.period": 0.2, "sync.timeout": 20.0,
                                         "sync.dead_after": 20.0,
                                         **{f"{name}.extrinsics_source": "topic" for name in RECORDED}})
        node = g.start("reconstructor_node", {**parameters, "cameras": list(RECORDED), "input.drop_policy": "all",
                                              "sync.timeout": 20.0, "sync.dead_after": 2.0})
        # Meanwhile, what one stream says that sees the images of both in turn.
        config = stream_config(config_from_flat(ReconstructorConfig, parameters))
        state = SharedStateStream(make_stream(PRESET, weights, None, "cpu", 1, config, "torch"), list(RECORDED))
        expected: dict[str, list[np.ndarray]] = {name: [] for name in RECORDED}
        for k in range(FRAMES):
            for name, view in views.items():
                estimate = state.step(name, CameraFrame(stamp_ns(name, k), view.image, f"{name}_optical", view.camera))
                expected[name].append(estimate.T_world_camera)

        node.wait_output("ready: ")
        fusion.wait_output("ready: ")
        g.wait(lambda: all(p.get_subscription_count() for pair in publishers.values() for p in pair), "subscriptions")
        for name in RECORDED:
            g.wait_connected(f"human_scene: Input {name}", "bodies", 2)
        g.wait_connected("human_scene_fusion: Sync", "people")
        for name, (images, infos) in publishers.items():  # all of one camera first: their stamps make the order
            for k in range(FRAMES):
                infos.publish(convert.fill(CameraInfo(), message_fields.camera_info_fields(
                    stamp_ns(name, k), f"{name}_optical", views[name].camera)))
                images.publish(image_message(stamp_ns(name, k), views[name].image, frame_id=f"{name}_optical"))
        g.wait(lambda: all(len(found) == FRAMES for found in bodies.values()), "bodies of every image")
        for name in RECORDED:
            sent = [message_fields.matrix_of_pose(m.camera_pose.pose) for m in bodies[name]]
            np.testing.assert_allclose(sent, expected[name], atol=1e-4)
        places = [message_fields.matrix_of_pose(bodies[name][-1].camera_pose.pose) for name in RECORDED]
        assert np.linalg.norm(places[0][:3, 3] - places[1][:3, 3]) > 0.2

        # The fusion uses the newest pose of each, in their common world.
        g.wait(lambda: people and set(people[-1].cameras_used) == set(RECORDED), "sets of both cameras")
        g.wait(lambda: extrinsics and all(
            c.status == c.STATUS_OK
            and np.allclose(message_fields.matrix_of_pose(c.pose.pose), expected[c.camera_name][-1], atol=1e-4)
            for c in extrinsics[-1].cameras), "the newest poses")
        assert [(c.camera_name, c.source, c.parent_frame) for c in extrinsics[-1].cameras] == [
            (name, c.SOURCE_TOPIC, "map") for name, c in zip(RECORDED, extrinsics[-1].cameras, strict=True)]

        # The service averages them; what it finds is used and written.
        answer = g.call(CalibrateExtrinsics, "/human_scene_fusion/calibrate_extrinsics", CalibrateExtrinsics.Request(
            method=CalibrateExtrinsics.Request.METHOD_SCENE, apply=True, save_path=str(tmp_path / "rig.yaml")))
        assert answer.success, answer.message
        scene = poses_from_scene({name: np.array(expected[name]) for name in RECORDED})[1]
        found = [message_fields.matrix_of_pose(e.pose.pose) for e in answer.extrinsics]
        np.testing.assert_allclose(invert(found[0]) @ found[1], scene.T_first_camera, atol=1e-3)
        saved = read_rig(tmp_path / "rig.yaml")
        np.testing.assert_allclose([saved[name].T_world_camera for name in RECORDED], found, atol=1e-4)
        g.wait(lambda: all(c.source == c.SOURCE_SCENE for c in extrinsics[-1].cameras), "the averaged poses")
        assert node.stop() == 0 and fusion.stop() == 0, node.output + fusion.output
