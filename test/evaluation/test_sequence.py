"""A whole sequence: a perfect estimate is perfect in every metric, each known fault shows where it belongs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from fake_scene import fake_frame

from human_scene_ros.errors import ConfigError
from human_scene_ros.evaluation.sequence import EvaluationConfig, SequenceEvaluation, SequenceResult, near_people
from human_scene_ros.evaluation.values import Metric, human3r_log, pooled_frames


def evaluated(frames: int = 12, config: EvaluationConfig | None = None, **options) -> SequenceResult:
    change = options.pop("change", lambda k, estimate, truth: (estimate, truth))
    evaluation = SequenceEvaluation(config)
    for k in range(frames):
        _, estimate, truth = fake_frame(k, **options)
        evaluation.add(*change(k, estimate, truth), stamp_ns=truth.stamp_ns, latency_ms=10.0 + k)
    return evaluation.finish()


def test_a_perfect_estimate_is_perfect():
    result = evaluated()
    for name, metric in result.metrics.items():
        if metric.status != "ok":
            assert name.startswith("rte"), name  # people of the fake scene stand still
        elif name.endswith(("recall", "precision", "f1", "coverage", "coverage_oracle", "idf1", "idp", "idr", "mota")) \
                or "delta" in name or name.startswith(("pck_50", "pck_100", "pck_150", "pcdr")):
            assert metric.value == 1.0, name
        elif "error" in name or "mpj" in name or name.startswith(("ate", "rpe", "depth_absrel", "depth_rmse")):
            assert metric.value == pytest.approx(0.0, abs=2e-3), name
    assert result.counts["people_true"] == result.counts["people_matched"] == 24
    assert result.counts["fps"] == pytest.approx(30.0, rel=1e-4)


def test_an_offset_along_the_ray_is_a_root_error_and_nothing_else():
    values = evaluated(error_m=0.05).metrics
    assert values["root_error_mm"].value == pytest.approx(50.0, abs=0.01)
    assert values["metric_mpjpe_mm"].value == pytest.approx(50.0, abs=0.01)
    assert values["motp_m"].value == pytest.approx(0.05, abs=1e-5)
    assert values["mpjpe_mm"].value == pytest.approx(0.0, abs=1e-3)
    assert values["depth_absrel"].value > values["depth_absrel_median"].value > 0.0
    assert values["depth_people_absrel"].value > values["depth_absrel"].value  # they are nearest


def test_rows_say_what_the_means_say():
    result = evaluated(error_m=0.05)
    assert np.mean(result.frames["root_error_mm"]) == pytest.approx(result.metrics["root_error_mm"].value)
    assert np.mean(result.people["root_depth_error_mm"]) == pytest.approx(50.0, abs=0.01)
    assert result.people["distance_m"][0] == pytest.approx(3.15, abs=0.1)
    # Estimated worlds are moved onto the true one, so that paths lie on each other.
    np.testing.assert_allclose(result.frames["estimate_x_m"], result.frames["true_x_m"], atol=1e-9)
    assert result.joints["count"] == [24] * 22 and max(result.joints["mpjpe_mm"]) < 1e-3
    assert sum(result.depth_by_distance["count"]) == result.metrics["depth_absrel"].count


def test_frames_without_a_result_are_missed_people():
    result = evaluated(10, change=lambda k, estimate, truth: (None if k % 2 else estimate, truth))
    assert result.metrics["head_recall"].value == result.metrics["coverage"].value == 0.5
    assert result.metrics["head_precision"].value == 1.0
    assert result.metrics["mota"].value == pytest.approx(0.5)
    assert [math.isnan(v) for v in result.frames["mpjpe_mm"]] == [False, True] * 5
    assert result.people["track_id"][2:4] == [None, None]


def test_jitter_never_spans_a_gap():
    """People jump by a metre while nobody looks: only a difference across the gap would see it."""
    def jump(k, estimate, truth):
        if k == 6:
            return None, truth
        moved = estimate.T_world_camera.copy()
        moved[0, 3] += 1.0 if k > 6 else 0.0
        return dataclasses.replace(estimate, T_world_camera=moved), truth

    smooth, jumped = evaluated(14).metrics, evaluated(14, change=jump).metrics
    assert jumped["jitter_10m_s3"].value == pytest.approx(smooth["jitter_10m_s3"].value, abs=0.01)
    assert jumped["w_mpjpe_mm"].value > 100.0  # the world motion metric does see it


def test_track_and_oracle_differ_where_identities_change():
    def renamed(k, estimate, truth):
        bodies = tuple(dataclasses.replace(b, track_id=b.track_id + 10 * (k >= 6)) for b in estimate.bodies)
        return dataclasses.replace(estimate, bodies=bodies), truth

    values = evaluated(12, change=renamed).metrics
    assert (values["coverage"].value, values["coverage_oracle"].value) == (0.5, 1.0)
    assert values["track_switches"].value == 2.0
    assert values["idf1"].value == 0.5


def test_segments_are_aligned_on_their_own():
    def two(k, estimate, truth):
        moved = estimate.T_world_camera.copy()
        moved[:3, 3] += 7.0 * (k >= 8)
        return dataclasses.replace(estimate, T_world_camera=moved, segment=int(k >= 8)), truth

    values = evaluated(16, change=two).metrics
    assert values["ate_se3_m"].value == pytest.approx(0.0, abs=1e-9)
    assert values["wa_mpjpe_mm"].value == pytest.approx(0.0, abs=1e-3)


def test_joints_without_truth_do_not_count():
    def partly(k, estimate, truth):
        people = []
        for person in truth.people:
            joints = person.joints_camera.copy()
            joints[[20, 21]] = np.nan
            people.append(dataclasses.replace(person, joints_camera=joints))
        bodies = []
        for body in estimate.bodies:
            joints = body.joints_camera.copy()
            joints[[20, 21]] += 1.0  # wrong where nobody knows
            bodies.append(dataclasses.replace(body, joints_camera=joints))
        return dataclasses.replace(estimate, bodies=tuple(bodies)), dataclasses.replace(truth, people=tuple(people))

    values = evaluated(6, change=partly).metrics
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "wa_mpjpe_mm"):
        assert values[name].value == pytest.approx(0.0, abs=1e-3), name
    assert "metric_mpjpe_mm" not in values


def test_nobody_looked_for_people_is_not_nobody_there():
    values = evaluated(4, change=lambda k, e, t: (e, dataclasses.replace(t, people=(), people_known=False))).metrics
    assert values["head_precision"].status == values["mpjpe_mm"].status == "no truth"
    assert values["ate_se3_m"].value == pytest.approx(0.0, abs=1e-9)


def test_without_truth_only_time_is_known():
    values = evaluated(4, change=lambda k, e, t: (e, None)).metrics
    assert values["depth_absrel"].status == values["ate_se3_m"].status == "no truth"
    assert values["latency_p50_ms"].value == 11.5


@pytest.mark.parametrize("matching", ["heads", "human3r", "optimal"])
def test_every_matching_finds_who_is_where(matching: str):
    config = EvaluationConfig(matching=matching)  # type: ignore[arg-type]
    assert evaluated(3, config).metrics["head_recall"].value == 1.0


def test_the_worst_frame_is_the_one_with_most_missed():
    evaluation = SequenceEvaluation()
    badness = []
    for k in range(3):
        _, estimate, truth = fake_frame(k)
        evaluation.add(dataclasses.replace(estimate, bodies=estimate.bodies[:2 - k]), truth)
        badness.append(evaluation.badness())
    assert badness[0] < badness[1] < badness[2]


def test_a_wrong_config_is_refused():
    with pytest.raises(ConfigError, match="evaluation.matching = 'luck': expected heads, human3r or optimal"):
        EvaluationConfig(matching="luck")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected chunk >= 2"):
        EvaluationConfig(chunk=1)


def test_near_people_is_a_tube_around_bones():
    joints = np.full((22, 3), np.nan)
    joints[0], joints[1] = [0.0, 0.0, 3.0], [0.0, 1.0, 3.0]  # one bone, from the pelvis to the left hip
    points = np.array([[0.2, 0.5, 3.0], [0.3, 0.5, 3.0], [0.0, 1.2, 3.0], [0.0, 1.3, 3.0]])
    assert near_people(points, [joints]).tolist() == [True, False, True, False]
    assert not near_people(points, []).any()


# --- averaging

def sequence(value: float | None, count: float, pooling: str = "weighted") -> dict[str, Metric]:
    return {"x_mm": Metric(value, "none", count if value is not None else 0.0, pooling)}  # type: ignore[arg-type]


def test_pooling_weighs_by_frames_and_trajectories_do_not():
    assert pooled_frames([sequence(10.0, 1), sequence(20.0, 3)])["x_mm"].value == 17.5
    assert pooled_frames([sequence(10.0, 1, "sequences"), sequence(20.0, 3, "sequences")])["x_mm"].value == 15.0
    assert pooled_frames([sequence(2.0, 1, "sum"), sequence(3.0, 1, "sum")])["x_mm"].value == 5.0


def test_undefined_sequences_do_not_count_and_only_undefined_stay_so():
    assert pooled_frames([sequence(10.0, 2), sequence(None, 5)])["x_mm"].value == 10.0
    assert pooled_frames([sequence(None, 5)])["x_mm"].value is None


def test_the_log_of_human3r_rounds_each_sequence_first():
    log = human3r_log([sequence(10.04, 1), sequence(20.06, 1)], ["x_mm"])
    assert log["x_mm"].value == pytest.approx((10.0 + 20.1) / 2)
