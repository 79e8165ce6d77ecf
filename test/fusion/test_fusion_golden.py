"""Golden vectors of the fusion and of the tracking scores, through the same code as `human-scene check`."""

from __future__ import annotations

import pytest

from human_scene_ros.commands import check_fusion
from human_scene_ros.evaluation import golden

from helpers import shared_folder


@pytest.mark.parametrize("stem", [*check_fusion.CHECKS, "detection_tracking"])
def test_every_array_is_within_its_limit(stem: str):
    path = shared_folder(f"fixtures/golden/{stem}.npz")
    comparisons = (golden if stem == "detection_tracking" else check_fusion).check_file(path)
    assert comparisons
    assert [(c.name, c.error, c.limit) for c in comparisons if not c.passed] == []


def test_the_tracking_scores_are_compared():
    path = shared_folder("fixtures/golden/detection_tracking.npz")
    assert any("motmetrics" in c.name for c in golden.check_file(path))
