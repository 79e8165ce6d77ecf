"""Markers and overlay: right places, right ids, valid messages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.nodes import markers
from human_scene_ros.nodes.markers import BodyView, capsule_markers, color_of, skeleton_markers, trail_marker
from human_scene_ros.nodes.overlay import draw_people

HEADER = {"stamp": {"sec": 1, "nanosec": 0}, "frame_id": "optical"}


def a_body(track_id: str = "b0001", joints: int = 55) -> BodyView:
    rng = np.random.default_rng(1)
    points = (rng.random((joints, 3)) + [0.0, 0.0, 3.0]).astype(np.float32)
    return BodyView(track_id, points, (rng.random((joints, 2)) * [64, 48]).astype(np.float32), 0.9, False, 3.0)


def test_a_skeleton_has_one_line_per_bone():
    body = a_body()
    lines = skeleton_markers(body, PARENTS, HEADER)[0]
    ends = np.array([[p["x"], p["y"], p["z"]] for p in lines["points"]]).reshape(-1, 2, 3)
    assert len(ends) == 54
    np.testing.assert_allclose(ends[20], body.joints[[PARENTS[21], 21]])
    assert lines["ns"] == "b0001" and lines["header"] is HEADER
    assert len(skeleton_markers(a_body(joints=22), PARENTS, HEADER)[0]["points"]) == 42


def test_capsules_lie_along_their_limbs():
    body = a_body()
    shown = capsule_markers(body, HEADER)
    assert len({m["id"] for m in shown}) == len(shown)
    for (start, end, radius), marker in zip(markers.CAPSULES, shown, strict=False):
        q = marker["pose"]["orientation"]
        axis = Rotation.from_quat([q["x"], q["y"], q["z"], q["w"]]).apply([0.0, 0.0, 1.0])
        limb = body.joints[end] - body.joints[start]
        np.testing.assert_allclose(axis, limb / np.linalg.norm(limb), atol=1e-6)
        np.testing.assert_allclose(list(marker["scale"].values()),
                                   [2 * radius, 2 * radius, np.linalg.norm(limb)], rtol=1e-6)


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0, -1, 0)])
def test_a_limb_may_point_anywhere(direction):
    joints = np.zeros((22, 3), np.float32)
    joints[4] = direction
    joints[1] = 0
    marker = next(m for m in capsule_markers(BodyView("b1", joints, np.zeros((0, 2)), 1.0, False, 1.0), HEADER)
                  if m["type"] == markers.CYLINDER)
    q = marker["pose"]["orientation"]
    axis = Rotation.from_quat([q["x"], q["y"], q["z"], q["w"]]).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(axis, direction, atol=1e-9)


def test_colors_stay_with_the_id_and_differ_between_neighbours():
    assert color_of("b0001") == color_of("b0001") != color_of("b0002")
    assert color_of("alice")["a"] == 1.0


def test_the_overlay_draws_on_a_copy_and_survives_points_far_away():
    image = np.zeros((48, 64, 3), np.uint8)
    wild = a_body()
    wild.joint_uv_px[:5] = [[np.nan, 0], [1e9, 2], [-1e30, 1], [np.inf, 1], [5e4, 5e4]]
    unseen = BodyView("b2", wild.joints, np.zeros((0, 2), np.float32), 1.0, True, 2.0)
    drawn = draw_people(image, [wild, unseen], PARENTS)
    assert drawn.any() and not image.any() and drawn.shape == image.shape


@pytest.mark.ros
def test_all_markers_fill_real_messages():
    pytest.importorskip("rclpy")
    from visualization_msgs.msg import Marker, MarkerArray

    from human_scene_ros.nodes import convert

    body = a_body()
    fields = [*skeleton_markers(body, PARENTS, HEADER), *capsule_markers(body, HEADER),
              trail_marker("b0001", body.joints, HEADER),
              markers.mesh_marker("b0001", body.joints, np.array([[0, 1, 2], [2, 3, 4]]), HEADER),
              markers.erase_marker("b0009", 2, HEADER)]
    message = convert.fill(MarkerArray(), {"markers": [convert.fill(Marker(), f) for f in fields]})
    assert message.markers[-1].action == Marker.DELETE and message.markers[0].type == Marker.LINE_LIST
    assert {m.type for m in message.markers[:-1]} == {
        Marker.LINE_LIST, Marker.SPHERE_LIST, Marker.TEXT_VIEW_FACING, Marker.CYLINDER, Marker.LINE_STRIP,
        Marker.TRIANGLE_LIST}
