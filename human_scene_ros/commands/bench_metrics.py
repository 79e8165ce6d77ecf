"""`human-scene bench metrics`: seconds of every metric, of decoding a recording, and beside evo and motmetrics.

Inputs are random motion of fixed seed. The peers are GPL and MIT software that this package does not import: they run
in a process of their own (`scripts/metric_peers.py` of the checkout) on the same numbers, where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError

JOINTS = 24
PEER_FRAMES = 500
"""Frames for the tracking peer, which takes some milliseconds for each."""

_FEET = [7, 10, 8, 11]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bench metrics`."""
    parser.add_argument("--frames", type=int, default=10_000, help="frames (default 10000)")
    parser.add_argument("--people", type=int, default=10, help="people in each (default 10)")
    parser.add_argument("--decode-frames", type=int, default=300, help="compressed VGA images to decode (default 300)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    result = bench_metrics(arguments.frames, arguments.people, arguments.decode_frames)
    if arguments.json:
        print(json.dumps(result))
        return 0
    print(f"{result['frames']} frames x {result['people']} people x {JOINTS} joints, process CPU seconds")
    for name, seconds in result["metrics_cpu_s"].items():
        print(f"  {name:24s} {seconds:8.3f}")
    print(f"  {'all':24s} {result['total_cpu_s']:8.3f}")
    print(f"compressed VGA from a recording: {result['decode_frames_per_cpu_s']:.0f} frames per CPU second")
    for row in result["peers"]["comparisons"]:
        print(f"{row['what']:34s} ours {row['ours_cpu_s']:8.4f} s  {row['peer']:11s} {row['peer_cpu_s']:8.4f} s = "
              f"{row['ratio']:.0f} times  largest difference {row['difference']:.1e}")
    if result["peers"]["missing"]:
        print(f"not compared: {result['peers']['missing']}")
    return 0


def bench_metrics(frames: int = 10_000, people: int = 10, decode_frames: int = 300) -> dict[str, Any]:
    """Everything; keys: frames, people, metrics_cpu_s, total_cpu_s, decode_frames_per_cpu_s, peers (each with
    `ratio`, its CPU time over ours).

    Raises:
        ConfigError: Too few of something.
    """
    if frames < 8 or people < 1 or decode_frames < 1:
        raise ConfigError(f"--frames {frames} --people {people} --decode-frames {decode_frames}: expected at least 8, "
                          "1 and 1")
    predicted, truth = motion(frames, people)
    seconds = {}
    for name, measure in measures(predicted, truth).items():
        began = time.process_time()
        measure()
        seconds[name] = time.process_time() - began
    return {"frames": frames, "people": people, "metrics_cpu_s": seconds, "total_cpu_s": sum(seconds.values()),
            "decode_frames_per_cpu_s": decode_rate(decode_frames), "peers": compare_with_peers(predicted, truth)}


def motion(frames: int, people: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T, P, 24, 3) prediction and truth: people who walk apart from each other, prediction 5 cm off."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(scale=0.3, size=(1, people, JOINTS, 3))
    path = np.cumsum(rng.normal(scale=0.02, size=(frames, people, 1, 3)), axis=0)
    path = path + 4.0 * np.arange(people)[None, :, None, None] * np.array([1.0, 0.0, 0.0])
    truth = pose + path + rng.normal(scale=0.01, size=(frames, people, JOINTS, 3))
    return truth + rng.normal(scale=0.03, size=truth.shape), truth


def measures(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, Callable[[], Any]]:
    """Name -> what computes it for all people and frames."""
    from human_scene_ros.evaluation import metrics

    people = range(truth.shape[1])
    ours, true = (x.reshape(-1, JOINTS, 3) for x in (predicted, truth))

    def each(measure: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: [measure(predicted[:, p], truth[:, p]) for p in people]

    return {
        "mpjpe": lambda: metrics.mpjpe_mm(ours, true), "pa_mpjpe": lambda: metrics.pa_mpjpe_mm(ours, true),
        "root_error": lambda: metrics.root_error_mm(ours, true), "pck": lambda: metrics.pck(ours, true, 100.0),
        "pck_auc": lambda: metrics.pck_auc(ours, true), "wa_mpjpe": each(metrics.wa_mpjpe_mm),
        "w_mpjpe": each(metrics.w_mpjpe_mm), "rte": each(lambda p, g: metrics.rte_percent(p[:, 0], g[:, 0])),
        "jitter": each(lambda p, g: metrics.jitter_10m_s3(p)), "accel_error": each(metrics.accel_error_m_s2),
        "foot_sliding": each(lambda p, g: metrics.foot_sliding_mm(p[:, _FEET], g[:, _FEET])),
        "tracking": lambda: _tracking(predicted[:, :, 0], truth[:, :, 0]),
    }


def _tracking(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> Any:
    from human_scene_ros.evaluation.tracking import TrackingAccumulator

    accumulator, ids = TrackingAccumulator(0.5), np.arange(truth.shape[1])
    for ours, true in zip(predicted, truth, strict=True):
        accumulator.add(ids, true, ids, ours)
    return accumulator.result()


def decode_rate(frames: int) -> float:
    """Compressed VGA images per CPU second, from a recording on disk to RGB arrays with intrinsics, one thread."""
    import cv2

    from human_scene_ros.geometry.camera import PinholeCamera
    from human_scene_ros.sources.bag_writer import SceneBagWriter
    from human_scene_ros.sources.image_codec import encode_jpeg
    from human_scene_ros.sources.reader import open_source

    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    # As smooth and as noisy as a photograph: some 60 kB each.
    smooth = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    images = [encode_jpeg(np.clip(smooth + rng.normal(scale=4.0, size=smooth.shape), 0, 255).astype(np.uint8), 85)
              for _ in range(4)]
    camera = PinholeCamera.from_fov(640, 480, 65.0)
    with tempfile.TemporaryDirectory() as folder:
        with SceneBagWriter(Path(folder) / "vga") as bag:
            for k in range(frames):
                bag.write_camera("/camera/image_raw", images[k % 4], camera, 1_000_000_000 + k * 33_333_333, "optical")
        with open_source(Path(folder) / "vga") as source:
            next(iter(source))  # what is made once per process, such as the decoders of messages, is not counted
            began = time.process_time()
            count = sum(1 for _ in source)
            return count / (time.process_time() - began)


# --- peers -------------------------------------------------------------------------------------------------------

def compare_with_peers(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, Any]:
    """`comparisons`: what, CPU seconds of both and the largest difference; `missing`: why something is not there."""
    from human_scene_ros.evaluation.trajectory import trajectory_errors

    script = Path(__file__).resolve().parents[2] / "scripts" / "metric_peers.py"
    missing = [name for name in ("evo", "motmetrics") if importlib.util.find_spec(name) is None]
    if not script.is_file() or len(missing) == 2:
        return {"comparisons": [], "missing": "scripts/metric_peers.py is not here: run in the checkout"
                if not script.is_file() else "evo and motmetrics are not installed: pip install evo motmetrics"}
    poses = [_poses(x) for x in (predicted, truth)]
    count = min(PEER_FRAMES, len(truth))
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, estimate=poses[0], truth=poses[1], tracks=predicted[:count, :, 0], people=truth[:count, :, 0])
        done = subprocess.run([sys.executable, str(script), str(inputs)], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"comparisons": [], "missing": f"the peers failed: {done.stderr.strip().splitlines()[-1:]}"}
    theirs = json.loads(done.stdout)
    rows = []
    if "evo" in theirs:
        began = time.process_time()
        errors = trajectory_errors(*poses, kind="sim3")
        rows.append(_row("ATE and RPE, Sim(3)", "evo", time.process_time() - began, theirs["evo"], {
            "ate_m": errors.ate_rmse_m, "rpe_trans_m": errors.rpe_trans_rmse_m,
            "rpe_rot_deg": errors.rpe_rot_rmse_deg}))
    if "motmetrics" in theirs:
        began = time.process_time()
        scores = _tracking(predicted[:count, :, 0], truth[:count, :, 0])
        rows.append(_row(f"tracking, {count} frames", "motmetrics", time.process_time() - began, theirs["motmetrics"], {
            "idf1": scores.idf1, "mota": scores.mota, "motp": scores.motp}))
    return {"comparisons": rows, "missing": f"{missing[0]} is not installed: pip install {missing[0]}" if missing
            else ""}


def _poses(joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 4, 4) camera poses that follow the first person, turned by the motion of two joints."""
    from scipy.spatial.transform import Rotation

    poses = np.tile(np.eye(4), (len(joints), 1, 1))
    poses[:, :3, 3] = joints[:, 0, 0]
    poses[:, :3, :3] = Rotation.from_rotvec(joints[:, 0, 3] - joints[:, 0, 0]).as_matrix()
    return poses


def _row(what: str, peer: str, cpu_s: float, theirs: dict[str, Any], ours: dict[str, float]) -> dict[str, Any]:
    return {"what": what, "peer": f"{peer} {theirs['version']}", "ours_cpu_s": cpu_s, "peer_cpu_s": theirs["cpu_s"],
            "ratio": theirs["cpu_s"] / max(cpu_s, 1e-9), "values": ours, "peer_values": theirs["values"],
            "difference": max(abs(ours[k] - theirs["values"][k]) / max(abs(ours[k]), 1e-12) for k in ours)}
