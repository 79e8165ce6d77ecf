"""The player as a process: nothing lost at free rate, time that behaves, input that is refused with one line."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from ros_graph import Graph, graph  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from human_scene_ros.geometry.camera import PinholeCamera  # noqa: E402
from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import qos  # noqa: E402
from human_scene_ros.nodes.convert import stamp_ns  # noqa: E402
from human_scene_ros.sources import message_fields as fields_of  # noqa: E402
from human_scene_ros.sources.bag_writer import SceneBagWriter  # noqa: E402
from human_scene_ros.sources.image_codec import decode_message  # noqa: E402
from human_scene_ros.sources.message_fields import FrameTruth  # noqa: E402
from human_scene_ros.sources.reader import START_NS, open_source  # noqa: E402

from helpers import shared_folder  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 71
CAMERA = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.0)
STEP_NS = 100_000_000


def stamp(i: int) -> int:
    return 1_700_000_000_000_000_000 + i * STEP_NS


def picture(i: int) -> np.ndarray:
    return np.full((48, 64, 3), ((7 * i) % 250, 100, 200 - (5 * i) % 150), np.uint8)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 JPEG images with calibration, truth and static transforms."""
    folder = tmp_path_factory.mktemp("bag") / "walk"
    with SceneBagWriter(folder) as writer:
        writer.write("/tf_static", fields_of.TF_MESSAGE, fields_of.transforms_fields(
            [(stamp(0), "base", "camera_optical", np.eye(4))]), stamp(0), latched=True)
        for i in range(60):
            writer.write_camera("/camera/image", picture(i), CAMERA, stamp(i), "camera_optical")
            writer.write_truth(FrameTruth(stamp(i), CAMERA, np.eye(4), ()), camera_frame="camera_optical")
    return folder


@pytest.fixture(scope="module")
def rig_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 JPEG images of each of two cameras."""
    folder = tmp_path_factory.mktemp("bag") / "rig"
    with SceneBagWriter(folder) as writer:
        for i in range(30):
            for name in ("left", "right"):
                writer.write_camera(f"/{name}/image", picture(i), CAMERA, stamp(i), f"{name}_optical")
    return folder


@pytest.fixture(scope="module")
def short_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 raw bgr8 images; the calibration is recorded after the first of them."""
    folder = tmp_path_factory.mktemp("bag") / "short"
    with SceneBagWriter(folder) as writer:
        for i in range(5):
            writer.write("/cam/image_raw", fields_of.IMAGE, fields_of.image_fields(
                stamp(i), "cam_optical", picture(i)[..., ::-1], "bgr8"), stamp(i))
            writer.write("/cam/camera_info", fields_of.CAMERA_INFO,
                         fields_of.camera_info_fields(stamp(i), "cam_optical", CAMERA), stamp(i) + 1000)
    return folder


class Consumer:
    """Works slowly on every image and reports in its status how many are done, as the reconstructor does."""

    def __init__(self, g: Graph, message_class: type, topic: str, *, seconds: float, already_done: int = 0,
                 outcomes: tuple[str, ...] = ("frames_processed",), status: str = "/human_scene/status") -> None:
        self.stamps: list[int] = []
        self._seconds, self._outcomes = seconds, outcomes
        self._status = SceneStatus(frames_processed=already_done)
        self._publisher = g.publisher(SceneStatus, status, qos.latched())
        self._publisher.publish(self._status)
        # Ten may wait: more than may be outstanding, far fewer than are played.
        g.node.create_subscription(message_class, topic, self._on_image, qos.reliable(10))

    def _on_image(self, image) -> None:
        self.stamps.append(stamp_ns(image.header.stamp))
        time.sleep(self._seconds)
        outcome = self._outcomes[len(self.stamps) % len(self._outcomes)]
        setattr(self._status, outcome, getattr(self._status, outcome) + 1)
        self._publisher.publish(self._status)


def test_free_rate_loses_nothing_with_a_slow_consumer(tmp_path, recording):
    """Whatever becomes of an image, it is off the way; counters of an earlier run do not count."""
    with graph(DOMAIN, tmp_path) as g:
        consumer = Consumer(g, CompressedImage, "/image/compressed", seconds=0.02, already_done=1000,
                            outcomes=("frames_processed", "frames_rejected", "frames_dropped"))
        bag = g.start("bag_node", {"input": str(recording), "rate": 0.0, "wait_for_subscribers": 1})
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0, bag.output
        assert consumer.stamps == [stamp(i) for i in range(60)]
        assert "done: 60 images" in bag.output and "WARN" not in bag.output


def test_free_rate_follows_the_sum_of_several_consumers(tmp_path, rig_recording):
    """Each camera has a consumer of its own; the slow one holds the player back, and nothing waits beyond the bound."""
    with graph(DOMAIN, tmp_path) as g:
        consumers = [Consumer(g, CompressedImage, f"/{name}/image/compressed", seconds=seconds, already_done=done,
                              status=f"/{name}/status")
                     for name, seconds, done in (("left", 0.02, 7), ("right", 0.0, 300))]
        bag = g.start("bag_node", {
            "input": str(rig_recording), "rate": 0.0, "topics": ["/left/*", "/right/*"], "wait_for_subscribers": 1,
            "status": ["/left/status", "/right/status"], "max_outstanding": 4})
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0, bag.output
        assert [consumer.stamps for consumer in consumers] == [[stamp(i) for i in range(30)]] * 2
        assert "WARN" not in bag.output


