"""The recorder as a process: what was sent is what is in the folder, and signals do not hurt it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_graph import graph, image_message, picture  # noqa: E402
from rosbags.interfaces import QosDurability, QosReliability  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, PointCloud2  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from human_scene_ros.msg import SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import qos  # noqa: E402
from human_scene_ros.nodes.convert import fill  # noqa: E402
from human_scene_ros.sources import message_fields as fields_of  # noqa: E402
from human_scene_ros.sources.bag_reader import BagReader  # noqa: E402
from human_scene_ros.sources.image_codec import decode_message  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 75


def stamp(i: int) -> int:
    return 1_700_000_000_000_000_000 + i * 50_000_000


def read(folder: Path) -> tuple[dict[str, list[tuple[int, object]]], BagReader]:
    messages: dict[str, list[tuple[int, object]]] = {}
    with BagReader(folder) as bag:
        for topic, stamp_ns, data in bag.messages():
            messages.setdefault(topic, []).append((stamp_ns, bag.deserialize(topic, data)))
    return messages, bag


def cloud(i: int) -> PointCloud2:
    points = np.random.default_rng(i).normal(size=(2000, 3)).astype(np.float32)
    return fill(PointCloud2(), fields_of.point_cloud_fields(stamp(i), "lens", points, None))


def test_the_recording_is_what_was_sent(tmp_path):
    with graph(DOMAIN, tmp_path) as g:
        images = g.publisher(Image, "/cam/image", qos.reliable(200))
        clouds = g.publisher(PointCloud2, "/scene/cloud", qos.reliable(200))
        static = g.publisher(TFMessage, "/tf_static", qos.latched())
        loose = g.publisher(String, "/loose", QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT))
        secret = g.publisher(String, "/not/asked")
        # Latched and sent before the recorder exists: it must still be in the recording.
        static.publish(fill(TFMessage(), fields_of.transforms_fields([(stamp(0), "base", "lens", np.eye(4))])))
        recorder = g.start("record_node", {
            "output": str(tmp_path / "scene"), "stamps": "header",
            "topics": ["/cam/image", "/scene/*", "/tf_static", "/loose"]})
        recorder.wait_output("ready: ")
        g.wait(lambda: all(p.get_subscription_count() == 1 for p in (images, clouds, static, loose)), "the recorder")
        for i in range(100):
            images.publish(image_message(stamp(i), picture(shift=i)))
            clouds.publish(cloud(i))
            secret.publish(String(data="private"))
            g.spin(0.0)
        loose.publish(String(data="hello"))
        g.wait(lambda: images.wait_for_all_acked() and clouds.wait_for_all_acked(), "delivery")
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 0, recorder.output
        assert "lost" not in recorder.output and "Traceback" not in recorder.output
    messages, bag = read(tmp_path / "scene")
    assert {t: len(m) for t, m in messages.items()} == {"/cam/image": 100, "/scene/cloud": 100, "/tf_static": 1,
                                                        "/loose": 1}
    for i, (stamp_ns, image) in enumerate(messages["/cam/image"]):
        assert stamp_ns == stamp(i)
        np.testing.assert_array_equal(decode_message(image), picture(shift=i))
    for i, (stamp_ns, recorded) in enumerate(messages["/scene/cloud"]):
        assert stamp_ns == stamp(i) and recorded.data.tobytes() == bytes(cloud(i).data)
    assert messages["/loose"][0][1].data == "hello"
    # A message without a stamp lies beside the newest that has one, not in another age.
    assert stamp(0) <= messages["/loose"][0][0] <= stamp(99)
    assert bag.topics["/tf_static"].qos[0].durability == QosDurability.TRANSIENT_LOCAL
    assert bag.topics["/cam/image"].qos[0].durability == QosDurability.VOLATILE
    assert bag.topics["/loose"].qos[0].reliability == QosReliability.BEST_EFFORT


def test_it_is_ready_when_the_named_topics_have_publishers(tmp_path):
    with graph(DOMAIN, tmp_path) as g:
        recorder = g.start("record_node", {"output": str(tmp_path / "scene"), "topics": ["/a", "/b"]})
        a = g.publisher(String, "/a")
        g.wait(lambda: a.get_subscription_count() == 1, "the recorder")
        assert "ready" not in recorder.output
        b = g.publisher(String, "/b")
        recorder.wait_output("ready: 2 topics matched")
        g.wait(lambda: b.get_subscription_count() == 1, "the recorder")
        a.publish(String(data="x"))
        a.wait_for_all_acked()
        recorder.signal(signal.SIGTERM)
        recorder.signal(signal.SIGTERM)
        assert recorder.wait() == 0, recorder.output
        assert "no message came on /b" in recorder.output
    messages, _ = read(tmp_path / "scene")
    assert [m.data for _, m in messages["/a"]] == ["x"]
    assert messages["/a"][0][0] > 1_750_000_000_000_000_000  # the time of arrival


def test_a_topic_that_never_comes_is_named(tmp_path):
    with graph(DOMAIN, tmp_path) as g:
        recorder = g.start("record_node", {"output": str(tmp_path / "scene"), "topics": ["/a"], "wait_timeout": 0.5})
        recorder.wait_output("no publisher within 0.5 s: /a")
        recorder.wait_output("ready: 0 topics matched")
        recorder.signal(signal.SIGINT)
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 0, recorder.output


def test_colour_images_become_jpeg_and_measurements_do_not(tmp_path):
    depth = np.linspace(0.5, 5.0, 64 * 48).reshape(48, 64).astype(np.float32)
    mask = np.arange(64 * 48, dtype=np.uint32).reshape(48, 64).astype(np.uint8)
    with graph(DOMAIN, tmp_path) as g:
        publishers = {t: g.publisher(Image, t, qos.reliable(10)) for t in ("/overlay", "/depth", "/mask")}
        broken = g.publisher(Image, "/broken", qos.reliable(10))
        recorder = g.start("record_node", {"output": str(tmp_path / "scene"), "jpeg": True,
                                           "topics": ["/overlay", "/depth", "/mask", "/broken"]})
        g.wait(lambda: all(p.get_subscription_count() for p in (*publishers.values(), broken)), "the recorder")
        smooth = np.tile(np.arange(0, 160, dtype=np.uint8)[None, :, None], (112, 1, 3))
        publishers["/overlay"].publish(image_message(stamp(0), smooth))
        publishers["/depth"].publish(fill(Image(), fields_of.depth_image_fields(stamp(0), "lens", depth)))
        publishers["/mask"].publish(image_message(stamp(0), mask, "mono8"))
        bad = image_message(stamp(0), smooth)
        bad.step = 3
        broken.publish(bad)
        for publisher in (*publishers.values(), broken):
            publisher.wait_for_all_acked()
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 0, recorder.output
        assert "/broken: recorded as it came: image step is 3 bytes" in recorder.output
    messages, bag = read(tmp_path / "scene")
    assert bag.topics["/overlay/compressed"].msgtype == fields_of.COMPRESSED_IMAGE and "/overlay" not in messages
    assert np.abs(decode_message(messages["/overlay/compressed"][0][1]).astype(int) - smooth).max() <= 4
    assert messages["/depth"][0][1].data.tobytes() == depth.tobytes()
    assert messages["/mask"][0][1].data.tobytes() == mask.tobytes()
    assert messages["/broken"][0][1].step == 3


def test_what_it_recorded_can_be_played_and_recorded_again(tmp_path):
    """Player and recorder together: a second generation equals the first."""
    from human_scene_ros.geometry.camera import PinholeCamera
    from human_scene_ros.sources.bag_writer import SceneBagWriter
    from human_scene_ros.sources.message_fields import FrameTruth

    camera = PinholeCamera(160, 112, 150.0, 150.0, 79.5, 55.5)
    with SceneBagWriter(tmp_path / "first") as writer:
        for i in range(30):
            writer.write_camera("/camera/image", picture(shift=i), camera, stamp(i), "lens")
            truth = FrameTruth(stamp(i), camera, np.eye(4), (), np.full((112, 160), 2.0))
            writer.write_truth(truth, camera_frame="lens")
    with graph(DOMAIN, tmp_path) as g:
        recorder = g.start("record_node", {
            "output": str(tmp_path / "second"), "stamps": "header", "topics": [
                "/camera/image/compressed", "/camera/camera_info", "/gt/bodies", "/gt/camera_pose", "/gt/depth"]})
        player = g.start("bag_node", {
            "input": str(tmp_path / "first"), "rate": 4.0, "topics": ["/gt/*"], "wait_for_subscribers": 1,
            "wait_for_topics": ["/gt/bodies", "/gt/camera_pose", "/gt/depth"], "camera_name": "camera"})
        assert player.wait() == 0, player.output
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 0, recorder.output
    first, _ = read(tmp_path / "first")
    second, _ = read(tmp_path / "second")
    assert {t: len(m) for t, m in second.items()} == {t: len(m) for t, m in first.items()}
    for topic in ("/camera/image/compressed", "/gt/depth"):
        assert [(s, m.data.tobytes()) for s, m in first[topic]] == [(s, m.data.tobytes()) for s, m in second[topic]]
    assert repr(first["/gt/bodies"]) == repr(second["/gt/bodies"])


@pytest.mark.parametrize(("parameters", "code", "text"), [
    ({}, 2, "parameter output is empty"),
    ({"output": "FOLDER/photos"}, 1, "photos exists and is no recording"),
    ({"output": "FOLDER/x", "topic": ["/a"]}, 2, "unknown parameter(s) ['topic']; known: ['compress'"),
], ids=["no output", "not a recording", "unknown"])
def test_bad_settings_end_with_one_line(tmp_path, parameters, code, text):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mum.jpg").write_bytes(b"precious")
    parameters = {k: v.replace("FOLDER", str(tmp_path)) if isinstance(v, str) else v for k, v in parameters.items()}
    with graph(DOMAIN, tmp_path) as g:
        recorder = g.start("record_node", parameters)
        assert recorder.wait() == code, recorder.output
        assert text in recorder.output and "Traceback" not in recorder.output
    assert (tmp_path / "photos" / "mum.jpg").exists()


def test_our_messages_and_a_publisher_that_comes_late(tmp_path):
    with graph(DOMAIN, tmp_path) as g:
        recorder = g.start("record_node", {"output": str(tmp_path / "scene"), "topics": ["/*"],
                                           "exclude": ["/private*"]})
        recorder.wait_output("ready")
        bodies = g.publisher(SmplxBodyArray, "/human_scene/bodies", qos.reliable(10))
        private = g.publisher(CompressedImage, "/private/image", qos.reliable(10))
        g.wait(lambda: bodies.get_subscription_count() == 1, "the recorder")
        bodies.publish(SmplxBodyArray(camera_name="front", sequence=7))
        bodies.wait_for_all_acked()
        assert private.get_subscription_count() == 0
        recorder.signal(signal.SIGINT)
        assert recorder.wait() == 0, recorder.output
    messages, _ = read(tmp_path / "scene")
    assert [m.sequence for _, m in messages["/human_scene/bodies"]] == [7]
    assert "/rosout" not in messages and "/clock" not in messages
