"""Depth images beside the colour images: found by stamp, used for scale, refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from ros_graph import graph, image_message, picture, untrained_checkpoint  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from human_scene_ros.errors import ImageError  # noqa: E402
from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.nodes.camera_input import registered_depth  # noqa: E402
from human_scene_ros.sources.calibration import Calibration  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 36


def depth_message(stamp_ns, depth_m):
    values = np.round(depth_m * 1000).astype(np.uint16)
    height, width = depth_m.shape
    return convert.fill(Image(), {
        "header": {"stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}, "frame_id": "optical"},
        "encoding": "16UC1", "height": height, "width": width, "step": values.strides[0], "is_bigendian": 0,
        "data": values.tobytes()})


def test_depth_of_another_size_is_the_nearest_reading_and_of_another_shape_refused():
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert registered_depth(depth, 4, 3) is depth
    np.testing.assert_array_equal(registered_depth(depth, 8, 6), np.kron(depth, np.ones((2, 2))))
    with pytest.raises(ImageError, match="4x3 px, the image 8x3.*registered"):
        registered_depth(depth, 8, 3)


def test_distortion_is_removed_from_depth_as_from_the_image():
    rng = np.random.default_rng(0)
    depth = np.kron(rng.uniform(1.0, 4.0, (6, 8)), np.ones((10, 10))).astype(np.float32)
    info = type("Info", (), {"k": [60.0, 0, 39.5, 0, 60.0, 29.5, 0, 0, 1], "p": [0.0] * 12, "d": [-0.3, 0.1, 0, 0, 0],
                             "distortion_model": "plumb_bob", "width": 80, "height": 60})()
    calibration = Calibration.from_message(info, 80, 60)
    header = depth_message(10**9, depth).header
    image = np.repeat((depth * 60).astype(np.uint8)[..., None], 3, axis=2)
    frame = convert.to_camera_frame(header, image, calibration, depth)
    assert set(np.unique(frame.depth_m)) <= {0.0, *np.unique(depth)}, "readings are never mixed"
    inside = np.abs(frame.depth_m * 60 - frame.image[..., 0]) < 2.0
    assert inside[10:-10, 10:-10].mean() > 0.85  # all but the edges between cells


def test_depth_gives_the_scale_and_its_absence_is_told(tmp_path):
    parameters = {"model.checkpoint": str(untrained_checkpoint(tmp_path)), "diagnostics.period": 0.2,
                  "input.use_depth": True, "input.drop_policy": "all"}
    with graph(DOMAIN, tmp_path) as g:
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 50)
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(50))
        reports = g.collect(DiagnosticArray, "/diagnostics", 50)
        images, depths = g.publisher(Image, "image", 10), g.publisher(Image, "aligned/depth", 10)
        g.start("reconstructor_node", parameters, {"depth": "aligned/depth"})
        g.wait(lambda: images.get_subscription_count() and depths.get_subscription_count(), "the subscriptions")
        depth = np.full((120, 160), 2.5)  # half the size of the image
        for i in range(3):
            stamp_ns = 10**9 + i * 10**8
            images.publish(image_message(stamp_ns, picture(320, 240, shift=i)))  # the image first, as drivers do
            depths.publish(depth_message(stamp_ns + 5 * 10**6, depth))
            g.wait(lambda n=i: len(bodies) == n + 1, "bodies")
        g.wait(lambda: statuses[-1].frames_processed == 3, "the status")
        assert statuses[-1].scale_source == SceneStatus.SCALE_DEPTH and statuses[-1].scale > 0.0
        assert not statuses[-1].message or "depth" not in statuses[-1].message
        g.wait(lambda: any(v.key == "scale_by_people" for r in reports for s in r.status for v in s.values
                           if s.name.endswith("Tracking")), "what people say of the sensor")
        for stamp_ns, bad in ((2 * 10**9, None), (3 * 10**9, np.full((90, 160), 2.5))):
            if bad is not None:
                depths.publish(depth_message(stamp_ns, bad))
            images.publish(image_message(stamp_ns, picture(320, 240)))
            text = "no depth image within" if bad is None else "160x90 px, the image 320x240"
            g.wait(lambda t=text: any(t in s.message for s in statuses), text)
        g.wait(lambda: len(bodies) == 5, "bodies without depth")
        g.wait(lambda: any("aligned/depth" in s.message for r in reports for s in r.status), "the topic in diagnostics")
