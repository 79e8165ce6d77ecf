"""`human-scene evaluate results`: results that exist already, of this package or in its formats, against a truth.

Four kinds of files: a recording with `~/bodies` (what `run`, `demo` and `record_node` write), one with the people and
cameras of a rig (`demo-multi`), `bodies.jsonl`, and a camera trajectory in TUM's text format. Truth is a recording
with /gt/ topics, or a TUM file for a trajectory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from human_scene_ros.commands import evaluation_output as output
from human_scene_ros.errors import ConfigError, HumanSceneError, SourceError

if TYPE_CHECKING:
    from human_scene_ros.evaluation.sequence import SequenceEvaluation
    from human_scene_ros.scene import SceneEstimate

TUM_SUFFIXES = (".tum", ".txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate results`."""
    parser.add_argument("file", type=Path, help="recording with bodies, bodies.jsonl, or trajectory (.tum, .txt)")
    parser.add_argument("--truth", type=Path, required=True, help="recording with /gt/ topics, or trajectory")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"), help="results (default out/evaluate)")
    parser.add_argument("--name", default="", help="of the sequence (default: from the file)")
    parser.add_argument("--image", default="", help="camera of the truth recording, by its image topic")
    parser.add_argument("--node", default="/human_scene", help="whose ~/bodies to read (default /human_scene)")
    parser.add_argument("--rig", action="store_true", help="people of several cameras: `/people` and `/extrinsics` of "
                        "FILE against all cameras of the truth; HSfM's metrics")
    parser.add_argument("--people", default="/people", help="FusedPersonArray of --rig (default /people)")
    parser.add_argument("--extrinsics", default="/extrinsics", help="CameraExtrinsicsArray of --rig (default "
                        "/extrinsics)")
    parser.add_argument("--matching", choices=("heads", "human3r", "optimal"), default="heads",
                        help="how people of estimate and truth are paired (default heads)")
    parser.add_argument("--chunk", type=int, default=100, help="frames per alignment of (W)A-MPJPE (default 100)")
    parser.add_argument("--max-stamp-difference", type=float, default=0.01, metavar="S",
                        help="between poses of two trajectories (default 0.01 s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the content of metrics.json")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    content = evaluate_results(arguments)
    if arguments.json:
        print(json.dumps(content))
    else:
        print(f"\n{output.table(content)}\n\n  {arguments.out / 'metrics.json'}")
    return 0


