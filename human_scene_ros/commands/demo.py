"""`human-scene demo`: a recording, video or image folder through the real ROS 2 nodes, and a picture of the result.

Four processes (bag_node, reconstructor_node, markers_node, record_node) work on a ROS domain of their own; this
one only watches. The recording that comes out is read back for the errors and the picture, so both show what a
subscriber would have got.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from human_scene_ros.commands import summary as reporting
from human_scene_ros.commands.processes import (
    STALL_LIMIT_S,
    START_LIMIT_S,
    NodeProcesses,
    ProcessError,
    free_domain,
    require_ros,
)
from human_scene_ros.errors import SourceError

if TYPE_CHECKING:
    from human_scene_ros.nodes.observer import Observer
    from human_scene_ros.sources.recorded_run import RecordedRun

IMAGE, INFO, NODE, MARKERS = "/image", "/camera_info", "/human_scene", "/human_scene_markers"
STATUS = f"{NODE}/status"
RECORDED = ("/tf", "/diagnostics", *(f"{NODE}/{name}" for name in (
    "bodies", "camera_pose", "path", "cloud", "map/cloud", "depth/image", "depth/camera_info", "status")),
    *(f"{MARKERS}/{name}" for name in ("skeletons", "capsules", "trails")))
OUTPUTS = ("scene", "log", "summary.json", "overview.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("input", nargs="?", help="rosbag2 folder, .mcap, .db3, video or image folder "
                                                 "(default: the recording that ships with the package)")
    parser.add_argument("--image", default="", help="image topic of a recording (default: the only one)")
    parser.add_argument("--info", default="", help="its CameraInfo topic (default: camera_info beside it)")
    add_run_arguments(parser, "out/demo")


def add_run_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Arguments of every demo."""
    parser.add_argument("--out", type=Path, default=Path(out), help=f"results (default {out})")
    parser.add_argument("--max-frames", type=int, default=0, help="stop after so many images (default: all)")
    parser.add_argument("--preset", default="nano", help="network preset (default nano)")
    parser.add_argument("--checkpoint", default="", help="weights (default: those that ship with the preset)")
    parser.add_argument("--body", default="", help="SMPL-X .npz (default: the open body that ships)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the summary")


def run(arguments: argparse.Namespace) -> int:
    """Play, watch, read back, draw."""
    return run_demo(arguments, demo, reporting.table)


def run_demo(arguments: argparse.Namespace, demo: Callable[[argparse.Namespace, Callable[[str], None]], dict[str, Any]],
             table: Callable[[dict[str, Any]], str]) -> int:
    """Run a demo and print where its results are, or with --json nothing but the summary."""
    say = (lambda text: None) if arguments.json else (lambda text: print(text, flush=True))
    summary = demo(arguments, say)
    if arguments.json:
        print(json.dumps(summary))
        return 0
    print(f"\n{table(summary)}\n")
    for name, meaning in (("overview.png", "the picture"), ("summary.json", "these numbers"),
                          ("scene", "the recording: Foxglove opens it, 'ros2 bag play' feeds RViz")):
        print(f"  {arguments.out / name}  {meaning}")
    return 0


