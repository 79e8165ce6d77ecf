"""`human-scene bench`: its report is complete and adds up. Not how fast anything is: that is what it is for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from human_scene_ros.commands import bench, bench_metrics
from human_scene_ros.errors import ConfigError
from human_scene_ros.sources import image_codec


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "human_scene_ros.cli", "bench", *arguments],
                          capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_pipeline_reports_every_stage_and_the_sum(tmp_path):
    import torch

    from human_scene_ros.model.checkpoint import save_checkpoint
    from human_scene_ros.model.network import HumanSceneNetwork
    from human_scene_ros.model.presets import preset

    torch.manual_seed(0)
    weights = tmp_path / "untrained.safetensors"
    save_checkpoint(weights, HumanSceneNetwork(preset("nano")).eval(), {"note": "untrained"})
    result = run("pipeline", "--json", "--frames", "3", "--size", "320x240", "--checkpoint", str(weights), "--lens")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert {"decode", "undistort", "step", "step.preprocess", "step.network", "step.odometry", "map", "fields"} <= set(
        report["stages_ms"])
    assert report["weights"]["note"] == "untrained" and report["size"] == [320, 240]
    assert report["peak_rss_mib"] > 50 and 0 < report["network_ms"]["mean"] < report["total_ms"]["mean"]
    parts = sum(v["mean"] for name, v in report["stages_ms"].items() if "." not in name)
    assert parts == pytest.approx(report["total_ms"]["mean"], rel=0.01)
    rest = report["total_ms"]["mean"] - report["network_ms"]["mean"]
    assert report["ours_ms"]["mean"] == pytest.approx(rest, rel=0.01)


def test_both_sides_of_a_comparison_do_the_same_work():
    rng = np.random.default_rng(0)
    xyz, colors = rng.random((50, 3), np.float32), rng.integers(0, 255, (50, 3), np.uint8)
    ours = bench._pack_cloud(xyz, colors)
    data = ours["data"] if isinstance(ours, dict) else ours.data
    assert bytes(data) == bench._pack_point_by_point(xyz, colors)
    image = rng.integers(0, 255, (480, 640, 3), np.uint8)
    decoded = image_codec.decode_image("bgr8", 480, 640, 1920, False, image.tobytes())
    np.testing.assert_array_equal(decoded, bench._decode_row_by_row("bgr8", image.tobytes(), 1920))


def test_metrics_are_timed_one_by_one_and_beside_the_peers():
    """A tenth of the benchmark, in ten times the time that it may take: an order of growth, no race."""
    report = bench_metrics.bench_metrics(1000, 10, 30)
    assert report["total_cpu_s"] == pytest.approx(sum(report["metrics_cpu_s"].values())) and report["total_cpu_s"] < 2.0
    assert {"mpjpe", "pa_mpjpe", "wa_mpjpe", "w_mpjpe", "rte", "jitter", "tracking"} <= set(report["metrics_cpu_s"])
    assert report["decode_frames_per_cpu_s"] > 60.0
    for row in report["peers"]["comparisons"]:
        assert row["difference"] < 1e-6 and row["ratio"] == pytest.approx(row["peer_cpu_s"] / row["ours_cpu_s"])
    assert len(report["peers"]["comparisons"]) == 2 or "not installed" in report["peers"]["missing"]


def test_frames_are_walked_back_and_forth():
    assert [bench._back_and_forth(i, 4) for i in range(8)] == [0, 1, 2, 3, 2, 1, 0, 1]


@pytest.mark.parametrize("size", ["640", "640x", "axb", "640x10"])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ConfigError, match="--size"):
        bench._size(size)
