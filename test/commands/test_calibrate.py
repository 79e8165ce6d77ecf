"""`human-scene calibrate`: recordings in, a rig file out, compared with what is known; what is missing is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.cli import main
from human_scene_ros.commands.fusion_clip import START_NS, camera_names, clip_messages, write_body
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.sources.bag_writer import SceneBagWriter
from human_scene_ros.sources.fusion_fields import CameraPlace
from human_scene_ros.sources.message_fields import BODY_ARRAY, time_fields
from human_scene_ros.sources.rig_file import read_rig, rig_text
from human_scene_ros.synthetic.multiview import MultiviewConfig, generate

from helpers import REPOSITORY


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A recording of three cameras with exact joints, one per camera of the same, and the true poses."""
    folder = tmp_path_factory.mktemp("rig")
    clip = generate(MultiviewConfig("ring", 3, 1, 90, 6))
    write_body(folder / "body.npz")
    bags = {name: SceneBagWriter(folder / name / "scene") for name in camera_names(clip)}
    with SceneBagWriter(folder / "all") as together:
        templates = {m.camera: m.fields for m in clip_messages(clip, folder / "body.npz")
                     if len(m.fields["bodies"]) == 1}
        for k in range(90):
            for v, name in enumerate(camera_names(clip)):
                joints = np.array(templates[name]["bodies"][0]["joints"], np.float32).reshape(-1, 3).copy()
                joints[:22] = apply(invert(clip.T_world_camera_true[v]), clip.truth[0, k, :22])
                stamp_ns = START_NS + round(k * 1e9 / 30.0)
                fields = {**templates[name], "header": {"stamp": time_fields(stamp_ns), "frame_id": f"{name}_optical"},
                          "bodies": [{**templates[name]["bodies"][0], "joints": joints.reshape(-1)}]}
                together.write(f"/{name}/human_scene/bodies", BODY_ARRAY, fields, stamp_ns)
                bags[name].write("/human_scene/bodies", BODY_ARRAY, fields, stamp_ns)
    for bag in bags.values():
        bag.close()
    truth = dict(zip(camera_names(clip), clip.T_world_camera_true, strict=True))
    (folder / "truth.yaml").write_text(rig_text("map", [CameraPlace(n, "", T) for n, T in truth.items()]))
    return folder, truth


def test_one_recording_of_all_cameras_or_one_of_each_give_the_rig(recordings, tmp_path: Path, capsys):
    folder, truth = recordings
    each = [f"{name}={folder / name}" for name in truth]
    for inputs in ([str(folder / "all")], each):
        out = tmp_path / "rig.yaml"
        assert main(["calibrate", *inputs, "--out", str(out), "--reference", str(folder / "truth.yaml"), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["files"] == [str(out), str(out.with_suffix(".urdf"))]
        for name, row in list(report["cameras"].items())[1:]:
            assert row["status"] == "OK" and row["error_cm"] < 1.0 and row["error_deg"] < 0.1, name
        for name, place in read_rig(out).items():
            np.testing.assert_allclose(place.T_world_camera, truth[name], atol=5e-3)
            assert place.frame == f"{name}_optical"
        assert "camera_2" in out.with_suffix(".urdf").read_text()


def test_the_first_camera_stands_where_its_own_messages_say_and_a_lonely_one_is_reported(recordings, tmp_path, capsys):
    folder, truth = recordings
    assert main(["calibrate", str(folder / "all"), "--out", str(tmp_path / "rig.yaml"), "--duration", "0.3"]) == 1
    assert "camera_1: no pose: too little was seen by two cameras" in capsys.readouterr().out
    (place,) = read_rig(tmp_path / "rig.yaml").values()
    np.testing.assert_allclose(place.T_world_camera, truth["camera_0"], atol=0.05)  # messages are 0.3 degrees off
    assert place.camera_name == "camera_0"


@pytest.mark.parametrize(("arguments", "text"), [
    (["camera_0={folder}/camera_0"], "only the camera ['camera_0'] is given"),
    (["a={folder}/all", "b={folder}/camera_0"], "has 3 topics of bodies"),
    (["a={folder}/camera_0", "a={folder}/camera_1"], "camera 'a' is given twice"),
    (["a-b={folder}/camera_0", "{folder}/camera_1"], "'a-b' cannot be a camera's name"),
    (["{folder}/nowhere"], "nowhere"),
    (["{folder}/all", "--duration", "-1"], "expected 0 (all) or more seconds")])
def test_what_cannot_work_ends_in_one_line(recordings, capsys, arguments, text):
    folder, _ = recordings
    assert main(["calibrate", *[a.format(folder=folder) for a in arguments]]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_one_state_sees_the_images_of_all_cameras_in_the_order_of_their_stamps(tmp_path: Path):
    """A tiny network with random weights and a pose head: its poses mean nothing, but are one stream's over all."""
    sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
    from tiny_network import OFFICIAL, make

    from human_scene_ros.body.model import load_body_model
    from human_scene_ros.commands.calibrate import poses_of_images
    from human_scene_ros.geometry.camera import PinholeCamera
    from human_scene_ros.runtime.stream import HumanSceneStream
    from human_scene_ros.sources.reader import open_source

    rng, camera = np.random.default_rng(0), PinholeCamera.from_fov(96, 64, 70.0)
    order = ["left", "right", "right", "left", "right", "left"]
    with SceneBagWriter(tmp_path / "images") as bag:
        for k, name in enumerate(order):
            image = np.kron(rng.integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            bag.write_camera(f"/{name}/image", image, camera, START_NS + k * 10**7, f"{name}_optical")
    memory, frames = poses_of_images(HumanSceneStream(make(OFFICIAL), load_body_model()), tmp_path / "images")
    poses = memory.poses(list(frames))
    assert frames == {"left": "left_optical", "right": "right_optical"} and [len(T) for T in poses.values()] == [3, 3]
    plain = HumanSceneStream(make(OFFICIAL), load_body_model())
    images = {name: iter(open_source(tmp_path / "images", f"/{name}/image/compressed")) for name in frames}
    found = {name: iter(T) for name, T in poses.items()}
    for name in order:
        np.testing.assert_allclose(next(found[name]), plain.step(next(images[name])).T_world_camera, atol=1e-6)


def test_weights_without_a_pose_head_say_that_they_cannot(capsys):
    assert main(["calibrate", str(REPOSITORY / "demo" / "recording_multi"), "--scene", "--json"]) == 2
    assert "has no pose head" in capsys.readouterr().err
