"""`human-scene demo` as a user runs it: real processes, results on disk, and nothing left behind in any case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_scene import fake_frame
from PIL import Image

from helpers import REPOSITORY

LIMIT_S = 240.0
FRAMES = 12
LONG_RECORDING = REPOSITORY / "demo" / "recording"  # plays long enough to be interrupted on a fast machine

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Untrained weights: these tests are about processes and files, not about accuracy."""
    import torch

    from human_scene_ros.model.checkpoint import save_checkpoint
    from human_scene_ros.model.network import HumanSceneNetwork
    from human_scene_ros.model.presets import preset

    torch.manual_seed(0)
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "untrained.safetensors",
                           HumanSceneNetwork(preset("nano")), {"note": "untrained"})


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Images, calibration and truth."""
    from human_scene_ros.sources.bag_writer import SceneBagWriter

    folder = tmp_path_factory.mktemp("input") / "recording"
    with SceneBagWriter(folder) as bag:
        for k in range(FRAMES):
            image, _, truth = fake_frame(k + 1)
            bag.write_camera("/cam/image", image, truth.camera, truth.stamp_ns, "cam_optical")
            bag.write_truth(truth, camera_frame="cam_optical", world_frame="gt")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("input") / "clip.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (320, 240))
    for k in range(FRAMES):
        writer.write(np.ascontiguousarray(fake_frame(k)[0][..., ::-1]))
    writer.release()
    return file


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "human_scene_ros.cli", "demo", *map(str, arguments)]


def start(*arguments: object) -> subprocess.Popen[str]:
    # A test run in the background of a shell inherits an ignored SIGINT; the command is tested as in a terminal.
    return subprocess.Popen(command(*arguments), cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, error


def node_processes(out: Path) -> list[int]:
    """Every process whose command line names the results folder, apart from the command itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{out}/log/" in line:
                found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline_s, f"waited {LIMIT_S:g} s for {what}"
        time.sleep(0.05)


def playing(out: Path) -> Callable[[], bool]:
    log = out / "log" / "bag_node.log"
    return lambda: log.is_file() and "playing" in log.read_text(errors="replace")


def test_a_recording_with_truth_gives_recording_numbers_and_picture(recording, weights, tmp_path):
    out = tmp_path / "demo"
    code, printed, error = finish(start(recording, "--out", out, "--checkpoint", weights, "--json"))
    assert code == 0, error
    summary = json.loads(printed)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [summary[f"frames_{k}"] for k in ("in", "processed", "dropped", "rejected")] == [FRAMES, FRAMES, 0, 0]
    assert 0 < summary["latency_p50_ms"] <= summary["latency_p95_ms"] and summary["fps"] > 0
    assert set(summary["peak_rss_mib"]) == {"bag_node", "reconstructor_node", "markers_node", "record_node"}
    assert all(20 < mib < 2000 for mib in summary["peak_rss_mib"].values())
    assert summary["weights"]["note"] == "untrained" and len(summary["weights"]["sha256"]) == 64
    assert summary["errors"]["frames"] == FRAMES and summary["errors"]["depth_absrel"] > 0
    assert np.asarray(Image.open(out / "overview.png")).std() > 10
    assert node_processes(out) == []

    from human_scene_ros.sources.bag_reader import BagReader

    with BagReader(out / "scene") as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    for topic in ("/image/compressed", "/camera_info", "/human_scene/bodies", "/human_scene/camera_pose", "/tf",
                  "/human_scene/depth/image", "/human_scene_markers/skeletons"):
        assert counts[topic] == FRAMES, topic
    for topic in ("/human_scene/cloud", "/human_scene/map/cloud", "/human_scene/status", "/diagnostics"):
        assert counts[topic] >= 1, topic


def test_a_video_has_no_truth_and_the_end_says_so(video, weights, tmp_path):
    out = tmp_path / "demo"
    (out / "scene").mkdir(parents=True)  # what an interrupted run leaves
    (out / "keep.txt").write_text("not ours")
    code, printed, error = finish(start(video, "--out", out, "--checkpoint", weights, "--max-frames", 5))
    assert code == 0, error
    assert "5 / 5 / 0 / 0" in printed
    assert "This input has no truth" in printed and "untrained" in printed
    assert json.loads((out / "summary.json").read_text())["errors"] is None
    assert (out / "keep.txt").read_text() == "not ours"
    assert node_processes(out) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_while_playing_leaves_no_process(weights, tmp_path, number):
    out = tmp_path / "demo"
    process = start(LONG_RECORDING, "--out", out, "--checkpoint", weights)
    wait_for(playing(out), process, "playing")
    assert len(node_processes(out)) == 4
    process.send_signal(number)
    process.send_signal(number)
    assert finish(process)[0] == 130
    assert node_processes(out) == []


def test_a_node_that_dies_ends_the_demo_with_its_last_lines(weights, tmp_path):
    out = tmp_path / "demo"
    process = start(LONG_RECORDING, "--out", out, "--checkpoint", weights)
    wait_for(lambda: len(node_processes(out)) == 4, process, "four processes")
    victim = next(pid for pid in node_processes(out)
                  if b"reconstructor_node" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(victim, signal.SIGKILL)
    code, _, error = finish(process)
    assert code == 2
    assert "reconstructor_node ended with exit code -9; its last lines:" in error
    assert node_processes(out) == []


@pytest.mark.parametrize(("arguments", "text"), [
    (("/nowhere/clip.mp4",), "/nowhere/clip.mp4 does not exist"),
    (("RECORDING", "--image", "/other"), "image topic /other is not in it; image topics: /cam/image/compressed"),
    (("RECORDING", "--checkpoint", "/nowhere/x.safetensors"), "/nowhere/x.safetensors does not exist"),
])
def test_wrong_arguments_fail_before_anything_starts(recording, weights, tmp_path, arguments, text):
    chosen = [recording if a == "RECORDING" else a for a in arguments]
    if "--checkpoint" not in chosen:
        chosen += ["--checkpoint", weights]
    code, _, error = finish(start(*chosen, "--out", tmp_path / "demo"))
    assert code == 2
    assert text in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "demo" / "log").exists()


def test_a_folder_that_is_no_recording_is_never_replaced(recording, weights, tmp_path):
    precious = tmp_path / "demo" / "scene" / "thesis.tex"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    code, _, error = finish(start(recording, "--out", tmp_path / "demo", "--checkpoint", weights))
    assert code == 2 and "is no recording, so it is not replaced" in error
    assert precious.read_text() == "years of work"
