"""`human-scene evaluate bag`: plans, runs in processes of their own, resumes, repeats to the last digit."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_files import write_truth

from human_scene_ros.commands import evaluate_bag
from human_scene_ros.commands.evaluate_job import fixed_environment
from human_scene_ros.errors import ConfigError, SourceError

from helpers import shared_folder


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate_bag.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


def assert_same_numbers(one: dict, other: dict) -> None:
    """To 1e-6, but for how long it took."""
    assert one["totals"]["pooled_frames"].keys() == other["totals"]["pooled_frames"].keys()
    for key, metric in one["totals"]["pooled_frames"].items():
        if key.endswith("_ms"):
            continue
        value = other["totals"]["pooled_frames"][key]["value"]
        assert value == (None if metric["value"] is None else pytest.approx(metric["value"], rel=1e-6)), key


def test_one_job_per_camera_and_names_that_tell_them_apart(tmp_path):
    write_truth(tmp_path / "a" / "walk", 1)
    write_truth(tmp_path / "b" / "walk", 1, camera="cam1")
    jobs = evaluate_bag.plan(arguments(tmp_path / "a", tmp_path / "b" / "walk"))
    assert [job.name for job in jobs] == ["a/walk", "b/walk/cam1", "b/walk/cam2"]
    assert jobs[1].image == "/cam1/image_raw/compressed"
    (one,) = evaluate_bag.plan(arguments(tmp_path / "b" / "walk", "--image", "/cam2/image_raw"))
    assert one.name == "walk" and one.image == "/cam2/image_raw/compressed"


def test_mkl_is_held_to_the_order_that_it_keeps_everywhere_unless_speed_is_asked_for(tmp_path):
    write_truth(tmp_path / "walk", 1)
    (job,) = evaluate_bag.plan(arguments(tmp_path / "walk"))
    (fast,) = evaluate_bag.plan(arguments(tmp_path / "walk", "--fast"))
    weights = {"sha256": "0"}
    assert evaluate_bag.fingerprint(job, weights) != evaluate_bag.fingerprint(fast, weights)
    assert fixed_environment(job.fast)["MKL_CBWR"] == "COMPATIBLE"
    changed = {k: v for k, v in fixed_environment(fast.fast).items() if v != fixed_environment().get(k)}
    assert changed == {"MKL_CBWR": "AVX2"}


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        evaluate_bag.plan(arguments(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no recording"):
        evaluate_bag.plan(arguments(tmp_path / "empty"))
    (tmp_path / "video.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match="is no recording"):
        evaluate_bag.plan(arguments(tmp_path / "video.mp4"))
    write_truth(tmp_path / "two" / "x", 1)
    write_truth(tmp_path / "two" / "y", 1)
    with pytest.raises(ConfigError, match="--truth names one recording, but there are 2"):
        evaluate_bag.plan(arguments(tmp_path / "two", "--truth", tmp_path / "two" / "x"))
    with pytest.raises(ConfigError, match="--workers 0"):
        evaluate_bag.plan(arguments(tmp_path / "two", "--workers", 0))
    with pytest.raises(ConfigError, match="exclude each other"):
        evaluate_bag.plan(arguments(tmp_path / "two", "--live", "--cluster", "a:1"))


@pytest.mark.parametrize("name", ["tf_example", "webcam_person_2019"])
def test_real_recordings_are_opened_or_refused_with_the_reason(name):
    """One has no image; the other has images whose truth nobody knows, which only running it can tell."""
    recording = shared_folder("data/rosbag2_real") / name
    if name == "tf_example":
        with pytest.raises(SourceError, match=r"has no image topic; topics: .*/tf \(tf2_msgs/msg/TFMessage\)"):
            evaluate_bag.plan(arguments(recording))
        return
    (job,) = evaluate_bag.plan(arguments(recording if recording.is_file() else next(recording.glob("*.db3"))))
    done = subprocess.run([sys.executable, "-c", (
        "from pathlib import Path; import sys\n"
        "from human_scene_ros.commands.evaluate_job import EvaluationJob, evaluate_job\n"
        "from human_scene_ros.errors import SourceError\n"
        "try: evaluate_job(Path('.'), EvaluationJob('webcam', sys.argv[1], sys.argv[2]))\n"
        "except SourceError as error: print(error)"), job.path, job.image],
        capture_output=True, text=True, timeout=120, check=True)
    assert "holds no truth" in done.stdout and "convert dataset" in done.stdout


@pytest.mark.slow
def test_runs_repeat_exactly_and_finished_sequences_are_not_run_again(tmp_path, monkeypatch):
    """Neither the number of workers nor threads, order or seeds of the surroundings change a digit."""
    monkeypatch.setattr(evaluate_bag.output, "code_sha256", lambda: "0" * 64)  # somebody may be editing
    write_truth(tmp_path / "bags" / "one", 4)
    write_truth(tmp_path / "bags" / "two", 3, dataset="synthetic-x")
    told = (tmp_path / "bags", "--out", tmp_path / "out", "--json")
    first = evaluate_bag.evaluate_bags(arguments(*told, "--workers", 2))
    assert [s["counts"]["frames"] for s in first["sequences"]] == [4, 3]
    assert [s["dataset"] for s in first["sequences"]] == [None, "synthetic-x"]
    assert first["weights"]["name"] == "nano" and len(first["code_sha256"]) == 64
    assert first["totals"]["pooled_frames"]["head_recall"]["value"] is not None

    folder = tmp_path / "out" / "sequences"
    before = {p.name: (p / "result.json").stat().st_mtime_ns for p in folder.iterdir()}
    rows = (folder / "two" / "people.csv").read_bytes()
    (folder / "two" / "result.json").unlink()  # as if it had been interrupted there
    for name, value in (("OMP_NUM_THREADS", "2"), ("MKL_NUM_THREADS", "2"), ("OPENBLAS_NUM_THREADS", "2"),
                        ("PYTHONHASHSEED", "7"), ("ATEN_CPU_CAPABILITY", "default")):
        monkeypatch.setenv(name, value)
    second = evaluate_bag.evaluate_bags(arguments(*told))
    assert (folder / "two" / "people.csv").read_bytes() == rows
    assert (folder / "one" / "result.json").stat().st_mtime_ns == before["one"]
    assert (folder / "two" / "result.json").stat().st_mtime_ns > before["two"]
    assert_same_numbers(first, second)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == second
    turned = evaluate_bag.evaluate_bags(arguments(  # nothing runs: the order alone is another one
        tmp_path / "bags" / "two", tmp_path / "bags" / "one", "--out", tmp_path / "out", "--json"))
    assert [s["name"] for s in turned["sequences"]] == ["two", "one"]
    assert_same_numbers(second, turned)


@pytest.mark.slow
def test_what_was_killed_goes_on_where_it_was(tmp_path):
    """SIGKILL of everything while the second of two sequences runs; the first is not run again."""
    write_truth(tmp_path / "bags" / "long", 4)
    write_truth(tmp_path / "bags" / "short", 2)
    told = [sys.executable, "-m", "human_scene_ros.cli", "evaluate", "bag", str(tmp_path / "bags"), "--out",
            str(tmp_path / "out"), "--json", "--no-pictures"]
    first, second = (tmp_path / "out" / "sequences" / name / "result.json" for name in ("long", "short"))
    process = subprocess.Popen(told, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + 240.0
        while not first.exists():  # the longest runs first
            assert process.poll() is None and time.monotonic() < deadline_s, process.stderr
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not second.exists() and not (tmp_path / "out" / "metrics.json").exists()
    finished_ns = first.stat().st_mtime_ns
    done = subprocess.run(told, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [s["counts"]["frames"] for s in content["sequences"]] == [4, 2]
    if content["code_sha256"] == json.loads(first.read_text())["origin"]["code_sha256"]:  # nobody edits meanwhile
        assert first.stat().st_mtime_ns == finished_ns


@pytest.mark.slow
def test_one_bad_recording_does_not_stop_the_others(tmp_path):
    from test_evaluate_results import _without_truth

    good, bad = write_truth(tmp_path / "good", 2), _without_truth(tmp_path)
    with pytest.raises(SourceError, match=r"bare: .*holds no truth.*; 1 sequence\(s\) are finished"):
        evaluate_bag.evaluate_bags(arguments(good, bad, "--out", tmp_path / "out", "--json"))
    assert (tmp_path / "out" / "sequences" / "good" / "result.json").is_file()


def test_other_weights_options_or_code_are_another_job(tmp_path, monkeypatch):
    write_truth(tmp_path / "one", 1)
    (job,) = evaluate_bag.plan(arguments(tmp_path / "one"))
    weights = {"sha256": "a"}
    known = {evaluate_bag.fingerprint(job, weights)}
    known.add(evaluate_bag.fingerprint(job, {"sha256": "b"}))
    (chunked,) = evaluate_bag.plan(arguments(tmp_path / "one", "--chunk", 50))
    known.add(evaluate_bag.fingerprint(chunked, weights))
    monkeypatch.setattr(evaluate_bag.output, "code_sha256", lambda: "other")
    known.add(evaluate_bag.fingerprint(job, weights))
    assert len(known) == 4


def test_numbers_are_computed_with_one_thread_and_one_instruction_set():
    fixed = fixed_environment()
    assert {fixed[k] for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"1"}
    assert fixed["ATEN_CPU_CAPABILITY"] == "avx2"


def test_a_cluster_needs_dask_and_a_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_bag, "SCHEDULER_LIMIT_S", 2.0)  # nobody is there, however long one waits
    write_truth(tmp_path / "one", 1)
    with pytest.raises(ConfigError, match="needs Dask: pip install distributed|no Dask scheduler answers there"):
        evaluate_bag.evaluate_bags(arguments(tmp_path / "one", "--cluster", "127.0.0.1:1", "--out", tmp_path / "out"))


@pytest.mark.slow
def test_a_cluster_gives_the_same_numbers(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed", exc_type=ImportError)
    write_truth(tmp_path / "one", 2)
    here = evaluate_bag.evaluate_bags(arguments(tmp_path / "one", "--out", tmp_path / "here", "--json"))
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        there = evaluate_bag.evaluate_bags(arguments(
            tmp_path / "one", "--out", tmp_path / "there", "--json", "--cluster", cluster.scheduler_address))
    assert_same_numbers(here, there)
    assert there["engine"].startswith("dask ")


@pytest.mark.ros
@pytest.mark.slow
def test_live_counts_dropped_frames_as_missed(tmp_path):
    pytest.importorskip("rclpy")
    write_truth(tmp_path / "one", 12)
    content = evaluate_bag.evaluate_bags(arguments(tmp_path / "one", "--live", "--rate", 0.5, "--out",
                                                   tmp_path / "out", "--json"))
    (sequence,) = content["sequences"]
    assert content["mode"] == "live" and sequence["live"]["images"] == 12
    assert sequence["counts"]["frames"] == 12
    assert sequence["dropped"] == 12 - sequence["live"]["frames_processed"] < 12
    assert sequence["metrics"]["latency_p50_ms"]["value"] > 0
    assert Path(tmp_path / "out" / "metrics.json").is_file()
