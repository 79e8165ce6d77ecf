"""`human-scene run`: every frame accounted for, results read back, bad input in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from human_scene_ros.cli import main
from human_scene_ros.model.checkpoint import save_checkpoint
from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.presets import PRESETS
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.reader import FolderSource

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
import planes  # noqa: E402 - lies in test/runtime


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained nano weights: they find nobody or anybody, but run the whole route."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    return str(save_checkpoint(path, HumanSceneNetwork(PRESETS["nano"]), {"note": "untrained, for tests"}))


@pytest.fixture()
def folder(tmp_path):
    """Six images of a moving camera, one of them damaged and one too small."""
    path = tmp_path / "images"
    path.mkdir()
    for i in range(6):
        image, _ = planes.render(planes.pose(x=0.03 * i))
        cv2.imwrite(str(path / f"{i}.png"), image)
    (path / "2.png").write_bytes(b"no image at all")
    cv2.imwrite(str(path / "4.png"), np.zeros((8, 8, 3), np.uint8))
    return path


def run_json(capsys, *arguments):
    assert main(["run", *map(str, arguments), "--json"]) == 0
    out = capsys.readouterr().out.strip().splitlines()
    assert len(out) == 1
    return json.loads(out[0])


def test_folder_to_results(tmp_path, folder, weights, capsys):
    out = tmp_path / "out"
    summary = run_json(capsys, folder, "--out", out, "--checkpoint", weights, "--fov", 65)
    assert (summary["frames_in"], summary["frames_processed"], summary["frames_rejected"]) == (6, 4, 2)
    assert summary["frames_dropped"] == 0
    assert summary["errors"] is None
    assert summary["weights"]["note"] == "untrained, for tests"
    assert json.loads((out / "summary.json").read_text()) == summary
    assert cv2.imread(str(out / "overview.png")).shape[:2] == (1080, 1920)
    assert (out / "map.ply").read_bytes().startswith(b"ply\n")

    lines = [json.loads(line) for line in (out / "bodies.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    assert [line["stamp_ns"] for line in lines] == sorted(line["stamp_ns"] for line in lines)
    for line in lines:
        rotation = np.array(line["T_world_camera"])[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert line["calibrated"] is True
        for body in line["bodies"]:
            assert np.shape(body["joints_camera_m"]) == (55, 3)
            assert np.shape(body["head_uv_px"]) == (2,)
            np.testing.assert_allclose(body["joints_camera_m"][15], body["head_camera_m"], atol=1e-3)

    with BagReader(out / "scene") as bag:
        assert bag.topics["/image/compressed"].count == 4
        assert bag.topics["/human_scene/bodies"].count == 4
        assert bag.topics["/human_scene/depth/image"].count == 4
        assert bag.topics["/human_scene/status"].count == 1


def test_runs_again_into_the_same_folder_and_stops_early(tmp_path, folder, weights, capsys):
    out = tmp_path / "out"
    run_json(capsys, folder, "--out", out, "--checkpoint", weights)
    summary = run_json(capsys, folder, "--out", out, "--checkpoint", weights, "--max-frames", 2)
    assert summary["frames_in"] == 2
    assert len((out / "bodies.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("arguments, text", [
    (["nowhere.mp4"], "does not exist"),
    (["FOLDER", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
    (["FOLDER", "--fov", "200"], r"--fov 200.0: must be in \[5, 170\] degrees"),
    (["FOLDER", "--max-frames", "-1"], "--max-frames -1"),
    (["FOLDER", "--device", "abacus"], "device = 'abacus'"),
    (["FOLDER", "--preset", "human3r_672s"], "human3r_672s"),
])
def test_bad_input_ends_in_one_line(tmp_path, folder, capsys, arguments, text):
    arguments = [str(folder) if a == "FOLDER" else a for a in arguments]
    assert main(["run", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert re.search(text, error), error


def test_nothing_usable_says_why(tmp_path, weights, capsys):
    images = tmp_path / "tiny"
    images.mkdir()
    cv2.imwrite(str(images / "0.png"), np.zeros((8, 8, 3), np.uint8))
    assert main(["run", str(images), "--out", str(tmp_path / "out"), "--checkpoint", weights]) == 2
    assert "1 of 1 rejected; the last reason: image has 8x8 px" in capsys.readouterr().err


def test_a_foreign_folder_is_not_touched(tmp_path, folder, weights, capsys):
    scene = tmp_path / "out" / "scene"
    scene.mkdir(parents=True)
    (scene / "precious.txt").write_text("mine")
    assert main(["run", str(folder), "--out", str(tmp_path / "out"), "--checkpoint", weights]) == 2
    assert (scene / "precious.txt").read_text() == "mine"
    assert "is no recording" in capsys.readouterr().err


def test_undecodable_frames_end_the_iteration_unless_somebody_counts_them(folder):
    source, heard = FolderSource(folder, 10.0), []
    source.on_rejected = heard.append
    assert len(list(source)) == 5
    assert len(heard) == 1 and "2.png" in str(heard[0])
