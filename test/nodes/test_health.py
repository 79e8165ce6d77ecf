"""What a reconstructor says of itself, from what its stream returned. No node, no ROS."""

from __future__ import annotations

import dataclasses
import math

import pytest
from fake_scene import fake_frame

from human_scene_ros.body.scale import ScaleEstimate, ScaleStatus
from human_scene_ros.nodes.diagnostics import Level
from human_scene_ros.nodes.health import Health
from human_scene_ros.runtime.scale import scale_problem
from human_scene_ros.scene import ScaleSource


def tracking_after(estimate):
    """The line "Tracking" of /diagnostics after one image."""
    health = Health("human_scene", ["camera"])
    if estimate is not None:
        health.arrived("camera")
        health.processed(estimate, 0.05, 0.05)
    status = health.status(health.state(configured=True, paused=False, silent=0), [], math.nan, 0)
    reports = health.reports(status, silences={}, inputs={}, listeners={}, tf_problem="", tf_failed=0, hints_missed=0)
    return next(r for r in reports if r.name == "human_scene: Tracking"), status


@pytest.mark.parametrize(("factor", "level"), [(1.04, Level.OK), (0.9, Level.WARN)])
def test_what_people_say_of_a_depth_sensor_is_in_diagnostics(factor, level):
    estimate = fake_frame(0)[1]
    by_people = ScaleEstimate(factor, ScaleStatus.OK, 40)
    estimate = dataclasses.replace(estimate, scale_source=ScaleSource.DEPTH, scale_by_people=by_people,
                                   scale_problem=scale_problem(by_people, ScaleSource.DEPTH, 0.05))
    tracking, status = tracking_after(estimate)
    assert tracking.values["scale_by_people"] == f"{factor:.3f}"
    assert tracking.values["scale_by_people_status"] == "ok, 40 samples"
    assert tracking.level == level
    assert tracking.message == (estimate.scale_problem if level else "tracking")
    assert status.state == 2, "the camera is followed all the same"


def test_without_people_or_images_nothing_is_said_of_the_scale():
    for estimate in (fake_frame(0)[1], None):
        tracking, _ = tracking_after(estimate)
        assert "scale_by_people" not in tracking.values and tracking.level == Level.OK
