"""`human-scene evaluate bag --live`: the real nodes at the pace of the recording; drops and latency count.

bag_node plays with /clock, reconstructor_node works live (newest image wins) on that time, record_node keeps what it
publishes. What was recorded is then compared with the truth of EVERY frame: people of dropped frames are missed.
Latency is what the messages say, from the stamp of the image to publishing, on the clock of the recording.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from human_scene_ros.commands import evaluation_output as output
from human_scene_ros.commands.demo import NODE, STATUS, reconstructor_ready
from human_scene_ros.commands.evaluate_job import EvaluationJob, dataset_of
from human_scene_ros.commands.evaluate_results import compare_with_truth, recorded_estimates
from human_scene_ros.commands.processes import START_LIMIT_S, NodeProcesses, free_domain, require_ros

if TYPE_CHECKING:
    from human_scene_ros.nodes.observer import Observer

IMAGE, INFO = "/image", "/camera_info"
RECORDED = tuple(f"{NODE}/{name}" for name in ("bodies", "depth/image", "depth/camera_info", "status"))


def evaluate_live(arguments: argparse.Namespace, jobs: list[EvaluationJob]) -> dict[str, Any]:
    """One recording after the other; returns what is in metrics.json.

    Raises:
        SourceError: A recording cannot be read or has no truth.
        ProcessError: ROS is not there, or a node died or stalled.
    """
    from human_scene_ros.commands.evaluate_bag import parameters_of, weights_of

    require_ros()
    weights = weights_of(arguments)
    sequences = []
    for job in jobs:
        if not arguments.json:
            print(f"live     {job.name}", file=sys.stderr, flush=True)
        folder = arguments.out / "sequences" / output.safe_name(job.name)
        counts = play(job, folder, arguments.rate)
        sequences.append(output.located(_compare(job, folder, counts), folder, arguments.out))
    origin = {**output.provenance(parameters_of(arguments), weights),
              "engine": f"ROS 2 nodes, recording played at {arguments.rate:g} times its speed"}
    return output.write_metrics(arguments.out, "live", sequences, origin, (
        "repeatability: live numbers change from run to run with what else the machine does",))


def play(job: EvaluationJob, folder: Path, rate: float) -> dict[str, Any]:
    """Play one camera of one recording through the nodes; FOLDER/live is what they published. Returns the counters."""
    from human_scene_ros.nodes.observer import Observer

    recording = folder / "live"
    if recording.exists():
        shutil.rmtree(recording)
    folder.mkdir(parents=True, exist_ok=True)
    with free_domain() as domain_id, NodeProcesses(domain_id, folder / "log") as processes, \
            Observer(domain_id, "human_scene_evaluate") as observer:
        observer.watch_status(STATUS)
        observer.watch_diagnostics()
        observer.watch_bodies(f"{NODE}/bodies")
        _start(processes, job, recording, rate)
        processes.wait_for((
            ("reconstructor_node to load its weights", lambda: reconstructor_ready(observer)),
            ("reconstructor_node to subscribe to the images", lambda: observer.subscribers(IMAGE) >= 1),
            ("reconstructor_node to find record_node and this process",
             lambda: observer.connected(NODE, "Input camera", "bodies") >= 2),
            ("record_node to find all topics", lambda: processes.says("record_node", "ready: "))))
        processes.expect_end("bag_node")
        observer.watch_images(IMAGE)  # the last subscriber that bag_node waits for
        processes.follow(lambda: observer.images + observer.bodies,
                         lambda quiet_s: _played(processes, observer, quiet_s), to_blame=("reconstructor_node",),
                         unit="message")
        processes.stop("record_node")  # first: it takes what is on its way
        processes.stop("reconstructor_node")
        status = observer.status(STATUS)
        assert status is not None  # `reconstructor_ready` has waited for it
        return {"images": observer.images, "frames_in": int(status.frames_in),
                "frames_processed": int(status.frames_processed), "frames_dropped": int(status.frames_dropped),
                "frames_rejected": int(status.frames_rejected), "busy_s": observer.busy_s}


def _start(processes: NodeProcesses, job: EvaluationJob, recording: Path, rate: float) -> None:
    processes.start("reconstructor_node", {
        "model.preset": job.preset, "model.checkpoint": job.checkpoint, "model.body": job.body,
        "model.device": job.device, "input.drop_policy": "latest", "input.reliability": "reliable"}, use_sim_time=True)
    processes.start("record_node", {
        "output": str(recording.resolve()), "topics": list(RECORDED), "stamps": "header", "compress": True,
        "wait_timeout": START_LIMIT_S}, use_sim_time=False)
    processes.start("bag_node", {
        "input": job.path, "rate": float(rate), "transport": "raw", "image": job.image, "info": job.info,
        "max_images": job.max_frames, "wait_for_subscribers": 2, "wait_timeout": 2 * START_LIMIT_S})


def _played(processes: NodeProcesses, observer: Observer, quiet_s: float) -> bool:
    """bag_node has ended and nothing has come for a second."""
    status = observer.status(STATUS)
    return processes.exit_code("bag_node") == 0 and quiet_s > 1.0 and status is not None and not status.frames_pending


def _compare(job: EvaluationJob, folder: Path, counts: dict[str, Any]) -> dict[str, Any]:
    from human_scene_ros.evaluation.sequence import EvaluationConfig, SequenceEvaluation

    evaluation = SequenceEvaluation(EvaluationConfig(matching=job.matching, chunk=job.chunk))  # type: ignore[arg-type]
    estimates, latencies_ms = recorded_estimates(folder / "live", NODE)
    pictures = compare_with_truth(evaluation, estimates, latencies_ms, job.truth or job.path, job.image, folder,
                                  job.max_frames)
    result = evaluation.finish()
    busy_s = counts["busy_s"]
    return output.write_sequence(folder, job.name, result, {
        "path": job.path, "image": job.image, "dataset": dataset_of(Path(job.path)),
        "dropped": result.counts["frames"] - len(estimates), "rejected": counts["frames_rejected"],
        "live": counts, "system": {"fps": counts["frames_processed"] / busy_s if busy_s else None},
        "job": dataclasses.asdict(job), "pictures": pictures})
