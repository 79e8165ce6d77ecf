"""`human-scene evaluate bag`: recordings with truth through the stream, offline, every frame; or live through ROS."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from human_scene_ros.commands import evaluation_output as output
from human_scene_ros.commands.evaluate_job import EvaluationJob, run_job
from human_scene_ros.errors import ConfigError, HumanSceneError, SourceError

SCHEDULER_LIMIT_S = 20.0
"""How long an answer of a Dask scheduler is waited for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate bag`."""
    parser.add_argument("path", nargs="+", help="recording (rosbag2 folder, .mcap or .db3) or folder of recordings")
    parser.add_argument("--out", type=Path, default=Path("out/evaluate"), help="results (default out/evaluate); "
                        "sequences that are there already, from the same files and weights, are not run again")
    parser.add_argument("--image", default="", help="image topic (default: every camera of the recording)")
    parser.add_argument("--info", default="", help="its CameraInfo topic (default: camera_info beside it)")
    parser.add_argument("--truth", default="", help="recording with the truth (default: the same; one PATH only)")
    parser.add_argument("--preset", default="nano", help="network preset (default nano)")
    parser.add_argument("--checkpoint", default="", help="weights (default: those that ship with the preset)")
    parser.add_argument("--body", default="", help="SMPL-X .npz (default: the open body that ships)")
    parser.add_argument("--device", default="cpu", help="cpu (default; the same numbers everywhere), cuda, cuda:N")
    parser.add_argument("--engine", choices=("torch", "onnx"), default="torch",
                        help="what runs the network (default torch, the reference)")
    parser.add_argument("--reset-interval", type=int, default=0, help="frames between resets (default 0: never)")
    parser.add_argument("--no-intrinsics", action="store_true", help="hide the focal length from the stream")
    parser.add_argument("--max-frames", type=int, default=0, help="only the first frames of each sequence")
    parser.add_argument("--matching", choices=("heads", "human3r", "optimal"), default="heads",
                        help="how people of estimate and truth are paired (default heads)")
    parser.add_argument("--rig", choices=("given", "people"), default="",
                        help="all cameras of a recording together: people fused from their views, HSfM's metrics; "
                             "cameras stand where the recording says (given), or are placed from the people they see")
    parser.add_argument("--stitch", type=int, default=0, metavar="FRAMES",
                        help="with --rig people: reconstruct so many frames at a time, each piece on its own, and put "
                             "the pieces together by the Sim(3) between their cameras (default 0: all at once)")
    parser.add_argument("--chunk", type=int, default=100, help="frames per alignment of (W)A-MPJPE (default 100)")
    parser.add_argument("--workers", type=int, default=1, help="sequences at the same time (default 1)")
    parser.add_argument("--cluster", default="", metavar="ADDRESS",
                        help="Dask scheduler, host:port; all machines need the same files at the same paths")
    parser.add_argument("--fast", action="store_true", help="let MKL add up in the order that is fastest here: half "
                        "the time, but other last digits on processors of another maker")
    parser.add_argument("--no-pictures", action="store_true", help="keep no pictures of frames")
    parser.add_argument("--again", action="store_true", help="run everything again")
    parser.add_argument("--live", action="store_true", help="through the real ROS nodes at the recording's own pace: "
                        "drops and latency count, numbers vary from run to run")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of --live (default 1.0, real time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the content of metrics.json")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    content = evaluate_bags(arguments)
    if arguments.json:
        print(json.dumps(content))
        return 0
    print(f"\n{output.table(content)}\n\n  {arguments.out / 'metrics.json'}\n"
          f"  human-scene report {arguments.out / 'metrics.json'} --out report.html   makes a page of it")
    return 0


def evaluate_bags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked for; returns what is in metrics.json.

    Raises:
        SourceError: A recording cannot be read or has no truth; all others are finished first.
        ConfigError: Options that do not fit together.
    """
    jobs = plan(arguments)
    if arguments.live:
        from human_scene_ros.commands.evaluate_live import evaluate_live

        return evaluate_live(arguments, jobs)
    weights = weights_of(arguments)
    folders = {job.name: arguments.out / "sequences" / output.safe_name(job.name) for job in jobs}
    results: dict[str, dict[str, Any]] = {}
    waiting: list[EvaluationJob] = []
    for job in jobs:
        done = None if arguments.again else _finished(folders[job.name], job, weights)
        if done is not None:
            results[job.name] = done
        else:
            waiting.append(job)
    failures = _run_all(waiting, folders, weights, results, arguments)
    if failures:
        done_text = f"; {len(results)} sequence(s) are finished and will not be run again" if results else ""
        raise SourceError("; ".join(f"{name}: {error}" for name, error in failures.items()) + done_text)
    ordered = [output.located(results[job.name], folders[job.name], arguments.out) for job in jobs]
    origin = {**output.provenance(parameters_of(arguments), weights), "software": ordered[0]["origin"]["software"],
              "engine": f"dask {arguments.cluster}" if arguments.cluster else f"{arguments.workers} process(es)"}
    return output.write_metrics(arguments.out, "offline", ordered, origin, (
        "drops and latency through ROS: `--live` measures them; the latency here is that of one step",))


def plan(arguments: argparse.Namespace) -> list[EvaluationJob]:
    """One job per recording and camera.

    Raises:
        SourceError: A recording is not there or has no image.
        ConfigError: An option is out of range.
    """
    from human_scene_ros.commands.rig_recording import camera_topics
    from human_scene_ros.sources.bag_reader import BagReader
    from human_scene_ros.sources.reader import choose_image_topic, image_topics

    if arguments.workers < 1 or arguments.max_frames < 0 or arguments.rate <= 0:
        raise ConfigError(f"--workers {arguments.workers} --max-frames {arguments.max_frames} --rate {arguments.rate}: "
                          "expected at least 1, at least 0, above 0")
    if arguments.cluster and arguments.live:
        raise ConfigError("--cluster and --live exclude each other: live timing needs this machine to itself")
    if arguments.rig and (arguments.live or arguments.image):
        raise ConfigError("--rig takes all cameras, offline: it excludes --image and --live; for ROS, evaluate what "
                          "`human-scene demo-multi` recorded with `human-scene evaluate results --rig`")
    if arguments.stitch and (arguments.stitch < 2 or arguments.rig != "people"):
        raise ConfigError(f"--stitch {arguments.stitch}: expected 2 or more frames, and --rig people: cameras that are "
                          "given need no stitching, a single one has nothing to stitch by")
    recordings = _recordings(arguments.path)
    if arguments.truth and len(recordings) > 1:
        raise ConfigError(f"--truth names one recording, but there are {len(recordings)} to evaluate")
    common = {"info": arguments.info, "truth": _absolute(arguments.truth), "preset": arguments.preset,
              "checkpoint": _absolute(arguments.checkpoint), "body": _absolute(arguments.body),
              "device": arguments.device, "engine": arguments.engine, "reset_interval": arguments.reset_interval,
              "intrinsics": not arguments.no_intrinsics, "max_frames": arguments.max_frames,
              "matching": arguments.matching, "chunk": arguments.chunk, "pictures": not arguments.no_pictures,
              "rig": arguments.rig, "stitch": arguments.stitch, "fast": arguments.fast}
    jobs: list[EvaluationJob] = []
    names = _names(recordings)
    for recording in recordings:
        with BagReader(recording) as bag:
            if arguments.rig:
                camera_topics(bag)  # says so now if there are too few
                jobs.append(EvaluationJob(names[recording], str(recording.resolve()), **common))
                continue
            cameras = {topic.removesuffix("/compressed") for topic in image_topics(bag)}
            if arguments.image or len(cameras) < 2:
                topics = [choose_image_topic(bag, arguments.image or None)]
            else:
                topics = [choose_image_topic(bag, camera) for camera in sorted(cameras)]
        for topic in topics:
            camera = topic.removesuffix("/compressed").strip("/").split("/")[0]
            name = f"{names[recording]}/{camera}" if len(topics) > 1 else names[recording]
            jobs.append(EvaluationJob(name, str(recording.resolve()), topic, **common))
    return jobs


def weights_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Name, hash and note of the weights that will run."""
    from human_scene_ros.model.checkpoint import describe_weights

    info = describe_weights(arguments.checkpoint or arguments.preset)
    return {"name": info.name, "sha256": info.sha256, "note": info.note}


def _recordings(paths: list[str]) -> list[Path]:
    from human_scene_ros.sources.bag_reader import is_recording

    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if not path.exists():
            raise SourceError(f"{path} does not exist; expected a rosbag2 folder, .mcap, .db3 or a folder of these")
        # Hidden folders are recordings that somebody is still writing.
        inside = [path] if is_recording(path) or path.is_file() else sorted(
            p for p in path.iterdir() if is_recording(p) and not p.name.startswith("."))
        if not inside:
            raise SourceError(f"{path} holds no recording")
        if not is_recording(inside[0]):
            raise SourceError(f"{path} is no recording; expected a rosbag2 folder, .mcap or .db3")
        found += inside
    return found


def _names(recordings: list[Path]) -> dict[Path, str]:
    """The shortest ends of the paths that tell the recordings apart."""
    parts = {r: (*r.resolve().parent.parts, r.resolve().stem if r.is_file() else r.resolve().name) for r in recordings}
    for depth in range(1, 1 + max(len(p) for p in parts.values())):
        names = {r: "/".join(p[-depth:]) for r, p in parts.items()}
        if len(set(names.values())) == len(set(recordings)):
            break
    return names


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


def parameters_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that decide the numbers, as JSON holds them."""
    hidden = {"command", "kind", "json", "verbose", "again", "workers", "cluster"}
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()
            if k not in hidden and not callable(v)}


# --- running -----------------------------------------------------------------------------------------------------

def fingerprint(job: EvaluationJob, weights: dict[str, Any]) -> str:
    """Hash of everything that decides the result: options, recordings, weights, body model, code."""
    files = [Path(p) for p in (job.path, job.truth, job.body) if p]
    told = [json.dumps(dataclasses.asdict(job), sort_keys=True), weights["sha256"], output.code_sha256(),
            *(output.file_sha256(p) for p in files if p.exists())]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _finished(folder: Path, job: EvaluationJob, weights: dict[str, Any]) -> dict[str, Any] | None:
    """The result of an earlier run of exactly this job, if there is one."""
    try:
        stored = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if stored.get("fingerprint") == fingerprint(job, weights) else None


def _run_all(jobs: list[EvaluationJob], folders: dict[str, Path], weights: dict[str, Any],
             results: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> dict[str, str]:
    """Run the jobs; fills `results`, returns the errors by name."""
    from tqdm import tqdm

    for job in jobs:
        folder = folders[job.name]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        output.write_json(folder / "job.json", {"job": dataclasses.asdict(job),
                                                "fingerprint": fingerprint(job, weights)})
    failures: dict[str, str] = {}
    if not jobs:
        return failures
    local = not arguments.cluster
    frames = {job.name: _frames(job) for job in jobs}
    # The longest first: the others then fill the other workers.
    jobs = sorted(jobs, key=lambda job: -frames[job.name])
    total = sum(frames.values()) if local else len(jobs)
    lock = threading.Lock()
    with tqdm(total=total, unit="frame" if local else "sequence", desc="evaluate", file=sys.stderr,
              disable=True if arguments.json else None) as bar:
        def step() -> None:
            with lock:
                bar.update()

        with _executor(arguments, len(jobs)) as executor:
            futures = {executor.submit(run_job, str(folders[job.name].resolve()), *([step] if local else [])): job
                       for job in jobs}
            try:
                for future in as_completed(futures):
                    name = futures[future].name
                    try:
                        results[name] = future.result()
                    except HumanSceneError as error:
                        failures[name] = str(error)
                    if not local:
                        step()
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
    return failures


@contextlib.contextmanager
def _executor(arguments: argparse.Namespace, jobs: int) -> Iterator[Executor]:
    """Threads that each wait for one process; or a Dask cluster, whose executor has the same interface."""
    if not arguments.cluster:
        with ThreadPoolExecutor(min(arguments.workers, jobs)) as pool:
            yield pool
        return
    try:
        from distributed import Client  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigError(f"--cluster {arguments.cluster} needs Dask: pip install distributed, the same version as "
                          f"on the cluster ({error})") from error

    try:
        client = Client(arguments.cluster, timeout=SCHEDULER_LIMIT_S)
    except OSError as error:
        raise ConfigError(f"--cluster {arguments.cluster}: no Dask scheduler answers there ({error})") from error
    with client:
        yield client.get_executor(pure=False)


def _frames(job: EvaluationJob) -> int:
    from human_scene_ros.commands.rig_recording import camera_topics
    from human_scene_ros.sources.bag_reader import BagReader

    with BagReader(job.path) as bag:
        counts = [bag.topics[t].count for t in ([job.image] if job.image else camera_topics(bag).values())]
    return sum(min(count, job.max_frames) if job.max_frames else count for count in counts)
