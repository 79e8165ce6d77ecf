"""One sequence of `human-scene evaluate bag` in a process of its own: `python -m ...evaluate_job FOLDER`.

FOLDER/job.json says what to do; result and tables are written beside it. A process of its own, because what makes
the numbers the same everywhere (`fixed_environment`) must be set before numpy and torch are loaded, and because a
crash must cost one sequence only. It prints the number of frames done, one per line, for whoever shows progress.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from human_scene_ros.errors import HumanSceneError, SourceError

if TYPE_CHECKING:
    from human_scene_ros.scene import CameraFrame, SceneEstimate
    from human_scene_ros.sources.message_fields import FrameTruth

WORST_FRAMES = 6


@dataclasses.dataclass(frozen=True)
class EvaluationJob:
    """What to evaluate and how; the same job on the same files gives the same numbers.

    Args:
        name: Of the sequence.
        path: Recording with the images.
        image: Image topic; "" = the only one.
        info: CameraInfo topic; "" = beside the image.
        truth: Recording with the truth; "" = the same.
        preset: Network preset.
        checkpoint: Weights; "" = those that ship with the preset.
        body: SMPL-X .npz; "" = the open body.
        device: "cpu" is the same everywhere; others are as deterministic as their libraries.
        engine: What runs the network: "torch" is the reference, "onnx" rounds otherwise. Never "auto", which
            chooses by timing.
        reset_interval: Frames between resets of the recurrent state; 0 = never.
        intrinsics: False hides the focal length from the stream.
        max_frames: Stop after so many; 0 = all.
        matching: See `EvaluationConfig`.
        chunk: See `EvaluationConfig`.
        pictures: Keep pictures of the worst frames and of depth.
        rig: "" = one camera; "given", "people" = all cameras of the recording together, see `evaluate_rig`.
        stitch: Moments of the truth that a rig is reconstructed from at a time; 0 = all.
        fast: Other last digits on processors of another maker, see `fixed_environment`.
    """

    name: str
    path: str
    image: str = ""
    info: str = ""
    truth: str = ""
    preset: str = "nano"
    checkpoint: str = ""
    body: str = ""
    device: str = "cpu"
    engine: str = "torch"
    reset_interval: int = 0
    intrinsics: bool = True
    max_frames: int = 0
    matching: str = "heads"
    chunk: int = 100
    pictures: bool = True
    rig: Literal["", "given", "people"] = ""
    stitch: int = 0
    fast: bool = False


def fixed_environment(fast: bool = False) -> dict[str, str]:
    """Variables that make numpy, MKL, oneDNN and torch use one thread and add up in one order.

    Otherwise they choose by processor, sums change in their last bits, and thresholds on them change frames.

    Args:
        fast: MKL, too, uses AVX2: half the time, but it does so on Intel's processors only. "COMPATIBLE" is the one
            order of sums that it keeps everywhere.
    """
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
             "MKL_CBWR": "AVX2" if fast else "COMPATIBLE",
             "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
             "PYTHONHASHSEED": "0"}
    try:
        numpy: Any = importlib.import_module("numpy._core._multiarray_umath")
    except ImportError:  # numpy 1: another name, the same lists
        numpy = importlib.import_module("numpy.core._multiarray_umath")
    wide = [f for f in numpy.__cpu_dispatch__
            if (f == "X86_V4" or f.startswith("AVX512")) and numpy.__cpu_features__.get(f)]
    if wide:
        fixed["NPY_DISABLE_CPU_FEATURES"] = " ".join(wide)
    return fixed


def run_job(folder: Path | str, on_frame: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Run FOLDER/job.json in a process and return its result; may be called on another machine with the same files.

    Raises:
        SourceError: The job could not be done; the text is the job's own.
    """
    told = json.loads((Path(folder) / "job.json").read_text(encoding="utf-8"))["job"]
    environment = {**os.environ, **fixed_environment(told.get("fast", False)), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-m", "human_scene_ros.commands.evaluate_job", str(folder)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                               env=environment)
    assert process.stdout is not None and process.stderr is not None
    complaints: list[str] = []
    listener = threading.Thread(target=lambda: complaints.extend(process.stderr or ()), daemon=True)
    listener.start()
    try:
        for _ in process.stdout:
            on_frame()
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    listener.join()
    if code != 0:
        said = [line.rstrip() for line in complaints if line.strip()]
        raise SourceError(said[-1] if said else f"the evaluation in {folder} ended with exit code {code}")
    return dict(json.loads((Path(folder) / "result.json").read_text(encoding="utf-8")))


def evaluate_job(folder: Path, job: EvaluationJob, on_frame: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Every frame of one camera (or of a rig) of one recording through the stream, in this process.

    Raises:
        SourceError: The recording cannot be read, has no truth, or none of its frames can be used.
    """
    if job.rig:
        from human_scene_ros.commands.evaluate_rig import evaluate_rig_job

        return evaluate_rig_job(folder, job, on_frame)

    from human_scene_ros.commands.evaluation_output import provenance, write_sequence
    from human_scene_ros.evaluation.sequence import EvaluationConfig, SequenceEvaluation
    from human_scene_ros.runtime.engine import make_stream
    from human_scene_ros.runtime.stream import StreamConfig
    from human_scene_ros.sources.reader import open_source

    evaluation = SequenceEvaluation(EvaluationConfig(matching=job.matching, chunk=job.chunk))  # type: ignore[arg-type]
    keeper = PictureKeeper()
    rejected: list[str] = []
    with open_source(job.path, job.image or None, job.info or None) as source, (
            open_source(job.truth, job.image or None) if job.truth else source) as truths:
        if not truths.has_truth:
            raise SourceError(f"{truths.name} holds no truth (/gt/bodies or /gt/camera_pose): convert a data set with "
                              "`human-scene convert dataset`, or name a recording that has it with --truth")
        stream = make_stream(job.preset, job.checkpoint or None, job.body or None, job.device, 1,
                             StreamConfig(reset_interval=job.reset_interval), job.engine)  # type: ignore[arg-type]
        source.on_rejected = lambda error: rejected.append(str(error))
        middle = (job.max_frames or source.frame_count or 1) // 2
        used = 0
        began, cpu_began = time.perf_counter(), time.process_time()
        for index, frame in enumerate(source):
            if job.max_frames and index >= job.max_frames:
                break
            truth = truths.truth_at(frame.stamp_ns)
            if not job.intrinsics:
                frame = dataclasses.replace(frame, camera=None)
            step_began = time.perf_counter()
            try:
                estimate: SceneEstimate | None = stream.step(frame)
            except HumanSceneError as error:
                rejected.append(str(error))
                estimate = None
            used += estimate is not None
            latency_ms = (time.perf_counter() - step_began) * 1e3
            evaluation.add(estimate, truth, stamp_ns=frame.stamp_ns, latency_ms=latency_ms)
            if job.pictures:
                keeper.add(evaluation.frame_count - 1, evaluation.badness(), frame, estimate, truth, middle)
            on_frame()
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    if not used:
        raise SourceError(f"no frame of {job.path} could be used; the last reason: "
                          f"{rejected[-1] if rejected else 'there was none'}")
    result = evaluation.finish()
    info = stream.weights
    weights = None if info is None else {"name": info.name, "sha256": info.sha256, "note": info.note}
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return write_sequence(folder, job.name, result, {
        "path": job.path, "image": job.image, "dataset": dataset_of(Path(job.path)), "dropped": 0,
        "rejected": len(rejected), "last_rejection": rejected[-1] if rejected else None,
        "system": {"fps": evaluation.frame_count / wall_s, "wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_mib": peak_mib},
        "pictures": keeper.write(folder), "origin": provenance(dataclasses.asdict(job), weights)})


def dataset_of(recording: Path) -> str | None:
    """The data set that the recording was made from, by its manifest.yaml; None without one.

    Sequences of EMDB say of which halves they are: "emdb1", "emdb2" or "emdb1+emdb2".
    """
    import yaml

    from human_scene_ros.sources.bag_writer import MANIFEST

    try:
        content = yaml.safe_load((recording / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    if not isinstance(content, dict) or "dataset" not in content:
        return None
    return "+".join(half for half in ("emdb1", "emdb2") if content.get(half)) or str(content["dataset"])


class PictureKeeper:
    """Keeps the worst frame of each second of a sequence, a few in all, and one example of depth."""

    def __init__(self) -> None:
        self._worst: dict[int, tuple[float, int, Any]] = {}
        self._depth: tuple[int, Any, float, float] | None = None

    def add(self, index: int, badness: float, frame: CameraFrame, estimate: SceneEstimate | None,
            truth: FrameTruth | None, middle: int) -> None:
        """One frame; pictures are drawn only for those that may stay."""
        from human_scene_ros.viewer.evaluation_figures import depth_example, people_overlay

        if truth is not None and math.isfinite(badness) and badness > 0:
            second = frame.stamp_ns // 1_000_000_000
            bar = self._worst.get(second, (0.0, 0, None))[0]
            others = sorted((b for s, (b, _, _) in self._worst.items() if s != second), reverse=True)
            if badness > bar and (len(others) < WORST_FRAMES or badness > others[WORST_FRAMES - 1]):
                self._worst[second] = (badness, index, people_overlay(frame.image, estimate, truth))
                if len(self._worst) > WORST_FRAMES:
                    del self._worst[min(self._worst, key=lambda s: self._worst[s][0])]
        # The first frame with depth, until one from the middle of the sequence comes.
        wanted = self._depth is None or self._depth[0] < middle <= index
        if wanted and truth is not None and truth.depth_m is not None and estimate is not None:
            self._depth = (index, *depth_example(frame.image, estimate, truth.depth_m))

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the pictures; returns their file names and what they show."""
        from human_scene_ros.sources.image_codec import encode_jpeg

        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
        worst = []
        for rank, (badness, index, picture) in enumerate(sorted(self._worst.values(), key=lambda w: (-w[0], w[1]))):
            file = f"worst_{rank}.jpg"
            (folder / file).write_bytes(encode_jpeg(picture, 82))
            worst.append({"file": file, "frame": index, "error": badness})
        depth = None
        if self._depth is not None:
            index, picture, low, high = self._depth
            (folder / "depth.jpg").write_bytes(encode_jpeg(picture, 85))
            depth = {"file": "depth.jpg", "frame": index, "near_m": low, "far_m": high}
        return {"worst": worst, "depth": depth}


def main(argv: list[str]) -> int:
    """Run the job of one folder."""
    folder = Path(argv[0])
    job = EvaluationJob(**json.loads((folder / "job.json").read_text(encoding="utf-8"))["job"])
    done = 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        print(done)

    try:
        evaluate_job(folder, job, on_frame)
    except HumanSceneError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