def demo(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole run; returns what is in summary.json.

    Raises:
        SourceError: The input cannot be read, or the output folder holds something else.
        CheckpointError: The weights are missing or damaged.
        ProcessError: A node died or stalled; the text holds its last lines.
    """
    require_ros()
    from human_scene_ros.model.checkpoint import describe_weights

    source = arguments.input or str(shipped_recording())
    weights = describe_weights(arguments.checkpoint or arguments.preset)
    plan = _look_at(source, arguments)
    say(f"input    {plan['name']}: {plan['frames'] or 'unknown number of'} frames"
        + (", with truth" if plan["has_truth"] else ""))
    say(f"weights  {weights.name} {weights.sha256[:12]}: {weights.note or 'no note on what they are worth'}")
    out = prepared(arguments.out)

    with free_domain() as domain_id, NodeProcesses(domain_id, out / "log") as processes:
        from human_scene_ros.nodes.observer import Observer

        with Observer(domain_id) as observer:
            observer.watch_status(STATUS)
            observer.watch_diagnostics()
            _start(processes, source, arguments, plan, out)
            say(f"nodes    bag, reconstructor, markers and record as processes on ROS domain {domain_id}")
            _wait_complete(processes, observer, plan)
            processes.follow(lambda: observer.bodies, lambda _: _settled(processes, observer), total=plan["frames"],
                             to_blame=("reconstructor_node", "bag_node"), say=None if arguments.json else say)
            # The recorder first: it takes what is on its way while the others still run.
            processes.stop("record_node")
            processes.stop("reconstructor_node", "markers_node")
            summary = _counts(observer) | {"peak_rss_mib": processes.peak_rss_mib}
    summary["weights"] = {"name": weights.name, "sha256": weights.sha256, "note": weights.note}
    summary["input"] = plan["name"]
    say("reading back what was recorded")
    _read_back(source, arguments, plan, out, summary)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def shipped_recording(name: str = "recording") -> Path:
    """A recording of the package: in the checkout, else where it was installed.

    Args:
        name: "recording" (one camera) or "recording_multi".

    Raises:
        SourceError: This installation has none.
    """
    candidates = [Path(__file__).resolve().parents[2] / "demo" / name,
                  Path(sys.prefix) / "share" / "human_scene_ros" / "demo" / name]
    if importlib.util.find_spec("ament_index_python") is not None:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

        with contextlib.suppress(PackageNotFoundError):
            candidates.append(Path(get_package_share_directory("human_scene_ros")) / "demo" / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise SourceError(f"the demo recording is not here (looked at {', '.join(map(str, candidates))}); give a video or "
                      "recording of your own")


# --- before ------------------------------------------------------------------------------------------------------

def _look_at(source: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Open the input once, so that a wrong path or topic fails here and in one line."""
    from human_scene_ros.sources.reader import open_source

    with open_source(source, arguments.image or None, arguments.info or None) as opened:
        frames = opened.frame_count
        if frames and arguments.max_frames:
            frames = min(frames, arguments.max_frames)
        return {"name": opened.name, "frames": frames, "has_truth": opened.has_truth,
                "info": getattr(opened, "info_topic", None)}


def prepared(out: Path) -> Path:
    """The output folder without the results of an earlier run; anything else in it stays.

    Raises:
        SourceError: It is a file, or `scene` in it is no recording of ours.
    """
    if out.exists() and not out.is_dir():
        raise SourceError(f"{out} is a file; --out needs a folder")
    scene = out / "scene"
    if scene.exists() and not ((scene / "metadata.yaml").is_file() or list(scene.glob("*.mcap"))
                               or (scene.is_dir() and not any(scene.iterdir()))):
        raise SourceError(f"{scene} is no recording, so it is not replaced; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return out


def _start(processes: NodeProcesses, source: str, arguments: argparse.Namespace, plan: dict[str, Any],
           out: Path) -> None:
    topics = [IMAGE, *([INFO] if plan["info"] else []), *RECORDED]
    processes.start("reconstructor_node", {
        "model.preset": arguments.preset, "model.checkpoint": _absolute(arguments.checkpoint),
        "model.body": _absolute(arguments.body), "input.drop_policy": "all", "input.reliability": "reliable",
        "tf.mode": "camera", "cloud.rate": 4.0}, use_sim_time=True)
    processes.start("markers_node", {"body": _absolute(arguments.body)}, use_sim_time=True)
    processes.start("record_node", {
        "output": str((out / "scene").resolve()), "topics": topics, "stamps": "header", "jpeg": True,
        "compress": True, "wait_timeout": START_LIMIT_S})
    # Three subscribers of the image: reconstructor, recorder, and the observer, which comes last and so begins it.
    # Two images on their way keep the network busy without a queue that would count as latency.
    processes.start("bag_node", {
        "input": str(Path(source).resolve()) if Path(source).exists() else source, "rate": 0.0, "transport": "raw",
        "image": arguments.image, "info": arguments.info, "max_images": arguments.max_frames,
        "wait_for_subscribers": 3, "wait_timeout": 2 * START_LIMIT_S, "max_outstanding": 2,
        "ack_timeout": STALL_LIMIT_S})


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


# --- while it runs -----------------------------------------------------------------------------------------------

def _wait_complete(processes: NodeProcesses, observer: Observer, plan: dict[str, Any]) -> None:
    """Until every process is ready and everybody has found everybody."""
    observer.watch_bodies(f"{NODE}/bodies")
    conditions = [
        ("reconstructor_node to load its weights", lambda: reconstructor_ready(observer)),
        ("reconstructor_node and record_node to subscribe to the images", lambda: observer.subscribers(IMAGE) >= 2),
        ("reconstructor_node to find markers_node, record_node and this process",
         lambda: observer.connected(NODE, "Input camera", "bodies") >= 3),
        ("record_node to find all topics", lambda: processes.says("record_node", "ready: ")),
    ]
    if plan["info"]:
        conditions.append(("reconstructor_node to subscribe to camera_info", lambda: observer.subscribers(INFO) >= 2))
    processes.wait_for(conditions)
    processes.expect_end("bag_node")
    observer.watch_images(IMAGE)


def reconstructor_ready(observer: Observer) -> bool:
    """Whether the status of `NODE` says that it is configured.

    Raises:
        ProcessError: It says why that failed.
    """
    from human_scene_ros.msg import SceneStatus

    status = observer.status(STATUS)
    if status is None:
        return False
    if status.state == SceneStatus.STATE_UNCONFIGURED and "configure failed" in status.message:
        raise ProcessError(f"reconstructor_node: {status.message}")
    return bool(status.state != SceneStatus.STATE_UNCONFIGURED)


def _settled(processes: NodeProcesses, observer: Observer) -> bool:
    """The recording is played and every image is accounted for."""
    status = observer.status(STATUS)
    return processes.exit_code("bag_node") == 0 and status is not None and status.frames_pending == 0 and (
        status.frames_in >= observer.images > 0 and observer.bodies >= status.frames_processed)


def _counts(observer: Observer) -> dict[str, Any]:
    status = observer.status(STATUS)
    assert status is not None  # `_settled` has waited for it
    latency_ms = 1e3 * np.array(observer.latencies_s or [np.nan])
    return {
        "frames_in": int(status.frames_in), "frames_processed": int(status.frames_processed),
        "frames_dropped": int(status.frames_dropped), "frames_rejected": int(status.frames_rejected),
        "fps": round(status.frames_processed / observer.busy_s, 2) if observer.busy_s else 0.0,
        "latency_p50_ms": round(float(np.percentile(latency_ms, 50)), 2),
        "latency_p95_ms": round(float(np.percentile(latency_ms, 95)), 2),
        "inference_mean_ms": round(1e3 * float(status.inference_mean), 2), "weights_reported": status.weights}


# --- afterwards --------------------------------------------------------------------------------------------------

def _read_back(source: str, arguments: argparse.Namespace, plan: dict[str, Any], out: Path,
               summary: dict[str, Any]) -> None:
    """Errors and picture from the recording; completes `summary`."""
    from human_scene_ros.body.model import load_body_model
    from human_scene_ros.evaluation.synthetic import SceneScores
    from human_scene_ros.scene import TrackState
    from human_scene_ros.sources.reader import open_source
    from human_scene_ros.sources.recorded_run import RecordedRun
    from human_scene_ros.viewer.collect import OverviewCollector
    from human_scene_ros.viewer.overview import save_overview

    recording = RecordedRun(out / "scene", f"{IMAGE}/compressed", INFO if plan["info"] else None, NODE)
    scores, collector = SceneScores(), OverviewCollector()
    scores.begin_sequence()
    people, recorded = 0, 0
    tracks: set[tuple[int, int]] = set()
    segments: set[int] = set()
    with open_source(source, arguments.image or None, arguments.info or None) as truths:
        for frame, estimate in recording.frames():
            truth = truths.truth_at(frame.stamp_ns)
            if truth is not None:
                scores.add(estimate, truth)
            collector.add(frame.image, estimate, None if truth is None else truth.T_world_camera)
            confirmed = [b.track_id for b in estimate.bodies if b.track_state == TrackState.CONFIRMED]
            people = max(people, len(confirmed))
            tracks.update((estimate.segment, track_id) for track_id in confirmed)
            segments.add(estimate.segment)
            recorded += 1
    if recorded != summary["frames_processed"]:
        raise SourceError(f"{out / 'scene'} holds {recorded} images with results of {summary['frames_processed']} "
                          f"processed ones: the recorder lost some. The end of its log: {_last_line(out / 'log')}")
    summary.update(people=people, tracks=len(tracks), segments=len(segments),
                   scene_bytes=sum(p.stat().st_size for p in (out / "scene").iterdir()),
                   errors={**scores.result(), **scores.details()} if plan["has_truth"] else None)
    overview = collector.overview(subtitle=reporting.subtitle(summary), facts=reporting.facts(summary),
                                  map_world=_map(recording, len(segments)))
    if overview is None:
        raise SourceError(f"no image of {plan['name']} could be used; see {out / 'log' / 'reconstructor_node.log'}")
    save_overview(out / "overview.png", overview, load_body_model(arguments.body or None))


def _map(recording: RecordedRun, segments: int) -> Any:
    """The run's own map; it belongs to the last segment, so it fits the picture only if there is one."""
    return recording.map_world() if segments == 1 else None


def _last_line(log_folder: Path) -> str:
    lines = (log_folder / "record_node.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(empty)"
