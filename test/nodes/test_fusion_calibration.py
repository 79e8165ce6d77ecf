"""Calibration from people through the service: what is found is used, saved and reaches /tf_static."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from human_scene_ros.commands.fusion_clip import START_NS, WORLD_FRAME, camera_names, clip_messages, write_body
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.message_fields import time_fields
from human_scene_ros.synthetic.multiview import MultiviewClip, MultiviewConfig, generate


def exact_joints(clip: MultiviewClip, camera: int, person: int, k: int) -> np.ndarray:
    """(22, 3) true joints of a person in a camera."""
    return apply(invert(clip.T_world_camera_true[camera]), clip.truth[person, k, :22])


@pytest.mark.ros
def test_poses_from_people_are_used_and_sent(tmp_path: Path):
    """Two cameras nobody has placed; after the service both take part, and /tf_static says where they stand."""
    pytest.importorskip("rclpy")
    from ros_graph import graph
    from sensor_msgs.msg import PointCloud2
    from tf2_msgs.msg import TFMessage

    from human_scene_ros.msg import FusedPersonArray, SmplxBodyArray
    from human_scene_ros.nodes import convert, qos
    from human_scene_ros.srv import CalibrateExtrinsics

    clip = generate(MultiviewConfig("ring", 4, 1, 120, 6))
    names = [camera_names(clip)[0], camera_names(clip)[1]]
    body = tmp_path / "body.npz"
    write_body(body)
    messages = exact_messages(clip, names, body)
    with graph(74, tmp_path) as g:
        process = g.start("fusion_node", {"cameras": names, "body": str(body), "person.timeout": 0.5,
                                          "sync.timeout": 20.0, "sync.dead_after": 20.0,
                                          "map.enabled": True, "map.rate": 5.0})
        publishers = {n: g.publisher(SmplxBodyArray, f"/{n}/human_scene/bodies", qos.reliable(50)) for n in names}
        people = g.collect(FusedPersonArray, "/people")
        static = g.collect(TFMessage, "/tf_static", qos.latched(10))
        process.wait_output("ready: ")
        g.wait(lambda: all(p.get_subscription_count() for p in publishers.values()), "subscriptions")
        g.wait_connected("human_scene_fusion: Sync", "people")

        def play(part: list[tuple[str, Any]]) -> None:
            before = len(people)
            for name, fields in part:
                publishers[name].publish(convert.fill(SmplxBodyArray(), fields))
                g.spin(0.01)
            g.wait(lambda: len(people) >= before + len(part) // 2 - 1, "sets")

        play(messages[:160])
        assert not people[-1].cameras_used and not people[-1].people
        answer = g.call(CalibrateExtrinsics, "/human_scene_fusion/calibrate_extrinsics",
                        CalibrateExtrinsics.Request(apply=True, save_path=str(tmp_path / "rig.yaml")))
        assert answer.success, answer.message
        g.wait(lambda: static and len(static[-1].transforms) == 2, "/tf_static with both")
        sent = {t.child_frame_id: convert.from_transform(t)[3] for t in static[-1].transforms}
        assert set(sent) == {f"{n}_optical" for n in names}
        true = invert(clip.T_world_camera_true[0]) @ clip.T_world_camera_true[1]
        found = invert(sent[f"{names[0]}_optical"]) @ sent[f"{names[1]}_optical"]
        np.testing.assert_allclose(found, true, atol=5e-3)
        assert (tmp_path / "rig.yaml").is_file() and (tmp_path / "rig.urdf").is_file()
        play(messages[160:])
        assert set(people[-1].cameras_used) == set(names)
        assert any(p.num_views == 2 for a in people for p in a.people)
        # --- the map of a reconstructor, whose world is another one, in the world of the rig
        merged = g.collect(PointCloud2, "/map/cloud", qos.latched(1))
        wall = np.random.default_rng(0).uniform(-1.0, 1.0, (200, 3)).astype(np.float32)
        own = g.publisher(PointCloud2, f"/{names[0]}/human_scene/map/cloud", qos.latched(1))
        own.publish(convert.fill(PointCloud2(), message_fields.point_cloud_fields(0, "own", wall, None)))
        g.wait(lambda: merged and merged[-1].width, "the merged map")
        expected = apply(invert(clip.T_world_camera_given[0]), wall)  # the first camera stands at the origin here
        seen, _ = message_fields.points_of_cloud(merged[-1])
        assert merged[-1].header.frame_id == "map" and len(seen) > 150
        assert np.linalg.norm(seen[:, None] - expected[None], axis=2).min(axis=1).max() < 0.05
        scene = g.call(CalibrateExtrinsics, "/human_scene_fusion/calibrate_extrinsics",
                       CalibrateExtrinsics.Request(method=CalibrateExtrinsics.Request.METHOD_SCENE))
        assert scene.success and "by the scene" in scene.message, scene.message
        assert scene.extrinsics[1].source == scene.extrinsics[1].SOURCE_SCENE
        by_scene = [message_fields.matrix_of_pose(e.pose.pose) for e in scene.extrinsics]
        given = invert(clip.T_world_camera_given[0]) @ clip.T_world_camera_given[1]
        np.testing.assert_allclose(invert(by_scene[0]) @ by_scene[1], given, atol=1e-4)
        bad = g.call(CalibrateExtrinsics, "/human_scene_fusion/calibrate_extrinsics",
                     CalibrateExtrinsics.Request(cameras=["nobody", names[0]]))
        assert not bad.success and "expected two or more of" in bad.message
        assert process.stop() == 0, process.output


def exact_messages(clip: MultiviewClip, names: list[str], body: Path) -> list[tuple[str, Any]]:
    """Camera and fields of messages whose joints are the truth, in order of their stamps."""
    templates = {m.camera: m.fields for m in clip_messages(clip, body) if len(m.fields["bodies"]) == 1}
    result = []
    for k in range(clip.truth.shape[1]):
        for name in names:
            fields = dict(templates[name])
            person = dict(fields["bodies"][0])
            joints = np.array(person["joints"]).reshape(-1, 3).copy()
            joints[:22] = exact_joints(clip, camera_names(clip).index(name), 0, k)
            fields["bodies"] = [{**person, "joints": joints.reshape(-1).astype(np.float32), "track_id": "b0001"}]
            stamp = START_NS + round(k * 1e9 / 30.0)
            fields["header"] = {"stamp": time_fields(stamp), "frame_id": f"{name}_optical"}
            assert fields["world_frame"] == WORLD_FRAME
            result.append((name, fields))
    return result