def test_free_rate_gives_up_on_a_consumer_that_does_not_work(tmp_path, recording):
    with graph(DOMAIN, tmp_path) as g:
        consumer = Consumer(g, CompressedImage, "/image/compressed", seconds=0.0, outcomes=("frames_in",))
        bag = g.start("bag_node", {"input": str(recording), "rate": 0.0, "wait_for_subscribers": 1, "ack_timeout": 2.0})
        g.wait(lambda: not bag.running, "the player giving up")
        assert bag.wait() == 1
        assert "no image was acknowledged on /human_scene/status for 2 s; 8 of 8 sent images are outst" in bag.output
        assert len(consumer.stamps) == 8


def test_free_rate_without_a_status_keeps_the_recorded_rate(tmp_path, short_recording):
    with graph(DOMAIN, tmp_path) as g:
        images = g.collect(Image, "/image")
        bag = g.start("bag_node", {"input": str(short_recording), "rate": 0.0, "wait_for_subscribers": 1})
        bag.wait_output("nobody sends /human_scene/status: playing at the recorded rate")
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0 and len(images) == 5


def test_everything_asked_for_arrives_as_it_was_recorded(tmp_path, recording):
    with graph(DOMAIN, tmp_path) as g:
        images = g.collect(CompressedImage, "/image/compressed", 100)
        infos = g.collect(CameraInfo, "/camera_info", 100)
        bodies = g.collect(SmplxBodyArray, "/gt/bodies", 100)
        poses = g.collect(PoseWithCovarianceStamped, "/gt/camera_pose", 100)
        static = g.collect(TFMessage, "/tf_static", qos.latched())
        bag = g.start("bag_node", {
            "input": str(recording), "rate": 10.0, "topics": ["/gt/*", "/tf_static"], "wait_for_subscribers": 1,
            "wait_for_topics": ["/gt/bodies", "/gt/camera_pose", "/tf_static"]})
        g.wait(lambda: len(g.node.get_publishers_info_by_topic("/tf_static")) == 1, "the static transforms' publisher")
        (static_offer,) = g.node.get_publishers_info_by_topic("/tf_static")
        (truth_offer,) = g.wait(lambda: g.node.get_publishers_info_by_topic("/gt/bodies"), "the truth's publisher")
        assert static_offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert truth_offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0, bag.output
    for messages in (images, infos, bodies, poses):
        assert [stamp_ns(m.header.stamp) for m in messages] == [stamp(i) for i in range(60)]
    assert static[0].transforms[0].child_frame_id == "camera_optical" and len(static) == 1
    assert images[0].header.frame_id == "camera_optical" and images[0].format == "jpeg"
    assert np.abs(decode_message(images[9]).astype(int) - picture(9)).max() <= 4
    assert infos[3].k.tolist() == [60.0, 0.0, 31.0, 0.0, 62.0, 24.0, 0.0, 0.0, 1.0]
    assert bodies[5].camera_name == "truth" and bodies[5].width == 64


def test_calibration_goes_ahead_and_other_options(tmp_path, short_recording):
    with graph(DOMAIN, tmp_path) as g:
        infos = g.collect(CameraInfo, "/robot/front/camera_info")
        images = g.collect(CompressedImage, "/robot/front/image/compressed")
        bag = g.start("bag_node", {
            "input": str(short_recording), "rate": 0.5, "camera_name": "front", "frame_id": "lens",
            "transport": "compressed", "wait_for_subscribers": 1, "quality": 100}, {"__ns": "/robot"})
        g.wait(lambda: images, "the first image")
        assert infos, "the first image came before any calibration"
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0, bag.output
    assert [stamp_ns(m.header.stamp) for m in images] == [stamp_ns(m.header.stamp) for m in infos] == [
        stamp(i) for i in range(5)]
    assert {m.header.frame_id for m in images + infos} == {"lens"}
    assert np.abs(decode_message(images[4]).astype(int) - picture(4)).max() <= 4
    assert infos[0].p[2] == 31.0 and infos[0].distortion_model == "plumb_bob"


def passes_of(stamps: list[int]) -> list[list[int]]:
    """Cut where time jumps back."""
    cut = [0, *(i + 1 for i in range(len(stamps) - 1) if stamps[i + 1] < stamps[i]), len(stamps)]
    return [stamps[a:b] for a, b in zip(cut, cut[1:], strict=False)]


