"""Written here, read back by independent readers; read from whatever users have, or refused with the reason."""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import StoragePlugin, Writer

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import CalibrationError, MessageError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.sources import message_fields as fields_of
from human_scene_ros.sources.bag_reader import BagReader, header_stamp_ns, stamp_offset
from human_scene_ros.sources.bag_writer import SceneBagWriter, build_message
from human_scene_ros.sources.message_definitions import definition_text, new_typestore, register_type, shared_typestore
from human_scene_ros.sources.message_fields import FrameTruth, StatusReport, TruePerson
from human_scene_ros.sources.reader import START_NS, open_source

from helpers import shared_folder

CAMERA = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.0)
STRING = "std_msgs/msg/String"


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A plain colour per frame: survives every codec."""
    return np.full((height, width, 3), ((40 * i) % 200 + 20, 100, 200 - (30 * i) % 150), np.uint8)


def a_truth(i: int, people: int = 2) -> FrameTruth:
    rng = np.random.default_rng(i)
    persons = tuple(TruePerson(
        3 + k, BodyParameters(global_orient=rng.normal(size=3).astype(np.float32),
                              betas=rng.normal(size=10).astype(np.float32)),
        rng.uniform(1, 3, (55, 3)).astype(np.float32), bool(k), 0.25 + 0.5 * k,
        rng.uniform(0, 40, 4).astype(np.float32)) for k in range(people))
    depth = rng.uniform(0.5, 9.0, (48, 64)).astype(np.float32)
    depth[:5] = 0.0
    return FrameTruth(stamp(i), CAMERA, make_transform(np.eye(3), np.array([0.1 * i, 0.0, 1.4])), persons, depth)


def stamp(i: int) -> int:
    return 1_700_000_000_000_000_000 + i * 100_000_001


def write_recording(folder: Path, frames: int = 4, **options: Any) -> None:
    with SceneBagWriter(folder, **options) as writer:
        for i in range(frames):
            writer.write_camera("/camera/image", picture(i), CAMERA, stamp(i), "camera_optical")
            writer.write_truth(a_truth(i), camera_frame="camera_optical")
            writer.write("/human_scene/status", fields_of.SCENE_STATUS,
                         fields_of.scene_status_fields(stamp(i), "map", StatusReport(people=i)), stamp(i), latched=True)


@pytest.mark.parametrize("compress", [False, True])
def test_recording_is_read_back_frame_by_frame(tmp_path: Path, compress: bool) -> None:
    write_recording(tmp_path / "scene", compress=compress)
    with open_source(tmp_path / "scene") as source:
        assert source.frame_count == 4 and source.has_truth
        for _ in range(2):  # a source can be read again
            frames = list(source)
            assert [f.stamp_ns for f in frames] == [stamp(i) for i in range(4)]
        for i, frame in enumerate(frames):
            assert frame.camera == CAMERA and frame.camera_frame == "camera_optical" and frame.image.dtype == np.uint8
            assert np.abs(frame.image.astype(int) - picture(i)).max() <= 4
            truth, expected = source.truth_at(frame.stamp_ns), a_truth(i)
            assert truth is not None and truth.camera == CAMERA and truth.depth_m is not None
            np.testing.assert_allclose(truth.T_world_camera, expected.T_world_camera, atol=1e-9)
            np.testing.assert_allclose(truth.depth_m, expected.depth_m, atol=0.00051)
            np.testing.assert_array_equal(truth.joints_camera, expected.joints_camera)
            for got, want in zip(truth.people, expected.people, strict=True):
                assert (got.person_id, got.head_visible) == (want.person_id, want.head_visible)
                assert got.visible_fraction == pytest.approx(want.visible_fraction)
                np.testing.assert_array_equal(got.parameters.betas, want.parameters.betas)
                np.testing.assert_array_equal(got.parameters.global_orient, want.parameters.global_orient)
                np.testing.assert_array_equal(got.bbox_px, want.bbox_px)
        assert source.truth_at(frames[0].stamp_ns + 1) is None


def test_truth_without_people_and_depth(tmp_path: Path) -> None:
    truth = FrameTruth(stamp(0), CAMERA, np.eye(4), ())
    with SceneBagWriter(tmp_path / "scene") as writer:
        writer.write_camera("/camera/image", picture(0), None, stamp(0), "c")
        writer.write_truth(truth, camera_frame="c")
    with open_source(tmp_path / "scene") as source:
        read = source.truth_at(stamp(0))
        assert read is not None and read.people == () and read.depth_m is None
        assert read.joints_camera.shape == (0, 55, 3)
        assert next(iter(source)).camera is None


def test_depth_is_found_in_any_order_of_asking(tmp_path: Path) -> None:
    """Depth is read along with who asks; frames without it, steps back and repeated questions must not matter."""
    with_depth = (0, 3, 4, 7)
    with SceneBagWriter(tmp_path / "scene") as writer:
        for i in range(9):
            depth_m = np.full((48, 64), 1.0 + i) if i in with_depth else None
            writer.write_camera("/camera/image", picture(i), CAMERA, stamp(i), "c")
            writer.write_truth(FrameTruth(stamp(i), CAMERA, np.eye(4), (), depth_m), camera_frame="c")
    with open_source(tmp_path / "scene") as source:
        for i in (*range(9), 4, 4, 0, 8, 7, 1, 3, 2, 7):
            depth = source.truth_at(stamp(i)).depth_m
            assert (depth is None) == (i not in with_depth), i
            assert depth is None or (depth == 1.0 + i).all()
        assert [f.stamp_ns for f in source] == [stamp(i) for i in range(9)]  # while the depth stands somewhere


def test_rosbags_and_mcap_read_the_same(tmp_path: Path) -> None:
    """Two readers that share no code with each other; schemas come from the file alone."""
    mcap_reader = pytest.importorskip("mcap_ros2.reader")
    write_recording(tmp_path / "scene", frames=3)
    by_rosbags: dict[str, list[Any]] = {}
    with AnyReader([tmp_path / "scene"]) as reader:
        for connection, _, data in reader.messages():
            by_rosbags.setdefault(connection.topic, []).append(reader.deserialize(data, connection.msgtype))
    by_mcap: dict[str, list[Any]] = {}
    for message in mcap_reader.read_ros2_messages(tmp_path / "scene" / "scene.mcap"):
        by_mcap.setdefault(message.channel.topic, []).append(message.ros_msg)
    assert {t: len(m) for t, m in by_rosbags.items()} == {t: len(m) for t, m in by_mcap.items()} == dict.fromkeys(
        ("/camera/image/compressed", "/camera/camera_info", "/gt/bodies", "/gt/camera_pose", "/gt/depth",
         "/human_scene/status"), 3)
    for ours, theirs in zip(by_rosbags["/gt/bodies"], by_mcap["/gt/bodies"], strict=True):
        assert [b.track_id for b in theirs.bodies] == ["p0003", "p0004"]
        for a, b in zip(ours.bodies, theirs.bodies, strict=True):
            np.testing.assert_allclose(a.joints, b.joints)
            np.testing.assert_allclose(a.betas, b.betas)
            assert a.pelvis.pose.orientation.w == b.pelvis.pose.orientation.w


def test_latched_topics_are_stored_as_such(tmp_path: Path) -> None:
    write_recording(tmp_path / "scene", frames=1)
    with BagReader(tmp_path / "scene") as bag:
        assert bag.topics["/human_scene/status"].qos[0].durability == QosDurability.TRANSIENT_LOCAL
        assert bag.topics["/gt/bodies"].qos[0].durability == QosDurability.VOLATILE
    metadata = yaml.safe_load((tmp_path / "scene" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == "mcap" and metadata["message_count"] == 6


def test_what_was_written_is_kept_when_the_writer_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power"), SceneBagWriter(tmp_path / "scene") as writer:
        writer.write("/text", STRING, {"data": "first"}, stamp(0))
        raise RuntimeError("power")
    with BagReader(tmp_path / "scene") as bag:
        assert [bag.deserialize(t, d).data for t, _, d in bag.messages()] == ["first"]


def test_only_recordings_are_overwritten(tmp_path: Path) -> None:
    write_recording(tmp_path / "scene", frames=1)
    with pytest.raises(SourceError, match="holds a recording already"):
        SceneBagWriter(tmp_path / "scene")
    write_recording(tmp_path / "scene", frames=2, overwrite=True)
    with BagReader(tmp_path / "scene") as bag:
        assert bag.topics["/gt/bodies"].count == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mum.jpg").write_bytes(b"precious")
    with pytest.raises(SourceError, match="exists and is no recording"):
        SceneBagWriter(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "mum.jpg").exists()


@pytest.mark.parametrize(("change", "text"), [
    ({"extra": 1}, r"missing field\(s\) \[\], unknown field\(s\) \['extra'\]"),
    ({"header": None}, r"sensor_msgs/msg/CameraInfo.header is NoneType; expected a dict"),
    ({"k": np.zeros(8)}, r"sensor_msgs/msg/CameraInfo.k has 8 values; the message holds 9"),
    ({"k": np.zeros(9, np.float32)}, r"CameraInfo.k is float32 of shape \(9,\); expected a flat array of float64"),
    ({"d": np.zeros((3, 3))}, r"CameraInfo.d is float64 of shape \(3, 3\); expected a flat array of float64"),
    ({"width": -1}, r"CameraInfo.width = -1: expected an integer from 0 to 4294967295"),
    ({"width": 1.5}, r"CameraInfo.width = 1.5: expected an integer"),
    ({"distortion_model": 3}, r"CameraInfo.distortion_model is int; expected text"),
])
def test_fields_that_do_not_fit_their_message(change: dict, text: str) -> None:
    fields = {**fields_of.camera_info_fields(0, "c", CAMERA), **change}
    with pytest.raises(MessageError, match=text):
        build_message(shared_typestore(), fields_of.CAMERA_INFO, fields)


def test_a_missing_field_and_a_bounded_sequence() -> None:
    store = new_typestore()
    fields = fields_of.camera_info_fields(0, "c", CAMERA)
    del fields["roi"]
    with pytest.raises(MessageError, match=r"missing field\(s\) \['roi'\]"):
        build_message(store, fields_of.CAMERA_INFO, fields)
    body = fields_of.truth_fields(a_truth(0), camera_frame="c", world_frame="map", sequence=0)
    body["bodies"][0]["betas"] = np.zeros(301, np.float32)
    with pytest.raises(MessageError, match=r"bodies\[0\].betas has 301 values; the message holds at most 300"):
        build_message(store, fields_of.BODY_ARRAY, body)


def test_one_topic_holds_one_type(tmp_path: Path) -> None:
    with SceneBagWriter(tmp_path / "scene") as writer:
        writer.write("/a", STRING, {"data": "x"}, 1)
        with pytest.raises(MessageError, match="/a holds std_msgs/msg/String; cannot also hold std_msgs/msg/Bool"):
            writer.write("/a", "std_msgs/msg/Bool", {"data": True}, 2)


def test_types_come_from_installed_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share" / "my_robot" / "msg"
    folder.mkdir(parents=True)
    (folder / "Wheel.msg").write_text("std_msgs/Header header\nSpoke[2] spokes # two\nfloat32[<=3] load\n")
    (folder / "Spoke.msg").write_text("string<=8 name\nuint8 BENT=1\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    store = new_typestore()
    register_type(store, "my_robot/msg/Wheel")
    header = fields_of.header_fields(5, "axle")
    message = build_message(store, "my_robot/msg/Wheel", {
        "header": header, "spokes": [{"name": "a"}, {"name": "b"}], "load": np.ones(3, np.float32)})
    read: Any = store.deserialize_cdr(store.serialize_cdr(message, "my_robot/msg/Wheel"), "my_robot/msg/Wheel")
    assert [s.name for s in read.spokes] == ["a", "b"] and read.load.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(MessageError, match=r"no definition of my_robot/msg/Wing: looked for Wing.msg in \["):
        register_type(store, "my_robot/msg/Wing")
    assert "SmplxBody[] bodies" in definition_text("human_scene_ros/msg/SmplxBodyArray")


def test_stamps_are_found_in_serialized_messages() -> None:
    store = new_typestore()
    fields = fields_of.camera_info_fields(123_456_789_012, "c", CAMERA)
    info = store.serialize_cdr(build_message(store, fields_of.CAMERA_INFO, fields), fields_of.CAMERA_INFO)
    assert stamp_offset(store, fields_of.CAMERA_INFO) == (4, False) and header_stamp_ns(info) == 123_456_789_012
    tf = store.serialize_cdr(build_message(store, fields_of.TF_MESSAGE, fields_of.transforms_fields(
        [(77_000_000_001, "a", "b", np.eye(4))])), fields_of.TF_MESSAGE)
    assert stamp_offset(store, fields_of.TF_MESSAGE) == (8, True) and header_stamp_ns(tf, 8) == 77_000_000_001
    assert stamp_offset(store, STRING) is None


# --- what users bring ---

def test_video(tmp_path: Path) -> None:
    path = tmp_path / "walk.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    for i in range(5):
        video.write(picture(i)[..., ::-1])
    video.release()
    with open_source(path) as source:
        frames = list(source)
        assert source.frame_count == 5 and not source.has_truth and source.truth_at(frames[0].stamp_ns) is None
    assert [f.stamp_ns for f in frames] == [START_NS + i * 80_000_000 for i in range(5)]
    for i, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(i)).max() <= 12 and frame.camera is None
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match="walk.avi (opens as a video but|is neither a recording nor a video)"):
        open_source(path)


def test_video_that_ends_early_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "walk.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(5):
        video.write(picture(i)[..., ::-1])
    video.release()
    with open_source(path) as source, caplog.at_level(logging.WARNING):
        source.frame_count = 9  # what a header of a cut file would say
        assert len(list(source)) == 5
    assert "5 frames decoded, its header says 9" in caplog.text


def test_image_folder_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 2, 0):
        cv2.imwrite(str(tmp_path / f"frame{i}.png"), picture(i)[..., ::-1])
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path, fps=20.0) as source:
        frames = list(source)
    assert [f.stamp_ns for f in frames] == [START_NS, START_NS + 50_000_000, START_NS + 100_000_000]
    for frame, i in zip(frames, (0, 2, 10), strict=True):
        np.testing.assert_array_equal(frame.image, picture(i))
    (tmp_path / "frame3.png").write_bytes(b"broken")
    with open_source(tmp_path) as source, pytest.raises(SourceError, match=r"frame3.png: .*neither JPEG nor PNG"):
        list(source)


def write_topics(folder: Path, topics: dict[str, tuple[str, list[dict]]],
                 plugin: StoragePlugin = StoragePlugin.SQLITE3) -> None:
    """A recording as another program would write it: with rosbags directly."""
    store = shared_typestore()
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connections = {t: writer.add_connection(t, kind, typestore=store) for t, (kind, _) in topics.items()}
        for topic, (kind, messages) in topics.items():
            for i, fields in enumerate(messages):
                data = store.serialize_cdr(build_message(store, kind, fields), kind)
                writer.write(connections[topic], stamp(i), data)


def raw_images(n: int = 2) -> tuple[str, list[dict]]:
    return fields_of.IMAGE, [fields_of.image_fields(stamp(i), "cam", picture(i)[..., ::-1], "bgr8") for i in range(n)]


def infos(camera: PinholeCamera = CAMERA, n: int = 2) -> tuple[str, list[dict]]:
    return fields_of.CAMERA_INFO, [fields_of.camera_info_fields(stamp(i), "cam", camera) for i in range(n)]


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_folder_storage_file_and_folder_without_metadata(tmp_path: Path, plugin: StoragePlugin) -> None:
    write_topics(tmp_path / "bag", {"/cam/image_raw": raw_images(), "/cam/camera_info": infos()}, plugin)
    storage = next(p for p in (tmp_path / "bag").iterdir() if p.suffix in (".db3", ".mcap"))
    for path in (tmp_path / "bag", storage):
        with open_source(path) as source:
            frames = list(source)
        assert [f.camera for f in frames] == [CAMERA, CAMERA]
        np.testing.assert_array_equal(frames[1].image, picture(1))
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with open_source(tmp_path / "bag") as source:
        assert len(list(source)) == 2


def test_topics_are_chosen_or_listed(tmp_path: Path) -> None:
    depth = fields_of.IMAGE, [fields_of.depth_image_fields(stamp(0), "c", np.ones((4, 4)))]
    write_topics(tmp_path / "two", {"/left/image_raw": raw_images(), "/right/image_raw": raw_images(),
                                    "/left/depth/image_raw": depth, "/right/camera_info": infos()})
    with pytest.raises(SourceError, match="several image topics; choose one: /left/image_raw, /right/image_raw$"):
        open_source(tmp_path / "two")
    with pytest.raises(SourceError, match="image topic /up/image is not in it; image topics: /left/image_raw, /right"):
        open_source(tmp_path / "two", "/up/image")
    with pytest.raises(SourceError, match="image topic /right/camera_info is sensor_msgs/msg/CameraInfo"):
        open_source(tmp_path / "two", "/right/camera_info")
    with pytest.raises(SourceError, match="camera_info topic /left/camera_info is not in it; .* /right/camera_info"):
        open_source(tmp_path / "two", "/left/image_raw", "/left/camera_info")
    with open_source(tmp_path / "two", "/left/image_raw") as source:
        assert next(iter(source)).camera is None
    with open_source(tmp_path / "two", "/left/image_raw", "/right/camera_info") as source:
        assert next(iter(source)).camera == CAMERA
    write_topics(tmp_path / "none", {"/text": (STRING, [{"data": "x"}])})
    with pytest.raises(SourceError, match=r"has no image topic; topics: /text \(std_msgs/msg/String\)"):
        open_source(tmp_path / "none")


def test_calibration_of_another_size_is_an_error(tmp_path: Path) -> None:
    write_topics(tmp_path / "bag", {"/cam/image_raw": raw_images(), "/cam/camera_info": infos(CAMERA.resized(32, 24))})
    with open_source(tmp_path / "bag") as source, pytest.raises(CalibrationError, match="for 32x24 px, .* is 64x48"):
        next(iter(source))


def test_a_calibration_that_changes_holds_from_then_on(tmp_path: Path) -> None:
    """Zoom, focus, and a driver that repeats itself: the newest CameraInfo before an image is that image's."""
    wide, near = CAMERA, dataclasses.replace(CAMERA, fx=2.0 * CAMERA.fx)
    with SceneBagWriter(tmp_path / "bag") as bag:
        for i, camera in enumerate((wide, wide, near, near, wide)):
            bag.write("/cam/camera_info", fields_of.CAMERA_INFO, fields_of.camera_info_fields(stamp(i), "cam", camera),
                      stamp(i))
            bag.write("/cam/image_raw", fields_of.IMAGE, fields_of.image_fields(
                stamp(i), "cam", np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8), "rgb8"), stamp(i) + 1)
    with open_source(tmp_path / "bag") as source:
        assert [frame.camera for frame in source] == [wide, wide, near, near, wide]


