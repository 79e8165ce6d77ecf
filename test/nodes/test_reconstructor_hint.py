"""Robot odometry from /tf: the camera goes where it says while the image has nothing to follow, and on without it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from ros_graph import graph, image_message, untrained_checkpoint  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from human_scene_ros.geometry.transform import invert, make_transform  # noqa: E402
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.nodes.diagnostics import Notes  # noqa: E402
from human_scene_ros.nodes.pose_hint import PATIENT_MISSES, PoseHints  # noqa: E402
from human_scene_ros.nodes.reconstructor_config import OdometryConfig  # noqa: E402
from human_scene_ros.nodes.tf_tree import TfTree  # noqa: E402
from human_scene_ros.sources import message_fields  # noqa: E402

DOMAIN = 38
T_BASE_OPTICAL = make_transform(Rotation.from_euler("zyx", [-90.0, 0.0, -100.0], degrees=True).as_matrix(),
                                np.array([0.2, 0.1, 1.1]))


def base_at(seconds):
    """T_odom_base of a robot that drives a left turn, somewhere in its odometry frame."""
    yaw = 0.5 * seconds
    return make_transform(Rotation.from_euler("z", 1.0 + yaw).as_matrix(),
                          np.array([3.0 + 0.8 * np.sin(yaw), -2.0 + 0.8 * (1.0 - np.cos(yaw)), 0.0]))


def test_a_hint_is_the_camera_in_the_asked_frame_at_the_stamp():
    tree, notes = TfTree(), Notes()
    hints = PoseHints(tree, OdometryConfig("odom", 0.0, 0.03, 0.04), notes)
    tree.add("base", "optical", 0, T_BASE_OPTICAL, static=True)
    tree.add("odom", "base", 10**9, base_at(1.0))
    hint = hints.at("optical", 10**9)
    np.testing.assert_allclose(hint.T_hint_camera, base_at(1.0) @ T_BASE_OPTICAL, atol=1e-12)
    assert (hint.rotation_noise, hint.translation_noise_m) == (0.03, 0.04)
    assert hints.at("optical", 2 * 10**9) is None and hints.missed == 1
    assert "1000.0 ms older" in notes.worst()[1][0] and "odometry.hint_frame is 'odom'" in notes.worst()[1][0]
    assert hints.at("optical", 10**9) is not None and not notes.worst()[1]


def test_without_a_frame_nothing_is_asked_and_nothing_missed():
    hints = PoseHints(TfTree(), OdometryConfig(), Notes())
    assert hints.at("optical", 0) is None and hints.missed == 0


def test_images_stop_waiting_for_a_transform_that_never_comes():
    import time

    hints = PoseHints(TfTree(), OdometryConfig("odom", 0.02), Notes())
    begun = time.monotonic()
    for i in range(200):
        assert hints.at("optical", i) is None
    assert hints.missed == 200
    assert PATIENT_MISSES * 0.02 <= time.monotonic() - begun < 2.0  # 4 s if each waited


@pytest.mark.ros
def test_the_camera_follows_the_robot_while_the_image_is_blank(tmp_path):
    parameters = {"model.checkpoint": str(untrained_checkpoint(tmp_path)), "diagnostics.period": 0.2,
                  "input.drop_policy": "all", "odometry.hint_frame": "odom", "odometry.hint_wait": 1.0}
    blank = np.full((120, 160, 3), 90, np.uint8)
    with graph(DOMAIN, tmp_path) as g:
        poses = g.collect(PoseWithCovarianceStamped, "human_scene/camera_pose", 50)
        reports = g.collect(DiagnosticArray, "/diagnostics", 50)
        images, moving = g.publisher(Image, "image", 10), g.publisher(TFMessage, "/tf", 100)
        fixed = g.publisher(TFMessage, "/tf_static", qos.latched(1))
        g.start("reconstructor_node", parameters)
        g.wait(lambda: all(p.get_subscription_count() for p in (images, moving, fixed)), "the subscriptions")
        fixed.publish(convert.to_tf_message([("base", "optical", 0, T_BASE_OPTICAL)]))
        stamps_s = [1.0 + 0.1 * i for i in range(6)]
        for i, at_s in enumerate(stamps_s):
            images.publish(image_message(round(at_s * 1e9), blank))  # the image first: /tf may come after it
            for beside_s in (at_s - 0.013, at_s + 0.012):  # never at the stamp itself
                moving.publish(convert.to_tf_message([("odom", "base", round(beside_s * 1e9), base_at(beside_s))]))
            g.wait(lambda n=i: len(poses) == n + 1, "a pose")
        seen = [message_fields.matrix_of_pose(p.pose.pose) for p in poses]
        for at_s, T_world_camera in zip(stamps_s, seen, strict=True):
            moved = invert(base_at(stamps_s[0]) @ T_BASE_OPTICAL) @ base_at(at_s) @ T_BASE_OPTICAL
            np.testing.assert_allclose(invert(seen[0]) @ T_world_camera, moved, atol=1e-3)
        assert np.linalg.norm(moved[:3, 3]) > 0.1
        images.publish(image_message(2 * 10**9, blank))  # nothing on /tf for it
        g.wait(lambda: len(poses) == 7, "a pose without a hint")
        g.wait(lambda: any(v.key == "hints_missed" and v.value == "1" for r in reports for s in r.status
                           for v in s.values), "the count in diagnostics")
        g.wait(lambda: any("no odometry hint" in s.message for r in reports for s in r.status), "the note")
