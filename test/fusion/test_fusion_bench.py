"""The benchmark's generator and command: noise as promised, JSON as promised, tracking scores by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.cli import main
from human_scene_ros.errors import ConfigError
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.synthetic.multiview import DUPLICATE, HEAD, MultiviewConfig, generate


def test_the_command_prints_the_promised_keys(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "fusion", "--scenario", "room", "--views", "3", "--people", "2", "--frames", "20", "--seed",
                 "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"assoc_precision", "assoc_recall", "idf1", "mota", "id_switches", "wa_mpjpe_single_mm",
            "wa_mpjpe_fused_mm", "mpjpe_abs_fused_mm", "ms_per_frame_p50", "frames"} <= set(result)
    assert result["frames"] == 20 and result["views"] == 3


def test_nobody_in_the_scene_is_a_valid_benchmark(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "fusion", "--people", "0", "--frames", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wa_mpjpe_fused_mm"] is None


def test_heads_that_meet_in_a_picture_stay_two(capsys: pytest.CaptureFixture[str]):
    """In this clip a head comes within reach of a nearer one that is itself beyond the other's reach."""
    assert main(["bench", "fusion", "--scenario", "room", "--seed", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["id_switches"] == 0 and result["idf1"] > 0.99


def test_the_same_seed_gives_the_same_clip_and_another_does_not():
    a, b, c = (generate(MultiviewConfig("ring", 3, 2, 20, seed)) for seed in (1, 1, 2))
    assert (a.pose == b.pose).all() and (a.stamp_s == b.stamp_s).all()
    assert a.truth.shape == c.truth.shape and not np.allclose(a.truth, c.truth)


def test_noise_and_paths_are_what_the_benchmark_defines():
    clip = generate(MultiviewConfig("ring", 4, 3, 200, 3))
    good = np.flatnonzero(clip.person >= 0)
    T = clip.T_world_camera_true[clip.view[good]]
    truth = clip.truth[clip.person[good], clip.frame[good], HEAD]
    camera = np.einsum("nji,nj->ni", T[:, :3, :3], truth - T[:, :3, 3])
    seen, true = (p[:, :2] / p[:, 2:] * 800.0 for p in (clip.head_camera[good], camera))
    assert np.median(np.abs(seen - true)) < 4.0
    ratio = clip.head_camera[good, 2] / camera[:, 2]
    assert 0.02 < 1.4826 * np.median(np.abs(ratio - 1.0)) < 0.07
    world = Rotation.from_matrix(T[:, :3, :3]) * Rotation.from_rotvec(clip.pose[good, 0])
    for p in range(3):
        mine = (clip.person[good] == p) & (clip.frame[good] == 50)
        if mine.sum() > 1:
            assert (world[mine][0].inv() * world[mine]).magnitude().max() < np.radians(40.0)
    speed = np.linalg.norm(np.diff(clip.truth[:, :, 0, :2], axis=1), axis=2) * 30.0
    assert speed.min() > 0.25 and 0.5 < speed.mean() < 2.0
    assert clip.truth[:, :, (7, 8, 10, 11), 2].min(axis=2) == pytest.approx(0.02)
    assert (clip.score[clip.person == DUPLICATE] <= 0.58).all()
    assert (np.diff(clip.frame) >= 0).all()


def test_a_lost_camera_sends_nothing_after_half_of_the_time():
    clip = generate(MultiviewConfig("camera_loss", 3, 2, 40, 0))
    assert (clip.frame[clip.view == 0] < 20).all() and (clip.frame[clip.view == 1] >= 20).any()


@pytest.mark.parametrize("values", [{"scenario": "beach"}, {"views": 0}, {"people": -1}, {"frames": 0}])
def test_impossible_scenarios_are_refused(values: dict):
    with pytest.raises(ConfigError):
        MultiviewConfig(**values)


def test_tracking_scores_by_hand():
    """One person for ten frames: followed by 7, missed once, then by 8; one stranger published once."""
    scores = TrackingAccumulator(0.5)
    here = np.zeros((1, 3))
    for k in range(10):
        ids, places = ([7] if k < 5 else [8]), here + 0.1
        if k == 4:
            ids, places = [], np.zeros((0, 3))
        if k == 2:
            ids, places = [7, 9], np.concatenate([here + 0.1, here + 5.0])
        scores.add(np.array([0]), here, np.array(ids, np.int64), places)
    result = scores.result()
    assert (result.switches, result.misses, result.false_positives, result.fragmentations) == (1, 1, 1, 1)
    assert result.mota == pytest.approx(1.0 - 3.0 / 10.0)
    assert result.idf1 == pytest.approx(2 * 5 / (10 + 10)) and result.motp == pytest.approx(0.1 * np.sqrt(3))
    assert result.mostly_tracked == 1 and result.mostly_lost == 0


def test_a_partner_that_still_fits_is_kept_although_another_is_nearer():
    scores = TrackingAccumulator(0.5)
    here = np.zeros((1, 3))
    scores.add(np.array([0]), here, np.array([1]), here)
    scores.add(np.array([0]), here, np.array([2, 1]), np.stack([here[0], here[0] + [0.3, 0, 0]]))
    result = scores.result()
    assert result.switches == 0 and result.false_positives == 1