def test_looping_jumps_back_and_time_is_monotone_inside_a_pass(tmp_path, short_recording):
    with graph(DOMAIN, tmp_path) as g:
        images = g.collect(Image, "/image")
        clocks = g.collect(Clock, "/clock", 10_000)
        bag = g.start("bag_node", {"input": str(short_recording), "loop": True, "max_images": 12, "rate": 0.5,
                                   "wait_for_subscribers": 1})
        g.wait(lambda: not bag.running, "three passes")
        assert bag.wait() == 0, bag.output
    stamps = [stamp_ns(m.header.stamp) for m in images]
    assert stamps == [stamp(i % 5) for i in range(12)]
    times = passes_of([stamp_ns(m.clock) for m in clocks if m.clock.sec])
    assert len(times) == 3
    assert all(one[0] >= stamp(0) and one[-1] <= stamp(4) + 1000 for one in times)
    # A tick every 10 ms is asked for, 20 between two images; a busy machine may be late, but not silent.
    assert min(len(one) for one in times[:2]) >= 4 * 5
    np.testing.assert_array_equal(decode_message(images[11]), picture(1))


def test_video_and_image_folder(tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    (tmp_path / "photos").mkdir()
    for i in range(4):
        video.write(picture(i)[..., ::-1])
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), picture(i)[..., ::-1])
    video.release()
    for source in ("walk.avi", "photos"):
        with graph(DOMAIN, tmp_path) as g:
            images = g.collect(Image, "/image")
            bag = g.start("bag_node", {"input": str(tmp_path / source), "fps": 20.0, "wait_for_subscribers": 1})
            g.wait(lambda b=bag: not b.running, "the end of the input")
            assert bag.wait() == 0, bag.output
        assert [stamp_ns(m.header.stamp) for m in images] == [START_NS + i * 50_000_000 for i in range(4)]
        assert images[0].header.frame_id == "camera_optical_frame" and images[0].encoding == "rgb8"
        assert all(np.abs(decode_message(m).astype(int) - picture(i)).max() <= 12 for i, m in enumerate(images))


def test_a_recording_of_2019_with_two_part_type_names(tmp_path):
    folder = shared_folder("data/rosbag2_real/webcam_person_2019")
    with graph(DOMAIN, tmp_path) as g:
        images = g.collect(Image, "/image")
        bag = g.start("bag_node", {"input": str(folder), "wait_for_subscribers": 1})
        g.wait(lambda: not bag.running, "the end of the recording")
        assert bag.wait() == 0, bag.output
    assert [(m.encoding, m.width, m.height) for m in images] == [("bgr8", 640, 480)]
    with open_source(folder) as source:
        np.testing.assert_array_equal(decode_message(images[0]), next(iter(source)).image)


def test_signals_end_it_well(tmp_path, recording):
    for number in (signal.SIGINT, signal.SIGTERM):
        with graph(DOMAIN, tmp_path) as g:
            bag = g.start("bag_node", {"input": str(recording), "loop": True})
            bag.wait_output("playing")
            bag.signal(number)
            bag.signal(number)
            assert bag.wait() == 0, bag.output
            assert "Traceback" not in bag.output


@pytest.mark.parametrize(("parameters", "text"), [
    ({}, "parameter input is empty"),
    ({"input": "RECORDING", "rate": 0.0, "status": []}, "parameter status is empty"),
    ({"input": "FOLDER/missing.mcap"}, "missing.mcap does not exist"),
    ({"input": "FOLDER/cut.mcap"}, "it was cut"),
    ({"input": "FOLDER"}, "holds no image"),
    ({"input": "RECORDING", "image": "/front/image"}, "topic /front/image is not in it; image topics: /camera/image"),
    ({"input": "RECORDING", "topics": ["/odom"]}, "has no topic /odom; it has /camera/camera_info"),
    ({"input": "RECORDING", "wait_for_subscribers": 1, "wait_timeout": 0.5},
     "waited 0.5 s: the image topic has 0 of 1 subscribers"),
], ids=["none", "no status", "missing", "cut", "empty folder", "image topic", "other topic", "nobody listens"])
def test_bad_input_ends_with_one_line_and_code_1(tmp_path, recording, parameters, text):
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags" / "cut.mcap").write_bytes((recording / "walk.mcap").read_bytes()[:3000])
    if parameters.get("input") == "FOLDER":
        (tmp_path / "bags" / "cut.mcap").unlink()
    places = {"RECORDING": str(recording), "FOLDER": str(tmp_path / "bags")}
    for key, value in parameters.items():
        for name, place in places.items():
            if isinstance(value, str):
                value = value.replace(name, place)
        parameters = {**parameters, key: value}
    with graph(DOMAIN, tmp_path) as g:
        bag = g.start("bag_node", parameters)
        assert bag.wait() == 1, bag.output
        last = bag.output.strip().splitlines()[-1]
        assert last.startswith("[human_scene_bag]") and text in last
        assert "Traceback" not in bag.output


def test_parameters_are_checked(tmp_path):
    with graph(DOMAIN, tmp_path) as g:
        bag = g.start("bag_node", {"rate": -1.0, "speed": 2.0})
        assert bag.wait() == 2
        assert "unknown parameter(s) ['speed']" in bag.output and "rate = -1.0: out of range" in bag.output