def test_distortion_is_removed_from_recorded_images(tmp_path: Path) -> None:
    kind, messages = infos()
    for fields in messages:
        fields["d"] = np.array([-0.4, 0.1, 0.0, 0.0, 0.0])
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, axis=0).repeat(3, axis=2)
    images = fields_of.IMAGE, [fields_of.image_fields(stamp(i), "cam", ramp, "rgb8") for i in range(2)]
    write_topics(tmp_path / "bag", {"/cam/image_raw": images, "/cam/camera_info": (kind, messages)})
    write_topics(tmp_path / "rect", {"/cam/image_rect": images, "/cam/camera_info": (kind, messages)})
    with open_source(tmp_path / "bag") as source:
        straight = next(iter(source)).image
    # x = (60 - 31) / 60 is seen at x (1 - 0.4 r^2 + 0.1 r^4) of the distorted image (row 24: y = 0)
    x = 29 / 60
    seen_at = 31 + 60 * x * (1 - 0.4 * x**2 + 0.1 * x**4)
    assert straight[24, 60, 0] == pytest.approx(255 * seen_at / 63, abs=2.0)
    with open_source(tmp_path / "rect") as source:
        np.testing.assert_array_equal(next(iter(source)).image, ramp)


@pytest.mark.parametrize("end", [40, 1000])
def test_a_cut_recording_says_so(tmp_path: Path, end: int) -> None:
    write_recording(tmp_path / "scene")
    path = tmp_path / "scene" / "scene.mcap"
    path.write_bytes(path.read_bytes()[:-end])
    with pytest.raises(SourceError, match="it was cut"):
        open_source(path)


