"""Recordings of synthetic worlds: what the reader gives back is the world, and the shipped one is as promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from human_scene_ros.cli import main
from human_scene_ros.commands.synthesize import CAMERA_FRAME, RECORDING_START_NS, write_recording
from human_scene_ros.sources.reader import open_source
from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

from helpers import REPOSITORY

TINY = WorldConfig(width=96, height=64, num_frames=3, fps=10.0, min_people=2, empty_fraction=0.0, renderer="numpy")


def test_the_reader_gives_back_the_world(tmp_path: Path) -> None:
    world = SyntheticWorld(2, TINY)
    write_recording(tmp_path / "bag", world, quality=95, depth_step=2, depth_every=2)
    source = open_source(tmp_path / "bag")
    frames = list(source)
    assert len(frames) == 3 and source.has_truth
    for index, got in enumerate(frames):
        expected = world.frame(index)
        assert got.stamp_ns == RECORDING_START_NS + expected.stamp_ns and got.camera_frame == CAMERA_FRAME
        assert np.abs(got.image.astype(float) - expected.image).mean() < 12  # JPEG of a noisy picture
        assert got.camera is not None and got.camera.fx == pytest.approx(expected.camera.fx)
        truth = source.truth_at(got.stamp_ns)
        assert truth is not None
        np.testing.assert_allclose(truth.T_world_camera, expected.T_world_camera, atol=1e-6)
        seen = [p for p in expected.people if p.joints_camera[:, 2].min() > 0.05]
        assert [p.person_id for p in truth.people] == [p.person_id for p in seen]
        for a, b in zip(truth.people, seen, strict=True):
            np.testing.assert_allclose(a.joints_camera, b.joints_camera, atol=1e-5)
            assert a.head_visible == b.head_visible
        if index % 2:
            assert truth.depth_m is None
        else:
            assert truth.depth_m is not None and truth.depth_m.shape == (32, 48)
            near = np.where(expected.depth_m[1::2, 1::2] < 65.5, expected.depth_m[1::2, 1::2], 0)
            np.testing.assert_allclose(truth.depth_m, near, atol=6e-4)
    source.close()


def test_true_poses_have_frames_of_their_own(tmp_path: Path) -> None:
    write_recording(tmp_path / "bag", SyntheticWorld(2, TINY))
    with AnyReader([tmp_path / "bag"]) as reader:
        messages = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages() if c.topic == "/tf"]
    frames = {(t.header.frame_id, t.child_frame_id) for m in messages for t in m.transforms}
    # Whoever replays this estimates camera_optical; a second parent would break the TF tree.
    assert frames == {("gt_world", f"gt_{CAMERA_FRAME}")}


def test_command_writes_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["synthesize", str(tmp_path / "bag"), "--bag", "--frames", "2", "--size", "64x48", "--seed", "1",
                 "--renderer", "numpy", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    assert main(arguments) == 2
    assert "holds a recording already" in capsys.readouterr().err


def test_shipped_demo_recording() -> None:
    folder = REPOSITORY / "demo" / "recording"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5_000_000
    source = open_source(folder)
    positions, visible, depths = [], [], 0
    for frame in source:
        assert frame.image.shape == (480, 640, 3) and frame.camera is not None
        truth = source.truth_at(frame.stamp_ns)
        assert truth is not None
        positions.append(truth.T_world_camera[:3, 3])
        visible.append(sum(person.head_visible for person in truth.people))
        depths += truth.depth_m is not None
    source.close()
    assert len(positions) == 150 and np.mean(visible) >= 2 and depths >= 30
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).sum() > 1.0  # metres: the camera moves
