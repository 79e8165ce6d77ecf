"""What the fusion node says of itself: bodies left out, durations of sets, where its world comes from."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.fusion.sync import SyncCounters
from human_scene_ros.fusion.types import DetectionStatus
from human_scene_ros.nodes.diagnostics import Level, Report
from human_scene_ros.nodes.fusion_config import ExtrinsicsConfig, config_for
from human_scene_ros.nodes.fusion_health import FusionHealth
from human_scene_ros.nodes.fusion_rig import Rig
from human_scene_ros.nodes.health import State
from human_scene_ros.nodes.parameters import config_from_flat
from human_scene_ros.nodes.tf_tree import TfTree
from human_scene_ros.scene import WorldSource
from human_scene_ros.sources import fusion_fields
from human_scene_ros.sources.fusion_fields import CameraPlace
from human_scene_ros.sources.rig_file import rig_text

CAMERAS = ("front", "left")


def reports(health: FusionHealth, away_s: dict[str, float],
            distance_ratio: tuple[float, float] = (1.0, 1.0)) -> dict[str, Report]:
    """The lines of /diagnostics by name."""
    counters = SyncCounters()
    status = health.status(State.TRACKING, WorldSource.TF, counters, [])
    places = [CameraPlace(name, f"{name}_optical", np.eye(4), distance_ratio=ratio)
              for name, ratio in zip(CAMERAS, distance_ratio, strict=True)]
    empty = dict.fromkeys(CAMERAS, "")
    found = health.reports(status, counters, places, empty, {}, away_s, empty, ExtrinsicsConfig(), 0)
    return {report.name: report for report in found}


def lines(health: FusionHealth) -> dict[str, dict[str, str]]:
    """The values of /diagnostics by name of the line."""
    return {name: report.values for name, report in reports(health, {}).items()}


def test_every_body_that_takes_no_part_is_counted_by_camera_and_reason():
    health = FusionHealth("fusion", CAMERAS)
    health.malformed("left", ["b0001: cannot reshape", "b0002: cannot reshape"])
    health.detections(["front"] * 6 + ["left"] * 3, [int(s) for s in (
        *DetectionStatus, DetectionStatus.STALE, DetectionStatus.INVALID, DetectionStatus.NO_EXTRINSICS)])
    reasons = ("malformed", "invalid", "no_extrinsics", "stale", "duplicate")
    values = lines(health)
    assert [values["fusion: Camera front"][f"bodies_{r}"] for r in reasons] == ["0", "1", "1", "1", "1"]
    assert [values["fusion: Camera left"][f"bodies_{r}"] for r in reasons] == ["2", "1", "1", "1", "0"]
    level, texts = health.notes.worst()
    assert level == Level.ERROR and len(texts) == 3
    assert "left: body left out: b0002: cannot reshape (2 times)" in texts
    assert any(text.startswith("front: body left out: a number that is not finite") for text in texts)
    health.restart()
    assert lines(health)["fusion: Camera left"]["bodies_malformed"] == "0"


def test_the_median_duration_of_a_set_does_not_follow_a_slow_one():
    health = FusionHealth("fusion", CAMERAS)
    for step_s in (0.002, 0.003, 0.004, 0.5):
        health.fused(2, 1, 0.01, step_s, {})
    assert float(lines(health)["fusion: Sync"]["step_p50_ms"]) == pytest.approx(3.5)


def test_the_world_comes_from_the_first_camera_with_a_pose(tmp_path):
    (tmp_path / "rig.yaml").write_text(rig_text("map", [CameraPlace("front", "front_optical", np.eye(4))]))

    def rig(**sources: str) -> Rig:
        return Rig(config_from_flat(config_for(CAMERAS), {
            "cameras": CAMERAS, "extrinsics.file": str(tmp_path / "rig.yaml"),
            **{f"{name}.extrinsics_source": source for name, source in sources.items()}}), TfTree())

    assert rig().world_source() == WorldSource.TF
    assert rig(front="file").world_source() == WorldSource.FILE
    assert rig(front="topic", left="file").world_source() == WorldSource.CAMERAS
    calibrated = rig(front="topic")
    calibrated.calibrate(CameraPlace("left", "left_optical", np.eye(4), source=fusion_fields.SOURCE_PEOPLE))
    assert calibrated.world_source() == WorldSource.PEOPLE, "front has no pose yet"
    calibrated.calibrate(CameraPlace("front", "front_optical", np.eye(4), source=fusion_fields.SOURCE_SCENE))
    assert calibrated.world_source() == WorldSource.CAMERAS


def test_a_camera_of_another_time_is_named_with_what_to_do():
    found = reports(FusionHealth("fusion", CAMERAS), {"left": 3600.0})
    assert found["fusion: Camera left"].level == Level.WARN and found["fusion: Camera front"].level == Level.OK
    assert "+3600.0 s" in found["fusion: Camera left"].message
    assert "sync.time_offsets.left" in found["fusion: Camera left"].message


def test_messages_that_do_not_arrive_are_counted_and_told():
    health = FusionHealth("fusion", CAMERAS)
    for sequence in (7, 8, 12, 13, 0, 1, 3):  # it joins late, loses 3, is restarted by its sender, loses 1
        health.arrived("front", sequence, 0.1)
    for _ in range(3):  # a sender that does not count
        health.arrived("left", 0, 0.1)
    values = lines(health)
    assert (values["fusion: Camera front"]["lost"], values["fusion: Camera left"]["lost"]) == ("4", "0")
    assert health.notes.worst()[1] == ["front: messages were lost on their way: this node does not keep up with them, "
                                       "or the network does not (2 times)"]
    health.restart()
    health.arrived("front", 9, 0.1)
    assert lines(health)["fusion: Camera front"]["lost"] == "0"


def test_a_camera_that_misjudges_distances_is_named():
    found = reports(FusionHealth("fusion", CAMERAS), {}, (float("nan"), 1.5))
    assert found["fusion: Camera front"].level == Level.OK
    assert found["fusion: Camera left"].level == Level.WARN and found["fusion: Camera left"].values[
        "distance_ratio"] == "1.500"
    assert "people are 1.50 times as far away as it sees them: check its intrinsics" in found[
        "fusion: Camera left"].message
