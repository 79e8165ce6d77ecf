"""`human-scene evaluate ... --rig`: all cameras of a recording together, offline and from what nodes published."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_files import results_arguments, write_truth
from PIL import Image
from scipy.spatial.transform import Rotation
from test_evaluate_bag import arguments

from human_scene_ros.commands import evaluate_bag, evaluate_rig, report
from human_scene_ros.commands.evaluate_results import evaluate_results
from human_scene_ros.commands.evaluate_rig import RigEstimate, RigPiece, piece_begins, score, stitched
from human_scene_ros.commands.rig_recording import RigTruth, read_rig_truth
from human_scene_ros.commands.synthesize_rig import write_rig_recording
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.evaluation.alignment import Alignment
from human_scene_ros.evaluation.rig import People
from human_scene_ros.evaluation.stitching import moved_pose
from human_scene_ros.geometry.transform import apply, make_transform
from human_scene_ros.scene import BodyEstimate, TrackState
from human_scene_ros.sources import fusion_fields, message_fields
from human_scene_ros.sources.bag_writer import SceneBagWriter
from human_scene_ros.sources.fusion_fields import CameraPlace, FusedBody
from human_scene_ros.synthetic.testset import TEST_SET

from helpers import REPOSITORY

RECORDING = REPOSITORY / "demo" / "recording_multi"
ELSEWHERE = make_transform(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([3.0, -2.0, 0.5]))


def write_rig_results(folder: Path, truth: RigTruth, *, scale: float = 1.0, raised_m: float = 0.0,
                      count: int = 20) -> Path:
    """What a perfect fusion in another world would have published, people `raised_m` too high."""
    description = message_fields.BodyDescription(id_prefix="p")
    empty = message_fields.BodyParameters()
    with SceneBagWriter(folder) as bag:
        for stamp_ns, people in list(truth.people.items())[:count]:
            places = []
            for name, T in truth.poses(stamp_ns).items():
                moved = ELSEWHERE @ T
                moved[:3, 3] *= scale
                places.append(CameraPlace(name, truth.frames[name], moved))
            bag.write("/extrinsics", fusion_fields.EXTRINSICS_ARRAY, fusion_fields.extrinsics_array_fields(
                stamp_ns, "map", places), stamp_ns)
            found = []
            for number, joints in zip(people.number, people.joints_world, strict=True):
                full = np.zeros((55, 3), np.float32)
                full[:22] = scale * (apply(ELSEWHERE, joints) + [0.0, 0.0, raised_m])
                found.append(FusedBody(BodyEstimate(
                    int(number) + 5, TrackState.CONFIRMED, 1, 0.0, 1.0, empty, full, np.zeros(2, np.float32),
                    np.full(4, np.nan, np.float32)), 0, None, (), float("nan"), 1.0))
            bag.write("/people", fusion_fields.FUSED_ARRAY, fusion_fields.fused_array_fields(
                stamp_ns, "map", 0, list(truth.images), [], 0.0, 0.0, found, description), stamp_ns)
    return folder


@pytest.fixture(scope="module")
def truth() -> RigTruth:
    return read_rig_truth(RECORDING)


def test_the_truth_of_a_rig_is_read_without_its_images(truth):
    assert list(truth.images) == ["camera_0", "camera_1", "camera_2", "camera_3"] == list(truth.cameras)
    assert len(truth.people) == 120 and next(iter(truth.people.values())).joints_world.shape == (3, 22, 3)
    assert set(truth.poses(next(iter(truth.people)))) == set(truth.images)


def scores(tmp_path: Path, truth: RigTruth, **changes: float) -> dict[str, float]:
    file = write_rig_results(tmp_path / "results", truth, **changes)
    content = evaluate_results(results_arguments(file, RECORDING, tmp_path / "out", rig=True))  # type: ignore[arg-type]
    return {k: v["value"] for k, v in content["totals"]["pooled_frames"].items()}


def test_what_nodes_published_gives_its_known_error(tmp_path, truth):
    values = scores(tmp_path, truth, raised_m=0.1)
    (worst, *_) = sorted((tmp_path / "out").rglob("worst_*.jpg"))
    with Image.open(worst) as picture:
        assert picture.size == (966, 726)  # two by two cameras of 480 x 360
    assert values["rig_w_mpjpe_m"] == pytest.approx(0.1, abs=1e-4)
    assert values["rig_w_mpjpe_pose_m"] == pytest.approx(0.1, abs=1e-4)
    assert values["motp_m"] == pytest.approx(0.1, abs=1e-4) and values["idf1"] > 0.1
    for name in ("rig_te_m", "rig_s_te_m", "rig_ga_mpjpe_m", "rig_pa_mpjpe_m"):
        assert values[name] == pytest.approx(0.0, abs=1e-4), name
    assert values["rig_ae_deg"] == pytest.approx(0.0, abs=1e-3) and values["rig_rra_10deg"] == 1.0
    # 20 of 120 moments are there; in the others everybody is missed.
    assert values["person_precision"] == 1.0 and values["coverage"] == pytest.approx(1 / 6, abs=0.02)


def test_scale_counts_where_the_protocol_says_so(tmp_path, truth):
    values = scores(tmp_path, truth, scale=1.2)
    assert values["rig_te_m"] > 0.2 and values["rig_w_mpjpe_m"] > 0.1
    for name in ("rig_s_te_m", "rig_ga_mpjpe_m", "rig_pa_mpjpe_m", "rig_ae_deg"):
        assert values[name] == pytest.approx(0.0, abs=1e-3), name


def test_converted_data_sets_hold_the_same_truth(tmp_path):
    """The two ways in which recordings hold a truth, of one world."""
    config = dataclasses.replace(TEST_SET["indoor"][0].config, width=48, height=36, num_frames=2, min_people=2,
                                 renderer="numpy", smooth=False, effects=0.0)
    write_rig_recording(tmp_path / "rig", 6, config, 3, image_truth=True)
    both = read_rig_truth(tmp_path / "rig")
    from human_scene_ros.sources.bag_reader import BagReader

    with BagReader(tmp_path / "rig") as bag, SceneBagWriter(tmp_path / "plain") as copy:
        for topic, stamp_ns, data in bag.messages():
            if topic not in ("/gt/people", "/tf_static"):
                copy.write_serialized(topic, bag.topics[topic].msgtype, data, stamp_ns)
    plain = read_rig_truth(tmp_path / "plain")
    assert not plain.standing and list(plain.people) == list(both.people)
    for stamp_ns, people in both.people.items():
        for name, T in both.poses(stamp_ns).items():
            np.testing.assert_allclose(plain.poses(stamp_ns)[name], T, atol=1e-9)
        known = {n: j for n, j in zip(plain.people[stamp_ns].number, plain.people[stamp_ns].joints_world, strict=True)}
        for number, joints in zip(people.number, people.joints_world, strict=True):
            if number in known:
                assert np.linalg.norm(known[number] - joints, axis=1).mean() < 0.02  # clothes and ground contact


def pieces_elsewhere(truth: RigTruth, length: int) -> list[RigPiece]:
    """The truth in pieces, each in a world of its own: turned, shifted, and larger from piece to piece."""
    stamps = list(truth.people)
    pieces = []
    for k, begin in enumerate(range(0, len(stamps), length)):
        rotation = Rotation.random(random_state=k).as_matrix()
        own = Alignment(rotation, np.array([1.0, 2.0, 3.0 * k]), np.array(1.0 + 0.3 * k), np.array(False))
        poses = {name: moved_pose(own, T) for name, T in truth.poses(stamps[begin]).items()}
        pieces.append(RigPiece([RigEstimate(stamp, People(people.number, own.apply(people.joints_world)), poses)
                                for stamp in stamps[begin:begin + length] for people in [truth.people[stamp]]], poses))
    return pieces


def test_pieces_with_worlds_of_their_own_become_one_motion(tmp_path, truth):
    """Chunks of 100 span four pieces of 25; only stitched do they fit the truth."""
    pieces = pieces_elsewhere(truth, 25)
    together, rows, lines = stitched(pieces)
    assert [(row["first"], row["last"], row["status"], row["cameras"]) for row in rows] == [
        (0, 24, "ok", 4), (25, 49, "ok", 4), (50, 74, "ok", 4), (75, 99, "ok", 4), (100, 119, "ok", 4)]
    assert [row["scale"] for row in rows] == pytest.approx([1.0 / (1.0 + 0.3 * k) for k in range(5)])
    assert lines[1] == "sets 25 to 49: by 4 cameras, scale 0.769, rms 0.0 cm"
    apart = score(truth, [e for piece in pieces for e in piece.estimates], 100, tmp_path, pictures=False)[0].metrics
    joined = score(truth, together, 100, tmp_path, pictures=False)[0].metrics
    for name in ("wa_mpjpe_mm", "w_mpjpe_mm"):
        assert joined[name].value == pytest.approx(0.0, abs=1e-5) and apart[name].value > 300.0, name
    for name in ("rig_ga_mpjpe_m", "rig_s_te_m", "rig_ae_deg", "coverage", "person_precision"):
        assert joined[name].value == pytest.approx(apart[name].value, abs=1e-5), name
    for name in ("rig_te_m", "rig_w_mpjpe_m"):  # no scale is fitted there: that of the first piece is right
        assert joined[name].value == pytest.approx(0.0, abs=1e-5) and apart[name].value > 0.3, name
    assert joined["idf1"].value == 1.0 and apart["idf1"].value < 0.9


def test_a_piece_whose_cameras_were_not_found_is_missed(tmp_path, truth):
    pieces = pieces_elsewhere(truth, 40)
    lost = RigPiece(pieces[1].estimates, {"camera_0": np.eye(4)}, ("camera_0: keeps its pose",
                                                                   "camera_1: no pose: walk more"))
    together, rows, lines = stitched([pieces[0], lost, pieces[2]])
    assert [row["status"] for row in rows] == ["ok", "no match", "ok"] and rows[1]["scale"] is None
    assert lines[1] == "sets 40 to 79: no pose in the world of the others (no match); camera_1: no pose: walk more"
    metrics = score(truth, together, 100, tmp_path, pictures=False)[0].metrics
    assert metrics["coverage"].value == pytest.approx(2 / 3, abs=0.05) and metrics["person_precision"].value == 1.0
    assert metrics["wa_mpjpe_mm"].value == pytest.approx(0.0, abs=1e-5)


def test_frames_of_a_moment_are_in_one_piece():
    """Cameras do not fire at the same time: a piece begins half a moment before the first of its stamps."""
    begins = piece_begins([100, 140, 180, 220, 260], 2)
    assert begins.tolist() == [80, 160, 240] and piece_begins([100, 140], 0).tolist() == [80]
    assert piece_begins([100], 25).tolist() == [100]


def test_what_is_no_rig_is_refused_with_the_reason(tmp_path):
    with pytest.raises(SourceError, match=r"1 camera\(s\) \(camera\); a rig needs two or more"):
        read_rig_truth(REPOSITORY / "demo" / "recording")
    write_truth(tmp_path / "two", 1, camera="cam1")
    with pytest.raises(ConfigError, match="--rig takes all cameras, offline"):
        evaluate_bag.plan(arguments(tmp_path / "two", "--rig", "given", "--image", "/cam1/image_raw"))
    for words in (("--stitch", 25), ("--rig", "given", "--stitch", 25), ("--rig", "people", "--stitch", 1)):
        with pytest.raises(ConfigError, match=r"--stitch \d+: expected 2 or more frames, and --rig people"):
            evaluate_bag.plan(arguments(tmp_path / "two", *words))
    with pytest.raises(SourceError, match="has no topic /people; it has"):
        evaluate_rig.recorded_rig(tmp_path / "two", "/people", "/extrinsics")


@pytest.mark.slow
def test_a_rig_runs_offline(tmp_path):
    """Nano on a rendered rig: it finds somebody, given cameras have no error, and the page shows it."""
    first = evaluate_bag.evaluate_bags(arguments(RECORDING, "--rig", "given", "--max-frames", 8, "--json",
                                                 "--out", tmp_path / "one"))
    (sequence,) = first["sequences"]
    assert sequence["rig"]["placing"] == "given" and sequence["rig"]["fusion"]["frames_used"] == 32
    values = {k: v["value"] for k, v in first["totals"]["pooled_frames"].items()}
    assert sequence["counts"]["frames"] == 8 and values["person_recall"] > 0.1
    assert values["rig_te_m"] == pytest.approx(0.0, abs=1e-9) and values["rig_rra_10deg"] == 1.0
    assert values["association_precision"] > 0.5 and values["association_accuracy"] > 0.5
    assert 0.0 < values["rig_pa_mpjpe_m"] < values["rig_w_mpjpe_m"] < 1.0
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    report.run(parser.parse_args([str(tmp_path / "one"), "--out", str(tmp_path / "r.html")]))
    assert "W-MPJPE" in (tmp_path / "r.html").read_text()
    assert json.loads((tmp_path / "one" / "metrics.json").read_text()) == first


@pytest.mark.slow
def test_a_rig_runs_piece_by_piece(tmp_path):
    """The same images, three moments at a time: every piece is placed on its own, and says how."""
    content = evaluate_bag.evaluate_bags(arguments(RECORDING, "--rig", "people", "--stitch", 3, "--max-frames", 6,
                                                   "--json", "--no-pictures", "--out", tmp_path / "one"))
    (sequence,) = content["sequences"]
    pieces = sequence["rig"]["stitching"]
    assert [(p["first"], p["last"]) for p in pieces] == [(0, 2), (3, 5)]
    assert sequence["rig"]["fusion"]["frames_in"] == 24
    assert {p["status"] for p in pieces} <= {"ok", "no match", "degenerate"}
    assert all((p["scale"] is not None) == (p["status"] == "ok") for p in pieces)
    assert len(sequence["rig"]["calibration"]) == 2 and content["parameters"]["stitch"] == 3
    assert sequence["counts"]["frames"] == 6
    if not any(p["status"] == "ok" for p in pieces):  # three moments are little to place a camera by
        values = content["totals"]["pooled_frames"]
        assert values["wa_mpjpe_mm"]["status"] == values["rig_te_m"]["status"] == "no match"
        assert values["coverage"]["value"] == 0.0
