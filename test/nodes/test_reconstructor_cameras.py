"""One reconstructor process for two cameras, through real topics."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from ros_graph import graph, image_message, picture, untrained_checkpoint  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.nodes.parameters import config_from_flat  # noqa: E402
from human_scene_ros.nodes.reconstruction import stream_config  # noqa: E402
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig  # noqa: E402
from human_scene_ros.runtime.engine import make_stream  # noqa: E402
from human_scene_ros.scene import CameraFrame  # noqa: E402
from human_scene_ros.sources.reader import open_source  # noqa: E402
from human_scene_ros.srv import SaveMap  # noqa: E402

from helpers import REPOSITORY  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 39
RIG = ("front", "left")
MS = 1_000_000
FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cameras")


@pytest.fixture(scope="module")
def parameters(folder):
    return {"model.engine": "torch", "diagnostics.period": 0.2, "camera_pose": "static", "map.enabled": False}


def adds_up(s: SceneStatus) -> bool:
    return s.frames_in == s.frames_processed + s.frames_dropped + s.frames_rejected + s.frames_pending


@pytest.fixture(scope="module")
def shown():
    """Camera -> the first images that two cameras of the shipped rig saw."""
    images = {}
    for name, recorded in zip(RIG, ("camera_0", "camera_1"), strict=True):
        with open_source(REPOSITORY / "demo" / "recording_multi", f"/{recorded}/image/compressed") as source:
            images[name] = [frame.image for _, frame in zip(range(FRAMES), source, strict=False)]
    return images


def test_one_network_gives_each_camera_what_its_own_would(folder, parameters, shown):
    stamps_ms = {"front": [100 * k for k in range(FRAMES)], "left": [100 * k + 40 for k in range(FRAMES)]}
    with graph(DOMAIN, folder) as g:
        bodies = {name: g.collect(SmplxBodyArray, f"{name}/human_scene/bodies") for name in RIG}
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(200))
        reports, transforms = g.collect(DiagnosticArray, "/diagnostics"), g.collect(TFMessage, "/tf")
        images = {"front": g.publisher(Image, "front/color/image"), "left": g.publisher(Image, "left/image")}
        node = g.start("reconstructor_node", {
            **parameters, "cameras": list(RIG), "input.drop_policy": "all", "sync.timeout": 20.0,
            "sync.dead_after": 2.0}, {"front/image": "front/color/image"})
        node.wait_output("ready: /front/color/image")
        assert "'nano' has no pose head" in node.output
        g.wait(lambda: all(p.get_subscription_count() for p in images.values()), "both subscriptions")
        for name in RIG:
            g.wait_connected(f"human_scene: Input {name}", "bodies")

        def send(name: str, *stamps: int) -> None:
            for stamp in stamps:
                images[name].publish(image_message((1000 + stamp) * MS, shown[name][stamp // 100 % FRAMES],
                                                   frame_id=f"{name}_optical"))

        send("front", *stamps_ms["front"])  # all of one camera first: the order is that of the stamps all the same
        send("left", *stamps_ms["left"])
        g.wait(lambda: all(len(b) == 6 for b in bodies.values()), "bodies of every image")
        g.wait(lambda: statuses and statuses[-1].frames_processed == 12, "the last status")
        last = statuses[-1]
        assert (last.frames_in, last.frames_dropped, last.frames_rejected, last.sync_timeouts) == (12, 0, 0, 0)
        assert all(adds_up(s) for s in statuses) and "no extrinsics from one recurrent state" in last.message
        assert "come after newer ones" not in last.message, "every image came in the order of the stamps"
        config = config_from_flat(ReconstructorConfig, parameters)
        seen = 0
        for name in RIG:
            alone = make_stream("nano", None, None, "cpu", 1, stream_config(config), "torch")
            for k, (stamp, message) in enumerate(zip(stamps_ms[name], bodies[name], strict=True)):
                estimate = alone.step(CameraFrame((1000 + stamp) * MS, shown[name][k], f"{name}_optical", None))
                assert (message.camera_name, message.header.frame_id, message.sequence) == (name, f"{name}_optical", k)
                assert convert.stamp_ns(message.header.stamp) == (1000 + stamp) * MS
                assert [b.track_id for b in message.bodies] == [f"b{b.track_id:04d}" for b in estimate.bodies]
                for got, expected in zip(message.bodies, estimate.bodies, strict=True):
                    np.testing.assert_allclose(np.array(got.joints).reshape(-1, 3), expected.joints_camera, atol=1e-3)
                seen += len(message.bodies)
        assert seen > 4
        assert not any(t.child_frame_id.startswith("body_") for m in transforms for t in m.transforms)
        refused = g.call(SaveMap, "human_scene/save_map", SaveMap.Request(path=str(folder / "map.ply")))
        assert not refused.success and "has a map of its own" in refused.message
        # One camera dies: the other waits for it once, for two seconds, and goes on.
        send("front", *(100 * k for k in range(6, 12)))
        g.wait(lambda: len(bodies["front"]) == 12, "the living camera")
        g.wait(lambda: statuses[-1].frames_processed == 18, "the count")
        names = {s.name for m in reports for s in m.status}
        assert {"human_scene: Input front", "human_scene: Input left"} <= names
        # The recording begins again: one new segment for all.
        send("front", 0)
        send("left", 40)
        g.wait(lambda: len(bodies["left"]) == 7 and len(bodies["front"]) == 13, "the first images again")
        assert bodies["front"][-1].segment == bodies["left"][-1].segment == 1
        assert node.stop() == 0


def test_live_cameras_take_turns_and_every_image_is_counted(folder, parameters):
    parameters = {**parameters, "model.checkpoint": str(untrained_checkpoint(folder))}
    with graph(DOMAIN, folder) as g:
        bodies = {name: g.collect(SmplxBodyArray, f"{name}/human_scene/bodies", 200) for name in RIG}
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(200))
        images = {name: g.publisher(Image, f"{name}/image", 200) for name in RIG}
        g.start("reconstructor_node", {**parameters, "cameras": list(RIG), "input.queue": 100, "input.max_age": 0.0})
        g.wait(lambda: all(p.get_subscription_count() for p in images.values()), "both subscriptions")
        for k in range(60):  # much faster than any CPU
            for name in RIG:
                images[name].publish(image_message(1000 * MS + k * MS, picture(640, 480, shift=k), frame_id=name))
        g.wait(lambda: statuses and (statuses[-1].frames_in, statuses[-1].frames_pending) == (120, 0),
               "all images to be counted")
        last = statuses[-1]
        assert all(adds_up(s) for s in statuses) and last.frames_processed + last.frames_dropped == 120
        assert last.frames_dropped > 0
        g.wait(lambda: sum(map(len, bodies.values())) == last.frames_processed, "the bodies")
        assert abs(len(bodies["front"]) - len(bodies["left"])) <= 2
        newest = {name: [convert.stamp_ns(m.header.stamp) for m in bodies[name]] for name in RIG}
        assert all(stamps == sorted(stamps) for stamps in newest.values())
        assert max(stamps[-1] for stamps in newest.values()) == 1059 * MS