def evaluate_results(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare; returns what is in metrics.json.

    Raises:
        SourceError: A file cannot be read, or the two have no stamp in common.
    """
    if arguments.max_stamp_difference < 0:
        raise ConfigError(f"--max-stamp-difference {arguments.max_stamp_difference}: must not be negative")
    name = arguments.name or (arguments.file.parent.name if arguments.file.name in ("scene", "bodies.jsonl")
                              else arguments.file.stem)
    folder = arguments.out / "sequences" / output.safe_name(name)
    parameters = {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()
                  if k not in ("command", "kind", "json", "verbose") and not callable(v)}
    if arguments.rig:
        from human_scene_ros.commands.evaluate_rig import evaluate_recorded_rig

        result = output.located(evaluate_recorded_rig(
            folder, name, arguments.file, arguments.truth, arguments.people, arguments.extrinsics, arguments.chunk),
            folder, arguments.out)
    elif arguments.file.suffix in TUM_SUFFIXES:
        result = _trajectory(arguments, name, folder)
    else:
        result = _people(arguments, name, folder)
    origin = {**output.provenance(parameters, None), "engine": "none: results were given"}
    return output.write_metrics(arguments.out, "results", [result], origin, (
        "speed and memory: the results were made elsewhere",))


# --- trajectories ------------------------------------------------------------------------------------------------

def _trajectory(arguments: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    from human_scene_ros.evaluation.trajectory import associate, read_tum

    stamps_s, estimate = read_tum(arguments.file)
    if arguments.truth.suffix in TUM_SUFFIXES:
        truth_stamps_s, truth = read_tum(arguments.truth)
    else:
        truth_stamps_s, truth = _true_poses(arguments)
    ours, theirs = associate(stamps_s, truth_stamps_s, arguments.max_stamp_difference)
    if not len(ours):
        raise SourceError(
            f"{arguments.file} ({stamps_s[0]:.3f} to {stamps_s[-1]:.3f} s) and {arguments.truth} "
            f"({truth_stamps_s[0]:.3f} to {truth_stamps_s[-1]:.3f} s) have no stamps within "
            f"{arguments.max_stamp_difference} s of each other; see --max-stamp-difference")
    return write_trajectory(folder, name, stamps_s[ours], estimate[ours], truth[theirs], {
        "path": str(arguments.file), "poses": [len(estimate), len(truth), len(ours)]})


def write_trajectory(folder: Path, name: str, stamps_s: Any, estimate: Any, truth: Any,
                     more: dict[str, Any]) -> dict[str, Any]:
    """Metrics and table of associated poses (N, 4, 4); returns the result as in result.json."""
    from human_scene_ros.evaluation.trajectory import align_trajectory, trajectory_errors
    from human_scene_ros.evaluation.values import DEGENERATE, TOO_SHORT, Metric

    metrics: dict[str, Metric] = {}
    for kind in ("sim3", "se3", "none"):
        errors = trajectory_errors(estimate, truth, kind=kind)  # type: ignore[arg-type]
        missing = DEGENERATE if errors.alignment == "degenerate" else TOO_SHORT
        for key, value in (("ate", errors.ate_rmse_m), ("rpe_trans", errors.rpe_trans_rmse_m)):
            metrics[f"{key}_{kind}_m"] = Metric.of(value, errors.alignment, 1.0, "sequences", missing)
        if kind == "se3":
            metrics["rpe_rot_deg"] = Metric.of(errors.rpe_rot_rmse_deg, errors.alignment, 1.0, "sequences", missing)
            metrics["path_length_m"] = Metric.of(errors.path_length_m, "none", 1.0, "sequences")
    aligned, _ = align_trajectory(estimate, truth, "se3")
    shown = np.full_like(truth, np.nan) if aligned is None else aligned
    frames: dict[str, list[Any]] = {"frame": list(range(len(truth))), "stamp_ns": [round(s * 1e9) for s in stamps_s]}
    for side, poses in (("true", truth), ("estimate", shown)):
        for axis, letter in enumerate("xyz"):
            frames[f"{side}_{letter}_m"] = poses[:, axis, 3].tolist()
    frames["camera_error_mm"] = (1e3 * np.linalg.norm(shown[:, :3, 3] - truth[:, :3, 3], axis=1)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    output.write_csv(folder / "frames.csv", frames)
    result = {"name": name, "counts": {"frames": len(truth)}, "metrics": {k: m.to_json() for k, m in metrics.items()},
              "scene": {}, "joints": {}, "depth_by_distance": {},
              "files": {"frames": f"sequences/{folder.name}/frames.csv"},
              "pictures": {"worst": [], "depth": None}, **more}
    output.write_json(folder / "result.json", result)
    return result


def _true_poses(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from human_scene_ros.sources.reader import open_source

    stamps, poses = [], []
    with open_source(arguments.truth, arguments.image or None) as truths:
        for frame in truths:
            truth = truths.truth_at(frame.stamp_ns)
            if truth is not None:
                stamps.append(frame.stamp_ns * 1e-9)
                poses.append(truth.T_world_camera)
    if not poses:
        raise SourceError(f"{arguments.truth} holds no true camera poses (/gt/camera_pose or /gt/bodies)")
    return np.array(stamps), np.stack(poses)


# --- people ------------------------------------------------------------------------------------------------------

def _people(arguments: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    from human_scene_ros.commands.evaluate_job import dataset_of
    from human_scene_ros.evaluation.sequence import EvaluationConfig, SequenceEvaluation

    config = EvaluationConfig(matching=arguments.matching, chunk=arguments.chunk)
    if arguments.file.suffix == ".jsonl":
        evaluation = SequenceEvaluation(config, rotations=False)
        estimates = {e.stamp_ns: e for e in read_bodies(arguments.file)}
        latencies_ms: dict[int, float] = {}
    else:
        evaluation = SequenceEvaluation(config)
        estimates, latencies_ms = recorded_estimates(arguments.file, arguments.node)
    pictures = compare_with_truth(evaluation, estimates, latencies_ms, arguments.truth, arguments.image, folder)
    result = evaluation.finish()
    content = output.write_sequence(folder, name, result, {
        "path": str(arguments.file), "dataset": dataset_of(arguments.truth), "pictures": pictures})
    return output.located(content, folder, arguments.out)


def recorded_estimates(path: Path, node: str) -> tuple[dict[int, SceneEstimate], dict[int, float]]:
    """Estimates and their latencies (ms, where reported) of a recording, by stamp."""
    from human_scene_ros.sources.message_fields import stamp_ns_of
    from human_scene_ros.sources.recorded_run import RecordedRun

    recorded = RecordedRun(path, "", None, node)
    estimates = {e.stamp_ns: e for e in recorded.estimates()}
    latencies_ms = {stamp_ns_of(m.header.stamp): 1e3 * float(m.latency) for m in recorded.messages(f"{node}/bodies")}
    return estimates, latencies_ms


def compare_with_truth(evaluation: SequenceEvaluation, estimates: dict[int, SceneEstimate],
                       latencies_ms: dict[int, float], truth_path: str | Path, image: str, folder: Path,
                       max_frames: int = 0) -> dict[str, Any]:
    """Every frame of the truth recording against the estimate of the same stamp; frames without one are missed.

    Returns the pictures that were kept.
    """
    from human_scene_ros.commands.evaluate_job import PictureKeeper
    from human_scene_ros.sources.reader import open_source

    keeper, matched = PictureKeeper(), 0
    with open_source(truth_path, image or None) as truths:
        if not truths.has_truth:
            raise SourceError(f"{truths.name} holds no truth (/gt/bodies or /gt/camera_pose)")
        middle = (truths.frame_count or 1) // 2
        for index, frame in enumerate(truths):
            if max_frames and index >= max_frames:
                break
            estimate = estimates.get(frame.stamp_ns)
            truth = truths.truth_at(frame.stamp_ns)
            if estimate is not None and truth is not None and estimate.camera.width == 1:
                # bodies.jsonl knows no image size; its pixels are those of the truth's image.
                estimate = dataclasses.replace(estimate, camera=dataclasses.replace(
                    estimate.camera, width=truth.camera.width, height=truth.camera.height))
            matched += estimate is not None
            evaluation.add(estimate, truth, stamp_ns=frame.stamp_ns,
                           latency_ms=latencies_ms.get(frame.stamp_ns, math.nan))
            keeper.add(evaluation.frame_count - 1, evaluation.badness(), frame, estimate, truth, middle)
    if not matched:
        raise SourceError(f"none of {len(estimates)} estimates has the stamp of a frame of {truth_path}; results and "
                          "truth must be of the same recording")
    return keeper.write(folder)


def read_bodies(path: Path) -> Iterator[SceneEstimate]:
    """Estimates of a bodies.jsonl; no depth, no rotations, image size 1x1 (the file does not tell).

    Raises:
        SourceError: Missing, or a line is something else (says which).
    """
    from human_scene_ros.geometry.camera import PinholeCamera
    from human_scene_ros.scene import ScaleSource, SceneEstimate, TrackingStatus, WorldSource

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            K = np.array(row["K"], np.float64)
            camera = PinholeCamera(1, 1, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
            yield SceneEstimate(
                stamp_ns=int(row["stamp_ns"]), segment=int(row["segment"]),
                T_world_camera=np.array(row["T_world_camera"], np.float64).reshape(4, 4), camera=camera,
                calibrated=bool(row["calibrated"]), dense_camera=camera,
                points_camera=np.full((1, 1, 3), np.nan, np.float32), confidence=np.ones((1, 1), np.float32),
                colors=np.zeros((1, 1, 3), np.uint8), person=np.zeros((1, 1), bool),
                bodies=tuple(_body(b) for b in row["bodies"]), status=TrackingStatus[row["status"]], scale=1.0,
                scale_source=ScaleSource.NETWORK, world_source=WorldSource.LEVEL_CAMERA, stage_ms={})
        except (ValueError, KeyError, TypeError, IndexError, HumanSceneError) as error:
            raise SourceError(f"{path} line {number} is no line of bodies.jsonl: {error!r}; expected what "
                              "`human-scene run` writes") from error


def _body(body: dict[str, Any]) -> Any:
    from human_scene_ros.body.parameters import BodyParameters
    from human_scene_ros.scene import BodyEstimate, TrackState

    joints = np.array(body["joints_camera_m"], np.float32)
    if joints.shape != (55, 3):
        raise ValueError(f"joints_camera_m has shape {joints.shape}, expected (55, 3)")
    return BodyEstimate(
        track_id=int(body["track_id"]), track_state=TrackState[body["track_state"].upper()], track_age=0,
        time_since_update_s=0.0, score=float(body["score"]), parameters=BodyParameters(), joints_camera=joints,
        head_uv_px=np.array(body["head_uv_px"], np.float32), bbox_px=np.zeros(4, np.float32))
