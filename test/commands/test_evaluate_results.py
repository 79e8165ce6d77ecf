"""`human-scene evaluate results`: recordings, bodies.jsonl and trajectories against a truth; real reference numbers."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from evaluation_files import START_NS, evaluated, results_arguments, write_results, write_truth
from fake_scene import fake_frame

from human_scene_ros.cli import main
from human_scene_ros.commands.evaluate_results import evaluate_results
from human_scene_ros.commands.run import bodies_line
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.evaluation.trajectory import associate, read_tum, trajectory_errors
from human_scene_ros.synthetic.world import SyntheticWorld

from helpers import shared_folder


def test_a_recording_of_results_gives_its_known_error(tmp_path):
    content = json.loads(evaluated(tmp_path, 12, dataset="emdb1", drop=(3, 4)).read_text())
    values = {k: v["value"] for k, v in content["totals"]["pooled_frames"].items()}
    assert values["root_error_mm"] == pytest.approx(50.0, abs=0.05)
    assert values["mpjpe_mm"] == pytest.approx(0.0, abs=0.01)
    assert values["head_recall"] == values["coverage"] == pytest.approx(10 / 12)
    assert values["latency_p50_ms"] == pytest.approx(26.5, abs=0.01)
    assert 0.005 < values["depth_absrel"] < 0.02  # 5 cm of some metres
    (sequence,) = content["sequences"]
    assert sequence["dataset"] == "emdb1"
    assert content["mode"] == "results" and content["weights"] is None
    assert len(content["git"]["commit"]) == 40 and content["hardware"]["cores"] >= 1
    with (tmp_path / "out" / sequence["files"]["frames"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mpjpe_mm"] == "" for row in rows] == [k in (3, 4) for k in range(12)]
    assert (tmp_path / "out" / sequence["pictures"]["depth"]["file"]).stat().st_size > 1000
    assert sequence["pictures"]["worst"][0]["frame"] in (3, 4)


def test_bodies_jsonl_gives_the_same_people_errors(tmp_path):
    truth = write_truth(tmp_path / "truth", 6)
    lines = []
    for k in range(6):
        row = json.loads(bodies_line(fake_frame(k, error_m=0.05)[1]))
        lines.append(json.dumps({**row, "stamp_ns": row["stamp_ns"] + START_NS}))
    (tmp_path / "bodies.jsonl").write_text("\n".join(lines) + "\n")
    arguments = results_arguments(tmp_path / "bodies.jsonl", truth, tmp_path / "out")
    values = evaluate_results(arguments)["totals"]["pooled_frames"]  # type: ignore[arg-type]
    assert values["root_error_mm"]["value"] == pytest.approx(50.0, abs=0.2)  # the file keeps a tenth of a millimetre
    assert values["mpjpe_mm"]["value"] < 0.2
    assert "mpjae_deg" not in values and values["depth_absrel"]["value"] is None

    (tmp_path / "bodies.jsonl").write_text(lines[0] + "\nnonsense\n")
    with pytest.raises(SourceError, match="line 2 is no line of bodies.jsonl"):
        evaluate_results(arguments)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    truth = tmp_path / "walk.tum"
    truth.write_text("1 0 0 0 0 0 0 1\n2 1 0 0 0 0 0 1\n")
    (tmp_path / "taken").write_text("a file")
    words = ["evaluate", "results", str(truth), "--truth", str(truth), "--out"]
    assert main([*words, str(tmp_path / "taken")]) == 2
    assert re.fullmatch(r"human-scene evaluate: \S+taken/sequences/walk: Not a directory\n", capsys.readouterr().err)
    with pytest.raises(OSError, match="Not a directory"):
        main(["--verbose", *words, str(tmp_path / "taken")])


def test_a_single_pose_says_what_it_lacks(tmp_path):
    one = tmp_path / "one.tum"
    one.write_text("1 2 0 0 0 0 0 1\n")
    content = evaluate_results(results_arguments(one, one, tmp_path / "out"))  # type: ignore[arg-type]
    status = {key: metric["status"] for key, metric in content["totals"]["pooled_frames"].items()}
    assert status == {"ate_sim3_m": "degenerate", "rpe_trans_sim3_m": "degenerate", "ate_se3_m": "ok",
                      "rpe_trans_se3_m": "too short", "rpe_rot_deg": "too short", "path_length_m": "ok",
                      "ate_none_m": "ok", "rpe_trans_none_m": "too short"}


def test_worlds_have_no_seeds_below_zero(capsys):
    assert main(["evaluate", "synthetic", "--seed", "-1", "--worlds", "1", "--frames", "2", "--json"]) == 2
    assert "--seed -1 --worlds 1 --frames 2: need at least seed 0" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="world: seed -5; expected 0 or more"):
        SyntheticWorld(-5)


def test_results_of_another_recording_are_refused(tmp_path):
    truth = write_truth(tmp_path / "truth", 3)
    results = write_results(tmp_path / "results", 3)
    other = results_arguments(results, truth, tmp_path / "out", node="/somebody")
    with pytest.raises(SourceError, match="has no topic /somebody/bodies"):
        evaluate_results(other)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="holds no truth"):
        evaluate_results(results_arguments(results, _without_truth(tmp_path), tmp_path / "out"))  # type: ignore[arg-type]


def _without_truth(folder):
    from human_scene_ros.sources.bag_writer import SceneBagWriter

    with SceneBagWriter(folder / "bare") as bag:
        image, _, truth = fake_frame(0)
        bag.write_camera("/camera/image_raw", image, truth.camera, START_NS, "optical")
    return folder / "bare"


# --- trajectories

def tum(path, stamps_s, poses):
    from scipy.spatial.transform import Rotation

    quats = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    path.write_text("# t x y z qx qy qz qw\n" + "".join(
        " ".join(f"{v:.9f}" for v in (t, *T[:3, 3], *q)) + "\n"
        for t, T, q in zip(stamps_s, poses, quats, strict=True)))
    return path


def test_a_trajectory_is_associated_by_stamps(tmp_path):
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (30, 1, 1))
    poses[:, :3, 3] = np.cumsum(rng.normal(size=(30, 3)), axis=0)
    truth = tum(tmp_path / "truth.tum", np.arange(30) * 0.1, poses)
    late = tum(tmp_path / "estimate.txt", np.arange(5, 25) * 0.1 + 0.004, poses[5:25])
    content = evaluate_results(results_arguments(late, truth, tmp_path / "out"))  # type: ignore[arg-type]
    assert content["sequences"][0]["poses"] == [20, 30, 20]
    assert content["totals"]["pooled_frames"]["ate_none_m"]["value"] == pytest.approx(0.0, abs=1e-8)

    far = tum(tmp_path / "far.tum", np.arange(20) * 0.1 + 0.05, poses[:20])
    with pytest.raises(SourceError, match="have no stamps within 0.01 s of each other"):
        evaluate_results(results_arguments(far, truth, tmp_path / "out"))  # type: ignore[arg-type]


def test_each_stamp_is_used_once_and_the_nearest_wins():
    ours, theirs = associate(np.array([0.0, 1.0, 2.0]), np.array([0.001, 0.996, 1.002, 5.0]))
    assert (ours.tolist(), theirs.tolist()) == ([0, 1], [0, 2])
    ours, theirs = associate(np.array([0.001, 0.996, 1.002, 5.0]), np.array([0.0, 1.0, 2.0]))
    assert (ours.tolist(), theirs.tolist()) == ([0, 2], [0, 1])
    assert associate(np.empty(0), np.array([1.0]))[0].size == 0


@pytest.mark.parametrize(("text", "complaint"), [
    ("1 2 3\n", "line 1: '1 2 3' is no pose"), ("# nothing\n", "holds no pose"),
    ("0 0 0 0 0 0 0 0\n", "line 1"), ("a b c d e f g h\n", "line 1")])
def test_other_files_are_no_trajectories(tmp_path, text, complaint):
    (tmp_path / "x.tum").write_text(text)
    with pytest.raises(SourceError, match=complaint):
        read_tum(tmp_path / "x.tum")


# --- real recordings

def test_ate_of_a_real_trajectory_is_that_of_the_reference(tmp_path):
    """The reference prints six decimals, so it is known to half of the last one."""
    folder = shared_folder("data/trajectories")
    reference = json.loads((folder / "reference_ape.json").read_text())["fr1_xyz_estimate"]
    content = evaluate_results(results_arguments(  # type: ignore[arg-type]
        folder / "fr1_xyz_estimate.tum", folder / "fr1_xyz_groundtruth.tum", tmp_path / "out"))
    values = content["totals"]["pooled_frames"]
    for kind, key in (("none", "no_align"), ("se3", "se3_align"), ("sim3", "sim3_align")):
        assert values[f"ate_{kind}_m"]["value"] == pytest.approx(reference[key], abs=1e-6)


KITCHEN_APE_M = {"sim3": 0.042518246215185164, "se3": 0.18997930903996807, "none": 4.647619702829813}
"""Of evo 1.38.1 for the estimate that the next test makes, translation part, RMSE."""


def test_ate_of_the_kitchen_under_a_known_error():
    """Poses of a real hand-held camera: moved, turned and scaled, then a known error of every position."""
    from scipy.spatial.transform import Rotation

    _, truth = read_tum(shared_folder("data/rgbd_kitchen_a") / "groundtruth.tum")
    moved = truth.copy()
    turn = Rotation.from_euler("xyz", [0.3, -0.8, 1.4]).as_matrix()
    moved[:, :3, :3] = turn @ truth[:, :3, :3]
    moved[:, :3, 3] = 0.4 * truth[:, :3, 3] @ turn.T + [3.0, 1.0, -2.0]
    exact = trajectory_errors(moved, truth, kind="sim3")
    assert exact.ate_rmse_m == pytest.approx(0.0, abs=1e-6)
    assert exact.rpe_rot_rmse_deg == pytest.approx(0.0, abs=1e-5)
    assert trajectory_errors(moved, truth, kind="se3").ate_rmse_m > 0.1

    noisy = moved.copy()
    noisy[:, :3, 3] += np.random.default_rng(0).normal(scale=0.01, size=(len(moved), 3))
    for kind, reference in KITCHEN_APE_M.items():
        assert trajectory_errors(noisy, truth, kind=kind).ate_rmse_m == pytest.approx(  # type: ignore[arg-type]
            reference, abs=1e-6), kind


def test_the_peer_says_the_same_about_the_kitchen():
    evo = pytest.importorskip("evo.core.metrics", reason="the peer evo is not installed")
    from evo.core.trajectory import PoseTrajectory3D

    stamps, truth = read_tum(shared_folder("data/rgbd_kitchen_a") / "groundtruth.tum")
    noisy = truth.copy()
    noisy[:, :3, 3] += np.random.default_rng(1).normal(scale=0.01, size=(len(truth), 3))
    reference, estimate = (PoseTrajectory3D(poses_se3=list(p), timestamps=stamps) for p in (truth, noisy))
    estimate.align(reference, correct_scale=True)
    ape = evo.APE(evo.PoseRelation.translation_part)
    ape.process_data((reference, estimate))
    ours = trajectory_errors(noisy, truth, kind="sim3").ate_rmse_m
    assert ours == pytest.approx(ape.get_statistic(evo.StatisticsType.rmse), abs=1e-6)
