"""The benchmark and the demo of several cameras, through real processes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from human_scene_ros.cli import main  # noqa: E402
from human_scene_ros.commands import demo_multi  # noqa: E402
from human_scene_ros.commands.bench_fusion import run_clip  # noqa: E402
from human_scene_ros.commands.bench_fusion_ros import run_clip_over_ros  # noqa: E402
from human_scene_ros.errors import SourceError  # noqa: E402
from human_scene_ros.sources.bag_reader import BagReader  # noqa: E402
from human_scene_ros.sources.bag_writer import SceneBagWriter  # noqa: E402
from human_scene_ros.synthetic.multiview import MultiviewConfig, generate  # noqa: E402

from helpers import REPOSITORY  # noqa: E402


@pytest.mark.ros
def test_the_benchmark_over_topics_agrees_with_the_library():
    clip = generate(MultiviewConfig("ring", 4, 2, 75, 4))
    library = run_clip(clip).scores
    topics = run_clip_over_ros(clip, rate=0.5)
    assert {"assoc_precision", "assoc_recall", "idf1", "mota", "id_switches", "wa_mpjpe_single_mm", "wa_mpjpe_fused_mm",
            "mpjpe_abs_fused_mm", "ms_per_frame_p50", "frames"} <= set(library) & set(topics)
    assert topics["messages_in"] == 4 * 75 and topics["messages_dropped"] == topics["messages_lost"] == 0
    assert topics["assoc_precision"] > 0.97 and topics["assoc_recall"] > library["assoc_recall"] - 0.05
    assert topics["id_switches"] <= library["id_switches"] + 1
    assert topics["wa_mpjpe_fused_mm"] < 1.2 * library["wa_mpjpe_fused_mm"]
    assert 0.0 < topics["ms_per_frame_p50"] < topics["latency_p50_ms"] < 1000.0


def test_the_rig_recording_says_where_cameras_and_people_are():
    rig = demo_multi.look_at(REPOSITORY / "demo" / "recording_multi")
    assert rig.cameras == ("camera_0", "camera_1", "camera_2", "camera_3") and rig.world_frame == "map"
    assert rig.images == {"camera_0": 120, "camera_1": 120, "camera_2": 120, "camera_3": 85}
    assert rig.truth.shape == (3, 120, 22, 3) and len(rig.stamps_ns) == 120
    size = sum(path.stat().st_size for path in (REPOSITORY / "demo" / "recording_multi").iterdir())
    assert size < 6_000_000


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(SourceError, match=r"no cameras \['camera_9'\]; it has \['camera_0', .*'camera_3'\]"):
        demo_multi.look_at(REPOSITORY / "demo" / "recording_multi", ("camera_0", "camera_9"))


def test_a_recording_of_one_camera_is_refused_with_what_it_has():
    with pytest.raises(SourceError, match=r"1 camera\(s\) \(camera\); a rig needs two or more, as /CAMERA/image"):
        demo_multi.look_at(REPOSITORY / "demo" / "recording")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of two cameras of the shipped recording; one of camera_1 is no JPEG any more."""
    folder = tmp_path_factory.mktemp("rig") / "damaged"
    with BagReader(REPOSITORY / "demo" / "recording_multi") as bag, SceneBagWriter(folder) as writer:
        for topic, stamp_ns, data in bag.messages():
            if topic.startswith(("/camera_2", "/camera_3")):
                continue
            if topic == "/camera_1/image/compressed" and writer.counts.get(topic, 0) == 4:
                picture = bytes(data).index(b"\xff\xd8")
                data = bytes(data[:picture]) + bytes(len(data) - picture)
            if not topic.endswith("compressed") or writer.counts.get(topic, 0) < 10:
                writer.write_serialized(topic, bag.topics[topic].msgtype, data, stamp_ns, bag.topics[topic].qos[0])
    return folder


@pytest.mark.ros
@pytest.mark.parametrize("shared", [False, True], ids=["one reconstructor each", "one for all"])
def test_the_demo_of_several_cameras_loses_nothing_and_draws(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: Path, shared: bool):
    out = tmp_path / "out"
    assert main(["demo-multi", str(damaged), "--out", str(out), "--json", *(["--shared"] if shared else [])]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((out / "summary.json").read_text())
    assert [summary[f"frames_{kind}"] for kind in ("in", "fused", "dropped", "rejected")] == [20, 19, 0, 1]
    assert summary["sets"] == 10 and summary["sets_partial"] == 1
    assert set(summary["reconstruct_mean_ms"]) == ({"all"} if shared else set(summary["cameras"]))
    assert summary["reconstructors"] == (1 if shared else 2) and summary["reconstructors_peak_rss_mib"] > 100.0
    assert {"assoc_precision", "assoc_recall", "idf1", "id_switches", "wa_mpjpe_single_mm",
            "wa_mpjpe_fused_mm"} <= set(summary["errors"])
    with BagReader(out / "scene") as scene:
        lines = {line.name for _, _, data in scene.messages(["/diagnostics"])
                 for line in scene.deserialize("/diagnostics", data).status}
    nodes = ["human_scene"] if shared else ["camera_0/human_scene", "camera_1/human_scene"]
    assert {f"{node}: Inference" for node in nodes} | {"human_scene_fusion: Sync"} <= lines
    from PIL import Image

    assert Image.open(out / "overview.png").size == (1920, 1080)
    assert "camera" in demo_multi.table(summary)
    parser = argparse.ArgumentParser()
    demo_multi.add_arguments(parser)
    assert parser.parse_args([]).preset == "nano"
