"""The synchroniser's benchmark: what must come out whoever else takes part."""

from __future__ import annotations

import importlib.util
import json

import pytest

from human_scene_ros.cli import main
from human_scene_ros.commands.bench_sync import bench


def test_every_moment_becomes_a_set_also_with_a_dead_camera_and_a_looped_recording(capsys):
    assert main(["bench", "sync", "--frames", "90", "--json"]) == 0
    cases = json.loads(capsys.readouterr().out)["cases"]
    for name in ("jitter", "equal_stamps", "one_camera_dead"):
        assert cases[name]["ours"]["sets"] == pytest.approx(90, abs=3), name
    assert cases["jitter"]["ours"]["complete_sets"] >= 86 and cases["equal_stamps"]["ours"]["complete_sets"] == 90
    assert cases["three_loops"]["ours"]["complete_sets"] >= 86
    assert cases["jitter"]["ours"]["latency_p95_ms"] < 60.0


@pytest.mark.skipif(importlib.util.find_spec("message_filters") is None,
                    reason="needs message_filters, which the wheels of ROS 2 do not hold")
def test_message_filters_goes_silent_where_we_do_not():
    cases = bench(4, 150)["cases"]
    assert cases["jitter"]["message_filters"]["sets"] == pytest.approx(150, abs=5)
    assert cases["one_camera_dead"]["message_filters"]["sets"] < 80 < cases["one_camera_dead"]["ours"]["sets"]
    assert cases["three_loops"]["message_filters"]["sets"] < cases["three_loops"]["ours"]["sets"]