def test_damage_in_the_middle_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    write_recording(tmp_path / "scene", compress=True)
    path = tmp_path / "scene" / "scene.mcap"
    data = bytearray(path.read_bytes())
    data[500:700] = bytes(200)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="is damaged"), open_source(path) as source:
        list(source)


@pytest.mark.parametrize(("name", "content", "text"), [
    ("missing", None, "does not exist; expected a rosbag2 folder, .mcap, .db3, video, image folder or camera index"),
    ("empty.mcap", b"", r"is empty \(0 bytes\)"),
    ("empty.mp4", b"", r"is empty \(0 bytes\)"),
    ("text.mcap", b"hello " * 100, "it is no readable rosbag2 recording"),
    ("text.db3", b"hello " * 100, "it is no readable rosbag2 recording"),
    ("text.mp4", b"hello " * 100, "is neither a recording nor a video"),
    ("ros1.bag", b"#ROSBAG V2.0\n", "is a ROS 1 bag; convert it with `rosbags-convert"),
])
def test_bad_input_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=text) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no image"):
        open_source(tmp_path)
    with SceneBagWriter(tmp_path / "scene"):
        pass
    with pytest.raises(SourceError, match="holds no messages"):
        open_source(tmp_path / "scene")


def test_two_part_type_names_of_2019(tmp_path: Path) -> None:
    """The first ROS 2 releases wrote a bare .db3 with types like "sensor_msgs/Image" and no definitions."""
    store = new_typestore()
    kind, messages = raw_images()
    with sqlite3.connect(tmp_path / "old.db3") as db:
        db.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
        db.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)")
        db.execute("INSERT INTO topics VALUES(1, '/image', 'sensor_msgs/Image', 'cdr')")
        for i, fields in enumerate(messages):
            data = bytes(store.serialize_cdr(build_message(store, kind, fields), kind))
            db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)", (stamp(i), data))
    db.close()
    with open_source(tmp_path / "old.db3") as source:
        np.testing.assert_array_equal([f.image for f in source], [picture(0), picture(1)])


def test_real_recordings() -> None:
    with open_source(shared_folder("data/rosbag2_real/webcam_person_2019")) as source:
        frames = list(source)
        assert len(frames) == 1 and frames[0].image.shape == (480, 640, 3) and frames[0].image.std() > 20
    with open_source(shared_folder("data/multicam_caliscope_a/bag_mcap"), "/cam_0/image_raw") as source:
        frames = list(source)
        assert len(frames) == source.frame_count == 111
        assert all(f.camera is not None and f.image.shape == (360, 640, 3) for f in frames)
        assert np.all(np.diff([f.stamp_ns for f in frames]) > 0)
