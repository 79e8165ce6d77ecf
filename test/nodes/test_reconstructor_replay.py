"""Replay and live operation of the real processes: nothing lost uncounted, TF, QoS, clocks, all topics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_graph import graph, image_message, picture, untrained_checkpoint  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from human_scene_ros.geometry.transform import invert, make_transform  # noqa: E402
from human_scene_ros.msg import SceneStatus, SmplxBody, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.sources.image_codec import encode_jpeg  # noqa: E402
from human_scene_ros.sources.message_fields import (  # noqa: E402
    compressed_image_fields,
    matrix_of_pose,
    time_fields,
)
from human_scene_ros.sources.reader import open_source  # noqa: E402
from human_scene_ros.srv import SaveMap  # noqa: E402

from helpers import REPOSITORY  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 34
DEMO_RECORDING = REPOSITORY / "demo" / "recording"
SECOND = 10**9
FRAMES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def parameters(folder):
    return {"model.checkpoint": str(untrained_checkpoint(folder)), "diagnostics.period": 0.2,
            "bodies.min_score": 0.001, "track.confirm_hits": 1}


@pytest.fixture(scope="module")
def images(folder):
    path = folder / "images"
    path.mkdir()
    for i in range(FRAMES):
        cv2.imwrite(str(path / f"{i:03d}.png"), picture(shift=2 * i)[..., ::-1])
    return path


def adds_up(s: SceneStatus) -> bool:
    return s.frames_in == s.frames_processed + s.frames_dropped + s.frames_rejected + s.frames_pending


def test_replay_at_free_rate_loses_nothing_and_a_loop_starts_new_segments(folder, parameters, images):
    with graph(DOMAIN, folder) as g:
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 200)
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(200))
        clocks = g.collect(Clock, "/clock", 200)
        g.start("reconstructor_node", {**parameters, "input.drop_policy": "all", "use_sim_time": True})
        bag = g.start("bag_node", {"input": str(images), "rate": 0.0, "wait_for_subscribers": 1, "loop": True,
                                   "max_images": 3 * FRAMES})
        g.wait(lambda: len(bodies) == 3 * FRAMES, "bodies of every image")
        g.wait(lambda: statuses and statuses[-1].frames_processed == 3 * FRAMES, "the last status")
        last = statuses[-1]
        assert (last.frames_in, last.frames_dropped, last.frames_rejected, last.frames_pending) == (3 * FRAMES, 0, 0, 0)
        assert all(adds_up(s) for s in statuses) and len(clocks) >= 3 * FRAMES
        stamps = [convert.stamp_ns(b.header.stamp) for b in bodies]
        assert stamps == stamps[:FRAMES] * 3 and [b.sequence for b in bodies] == list(range(3 * FRAMES))
        assert [b.segment for b in bodies] == [0] * FRAMES + [1] * FRAMES + [2] * FRAMES
        target = folder / "map.ply"
        saved = g.call(SaveMap, "human_scene/save_map", SaveMap.Request(
            path=str(target), format=SaveMap.Request.FORMAT_PLY, include_people=True))
        assert saved.success and saved.message == str(target) and saved.bytes == target.stat().st_size > 0
        assert target.read_bytes().startswith(b"ply\n")
        for bad in (SaveMap.Request(path="/no/such/folder/map.ply"), SaveMap.Request(path=str(target), format=9),
                    SaveMap.Request(path=str(target), voxel=-1.0), SaveMap.Request()):
            refused = g.call(SaveMap, "human_scene/save_map", bad)
            assert not refused.success and refused.message
        assert bag.wait() == 0


def test_live_mode_drops_counts_and_keeps_the_newest(folder, parameters):
    with graph(DOMAIN, folder) as g:
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 200)
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(200))
        publisher = g.publisher(Image, "image", 200)
        g.start("reconstructor_node", {**parameters, "input.queue": 100, "input.max_age": 0.0})
        g.wait(publisher.get_subscription_count, "the subscription")
        for i in range(60):  # much faster than any CPU
            publisher.publish(image_message(i * 10**6 + SECOND, picture(640, 480)))
        g.wait(lambda: statuses and (statuses[-1].frames_in, statuses[-1].frames_pending) == (60, 0),
               "all images to be counted")
        last = statuses[-1]
        assert adds_up(last) and last.frames_dropped > 0 and last.frames_processed + last.frames_dropped == 60
        g.wait(lambda: len(bodies) == last.frames_processed, "the bodies")
        assert convert.stamp_ns(bodies[-1].header.stamp) == 59 * 10**6 + SECOND  # the newest image was not dropped


def test_every_topic_speaks_when_listened_to(folder, parameters):
    with graph(DOMAIN, folder) as g:
        got = {topic: g.collect(kind, f"human_scene/{topic}", profile) for topic, kind, profile in (
            ("bodies", SmplxBodyArray, 50), ("camera_pose", PoseWithCovarianceStamped, 50), ("odom", Odometry, 50),
            ("path", Path, 50), ("depth/image", Image, 50), ("depth/camera_info", CameraInfo, 50),
            ("confidence/image", Image, 50), ("people_mask", Image, 50), ("cloud", PointCloud2, 50),
            ("map/cloud", PointCloud2, qos.latched(5)), ("status", SceneStatus, qos.latched(50)))}
        transforms = g.collect(TFMessage, "/tf")
        static = g.publisher(TFMessage, "/tf_static", qos.latched(1))
        moving = g.publisher(TFMessage, "/tf", 100)
        publisher = g.publisher(CompressedImage, "front/image/compressed")
        T_base_optical = make_transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.2, 0.0, 1.1]))
        static.publish(convert.to_tf_message([("base_link", "optical", 0, T_base_optical)]))
        node = g.start("reconstructor_node", {
            **parameters, "input.drop_policy": "all", "input.transport": "compressed", "tf.mode": "camera",
            "tf.base_frame": "base_link", "tf.wait": 10.0, "cloud.min_confidence": 0.0, "cloud.people": "keep",
            "cloud.max_range": 1000.0, "path.rate": 100.0, "cloud.rate": 100.0, "map.rate": 100.0},
            {"image": "front/image"})
        node.wait_output("ready")
        g.wait(lambda: publisher.get_subscription_count() and static.get_subscription_count() == 1, "a match")
        sent_ns = 0

        def send() -> None:
            nonlocal sent_ns
            sent_ns += 10**8
            data = encode_jpeg(picture(320, 240, shift=sent_ns // 10**8))
            publisher.publish(convert.fill(CompressedImage(), compressed_image_fields(sent_ns, "optical", data)))
            g.wait(lambda: got["bodies"] and convert.stamp_ns(got["bodies"][-1].header.stamp) == sent_ns, "bodies")

        def roots(parent: str) -> list:
            return [t for m in transforms for t in m.transforms if t.header.frame_id == parent]

        for _ in range(100):  # our subscriptions are found one after the other
            send()
            if roots("map") and all(got.values()):
                break
        assert all(got.values()), {topic: len(messages) for topic, messages in got.items()}
        send()
        g.wait(lambda: all(convert.stamp_ns(m[-1].header.stamp) == sent_ns for name, m in got.items()
                           if name != "status"), "the last image on every topic")
        g.wait(lambda: convert.stamp_ns(roots("map")[-1].header.stamp) == sent_ns, "the last world -> base_link")
        assert {t.child_frame_id for t in roots("map")} == {"base_link"}, "the optical frame must not get two parents"
        T_map_base = convert.from_transform(roots("map")[-1])[3]
        T_map_optical = matrix_of_pose(got["camera_pose"][-1].pose.pose)
        np.testing.assert_allclose(T_map_base @ T_base_optical, T_map_optical, atol=1e-9)
        np.testing.assert_allclose(matrix_of_pose(got["odom"][-1].pose.pose), T_map_base, atol=1e-9)
        body_frames = {t.child_frame_id for t in roots("optical")}
        assert body_frames <= {f"body_{b.track_id}" for m in got["bodies"] for b in m.bodies}
        depth, info = got["depth/image"][-1], got["depth/camera_info"][-1]
        assert depth.encoding == "32FC1" and (depth.width, depth.height) == (info.width, info.height)
        assert got["people_mask"][-1].encoding == "mono8" and got["confidence/image"][-1].encoding == "32FC1"
        cloud = got["cloud"][-1]
        assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb"] and cloud.header.frame_id == "optical"
        assert cloud.width > 100 and len(cloud.data) == 16 * cloud.width <= 450_000
        assert got["map/cloud"][-1].header.frame_id == "map" and len(got["path"][-1].poses) == sent_ns // 10**8
        # Semantic points: nobody's where there is no body, else the numbers of the bodies of the same image.
        answer = g.call(SetParameters, "human_scene/set_parameters", SetParameters.Request(parameters=[
            Parameter("cloud.semantic", value=True).to_parameter_msg()]))
        assert answer.results[0].successful, answer.results[0].reason
        send()
        g.wait(lambda: convert.stamp_ns(got["cloud"][-1].header.stamp) == sent_ns, "the cloud")
        cloud = got["cloud"][-1]
        assert [f.name for f in cloud.fields][4:] == ["instance_id", "body_u", "body_v", "body_w", "confidence"]
        assert len(cloud.data) == 36 * cloud.width <= 450_000
        ids = np.frombuffer(bytes(cloud.data), np.int32).reshape(cloud.width, 9)[:, 4]
        assert set(ids.tolist()) <= {-1, *(int(b.track_id.lstrip("b")) for b in got["bodies"][-1].bodies)}
        # A robot that moves: the root becomes odom, and the transform waits for /tf at the image's stamp.
        half_ns, forward = 10**8 // 2, make_transform(np.eye(3), np.array([5.0, 0.0, 0.0]))
        g.wait(moving.get_subscription_count, "the listener")
        moving.publish(convert.to_tf_message([("odom", "base_link", sent_ns + half_ns, np.eye(4))]))
        g.wait(lambda: roots("odom"), "the echo")
        send()
        assert "odom" not in {t.child_frame_id for t in roots("map")}
        moving.publish(convert.to_tf_message([("odom", "base_link", sent_ns + half_ns, forward)]))
        g.wait(lambda: "odom" in {t.child_frame_id for t in roots("map")}, "world -> odom")
        T_odom_base = make_transform(np.eye(3), np.array([2.5, 0.0, 0.0]))  # half way between the two stamps
        T_map_odom = convert.from_transform(roots("map")[-1])[3]
        g.wait(lambda: convert.stamp_ns(got["camera_pose"][-1].header.stamp) == sent_ns, "the pose")
        expected = matrix_of_pose(got["camera_pose"][-1].pose.pose) @ invert(T_base_optical) @ invert(T_odom_base)
        np.testing.assert_allclose(T_map_odom, expected, atol=1e-9)
        # Somebody else localises: refuse to be the second parent.
        moving.publish(convert.to_tf_message([("map", "odom", sent_ns + 1, np.eye(4))]))
        for _ in range(200):
            send()
            if "already has the parent 'map'" in node.output:
                break
        assert "'odom' already has the parent 'map'" in node.output
        assert node.stop() == 0


def test_best_effort_cameras_are_heard_and_clock_jumps_survived(folder, parameters):
    with graph(DOMAIN, folder) as g:
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 200)
        clock = g.publisher(Clock, "/clock")
        node = g.start("reconstructor_node", {**parameters, "use_sim_time": True, "input.max_age": 0.0})
        node.wait_output("ready")  # subscribed as reliable, for nobody published yet
        publisher = g.publisher(Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))

        def tick_and_send(stamp_ns: int) -> None:
            clock.publish(convert.fill(Clock(), {"clock": time_fields(stamp_ns)}))
            publisher.publish(image_message(stamp_ns, picture()))

        stamp_ns = 100 * SECOND
        node.wait_output("incompatible")
        assert "asked: reliable" in node.output and ": best_effort, volatile" in node.output
        for _ in range(300):
            stamp_ns += SECOND // 10
            tick_and_send(stamp_ns)
            g.spin(0.1)
            if len(bodies) > 2:
                break
        assert bodies, node.output
        before = bodies[-1].segment
        count = len(bodies)
        for i in range(300):
            tick_and_send(10 * SECOND + i * SECOND // 10)
            g.spin(0.1)
            if len(bodies) > count and convert.stamp_ns(bodies[-1].header.stamp) < 100 * SECOND:
                break
        assert bodies[-1].segment == before + 1
        assert node.stop() == 0


def test_markers_follow_the_bodies(folder, parameters, images):
    with graph(DOMAIN, folder) as g:
        shown = {kind: g.collect(MarkerArray, f"human_scene_markers/{kind}", 200)
                 for kind in ("skeletons", "capsules", "trails", "meshes")}
        overlays = g.collect(Image, "human_scene_markers/overlay", 50)
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 200)
        markers = g.start("markers_node", {"meshes": True})
        markers.wait_output("ready")
        g.start("reconstructor_node", {**parameters, "input.drop_policy": "all"})
        g.start("bag_node", {"input": str(images), "rate": 0.0, "wait_for_subscribers": 2})
        g.wait(lambda: len(bodies) == FRAMES and len(shown["skeletons"]) == FRAMES, "markers of every image")
        tracks = {b.track_id for m in bodies for b in m.bodies}
        drawn = {m.ns for a in shown["skeletons"] for m in a.markers if m.action == Marker.ADD}
        assert drawn == tracks
        for kind in ("capsules", "trails", "meshes"):
            g.wait(lambda kind=kind: len(shown[kind]) == FRAMES, kind)
        if tracks:
            g.wait(lambda: overlays, "an overlay")
        assert markers.stop() == 0


def test_people_leave_and_return_as_the_camera_pans(folder):
    """The shipped weights on a window that slides over one picture of the demo: people, bare wall, people."""
    with open_source(DEMO_RECORDING) as source:
        whole = next(frame.image for k, frame in enumerate(source) if k == 108)
    lefts = [300] * 10 + list(range(300, 0, -30)) + [0] * 30 + list(range(0, 300, 30)) + [300] * 10
    path = folder / "pan"
    path.mkdir()
    for i, left in enumerate(lefts):
        cv2.imwrite(str(path / f"{i:03d}.png"), whole[40:280, left:left + 320, ::-1])
    with graph(DOMAIN, folder) as g:
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies", 200)
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(200))
        g.start("reconstructor_node", {"diagnostics.period": 0.2, "input.drop_policy": "all", "use_sim_time": True})
        bag = g.start("bag_node", {"input": str(path), "fps": 10.0, "rate": 0.0, "wait_for_subscribers": 1})
        g.wait(lambda: len(bodies) == len(lefts), "bodies of every image")
        g.wait(lambda: statuses and statuses[-1].frames_processed == len(lefts), "the last status")
        assert statuses[-1].frames_in == len(lefts) and statuses[-1].frames_dropped == 0
        assert [b.sequence for b in bodies] == list(range(len(lefts)))
        assert bag.wait() == 0
    seen = [[b for b in message.bodies if b.track_state <= SmplxBody.TRACK_CONFIRMED] for message in bodies]
    assert all(seen[5:10]) and all(seen[-5:]), "people in the window are found, before and after"
    assert not any(message.bodies for message in bodies[40:50]), "nobody is kept on a bare wall after the timeout"
    before, after = ({b.track_id for message in span for b in message} for span in (seen[:10], seen[-5:]))
    assert before and after and not before & after, "an id is not given again to whoever comes after the timeout"
